"""Prediction in shards: the same numbers, whole tables, and what is missing is what is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

from skcxr import (
    CXRClassifier,
    CXRFeatures,
    InputError,
    ModelFileError,
    PredictionError,
    distributed,
    save_model,
)
from skcxr.distributed import PredictedFiles, predict


@pytest.fixture(autouse=True)
def _unmoved():
    """Dask's own threads draw from python's global generator."""


@pytest.fixture(autouse=True)
def _limit():
    """What waits for a worker that never answers is a failure, not a hang."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def give_up(*_):
        raise TimeoutError("a test of the cluster took 180 seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(180)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def clf(files, images):
    return CXRClassifier("smallnet", image_size=20, max_epochs=2, random_state=0).fit(
        files, images[1]
    )


@pytest.fixture(scope="module")
def cluster():
    dask = pytest.importorskip("dask.distributed")
    with (
        dask.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=None
        ) as cluster,
        dask.Client(cluster, set_as_default=False) as client,  # a user may have several
    ):
        yield client


@pytest.fixture(params=["here", "cluster"])
def client(request):
    return request.getfixturevalue("cluster") if request.param == "cluster" else None


@pytest.fixture(params=["csv", "parquet"])
def kind(request):
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return request.param


def in_shards(clf, paths, size):
    return np.concatenate([
        clf.predict_proba(paths[start : start + size]) for start in range(0, len(paths), size)
    ])  # fmt: skip


def tables(folder):
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in folder.glob("part-*")}


def test_the_numbers_are_those_of_predict_proba(clf, files, client, kind, tmp_path):
    done = predict(clf, files, tmp_path / "out", shard_size=5, table_format=kind, client=client)
    assert isinstance(done, PredictedFiles)
    assert (len(done.tables), done.n_files, done.failures) == (5, 24, [])
    frame = done.to_frame()
    assert list(frame["path"]) == files
    assert list(frame.columns[1:3]) == ["probability of h", "probability of v"]
    proba = frame.iloc[:, 1:3].to_numpy()
    assert np.array_equal(proba, in_shards(clf, files, 5))
    assert np.allclose(proba, clf.predict_proba(files), atol=1e-6)
    assert (frame["error"] == "").all()


def test_a_folder_of_parquet_is_one_table_for_others(clf, files, tmp_path):
    pytest.importorskip("pyarrow")
    done = predict(clf, files, tmp_path / "out", shard_size=10)
    assert pd.read_parquet(tmp_path / "out").equals(done.to_frame())


def test_files_that_cannot_be_read_are_listed(clf, files, client, kind, tmp_path):
    torn, gone = str(tmp_path / "torn.png"), str(tmp_path / "gone.png")
    Path(torn).write_bytes(Path(files[0]).read_bytes()[:60])
    paths = [*files[:6], torn, *files[6:9], gone]
    out = tmp_path / "out"
    done = predict(clf, paths, out, shard_size=4, table_format=kind, client=client)
    assert [(position, path) for position, path, _ in done.failures] == [(6, torn), (10, gone)]
    assert all(reason for _, _, reason in done.failures)
    frame = done.to_frame()
    assert list(np.flatnonzero(frame["error"])) == [6, 10]
    proba = frame.iloc[:, 1:3].to_numpy()
    assert list(np.flatnonzero(np.isnan(proba).any(axis=1))) == [6, 10]
    whole = [k for k in range(11) if k not in (6, 10)]
    assert np.allclose(proba[whole], clf.predict_proba([paths[k] for k in whole]), atol=1e-6)
    listed = pd.read_csv(out / "_failures.csv")
    assert list(listed["path"]) == [torn, gone]
    assert predict(clf, paths, out, shard_size=4) == done  # and again, from what is there


