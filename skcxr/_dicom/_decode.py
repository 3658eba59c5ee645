"""An open DICOM file -> one gray image."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from skcxr._dicom._frames import CUT_SHORT, NATIVE, SYNTAXES, unpacked
from skcxr._dicom._header import (
    PATIENT_TAGS,
    TAGS,
    Header,
    ImageHeader,
    Limited,
    describe,
    guarded,
    read_header,
    value,
)
from skcxr._dicom._shades import Window, luminance, shade
from skcxr._optional import import_optional
from skcxr._pillow import UnreadableError

Array = np.ndarray[Any, Any]

_UNDEFINED = 0xFFFFFFFF
_MAX_STREAM = 1 << 28  # bytes


def describe_dicom(file: Any) -> tuple[str, str]:
    """Read the header of an open file and say how its pixels are stored.

    Returns
    -------
    storage : str
        What the transfer syntax is called, "uncompressed" for those that are not compressed.
    mode : str
        Photometric interpretation and bits, such as "MONOCHROME2, 12 bits".

    Raises
    ------
    UnreadableError
        It holds no image, or pydicom is missing.
    """

    def read() -> tuple[str, str]:
        header = read_header(file, TAGS)
        image = describe(header)
        storage = SYNTAXES.get(header.syntax, ("", "uncompressed"))[1]
        return storage, f"{image.photometric}, {image.stored} bits"

    return cast("tuple[str, str]", guarded(read))


def patient_key(file: Any) -> bytes | None:
    """Return what tells the patient of an open file apart, for hashing; None where that is empty.

    Raises
    ------
    UnreadableError
        The header cannot be read, or pydicom is missing.
    """

    def read() -> bytes | None:
        dataset = read_header(file, PATIENT_TAGS).dataset
        patient, issuer = (
            str(value(dataset, keyword) or "").strip("\0 ")
            for keyword in ("PatientID", "IssuerOfPatientID")
        )
        return f"{issuer}\0{patient}".encode("utf-8", "surrogatepass") if patient else None

    return cast("bytes | None", guarded(read))


def decode_dicom(file: Any, window: Window = 0, frame: int | None = None) -> Array:
    """Decode an open file.

    Parameters
    ----------
    file : file object
        The file.
    window : int, (float, float) or None, default=0
        As in `images.read_image`.
    frame : int or None, default=None
        As in `images.read_image`.

    Returns
    -------
    array : ndarray of shape (H, W), dtype uint8 or uint16
        Black is 0 and white the largest value of the type.

    Raises
    ------
    UnreadableError
        The file cannot be read, or pydicom or a decoder is missing; no value of its header is
        quoted but numbers of the image.
    """
    return cast(Array, guarded(lambda: _decode(file, window, frame)))


def _decode(file: Any, window: Window, frame: int | None) -> Array:
    header = read_header(file, TAGS)
    image = describe(header)
    if frame is None and image.frames > 1:
        raise UnreadableError(
            f"it holds {image.frames} frames; choose one of them with frame=, "
            f"0 to {image.frames - 1}"
        )
    if window and not image.photometric.startswith("MONOCHROME"):
        raise UnreadableError("its pixels are colours, which have no windows")
    index = frame or 0
    if index >= image.frames:
        raise UnreadableError(f"there is no frame {index}: it holds {image.frames}, counted from 0")
    if header.syntax in NATIVE:
        codes = _native(header, image, index)
    else:
        stream = _stream(header, image, index)
        codes, photometric = unpacked(stream, header.syntax, image.shape, image.allocated)
        image.photometric = photometric or image.photometric
    if image.pixels == "integer":
        codes = _stored_bits(codes, image, shift=header.syntax in NATIVE)
    if image.samples == 3:
        return luminance(codes, image)
    return shade(codes, image, index, window)


def _stored_bits(codes: Array, image: ImageHeader, shift: bool) -> Array:
    """Keep the bits that are in use; others may hold an overlay or the sign once more."""
    codes = codes.view(f"u{codes.dtype.itemsize}")
    unused = image.high + 1 - image.stored if shift else 0
    if unused:
        codes = codes >> unused
    if image.stored < 8 * codes.dtype.itemsize:
        codes = codes & codes.dtype.type((1 << image.stored) - 1)
    return codes


def _native(header: Header, image: ImageHeader, index: int) -> Array:
    """Read an uncompressed frame."""
    if header.length == _UNDEFINED:
        raise UnreadableError("its pixels are compressed, which its transfer syntax denies")
    n_samples = image.rows * image.columns * image.samples
    halved = image.photometric == "YBR_FULL_422"  # two pixels share their colour
    n_bits = (n_samples * 2 // 3 if halved else n_samples) * image.allocated
    first, last = index * n_bits // 8, ((index + 1) * n_bits + 7) // 8
    if last > header.length:
        raise UnreadableError(
            f"its {image.columns} x {image.rows} pixels need {last} bytes, but there are "
            f"{header.length}; it is cut short"
        )
    swapped = image.allocated == 8 and not image.little_endian and header.vr == "OW"
    start = first - first % 2 if swapped else first  # from a whole word on
    header.file.seek(header.start + start)
    content = header.file.read(last - start + swapped)
    if len(content) < last - start:
        raise UnreadableError(CUT_SHORT)
    if swapped:
        content = np.frombuffer(content[: len(content) // 2 * 2], "<u2").byteswap().tobytes()
    content = content[first - start : last - start]
    if image.allocated == 1:
        bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
        skipped = index * n_bits - 8 * first
        return bits[skipped : skipped + n_bits].reshape(image.rows, image.columns)
    order = "<" if image.little_endian else ">"
    kind = "u" if image.pixels == "integer" else "f"
    codes = np.frombuffer(content, f"{order}{kind}{image.allocated // 8}")
    codes = codes.astype(codes.dtype.newbyteorder("="), copy=False)
    if halved:  # Y Y Cb Cr; what is shown is Y
        pairs = codes[: codes.size // 4 * 4].reshape(-1, 4)
        gray = np.ascontiguousarray(pairs[:, :2]).reshape(image.rows, image.columns)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.samples == 1:
        return codes.reshape(image.rows, image.columns)
    if image.planar:
        planes = codes.reshape(image.samples, image.rows, image.columns)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    return codes.reshape(image.shape)


def _stream(header: Header, image: ImageHeader, index: int) -> bytes:
    """Read a compressed frame."""
    get_frame = import_optional("pydicom.encaps", "dicom").get_frame

    if header.length != _UNDEFINED:
        raise UnreadableError("its pixels are not compressed as its transfer syntax says")
    if image.allocated == 1:
        raise UnreadableError("its pixels are compressed from single bits; that is not supported")
    header.file.seek(header.start)
    file = Limited(header.file, _MAX_STREAM)
    offsets = [
        value(header.dataset, keyword)
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    ]
    extended = tuple(offsets) if all(isinstance(item, bytes) for item in offsets) else None
    stream = get_frame(
        cast(Any, file), index, extended_offsets=cast(Any, extended), number_of_frames=image.frames
    )
    # an item that is longer than what is left of the file gives what is left
    if not stream or file.starved:
        raise UnreadableError(CUT_SHORT)
    return stream
