"""What the pictures of this room share."""

from __future__ import annotations

from typing import Any

import numpy as np

from skcxr._exceptions import InputError
from skcxr.classifier import CXRClassifier

Array = np.ndarray[Any, Any]


def panels(ax: Any, rows: int, columns: int, shape: tuple[int, int]) -> Array:
    """Axes of `rows` times `columns` panels for images of `shape`."""
    import matplotlib.pyplot as plt
    from matplotlib.gridspec import GridSpecFromSubplotSpec

    if ax is None:
        side = 1.7
        height = side * min(2.0, max(0.4, shape[0] / shape[1]))
        _, axes = plt.subplots(
            rows, columns, squeeze=False, layout="constrained",
            figsize=(side * columns + 0.2, height * rows + 0.3),
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


def check_classifier(estimator: Any) -> None:
    if not isinstance(estimator, CXRClassifier):
        raise InputError(
            f"estimator is {type(estimator).__name__}; it must be a CXRClassifier (the last step "
            "of a Pipeline is pipeline[-1])"
        )
