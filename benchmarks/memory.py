"""Peak memory of many files, each figure from a process of its own.

A classifier that is fitted already predicts 100,000 small files: against a loop over torchvision's
ImageFolder and a DataLoader with the same network and batches, against the 2 GB that the project
allows itself, and against itself with a tenth of the files, since memory must not grow with n.
Prediction holds no pixels. A fit holds those that `ram_limit` allows; beyond it, its peak is
compared in the same way. Amounts are the system's peak of resident memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks._suite import Missing, Options, Result, copies, figure, films, new_process, result

ALLOWED = 2e9 / 2**20
SIZE = 64
RAM_LIMIT = 2**23  # 2,048 images of that size

_PREDICT = """
import sys
from skcxr import load_model
model, listing, n = sys.argv[1:]
paths = open(listing, encoding="utf-8").read().split("\\n")[: int(n)]
assert len(load_model(model).predict_proba(paths)) == int(n)
"""
_FIT = """
import os, sys
from skcxr import CXRClassifier
ram_limit, listing, n = sys.argv[1:]
paths = open(listing, encoding="utf-8").read().split("\\n")[: int(n)]
labels = [os.path.basename(os.path.dirname(path)) for path in paths]
CXRClassifier(
    image_size=64, max_epochs=1, ram_limit=int(ram_limit), random_state=0
).fit(paths, labels)
"""
_TORCHVISION = """
import sys
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from skcxr import load_model
model, folder, batch_size = sys.argv[1:]
network = load_model(model).module_.eval()
steps = [transforms.Grayscale(), transforms.Resize((64, 64)), transforms.ToTensor()]
loader = DataLoader(ImageFolder(folder, transforms.Compose(steps)), batch_size=int(batch_size))
found = []
with torch.inference_mode():
    for pixels, _ in loader:
        found.append(network(pixels).softmax(1))
torch.cat(found).numpy()
"""
_PEAK = """
try:  # of this process; getrusage begins with the peak of the one that started it
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(int(lines["VmHWM"].split()[0]) / 1024)
except OSError:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024))
"""  # noqa: E501


def run(options: Options) -> Iterator[Result | Missing]:
    """Predict, then fit."""
    from skcxr import CXRClassifier, save_model

    n = 2000 if options.quick else 100_000
    n_fit = 4000 if options.quick else 40_000
    repeat = options.repeat or 1
    few, labels = films(Options(quick=options.quick), 64, SIZE)
    paths = copies(few, n, labels)
    folder = os.path.dirname(os.path.dirname(paths[0]))
    listing = f"{folder}.txt"
    with open(listing, "w", encoding="utf-8") as file:
        file.write("\n".join(paths))
    clf = CXRClassifier(image_size=SIZE, max_epochs=1, random_state=0).fit(few, labels)
    model = os.fspath(save_model(clf, f"{folder}.skcxr"))
    batch_size = str(clf._settings.predict_batch_size)

    ours, tenth, theirs = [], [], []
    for _ in range(repeat):
        ours.append(peak(_PREDICT, model, listing, str(n), options=options))
        tenth.append(peak(_PREDICT, model, listing, str(n // 10), options=options))
        theirs.append(peak(_TORCHVISION, model, folder, batch_size, options=options))
    what = f"predict {n:,} files: peak memory"
    yield line(what, "torchvision ImageFolder, DataLoader", ours, theirs)
    yield line(what, "the 2 GB that are allowed", ours, [ALLOWED] * repeat, bar=1.0)
    yield line(what, "the same with a tenth of the files", ours, tenth, bar=0.95)

    if n_fit > n:
        paths = copies(few, n_fit, labels)
        with open(listing, "w", encoding="utf-8") as file:
            file.write("\n".join(paths))
    whole, quarter = [], []
    for _ in range(repeat):
        whole.append(peak(_FIT, str(RAM_LIMIT), listing, str(n_fit), options=options))
        quarter.append(peak(_FIT, str(RAM_LIMIT), listing, str(n_fit // 4), options=options))
    yield line(
        f"fit one epoch of {n_fit:,} files, ram_limit={RAM_LIMIT // 2**20} MiB: peak memory",
        "the same with a quarter of the files", whole, quarter, bar=0.95,
    )  # fmt: skip


def peak(code: str, *arguments: str, options: Options) -> float:
    """MiB at the peak of a process that runs `code`."""
    return float(
        new_process("import sys\n" + code + _PEAK, *arguments, threads=options.threads)[-1]
    )


def line(
    what: str, peer: str, ours: list[float], theirs: list[float], bar: float | None = None
) -> Result:
    """A line from MiB."""
    said = [figure(sorted(amounts)[len(amounts) // 2], "MiB") for amounts in (ours, theirs)]
    return result("memory", what, peer, ours, theirs, said[0], said[1], bar=bar)
