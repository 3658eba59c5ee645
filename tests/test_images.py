"""skcxr.images: every format, depth and orientation comes out right; every bad file is an error."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from skcxr import _pillow
from skcxr._exceptions import ImageReadError, InputError
from skcxr.images import decode, read_image, resize, sniff, to_unit

HEIGHT, WIDTH = 24, 36
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
GRAY8 = (COLUMNS * 6 + ROWS).astype(np.uint8)
GRAY16 = (COLUMNS * 1800 + ROWS * 13).astype(np.uint16)
LOSSLESS = ["png", "tiff", "bmp"]


@pytest.fixture
def save(tmp_path):
    """Save a Pillow image or an array and return the path."""

    def saver(image, name="film.png", **options):
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        path = tmp_path / name
        image.save(path, **options)
        return path

    return saver


@pytest.fixture
def write(tmp_path):
    """Write bytes and return the path."""

    def writer(data, name="film.png"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return writer


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def reason_of(path, **options):
    with pytest.raises(ImageReadError) as caught:
        read_image(path, **options)
    return caught.value.reason


# ---------------------------------------------------------------- formats and depths


@pytest.mark.parametrize("suffix", [*LOSSLESS, "jpg", "webp"])
def test_every_format_gives_the_pixels_in_unit_range(save, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    image = read_image(save(GRAY8, f"film.{suffix}", **options))
    assert image.shape == (HEIGHT, WIDTH)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1
    tolerance = 8 if suffix == "jpg" else 1 if suffix == "webp" else 0
    assert np.abs(image * 255 - GRAY8).max() <= tolerance + 1e-4


def test_the_content_decides_and_not_the_extension(save):
    path = save(GRAY8, "film.jpg", format="PNG")
    assert np.array_equal(decode(path), GRAY8)


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_colour_modes_become_luminance(save, suffix, mode):
    image = Image.fromarray(GRAY8).convert(mode)
    expected = np.array(image.convert("L"))
    assert np.array_equal(decode(save(image, f"film.{suffix}")), expected)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_print_and_video_colours_become_luminance(save, mode, suffix):
    rgb = Image.merge("RGB", [Image.fromarray(GRAY8)] * 3)
    array = decode(save(rgb.convert(mode), f"film.{suffix}"))
    assert np.abs(array.astype(int) - GRAY8).max() <= (10 if suffix == "jpg" else 1)


def test_colour_jpeg_gives_the_luminance_of_its_colours(save):
    y = GRAY8 // 2
    rgb = Image.fromarray(np.dstack([y + 60, y + 20, y]))
    path = save(rgb, "film.jpg", quality=100, subsampling=0)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("L")).astype(int)
    assert np.abs(decode(path) - expected).max() <= 2


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_what_is_transparent_is_black(save, mode, suffix):
    alpha = np.full_like(GRAY8, 255)
    alpha[:5] = 0
    image = Image.fromarray(GRAY8).convert(mode)
    image.putalpha(Image.fromarray(alpha))
    array = decode(save(image, f"film.{suffix}"))
    assert (array[:5] == 0).all()
    assert np.array_equal(array[5:], GRAY8[5:])


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_an_alpha_that_is_opaque_all_over_changes_nothing(save, suffix):
    rgb = Image.fromarray(np.dstack([GRAY8, GRAY8 // 2, 255 - GRAY8]))
    opaque = rgb.convert("RGBA")
    expected = np.array(rgb.convert("L"))
    assert np.array_equal(decode(save(opaque, f"film.{suffix}")), expected)
    opaque.putpixel((3, 2), (*opaque.getpixel((3, 2))[:3], 254))  # and one that is nearly so
    array = decode(save(opaque, f"film.{suffix}"))
    assert (array != expected).sum() <= 1
    assert abs(int(array[2, 3]) - int(expected[2, 3])) <= 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
@pytest.mark.parametrize("size", [None, (HEIGHT, WIDTH), 8])
def test_an_image_is_an_array_of_its_own_that_may_be_written(save, suffix, size):
    array = decode(save(GRAY8, f"film.{suffix}"), size)
    assert type(array) is np.ndarray
    assert array.flags.c_contiguous
    before = array.copy()
    array += 1
    assert np.array_equal(array, before + 1)


def test_a_jpeg_of_more_bytes_than_parts_are_allowed_is_read(save):
    noise = np.random.default_rng(0).integers(0, 256, (1100, 1100), dtype=np.uint8)
    path = save(noise, "film.jpg", quality=98)
    assert path.stat().st_size > _pillow.Reader.reads_left
    with Image.open(path) as image:
        assert np.array_equal(decode(path), np.asarray(image))


def test_units_are_written_where_they_are_wanted():
    for pixels in (GRAY8, GRAY16, GRAY8 > 9, GRAY8 / 255):
        out = np.full((2, *GRAY8.shape), np.float32(7))
        to_unit(pixels, out[1])
        assert np.array_equal(out[1], to_unit(pixels))
        assert (out[0] == 7).all()


def test_a_transparent_palette_entry_or_gray_value_is_black(save):
    palette = Image.fromarray(np.where(GRAY8 > 128, 1, 0).astype(np.uint8), "P")
    palette.putpalette([90, 90, 90, 200, 200, 200])
    expected = np.where(GRAY8 > 128, 200, 0)
    assert np.array_equal(decode(save(palette, "p.png", transparency=0)), expected)
    assert np.array_equal(decode(save(palette, "b.png", transparency=b"\0\xff")), expected)
    keyed = decode(save(GRAY8, "l.png", transparency=7))
    assert np.array_equal(keyed, np.where(GRAY8 == 7, 0, GRAY8))
    keyed = decode(save(GRAY16, "i.png", transparency=1800))
    assert np.array_equal(keyed, np.where(GRAY16 == 1800, 0, GRAY16))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_keep_their_depth_and_are_scaled_by_their_range(save, suffix):
    path = save(GRAY16, f"film.{suffix}")
    assert decode(path).dtype == np.uint16
    assert np.array_equal(decode(path), GRAY16)
    assert np.array_equal(read_image(path), GRAY16.astype(np.float32) / np.float32(65535))


def test_a_16_bit_gradient_keeps_more_than_256_levels_through_resizing(save):
    gradient = np.tile(np.linspace(0, 65535, 2048).astype(np.uint16), (64, 1))
    image = read_image(save(gradient), size=(32, 1024))
    assert len(np.unique(image)) > 1000
    assert np.abs(np.diff(image[0]) - 1 / 1024).max() < 1e-3


def tiff(array, byte_order="<", photometric=1, bits=None, sample_format=1):
    """An uncompressed single-strip TIFF, written by hand."""
    height, width = array.shape
    raw = array.astype(array.dtype.newbyteorder(byte_order)).tobytes()
    bits = bits or array.dtype.itemsize * 8
    entries = [
        (256, width), (257, height), (258, bits), (259, 1), (262, photometric),
        (273, 8), (277, 1), (278, height), (279, len(raw)), (339, sample_format),
    ]  # fmt: skip
    ifd = struct.pack(f"{byte_order}H", len(entries))
    for tag, value in entries:
        ifd += struct.pack(f"{byte_order}HHII", tag, 4, 1, value)
    magic = b"II*\0" if byte_order == "<" else b"MM\0*"
    return magic + struct.pack(f"{byte_order}I", 8 + len(raw)) + raw + ifd + b"\0\0\0\0"


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_tiff_of_both_byte_orders(write, byte_order):
    assert np.array_equal(decode(write(tiff(GRAY16, byte_order))), GRAY16)


def test_tiff_with_white_as_zero_is_inverted(write):
    assert np.array_equal(decode(write(tiff(255 - GRAY8, photometric=0))), GRAY8)
    assert np.array_equal(decode(write(tiff(65535 - GRAY16, photometric=0))), GRAY16)
    floats = (GRAY8 / 255).astype(np.float32)
    array = decode(write(tiff(1 - floats, photometric=0, sample_format=3)))
    assert np.allclose(array, floats, atol=1e-6)


def test_a_compressed_tiff_with_white_as_zero_is_inverted(save):
    path = save(GRAY8, "film.tiff", compression="tiff_lzw", tiffinfo={262: 0})
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0
        expected = np.array(image)
    assert np.array_equal(decode(path), expected)
    assert np.array_equal(expected, GRAY8)


def test_12_bit_tiff_is_scaled_by_its_own_range(write):
    values = np.arange(24 * 36).reshape(24, 36) * 4  # 0 .. 3452
    values[-1, -1] = 4095
    pairs = values.reshape(-1, 2)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1
    ).astype(np.uint8)
    data = bytearray(tiff(packed.reshape(24, 54), bits=12))
    data = bytes(data).replace(
        struct.pack("<HHII", 256, 4, 1, 54), struct.pack("<HHII", 256, 4, 1, 36)
    )
    array = decode(write(data))
    assert array.dtype == np.uint16
    assert array.max() == 65535
    assert np.abs(array / 65535 - values / 4095).max() < 1e-4


def test_32_bit_integers_are_16_bit_values_or_an_error(write):
    for dtype, sample_format in [(np.uint32, 1), (np.int32, 2), (np.int16, 2)]:
        low = (GRAY16 // 2).astype(dtype)
        array = decode(write(tiff(low, sample_format=sample_format)))
        assert array.dtype == np.uint16
        assert np.array_equal(array, low)
    for value in [65536, -1]:
        wide = GRAY16.astype(np.int32)
        wide[0, 0] = value
        assert str(value) in reason_of(write(tiff(wide, sample_format=2)))


def test_signed_8_bit_tiff_is_refused(write):
    assert "signed" in reason_of(write(tiff(GRAY8, sample_format=2)))


def test_float_tiff_is_taken_as_it_is_or_refused(save):
    floats = (GRAY16 / 65535).astype(np.float32)
    array = decode(save(floats, "film.tiff"))
    assert array.dtype == np.float32
    assert np.array_equal(array, floats)
    assert "0 to 246" in reason_of(save(np.round(floats * 255), "a.tiff"))
    for bad in (np.nan, np.inf):
        broken = floats.copy()
        broken[3, 3] = bad
        assert "non-finite pixels" in reason_of(save(broken, "b.tiff"))


def png(bit_depth, colour, rows):
    """A PNG written by hand, for depths that Pillow does not write."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bit_depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_png_with_colour_or_alpha_has_8_bits(write, channels):
    pixels = np.dstack([GRAY16] * channels)
    if channels in (2, 4):
        pixels[..., -1] = 65535
    colour = {2: 4, 3: 2, 4: 6}[channels]
    array = decode(write(png(16, colour, pixels.astype(">u2"))))
    assert array.dtype == np.uint8
    assert np.abs(array / 255 - GRAY16 / 65535).max() < 1 / 200


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits_uses_the_whole_range(write, bits):
    per_byte = 8 // bits
    levels = (COLUMNS % 2**bits).astype(np.uint8)
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    padded = np.pad(levels, ((0, 0), (0, -WIDTH % per_byte)))
    packed = (padded.reshape(HEIGHT, -1, per_byte) << shifts).sum(2).astype(np.uint8)
    array = decode(write(png(bits, 0, packed)))
    assert np.array_equal(array, levels * (255 // (2**bits - 1)))


def test_the_first_frame_or_page_is_read(save):
    frames = [Image.fromarray(np.full((9, 9), value, np.uint8)) for value in (30, 200)]
    for name in ("film.tiff", "film.png", "film.webp"):
        kind = {"lossless": True} if name.endswith("webp") else {}
        path = save(frames[0], name, save_all=True, append_images=frames[1:], **kind)
        assert np.abs(decode(path).astype(int) - 30).max() <= 1
    path = save(frames[0], "film.mpo", format="MPO", save_all=True, append_images=frames[1:])
    assert np.abs(decode(path).astype(int) - 30).max() <= 1


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg", "webp"])
@pytest.mark.parametrize("size", [None, (20, 10)])
def test_exif_orientation_is_applied(save, orientation, suffix, size):
    blocks = np.zeros((160, 240), np.uint8)
    blocks[:80, :120], blocks[80:, :120], blocks[80:, 120:] = 80, 160, 240
    stored = {
        1: blocks, 2: blocks[:, ::-1], 3: blocks[::-1, ::-1], 4: blocks[::-1], 5: blocks.T,
        6: np.rot90(blocks), 7: np.rot90(blocks, 2).T, 8: np.rot90(blocks, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(np.ascontiguousarray(stored), f"film.{suffix}", exif=exif, **options)
    upright = decode(path, size)
    expected = resize(blocks, size)
    assert upright.shape == expected.shape
    assert np.abs(upright.astype(int) - expected).mean() < 2


def test_16_bit_png_with_orientation_keeps_its_depth(save):
    exif = Image.Exif()
    exif[274] = 3
    assert np.array_equal(decode(save(GRAY16, exif=exif)), GRAY16[::-1, ::-1])


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage!", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"]
)
def test_damaged_metadata_are_ignored_silently(save, exif):
    path = save(GRAY8, "film.jpg", exif=exif, icc_profile=b"no profile", quality=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.abs(decode(path).astype(int) - GRAY8).max() < 8


# ---------------------------------------------------------------- size


def test_read_image_is_decode_scaled(save):
    for array in (GRAY8, GRAY16):
        path = save(array)
        for size, mode in [(None, "stretch"), (16, "pad"), ((50, 20), "crop")]:
            expected = to_unit(decode(path, size, mode))
            assert np.array_equal(read_image(path, size=size, resize_mode=mode), expected)


@pytest.mark.parametrize("mode", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [8, (10, 30), (30, 10), (48, 72), (24, 36), 1, (1, 200)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_decoding_to_a_size_is_decoding_then_resizing(save, mode, size, suffix):
    for array in (GRAY8, GRAY16) if suffix == "png" else (GRAY8,):
        path = save(array, f"film.{suffix}")
        expected = resize(decode(path), size, mode)
        assert expected.shape == ((size, size) if isinstance(size, int) else size)
        got = decode(path, size, mode)
        assert got.dtype == expected.dtype
        if suffix == "png" or min(expected.shape) > 16:
            assert np.array_equal(got, expected)
        else:  # the JPEG is decoded at a reduced scale
            assert np.abs(got.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("mode", ["stretch", "pad", "crop"])
def test_resize_keeps_type_and_range(dtype, mode):
    rng = np.random.default_rng(0)
    edges = rng.integers(0, 2, (61, 47))
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    array = (edges * top).astype(dtype)
    for size in [(13, 29), (90, 33), (61, 200)]:
        out = resize(array, size, mode)
        assert out.dtype == dtype
        assert out.shape == size
        assert out.min() >= 0
        assert out.max() <= top
        constant = resize(np.full((61, 47), top, dtype), size, "stretch")
        assert (constant == top).all()


def test_resize_modes_treat_the_aspect_ratio_as_they_say():
    wide = np.zeros((50, 100), np.uint8)
    wide[:, 25:75] = 200
    pad = resize(wide, 40, "pad")
    assert (pad[:10] == 0).all()
    assert (pad[30:] == 0).all()
    assert (pad[12:28, 12:28] == 200).all()
    assert (pad[12:28, :8] == 0).all()
    assert (resize(wide, 40, "crop")[:, 1:-1] == 200).all()
    stretch = resize(wide, 40, "stretch")
    assert (stretch[:, 12:28] == 200).all()
    assert (stretch[:, :8] == 0).all()


def test_resize_without_work_returns_the_array():
    assert resize(GRAY8, None) is GRAY8
    assert resize(GRAY8, GRAY8.shape) is GRAY8


def test_resize_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 128))
    inner = resize(stripes, 16)[:, 1:-1].astype(int)
    assert np.abs(inner - 127).max() <= 2


@pytest.mark.parametrize(
    "size", [0, -1, (0, 5), (5,), (5, 5, 5), 2.5, "8", True, (8.0, 8), (True, 3), None]
)
def test_an_invalid_size_is_named(save, size):
    path = save(GRAY8)
    if size is None:
        with pytest.raises(InputError, match="resize_mode"):
            read_image(path, resize_mode="squash")
        return
    with pytest.raises(InputError, match="size"):
        read_image(path, size=size)
    with pytest.raises(InputError, match="size"):
        resize(GRAY8, size)


def test_arrays_without_a_known_range_are_refused():
    with pytest.raises(InputError, match="int64"):
        to_unit(np.zeros((2, 2), np.int64))
    with pytest.raises(InputError, match="shape"):
        resize(np.zeros((2, 2, 3), np.uint8), 4)
    with pytest.raises(InputError, match="bool"):
        resize(np.zeros((2, 2), bool), 4)
    assert np.array_equal(to_unit(np.array([[True, False]])), [[1, 0]])
    half = np.full((1, 1), 0.25)
    assert to_unit(half).dtype == np.float32
    assert to_unit(half)[0, 0] == 0.25


def smooth(height, width):
    """A picture with structure of every scale, like a radiograph."""
    noise = (
        np.random.default_rng(0)
        .integers(0, 256, (height // 32 + 2, width // 32 + 2))
        .astype(np.uint8)
    )
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("shape", [(1600, 1240), (1277, 1011)])
@pytest.mark.parametrize("mode", ["stretch", "pad", "crop"])
def test_reduced_decoding_is_close_to_full_decoding(save, shape, mode):
    path = save(smooth(*shape), "film.jpg", quality=90)
    got, expected = decode(path, 128, mode), resize(decode(path), 128, mode)
    assert np.abs(got.astype(int) - expected).mean() < 2.5


def test_reduced_decoding_is_faster(save):
    path = save(smooth(3000, 2400), "film.jpg", quality=90)

    def fastest(size):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            decode(path, size)
            times.append(time.perf_counter() - start)
        return min(times)

    assert fastest(128) < 0.8 * fastest(None)


# ---------------------------------------------------------------- bad files


def test_what_lies_at_the_path_is_checked_before_it_is_opened(tmp_path, write):
    assert "no such file" in reason_of(tmp_path / "missing.png")
    assert "no such file" in reason_of(write(b"x", "file.png") / "below.png")
    assert "directory" in reason_of(tmp_path)
    assert "empty" in reason_of(write(b""))
    assert "NUL" in reason_of("a\0b.png")
    assert "system" in reason_of(tmp_path / ("x" * 5000))
    os.symlink(tmp_path / "nowhere", tmp_path / "broken.png")
    assert "no such file" in reason_of(tmp_path / "broken.png")
    os.symlink(tmp_path / "loop.png", tmp_path / "loop.png")
    reason_of(tmp_path / "loop.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "pipe" in reason_of(tmp_path / "pipe.png")
    assert "device" in reason_of(os.devnull)
    assert "pipe" in sniff(tmp_path / "pipe.png")


@pytest.mark.parametrize("path", [0, 3, None, b"film.png", 1.5, ["film.png"], io.BytesIO(b"")])
def test_what_is_no_path_is_an_error_and_no_file_descriptor(path):
    assert type(path).__name__ in reason_of(path)


def test_paths_may_be_of_every_kind(save):
    path = save(GRAY8)
    for kind in (path, str(path), np.str_(path)):
        assert np.array_equal(decode(kind), GRAY8)
    link = path.with_name("link.png")
    os.symlink(path, link)
    assert np.array_equal(decode(link), GRAY8)
    with pytest.raises(ImageReadError) as caught:
        read_image(np.str_("missing.png"))
    assert "'missing.png'" in str(caught.value)
    assert "np.str_" not in str(caught.value)


def test_a_file_without_permission(save, monkeypatch):
    path = save(GRAY8)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert "permission" in reason_of(path)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"%PDF-1.7 ...", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"PK\3\4 archive", "ZIP"),
        (b"GIF89a", "GIF"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS"),
        (b"path,label\na.png,1\n", "no image"),
        (b"BMI of the patients", "no image"),
        (b"\0" * 500, "no image"),
        (b"x", "no image"),
        (b"\0" * 128 + b"DICM" + b"\0" * 50, "DICOM"),
    ],
)
def test_other_kinds_of_files_are_named(write, data, word):
    path = write(data)
    assert word in reason_of(path)
    assert word in sniff(path)


def test_sniff_accepts_images_by_content(save, write):
    for suffix in ("png", "jpg", "tiff", "bmp", "webp"):
        assert sniff(save(GRAY8, f"film.{suffix}")) is None
    assert "empty" in sniff(write(b""))
    assert "no such file" in sniff("missing.png")


def test_the_error_carries_path_and_reason_and_can_be_pickled(write):
    path = write(encoded(Image.fromarray(GRAY8), "PNG")[:-60])
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    error = caught.value
    assert error.path == str(path)
    assert error.__cause__ is not None
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.reason) == (error.path, error.reason)


def bomb(width, height):
    data = png(8, 0, [])
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None, 10**12])
@pytest.mark.parametrize("side", [9_500, 16_000, 60_000])
def test_a_decompression_bomb_is_refused_whatever_pillow_is_set_to(write, monkeypatch, limit, side):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f"{side} x {side} pixels" in reason_of(write(bomb(side, side)))
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_lower_limit_of_pillow_counts(save, monkeypatch):
    path = save(GRAY8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GRAY8.size)
    assert decode(path).shape == GRAY8.shape
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GRAY8.size - 1)
    assert "pixels" in reason_of(path)


def samples():
    """One file of every kind, as bytes."""
    gray, deep = Image.fromarray(smooth(48, 64)), Image.fromarray(GRAY16)
    rgb = Image.merge("RGB", [gray, gray.transpose(Image.Transpose.ROTATE_180), gray])
    exif = Image.Exif()
    exif[274] = 6
    return {
        "png": encoded(gray, "PNG", exif=exif),
        "png16": encoded(deep, "PNG"),
        "png-palette": encoded(rgb.quantize(32), "PNG"),
        "jpeg": encoded(rgb, "JPEG", exif=exif),
        "jpeg-progressive": encoded(gray, "JPEG", progressive=True),
        "tiff": encoded(gray, "TIFF", exif=exif),
        "tiff16-lzw": encoded(deep, "TIFF", compression="tiff_lzw"),
        "bmp": encoded(rgb, "BMP"),
        "webp": encoded(rgb, "WEBP", exif=exif),
        "webp-lossless": encoded(rgb, "WEBP", lossless=True),
    }


SAMPLES = samples()


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_truncated_file_is_an_error_or_complete(write, monkeypatch, name, flag):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", flag)
    data = SAMPLES[name]
    whole = decode(write(data))
    for length in random.Random(0).sample(range(1, len(data)), 40):
        path = write(data[:length])
        try:
            array = decode(path)
        except ImageReadError:
            continue
        assert np.array_equal(array, whole), f"{length} of {len(data)} bytes"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is flag


@pytest.mark.parametrize("name", SAMPLES)
def test_a_damaged_file_is_an_error_or_an_image_and_nothing_else(write, name):
    rng = random.Random(1)
    filters = list(warnings.filters)
    for _ in range(60):
        data = bytearray(SAMPLES[name])
        reach = rng.choice([len(data), min(300, len(data))])
        for _ in range(rng.choice([1, 2, 10])):
            data[rng.randrange(reach)] = rng.randrange(256)
        path = write(bytes(data))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                image = read_image(path, size=rng.choice([None, 16]))
            except ImageReadError:
                continue
        assert image.ndim == 2
        assert image.dtype == np.float32
        assert image.min() >= 0
        assert image.max() <= 1
    assert warnings.filters == filters


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_no_file_stays_open(write):
    before = len(os.listdir("/proc/self/fd"))
    for data in SAMPLES.values():
        decode(write(data))
        reason_of(write(data[: len(data) // 3]))
    assert len(os.listdir("/proc/self/fd")) == before


def test_keyboard_interrupt_passes(save, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_pillow, "_to_gray", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_image(save(GRAY8))


# ---------------------------------------------------------------- threads and warnings


def test_threads_read_the_same_and_leave_the_warning_filters(tmp_path):
    paths = []
    for name, data in SAMPLES.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    expected = [decode(path, 20) for path in paths]
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda path: decode(path, 20), paths * 20))
    for i, result in enumerate(results):
        assert np.array_equal(result, expected[i % len(paths)])
    assert warnings.filters == filters


def test_a_reading_thread_leaves_the_warnings_of_others_alone(save, monkeypatch):
    inside, done = threading.Event(), threading.Event()
    original = _pillow._to_gray

    def slow(*args):
        inside.set()
        done.wait(5)
        return original(*args)

    monkeypatch.setattr(_pillow, "_to_gray", slow)
    thread = threading.Thread(target=decode, args=(save(GRAY8),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        thread.start()
        inside.wait(5)
        with pytest.raises(UserWarning, match="heard"):
            warnings.warn("heard", stacklevel=1)
        done.set()
        thread.join()


# ---------------------------------------------------------------- real radiographs


def test_every_real_radiograph_is_read(shared_data):
    paths = sorted((shared_data / "covid4").glob("*/*"))
    assert len(paths) == 309
    differences = []
    for path in paths:
        array = decode(path)
        with Image.open(path) as image:
            assert array.shape == image.size[::-1]
            plain = np.asarray(image.convert("L")).astype(int)
        assert np.abs(array - plain).mean() < 0.5  # the stored luminance, not one rounded twice
        small = decode(path, 64)
        differences.append(np.abs(small.astype(int) - resize(array, 64)).mean())
    assert np.mean(differences) < 0.6
    assert np.max(differences) < 2
