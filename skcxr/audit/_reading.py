"""Every file once: its header, what stands outside the lungs, and a small picture."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from skcxr._dicom import describe_dicom
from skcxr._exceptions import ImageReadError, InputError
from skcxr._fingerprints import SIDE, thumbnail
from skcxr._patients import as_paths
from skcxr._pillow import _PILLOW_CLASSES, quiet_pillow
from skcxr.images import _opened, decode

Array = np.ndarray[Any, Any]

_LOSSY = ("JPEG", "WebP")  # of others the bytes tell what is seen, not how it was saved
_ENOUGH = 200  # images from which on a progress bar is shown


@dataclass
class Reading:
    """What was read of n images.

    Parameters
    ----------
    names : list of str of length n
        Paths, or ``"image 0"``.
    rows : list of dict
        What of each image is not the lungs; empty where a file could not be read.
    pictures : ndarray of shape (n, SIDE, SIDE), dtype uint8
        Small pictures, black where a file could not be read.
    bytes_, pixels : list of bytes
        Digests of the file and of the pixels, empty where there are none.
    failures : dict of int to str
        Why files could not be read.
    """

    names: list[str]
    rows: list[dict[str, Any]]
    pictures: Array
    bytes_: list[bytes]
    pixels: list[bytes]
    failures: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)


def read_all(X: Any, *, n_threads: int, progress: bool, what: str = "reading") -> Reading:
    """Read paths or images; a file that cannot be read is a failure and no error.

    Raises
    ------
    InputError
        X is neither.
    """
    paths = as_paths(X)
    items: Any = _as_grays(X) if paths is None else paths
    names = paths if paths is not None else [f"image {i}" for i in range(len(items))]
    function = _read_array if paths is None else _read_file
    reading = Reading(
        names, [{} for _ in names], np.zeros((len(names), SIDE, SIDE), np.uint8),
        [b""] * len(names), [b""] * len(names),
    )  # fmt: skip
    with ThreadPoolExecutor(n_threads) as workers:
        found = _tracked(workers.map(function, items), len(names), progress, what)
        for i, (row, picture, of_bytes, of_pixels) in enumerate(found):
            if isinstance(row, str):
                reading.failures[i] = row
                continue
            reading.rows[i], reading.pictures[i] = row, picture
            reading.bytes_[i], reading.pixels[i] = of_bytes, of_pixels
    return reading


def _tracked(found: Iterable[Any], total: int, progress: bool, what: str) -> Iterator[Any]:
    if not progress or total < _ENOUGH:
        yield from found
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(found, what, total=total, console=Console(stderr=True), transient=True)


def _read_file(path: str) -> tuple[Any, Any, bytes, bytes]:
    try:
        with _opened(path) as (file, kind):
            content = file.read()
            file.seek(0)
            row = _header(file, kind)
        gray = to_bytes(decode(path))
    except ImageReadError as error:
        return error.reason, None, b"", b""
    row.update(height=gray.shape[0], width=gray.shape[1])
    if row["format"] in _LOSSY:
        row["bytes per pixel"] = len(content) / gray.size
    row.update(outside_of_lungs(gray))
    return row, thumbnail(gray), hashlib.blake2b(content, digest_size=16).digest(), _digest(gray)


def _read_array(image: Array) -> tuple[Any, Any, bytes, bytes]:
    row = {"height": image.shape[0], "width": image.shape[1], **outside_of_lungs(image)}
    return row, thumbnail(np.ascontiguousarray(image)), b"", _digest(image)


def _digest(gray: Array) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(gray).data, digest_size=16).digest() + str(
        gray.shape
    ).encode("ascii")


def _header(file: Any, kind: str) -> dict[str, Any]:
    """Format, colour mode and JPEG quality, before anything is decoded."""
    if kind == "DICOM":
        storage, mode = describe_dicom(file)
        return {"format": f"DICOM, {storage}", "mode": mode}
    with quiet_pillow(), _PILLOW_CLASSES[kind](file) as image:
        row: dict[str, Any] = {"format": kind, "mode": image.mode}
        tables = getattr(image, "quantization", None)
        if kind == "JPEG" and tables:
            row["JPEG quality"] = _jpeg_quality(tables[min(tables)])
        return row


def _jpeg_quality(table: Sequence[int]) -> float:
    """The quality that libjpeg would have used, from the mean of the table of luminance."""
    scale = 100 * float(np.mean(table)) / 57.625  # of libjpeg's table at quality 50
    quality = 5000 / scale if scale > 100 else (200 - scale) / 2
    return float(round(min(100.0, max(1.0, quality))))


def to_bytes(gray: Array) -> Array:
    """Gray of any depth as uint8."""
    if gray.dtype == np.uint8:
        return gray
    if gray.dtype == np.uint16:
        return (gray >> 8).astype(np.uint8)
    return np.rint(np.clip(gray, 0, 1) * 255).astype(np.uint8)


def _as_grays(X: Any) -> Array:
    """Images as (n, H, W) of uint8."""
    images = np.asarray(X)
    if images.ndim == 4 and images.shape[-1] in (1, 3):
        images = images.mean(axis=-1) if images.shape[-1] == 3 else images[..., 0]
    elif images.ndim == 4 and images.shape[1] in (1, 3):
        images = images.mean(axis=1) if images.shape[1] == 3 else images[:, 0]
    if images.ndim != 3 or images.dtype.kind not in "uifb" or min(images.shape[1:]) < 8:
        raise InputError(
            "paths must be a list of files or images of shape (n, H, W), (n, C, H, W) or "
            f"(n, H, W, C), 8 pixels or more on each side; got shape {np.shape(X)} of "
            f"{np.asarray(X).dtype}"
        )
    given = np.asarray(X).dtype
    if given == np.uint16:
        images = images / 256.0
    elif given == np.bool_:
        images = images * 255.0
    elif given.kind == "f":
        low, high = float(np.nanmin(images)), float(np.nanmax(images))
        low, high = min(low, 0.0), max(high, 1.0)
        images = np.nan_to_num((images - low) / (high - low)) * 255.0
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def outside_of_lungs(gray: Array) -> dict[str, Any]:
    """Frame, edge, corners and levels of an image, in shares of its side and of white.

    Parameters
    ----------
    gray : ndarray of shape (H, W), dtype uint8
        The image.

    Returns
    -------
    dict of str to float or bool
        All but the frame and the edge are measured inside of a frame.
    """
    row: dict[str, Any] = {}
    widths = {shade: _frame(gray, shade) for shade in ("white", "black")}
    for shade, sides in widths.items():
        row[f"{shade} frame"] = float(np.mean(sides))
    thin = max(1, round(0.01 * min(gray.shape)))
    row["edge brightness"] = float(_ring(gray, 0, thin).mean()) / 255
    row["step at the edge"] = row["edge brightness"] - _ring(gray, 4 * thin, thin).mean() / 255
    top, bottom, left, right = (
        math.ceil(max(shares) * side)
        for shares, side in zip(
            zip(*widths.values(), strict=True), (*gray.shape[:1] * 2, *gray.shape[1:] * 2),
            strict=True,
        )
    )  # fmt: skip
    inner = gray[top : gray.shape[0] - bottom, left : gray.shape[1] - right]
    height, width = inner.shape
    side = max(2, round(0.08 * min(inner.shape)))
    corners = [inner[y, x] for y in (np.s_[:side], np.s_[-side:]) for x in (np.s_[:side],
               np.s_[-side:])]  # fmt: skip
    row["top corners"] = float(np.mean(corners[:2])) / 255
    row["bottom corners"] = float(np.mean(corners[2:])) / 255
    tall, wide = round(0.12 * height), round(0.12 * width)
    counts = np.bincount(inner.ravel(), minlength=256) - np.bincount(
        inner[tall : height - tall, wide : width - wide].ravel(), minlength=256
    )
    shares = np.cumsum(counts) / counts.sum()
    row["darkest level"] = float(np.searchsorted(shares, 0.01)) / 255
    row["brightest level"] = float(np.searchsorted(shares, 0.99)) / 255
    row["share cut off at black"] = float(counts[0] / counts.sum())
    row["share cut off at white"] = float(counts[255] / counts.sum())
    row["white rectangles"] = _has_white_rectangle(gray)
    return row


def _frame(gray: Array, shade: str) -> tuple[float, ...]:
    """Width of the uniform white or black frame at top, bottom, left, right."""
    sides = []
    for lines in (gray, gray[::-1], gray.T, gray.T[::-1]):
        width = 0
        for line in lines[: len(lines) // 4]:
            level = float(line.mean())
            if (level < 230 if shade == "white" else level > 10) or float(line.std()) > 8:
                break
            width += 1
        sides.append(width / len(lines))
    return tuple(sides)


def _ring(gray: Array, start: int, thin: int) -> Array:
    """The pixels of a ring `thin` wide that lies `start` pixels inside."""
    inner = gray[start : gray.shape[0] - start, start : gray.shape[1] - start]
    if min(inner.shape) <= 2 * thin:
        return inner.ravel()
    parts = inner[:thin], inner[-thin:], inner[thin:-thin, :thin], inner[thin:-thin, -thin:]
    return np.concatenate([part.ravel() for part in parts])


def _has_white_rectangle(gray: Array) -> bool:
    """Whether a filled white rectangle lies in the image, as over a name that was hidden."""
    step = max(1, min(gray.shape) // 256)
    small = gray[::step, ::step]
    white = small >= 250
    if not white.any():
        return False
    labels, _ = ndimage.label(white)
    height, width = small.shape
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        if tall < max(3, 0.012 * height) or wide < max(6, 0.03 * width) or tall > 0.4 * height:
            continue
        if wide > 0.9 * width:  # a frame
            continue
        box = labels[rows, columns] == number
        if box.mean() >= 0.95:
            return True
    return False
