"""Run the command with arguments that were mutated: `skcxr`.

    python tests/fuzz/fuzz_command.py --mutations 5000 --seed 0

An input is the arguments, one a line; ``@`` stands for the folder of data. The command runs in
this process; it may end with exit codes 0 to 3 and must say why on standard error.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
from harness import Target, aside, main, mutate_bytes
from PIL import Image

WORDS = [
    "train",
    "predict",
    "evaluate",
    "audit",
    "demo",
    "--help",
    "--json",
    "--out",
    "@/new",
    "@/model",
    "@/table.csv",
    "@/films",
    "@/films/a/0.png",
    "@/gone",
    "@",
    "/dev/null",
    "--csv",
    "@/out.csv",
    "--path",
    "path",
    "--target",
    "target",
    "Mass",
    "--groups",
    "group",
    "(",
    "--epochs",
    "1",
    "0",
    "-1",
    "1e9",
    "--image-size",
    "8",
    "--seed",
    "4294967296",
    "--early-stopping",
    "--report",
    "@/report.html",
    "@/films/x.html",
    "--checkpoint",
    "",
    " ",
    "\0",
    "\udcff",
    "é",
    "x" * 5000,
    "--",
    "-",
    "--=",
    "--seed=x",
    "http://127.0.0.1:1/x.csv",
    "@/broken.csv",
    "@/pickled.csv",
    "@/pipe",
]
SEEDS = [
    ["predict", "@/model", "@/films"],
    ["predict", "@/model", "@/films/a/0.png", "@/broken.csv", "--json"],
    ["predict", "@/model", "@/films/a/0.png", "--csv", "@/out.csv"],
    ["evaluate", "@/model", "@/films", "--json"],
    ["evaluate", "@/model", "@/table.csv", "--target", "target", "--groups", "group"],
    ["train", "@/gone", "--out", "@/new"],
    ["train", "@/broken.csv", "--out", "@/new", "--epochs", "1"],
    ["audit", "@/broken.csv"],
    ["--help"],
]


def make_seeds(folder: Path) -> dict[str, bytes]:
    return {f"{seed[0].strip('-')}-{k}": "\n".join(seed).encode() for k, seed in enumerate(SEEDS)}


def prepare(folder: Path) -> None:
    from skcxr import CXRClassifier, save_model

    place = folder / "data"
    if place.exists():
        return
    rng = np.random.default_rng(0)
    paths, labels = [], []
    for name in "ab":
        (place / "films" / name).mkdir(parents=True)
        for k in range(4):
            path = place / "films" / name / f"{k}.png"
            Image.fromarray(rng.integers(0, 256, (9, 9)).astype(np.uint8)).save(path)
            paths.append(str(path))
            labels.append(name)
    rows = "".join(f"{p},{t},p{k}\n" for k, (p, t) in enumerate(zip(paths, labels, strict=True)))
    (place / "table.csv").write_text("path,target,group\n" + rows)
    (place / "broken.csv").write_bytes(b'path,"target\n\0\xff')
    (place / "pickled.csv").write_bytes(
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."
    )
    if hasattr(os, "mkfifo"):
        os.mkfifo(place / "pipe")
    model = CXRClassifier("cxrnet", net_params={"module__width": 2}, image_size=8, max_epochs=1,
                          random_state=0)  # fmt: skip
    save_model(model.fit(paths, labels), place / "model")


def mutate(seeds: dict[str, bytes], rng: random.Random) -> tuple[str, bytes]:
    name = rng.choice([*seeds])
    kind = name.partition("-")[0]
    if rng.random() < 0.15:
        return kind, mutate_bytes(seeds[name], rng, [*seeds.values()])
    words = seeds[name].decode("utf-8", "surrogateescape").split("\n")
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(words) + 1)
        how = rng.randrange(4)
        if how == 0 and at < len(words):
            words[at] = rng.choice(WORDS)
        elif how == 1:
            words.insert(at, rng.choice(WORDS))
        elif how == 2 and at < len(words) and len(words) > 1:
            del words[at]
        else:
            words[at:at] = [rng.choice(WORDS), rng.choice(WORDS)]
    return kind, "\n".join(words).encode("utf-8", "surrogateescape")


def run(data: bytes, folder: Path) -> str:
    from skcxr.cli import main as command

    words = data.decode("utf-8", "surrogateescape").split("\n")[:40]
    place = folder / "data"
    words = [word.replace("@", str(place)) for word in words]
    if {"demo", "train", "audit"} & {*words} and not {"--help"} & {*words}:
        # these would work for seconds: only where they are refused, or what they read is broken
        words = [word.replace("films", "gone").replace("table.csv", "broken.csv") for word in words]
    out, said = io.StringIO(), io.StringIO()
    before = sys.argv, os.getcwd()
    work = folder / "here"
    with aside():
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    code: object = 0
    try:
        sys.argv = ["skcxr", *(word for word in words if word != "demo")]
        os.chdir(work)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            command()
    except SystemExit as error:
        code = error.code
    finally:
        sys.argv = before[0]
        os.chdir(before[1])
        with aside():
            for leftover in ("out.csv", "report.html", "new"):
                path = place / leftover
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
    if code not in (0, 1, 2, 3, None):
        raise AssertionError(f"exit code {code!r}")
    if code in (1, 2) and not (said.getvalue().strip() or out.getvalue().strip()):
        raise AssertionError(f"exit code {code} without a word")
    if code == 1 and not said.getvalue().splitlines()[-1].startswith("skcxr: error: "):
        raise AssertionError(f"said {said.getvalue()[-300:]!r}")
    if "Traceback" in said.getvalue():
        raise AssertionError(said.getvalue()[-2000:])
    return f"exit {code or 0}"


TARGET = Target("fuzz_command", make_seeds, mutate, run, base_megabytes=600, prepare=prepare)

if __name__ == "__main__":
    sys.exit(main(TARGET))
