"""How long it takes to begin: imports and ``skcxr --help``, each in new processes, in pairs.

``import skcxr`` is compared with the imports of scikit-learn, torch and fastai; what it adds to a
program that has scikit-learn already, with the 0.15 s that the project allows itself;
``from skcxr import CXRClassifier``, which needs torch, with the imports that a program of one's
own begins with; and the command's help with 0.5 s, and with the help of torch's command.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks._suite import Missing, Options, Result, compare, figure, paired, result

ADDED = 0.15
HELP = 0.5


def run(options: Options) -> Iterator[Result | Missing]:
    """Imports, what skcxr adds to scikit-learn's, the classifier, the command."""
    n = options.repeat or (2 if options.quick else 5)
    peers = {"import sklearn": python("import sklearn"), "import torch": python("import torch")}
    if fastai := importlib.util.find_spec("fastai"):
        peers["import fastai.vision.all"] = python("import fastai.vision.all")
    yield from compare(
        "start_up",
        "import skcxr",
        python("import skcxr"),
        peers,
        n,
        note="which imports the rest when it is used",
    )
    if not fastai:
        yield Missing(
            "start_up", "import skcxr", "import fastai.vision.all", 'pip install ".[peers]"'
        )

    both, alone = paired(
        python("import sklearn, skcxr"), {"sklearn": python("import sklearn")}, n
    )  # fmt: skip
    added = np.maximum(np.subtract(both, alone["sklearn"]), 0.001)  # it may be lost in the noise
    yield result(
        "start_up", "import skcxr, after import sklearn", "the time that is allowed",
        added, np.full(n, ADDED), f"{figure(float(np.median(added)), 's')} more",
        f"{ADDED:g} s more", bar=1.0,
    )  # fmt: skip

    yield from compare(
        "start_up", "from skcxr import CXRClassifier", python("from skcxr import CXRClassifier"),
        {"import sklearn, skorch, torchvision": python("import sklearn, skorch, torchvision")}, n,
    )  # fmt: skip

    ours, theirs = paired(
        python("-m", "skcxr.cli", "--help"),
        {
            "import sklearn": python("import sklearn"),
            "torchrun --help": python("-m", "torch.distributed.run", "--help"),
        },
        n,
    )
    said = figure(float(np.median(ours)), "s")
    yield result(
        "start_up", "skcxr --help", "the time that is allowed", ours, np.full(n, HELP), said,
        f"{HELP:g} s", bar=1.0,
    )  # fmt: skip
    for peer, seconds in theirs.items():
        yield result(
            "start_up", "skcxr --help", peer, ours, seconds, said,
            figure(float(np.median(seconds)), "s"),
        )  # fmt: skip


def python(*arguments: str) -> Callable[[], object]:
    """A new interpreter that runs one piece of code, or has these arguments."""
    given = ["-c", *arguments] if len(arguments) == 1 else list(arguments)
    return lambda: subprocess.run(
        [sys.executable, *given], check=True, capture_output=True, text=True
    )
