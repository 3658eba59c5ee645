"""What Pillow knows: an open image file -> an upright gray array of the file's own depth.

Pillow is used file class by file class and not through ``Image.open``: the content alone decides
the decoder, and Pillow's global state (loaded plugins, ``MAX_IMAGE_PIXELS``,
``LOAD_TRUNCATED_IMAGES``) stays as it was.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

Array = np.ndarray[Any, Any]
Box = tuple[float, float, float, float]

# Pillow's own limit, from which on it speaks of a decompression bomb. It is a constant here, so
# that setting Image.MAX_IMAGE_PIXELS to None elsewhere in the program does not open the door.
MAX_PIXELS = 89_478_485

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
_TILE_WIDTH, _TILE_LENGTH = 322, 323


class UnreadableError(Exception):
    """Why a file cannot be read; `_opened` knows which."""


class Reader(io.BufferedReader):
    """A file that remembers whether someone wanted to read on behind its end."""

    ended = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data and size != 0:
            self.ended = True
        return data


def decode_with_pillow(
    file: Reader, kind: str, size: tuple[int, int] | None, resize_mode: str
) -> tuple[Array, Box | None]:
    """Decode an open file into an upright array and the box in it that the image fills.

    A JPEG far above `size` is decoded at a reduced scale. Its last row and column then stand for
    less than one pixel of the reduced image, so the box ends within them.
    """
    with _quiet_pillow(), _PILLOW_CLASSES[kind](file) as image:
        limit = min(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PIXELS)
        tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
        tile = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1)
        for width, height in (image.size, tile):
            if width * height > limit:
                raise UnreadableError(
                    f"{width} x {height} pixels are more than the {limit} that are allowed; "
                    "scale it down first"
                )
        box: Box | None = None
        if isinstance(image, JpegImageFile):
            wanted = None
            if size is not None and _orientation(image) == 1:  # what lies on its side is rare
                height, width = scaled_shape(image.size[::-1], size, resize_mode)
                wanted = 2 * width, 2 * height
            # "L" asks for the luminance that a colour JPEG stores anyway: no detour over RGB.
            drafted = image.draft("L", wanted)
            box = drafted[1] if drafted and wanted else None
        image.load()
        if file.ended and ImageFile.LOAD_TRUNCATED_IMAGES:
            raise UnreadableError("the file ends before the image does; it is cut short")
        array = _to_gray(image, tags)
        # After load(): it turns a TIFF by itself, and in a PNG the EXIF may follow the pixels.
        return np.ascontiguousarray(_TURNS[_orientation(image)](array)), box


def _to_gray(image: Image.Image, tags: Any) -> Array:
    """Turn a loaded Pillow image of any mode into an (H, W) array of its own depth."""
    inverted = tags.get(_PHOTOMETRIC) == 0  # MinIsWhite; Pillow heeds it up to 8 bits only
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableError(
                f"its integer pixels run from {values.min()} to {values.max()}; "
                "only 0 to 65535 (16 bits) has a known meaning",
            )
        array = values.astype(np.uint16)
        if tags.get(_BITS) == (12,):
            array = ((array.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
        if inverted:
            array = 65535 - array
        if isinstance(image.info.get("transparency"), int):  # one value stands for "nothing"
            array[values == image.info["transparency"]] = 0
        return array
    if image.mode == "F":
        array = np.array(image, dtype=np.float32)
        if not np.isfinite(array).all():
            raise UnreadableError("it has non-finite pixels (NaN or infinity)")
        if array.min() < 0 or array.max() > 1:
            raise UnreadableError(
                f"its float pixels run from {array.min():g} to {array.max():g}; "
                "only 0 to 1 has a known meaning, rescale them first",
            )
        return 1 - array if inverted else array
    if image.mode == "L" and tags.get(_SAMPLE_FORMAT) == (2,):  # Pillow takes -1 for 255
        raise UnreadableError("it has signed 8-bit pixels; only unsigned ones have a known meaning")
    if image.mode == "La":  # gray times alpha already
        image = image.getchannel(0)
    elif image.has_transparency_data:
        # Over black, the colour of air on a radiograph: what is cut away is nothing.
        rgba = image.convert("RGBA")
        image = Image.new("RGB", image.size)
        image.paste(rgba, mask=rgba.getchannel("A"))
    elif image.mode == "CMYK":
        image = image.convert("RGB")
    return np.array(image.convert("L"))


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


_quiet_lock = threading.Lock()
_quiet_readers = 0


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings about odd metadata from the user, and from becoming errors.

    ``warnings.catch_warnings`` would put back the filters of one thread over those of another, so
    one filter, for Pillow alone, is added while any thread decodes and is taken out by the last.
    """
    global _quiet_readers
    with _quiet_lock:
        _quiet_readers += 1
        warnings.filterwarnings("ignore", module=r"PIL\.")  # to the front, never twice
        item = warnings.filters[0]
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_readers -= 1
            if _quiet_readers == 0:
                with contextlib.suppress(ValueError):
                    cast("list[Any]", warnings.filters).remove(item)
