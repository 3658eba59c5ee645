"""DICOM files: shown as their headers want it, refused with a reason, and silent about patients."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import re
import struct
import sys
import time
import traceback
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from skcxr import (
    CXRClassifier,
    ImageLoader,
    ImageReadError,
    InputError,
    load_cxr_folder,
    load_model,
    read_image,
    save_model,
)
from skcxr.audit import audit_dataset
from skcxr.datasets import patient_from_dicom
from skcxr.images import decode, sniff

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
imagecodecs = pytest.importorskip("imagecodecs", reason="the extra dicom is not installed")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402

JPEG = "1.2.840.10008.1.2.4."
EXPLICIT, IMPLICIT, BIG, DEFLATED, RLE = (
    "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
)  # fmt: skip
DIGITAL_XRAY = "1.2.840.10008.5.1.4.1.1.1.1"
HEIGHT, WIDTH = 24, 36
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
FILM = (COLUMNS * 110 + ROWS * 3).astype(np.uint16)  # 12 bits: 0 to 3919
EIGHT = (FILM // 16).astype(np.uint8)
CANARY = "CANARY"


def dataset_of(pixels, syntax=EXPLICIT, **attributes):
    """A data set of the pixels; attributes of None are left out."""
    little = syntax != BIG
    pixels = np.asarray(pixels)
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    bits = {"uint8": 8, "int8": 8, "uint16": 12, "int16": 12}.get(pixels.dtype.name, 32)
    values = {
        "SOPClassUID": DIGITAL_XRAY,
        "SOPInstanceUID": "1.2.3.4",
        "StudyDate": "19010203",
        "AccessionNumber": f"{CANARY}-ACCESSION",
        "PatientName": f"{CANARY}^NAME",
        "PatientID": f"{CANARY}-ID",
        "PatientBirthDate": "19040506",
        "InstitutionName": f"{CANARY} HOSPITAL",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PlanarConfiguration": 0 if colour else None,
        **attributes,
    }
    values.setdefault("HighBit", values["BitsStored"] - 1)
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    content = pixels.astype(pixels.dtype.newbyteorder("<" if little else ">")).tobytes()
    if not hasattr(dataset, "PixelData") and pixels.dtype.kind != "f":
        dataset.PixelData = content + b"\0" * (len(content) % 2)
        dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    return dataset


def table_of(entries, first=0, bits=12):
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item.LUTData = np.asarray(entries, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


@pytest.fixture
def save(tmp_path):
    """Save pixels, or a data set, as a DICOM file and return the path."""

    def saver(pixels=FILM, syntax=EXPLICIT, name="film.dcm", **attributes):
        dataset = pixels
        if not isinstance(pixels, Dataset):
            dataset = dataset_of(pixels, syntax, **attributes)
        path = tmp_path / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some data sets are wrong on purpose
            dataset.save_as(path, enforce_file_format=True)
        return path

    return saver


@pytest.fixture
def save_compressed(save):
    """Save a stream of compressed pixels."""

    def saver(stream, syntax, like=FILM, **attributes):
        dataset = dataset_of(like, syntax, **attributes)
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
        return save(dataset)

    return saver


def reason_of(path, **options):
    with pytest.raises(ImageReadError) as caught:
        read_image(path, **options)
    assert CANARY not in caught.value.reason
    return caught.value.reason


def jpeg(image, **options):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", **options)
    return stream.getvalue()


# ---------------------------------------------------------------- depths and syntaxes


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_every_uncompressed_syntax_gives_the_same_pixels(save, syntax):
    image = decode(save(FILM, syntax))
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, np.rint(FILM * (65535 / 4095)))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_the_bits_stored_are_the_range(save, bits, dtype):
    signed = dtype == np.int16
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    pixels = np.linspace(low, high, HEIGHT * WIDTH).round().reshape(HEIGHT, WIDTH).astype(dtype)
    image = read_image(save(pixels, BitsStored=bits))
    np.testing.assert_allclose(image, (pixels - float(low)) / (high - low), atol=1e-5)


def test_8_bits_stay_8_bits(save):
    pixels = EIGHT
    image = decode(save(pixels))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


def test_a_dark_film_is_not_brightened(save):
    assert read_image(save(FILM // 8)).max() == pytest.approx(3919 // 8 / 4095, abs=1e-4)


def test_32_bits_and_floats(save):
    pixels = FILM.astype(np.uint32) << 20
    np.testing.assert_allclose(read_image(save(pixels)), FILM / 4096, atol=2e-5)
    dataset = dataset_of(FILM.astype(np.float32), PixelRepresentation=None)
    dataset.FloatPixelData = (FILM / 4095).astype("<f4").tobytes()
    np.testing.assert_allclose(read_image(save(dataset)), FILM / 4095, atol=1e-5)
    dataset.FloatPixelData = FILM.astype("<f4").tobytes()
    path = save(dataset)
    assert "0 to 1" in reason_of(path)
    np.testing.assert_allclose(read_image(path, window=(2048, 4096))[:, -1], 1, atol=0.06)
    dataset.FloatPixelData = np.full(FILM.shape, np.nan, "<f4").tobytes()
    assert "NaN" in reason_of(save(dataset))


def test_bits_that_are_not_in_use_are_not_read(save):
    shifted = save(FILM << 4, BitsStored=12, HighBit=15, name="a.dcm")
    overlaid = save(FILM | 0xF000, name="b.dcm")
    plain = save(FILM, name="c.dcm")
    np.testing.assert_array_equal(decode(shifted), decode(plain))
    np.testing.assert_array_equal(decode(overlaid), decode(plain))


def test_single_bits(save):
    pixels = FILM % 7 == 0
    dataset = dataset_of(pixels.astype(np.uint8), BitsAllocated=1, BitsStored=1, HighBit=0)
    dataset.PixelData = np.packbits(pixels, bitorder="little").tobytes()
    np.testing.assert_array_equal(read_image(save(dataset)), pixels)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("codec", ["lossless", "jpegls", "jpeg2k", "rle"])
def test_lossless_compression_changes_nothing(save, save_compressed, codec, bits):
    pixels = FILM << 4 if bits == 16 else FILM if bits == 12 else (FILM >> 4).astype(np.uint8)
    if codec == "rle":
        dataset = dataset_of(pixels, BitsStored=bits)
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        path = save(dataset)
    else:
        syntax, stream = {
            "lossless": lambda: ("70", imagecodecs.jpeg8_encode(
                pixels, lossless=True, bitspersample=bits)),
            "jpegls": lambda: ("80", imagecodecs.jpegls_encode(pixels)),
            "jpeg2k": lambda: ("90", imagecodecs.jpeg2k_encode(
                pixels, codecformat="j2k", reversible=True, bitspersample=bits)),
        }[codec]()  # fmt: skip
        path = save_compressed(stream, JPEG + syntax, pixels, BitsStored=bits)
    image = decode(path)
    np.testing.assert_array_equal(image, decode(save(pixels, BitsStored=bits, name="plain.dcm")))


def test_lossy_compression_changes_little(save, save_compressed):
    plain = read_image(save(FILM, name="plain.dcm"))
    twelve = imagecodecs.jpeg8_encode(FILM, level=97, bitspersample=12)
    files = {
        "51": (twelve, FILM),
        "50": (jpeg(EIGHT, quality=97), EIGHT),
        "91": (
            imagecodecs.jpeg2k_encode(FILM, level=50, codecformat="j2k", bitspersample=12),
            FILM,
        ),
        "201": (imagecodecs.htj2k_encode(EIGHT), EIGHT),
    }
    for syntax, (stream, like) in files.items():
        image = read_image(save_compressed(stream, JPEG + syntax, like))
        assert np.abs(image - plain).max() < 0.03, syntax


def test_a_signed_stream_of_jpeg_ls(save, save_compressed):
    signed = FILM.astype(np.int16) - 2048
    stream = imagecodecs.jpegls_encode((signed & 0xFFF).astype(np.uint16))
    path = save_compressed(stream, JPEG + "80", signed)
    np.testing.assert_array_equal(decode(path), decode(save(signed, name="plain.dcm")))


# ---------------------------------------------------------------- what a header wants to be shown


def test_monochrome1_is_the_inverse_of_monochrome2(save):
    for attributes in (
        {}, {"WindowCenter": "2000", "WindowWidth": "1000"},
        {"RescaleSlope": "-2", "RescaleIntercept": "100"},
        {"WindowCenter": "2000", "WindowWidth": "999", "VOILUTFunction": "SIGMOID"},
    ):  # fmt: skip
        plain = read_image(save(FILM, **attributes))
        inverted = read_image(save(FILM, PhotometricInterpretation="MONOCHROME1", **attributes))
        np.testing.assert_allclose(inverted, 1 - plain, atol=1e-4)


def test_monochrome1_of_a_real_film(shared_data):
    plain, inverted = sorted((shared_data / "dicom").glob("*.dcm"), key=lambda path: path.name)
    first, second = read_image(plain), read_image(inverted)
    assert np.abs(first - (1 - second)).max() <= 1 / 255
    assert first.shape == (1024, 1024)
    assert first[-200:, 400:600].mean() > 0.5 > first[:100, :100].mean()  # belly bright, air dark


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_shape_inverse_inverts_once(save, photometric):
    plain = read_image(save())
    image = read_image(save(PhotometricInterpretation=photometric, PresentationLUTShape="INVERSE"))
    np.testing.assert_allclose(image, 1 - plain, atol=1e-4)
    identity = save(PresentationLUTShape="IDENTITY")
    np.testing.assert_array_equal(read_image(identity), plain)


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT"])
def test_the_edges_of_the_window_are_black_and_white(save, function):
    path = save(WindowCenter="2000", WindowWidth="1001", VOILUTFunction=function)
    image = read_image(path)
    shift = 0 if function == "LINEAR_EXACT" else 0.5
    width = 1001 if function == "LINEAR_EXACT" else 1000
    expected = np.clip((FILM - (2000.0 - shift)) / width + 0.5, 0, 1)
    np.testing.assert_allclose(image, expected, atol=1e-5)
    assert image.min() == 0
    assert image.max() == 1


def test_a_sigmoid_is_one_half_at_its_center(save):
    pixels = np.array([[1000, 1500, 2000, 2500, 3000]], np.uint16)
    path = save(pixels, WindowCenter="2000", WindowWidth="1000", VOILUTFunction="SIGMOID")
    expected = 1 / (1 + np.exp(-4 * (pixels - 2000.0) / 1000))
    np.testing.assert_allclose(read_image(path), expected, atol=1e-5)


def test_windows_are_chosen_by_number_pair_or_not_at_all(save):
    path = save(WindowCenter=["2000", "1000"], WindowWidth=["3000", "500"])
    np.testing.assert_array_equal(read_image(path), read_image(path, window=(2000, 3000)))
    np.testing.assert_array_equal(read_image(path, window=1), read_image(path, window=(1000, 500)))
    np.testing.assert_array_equal(read_image(path, window=None), read_image(save(name="a.dcm")))
    assert "2 windows" in reason_of(path, window=2)
    assert "0 windows" in reason_of(save(), window=1)
    for window in (-1, True, 1.5, "0", (1,), (1, 0), (np.nan, 1), ("a", 2)):
        with pytest.raises(InputError, match="window"):
            read_image(path, window=window)


@pytest.mark.parametrize("width", ["0", "-5", "0.5"])
def test_a_window_that_is_none_is_refused(save, width):
    path = save(WindowCenter="2000", WindowWidth=width)
    assert "window=None" in reason_of(path)
    assert read_image(path, window=None).max() > 0.9


def test_tables_come_before_windows(save):
    dataset = dataset_of(FILM, WindowCenter="2000", WindowWidth="3000")
    entries = np.minimum(np.arange(3000) * 2, 4095)[::-1]
    dataset.VOILUTSequence = [table_of(entries, first=500), table_of(np.arange(4096))]
    path = save(dataset)
    expected = entries[np.clip(FILM.astype(int) - 500, 0, 2999)] / 4095
    np.testing.assert_allclose(read_image(path), expected, atol=1e-5)
    np.testing.assert_allclose(read_image(path, window=1), FILM / 4095, atol=1e-5)
    np.testing.assert_array_equal(read_image(path, window=2), read_image(path, window=(2000, 3000)))


def test_the_modality_comes_before_the_window(save):
    rescaled = save(
        RescaleSlope="0.5", RescaleIntercept="-1000", WindowCenter="0", WindowWidth="1000",
        VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    expected = np.clip((FILM * 0.5 - 1000) / 1000 + 0.5, 0, 1)
    np.testing.assert_allclose(read_image(rescaled), expected, atol=1e-5)
    dataset = dataset_of(FILM)
    dataset.ModalityLUTSequence = [table_of(np.arange(4096) // 16, bits=8)]
    np.testing.assert_allclose(read_image(save(dataset)), FILM // 16 / 255, atol=1e-5)


def test_windows_of_one_frame(save):
    dataset = dataset_of(FILM)
    voi, frame = Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = "1000", "500"
    frame.FrameVOILUTSequence = [voi]
    dataset.PerFrameFunctionalGroupsSequence = [frame]
    path = save(dataset)
    np.testing.assert_array_equal(read_image(path), read_image(path, window=(1000, 500)))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_changes_nothing_else(save, photometric):
    padded = FILM.copy()
    padded[:, :5], padded[:, -5:] = 4000, 4010
    image = read_image(
        save(padded, PhotometricInterpretation=photometric, PixelPaddingValue=4000,
             PixelPaddingRangeLimit=4095)
    )  # fmt: skip
    plain = read_image(save(padded, PhotometricInterpretation=photometric))
    assert not image[:, :5].any()
    assert not image[:, -5:].any()
    np.testing.assert_array_equal(image[:, 5:-5], plain[:, 5:-5])


def test_negative_padding(save):
    signed = FILM.astype(np.int16) - 1000
    signed[0] = -2000
    image = read_image(save(signed, PixelPaddingValue=-2000, WindowCenter="0", WindowWidth="9000"))
    assert not image[0].any()
    assert image[1:].min() > 0


# ---------------------------------------------------------------- colour


def test_colour_becomes_luminance(save, save_compressed):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    expected = rgb @ (0.299, 0.587, 0.114) / 255
    np.testing.assert_allclose(read_image(save(rgb)), expected, atol=3e-3)
    planes = dataset_of(rgb, PlanarConfiguration=1)
    planes.PixelData = rgb.transpose(2, 0, 1).tobytes()
    np.testing.assert_allclose(read_image(save(planes)), expected, atol=3e-3)
    deep = save(rgb.astype(np.uint16) * 257, BitsStored=16)
    np.testing.assert_allclose(read_image(deep), expected, atol=3e-3)
    ycc = np.array(Image.fromarray(rgb).convert("YCbCr"))
    path = save(ycc, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(read_image(path), ycc[..., 0] / 255, atol=1e-6)
    halved = dataset_of(ycc, PhotometricInterpretation="YBR_FULL_422")
    pairs = ycc.reshape(-1, 2, 3)
    chroma = pairs[:, 0, 1:]
    halved.PixelData = np.concatenate([pairs[..., 0], chroma], axis=1).tobytes()
    np.testing.assert_allclose(read_image(save(halved)), ycc[..., 0] / 255, atol=1e-6)
    smooth = np.stack([FILM // 16, FILM // 32, 255 - FILM // 16], axis=-1).astype(np.uint8)
    path = save_compressed(jpeg(smooth, quality=97), JPEG + "50", smooth)
    np.testing.assert_allclose(read_image(path), smooth @ (0.299, 0.587, 0.114) / 255, atol=0.02)
    assert "no windows" in reason_of(path, window=(1, 2))


def test_a_palette(save):
    levels = np.arange(256)
    dataset = dataset_of(EIGHT, PhotometricInterpretation="PALETTE COLOR")
    for colour, column in {"Red": levels, "Green": 255 - levels, "Blue": levels // 2}.items():
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        data = (column * 257).astype("<u2").tobytes()
        setattr(dataset, f"{colour}PaletteColorLookupTableData", data)
    at = FILM // 16
    expected = (0.299 * at + 0.587 * (255 - at) + 0.114 * (at // 2)) / 255
    np.testing.assert_allclose(read_image(save(dataset)), expected, atol=1e-4)
    for colour in ("Red", "Green", "Blue"):
        del dataset[f"{colour}PaletteColorLookupTableData"]
        # black, then a line up to white
        segments = np.array([0, 1, 0, 1, 255, 65535], "<u2").tobytes()
        setattr(dataset, f"Segmented{colour}PaletteColorLookupTableData", segments)
    np.testing.assert_allclose(read_image(save(dataset)), at / 255, atol=1e-4)
    bomb = np.tile(np.array([1, 65535, 65535], "<u2"), 5000)
    dataset.SegmentedRedPaletteColorLookupTableData = (
        np.array([0, 1, 0], "<u2").tobytes() + bomb.tobytes()
    )
    assert "segments" in reason_of(save(dataset))


# ---------------------------------------------------------------- frames and kinds of files


def test_several_frames_ask_for_one(save, save_compressed):
    frames = np.stack([FILM, FILM[::-1], FILM // 2])
    dataset = dataset_of(FILM, NumberOfFrames=3)
    dataset.PixelData = frames.tobytes()
    path = save(dataset)
    assert "3 frames" in reason_of(path)
    assert "frame=" in reason_of(path)
    assert "no frame 3" in reason_of(path, frame=3)
    assert sniff(path) is None
    for index in range(3):
        image = read_image(path, frame=index)
        np.testing.assert_allclose(image, frames[index] / 4095, atol=1e-5)
    for frame in (-1, 1.0, True, "0"):
        with pytest.raises(InputError, match="frame"):
            read_image(path, frame=frame)
    streams = [imagecodecs.jpegls_encode(frame.astype(np.uint16)) for frame in frames]
    for offsets in (True, False):
        dataset = dataset_of(FILM, JPEG + "80", NumberOfFrames=3)
        dataset.PixelData = encapsulate(streams, has_bot=offsets)
        dataset["PixelData"].is_undefined_length = True
        path = save(dataset)
        for index in range(3):
            np.testing.assert_allclose(
                read_image(path, frame=index), frames[index] / 4095, atol=1e-5
            )


def test_other_files_have_one_frame(tmp_path):
    path = tmp_path / "film.png"
    Image.fromarray(EIGHT).save(path)
    np.testing.assert_array_equal(read_image(path, frame=0, window=3), read_image(path))
    assert "only the first frame" in reason_of(path, frame=1)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_files_without_preamble_or_meta(tmp_path, syntax):
    dataset = dataset_of(FILM, syntax)
    path = tmp_path / "film"
    stream = io.BytesIO()
    del dataset.file_meta
    dataset.save_as(stream, implicit_vr=syntax == IMPLICIT, little_endian=syntax != BIG)
    path.write_bytes(stream.getvalue())
    np.testing.assert_allclose(read_image(path), FILM / 4095, atol=1e-5)
    assert sniff(path) is None


def test_a_file_without_preamble_but_with_meta(save, tmp_path):
    path = save()
    path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_allclose(read_image(path), FILM / 4095, atol=1e-5)


def test_files_without_pixels_say_what_they_are(save):
    for kind, word in {
        "1.2.840.10008.5.1.4.1.1.88.11": "Basic Text SR",
        "1.2.840.10008.5.1.4.1.1.104.1": "PDF",
        DIGITAL_XRAY: "cut short",
        f"1.2.{'9' * 20}": "without pixels",
    }.items():
        dataset = dataset_of(FILM, SOPClassUID=kind)
        del dataset.PixelData
        path = save(dataset)
        assert word in reason_of(path)
        assert "9999" not in reason_of(path)
        assert sniff(path) == reason_of(path)


def test_a_dicomdir_is_named():
    folder = os.path.join(os.path.dirname(pydicom.__file__), "data", "test_files", "dicomdirtests")
    path = os.path.join(folder, "DICOMDIR")
    if not os.path.isfile(path):
        pytest.skip("this pydicom comes without its test files")
    assert "index of a medium" in reason_of(path)


def test_what_stands_around_the_pixels_changes_nothing(save):
    plain = decode(save(name="plain.dcm"))
    dataset = dataset_of(FILM)
    inner = Dataset()
    inner.PatientComments = CANARY
    inner.Rows, inner.PixelData = 2, b"\1\2"
    inner["PixelData"].VR = "OB"
    for _ in range(20):
        outer = Dataset()
        outer.ReferencedSeriesSequence = [inner]
        outer["ReferencedSeriesSequence"].is_undefined_length = True
        inner = outer
    dataset.IconImageSequence = [inner]
    dataset.add_new(0x60000010, "US", HEIGHT)  # an overlay
    dataset.add_new(0x60003000, "OW", b"\xff" * 200)
    dataset.DataSetTrailingPadding = b"\0" * 100
    path = save(dataset)
    np.testing.assert_array_equal(decode(path), plain)
    with open(path, "ab") as file:
        file.write(b"garbage" * 100)
    np.testing.assert_array_equal(decode(path), plain)


def test_every_file_of_pydicoms_own_is_read_or_refused_with_a_reason():
    folder = os.path.join(os.path.dirname(pydicom.__file__), "data", "test_files")
    paths = [os.path.join(base, name) for base, _, names in os.walk(folder) for name in names]
    if not paths:
        pytest.skip("this pydicom comes without its test files")
    images, reasons = {}, {}
    for path in paths:
        try:
            images[path] = read_image(path, frame=0)
        except ImageReadError as error:
            reasons[path] = error.reason
    for path, image in images.items():
        assert 0 <= image.min() <= image.max() <= 1
        assert sniff(path) is None
    for path, reason in reasons.items():
        assert len(reason) > 10
        assert sniff(path) in (None, reason)
    assert len(images) >= 80


# ---------------------------------------------------------------- damage and malice


def test_a_file_cut_short_anywhere_is_refused(save, save_compressed):
    files = [
        save().read_bytes(),
        save(FILM, DEFLATED).read_bytes(),
        save_compressed(
            imagecodecs.jpeg8_encode(FILM, lossless=True, bitspersample=12), JPEG + "70"
        ).read_bytes(),
        save_compressed(jpeg(EIGHT), JPEG + "50", EIGHT).read_bytes(),
    ]
    path = save()
    for content in files:
        for end in {*range(1, len(content) - 16, 37), len(content) - 40}:
            path.write_bytes(content[:end])
            with pytest.raises(ImageReadError):
                read_image(path)


def test_a_stream_that_is_larger_than_its_header_is_not_decoded(save_compressed):
    large = np.zeros((4000, 4000), np.uint8)
    for syntax, stream in {
        "50": jpeg(large),
        "70": imagecodecs.jpeg8_encode(large, lossless=True),
        "80": imagecodecs.jpegls_encode(large),
        "90": imagecodecs.jpeg2k_encode(large, codecformat="j2k"),
    }.items():
        path = save_compressed(stream, JPEG + syntax, FILM.astype(np.uint8))
        assert "4000 x 4000" in reason_of(path)


def test_a_small_stream_of_jpeg_2000_does_not_ask_for_gigabytes(save_compressed):
    """Precincts of 2 x 2 pixels: six million parts, which take OpenJPEG 14 GB."""
    side = 4990
    stream = bytearray(imagecodecs.jpeg2k_encode(FILM, codecformat="j2k", bitspersample=12))
    at = stream.index(b"\xff\x51") + 6
    stream[at : at + 32] = struct.pack(">8L", side, side, 0, 0, side, side, 0, 0)
    at = stream.index(b"\xff\x52")
    levels = stream[at + 9]
    stream[at + 2 : at + 5] = struct.pack(">HB", 13 + levels, 1)
    stream[at + 14 : at + 14] = b"\x11" * (levels + 1)
    path = save_compressed(bytes(stream), JPEG + "90", Rows=side, Columns=side)
    assert "more parts" in reason_of(path)


def test_more_pixels_than_are_allowed_are_refused_before_they_are_read(save):
    assert "allowed" in reason_of(save(Rows=65535, Columns=65535))
    assert "allowed" in reason_of(save(Rows=20000, Columns=4000, BitsAllocated=32))


def test_a_deflated_bomb_is_refused(save):
    path = save(FILM, DEFLATED)
    head = path.read_bytes()
    start = head.index(DEFLATED.encode()) + len(DEFLATED)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(280)) + packer.flush()
    path.write_bytes(head[: start + start % 2] + bomb)
    begin = time.perf_counter()
    reason_of(path)
    assert time.perf_counter() - begin < 5


def test_headers_that_never_end_are_refused_in_time(save):
    path = save()
    content = path.read_bytes()
    at = content.index(b"\x28\0\2\0US")
    undefined = b"\x08\0\x11\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    item, element = b"\xfe\xff\0\xe0\0\0\0\0", b"\x09\0\x01\0UN\0\0\0\0\0\0"
    for junk in (
        undefined * 5000,
        element * 300_000,
        undefined + element * 300_000,
        undefined[:12] + item * 300_000,
        b"\x09\0\x01\0UN\0\0\xff\xff\xff\x7f",
    ):
        path.write_bytes(content[:at] + junk + content[at:])
        begin = time.perf_counter()
        with contextlib.suppress(ImageReadError):
            read_image(path)
        assert time.perf_counter() - begin < 5


@pytest.mark.parametrize(
    "attributes",
    [
        {"Rows": 0}, {"Rows": None}, {"BitsAllocated": 24}, {"BitsStored": 17},
        {"BitsStored": 0, "HighBit": 0},
        {"HighBit": 3}, {"SamplesPerPixel": 2}, {"PhotometricInterpretation": CANARY},
        {"PhotometricInterpretation": None}, {"RescaleSlope": "0", "RescaleIntercept": "1"},
        {"WindowCenter": "1", "WindowWidth": "5", "VOILUTFunction": CANARY},
    ],
    ids=lambda attributes: "-".join(attributes),
)  # fmt: skip
def test_a_header_that_makes_no_sense_is_refused(save, attributes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = save(**attributes)
    assert reason_of(path)


@pytest.mark.parametrize(("slope", "intercept"), [("1e305", "0"), ("-1e308", "0"), ("1", "1e300")])
def test_a_rescale_that_leaves_no_gray_is_refused(save, slope, intercept):
    path = save(RescaleSlope=slope, RescaleIntercept=intercept)
    assert "rescale slope and intercept" in reason_of(path)


@pytest.mark.parametrize("slope", ["1e300", "1e-300"])
def test_a_rescale_by_any_unit_changes_nothing_without_a_window(save, slope):
    plain = read_image(save(FILM))
    scaled = read_image(save(FILM, RescaleSlope=slope, RescaleIntercept="0"))
    np.testing.assert_allclose(scaled, plain, atol=1e-4)


def test_a_window_beyond_every_float_is_refused(save):
    with pytest.raises(InputError, match="window must be"):
        read_image(save(FILM), window=(10**400, 1))


def test_tables_that_are_cut_short_are_refused(save):
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        for item in (table_of(np.arange(10)), table_of(np.arange(10), bits=40), Dataset()):
            dataset = dataset_of(FILM)
            if "LUTDescriptor" in item:
                item.LUTDescriptor = [4096, 0, item.LUTDescriptor[2]]
            setattr(dataset, keyword, [item])
            assert "lookup tables" in reason_of(save(dataset))


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_raise_nothing_else(save, save_compressed, seed):
    rng = np.random.default_rng(seed)
    dataset = dataset_of(FILM, WindowCenter="2000", WindowWidth="3000")
    dataset.VOILUTSequence = [table_of(np.arange(4096))]
    contents = [
        save(dataset).read_bytes(),
        save_compressed(imagecodecs.jpegls_encode(FILM), JPEG + "80").read_bytes(),
        save_compressed(jpeg(FILM.astype("u1")), JPEG + "50", FILM.astype("u1")).read_bytes(),
    ]
    path = save()
    for index in range(150):
        content = bytearray(contents[index % len(contents)])
        for at in rng.integers(128, len(content), 1 + index % 5):
            content[at] = rng.integers(256)
        path.write_bytes(content)
        with contextlib.suppress(ImageReadError):
            read_image(path)


# ---------------------------------------------------------------- what is missing


def test_a_missing_decoder_is_named(save_compressed, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    path = save_compressed(imagecodecs.jpegls_encode(FILM), JPEG + "80")
    reason = reason_of(path)
    assert "JPEG-LS Lossless" in reason
    assert "imagecodecs" in reason
    assert 'pip install "skcxr[dicom]"' in reason
    read_image(save_compressed(jpeg(EIGHT), JPEG + "50", EIGHT))  # Pillow is always there


def test_a_missing_pydicom_is_named(save, monkeypatch):
    path = save()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert 'pip install "skcxr[dicom]"' in reason_of(path)
    assert 'pip install "skcxr[dicom]"' in sniff(path)


def test_a_syntax_that_is_not_known_is_not_quoted(save_compressed):
    reason = reason_of(save_compressed(b"\0\0", JPEG + "100"))
    assert "transfer syntax" in reason
    assert not re.search(r"\d\.\d", reason)


# ---------------------------------------------------------------- privacy


def test_nothing_of_the_header_comes_out(save, tmp_path, caplog):
    """Files that pydicom warns of, logs about, or quotes in its errors."""
    caplog.set_level(logging.DEBUG)
    dataset = dataset_of(FILM, SpecificCharacterSet=CANARY, WindowCenter="1", WindowWidth="2")
    path = save(dataset)
    content = path.read_bytes()
    secrets = CANARY.encode()
    broken = [
        content.replace(b"\x28\0\x50\x10DS\2\0" + b"1 ", b"\x28\0\x50\x10DS\6\0" + secrets),
        content.replace(b"\x02\0\x10\0UI", b"\x02\0\x10\0AA"),
        content.replace(EXPLICIT.encode(), secrets.ljust(len(EXPLICIT)), 1),
        content.replace(b"MONOCHROME2", b"CANARYCANAR"),
        content.replace(b"\x28\0\x10\0US\2\0", b"\x28\0\x10\0CS\2\0"),
        content[:-100],
    ]
    for data in broken:
        path.write_bytes(data)
        caplog.clear()
        with warnings.catch_warnings(record=True, action="always") as caught:
            try:
                read_image(path)
            except ImageReadError as error:
                text = "".join(traceback.format_exception(error))
                assert CANARY not in text
                chained = error
                while chained is not None:
                    assert CANARY not in str(chained)
                    chained = chained.__cause__ or chained.__context__
        assert not caught
        assert CANARY not in caplog.text


def test_globals_are_as_before(save):
    logger = logging.getLogger("pydicom")
    before = list(warnings.filters), list(logger.filters), logger.level, list(logger.handlers)
    config = {key: value for key, value in vars(pydicom.config).items() if not key.startswith("_")}
    paths = [save(name="a.dcm"), save(Rows=0, name="b.dcm")]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(sniff, paths * 20))
        list(pool.map(lambda path: read_image(paths[0]), range(20)))
    after = list(warnings.filters), list(logger.filters), logger.level, list(logger.handlers)
    assert after == before
    assert config == {
        key: value for key, value in vars(pydicom.config).items() if not key.startswith("_")
    }


@pytest.fixture
def folder(tmp_path):
    """Twelve DICOM files of two classes and six patients."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for index in range(12):
        label = "ill" if index % 2 else "healthy"
        pixels = rng.integers(0, 600, (32, 32)).astype(np.uint16)
        pixels[(slice(8, 16), slice(None)) if index % 2 else (slice(None), slice(8, 16))] = 4000
        dataset = dataset_of(
            pixels, PatientID=f"{CANARY}-{index // 2}", WindowCenter=["2048", "300"],
            WindowWidth=["4096", "600"],
        )  # fmt: skip
        (root / label).mkdir(parents=True, exist_ok=True)
        dataset.save_as(root / label / f"{index}.dcm", enforce_file_format=True)
    return root


