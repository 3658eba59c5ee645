"""What the benchmarks of the suite share: options, paired runs, lines of a table, films."""

from __future__ import annotations

import atexit
import gc
import importlib.metadata
import itertools
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

LIBRARIES = ("skcxr", "scikit-learn", "torch", "torchvision", "skorch", "numpy", "pillow")


@dataclass(frozen=True)
class Options:
    """What a run of the suite is asked for."""

    quick: bool = False  # a smoke run: sizes and repeats that take seconds
    data: Path | None = None  # a folder with one folder of images per class; None draws phantoms
    weights: str | None = None  # weights of timm:tf_efficientnet_lite0; None draws them
    device: str = "cpu"
    threads: int = 1  # torch threads where a benchmark does not say otherwise
    repeat: int | None = None  # pairs; None takes the benchmark's own number


@dataclass(frozen=True)
class Result:
    """One line: skcxr against one peer.

    `ratio` is the lower quartile, the median and the upper quartile of skcxr's speed over the
    peer's; where amounts are compared, of the peer's amount over skcxr's. Above 1 is good for
    skcxr, always.
    """

    benchmark: str
    what: str
    peer: str
    ratio: tuple[float, float, float]
    ours: str
    theirs: str
    n: int
    bar: float | None = None  # what the ratio should reach, where the project promises something
    note: str = ""
    raw: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())  # what was measured: ours, theirs

    @property
    def verdict(self) -> str:
        """Whether the median reaches the bar; the empty string without one."""
        if self.bar is None:
            return ""
        return "met" if self.ratio[1] >= self.bar else "MISSED"


@dataclass(frozen=True)
class Missing:
    """A line that could not be measured, because the peer is not there."""

    benchmark: str
    what: str
    peer: str
    install: str  # what to do about it: 'pip install ".[peers]"'


def paired(
    ours: Callable[[], object], peers: Mapping[str, Callable[[], object]], n: int
) -> tuple[list[float], dict[str, list[float]]]:
    """Seconds of `ours` and of each peer, in `n` rounds in which each runs once.

    All run once before, unmeasured. The first of a round is another in each round, so that what
    else the machine does hits all alike.
    """
    runs: list[tuple[str | None, Callable[[], object]]] = [(None, ours), *peers.items()]
    for _, call in runs:
        call()
    seconds: dict[str | None, list[float]] = {name: [] for name, _ in runs}
    for k in range(n):
        first = k % len(runs)
        for name, call in runs[first:] + runs[:first]:
            gc.collect()
            seconds[name].append(_seconds(call))
    return seconds[None], {name: seconds[name] for name in peers}


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(
    benchmark: str,
    what: str,
    ours: Callable[[], object],
    peers: Mapping[str, Callable[[], object]],
    n: int,
    *,
    per: int | None = None,
    unit: str = "images",
    bars: Mapping[str, float] = {},
    note: str = "",
) -> list[Result]:
    """A line for each peer, from `n` rounds of :func:`paired`.

    `per` is how many images (or what `unit` says) one call goes through: figures are then those
    a second. `bars` are by peer.
    """
    our_seconds, all_seconds = paired(ours, peers, n)

    def said(seconds: Sequence[float]) -> str:
        middle = float(np.median(seconds))
        return figure(middle, "s") if per is None else figure(per / middle, f"{unit}/s")

    return [
        result(
            benchmark, what, peer, our_seconds, seconds, said(our_seconds), said(seconds),
            bar=bars.get(peer), note=note,
        )
        for peer, seconds in all_seconds.items()
    ]  # fmt: skip


def result(
    benchmark: str,
    what: str,
    peer: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    ours_said: str,
    theirs_said: str,
    *,
    bar: float | None = None,
    note: str = "",
) -> Result:
    """A line from pairs of amounts of which less is better (seconds, bytes)."""
    low, median, high = quartiles(np.divide(theirs, ours))
    return Result(
        benchmark, what, peer, (low, median, high), ours_said, theirs_said, len(ours), bar, note,
        (tuple(ours), tuple(theirs)),
    )  # fmt: skip


