"""Patient ids from file names.

Images of one patient resemble each other, so they must stay on one side of a split. Several
public collections write the patient into the file name; this module reads it from there.
"""

from __future__ import annotations

import ntpath
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from skcxr._exceptions import InputError

__all__ = ["as_paths", "patient_from_name", "patients_from_names"]

Rule = str | re.Pattern[str] | Callable[[str], str | None]

# Each pattern fits the beginning of a name without its extension; group 1 is the patient. A
# person of Kermany's with bacteria and one with a virus may share a number, so the cause stays.
_LOWER = re.compile(r"(person\d+_(?:bacteria|virus))_\d", re.IGNORECASE)
_UPPER = re.compile(
    r"((?:NORMAL\d*-)?IM-\d+)-\d"  # Kermany 2018: IM-0115-0001, NORMAL2-IM-1018-0001-0002
    r"|((?:NORMAL|BACTERIA|VIRUS)-\d+)-\d",  # a later release of the same: VIRUS-1980593-0001
    re.IGNORECASE,
)
# NIH ChestX-ray14: 00000013_005. Its ids begin with three zeros, which tells them from dates.
_NIH = re.compile(r"(000\d{5})_\d{3}$")


def patient_from_name(path: str | os.PathLike[str]) -> str | None:
    r"""Read the patient from a file name of a known public collection.

    Parameters
    ----------
    path : str or os.PathLike
        A file, with folders of either kind (``/`` or ``\``) or without; it is not opened.

    Returns
    -------
    patient : str or None
        None where the name follows no known form. Kermany et al. 2018 gives
        ``person<ID>_bacteria``, ``person<ID>_virus``, ``IM-<ID>``, ``NORMAL2-IM-<ID>`` and, in
        its later release, ``BACTERIA-<ID>``, ``VIRUS-<ID>``, ``NORMAL-<ID>``; NIH ChestX-ray14
        gives the eight digits of its patients.

    Examples
    --------
    >>> from skcxr._patients import patient_from_name
    >>> patient_from_name("train/PNEUMONIA/person10_bacteria_43.jpeg")
    'person10_bacteria'
    >>> patient_from_name("NORMAL2-IM-1018-0001.jpeg")
    'NORMAL2-IM-1018'
    >>> patient_from_name("00000013_005.png")
    '00000013'
    >>> patient_from_name("film.png") is None
    True
    """
    stem = os.path.splitext(_file_name(path))[0]
    if found := _LOWER.match(stem):
        return found[1].lower()
    if found := _UPPER.match(stem):
        return (found[1] or found[2]).upper()
    if found := _NIH.match(stem):
        return found[1]
    return None


def patients_from_names(
    paths: Iterable[str | os.PathLike[str]], pattern: Rule | None = None
) -> tuple[np.ndarray[Any, Any], int]:
    r"""Read a patient for every path.

    Parameters
    ----------
    paths : iterable of str or os.PathLike
        The files; none is opened.
    pattern : str, compiled pattern, callable or None, default=None
        How a path tells its patient. None is the rule of `patient_from_name`. A regular
        expression is searched in the file name; the patient is its group ``patient``, else its
        first group, else the whole match. A callable gets the path as a str and returns the
        patient, or None where it is unknown.

    Returns
    -------
    patients : ndarray of shape (n_paths,), dtype str
        A path whose patient is unknown stands for itself, as a patient of its own.
    n_unknown : int
        The number of those.

    Raises
    ------
    InputError
        If `pattern` is no valid regular expression, or of another type.

    Examples
    --------
    >>> from skcxr._patients import patients_from_names
    >>> patients, n_unknown = patients_from_names(["a/p7-1.png", "a/p7-2.png", "a/x.png"], r"p\d+")
    >>> patients.tolist(), n_unknown
    (['p7', 'p7', 'a/x.png'], 1)
    """
    names = [str(os.fspath(path)) for path in paths]
    rule = patient_from_name if pattern is None else rule_from(pattern, "pattern")
    patients = [rule(name) for name in names]
    n_unknown = sum(patient is None for patient in patients)
    filled = [
        name if patient is None else patient for name, patient in zip(names, patients, strict=True)
    ]
    return np.array(filled, dtype=str), n_unknown


def rule_from(pattern: Rule, parameter: str) -> Callable[[str], str | None]:
    """Turn what a user gave as `parameter` into a function of a path. Internal."""
    if callable(pattern):
        function = pattern

        def call(path: str) -> str | None:
            value = function(path)
            return None if value is None or str(value) == "" else str(value)

        return call
    try:
        compiled = re.compile(pattern)
        compiled.search("")  # a pattern of bytes fails here
    except (re.error, TypeError) as error:
        raise InputError(
            f"{parameter} must be a regular expression, a function of the path or None, "
            f"got {pattern!r} ({error})"
        ) from error
    group: str | int = "patient" if "patient" in compiled.groupindex else min(compiled.groups, 1)

    def search(path: str) -> str | None:
        found = compiled.search(_file_name(path))
        return (found[group] or None) if found else None

    return search


def _file_name(path: str | os.PathLike[str]) -> str:
    """Return the last part of a path written on any system (ntpath knows both separators)."""
    return ntpath.basename(os.fspath(path))


def as_paths(X: Any) -> list[str] | None:
    """X as a list of paths, or None where X is not about files.

    Parameters
    ----------
    X : object
        Paths come as a list, tuple, 1-D array or Series of str or PathLike, or as one column of
        these (a one-column DataFrame or an array of shape (n, 1)).

    Returns
    -------
    list of str or None
        The paths.

    Raises
    ------
    InputError
        X is a single path, or some entries are no paths.

    Examples
    --------
    >>> import pandas as pd
    >>> from skcxr.batches import as_paths
    >>> as_paths(pd.DataFrame({"path": ["a.png", "b.png"]}))
    ['a.png', 'b.png']
    >>> as_paths([[0.0, 1.0]]) is None
    True
    """
    if isinstance(X, str | bytes | os.PathLike):
        raise InputError(f"X is the single path {os.fspath(X)!r}; pass a list: [path]")
    if isinstance(X, list | tuple):
        entries: Sequence[Any] = X
        if not entries:
            raise InputError("X is empty: found 0 sample(s)")
    else:
        if len(getattr(X, "shape", ())) == 2 and X.shape[1] != 1:
            return None
        dtypes = getattr(X, "dtypes", getattr(X, "dtype", None))
        if not hasattr(X, "__array__") or getattr(dtypes, "kind", "O") not in "OUTS":
            return None
        array = np.asarray(X, dtype=object)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            return None
        entries = array.tolist()
    if not any(isinstance(entry, str | os.PathLike) for entry in entries[:100]):
        return None
    for index, entry in enumerate(entries):
        if not isinstance(entry, str | os.PathLike) or not isinstance(os.fspath(entry), str):
            raise InputError(
                f"X holds paths, but X[{index}] is {entry!r} ({type(entry).__name__}); "
                "every entry must be a str or os.PathLike"
            )
    return [os.fspath(entry) for entry in entries]
