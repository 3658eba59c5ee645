"""Codes of a frame -> shades of gray, by what the header says they mean.

The steps are those of DICOM PS3.3 C.11.1 (modality), C.11.2 (VOI), C.7.6.3.1.2 (photometric
interpretation) and C.7.5.1.1.2 (padding). Each works pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from skcxr._dicom._header import ImageHeader, integer, value
from skcxr._pillow import UnreadableError

Array = np.ndarray[Any, Any]
Window = int | tuple[float, float] | None
Step = Callable[[Array], Array]

_CHUNK = 1 << 20  # pixels that are worked on in double precision at a time


def shade(codes: Array, image: ImageHeader, frame: int, window: Window) -> Array:
    """Turn the codes of a gray image into shades.

    Parameters
    ----------
    codes : ndarray of shape (rows, columns), dtype uint8, uint16, uint32, float32 or float64
        Bits as they are stored, without those that are not in use.
    image : ImageHeader
        What they mean.
    frame : int
        Which frame they are of, for headers that say it frame by frame.
    window : int, (float, float) or None
        As in `images.read_image`.

    Returns
    -------
    array : ndarray of shape (rows, columns), dtype uint8 or uint16
        uint8 where that holds each shade exactly, which the header alone decides.
    """
    numbers = _numbers(image)
    steps = _palette(image) if image.photometric == "PALETTE COLOR" else _gray(image, frame, window)

    def whole(part: Array) -> Array:
        return np.asarray(np.rint(steps(numbers(part)) * 65535).astype(np.uint16))

    if image.pixels == "integer" and image.stored <= 16:
        table = whole(np.arange(1 << image.stored, dtype=np.uint32))
        if image.stored <= 8 and not (table % 257).any():
            table = (table // 257).astype(np.uint8)
        return np.asarray(table[codes])
    if image.pixels != "integer" and not np.isfinite(codes).all():
        raise UnreadableError("it has non-finite pixels (NaN or infinity)")
    shades = np.empty(codes.shape, np.uint16)
    flat, out = codes.reshape(-1), shades.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        out[start : start + _CHUNK] = whole(flat[start : start + _CHUNK])
    return shades


def luminance(codes: Array, image: ImageHeader) -> Array:
    """Turn the codes (rows, columns, 3) of a colour image into gray of their depth."""
    if image.photometric.startswith("YBR_PARTIAL"):
        raise UnreadableError("its photometric interpretation, YBR_PARTIAL, is not supported")
    rgb = image.photometric in ("RGB", "YBR_ICT", "YBR_RCT")
    if rgb and image.stored == 8 and codes.dtype == np.uint8:
        return np.array(Image.fromarray(codes).convert("L"))
    largest = (1 << image.stored) - 1
    gray = np.empty(codes.shape[:2], np.uint8 if image.stored <= 8 else np.uint16)
    top = 255 if image.stored <= 8 else 65535
    rows = max(1, _CHUNK // codes.shape[1])
    for start in range(0, len(codes), rows):
        part = codes[start : start + rows].astype(np.float64)
        # the first of Y, Cb, Cr is the luminance already
        y = part @ (0.299, 0.587, 0.114) if rgb else part[..., 0]
        gray[start : start + rows] = np.rint(y * (top / largest))
    return gray


def _numbers(image: ImageHeader) -> Step:
    """Codes -> stored numbers as floats, negative ones among them."""
    if image.pixels == "integer" and image.signed:
        half = float(1 << (image.stored - 1))
        return lambda codes: (codes.astype(np.float64) + half) % (2 * half) - half
    return lambda codes: codes.astype(np.float64)


def _stored_range(image: ImageHeader) -> tuple[float, float]:
    if image.signed:
        return -float(1 << (image.stored - 1)), float(1 << (image.stored - 1)) - 1
    return 0.0, float(1 << image.stored) - 1


def _gray(image: ImageHeader, frame: int, window: Window) -> Step:
    """Modality, VOI, inversion and padding, one after the other."""
    modality, low, high = _modality(image, frame)
    voi = _voi(image, frame, window, low, high)
    # INVERSE says for MONOCHROME1 what it says already; both together invert once
    shape = str(value(image.dataset, "PresentationLUTShape") or "").strip().upper()
    inverted = image.photometric == "MONOCHROME1" or shape == "INVERSE"
    padding = _padding(image)

    def steps(numbers: Array) -> Array:
        shades = voi(modality(numbers))
        if inverted:
            shades = 1 - shades
        if padding is not None:
            shades[(numbers >= padding[0]) & (numbers <= padding[1])] = 0
        return shades

    return steps


def _padding(image: ImageHeader) -> tuple[float, float] | None:
    """The stored numbers that stand for nothing."""
    if image.pixels != "integer" or value(image.dataset, "PixelPaddingValue") is None:
        return None
    ends = [_signed(image, integer(image.dataset, "PixelPaddingValue"))]
    if value(image.dataset, "PixelPaddingRangeLimit") is not None:
        ends.append(_signed(image, integer(image.dataset, "PixelPaddingRangeLimit")))
    return float(min(ends)), float(max(ends))


def _signed(image: ImageHeader, number: int) -> int:
    """A number of 16 bits that may have been read with the wrong sign."""
    if image.signed:
        return number - 65536 if number > 32767 else number
    return number + 65536 if number < 0 else number


def _modality(image: ImageHeader, frame: int) -> tuple[Step, float, float]:
    """The modality step, and the range that it can reach."""
    if table := _table(image, "ModalityLUTSequence", 0):
        return table.look_up, 0.0, table.largest
    slope, intercept = 1.0, 0.0
    group = _functional(image, frame, "PixelValueTransformationSequence")
    for dataset in (image.dataset, group):
        if dataset is not None and value(dataset, "RescaleSlope") is not None:
            slope = _floats(dataset, "RescaleSlope")[0]
            intercept = (_floats(dataset, "RescaleIntercept") or [0.0])[0]
    if not slope:
        raise UnreadableError("its rescale slope is 0, which makes all pixels the same")
    first, last = _stored_range(image)
    ends = [slope * first + intercept, slope * last + intercept]
    wanted = abs(slope) * (last - first)
    if not math.isfinite(wanted) or abs(abs(ends[1] - ends[0]) - wanted) > 1e-6 * wanted:
        raise UnreadableError("its rescale slope and intercept are too large or small for pixels")
    return lambda numbers: numbers * slope + intercept, min(ends), max(ends)


def _voi(image: ImageHeader, frame: int, window: Window, low: float, high: float) -> Step:
    """The step that chooses what is shown from black, 0, to white, 1."""
    group = _functional(image, frame, "FrameVOILUTSequence")
    dataset = image.dataset
    if value(dataset, "WindowWidth") is None and group is not None:
        dataset = group
    n_tables = _count(image.dataset, "VOILUTSequence")
    if window is None or isinstance(window, int):
        centers, widths = _floats(dataset, "WindowCenter"), _floats(dataset, "WindowWidth")
        n_windows = min(len(centers), len(widths))
        if window is None or (window == 0 and not n_tables + n_windows):
            return _full(image, low, high)
        if window >= n_tables + n_windows:
            raise UnreadableError(
                f"it has {n_tables + n_windows} windows, so there is no window {window}; they are "
                "counted from 0, and None takes none"
            )
        if window < n_tables:
            table = _table(image, "VOILUTSequence", window)
            assert table is not None
            largest = table.largest
            return lambda numbers: table.look_up(numbers) / largest
        center, width = centers[window - n_tables], widths[window - n_tables]
    else:
        center, width = (float(number) for number in window)
    function = str(value(dataset, "VOILUTFunction") or "LINEAR").strip().upper()
    return _window(center, width, function)


def _full(image: ImageHeader, low: float, high: float) -> Step:
    if image.pixels == "integer":
        return lambda numbers: (numbers - low) / (high - low)

    def within(numbers: Array) -> Array:
        if numbers.min() < 0 or numbers.max() > 1:
            raise UnreadableError(
                f"its float pixels run from {numbers.min():g} to {numbers.max():g}; only 0 to 1 "
                "has a known meaning without a window, give one as window=(center, width)"
            )
        return numbers

    return within


def _window(center: float, width: float, function: str) -> Step:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, scaled to [0, 1]."""
    least = 1 if function == "LINEAR" else 0
    if not (math.isfinite(center) and math.isfinite(width)) or width < least or width <= 0:
        raise UnreadableError(
            f"its window has a center of {center:g} and a width of {width:g}, which is no window; "
            "window=None shows the full range"
        )
    if function == "SIGMOID":
        return lambda x: 1 / (1 + np.exp(np.clip(-4 * (x - center) / width, -700, 700)))
    if function not in ("LINEAR", "LINEAR_EXACT"):
        raise UnreadableError(
            "the function of its windows is not known; window=None shows the full range"
        )
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return lambda x: (x > center).astype(np.float64)
    return lambda x: np.clip((x - center) / width + 0.5, 0, 1)


