"""An evaluation as one HTML page; what is not ours is escaped."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from skcxr._notice import RESEARCH_ONLY
from skcxr.report._card import NOT_REPORTED
from skcxr.report._external import in_words
from skcxr.report._figures import audit_svg, curves_svg, film_jpeg, reliability_svg

if TYPE_CHECKING:
    from skcxr.metrics import MetricsReport
    from skcxr.report._report import EvaluationReport, Film

Array = np.ndarray[Any, Any]

_PER_CLASS = ("sensitivity", "specificity", "PPV", "NPV", "F1", "AUROC", "average precision")


class _Curve(NamedTuple):
    fpr: Array
    tpr: Array
    recall: Array
    precision: Array
    roc_text: str
    pr_text: str


def page_html(report: EvaluationReport) -> str:
    """All of it."""
    values: dict[str, Any] = {
        "figures": _figures(report),
        "errors": [_film(film) for film in report.errors],
        "gallery": [_film(film) for film in report.gallery],
        "subgroups": _subgroups(report),
        "operating": _operating(report),
        "external": [
            (other, _scores(other.metrics) if other.metrics is not None else None)
            for other in report.external.values()
        ],
        "audits": [
            (heading, *_audit(audit, f"a{k}"))
            for k, (heading, audit) in enumerate(
                [
                    ("The data: leaks and shortcuts", report.audit),
                    ("The model: does it read the lungs?", report.shortcuts),
                ]
            )
            if audit is not None
        ],
    }
    return _render("page.html", report, **values)


def notebook_html(report: EvaluationReport) -> str:
    """The summary, for a notebook."""
    return _render("summary.html", report)


def _render(name: str, report: EvaluationReport, **values: Any) -> str:
    from jinja2 import DictLoader, Environment, StrictUndefined

    here = files("skcxr.report")
    names = ("page.html", "summary.html", "_style.css")
    texts = {file: here.joinpath(file).read_text(encoding="utf-8") for file in names}
    environment = Environment(
        autoescape=True, loader=DictLoader(texts), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = lambda value: f"{value:.3f}" if value == value else "-"
    page = environment.get_template(name).render(
        report=report,
        scores=_scores(report.metrics),
        confusion=_confusion(report),
        not_reported=NOT_REPORTED,
        research_only=RESEARCH_ONLY,
        **values,
    )
    return page.strip() + "\n"


def _interval(value: float, low: float, high: float) -> tuple[str, str]:
    if value != value:
        return "-", ""
    return f"{value:.3f}", f"{low:.3f} to {high:.3f}" if low == low else ""


def _scores(metrics: MetricsReport) -> dict[str, Any]:
    """Overall scores, and a row for each class."""
    frame = metrics.to_frame().query("subgroup == 'all'")
    found: dict[Any, dict[str, tuple[str, str]]] = {}
    sizes = {}
    for row in frame.to_dict("records"):
        cells = found.setdefault(row["label"], {})
        cells[row["metric"]] = _interval(row["value"], row["low"], row["high"])
        sizes[row["label"]] = row["n_cases"], row["n_patients"]
    overall = [(name, *cell) for name, cell in found["overall"].items() if cell[0] != "-"]
    known = list(dict.fromkeys(frame["metric"]))
    columns = [name for name in _PER_CLASS if name in known]
    columns += [name for name in known if " at prevalence" in name]
    rows = [
        (label, *sizes[label], [found[label].get(name, ("-", "")) for name in columns])
        for label in metrics.labels
    ]
    return {"overall": overall, "columns": columns, "rows": rows}


def _confusion(report: EvaluationReport) -> Any:
    """Rows of (label, cells of (count, share of the row, right or not))."""
    if report.confusion is None:
        return None
    rows = []
    for i, (label, counts) in enumerate(
        zip(report.labels, report.confusion.to_numpy(), strict=True)
    ):
        total = max(1, int(counts.sum()))
        rows.append((label, [(int(n), n / total, i == j) for j, n in enumerate(counts)]))
    return rows


def _subgroups(report: EvaluationReport) -> Any:
    """Rows of (subgroup, images, patients, scores) of the test set."""
    frame = report.metrics.to_frame()
    wanted = ("accuracy", "balanced accuracy", "macro AUROC")
    rows = []
    for name in frame["subgroup"].unique().tolist():
        if name == "all":
            continue
        part = frame[(frame["subgroup"] == name) & (frame["label"] == "overall")]
        part = part.set_index("metric")
        cells = [
            _interval(*part.loc[metric, ["value", "low", "high"]].astype(float).tolist())
            if metric in part.index
            else ("-", "")
            for metric in wanted
        ]
        rows.append((name, int(part["n_cases"].iloc[0]), int(part["n_patients"].iloc[0]), cells))
    return {"columns": wanted, "rows": rows} if rows else None


def _operating(report: EvaluationReport) -> Any:
    if report.operating is None:
        return None
    table = report.operating
    names = [name for name in table["metric"].unique().tolist() if name != "support"]
    rows = []
    for (label, wanted), part in table.groupby(["class", "wanted"], sort=False):
        figures = {row.metric: _interval(row.value, row.low, row.high) for row in part.itertuples()}
        threshold = f"{part['threshold'].iloc[0]:.3f}"
        rows.append((label, wanted, threshold, [figures.get(name, ("", "")) for name in names]))
    return {"columns": names, "rows": rows}


def _curves(report: EvaluationReport) -> Iterator[_Curve]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    assert report.y_score is not None
    for k, label in enumerate(report.labels):
        score, known = report.y_score[:, k], np.ones(len(report.y_score), bool)
        if report.y_true.ndim == 2:
            column = report.y_true[:, k].astype(float)
            known, positive = ~np.isnan(column), column == 1
        else:
            positive = report.y_true == label
        positive, score = positive[known], score[known]
        if not 0 < positive.sum() < len(positive):
            continue
        fpr, tpr, _ = roc_curve(positive, score)
        precision, recall, _ = precision_recall_curve(positive, score)
        texts = []
        for metric in ("AUROC", "average precision"):
            texts.append(f"{label}: {in_words(report.metrics.value(metric, label=label), 2)}")
        yield _Curve(fpr, tpr, recall, precision, *texts)


def _figures(report: EvaluationReport) -> list[tuple[str, str]]:
    """Pairs of a caption and an <svg>."""
    if report.y_score is None:
        return []
    curves = list(_curves(report))
    figures = []
    if curves:
        caption = "Each class against the rest; area or average precision with its interval."
        figures.append((caption, curves_svg(curves, "c")))
    figures.append(
        (
            "Reliability: how often what is said with a probability is true. On the dotted line "
            "it is just as often; bars are intervals over patients, below are the cases.",
            reliability_svg(report, "r"),
        )
    )
    return figures


def _audit(audit: Any, salt: str) -> tuple[Any, str, str]:
    """The report, its findings as a fragment, and its picture."""
    from skcxr.audit._html import findings_html

    return audit, findings_html(audit), audit_svg(audit, salt)


def _film(film: Film) -> dict[str, Any]:
    return {
        "src": film_jpeg(film.image),
        "heat": None if film.heatmap is None else film_jpeg(film.image, film.heatmap),
        "name": film.name,
        "true": film.true,
        "predicted": film.predicted,
        "probability": film.probability,
        "wrong": film.wrong,
    }
