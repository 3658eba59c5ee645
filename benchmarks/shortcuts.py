"""What `shortcut_report` says of models whose shortcut is known: named, or falsely raised.

    python -m benchmarks.shortcuts [--draws 20] [--quick] [--estimators rows cxr] [--first 1000]

Phantoms with a side marker, with a border, and with nothing planted, in 2, 3 and 4 classes in
turn; the model learns the films of two thirds of the patients, and the report is made of the rest.
"rows" is a PCA with a logistic regression on 64 x 64 pixels, "cxr" is CXRClassifier() on 96 x 96
(about 15 seconds a fit on one core). A planted shortcut counts as named where an alarm is of its
kind; with nothing planted any alarm is false.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcxr import CXRClassifier, make_cxr_phantoms
from skcxr.audit import shortcut_report

NAMED = {"marker": "corners", "border": "border"}


def rows(seed: int) -> Any:
    """A linear model of pixels."""
    return make_pipeline(
        StandardScaler(), PCA(0.95), LogisticRegression(C=0.1, max_iter=2000)
    )  # fmt: skip


def cxr(seed: int) -> Any:
    """The package's classifier as it is."""
    return CXRClassifier(random_state=seed)


ESTIMATORS = {"rows": (rows, 300, 64), "cxr": (cxr, 200, 96)}


def draw(name: str, shortcut: str | None, seed: int) -> tuple[list[str], float]:
    """The alarms of one draw, and the accuracy of the model."""
    make, n, size = ESTIMATORS[name]
    films = make_cxr_phantoms(
        n, n_classes=2 + seed % 3, image_size=size, shortcut=shortcut, random_state=seed
    )
    X, y, groups = films.data, films.target, films.groups
    if name == "rows":
        X = X.reshape(n, -1)
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=seed)
    train, test = next(folds.split(X, y, groups))
    model = make(seed).fit(X[train], y[train])
    report = shortcut_report(model, X[test], y[test], groups=groups[test], progress=False)
    accuracy = report.tables["scores"]["accuracy"].iloc[0]
    return [finding.check for finding in report.alarms], float(accuracy)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    parser.add_argument("--quick", action="store_true", help="three draws of rows")
    parser.add_argument("--estimators", nargs="+", default=["rows"], choices=ESTIMATORS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draws, names = (3, ["rows"]) if options.quick else (options.draws, options.estimators)
    seeds = range(options.first, options.first + draws)
    print("estimator  planted   named     other alarms  accuracy  seconds a draw")
    for name in names:
        for shortcut in (None, "marker", "border"):
            start = time.perf_counter()
            found = [draw(name, shortcut, seed) for seed in seeds]
            seconds = (time.perf_counter() - start) / draws
            accuracy = sum(value for _, value in found) / draws
            if shortcut is None:
                hits, others = "", sum(bool(alarms) for alarms, _ in found)
            else:
                kind = NAMED[shortcut]
                hits = f"{sum(kind in alarms for alarms, _ in found)}/{draws}"
                mistaken = set(NAMED.values()) - {kind} | {"brightness"}
                others = sum(bool(mistaken & set(alarms)) for alarms, _ in found)
            print(
                f"{name:<9}  {shortcut or 'nothing':<8}  {hits:<8}  {others:>4}/{draws:<6}  "
                f"{accuracy:>8.2f}  {seconds:>8.1f}"
            )


if __name__ == "__main__":
    main()