def quartiles(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    low, median, high = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
    return low, median, high


def figure(value: float, unit: str) -> str:
    """A number with three digits that count, and its unit.

    >>> figure(1234.5, "images/s"), figure(0.01234, "s"), figure(59.96, "s")
    ('1,234 images/s', '12.3 ms', '60.0 s')
    """
    if unit == "s" and value < 0.1:
        value, unit = 1000 * value, "ms"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


class Scratch:
    """A folder that lives as long as the run."""

    _folder: str | None = None

    @classmethod
    def new(cls, name: str) -> str:
        """Make a folder of its own in it."""
        if cls._folder is None:
            cls._folder = tempfile.mkdtemp(prefix="skcxr-benchmarks-")
            atexit.register(shutil.rmtree, cls._folder, ignore_errors=True)
        return tempfile.mkdtemp(prefix=f"{name}-", dir=cls._folder)


_drawn: dict[int, tuple[list[str], np.ndarray]] = {}
shown: set[str] = set()  # whose films a benchmark has asked for


def films(options: Options, n: int, size: int | None = None) -> tuple[list[str], np.ndarray]:
    """`n` paths of images and their labels, classes in turn.

    They are those of ``options.data``, in a drawn order, which begins anew where there are fewer.
    Without it they are phantoms of `size` pixels (None is 512), JPEG files in a scratch folder; at
    most 64 are drawn, and the others are copies.
    """
    shown.add("phantoms" if options.data is None else options.data.resolve().name)
    if options.data is not None:
        paths, labels = _found(options.data)
        rows = [row for _, row in zip(range(n), itertools.cycle(range(len(paths))), strict=False)]
        return [paths[row] for row in rows], labels[rows]
    size = size or 512
    if size not in _drawn:
        _drawn[size] = _draw(16 if options.quick else 64, size)
    paths, labels = _drawn[size]
    if n <= len(paths):
        return paths[:n], labels[:n]
    return copies(paths, n), np.resize(labels, n)


def _found(folder: Path) -> tuple[list[str], np.ndarray]:
    from skcxr import load_cxr_folder

    data = load_cxr_folder(folder, groups=lambda path: path)
    order = np.random.default_rng(0).permutation(len(data.target))
    return _in_turn([data.data[row] for row in order], data.target[order])


def _draw(n: int, size: int) -> tuple[list[str], np.ndarray]:
    from PIL import Image

    from skcxr import make_cxr_phantoms

    drawn = make_cxr_phantoms(n, image_size=size, random_state=0)
    folder = Scratch.new("films")
    paths = [f"{folder}/{row:03}.jpeg" for row in range(n)]
    for path, image in zip(paths, drawn.data, strict=True):
        Image.fromarray(image).save(path, quality=92)
    return _in_turn(paths, drawn.target)


def _in_turn(paths: list[str], labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """One of each class after the other, as long as there are any."""
    turns = np.empty(len(labels), dtype=int)
    for name in np.unique(labels):
        turns[labels == name] = range(np.sum(labels == name))
    order = np.argsort(turns, kind="stable")
    return [paths[row] for row in order], labels[order]


def in_memory(options: Options, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` images of 224 pixels in memory, as EfficientNet-Lite0 takes them, and their labels."""
    from skcxr import ImageLoader

    paths, labels = films(options, n, size=224)
    return ImageLoader(image_size=224, interpolation="bicubic").fit_transform(paths), labels


def copies(
    paths: Sequence[str], n: int, labels: Sequence[str] | np.ndarray | None = None
) -> list[str]:
    """`n` files in a scratch folder that are links to `paths`, or copies where none can be made.

    With `labels`, each lies in the folder of its class.
    """
    folder = Scratch.new("copies")
    found = []
    for row in range(n):
        path = paths[row % len(paths)]
        below = folder if labels is None else os.path.join(folder, str(labels[row % len(paths)]))
        os.makedirs(below, exist_ok=True)
        target = os.path.join(below, f"{row:07}{os.path.splitext(path)[1]}")
        try:
            os.link(path, target)
        except OSError:  # another disk, too many links
            shutil.copyfile(path, target)
        found.append(target)
    return found


def new_process(code: str, *arguments: str, threads: int = 1) -> list[str]:
    """The lines that `code` prints in an interpreter of its own, with that many threads."""
    import subprocess

    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True,
        env=environment, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"a process of this benchmark failed:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import joblib

    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "not installed"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": joblib.cpu_count(),
        "memory": _memory(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "not told"


def _memory() -> str:
    try:
        n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return "not told"
    return f"{n_bytes / 2**30:.0f} GiB"


def one_at_a_time(lines: Iterator[Result | Missing]) -> Iterator[Result | Missing]:
    """Lines of a benchmark, each checked to be one."""
    for line in lines:
        if not isinstance(line, Result | Missing):
            raise TypeError(f"a benchmark yields Result and Missing, not {type(line).__name__}")
        yield line
