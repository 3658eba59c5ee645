"""Labels, probabilities and patients, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from skcxr._exceptions import InputError
from skcxr.metrics._scores import Cases

Array = np.ndarray[Any, Any]


def make_cases(
    y_true: Any, y_score: Any = None, *, y_pred: Any = None, labels: Any = None, groups: Any = None
) -> Cases:
    """Check what a metric is asked about.

    Raises
    ------
    InputError
        The arguments do not fit together.
    """
    truth = np.asarray(y_true)
    if truth.ndim not in (1, 2) or not len(truth):
        raise InputError(f"y_true has shape {truth.shape}; it must be (n,) or (n, n_findings)")
    if y_score is None and y_pred is None:
        raise InputError("give y_score, y_pred or both")
    patients = check_groups(groups, len(truth))
    if truth.ndim == 2:
        return _findings(y_true, truth, y_score, y_pred, labels, patients)
    return _classes(truth, y_score, y_pred, labels, patients)


def check_groups(groups: Any, n: int) -> Array:
    """Patients as numbers from 0; None makes each case a patient of its own."""
    if groups is None:
        return np.arange(n)
    named = np.asarray(groups)
    if named.shape != (n,):
        raise InputError(f"groups has shape {named.shape} for {n} cases")
    known = np.array([value is not None and value == value for value in named.tolist()], bool)
    if not known.all():
        raise InputError(f"groups holds no patient at place {int(known.argmin())}")
    return np.unique(named.astype(str) if named.dtype == object else named, return_inverse=True)[1]


def _classes(truth: Array, y_score: Any, y_pred: Any, labels: Any, patients: Array) -> Cases:
    said = None if y_pred is None else np.asarray(y_pred)
    if said is not None and said.shape != truth.shape:
        raise InputError(f"y_pred has shape {said.shape} for {len(truth)} cases")
    for name, values in (("y_true", truth), ("y_pred", said)):
        if values is not None:
            missing = [value is None or value != value for value in values.tolist()]
            if any(missing):
                raise InputError(f"{name} holds no class at place {missing.index(True)}")
    if labels is None:
        seen = {*truth.tolist(), *(() if said is None else said.tolist())}
        names = sorted(seen, key=lambda label: (str(type(label)), label))
    else:
        names = np.asarray(labels).tolist()
    known = {label: k for k, label in enumerate(names)}
    if len(known) < len(names):
        raise InputError(f"labels names a class twice: {names}")
    if len(names) < 2:
        raise InputError(f"there is the one class {names}; give labels= with two or more")
    columns = []
    for name, values in (("y_true", truth), ("y_pred", said)):
        if values is None:
            continue
        unknown = sorted({v for v in values.tolist() if v not in known}, key=str)
        if unknown:
            raise InputError(f"{name} holds {unknown}, which is none of the labels {names}")
        columns.append(np.array([known[value] for value in values.tolist()], dtype=np.intp))
    proba = None
    eps = 0.0
    if y_score is not None:
        proba, eps = _probabilities(y_score)
        if proba.ndim == 1 or proba.shape[1] == 1:
            if len(names) != 2:
                raise InputError(f"y_score has one column for {len(names)} classes: {names}")
            proba = np.stack([1 - proba.ravel(), proba.ravel()], axis=1)
        if proba.shape != (len(truth), len(names)):
            raise InputError(
                f"y_score has shape {np.shape(y_score)} for {len(truth)} cases and the classes "
                f"{names}; set labels= to what its columns stand for"
            )
        _check_range(proba)
        off = np.abs(proba.sum(axis=1) - 1) > 1e-3
        if off.any():
            row = int(off.argmax())
            raise InputError(
                f"row {row} of y_score sums to {proba[row].sum():.6g}, not to 1; give probabilities"
            )
        if said is None:
            columns.append(proba.argmax(axis=1))
    unit = np.eye(len(names))
    return Cases(names, unit[columns[0]], unit[columns[-1]] == 1, proba, patients, True, eps)


def _findings(
    y_true: Any, truth: Array, y_score: Any, y_pred: Any, labels: Any, patients: Array
) -> Cases:
    try:
        truth = truth.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"y_true of findings must hold 0, 1 and NaN ({error})") from error
    odd = ~(np.isnan(truth) | (truth == 0) | (truth == 1))
    if odd.any():
        row, column = np.argwhere(odd)[0].tolist()
        raise InputError(f"y_true[{row}, {column}] is {truth[row, column]:g}; use 0, 1 and NaN")
    if labels is not None:
        names = np.asarray(labels).tolist()
    else:
        names = list(y_true.columns if hasattr(y_true, "columns") else range(truth.shape[1]))
    if len(names) != truth.shape[1]:
        raise InputError(f"labels names {len(names)} findings, but y_true has {truth.shape[1]}")
    proba, eps = None, 0.0
    if y_score is not None:
        proba, eps = _probabilities(y_score)
        if proba.shape != truth.shape:
            raise InputError(f"y_score has shape {proba.shape} for y_true of {truth.shape}")
        _check_range(proba)
    if y_pred is None:
        assert proba is not None
        predicted = proba >= 0.5
    else:
        predicted = np.asarray(y_pred)
        if predicted.shape != truth.shape:
            raise InputError(f"y_pred has shape {predicted.shape} for y_true of {truth.shape}")
        predicted = predicted.astype(np.float64) == 1
    return Cases(names, truth, predicted, proba, patients, False, eps)


def _probabilities(y_score: Any) -> tuple[Array, float]:
    """Scores in double precision, and how near to 0 and 1 they are told apart."""
    given = np.asarray(y_score)
    if given.dtype.kind not in "fiub":
        raise InputError(f"y_score has the type {given.dtype}; give probabilities as numbers")
    eps = np.finfo(given.dtype if given.dtype.kind == "f" else np.float64).eps
    return given.astype(np.float64), float(eps)


def _check_range(proba: Array) -> None:
    bad = ~((proba >= 0) & (proba <= 1))
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        raise InputError(
            f"y_score[{row}, {column}] is {proba[row, column]:g}; give probabilities in [0, 1], "
            "and leave out cases without one"
        )


def prevalences(cases: Cases, prevalence: Any) -> dict[int, float]:
    """Prevalence by number of the label.

    Raises
    ------
    InputError
        It names no label, or is not in (0, 1).
    """
    if prevalence is None:
        return {}
    if not isinstance(prevalence, dict):
        if len(cases.labels) != 2 or not cases.exclusive:
            raise InputError(
                f"prevalence={prevalence!r} is for two classes; give a dict for {cases.labels}"
            )
        prevalence = {cases.labels[1]: prevalence}
    found = {}
    for label, share in prevalence.items():
        if label not in cases.labels:
            raise InputError(f"prevalence names {label!r}, which is none of {cases.labels}")
        if not 0 < share < 1:
            raise InputError(f"prevalence of {label!r} is {share!r}, which is not in (0, 1)")
        found[cases.labels.index(label)] = float(share)
    return found
