"""Read images that were mutated in every way that their formats allow: `skcxr.read_image`.

    python tests/fuzz/fuzz_images.py --mutations 200000 --seed 0

A third of the mutations are of bytes. The others know the format: chunks of PNG and WebP with
lengths and checksums made right again, segments of JPEG, tags of TIFF, headers of BMP, elements
of DICOM.
"""

from __future__ import annotations

import io
import os
import random
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from harness import EDGES, Target, main, mutate_bytes
from PIL import Image

SIZES: list[Any] = [None, None, 1, 16, (7, 31), (64, 48)]
MODES = ["stretch", "pad", "crop"]


# --------------------------------------------------------------------------------------------
# seeds
# --------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def make_seeds(folder: Path | None = None) -> dict[str, bytes]:
    """A small file of every kind and variant."""
    rows, columns = np.mgrid[:24, :36]
    gray = Image.fromarray((columns * 6 + rows).astype(np.uint8))
    deep = Image.fromarray((columns * 1800 + rows * 13).astype(np.uint16))
    floats = Image.fromarray((columns / 36).astype(np.float32))
    rgb = Image.merge("RGB", [gray, gray.transpose(Image.Transpose.ROTATE_180), gray])
    rgba = rgb.convert("RGBA")
    rgba.putalpha(gray)
    exif = Image.Exif()
    exif[274] = 6
    exif[270] = "a film"
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    seeds = {
        "png-gray": encoded(gray, "PNG", exif=exif),
        "png-deep": encoded(deep, "PNG"),
        "png-palette": encoded(rgb.quantize(32), "PNG", transparency=3),
        "png-alpha": encoded(rgba, "PNG", icc_profile=b"profile" * 20),
        "png-bits": encoded(gray.convert("1"), "PNG"),
        "png-interlaced": interlaced(np.asarray(gray)),
        "png-animated": encoded(rgb, "PNG", **frames),
        "jpeg-gray": encoded(gray, "JPEG", exif=exif),
        "jpeg-rgb": encoded(rgb, "JPEG", exif=exif, icc_profile=b"profile" * 20),
        "jpeg-progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg-cmyk": encoded(rgb.convert("CMYK"), "JPEG", restart_marker_rows=1),
        "jpeg-mpo": encoded(rgb, "MPO", **frames),
        "tiff-gray": encoded(gray, "TIFF", exif=exif),
        "tiff-deep": encoded(deep, "TIFF"),
        "tiff-float": encoded(floats, "TIFF", compression="tiff_lzw"),
        "tiff-lzw": encoded(rgb, "TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
        "tiff-deflate": encoded(deep, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-jpeg": encoded(rgb, "TIFF", compression="jpeg"),
        "tiff-packbits": encoded(rgba, "TIFF", compression="packbits"),
        "tiff-group4": encoded(gray.convert("1"), "TIFF", compression="group4"),
        "tiff-group3": encoded(gray.convert("1"), "TIFF", compression="group3"),
        "tiff-pages": encoded(rgb.copy(), "TIFF", save_all=True, append_images=[gray.copy()]),
        "tiff-tiled": tiled(np.asarray(gray)),
        "tiff-big": encoded(deep, "TIFF", big_tiff=True),
        "bmp-rgb": encoded(rgb, "BMP"),
        "bmp-gray": encoded(gray, "BMP"),
        "bmp-bits": encoded(gray.convert("1"), "BMP"),
        "bmp-rle": rle_bmp(np.asarray(gray)),
        "webp-lossy": encoded(rgb, "WEBP", exif=exif),
        "webp-lossless": encoded(rgba, "WEBP", lossless=True, icc_profile=b"profile" * 20),
        "webp-animated": encoded(rgb, "WEBP", **frames),
    }
    for compression in ("zstd", "lzma", "LERC"):
        try:
            seeds[f"tiff-{compression}"] = encoded(rgb, "TIFF", compression=compression)
        except (KeyError, OSError, RuntimeError, ValueError):
            continue  # libtiff was built without it
    return {**seeds, **dicom_seeds(np.asarray(deep))}


def chunk(name: bytes, data: bytes) -> bytes:
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def interlaced(array: np.ndarray) -> bytes:
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1)]  # fmt: skip
    parts = [array[top::down, left::across] for top, left, down, across in passes]
    data = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    )


