"""What an estimator says of films, and the subgroups that a table tells."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from skcxr._exceptions import InputError
from skcxr.classifier import CXRClassifier
from skcxr.inspection._answers import names_of, scores_of
from skcxr.inspection._seen import findings_of
from skcxr.metrics._checks import is_missing

Array = np.ndarray[Any, Any]

_FINE = 12  # values of a column up to which each is a subgroup
_AGES = ((0, 1, "under 1"), (1, 18, "1 to 17"), (18, 40, "18 to 39"), (40, 65, "40 to 64"))


def labels_of(estimator: Any, y: Any, name: str) -> Array:
    """Labels as an array; findings in the order of the estimator's.

    Raises
    ------
    InputError
        A finding of the estimator is not among the columns.
    """
    findings = findings_of(estimator)
    if findings is not None and hasattr(y, "columns"):
        missing = [finding for finding in findings.tolist() if finding not in y.columns]
        if not missing:
            y = y[findings.tolist()]
        elif not all(isinstance(finding, int) for finding in findings.tolist()):
            raise InputError(f"{name} has no column for the findings {missing}")
    truth = np.asarray(y)
    return truth[:, 0] if truth.ndim == 2 and truth.shape[1] == 1 and findings is None else truth


def predict(estimator: Any, X: Any, truth: Array) -> tuple[list[Any], Array | None, Array]:
    """Labels, probabilities (n, k) or None, and what is predicted."""
    findings = findings_of(estimator)
    proba = None
    if hasattr(estimator, "predict_proba"):
        proba = scores_of(estimator, X)
        names, multi = names_of(estimator, findings, proba.shape[1])
        labels = names.tolist()
    else:
        if not hasattr(estimator, "predict"):
            raise InputError(
                f"estimator is {type(estimator).__name__}, which has neither predict_proba nor "
                "predict; pass a fitted classifier"
            )
        classes = getattr(estimator, "classes_", None)
        multi = truth.ndim == 2
        labels = (
            list(range(truth.shape[1]))
            if multi
            else (np.unique(truth) if classes is None else np.asarray(classes)).tolist()
        )
    if multi != (truth.ndim == 2):
        raise InputError(
            f"y has shape {truth.shape}, but the estimator predicts "
            f"{'findings' if multi else 'one class each'}"
        )
    if not multi:
        unknown = sorted(set(truth.tolist()) - set(labels), key=str)
        if unknown:
            raise InputError(f"y holds the classes {unknown}; the estimator knows {labels}")
    if proba is not None and _is_plain(estimator):  # spare the second pass over the films
        filled = np.nan_to_num(proba)
        said = filled >= 0.5 if multi else np.asarray(labels)[filled.argmax(axis=1)]
        return labels, proba, said
    return labels, proba, np.asarray(estimator.predict(X))


def readable(proba: Array | None, n: int) -> Array:
    """Which films got probabilities; with ``on_error="nan"`` some may not."""
    return np.asarray(np.ones(n, bool) if proba is None else ~np.isnan(proba).any(axis=1))


def _is_plain(estimator: Any) -> bool:
    """Whether it predicts the class of the highest probability: nothing moves thresholds."""
    if isinstance(estimator, Pipeline):
        return _is_plain(estimator.steps[-1][1])
    return type(estimator) is CXRClassifier


def one_hot(said: Array, labels: list[Any]) -> Array:
    if said.ndim == 2:
        return said.astype(bool)
    return np.stack([said == label for label in labels], axis=1)


def subgroups_of(frame: Any, source: Any, n: int, read: Array) -> dict[str, Any] | None:
    """Columns of `frame` that have a meaning for readers, ages in bands, and the source."""
    found: dict[str, Any] = {}
    if frame is not None:
        if not hasattr(frame, "columns") or len(frame) != n:
            raise InputError(f"frame must be a DataFrame of {n} rows, one for each image of X")
        for column in frame.columns:
            name = str(column).lower()
            if name in ("age", "sex", "gender", "view", "source"):
                found[name] = _banded(frame[column]) if name == "age" else frame[column]
    if source is not None:
        found["source"] = source
    kept: dict[str, Any] = {}
    for name, values in found.items():
        text = np.array(["" if is_missing(v) else str(v) for v in np.asarray(values, dtype=object)])
        if len(text) != n:
            raise InputError(f"{name} has {len(text)} entries for {n} images")
        known = set(text.tolist()) - {""}
        if 2 <= len(known) <= _FINE:
            kept[name] = np.where(text == "", "unknown", text)[read]
    return kept or None


def _banded(ages: Any) -> Array:
    import pandas as pd

    years = pd.to_numeric(ages, errors="coerce").to_numpy(float)
    bands = np.full(len(years), None, dtype=object)
    bands[years >= 65] = "65 and over"
    for low, high, name in _AGES:
        bands[(years >= low) & (years < high)] = name
    return bands
