"""What the gate looks at: a picture of 48 x 48 pixels -> numbers.

Coarse pixels know where chests are bright and dark, oriented gradients in cells (Dalal and Triggs
2005, here with soft votes and no blocks) know ribs and diaphragms. Both are taken after the gray
values are stretched, so that exposure, units and depth do not matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]

SIDE = 48
_COARSE = 16  # blocks of pixels along a side
_CELLS = 6  # cells of gradients along a side
_DIRECTIONS = 8
_AT_ONCE = 512  # pictures whose intermediate images are in memory


def unit(pictures: Array) -> Array:
    """Each picture from 0 to 1; one of a single gray value becomes 0.

    Parameters
    ----------
    pictures : ndarray of shape (n, H, W) of float
        Gray values of any unit.

    Returns
    -------
    ndarray of shape (n, H, W), dtype float32
        The pictures.
    """
    low = pictures.min(axis=(1, 2), keepdims=True)
    width = pictures.max(axis=(1, 2), keepdims=True) - low
    flat = width <= 0
    scaled = np.where(flat, 0, pictures - low) / np.where(flat, 1, width)
    return scaled.astype(np.float32)


def look(pictures: Array) -> Array:
    """Describe pictures by numbers.

    Parameters
    ----------
    pictures : ndarray of shape (n, 48, 48), dtype float32
        Gray values, about 0 to 1.

    Returns
    -------
    ndarray of shape (n, 547), dtype float64
        Means of 16 x 16 blocks, 8 directions of gradients in 6 x 6 cells, and how rough, steep and
        asymmetric the whole is.
    """
    starts = range(0, len(pictures), _AT_ONCE)
    return np.concatenate([_look(pictures[start : start + _AT_ONCE]) for start in starts])


def _look(pictures: Array) -> Array:
    # in double precision: features that are constant but for rounding would be scaled to noise
    n, block, cell = len(pictures), SIDE // _COARSE, SIDE // _CELLS
    pictures = pictures.astype(np.float64)
    low, high = np.percentile(pictures, [2, 98], axis=(1, 2), keepdims=True)
    films = np.clip((pictures - low) / np.maximum(high - low, 1e-3), -0.2, 1.2)

    smooth = ndimage.gaussian_filter(films, (0, 1, 1))
    coarse = smooth.reshape(n, _COARSE, block, _COARSE, block).mean((2, 4))

    down, right = np.gradient(ndimage.gaussian_filter(films, (0, 0.7, 0.7)), axis=(1, 2))
    slope = np.hypot(down, right)
    turn = (np.arctan2(down, right) / (2 * np.pi) + 0.5) * _DIRECTIONS
    cells = np.empty((n, _CELLS, _CELLS, _DIRECTIONS))
    for direction in range(_DIRECTIONS):
        away = np.abs(turn - direction)
        votes = slope * np.maximum(0, 1 - np.minimum(away, _DIRECTIONS - away))
        cells[..., direction] = votes.reshape(n, _CELLS, cell, _CELLS, cell).sum((2, 4))
    cells /= np.sqrt(np.square(cells).sum(-1, keepdims=True)) + 0.3

    rough = (films - smooth).std((1, 2))
    steep = slope.mean((1, 2))
    asymmetric = np.abs(films - films[:, :, ::-1]).mean((1, 2))
    whole = np.stack([rough, steep, asymmetric], axis=1)
    return np.hstack([coarse.reshape(n, -1), cells.reshape(n, -1), whole])