def tiff(entries: list[tuple[int, int, int, int]], data: bytes) -> bytes:
    """A little-endian TIFF of one directory behind `data`, which lies at 8."""
    start = 8 + len(data)
    ifd = struct.pack("<H", len(entries))
    ifd += b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<I", start) + data + ifd + b"\0\0\0\0"


def tiled(array: np.ndarray) -> bytes:
    padded = np.pad(array, ((0, -array.shape[0] % 16), (0, -array.shape[1] % 16)))
    tiles = [
        padded[top : top + 16, left : left + 16].tobytes()
        for top in range(0, padded.shape[0], 16)
        for left in range(0, padded.shape[1], 16)
    ]
    n = len(tiles)
    offsets = [8 + 8 * n + 256 * k for k in range(n)]
    data = struct.pack(f"<{n}I", *offsets) + struct.pack(f"<{n}I", *[256] * n) + b"".join(tiles)
    return tiff(
        [(256, 4, 1, array.shape[1]), (257, 4, 1, array.shape[0]), (258, 3, 1, 8), (259, 3, 1, 1),
         (262, 3, 1, 1), (277, 3, 1, 1), (322, 3, 1, 16), (323, 3, 1, 16), (324, 4, n, 8),
         (325, 4, n, 8 + 4 * n)],
        data,
    )  # fmt: skip


def rle_bmp(array: np.ndarray) -> bytes:
    body = b""
    for row in array[::-1]:
        half = len(row) // 2
        body += b"\0" + bytes([half]) + row[:half].tobytes() + b"\0" * (half % 2)
        body += b"".join(b"\1" + bytes([value]) for value in row[half:]) + b"\0\0"
    body += b"\0\1"
    palette = b"".join(bytes([k, k, k, 0]) for k in range(256))
    height, width = array.shape
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    offset = 14 + 40 + 1024
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + palette + body


def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
    value += (b"\0" if kind in (b"UI", b"OB", b"OW") else b" ") * (len(value) % 2)
    head = struct.pack("<HH", group, number) + kind
    if kind in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def dicom(pixels: bytes, shape: tuple[int, int], bits: int, syntax: bytes, *more: bytes) -> bytes:
    """A DICOM file written by hand, so that it needs no library."""
    meta = element(2, 0x10, b"UI", syntax) + element(2, 2, b"UI", b"1.2.840.10008.5.1.4.1.1.1.1")
    meta = element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta

    def number(n: int) -> bytes:
        return struct.pack("<H", n)

    parts = [
        element(8, 0x60, b"CS", b"DX"),
        element(0x10, 0x10, b"PN", b"Nobody^At All"),
        element(0x28, 2, b"US", number(1)),
        element(0x28, 4, b"CS", b"MONOCHROME1"),
        element(0x28, 0x10, b"US", number(shape[0])),
        element(0x28, 0x11, b"US", number(shape[1])),
        element(0x28, 0x100, b"US", number(16 if bits > 8 else 8)),
        element(0x28, 0x101, b"US", number(bits)),
        element(0x28, 0x102, b"US", number(bits - 1)),
        element(0x28, 0x103, b"US", number(0)),
        element(0x28, 0x1050, b"DS", b"2000\\1000"),
        element(0x28, 0x1051, b"DS", b"3000\\500"),
        element(0x28, 0x1052, b"DS", b"-10"),
        element(0x28, 0x1053, b"DS", b"1.5"),
        *more,
    ]
    if pixels.startswith(b"\xfe\xff"):  # encapsulated: of undefined length
        last = struct.pack("<HH", 0x7FE0, 0x10) + b"OB\0\0\xff\xff\xff\xff" + pixels
    else:
        last = element(0x7FE0, 0x10, b"OW", pixels)
    return b"\0" * 128 + b"DICM" + meta + b"".join(parts) + last


def encapsulated(frame: bytes) -> bytes:
    frame += b"\0" * (len(frame) % 2)
    item, end = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
    return (
        item + struct.pack("<I", 0) + item + struct.pack("<I", len(frame)) + frame + end + b"\0" * 4
    )


