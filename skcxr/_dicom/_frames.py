"""Streams of compressed pixels -> arrays.

What a stream says of its own size is read first and held against the header of the file, so that
no decoder is asked for more than the file has announced. The decoders are Pillow's for 8-bit JPEG
and those of imagecodecs for the rest: GDCM ends the whole process on damaged JPEG streams, and
pylibjpeg's decoder of JPEG is under the GPL.
"""

from __future__ import annotations

import contextlib
import io
import struct
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from skcxr._optional import import_optional
from skcxr._pillow import MAX_PIXELS, Reader, UnreadableError, quiet_pillow

Array = np.ndarray[Any, Any]

_JPEG = "1.2.840.10008.1.2.4."
RLE = "1.2.840.10008.1.2.5"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = NATIVE[2]
# the decoder, and what the syntax is called
SYNTAXES = {
    _JPEG + "50": ("jpeg8", "JPEG Baseline"),
    _JPEG + "51": ("jpeg8", "JPEG Extended"),
    _JPEG + "57": ("jpeg8", "JPEG Lossless"),
    _JPEG + "70": ("jpeg8", "JPEG Lossless, first-order prediction"),
    _JPEG + "80": ("jpegls", "JPEG-LS Lossless"),
    _JPEG + "81": ("jpegls", "JPEG-LS Near-Lossless"),
    _JPEG + "90": ("jpeg2k", "JPEG 2000 Lossless"),
    _JPEG + "91": ("jpeg2k", "JPEG 2000"),
    _JPEG + "201": ("jpeg2k", "High-Throughput JPEG 2000 Lossless"),
    _JPEG + "202": ("jpeg2k", "High-Throughput JPEG 2000 RPCL Lossless"),
    _JPEG + "203": ("jpeg2k", "High-Throughput JPEG 2000"),
    RLE: ("dicomrle", "RLE Lossless"),
}

CUT_SHORT = "the file ends before the image does; it is cut short"

