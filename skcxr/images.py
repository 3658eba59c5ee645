"""One file -> one grayscale image.

    path -> checked file -> kind, by content -> decoder -> (H, W) -> resized -> [0, 1]

`read_image` is the public end of this chain. `decode`, `resize`, `to_unit` and `sniff` are its
links; they serve the other modules of skcxr and may change without notice.

A radiograph keeps its depth: 8-bit files give ``uint8``, 16-bit files ``uint16``, float TIFFs
``float32``, and each is scaled by the range of its type, never by its own darkest and brightest
pixel. DICOM comes out as it is meant to be shown, in ``uint8`` or ``uint16``. Whatever is wrong
with a file is said by one exception, `ImageReadError`.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import os
import stat
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from skcxr._dicom import decode_dicom, describe_dicom, looks_like_dicom, patient_key
from skcxr._exceptions import ImageReadError, InputError
from skcxr._pillow import (
    MAX_PIXELS,
    MAX_SIDE,
    Array,
    Box,
    Picture,
    Reader,
    UnreadableError,
    decode_with_pillow,
    scaled_shape,
)

__all__ = ["read_image"]

Size = int | tuple[int, int] | None
Window = int | tuple[float, float] | None

RESIZE_MODES = ("stretch", "pad", "crop")
INTERPOLATIONS = {
    "hamming": Image.Resampling.HAMMING,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

_HEAD_BYTES = 132  # "DICM" lies at 128
_SUPPORTED = "PNG, JPEG, TIFF, BMP, WebP and DICOM are read"

_BMP_HEADER_BYTES = (12, 16, 40, 52, 56, 64, 108, 124)

# What else is found under the name of an image; only named, never read.
_OTHER_KINDS = {
    b"GIF8": "a GIF image",
    b"\0\0\0\x0cjP": "a JPEG 2000 image",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript file",
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"<!doctype": "an HTML page",
    b"<html": "an HTML page",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}


def read_image(
    path: str | os.PathLike[str],
    *,
    size: Size = None,
    resize_mode: str = "stretch",
    window: Window = 0,
    frame: int | None = None,
) -> Array:
    """Read an image file as one grayscale array.

    PNG, JPEG, TIFF, BMP, WebP and, with the extra ``dicom``, DICOM are read, whatever the file is
    called: the content decides. An EXIF orientation is applied, colour becomes luminance,
    transparent parts become black, and of several frames or pages the first is taken. DICOM comes
    out as its header wants it shown, with air dark and bone bright.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    size : int or (int, int), default=None
        The wanted height and width; an int stands for a square. None keeps the size of the file.
    resize_mode : {"stretch", "pad", "crop"}, default="stretch"
        How an image of another aspect ratio is brought to `size`: ``"stretch"`` scales height and
        width each on its own, so that nothing of the lungs is lost and no bars tell a network
        which scanner the film came from; ``"pad"`` keeps the aspect ratio and adds black bars on
        two sides; ``"crop"`` keeps the aspect ratio and cuts what stands out on two sides.
    window : int, (float, float) or None, default=0
        What a DICOM file shows from black to white. An int chooses one of the views that the
        file offers, counted from 0: its VOI lookup tables, then its windows; a file that offers
        none is shown in full by 0. None shows the full range of its stored bits. ``(center,
        width)`` is a window of your own, in the units of its windows. Other files have no window.
    frame : int or None, default=None
        Which frame of a DICOM file of several is read, counted from 0; None reads a file of one.

    Returns
    -------
    image : ndarray of shape (H, W), dtype float32
        Values in [0, 1]: 8-bit values divided by 255, 16-bit values by 65535, float pixels as
        they are.

    Raises
    ------
    ImageReadError
        If the file is missing, unreadable, damaged, no image or too large: 89 million pixels are
        allowed (40 million of WebP and CMYK), 65,535 on a side and 400 million bytes;
        if it is DICOM and the extra is not installed, if it holds several frames and `frame` is
        None, or if it has no such window or frame.
    InputError
        If `size`, `resize_mode`, `window` or `frame` is invalid.

    Notes
    -----
    Where the wanted size is far below the size of a JPEG, the file is decoded at 1/2, 1/4 or 1/8
    of its scale (still at least `size`) and resized from there, which is several times faster
    and changes pixels by half a gray level on average, by more at sharp edges.

    16-bit colour and 16-bit gray with alpha (PNG, TIFF) come out with 8-bit precision: Pillow
    has no deeper mode for them.

    With ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` set, Pillow fills missing rows with gray instead
    of reporting them. A file that ends too early is refused here all the same; damage in its
    middle is then seen only as far as Pillow still reports it.

    A DICOM file goes through its rescale slope and intercept or modality LUT, then through the
    window (DICOM PS3.3 C.11.1 and C.11.2). MONOCHROME1, or a presentation LUT shape of INVERSE,
    is inverted, and pixels of the padding value become black (C.7.6.3, C.7.5.1.1.2). Overlays,
    presentation LUT sequences and orientation are not heeded. Without a window the range is that
    of the bits stored: 12 bits run from 0 to 4095, whatever the darkest and brightest pixel are.
    No message quotes the header but for numbers of the image.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from skcxr.images import read_image
    >>> path = os.path.join(tempfile.mkdtemp(), "film.png")
    >>> Image.fromarray(np.full((60, 40), 51, dtype=np.uint8)).save(path)
    >>> image = read_image(path)
    >>> image.shape, image.dtype, float(image[0, 0])
    ((60, 40), dtype('float32'), 0.20000000298023224)
    >>> read_image(path, size=32).shape
    (32, 32)
    """
    return to_unit(decode(path, size, resize_mode, window=window, frame=frame))


def decode(
    path: str | os.PathLike[str],
    size: Size = None,
    resize_mode: str = "stretch",
    interpolation: str = "hamming",
    window: Window = 0,
    frame: int | None = None,
) -> Array:
    """Read an image file as one grayscale array of the file's own depth. Internal.

    Parameters
    ----------
    path, size, resize_mode
        As in `read_image`, which is ``to_unit(decode(path, size, resize_mode))``.
    interpolation : {"hamming", "bilinear", "bicubic"}, default="hamming"
        As in `resize`.
    window, frame
        As in `read_image`.

    Returns
    -------
    array : ndarray of shape (H, W), dtype uint8, uint16 or float32
        The same as ``resize(decode(path), size, resize_mode, interpolation)``, to the bit unless
        a JPEG was decoded at a reduced scale.
    """
    return decode_with_kind(path, size, resize_mode, interpolation, window, frame)[0]


def decode_with_kind(
    path: str | os.PathLike[str],
    size: Size = None,
    resize_mode: str = "stretch",
    interpolation: str = "hamming",
    window: Window = 0,
    frame: int | None = None,
) -> tuple[Array, str]:
    """What :func:`decode` gives, and the kind of file that it was. Internal."""
    wanted = check_size(size, resize_mode)
    window, frame = check_window(window), _check_frame(frame)
    box = None
    picture: Picture
    with _opened(path) as (file, kind):
        if kind == "DICOM":
            picture = decode_dicom(file, window, frame)
        elif frame:
            raise UnreadableError(
                f"frame={frame} is asked for, but of a {kind} file only the first frame is read"
            )
        else:
            picture, box = decode_with_pillow(file, kind, wanted, resize_mode)
    if wanted is None:
        return _as_array(picture), kind
    return _resize_box(picture, box, wanted, resize_mode, interpolation), kind


def sniff(path: str | os.PathLike[str]) -> str | None:
    """Say why a file is no image that can be read, from its first bytes or header. Internal.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    reason : str or None
        None for a file that begins like a supported image; its pixels may still be damaged.
    """
    try:
        with _opened(path) as (file, kind):
            if kind == "DICOM":
                describe_dicom(file)
            return None
    except ImageReadError as error:
        return error.reason


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins like DICOM. Internal."""
    try:
        with _opened(path) as (_, kind):
            return kind == "DICOM"
    except ImageReadError:
        return False


def dicom_patient(path: str | os.PathLike[str]) -> bytes | None:
    """Return what tells the patient of a DICOM file apart, for hashing alone. Internal."""
    with _opened(path) as (file, _):
        return patient_key(file)


def to_unit(array: Array, out: Array | None = None) -> Array:
    """Scale pixels by the range of their type. Internal.

    Parameters
    ----------
    array : ndarray of dtype bool, uint8, uint16 or float
        Pixels.
    out : ndarray of the same shape, dtype float32, default=None
        Where the result is written.

    Returns
    -------
    array : ndarray of the same shape, dtype float32
        uint8 / 255, uint16 / 65535, bool as 0 and 1, floats as they are.
    """
    if array.dtype in (np.uint8, np.uint16):
        most = np.float32(255 if array.dtype == np.uint8 else 65535)
        return np.divide(array, most, out=out, dtype=np.float32)
    if array.dtype == np.bool_ or array.dtype.kind == "f":
        if out is None:
            return array.astype(np.float32, copy=False)
        out[...] = array
        return out
    raise InputError(
        f"pixels of type {array.dtype} have no known range; give uint8, uint16, bool or floats"
    )


def resize(
    array: Array, size: Size, resize_mode: str = "stretch", interpolation: str = "hamming"
) -> Array:
    """Bring a gray image to a size. Internal.

    Antialiased, by default with a Hamming window: every new pixel is a weighted mean of old ones,
    so no value leaves the range of the old, and less is blurred than by a triangle (bilinear).
    Bicubic overshoots at edges: what leaves the range of integers is cut off, and floats stay
    within those of the image. Networks with weights get the window with which these were trained.

    Parameters
    ----------
    array : ndarray of shape (H, W), dtype uint8, uint16, float32 or float64
        The image.
    size : int, (int, int) or None
        Height and width; None returns `array` itself.
    resize_mode : {"stretch", "pad", "crop"}, default="stretch"
        As in `read_image`.
    interpolation : {"hamming", "bilinear", "bicubic"}, default="hamming"
        The window.

    Returns
    -------
    array : ndarray of shape `size`, of the same dtype
        The image; `array` itself where it has that size already.
    """
    wanted = check_size(size, resize_mode)
    if array.ndim != 2 or array.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        raise InputError(
            "resize takes one (H, W) array of uint8, uint16, float32 or float64; "
            f"got shape {array.shape} of {array.dtype}"
        )
    if wanted is None:
        return array
    return _resize_box(array, None, wanted, resize_mode, interpolation)


@contextlib.contextmanager
def _opened(path: Any) -> Iterator[tuple[Reader, str]]:
    """Open a regular file and tell its kind. All that goes wrong becomes an ImageReadError."""
    try:
        name = os.fspath(path)
    except TypeError:
        name = None
    if not isinstance(name, str):  # open() would take an int for a file descriptor
        kind = type(path).__name__
        raise ImageReadError(str(path), f"a path is a str or os.PathLike, not {kind}")
    name = str(name)  # numpy's str_ prints itself as np.str_('...')
    try:
        if "\0" in name:
            raise UnreadableError("the path contains a NUL character")
        status = os.stat(name)
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableError("it is a directory; give the files in it")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            raise UnreadableError("it is no regular file but a pipe, socket or device")
        if status.st_size == 0:
            raise UnreadableError("the file is empty")
        with open(name, "rb", buffering=0) as raw, Reader(raw) as file:
            kind = _kind(file.read(_HEAD_BYTES))
            file.seek(0)
            yield file, kind
    except UnreadableError as error:
        raise ImageReadError(name, str(error)) from None
    except Exception as error:  # Pillow raises nearly every builtin on damaged files
        raise ImageReadError(name, _reason(error)) from error


def _kind(head: bytes) -> str:
    """Tell the kind of file from its first bytes, never from its name."""
    if head[128:132] == b"DICM":
        return "DICOM"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):  # classic and BigTIFF
        return "TIFF"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if looks_like_dicom(head):  # one without a preamble
        return "DICOM"
    start = head.lstrip().lower()
    for magic, name in _OTHER_KINDS.items():
        if head.startswith(magic) or start.startswith(magic):
            raise UnreadableError(f"it is {name}; {_SUPPORTED}")
    raise UnreadableError(f"its content is no image of a known kind; {_SUPPORTED}")


def _as_array(picture: Picture) -> Array:
    return np.array(picture) if isinstance(picture, Image.Image) else picture


def _resize_box(
    picture: Picture, box: Box | None, size: tuple[int, int], mode: str, interpolation: str
) -> Array:
    """Resize what lies in `box`: left, top, right, bottom in pixels; None for all."""
    if isinstance(picture, Image.Image):
        image, array = picture, None
        columns, rows = image.size
    else:
        # uint16 takes the way over floats, which hold it exactly.
        array = picture
        source = array if array.dtype == np.uint8 else array.astype(np.float32, copy=False)
        image = Image.fromarray(np.ascontiguousarray(source))
        rows, columns = array.shape
    whole = (0, 0, columns, rows)
    box = box or whole
    if (rows, columns) == size and box == whole:
        return _as_array(picture)
    left, top, right, bottom = box
    height, width = bottom - top, right - left
    inner = size
    if mode == "pad":
        inner = scaled_shape((height, width), size, mode)
    elif mode == "crop":
        scale = max(size[0] / height, size[1] / width)
        margin_y, margin_x = (height - size[0] / scale) / 2, (width - size[1] / scale) / 2
        left, right = left + max(0.0, margin_x), right - max(0.0, margin_x)
        top, bottom = top + max(0.0, margin_y), bottom - max(0.0, margin_y)

    box = (left, top, right, bottom)
    scaled = np.array(image.resize(inner[::-1], INTERPOLATIONS[interpolation], box))
    if array is not None and array.dtype != np.uint8:
        if interpolation == "bicubic" and array.dtype == np.uint16:
            scaled = scaled.clip(0, 65535)
        elif interpolation == "bicubic":
            scaled = scaled.clip(array.min(), array.max())
        if array.dtype == np.uint16:
            scaled = np.rint(scaled)
        scaled = scaled.astype(array.dtype, copy=False)
    if inner == size:
        return scaled
    padded = np.zeros(size, dtype=scaled.dtype)
    row, column = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    padded[row : row + inner[0], column : column + inner[1]] = scaled
    return padded


def check_size(size: Any, resize_mode: str) -> tuple[int, int] | None:
    """Return `size` as (height, width) or None, or say what is wrong with it. Internal."""
    if not isinstance(resize_mode, str) or resize_mode not in RESIZE_MODES:
        raise InputError(f"resize_mode must be one of {RESIZE_MODES}, got {resize_mode!r:.200}")
    if size is None:
        return None
    sides = (size, size) if isinstance(size, numbers.Integral) else size
    if (
        not isinstance(sides, (tuple, list))
        or len(sides) != 2
        or not all(isinstance(n, numbers.Integral) and not isinstance(n, bool) for n in sides)
        or min(sides) < 1
    ):
        raise InputError(
            f"size must be None, a positive int or two of them (height, width), got {size!r:.200}"
        )
    height, width = int(sides[0]), int(sides[1])
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise InputError(
            f"size={size!r:.200} is larger than the {MAX_PIXELS} pixels and sides of {MAX_SIDE} "
            "that an image may have"
        )
    return height, width


def check_window(window: Any) -> Window:
    """Return `window` as an int, two floats or None, or say what is wrong with it. Internal."""
    if window is None:
        return None
    if _is_count(window):
        return int(window)
    if (
        isinstance(window, (tuple, list))
        and len(window) == 2
        and all(_is_finite(n) for n in window)
        and window[1] > 0
    ):
        return float(window[0]), float(window[1])
    raise InputError(
        "window must be None, an int of 0 or more, or (center, width) with a positive width, got "
        f"{window!r}"
    )


def _check_frame(frame: Any) -> int | None:
    if frame is None or _is_count(frame):
        return None if frame is None else int(frame)
    raise InputError(f"frame must be None or an int of 0 or more, got {frame!r}")


def _is_finite(number: Any) -> bool:
    try:
        return isinstance(number, numbers.Real) and math.isfinite(number)
    except OverflowError:  # an int that no float holds
        return False


def _is_count(number: Any) -> bool:
    kinds = (int, np.integer)
    return isinstance(number, kinds) and not isinstance(number, bool) and int(number) >= 0


def _reason(error: Exception) -> str:
    """Say in plain words what an exception of the system or of Pillow means."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "there is no permission to read it"
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    if isinstance(error, OSError) and error.strerror:
        return f"the system says: {error.strerror}"
    if isinstance(error, UnicodeEncodeError):
        return "the path has characters that the file system cannot write"
    detail = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"it is damaged, cut short or of a variant that Pillow cannot read ({detail})"
