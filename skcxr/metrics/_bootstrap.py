"""The bootstrap over patients, of many statistics and many resamples at once.

A resample is how often each patient was drawn. A statistic is a function of such counts, of shape
(n_patients, b) for b resamples, and gives shape (m, b) for m figures; NaN where one is undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from skcxr._seeds import draw_seed

Array = np.ndarray[Any, Any]
Statistic = Callable[[Array], Array]

MOST_UNDEFINED = 0.05  # share of resamples without a value up to which there is an interval

_BLOCK = 2**19  # numbers of a block of resamples
_MOST_LEFT_OUT = 2000  # groups of the jackknife


def resample_counts(n_patients: int, n_resamples: int, seed: int, n_rows: int) -> Iterator[Array]:
    """How often each patient is drawn, in blocks (n_patients, b); `n_rows` sets their size."""
    rng = np.random.default_rng(seed)
    for size in _block_sizes(n_resamples, n_rows):
        drawn = rng.integers(n_patients, size=(size, n_patients)).T
        places = drawn * size + np.arange(size)
        counts = np.bincount(places.ravel(), minlength=n_patients * size)
        yield counts.reshape(n_patients, size).astype(np.float64)


def left_out_counts(n_patients: int, n_rows: int) -> Iterator[Array]:
    """All patients but one, or but one group of them where there are many, in blocks."""
    n_groups = min(n_patients, _MOST_LEFT_OUT)
    group = np.arange(n_patients) % n_groups
    start = 0
    for size in _block_sizes(n_groups, n_rows):
        yield (group[:, None] != np.arange(start, start + size)).astype(np.float64)
        start += size


def _block_sizes(total: int, n_rows: int) -> Iterator[int]:
    size = max(16, _BLOCK // max(n_rows, 1))
    for start in range(0, total, size):
        yield min(size, total - start)


@dataclass(frozen=True)
class Resampled:
    """Values of m figures: of the sample (m,), of resamples (m, r), of the jackknife (m, j)."""

    value: Array
    drawn: Array
    jackknife: Array | None = None

    def minus(self, other: Resampled) -> Resampled:
        """The differences, resample by resample."""
        jackknife = (
            None
            if self.jackknife is None or other.jackknife is None
            else self.jackknife - other.jackknife
        )
        return Resampled(self.value - other.value, self.drawn - other.drawn, jackknife)

    def limits(self, confidence_level: float, centred: Array | None = None) -> Array:
        """Lower and upper limits, shape (m, 2).

        NaN where the figure is undefined, in the sample or in more than `MOST_UNDEFINED` of the
        resamples. `centred` marks figures whose resamples are moved so that their mean is the
        value.
        """
        limits = np.full((len(self.value), 2), np.nan)
        for row, (value, drawn) in enumerate(zip(self.value, self.drawn, strict=True)):
            defined = drawn[~np.isnan(drawn)]
            if np.isnan(value) or len(defined) < (1 - MOST_UNDEFINED) * len(drawn):
                continue
            alpha = np.array([(1 - confidence_level) / 2, (1 + confidence_level) / 2])
            if centred is not None and centred[row]:
                defined = np.maximum(defined - defined.mean() + value, 0)
            elif self.jackknife is not None:
                alpha = _bca(alpha, value, defined, self.jackknife[row])
            limits[row] = np.quantile(defined, alpha)
        return limits


def _bca(alpha: Array, value: float, drawn: Array, jackknife: Array) -> Array:
    """Levels of the bias-corrected and accelerated interval (Efron 1987), as in scipy."""
    below = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    bias = ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    jackknife = jackknife[~np.isnan(jackknife)]
    influence = jackknife.mean() - jackknife if len(jackknife) else jackknife
    spread = (influence**2).sum()
    acceleration = (influence**3).sum() / (6 * spread**1.5) if spread > 1e-24 else 0.0
    moved = bias + ndtri(alpha)
    return ndtr(bias + moved / (1 - acceleration * moved))


def resample(
    statistic: Statistic, n_patients: int, n_resamples: int, seed: int, method: str, n_rows: int
) -> Resampled:
    """The values of a statistic in the sample, in resamples and, for BCa, in the jackknife."""
    value = statistic(np.ones((n_patients, 1)))[:, 0]
    drawn = [statistic(c) for c in resample_counts(n_patients, n_resamples, seed, n_rows)]
    if method != "BCa":
        return Resampled(value, np.concatenate(drawn, axis=1))
    left_out = [statistic(counts) for counts in left_out_counts(n_patients, n_rows)]
    return Resampled(value, np.concatenate(drawn, axis=1), np.concatenate(left_out, axis=1))


def sum_by_patient(values: Array, patients: Array, n_patients: int) -> Array:
    """Sums over the cases of each patient; `values` (n, m) gives (m, n_patients)."""
    return np.stack([np.bincount(patients, column, n_patients) for column in values.T])


def interval_of_mean(
    values: Any,
    groups: Any,
    *,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: Any = None,
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` (n,), by bootstrap over patients.

    `groups` (n,) are the patients; None takes every value for a patient of its own. NaN for both
    where there is one patient only.
    """
    values = np.asarray(values, dtype=np.float64)
    patients = (
        np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    n_patients = int(patients.max()) + 1
    if n_patients < 2:
        return float("nan"), float("nan")
    total, number = sum_by_patient(
        np.column_stack([values, np.ones(len(values))]), patients, n_patients
    )
    resampled = resample(
        lambda counts: (total @ counts / (number @ counts))[None],
        n_patients, n_resamples, draw_seed(random_state), "percentile", n_patients,
    )  # fmt: skip
    low, high = resampled.limits(confidence_level)[0].tolist()
    return low, high
