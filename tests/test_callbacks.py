"""scikit-learn's callbacks and skorch's."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import skorch.callbacks
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skcxr import CXRClassifier, ImageLoader
from skcxr._callbacks import CALLBACKS

pytestmark = pytest.mark.skipif(not CALLBACKS, reason="scikit-learn has callbacks from 1.9 on")


def small(**params):
    return CXRClassifier(
        **{"backbone": "smallnet", "max_epochs": 3, "random_state": 0, "image_size": 16, **params}
    )


class Recorder:
    """What it was told; a callback of scikit-learn's protocol."""

    def __init__(self, stop_after=None):
        self.tasks, self.kept, self.calls, self.stop_after = [], [], [], stop_after

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        self.tasks.append((context.task_name, context.max_subtasks))
        assert X is not None
        assert y is not None

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if context.task_name == "epoch":
            self.kept.append(fitted_estimator)
            return self.stop_after == len(self.kept)
        return False


def test_every_epoch_is_a_task_of_the_fit(files, images):
    recorder = Recorder()
    small().set_callbacks(recorder).fit(files, images[1])
    assert recorder.tasks == [("fit", 3)] + 3 * [("epoch", 0)]
    assert recorder.calls == ["setup", "teardown"]


def test_callbacks_change_nothing_and_stay_out_of_the_net(files, images):
    plain = small().fit(files, images[1])
    recorder = Recorder()
    told = small().set_callbacks(recorder).fit(files, images[1])
    assert_array_equal(told.predict_proba(files), plain.predict_proba(files))
    told.set_callbacks()
    assert abs(len(pickle.dumps(told)) - len(pickle.dumps(plain))) < 100


def test_what_a_callback_keeps_is_the_classifier_of_that_epoch(files, images):
    recorder = Recorder()
    clf = small(lr_schedule=None).set_callbacks(recorder).fit(files, images[1])
    for n_epochs, kept in enumerate(recorder.kept, start=1):
        shorter = small(lr_schedule=None, max_epochs=n_epochs).fit(files, images[1])
        assert_array_equal(kept.predict_proba(files), shorter.predict_proba(files))
        assert kept.n_iter_ == n_epochs
    assert_array_equal(recorder.kept[-1].predict(files), clf.predict(files))


def test_a_callback_may_stop_the_fit(files, images):
    recorder = Recorder(stop_after=2)
    clf = small(max_epochs=9, lr_schedule=None).set_callbacks(recorder).fit(files, images[1])
    assert clf.n_iter_ == 2
    expected = small(max_epochs=2, lr_schedule=None).fit(files, images[1])
    assert_array_equal(clf.predict_proba(files), expected.predict_proba(files))
    assert recorder.calls == ["setup", "teardown"]


def test_early_stopping_and_errors_leave_no_task_open(files, images):
    recorder = Recorder()
    clf = small(early_stopping=True, n_iter_no_change=1, lr=1e-9, max_epochs=50)
    clf.set_callbacks(recorder).fit(files, images[1], groups=np.arange(24))
    assert len(recorder.kept) == len([task for task in recorder.tasks if task[0] == "epoch"])
    failing = Recorder()
    with pytest.raises(RuntimeError):
        small(lr=1e30, optimizer="sgd").set_callbacks(failing).fit(files, images[1])
    assert failing.calls == ["setup", "teardown"]


@pytest.mark.parametrize("max_propagation_depth", [1, None])
def test_progress_bar_shows_epochs_alone_in_a_pipeline_and_in_a_search(
    max_propagation_depth, files, images, capsys
):
    from sklearn.callback import ProgressBar

    pipeline = make_pipeline(ImageLoader(16), small(image_size="auto"))
    search = GridSearchCV(small(), {"lr": [0.001, 0.01]}, cv=2)
    for model in (small(), pipeline, search):
        bar = ProgressBar(max_propagation_depth=max_propagation_depth)
        clone(model).set_callbacks(bar).fit(files, images[1])
        assert "CXRClassifier" in capsys.readouterr().out


def test_scoring_monitor_logs_every_epoch(files, images):
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    clf = small(max_epochs=4).set_callbacks(monitor).fit(files, images[1])
    log = monitor.get_logs().data_as_pandas
    assert (log["task_name"] == "epoch").sum() == 4
    last = log[log["task_name"] == "epoch"]["accuracy"].iloc[-1]
    assert last == clf.score(files, images[1])
    monitor = ScoringMonitor(scoring="accuracy")
    GridSearchCV(small().set_callbacks(monitor), {"lr": [0.001, 0.01]}, cv=2).fit(files, images[1])
    log = monitor.get_logs().data_as_pandas
    assert (log["task_name"] == "epoch").sum() == 5 * 3  # 2 x 2 candidates and the refit


def test_skorch_callbacks_are_cloned_and_called(files, images):
    lines = io.StringIO()
    log = skorch.callbacks.PrintLog(sink=lambda text: lines.write(f"{text}\n"))
    before = dict(vars(log))
    clf = small(net_params={"callbacks": [log]}, verbose=2).fit(files, images[1])
    assert vars(log) == before
    assert clf.get_params()["net__callbacks"] == [log]
    clone(clf).set_params(net__callbacks=None).fit(files, images[1])
