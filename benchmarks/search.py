"""How long searches take: over features of a frozen network, and over fits of a network.

- A GridSearchCV of 12 settings and 5 folds over ``CXRFeatures(memory=...)``, StandardScaler and
  LogisticRegression (EfficientNet-Lite0, 224 px; the folder is empty at first), against features
  that are computed once by hand and searched as numbers, and against the same pipeline without
  ``memory=``, which is run with one setting and counted twelve times.
- A GridSearchCV with ``n_jobs=2`` over fits of CXRNet, against the same fits in two processes
  of one thread that are started by hand, half of the fits each, and against ``n_jobs=1``.
- A HalvingGridSearchCV over the same pipeline of features, against features by hand.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from joblib import cpu_count
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks._suite import (
    Missing,
    Options,
    Result,
    Scratch,
    compare,
    figure,
    films,
    paired,
    result,
)  # fmt: skip
from benchmarks.inference import BACKBONE
from skcxr import CXRClassifier, CXRFeatures

FROZEN = "12 settings x 5 folds over frozen features, EfficientNet-Lite0"
HAND = "features once by hand"


def run(options: Options) -> Iterator[Result | Missing]:
    """Features, then fits."""
    if importlib.util.find_spec("timm") is None:
        yield Missing("search", FROZEN, "all of them", 'pip install ".[timm]"')
    else:
        # BLAS on several threads is many times as slow where others compute too
        with threadpool_limits(options.threads):
            yield from over_features(options)
    yield from over_fits(options)


def over_features(options: Options) -> Iterator[Result]:
    """Searches of a linear model."""
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingGridSearchCV

    n_images, n_pairs = (12, 1) if options.quick else (309, options.repeat or 3)
    paths, labels = films(options, n_images)
    X = np.array(paths)
    values = np.logspace(-4, 1, 12)
    folds = StratifiedKFold(2 if options.quick else 5, shuffle=True, random_state=0)
    features = CXRFeatures(
        BACKBONE, weights=options.weights, image_size=224, device=options.device, random_state=0
    )
    rest = (StandardScaler(), LogisticRegression(max_iter=1000))

    def grid(model: Any, X: Any, values: Any = values) -> Any:
        return GridSearchCV(model, {"logisticregression__C": values}, cv=folds).fit(X, labels)

    def halving(model: Any, X: Any) -> Any:
        return HalvingGridSearchCV(
            model, {"logisticregression__C": values}, cv=folds, random_state=0
        ).fit(X, labels)

    def kept() -> Any:
        return make_pipeline(clone(features).set_params(memory=Scratch.new("kept")), *rest)

    def by_hand(search: Any) -> Any:
        return search(make_pipeline(*rest), features.fit(X).transform(X))

    ours, peers = paired(
        lambda: grid(kept(), X),
        {
            HAND: lambda: by_hand(grid),
            "plain": lambda: grid(make_pipeline(features, *rest), X, values[:1]),
        },
        n_pairs,
    )
    plain = [len(values) * seconds for seconds in peers["plain"]]
    for peer, seconds, bar in (
        (HAND, peers[HAND], 0.77), ("a Pipeline that recomputes", plain, 10)
    ):  # fmt: skip
        yield result(
            "search", FROZEN, peer, ours, seconds, figure(float(np.median(ours)), "s"),
            figure(float(np.median(seconds)), "s"), bar=bar,
            note="one setting, times 12" if seconds is plain else "",
        )  # fmt: skip
    if not options.quick:
        yield from compare(
            "search", "HalvingGridSearchCV of 12 settings over frozen features, the same",
            lambda: halving(kept(), X), {HAND: lambda: by_hand(halving)}, n_pairs,
        )  # fmt: skip


LEARNING_RATES = (0.0003, 0.001, 0.003, 0.01)
FITS = "GridSearchCV(n_jobs=2) of fits, CXRNet, 64 px"
BY_HAND = """
import sys
import numpy as np
import torch
from benchmarks.search import some_fits

torch.set_num_threads(1)
with np.load(sys.argv[1]) as data:
    X, y, folds = data["X"], data["y"], data["folds"]
for line in sys.stdin:
    some_fits(X, y, folds, int(sys.argv[2]), int(line))
    print("done", flush=True)
"""


def over_fits(options: Options) -> Iterator[Result]:
    """Searches of a network that is trained, on two cores."""
    from skcxr import make_cxr_phantoms

    n_images, epochs, n_pairs = (40, 1, 1) if options.quick else (160, 2, options.repeat or 5)
    drawn = make_cxr_phantoms(n_images, n_classes=2, image_size=64, random_state=0)
    X, y = drawn.data, drawn.target
    _, codes = np.unique(y, return_inverse=True)
    folds = np.zeros(n_images, int)
    splits = list(StratifiedKFold(4, shuffle=True, random_state=0).split(X, codes))
    for number, (_, outside) in enumerate(splits):
        folds[outside] = number
    file = os.path.join(Scratch.new("fits"), "images.npz")
    np.savez(file, X=X, y=codes, folds=folds)

    def searched(n_jobs: int) -> None:
        torch.set_num_threads(cpu_count())  # what a process has by default
        try:
            GridSearchCV(
                classifier(epochs), {"lr": LEARNING_RATES}, cv=splits, n_jobs=n_jobs, refit=False
            ).fit(X, codes)
        finally:
            torch.set_num_threads(options.threads)

    with contextlib.ExitStack() as started:
        processes = [started.enter_context(_process(file, str(half))) for half in (0, 1)]

        def by_hand() -> None:
            for process in processes:
                print(epochs, file=process.stdin, flush=True)
            for process in processes:
                if process.stdout.readline() != "done\n":
                    raise RuntimeError("a process of this benchmark failed")

        yield from compare(
            "search", FITS, lambda: searched(2),
            {"two processes of one thread by hand": by_hand, "n_jobs=1": lambda: searched(1)},
            n_pairs, bars={"two processes of one thread by hand": 0.9, "n_jobs=1": 1.0},
        )  # fmt: skip
    get_reusable_executor().shutdown(wait=True)


def classifier(max_epochs: int) -> CXRClassifier:
    """The network of these fits."""
    return CXRClassifier("cxrnet", image_size=64, max_epochs=max_epochs, random_state=0)


def some_fits(
    X: np.ndarray, y: np.ndarray, folds: np.ndarray, half: int, max_epochs: int
) -> list[float]:
    """Fit and score every second one of a search's settings and folds."""
    every = [(lr, fold) for lr in LEARNING_RATES for fold in np.unique(folds)]
    scores = []
    for lr, fold in every[half::2]:
        inside = folds != fold
        clf = classifier(max_epochs).set_params(lr=lr).fit(X[inside], y[inside])
        scores.append(clf.score(X[~inside], y[~inside]))
    return scores


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[Any]:
    """One that makes half of the fits for each line it gets."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with subprocess.Popen(
        [sys.executable, "-c", BY_HAND, *arguments], text=True, env={**os.environ, **threads},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.stdin.close()  # type: ignore[union-attr]
