"""Fits killed at random moments and taken up again, against one that is left alone.

python -m benchmarks.resume [FOLDER] [--kills 30] [--backbone cxrnet] [--max-epochs 12]

Each fit runs in a process of its own that gets SIGKILL at a random moment between its first
step and its end, and is started again. Its weights are compared with those of
the fit that was left alone, to the bit. Printed too: what keeping the state costs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHILD = """
import json, sys, time, warnings
import torch
from skcxr import CXRClassifier, load_cxr_folder, make_cxr_phantoms
warnings.simplefilter("ignore")
options = json.loads(sys.argv[1])
if options["folder"]:
    data = load_cxr_folder(options["folder"])
else:
    data = make_cxr_phantoms(120, n_classes=2, image_size=64, random_state=0)
clf = CXRClassifier(options["backbone"], max_epochs=options["max_epochs"], ema=0.95,
                    early_stopping=True, n_iter_no_change=99, num_workers=options["num_workers"],
                    checkpoint=options["checkpoint"], random_state=0)
print("begins", flush=True)
start = time.perf_counter()
clf.fit(data.data, data.target, groups=data.groups)
seconds = time.perf_counter() - start
torch.save(clf.module_.state_dict(), options["result"])
print(seconds, flush=True)
"""


def run(options: dict[str, Any], after: float | None = None) -> float | None:
    """Seconds of the fit, or None where it was killed `after` so many."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(options)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    if after is not None:
        try:
            child.wait(after)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
    said = child.stdout.read()
    return float(said) if child.wait() == 0 else None


def main() -> None:
    """Print how many of the fits that were killed came to the same weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--backbone", default="cxrnet")
    parser.add_argument("--max-epochs", type=int, default=12)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    import torch

    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as scratch:
        options: dict[str, Any] = {
            **vars(given), "checkpoint": None, "result": os.path.join(scratch, "right"),
        }  # fmt: skip
        plain, kept = [], []
        for k in range(3):
            plain.append(run(options) or 0.0)
            kept.append(run({**options, "checkpoint": os.path.join(scratch, f"kept-{k}")}) or 0.0)
        right = torch.load(options["result"], weights_only=True)
        ratios = [with_ / without for with_, without in zip(kept, plain, strict=True)]
        size = max(path.stat().st_size for path in Path(scratch, "kept-0").iterdir())
        print(f"a fit takes {statistics.median(plain):.1f} s; with checkpoint= "
              f"{statistics.median(ratios):.3f} times as long ({min(ratios):.3f} to "
              f"{max(ratios):.3f}); a state has {size / 1e6:.1f} MB")  # fmt: skip
        same = killed = 0
        while killed < given.kills:
            folder = os.path.join(scratch, "killed")
            mine = {**options, "checkpoint": folder, "result": os.path.join(scratch, "found")}
            if run(mine, after=rng.uniform(0, statistics.median(plain))) is None:
                killed += 1
                reached = max(Path(folder).glob("epoch-*"), default=Path("epoch-none")).name[:11]
                run(mine)
                found = torch.load(mine["result"], weights_only=True)
                same += all(torch.equal(found[key], right[key]) for key in right)
                print(f"killed with {reached} kept: {same} of {killed} the same", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{same} of {killed} fits that were killed equal the one left alone, to the bit")


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"{time.perf_counter() - start:.0f} s in all")