def _floats(dataset: Any, keyword: str) -> list[float]:
    found = value(dataset, keyword)
    if found is None:
        return []
    try:
        numbers = [float(number) for number in ([found] if np.ndim(found) == 0 else found)]
        if all(math.isfinite(number) for number in numbers):
            return numbers
    except Exception:
        numbers = []
    raise UnreadableError(f"its {keyword} holds what is no number")


def _count(dataset: Any, keyword: str) -> int:
    found = value(dataset, keyword)
    return 0 if found is None else len(found)


def _functional(image: ImageHeader, frame: int, keyword: str) -> Any:
    """An item of the functional groups: that of the frame, else the shared one, else None."""
    for name, index in (("PerFrame", frame), ("Shared", 0)):
        groups = value(image.dataset, f"{name}FunctionalGroupsSequence")
        if groups is not None and len(groups) > index:
            items = value(groups[index], keyword)
            if items is not None and len(items):
                return items[0]
    return None


class _Table:
    """A lookup table of a modality LUT or VOI LUT sequence."""

    def __init__(self, entries: Array, first: int, largest: float) -> None:
        self.entries, self.first, self.largest = entries, first, largest

    def look_up(self, numbers: Array) -> Array:
        at = np.clip(np.rint(numbers) - self.first, 0, len(self.entries) - 1).astype(np.intp)
        return np.asarray(self.entries[at])


