"""The header of a DICOM file, as far as its pixels need it."""

from __future__ import annotations

import contextlib
import importlib
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from PIL import Image

from skcxr._dicom._frames import BIG_ENDIAN, DEFLATED, NATIVE, SYNTAXES
from skcxr._optional import import_optional
from skcxr._pillow import MAX_PIXELS, UnreadableError
from skcxr._quiet import quiet

__all__ = ["Header", "ImageHeader", "guarded", "integer", "looks_like_dicom", "value"]

_PIXELS = {0x7FE00008: "float", 0x7FE00009: "double", 0x7FE00010: "integer"}
_DICOMDIR = "1.2.840.10008.1.3.10"
TAGS = [
    0x00080016, 0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011,
    0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120, 0x00280121, 0x00281050,
    0x00281051, 0x00281052, 0x00281053, 0x00281056, 0x00281101, 0x00281102, 0x00281103,
    0x00281201, 0x00281202, 0x00281203, 0x00281221, 0x00281222, 0x00281223, 0x00283000,
    0x00283010, 0x20500020, 0x52009229, 0x52009230, 0x7FE00001, 0x7FE00002,
]  # fmt: skip
PATIENT_TAGS = [0x00100020, 0x00100021]

_MAX_HEADER = 64 << 20  # bytes
_MAX_READS = 100_000  # two or three for each element; a film has hundreds of elements
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR"
    b" US UT UV".split()
)
_DAMAGED = "it is a damaged DICOM file, or one of a variant that cannot be read"
MISSING = 'it is a DICOM file; install what reads it with: pip install "skcxr[dicom]"'


@dataclass
class Header:
    """What was read of a file, and where its pixels are."""

    dataset: Any
    kind: str  # the SOP class
    file: Any  # the file, or what was inflated from it
    syntax: str
    pixels: str  # "float", "double", "integer", or "" where there are none
    vr: str | None
    start: int
    length: int


@dataclass
class ImageHeader:
    """What a header says of the image."""

    dataset: Any
    little_endian: bool
    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool
    frames: int
    photometric: str
    planar: bool
    pixels: str

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.rows, self.columns, self.samples


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file begins like DICOM: by its mark, or without preamble with group 2 or 8."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    if head[:2] in (b"\2\0", b"\x08\0"):
        order = "little"
    elif head[:3] == b"\0\x08\0":
        order = "big"
    else:
        return False
    element = int.from_bytes(head[2:4], cast(Any, order))
    if element > 0x0070:
        return False
    if head[4:6] in _VRS:
        length = int.from_bytes(head[6:8], cast(Any, order))
        return length <= 256 and (length % 2 == 0)
    return order == "little" and int.from_bytes(head[4:8], "little") <= 128 and element <= 0x0018


def guarded(work: Callable[[], Any]) -> Any:
    """Run with nothing of pydicom's coming out: no warning, no log record, no exception."""
    try:
        # not pydicom.pixels, which imports every decoder that it finds
        import_optional("pydicom", "dicom")
        importlib.import_module("pydicom.filereader")
        importlib.import_module("pydicom.encaps")
    except Exception:  # an installation that is broken raises anything
        missing = True
    else:
        missing = False
    if missing:
        raise UnreadableError(MISSING)
    reason = _DAMAGED
    # what pydicom and the decoders warn of and log quotes the header
    with quiet(r"(pydicom|imagecodecs|skcxr\._dicom)\b", "pydicom", "imagecodecs"):
        try:
            return work()
        except UnreadableError as error:
            reason = str(error)
        except MemoryError:
            reason = "there is not enough memory to decode it"
        except RecursionError:
            reason = "its sequences are nested too deeply"
        except Exception:  # any builtin, with values of the header in its words
            pass
    raise UnreadableError(reason)  # here, so that no exception hangs on it


class Limited:
    """A file that hands out no more than a header can need."""

    def __init__(self, file: Any, n_bytes: int, n_reads: int = _MAX_READS) -> None:
        self.file, self.n_bytes, self.n_reads = file, n_bytes, n_reads
        here = file.tell()
        self.end = file.seek(0, io.SEEK_END)
        file.seek(here)
        self.tell = file.tell
        self.starved = False  # whether more was asked for than there is

    def read(self, size: int | None = -1) -> bytes:
        left = self.end - self.tell()
        self.starved |= size is not None and size > max(left, 8)
        size = max(0, left if size is None or size < 0 else min(size, left))
        self.n_bytes -= size
        self.n_reads -= 1
        if self.n_bytes < 0 or self.n_reads < 0:
            raise UnreadableError("it has a larger header, or more parts, than any film needs")
        return cast(bytes, self.file.read(size))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return cast(int, self.file.seek(offset, whence))


