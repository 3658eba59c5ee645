"""The metrics of one set of cases, with intervals over patients."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skcxr._exceptions import InputError
from skcxr._seeds import draw_seed
from skcxr.metrics._bootstrap import Resampled, resample
from skcxr.metrics._checks import check_cases, check_prevalence, check_subgroups
from skcxr.metrics._scores import NEED_SCORES, OVERALL, Cases, Scores
from skcxr.metrics._tables import WIDTH, Table, figure_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MetricsReport", "classification_report_ci"]

BOOTSTRAP: dict[str, list[Any]] = {
    "method": [StrOptions({"percentile", "BCa"})],
    "n_resamples": [Interval(Integral, 100, None, closed="left")],
    "confidence_level": [Interval(Real, 0, 1, closed="neither")],
    "random_state": ["random_state"],
}

_TOO_FEW = (
    "no interval: the figure has no value in more than 5% of the resamples (too few patients), "
    "there is one patient only, or all resamples give 0 or 1"
)
_AT_THE_END = (
    "where a figure is 0 or 1 in every resample, its interval is exact for the number of patients"
)
_WITHOUT_GROUPS = (
    "groups is not given: every case is taken for a patient of its own, so intervals are too "
    "narrow if patients have several"
)


class Row(NamedTuple):
    """One figure. `label` is the number of a label, None for all."""

    label: int | None
    metric: str
    value: float
    low: float
    high: float


def rows_of(scores: Scores, resampled: Resampled, confidence_level: float) -> list[Row]:
    """The figures of `scores` with their intervals."""
    centred = np.array([metric == "ECE" for _, metric in scores.names])
    limits = resampled.limits(confidence_level, centred)
    rows = []
    for (j, metric), value, drawn, (low, high) in zip(
        scores.names, resampled.value.tolist(), resampled.drawn, limits.tolist(), strict=True
    ):
        if scores.cases.n_patients < 2:
            low = high = float("nan")
        elif value in (0, 1) and not (drawn[~np.isnan(drawn)] != value).any():
            low, high = scores.at_the_end(j, metric, value, confidence_level)
        rows.append(Row(j, metric, value, low, high))
    return rows


class MetricsReport:
    """Metrics with intervals over patients; made by :func:`classification_report_ci`.

    Printed, it is a table; a notebook shows it as such.

    Parameters
    ----------
    rows : list of tuple
        What :meth:`to_frame` shows, row by row.
    labels : list of object
        Classes or findings.
    n_cases : int
        Images.
    n_patients : int
        Patients.
    confidence_level : float
        Share of the intervals that hold the truth.
    method : {"percentile", "BCa"}
        The kind of interval.
    n_resamples : int
        How often patients were drawn.
    notes : list of str
        What a reader of the table has to know.

    Examples
    --------
    >>> from skcxr.metrics import classification_report_ci
    >>> y_true, y_pred = ["ill", "well"] * 20, ["ill", "well", "ill", "ill"] * 10
    >>> report = classification_report_ci(
    ...     y_true, y_pred=y_pred, groups=list(range(20)) * 2, random_state=0
    ... )
    >>> report.n_cases, report.n_patients
    (40, 20)
    >>> [round(figure, 3) for figure in report.value("specificity", "ill")]
    [0.5, 0.167, 0.818]
    """

    _COLUMNS = (
        "subgroup", "label", "metric", "value", "low", "high", "n_cases", "n_patients"
    )  # fmt: skip

    def __init__(
        self,
        rows: list[tuple[Any, ...]],
        *,
        labels: list[Any],
        n_cases: int,
        n_patients: int,
        confidence_level: float,
        method: str,
        n_resamples: int,
        notes: list[str],
    ) -> None:
        self.labels = labels
        self.n_cases = n_cases
        self.n_patients = n_patients
        self.confidence_level = confidence_level
        self.method = method
        self.n_resamples = n_resamples
        self.notes = notes
        self._rows = rows
        self._scored = any(row[2] in NEED_SCORES for row in rows)
        self._found = {(row[0], str(row[1]), row[2]): row for row in rows}

    def to_frame(self) -> pd.DataFrame:
        """Give all figures as a table, one in a row.

        Returns
        -------
        DataFrame
            Columns subgroup ("all", or such as "sex=F"), label (a class or finding, or "overall"),
            metric, value, low, high, n_cases and n_patients (those of the label; overall, all).
        """
        import pandas as pd

        return pd.DataFrame(self._rows, columns=list(self._COLUMNS))

    def value(
        self, metric: str, label: Any = "overall", subgroup: str = "all"
    ) -> tuple[float, float, float]:
        """Give one figure and its interval.

        Parameters
        ----------
        metric : str
            A metric, such as "sensitivity".
        label : object, default="overall"
            A class or finding.
        subgroup : str, default="all"
            A subgroup, such as "sex=F".

        Returns
        -------
        value, low, high : float
            The figure and the limits of its interval, NaN where there are none, and for what
            needs probabilities that were not given.

        Raises
        ------
        InputError
            The report does not hold it.
        """
        row = self._found.get((subgroup, str(label), metric))
        if row is None and metric in NEED_SCORES and not self._scored:
            return float("nan"), float("nan"), float("nan")
        if row is None:
            names = [list(dict.fromkeys(entry[k] for entry in self._rows)) for k in range(3)]
            of_label = [key[2] for key in self._found if key[:2] == (subgroup, str(label))]
            raise InputError(
                f"the report has no {metric!r} of label {label!r} in subgroup {subgroup!r}; "
                f"subgroups {names[0]}, labels {names[1]}, metrics {of_label or names[2]}"
            )
        return row[3], row[4], row[5]

    def __str__(self) -> str:
        parts = [self._heading(), *(table.text() for table in self._tables())]
        notes = [textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in self.notes]
        return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])

    def __repr__(self) -> str:
        return f"<MetricsReport: {self._heading()}>"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        tables = "".join(table.html() for table in self._tables())
        return f"<div><p>{escape(self._heading())}</p>{tables}{notes}</div>"

    def _heading(self) -> str:
        return (
            f"{self.n_cases} cases of {self.n_patients} patients; {self.confidence_level:.0%} "
            f"intervals, {self.method} bootstrap over patients, {self.n_resamples} resamples"
        )

    def _tables(self) -> list[Table]:
        def cell(subgroup: str, label: str, metric: str) -> str:
            row = self._found.get((subgroup, label, metric))
            return "-" if row is None else figure_text(*row[3:6])

        subgroups = list(dict.fromkeys(row[0] for row in self._rows))
        labels = [str(label) for label in self.labels]
        overall = [row[2] for row in self._rows if row[:2] == ("all", "overall")]
        tables = [Table("", ["all", ""], [[m, cell("all", "overall", m)] for m in overall])]
        # precision is PPV under its other name
        metrics = list(dict.fromkeys(row[2] for row in self._rows if row[1] != "overall"))
        metrics = [metric for metric in metrics if metric not in ("support", "precision")]
        header = ["PPV (precision)" if metric == "PPV" else metric for metric in metrics]
        rows = []
        for label in labels:
            sizes = self._found["all", label, "support"][6:]
            figures = [cell("all", label, metric) for metric in metrics]
            rows.append([label, *map(str, sizes), *figures])
        tables.append(Table("", ["label", "cases", "patients", *header], rows))
        if len(subgroups) > 1:
            shown = [metric for metric in OVERALL[:3] if metric in overall]
            rows = []
            for subgroup in subgroups:
                sizes = self._found[subgroup, "overall", overall[0]][6:]
                figures = [cell(subgroup, "overall", metric) for metric in shown]
                rows.append([subgroup, *map(str, sizes), *figures])
            title = "Subgroups (each label of each: to_frame())"
            tables.append(Table(title, ["subgroup", "cases", "patients", *shown], rows))
        return tables


@validate_params(
    {
        "n_bins": [Interval(Integral, 1, None, closed="left")],
        **BOOTSTRAP,
    },
    prefer_skip_nested_validation=True,
)
def classification_report_ci(
    y_true: Any,
    y_score: Any = None,
    *,
    y_pred: Any = None,
    labels: Sequence[Any] | None = None,
    groups: Any = None,
    subgroups: Any = None,
    prevalence: Any = None,
    method: str = "percentile",
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    n_bins: int = 10,
    random_state: Any = None,
) -> MetricsReport:
    r"""Score predictions, with intervals by bootstrap over patients.

    Images of one patient resemble each other. Intervals that take them for independent are too
    narrow, so patients are drawn, each with all of its images.

    Parameters
    ----------
    y_true : array-like of shape (n,) or (n, k)
        Classes; or findings, a column each, of 0, 1 and NaN for "not labelled".
    y_score : array-like of shape (n, k) or (n,), default=None
        Probabilities, in the order of `labels`; of two classes, also those of the second alone.
        None leaves out what needs them.
    y_pred : array-like of shape (n,) or (n, k), default=None
        What was predicted. None takes the most probable class, and findings above 0.5.
    labels : sequence of object of length k, default=None
        Classes or names of findings in the order of `y_score`, such as ``clf.classes_``. None
        takes the sorted classes of `y_true`, and columns of a DataFrame.
    groups : array-like of shape (n,), default=None
        The patient of each case. None takes each for a patient of its own.
    subgroups : DataFrame or dict of str to array-like of shape (n,), default=None
        Columns such as sex or view; the cases of each value are reported for themselves, and
        those without one as "sex=unknown". At most 20 values.
    prevalence : float or dict of object to float, default=None
        Share of patients who have a label where the model is to be used, in (0, 1); adds PPV and
        NPV there. One float, of two labels, is that of the second.
    method : {"percentile", "BCa"}, default="percentile"
        Kind of interval. BCa corrects bias and skewness.
    n_resamples : int, default=1000
        How often patients are drawn, at least 100.
    confidence_level : float, default=0.95
        Share of intervals that hold the truth, in (0, 1).
    n_bins : int, default=10
        Bins of the ECE.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Returns
    -------
    MetricsReport
        Of each label: sensitivity, specificity, PPV, NPV, precision (the PPV under its other
        name), F1, AUROC, average precision, support. Of all: accuracy, balanced accuracy, macro
        AUROC, log loss, Brier score, ECE.

    Raises
    ------
    InputError
        Arguments do not fit together, labels are unknown, probabilities are NaN, outside of 0 to
        1 or do not sum to 1, or a prevalence is out of range; the message says where.

    See Also
    --------
    compare_models_ci : Two models on the same cases.
    operating_points : Thresholds at a wanted sensitivity or specificity.

    Notes
    -----
    A label is scored against the rest. Values equal scikit-learn's, but for what is undefined:
    that is NaN here, not 0. Balanced accuracy and macro AUROC are means over the labels for which
    they are defined. With findings, each overall metric is the mean over findings.

    The Brier score follows :func:`sklearn.metrics.brier_score_loss`: the squared differences are
    summed over the classes, 0 to 2, and halved for two classes; a finding's lies in 0 to 1. ECE
    is that of the most probable class, and of a finding that of its probability; see
    :func:`expected_calibration_error`.

    A resample in which a figure is undefined, as when no patient of the class was drawn, is left
    out; where that is more than 5% of the resamples there is no interval (NaN). BCa takes its
    acceleration from leaving out one patient, or one of 2,000 groups of patients.

    Where a figure is 0 or 1 in every resample, the bootstrap's interval would be a point.
    Sensitivity, specificity, PPV, NPV and accuracy then have the limits of Clopper and Pearson for
    Kish's effective number of patients, :math:`(\sum m)^2 / \sum m^2` for patients of m images,
    as Korn and Graubard [1]_ have it for surveys; an AUROC has Newcombe's [2]_ for those numbers;
    the others have none. A resample's ECE exceeds that of the sample by construction, so its
    resamples are moved to have it as their mean; the ECE itself is still too high in small samples.

    References
    ----------
    .. [1] Korn and Graubard (1998). Confidence intervals for proportions with small expected
       number of positive counts estimated from survey data. Survey Methodology 24.
    .. [2] Newcombe (2006). Confidence intervals for an effect size measure based on the
       Mann-Whitney statistic, part 2. Statistics in Medicine 25.

    Examples
    --------
    >>> import numpy as np
    >>> from skcxr.metrics import classification_report_ci
    >>> rng = np.random.default_rng(0)
    >>> patients = np.repeat(np.arange(60), 2)
    >>> y_true = np.array(["Healthy", "Pneumonia"])[patients % 2]
    >>> p = 1 / (1 + np.exp(-rng.normal(np.where(patients % 2, 1.5, -1.5), 1.5)))
    >>> report = classification_report_ci(
    ...     y_true, p, groups=patients, prevalence=0.05, random_state=0
    ... )
    >>> value, low, high = report.value("AUROC", "Pneumonia")
    >>> bool(low < value < high)
    True
    >>> report.to_frame().query("metric == 'sensitivity'")[["label", "n_patients"]].values.tolist()
    [['Healthy', 30], ['Pneumonia', 30]]
    """
    cases = check_cases(y_true, y_score, y_pred, labels, groups)
    shares = check_prevalence(prevalence, cases.labels)
    chosen = check_subgroups(subgroups, len(cases.truth))
    seed = draw_seed(random_state)
    rows: list[tuple[Any, ...]] = []
    for subgroup, part in [("all", cases), *((name, cases.take(at)) for name, at in chosen)]:
        scores = Scores(part, n_bins, shares)
        resampled = resample(scores, part.n_patients, n_resamples, seed, method, len(part.truth))
        rows += _tidy(subgroup, part, rows_of(scores, resampled, confidence_level))
    notes = []
    if any(row[3] == row[3] and row[4] != row[4] for row in rows if row[2] != "support"):
        notes.append(_TOO_FEW)
    if any(row[3] in (0, 1) and row[4] == row[4] for row in rows):
        notes.append(_AT_THE_END)
    if groups is None:
        notes.append(_WITHOUT_GROUPS)
    return MetricsReport(
        rows,
        labels=cases.labels,
        n_cases=len(cases.truth),
        n_patients=cases.n_patients,
        confidence_level=confidence_level,
        method=method,
        n_resamples=n_resamples,
        notes=notes,
    )


def _tidy(subgroup: str, cases: Cases, rows: list[Row]) -> list[tuple[Any, ...]]:
    """Rows of the frame: of all, then label by label, each ending with its support."""
    tidy: list[tuple[Any, ...]] = []
    for j in (None, *range(len(cases.labels))):
        name = "overall" if j is None else cases.labels[j]
        sizes = cases.sizes(j)
        tidy += [(subgroup, name, *row[1:], *sizes) for row in rows if row.label == j]
        if j is not None:
            nan = float("nan")
            tidy.append((subgroup, name, "support", float(sizes[0]), nan, nan, *sizes))
    return tidy
