"""Time of CXRClassifier.fit against a hand-written PyTorch loop, in pairs.

    python -m benchmarks.overhead

Both train the same network on the same 1000 images of 64 x 64 in batches of 32 with the same
optimizer; the peer is what the PyTorch tutorials write: TensorDataset, DataLoader, for loop.
"""

from __future__ import annotations

import argparse
import platform
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from skcxr import CXRClassifier
from skcxr.networks import build_network


def by_hand(X: np.ndarray, y: np.ndarray, epochs: int) -> float:
    """Seconds of a plain loop."""
    start = time.perf_counter()
    torch.manual_seed(0)
    network = build_network("cxrnet", num_classes=4, image_size=(64, 64))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    data = TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(y))
    loader = DataLoader(data, batch_size=32, shuffle=True)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    network.train()
    for _ in range(epochs):
        total = 0.0
        for images, target in loader:
            optimizer.zero_grad()
            loss = loss_of(network(images), target)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return time.perf_counter() - start


def with_skcxr(X: np.ndarray, y: np.ndarray, epochs: int) -> float:
    """Seconds of CXRClassifier.fit."""
    clf = CXRClassifier(
        "cxrnet", max_epochs=epochs, batch_size=32, lr=1e-3, lr_schedule=None, augmentation=None,
        random_state=0,
    )  # fmt: skip
    start = time.perf_counter()
    clf.fit(X, y)
    return time.perf_counter() - start


def main() -> None:
    """Print the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    X = rng.random((1000, 64, 64), dtype=np.float32)
    y = rng.integers(0, 4, 1000)
    by_hand(X, y, 1), with_skcxr(X, y, 1)  # the first run of everything is slow
    pairs = np.array(
        [
            (with_skcxr(X, y, options.epochs), by_hand(X, y, options.epochs))
            for _ in range(options.pairs)
        ]
    )
    ratio = pairs[:, 0] / pairs[:, 1]
    low, median, high = np.quantile(ratio, [0.25, 0.5, 0.75])
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"by hand {np.median(pairs[:, 1]):.2f} s, skcxr {np.median(pairs[:, 0]):.2f} s (medians)")
    print(f"ratio: median {median:.3f}, quartiles {low:.3f} to {high:.3f}, {len(ratio)} pairs")


if __name__ == "__main__":
    main()
