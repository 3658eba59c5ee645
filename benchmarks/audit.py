"""How fast an audit is, and what it finds of what was planted.

    python -m benchmarks.audit DATA [--draws 20] [--skip-phantoms]

Three parts:

- seconds for the 5,088 files of DATA/kermany224, against reading the same files alone;
- copies of 40 images of DATA/covid4 (resized, recompressed, brighter or darker, mirrored) put among
  all 309: recall and precision of the pairs that are named. Pairs of originals that are true copies
  of each other do not count either way: they are listed, to be looked at;
- phantoms with a border or a brightness that tells the class, and with nothing planted: how often
  that is named, and how often there is an alarm.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from skcxr import ImageLoader, load_cxr_folder, make_cxr_phantoms
from skcxr.audit import audit_dataset

WAYS = ("resized", "recompressed", "brightness", "mirrored")
SIZES = ((60, 64, 4), (60, 96, 2), (120, 96, 4), (120, 160, 3), (240, 128, 4))


def speed(data: Path) -> None:
    """A whole audit against the reading of the files."""
    bunch = load_cxr_folder(data / "kermany224")
    start = time.perf_counter()
    ImageLoader(64).fit_transform(bunch.data)
    reading = time.perf_counter() - start
    start = time.perf_counter()
    report = audit_dataset(bunch.data, bunch.target, groups=bunch.groups)
    whole = time.perf_counter() - start
    print(
        f"{len(bunch.data)} files: audit {whole:.1f} s, ImageLoader(64) {reading:.1f} s, ratio "
        f"{whole / reading:.1f}; {report.summary()}"
    )


def changed(image: Image.Image, way: str, rng: np.random.Generator) -> Image.Image:
    """A copy that a person would take for the same film."""
    if way == "resized":
        scale = rng.choice([0.4, 0.6, 0.8])
        return image.resize((round(image.width * scale), round(image.height * scale)))
    if way == "brightness":
        shift = int(rng.choice([-40, -20, 20, 40]))
        return image.point(lambda value: min(255, max(0, value + shift)))
    return ImageOps.mirror(image) if way == "mirrored" else image


def duplicates(data: Path, seed: int) -> None:
    """Recall and precision of planted copies."""
    table = pd.read_csv(data / "covid4.csv")
    paths = [str(data / "covid4" / path) for path in table["path"]]
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        planted, copies = set(), []
        for row in rng.choice(len(paths), 40, replace=False).tolist():
            image = Image.open(paths[row]).convert("L")
            for way in WAYS:
                copies.append((f"{folder}/{row:03}-{way}.jpg", row))
                quality = 40 if way == "recompressed" else 90
                changed(image, way, rng).save(copies[-1][0], quality=quality)
        every = [*paths, *(path for path, _ in copies)]
        origin = np.array([*range(len(paths)), *(row for _, row in copies)])
        report = audit_dataset(
            every, table["finding"].to_numpy()[origin], groups=table["patient"].to_numpy()[origin]
        )
        names = {Path(path).name: k for k, path in enumerate(every)}
        first, second = report.tables["duplicates"].columns[:2]
        found = {
            tuple(sorted((names[Path(a).name], names[Path(b).name])))
            for a, b in zip(
                report.tables["duplicates"][first], report.tables["duplicates"][second], strict=True
            )
        }
    planted = {(row, len(paths) + k) for k, (_, row) in enumerate(copies)}
    same = {pair for pair in found if origin[pair[0]] == origin[pair[1]]}
    others = {tuple(sorted(origin[list(pair)].tolist())) for pair in found - same}
    print(f"planted copies: {len(planted)}, of which {len(planted & found)} are named with their "
          f"original: recall {len(planted & found) / len(planted):.3f}")  # fmt: skip
    print(
        f"pairs named: {len(found)}, of one original {len(same)} (precision "
        f"{len(same) / max(1, len(found)):.3f} where none of the others is true); the other "
        f"{len(found - same)} are of {len(others)} pairs of originals, to be looked at:"
    )
    for a, b in sorted(others):
        print(f"  {table['path'][a]} = {table['path'][b]}")


def phantoms(draws: int) -> None:
    """Alarms with and without something planted."""
    for n, size, k in SIZES:
        line = [f"{n} images of {size} pixels, {k} classes:"]
        for shortcut in ("border", "brightness", None):
            number = draws if shortcut else 2 * draws
            hits = 0
            for seed in range(9000, 9000 + number):
                bunch = make_cxr_phantoms(
                    n, n_classes=k, image_size=size, shortcut=shortcut, random_state=seed
                )
                report = audit_dataset(
                    bunch.data, bunch.target, groups=bunch.groups, progress=False
                )
                checks = [finding.check for finding in report.alarms]
                hits += (shortcut in checks) if shortcut else bool(checks)
            line.append(f"{shortcut or 'nothing'} {hits} of {number}")
        print(", ".join(line).replace(":,", ":"))


def main() -> None:
    """Run it; see above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-phantoms", action="store_true")
    options = parser.parse_args()
    speed(options.data)
    duplicates(options.data, options.seed)
    if not options.skip_phantoms:
        phantoms(options.draws)


if __name__ == "__main__":
    main()
