"""Whether the intervals of classification_report_ci hold the truth, and what they cost.

    python -m benchmarks.intervals [--quick]

Two tables:

- coverage: samples of 300 patients with 1 to 6 images each are drawn again and again. The class is
  the patient's, the images of a patient share much of their score, and those who are ill in plain
  sight have more images. How many of the 95% intervals of sensitivity and AUROC hold the truth,
  which one sample of very many patients tells? Beside them stands the same bootstrap over images,
  as if each were a patient of its own.
- time: all metrics of 5,000 cases, 4 classes and 1,000 resamples, against a loop of
  scikit-learn's metrics over resamples, of which 20 are timed.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    roc_auc_score,
)

from skcxr.metrics import classification_report_ci

N_PATIENTS = 300
WANTED = (("sensitivity", 1), ("AUROC", 1))


def draw_patients(
    n_patients: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, probabilities and patients of the images of some patients."""
    ill = rng.random(n_patients) < 0.4
    sight = rng.normal(size=n_patients)  # how plainly it shows, in all images of the patient
    n_images = 1 + rng.binomial(5, 1 / (1 + np.exp(-sight)))
    patients = np.repeat(np.arange(n_patients), n_images)
    latent = 1.5 * ill[patients] - 0.5 + sight[patients] * (2.0 * ill[patients] - 1)
    latent += rng.normal(size=len(patients))
    return ill[patients].astype(int), 1 / (1 + np.exp(-latent)), patients


def truth() -> dict[str, float]:
    """Sensitivity and AUROC in very many patients."""
    y, proba, _ = draw_patients(1_000_000, np.random.default_rng(12345))
    return {"sensitivity": float((proba[y == 1] > 0.5).mean()), "AUROC": roc_auc_score(y, proba)}


def coverage(n_simulations: int) -> None:
    """Print how many intervals hold the truth, and where those that do not lie."""
    known = truth()
    kinds = {
        "percentile": ("percentile", True),
        "BCa": ("BCa", True),
        "percentile, over images": ("percentile", False),
    }
    outside = {(kind, metric): np.zeros(2) for kind in kinds for metric, _ in WANTED}
    widths = dict.fromkeys(outside, 0.0)
    for seed in range(n_simulations):
        y, proba, patients = draw_patients(N_PATIENTS, np.random.default_rng(seed))
        for kind, (method, by_patient) in kinds.items():
            report = classification_report_ci(
                y, proba, groups=patients if by_patient else None, method=method,
                random_state=seed,
            )  # fmt: skip
            for metric, label in WANTED:
                _, low, high = report.value(metric, label)
                outside[kind, metric] += known[metric] < low, known[metric] > high
                widths[kind, metric] += (high - low) / n_simulations
    print(
        f"coverage of 95% intervals, {n_simulations} simulations of {N_PATIENTS} patients; truth: "
        + ", ".join(f"{metric} {value:.4f}" for metric, value in known.items())
    )
    for (kind, metric), (above, below) in outside.items():
        print(
            f"  {kind:<24} {metric:<12} {1 - (above + below) / n_simulations:6.1%} hold it; "
            f"it lies below {above / n_simulations:.1%} and above {below / n_simulations:.1%}; "
            f"mean width {widths[kind, metric]:.3f}"
        )


def draw_cases(n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, probabilities and patients."""
    rng = np.random.default_rng(0)
    y, latent = rng.integers(k, size=n), rng.normal(size=(n, k))
    latent[np.arange(n), y] += 1.5
    proba = np.exp(latent)
    return y, proba / proba.sum(axis=1, keepdims=True), rng.integers(n // 2, size=n)


def with_scikit_learn(y: np.ndarray, proba: np.ndarray) -> list[Any]:
    """What a report holds, but ECE, by scikit-learn."""
    classes, predicted = np.arange(proba.shape[1]), proba.argmax(axis=1)
    return [
        confusion_matrix(y, predicted, labels=classes),  # sensitivity to NPV
        f1_score(y, predicted, labels=classes, average=None),
        accuracy_score(y, predicted),
        balanced_accuracy_score(y, predicted),
        [roc_auc_score(y == k, proba[:, k]) for k in classes],
        [average_precision_score(y == k, proba[:, k]) for k in classes],
        log_loss(y, proba, labels=classes),
        brier_score_loss(y, proba, labels=classes),
    ]


def cost(n: int, n_resamples: int, n_timed: int = 20) -> None:
    """Print seconds, and the ratio to the loop."""
    y, proba, groups = draw_cases(n, 4)
    patients = np.unique(groups, return_inverse=True)[1]
    by_patient = np.split(np.argsort(patients, kind="stable"), np.cumsum(np.bincount(patients)))
    classification_report_ci(y[:200], proba[:200], n_resamples=100, random_state=0)  # imports
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(n_timed):
        drawn = rng.integers(patients.max() + 1, size=patients.max() + 1)
        rows = np.concatenate([by_patient[patient] for patient in drawn])
        with_scikit_learn(y[rows], proba[rows])
    loop = (time.perf_counter() - start) / n_timed * n_resamples
    print(f"{n} cases x 4 classes x {n_resamples} resamples; loop of scikit-learn {loop:.1f} s")
    for method in ("percentile", "BCa"):
        start = time.perf_counter()
        classification_report_ci(
            y, proba, groups=groups, method=method, n_resamples=n_resamples, random_state=0
        )
        taken = time.perf_counter() - start
        print(f"  {method:<12} {taken:.2f} s, {loop / taken:.0f} times as fast as the loop")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few simulations, few cases")
    options = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cost(500 if options.quick else 5000, 1000)
        coverage(50 if options.quick else 2000)


if __name__ == "__main__":
    main()
