"""What ``skcxr demo`` does: load a folder, split by patient, fit, test, show."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import classification_report, confusion_matrix
from sklearn.model_selection import StratifiedGroupKFold

from skcxr._exceptions import DatasetError, PatientWarning
from skcxr._notice import RESEARCH_ONLY
from skcxr.datasets import load_cxr_folder, make_cxr_phantoms
from skcxr.images import read_image
from skcxr.metrics._bootstrap import interval_of_mean

Array = np.ndarray[Any, Any]

_PHANTOMS = {"n_samples": 240, "n_patients": 80, "image_size": 128}
_SHOWN = 8  # test images in the picture


def run_demo(data: Path | None, out: Path, seed: int) -> None:
    """Run the demonstration and print it; see :func:`skcxr.cli.demo`."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 100)  # a pipe or a narrow window cuts no table
    say = console.print
    out.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = _draw_phantoms(say, out / f"phantoms-{seed}", seed)
    bunch = _load(say, data)
    train, test, split = _split(say, bunch, seed)

    from skcxr.classifier import CXRClassifier  # torch takes seconds: speak first

    say("\nFitting CXRClassifier with its defaults ...")
    paths = np.array(bunch.data)
    clf = CXRClassifier(random_state=seed, verbose=1).fit(paths[train], bunch.target[train])
    proba = clf.predict_proba(paths[test])
    predicted = clf.classes_[proba.argmax(axis=1)]

    _report(say, bunch, train, test, split, predicted, clf.classes_)
    picture = out / "demo.png"
    _draw(picture, paths[test], bunch.target[test], predicted, proba, clf.classes_)
    say(f"\nThe confusion matrix beside some test images: {picture}")

    say("\nSingle files, clf.predict_proba([path]):")
    table = make_table("file", "true", *clf.classes_)
    for index in _spread(bunch.target[test], 1)[:4]:
        row = clf.predict_proba([paths[test][index]])[0]
        table.add_row(
            Path(paths[test][index]).name, bunch.target[test][index], *(f"{p:.2f}" for p in row)
        )
    say(table)
    say(f"\n{RESEARCH_ONLY}")
    say("\nThe same in Python:\n")
    say(_code(data, split, seed))


def _draw_phantoms(say: Any, folder: Path, seed: int) -> Path:
    n = _PHANTOMS["n_samples"]
    if folder.is_dir() and any(folder.iterdir()):
        say(f"Using the phantoms that an earlier run has left in {folder}")
        return folder
    say(f"Drawing {n} radiographs of {_PHANTOMS['n_patients']} patients that do not exist ...")
    make_cxr_phantoms(**_PHANTOMS, random_state=seed, save_to=folder)
    say(f"  written to {folder}, one folder per class, <patient>_<image>.png")
    return folder


def _load(say: Any, data: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PatientWarning)
        bunch = load_cxr_folder(data)
    say(f"\nLoaded {data}")
    describe_data(say, bunch)
    for warning in caught:
        say(f"  Warning: {warning.message}")
    if len(bunch.target_names) < 2:
        raise DatasetError(
            f"{str(data)!r} holds the single class {bunch.target_names[0]!r}; a classifier needs "
            "at least two folders of images"
        )
    return bunch


def describe_data(say: Any, bunch: Any) -> None:
    """Say how many images and patients there are, and what was left out."""
    say(f"{len(bunch.data)} images of {len(set(bunch.groups.tolist()))} patients")
    for k, name in enumerate(bunch.target_names):
        here = bunch.target[:, k] == 1 if bunch.target.ndim == 2 else bunch.target == name
        say(f"  {name}: {here.sum()} images of {len(set(bunch.groups[here].tolist()))} patients")
    for path, reason in bunch.skipped[:5]:
        say(f"  skipped {path}: {reason}")
    if len(bunch.skipped) > 5:
        say(f"  and {len(bunch.skipped) - 5} more files skipped")


def _split(say: Any, bunch: Any, seed: int) -> tuple[Array, Array, str]:
    """Train and test indices, and how they came about: "given" or "patients"."""
    given = np.asarray(bunch.split)
    if (given == "test").any() and (given == "train").any():
        train, test = np.flatnonzero(given != "test"), np.flatnonzero(given == "test")
        how = "given"
        say("\nSplit: the folder's own, train (and val) against test")
        both = len(set(bunch.groups[train]) & set(bunch.groups[test]))
        if both:
            say(f"  Warning: {both} patients stand on both sides, so the score is too good")
    else:
        how = "patients"
        per_class = [len(set(bunch.groups[bunch.target == name])) for name in bunch.target_names]
        if min(per_class) < 4:
            rare = bunch.target_names[int(np.argmin(per_class))]
            raise DatasetError(
                f"class {rare!r} has images of {min(per_class)} patients; a quarter of the "
                "patients is held back for testing, so every class needs at least 4"
            )
        folds = StratifiedGroupKFold(4, shuffle=True, random_state=seed)
        train, test = next(folds.split(bunch.data, bunch.target, bunch.groups))
        say("\nSplit by patient: no patient stands on both sides")
    say(
        f"  train {len(train)} images of {len(set(bunch.groups[train]))} patients, "
        f"test {len(test)} images of {len(set(bunch.groups[test]))} patients"
    )
    return train, test, how


