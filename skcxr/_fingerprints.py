"""Copies of pictures: a perceptual hash as a first look, the details of the pixels as a second.

All chests resemble each other, so a hash that forgives a mirror, a brightness or a compression
takes many of them for one. What tells a copy is the fine structure: ribs, vessels, markers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from skcxr._optional import import_optional
from skcxr.images import resize

Array = np.ndarray[Any, Any]

SIDE = 96  # of the pictures that are compared

_HASH = 16  # a hash has 16 x 16 bits
_FAR = 76  # bits in which copies may differ; half of them would be no likeness at all
_COARSE, _FINE = (1.2, 6.0), (0.7, 3.0)  # sigmas between which structures are looked at
_ALIKE = 0.55  # coarse correlation from which on a second look is worth it
_COPY = 0.93  # fine correlation of a copy, whose grain must agree as well
_SURE = 0.96  # and of one that no other film of the same chest reaches
_ALIGN = 0.6  # from which on a crop or a change of scale is tried
_GRAIN = 0.875  # correlation of the finest structures that a crop keeps
_REACH = 6  # pixels by which copies may be shifted before


class Copy(NamedTuple):
    """Two pictures of one exposure."""

    first: int
    second: int
    similarity: float
    mirrored: bool


def thumbnail(image: Array) -> Array:
    """A small square picture of 8 bits.

    Parameters
    ----------
    image : ndarray of shape (H, W), dtype uint8
        The image.

    Returns
    -------
    ndarray of shape (SIDE, SIDE), dtype uint8
        The picture.
    """
    return resize(image, SIDE)


def picture_hashes(thumbnails: Array) -> Array:
    """Hash pictures.

    Parameters
    ----------
    thumbnails : ndarray of shape (n, SIDE, SIDE), dtype uint8
        Pictures.

    Returns
    -------
    ndarray of shape (n, 256), dtype int8
        The bits as -1 and 1.

    Raises
    ------
    MissingDependencyError
        imagehash is not installed.
    """
    from PIL import Image

    imagehash = import_optional("imagehash", "audit")
    bits = [
        imagehash.phash(Image.fromarray(picture), hash_size=_HASH).hash.ravel()
        for picture in thumbnails
    ]
    return np.array(bits, dtype=np.int8).reshape(-1, _HASH**2) * np.int8(2) - np.int8(1)


def find_copies(first: Array, second: Array | None = None) -> list[Copy]:
    """Find pictures of one exposure: resized, recompressed, brighter, mirrored or cropped a little.

    Parameters
    ----------
    first : ndarray of shape (n, SIDE, SIDE), dtype uint8
        Pictures.
    second : ndarray of shape (m, SIDE, SIDE), dtype uint8, or None, default=None
        Other pictures to look in; None looks among the first.

    Returns
    -------
    list of Copy
        Each pair once, the most similar first.

    Raises
    ------
    MissingDependencyError
        imagehash is not installed.
    """
    among = second is None
    others = first if second is None else second
    hashes, details = picture_hashes(first), _Details(first)
    found: dict[tuple[int, int], Copy] = {}
    for mirrored in (False, True):
        there = np.ascontiguousarray(others[:, :, ::-1]) if mirrored else others
        same = among and not mirrored
        there_hashes = hashes if same else picture_hashes(there)
        there_details = details if same else _Details(there)
        for i, j in _near(hashes, there_hashes, _FAR, among):
            if float((details.coarse(i) * there_details.coarse(j)).sum()) < _ALIKE:
                continue
            likeness = _likeness(details, there_details, i, j)
            if likeness > 0 and ((i, j) not in found or likeness > found[i, j].similarity):
                found[i, j] = Copy(i, j, likeness, mirrored)
    return sorted(found.values(), key=lambda copy: -copy.similarity)


def _near(first: Array, second: Array, most: int, among: bool) -> Iterator[tuple[int, int]]:
    """Pairs of hashes that differ in `most` bits or fewer; `among` themselves, each pair once."""
    turned = second.astype(np.float32).T
    least = first.shape[1] - 2 * most
    for start in range(0, len(first), 512):
        agreement = first[start : start + 512].astype(np.float32) @ turned
        for row, column in np.argwhere(agreement >= least).tolist():
            if not among or start + row < column:
                yield start + row, column


class _Details:
    """The structures of pictures, each worked out when it is asked for."""

    def __init__(self, pictures: Array) -> None:
        self.pictures = pictures
        self.made: dict[tuple[int, tuple[float, float]], Array] = {}

    def _get(self, index: int, sigmas: tuple[float, float]) -> Array:
        if (index, sigmas) not in self.made:
            self.made[index, sigmas] = _structure(self.pictures[index], *sigmas)
        return self.made[index, sigmas]

    def fine(self, index: int) -> Array:
        """Ribs, vessels, markers."""
        return self._get(index, _FINE)

    def coarse(self, index: int) -> Array:
        """Heart, diaphragm, shoulders."""
        return self._get(index, _COARSE)


def _structure(picture: Array, low: float, high: float) -> Array:
    """A picture without its shades, of mean 0 and norm 1; contrast and brightness play no part."""
    smooth = picture.astype(np.float32)
    if low > 0:
        smooth = ndimage.gaussian_filter(smooth, low)
    rest = smooth - ndimage.gaussian_filter(smooth, high)
    spread: Array = np.sqrt(ndimage.gaussian_filter(rest * rest, high)) + np.float32(2)
    return _normed(rest / spread)


def _normed(values: Array) -> Array:
    centred: Array = values - values.mean()
    norm = max(float(np.linalg.norm(centred)), 1e-6)
    return centred / np.float32(norm)


def _likeness(first: _Details, second: _Details, i: int, j: int) -> float:
    """Correlation of the fine structures where they fit best; 0 for what is no copy."""
    details, others = first.fine(i), second.fine(j)
    spectrum = np.fft.rfft2(details) * np.conj(np.fft.rfft2(others))
    peaks = np.fft.irfft2(spectrum, s=details.shape)
    peaks = np.roll(peaks, (_REACH, _REACH), (0, 1))[: 2 * _REACH + 1, : 2 * _REACH + 1]
    best = float(peaks.max())
    if best >= _SURE:
        return best
    if best < _ALIGN:
        return 0.0
    row, column = np.unravel_index(int(peaks.argmax()), peaks.shape)
    shift = np.array([_REACH - int(row), _REACH - int(column)], dtype=float)
    scale = np.ones(2)
    for target, source in ((first.coarse(i), second.coarse(j)), (details, others)):
        scale, shift, best = _align(target, source, scale, shift)
        if best < _ALIGN:
            return 0.0
    if best < _COPY:
        return 0.0
    start = _start(scale, shift)
    moved = ndimage.affine_transform(
        second.pictures[j].astype(np.float32), scale, start, order=3, cval=np.nan
    )
    inside = ndimage.binary_erosion(np.isfinite(moved), iterations=4)
    grain = [_structure(p, 0, 1)[inside] for p in (first.pictures[i], np.nan_to_num(moved))]
    return best if float(_normed(grain[0]) @ _normed(grain[1]).T) >= _GRAIN else 0.0


def _start(scale: Array, shift: Array) -> Array:
    """Where the first pixel of a picture lies, scaled about its middle and shifted."""
    half = (SIDE - 1) / 2
    start: Array = half - scale * half + shift
    return start


def _align(target: Array, source: Array, scale: Array, shift: Array) -> tuple[Array, Array, float]:
    """Gauss-Newton for the scales and shifts of both axes that correlate two structures best."""
    half = (SIDE - 1) / 2
    y, x = (np.indices((SIDE, SIDE), dtype=np.float32) - np.float32(half)) / np.float32(half)
    likeness = 0.0
    for _ in range(8):
        moved = ndimage.affine_transform(source, scale, _start(scale, shift), order=1, cval=np.nan)
        inside = np.isfinite(moved)
        if inside.mean() < 0.6:  # it has run away
            return scale, shift, 0.0
        moved[~inside] = 0
        norm = max(float(np.linalg.norm(moved)), 1e-6)
        rest = _normed(np.where(inside, target, 0)) - _normed(moved)
        likeness = 1 - float((rest * rest).sum()) / 2
        down, right = np.gradient(moved)
        slopes = np.stack([down * y, right * x, down, right]).reshape(4, -1) / np.float32(norm)
        hessian = slopes @ slopes.T + 1e-6 * np.eye(4)
        step = np.linalg.solve(hessian, slopes @ rest.ravel()) * max(likeness, 0.3)
        scale, shift = scale + step[:2] / half, shift + step[2:]
        if np.abs(scale - 1).max() > 0.2 or np.abs(step).max() < 0.02:
            break
    return scale, shift, likeness