def test_a_fit_keeps_nothing_of_the_headers(folder, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    data = load_cxr_folder(folder, groups=patient_from_dicom())
    assert len(set(data.groups)) == 6
    clf = CXRClassifier(image_size=32, max_epochs=1, random_state=0, memory=tmp_path / "memory")
    clf.fit(data.data, data.target)
    save_model(clf, tmp_path / "model.skcxr")
    loaded = load_model(tmp_path / "model.skcxr")
    np.testing.assert_array_equal(loaded.predict(data.data), clf.predict(data.data))
    audit_dataset(data.data, data.target, groups=data.groups).to_html(tmp_path / "audit.html")
    (tmp_path / "fit.pickle").write_bytes(pickle.dumps(clf))
    (tmp_path / "frame.csv").write_text(data.frame.to_csv() + data.DESCR)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert len(written) > 12
    for path in written:
        content = path.read_bytes()
        for secret in (CANARY.encode(), b"19010203", b"19040506"):
            assert secret not in content, path
        assert CANARY not in path.name
    assert CANARY not in caplog.text


def test_patients_are_salted_hashes(folder, save, tmp_path):
    first, second = (
        load_cxr_folder(folder, groups=patient_from_dicom(salt="salt")) for _ in range(2)
    )
    assert first.groups.tolist() == second.groups.tolist()
    assert all(re.fullmatch(r"p[0-9a-f]{16}", patient) for patient in first.groups)
    numbers = [int(os.path.basename(path)[:-4]) // 2 for path in first.data]
    assert len(set(zip(numbers, first.groups.tolist(), strict=True))) == len(set(numbers)) == 6
    other = load_cxr_folder(folder, groups=patient_from_dicom(salt=b"other"))
    assert not set(first.groups) & set(other.groups)
    assert not set(load_cxr_folder(folder, groups=patient_from_dicom()).groups) & set(
        load_cxr_folder(folder, groups=patient_from_dicom()).groups
    )
    rule = patient_from_dicom(salt="salt")
    plain = rule(save(PatientID="7"))
    assert rule(save(PatientID="7", IssuerOfPatientID="elsewhere")) != plain
    assert rule(save(PatientID="7 ", PatientName="Other")) == plain
    assert rule(save(PatientID=None)) is None
    assert rule(save(PatientID="")) is None
    assert rule("person10_bacteria_43.jpeg") == "person10_bacteria"
    assert rule("film.png") is None
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(bytes(128) + b"DICM" + os.urandom(50))
    assert rule(damaged) is None
    for salt in ("", b"", 3):
        with pytest.raises(InputError, match="salt"):
            patient_from_dicom(salt=salt)


# ---------------------------------------------------------------- above read_image


def test_the_loader_and_its_cache_know_the_window(folder, tmp_path):
    paths = load_cxr_folder(folder, groups=patient_from_dicom()).data
    plain = {
        window: ImageLoader(32, window=window).transform(paths)
        for window in (0, 1, None, (300, 100))
    }
    assert not np.array_equal(plain[0], plain[1])
    for _ in range(2):
        for window, images in plain.items():
            loader = ImageLoader(32, window=window, memory=tmp_path / "memory")
            np.testing.assert_array_equal(loader.transform(paths), images)
    with pytest.raises(ValueError, match="window"):
        ImageLoader(32, window=(1, -1)).fit(paths)


def test_entries_of_the_cache_depend_on_the_version_of_pydicom(folder, tmp_path, monkeypatch):
    paths = load_cxr_folder(folder, groups=patient_from_dicom()).data
    png = tmp_path / "film.png"
    Image.fromarray(EIGHT).save(png)
    loader = ImageLoader(32, memory=tmp_path / "memory")
    loader.transform([*paths, str(png)])
    before = set((tmp_path / "memory").rglob("*.npy"))
    monkeypatch.setattr("skcxr._cache._dicom_versions", lambda: ("99.0", "99.0"))
    loader.transform([*paths, str(png)])
    after = set((tmp_path / "memory").rglob("*.npy"))
    assert len(before) == len(paths) + 1
    assert len(after - before) == len(paths)


def test_the_audit_takes_dicom_files(folder):
    data = load_cxr_folder(folder, groups=patient_from_dicom())
    audit = audit_dataset(data.data, data.target, groups=data.groups)
    assert len(audit.tables["unreadable"]) == 0
    assert set(audit.tables["images"]["format"]) == {"DICOM, uncompressed"}


def test_truncated_images_are_refused_whatever_pillow_is_told(save_compressed, monkeypatch):
    stream = jpeg(EIGHT)
    whole = save_compressed(stream, JPEG + "50", EIGHT)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    read_image(whole)
    assert "cut short" in reason_of(save_compressed(stream[:-20], JPEG + "50", EIGHT))
