"""How fast a fitted EfficientNet-Lite0 predicts images of 224 pixels that are in memory.

Each peer has the same weights and gets the same gray pixels, 32 at a time, and gives
probabilities: a loop written by hand (plain, in channels-last memory, compiled, in bfloat16),
skorch's own NeuralNetClassifier, fastai's Learner and ONNX Runtime. What skcxr does by default is
checked to be equal to the plain loop to 1e-5 first. Then ``compile=True`` and ``amp=True`` against
the same by hand.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._suite import Missing, Options, Result, compare, in_memory
from skcxr import CXRClassifier, export_onnx

BACKBONE = "timm:tf_efficientnet_lite0"
WHAT = "EfficientNet-Lite0, 224 px"
INSTALL_TIMM = 'pip install ".[timm]"'
PEERS = 'pip install ".[peers]"'


def run(options: Options) -> Iterator[Result | Missing]:
    """By default, compiled, in bfloat16."""
    try:
        import timm  # noqa: F401
    except ImportError:
        yield Missing("inference", WHAT, "all of them", INSTALL_TIMM)
        return
    n_images, n_pairs = (32, 2) if options.quick else (64, options.repeat or 7)
    images, labels = in_memory(options, n_images)
    clf = CXRClassifier(
        BACKBONE, weights=options.weights, freeze="backbone", max_epochs=1, image_size=224,
        device=options.device, random_state=0,
    ).fit(images, labels)  # fmt: skip
    plain, fast = Loop(clf, channels_last=False), Loop(clf)
    off = np.abs(clf.predict_proba(images) - plain(images)).max()
    assert off < 1e-5, f"probabilities differ by {off}"

    peers: dict[str, Callable[[], Any]] = {
        "PyTorch by hand, channels-last": lambda: fast(images),
        "PyTorch by hand": lambda: plain(images),
        "skorch": skorch_of(clf, images),
    }
    missing = []
    for name, make, install in (
        ("fastai", fastai_of, PEERS), ("ONNX Runtime", onnx_of, 'pip install ".[onnx]"')
    ):  # fmt: skip
        if name == "ONNX Runtime" and options.device != "cpu":
            continue
        try:
            peers[name] = make(clf, images)
        except ImportError:
            missing.append(Missing("inference", WHAT, name, install))
    bars = {"PyTorch by hand, channels-last": 0.97, "PyTorch by hand": 1.5}
    yield from compare(
        "inference", WHAT, lambda: clf.predict_proba(images), peers, n_pairs, per=len(images),
        bars=bars,
    )  # fmt: skip
    yield from missing
    if options.quick:
        return
    for amp, compiled in ((True, False), (False, True), (True, True)):
        ours = copy.deepcopy(clf).set_params(amp=amp, compile=compiled)
        ours.net_.amp = amp
        words = ["bfloat16"] * amp + ["compiled"] * compiled
        hand = Loop(clf, amp=amp, compiled=compiled)
        yield from compare(
            "inference", f"{WHAT}, {' and '.join(words)}",
            lambda ours=ours: ours.predict_proba(images),
            {
                "the same by hand, channels-last": lambda hand=hand: hand(images),
                "PyTorch by hand": lambda: plain(images),
            },
            n_pairs, per=len(images), bars={"the same by hand, channels-last": 0.95},
        )  # fmt: skip


class Loop:
    """What PyTorch's pages write for prediction, around timm's own network."""

    def __init__(
        self, clf: CXRClassifier, channels_last: bool = True, amp: bool = False,
        compiled: bool = False,
    ) -> None:  # fmt: skip
        self.device = torch.device(clf.device_)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        network = timm_of(clf).to(memory_format=self.format)
        self.network: Any = torch.compile(network) if compiled else network
        self.amp = amp

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities."""
        pixels = torch.from_numpy(images)
        found = []
        amp = torch.autocast(self.device.type, torch.bfloat16) if self.amp else nullcontext()
        with torch.inference_mode(), amp:
            for batch in pixels.split(32):
                batch = ((batch[:, None].to(self.device) - 0.5) / 0.5).expand(-1, 3, -1, -1)
                batch = batch.contiguous(memory_format=self.format)
                found.append(self.network(batch).float().softmax(1).cpu())
        return torch.cat(found).numpy()


def timm_of(clf: CXRClassifier) -> nn.Module:
    """Timm's own network with the weights of a classifier."""
    import timm

    ours: Any = clf.module_
    network = timm.create_model(BACKBONE.partition(":")[2], num_classes=len(clf.classes_))
    state = {**ours.body.state_dict(), **{
        f"classifier.{name}": tensor for name, tensor in ours.head.state_dict().items()
    }}  # fmt: skip
    network.load_state_dict(state)
    return network.eval().to(clf.device_)


class Gray(nn.Module):
    """timm's network for gray pixels in [0, 1], ``(B, H, W)``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.network(((x[:, None] - 0.5) / 0.5).expand(-1, 3, -1, -1))


def skorch_of(clf: CXRClassifier, images: np.ndarray) -> Callable[[], Any]:
    """Skorch's own classifier."""
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        Gray(timm_of(clf)), criterion=nn.CrossEntropyLoss, batch_size=32, device=clf.device_
    ).initialize()  # fmt: skip
    return lambda: net.predict_proba(images)


def fastai_of(clf: CXRClassifier, images: np.ndarray) -> Callable[[], Any]:
    """Fastai's Learner."""
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner

    items = list(zip(torch.from_numpy(images), torch.zeros(len(images), dtype=int), strict=True))
    device = torch.device(clf.device_)
    loader = DataLoader(items, bs=32, num_workers=0, device=device)
    learner = Learner(
        DataLoaders(loader, loader, device=device), Gray(timm_of(clf)), nn.CrossEntropyLoss()
    )

    return lambda: learner.get_preds(dl=loader, act=lambda logits: logits.softmax(1))[0]


def onnx_of(clf: CXRClassifier, images: np.ndarray) -> Callable[[], Any]:
    """ONNX Runtime with what export_onnx writes."""
    import onnxruntime

    threads = onnxruntime.SessionOptions()
    threads.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(
            export_onnx(clf, f"{folder}/model.onnx"), threads, providers=["CPUExecutionProvider"]
        )
    return lambda: [
        session.run(None, {"images": images[k : k + 32]}) for k in range(0, len(images), 32)
    ]