def test_what_is_there_is_not_predicted_again(clf, files, client, tmp_path):
    out = tmp_path / "out"
    first = predict(clf, files, out, shard_size=5, client=client)
    before = tables(out)
    os.unlink(first.tables[1])
    Path(first.tables[3]).write_bytes(b"torn")
    (out / f".{Path(first.tables[1]).name}.0123.draft").write_bytes(b"what a killed one has left")
    assert predict(clf, files, out, shard_size=5, client=client) == first
    after = tables(out)
    assert {name: content for name, (_, content) in before.items()} == {
        name: content for name, (_, content) in after.items()
    }
    same = [after[Path(name).name][0] == before[Path(name).name][0] for name in first.tables]
    assert (same[0], same[2], same[4]) == (True, True, True)
    assert not list(out.glob(".*"))


def test_a_saved_model_and_one_in_memory_are_the_same(clf, files, tmp_path):
    save_model(clf, tmp_path / "model")
    first = predict(tmp_path / "model", files, tmp_path / "out")
    before = tables(tmp_path / "out")
    assert predict(clf, files, tmp_path / "out") == first
    assert tables(tmp_path / "out") == before


def test_tables_of_something_else_are_refused(clf, files, images, tmp_path):
    out = tmp_path / "out"
    predict(clf, files, out, shard_size=10)
    before = tables(out)
    for paths, size in ((files[::-1], 10), (files[:20], 10), (files, 12)):
        with pytest.raises(InputError, match="not of these paths"):
            predict(clf, paths, out, shard_size=size)
    other = CXRClassifier("smallnet", image_size=20, max_epochs=2, random_state=1)
    with pytest.raises(InputError, match="another model"):
        predict(other.fit(files, images[1]), files, out, shard_size=10)
    assert tables(out) == before


