"""Models against each other on the same cases."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils._param_validation import validate_params

from skcxr._exceptions import InputError
from skcxr.metrics._bootstrap import make_seed, resample
from skcxr.metrics._cases import make_cases
from skcxr.metrics._report import BOOTSTRAP
from skcxr.metrics._scores import OVERALL, Scores

__all__ = ["compare_models_ci"]

Array = np.ndarray[Any, Any]


@validate_params(
    {
        "y_true": "no_validation",
        "scores": [dict],
        "labels": "no_validation",
        "groups": "no_validation",
        **BOOTSTRAP,
    },
    prefer_skip_nested_validation=True,
)
def compare_models_ci(
    y_true: Any,
    scores: dict[str, Any],
    *,
    labels: Any = None,
    groups: Any = None,
    method: str = "percentile",
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: int | np.random.RandomState | None = None,
) -> Any:
    """Compare models on the same cases: differences with paired intervals.

    Every draw of patients scores all models, so what makes cases hard for all of them cancels.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, n_findings)
        Classes or findings, as :func:`classification_report_ci` takes them.
    scores : dict of str to array-like of shape (n, k) or (n,)
        Probabilities of each model, two models or more; the others are compared with the first.
    labels : array-like of shape (k,), default=None
        Classes or findings, in the order of the columns.
    groups : array-like of shape (n,), default=None
        Patients; None takes each image for a patient of its own.
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
        A row for each model but the first and each overall metric, with the columns model,
        against, metric, value, reference, difference, low and high. Where low and high have one
        sign, the difference can be told from none.

    Raises
    ------
    InputError
        The arguments do not fit together, or there are fewer than two models.

    Examples
    --------
    >>> import numpy as np
    >>> from skcxr.metrics import compare_models_ci
    >>> rng = np.random.default_rng(0)
    >>> y_true = rng.integers(2, size=80)
    >>> good = np.clip(0.5 + 0.8 * (y_true - 0.5) + rng.normal(0, 0.2, 80), 0, 1)
    >>> table = compare_models_ci(
    ...     y_true, {"guess": rng.random(80), "good": good}, groups=np.arange(80) // 2,
    ...     random_state=0,
    ... )
    >>> bool((table.set_index("metric").loc["macro AUROC", "low"] > 0))
    True
    """
    import pandas as pd

    if len(scores) < 2:
        raise InputError(f"scores holds {len(scores)} model(s); give two or more by name")
    seed = make_seed(random_state)
    resampled = {}
    for name, score in scores.items():
        try:
            cases = make_cases(y_true, score, labels=labels, groups=groups)
        except InputError as error:
            raise InputError(f"scores[{name!r}]: {error}") from error
        resampled[name] = resample(
            Scores(cases, 10, {}), cases.n_patients, n_resamples, seed, method, len(cases.truth)
        )
    (first, reference), *others = resampled.items()
    rows = []
    for name, model in others:
        limits = model.minus(reference).limits(confidence_level)
        for row, metric in enumerate(OVERALL):
            value, known = float(model.value[row]), float(reference.value[row])
            rows.append((name, first, metric, value, known, value - known, *limits[row].tolist()))
    columns = ["model", "against", "metric", "value", "reference", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)
