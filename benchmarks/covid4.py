"""CXRClassifier with its defaults on a table of radiographs, cross-validated by patient.

    python -m benchmarks.covid4 TABLE FOLDER [--seeds 0 1 2]

TABLE is a csv with the columns path (relative to FOLDER), finding and patient. The peer is a
classifier that reads nothing but the files' size, mode and bytes: what it scores is what the
labels give away without a look at the lungs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import confusion_matrix, recall_score
from sklearn.model_selection import StratifiedGroupKFold

from skcxr import CXRClassifier


def acquisition(path: str) -> list[float]:
    """What a file tells before it is decoded."""
    with Image.open(path) as image:
        width, height = image.size
        return [width, height, len(image.getbands()), Path(path).stat().st_size]


def interval(right: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """95% percentile bootstrap of the share of `right`; patients are drawn, not images."""
    _, patient = np.unique(patients, return_inverse=True)
    hits, images = np.bincount(patient, right), np.bincount(patient)
    drawn = np.random.default_rng(0).integers(len(images), size=(5000, len(images)))
    return np.quantile(hits[drawn].sum(1) / images[drawn].sum(1), [0.025, 0.975])


def main() -> None:
    """Print accuracy and recalls for each seed and their means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    table = pd.read_csv(options.table)
    paths = np.array([str(options.folder / path) for path in table["path"]])
    y, patients = table["finding"].to_numpy(str), table["patient"].to_numpy(str)
    facts = np.array([acquisition(path) for path in paths])
    classes = np.unique(y)
    n_patients = len(set(patients))
    print(f"{len(y)} images of {n_patients} patients, 5 folds by patient; {classes.tolist()}")
    accuracies, recalls, baseline = [], [], []
    for seed in options.seeds:
        predicted, of_facts, folds, times = y.copy(), y.copy(), [], []
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for train, test in splitter.split(paths, y, patients):
            start = time.perf_counter()
            clf = CXRClassifier(random_state=seed).fit(paths[train], y[train])
            times.append(time.perf_counter() - start)
            predicted[test] = clf.predict(paths[test])
            folds.append(np.mean(predicted[test] == y[test]))
            forest = RandomForestClassifier(random_state=seed).fit(facts[train], y[train])
            of_facts[test] = forest.predict(facts[test])
        accuracies.append(np.mean(folds))
        recalls.append(recall_score(y, predicted, average=None))
        baseline.append(np.mean(of_facts == y))
        print(
            f"seed {seed}: accuracy {accuracies[-1]:.3f} (mean of folds), 95% interval over "
            f"patients {interval(predicted == y, patients).round(3)}, recall "
            f"{np.round(recalls[-1], 2)}, {np.mean(times):.0f} s a fit (slowest "
            f"{max(times):.0f} s); acquisition alone {baseline[-1]:.3f}"
        )
        print(confusion_matrix(y, predicted, labels=classes))
    print(
        f"mean accuracy {np.mean(accuracies):.3f}, recall {np.round(np.mean(recalls, 0), 3)}, "
        f"acquisition alone {np.mean(baseline):.3f}"
    )
    print("A development figure: it says nothing about the patients of another hospital.")


if __name__ == "__main__":
    main()
