"""What a model of one data set says of people of other hospitals.

    python -m benchmarks.elsewhere DATA [--report report.html]

DATA holds ``covid4.csv`` with ``covid4/`` (four classes: adults with Covid-19 of many hospitals,
small children of one hospital for the rest), ``adults256/`` (adults, collections told by the
beginning of the file name) and ``nih64/`` (adults of a third hospital). A ``CXRClassifier()`` is
fitted to a split by patient of the first and scored; the audit of the same images says what may be
read beside the lungs; then healthy adults are shown to it. A second one is fitted with 300 of them
added to its healthy class, and asked the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from skcxr import CXRClassifier, load_cxr_table
from skcxr.audit import audit_dataset
from skcxr.metrics import classification_report_ci
from skcxr.model_selection import grouped_train_test_split
from skcxr.report import evaluate

N_ADDED = 300


def main() -> None:
    """Run it; see above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--report", type=Path, help="write the page of the first model here")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    table = pd.read_csv(options.data / "covid4.csv")
    table["path"] = [str(options.data / "covid4" / path) for path in table["path"]]
    data = load_cxr_table(table, target="finding", groups="patient", source="source")
    paths, y, patients = np.array(data.data), data.target, data.groups
    rows = np.arange(len(y))
    train, test, _, _ = grouped_train_test_split(
        rows, y, groups=patients, test_size=0.25, random_state=options.seed
    )

    audit = audit_dataset(
        data.data, y, groups=patients, source=data.source, frame=table[["age", "sex", "view"]]
    )
    print(audit, "\n")

    collections = elsewhere(options.data, options.seed)
    added = collections.pop("added")
    first = CXRClassifier(random_state=options.seed).fit(
        paths[train], y[train], groups=patients[train]
    )
    tell("covid4 alone", first, paths[test], y[test], patients[test], collections)
    second = CXRClassifier(random_state=options.seed).fit(
        np.concatenate([paths[train], added]),
        np.concatenate([y[train], np.repeat("Healthy", len(added))]),
        groups=np.concatenate([patients[train], added]),
    )
    tell(
        f"covid4 and {len(added)} healthy adults", second, paths[test], y[test], patients[test],
        collections,
    )  # fmt: skip
    if options.report is not None:
        evaluate(
            first, paths[test].tolist(), y[test], groups=patients[test],
            train=(paths[train].tolist(), y[train], patients[train]),
            external={name: (list(files), None) for name, files in collections.items()},
            title="CXRClassifier() on covid4",
        ).to_html(options.report)  # fmt: skip
        print(f"written to {options.report}")


def elsewhere(data: Path, seed: int) -> dict[str, np.ndarray]:
    """Files of other collections, and those that are added to the training."""
    rng = np.random.default_rng(seed)
    normal = sorted((data / "adults256" / "Normal").iterdir())
    same = rng.permutation([str(path) for path in normal if path.name.startswith("Normal")])
    others = [str(path) for path in normal if path.name.startswith("others")]
    nih = {
        name: [str(path) for path in sorted((data / "nih64" / name).iterdir())]
        for name in ("No Finding", "Abnormal")
    }
    return {
        "added": same[:N_ADDED],
        "healthy adults, the collection that is added later": same[N_ADDED:],
        "healthy adults, another collection (others)": np.array(others),
        "adults without a finding, a third hospital (NIH)": np.array(nih["No Finding"]),
        "adults with findings of the same hospital (NIH)": np.array(nih["Abnormal"]),
    }


def tell(
    name: str, clf: CXRClassifier, X: np.ndarray, y: np.ndarray, groups: np.ndarray,
    collections: dict[str, np.ndarray],
) -> None:  # fmt: skip
    """Score on the test patients, then what is said of people elsewhere."""
    proba = clf.predict_proba(X)
    report = classification_report_ci(
        y, proba, labels=clf.classes_.tolist(), groups=groups, random_state=0
    )
    value, low, high = report.value("accuracy")
    print(
        f"Trained on {name}: accuracy {value:.2f} ({low:.2f} to {high:.2f}) on {len(y)} images of "
        f"{len(set(groups))} other patients of covid4"
    )
    for collection, files in collections.items():
        proba = clf.predict_proba(files)
        said = clf.classes_[proba.argmax(axis=1)]
        shares = ", ".join(f"{label} {np.mean(said == label):.0%}" for label in clf.classes_)
        sure = proba[said == "Covid-19"].max(axis=1).mean() if (said == "Covid-19").any() else 0.0
        print(f"  {len(files)} {collection}: {shares}; mean probability of Covid-19 {sure:.2f}")
    print()


if __name__ == "__main__":
    main()
