"""Whether the cache of decoded images is right where processes are killed.

    python -m benchmarks.cache [FOLDER] --kill 10 [--n-images 1000] [--size 64]

Two processes read the same files through one cache, at four sizes, and compare what they get with
what decoding gives. They are killed (SIGKILL) at random moments and started again that many times;
all but a tenth of the entries are removed each time, so that there is always something to write.
Without a folder the files are drawn. The exit status is 1 where an array was wrong. How fast the
cache is, ``python -m benchmarks loading`` says.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from skcxr import ImageLoader, make_cxr_phantoms


def read_for_ever(paths: list[str], expected: dict[int, Any], cache: str, seed: int) -> None:
    """Read in random order and size until killed; exit with 1 at the first array that is wrong."""
    try:
        rng = np.random.default_rng(seed)
        while True:
            size = int(rng.choice(list(expected)))
            chosen = rng.choice(len(paths), 20)
            found = ImageLoader(size, memory=cache).transform([paths[index] for index in chosen])
            if not np.array_equal(found, expected[size][chosen]):
                os._exit(1)
    except BaseException as error:
        print(error, file=sys.stderr)
        os._exit(2)


def survive(paths: list[str], size: int, n_kills: int, seed: int = 0) -> int:
    """Kill and restart two readers of one cache; the number of things that went wrong."""
    draw = random.Random(seed)
    expected = {side: ImageLoader(side).transform(paths) for side in range(size - 3, size + 1)}
    wrong = n_entries = 0
    with tempfile.TemporaryDirectory() as cache:
        for restart in range(n_kills):
            readers = []
            for k in range(2):
                if (pid := os.fork()) == 0:
                    read_for_ever(paths, expected, cache, 2 * restart + k)
                readers.append(pid)
            for pid in readers:
                time.sleep(draw.uniform(0.05, 0.5))
                os.kill(pid, signal.SIGKILL)
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in readers]
            wrong += sum(code != -signal.SIGKILL for code in codes)
            entries = sorted(Path(cache).rglob("*.npy"))
            n_entries += len(entries)
            for entry in draw.sample(entries, len(entries) * 9 // 10):
                entry.unlink()
        n_parts = len(list(Path(cache).rglob("*.part")))
        for side, images in expected.items():
            for _ in range(2):
                found = ImageLoader(side, memory=cache).transform(paths)
                wrong += not np.array_equal(found, images)
    print(f"{len(paths)} files at 4 sizes, 2 processes killed {n_kills} times at "
          f"{n_entries / n_kills:.0f} entries on average, {n_parts} unfinished files left: "
          f"{wrong} wrong")  # fmt: skip
    return wrong


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--kill", type=int, default=10)
    parser.add_argument("--n-images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder
        if folder is None:
            folder = Path(scratch) / "films"
            make_cxr_phantoms(options.n_images, image_size=64, random_state=0, save_to=folder)
        paths = sorted(str(path) for path in folder.rglob("*.*") if path.is_file())
        sys.exit(survive(paths, options.size, options.kill, options.seed) > 0)


if __name__ == "__main__":
    main()
