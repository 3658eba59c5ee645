"""Load tables that were mutated: `skcxr.load_cxr_table`.

    python tests/fuzz/fuzz_tables.py --mutations 20000 --seed 0

The first byte of an input chooses the name of the file, the second the columns that are asked
for; what follows is the file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import Target, main, mutate_bytes
from PIL import Image

NAMES = ["t.csv", "t.tsv", "t.csv.gz", "t.csv.bz2", "t.csv.xz", "t.csv.zip", "t", "T.CSV"]
COLUMNS: list[dict[str, Any]] = [
    {},
    {"groups": "group"},
    {"groups": "group", "source": "source"},
    {"target": ["Mass", "Edema"]},
    {"target": ["Mass", "Edema"], "groups": "group"},
    {"target": "Mass", "source": "split"},
    {"path": "target", "target": "path"},
    {"root": "below", "groups": "path"},
]
HEADER = "path,target,group,source,split,Mass,Edema,age\n"
CELLS = [
    "",
    " ",
    "0",
    "1",
    "-1",
    "1.0",
    "01",
    "nan",
    "NaN",
    "None",
    "inf",
    "1e400",
    "9" * 30,
    "true",
    "a.png",
    "b.png",
    "../a.png",
    "./a.png",
    "below\\c.png",
    "/etc/passwd",
    "/dev/zero",
    ".",
    "",
    "http://127.0.0.1:1/a.png",
    "=1+1",
    "@x",
    "\0",
    "\ud800",
    "é",
    "x" * 2000,
    '"',
    '""',
    "a,b",
    "a\nb",
    "\r",
    "train",
    "Test",
    "val",
    "2020-01-01",
    "\ufeff",
    "﻿path",
    "\t",
    "\x1a",
    "-0",
]


def make_seeds(folder: Path) -> dict[str, bytes]:
    (folder / "below").mkdir(exist_ok=True)
    for index, name in enumerate(["a.png", "b.png", "c.png", "d.png", "below/c.png"]):
        image = Image.fromarray(np.full((4, 5), 40 * index, np.uint8))
        image.save(folder / name)
    (folder / "no.png").write_bytes(b"no image")
    table = HEADER + (
        "a.png,ill,p1,here,train,0,1,50\nb.png,well,p2,here,train,1,,60\n"
        "c.png,ill,p1,there,test,,0,\nno.png,ill,,,val,0,0,1\ngone.png,well,p3,x,test,1,1,3\n"
    )
    plain = table.encode()
    seeds = {f"columns{k}": bytes([0, k]) + plain for k in range(len(COLUMNS))}
    seeds["numbers"] = b"\0\0path,target\na.png,1\nb.png,2\nc.png,2.5\n"
    seeds["bom"] = b"\0\1" + b"\xef\xbb\xbf" + plain
    seeds["utf16"] = b"\0\0" + table.encode("utf-16")
    seeds["windows"] = b"\7\0" + table.replace("\n", "\r\n").encode()
    seeds["tabs"] = b"\1\2" + table.replace(",", "\t").encode()
    seeds["semicolons"] = b"\0\0" + table.replace(",", ";").encode()
    seeds["quoted"] = b"\0\1" + b'path,target,group\n"a.png","x ""y"", z","p\n1"\n'
    seeds["gzip"] = b"\2\0" + gzip.compress(plain, mtime=0)
    seeds["bzip2"] = b"\3\0" + bz2.compress(plain)
    seeds["xz"] = b"\4\0" + lzma.compress(plain)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("t.csv"), plain)
    seeds["zip"] = b"\5\0" + stream.getvalue()
    return seeds


def mutate(seeds: dict[str, bytes], rng: random.Random) -> tuple[str, bytes]:
    name = rng.choice([*seeds])
    data = seeds[name]
    head = (
        bytes(
            [
                data[0] if rng.random() < 0.8 else rng.randrange(len(NAMES)),
                data[1] if rng.random() < 0.5 else rng.randrange(len(COLUMNS)),
            ]
        )
        if data[1:]
        else b"\0\0"
    )
    body = data[2:]
    if name in ("gzip", "bzip2", "xz", "zip", "utf16") or rng.random() < 0.3:
        return name.rstrip("0123456789"), head + mutate_bytes(body, rng, [*seeds.values()])
    separator = "\t" if name == "tabs" else ","
    rows = [line.split(separator) for line in body.decode("utf-8", "replace").splitlines()] or [
        [""]
    ]
    for _ in range(rng.choice([1, 1, 2, 5])):
        row = rng.choice(rows)
        how = rng.randrange(9)
        at = rng.randrange(len(row)) if row else 0
        if how < 3 and row:
            row[at] = rng.choice(CELLS)
        elif how == 3:
            row.insert(at, rng.choice(CELLS))
        elif how == 4 and row:
            del row[at]
        elif how == 5:
            rows.insert(rng.randrange(len(rows) + 1), list(rng.choice(rows)))
        elif how == 6:
            rows.remove(row)
            rows = rows or [[""]]
        elif how == 7:
            rows[0] = [rng.choice([*rows[0], *CELLS]) if rng.random() < 0.3 else c for c in rows[0]]
        else:
            column = rng.choice(CELLS)
            k = rng.randrange(8)
            for each in rows[1:]:
                each[k : k + 1] = [column]
    text = rng.choice(["\n", "\n", "\r\n", "\r"]).join(separator.join(row) for row in rows)
    return name.rstrip("0123456789"), head + text.encode("utf-8", "surrogatepass")


def run(data: bytes, folder: Path) -> str:
    import pandas as pd

    from skcxr import load_cxr_table

    data = data.ljust(2, b"\0")
    path = folder / NAMES[data[0] % len(NAMES)]
    path.write_bytes(data[2:])
    options = dict(COLUMNS[data[1] % len(COLUMNS)])
    if "root" in options:
        options["root"] = folder / options["root"]
    try:
        bunch = load_cxr_table(path, **options)
    finally:
        path.unlink()
    n = len(bunch.data)
    if not n or not all(len(bunch[name]) == n for name in ("target", "groups", "source", "split")):
        raise AssertionError(f"{n} images, {bunch}")
    if not isinstance(bunch.frame, pd.DataFrame) or len(bunch.frame) != n or not bunch.DESCR:
        raise AssertionError(f"a frame of {len(bunch.frame)} for {n} images")
    return "loaded"


TARGET = Target("fuzz_tables", make_seeds, mutate, run, base_megabytes=0)

if __name__ == "__main__":
    sys.exit(main(TARGET))
