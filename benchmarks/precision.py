"""What bfloat16 does to the probabilities of a trained model.

    python -m benchmarks.precision FOLDER [--weights FILE] [--limit 1000]

FOLDER has a folder of images per class. "cxrnet" and, with weights, EfficientNet-Lite0 are trained
in float32 on half of the patients, and predict the images of the others in float32 and with
``amp=True``: how far probabilities move, how many labels change, and the accuracy of both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from skcxr import CXRClassifier, load_cxr_folder
from skcxr.model_selection import grouped_train_test_split


def main() -> None:
    """Print a line for each network and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", help="a file for timm's tf_efficientnet_lite0")
    parser.add_argument("--limit", type=int, default=1000, help="images, drawn at random")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    data = load_cxr_folder(options.folder)
    networks = [("cxrnet", None)]
    if options.weights:
        networks.append(("timm:tf_efficientnet_lite0", options.weights))
    for backbone, weights in networks:
        for seed in range(options.seeds):
            rows = np.random.default_rng(seed).permutation(len(data.target))[: options.limit]
            paths, y = np.array(data.data)[rows], data.target[rows]
            groups = data.groups[rows]
            train, test, _, _ = grouped_train_test_split(
                np.arange(len(y)), y, groups=groups, test_size=0.5, random_state=seed
            )
            clf = CXRClassifier(backbone, weights=weights, random_state=seed)
            clf.fit(paths[train], y[train], groups=groups[train])
            exact = clf.predict_proba(paths[test])
            clf.net_.amp = True
            coarse = clf.predict_proba(paths[test])
            moved = np.abs(coarse - exact).max(axis=1)
            labels = [clf.classes_[proba.argmax(axis=1)] for proba in (exact, coarse)]
            right = [np.mean(label == y[test]) for label in labels]
            print(
                f"{backbone}, seed {seed}, {len(test)} images of {len(set(groups[test]))} other "
                f"patients: probabilities move by up to {moved.max():.3f} (median "
                f"{np.median(moved):.4f}), {np.sum(labels[0] != labels[1])} labels change; "
                f"accuracy {right[0]:.3f} in float32, {right[1]:.3f} in bfloat16"
            )


if __name__ == "__main__":
    main()
