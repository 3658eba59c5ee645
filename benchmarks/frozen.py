"""What it saves to send each image through a frozen backbone once.

    python -m benchmarks.frozen FOLDER --weights FILE [--backbone timm:tf_efficientnet_lite0]

FOLDER has a folder of images per class. Two comparisons, each against its peer in the same run:

- a fit of the head alone (``freeze="backbone"``) on stored embeddings, against the same fit that
  sends every image through the backbone in every epoch;
- a GridSearchCV of 12 settings and 5 folds over ``CXRFeatures(memory=...)`` and
  LogisticRegression, against the features computed once by hand and searched as numbers, and
  against the same pipeline without a memory (of which one setting is timed, times 12).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcxr import CXRClassifier, CXRFeatures, load_cxr_folder


def unchanged(image: Any) -> Any:
    """No augmentation, which the classifier cannot know: every epoch sees every image."""
    return image


def seconds(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """How long it takes, and what comes out."""
    start = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - start, result


def head_alone(options: argparse.Namespace, paths: np.ndarray, y: np.ndarray) -> None:
    """A fit on stored embeddings against one that passes all images in each epoch."""
    for _ in range(options.repeat):
        fast = CXRClassifier(
            options.backbone, weights=options.weights, freeze="backbone",
            max_epochs=options.epochs, random_state=0,
        )  # fmt: skip
        slow = clone(fast).set_params(augmentation=unchanged)
        stored, _ = seconds(fast.fit, paths, y)
        passed, _ = seconds(slow.fit, paths, y)
        difference = np.abs(fast.predict_proba(paths) - slow.predict_proba(paths)).max()
        print(
            f"head alone, {len(y)} images, {options.epochs} epochs: stored {stored:.1f} s, passed "
            f"{passed:.1f} s, ratio {passed / stored:.1f}; largest difference in probability "
            f"{difference:.1e}"
        )


def search(options: argparse.Namespace, paths: np.ndarray, y: np.ndarray) -> None:
    """A grid search over features that are kept, against features made once by hand."""
    features = CXRFeatures(options.backbone, weights=options.weights, image_size=options.size)
    rest = (StandardScaler(), LogisticRegression(max_iter=1000))
    values = np.logspace(-4, 1, 12)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)

    def searched(model: Any, X: Any, values: Any = values) -> GridSearchCV:
        return GridSearchCV(model, {"logisticregression__C": values}, cv=folds).fit(X, y)

    for _ in range(options.repeat):
        by_hand, first = seconds(
            lambda: searched(make_pipeline(*rest), features.fit(paths).transform(paths))
        )
        with tempfile.TemporaryDirectory() as folder:
            kept = clone(features).set_params(memory=folder)
            with_memory, second = seconds(searched, make_pipeline(kept, *rest), paths)
        plain = 12 * seconds(searched, make_pipeline(features, *rest), paths, values[:1])[0]
        assert first.best_params_ == second.best_params_
        print(
            f"search, {len(y)} images, 12 settings x 5 folds: by hand {by_hand:.1f} s, memory= "
            f"{with_memory:.1f} s, ratio {with_memory / by_hand:.2f}; without a memory about "
            f"{plain:.0f} s, {plain / with_memory:.0f} times as long"
        )


def main() -> None:
    """Print each repetition."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="DEFAULT")
    parser.add_argument("--backbone", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--size", default="auto", type=lambda x: x if x == "auto" else int(x))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--limit", type=int, default=None, help="images, drawn at random")
    options = parser.parse_args()
    data = load_cxr_folder(options.folder, groups=lambda path: path)
    chosen = np.random.default_rng(0).permutation(len(data.target))[: options.limit]
    paths, y = np.array(data.data)[chosen], data.target[chosen]
    head_alone(options, paths, y)
    search(options, paths, y)


if __name__ == "__main__":
    main()
