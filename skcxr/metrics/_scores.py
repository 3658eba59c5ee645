"""The metrics of a set of cases, for many resamples at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.sparse import csr_matrix
from scipy.special import ndtri, xlogy

from skcxr.metrics._bootstrap import sum_by_patient

Array = np.ndarray[Any, Any]

COUNTED = ("sensitivity", "specificity", "PPV", "NPV", "precision", "F1")
RANKED = ("AUROC", "average precision")
OVERALL = ("accuracy", "balanced accuracy", "macro AUROC", "log loss", "Brier score", "ECE")
NEED_SCORES = (*RANKED, *OVERALL[2:])


@dataclass(frozen=True)
class Cases:
    """Checked cases: n of them, of k classes or findings.

    Classes are k findings of which each case has one.

    Parameters
    ----------
    labels : list of object
        Names of classes or findings.
    truth : ndarray of shape (n, k)
        1, 0 or, for findings that are not labelled, NaN.
    predicted : ndarray of shape (n, k), dtype bool
        What was predicted.
    proba : ndarray of shape (n, k) or None
        Probabilities.
    patients : ndarray of shape (n,)
        Numbers from 0, none left out.
    exclusive : bool
        Whether these are classes.
    eps : float
        How near to 0 and 1 log loss lets probabilities come.
    """

    labels: list[Any]
    truth: Array
    predicted: Array
    proba: Array | None
    patients: Array
    exclusive: bool
    eps: float

    @property
    def n_patients(self) -> int:
        """The number of patients."""
        return int(self.patients.max()) + 1

    def take(self, chosen: Array) -> Cases:
        """Some of the cases."""
        return replace(
            self,
            truth=self.truth[chosen],
            predicted=self.predicted[chosen],
            proba=None if self.proba is None else self.proba[chosen],
            patients=np.unique(self.patients[chosen], return_inverse=True)[1],
        )

    def sizes(self, k: int | None) -> tuple[int, int]:
        """Cases of a label, and their patients; of all where it is None."""
        has = np.ones(len(self.truth), bool) if k is None else self.truth[:, k] == 1
        return int(has.sum()), len(np.unique(self.patients[has]))


class Ranking:
    """AUROC and average precision of one label, ties as in scikit-learn.

    Between two neighbouring scores of positive cases the order of the negative ones does not
    matter: each stretch is counted, and the sums run over the stretches.
    """

    def __init__(self, positive: Array, score: Array, patients: Array, n_patients: int) -> None:
        values, place = np.unique(score[positive], return_inverse=True)
        others = score[~positive]
        # even stretches lie between values, odd ones are tied with a value
        stretch = np.searchsorted(values, others) + np.searchsorted(values, others, "right")
        used, stretch = np.unique(stretch, return_inverse=True)
        self._positive = _counter(place, patients[positive], (len(values), n_patients))
        self._negative = _counter(stretch, patients[~positive], (len(used), n_patients))
        self._below = np.searchsorted(used, 2 * np.arange(len(values)), "right")
        self._to_tie = np.searchsorted(used, 2 * np.arange(len(values)) + 1, "right")
        self._tied = bool((self._below != self._to_tie).any())

    def __call__(self, counts: Array) -> Array:
        """AUROC and average precision, shape (2, b)."""
        positive = self._positive @ counts
        negative = np.zeros((self._negative.shape[0] + 1, counts.shape[1]))
        np.cumsum(self._negative @ counts, axis=0, out=negative[1:])
        below = negative[self._below]
        n_positive, n_negative = positive.sum(axis=0), negative[-1]
        wins = np.einsum("ub,ub->b", positive, below)
        if self._tied:
            wins = (wins + np.einsum("ub,ub->b", positive, negative[self._to_tie])) / 2
        found = np.cumsum(positive[::-1], axis=0)[::-1]
        called = found + (n_negative - below)
        np.maximum(called, 1, out=called)  # none is called positive: none is found either
        found *= positive
        found /= called
        with np.errstate(divide="ignore", invalid="ignore"):
            # scikit-learn gives 0 for the precision of no positive case
            average = found.sum(axis=0) / n_positive
            return np.stack([wins / (n_positive * n_negative), average])


def _counter(rows: Array, patients: Array, shape: tuple[int, int]) -> Any:
    return csr_matrix((np.ones(len(rows)), (rows, patients)), shape=shape)


class Scores:
    """All metrics of some cases, as a function of how often each patient counts.

    Parameters
    ----------
    cases : Cases
        The cases.
    n_bins : int
        Bins of the ECE.
    prevalence : dict of int to float
        Prevalence of labels, by their number.

    Attributes
    ----------
    names : list of (int or None, str)
        The number of the label, None for all, and the metric, of each row of the result.
    """

    def __init__(self, cases: Cases, n_bins: int, prevalence: dict[int, float]) -> None:
        self.cases, self.prevalence = cases, prevalence
        self._n_bins = n_bins
        k, patients, n_patients = len(cases.labels), cases.patients, cases.n_patients
        self._labelled = ~np.isnan(cases.truth)
        cells = _cells(cases).reshape(len(cases.truth), -1)
        self._cells = sum_by_patient(cells, patients, n_patients)  # (4 k, n_patients)
        self.names: list[tuple[int | None, str]] = []
        self._rankings: list[Ranking] = []
        if cases.proba is not None:
            self._losses = sum_by_patient(_losses(cases, n_bins), patients, n_patients)
            for j in range(k):
                rows = self._labelled[:, j]
                self._rankings.append(
                    Ranking(
                        cases.truth[rows, j] == 1, cases.proba[rows, j], patients[rows], n_patients
                    )
                )
        per_label = (*COUNTED, *(RANKED if cases.proba is not None else ()))
        overall = OVERALL if cases.proba is not None else OVERALL[:2]
        self.names += [(None, metric) for metric in overall]
        self.names += [(j, metric) for metric in per_label for j in range(k)]
        for j, share in prevalence.items():
            self.names += [(j, f"{metric} at prevalence {share:g}") for metric in ("PPV", "NPV")]
        self._defined: dict[str, Array] = {}
        self._defined = self._find_defined()

    def _find_defined(self) -> dict[str, Array]:
        """Which labels count in means over labels: those with a value in the sample."""
        parts = self._parts(np.ones((self.cases.n_patients, 1)))
        return {name: ~np.isnan(values[:, 0]) for name, values in parts.items()}

    def _parts(self, counts: Array) -> dict[str, Array]:
        """Each metric of each label, shape (k, b)."""
        tp, fp, fn, tn = (self._cells @ counts).reshape(4, len(self.cases.labels), -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = {
                "sensitivity": tp / (tp + fn),
                "specificity": tn / (tn + fp),
                "PPV": tp / (tp + fp),
                "NPV": tn / (tn + fn),
                "F1": 2 * tp / (2 * tp + fp + fn),
                "accuracy": (tp + tn) / (tp + fp + fn + tn),
            }
            if self.cases.exclusive:  # right cases are the true positives of their classes
                parts["accuracy"] = tp.sum(axis=0, keepdims=True) / (tp + fp + fn + tn)[:1]
            parts["precision"] = parts["PPV"]
            if self._rankings:
                ranked = np.stack([ranking(counts) for ranking in self._rankings], axis=1)
                parts |= dict(zip(RANKED, ranked, strict=True))
                number = tp + fp + fn + tn
                if self.cases.exclusive:
                    number = number[:1]
                losses = (self._losses @ counts).reshape(2 + self._n_bins, len(number), -1)
                parts["log loss"], parts["Brier score"] = losses[:2] / number
                parts["ECE"] = np.abs(losses[2:]).sum(axis=0) / number
        return parts

    def __call__(self, counts: Array) -> Array:
        """Values in the order of `names`, shape (m, b), for counts (n_patients, b)."""
        parts = self._parts(counts)
        sensitivity, specificity = parts["sensitivity"], parts["specificity"]
        if self.cases.exclusive:
            parts["balanced accuracy"] = sensitivity[self._defined["sensitivity"]]
        else:
            both = self._defined["sensitivity"] & self._defined["specificity"]
            parts["accuracy"] = parts["accuracy"][self._defined["accuracy"]]
            parts["balanced accuracy"] = (sensitivity + specificity)[both] / 2
        if self._rankings:
            parts["macro AUROC"] = parts["AUROC"][self._defined["AUROC"]]
            for loss in OVERALL[3:]:
                parts[loss] = parts[loss][self._defined[loss]]
        values = np.empty((len(self.names), counts.shape[1]))
        for row, (j, metric) in enumerate(self.names):
            name, _, share = metric.partition(" at prevalence ")
            if share and j is not None:
                ppv, npv = at_prevalence(sensitivity[j], specificity[j], self.prevalence[j])
                values[row] = ppv if name == "PPV" else npv
            elif j is not None:
                values[row] = parts[metric][j]
            else:
                part = parts[metric]
                values[row] = part.mean(axis=0) if len(part) else np.nan
        return values

    def _n_cases(self) -> Array:
        return np.bincount(self.cases.patients).astype(np.float64)

    def at_the_end(
        self, j: int | None, metric: str, value: float, confidence_level: float
    ) -> tuple[float, float]:
        """Limits of a metric that is 0 or 1 in every resample; NaN where none are known.

        The bootstrap sees no error there, which is no proof that there is none.
        """
        tail = (1 - confidence_level) / 2
        name, _, share = metric.partition(" at prevalence ")
        if share and j is not None:
            return self._predictive_at_the_end(j, name, confidence_level)
        if metric == "AUROC" and j is not None:
            low = _newcombe(
                _effective(self._number(j, "sensitivity")),
                _effective(self._number(j, "specificity")),
                float(ndtri(1 - tail)),
            )
        elif metric in (*COUNTED[:5], "accuracy") and (j is not None or self.cases.exclusive):
            low = tail ** (1 / _effective(self._number(j, metric)))
        else:
            return float("nan"), float("nan")
        return (low, 1.0) if value == 1 else (0.0, 1 - low)

    def _predictive_at_the_end(
        self, j: int, name: str, confidence_level: float
    ) -> tuple[float, float]:
        """From exact limits of sensitivity and specificity: both values rise with both."""
        rates = {
            rate: values[j, 0]
            for rate, values in self._parts(np.ones((self.cases.n_patients, 1))).items()
            if rate in ("sensitivity", "specificity")
        }
        ends = []
        for rate, value in rates.items():
            if value in (0, 1):
                ends.append(self.at_the_end(j, rate, float(value), confidence_level))
            else:
                ends.append((float(value), float(value)))
        pick = 0 if name == "PPV" else 1
        low, high = (
            float(at_prevalence(sensitivity, specificity, self.prevalence[j])[pick])
            for sensitivity, specificity in zip(*ends, strict=True)
        )
        return low, high

    def _number(self, j: int | None, metric: str) -> Array:
        """Cases in the denominator of a proportion, by patient."""
        if j is None:
            return self._n_cases()
        tp, fp, fn, tn = self._cells.reshape(4, len(self.cases.labels), -1)[:, j]
        return {
            "sensitivity": tp + fn, "specificity": tn + fp, "PPV": tp + fp, "precision": tp + fp,
            "NPV": tn + fn,
        }[metric]  # fmt: skip


def _cells(cases: Cases) -> Array:
    """Whether a case is a true positive, false positive, false or true negative: (n, 4, k)."""
    is_so, is_not, called = cases.truth == 1, cases.truth == 0, cases.predicted
    return np.stack(
        [is_so & called, is_not & called, is_so & ~called, is_not & ~called], axis=1
    ).astype(np.float64)


def _losses(cases: Cases, n_bins: int) -> Array:
    """Log loss, Brier score and, by bins, truth minus probability: (n, (2 + n_bins) * columns).

    Classes give one column, findings one each. What is not labelled is 0.
    """
    assert cases.proba is not None
    truth, proba = np.nan_to_num(cases.truth), cases.proba
    clipped = np.clip(proba, cases.eps, 1 - cases.eps)
    log, square = -xlogy(truth, clipped), (truth - proba) ** 2
    if cases.exclusive:
        log = log.sum(axis=1, keepdims=True)
        # scikit-learn halves the score of two classes
        square = square.sum(axis=1, keepdims=True) / (2 if len(cases.labels) == 2 else 1)
        top = proba.argmax(axis=1)[:, None]
        proba, truth = (np.take_along_axis(array, top, axis=1) for array in (proba, truth))
        labelled = np.ones_like(truth)
    else:
        log = log - xlogy(1 - truth, 1 - clipped)
        labelled = (~np.isnan(cases.truth)).astype(np.float64)
    bins = bins_of(proba, n_bins)
    gap = [(truth - proba) * labelled * (bins == number) for number in range(n_bins)]
    return np.concatenate([log * labelled, square * labelled, *gap], axis=1)


def bins_of(proba: Array, n_bins: int) -> Array:
    """Bins of equal width, each with its upper end, as in scikit-learn's calibration_curve."""
    return np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], proba)


def at_prevalence(sensitivity: Any, specificity: Any, prevalence: Any) -> tuple[Array, Array]:
    """PPV and NPV by Bayes' rule; NaN where nobody is called so."""
    found, missed = sensitivity * prevalence, (1 - sensitivity) * prevalence
    cleared, alarmed = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            np.divide(found, found + alarmed),
            np.divide(cleared, cleared + missed),
        )


def _effective(numbers: Array) -> float:
    """Kish's effective number of patients, whose images are all alike at worst."""
    return float(numbers.sum() ** 2 / (numbers**2).sum())


def _newcombe(n_positive: float, n_negative: float, z: float) -> float:
    """Lower limit of an AUROC of 1: method 5 of Newcombe (2006)."""
    half = (n_positive + n_negative) / 2 - 1

    def excess(auroc: float) -> float:
        variance = auroc * (1 - auroc) * (
            1 + half * (1 - auroc) / (2 - auroc) + half * auroc / (1 + auroc)
        ) / (n_positive * n_negative)  # fmt: skip
        return (1 - auroc) ** 2 - z**2 * variance

    # excess is 1 at 0 and below 0 shortly before 1
    return float(brentq(excess, 0.0, 1 - 1e-12))
