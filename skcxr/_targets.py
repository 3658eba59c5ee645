"""What comes with X: labels, weights, patients, and the split that early stopping watches."""

from __future__ import annotations

import warnings
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, assert_all_finite

from skcxr._exceptions import InputError, PatientWarning
from skcxr._patients import patients_from_names

Array = np.ndarray[Any, Any]


def check_labels(y: Any, n_samples: int) -> Array:
    """Labels, shape (n,), or findings, shape (n, k): float64 of 0, 1 and NaN for "not labelled"."""
    if y is None:
        raise InputError(
            "CXRClassifier requires y to be passed, but the target y is None: give one label "
            "for each image"
        )
    if issparse(y):
        y = y.toarray()
    try:
        shape = np.asarray(y).shape
    except ValueError as error:
        raise InputError(f"y is no array of labels: {error}") from error
    if len(shape) == 2 and shape[1] > 1:
        y = _check_findings(y)
    else:
        try:
            y = column_or_1d(y, warn=True)
            if y.dtype.kind == "f":
                assert_all_finite(y, input_name="y")
            _check_none_missing("y", y)
            check_classification_targets(y)
        except (TypeError, ValueError) as error:
            raise InputError(str(error)) from error
    _check_length("y", y, n_samples)
    return y


def _check_findings(y: Any) -> Array:
    try:
        if hasattr(y, "columns"):  # pandas' own missing value has no other way to NaN
            values = y.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            values = np.array(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"y has shape {np.asarray(y).shape}, so each column is a finding and must hold 0, 1 "
            f"or NaN; it holds other things ({error}). For one label per image pass one column"
        ) from error
    wrong = np.argwhere((values != 0) & (values != 1) & ~np.isnan(values))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(
            f"Unknown label type: y has shape {values.shape}, so each column is a finding and "
            f"must hold 0, 1 or NaN (not labelled), but y[{row}, {column}] is "
            f"{values[row, column]:g}"
        )
    return values


def name_findings(y: Any, labels: Array) -> Array:
    """Names of the columns of y: those of a DataFrame, else 0, 1, ..."""
    return np.asarray(y.columns) if hasattr(y, "columns") else np.arange(labels.shape[1])


def name_labels(y: Any, labels: Array) -> tuple[Array, Array]:
    """Names and target: sorted classes and their numbers, or names of findings and 0, 1 and NaN.

    `labels` are those of y that :func:`check_labels` gives, or a part of them.
    """
    if labels.ndim == 2:
        findings = name_findings(y, labels)
        for name, column in zip(findings.tolist(), labels.T, strict=True):
            if np.isnan(column).all():
                raise InputError(
                    f"finding {name!r} is labelled in no image that counts (y is NaN in all); "
                    "leave its column out"
                )
        return findings, labels
    classes, target = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"y holds only one class, {classes.tolist()[0]!r}; a classifier needs at least two"
        )
    return classes, target


def check_groups(groups: Any, n_samples: int) -> Array | None:
    """Patients as a 1-D array, one for each of `n_samples` images, or None."""
    if groups is None:
        return None
    try:
        groups = column_or_1d(groups)
    except (TypeError, ValueError) as error:
        raise InputError(f"groups: {error}") from error
    _check_length("groups", groups, n_samples)
    _check_none_missing("groups", groups)
    try:
        np.unique(groups)
    except TypeError as error:
        raise InputError(f"groups holds values that cannot be told apart: {error}") from error
    return groups


def _check_none_missing(name: str, values: Array) -> None:
    if values.dtype.kind in "fO":
        for index, value in enumerate(values):
            try:
                missing = value is None or bool(value != value)
            except (ArithmeticError, TypeError, ValueError):  # as pd.NA, which is neither
                missing = True
            if missing:
                raise InputError(f"{name}[{index}] is {value}: Input {name} contains NaN or None")


def _check_length(name: str, values: Any, n_samples: int) -> None:
    if len(values) != n_samples:
        raise InputError(
            f"X holds {n_samples} images but {name} has {len(values)} entries: "
            "inconsistent numbers of samples"
        )


def check_weights(sample_weight: Any, n_samples: int, labels: Array) -> Array:
    """Weights as float64, none negative and not all zero; None gives ones.

    An image of which no finding is labelled weighs 0.
    """
    try:
        weights = _check_sample_weight(
            sample_weight, np.empty((n_samples, 1)), dtype=np.float64, ensure_non_negative=True
        )
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error
    if not weights.any():
        raise InputError(
            "sample_weight is zero for every image; at least one weight must be positive"
        )
    if labels.ndim == 2:
        weights = np.where(np.isnan(labels).all(axis=1), 0, weights)
        if not weights.any():
            raise InputError("y is NaN for every image that counts: nothing is labelled")
    return weights


