"""One fitted estimator, used by many: threads, processes, thousands of predictions."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skcxr import CXRClassifier, CXRFeatures, ImageLoader, make_cxr_phantoms
from skcxr.outliers import OutlierGate

N_THREADS = 8


def answering(model):
    """The method that answers; in a process of its own, no function of this module is found."""
    for method in ("predict_proba", "transform", "score_samples"):
        if hasattr(model, method):
            return getattr(model, method)
    raise AssertionError(model)


def answer(model, X):
    with warnings.catch_warnings():
        return answering(model)(X)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "films"
    return make_cxr_phantoms(24, n_classes=2, image_size=40, random_state=0, save_to=folder)


MODELS = {
    "files": lambda folder: CXRClassifier("cxrnet", image_size=32, max_epochs=1, random_state=0),
    "test-time augmentation": lambda folder: CXRClassifier(
        "smallnet", image_size=24, max_epochs=1, random_state=0, tta=3
    ),
    "unreadable": lambda folder: CXRClassifier(
        "smallnet", image_size=24, max_epochs=1, random_state=0, on_error="nan"
    ),
    "cache": lambda folder: CXRClassifier(
        "smallnet", image_size=24, max_epochs=1, random_state=0, memory=folder
    ),
    "cached embeddings": lambda folder: CXRClassifier(
        "smallnet", image_size=24, max_epochs=1, random_state=0, memory=folder, freeze="backbone"
    ),
    "features": lambda folder: CXRFeatures(
        "cxrnet", weights=None, image_size=32, random_state=0, layer=[1, None]
    ),
    "gate": lambda folder: OutlierGate(n_synthetic=100, random_state=0),
    "pipeline": lambda folder: make_pipeline(
        ImageLoader(24, memory=folder), CXRClassifier("smallnet", max_epochs=1, random_state=0)
    ),
    "pipeline of rows": lambda folder: make_pipeline(
        ImageLoader(8, output="rows", n_jobs=2), LogisticRegression()
    ),
}


def portions(name, paths):
    if name == "unreadable":
        paths = [*paths[:5], "gone.png", *paths[5:]]
    return [paths[k : k + 6] for k in range(N_THREADS)]


@pytest.mark.filterwarnings("ignore::skcxr.ImageReadWarning")
@pytest.mark.parametrize("name", MODELS)
def test_eight_threads_get_what_one_gets(name, films, tmp_path):
    paths = list(films.data)
    parts = portions(name, paths)
    alone = MODELS[name](None).fit(paths, films.target)
    expected = [answer(alone, part) for part in parts]
    model = MODELS[name](tmp_path).fit(paths, films.target)
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = list(pool.map(lambda part: answer(model, part), parts * 2))
    for one, other in zip(found, expected * 2, strict=True):
        if name == "cached embeddings":  # of other batches, to the rounding of float32
            np.testing.assert_allclose(one, other, rtol=1e-5)
        else:
            assert_array_equal(one, other)


def test_threads_predict_and_fit_side_by_side(films):
    paths = list(films.data)
    model = MODELS["files"](None).fit(paths, films.target)
    pixels = ImageLoader(32).transform(paths)
    expected = model.predict_proba(paths)
    fitted = [MODELS["files"](None).fit(paths, films.target).predict_proba(paths)]

    def run(k):
        if k % 4 == 0:
            fitted.append(MODELS["files"](None).fit(paths, films.target).predict_proba(paths))
            return expected
        return model.predict_proba(paths if k % 2 else pixels)

    with ThreadPoolExecutor(N_THREADS) as pool:
        for found in pool.map(run, range(12)):
            assert_array_equal(found, expected)
    for found in fitted:
        assert_array_equal(found, expected)


@pytest.mark.slow
def test_processes_of_joblib_get_the_same_to_the_bit(films):
    paths = list(films.data)
    models = [MODELS[name](None).fit(paths, films.target) for name in ("files", "features", "gate")]
    found = Parallel(2)(delayed(answering(model))(paths) for model in models)
    for one, model in zip(found, models, strict=True):
        if isinstance(model, OutlierGate):  # BLAS adds in another order with other threads
            np.testing.assert_allclose(one, answer(model, paths), rtol=1e-12)
        else:
            assert_array_equal(one, answer(model, paths))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_of_python_get_the_same_to_the_bit(method, films):
    paths = list(films.data)
    models = [MODELS[name](None).fit(paths, films.target) for name in ("files", "features", "gate")]
    with multiprocessing.get_context(method).Pool(2) as pool:
        waited = [pool.apply_async(answering(model), (paths,)) for model in models]
        found = [result.get(120) for result in waited]
    for one, model in zip(found, models, strict=True):
        if isinstance(model, OutlierGate):  # BLAS adds in another order with other threads
            np.testing.assert_allclose(one, answer(model, paths), rtol=1e-12)
        else:
            assert_array_equal(one, answer(model, paths))


_FORKS = """
import faulthandler, os, sys, threading, time, torch
from skcxr import CXRClassifier, make_cxr_phantoms, read_image
from skcxr import _quiet
torch.set_num_threads(2)
films = make_cxr_phantoms(24, n_classes=2, image_size=40, random_state=0)
def fit(n_epochs=1):
    clf = CXRClassifier("cxrnet", max_epochs=n_epochs, random_state=0)
    return clf.fit(films.data, films.target)
