"""Thresholds, predictive values and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import roc_curve
from sklearn.utils._param_validation import Interval, validate_params

from skcxr._exceptions import InputError
from skcxr._seeds import draw_seed
from skcxr.metrics._bootstrap import resample
from skcxr.metrics._checks import check_cases, check_share
from skcxr.metrics._report import BOOTSTRAP, rows_of
from skcxr.metrics._scores import Cases, Scores, at_prevalence, bins_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["expected_calibration_error", "operating_points", "predictive_values"]

Array = np.ndarray[Any, Any]


@validate_params(BOOTSTRAP, prefer_skip_nested_validation=True)
def operating_points(
    y_true: Any,
    y_score: Any,
    *,
    pos_label: Any,
    sensitivity: float | Sequence[float] | None = None,
    specificity: float | Sequence[float] | None = None,
    groups: Any = None,
    prevalence: float | None = None,
    method: str = "percentile",
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> pd.DataFrame:
    """Find thresholds at a wanted sensitivity or specificity, and score them.

    A case is called positive where its score is at least the threshold.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Classes, two or more.
    y_score : array-like of shape (n,)
        Scores of `pos_label`; they need not be probabilities.
    pos_label : object
        The positive class; all others are negative.
    sensitivity : float or sequence of float, default=None
        Sensitivities to reach, in (0, 1]; of the thresholds that do, the highest is taken.
    specificity : float or sequence of float, default=None
        Specificities to reach, in (0, 1]; of the thresholds that do, the lowest is taken.
    groups : array-like of shape (n,), default=None
        The patient of each case. None takes each for a patient of its own.
    prevalence : float, default=None
        Share of positive patients where the model is to be used, in (0, 1); adds PPV and NPV
        there.
    method : {"percentile", "BCa"}, default="percentile"
        Kind of interval.
    n_resamples : int, default=1000
        How often patients are drawn, at least 100.
    confidence_level : float, default=0.95
        Share of intervals that hold the truth, in (0, 1).
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Returns
    -------
    DataFrame
        Columns wanted (such as "sensitivity >= 0.95"), threshold, metric (sensitivity,
        specificity, PPV, NPV, and these two at the prevalence), value, low and high. The
        threshold is infinite where a specificity is reached only by calling nothing positive.

    Raises
    ------
    InputError
        Nothing is wanted, a wanted value is out of range, scores are NaN, or a class is absent.

    See Also
    --------
    sklearn.model_selection.TunedThresholdClassifierCV : Fits a threshold inside of an estimator.

    Notes
    -----
    The intervals hold the threshold fixed. A threshold that was chosen on the cases that it is
    scored on looks better than it is: choose it on other patients, and then score it here by
    ``classification_report_ci(y_true, y_pred=y_score >= threshold)``.

    Examples
    --------
    >>> from skcxr.metrics import operating_points
    >>> y_true = ["well"] * 6 + ["ill"] * 4
    >>> y_score = [0.1, 0.2, 0.3, 0.4, 0.5, 0.8, 0.3, 0.6, 0.7, 0.9]
    >>> table = operating_points(
    ...     y_true, y_score, pos_label="ill", sensitivity=[0.75, 1], random_state=0
    ... )
    >>> table.query("metric == 'specificity'")[["wanted", "threshold", "value"]].round(3)
                    wanted  threshold  value
    1  sensitivity >= 0.75        0.6  0.833
    5     sensitivity >= 1        0.3  0.333
    """
    import pandas as pd

    wanted = [
        (name, value)
        for name, values in (("sensitivity", sensitivity), ("specificity", specificity))
        for value in _wanted(name, values)
    ]
    if not wanted:
        raise InputError("neither sensitivity nor specificity is given; say what is to be reached")
    score = _column_of_scores(y_score)
    cases = _against_the_rest(y_true, score, pos_label, groups)
    share = {} if prevalence is None else {1: check_share("prevalence", prevalence)}
    rates = roc_curve(cases.truth[:, 1], score, drop_intermediate=False)
    seed = draw_seed(random_state)
    rows: list[tuple[Any, ...]] = []
    for name, value in wanted:
        threshold = _threshold(name, value, *rates)
        called = score >= threshold
        at = Cases(
            cases.labels, cases.truth, np.stack([~called, called], axis=1), None,
            cases.patients, exclusive=True, eps=0.0,
        )  # fmt: skip
        scores = Scores(at, 1, share)
        resampled = resample(scores, at.n_patients, n_resamples, seed, method, len(score))
        rows += [
            (f"{name} >= {value:g}", threshold, *row[1:])
            for row in rows_of(scores, resampled, confidence_level)
            if row.label == 1 and row.metric not in ("precision", "F1")
        ]
    return pd.DataFrame(rows, columns=["wanted", "threshold", "metric", "value", "low", "high"])


def _wanted(name: str, values: Any) -> list[float]:
    checked = []
    for value in [] if values is None else np.atleast_1d(values).tolist():
        if not isinstance(value, int | float) or not 0 < value <= 1:
            raise InputError(f"{name}={value!r} cannot be reached; it must lie in (0, 1]")
        checked.append(float(value))
    return checked


def _column_of_scores(y_score: Any) -> Array:
    try:
        score = np.asarray(y_score, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"y_score holds what is no number: {error}") from error
    if score.ndim == 2 and score.shape[1] == 1:
        score = score[:, 0]
    if score.ndim != 1:
        raise InputError(
            f"y_score has shape {score.shape}; pass the column of pos_label alone, such as "
            "proba[:, list(clf.classes_).index(pos_label)]"
        )
    wrong = np.flatnonzero(~np.isfinite(score))
    if len(wrong):
        raise InputError(
            f"y_score is {score[wrong[0]]} in {len(wrong)} of {len(score)} cases, first in "
            f"{wrong[0]}; leave these cases out of all arguments, and say how many"
        )
    return score


def _against_the_rest(y_true: Any, score: Array, pos_label: Any, groups: Any) -> Cases:
    """The cases as two classes, of which the second is `pos_label`."""
    given = check_cases(y_true, None, y_true, None, groups)
    if not given.exclusive:
        raise InputError("y_true has several columns; pass that of one finding")
    if len(given.truth) != len(score):
        raise InputError(f"y_score has {len(score)} entries, but y_true has {len(given.truth)}")
    if pos_label not in given.labels or len(given.labels) < 2:
        raise InputError(
            f"y_true holds the classes {given.labels}; pos_label={pos_label!r} and another class "
            "must be among them"
        )
    positive = given.truth[:, given.labels.index(pos_label)]
    truth = np.stack([1 - positive, positive], axis=1)
    return Cases(
        ["other", str(pos_label)], truth, truth == 1, None, given.patients, exclusive=True, eps=0.0
    )


def _threshold(name: str, value: float, fpr: Array, tpr: Array, thresholds: Array) -> float:
    """The threshold that reaches `value` with least loss; thresholds fall."""
    slack = 1e-12  # of rates that are no exact fractions
    if name == "sensitivity":
        return float(thresholds[np.argmax(tpr >= value - slack)])
    return float(thresholds[np.flatnonzero(1 - fpr >= value - slack)[-1]])


def predictive_values(sensitivity: Any, specificity: Any, prevalence: Any) -> tuple[Any, Any]:
    """Work out what a result means where the disease is as frequent as stated.

    Parameters
    ----------
    sensitivity, specificity, prevalence : float or array-like
        Each in [0, 1]; arrays are broadcast.

    Returns
    -------
    ppv, npv : float or ndarray
        Positive and negative predictive values by Bayes' rule; NaN where no result of that kind
        can occur.

    Raises
    ------
    InputError
        One of them is outside of [0, 1].

    Examples
    --------
    >>> from skcxr.metrics import predictive_values
    >>> ppv, npv = predictive_values(0.9, 0.9, 0.01)  # screening: most alarms are false
    >>> round(ppv, 3), round(npv, 3)
    (0.083, 0.999)
    """
    rates = []
    for name, rate in (
        ("sensitivity", sensitivity), ("specificity", specificity), ("prevalence", prevalence)
    ):  # fmt: skip
        try:
            values = np.asarray(rate, dtype=np.float64)
        except (MemoryError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"{name}={rate!r:.200} is no number") from error
        if not ((values >= 0) & (values <= 1)).all():
            raise InputError(f"{name}={rate!r} is not within 0 to 1")
        rates.append(values)
    try:
        np.broadcast_shapes(*(values.shape for values in rates))
    except ValueError as error:
        raise InputError(f"sensitivity, specificity and prevalence do not fit: {error}") from error
    ppv, npv = at_prevalence(*rates)
    return (float(ppv), float(npv)) if np.ndim(ppv) == 0 else (ppv, npv)


@validate_params(
    {"n_bins": [Interval(Integral, 1, None, closed="left")]}, prefer_skip_nested_validation=True
)
def expected_calibration_error(
    y_true: Any, y_score: Any, *, labels: Sequence[Any] | None = None, n_bins: int = 10
) -> Any:
    """Say how far confidence lies from the share that is right, on average over bins.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, k)
        Classes or findings, as :func:`classification_report_ci` takes them.
    y_score : array-like of shape (n, k) or (n,)
        Probabilities.
    labels : sequence of object of length k, default=None
        Classes or findings, in the order of `y_score`.
    n_bins : int, default=10
        Bins of equal width.

    Returns
    -------
    float or ndarray of shape (k,)
        Of classes, the confidence is the probability of the most probable class, which is right
        or wrong. Of findings, each has its own: of its probability, and presence.

    Raises
    ------
    InputError
        As in :func:`classification_report_ci`.

    See Also
    --------
    sklearn.calibration.calibration_curve : What stands behind the number; look at it too.

    Notes
    -----
    Guo et al. (2017), On calibration of modern neural networks. The number depends on the bins,
    and in small samples it is above 0 for a perfectly calibrated model.

    Examples
    --------
    >>> from skcxr.metrics import expected_calibration_error
    >>> round(expected_calibration_error([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.8]), 3)
    0.2
    """
    cases = check_cases(y_true, y_score, None, labels, None)
    assert cases.proba is not None
    proba, truth = cases.proba, cases.truth
    if cases.exclusive:
        top = proba.argmax(axis=1)[:, None]
        proba, truth = (np.take_along_axis(array, top, axis=1) for array in (proba, truth))
    errors = []
    for of_label, is_so in zip(proba.T, truth.T, strict=True):
        labelled = ~np.isnan(is_so)
        gap = (is_so - of_label)[labelled]
        bins = np.bincount(bins_of(of_label[labelled], n_bins), gap, n_bins)
        errors.append(np.abs(bins).sum() / len(gap) if len(gap) else np.nan)
    return float(errors[0]) if cases.exclusive else np.array(errors)
