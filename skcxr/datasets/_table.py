"""A table of images, one row each, as a data set."""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skcxr._exceptions import DatasetError, PatientWarning
from skcxr._patients import patients_from_names
from skcxr.datasets._folder import SPLIT_NAMES, Skipped, describe, first_skipped
from skcxr.images import sniff

__all__ = ["load_cxr_table"]

Array = np.ndarray[Any, Any]

_COLUMNS = ("path", "target", "group", "source", "split")


def load_cxr_table(
    table: Any,
    *,
    path: str = "path",
    target: str | Sequence[str] = "target",
    groups: str | None = None,
    source: str | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Bunch:
    """Load a table that has a row for each image.

    Rows whose file is missing or no image, and rows without a label, are left out and reported.
    Images are told by their first bytes, not by their names; their pixels are not decoded here.

    Parameters
    ----------
    table : str, os.PathLike or pandas.DataFrame
        A CSV file in UTF-8 (``.tsv`` and ``.tab``: separated by tabs), or a data frame.
    path : str, default="path"
        Column of the image files.
    target : str or sequence of str, default="target"
        Column of the labels, of any kind; or the columns of findings, which hold 0, 1 or nothing
        for "not labelled". Labels in a CSV file are numbers where all of them are ("01" is
        none); only an empty cell is no label there, so "None" and "NA" are classes.
    groups : str or None, default=None
        Column of the patients. None reads them from the file names, as
        :func:`skcxr.load_cxr_folder` does. An image whose cell is empty is a patient of its own.
    source : str or None, default=None
        Column of the collections or hospitals. None, and an empty cell, give the empty string.
    root : str, os.PathLike or None, default=None
        Folder that relative paths start from. None is the folder of the CSV file, and the
        current one for a data frame. A path written with backslashes is found too.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : list of str of length n_images
            The paths, in the order of the table.
        target : ndarray of shape (n_images,) or (n_images, n_findings)
            The labels; findings as float64 of 0, 1 and NaN.
        target_names : list
            The classes, sorted, or the names of the findings.
        groups : ndarray of shape (n_images,), dtype str
            The patient of each image.
        source : ndarray of shape (n_images,), dtype str
            The collection that each image comes from.
        split : ndarray of shape (n_images,), dtype str
            ``"train"``, ``"val"`` or ``"test"`` where the table has a column "split" of such
            words, else the empty string.
        skipped : list of Skipped(path, reason)
            Every row that was left out, and why; rows are counted from 1, the header apart.
        frame : pandas.DataFrame
            The columns path, target (or those of the findings), group, source and split, then
            all others of the table as they are; one of these names there, or one that comes
            twice, gets the ending "_table".
        DESCR : str
            What was found, in a few sentences.

    Raises
    ------
    DatasetError
        The table cannot be read, lacks a column, has one file under two labels or patients, has
        no image left, or a finding is not 0, 1 or empty.

    Warns
    -----
    PatientWarning
        If the patient of some images is unknown.

    Examples
    --------
    >>> import os, tempfile
    >>> import pandas as pd
    >>> from skcxr import load_cxr_table, make_cxr_phantoms
    >>> root = tempfile.mkdtemp()
    >>> phantoms = make_cxr_phantoms(
    ...     4, n_classes=2, image_size=32, random_state=0, save_to=os.path.join(root, "images")
    ... )
    >>> table = pd.DataFrame(
    ...     {"file": phantoms.data, "finding": phantoms.target, "who": phantoms.groups, "age": 50}
    ... )
    >>> bunch = load_cxr_table(table, path="file", target="finding", groups="who")
    >>> len(bunch.data), bunch.frame["age"].tolist()
    (4, [50, 50, 50, 50])
    """
    import pandas as pd

    findings = None if isinstance(target, str) else list(target)
    columns = [path, *([target] if isinstance(target, str) else findings or [])]
    columns += [name for name in (groups, source) if name is not None]
    given, where, folder = _read(table, [path, groups, source], None if findings else target)
    if root is not None:
        folder = os.fsdecode(root)
    for name in columns:
        _check_column(given, name, where)
    if findings is not None and not findings:
        raise DatasetError("target is an empty list; name at least one column of findings")

    for name in findings or ():
        if list(findings or ()).count(name) > 1:
            raise DatasetError(f"target names the finding {name!r} twice; name it once")
        if name in _COLUMNS:
            raise DatasetError(
                f"the finding {name!r} has the name of a column of `frame`, which has {_COLUMNS}; "
                "rename it"
            )

    labels: Any = _findings(given, findings, where) if findings else given[target].tolist()
    people = _text(given[groups]) if groups else None
    skipped: list[Skipped] = []
    seen: dict[str, int] = {}
    kept, paths = [], []
    for row, (cell, label) in enumerate(zip(given[path].tolist(), labels, strict=True)):
        if pd.isna(cell) or not str(cell).strip():
            skipped.append(Skipped("", f"row {row + 1}: the cell of {path!r} is empty"))
            continue
        file = _find(folder, str(cell))
        if not findings and not pd.api.types.is_scalar(label):
            raise DatasetError(
                f"column {target!r} of {where} holds {label!r} in row {row + 1}; a label is a str "
                "or a number, and of several findings each has a column"
            )
        if np.isnan(label).all() if findings else pd.isna(label) or not str(label).strip():
            skipped.append(Skipped(file, f"row {row + 1}: no label"))
        elif reason := sniff(file):
            skipped.append(Skipped(file, f"row {row + 1}: {reason}"))
        elif (same := os.path.normpath(file)) in seen:
            first = seen[same]
            if not np.array_equal(label, labels[first], equal_nan=findings is not None):
                raise DatasetError(
                    f"{file!r} has two labels, in row {first + 1} and in row {row + 1} of {where}: "
                    f"{labels[first]} and {label}"
                )
            if people is not None and people[row] != people[first]:
                raise DatasetError(
                    f"{file!r} has two patients, in row {first + 1} and in row {row + 1} of "
                    f"{where}: {str(people[first])!r} and {str(people[row])!r}"
                )
            skipped.append(Skipped(file, f"row {row + 1}: the same file as in row {first + 1}"))
        else:
            seen[same] = row
            kept.append(row)
            paths.append(file)
    if not kept:
        raise DatasetError(f"{where} has no image that can be used{first_skipped(skipped)}")

    used = given.iloc[kept].reset_index(drop=True)
    values = labels[kept] if findings else np.array(used[target].tolist())
    if not findings and not isinstance(table, pd.DataFrame):
        values = _numbers(values)
    patients, n_unknown = _patients(used, groups, paths)
    sources = _text(used[source]) if source else np.full(len(paths), "", dtype=str)
    found = _split(given)
    split = np.full(len(paths), "", dtype=str) if found is None else found[kept]
    if n_unknown:
        warnings.warn(
            f"{n_unknown} of {len(paths)} images have no patient that is known; each is taken as a "
            "patient of its own, so images of one person may fall on both sides of a split. If "
            "the table has the patients, name their column: groups=",
            PatientWarning,
            stacklevel=2,
        )
    series: dict[Any, Any] = {"path": paths}
    series.update(zip(findings, values.T, strict=True) if findings else [("target", values)])
    series.update(group=patients, source=sources, split=split)
    roles = {*columns, None if found is None else "split"}
    taken = {*series, *used.columns}
    for k, name in enumerate(used.columns):
        if name not in roles:
            free = name
            while free in series or (free != name and free in taken):
                free = f"{free}_table"
            series[free] = used.iloc[:, k]
    frame = pd.DataFrame(series)  # at once: pandas warns of many columns added one by one
    return Bunch(
        data=paths,
        target=values,
        target_names=findings or sorted(set(values.tolist())),
        groups=patients,
        source=sources,
        split=split,
        skipped=skipped,
        frame=frame,
        DESCR=describe(where, frame, n_unknown, skipped, findings),
    )


def _read(table: Any, as_text: list[str | None], label: Any) -> tuple[Any, str, str]:
    """The table, what to call it, and the folder that it lies in.

    The columns `as_text` are not guessed at: the zeros of a patient's 00000013 stay. Nor is
    `label`, where "None" and "NA" are words like others.
    """
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return table, "the table", os.curdir
    if not isinstance(table, str | os.PathLike):
        raise DatasetError(f"table is {type(table).__name__}; give a CSV file or a DataFrame")
    name = os.fsdecode(table)
    where = f"the table {name!r}"
    tabs = name.lower().endswith((".tsv", ".tab"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows of unequal length
            read: Any = partial(
                pd.read_csv, name, sep="\t" if tabs else ",", encoding="utf-8-sig",
                index_col=False, low_memory=False,
            )  # fmt: skip
            given = read(dtype={column: str for column in as_text if column is not None})
            if list(given.columns).count(label) == 1:
                given[label] = read(usecols=[label], dtype=str, na_filter=False)[label]
    except OSError as error:
        raise DatasetError(f"{where} cannot be opened: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{where} is no text in UTF-8; save it as CSV in UTF-8") from error
    except Exception as error:  # pandas' own, and those of gzip, zlib, zip and others
        raise DatasetError(f"{where} is no table that can be read: {error}") from error
    if len(given.columns) == 1 and ";" in str(given.columns[0]):
        raise DatasetError(f"{where} is separated by semicolons; save it with commas")
    return given, where, os.path.dirname(name) or os.curdir


def _check_column(given: Any, name: str, where: str) -> None:
    names = list(given.columns)
    if name not in names:
        close = difflib.get_close_matches(str(name), map(str, names), n=1)
        meant = f"; did you mean {close[0]!r}?" if close else "."
        raise DatasetError(f"{where} has no column {name!r}{meant} Its columns: {names}")
    if names.count(name) > 1:
        raise DatasetError(f"{where} has {names.count(name)} columns of the name {name!r}")


def _numbers(labels: Array) -> Array:
    """Labels of a CSV file, all text: bools, ints or floats where every one is so written."""
    words = [str(label).strip() for label in labels]
    if all(word.lower() in ("true", "false") for word in words):
        return np.array([word.lower() == "true" for word in words])
    for kind, pattern in ((int, r"-?(0|[1-9]\d{0,17})"), (float, r"-?(0|[1-9]\d*)(\.\d+)?")):
        if all(re.fullmatch(pattern, word, re.ASCII) for word in words):
            return np.array([kind(word) for word in words])
    return np.array(words, dtype=str)


def _findings(given: Any, names: list[str], where: str) -> Array:
    """Columns of 0, 1 and NaN as float64."""
    import pandas as pd

    values = np.empty((len(given), len(names)))
    for k, name in enumerate(names):
        column = given[name]
        numbers = pd.to_numeric(column.astype(object).where(column.notna(), np.nan), "coerce")
        values[:, k] = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        blank = column.isna() | (column.astype(str).str.strip() == "")
        wrong = np.flatnonzero(~blank.to_numpy() & ~np.isin(values[:, k], (0.0, 1.0)))
        if len(wrong):
            raise DatasetError(
                f"column {name!r} of {where} holds {str(column.iloc[wrong[0]])!r} in row "
                f"{wrong[0] + 1}; a finding is 0, 1 or empty"
            )
    return values


def _find(folder: str, cell: str) -> str:
    file = cell if os.path.isabs(cell) else os.path.join(folder, cell)
    if "\\" in cell and not os.path.exists(file):
        slashed = os.path.join(folder, cell.replace("\\", "/"))
        return slashed if os.path.exists(slashed) else file
    return file


def _text(column: Any) -> Array:
    text = column.astype(object).where(column.notna(), "").map(str)
    return text.str.strip().to_numpy(dtype=str)  # patients of blank cells are not one patient


def _patients(used: Any, groups: str | None, paths: list[str]) -> tuple[Array, int]:
    if groups is None:
        return patients_from_names(paths)
    named = _text(used[groups])
    unknown = named == ""
    filled = [
        path if empty else name for name, path, empty in zip(named, paths, unknown, strict=True)
    ]
    return np.array(filled, dtype=str), int(unknown.sum())


def _split(given: Any) -> Array | None:
    """The column "split", if it holds words of a split and nothing else."""
    if list(given.columns).count("split") != 1:
        return None
    words = [word.lower() for word in _text(given["split"])]
    if not all(word in SPLIT_NAMES or word == "" for word in words):
        return None
    return np.array([SPLIT_NAMES.get(word, "") for word in words], dtype=str)
