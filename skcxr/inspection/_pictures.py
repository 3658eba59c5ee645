"""X as films to look at."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np

from skcxr._exceptions import InputError
from skcxr._pictures import Pictures
from skcxr.batches import as_images
from skcxr.images import resize

Array = np.ndarray[Any, Any]

_LONGEST = 512  # side in pixels of a film in a picture


class Films(Pictures):
    """The pictures of an X, to look at as well.

    Parameters
    ----------
    X : paths or array
        As :class:`skcxr.CXRClassifier` takes them.
    channel_axis : {"auto", 1, 3, -1}, default="auto"
        Axis of the channels in a 4-D X.
    row_shape : (int, int) or None, default=None
        Height and width of the images in rows; None takes a square, else a strip of one row.
    """

    def __init__(
        self, X: Any, channel_axis: Any = "auto", row_shape: tuple[int, int] | None = None
    ) -> None:
        super().__init__(X, partial(_read, channel_axis=channel_axis, row_shape=row_shape))

    @property
    def names(self) -> list[str] | None:
        """Names of the files."""
        return None if self.paths is None else [os.path.basename(path) for path in self.paths]

    def film(self, i: int) -> Array:
        """Picture i to look at: gray floats (H, W), of a moderate size."""
        picture = self[i].astype(np.float32)
        if picture.ndim == 3:
            picture = picture @ np.array([0.299, 0.587, 0.114], np.float32)
        height, width = picture.shape
        scale = _LONGEST / max(height, width)
        if scale >= 1:
            return picture
        return resize(picture, (max(1, round(scale * height)), max(1, round(scale * width))))


def _read(X: Any, channel_axis: Any, row_shape: tuple[int, int] | None) -> tuple[Array, int | None]:
    """Pictures (n, H, W) or (n, H, W, 3), and the axis that their channels had in X."""
    images = as_images(X, channel_axis)
    if images is not None:
        axes = (axis for axis in (1, 3) if _is_channels(X, images, axis))
        return images, next(axes) if np.ndim(X) == 4 else None
    rows = np.asarray(X)
    if rows.ndim != 2 or rows.dtype.kind not in "buif" or 0 in rows.shape:
        raise InputError(
            f"X holds {rows.dtype} of shape {rows.shape}; pictures are paths, arrays (n, H, W), "
            "(n, C, H, W) or (n, H, W, C), or rows of pixels (n, n_features)"
        )
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        row = int((~np.isfinite(rows)).any(axis=1).argmax())
        raise InputError(f"X contains NaN or infinity in row {row}")
    side = round(rows.shape[1] ** 0.5)
    square = (side, side) if side * side == rows.shape[1] else (1, rows.shape[1])
    height, width = square if row_shape is None else row_shape
    if height * width != rows.shape[1]:
        raise InputError(
            f"pictures of {height} x {width} pixels have {height * width} of them, but X has "
            f"{rows.shape[1]} columns"
        )
    return rows.reshape(len(rows), height, width), None


def _is_channels(X: Any, images: Array, axis: int) -> bool:
    """Whether `axis` of a 4-D X became the last one of `images`, or was dropped."""
    shape = list(np.shape(X))
    n_channels = shape.pop(axis)
    kept = (n_channels,) if images.ndim == 4 else ()
    return n_channels in (1, 3) and (*shape, *kept) == images.shape
