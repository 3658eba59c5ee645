"""X as pictures that can be changed and handed back as the same kind of X."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skcxr._exceptions import InputError
from skcxr._patients import as_paths
from skcxr.images import decode

Array = np.ndarray[Any, Any]

_RANGES = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
_HELD = 2**28  # bytes of decoded files that are held
SMALLEST = 16  # side in pixels; below it there is no telling border, corners and lungs apart


class Pictures:
    """The pictures of an X, one by one as floats, and back.

    Parameters
    ----------
    X : paths or array
        As :class:`skcxr.CXRClassifier` takes them.
    channel_axis : {"auto", 1, 3, -1}, default="auto"
        Axis of the channels in a 4-D X.
    """

    def __init__(self, X: Any, channel_axis: Any = "auto") -> None:
        self.X = X
        self.paths = as_paths(X)
        self._held: dict[int, Array] = {}
        self._room = _HELD
        self._dtypes: dict[int, np.dtype[Any]] = {}
        if self.paths is not None:
            self.n = len(self.paths)
            return
        self._array, self._axis = _as_array(X, channel_axis)
        self.n = len(self._array)
        low, high = self._array.min(), self._array.max()
        self._limits = (float(low), float(high))

    def _native(self, i: int) -> Array:
        if self.paths is None:
            picture = self._array[i]
            return picture if self._axis is None else np.moveaxis(picture, self._axis - 1, -1)
        if i in self._held:
            return self._held[i]
        picture = decode(self.paths[i])
        _check_size(picture.shape, f"file {self.paths[i]!r}")
        self._dtypes[i] = picture.dtype
        if picture.nbytes <= self._room:
            self._held[i] = picture
            self._room -= picture.nbytes
        return picture

    def __getitem__(self, i: int) -> Array:
        """Picture i, (H, W) or (H, W, C), in floats; integers of 8 and 16 bits from 0 to 1."""
        picture = self._native(i)
        if picture.dtype == np.float64:
            return picture
        scale = np.float32(_RANGES.get(picture.dtype, 1.0))
        return picture.astype(np.float32) / scale

    def take(self, indices: Array) -> Any:
        """X at `indices`, unchanged."""
        if hasattr(self.X, "iloc"):
            return self.X.iloc[indices]
        if isinstance(self.X, list | tuple) and self.paths is not None:
            return [self.X[i] for i in indices]
        return np.asarray(self.X)[indices]

    @contextmanager
    def handed_back(self, pictures: Sequence[Array], origin: Sequence[int]) -> Iterator[Any]:
        """Changed pictures as an X; picture k stands for picture ``origin[k]`` of the old one.

        Files are written anew, without loss, under their old names in a folder that is removed.
        """
        if self.paths is None:
            dtype = self._array.dtype
            stack = np.stack([self._of_type(p, dtype) for p in pictures])
            if self._axis is not None:
                stack = np.moveaxis(stack, -1, self._axis)
            stack = np.ascontiguousarray(stack.reshape(-1, *np.shape(self.X)[1:]))
            if hasattr(self.X, "iloc"):
                yield type(self.X)(stack, columns=self.X.columns)
            else:
                yield stack
            return
        with tempfile.TemporaryDirectory(prefix="skcxr-") as folder:
            names: list[Any] = []
            for k, (picture, i) in enumerate(zip(pictures, origin, strict=True)):
                place = os.path.join(folder, str(k))
                os.mkdir(place)
                names.append(os.path.join(place, os.path.basename(self.paths[i])))
                dtype = self._dtypes.get(i) or self._native(i).dtype
                _write(self._of_type(picture, dtype), names[-1])
            yield self._as_given(names, origin)

    def _of_type(self, picture: Array, dtype: np.dtype[Any]) -> Array:
        if dtype.kind == "f":
            return picture.astype(dtype, copy=False)
        if dtype.kind == "b":
            return picture >= 0.5
        top = _RANGES.get(dtype)
        low, high = (0.0, top) if top else self._limits
        return np.rint(np.clip(picture * (top or 1.0), low, high)).astype(dtype)

    def _as_given(self, names: list[Any], origin: Sequence[int]) -> Any:
        """Names of files, in the kind of container that X is."""
        if hasattr(self.X, "iloc"):
            new = self.X.iloc[list(origin)].astype(object)
            values = np.array(names, dtype=object)
            if new.ndim == 1:
                return type(self.X)(values, index=new.index, name=new.name)
            return type(self.X)(values[:, None], index=new.index, columns=new.columns)
        if isinstance(self.X, list | tuple):
            pairs = zip(names, origin, strict=True)
            return [Path(name) if isinstance(self.X[i], Path) else name for name, i in pairs]
        array = np.asarray(self.X)
        return np.array(names, dtype=object if array.dtype.kind == "O" else str).reshape(
            (-1, *array.shape[1:])
        )


def _as_array(X: Any, channel_axis: Any) -> tuple[Array, int | None]:
    """Pictures (n, H, W) or 4-D with the axis of their channels."""
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
    return array, axis


def _check_size(shape: Sequence[int], what: str) -> None:
    if min(shape) < SMALLEST:
        raise InputError(
            f"{what} has pictures of {shape[0]} x {shape[1]} pixels; border and corners can be "
            f"told from lungs at {SMALLEST} x {SMALLEST} or more"
        )


def _write(picture: Array, name: str) -> None:
    """Write a file without loss: a PNG, or a TIFF where its name or its pixels ask for one."""
    tiff = picture.dtype.kind == "f" or name.lower().endswith((".tif", ".tiff"))
    image = Image.fromarray(picture)
    image.save(name, format="TIFF") if tiff else image.save(name, format="PNG", compress_level=0)