def dicom_seeds(deep: np.ndarray) -> dict[str, bytes]:
    gray = (deep >> 8).astype(np.uint8)
    shape = deep.shape
    twelve = (deep >> 4).astype("<u2").tobytes()
    jpeg = encoded(Image.fromarray(gray), "JPEG")
    j2k = encoded(Image.fromarray(gray), "JPEG2000", no_jp2=True)
    table = element(0x28, 0x3002, b"US", struct.pack("<HHH", 256, 0, 8))
    table += element(0x28, 0x3006, b"OW", np.arange(256, dtype="<u2").tobytes())
    lut = element(0x28, 0x3010, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table)
    frames = element(0x28, 8, b"IS", b"2")
    rle = struct.pack("<16I", 1, 64, *[0] * 14) + b"".join(
        bytes([len(row) - 1]) + row.tobytes() for row in gray
    )
    explicit = b"1.2.840.10008.1.2.1"
    compressed = b"1.2.840.10008.1.2.4."
    return {
        "dicom-deep": dicom(twelve, shape, 12, explicit),
        "dicom-gray": dicom(gray.tobytes(), shape, 8, explicit, lut),
        "dicom-frames": dicom(gray.tobytes() * 2, shape, 8, explicit, frames),
        "dicom-headless": dicom(twelve, shape, 12, explicit)[132:],
        "dicom-rle": dicom(encapsulated(rle), shape, 8, b"1.2.840.10008.1.2.5"),
        "dicom-jpeg": dicom(encapsulated(jpeg), shape, 8, compressed + b"50"),
        "dicom-j2k": dicom(encapsulated(j2k), shape, 8, compressed + b"90"),
        "dicom-deflated": deflated(dicom(twelve, shape, 12, b"1.2.840.10008.1.2.1.99")),
    }


def deflated(data: bytes) -> bytes:
    length = 132 + 12 + struct.unpack_from("<I", data, 140)[0]
    packer = zlib.compressobj(wbits=-15)
    return data[:length] + packer.compress(data[length:]) + packer.flush()


# --------------------------------------------------------------------------------------------
# mutations that know the format
# --------------------------------------------------------------------------------------------


def _edit(parts: list[Any], rng: random.Random) -> None:
    """Take out, repeat, move or swap one of a list."""
    at = rng.randrange(len(parts))
    how = rng.randrange(4)
    if how == 0 and len(parts) > 1:
        del parts[at]
    elif how == 1:
        parts[at:at] = [parts[at]] * rng.choice([1, 1, 2, 300])
    elif how == 2:
        parts.insert(rng.randrange(len(parts)), parts.pop(at))
    else:
        other = rng.randrange(len(parts))
        parts[at], parts[other] = parts[other], parts[at]


def mutate_png(data: bytes, rng: random.Random) -> bytes:
    parts, at = [], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        parts.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    if not parts:
        return mutate_bytes(data, rng)
    for _ in range(rng.choice([1, 1, 2])):
        how = rng.randrange(7)
        part = rng.choice(parts)
        if how == 0:
            _edit(parts, rng)
        elif how == 1:
            part[1] = mutate_bytes(part[1], rng)
        elif how == 2 and parts[0][0] == b"IHDR":
            values = list(struct.unpack(">IIBBBBB", parts[0][1][:13].ljust(13, b"\0")))
            k = rng.randrange(7)
            values[k] = rng.choice([*EDGES, 4, 6, 12, 24, 36]) % (2**32 if k < 2 else 256)
            parts[0] = [b"IHDR", struct.pack(">IIBBBBB", *values)]
        elif how == 3:
            name = rng.choice(
                [
                    b"tEXt",
                    b"zTXt",
                    b"iTXt",
                    b"iCCP",
                    b"eXIf",
                    b"tRNS",
                    b"PLTE",
                    b"acTL",
                    b"fcTL",
                    b"fdAT",
                    b"gAMA",
                    b"pHYs",
                    b"sRGB",
                    b"cHRM",
                    b"abcd",
                ]
            )
            body = rng.choice(
                [
                    b"",
                    rng.randbytes(rng.choice([1, 4, 26, 100])),
                    b"k\0\0" + zlib.compress(b"\0" * rng.choice([10, 2_000_000])),
                ]
            )
            parts.insert(rng.randrange(len(parts) + 1), [name, body])
        elif how == 4:
            for each in parts:
                if each[0] == b"IDAT":
                    try:
                        raw = zlib.decompress(each[1])
                    except zlib.error:
                        continue
                    each[1] = zlib.compress(mutate_bytes(raw, rng), rng.choice([0, 1, 9]))
        elif how == 5 and part[1]:
            cut = rng.randrange(len(part[1]))
            where = next(k for k, each in enumerate(parts) if each is part)
            parts[where : where + 1] = [[part[0], part[1][:cut]], [part[0], part[1][cut:]]]
        else:
            part[0] = rng.choice([p[0] for p in parts] + [rng.randbytes(4)])
    out = data[:8] + b"".join(chunk(name, body) for name, body in parts)
    return out if rng.random() < 0.9 else out[: rng.randrange(len(out) + 1)]