def test_what_cannot_be_used_is_told(clf, files, images, tmp_path):
    with pytest.raises(InputError, match="empty"):
        predict(clf, [], tmp_path / "out")
    with pytest.raises(InputError, match="holds no paths"):
        predict(clf, images[0], tmp_path / "out")
    with pytest.raises(InputError, match="is a file"):
        predict(clf, files, files[0])
    with pytest.raises(ModelFileError):
        predict(tmp_path / "nothing", files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_that_fail_do_not_stop_the_others(clf, files, tmp_path, monkeypatch):
    put = distributed._put

    def full(content, file):
        if "part-000001" in file:
            raise OSError(28, "No space left on device")
        put(content, file)

    monkeypatch.setattr(distributed, "_put", full)
    with pytest.raises(PredictionError, match=r"1 of 5 shards .* 5 to 9\): OSError") as caught:
        predict(clf, files, tmp_path / "out", shard_size=5)
    assert isinstance(caught.value.__cause__, OSError)
    assert len(tables(tmp_path / "out")) == 4
    monkeypatch.setattr(distributed, "_put", put)
    assert len(predict(clf, files, tmp_path / "out", shard_size=5).tables) == 5


def test_a_fault_of_all_shards_ends_the_run(clf, files, tmp_path, monkeypatch):
    tries = []

    def full(content, file):
        tries.append(file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(distributed, "_put", full)
    with pytest.raises(PredictionError, match="10 of 24 shards"):
        predict(clf, files, tmp_path / "out", shard_size=1)
    assert len(tries) == 10


def test_shards_that_fail_here_and_there_do_not_end_the_run(clf, files, tmp_path, monkeypatch):
    put = distributed._put

    def every_other(content, file):
        if int(Path(file).name.split("-")[1]) % 2:
            raise OSError(5, "Input/output error")
        put(content, file)

    monkeypatch.setattr(distributed, "_put", every_other)
    with pytest.raises(PredictionError, match="12 of 24 shards"):
        predict(clf, files, tmp_path / "out", shard_size=1)
    assert len(tables(tmp_path / "out")) == 12


def test_no_shard_is_predicted_by_the_model_of_another_run(
    clf, files, images, tmp_path, monkeypatch
):
    """Two runs may begin in one empty folder at the same time."""
    other = CXRClassifier("smallnet", image_size=20, max_epochs=1, random_state=1)
    other.fit(files, images[1])
    keep = distributed._keep_model

    def and_another(model, folder, there):
        mark = keep(model, folder, there)
        save_model(other, os.path.join(folder, "_model"))
        return mark

    monkeypatch.setattr(distributed, "_keep_model", and_another)
    with pytest.raises(PredictionError, match="another model"):
        predict(clf, files, tmp_path / "out")
    assert not tables(tmp_path / "out")


def test_tables_of_another_run_at_the_same_time_are_told(clf, files, tmp_path, monkeypatch):
    out = tmp_path / "out"
    put = distributed._put

    def and_another(content, file):
        put(content, file)
        (out / "part-000000-0123456789abcdef.csv").write_bytes(b"of another run")

    monkeypatch.setattr(distributed, "_put", and_another)
    with pytest.raises(InputError, match="not of these paths"):
        predict(clf, files, out)


def test_a_draft_that_another_run_cleared_away_is_no_fault(tmp_path, monkeypatch):
    replace, table = os.replace, str(tmp_path / "part")

    def cleared(draft, file):
        os.unlink(draft)
        replace(draft, file)

    monkeypatch.setattr(distributed.os, "replace", cleared)
    with pytest.raises(FileNotFoundError):  # nobody has written the table
        distributed._put(b"mine", table)
    Path(table).write_bytes(b"theirs")
    distributed._put(b"mine", table)
    assert Path(table).read_bytes() == b"theirs"


def test_what_is_no_column_for_each_class_is_told(files, images, tmp_path):
    pytest.importorskip("skops")
    features = CXRFeatures("smallnet", weights=None, image_size=20, random_state=0)
    model = make_pipeline(features, MultiOutputClassifier(LogisticRegression()))
    model.fit(files, np.stack([images[1] == "h", images[1] == "v"], axis=1))
    with pytest.raises(PredictionError, match=r"gives an array of shape \(2, 24, 2\) for 24 files"):
        predict(model, files, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_pipelines_that_need_every_image_get_those_that_are(files, images, kind, tmp_path):
    pytest.importorskip("skops")
    features = CXRFeatures("smallnet", weights=None, image_size=20, random_state=0)
    final = MLPClassifier(max_iter=2, random_state=0)  # whose probabilities are float32
    model = make_pipeline(features, final).fit(files, images[1])
    gone = str(tmp_path / "gone.png")
    paths = [*files[:3], gone, gone]
    done = predict(model, paths, tmp_path / "out", shard_size=2, table_format=kind)
    assert [failure.position for failure in done.failures] == [3, 4]
    proba = done.to_frame().iloc[:, 1:3].to_numpy()
    assert np.array_equal(proba[:2], model.predict_proba(files[:2]))
    assert np.allclose(proba[2], model.predict_proba(files[2:3])[0], atol=1e-6)
    assert np.isnan(proba[3:]).all()
    before = tables(tmp_path / "out")
    assert predict(model, paths, tmp_path / "out", shard_size=2) == done
    assert tables(tmp_path / "out") == before


@pytest.mark.parametrize("name", [b"\xff", b"a\rb", b'a\n"b",c'])
def test_odd_names_are_kept(clf, files, kind, name, tmp_path):
    path, gone = (os.fsencode(tmp_path) + b"/" + name + end for end in (b".png", b".gone"))
    try:
        Path(os.fsdecode(path)).write_bytes(Path(files[0]).read_bytes())
    except (OSError, UnicodeError, ValueError):
        pytest.skip("this file system has no such names")
    paths = [os.fsdecode(path), os.fsdecode(gone)]
    text = [path.encode("utf-8", "backslashreplace").decode() for path in paths]
    done = predict(clf, paths, tmp_path / "out", table_format=kind)
    assert [failure.path for failure in done.failures] == paths[1:]
    assert list(done.to_frame()["path"]) == text
    assert pd.read_csv(tmp_path / "out" / "_failures.csv")["path"][0] == text[1]
    before = tables(tmp_path / "out")
    assert predict(clf, paths, tmp_path / "out") == done
    assert tables(tmp_path / "out") == before


CHILD = """
import sys, time, warnings
from skcxr import distributed
put = distributed._put
def slow(content, file):
    put(content, file)
    time.sleep(0.5)
distributed._put = slow
distributed.predict(sys.argv[1], sys.argv[3:], sys.argv[2], shard_size=2)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(clf, files, tmp_path):
    save_model(clf, tmp_path / "model")
    out = tmp_path / "out"
    child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path / "model", out, *files])
    until = time.monotonic() + 60
    while len(tables(out)) < 3 and child.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    before = tables(out)
    assert 3 <= len(before) < 12
    done = predict(clf, files, out, shard_size=2)
    assert before.items() <= tables(out).items()
    assert np.array_equal(done.to_frame().iloc[:, 1:3].to_numpy(), in_shards(clf, files, 2))


@pytest.mark.slow
def test_workers_may_die(clf, files, cluster, tmp_path):
    """Both workers are killed at once in the middle; the shards are predicted by the next ones."""
    out = tmp_path / "out"
    pids = cluster.run(os.getpid)

    def watch():
        until = time.monotonic() + 60
        while not tables(out) and time.monotonic() < until:
            time.sleep(0.01)
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    done = predict(clf, files, out, shard_size=1, client=cluster)
    thread.join()
    assert len(done.tables) == 24
    assert np.array_equal(done.to_frame().iloc[:, 1:3].to_numpy(), in_shards(clf, files, 1))
    cluster.wait_for_workers(2, timeout=60)
    assert not set(pids.values()) & set(cluster.run(os.getpid).values())


# --------------------------------------------------------------------------------------------
# scikit-learn's own, through joblib's backend
# --------------------------------------------------------------------------------------------


def lists_of_folds(labels, n_splits=3):
    folds = StratifiedKFold(n_splits).split(labels, labels)
    return [(train.tolist(), test.tolist()) for train, test in folds]


def test_cross_validation_and_ensembles_are_the_same_on_a_cluster(files, images, cluster):
    labels = images[1].tolist()
    clf = CXRClassifier("smallnet", image_size=20, max_epochs=2, random_state=0)
    voting = VotingClassifier([("a", clf), ("b", clone(clf).set_params(lr=0.01))], voting="soft")
    folds = lists_of_folds(labels)
    expected = cross_val_score(clf, files, labels, cv=folds)
    proba = clone(voting).fit(files, labels).predict_proba(files)
    with joblib.parallel_config(backend="dask", client=cluster):
        np.testing.assert_array_equal(cross_val_score(clf, files, labels, cv=folds), expected)
        voting.set_params(n_jobs=2).fit(files, labels)
    np.testing.assert_array_equal(voting.predict_proba(files), proba)


@pytest.mark.slow
def test_a_search_survives_a_worker(files, images, cluster):
    labels = images[1].tolist()
    clf = CXRClassifier("smallnet", image_size=20, max_epochs=40, random_state=0)
    search = GridSearchCV(
        clf, {"lr": [0.0003, 0.001, 0.003, 0.01]}, cv=lists_of_folds(labels), refit=False
    )
    expected = clone(search).fit(files, labels).cv_results_["mean_test_score"]
    pids = sorted(cluster.run(os.getpid).values())

    def watch():
        until = time.monotonic() + 60
        while not any(cluster.processing().values()) and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    with joblib.parallel_config(backend="dask", client=cluster):
        search.fit(files, labels)
    thread.join()
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], expected)
    cluster.wait_for_workers(2, timeout=60)
    assert pids[0] not in cluster.run(os.getpid).values()
