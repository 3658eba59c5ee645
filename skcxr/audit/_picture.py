"""The picture of an audit."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from skcxr.audit._findings import AuditReport

Array = np.ndarray[Any, Any]

COLOURS = {"serious": "#c0392b", "warning": "#d98c00", "note": "#5b7083"}
_MOST_BARS = 14


def draw(report: AuditReport, ax: Any, figure: Any = None) -> tuple[Any, Array]:
    """Draw the panels of a report: into `ax` the first alone, else all into a figure."""
    names = [name for name in ("scores", "variables") if len(report.tables.get(name, ()))]
    panels = [_PANELS[name] for name in names] or [_findings]
    if ax is not None:
        axes = np.array([ax], dtype=object)
        panels[0](report, ax)
        return ax.figure, axes
    rows = [_n_rows(report, name) for name in names] or [4]
    if figure is None:
        import matplotlib.pyplot as plt

        size = (7.2 * len(panels), 1.4 + 0.42 * max(rows))
        figure = plt.figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
    else:  # of a page: one below the other
        figure.set_size_inches(8.6, sum(1.2 + 0.36 * n for n in rows))
        heights = [1.2 + 0.36 * n for n in rows]
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, axis in zip(panels, axes, strict=True):
        panel(report, axis)
    return figure, axes


def _n_rows(report: AuditReport, name: str) -> int:
    return max(3, min(_MOST_BARS, len(report.tables[name])))


def _scores(report: AuditReport, ax: Any) -> None:
    """Scores with their intervals against chance."""
    import matplotlib as mpl

    ink = mpl.rcParams["text.color"]
    table = report.tables["scores"]
    places = np.arange(len(table))[::-1]
    for place, row in zip(places, table.to_dict("records"), strict=True):
        beyond = row.get("alarm", row["low"] > row["chance"])
        colour = COLOURS["serious"] if beyond else COLOURS["note"]
        ax.plot([row["low"], row["high"]], [place, place], color=colour, lw=5, alpha=0.35,
                solid_capstyle="butt")  # fmt: skip
        ax.plot(row["score"], place, "o", color=colour, ms=9)
        ax.annotate(f"{row['score']:.2f}", (row["score"], place), (0, 9), color=colour,
                    textcoords="offset points", ha="center", weight="bold")  # fmt: skip
        ax.plot([row["chance"]] * 2, [place - 0.4, place + 0.4], color=ink, lw=1.5, ls="--")
        if row.get("reference", np.nan) == row.get("reference"):
            ax.plot([row["reference"]] * 2, [place - 0.4, place + 0.4], color=ink, lw=1.5)
    ax.set_yticks(places, [textwrap.fill(str(name), 30) for name in table["input"]])
    ax.set(xlim=(0, 1.03), ylim=(-0.7, len(table) - 0.3), xlabel="balanced accuracy")
    ax.annotate("chance", (table["chance"].iloc[0], len(table) - 0.6), (-4, 0), fontsize=9,
                textcoords="offset points", ha="right", va="center")  # fmt: skip
    ax.set_title("What a classifier scores without the lungs", loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)


def _variables(report: AuditReport, ax: Any) -> None:
    """How well each variable alone tells the classes."""
    table = report.tables["variables"].sort_values("AUROC", ascending=False).head(_MOST_BARS)
    places = np.arange(len(table))[::-1]
    colours = [COLOURS["serious"] if alarm else "#b8c2cc" for alarm in table["alarm"]]
    ax.barh(places, table["AUROC"] - 0.5, left=0.5, color=colours, height=0.7)
    for place, value in zip(places, table["AUROC"], strict=True):
        ax.annotate(f"{value:.2f}", (value, place), (4, 0), textcoords="offset points",
                    va="center", fontsize=9)  # fmt: skip
    ax.set_yticks(places, [str(name) for name in table["variable"]])
    ax.set(xlim=(0.5, 1.06), ylim=(-0.6, len(table) - 0.4), xticks=np.arange(0.5, 1.01, 0.1),
           xlabel="AUROC of the class that it tells best; 0.5 tells nothing")  # fmt: skip
    ax.set_title("What tells the classes (red: alarm)", loc="left",
                 fontsize=11)  # fmt: skip
    ax.spines[["top", "right"]].set_visible(False)


def _findings(report: AuditReport, ax: Any) -> None:
    """The findings, where there is nothing to measure them by."""
    shown = report.findings[:_MOST_BARS]
    for place, finding in enumerate(reversed(shown)):
        ax.barh(place, 1, color=COLOURS[finding.severity], height=0.8)
        ax.annotate(f"{finding.severity}: {finding.check}", (0.02, place), color="white",
                    va="center")  # fmt: skip
    ax.set(xticks=[], yticks=[], xlim=(0, 1), title=report.title if shown else "Nothing found")
    ax.spines[:].set_visible(False)


_PANELS = {"scores": _scores, "variables": _variables}
