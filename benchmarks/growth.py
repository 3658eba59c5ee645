"""Whether time is linear in n: seconds a file with 100,000 files against those with 1,000.

Of `load_cxr_folder`, of `predict_proba`, and of one epoch of `fit`, on small files: what could grow
faster than n is what skcxr does around the network. The peer is skcxr itself, on the same files in
portions of 1,000: half of the portions before the large run and half after it. (An epoch has a
fifth of the portions, for it takes minutes.) A few short runs are no peer: on a busy machine
they are faster than a long one, whatever it does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from benchmarks._suite import Missing, Options, Result, copies, figure, films, result

SIZE = 64
BAR = 1 / 1.1
PAIRS = {"load_cxr_folder": 5, "predict_proba": 1, "one epoch of fit": 1}  # by how long each takes


def run(options: Options) -> Iterator[Result | Missing]:
    """Folders, prediction, an epoch."""
    from skcxr import CXRClassifier, load_cxr_folder

    small, large = (200, 2000) if options.quick else (1000, 100_000)
    n_parts = large // small
    few, labels = films(Options(quick=options.quick), 64, SIZE)
    paths = copies(few, large, labels)
    target = [os.path.basename(os.path.dirname(path)) for path in paths]
    folder = _root(paths)
    folders = [
        _root(copies(paths[k * small : (k + 1) * small], small, target[k * small :]))
        for k in range(n_parts)
    ]

    def part(k: int | None) -> slice:
        return slice(None) if k is None else slice(k * small, (k + 1) * small)

    def load(k: int | None) -> object:
        return load_cxr_folder(folder if k is None else folders[k], groups=os.path.basename)

    def fit(k: int | None) -> CXRClassifier:
        clf = CXRClassifier(
            image_size=SIZE, max_epochs=1, batch_size=32, device=options.device, random_state=0
        )
        return clf.fit(paths[part(k)], target[part(k)])

    clf = fit(0)

    def predict(k: int | None) -> object:
        return clf.predict_proba(paths[part(k)])

    # what, and which of the portions
    calls: list[tuple[str, Callable[[int | None], object], range]] = [
        ("load_cxr_folder", load, range(n_parts)),
        ("predict_proba", predict, range(n_parts)),
        ("one epoch of fit", fit, range(0, n_parts, 5)),
    ]
    for what, call, parts in calls:
        ours, theirs = [], []
        for _ in range(options.repeat or PAIRS[what]):
            many, few_at_once = seconds(call, parts)
            ours.append(many / large)
            theirs.append(few_at_once / (len(parts) * small))
        said = [figure(1 / sorted(each)[len(each) // 2], "files/s") for each in (ours, theirs)]
        yield result(
            "growth", f"{what}, {large:,} files", f"the same with {small:,} files", ours, theirs,
            said[0], said[1], bar=round(BAR, 2),
        )  # fmt: skip


def seconds(call: Callable[[int | None], object], parts: range) -> tuple[float, float]:
    """Of all at once, and of the portions together."""

    def of(k: int | None) -> float:
        start = time.perf_counter()
        call(k)
        return time.perf_counter() - start

    call(parts[0])
    half = len(parts) // 2
    before = sum(map(of, parts[:half]))
    at_once = of(None)
    return at_once, before + sum(map(of, parts[half:]))


def _root(paths: list[str]) -> str:
    return os.path.dirname(os.path.dirname(paths[0]))
