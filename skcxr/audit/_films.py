"""Single films that are not like the others: inverted, lateral, with names hidden."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from skcxr.audit._findings import Finding

Array = np.ndarray[Any, Any]

INVERTED = -0.05  # below: the lungs are brighter than spine and abdomen

_LATERAL = re.compile(r"(l|ll|rl|lat\b.*|.*lateral.*)", re.IGNORECASE)
_UNIFORM = 8.0  # standard deviation of the pixels of a line of padding


def brightness_of_spine_over_lungs(picture: Array) -> float:
    """How much brighter than the lungs the middle and the abdomen are, as a share of white.

    Parameters
    ----------
    picture : ndarray of shape (side, side), dtype uint8
        A small picture.

    Returns
    -------
    float
        Above 0 for radiographs as they are shown, below for inverted ones.
    """
    inner = _without_padding(picture).astype(float) / 255
    height, width = inner.shape

    def mean(top: float, bottom: float, left: float, right: float) -> float:
        rows = slice(int(top * height), int(bottom * height))
        return float(inner[rows, int(left * width) : int(right * width)].mean())

    lungs = (mean(0.25, 0.6, 0.18, 0.38) + mean(0.25, 0.6, 0.62, 0.82)) / 2
    return (mean(0.3, 0.75, 0.45, 0.58) + mean(0.8, 0.95, 0.25, 0.75)) / 2 - lungs


def _without_padding(picture: Array) -> Array:
    """The picture without uniform lines around it."""
    rows, columns = (np.flatnonzero(picture.std(axis=axis) > _UNIFORM) for axis in (1, 0))
    side = picture.shape[0]
    if len(rows) == 0 or len(columns) == 0:
        return picture
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    if min(bottom - top, right - left) < side // 3:
        return picture
    return picture[top:bottom, left:right]


def inverted_films(pictures: Array, readable: Array, names: list[str]) -> list[Finding]:
    """Name films on which air is white."""
    scores = {
        i: brightness_of_spine_over_lungs(pictures[i]) for i in np.flatnonzero(readable).tolist()
    }
    found = [i for i, score in scores.items() if score < INVERTED]
    if not found:
        return []
    if len(found) > len(scores) / 2:
        sentence = (
            f"{len(found)} of {len(scores)} images look inverted: the lungs are white and the "
            "bones dark. If all of your images are so, new ones must be so too."
        )
    else:
        sentence = (
            f"{len(found)} of {len(scores)} images look inverted: the lungs are white and the "
            "bones dark. Look at them, and invert them back."
        )
    figures = {"images": len(found)}
    return [Finding("inverted", "warning", sentence, figures, [names[i] for i in found])]


def lateral_films(views: Array, labels: Array | None, names: list[str]) -> list[Finding]:
    """Name lateral views among frontal ones, by the column of views."""
    lateral = np.array([bool(_LATERAL.fullmatch(str(view).strip())) for view in views])
    n = int(lateral.sum())
    if n == 0 or lateral.all():
        return []
    items = [name for name, here in zip(names, lateral, strict=True) if here]
    figures: dict[str, Any] = {"lateral": n, "images": len(views)}
    if labels is not None:
        classes, counts = np.unique(labels[lateral], return_counts=True)
        others = set(labels.tolist()) - set(classes.tolist())
        figures.update({f"lateral in {name}": int(c) for name, c in zip(classes, counts,
                        strict=True)})  # fmt: skip
        if len(classes) == 1 and others and n > 1:
            sentence = (
                f"All {n} lateral views are {classes[0]}: a model can tell the class from the "
                "view. Leave them out, or add lateral views of the other classes."
            )
            return [Finding("view", "warning", sentence, figures, items)]
    views_are = "1 lateral view is" if n == 1 else f"{n} lateral views are"
    sentence = f"{views_are} among {len(views) - n} others: they show another anatomy."
    return [Finding("view", "note", sentence, figures, items)]