def read_header(file: Any, tags: list[int]) -> Header:
    """Read the elements in `tags` up to the pixels."""
    read_dataset = import_optional("pydicom.filereader", "dicom").read_dataset

    file.seek(128)
    if file.read(4) != b"DICM":
        file.seek(0)
    limited = Limited(file, _MAX_HEADER)
    meta = read_dataset(
        cast(Any, limited), is_implicit_VR=False, is_little_endian=True,
        stop_when=lambda tag, vr, length: tag >> 16 != 2,
        specific_tags=cast(Any, [0x00020002, 0x00020010]),
    )  # fmt: skip
    syntax = str(value(meta, "TransferSyntaxUID") or "") or _guess(limited)
    if syntax == DEFLATED:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS)
        most = _MAX_HEADER + 2 * MAX_PIXELS
        content = inflated.decompress(file.read(), most)
        if inflated.unconsumed_tail:
            raise UnreadableError(f"its deflated content is larger than {most} bytes")
        file = io.BytesIO(content)
        limited = Limited(file, _MAX_HEADER)
        syntax = NATIVE[1]
    if syntax not in NATIVE and syntax not in SYNTAXES:
        raise UnreadableError("it is a DICOM file in a transfer syntax that is not supported")

    found: list[Any] = []

    def at_pixels(tag: Any, vr: str | None, length: int) -> bool:
        if tag in _PIXELS:
            found[:] = _PIXELS[tag], vr, file.tell(), length
        return bool(found)

    dataset = read_dataset(
        cast(Any, limited), is_implicit_VR=syntax == NATIVE[0],
        is_little_endian=syntax != BIG_ENDIAN, stop_when=at_pixels, specific_tags=cast(Any, tags),
    )  # fmt: skip
    pixels, vr, start, length = found or ("", None, 0, 0)
    kind = str(value(dataset, "SOPClassUID") or value(meta, "MediaStorageSOPClassUID") or "")
    return Header(dataset, kind, file, syntax, pixels, vr, start, length)


def _guess(limited: Limited) -> str:
    """The syntax of a file that does not name one."""
    head = limited.read(6)
    limited.seek(-len(head), io.SEEK_CUR)
    if head[4:6] in _VRS:
        return NATIVE[1] if head[:1] != b"\0" else BIG_ENDIAN
    return NATIVE[0]


def value(dataset: Any, keyword: str) -> Any:
    """An element, None where it is absent or empty."""
    with contextlib.suppress(Exception):
        value = dataset.get(keyword)
        return None if isinstance(value, str) and not value.strip() else value
    raise UnreadableError(f"its {keyword} cannot be read")


def integer(dataset: Any, keyword: str, default: int | None = None) -> int:
    """An element as an int, `default` where it is absent."""
    found = value(dataset, keyword)
    with contextlib.suppress(Exception):
        return int(default if found is None and default is not None else found)
    raise UnreadableError(f"its {keyword} is " + ("missing" if found is None else "no number"))


def describe(header: Header) -> ImageHeader:
    """Read what the header says of the image, and refuse what no image can be."""
    dataset = header.dataset
    if not header.pixels:
        raise UnreadableError(_without_pixels(header.kind))
    samples = integer(dataset, "SamplesPerPixel", 1)
    allocated = integer(dataset, "BitsAllocated")
    stored = integer(dataset, "BitsStored", allocated)
    image = ImageHeader(
        dataset=dataset,
        little_endian=header.syntax != BIG_ENDIAN,
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        samples=samples,
        allocated=allocated,
        stored=stored,
        high=integer(dataset, "HighBit", stored - 1),
        signed=integer(dataset, "PixelRepresentation", 0) == 1,
        frames=integer(dataset, "NumberOfFrames", 1) or 1,
        photometric=str(value(dataset, "PhotometricInterpretation") or "").strip().upper(),
        planar=integer(dataset, "PlanarConfiguration", 0) == 1,
        pixels=header.pixels,
    )
    if image.rows < 1 or image.columns < 1 or image.frames < 1:
        raise UnreadableError(
            f"its header says {image.columns} x {image.rows} pixels in {image.frames} frames"
        )
    expected = {"float": (32,), "double": (64,), "integer": (1, 8, 16, 32)}[image.pixels]
    if allocated not in expected or (
        image.pixels == "integer" and not 1 <= stored <= image.high + 1 <= allocated
    ):
        raise UnreadableError(
            f"its pixels have {stored} bits, the highest being {image.high}, in {allocated}; that "
            "is not supported"
        )
    n_samples = image.rows * image.columns * samples
    limit = min(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PIXELS)
    if n_samples * max(1, allocated // 16) > limit:
        raise UnreadableError(
            f"{image.columns} x {image.rows} pixels of {samples} x {allocated} bits are more than "
            f"the {limit} of 16 bits that are allowed; scale it down first"
        )
    gray = image.photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    if gray != (samples == 1) or samples not in (1, 3) or not (gray or _is_colour(image)):
        raise UnreadableError(
            f"its photometric interpretation is not supported with {samples} samples per pixel"
        )
    return image


def _is_colour(image: ImageHeader) -> bool:
    return image.pixels == "integer" and image.photometric in (
        "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT",
        "YBR_RCT",
    )  # fmt: skip


def _without_pixels(kind: str) -> str:
    uid = import_optional("pydicom.uid", "dicom")

    if kind == _DICOMDIR:
        return "it is a DICOMDIR, the index of a medium; give the image files that it lists"
    name = uid.UID(kind).name
    reason = "it is a DICOM file without pixels"
    if name and name != kind:  # a name of the standard's
        reason += f" ({name})"
    return reason + (", perhaps cut short before them" if "Image" in name else "")
