"""Models against each other on the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils._param_validation import validate_params

from skcxr._exceptions import InputError
from skcxr._seeds import draw_seed
from skcxr.metrics._bootstrap import resample
from skcxr.metrics._checks import check_cases
from skcxr.metrics._report import BOOTSTRAP, rows_of
from skcxr.metrics._scores import COUNTED, OVERALL, RANKED, Scores

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare_models_ci"]

_METRICS = (*OVERALL, *COUNTED, *RANKED)


@validate_params({"scores": [dict], **BOOTSTRAP}, prefer_skip_nested_validation=True)
def compare_models_ci(
    y_true: Any,
    scores: dict[str, Any],
    *,
    labels: Sequence[Any] | None = None,
    groups: Any = None,
    metrics: Sequence[str] = OVERALL,
    method: str = "percentile",
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> pd.DataFrame:
    """Compare models on the same cases, with intervals of the differences to the first.

    Every resample of patients scores all models, so what makes a case hard for all of them
    cancels. Two intervals that overlap do not say that models are alike; the interval of the
    difference does the comparing.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, k)
        Classes or findings, as :func:`classification_report_ci` takes them.
    scores : dict of str to array-like of shape (n, k) or (n,)
        Probabilities of each model; differences are to the first.
    labels : sequence of object of length k, default=None
        Classes or findings, in the order of the probabilities of all models. None takes the
        sorted classes of `y_true`.
    groups : array-like of shape (n,), default=None
        The patient of each case. None takes each for a patient of its own.
    metrics : sequence of str, default=("accuracy", "balanced accuracy", "macro AUROC", \
"log loss", "Brier score", "ECE")
        Metrics of :func:`classification_report_ci`; those of labels give a row for each.
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
        Columns model, label, metric, value, low, high, difference, difference_low and
        difference_high: the model's value minus the first model's, NaN for the first. Of log
        loss, Brier score and ECE less is better.

    Raises
    ------
    InputError
        There are less than two models, a metric is unknown, or as in
        :func:`classification_report_ci`; the message names the model.

    Examples
    --------
    >>> import numpy as np
    >>> from skcxr.metrics import compare_models_ci
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 50)
    >>> good, poor = (1 / (1 + np.exp(-rng.normal(s * (2 * y - 1)))) for s in (2, 0.5))
    >>> table = compare_models_ci(
    ...     y, {"good": good, "poor": poor}, metrics=["macro AUROC"], random_state=0
    ... )
    >>> table[["model", "metric"]].values.tolist()
    [['good', 'macro AUROC'], ['poor', 'macro AUROC']]
    >>> bool(table["difference_high"][1] < 0)  # poor is the poorer one
    True
    """
    import pandas as pd

    if len(scores) < 2:
        raise InputError(f"scores holds {len(scores)} models; a comparison needs two")
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    unknown = [metric for metric in metrics if metric not in _METRICS]
    if unknown or not metrics:
        raise InputError(f"metrics {unknown} are unknown; they may be {list(_METRICS)}")
    seed = draw_seed(random_state)
    rows: list[tuple[Any, ...]] = []
    first = None
    for model, proba in scores.items():
        try:
            if proba is None:
                raise InputError("y_score is None; probabilities are compared")
            cases = check_cases(y_true, proba, None, labels, groups)
        except InputError as error:
            raise InputError(f"scores[{model!r}]: {error}") from error
        of_model = Scores(cases, 10, {})
        resampled = resample(
            of_model, cases.n_patients, n_resamples, seed, method, len(cases.truth)
        )
        differences = np.full((len(of_model.names), 3), np.nan)
        if first is None:
            first = resampled
        else:
            change = resampled.minus(first)
            differences[:, 0] = change.value
            if cases.n_patients > 1:
                differences[:, 1:] = change.limits(confidence_level)
        for row, difference in zip(
            rows_of(of_model, resampled, confidence_level), differences.tolist(), strict=True
        ):
            label = "overall" if row.label is None else cases.labels[row.label]
            rows.append((model, label, *row[1:], *difference))
    names = ["model", "label", "metric", "value", "low", "high"]
    names += ["difference", "difference_low", "difference_high"]
    table = pd.DataFrame([row for metric in metrics for row in rows if row[2] == metric])
    return table.set_axis(names, axis=1)
