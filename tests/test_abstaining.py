"""What the page on abstaining relies on: calibration and conformal sets of a CXRClassifier."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold

from skcxr import CXRClassifier, make_cxr_phantoms
from skcxr.outliers import OutlierGate

mapie = pytest.importorskip("mapie.classification")

OPTIONS = {"n_classes": 3, "image_size": 32, "noise": 2.0}


@pytest.fixture(scope="module")
def overconfident():
    """A network that has learnt 60 films by heart."""
    train = make_cxr_phantoms(60, n_patients=30, random_state=0, **OPTIONS)
    clf = CXRClassifier(
        max_epochs=60, label_smoothing=0.0, augmentation=None, lr=0.01, random_state=0
    )
    return clf.fit(train.data, train.target)


@pytest.fixture(scope="module")
def films():
    """200 films of 200 other patients, mixed."""
    drawn = make_cxr_phantoms(200, n_patients=200, random_state=1, **OPTIONS)
    order = np.random.default_rng(0).permutation(200)
    return drawn.data[order], drawn.target[order]


def held(sets, y, classes):
    return sets[np.arange(len(y)), np.searchsorted(classes, y), 0]


def test_temperature_mends_an_overconfident_network_and_changes_no_prediction(overconfident, films):
    X, y = films
    calibrated = CalibratedClassifierCV(FrozenEstimator(overconfident), method="temperature")
    calibrated.fit(X[:100], y[:100])
    before, after = (m.predict_proba(X[100:]) for m in (overconfident, calibrated))
    assert log_loss(y[100:], after) < log_loss(y[100:], before) - 0.05
    np.testing.assert_array_equal(before.argmax(1), after.argmax(1))


@pytest.mark.parametrize("score", ["lac", "aps"])
@pytest.mark.parametrize("level", [0.7, 0.9])
def test_sets_hold_the_true_class_as_often_as_is_asked_for(overconfident, films, score, level):
    """Over many splits of the same films: of one split the share has a binomial spread."""
    X, y = films
    shares = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(y))
        first, rest = order[:100], order[100:]
        conformal = mapie.SplitConformalClassifier(
            _Known(overconfident, X), confidence_level=level, conformity_score=score, random_state=0
        ).conformalize(first[:, None], y[first])
        sets = conformal.predict_set(rest[:, None])[1]
        shares.append(held(sets, y[rest], overconfident.classes_).mean())
    assert np.mean(shares) >= level - 0.04
    if score == "lac":  # "aps" holds more
        assert np.mean(shares) <= level + 0.04


class _Known(FrozenEstimator):
    """A classifier of rows of X, which computes its probabilities once."""

    def __init__(self, estimator, X):
        super().__init__(estimator)
        self.X = X

    def predict_proba(self, index):
        if not hasattr(self.estimator, "proba_of_all"):
            self.estimator.proba_of_all = self.estimator.predict_proba(self.X)
        return self.estimator.proba_of_all[np.ravel(index)]

    def predict(self, index):
        return self.classes_[self.predict_proba(index).argmax(1)]


def test_mapie_takes_arrays_and_files(overconfident, films, tmp_path):
    X, y = films[0][:40], films[1][:40]
    paths = [str(tmp_path / f"{k}.png") for k in range(40)]
    for path, image in zip(paths, X, strict=True):
        Image.fromarray(image).save(path)
    wanted = None
    for same in (X, X[:, None], np.array(paths), pd.Series(paths), pd.DataFrame({"path": paths})):
        conformal = mapie.SplitConformalClassifier(
            overconfident, confidence_level=0.8, random_state=0
        )
        sets = conformal.conformalize(same, y).predict_set(same)[1]
        wanted = sets if wanted is None else wanted
        np.testing.assert_array_equal(sets, wanted)


def test_cross_conformal_sets_are_of_folds_of_patients():
    drawn = make_cxr_phantoms(60, n_patients=20, random_state=3, **OPTIONS)
    seen = []

    class Watched(GroupKFold):
        def split(self, X, y=None, groups=None):
            for train, test in super().split(X, y, groups):
                seen.append(set(groups[train]) & set(groups[test]))
                yield train, test

    crossed = mapie.CrossConformalClassifier(
        CXRClassifier(max_epochs=2, random_state=0),
        confidence_level=0.8,
        cv=Watched(3),
        random_state=0,
    ).fit_conformalize(drawn.data, drawn.target, groups=drawn.groups)
    new = make_cxr_phantoms(60, n_patients=60, random_state=4, **OPTIONS)
    sets = crossed.predict_set(new.data)[1]
    assert seen
    assert not any(seen)
    classes = np.unique(drawn.target)
    assert held(sets, new.target, classes).mean() >= 0.6  # 0.8 is asked for, of 20 patients


def test_refused_films_get_no_class(overconfident, films):
    X = films[0]
    gate = OutlierGate(n_synthetic=600, random_state=0).fit(X[:100])
    mixed = np.concatenate([X[100:120], np.rot90(X[120:140], 2, (1, 2))])
    answers = np.where(gate.predict(mixed) == 1, overconfident.predict(mixed), "refused")
    assert (answers[20:] == "refused").all()
    assert (answers[:20] != "refused").mean() >= 0.9
