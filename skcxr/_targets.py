"""What comes with X: labels, weights, patients, and the split that early stopping watches."""

from __future__ import annotations

import warnings
from fractions import Fraction
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, assert_all_finite

from skcxr._exceptions import InputError, PatientWarning
from skcxr._patients import patients_from_names

Array = np.ndarray[Any, Any]


def check_labels(y: Any, n_samples: int) -> Array:
    """Labels as a 1-D array, one for each of `n_samples` images."""
    if y is None:
        raise InputError(
            "CXRClassifier requires y to be passed, but the target y is None: give one label "
            "for each image"
        )
    y = column_or_1d(y, warn=True)
    if y.dtype.kind == "f":
        assert_all_finite(y, input_name="y")
    _check_none_missing("y", y)
    check_classification_targets(y)
    _check_length("y", y, n_samples)
    return y


def check_groups(groups: Any, n_samples: int) -> Array | None:
    """Patients as a 1-D array, one for each of `n_samples` images, or None."""
    if groups is None:
        return None
    groups = column_or_1d(groups)
    _check_length("groups", groups, n_samples)
    _check_none_missing("groups", groups)
    return groups


def _check_none_missing(name: str, values: Array) -> None:
    if values.dtype.kind in "fO":
        for index, value in enumerate(values):
            if value is None or value != value:
                raise InputError(f"{name}[{index}] is {value}: Input {name} contains NaN or None")


def _check_length(name: str, values: Any, n_samples: int) -> None:
    if len(values) != n_samples:
        raise InputError(
            f"X holds {n_samples} images but {name} has {len(values)} entries: "
            "inconsistent numbers of samples"
        )


def check_weights(sample_weight: Any, n_samples: int) -> Array:
    """Weights as float64, none negative and not all zero; None gives ones."""
    weights = _check_sample_weight(
        sample_weight, np.empty((n_samples, 1)), dtype=np.float64, ensure_non_negative=True
    )
    if not weights.any():
        raise InputError(
            "sample_weight is zero for every image; at least one weight must be positive"
        )
    return weights


def weigh_classes(class_weight: Any, classes: Array, target: Array, weights: Array) -> Array:
    """Weights times those of their classes, scaled to mean 1.

    ``"balanced"`` counts with the weights, so that weight 2 is the image twice.
    """
    if class_weight is not None:
        if isinstance(class_weight, str):  # "balanced"
            counts = np.bincount(target, weights=weights, minlength=len(classes))
            per_class = weights.sum() / (len(classes) * counts)
        else:
            per_class = compute_class_weight(class_weight, classes=classes, y=classes[target])
        if not np.isfinite(per_class).all() or per_class.min() < 0:
            raise InputError(
                f"class_weight={class_weight!r}: weights must be finite and not negative"
            )
        weights = weights * per_class[target]
        if not weights.any():
            raise InputError(f"class_weight={class_weight!r} leaves every image a weight of zero")
    return weights / weights.mean()


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
    n_splits = min(max(2, n_splits), int(groups.max()) + 1, int(np.bincount(target).max()))
    n_valid = min(max(1, round(validation_fraction * n_splits)), n_splits - 1)
    if n_valid < 1:
        raise InputError(
            "early_stopping=True sets patients aside, but all images are of one patient; "
            "set early_stopping=False"
        )
    splitter = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # a class may have fewer members than there are folds
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        folds = [fold for _, fold in splitter.split(target, target, groups)]
    valid = np.sort(np.concatenate(folds[:n_valid]))
    train = np.setdiff1d(np.arange(n_samples), valid)
    lost = np.setdiff1d(target, target[train])
    if not len(valid) or not len(train) or len(lost):
        raise InputError(
            f"early_stopping=True with validation_fraction={validation_fraction} cannot split "
            f"{n_samples} images of {groups.max() + 1} patients so that every class is left to "
            "train on; set early_stopping=False or give more patients"
        )
    return train, valid