def _report(
    say: Any, bunch: Any, train: Array, test: Array, split: str, predicted: Array, classes: Array
) -> None:
    truth, patients = bunch.target[test], bunch.groups[test]
    low, high = interval_of_mean(truth == predicted, patients, n_resamples=2000, random_state=0)
    how = "the folder's own split" if split == "given" else "split by patient"
    say(
        f"\nAccuracy on the {len(test)} test images of {len(set(patients))} patients ({how}): "
        f"{np.mean(truth == predicted):.2f}, 95% interval {low:.2f} to {high:.2f} "
        "(bootstrap over patients)\n"
    )
    say(classification_report(truth, predicted, labels=classes, zero_division=0))
    say("Confusion matrix")
    table = make_table("true \\ predicted", *classes)
    for name, row in zip(classes, confusion_matrix(truth, predicted, labels=classes), strict=True):
        table.add_row(name, *map(str, row))
    say(table)


def make_table(*columns: str) -> Table:
    """A plain table whose columns are never cut."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _spread(target: Array, per_class: int) -> list[int]:
    """Indices of the first `per_class` images of each class."""
    return [
        index
        for name in np.unique(target)
        for index in np.flatnonzero(target == name)[:per_class].tolist()
    ]


def _draw(
    picture: Path, paths: Array, truth: Array, predicted: Array, proba: Array, classes: Array
) -> None:
    from matplotlib.figure import Figure  # no pyplot: its global state is the caller's
    from sklearn.metrics import ConfusionMatrixDisplay

    figure = Figure(figsize=(13, 5.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.35])  # type: ignore[misc]
    axes = left.subplots()
    matrix = confusion_matrix(truth, predicted, labels=classes)
    display = ConfusionMatrixDisplay(matrix, display_labels=classes)
    display.plot(ax=axes, colorbar=False, cmap="Blues", xticks_rotation=30)
    axes.set_title(f"{len(truth)} test images")
    wrong = np.flatnonzero(truth != predicted)[: _SHOWN // 4].tolist()
    shown = [*wrong, *(i for i in _spread(truth, _SHOWN) if i not in wrong)]
    shown = _round_robin(shown, truth)[:_SHOWN]
    for cell, index in zip(right.subplots(2, _SHOWN // 2).flat, shown, strict=False):
        cell.imshow(read_image(paths[index], size=160), cmap="gray", vmin=0, vmax=1)
        colour = "black" if truth[index] == predicted[index] else "firebrick"
        cell.set_title(
            f"true: {truth[index]}\npredicted: {predicted[index]}\n{proba[index].max():.2f}",
            fontsize=8,
            color=colour,
        )
    for cell in right.axes:
        cell.axis("off")
    figure.suptitle(RESEARCH_ONLY, x=0.01, ha="left", fontsize=9)
    figure.savefig(picture, dpi=110)


def _round_robin(indices: list[int], truth: Array) -> list[int]:
    """The same indices, one of each class in turn."""
    turn: dict[str, int] = {}
    order = {}
    for index in indices:
        turn[truth[index]] = turn.get(truth[index], 0) + 1
        order[index] = turn[truth[index]]
    return sorted(indices, key=lambda index: order[index])


def _code(data: Path, split: str, seed: int) -> str:
    if split == "given":
        lines = ['train, test = data.split != "test", data.split == "test"']
        imports = []
    else:
        lines = [
            f"folds = StratifiedGroupKFold(4, shuffle=True, random_state={seed})",
            "train, test = next(folds.split(paths, data.target, data.groups))",
        ]
        imports = ["from sklearn.model_selection import StratifiedGroupKFold"]
    return "\n".join(
        [
            "import numpy as np",
            "from sklearn.metrics import classification_report",
            *imports,
            "from skcxr import CXRClassifier, load_cxr_folder",
            "",
            f"data = load_cxr_folder({str(data)!r})",
            "paths = np.array(data.data)",
            *lines,
            f"clf = CXRClassifier(random_state={seed}, verbose=1)",
            "clf.fit(paths[train], data.target[train])",
            "print(classification_report(data.target[test], clf.predict(paths[test])))",
        ]
    )