def mutate_jpeg(data: bytes, rng: random.Random) -> bytes:
    parts, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        if data[at + 1] == 0xDA:
            while end < len(data) and not (
                data[end] == 0xFF and data[end + 1 : end + 2] not in (b"\0", *RESTARTS)
            ):
                end += 1
        parts.append([data[at : at + 4], data[at + 4 : end]])
        at = end
    tail = data[at:]
    if not parts:
        return mutate_bytes(data, rng)
    for _ in range(rng.choice([1, 1, 2])):
        how = rng.randrange(6)
        part = rng.choice(parts)
        if how == 0:
            _edit(parts, rng)
        elif how == 1:
            part[1] = mutate_bytes(part[1], rng)
        elif how == 2:
            length = rng.choice(EDGES) % 65536
            part[0] = part[0][:2] + struct.pack(">H", length)
        elif how == 3:
            part[0] = b"\xff" + bytes([rng.choice([*range(0xC0, 0xFF), 0, 1])]) + part[0][2:]
        elif how == 4:
            frame = [p for p in parts if 0xC0 <= p[0][1] <= 0xCF and p[0][1] not in (0xC4, 0xC8)]
            if frame:
                body = bytearray(frame[0][1])
                k = rng.randrange(len(body)) if body else 0
                if k < 5 and len(body) > 5:
                    struct.pack_into(">H", body, rng.choice([1, 3]), rng.choice(EDGES) % 65536)
                elif body:
                    body[k] = rng.choice([0, 1, 2, 3, 4, 17, 34, 255])
                frame[0][1] = bytes(body)
        else:
            body = rng.choice(
                [b"Exif\0\0", b"JFIF\0", b"Adobe\0", b"ICC_PROFILE\0\1\2", b"MPF\0", b""]
            )
            body += rng.randbytes(rng.choice([0, 2, 12, 80]))
            marker = b"\xff" + bytes([rng.choice([0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDD, 0xCC])])
            parts.insert(
                rng.randrange(len(parts)), [marker + struct.pack(">H", len(body) + 2), body]
            )
    return data[:2] + b"".join(head + body for head, body in parts) + tail


RESTARTS = tuple(bytes([k]) for k in range(0xD0, 0xD8))


