"""What Pillow knows: an open image file -> an upright gray array of the file's own depth.

Pillow is used file class by file class and not through ``Image.open``: the content alone decides
the decoder, and Pillow's global state (loaded plugins, ``MAX_IMAGE_PIXELS``,
``LOAD_TRUNCATED_IMAGES``) stays as it was.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from skcxr._quiet import quiet

Array = np.ndarray[Any, Any]
Picture = Image.Image | Array  # (H, W) of gray: an image of mode "L", or an array of any depth
Box = tuple[float, float, float, float]

# Pillow's own limit, from which on it speaks of a decompression bomb. It is a constant here, so
# that setting Image.MAX_IMAGE_PIXELS to None elsewhere in the program does not open the door.
MAX_PIXELS = 89_478_485
MAX_SIDE = 65_535  # in pixels: a resize from longer ones takes gigabytes
MAX_BYTES = 400_000_000  # of a file: as many pixels of 32 bits

_MAX_HEAVY_PIXELS = 40_000_000  # of WebP and CMYK, which are held four times and more
_MAX_RLE_PIXELS = 16_000_000  # of BMP, which are decoded in Python
_MAX_SCANS = 1000  # of a JPEG; a progressive one has about ten, which each go over all pixels
_MAX_SCANNED_PIXELS = 1_000_000_000
_MAX_VALUES = 200_000  # of a tag of a TIFF: a palette has 3 * 65536 and a film 10,000 strips
_BAND_PIXELS = 1 << 22
_TEXT_TYPES = (1, 2, 7)  # of TIFF: bytes, ASCII and undefined
_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_BARE_MARKERS = (0x01, *range(0xD0, 0xDA))  # of JPEG: without a length

_PILLOW_CLASSES: dict[str, Callable[..., ImageFile.ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "WebP": WebPImageFile,
}

# EXIF orientation -> what turns the stored array upright
_TURNS: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[:, ::-1],
    7: lambda a: a.T[::-1, ::-1],
    8: lambda a: a.T[::-1],
}
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 274, 258, 262, 339
_SAMPLES, _STRIP_LENGTH, _TILE_WIDTH, _TILE_LENGTH = 277, 278, 322, 323


class UnreadableError(Exception):
    """Why a file cannot be read; `_opened` knows which."""


class Reader(io.BufferedReader):
    """A file that remembers whether someone wanted to read on behind its end.

    It can be read a limited number of times: what has a million parts of a few bytes is no
    radiograph, and Pillow's loops over parts take microseconds for each.
    """

    ended = False
    reads_left = 1_000_000

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise UnreadableError("it has more parts than any image needs")
        data = super().read(size)
        if not data and size != 0:
            self.ended = True
        return data


def quiet_pillow() -> contextlib.AbstractContextManager[None]:
    """Keep Pillow's warnings about odd metadata from the user, and from becoming errors."""
    return quiet(r"PIL\.")


def decode_with_pillow(
    file: Reader, kind: str, size: tuple[int, int] | None, resize_mode: str
) -> tuple[Picture, Box | None]:
    """Decode an open file into an upright gray picture and the box in it that the image fills.

    A JPEG far above `size` is decoded at a reduced scale. Its last row and column then stand for
    less than one pixel of the reduced image, so the box ends within them.

    Eight bits that lie upright stay in Pillow's memory, mode "L": who resizes them needs no array.
    """
    _check_parts(file, kind)
    with quiet_pillow():
        picture, orientation, box = _decode(file, kind, size, resize_mode)
    if orientation == 1:
        return picture, box
    # here, where Pillow's own image is gone
    return np.ascontiguousarray(_TURNS[orientation](np.asarray(picture))), box


