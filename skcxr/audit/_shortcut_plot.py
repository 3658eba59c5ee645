"""The report on shortcuts, and its picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from skcxr.audit._findings import AuditReport, Finding
from skcxr.audit._picture import COLOURS

Array = np.ndarray[Any, Any]

_PARTS = {"outside": "outside the lungs"}


class ShortcutReport(AuditReport):
    """What :func:`shortcut_report` has found.

    Parameters
    ----------
    findings : list of Finding
        What was found.
    tables : dict of str to pandas.DataFrame
        What the findings rest on: "scores", "classes", "swaps" and "films".
    samples : dict of str to ndarray of shape (H, W) or (H, W, C)
        One film, whole and as it was changed.
    title : str, default="Shortcuts"
        What was audited.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    axes_ : ndarray of matplotlib Axes
        The panels, once plotted: scores, shares, then the films.

    See Also
    --------
    shortcut_report : Makes one.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.audit import shortcut_report
    >>> films = make_cxr_phantoms(12, n_classes=2, image_size=32, random_state=0)
    >>> X = films.data.reshape(12, -1)
    >>> model = DummyClassifier().fit(X, films.target)
    >>> report = shortcut_report(model, X, films.target, groups=films.groups, progress=False)
    >>> report.alarms
    []
    >>> list(report.samples)[:3]
    ['whole image', 'lungs masked', 'border only']
    """

    def __init__(
        self,
        findings: list[Finding],
        tables: dict[str, Any],
        *,
        samples: dict[str, Array],
        title: str = "Shortcuts",
    ) -> None:
        super().__init__(findings, tables, title=title)
        self.samples = samples

    def plot(self, ax: Any = None) -> ShortcutReport:
        """Plot the scores against chance and the whole film, the shares, and what was masked.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where the scores are drawn, and nothing else; None for a new figure with all.

        Returns
        -------
        ShortcutReport
            The report itself.
        """
        if ax is not None:
            _draw_scores(ax, self.tables["scores"])
            self.figure_, self.axes_ = ax.figure, np.array([ax], dtype=object)
            return self
        import matplotlib.pyplot as plt

        n = len(self.samples)
        figure = plt.figure(figsize=(1.35 * n, 6.6), layout="constrained")
        above, below = np.asarray(figure.subfigures(2, 1, height_ratios=[3.2, 1.1]))
        scores, shares = above.subplots(1, 2)
        films = below.subplots(1, n)
        _draw_scores(scores, self.tables["scores"])
        _draw_shares(shares, self.tables["swaps"])
        whole = next(iter(self.samples.values()))
        low, high = float(whole.min()), float(whole.max())
        for axis, (name, film) in zip(films, self.samples.items(), strict=True):
            gray = film if film.ndim == 2 else film.mean(axis=-1)
            axis.imshow(gray, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
            axis.set_title(name.replace(" ", "\n", 1), fontsize=9)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        self.figure_, self.axes_ = figure, np.array([scores, shares, *films], dtype=object)
        return self


def _draw_scores(ax: Any, table: Any) -> None:
    places = np.arange(len(table))[::-1]
    whole, chance = table.iloc[0], table["chance"].iloc[0]
    ax.axvspan(table["chance_low"].iloc[0], table["chance_high"].iloc[0], color="#eceff1", lw=0)
    colours = ["#22313f", *[COLOURS["note"]] * (len(table) - 1)]
    error = [table["score"] - table["low"], table["high"] - table["score"]]
    ax.barh(places, table["score"], color=colours, height=0.66, alpha=0.55)
    ax.errorbar(table["score"], places, xerr=np.maximum(error, 0), fmt="none", ecolor="black",
                elinewidth=1.2, capsize=2.5)  # fmt: skip
    for place, score, low in zip(places, table["score"], table["low"], strict=True):
        ax.annotate(f"{score:.2f}", (min(score, low), place), (-3, 0), va="center", ha="right",
                    textcoords="offset points", fontsize=8.5, weight="bold")  # fmt: skip
    ax.axvline(chance, color="black", ls="--", lw=1.2)
    ax.axvline(whole["score"], color="black", lw=1.2)
    top = len(table) - 0.45
    ax.annotate("chance", (chance, top), (0, 2), textcoords="offset points", ha="center",
                fontsize=8.5, annotation_clip=False)  # fmt: skip
    ax.set_yticks(places, list(table["input"]))
    ax.set(xlim=(0, 1.02), ylim=(-0.5, top), xlabel="balanced accuracy, with its interval")
    ax.spines[["top", "right"]].set_visible(False)


def _draw_shares(ax: Any, table: Any) -> None:
    """The share of each part: all classes, and below it thinner each class."""
    place = 0.0
    ticks: list[float] = []
    names: list[str] = []
    for row in table.itertuples():
        every = row.label == "all"
        place -= 1.0 if every and ticks else 0.6
        colour = COLOURS["serious"] if row.alarm else COLOURS["note"]
        low, high = (np.clip(x, -0.35, 1.15) for x in (row.low, row.high))
        ax.plot([low, high], [place, place], color=colour, lw=5 if every else 2, alpha=0.45,
                solid_capstyle="butt")  # fmt: skip
        ax.plot(np.clip(row.share, -0.35, 1.15), place, "o", color=colour, ms=8 if every else 4)
        ticks.append(place)
        names.append(_PARTS.get(row.part, row.part) if every else f"{row.label}")
    ax.axvline(0, color="black", lw=1)
    ax.set_yticks(ticks, names)
    for tick, row in zip(ax.get_yticklabels(), table.itertuples(), strict=True):
        tick.set_fontsize(10 if row.label == "all" else 7.5)
        tick.set_fontweight("bold" if row.label == "all" else "normal")
    ax.set(xlim=(-0.37, 1.17), xlabel="share of what tells the classes (red: alarm)")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    ax.spines[["top", "right"]].set_visible(False)
