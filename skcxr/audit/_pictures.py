"""X as pictures whose border, corners and lungs can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from skcxr import _pictures
from skcxr._exceptions import InputError

Array = np.ndarray[Any, Any]

_HELD = 2**28  # bytes of decoded files that are held
SMALLEST = 16  # side in pixels; below it there is no telling border, corners and lungs apart


class Pictures(_pictures.Pictures):
    """The pictures of an X, files held where there is room: each is changed many times.

    Parameters
    ----------
    X : paths or array
        As :class:`skcxr.CXRClassifier` takes them; rows are those of squares.
    channel_axis : {"auto", 1, 3, -1}, default="auto"
        Axis of the channels in a 4-D X.
    """

    def __init__(self, X: Any, channel_axis: Any = "auto") -> None:
        super().__init__(X, partial(_read, channel_axis=channel_axis))
        self._held: dict[int, Array] = {}
        self._room = _HELD
        self._dtypes: dict[int, np.dtype[Any]] = {}

    def native(self, i: int) -> Array:
        """Picture i, (H, W) or (H, W, C), in its own depth."""
        if self.paths is None:
            return super().native(i)
        if i in self._held:
            return self._held[i]
        picture = super().native(i)
        _check_size(picture.shape, f"file {self.paths[i]!r}")
        self._dtypes[i] = picture.dtype
        if picture.nbytes <= self._room:
            self._held[i] = picture
            self._room -= picture.nbytes
        return picture

    def dtype(self, i: int) -> np.dtype[Any]:
        """The depth of picture i, without another look at its file."""
        return self._dtypes.get(i) or super().dtype(i)

    def __getitem__(self, i: int) -> Array:
        """Picture i, (H, W) or (H, W, C), in floats; integers of 8 and 16 bits from 0 to 1."""
        picture = self.native(i)
        if picture.dtype == np.float64:
            return picture
        return picture.astype(np.float32) / np.float32(_pictures.TOPS.get(picture.dtype, 1.0))


def _read(X: Any, channel_axis: Any) -> tuple[Array, int | None]:
    """Pictures (n, H, W) or (n, H, W, C), and the axis that their channels had in X."""
    if isinstance(X, list | tuple) and len({np.shape(x) for x in X}) > 1:
        raise InputError(
            "X holds pictures of different shapes; pass paths, or bring them to one size first"
        )
    array = np.asarray(X)
    if array.dtype.kind not in "buif":
        raise InputError(
            f"X holds {array.dtype} of shape {array.shape}; pass paths or arrays of numbers"
        )
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise InputError(
            f"X has shape {array.shape}; pictures are paths, (n, H, W), (n, C, H, W), (n, H, W, C) "
            "or rows of the pixels of squares"
        )
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if bad.any():
            raise InputError(f"X contains NaN or infinity in picture {int(bad.argmax())}")
    axis = None
    if array.ndim == 2:
        side = round(array.shape[1] ** 0.5)
        if side * side != array.shape[1]:
            raise InputError(
                f"X has rows of {array.shape[1]} numbers, which are the pixels of no square; pass "
                "pictures (n, H, W) to a pipeline that flattens them itself"
            )
        array = array.reshape(len(array), side, side)
    elif array.ndim == 4:
        axes = [1, 3] if channel_axis == "auto" else [int(channel_axis) % 4]
        axes = [a for a in axes if array.shape[a] in (1, 3)]
        if len(axes) != 1:
            raise InputError(
                f"X has shape {array.shape}, where the axis of the channels (1 or 3, second or "
                "last) cannot be told; pass gray pictures (n, H, W)"
            )
        axis = axes[0]
    height, width = (n for a, n in enumerate(array.shape) if a not in (0, axis))
    _check_size((height, width), "X")
    return array if axis is None else np.moveaxis(array, axis, -1), axis


def _check_size(shape: Sequence[int], what: str) -> None:
    if min(shape) < SMALLEST:
        raise InputError(
            f"{what} has pictures of {shape[0]} x {shape[1]} pixels; border and corners can be "
            f"told from lungs at {SMALLEST} x {SMALLEST} or more"
        )
