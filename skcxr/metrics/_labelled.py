"""Scores of findings that are not labelled in every image, and of thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.utils import column_or_1d

from skcxr._exceptions import InputError

__all__ = ["make_masked_scorer", "target_sensitivity"]

Array = np.ndarray[Any, Any]

_RESPONSES = ("predict", "predict_proba", "decision_function")


@dataclass(frozen=True)
class _MaskedScorer:
    """A scorer, made by :func:`make_masked_scorer`."""

    score_func: Callable[..., float]
    response_method: str
    sign: int
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Score `estimator` on X and findings y of shape (n, k)."""
        truth = np.asarray(y, dtype=np.float64)
        if truth.ndim != 2:
            raise InputError(
                f"y has shape {truth.shape}, but findings have one column each: (n, k)"
            )
        answer = getattr(estimator, self.response_method)(X)
        if isinstance(answer, list):  # one (n, 2) for each finding, as forests give
            answer = np.stack([of_finding[:, 1] for of_finding in answer], axis=1)
        if np.shape(answer) != truth.shape:
            raise InputError(
                f"{self.response_method} gives shape {np.shape(answer)} for y of shape "
                f"{truth.shape}; the estimator was not fitted on these findings"
            )
        scores = []
        for k, column in enumerate(truth.T):
            labelled = ~np.isnan(column)
            if not labelled.any():
                continue
            weight = (
                {}
                if sample_weight is None
                else {"sample_weight": np.asarray(sample_weight)[labelled]}
            )
            scores.append(
                self.score_func(
                    column[labelled].astype(int), answer[labelled, k], **weight, **self.options
                )
            )
        return self.sign * float(np.mean(scores)) if scores else float("nan")


def make_masked_scorer(
    score_func: Callable[..., float],
    *,
    response_method: str = "predict",
    greater_is_better: bool = True,
    **kwargs: Any,
) -> Callable[..., float]:
    """Make a scorer of findings in which NaN means "not labelled".

    scikit-learn's own scorers refuse such y. This one takes each finding for itself, over the
    images in which it is labelled, and gives the mean over the findings; a finding that is
    labelled in no image does not count. Pass it as ``scoring=`` with a splitter that does not
    look at y: KFold, GroupKFold, ShuffleSplit, GroupShuffleSplit, LeaveOneGroupOut. The
    stratified ones refuse NaN.

    Parameters
    ----------
    score_func : callable
        ``score_func(y_true, y_pred, **kwargs)`` of one finding, both of shape (n_labelled,);
        one of scikit-learn's metrics, such as ``roc_auc_score``.
    response_method : {"predict", "predict_proba", "decision_function"}, default="predict"
        The method of the estimator that gives `y_pred`.
    greater_is_better : bool, default=True
        Whether a high value is good; else the scorer changes the sign.
    **kwargs : dict
        Further arguments of `score_func`.

    Returns
    -------
    callable
        ``scorer(estimator, X, y, sample_weight=None)``, with y of shape (n, k), gives a float;
        NaN where nothing is labelled.

    Raises
    ------
    InputError
        `response_method` is unknown; from the scorer, y or the estimator's answer has another
        shape.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.metrics import roc_auc_score
    >>> from sklearn.model_selection import GroupKFold, cross_val_score
    >>> from skcxr import CXRClassifier
    >>> from skcxr.metrics import make_masked_scorer
    >>> rng = np.random.default_rng(0)
    >>> X, patients = rng.random((24, 12, 12)), np.repeat(np.arange(12), 2)
    >>> y = np.tile([[0, 1], [1, np.nan], [np.nan, 0], [1, 1], [0, 0], [1, 0]], (4, 1))
    >>> scorer = make_masked_scorer(roc_auc_score, response_method="predict_proba")
    >>> clf = CXRClassifier(max_epochs=2, random_state=0)
    >>> cross_val_score(clf, X, y, groups=patients, cv=GroupKFold(2), scoring=scorer).shape
    (2,)
    """
    if response_method not in _RESPONSES:
        raise InputError(f"response_method must be one of {_RESPONSES}, got {response_method!r}")
    return _MaskedScorer(score_func, response_method, 1 if greater_is_better else -1, kwargs)


def target_sensitivity(
    y_true: Any, y_pred: Any, *, pos_label: Any, sensitivity: float = 0.95
) -> float:
    """How near predictions come to a wanted sensitivity, from above; a score for thresholds.

    :class:`sklearn.model_selection.TunedThresholdClassifierCV` with a scorer of it takes the
    highest threshold at which enough of the positive cases are still found. Negative cases do not
    count: those of the same hospital are often told apart at any threshold, and say little about
    where the next hospital's will lie.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        Classes and what was predicted, of two classes.
    pos_label : object
        The positive class.
    sensitivity : float, default=0.95
        Share of the positive cases that have to be found, in (0, 1].

    Returns
    -------
    float
        1 where just this share is found, less by what is found beyond; below the share, what is
        found minus 1, so that more of it is better. In [-1, 1].

    Raises
    ------
    InputError
        `y_true` holds no positive case.

    Examples
    --------
    >>> from sklearn.metrics import make_scorer
    >>> from skcxr.metrics import target_sensitivity
    >>> y_true, y_pred = ["ill", "ill", "well", "well"], ["ill", "ill", "ill", "well"]
    >>> target_sensitivity(y_true, y_pred, pos_label="ill", sensitivity=0.75)
    0.75
    >>> target_sensitivity(y_true, ["ill", "well"] * 2, pos_label="ill", sensitivity=0.75)
    -0.5
    >>> scorer = make_scorer(target_sensitivity, pos_label="ill", sensitivity=0.9)
    """
    positive = _is_label("y_true", y_true, pos_label)
    found = _is_label("y_pred", y_pred, pos_label)
    if len(positive) != len(found):
        raise InputError(f"y_pred has {len(found)} entries, but y_true has {len(positive)} cases")
    if not positive.any():
        raise InputError(
            f"y_true holds no {pos_label!r}; where a threshold is tuned, more patients of that "
            "class are needed"
        )
    reached = float(found[positive].mean())
    return reached - 1 if reached < sensitivity else 1 - (reached - sensitivity)


def _is_label(name: str, values: Any, label: Any) -> Array:
    """Which of some labels are one of them."""
    try:
        column = column_or_1d(np.asarray(values))
        same = np.asarray(column == label, dtype=bool)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is no list of labels: {error}") from error
    if same.shape != column.shape:
        raise InputError(f"{name} cannot be compared with pos_label={label!r:.200}")
    return same
