"""What the loaders of published layouts share: finding files, views, one table."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skcxr._exceptions import DatasetError, InputError
from skcxr.datasets._folder import folder_name
from skcxr.datasets._table import _check_column, _read, load_cxr_table, stripped

Array = np.ndarray[Any, Any]

FRONTAL = ("PA", "AP", "AP supine")
VIEWS = (*FRONTAL, "lateral", "other")
SEX = {"M": "M", "Male": "M", "F": "F", "Female": "F"}
IMAGE_SUFFIXES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")


def as_folder(folder: str | os.PathLike[str]) -> str:
    """The path of a folder that exists."""
    name = folder_name(folder)
    if not os.path.isdir(name):
        what = "is a file" if os.path.exists(name) else "does not exist"
        raise DatasetError(f"{name!r} {what}; give the folder of the data set")
    return name


def find_table(folder: str, *patterns: str, needed: bool = True) -> str | None:
    """The first file of a name, in the folder or in one below it."""
    for pattern in patterns:
        for below in ("", "*"):
            found = sorted(glob.glob(os.path.join(glob.escape(folder), below, pattern)))
            if found:
                return found[-1]
    if needed:
        raise DatasetError(f"{folder!r} has no file {' or '.join(map(repr, patterns))}")
    return None


def read_table(path: str, *needed: str) -> Any:
    """A CSV file that has some columns; these as text, as they are written."""
    given, where, _ = _read(path, list(needed), None)
    for name in needed:
        _check_column(given, name, where)
    return given


def text_of(column: Any) -> Array:
    """A column as stripped text."""
    return stripped(column).to_numpy(dtype=object)


def first_there(candidates: Iterable[str]) -> str:
    """The first path that exists, else the first."""
    first = ""
    for path in candidates:
        first = first or path
        if os.path.exists(path):
            return path
    return first


def image_of(folder: str, name: str, suffix: str) -> str:
    """An image in a folder, under the publisher's ending or that of a converted copy."""
    endings = (suffix, *(ending for ending in IMAGE_SUFFIXES if ending != suffix))
    return first_there(os.path.join(folder, name + ending) for ending in endings)


def or_empty(given: Any, column: str, as_text: bool = True) -> Any:
    """A column, if the table has it."""
    if column not in given:
        return np.full(len(given), "", dtype=object)
    return text_of(given[column]) if as_text else given[column]


def ages(cells: Array) -> Array:
    """Years, from "57", "057Y", "11M" or "3D"; NaN for what cannot be an age."""
    ages = np.full(len(cells), np.nan)
    for k, cell in enumerate(cells):
        found = re.fullmatch(r"(\d{1,4})(?:\.0+)?([YMD]?)", cell, re.ASCII)
        if found:
            age = int(found[1]) / {"M": 12, "D": 365.25}.get(found[2], 1)
            ages[k] = age if age <= 120 else np.nan
    return ages


def one_of(words: Any, meaning: dict[str, str], other: str = "") -> Array:
    """Words of a publisher in ours."""
    return np.array([meaning.get(word, other if word else "") for word in words], dtype=object)


def wanted_views(views: str | Sequence[str] | None) -> set[str] | None:
    """The views that are meant, or None for all.

    Raises
    ------
    InputError
        `views` names something else.
    """
    if views is None:
        return None
    listed = [views] if isinstance(views, str) else list(views)
    wanted: set[str] = set()
    for view in listed:
        if view == "frontal":
            wanted.update(FRONTAL)
        elif view in VIEWS:
            wanted.add(view)
        else:
            raise InputError(f"views has {view!r}; known are 'frontal' and {', '.join(VIEWS)}")
    if not wanted:
        raise InputError("views is empty; None takes all of them")
    return wanted


def load(
    table: Any,
    *,
    root: str,
    target: str | Sequence[str],
    source: str,
    about: str,
    views: set[str] | None = None,
) -> Bunch:
    """A table with the columns path, group, split and view, and more, as a data set."""
    if views is not None:
        found = sorted(set(table["view"]) - {""})
        table = table[np.isin(table["view"].to_numpy(dtype=str), sorted(views))]
        if not len(table):
            raise DatasetError(
                f"no image of the views {', '.join(sorted(views))} is in the table of {root!r}; "
                f"it has {', '.join(found) or 'none that is told'}"
            )
    bunch = load_cxr_table(
        table.assign(source=source).reset_index(drop=True),
        target=target,
        groups="group",
        source="source",
        root="",  # the paths begin with the folder
    )
    heading = f"{source}, from the folder {root!r}"
    described = bunch.DESCR.replace("Chest radiographs from the table:", f"{heading}:", 1)
    bunch["DESCR"] = f"{described}\n\n{about}"
    return bunch
