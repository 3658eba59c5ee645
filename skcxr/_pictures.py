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

from skcxr._patients import as_paths
from skcxr.images import decode, to_unit

Array = np.ndarray[Any, Any]

TOPS = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}  # white, in integers


class Pictures:
    """The pictures of an X, one by one, and back.

    Parameters
    ----------
    X : paths or array
        As :class:`skcxr.CXRClassifier` takes them.
    read : callable
        From an X that is no paths, its pictures (n, H, W) or (n, H, W, C), and the axis of X that
        has the channels; None where there is none.
    """

    def __init__(self, X: Any, read: Any) -> None:
        self.X = X
        self.paths = as_paths(X)
        self._last: tuple[int, Array] | None = None
        if self.paths is not None:
            self.n = len(self.paths)
            return
        self._array, self._axis = read(X)
        self.n = len(self._array)
        self._limits = float(self._array.min()), float(self._array.max())

    def native(self, i: int) -> Array:
        """Picture i, (H, W) or (H, W, C), in its own depth."""
        if self.paths is None:
            found: Array = self._array[i]
            return found
        if self._last is None or self._last[0] != i:
            self._last = i, decode(self.paths[i])
        return self._last[1]

    def dtype(self, i: int) -> np.dtype[Any]:
        """The depth of picture i."""
        found: np.dtype[Any] = self.native(i).dtype
        return found

    def __getitem__(self, i: int) -> Array:
        """Picture i, (H, W) or (H, W, C), in floats; integers of 8 and 16 bits from 0 to 1."""
        picture = self.native(i)
        return picture if picture.dtype == np.float64 else to_unit(picture)

    def take(self, indices: Sequence[int] | Array) -> Any:
        """X at `indices`, unchanged."""
        rows = list(indices)
        if hasattr(self.X, "iloc"):
            return self.X.iloc[rows]
        if isinstance(self.X, list | tuple) and self.paths is not None:
            return [self.X[i] for i in rows]
        return np.asarray(self.X)[rows]

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
                _write(self._of_type(picture, self.dtype(i)), names[-1])
            yield self._as_given(names, origin)

    def _of_type(self, picture: Array, dtype: np.dtype[Any]) -> Array:
        if dtype.kind == "f":
            return picture.astype(dtype, copy=False)
        if dtype.kind == "b":
            return picture >= 0.5
        top = TOPS.get(dtype)
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


def _write(picture: Array, name: str) -> None:
    """Write a file without loss: a PNG, or a TIFF where its name or its pixels ask for one."""
    tiff = picture.dtype.kind == "f" or name.lower().endswith((".tif", ".tiff"))
    image = Image.fromarray(picture)
    image.save(name, format="TIFF") if tiff else image.save(name, format="PNG", compress_level=0)