def _table(image: ImageHeader, keyword: str, index: int) -> _Table | None:
    if not _count(image.dataset, keyword):
        return None
    item = value(image.dataset, keyword)[index]
    descriptor = _words(image, value(item, "LUTDescriptor"))
    if len(descriptor) != 3 or not 1 <= descriptor[2] <= 16:
        raise UnreadableError("one of its lookup tables is not described as it should be")
    n_entries, first, bits = (int(number) for number in descriptor)
    n_entries = n_entries or 65536
    low = _modality(image, 0)[1] if keyword == "VOILUTSequence" else _stored_range(image)[0]
    if low < 0 and first > 32767:
        first -= 65536
    data = value(item, "LUTData")
    if isinstance(data, bytes) and bits <= 8 and n_entries <= len(data) < 2 * n_entries:
        entries = np.frombuffer(data, np.uint8)
    else:
        entries = _words(image, data)
    if len(entries) < n_entries:
        raise UnreadableError(
            f"one of its lookup tables has {len(entries)} of {n_entries} entries; it is cut short"
        )
    largest = float((1 << bits) - 1)
    entries = np.minimum(entries[:n_entries].astype(np.float64), largest)
    return _Table(entries, first, largest)


def _words(image: ImageHeader, data: Any) -> Array:
    """16-bit numbers, which pydicom gives as such or as bytes."""
    if isinstance(data, bytes):
        order = "<" if image.little_endian else ">"
        return np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2").astype(np.int64)
    try:
        return np.atleast_1d(np.asarray([] if data is None else data)).astype(np.int64) & 0xFFFF
    except Exception:
        data = None
    raise UnreadableError("one of its lookup tables cannot be read")


def _palette(image: ImageHeader) -> Step:
    """The luminance of the colours of a palette."""
    descriptor = _words(image, value(image.dataset, "RedPaletteColorLookupTableDescriptor"))
    if len(descriptor) != 3 or descriptor[2] not in (8, 16):
        raise UnreadableError("its palette is not described as it should be")
    n_entries, first, bits = (int(number) for number in descriptor)
    n_entries = n_entries or 65536
    red, green, blue = (_colour(image, name, bits, n_entries) for name in ("Red", "Green", "Blue"))
    gray = 0.299 * red + 0.587 * green + 0.114 * blue
    return _Table(gray, first - 65536 if image.signed and first > 32767 else first, 1.0).look_up


def _colour(image: ImageHeader, name: str, bits: int, n_entries: int) -> Array:
    """One column of a palette, from 0 to 1."""
    data = value(image.dataset, f"{name}PaletteColorLookupTableData")
    if data is None:
        data = value(image.dataset, f"Segmented{name}PaletteColorLookupTableData")
        entries = _unfolded(_bytes(image, data) if bits == 8 else _words(image, data))
    elif isinstance(data, bytes) and len(data) < 2 * n_entries:
        entries = _bytes(image, data)
    else:
        entries = _words(image, data)
    if len(entries) < n_entries:
        raise UnreadableError("its palette has fewer colours than it should have")
    # entries of 8 bits may fill the high or the low byte of a word
    return entries[:n_entries] / (255 if bits == 8 and entries.max() < 256 else 65535)


def _unfolded(words: Array) -> Array:
    """The entries of a palette that is given in segments, PS3.3 C.7.9.2."""
    parts: list[Array] = []
    at = total = 0
    while at + 2 < len(words):
        opcode, length = int(words[at]), int(words[at + 1])
        total += length
        if opcode > 1 or total > 65536 or not (parts or opcode == 0):
            raise UnreadableError("its palette has segments that cannot be unfolded")
        if opcode == 0:
            parts.append(words[at + 2 : at + 2 + length])
            at += 2 + length
        else:
            last = parts[-1][-1] if len(parts[-1]) else 0
            parts.append(np.rint(np.linspace(last, words[at + 2], length + 1)[1:]))
            at += 3
    return np.concatenate(parts) if parts else np.zeros(0)


def _bytes(image: ImageHeader, data: Any) -> Array:
    if not isinstance(data, bytes):
        raise UnreadableError("its palette cannot be read")
    if not image.little_endian:  # words that were swapped
        data = np.frombuffer(data[: len(data) // 2 * 2], "<u2").byteswap().tobytes()
    return np.frombuffer(data, np.uint8).astype(np.int64)
