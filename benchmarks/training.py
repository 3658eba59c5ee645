"""How fast networks are trained on images in memory, one epoch each.

Every peer trains the same network from the same weights on the same pixels with AdamW and without
augmentation: a loop written by hand (plain, and in channels-last memory), skorch's own
NeuralNetClassifier, and fastai's Learner. A step of fine-tuning is that of EfficientNet-Lite0 at
224 pixels in batches of 16; a small network is fitted from nothing to 1000 images of 64 pixels in
batches of 32, everything that `fit` does included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks._suite import Missing, Options, Result, compare, films, in_memory
from benchmarks.inference import BACKBONE, INSTALL_TIMM, PEERS, Gray, timm_of
from skcxr import CXRClassifier, MissingDependencyError
from skcxr.networks import build_network

WHAT = "8 steps of fine-tuning EfficientNet-Lite0, 224 px, batches of 16"


def run(options: Options) -> Iterator[Result | Missing]:
    """Fine-tuning, then small networks."""
    yield from fine_tuning(options)
    yield from head_alone(options)
    yield from small(options, "cxrnet")
    yield from small(options, "a small CNN")


def fine_tuning(options: Options) -> Iterator[Result | Missing]:
    """Epochs after the first, in which everything has been built."""
    try:
        import timm  # noqa: F401
    except ImportError:
        yield Missing("training", WHAT, "all of them", INSTALL_TIMM)
        return
    n_images, n_pairs = (16, 2) if options.quick else (128, options.repeat or 7)
    images, labels = in_memory(options, n_images)
    y = np.unique(labels, return_inverse=True)[1]
    clf = CXRClassifier(
        BACKBONE, weights=options.weights, batch_size=16, lr=1e-4, image_size=224,
        augmentation=None, device=options.device, random_state=0,
    )  # fmt: skip
    clf.partial_fit(images, y, classes=np.unique(y))
    peers: dict[str, Callable[[], Any]] = {
        "PyTorch by hand, channels-last": Epoch(clf, images, y, torch.channels_last),
        "PyTorch by hand": Epoch(clf, images, y, torch.contiguous_format),
        "skorch": skorch_of(clf, images, y),
    }
    missing = []
    try:
        peers["fastai"] = fastai_of(clf, images, y)
    except ImportError:
        missing.append(Missing("training", WHAT, "fastai", PEERS))
    bars = {"PyTorch by hand, channels-last": 0.97, "PyTorch by hand": 1.5, "fastai": 1.5}
    yield from compare(
        "training", WHAT, lambda: clf.partial_fit(images, y), peers, n_pairs, per=n_images,
        bars=bars,
    )  # fmt: skip
    yield from missing


class Epoch:
    """An epoch of the loop that PyTorch's pages write."""

    def __init__(
        self, clf: CXRClassifier, images: np.ndarray, y: np.ndarray, layout: torch.memory_format
    ) -> None:
        self.device, self.layout = torch.device(clf.device_), layout
        self.network = timm_of(clf).to(memory_format=layout)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, weight_decay=0.01)
        data = TensorDataset(torch.from_numpy(images), torch.from_numpy(y))
        self.loader = DataLoader(data, batch_size=16, shuffle=True)
        self.loss = nn.CrossEntropyLoss()

    def __call__(self) -> float:
        """Pass all images once; the sum of losses."""
        self.network.train()
        total = 0.0
        for pixels, target in self.loader:
            pixels = ((pixels[:, None].to(self.device) - 0.5) / 0.5).expand(-1, 3, -1, -1)
            pixels = pixels.contiguous(memory_format=self.layout)
            self.optimizer.zero_grad()
            loss = self.loss(self.network(pixels), target.to(self.device))
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        return total


def skorch_of(clf: CXRClassifier, images: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    """Skorch's own classifier."""
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        Gray(timm_of(clf)), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, lr=1e-4,
        batch_size=16, iterator_train__shuffle=True, max_epochs=1, train_split=None, verbose=0,
        device=clf.device_,
    ).initialize()  # fmt: skip
    return lambda: net.partial_fit(images, y)


def fastai_of(clf: CXRClassifier, images: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    """Fastai's Learner."""
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader as FastLoader
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    items = list(zip(torch.from_numpy(images), torch.from_numpy(y), strict=True))
    device = torch.device(clf.device_)
    loader = FastLoader(items, bs=16, shuffle=True, num_workers=0, device=device)
    one = FastLoader(items[:1], bs=1, num_workers=0, device=device)  # fit() ends with a validation
    learner = Learner(
        DataLoaders(loader, one, device=device), Gray(timm_of(clf)), nn.CrossEntropyLoss(),
        opt_func=lambda parameters, **kw: OptimWrapper(parameters, torch.optim.AdamW, lr=1e-4),
    )  # fmt: skip

    def epoch() -> None:
        with learner.no_logging():
            learner.fit(1)

    return epoch


def head_alone(options: Options) -> Iterator[Result | Missing]:
    """A frozen backbone: each image through it once, against once in every epoch."""
    n_images, n_pairs, epochs = (8, 1, 2) if options.quick else (64, options.repeat or 3, 10)
    what = f"{epochs} epochs of the head alone on a frozen EfficientNet-Lite0, 224 px"
    paths, labels = films(options, n_images, size=224)
    try:
        once = CXRClassifier(
            BACKBONE, weights=options.weights, freeze="backbone", max_epochs=epochs,
            image_size=224, device=options.device, random_state=0,
        ).fit(paths, labels)  # fmt: skip
    except MissingDependencyError:
        yield Missing("training", what, "images through it in every epoch", INSTALL_TIMM)
        return
    always = clone(once).set_params(augmentation=unchanged).fit(paths, labels)
    off = np.abs(once.predict_proba(paths) - always.predict_proba(paths)).max()
    yield from compare(
        "training", what, lambda: once.fit(paths, labels),
        {"images through it in every epoch": lambda: always.fit(paths, labels)}, n_pairs,
        per=n_images * epochs, note=f"probabilities differ by up to {off:.0e}",
    )  # fmt: skip


def unchanged(image: Any) -> Any:
    """No augmentation, which the classifier cannot know: every epoch sees every image."""
    return image


class SmallCNN(nn.Module):
    """What a first lesson on PyTorch builds."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.layers(x))


def small(options: Options, name: str) -> Iterator[Result]:
    """The whole of `fit` against the whole of a plain loop."""
    n_images, n_pairs = (64, 2) if options.quick else (1000, options.repeat or 9)
    rng = np.random.default_rng(0)
    X = rng.random((n_images, 64, 64), dtype=np.float32)
    y = rng.integers(0, 4, n_images)
    backbone: Any = "cxrnet" if name == "cxrnet" else SmallCNN

    def ours() -> None:
        CXRClassifier(
            backbone, max_epochs=1, batch_size=32, lr=1e-3, lr_schedule=None, augmentation=None,
            label_smoothing=0.0, device=options.device, random_state=0,
        ).fit(X, y)  # fmt: skip

    def by_hand() -> float:
        if name == "cxrnet":
            network = build_network("cxrnet", num_classes=4, image_size=(64, 64))
        else:
            network = SmallCNN(4)
        device = torch.device(options.device)
        network.to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
        data = TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(y))
        loss_of, total = nn.CrossEntropyLoss(), 0.0
        for images, target in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            loss = loss_of(network(images.to(device)), target.to(device))
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total

    yield from compare(
        "training", f"a fit of {name}, 1 x 64 x 64, batches of 32, one epoch", ours,
        {"PyTorch by hand": by_hand}, n_pairs, per=n_images, bars={"PyTorch by hand": 0.952},
    )  # fmt: skip
