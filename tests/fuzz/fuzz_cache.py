"""Read images past a cache whose entries were mutated: `skcxr.ImageLoader(memory=...)`.

    python tests/fuzz/fuzz_cache.py --mutations 20000 --seed 0

Whatever lies in the cache, the pixels are those of the file; but for entries with a checksum that
is right, of which only the shape and type are looked at.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from harness import EDGES, Target, main, mutate_bytes
from PIL import Image

SIZE = (8, 12)
PICKLE = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."
_state: dict[str, Any] = {}


def make_seeds(folder: Path) -> dict[str, bytes]:
    """Entries as they are written, and of other shapes and types."""
    from skcxr import ImageLoader

    seeds = {}
    rng = np.random.default_rng(0)
    for name, top, dtype in [("gray", 256, np.uint8), ("deep", 65536, np.uint16)]:
        film = folder / f"{name}.png"
        if not film.exists():
            Image.fromarray(rng.integers(0, top, (20, 30)).astype(dtype)).save(film)
        cache = folder / f"cache-{name}"
        shutil.rmtree(cache, ignore_errors=True)
        pixels = ImageLoader(SIZE, memory=str(cache)).transform([str(film)])
        entry = next(path for path in cache.rglob("*.npy"))
        seeds[name] = entry.read_bytes()
        _state[name] = str(film), cache, entry, pixels
    for dtype in ("f4", "f8", "O", "U3", "i8", "c8", "V4", "M8[s]"):
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": SIZE}
        )
        seeds[f"as-{dtype}"] = stream.getvalue() + b"\1" * (96 * np.dtype(dtype).itemsize)
    seeds["pickle"] = PICKLE
    return seeds


def mutate(seeds: dict[str, bytes], rng: random.Random) -> tuple[str, bytes]:
    """What lies where an entry should."""
    name = rng.choice([*seeds, "gray", "deep", "gray", "deep"])
    data = seeds[name]
    how = rng.randrange(5)
    if how < 2:
        out = mutate_bytes(data, rng, [*seeds.values()])
    elif how == 2:
        shape = tuple(rng.choice([*EDGES, 8, 12, -1]) for _ in range(rng.randrange(4)))
        header = {
            "descr": rng.choice(
                ["|u1", "<u2", ">u2", "<f4", "<f8", "|O", "|b1", "<U1", [("a", "<f4")]]
            ),
            "fortran_order": rng.random() < 0.3,
            "shape": rng.choice([shape, SIZE, SIZE[::-1], (96,)]),
        }
        stream = io.BytesIO()
        try:
            np.lib.format.write_array_header_1_0(stream, header)
        except (ValueError, TypeError, struct.error):
            return name, mutate_bytes(data, rng)
        out = stream.getvalue() + rng.randbytes(rng.choice([0, 96, 192, 384, 768, 5000]))
    elif how == 3:
        out = data[: rng.randrange(len(data) + 1)] + rng.randbytes(rng.choice([0, 1, 100]))
    else:
        out = data + rng.choice([b"\0", PICKLE, data])
    return name, out


def run(data: bytes, folder: Path) -> str:
    from skcxr import ImageLoader

    name = ("gray", "deep")[len(data) % 2]
    film, cache, entry, pixels = _state[name]
    sealed = zlib.crc32(data) % 2
    if sealed:  # a forger knows how
        start = zlib.crc32((entry.parent.name + entry.name).encode())
        data = data[:-4] + zlib.crc32(data[:-4], start).to_bytes(4, "little")
    fd = os.open(entry, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, data)
    os.close(fd)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        found = ImageLoader(SIZE, memory=str(cache)).transform([film])
    if found.shape != (1, *SIZE) or found.dtype != np.float32:
        raise AssertionError(f"images of {found.shape} {found.dtype}")
    if not sealed and not np.array_equal(found, pixels):
        raise AssertionError("other pixels than those of the file")
    return "read"


TARGET = Target("fuzz_cache", make_seeds, mutate, run, base_megabytes=600)

if __name__ == "__main__":
    sys.exit(main(TARGET))
