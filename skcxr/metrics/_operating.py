"""Thresholds, predictive values and calibration."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve
from sklearn.utils._param_validation import Interval, validate_params

from skcxr._exceptions import InputError
from skcxr.metrics._cases import make_cases
from skcxr.metrics._report import BOOTSTRAP, classification_report_ci
from skcxr.metrics._scores import Scores, at_prevalence

__all__ = ["expected_calibration_error", "operating_points", "predictive_values"]

Array = np.ndarray[Any, Any]


@validate_params(
    {
        "y_true": "no_validation",
        "y_score": "no_validation",
        "pos_label": "no_validation",
        "sensitivity": ["array-like", Real, None],
        "specificity": ["array-like", Real, None],
        "groups": "no_validation",
        "prevalence": [Interval(Real, 0, 1, closed="neither"), None],
        **BOOTSTRAP,
    },
    prefer_skip_nested_validation=True,
)
def operating_points(
    y_true: Any,
    y_score: Any,
    *,
    pos_label: Any,
    sensitivity: Any = None,
    specificity: Any = None,
    groups: Any = None,
    prevalence: float | None = None,
    method: str = "percentile",
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: int | np.random.RandomState | None = None,
) -> Any:
    """Find the thresholds that reach a sensitivity or specificity, and what they give.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Classes.
    y_score : array-like of shape (n,)
        Probability of `pos_label`.
    pos_label : object
        The positive class; all others are negative.
    sensitivity, specificity : float or array-like of float, default=None
        What is to be reached, in (0, 1]; the threshold is the highest with this sensitivity, or
        the lowest with this specificity.
    groups : array-like of shape (n,), default=None
        Patients; None takes each image for a patient of its own.
    prevalence : float, default=None
        At which PPV and NPV are wanted, in (0, 1). None takes the share among the cases.
    method : {"percentile", "BCa"}, default="percentile"
        Kind of bootstrap interval.
    n_resamples : int, default=1000
        Draws of patients, 100 or more.
    confidence_level : float, default=0.95
        Of the intervals, in (0, 1).
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Returns
    -------
    pandas.DataFrame
        A row for each wish, with the columns wanted, threshold and, each with low and high,
        sensitivity, specificity, PPV and NPV. A case is called positive from the threshold on.

    Raises
    ------
    InputError
        The arguments do not fit together, or one of both classes is missing.

    Notes
    -----
    The intervals are those at the threshold as it is: that it was chosen on the same cases is not
    in them. Choose it on other cases than those on which it is reported.

    Examples
    --------
    >>> from skcxr.metrics import operating_points
    >>> y_true = ["ill"] * 10 + ["well"] * 10
    >>> y_score = [0.1 * k for k in range(1, 11)] + [0.05 * k for k in range(10)]
    >>> table = operating_points(
    ...     y_true, y_score, pos_label="ill", sensitivity=0.9, random_state=0
    ... )
    >>> table[["wanted", "threshold", "sensitivity", "specificity"]].round(2).values.tolist()
    [['sensitivity >= 0.9', 0.2, 0.9, 0.4]]
    """
    import pandas as pd

    truth = np.asarray(y_true)
    score = np.asarray(y_score, dtype=np.float64)
    if truth.ndim != 1 or score.shape != truth.shape:
        raise InputError(f"y_true has shape {truth.shape} and y_score {score.shape}; both are (n,)")
    positive = truth == pos_label
    if not 0 < positive.sum() < len(positive):
        raise InputError(
            f"{int(positive.sum())} of {len(positive)} cases are {pos_label!r}; a threshold needs "
            "positive and negative cases"
        )
    if not np.isfinite(score).all():
        raise InputError(f"y_score[{int(np.isfinite(score).argmin())}] is no number")
    wishes = [("sensitivity", value) for value in _wanted("sensitivity", sensitivity)]
    wishes += [("specificity", value) for value in _wanted("specificity", specificity)]
    if not wishes:
        raise InputError("give sensitivity, specificity or both")
    fpr, tpr, thresholds = roc_curve(positive, score, drop_intermediate=False)
    names = ["sensitivity", "specificity"]
    suffix = "" if prevalence is None else f" at prevalence {prevalence:g}"
    names += [f"PPV{suffix}", f"NPV{suffix}"]
    rows = []
    for kind, value in wishes:
        if kind == "sensitivity":
            at = int(np.flatnonzero(tpr >= value - 1e-12)[0])
        else:
            at = int(np.flatnonzero(1 - fpr >= value - 1e-12)[-1])
        threshold = float(thresholds[at])
        report = classification_report_ci(
            positive.astype(int), y_pred=(score >= threshold).astype(int), labels=[0, 1],
            groups=groups, prevalence=prevalence, method=method, n_resamples=n_resamples,
            confidence_level=confidence_level, random_state=random_state,
        )  # fmt: skip
        row: dict[str, Any] = {"wanted": f"{kind} >= {value:g}", "threshold": threshold}
        for name in names:
            found, low, high = report.value(name, label=1)
            row |= {name: found, f"{name} low": low, f"{name} high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _wanted(name: str, values: Any) -> list[float]:
    wanted = [] if values is None else np.atleast_1d(np.asarray(values, np.float64)).tolist()
    for value in wanted:
        if not 0 < value <= 1:
            raise InputError(f"{name}={value!r} is not in (0, 1]")
    return wanted


@validate_params(
    {
        "sensitivity": [Interval(Real, 0, 1, closed="both")],
        "specificity": [Interval(Real, 0, 1, closed="both")],
        "prevalence": [Interval(Real, 0, 1, closed="neither")],
    },
    prefer_skip_nested_validation=True,
)
def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> tuple[float, float]:
    """Compute PPV and NPV at a prevalence, by Bayes' rule.

    Parameters
    ----------
    sensitivity, specificity : float
        Of the test, in [0, 1].
    prevalence : float
        Share of the ill, in (0, 1).

    Returns
    -------
    ppv, npv : float
        How often a positive and a negative answer are right; NaN where there is no such answer.

    Examples
    --------
    >>> from skcxr.metrics import predictive_values
    >>> ppv, npv = predictive_values(0.9, 0.9, 0.01)
    >>> round(ppv, 3), round(npv, 3)
    (0.083, 0.999)
    """
    ppv, npv = at_prevalence(float(sensitivity), float(specificity), float(prevalence))
    return float(ppv), float(npv)


@validate_params(
    {
        "y_true": "no_validation",
        "y_score": "no_validation",
        "labels": "no_validation",
        "n_bins": [Interval(Integral, 1, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def expected_calibration_error(
    y_true: Any, y_score: Any, *, labels: Any = None, n_bins: int = 10
) -> float:
    """Compute how far probabilities are from how often they are right.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, n_findings)
        Classes or findings.
    y_score : array-like of shape (n, k) or (n,)
        Probabilities, in the order of `labels`.
    labels : array-like of shape (k,), default=None
        Classes or findings; None takes the sorted classes that occur.
    n_bins : int, default=10
        Bins of equal width.

    Returns
    -------
    float
        Mean over the cases of the distance between the mean probability of the predicted class and
        how often it is true, by bins [1]_; for findings the mean over findings. In [0, 1].

    Raises
    ------
    InputError
        The arguments do not fit together.

    References
    ----------
    .. [1] C. Guo et al., "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    >>> from skcxr.metrics import expected_calibration_error
    >>> round(expected_calibration_error([0, 1, 1, 1], [0.2, 0.8, 0.8, 0.8]), 3)
    0.2
    """
    cases = make_cases(y_true, y_score, labels=labels)
    scores = Scores(cases, n_bins, {})
    row = scores.names.index((None, "ECE"))
    return float(scores(np.ones((cases.n_patients, 1)))[row, 0])