def mutate_tiff(data: bytes, rng: random.Random) -> bytes:
    """Change tags of the first directory of a classic TIFF."""
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 10 or data[2:4] not in (b"*\0", b"\0*"):
        return mutate_bytes(data, rng)
    start = struct.unpack_from(f"{order}I", data, 4)[0]
    if start + 2 > len(data):
        return mutate_bytes(data, rng)
    n = struct.unpack_from(f"{order}H", data, start)[0]
    tags = [
        list(struct.unpack_from(f"{order}HHII", data, start + 2 + 12 * k))
        for k in range(n)
        if start + 14 + 12 * k <= len(data)
    ]
    if not tags:
        return mutate_bytes(data, rng)
    following = 0
    for _ in range(rng.choice([1, 1, 2, 3])):
        how = rng.randrange(7)
        tag = rng.choice(tags)
        if how == 0:
            _edit(tags, rng)
            tags = [list(each) for each in tags[:2000]]
        elif how == 1:
            tag[0] = rng.choice([each[0] for each in tags] + TAGS)
        elif how == 2:
            tag[1] = rng.randrange(0, 20)
        elif how == 3:
            tag[2] = rng.choice(EDGES) % 2**32
        elif how == 4:
            tag[3] = rng.choice([*EDGES, start, len(data), 8]) % 2**32
        elif how == 5:
            following = rng.choice([start, 8, len(data), 2**32 - 1])
        else:
            tags.append([rng.choice(TAGS), rng.choice([1, 2, 3, 4, 5, 7, 12, 16]),
                         rng.choice([1, 1, 2, 4, 1000]), rng.choice(EDGES) % 2**32])  # fmt: skip
    if rng.random() < 0.8:
        tags.sort(key=lambda each: each[0])
    packed = struct.pack(f"{order}H", len(tags) % 65536)
    packed += b"".join(struct.pack(f"{order}HHII", *each) for each in tags)
    packed += struct.pack(f"{order}I", following)
    return data[:4] + struct.pack(f"{order}I", len(data)) + data[8:] + packed


TAGS = [254, 255, 256, 257, 258, 259, 262, 266, 269, 270, 273, 274, 277, 278, 279, 282, 284, 292,
        293, 317, 320, 322, 323, 324, 325, 330, 338, 339, 340, 347, 512, 513, 514, 529, 530, 531,
        532, 700, 33723, 34377, 34665, 34675, 34853, 50674, 65000]  # fmt: skip


def mutate_bmp(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data.ljust(54, b"\0"))
    at, width = rng.choice([(2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4),
                            (34, 4), (46, 4), (50, 4)])  # fmt: skip
    value = rng.choice([*EDGES, 4, 24, 32, 40, 108, 124, 12, 36]) % 256**width
    out[at : at + width] = value.to_bytes(width, "little")
    return bytes(out) if rng.random() < 0.6 else mutate_bytes(bytes(out), rng)


def mutate_webp(data: bytes, rng: random.Random) -> bytes:
    parts, at = [], 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        parts.append([data[at : at + 4], data[at + 8 : at + 8 + length]])
        at += 8 + length + length % 2
    if not parts:
        return mutate_bytes(data, rng)
    for _ in range(rng.choice([1, 1, 2])):
        how = rng.randrange(4)
        part = rng.choice(parts)
        if how == 0:
            _edit(parts, rng)
        elif how == 1:
            part[1] = mutate_bytes(part[1], rng)
        elif how == 2:
            part[0] = rng.choice([b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"EXIF",
                                  b"ICCP", b"XMP "])  # fmt: skip
        else:
            head = bytearray(part[1][:12].ljust(12, b"\0"))
            at = rng.randrange(12)
            head[at] = rng.choice([0, 1, 2, 127, 255])
            part[1] = bytes(head) + part[1][12:]
    body = b"".join(
        name + struct.pack("<I", len(each)) + each + b"\0" * (len(each) % 2) for name, each in parts
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def mutate_dicom(data: bytes, rng: random.Random) -> bytes:
    """Change elements of explicit VR, found by a walk."""
    at = 132 if data[128:132] == b"DICM" else 0
    start, parts = at, []
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 6]
        wide = kind in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        head = 12 if wide else 8
        if not kind.isalpha() or at + head > len(data):
            break
        length = struct.unpack_from("<I" if wide else "<H", data, at + head - (4 if wide else 2))[0]
        end = len(data) if length == 2**32 - 1 else at + head + length
        parts.append([data[at : at + head], data[at + head : end]])
        at = end
    rest = data[at:]
    if not parts:
        return mutate_bytes(data, rng)
    for _ in range(rng.choice([1, 1, 2, 3])):
        part = rng.choice(parts)
        how = rng.randrange(8)
        if how == 0:
            _edit(parts, rng)
            parts = [list(each) for each in parts]
        elif how == 1:
            part[1] = mutate_bytes(part[1], rng)
        elif how == 2:
            head = bytearray(part[0])
            head[4:6] = rng.choice(
                [b"US", b"DS", b"UI", b"PN", b"SQ", b"OW", b"UN", b"zz", b"FD", b"AT"]
            )
            part[0] = bytes(head)
        elif how == 3:
            width = rng.choice([2, 4]) if len(part[0]) == 12 else 2
            part[0] = part[0][:-width] + (rng.choice(EDGES) % 256**width).to_bytes(width, "little")
        elif how == 4 and part[0][4:6] == b"US":
            part[1] = struct.pack("<H", rng.choice([*EDGES, 3, 12, 24]) % 65536)
        elif how == 5 and part[0][4:6] in (b"DS", b"IS"):
            part[1] = rng.choice(
                [
                    b"",
                    b"nan ",
                    b"inf ",
                    b"1e400 ",
                    b"-1",
                    b"0 ",
                    b"x ",
                    b"1e-320",
                    b"9" * 16,
                    b"\\\\",
                    b"2\\",
                    b"-0",
                ]
            )
        elif how == 6 and part[0][:4] == b"\2\0\x10\0":
            part[1] = (
                b"1.2.840.10008.1.2"
                + rng.choice(
                    [
                        b"",
                        b".1",
                        b".2",
                        b".5",
                        b".1.99",
                        b".4.50",
                        b".4.51",
                        b".4.57",
                        b".4.70",
                        b".4.80",
                        b".4.90",
                        b".4.91",
                        b".4.100",
                        b".4.201",
                        b".9",
                    ]
                )
            ).ljust(24, b"\0")[:24]
        else:
            part[0] = (
                struct.pack(
                    "<HH",
                    rng.choice([2, 8, 0x10, 0x28, 0x7FE0, 0x6000, 0xFFFE, 0x2050]),
                    rng.choice([0, 2, 4, 8, 0x10, 0x11, 0x20, 0x100, 0x120, 0xE000, 0x3010]),
                )
                + part[0][4:]
            )
        if len(part[0]) in (8, 12) and rng.random() < 0.8 and how != 3:
            wide = len(part[0]) == 12
            limit = 2**32 if wide else 2**16
            if not (wide and part[0][-4:] == b"\xff" * 4):
                packed = (len(part[1]) % limit).to_bytes(4 if wide else 2, "little")
                part[0] = part[0][: -len(packed)] + packed
    return data[:start] + b"".join(head + body for head, body in parts) + rest


