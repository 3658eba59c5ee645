"""X as pictures: to look at, and to change and hand back as the same kind of X."""

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
from skcxr.batches import as_images
from skcxr.images import decode, resize, to_unit

Array = np.ndarray[Any, Any]

_TOPS = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
_LONGEST = 512  # side in pixels of a film in a picture


class Pictures:
    """The pictures of an X, one by one, and back.

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
        self.X = X
        self.paths = as_paths(X)
        self._last: tuple[int, Array] | None = None
        if self.paths is not None:
            self.n = len(self.paths)
            return
        self._array = _as_array(X, channel_axis, row_shape)
        self._axis = None
        if np.ndim(X) == 4:
            self._axis = next(axis for axis in (1, 3) if _is_channels(X, self._array, axis))
        self.n = len(self._array)
        self._limits = float(self._array.min()), float(self._array.max())

    @property
    def names(self) -> list[str] | None:
        """Names of the files."""
        return None if self.paths is None else [os.path.basename(path) for path in self.paths]

    def native(self, i: int) -> Array:
        """Picture i, (H, W) or (H, W, C), in its own depth."""
        if self.paths is None:
            found: Array = self._array[i]
            return found
        if self._last is None or self._last[0] != i:
            self._last = i, decode(self.paths[i])
        return self._last[1]

    def __getitem__(self, i: int) -> Array:
        """Picture i, (H, W) or (H, W, C), in floats; integers of 8 and 16 bits from 0 to 1."""
        picture = self.native(i)
        return picture if picture.dtype == np.float64 else to_unit(picture)

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

    def take(self, indices: Sequence[int]) -> Any:
        """X at `indices`, unchanged."""
        if hasattr(self.X, "iloc"):
            return self.X.iloc[list(indices)]
        if isinstance(self.X, list | tuple) and self.paths is not None:
            return [self.X[i] for i in indices]
        return np.asarray(self.X)[list(indices)]

    @contextmanager
    def handed_back(self, pictures: Sequence[Array], origin: Sequence[int]) -> Iterator[Any]:
        """Changed pictures as an X; picture k stands for picture ``origin[k]`` of the old one.

        Files are written anew, without loss, under their old names in a folder that is removed.
        """
        if self.paths is None:
            stack = np.stack([self._of_type(p, self._array.dtype) for p in pictures])
            if self._axis is not None and stack.ndim == 4:
                stack = np.moveaxis(stack, -1, self._axis)
            stack = np.ascontiguousarray(stack.reshape(-1, *np.shape(self.X)[1:]))
            if hasattr(self.X, "iloc"):
                yield type(self.X)(stack, columns=self.X.columns)
            else:
                yield stack
            return
        with tempfile.TemporaryDirectory(prefix="skcxr-") as folder:
            names = []
            for k, (picture, i) in enumerate(zip(pictures, origin, strict=True)):
                place = os.path.join(folder, str(k))
                os.mkdir(place)
                names.append(os.path.join(place, os.path.basename(self.paths[i])))
                _write(self._of_type(picture, self.native(i).dtype), names[-1])
            yield self._as_given(names, origin)

    def _of_type(self, picture: Array, dtype: np.dtype[Any]) -> Array:
        if dtype.kind == "f":
            return picture.astype(dtype, copy=False)
        if dtype.kind == "b":
            return picture >= 0.5
        top = _TOPS.get(dtype)
        low, high = (0.0, top) if top else self._limits
        return np.rint(np.clip(picture * (top or 1.0), low, high)).astype(dtype)

    def _as_given(self, names: list[str], origin: Sequence[int]) -> Any:
        """Names of files, in the kind of container that X is."""
        if hasattr(self.X, "iloc"):
            old = self.X.iloc[list(origin)]
            values = np.array(names, dtype=object)
            if old.ndim == 1:
                return type(self.X)(values, index=old.index, name=old.name)
            return type(self.X)(values[:, None], index=old.index, columns=old.columns)
        if isinstance(self.X, list | tuple):
            pairs = zip(names, origin, strict=True)
            return [Path(name) if isinstance(self.X[i], Path) else name for name, i in pairs]
        array = np.asarray(self.X)
        dtype = object if array.dtype.kind == "O" else str
        return np.array(names, dtype=dtype).reshape(-1, *array.shape[1:])


def _as_array(X: Any, channel_axis: Any, row_shape: tuple[int, int] | None) -> Array:
    """Pictures (n, H, W) or (n, H, W, 3)."""
    images = as_images(X, channel_axis)
    if images is not None:
        return images
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
    return rows.reshape(len(rows), height, width)


def _is_channels(X: Any, images: Array, axis: int) -> bool:
    """Whether `axis` of a 4-D X became the last one of `images`, or was dropped."""
    shape = list(np.shape(X))
    n_channels = shape.pop(axis)
    kept = (n_channels,) if images.ndim == 4 else ()
    return n_channels in (1, 3) and (*shape, *kept) == images.shape


def _write(picture: Array, name: str) -> None:
    """Write a file without loss: a PNG, or a TIFF where its name or its pixels ask for one."""
    tiff = picture.dtype.kind == "f" or name.lower().endswith((".tif", ".tiff"))
    image = Image.fromarray(picture)
    if tiff:
        image.save(name, format="TIFF")
    else:
        image.save(name, format="PNG", compress_level=1)