_SOF = {0xC0: "sequential", 0xC1: "sequential", 0xC3: "lossless", 0xF7: "JPEG-LS"}
_OTHER_SOF = {0xC2, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
# seconds are what is limited: these many pixels take some
_MAX_SAMPLES = {"jpeg2k": 25_000_000, "jpegls": 50_000_000}
_MAX_SCANS = 8
# of JPEG 2000: memory and time grow with the parts that a small stream can announce
_MAX_TILES = 4096
_MAX_BLOCKS = 200_000  # code blocks and precincts
_MAX_PACKETS = 1_000_000


class Stream(NamedTuple):
    """What a compressed stream says of itself."""

    rows: int
    columns: int
    samples: int
    bits: int
    kind: str
    rgb: bool = False  # its components are called R, G and B


def unpacked(stream: bytes, syntax: str, shape: tuple[int, int, int], bits: int) -> Any:
    """Decode a frame.

    Parameters
    ----------
    stream : bytes
        The frame.
    syntax : str
        Its transfer syntax, one of `SYNTAXES`.
    shape : (int, int, int)
        Rows, columns and samples per pixel, as the header has them.
    bits : int
        Bits allocated, as the header has them.

    Returns
    -------
    codes : ndarray of shape (rows, columns) or (rows, columns, 3)
        The pixels.
    photometric : str or None
        "RGB" or "YBR_FULL" where the stream decides it, whatever the header says.

    Raises
    ------
    UnreadableError
        It is damaged, disagrees with the header, or its decoder is missing.
    """
    decoder, name = SYNTAXES[syntax]
    rows, columns, samples = shape
    limit = _MAX_SAMPLES.get(decoder, MAX_PIXELS)
    if rows * columns * samples > limit:
        raise UnreadableError(
            f"{_size(*shape)} are more than the {limit} that are allowed in {name}; scale it down "
            "first"
        )
    if syntax == RLE:
        return _from_rle(stream, name, shape, bits), None
    found = _jpeg_2000(stream) if decoder == "jpeg2k" else _jpeg(stream)
    if (found.rows, found.columns, found.samples) != shape:
        raise UnreadableError(
            f"its header says {_size(*shape)}, its compressed pixels {_size(*found[:3])}"
        )
    if (found.kind == "JPEG-LS") != (decoder == "jpegls"):
        raise UnreadableError(f"its pixels are not in its transfer syntax, {name}")
    if decoder == "jpeg2k":
        _check_parts(stream, found)
    # libjpeg fills what is missing
    if b"\xff\xd9" not in stream[-64:] and decoder == "jpeg8":
        raise UnreadableError(CUT_SHORT)
    if found.kind == "sequential" and found.bits == 8:
        return _from_jpeg(stream, found)
    if decoder == "jpegls":
        stream += b"\xff\xd9\0\0\0\0\0\0"  # CharLS searches for seconds where no end is marked
    decode = getattr(_codecs(name), f"{decoder}_decode")
    # libjpeg is told to leave the components as they are
    options: dict[str, Any] = {}
    if decoder == "jpeg8" and found.samples == 3:
        options = {"colorspace": "RGB", "outcolorspace": "RGB"}
    codes = decode(stream, **options)
    if codes.ndim == 3 and codes.shape[2] == 1:
        codes = codes[..., 0]
    if codes.shape != (shape if shape[2] > 1 else shape[:2]) or codes.dtype.kind not in "ui":
        raise UnreadableError("its compressed pixels are not of the size that they announce")
    return codes, "RGB" if found.rgb or decoder == "jpeg2k" else None


def _codecs(name: str) -> Any:
    with contextlib.suppress(ImportError):
        return import_optional("imagecodecs", "dicom")
    raise UnreadableError(
        f"its transfer syntax, {name}, needs imagecodecs, which is not installed; install it "
        'with: pip install "skcxr[dicom]"'
    )


def _size(rows: int, columns: int, samples: int) -> str:
    return f"{columns} x {rows} pixels of {samples} sample{'s' if samples > 1 else ''}"


def _from_rle(stream: bytes, name: str, shape: tuple[int, int, int], bits: int) -> Array:
    rows, columns, samples = shape
    n_segments = samples * bits // 8
    if len(stream) < 64 or struct.unpack("<L", stream[:4])[0] != n_segments:
        raise UnreadableError(f"its RLE pixels do not have {n_segments} segments as they should")
    starts = struct.unpack(f"<{n_segments}L", stream[4 : 4 + 4 * n_segments])
    ends = (*starts[1:], len(stream))
    # PackBits makes at most 64 bytes of each
    if any(not 64 <= a < b <= len(stream) for a, b in zip(starts, ends, strict=True)) or any(
        64 * (b - a) < rows * columns for a, b in zip(starts, ends, strict=True)
    ):
        raise UnreadableError("its RLE pixels are damaged")
    decode = _codecs(name).packbits_decode
    planes = np.empty((n_segments, rows * columns), np.uint8)
    for plane, start, end in zip(planes, starts, ends, strict=True):
        decoded = decode(stream[start:end], out=rows * columns)
        if len(decoded) < rows * columns:
            raise UnreadableError(CUT_SHORT)
        plane[:] = np.frombuffer(decoded, np.uint8, rows * columns)
    # the segments of a sample run from its highest byte to its lowest
    size = bits // 8
    codes = planes.reshape(samples, size, rows, columns).transpose(2, 3, 0, 1)
    codes = np.ascontiguousarray(codes).view(f">u{size}")[..., 0].astype(f"=u{size}")
    return codes if samples > 1 else codes[..., 0]


def _from_jpeg(stream: bytes, found: Stream) -> tuple[Array, str | None]:
    """Decode 8-bit JPEG; colours stay what they are in the stream."""
    file = Reader(cast(Any, io.BytesIO(stream)))
    with quiet_pillow(), file, JpegImageFile(file) as image:
        if image.size != (found.columns, found.rows) or image.mode not in ("L", "RGB"):
            raise UnreadableError("its compressed pixels are not what they announce")
        photometric = None
        if "adobe_transform" in image.info or found.rgb:
            photometric = "RGB"
        elif image.mode == "RGB":
            image.draft("YCbCr", image.size)
            photometric = "YBR_FULL" if "jfif" in image.info else None
        image.load()
        if file.ended and ImageFile.LOAD_TRUNCATED_IMAGES:
            raise UnreadableError(CUT_SHORT)
        return np.array(image), photometric


def _jpeg(stream: bytes) -> Stream:
    """Read the frame header of JPEG and JPEG-LS."""
    damaged = UnreadableError("its compressed pixels are no JPEG stream, or a damaged one")
    if stream[:2] != b"\xff\xd8" or stream.count(b"\xff\xda") > _MAX_SCANS:
        raise damaged
    at = 2
    while at + 4 <= len(stream):
        marker = stream[at + 1]
        if stream[at] != 0xFF:
            raise damaged
        if marker == 0xFF:  # fill
            at += 1
            continue
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker in _OTHER_SOF:
            raise UnreadableError("its compressed pixels are JPEG of a kind that DICOM retired")
        if marker in _SOF:
            head = stream[at + 4 : at + 2 + length]
            if len(head) < 6 or len(head) < 6 + 3 * head[5]:
                raise damaged
            bits, rows, columns, samples = struct.unpack(">BHHB", head[:6])
            ids = bytes(head[6 + 3 * i] for i in range(samples))
            rgb = ids in (b"RGB", b"rgb")
            return Stream(rows, columns, samples, bits, _SOF[marker], rgb)
        if length < 2 or marker == 0xDA:
            raise damaged
        at += 2 + length
    raise damaged


def _jpeg_2000(stream: bytes) -> Stream:
    """Read the size of a JPEG 2000 codestream."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 4096)  # some wrap it as a JP2 file
    head = stream[start + 4 : start + 42]
    if start < 0 or len(head) < 38:
        raise UnreadableError("its compressed pixels are no JPEG 2000 stream, or a damaged one")
    numbers = struct.unpack(">HH8LH", head)
    width, height, left, top, tile_width, tile_height = numbers[2:8]
    samples = numbers[10]
    components = stream[start + 42 : start + 42 + 3 * samples]
    if len(components) < 3 * samples or not samples or not tile_width or not tile_height:
        raise UnreadableError("its compressed pixels are a damaged JPEG 2000 stream")
    if any(n != 1 for i, n in enumerate(components) if i % 3) or left or top:
        raise UnreadableError("its JPEG 2000 components are of different sizes")
    bits = (components[0] & 0x7F) + 1
    return Stream(height, width, samples, bits, "JPEG 2000")


def _check_parts(stream: bytes, found: Stream) -> None:
    """Refuse a JPEG 2000 codestream of more parts than an image of its size needs."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    tile_width, tile_height = struct.unpack(">2L", stream[start + 24 : start + 32])
    tile = min(tile_width, found.columns), min(tile_height, found.rows)
    n_tiles = -(-found.columns // tile[0]) * -(-found.rows // tile[1])
    layers = n_precincts = 1
    area = 1 << 12
    for flags, style in _styles(stream, start + 2):
        if flags is not None:
            layers = max(layers, int.from_bytes(flags[2:4], "big"))
        levels = style[1]
        sizes = style[6:] if style[0] & 1 else bytes([0xFF] * (levels + 1))
        area = min(area, 1 << ((style[2] & 15) + (style[3] & 15) + 4))
        count = 0
        for level, byte in enumerate(sizes[: levels + 1]):
            width, height = (-(-side >> (levels - level)) for side in tile)
            count += -(-width >> (byte & 15)) * -(-height >> (byte >> 4))
        n_precincts = max(n_precincts, count)
    n_precincts *= n_tiles * found.samples
    n_blocks = found.rows * found.columns * found.samples // area + n_precincts
    if n_tiles > _MAX_TILES or n_blocks > _MAX_BLOCKS or n_precincts * layers > _MAX_PACKETS:
        raise UnreadableError("its JPEG 2000 stream is cut into more parts than any film needs")


def _styles(stream: bytes, at: int) -> list[tuple[bytes | None, bytes]]:
    """The coding styles of a JPEG 2000 codestream: those of the whole, of components, of tiles."""
    damaged = UnreadableError("its compressed pixels are a damaged JPEG 2000 stream")
    styles: list[tuple[bytes | None, bytes]] = []

    def walk(at: int, last: bytes) -> int:
        while stream[at : at + 2] != last:
            marker, length = stream[at : at + 2], int.from_bytes(stream[at + 2 : at + 4], "big")
            segment = stream[at + 4 : at + 2 + length]
            if length < 2 or marker[:1] != b"\xff" or marker == b"\xff\x5f":
                raise damaged  # or in another order, which no film needs
            if marker == b"\xff\x52":
                styles.append((segment, segment[:1] + segment[5:]))
            elif marker == b"\xff\x53":
                styles.append((None, segment[1:]))
            if marker in (b"\xff\x52", b"\xff\x53"):
                style = styles[-1][1]
                if (
                    len(style) < 6
                    or style[1] > 32
                    or len(style) < 6 + (style[0] & 1) * (style[1] + 1)
                ):
                    raise damaged
            at += 2 + length
        return at

    at = walk(at, b"\xff\x90")  # the first tile
    while stream[at : at + 2] == b"\xff\x90":
        size = int.from_bytes(stream[at + 6 : at + 10], "big")
        walk(at + 12, b"\xff\x93")  # its data
        at = at + size if size >= 14 else len(stream)
    if not styles:
        raise damaged
    return styles
