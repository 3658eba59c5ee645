"""What goes into the metrics: checked, or an error that names what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import column_or_1d

from skcxr._exceptions import InputError
from skcxr.metrics._scores import Cases

Array = np.ndarray[Any, Any]

_SUM_TOLERANCE = 0.01  # probabilities that were rounded to two or three digits
_MOST_VALUES = 20  # of a subgroup


def check_cases(y_true: Any, y_score: Any, y_pred: Any, labels: Any, groups: Any) -> Cases:
    """All that is given of the cases, checked against each other."""
    if y_score is None and y_pred is None:
        raise InputError("neither y_score nor y_pred is given; there is nothing to score")
    shape = _shape("y_true", y_true)
    if not shape or not shape[0]:
        raise InputError(f"y_true has shape {shape}: there are no cases")
    patients = check_patients(groups, shape[0])
    if len(shape) == 2 and shape[1] > 1:
        return _check_findings(y_true, y_score, y_pred, labels, patients)
    truth = _check_column("y_true", y_true, shape[0])
    predicted = None if y_pred is None else _check_column("y_pred", y_pred, len(truth))
    names = _check_labels(truth, y_score, predicted, labels)
    number = {name: j for j, name in enumerate(names)}
    target = _numbers("y_true", truth, number, names)
    proba, eps = None, 0.0
    if y_score is not None:
        proba, eps = _check_proba(y_score, len(truth), names)
    if predicted is None:
        assert proba is not None
        chosen = proba.argmax(axis=1)
    else:
        chosen = _numbers("y_pred", predicted, number, names)
    columns = np.arange(len(names))
    return Cases(
        labels=names,
        truth=(target[:, None] == columns).astype(np.float64),
        predicted=chosen[:, None] == columns,
        proba=proba,
        patients=patients,
        exclusive=True,
        eps=eps,
    )


def _check_findings(y_true: Any, y_score: Any, y_pred: Any, labels: Any, patients: Array) -> Cases:
    truth = _check_indicators("y_true", y_true, allow_nan=True)
    n, k = truth.shape
    if labels is not None:
        names = _listed("labels", labels)
        if len(names) != k:
            raise InputError(f"labels has {len(names)} names, but y_true has {k} findings")
    else:
        names = list(y_true.columns) if hasattr(y_true, "columns") else list(range(k))
    check_names(names)
    proba, eps = None, 0.0
    if y_score is not None:
        if isinstance(y_score, list) and all(np.ndim(one) == 2 for one in y_score):
            # one (n, 2) for each finding, as forests give
            y_score = np.stack([np.asarray(one)[:, -1] for one in y_score], axis=1)
        proba, eps = _as_float("y_score", y_score)
        if proba.shape != truth.shape:
            raise InputError(
                f"y_score has shape {proba.shape}, but y_true has shape {truth.shape}; findings "
                "have one probability each"
            )
        _check_range(proba)
    if y_pred is None:
        assert proba is not None
        predicted = proba > 0.5
    else:
        predicted = _check_indicators("y_pred", y_pred, allow_nan=False) == 1
        if predicted.shape != (n, k):
            raise InputError(
                f"y_pred has shape {predicted.shape}, but y_true has shape {truth.shape}"
            )
    return Cases(names, truth, predicted, proba, patients, exclusive=False, eps=eps)


def _check_indicators(name: str, values: Any, allow_nan: bool) -> Array:
    array, _ = _as_float(name, values)
    wrong = (array != 0) & (array != 1) & ~(np.isnan(array) & allow_nan)
    if array.ndim != 2 or wrong.any():
        found = f"has shape {array.shape}"
        if array.ndim == 2:
            row, column = np.argwhere(wrong)[0]
            found += f" and {name}[{row}, {column}] is {array[row, column]:g}"
        rest = " or NaN (not labelled)" if allow_nan else ""
        raise InputError(f"{name} {found}; findings have a column each, of 0, 1{rest}")
    return array


def _check_labels(truth: list[Any], y_score: Any, predicted: Any, labels: Any) -> list[Any]:
    """Names of the classes, in the order of the columns of y_score."""
    if labels is not None:
        names = _listed("labels", labels)
    else:
        seen = [*truth, *(predicted or [])] if y_score is None else truth
        try:
            names = sorted(set(seen))
        except TypeError as error:
            raise InputError(
                f"y_true holds classes that cannot be sorted ({error}); pass labels=, or classes "
                "of one type"
            ) from error
    if y_score is not None:
        shape = _shape("y_score", y_score)
        if not shape:
            raise InputError(f"y_score is {type(y_score).__name__}, which has no entries")
        columns = 2 if len(shape) == 1 or shape[1:] == (1,) else shape[-1]
        if len(shape) <= 2 and columns != len(names):
            source = "labels has" if labels is not None else "y_true holds"
            given = "one probability a case" if len(shape) == 1 else f"{columns} columns"
            raise InputError(
                f"y_score has {given}, but {source} {len(names)} classes, {names}; pass "
                "labels=clf.classes_, one for each column of predict_proba, in its order"
            )
    check_names(names)
    return names


def check_names(names: list[Any]) -> None:
    """No two labels are written alike, and none is what the rows of all labels are called."""
    written = [str(name) for name in names]
    twice = sorted({name for name in written if written.count(name) > 1})
    if twice:
        raise InputError(f"labels {twice} stand more than once")
    if "overall" in written:
        raise InputError("a class is called 'overall', as are the rows of all classes; rename it")


def _numbers(name: str, values: list[Any], number: dict[Any, int], names: list[Any]) -> Array:
    try:
        return np.array([number[value] for value in values])
    except KeyError:
        index = next(i for i, value in enumerate(values) if value not in number)
        raise InputError(
            f"{name}[{index}] is {values[index]!r}, which is not among the labels {names}"
        ) from None


def _check_column(name: str, values: Any, n: int) -> list[Any]:
    """One class for each case."""
    shape = _shape(name, values)
    if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        raise InputError(f"{name} has shape {shape}, but y_true has one class for each of {n}")
    _check_length(name, shape, n)
    listed = _listed(name, values)
    for index, value in enumerate(listed):
        if is_missing(value):
            raise InputError(f"{name}[{index}] is {value}; leave such cases out")
    return listed


def check_patients(groups: Any, n: int) -> Array:
    """Numbers of the patients, from 0, in the sorted order of their names."""
    if groups is None:
        return np.arange(n)
    shape = _shape("groups", groups)
    if len(shape) != 1 and shape[1:] != (1,):
        raise InputError(f"groups has shape {shape}, but is one patient for each case: ({n},)")
    _check_length("groups", shape, n)
    listed = _listed("groups", groups)
    for index, patient in enumerate(listed):
        if is_missing(patient):
            raise InputError(f"groups[{index}] is {patient}; every case needs a patient")
    values = np.array(listed) if len({type(patient) for patient in listed}) == 1 else listed
    return np.unique(list(map(str, values)) if values is listed else values, return_inverse=True)[1]


def _check_proba(y_score: Any, n: int, names: list[Any]) -> tuple[Array, float]:
    """Probabilities of classes, shape (n, k)."""
    proba, eps = _as_float("y_score", y_score)
    if proba.ndim > 2:
        raise InputError(f"y_score has shape {proba.shape}; it must be ({n}, {len(names)})")
    _check_length("y_score", proba.shape, n)
    _check_range(proba)
    if proba.ndim == 1 or proba.shape[1] == 1:
        proba = np.column_stack([1 - proba.ravel(), proba.ravel()])
    wrong = np.flatnonzero(np.abs(proba.sum(axis=1) - 1) > _SUM_TOLERANCE)
    if len(wrong):
        raise InputError(
            f"the probabilities of {len(wrong)} of {n} rows of y_score do not sum to 1, first in "
            f"row {wrong[0]}: {proba[wrong[0]].sum():.4g}. For findings that may stand together, "
            "y_true has a column for each"
        )
    return proba, eps


def _check_range(proba: Array) -> None:
    rows = np.flatnonzero(np.isnan(proba.reshape(len(proba), -1)).any(axis=1))
    if len(rows):
        shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise InputError(
            f"y_score is NaN in {len(rows)} of {len(proba)} rows ({shown}); images that could not "
            "be read have no score: leave them out of all arguments, and say how many"
        )
    wrong = np.argwhere((proba < 0) | (proba > 1))
    if len(wrong):
        at = tuple(wrong[0].tolist())
        raise InputError(
            f"y_score[{', '.join(map(str, at))}] is {proba[at]:g}, but probabilities lie in 0 to "
            "1; pass what predict_proba gives"
        )


def check_prevalence(prevalence: Any, names: list[Any]) -> dict[int, float]:
    """Prevalence of labels, by their number."""
    if prevalence is None:
        return {}
    if not isinstance(prevalence, dict):
        if len(names) != 2:
            raise InputError(
                f"prevalence={prevalence!r} is one number, but there are {len(names)} labels; "
                "pass a dict {label: prevalence}"
            )
        prevalence = {names[1]: prevalence}
    written = {str(name): j for j, name in enumerate(names)}
    checked = {}
    for label, share in prevalence.items():
        if str(label) not in written:
            raise InputError(f"prevalence names {label!r}, which is not among the labels {names}")
        checked[written[str(label)]] = check_share(f"prevalence of {label!r}", share)
    return checked


def check_share(name: str, value: Any) -> float:
    """A number between 0 and 1, without the ends."""
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = float("nan")
    if not 0 < share < 1:
        raise InputError(f"{name} is {value!r}, but must lie between 0 and 1")
    return share


def check_subgroups(subgroups: Any, n: int) -> list[tuple[str, Array]]:
    """Name and cases of each subgroup, such as ("sex=F", indices)."""
    if subgroups is None:
        return []
    import pandas as pd

    if not isinstance(subgroups, dict | pd.DataFrame):
        raise InputError(
            f"subgroups is {type(subgroups).__name__}; pass a DataFrame or a dict of name to one "
            "value for each case"
        )
    found = []
    for name in subgroups:
        values = pd.Series(subgroups[name]).reset_index(drop=True)
        _check_length(f"subgroups[{name!r}]", values.shape, n)
        if isinstance(values.dtype, pd.CategoricalDtype):
            present = [value for value in values.cat.categories if (values == value).any()]
        else:
            present = list(values.dropna().unique())
            try:
                present.sort()
            except TypeError:
                present.sort(key=str)
        if len(present) > _MOST_VALUES:
            raise InputError(
                f"subgroups[{name!r}] has {len(present)} different values; cut them into a few "
                "first, such as with pandas.cut"
            )
        chosen = [(f"{name}={value}", values == value) for value in present]
        chosen.append((f"{name}=unknown", values.isna()))
        found += [(title, np.flatnonzero(rows)) for title, rows in chosen if rows.any()]
    return found


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pandas' NA."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA is neither
        return True


def _listed(name: str, values: Any) -> list[Any]:
    try:
        if isinstance(values, list | tuple) and np.ndim(values) == 1:
            return [value.item() if isinstance(value, np.generic) else value for value in values]
        return list(column_or_1d(np.asarray(values)).tolist())
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is no list of values: {error}") from error


def _shape(name: str, values: Any) -> tuple[int, ...]:
    if isinstance(values, str | bytes | dict | set):
        raise InputError(f"{name} is {type(values).__name__}; pass a list or an array")
    try:
        return np.shape(values)
    except ValueError as error:
        raise InputError(f"{name} is no array: {error}") from error


def _as_float(name: str, values: Any) -> tuple[Array, float]:
    """Values as float64, and the precision that they came with."""
    try:
        if hasattr(values, "to_numpy") and not hasattr(values, "__array_interface__"):
            array = values.to_numpy(dtype=np.float64, na_value=np.nan)
            dtype: Any = np.float64
        else:
            dtype = np.asarray(values).dtype
            array = np.asarray(values, dtype=np.float64)
    except (MemoryError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{name} holds what is no number: {error}") from error
    eps = np.finfo(dtype if np.dtype(dtype).kind == "f" else np.float64).eps
    return array, float(eps)


def _check_length(name: str, shape: tuple[int, ...], n: int) -> None:
    if not shape or shape[0] != n:
        raise InputError(
            f"{name} has {shape[0] if shape else 'no'} entries, but y_true has {n} cases"
        )