def _decode(
    file: Reader, kind: str, size: tuple[int, int] | None, resize_mode: str
) -> tuple[Picture, int, Box | None]:
    """Decode an open file into a gray picture, how it lies, and the box in it."""
    content = b""
    source: Reader | io.BytesIO = file
    if kind == "JPEG":
        file.raw.seek(0, os.SEEK_SET)
        content = file.raw.read()
        source = io.BytesIO(content)
        # fewer bytes cannot be read more often
        if len(content) > Reader.reads_left or ImageFile.LOAD_TRUNCATED_IMAGES:
            source = Reader(cast(Any, source))
    with _PILLOW_CLASSES[kind](source) as image:
        tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
        _check_size(image, tags)
        box: Box | None = None
        if isinstance(image, JpegImageFile):
            _check_scans(content, image.width * image.height)
            image.decodermaxblock = len(content)  # all at once: each block more is begun anew
            wanted = None
            if size is not None and _orientation(image) == 1:  # what lies on its side is rare
                height, width = scaled_shape(image.size[::-1], size, resize_mode)
                wanted = width, height
            # "L" asks for the luminance that a colour JPEG stores anyway: no detour over RGB.
            drafted = image.draft("L", wanted)
            box = drafted[1] if drafted and wanted else None
        image.load()
        if ImageFile.LOAD_TRUNCATED_IMAGES and getattr(source, "ended", True):
            raise UnreadableError("the file ends before the image does; it is cut short")
        # After load(): it turns a TIFF by itself, and in a PNG the EXIF may follow the pixels.
        return _to_gray(image, tags), _orientation(image), box


def _check_parts(file: Reader, kind: str) -> None:
    """Refuse what takes minutes or gigabytes to decode, before a decoder sees it."""
    n_bytes = os.fstat(file.fileno()).st_size
    if n_bytes > MAX_BYTES:
        raise UnreadableError(
            f"the file has {n_bytes:,} bytes, more than the {MAX_BYTES:,} that are allowed"
        )
    if kind == "TIFF" and (n_values := _most_values(file)) > _MAX_VALUES:
        raise UnreadableError(f"one of its tags has {n_values:,} values; it is damaged or forged")
    file.seek(0)