MUTATE = {"png": mutate_png, "jpeg": mutate_jpeg, "tiff": mutate_tiff, "bmp": mutate_bmp,
          "webp": mutate_webp, "dicom": mutate_dicom}  # fmt: skip


def mutate(seeds: dict[str, bytes], rng: random.Random) -> tuple[str, bytes]:
    """The format, and a file of it that is damaged or forged."""
    name = rng.choice([*seeds])
    data, kind = seeds[name], name.partition("-")[0]
    if kind == "corpus":  # of atheris: what it is, its first bytes tell
        kind = next((k for k, seed in seeds.items() if seed[:4] == data[:4]), "png").partition("-")[
            0
        ]
    if kind not in MUTATE or rng.random() < 0.35:
        return kind, mutate_bytes(data, rng, [*seeds.values()])
    out = data
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        try:
            out = MUTATE[kind](out, rng)
        except (struct.error, IndexError, ValueError):  # beyond what the mutation can follow
            out = mutate_bytes(out, rng)
    return kind, out[:4_000_000]


# --------------------------------------------------------------------------------------------
# the entry
# --------------------------------------------------------------------------------------------


def run(data: bytes, folder: Path) -> str:
    from skcxr.images import read_image, sniff

    path = folder / "film"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    choice = zlib.crc32(data)
    sniff(path)
    size, mode = SIZES[choice % 6], MODES[choice // 6 % 3]
    image = read_image(path, size=size, resize_mode=mode)
    shape = (size, size) if isinstance(size, int) else size
    if (
        image.ndim != 2
        or image.dtype != np.float32
        or (shape is not None and image.shape != shape)
        or not image.size
        or not (image.min() >= 0 and image.max() <= 1)
    ):
        raise AssertionError(f"an image of {image.shape} {image.dtype} {image.min()} {image.max()}")
    return "read"


TARGET = Target("fuzz_images", make_seeds, mutate, run)

if __name__ == "__main__":
    sys.exit(main(TARGET))
