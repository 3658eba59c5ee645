"""Parts of a film, films without one of them, and films with that of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from skcxr.audit._pictures import Pictures

Array = np.ndarray[Any, Any]

BORDER, CORNER, OUTSIDE = 0.04, 0.125, 0.1  # parts of height and width
_GRID = 128  # side of the mean film of files


def _ring(shape: tuple[int, int], part: float) -> Array:
    rows, columns = (max(1, round(part * n)) for n in shape)
    mask = np.ones(shape, dtype=bool)
    mask[rows:-rows, columns:-columns] = False
    return mask


def border(shape: tuple[int, int]) -> Array:
    """The outermost 4%: where frames and collimation are."""
    return _ring(shape, BORDER)


def corners(shape: tuple[int, int]) -> Array:
    """Four squares of an eighth of the side: where side markers and names are."""
    rows, columns = (max(2, round(CORNER * n)) for n in shape)
    mask = np.zeros(shape, dtype=bool)
    for r in (slice(rows), slice(-rows, None)):
        for c in (slice(columns), slice(-columns, None)):
            mask[r, c] = True
    return mask


def outside(shape: tuple[int, int]) -> Array:
    """All but the middle 80% of height and width, and the corners: where no lungs are, nearly."""
    return _ring(shape, OUTSIDE) | corners(shape)


def resized(picture: Array, shape: tuple[int, int]) -> Array:
    """A picture, (H, W) or (H, W, C), at another size."""
    if picture.shape[:2] == shape:
        return picture
    if picture.ndim == 3:
        layers = [resized(picture[..., c], shape) for c in range(picture.shape[2])]
        return np.stack(layers, axis=-1)
    image = Image.fromarray(picture.astype(np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BOX if _smaller(picture, shape)
                                   else Image.Resampling.BILINEAR))  # fmt: skip


def _smaller(picture: Array, shape: tuple[int, int]) -> bool:
    return shape[0] < picture.shape[0]


def mean_film(pictures: Pictures, classes: Array) -> Array:
    """The mean of the classes' mean films, which says nothing about any one film."""
    shape = (_GRID, _GRID) if pictures.paths is not None else pictures[0].shape[:2]
    means: list[Array] = []
    for label in np.unique(classes):
        chosen = np.flatnonzero(classes == label)
        films = [resized(pictures[i], shape) for i in chosen.tolist()]
        means.append(np.mean(films, axis=0))
    return np.asarray(np.mean(means, axis=0))


def filled(picture: Array, mask: Array, other: Array) -> Array:
    """A picture with the pixels of another, brought to its size, where `mask` is."""
    new = picture.copy()
    new[mask] = resized(other, picture.shape[:2])[mask]
    return new


def level_and_spread(picture: Array) -> tuple[float, float]:
    """Mean and standard deviation of the pixels."""
    return float(picture.mean()), max(float(picture.std()), 1e-6)


def at_level(picture: Array, level: float, spread: float) -> Array:
    """A picture brought to another mean and standard deviation."""
    mean, std = level_and_spread(picture)
    return ((picture - mean) * (spread / std) + level).astype(picture.dtype)


def coarse(picture: Array, side: int) -> Array:
    """A picture with `side` pixels along its shorter side, at its old size."""
    height, width = picture.shape[:2]
    scale = side / min(height, width)
    small = resized(picture, (max(1, round(scale * height)), max(1, round(scale * width))))
    return resized(small, (height, width)).astype(picture.dtype)


def versions(pictures: Pictures, classes: Array) -> dict[str, Callable[[Array], Array]]:
    """What is made of each film, by name."""
    mean = mean_film(pictures, classes)
    levels = np.array([level_and_spread(pictures[i]) for i in range(pictures.n)])
    level, spread = np.median(levels, axis=0)
    return {
        "lungs masked": lambda p: filled(p, ~outside(p.shape[:2]), mean),
        "border only": lambda p: filled(p, ~border(p.shape[:2]), mean),
        "corners only": lambda p: filled(p, ~corners(p.shape[:2]), mean),
        "border masked": lambda p: filled(p, border(p.shape[:2]), mean),
        "corners masked": lambda p: filled(p, corners(p.shape[:2]), mean),
        "16 pixels": lambda p: coarse(p, 16),
        "8 pixels": lambda p: coarse(p, 8),
        "brightness equalised": lambda p: at_level(p, level, spread),
    }


# what one film gets of another: host, donor -> film
SWAPS: dict[str, Callable[[Array, Array], Array]] = {
    "border": lambda host, donor: filled(host, border(host.shape[:2]), donor),
    "corners": lambda host, donor: filled(host, corners(host.shape[:2]), donor),
    "outside": lambda host, donor: filled(host, outside(host.shape[:2]), donor),
    "brightness": lambda host, donor: at_level(host, *level_and_spread(donor)),
}