def _most_values(file: Reader) -> int:
    """Values of the longest tag of numbers in the first directory of a TIFF."""
    head = file.read(16)
    order = "<" if head.startswith(b"II") else ">"
    number, of_entries = ("u8", "u8") if b"+" in head[:4] else ("u4", "u2")  # BigTIFF or classic
    start = np.frombuffer(head, order + number, 1, 8 if number == "u8" else 4)[0]
    file.seek(int(start))
    n_entries = int(np.frombuffer(file.read(int(of_entries[1])), order + of_entries)[0])
    entry = np.dtype([
        ("tag", f"{order}u2"), ("type", f"{order}u2"), ("count", order + number),
        ("value", order + number),
    ])  # fmt: skip
    found = file.read(min(n_entries, 65_536) * entry.itemsize)
    entries = np.frombuffer(found, entry, len(found) // entry.itemsize)
    counts = entries["count"][~np.isin(entries["type"], _TEXT_TYPES)]
    return int(counts.max()) if len(counts) else 0


def _check_scans(data: bytes, n_pixels: int) -> None:
    """Refuse a JPEG of a few kilobytes that takes minutes, as each scan goes over all pixels."""
    most = min(_MAX_SCANS, max(1, _MAX_SCANNED_PIXELS // max(1, n_pixels)))
    # the last byte alone is counted in a third of the time
    likely = data.count(_SCAN[1:]) > most and data.count(_SCAN) > most
    if likely and (n_scans := _count_scans(data)) > most:
        raise UnreadableError(
            f"it has {n_scans:,} scans, more than the {most} that are allowed at its size; save it "
            "anew"
        )


def _count_scans(data: bytes) -> int:
    """Scans of a JPEG, those of thumbnails in its metadata apart."""
    n_scans, at = 0, 2
    while (found := _MARKER.search(data, at)) is not None:
        at = found.end()
        n_scans += found[0] == _SCAN
        if found[0][1] not in _BARE_MARKERS:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return n_scans


def _check_size(image: ImageFile.ImageFile, tags: Any) -> None:
    limit = min(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PIXELS)
    if isinstance(image, WebPImageFile) or image.mode == "CMYK":
        limit = min(limit, _MAX_HEAVY_PIXELS)
    if image.tile and image.tile[0][0] == "bmp_rle":
        limit = min(limit, _MAX_RLE_PIXELS)
    if max(image.size) > MAX_SIDE:
        raise UnreadableError(
            f"{image.width} x {image.height} pixels: its sides may have {MAX_SIDE} at most"
        )
    # a tile has the side of the image where it tells none; a strip has its width
    tile = tags.get(_TILE_WIDTH, image.width), tags.get(_TILE_LENGTH, image.height)
    if _TILE_WIDTH not in tags and _TILE_LENGTH not in tags:
        tile = image.width, min(tags.get(_STRIP_LENGTH, image.height), image.height)
    depth = tags.get(_SAMPLES, 1) * max(tags.get(_BITS, (1,)))
    if tile[0] * tile[1] * depth > 8 * MAX_BYTES:
        raise UnreadableError(
            f"it is stored in pieces of {tile[0]} x {tile[1]} pixels of {depth} bits; save it anew "
            "in smaller ones"
        )
    for width, height in (image.size, tile):
        if width * height > limit:
            raise UnreadableError(
                f"{width} x {height} pixels are more than the {limit} that are allowed; "
                "scale it down first"
            )


def _bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """The image in bands of rows, as what is made on the way would fill the memory."""
    n_rows = max(1, _BAND_PIXELS // max(1, image.width))
    if n_rows >= image.height:
        yield slice(None), image
        return
    for top in range(0, image.height, n_rows):
        bottom = min(top + n_rows, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _to_gray(image: Image.Image, tags: Any) -> Picture:
    """Turn a loaded Pillow image of any mode into a gray picture of its own depth."""
    if image.mode == "L" and tags.get(_SAMPLE_FORMAT) == (2,):  # Pillow takes -1 for 255
        raise UnreadableError("it has signed 8-bit pixels; only unsigned ones have a known meaning")
    inverted = tags.get(_PHOTOMETRIC) == 0  # MinIsWhite; Pillow heeds it up to 8 bits only
    shape = image.height, image.width
    if image.mode.startswith("I"):
        array = np.empty(shape, np.uint16)
        low, high = 2**32, -(2**32)
        for rows, band in _bands(image):
            values = np.asarray(band)
            low, high = min(low, int(values.min())), max(high, int(values.max()))
            deep = values.astype(np.uint16)
            if tags.get(_BITS) == (12,):
                deep = ((deep.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
            if inverted:
                deep = 65535 - deep
            if isinstance(image.info.get("transparency"), int):  # one value stands for "nothing"
                deep[values == image.info["transparency"]] = 0
            array[rows] = deep
        if low < 0 or high > 65535:
            raise UnreadableError(
                f"its integer pixels run from {low} to {high}; "
                "only 0 to 65535 (16 bits) has a known meaning",
            )
        return array
    if image.mode == "F":
        array = np.empty(shape, np.float32)
        for rows, band in _bands(image):
            array[rows] = np.asarray(band)
            if not np.isfinite(array[rows]).all():
                raise UnreadableError("it has non-finite pixels (NaN or infinity)")
        if array.min() < 0 or array.max() > 1:
            raise UnreadableError(
                f"its float pixels run from {array.min():g} to {array.max():g}; "
                "only 0 to 1 has a known meaning, rescale them first",
            )
        return np.subtract(1, array, out=array) if inverted else array
    if image.width * image.height <= _BAND_PIXELS:
        return _luminance(image)
    if image.mode == "L" and "transparency" not in image.info:
        return image
    array = np.empty(shape, np.uint8)
    for rows, band in _bands(image):
        array[rows] = np.asarray(_luminance(band))
    return array


def _luminance(image: Image.Image) -> Image.Image:
    """Gray of 8-bit colours, in mode "L"; what is transparent is black."""
    if image.mode == "La":  # gray times alpha already
        image = image.getchannel(0)
    elif image.has_transparency_data:
        # Over black, the colour of air on a radiograph: what is cut away is nothing.
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if np.asarray(alpha).min() == 255:
            return rgba.convert("L")
        image = Image.new("RGB", image.size)
        image.paste(rgba, mask=alpha)
    elif image.mode == "CMYK":
        image = image.convert("RGB")
    return image if image.mode == "L" else image.convert("L")


def scaled_shape(shape: tuple[float, float], size: tuple[int, int], mode: str) -> tuple[int, int]:
    """Return the height and width that the whole image has once it is brought to `size`."""
    if mode == "stretch":
        return size
    ratios = size[0] / shape[0], size[1] / shape[1]
    scale = min(ratios) if mode == "pad" else max(ratios)
    height, width = (max(1, round(n * scale)) for n in shape)
    return (min(height, size[0]), min(width, size[1])) if mode == "pad" else (height, width)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return value if value in _TURNS else 1
    except Exception:  # damaged metadata do not make the pixels unreadable
        return 1
