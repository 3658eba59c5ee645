"""Unpack archives that were mutated, as `skcxr.datasets.fetch_*` does.

    python tests/fuzz/fuzz_archives.py --mutations 20000 --seed 0

No address is opened: the archive lies where a download would have put it.
"""

from __future__ import annotations

import io
import random
import shutil
import stat
import sys
import zipfile
from pathlib import Path

from harness import EDGES, Target, aside, main, mutate_bytes

LIMIT = 5_000_000
NAMES = [
    "../x",
    "/x",
    "a/../../x",
    "C:\\x",
    "a\\..\\x",
    "x\0y",
    "",
    ".",
    "a//b",
    "e" * 300,
    "é",
    "train/A/1.png",
    "TRAIN/a/1.png",
    ".whole.json",
    "train/A",
    "train/A/1.png/x",
]


def packed(members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, how)
    return stream.getvalue()


def make_seeds(folder: Path | None = None) -> dict[str, bytes]:
    films = {f"train/{c}/{k}.png": bytes([k]) * 200 for c in "AB" for k in range(3)}
    return {
        "stored": packed(films, zipfile.ZIP_STORED),
        "deflated": packed(films),
        "nested": packed({"x/": b"", **{f"x/{name}": data for name, data in films.items()}}),
        "bzip2": packed(films, zipfile.ZIP_BZIP2),
        "empty": packed({}),
    }


def mutate(seeds: dict[str, bytes], rng: random.Random) -> tuple[str, bytes]:
    name = rng.choice([*seeds])
    data = seeds[name]
    if rng.random() < 0.4:
        return name, mutate_bytes(data, rng, [*seeds.values()])
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except (zipfile.BadZipFile, EOFError, OSError):
        return name, mutate_bytes(data, rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for entry, content in members.items():
            info = zipfile.ZipInfo(rng.choice(NAMES) if rng.random() < 0.2 else entry)
            info.filename = info.filename or "x"
            if rng.random() < 0.1:
                info.external_attr = (
                    rng.choice([stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR]) << 16
                )
                content = rng.choice([b"/etc/passwd", b"../..", content])
            if rng.random() < 0.05:
                content = b"\0" * 20_000_000
            archive.writestr(info, content, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    out = bytearray(stream.getvalue())
    if rng.random() < 0.5:  # numbers of the directory
        at = out.rfind(b"PK\1\2", 0, rng.randrange(len(out)) + 4)
        if at >= 0 and at + 46 <= len(out):
            k, width = rng.choice(
                [(6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4)]
            )
            out[at + k : at + k + width] = (rng.choice(EDGES) % 256**width).to_bytes(
                width, "little"
            )
    return name, bytes(out)


def run(data: bytes, folder: Path) -> str:
    from skcxr.datasets import _unpack

    work = folder / "home"
    with aside():
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    archive = work / "films.zip"
    archive.write_bytes(data)

    def keep(name: str) -> str | None:
        return name if name.endswith(".png") else None

    try:
        _unpack._unpack(str(archive), str(work / "films"), keep, LIMIT, lambda: None)
    except _unpack._ArchiveFault as error:
        if (work / "films").exists():
            raise AssertionError(f"a part of a data set: {error}") from error
        return "refused"
    except OSError as error:  # which fetch_folder makes a DownloadError of
        if (work / "films").exists():
            raise AssertionError(f"a part of a data set: {error}") from error
        return "not written"
    if not _unpack.is_whole(str(work / "films")):
        raise AssertionError("not whole")
    for path in (work / "films").rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise AssertionError(f"{path} is no regular file")
    return "unpacked"


TARGET = Target("fuzz_archives", make_seeds, mutate, run, base_megabytes=600)

if __name__ == "__main__":
    sys.exit(main(TARGET))
