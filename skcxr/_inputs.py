"""X, as the classifier sees it: files, images or rows, with the range of their pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from skcxr._exceptions import InputError
from skcxr.batches import as_images, as_paths, check_magnitude
from skcxr.images import to_unit

Array = np.ndarray[Any, Any]


class InputTypeError(InputError, TypeError):
    """An InputError about a type, for which scikit-learn asks for a TypeError."""


@dataclass(frozen=True)
class Images:
    """A checked X.

    Parameters
    ----------
    items : list of str or ndarray of shape (n, H, W) or (n, H, W, 3)
        Paths or pixels.
    kind : {"paths", "images", "rows"}
        What X was.
    pixel_range : (float, float)
        Lowest and highest pixel; (0, 1) for files, integers and bool.
    """

    items: list[str] | Array
    kind: Literal["paths", "images", "rows"]
    pixel_range: tuple[float, float] = (0.0, 1.0)

    @property
    def is_float64(self) -> bool:
        """Whether these are rows that came in double precision."""
        return self.kind == "rows" and self.items.dtype == np.float64  # type: ignore[union-attr]

    def take(self, indices: Array) -> Images:
        """The images at `indices`."""
        if len(indices) == len(self.items):
            return self
        if isinstance(self.items, list):
            return replace(self, items=[self.items[i] for i in indices])
        return replace(self, items=self.items[indices])


@contextmanager
def columns_kept(estimator: Any) -> Iterator[None]:
    """A fit that fails leaves what the last one knows of X's columns."""
    names = ("n_features_in_", "feature_names_in_")
    before = {name: vars(estimator)[name] for name in names if name in vars(estimator)}
    try:
        yield
    except BaseException:
        for name in names:
            vars(estimator).pop(name, None)
        vars(estimator).update(before)
        raise


def read_images(estimator: Any, X: Any, *, reset: bool, allow_nan: bool | None = None) -> Images:
    """Check X for a fit (`reset`) or against the fit that `estimator` has behind it.

    `allow_nan` is whether images may be NaN altogether; None lets them where nothing is fitted and
    ``on_error="nan"``.
    """
    if allow_nan is None:
        allow_nan = not reset and estimator.on_error == "nan"
    paths = as_paths(X)
    if paths is not None:
        images = Images(paths, "paths")
    elif (pixels := as_images(X, estimator.channel_axis, allow_nan=allow_nan)) is not None:
        images = Images(pixels, "images", _range(pixels))
    else:
        _check_table(X)
        try:
            rows = validate_data(estimator, X, reset=reset, dtype="numeric")
        except ValueError as error:
            raise InputError(str(error)) from error
        except TypeError as error:
            raise InputTypeError(str(error)) from error
        rows = _as_float(rows)
        check_magnitude(rows, "its rows")
        images = Images(rows, "rows", _range(rows))
    if reset:
        if images.kind != "rows":  # what an earlier fit on a table has left
            for name in ("n_features_in_", "feature_names_in_"):
                vars(estimator).pop(name, None)
    else:
        _check_against_fit(estimator, images)
    if images.kind == "rows":
        shape = _row_shape(estimator.row_shape, images.items.shape[1])  # type: ignore[union-attr]
        images = replace(images, items=images.items.reshape(-1, *shape))  # type: ignore[union-attr]
    return images


def _check_table(X: Any) -> None:
    """Say what to do with what is neither paths nor images nor numbers."""
    accepted = (
        "X may be paths (a list, 1-D array, Series or single column), images of shape (n, H, W), "
        "(n, C, H, W) or (n, H, W, C), or rows of pixels of shape (n, n_features)"
    )
    if not (isinstance(X, list | tuple) or hasattr(X, "shape") or hasattr(X, "__array__")):
        raise InputError(f"X is {type(X).__name__}; {accepted}")
    shape = getattr(X, "shape", None)
    if (
        shape is not None
        and len(shape) == 2
        and shape[0]
        and shape[1] > 1
        and hasattr(X, "columns")
    ):
        for column in X.columns:
            value = np.asarray(X[column])[0]
            if isinstance(value, str | os.PathLike):
                raise InputError(
                    f"column {column!r} of X holds text ({value!r}) beside {shape[1] - 1} other "
                    f"columns; if these are paths, pass that column alone: X[{column!r}]"
                )
    if shape is not None and len(shape) == 1 and shape[0] and np.ndim(np.asarray(X)[0]) >= 2:
        raise InputError(f"X is a column of arrays; pass np.stack(list(X)). {accepted}")


def _as_float(rows: Array) -> Array:
    if rows.dtype in (np.uint8, np.uint16, np.bool_, np.float16):
        return to_unit(rows)
    try:
        return rows if rows.dtype == np.float32 else rows.astype(np.float64, copy=False)
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(f"X holds what is no number: {error}") from error


def _range(pixels: Array) -> tuple[float, float]:
    if pixels.dtype.kind != "f":
        return 0.0, 1.0
    # NaN only where all images are NaN, and then outside of no range
    return float(np.fmin.reduce(pixels, axis=None)), float(np.fmax.reduce(pixels, axis=None))


def _row_shape(row_shape: Any, n_features: int) -> tuple[int, int]:
    if row_shape is None:
        side = round(n_features**0.5)
        return (side, side) if side * side == n_features else (1, n_features)
    if len(row_shape) != 2 or not all(isinstance(side, Integral) for side in row_shape):
        raise InputError(f"row_shape={row_shape!r} is not (height, width) in pixels")
    height, width = map(int, row_shape)
    if height < 1 or width < 1 or height * width != n_features:
        raise InputError(
            f"row_shape={row_shape!r} has {height * width} pixels, but X has {n_features} columns"
        )
    return height, width


def _check_against_fit(estimator: Any, images: Images) -> None:
    check_is_fitted(estimator)
    settings = estimator._settings
    if (images.kind == "rows") != settings.of_rows:
        said = {"rows": "rows (2-D)", "images": "images (3-D or 4-D)", "paths": "paths"}
        raise InputError(
            f"X holds {said[images.kind]}, but {type(estimator).__name__} was fitted on "
            f"{'rows (2-D)' if settings.of_rows else 'images or paths'}"
            + (": for one image pass X[None]" if images.kind == "rows" else "")
        )
    low, high = images.pixel_range
    fit_low, fit_high = settings.pixel_range
    width = fit_high - fit_low
    # an order of magnitude is another unit (0 to 255 for 0 to 1), not another exposure
    too_wide = low < fit_low - 10 * width or high > fit_high + 10 * width
    too_narrow = images.kind == "images" and fit_high > 50 and 0 <= low < high <= 1
    if width > 0 and (too_wide or too_narrow):
        raise InputError(
            f"X has pixels from {low:.6g} to {high:.6g}, but {type(estimator).__name__} was fitted "
            f"on pixels from {fit_low:.6g} to {fit_high:.6g}: bring them to the same unit (uint8 "
            "and uint16 are scaled to [0, 1] by themselves, floats are taken as they are)"
        )
