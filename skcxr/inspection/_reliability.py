"""Reliability: how often it is true what is said with a probability."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skcxr._exceptions import InputError
from skcxr._notice import RESEARCH_ONLY
from skcxr._seeds import draw_seed
from skcxr._targets import check_groups
from skcxr.inspection._answers import check_scores, names_of, scores_of
from skcxr.inspection._panels import panels, remark
from skcxr.inspection._seen import findings_of
from skcxr.metrics._bootstrap import resample, sum_by_patient

Array = np.ndarray[Any, Any]

TOP_LABEL = "predicted class"

_BINS = {
    "n_bins": [Interval(Integral, 1, None, closed="left")],
    "strategy": [StrOptions({"uniform", "quantile"})],
    "n_resamples": [Interval(Integral, 10, None, closed="left")],
    "confidence_level": [Interval(Real, 0, 1, closed="neither")],
}


class ReliabilityCurve(NamedTuple):
    """One curve of a :class:`ReliabilityDisplay`; bins without cases are left out.

    Parameters
    ----------
    prob_pred : ndarray of shape (n_bins,)
        Mean probability in each bin.
    prob_true : ndarray of shape (n_bins,)
        Share of the cases in each bin in which it is true.
    low, high : ndarray of shape (n_bins,)
        The interval of that share; NaN where there are too few patients for one.
    counts : ndarray of shape (n_bins,)
        Cases in each bin.
    edges : ndarray of shape (n_edges,)
        Where the bins begin and end, the empty ones too.
    error : float
        Expected calibration error: the mean distance of the two, weighted by the cases.

    Examples
    --------
    >>> from skcxr.inspection import ReliabilityDisplay
    >>> display = ReliabilityDisplay.from_predictions([0, 1, 1, 1], [0.3, 0.3, 0.9, 0.9])
    >>> display.curves[1].counts.tolist()
    [2, 2]
    """

    prob_pred: Array
    prob_true: Array
    low: Array
    high: Array
    counts: Array
    edges: Array
    error: float


class ReliabilityDisplay:
    """How often it is true what is said with a probability, for each class and the predicted one.

    :class:`sklearn.calibration.CalibrationDisplay` draws one curve of two classes. This one draws
    every class against the rest and the predicted class, with intervals over patients and the
    number of cases in each bin. It is recommended to use :meth:`from_estimator` or
    :meth:`from_predictions`.

    Parameters
    ----------
    curves : dict of ReliabilityCurve
        By class or finding; "predicted class" for the probability of what is predicted.
    confidence_level : float, default=0.95
        Level of the intervals.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    axes_ : ndarray of shape (n_curves,) of matplotlib Axes
        A panel for each curve, once plotted.

    Notes
    -----
    Calibration holds for patients as those that were looked at. In another hospital, where a
    disease is rarer, the same probabilities are too high.

    Examples
    --------
    >>> import numpy as np
    >>> from skcxr.inspection import ReliabilityDisplay
    >>> rng = np.random.default_rng(0)
    >>> score = rng.random(300)
    >>> y = rng.random(300) < score
    >>> display = ReliabilityDisplay.from_predictions(y, score, n_bins=5, random_state=0)
    >>> list(display.curves), round(display.curves["predicted class"].error, 2)
    (['predicted class', True], 0.02)
    """

    def __init__(
        self, curves: dict[Any, ReliabilityCurve], *, confidence_level: float = 0.95
    ) -> None:
        self.curves = curves
        self.confidence_level = confidence_level

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        groups: Any = None,
        n_bins: int = 10,
        strategy: str = "uniform",
        n_resamples: int = 1000,
        confidence_level: float = 0.95,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
    ) -> ReliabilityDisplay:
        """Predict and plot.

        Parameters
        ----------
        estimator : estimator instance
            A fitted classifier with `predict_proba`.
        X : paths or array
            Images that the estimator was not fitted on.
        y : array-like of shape (n,) or (n, n_findings)
            True labels; findings that are NaN are left out.
        groups : array-like of shape (n,), default=None
            Patients, who are resampled with all their images. None takes each image for a patient.
        n_bins : int, default=10
            Number of bins.
        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of the same width, or with the same number of cases.
        n_resamples : int, default=1000
            Resamples of the bootstrap.
        confidence_level : float, default=0.95
            Level of the intervals, in (0, 1).
        random_state : int, RandomState instance or None, default=None
            Seed of the resamples.
        ax : matplotlib Axes, array of Axes or None, default=None
            As in :meth:`plot`.

        Returns
        -------
        ReliabilityDisplay
            The plotted display.

        Raises
        ------
        InputError
            `estimator` gives no probabilities, or X, y and `groups` do not fit together.
        """
        if not hasattr(estimator, "predict_proba"):
            raise InputError(
                f"estimator is {type(estimator).__name__}, which has no predict_proba; "
                "CalibratedClassifierCV makes probabilities of scores"
            )
        scores = scores_of(estimator, X)
        names, _ = names_of(estimator, findings_of(estimator), scores.shape[1])
        return cls.from_predictions(
            y, scores, labels=names, groups=groups, n_bins=n_bins, strategy=strategy,
            n_resamples=n_resamples, confidence_level=confidence_level,
            random_state=random_state, ax=ax,
        )  # fmt: skip

    @classmethod
    @validate_params(_BINS, prefer_skip_nested_validation=True)
    def from_predictions(
        cls,
        y_true: Any,
        y_score: Any,
        *,
        labels: Any = None,
        groups: Any = None,
        n_bins: int = 10,
        strategy: str = "uniform",
        n_resamples: int = 1000,
        confidence_level: float = 0.95,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
    ) -> ReliabilityDisplay:
        """Plot the reliability of probabilities that exist.

        Parameters
        ----------
        y_true : array-like of shape (n,) or (n, n_findings)
            True labels; findings that are NaN are left out.
        y_score : array-like of shape (n, k) or (n,)
            Probabilities of classes or findings; with two classes those of the second one will do.
        labels : array-like of shape (k,), default=None
            What the columns stand for. None takes the sorted classes of `y_true`, or the columns
            of a DataFrame of findings.
        groups : array-like of shape (n,), default=None
            Patients, who are resampled with all their images. None takes each image for a patient.
        n_bins : int, default=10
            Number of bins.
        strategy : {"uniform", "quantile"}, default="uniform"
            Bins of the same width, or with the same number of cases.
        n_resamples : int, default=1000
            Resamples of the bootstrap.
        confidence_level : float, default=0.95
            Level of the intervals, in (0, 1).
        random_state : int, RandomState instance or None, default=None
            Seed of the resamples.
        ax : matplotlib Axes, array of Axes or None, default=None
            As in :meth:`plot`.

        Returns
        -------
        ReliabilityDisplay
            The plotted display.

        Raises
        ------
        InputError
            The arguments do not fit together, or no case is left.
        """
        scores, names, multi_label = check_scores(y_true, y_score, labels)
        truth = np.asarray(y_true)
        patients = check_groups(groups, len(truth))
        patients = np.arange(len(truth)) if patients is None else patients
        known = ~np.isnan(scores).any(axis=1)
        if not known.any():
            raise InputError("y_score holds no image without NaN")
        scores, truth, patients = scores[known], truth[known], patients[known]
        options = (n_bins, strategy, n_resamples, confidence_level, draw_seed(random_state))
        curves: dict[Any, ReliabilityCurve] = {}
        if multi_label:
            truth = truth.astype(float)
            for k, name in enumerate(names.tolist()):
                case = ~np.isnan(truth[:, k])
                if case.any():
                    hit = truth[case, k] == 1
                    curves[name] = _curve(hit, scores[case, k], patients[case], *options)
        else:
            top = scores.argmax(axis=1)
            curves[TOP_LABEL] = _curve(
                names[top] == truth, scores[np.arange(len(top)), top], patients, *options
            )
            for k in range(len(names) == 2, len(names)):  # of two, the first mirrors the second
                hit = truth == names[k]
                curves[names.tolist()[k]] = _curve(hit, scores[:, k], patients, *options)
        return cls(curves, confidence_level=confidence_level).plot(ax=ax)

    def plot(self, ax: Any = None, *, n_columns: int = 3) -> ReliabilityDisplay:
        """Plot a panel for each curve, the number of cases in each bin below.

        Parameters
        ----------
        ax : matplotlib Axes, array of Axes or None, default=None
            One Axes, whose place is divided; one for each curve; or None for a new figure.
        n_columns : int, default=3
            Panels in a row, at most.

        Returns
        -------
        ReliabilityDisplay
            The display itself.

        Raises
        ------
        InputError
            `ax` holds another number of Axes than there are curves, or `n_columns` is below 1.
        """
        if n_columns < 1:
            raise InputError(f"n_columns={n_columns!r} must be 1 or more")
        n = len(self.curves)
        rows = -(-n // n_columns)
        columns = -(-n // rows)
        if ax is None or np.ndim(ax) == 0:
            places = panels(ax, rows, columns, (1.35, 1.0), side=2.6).ravel()
            for axis in places[n:]:
                axis.set_axis_off()
        else:
            places = panels(ax, n, 1, (1.0, 1.0)).ravel()
        self.axes_ = places[:n]
        self.figure_ = places[0].figure
        for place, (name, curve) in enumerate(self.curves.items()):
            _draw(self.axes_[place], str(name), curve, left=place % columns == 0)
        text = (
            f"Bars: {self.confidence_level:.0%} intervals over patients; hollow where "
            f"there are too few for one. Below: cases. {RESEARCH_ONLY}"
        )
        if ax is None:
            remark(self.axes_, text, own=True)
        return self


def _curve(
    hit: Array, score: Array, patients: Array, n_bins: int, strategy: str, n_resamples: int,
    level: float, seed: int,
) -> ReliabilityCurve:  # fmt: skip
    """As :func:`sklearn.calibration.calibration_curve` has it, with the bootstrap beside it."""
    edges = np.linspace(0, 1, n_bins + 1)
    if strategy == "quantile":
        edges = np.percentile(score, edges * 100)
    bins = np.searchsorted(edges[1:-1], score)
    number = np.bincount(bins, minlength=n_bins)
    filled = np.flatnonzero(number)
    predicted = np.bincount(bins, score, n_bins)[filled] / number[filled]
    true = np.bincount(bins, hit, n_bins)[filled] / number[filled]
    inside = (bins[:, None] == filled).astype(float)  # (n, filled)
    people, patients = np.unique(patients, return_inverse=True)
    n_patients = len(people)
    sums = sum_by_patient(np.hstack([inside * hit[:, None], inside]), patients, n_patients)

    def shares(counts: Array) -> Array:
        hits, cases = np.split(sums @ counts, 2)
        return np.asarray(np.where(cases > 0, hits / np.maximum(cases, 1), np.nan))

    limits = resample(shares, n_patients, n_resamples, seed, "percentile", n_patients).limits(level)
    error = float(np.abs(predicted - true) @ number[filled] / len(score))
    low, high = limits.T
    return ReliabilityCurve(predicted, true, low, high, number[filled], edges, error)


def _draw(axis: Any, name: str, curve: ReliabilityCurve, *, left: bool) -> None:
    import matplotlib as mpl

    ink = mpl.rcParams["axes.labelcolor"]
    axis.plot([0, 1], [0, 1], ":", color=ink, alpha=0.6, linewidth=1)
    known = np.isfinite(curve.low)
    below, above = curve.prob_true - curve.low, curve.high - curve.prob_true
    axis.errorbar(
        curve.prob_pred[known], curve.prob_true[known],
        np.maximum([below[known], above[known]], 0), fmt="none", ecolor="tab:blue", elinewidth=1.2,
        capsize=2,
    )  # fmt: skip
    axis.plot(curve.prob_pred, curve.prob_true, color="tab:blue", linewidth=1, alpha=0.4)
    # hollow where there is no interval
    for chosen, face in ((known, "tab:blue"), (~known, "none")):
        axis.plot(
            curve.prob_pred[chosen], curve.prob_true[chosen], "o", color="tab:blue",
            markerfacecolor=face, markersize=4,
        )  # fmt: skip
    axis.plot([], [], "o-", color="tab:blue", markersize=4, label=f"ECE {curve.error:.3f}")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axis.set_title(name, fontsize=9)
    axis.legend(loc="lower right", fontsize=8, handlelength=1)
    axis.tick_params(labelbottom=False, labelsize=8)
    if left:
        axis.set_ylabel("how often true", fontsize=8)
    bars = axis.inset_axes((0, -0.3, 1, 0.24))
    bins = np.searchsorted(curve.edges[1:-1], curve.prob_pred)
    width = np.diff(curve.edges)[bins]
    bars.bar(curve.edges[bins], curve.counts, width, align="edge", color="0.6", edgecolor="none")
    most = int(curve.counts.max())
    bars.set(xlim=(-0.02, 1.02), ylim=(0, 1.05 * most), yticks=[0, most])
    bars.set_xlabel("probability", fontsize=8)
    bars.tick_params(labelsize=8)
    bars.grid(visible=False)
