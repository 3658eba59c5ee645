"""The image cache: a second pass over a folder against the first, and against no cache.

python -m benchmarks.cache FOLDER [--size 128] [--repeat 5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from skcxr import ImageLoader


def seconds(loader: ImageLoader, paths: list[str]) -> float:
    """One pass."""
    start = time.perf_counter()
    loader.transform(paths)
    return time.perf_counter() - start


def main() -> None:
    """Print medians of each pass and the ratios of every repetition."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--n-jobs", type=int, default=None)
    options = parser.parse_args()
    paths = sorted(str(path) for path in options.folder.rglob("*") if path.is_file())
    arguments: dict[str, Any] = {"image_size": options.size, "n_jobs": options.n_jobs}
    ImageLoader(**arguments).transform(paths)  # the files are in the system's memory from here on
    rows = []
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory() as folder:
            loader = ImageLoader(**arguments, memory=folder)
            plain, first, second = (
                seconds(ImageLoader(**arguments), paths), seconds(loader, paths),
                seconds(loader, paths),
            )  # fmt: skip
            rows.append((plain, first, second, first / second, plain / second))
    names = ("no cache", "first pass", "second pass", "first / second", "no cache / second")
    print(f"{len(paths)} files at {options.size} px, n_jobs={options.n_jobs}, {len(rows)} times")
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        print(f"{name:18} median {statistics.median(values):.3f}, {min(values):.3f} to "
              f"{max(values):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