def weigh_classes(class_weight: Any, classes: Array, target: Array, weights: Array) -> Array:
    """Weights times those of their classes, scaled to mean 1.

    ``"balanced"`` counts with the weights, so that weight 2 is the image twice. Findings, a
    target of shape (n, k), are weighed each for itself, and one that is not labelled weighs 0.
    """
    if target.ndim == 2:
        weights = np.where(np.isnan(target), 0, weights[:, None])
        rules = class_weight if isinstance(class_weight, list) else [class_weight] * len(classes)
        if len(rules) != len(classes):
            raise InputError(f"class_weight has {len(rules)} entries for {len(classes)} findings")
        for rule, values, of_finding in zip(rules, target.T, weights.T, strict=True):
            of_finding *= _weights_by_class(
                rule, np.arange(2), np.nan_to_num(values).astype(np.int64), of_finding
            )
    else:
        if isinstance(class_weight, list):
            raise InputError("class_weight is a list, which is for findings, a y of shape (n, k)")
        weights = weights * _weights_by_class(class_weight, classes, target, weights)
    if not weights.any():
        raise InputError(f"class_weight={class_weight!r} leaves every image a weight of zero")
    return weights / weights.mean()


def _weights_by_class(rule: Any, classes: Array, target: Array, weights: Array) -> Array:
    """Weight of each image's class, shape (n,)."""
    if rule is None:
        return np.ones(len(target))
    if isinstance(rule, str):  # "balanced"
        counts = np.bincount(target, weights=weights, minlength=len(classes))
        per_class = weights.sum() / (len(classes) * np.where(counts > 0, counts, np.inf))
    else:
        try:
            per_class = compute_class_weight(rule, classes=classes, y=classes[target])
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"class_weight={rule!r} cannot be used: {error}") from error
    if not np.isfinite(per_class).all() or per_class.min() < 0:
        raise InputError(f"class_weight={rule!r}: weights must be finite and not negative")
    return per_class[target]


def _strata(target: Array) -> Array:
    """What a split is stratified by: classes, or the rarest finding that an image has."""
    if target.ndim == 1:
        return target
    rarest_first = np.argsort(np.nansum(target, axis=0), kind="stable")
    present = target[:, rarest_first] == 1
    stratum = np.where(present.any(axis=1), present.argmax(axis=1), target.shape[1])
    return np.unique(stratum, return_inverse=True)[1]


def _lost(target: Array, kept: Array) -> bool:
    """Whether `kept` lacks a class, or a finding's presence or absence, that `target` has."""
    if target.ndim == 1:
        return len(np.setdiff1d(target, kept)) > 0
    return any(
        (target == value).any(axis=0)[k] and not (kept == value).any(axis=0)[k]
        for value in (0, 1)
        for k in range(target.shape[1])
    )


def early_stopping_split(
    target: Array,
    groups: Any,
    paths: list[str] | None,
    validation_fraction: float,
    seed: int,
) -> tuple[Array, Array]:
    """Indices to train on and to watch; stratified, no patient on both sides.

    Patients are `groups`, else what the file names say, else every image is its own and a
    PatientWarning is given.
    """
    n_samples = len(target)
    if groups is None:
        names, n_unknown = (
            (np.arange(n_samples), n_samples) if paths is None else patients_from_names(paths)
        )
        groups = names
        if n_unknown:
            warnings.warn(
                f"early_stopping: the patient of {n_unknown} of {n_samples} images is unknown, "
                "so the split for early stopping takes each of these as a patient of its own; "
                "images of one patient on both sides make the validation loss too good. Pass "
                "fit(..., groups=patients)",
                PatientWarning,
                stacklevel=5,
            )
    groups = np.unique(groups, return_inverse=True)[1]
    # whole folds make up the fraction: 0.1 is one of 10, 0.3 three of 10
    least = min(validation_fraction, 1 - validation_fraction)
    n_splits = Fraction(least).limit_denominator(20).denominator if least > 0.05 else int(1 / least)
    strata = _strata(target)
    n_splits = min(max(2, n_splits), int(groups.max()) + 1, int(np.bincount(strata).max()))
    n_valid = min(max(1, round(validation_fraction * n_splits)), n_splits - 1)
    if n_valid < 1:
        what = "are of one patient" if groups.max() == 0 else "differ in their labels"
        raise InputError(
            f"early_stopping=True sets patients aside, but all images {what}; "
            "set early_stopping=False"
        )
    splitter = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # a class may have fewer members than there are folds
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        folds = [fold for _, fold in splitter.split(strata, strata, groups)]
    valid = np.sort(np.concatenate(folds[:n_valid]))
    train = np.setdiff1d(np.arange(n_samples), valid)
    if not len(valid) or not len(train) or _lost(target, target[train]):
        raise InputError(
            f"early_stopping=True with validation_fraction={validation_fraction} cannot split "
            f"{n_samples} images of {groups.max() + 1} patients so that every class is left to "
            "train on; set early_stopping=False or give more patients"
        )
    return train, valid
