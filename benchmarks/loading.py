"""Reading: skcxr against Pillow by hand, torchvision.io, and ImageFolder with a DataLoader.

Files -> gray -> 224 x 224 -> float32 in [0, 1], on one thread where nothing else is said. JPEG and
PNG are also shown apart, as a PNG takes several times as long. Then the cache on disk: its first
pass, which writes, and its second, against decoding by Pillow and by skcxr. Then whole batches of
32, without and with processes, and an epoch from the RAM buffer.

All files are in the system's memory before anything is measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks._suite import Missing, Options, Result, Scratch, compare, copies, films
from skcxr import ImageLoader
from skcxr._cache import Decoder
from skcxr.batches import BatchLoader, ImageDataset

SIZE = 224
N = 309
BATCH = 32
PILLOW, TORCHVISION = "Pillow by hand", "torchvision.io"


def run(options: Options) -> Iterator[Result | Missing]:
    """Decoding, the cache, batches."""
    paths, labels = films(options, 16 if options.quick else N)
    repeat = options.repeat or (2 if options.quick else 9)
    yield from decoding(paths, repeat)
    yield from cache(paths, repeat)
    yield from batches(paths, labels, repeat, (0,) if options.quick else (0, 2))


def decoding(paths: Sequence[str], n: int) -> Iterator[Result]:
    """One image after the other, on one thread."""
    loader = ImageLoader(SIZE)
    bars = {PILLOW: 1.5, TORCHVISION: 1.3}
    what = f"decode, gray, resize to {SIZE}, one thread"
    yield from compared(what, loader.transform, paths, n, bars)
    png = [path for path in paths if _is_png(path)]
    if 0 < len(png) < len(paths):
        jpeg = [path for path in paths if path not in set(png)]
        yield from compared(f"{what}: JPEG alone", loader.transform, jpeg, n)
        yield from compared(f"{what}: PNG alone", loader.transform, png, n)


def cache(paths: Sequence[str], n: int) -> Iterator[Result]:
    """The first pass with a cache, which writes it, and the second."""
    plain, kept = ImageLoader(SIZE), ImageLoader(SIZE, memory=Scratch.new("cache"))

    def first() -> None:  # in a new folder each time: to remove an old one takes longer
        ImageLoader(SIZE, memory=Scratch.new("cache")).transform(paths)

    no_cache = "skcxr without a cache"
    yield from compare(
        "loading", "first pass with memory=, which writes", first,
        {no_cache: lambda: plain.transform(paths)}, n, per=len(paths),
    )  # fmt: skip
    kept.transform(paths)
    yield from compare(
        "loading", "second pass with memory=", lambda: kept.transform(paths),
        {PILLOW: lambda: by_pillow(paths), no_cache: lambda: plain.transform(paths)}, n,
        per=len(paths), bars={PILLOW: 15, no_cache: 15},
    )  # fmt: skip


def batches(
    paths: Sequence[str], labels: np.ndarray, n: int, workers: Sequence[int]
) -> Iterator[Result]:
    """Batches for a network, from files in this process and in others, and from memory."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    linked = copies(paths, len(paths), labels)
    root = os.path.dirname(os.path.dirname(linked[0]))
    steps = [
        v2.Grayscale(), v2.Resize((SIZE, SIZE), antialias=True), v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
    ]  # fmt: skip
    peer = "torchvision ImageFolder and DataLoader"
    for n_workers in workers:
        theirs = DataLoader(
            ImageFolder(root, v2.Compose(steps)), BATCH, num_workers=n_workers,
            persistent_workers=n_workers > 0,
        )  # fmt: skip
        ours = BatchLoader(_dataset(linked), BATCH, num_workers=n_workers)
        yield from compare(
            "loading", f"batches of {BATCH}, num_workers={n_workers}", _passing(ours),
            {peer: _passing(theirs)}, n, per=len(paths),
        )  # fmt: skip
    if max(workers) > 1:
        yield from threads_and_processes(linked, n, max(workers))
    buffered = BatchLoader(_dataset(linked, ram_limit=1 << 30), BATCH)
    fresh = BatchLoader(_dataset(linked), BATCH)
    yield from compare(
        "loading", "second epoch from the RAM buffer", _passing(buffered),
        {"skcxr from files": _passing(fresh)}, n, per=len(paths),
    )  # fmt: skip


def threads_and_processes(paths: Sequence[str], n: int, number: int) -> Iterator[Result]:
    """As many threads in one process against as many processes of one thread."""
    before = torch.get_num_threads()
    processes = BatchLoader(_dataset(paths), BATCH, num_workers=number)
    torch.set_num_threads(number)
    try:
        yield from compare(
            "loading", f"batches of {BATCH}, {number} threads", _passing(
                BatchLoader(_dataset(paths), BATCH)
            ), {f"skcxr with num_workers={number}": _passing(processes)}, n, per=len(paths),
        )  # fmt: skip
    finally:
        torch.set_num_threads(before)


def compared(
    what: str,
    ours: Callable[[Sequence[str]], Any],
    paths: Sequence[str],
    n: int,
    bars: dict[str, float] | None = None,
) -> list[Result]:
    """Against both peers that read one file after the other."""
    peers = {PILLOW: lambda: by_pillow(paths), TORCHVISION: lambda: by_torchvision(paths)}
    return compare("loading", what, lambda: ours(paths), peers, n, per=len(paths), bars=bars or {})


def by_pillow(paths: Sequence[str]) -> np.ndarray:
    """The plain way."""
    images = np.empty((len(paths), SIZE, SIZE), np.float32)
    for image, path in zip(images, paths, strict=True):
        with Image.open(path) as file:
            gray = file.convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        image[:] = np.asarray(gray, np.float32) / 255
    return images


def by_torchvision(paths: Sequence[str]) -> torch.Tensor:
    """The plain way with torch alone."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2 import functional

    images = torch.empty((len(paths), 1, SIZE, SIZE))
    for image, path in zip(images, paths, strict=True):
        gray = decode_image(path, ImageReadMode.GRAY)
        image[:] = functional.resize(gray, [SIZE, SIZE], antialias=True) / 255
    return images


def _dataset(paths: Sequence[str], ram_limit: int = 0) -> ImageDataset:
    return ImageDataset(list(paths), (SIZE, SIZE), ram_limit=ram_limit, decode=Decoder())


def _passing(loader: Any) -> Callable[[], None]:
    def once() -> None:
        for _ in loader:
            pass

    return once


def _is_png(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x89PNG"
