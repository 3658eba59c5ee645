"""The audit of a data set: what would make a score on it a score of something else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from skcxr._exceptions import InputError
from skcxr._frames import frame_of
from skcxr._patients import as_paths, patients_from_names
from skcxr._seeds import draw_seed
from skcxr._shipped import SHIPPED
from skcxr.audit._acquisition import (
    FAMILIES,
    family_findings,
    make_units,
    make_variables,
    test_variables,
)
from skcxr.audit._duplicates import (
    duplicate_findings,
    duplicate_pairs,
    learnt_findings,
    shared_findings,
)
from skcxr.audit._films import inverted_films, lateral_films
from skcxr.audit._findings import AuditReport, Finding
from skcxr.audit._reading import Reading, read_all
from skcxr.audit._score import score_finding, score_without_lungs
from skcxr.metrics._checks import is_missing

Array = np.ndarray[Any, Any]

_OUTSIDE = ("border", "brightness", "burned in")
_OWN = ("path", "index", "target", "group", "groups", "source", "split")
_MOST_TASKS = 20  # findings of several labels that are tested, the commonest
_LARGE = 0.2, 10, 4.0  # one patient: share of a class, images, times the average


def audit_dataset(
    paths: Any,
    y: Any,
    *,
    groups: Any = None,
    source: Any = None,
    split: Any = None,
    frame: Any = None,
    other: dict[str, Any] | None = None,
    weights: str | None = None,
    random_state: int | np.random.RandomState | None = 0,
    n_threads: int | None = None,
    progress: bool = True,
) -> AuditReport:
    """Look for leaks and shortcuts in a data set before anything is trained on it.

    Duplicates, patients on both sides of a split, and what tells the classes without the lungs:
    size, format, border, brightness, and what a table knows. No lung is judged.

    Parameters
    ----------
    paths : list of paths or array of shape (n, H, W), (n, C, H, W) or (n, H, W, C)
        The images. Of arrays there is no format and no file size.
    y : array-like of shape (n,) or (n, n_findings), or None
        Classes, or findings of 0, 1 and NaN (a DataFrame names them). None leaves out what needs
        labels.
    groups : array-like of shape (n,), default=None
        Patients. None reads them from the file names, where these are of a known kind.
    source : array-like of shape (n,), default=None
        The collection or hospital of each image.
    split : array-like of shape (n,), default=None
        Such as "train" and "test", for a split that is given. Empty strings are on no side.
    frame : pandas.DataFrame of n rows, default=None
        What else is known of the images, such as view, age and sex. The columns path, target,
        group, source and split, and those that repeat `y` or `groups`, are passed over.
    other : dict of str to paths or array, default=None
        Other collections, by name, in which the images are looked for.
    weights : {"cxr"} or None, default=None
        Weights of the package with which a model is to start: images that trained them are found
        by perceptual hashes, whatever their size, compression and exposure.
    random_state : int, RandomState instance or None, default=0
        Seed of permutations, folds and resampling.
    n_threads : int, default=None
        Threads that read. None takes one for each CPU.
    progress : bool, default=True
        Whether a progress bar is shown on standard error while many files are read.

    Returns
    -------
    AuditReport
        The findings. Its tables: "classes", "variables" (each with its test), "scores" (without
        the lungs), "duplicates" (pairs), "images" (what was measured) and "unreadable".

    Raises
    ------
    InputError
        Lengths differ, `paths` holds neither files nor images, or `weights` is no name of weights
        that come with the package.

    Notes
    -----
    A variable raises an alarm if it tells a class with an AUROC of 0.7 or more over patients, with
    p <= 0.01 for the family of all variables (permutations of patients), and if brightness and
    border differ by more than exposure control explains. That has limits: a shortcut inside the
    lungs' outline, a lead letter or handwriting is not seen here, and lateral views are known from
    the column "view" alone.

    A file that cannot be read is a finding and no error. Near duplicates need the extra
    ``audit``; without it a note says so.

    Examples
    --------
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.audit import audit_dataset
    >>> data = make_cxr_phantoms(60, image_size=64, shortcut="border", random_state=0)
    >>> report = audit_dataset(
    ...     data.data, data.target, groups=data.groups, source=data.source, frame=data.frame
    ... )
    >>> [finding.check for finding in report.alarms]
    ['border', 'score without the lungs']
    """
    if weights is not None and weights not in SHIPPED:
        known = " or ".join(map(repr, SHIPPED))
        raise InputError(
            f"weights={weights!r}: only of the weights that come with the package, {known}, is it "
            "known which images trained them"
        )
    seed = draw_seed(random_state)
    threads = n_threads or os.cpu_count() or 1
    reading = read_all(paths, n_threads=threads, progress=progress)
    n = len(reading)
    names = _short(reading.names)
    patients, findings = _patients(paths, groups, n)
    given = _Given(n, y, patients, source, split, frame)
    others = {
        name: read_all(files, n_threads=threads, progress=progress, what=f"reading {name}")
        for name, files in (other or {}).items()
    }

    findings += _unreadable(reading, names)
    readable = np.array([bool(row) for row in reading.rows])
    duplicates, notes = duplicate_pairs(reading, others)
    labels_of = given.label_of()
    findings += duplicate_findings(duplicates, names, labels_of, patients, given.split)
    findings += shared_findings(duplicates, names, others) + notes
    if weights is not None:
        findings += learnt_findings(SHIPPED[weights], reading.pictures, readable, names)
    findings += _split_findings(given.split, patients)
    findings += inverted_films(reading.pictures, readable, names)
    single = given.y if given.y is not None and given.y.ndim == 1 else None
    if given.views is not None:
        findings += lateral_films(given.views, single, names)

    measured = _measured(reading, given)
    tables: dict[str, Any] = {}
    if single is not None:
        tables["classes"], more = _classes(single, patients)
        findings += more
    found, tests, scores = _compare(given, measured, patients, readable, seed, threads)
    tables.update(
        variables=tests, scores=scores, duplicates=_with_names(duplicates, names, others),
        images=_images(measured, names), unreadable=_failures(reading, names),
    )  # fmt: skip
    n_patients = len(set(patients[readable].tolist()))
    title = f"Audit of {int(readable.sum())} images of {n_patients} patients"
    return AuditReport([*findings, *found], tables, title=title)


class _Given:
    """Checked y, source, split and frame."""

    def __init__(
        self, n: int, y: Any, patients: Array, source: Any, split: Any, frame: Any
    ) -> None:
        self.tasks = [str(name) for name in getattr(y, "columns", ())]
        self.y: Array | None = None if y is None else _as_labels(y, n)
        if self.y is not None and self.y.ndim == 2 and not self.tasks:
            self.tasks = [f"finding {k}" for k in range(self.y.shape[1])]
        self.split = _words(split, "split", n)
        self.source = _words(source, "source", n)
        self.columns: dict[str, Any] = {}
        if self.source is not None:
            self.columns["source"] = self.source
        if frame is not None:
            self._add(frame, n, patients)
        view = next((name for name in self.columns if name.lower() == "view"), None)
        self.views = (
            None
            if view is None
            else np.array(["" if is_missing(value) else str(value) for value in self.columns[view]])
        )

    def _add(self, frame: Any, n: int, patients: Array) -> None:
        import pandas as pd

        if not isinstance(frame, pd.DataFrame) or len(frame) != n:
            raise InputError(f"frame must be a DataFrame of {n} rows, one for each image")
        repeated = [patients]
        if self.y is not None and self.y.ndim == 1:
            repeated.append(self.y.astype(str))
        for position, name in enumerate(frame.columns):
            column = frame.iloc[:, position]
            if str(name) in _OWN or str(name) in self.tasks:
                continue
            words = column.astype(str).to_numpy()
            if any((words == known).all() for known in repeated):
                continue
            numeric = pd.api.types.is_numeric_dtype(column)
            if self.y is not None and self.y.ndim == 2 and numeric:
                values = column.to_numpy(dtype=float, na_value=np.nan)
                if any(np.array_equal(values, known, equal_nan=True) for known in self.y.T):
                    continue
            if not numeric and column.nunique() > max(12, n // 4):  # names, not categories
                continue
            if numeric and column.nunique() == n > 20 and (column % 1 == 0).all():  # numbers, too
                continue
            if numeric:
                self.columns[str(name)] = column.to_numpy(dtype=float, na_value=np.nan)
            else:
                self.columns[str(name)] = column.astype(object).where(column.notna(), None)

    def label_of(self) -> Callable[[int], Any] | None:
        """The label of an image, as something that can be compared."""
        labels = self.y
        if labels is None:
            return None
        if labels.ndim == 1:
            return labels.__getitem__
        return lambda i: tuple(np.nan_to_num(labels[i], nan=-1.0).tolist())

    def problems(self) -> Iterator[tuple[str, Array, Array]]:
        """What is told apart: its name, the labels, and which images have one."""
        if self.y is None:
            return
        if self.y.ndim == 1:
            yield "", self.y.astype(str), np.ones(len(self.y), dtype=bool)
            return
        common = np.argsort(-np.nansum(self.y, axis=0), kind="stable")[:_MOST_TASKS]
        for k in sorted(common.tolist()):
            known = np.isfinite(self.y[:, k])
            name = self.tasks[k]
            words = np.where(self.y[:, k] == 1, f"with {name}", f"without {name}")
            yield name, words, known


def _as_labels(y: Any, n: int) -> Array:
    labels = np.asarray(y)
    if labels.ndim not in (1, 2) or len(labels) != n:
        raise InputError(f"paths holds {n} images, but y has shape {labels.shape}")
    if labels.ndim == 2:
        return labels.astype(float)
    return labels.astype(str) if labels.dtype.kind == "O" else labels


def _words(values: Any, parameter: str, n: int) -> Array | None:
    """Values as str, or None where there are none or all are one."""
    if values is None:
        return None
    words = np.array(["" if is_missing(v) else str(v) for v in np.asarray(values).tolist()])
    if words.shape != (n,):
        raise InputError(f"paths holds {n} images, but {parameter} has shape {words.shape}")
    return words if len(set(words.tolist())) > 1 else None


def _short(names: list[str]) -> list[str]:
    """Names without the folder that all of them share."""
    folders = {os.path.dirname(name) for name in names}
    try:
        common = os.path.commonpath(list(folders)) if "" not in folders else ""
    except ValueError:  # relative and absolute ones, or two drives
        common = ""
    return [os.path.relpath(name, common) for name in names] if common else names


def _patients(paths: Any, groups: Any, n: int) -> tuple[Array, list[Finding]]:
    files = as_paths(paths)
    if groups is not None:
        words = ["" if is_missing(v) else str(v) for v in np.asarray(groups).tolist()]
        if len(words) != n:
            raise InputError(f"paths holds {n} images, but groups has {len(words)} entries")
        return np.array([word or f"image {i}" for i, word in enumerate(words)]), []
    if files is not None:
        patients, n_unknown = patients_from_names(files)
        if n_unknown < n:
            sentence = (
                f"groups was not given, and the names of {n - n_unknown} of {n} files tell the "
                f"patient: {len(set(patients.tolist()))} patients were taken from there. Split by "
                "patient (groups=...), or images of one person fall on both sides."
            )
            figures = {"images": n, "patients": len(set(patients.tolist()))}
            return patients, [Finding("patients", "note", sentence, figures)]
    sentence = (
        "No patients are known, so every image was taken for a patient of its own. If some are of "
        "one person, tests here find too much and scores of models are too good."
    )
    return np.array([f"image {i}" for i in range(n)]), [Finding("patients", "note", sentence)]


def _unreadable(reading: Reading, names: list[str]) -> list[Finding]:
    if not reading.failures:
        return []
    items = [f"{names[i]}: {reason}" for i, reason in reading.failures.items()]
    n = len(items)
    sentence = (
        f"{n} of {len(names)} files cannot be read and {'is' if n == 1 else 'are'} left out here."
    )
    serious = n > 0.05 * len(names)
    figures = {"files": n}
    return [Finding("unreadable", "serious" if serious else "warning", sentence, figures, items)]


def _failures(reading: Reading, names: list[str]) -> Any:
    rows = [[names[i], reason] for i, reason in reading.failures.items()]
    return frame_of(rows, columns=["image", "reason"])


def _split_findings(split: Array | None, patients: Array) -> list[Finding]:
    if split is None:
        return []
    sides: dict[str, set[str]] = {}
    for patient, side in zip(patients.tolist(), split.tolist(), strict=True):
        if side:
            sides.setdefault(patient, set()).add(side)
    both = sorted(patient for patient, found in sides.items() if len(found) > 1)
    if not both:
        return []
    n_images = int(np.isin(patients, both).sum())
    words = " and ".join(sorted({side for patient in both for side in sides[patient]}))
    sentence = (
        f"{len(both)} of {len(sides)} patients have images in more than one of {words}. A model "
        "recognises people, so the score is too good. Split by patient."
    )
    figures = {"patients": len(both), "images": n_images}
    return [Finding("patients across the split", "serious", sentence, figures, both)]


def _classes(labels: Array, patients: Array) -> tuple[Any, list[Finding]]:
    """Images and patients of each class; patients who fill one, or are in several."""
    rows, findings = [], []
    n_patients = len(set(patients.tolist()))
    share_least, least, times = _LARGE
    for name in np.unique(labels).tolist():
        who, counts = np.unique(patients[labels == name], return_counts=True)
        most, total = int(counts.max()), int(counts.sum())
        rows.append([name, total, len(who), most])
        if most >= max(least, share_least * total, times * total / len(who)):
            patient = str(who[counts.argmax()])
            findings.append(
                Finding(
                    "repeated patients",
                    "warning",
                    f"{most} of the {total} {name} images are of one patient, {patient}. What a "
                    "model knows of this class is to a large part what it knows of this person, "
                    "and folds differ by where this person is.",
                    {"images": most, "of": total, "patients": len(who)},
                    [patient],
                )
            )
    table = frame_of(rows, columns=["class", "images", "patients", "most of one patient"])
    if n_patients < len(labels):
        findings.append(
            Finding(
                "repeated patients",
                "note",
                f"{len(labels)} images are of {n_patients} patients. Split by patient, and count "
                "patients when you say how many there are.",
                {"images": len(labels), "patients": n_patients},
            )
        )
    pairs = frame_of({"patient": patients, "class": labels}).drop_duplicates()
    several = pairs["patient"].value_counts()
    several = several[several > 1]
    if len(several):
        findings.append(
            Finding(
                "patients of several classes",
                "note",
                f"{len(several)} {'patient has' if len(several) == 1 else 'patients have'} images "
                "in more than one class.",
                {"patients": len(several)},
                sorted(map(str, several.index)),
            )
        )
    return table, findings


def _measured(reading: Reading, given: _Given) -> Any:
    """One row an image: what was measured, then what was given."""
    table = frame_of(reading.rows)
    if {"height", "width"} <= set(table.columns):
        table["aspect"] = table["width"] / table["height"]
    if "white rectangles" in table:
        table["white rectangles"] = table["white rectangles"].astype(float)
    for name, values in given.columns.items():
        table[name if name not in table else f"{name} given"] = values
    return table


def _images(measured: Any, names: list[str]) -> Any:
    table = measured.copy()
    table.insert(0, "image", names)
    return table


def _with_names(duplicates: Any, names: list[str], others: dict[str, Reading]) -> Any:
    table = duplicates.copy()
    table["first"] = [names[i] for i in duplicates["first"]]
    table["second"] = [
        names[j] if collection == "" else _short(others[collection].names)[j]
        for j, collection in zip(duplicates["second"], duplicates["collection"], strict=True)
    ]
    return table


def _compare(
    given: _Given, measured: Any, patients: Array, readable: Array, seed: int, threads: int
) -> tuple[list[Finding], Any, Any]:
    """Test what was measured and given against the classes."""
    import pandas as pd

    findings, all_tests, all_scores = [], [], []
    inputs = _inputs(measured)
    for task, labels, known in given.problems():
        kept = np.flatnonzero(known & readable)
        if len(kept) == 0 or len(set(labels[kept].tolist())) < 2:
            continue
        units = make_units(labels[kept], patients[kept])
        columns = list(dict.fromkeys(name for names in inputs.values() for name in names))
        variables = make_variables(measured[columns].iloc[kept], units)
        tests = test_variables(variables, units, np.random.default_rng(seed))
        findings += family_findings(tests, variables, units)
        alarming = set(tests["variable"][tests["alarm"]].str.removesuffix(" is given"))
        varying = {name.removesuffix(" is given") for name in tests["variable"]}
        chosen: dict[str, Any] = {}
        before: set[str] = set()
        for name, parts in inputs.items():
            used = {part for part in parts if part in varying}
            if used - before - {"bytes per pixel"}:
                chosen[name] = measured[[part for part in parts if part in used]].iloc[kept]
            before |= used
        scores = score_without_lungs(chosen, labels[kept], patients[kept], seed, threads)
        telling = {name: bool(alarming & set(parts)) for name, parts in inputs.items()}
        what = f"images with {task} from those without" if task else _what(units.classes)
        finding = score_finding(scores, telling, what)
        findings += [finding] if finding is not None else []
        scores["alarm"] = [
            finding is not None and finding.severity != "note" and telling[name]
            and low > chance for name, low, chance in zip(
                scores["input"], scores["low"], scores["chance"], strict=True)
        ]  # fmt: skip
        if task:
            for table in (tests, scores):
                table.insert(0, "task", task)
        all_tests.append(tests)
        all_scores.append(scores)
    if not all_tests:
        sentence = "There are no two classes, so nothing was tested against them."
        findings.append(Finding("classes", "note", sentence))
        return findings, pd.DataFrame(), pd.DataFrame()
    return (
        findings,
        pd.concat(all_tests, ignore_index=True),
        pd.concat(all_scores, ignore_index=True),
    )


def _inputs(measured: Any) -> dict[str, list[str]]:
    """What the classifier without lungs is shown: more from one to the next."""
    here = set(measured.columns)
    file = [name for family in ("size", "file") for name in FAMILIES[family] if name in here]
    outside = [name for family in _OUTSIDE for name in FAMILIES[family] if name in here]
    of_us = {name for names in FAMILIES.values() for name in names}
    table = [name for name in measured.columns if name not in of_us]
    pixels = "the border, corners and levels"
    inputs = {"size, format and bytes of the file": file}
    inputs[f"the file's size and format, {pixels}" if file else pixels] = [*file, *outside]
    if table:
        inputs[f"all of this and {_listed(table)}"] = [*file, *outside, *table]
    return inputs


def _listed(names: list[str]) -> str:
    shown = names[:4]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _what(classes: list[str]) -> str:
    return " from ".join(classes) if len(classes) == 2 else f"the {len(classes)} classes"