model = fit()
expected = model.predict_proba(films.data).tobytes()
def child():
    with _quiet._lock:  # as if another thread began to read
        pid = os.fork()
        if pid != 0:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        faulthandler.dump_traceback_later(60, exit=True)
        read_image(sys.argv[1])
        same = model.predict_proba(films.data).tobytes() == expected
        os._exit(0 if same and fit().predict_proba(films.data).tobytes() == expected else 3)
codes = [child()]
thread = threading.Thread(target=fit, args=(40,))
thread.start()
time.sleep(0.3)
busy = thread.is_alive()
codes += [child(), child()]
thread.join()
print(codes, busy)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_predicts_and_fits_also_while_another_thread_fits(films):
    """OpenMP's threads and the holder of a lock do not come along."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKS, films.data[0]],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.stdout.strip() == "[0, 0, 0] True", done.stderr


# --------------------------------------------------------------------------------------------
# what is left behind
# --------------------------------------------------------------------------------------------

linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc is Linux's")


def belongings():
    """Open files and pipes, and children of this process.

    Without sockets and what the kernel makes: those of other tests' servers come and go.
    """
    gc.collect()  # queues of workers that have ended
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    held = Counter()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the folder itself, closed by now
            held[os.readlink(f"/proc/self/fd/{descriptor}").partition(":")[0]] += 1
    for name in ("socket", "anon_inode"):
        held.pop(name, None)
    return held, set(children.read_text().split() if children.exists() else [])


@linux
@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_workers_leaves_nothing(films):
    code = (
        "import os, signal, sys, threading; from skcxr import CXRClassifier; "
        "paths = sys.argv[1:]; "
        "clf = CXRClassifier('smallnet', image_size=24, max_epochs=100000, num_workers=2); "
        "threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start(); "
        "clf.fit(paths, [k % 2 for k in range(len(paths))])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *films.data], stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    _, said = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in said
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("workers outlived their process")


@linux
def test_thousands_of_files_and_predictions_leave_no_file_open(films):
    paths = list(films.data)
    clf = CXRClassifier("smallnet", image_size=24, max_epochs=1, random_state=0, num_workers=2).fit(
        paths, films.target
    )
    clf.predict_proba(paths)
    before = belongings()
    assert clf.predict_proba((paths * 209)[:5000]).shape == (5000, 2)
    clf.set_params(num_workers=0)
    for path in paths:
        clf.predict_proba([path])
    after = belongings()
    assert not after[0] - before[0]
    assert after[1] <= before[1]  # those of other tests may have ended in the meantime


@linux
@pytest.mark.slow
def test_ten_thousand_predictions_hold_memory_flat(films):
    def resident():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    paths = list(films.data)
    clf = CXRClassifier("smallnet", image_size=24, max_epochs=1, random_state=0)
    clf.fit(paths, films.target)
    pixels = ImageLoader(24).transform(paths)
    for predict in (
        lambda k: clf.predict_proba([paths[k % 24]]),
        lambda k: clf.predict_proba(pixels[k % 24][None]),
    ):
        for k in range(500):
            predict(k)
        before = resident()
        for k in range(5000):
            predict(k)
        assert resident() - before < 5
