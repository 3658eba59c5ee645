"""Mutated and hostile files: nothing foreign comes out, nothing hangs, nothing fills the memory."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skcxr import (
    DatasetError,
    ImageReadError,
    InputError,
    load_cxr_folder,
    load_cxr_table,
    read_image,
)
from skcxr.metrics import predictive_values, target_sensitivity

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

import fuzz_images  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the harness needs alarms")

TARGETS = {
    "images": 300,
    "tables": 150,
    "folders": 150,
    "cache": 100,
    "command": 60,
    "archives": 80,
}


def fuzz(name, *options, cwd=None):
    command = [sys.executable, str(FUZZ / f"fuzz_{name}.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=cwd)


@pytest.mark.parametrize("name", ["images", "tables"])
def test_some_mutations(name, tmp_path):
    done = fuzz(name, "--mutations", TARGETS[name], "--seed", 1, "--keep", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_mutations(name, tmp_path):
    n = 10 * TARGETS[name]
    done = fuzz(name, "--mutations", n, "--seed", 2, "--keep", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_guided_by_coverage(tmp_path):
    pytest.importorskip("atheris", reason="it has wheels for Linux on x86_64")
    done = fuzz(
        "images", "--runs", 2000, "--keep", tmp_path, "--corpus", tmp_path / "c", cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_mutations_are_the_same_for_the_same_seed():
    import random

    first, second = fuzz_images.make_seeds(), fuzz_images.make_seeds()
    assert first == second
    for k in range(50):
        assert fuzz_images.mutate(first, random.Random(k)) == fuzz_images.mutate(
            second, random.Random(k)
        )


def test_a_failure_is_seen_and_kept(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(FUZZ)!r})\n"
        "import fuzz_images, harness\n"
        "def run(data, folder):\n"
        "    if len(data) % 7 == 0:\n"
        "        raise KeyError('x')\n"
        "    if len(data) % 7 == 1:\n"
        "        open('stray', 'w').close()\n"
        "    return 'read'\n"
        "fuzz_images.TARGET.run = run\n"
        "from pathlib import Path\n"
        "seen = set()\n"
        "for n in range(3):\n"
        "    try:\n"
        f"        harness.check(fuzz_images.TARGET, b'x' * n, Path({str(tmp_path / 'in')!r}))\n"
        "    except harness.Wrong as error:\n"
        "        seen.add(str(error)[:8])\n"
        "print(sorted(seen))\n"
    )
    (tmp_path / "in").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "['KeyError', 'outside ']\n", done.stderr


# ---------------------------------------------------------------- images by hand


def refused(path, word):
    start = time.process_time()
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    assert word in caught.value.reason
    assert time.process_time() - start < 5


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def progressive(side, n_scans):
    """A progressive JPEG whose scans are all zeros: a few bytes for each pass over all pixels."""
    n_runs = (side // 8 + 1) ** 2 // 16384 + 1
    bits = ("0" + "1" * 14) * n_runs
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    head = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64)
    head += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    head += segment(0xC4, b"\0\1" + b"\0" * 16) + segment(0xC4, b"\x10\1" + b"\0" * 15 + b"\xe0")
    scan = segment(0xDA, b"\1\1\0\1\x3f\0") + body
    return head + segment(0xDA, b"\1\1\0\0\0\0") + b"\0" * 8 + scan * n_scans + b"\xff\xd9"


def test_a_jpeg_of_thousands_of_scans(tmp_path):
    path = tmp_path / "film.jpg"
    path.write_bytes(progressive(2000, 400))
    refused(path, "scans")
    path.write_bytes(progressive(64, 5000))
    refused(path, "scans")
    path.write_bytes(progressive(64, 20))
    assert read_image(path).shape == (64, 64)


def test_scans_of_thumbnails_are_not_counted(tmp_path):
    path = tmp_path / "film.jpg"
    comment = segment(0xFE, b"\xff\xda" * 30_000)
    data = progressive(64, 5)
    path.write_bytes(data[:2] + comment + data[2:])
    assert read_image(path).shape == (64, 64)


@pytest.mark.parametrize("part", ["png", "jpeg", "jpeg-junk"])
def test_files_of_a_million_parts(tmp_path, part):
    path = tmp_path / "film"
    png = fuzz_images.make_seeds()["png-gray"]
    jpeg = progressive(64, 1)
    path.write_bytes({
        "png": png[:33] + fuzz_images.chunk(b"abcd", b"") * 500_000 + png[33:],
        "jpeg": jpeg[:2] + segment(0xFE, b"") * 800_000 + jpeg[2:],
        "jpeg-junk": b"\xff\xd8\xff" + b"\0" * 2_000_000 + jpeg[2:],
    }[part])  # fmt: skip
    refused(path, "parts")


def test_sides_and_files_have_a_limit(tmp_path):
    path = tmp_path / "film.png"
    Image.new("1", (66_000, 1)).save(path)
    refused(path, "65535")
    path.write_bytes(fuzz_images.make_seeds()["png-gray"])
    os.truncate(path, 2**31)  # a hole takes no place on the disk
    refused(path, "bytes")


def test_a_tiff_of_a_million_strips(tmp_path):
    path = tmp_path / "film.tiff"
    n = 1_000_000
    entries = [(256, 4, 1, 8), (257, 4, 1, n), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
               (273, 4, n, 16), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, n, 16)]  # fmt: skip
    path.write_bytes(fuzz_images.tiff(entries, b"\0" * 8 + struct.pack("<I", 8) * n))
    refused(path, "values")


def test_a_tiff_in_huge_pieces(tmp_path):
    path = tmp_path / "film.tiff"
    entries = [(256, 4, 1, 36), (257, 4, 1, 24), (258, 3, 1, 8), (259, 3, 1, 50000), (262, 3, 1, 1),
               (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 24), (279, 4, 1, 8)]  # fmt: skip
    path.write_bytes(fuzz_images.tiff([*entries, (323, 4, 1, 1 << 24)], b"\0" * 8))
    refused(path, "pieces")
    path.write_bytes(fuzz_images.tiff([*entries, (322, 4, 1, 9000), (323, 4, 1, 9000)], b"\0" * 8))
    refused(path, "damaged")


def test_a_run_length_bmp_has_fewer_pixels(tmp_path):
    data = bytearray(fuzz_images.make_seeds()["bmp-rle"])
    struct.pack_into("<ii", data, 18, 5000, 5000)
    path = tmp_path / "film.bmp"
    path.write_bytes(data)
    refused(path, "16000000")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize("mode", ["LA", "RGBA", "I;16", "F"])
def test_the_largest_images_stay_below_a_gigabyte(tmp_path, mode):
    path = tmp_path / ("film.tiff" if mode == "F" else "film.png")
    options = {"compression": "tiff_adobe_deflate"} if mode == "F" else {"compress_level": 1}
    small = Image.new(mode, (9400, 600))
    small.save(path, **options)
    if mode != "F":  # higher than it is drawn here
        lines = zlib.compress(bytes(1 + 9400 * (4 if mode == "RGBA" else 2)) * 9400, 1)
        data = path.read_bytes()
        header = struct.pack(">II", 9400, 9400) + data[24:29]
        chunks = [(b"IHDR", header), (b"IDAT", lines), (b"IEND", b"")]
        path.write_bytes(data[:8] + b"".join(fuzz_images.chunk(*chunk) for chunk in chunks))
    code = (
        "import sys; from skcxr.images import read_image\n"
        "read_image(sys.argv[1], size=128)\n"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1 << 20


def test_bands_give_what_the_whole_gives(tmp_path, monkeypatch):
    from skcxr import _pillow

    whole = {}
    path = tmp_path / "film"
    seeds = {k: v for k, v in fuzz_images.make_seeds().items() if not k.startswith("dicom")}
    for name, data in seeds.items():
        path.write_bytes(data)
        whole[name] = read_image(path)
    monkeypatch.setattr(_pillow, "_BAND_PIXELS", 100)
    for name, data in seeds.items():
        path.write_bytes(data)
        assert np.array_equal(read_image(path), whole[name]), name


def test_wanted_sizes_have_a_limit(tmp_path):
    path = tmp_path / "film"
    path.write_bytes(fuzz_images.make_seeds()["png-gray"])
    for size in (10**6, (1, 10**5), 10**30):
        with pytest.raises(InputError, match="larger"):
            read_image(path, size=size)


# ---------------------------------------------------------------- tables and folders by hand


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.png"
    path.write_bytes(fuzz_images.make_seeds()["png-gray"])
    return path


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/x.csv", "s3://x/y.csv", "file:///etc/passwd",
                                     "memory://x", "github://a:b@/x.csv"])  # fmt: skip
def test_an_address_is_no_table(address, monkeypatch):
    import socket

    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(DatasetError, match="cannot be opened"):
        load_cxr_table(address)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(DatasetError, match="pipe"):
        load_cxr_table(tmp_path / "t.csv")
    with pytest.raises(DatasetError, match="regular"):
        load_cxr_table("/dev/zero")


def test_packed_tables_are_read_and_bombs_are_not(tmp_path, film):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"path,target,group\nfilm.png,ill,a\n"))
    assert load_cxr_table(path, groups="group").target.tolist() == ["ill"]
    path.write_bytes(gzip.compress(b"path,target\n" + b"x" * 200_000_000, 1))
    with pytest.raises(DatasetError, match="unpacked"):
        load_cxr_table(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"path,target\n" + b",\n" * 6_000_000, "cells"),
        (b",".join(b"c%d" % k for k in range(20_000)) + b"\n", "columns"),
        (b"path," + b"x" * 2_000_000 + b"\n", "no table|columns"),
        (b"path,target\nfilm.png," + b"x" * 5000 + b"\n", "5,000 characters"),
    ],
)
def test_tables_that_would_fill_the_memory(tmp_path, film, content, word):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=word) as caught:
        load_cxr_table(path)
    assert len(str(caught.value)) < 2000


def test_a_long_patient_or_path_is_named_shortly(tmp_path, film):
    path = tmp_path / "t.csv"
    path.write_bytes(b"path,target,group\nfilm.png,ill," + b"p" * 5000 + b"\n")
    with pytest.raises(DatasetError, match="5,000 characters"):
        load_cxr_table(path, groups="group")
    path.write_bytes(b"path,target\n" + b"p" * 100_000 + b",ill\n")
    with pytest.raises(DatasetError) as caught:
        load_cxr_table(path)
    assert len(str(caught.value)) < 2000


def test_lists_in_a_column_of_paths(film):
    import pandas as pd

    table = pd.DataFrame({"path": [[], [str(film)], str(film)], "target": ["a", "a", "a"]})
    table["group"] = "p"
    assert load_cxr_table(table, groups="group").data == [str(film)]


@pytest.mark.parametrize("column", ["path", "target", "groups", "source"])
@pytest.mark.parametrize("value", [[["x"]], np.zeros((2, 2)), np.array(3), {}, 2.5])
def test_what_is_no_column(film, column, value):
    import pandas as pd

    table = pd.DataFrame({"path": [str(film)], "target": ["a"]})
    with pytest.raises(DatasetError):
        load_cxr_table(table, **{column: value})


@pytest.mark.parametrize("root", [5, None, 2.5, ["x"]])
def test_what_is_no_folder(root):
    with pytest.raises(DatasetError):
        load_cxr_folder(root)


def test_links_among_folders_are_followed_once(tmp_path, film):
    """Thirty folders with two links each to the next would be a billion paths."""
    for k in range(30):
        (tmp_path / "pool" / str(k)).mkdir(parents=True)
    for k in range(29):
        for name in "ab":
            (tmp_path / "pool" / str(k) / name).symlink_to(tmp_path / "pool" / str(k + 1))
    (tmp_path / "pool" / "29" / "x-1.png").write_bytes(film.read_bytes())
    (tmp_path / "root" / "ill").mkdir(parents=True)
    (tmp_path / "root" / "ill" / "0").symlink_to(tmp_path / "pool" / "0")
    bunch = load_cxr_folder(tmp_path / "root", groups="x")
    assert len(bunch.data) == 1
    assert any("read already" in reason for _, reason in bunch.skipped)


def test_a_deep_folder_is_walked(tmp_path, film):
    below = tmp_path / "root" / "ill"
    below.mkdir(parents=True)
    here = os.getcwd()
    try:
        os.chdir(below)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    (below / "x.png").write_bytes(film.read_bytes())
    try:
        assert len(load_cxr_folder(tmp_path / "root", groups="x").data) == 1
    finally:  # shutil.rmtree, which pytest calls, would recurse too deeply
        subprocess.run(["rm", "-rf", str(below)], check=True)


# ---------------------------------------------------------------- numbers by hand


def test_scores_and_rates_that_are_none():
    huge = np.broadcast_to(np.uint8(0), (2, 40_000_000, 1000))
    with pytest.raises(InputError):
        predictive_values(huge, 0.9, 0.1)
    with pytest.raises(InputError):
        predictive_values(10**400, 0.9, 0.1)
    with pytest.raises(InputError):
        target_sensitivity(huge, huge, pos_label=1)
    with pytest.raises(InputError, match="fit"):
        predictive_values([0.1, 0.2], [0.1, 0.2, 0.3], 0.1)
    with pytest.raises(InputError, match="entries"):
        target_sensitivity([1, 0], [1], pos_label=1)
