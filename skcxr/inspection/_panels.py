"""What the pictures of this room share."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from skcxr._exceptions import InputError
from skcxr.classifier import CXRClassifier

Array = np.ndarray[Any, Any]


_LINE = 0.16  # inches


def panels(
    ax: Any,
    rows: int,
    columns: int,
    shape: tuple[float, float],
    lines: int = 0,
    side: float = 1.7,
) -> Array:
    """Axes of `rows` times `columns` panels for images of `shape`, with `lines` of text.

    `side` is the width of a panel in inches.
    """
    import matplotlib.pyplot as plt
    from matplotlib.gridspec import GridSpecFromSubplotSpec

    if ax is None:
        height = side * min(2.0, max(0.4, shape[0] / shape[1]))
        _, axes = plt.subplots(
            rows, columns, squeeze=False, layout="constrained",
            figsize=(side * columns + 0.2, (height + lines * _LINE) * rows + 0.3),
        )  # fmt: skip
        return np.asarray(axes)
    axes = np.asarray(ax, dtype=object)
    if axes.ndim == 0:
        place = ax.get_subplotspec()
        if place is None:
            raise InputError("ax has no place in a grid that could be divided; use plt.subplots")
        grid = GridSpecFromSubplotSpec(rows, columns, place, wspace=0.05, hspace=0.05)
        ax.set_axis_off()
        panels = [[ax.figure.add_subplot(grid[i, j]) for j in range(columns)] for i in range(rows)]
        return np.asarray(panels, dtype=object)
    if axes.size != rows * columns:
        raise InputError(
            f"ax holds {axes.size} Axes, but there are {rows} rows of {columns} panels"
        )
    return axes.reshape(rows, columns)


def film_panel(axis: Any, film: Array) -> None:
    """Draw a film, (H, W), in gray, without a frame."""
    low, high = float(film.min()), float(film.max())
    axis.imshow(film, cmap="gray", vmin=min(0.0, low), vmax=max(high, 1.0 if low >= 0 else 0.0))
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.set_anchor("N")


def remark(axes: Array, text: str, *, own: bool) -> None:
    """Write a line under all panels: of their own figure, or of a place in another."""
    figure = axes.flat[0].figure
    if own:
        width = max(30, int(17 * figure.get_figwidth()))  # characters
        figure.supxlabel(textwrap.fill(text, width), fontsize=7, x=0.01, ha="left")
    else:
        place = axes[-1].flat[0]
        width = max(30, axes.shape[-1] * room(place))
        place.annotate(
            textwrap.fill(text, width), (0, 0), (0, -18), xycoords="axes fraction",
            textcoords="offset points", fontsize=7, va="top", annotation_clip=False,
        )  # fmt: skip


def room(axis: Any) -> int:
    """How many small characters stand under a panel."""
    return max(8, int(17 * axis.get_position().width * axis.figure.get_figwidth()))


def shortened(name: str, length: int) -> str:
    """A file name without its middle, where it is too long."""
    half = length // 2
    return name if len(name) <= length else f"{name[: half - 1]}…{name[-half:]}"


def check_classifier(estimator: Any) -> None:
    if not isinstance(estimator, CXRClassifier):
        raise InputError(
            f"estimator is {type(estimator).__name__}; it must be a CXRClassifier (the last step "
            "of a Pipeline is pipeline[-1])"
        )
