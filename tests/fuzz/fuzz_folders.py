"""Load folders of every shape: `skcxr.load_cxr_folder`.

    python tests/fuzz/fuzz_folders.py --mutations 20000 --seed 0

An input is a list of steps, one a line: ``<kind> <name>``, from which a folder is made.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
from pathlib import Path

from fuzz_images import make_seeds as image_seeds
from harness import Target, aside, main, mutate_bytes

PARTS = [
    "train",
    "Test",
    "val",
    "Healthy",
    "Ill",
    "a",
    "b",
    ".hidden",
    "Thumbs.db",
    "__MACOSX",
    "..",
    "x" * 200,
    "é",
    "\udcff",
    " ",
    "a\tb",
    "IM-0001-0001.png",
    "person1_virus_2.jpeg",
    "c.dcm",
    "00000013_005.png",
    "d",
    "\\",
    "*",
    "%s",
    "{0}",
    "-",
]
KINDS = ["image", "image", "image", "text", "empty", "folder", "link", "loop", "fifo", "mutant"]
GROUPS = [None, None, r"(\w+)-", r"(?P<patient>.)(x)?", r"", r"(", r"p\d+|(q)"]


def make_seeds(folder: Path | None = None) -> dict[str, bytes]:
    flat = "image Healthy/1.png\nimage Healthy/2.png\nimage Ill/3.png\ntext Ill/4.txt\n"
    split = "".join(
        f"image {split}/{name}/IM-{k:04}-0001.png\n"
        for k, (split, name) in enumerate(
            [("train", "a"), ("train", "b"), ("test", "a"), ("val", "b")]
        )
    )
    links = flat + "folder Ill/below\nloop Ill/below/up\nlink Ill/same.png\nfifo Ill/pipe\n"
    return {
        name: text.encode() for name, text in [("flat", flat), ("split", split), ("links", links)]
    }


def mutate(seeds: dict[str, bytes], rng: random.Random) -> tuple[str, bytes]:
    name = rng.choice([*seeds])
    if rng.random() < 0.2:
        return name, mutate_bytes(seeds[name], rng, [*seeds.values()])
    lines = seeds[name].decode("utf-8", "surrogateescape").splitlines()
    for _ in range(rng.choice([1, 2, 4, 10])):
        how = rng.randrange(5)
        at = rng.randrange(len(lines)) if lines else 0
        if how == 0 and lines:
            del lines[at]
        elif how == 1 and lines:
            _, _, path = lines[at].partition(" ")
            lines[at] = f"{rng.choice(KINDS)} {path}"
        elif how == 2 and lines:
            kind, _, path = lines[at].partition(" ")
            parts = path.split("/")
            parts[rng.randrange(len(parts))] = rng.choice(PARTS)
            lines[at] = f"{kind} {'/'.join(parts)}"
        else:
            path = "/".join(rng.choice(PARTS) for _ in range(rng.choice([1, 2, 2, 3, 5])))
            lines.insert(at, f"{rng.choice(KINDS)} {path}")
    return name, "\n".join(lines).encode("utf-8", "surrogateescape")


IMAGES = list(image_seeds().values())


def make(step: bytes, index: int, tree: Path) -> None:
    kind, _, name = step.decode("utf-8", "surrogateescape").partition(" ")
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    if not parts:
        return
    path = tree.joinpath(*parts)
    if kind == "folder":
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() or path.is_symlink():
        return
    if kind == "link":
        path.symlink_to(tree / "Healthy" / "1.png")
    elif kind == "loop":
        path.symlink_to(path.parent.parent if index % 2 else path.parent, target_is_directory=True)
    elif kind == "fifo" and hasattr(os, "mkfifo"):
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_bytes(b"words")
    elif kind == "mutant":
        path.write_bytes(mutate_bytes(IMAGES[index % len(IMAGES)], random.Random(index)))
    else:
        path.write_bytes(IMAGES[index % len(IMAGES)])


def run(data: bytes, folder: Path) -> str:
    from skcxr import load_cxr_folder

    tree = folder / "tree"
    with aside():
        shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    for index, step in enumerate(data.splitlines()[:50]):
        with contextlib.suppress(OSError, ValueError):
            make(step, index, tree)
    bunch = load_cxr_folder(tree, groups=GROUPS[len(data) % len(GROUPS)])
    n = len(bunch.data)
    if (
        not n
        or len(bunch.target) != n
        or len(bunch.frame) != n
        or bunch.data != list(dict.fromkeys(bunch.data))
    ):
        raise AssertionError(f"{n} images, {bunch}")
    return "loaded"


TARGET = Target("fuzz_folders", make_seeds, mutate, run)

if __name__ == "__main__":
    sys.exit(main(TARGET))
