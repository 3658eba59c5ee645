"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.style  # noqa: F401  (its import draws from python's global generator)
import torch
from PIL import Image

torch.set_num_threads(1)  # tests run side by side; two threads on a busy machine are slower


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real radiographs for development; tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKCXR_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real radiographs at {folder}; set SKCXR_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def lite0(shared_data: Path) -> Path:
    """ImageNet's weights of a small network, as timm has them."""
    path = shared_data.parent / "weights" / "tf_efficientnet_lite0_imagenet.safetensors"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    return path


@pytest.fixture(autouse=True)
def _unmoved(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test moves what belongs to the caller: random generators, threads."""
    if request.path.name == "test_common.py":  # scikit-learn's checks draw from the global one
        yield
        return

    def states() -> tuple[Any, ...]:
        numpy_state = np.random.get_state()
        return (
            random.getstate(),
            numpy_state[1].tobytes(),
            numpy_state[2],
            torch.get_rng_state().numpy().tobytes(),
            torch.get_num_threads(),
        )

    before = states()
    yield
    assert states() == before, "a test moved a global random state or the torch threads"


def bars(n: int, size: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images with a bright vertical ("v") or horizontal ("h") bar on noise: easily learnt."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, size, size)).astype(np.uint8)
    labels = np.array(["h", "v"])[np.arange(n) % 2]
    for image, label, at in zip(images, labels, rng.integers(2, size - 4, n), strict=True):
        if label == "v":
            image[:, at : at + 2] = 250
        else:
            image[at : at + 2] = 250
    return images, labels


@pytest.fixture(scope="session")
def images() -> tuple[np.ndarray, np.ndarray]:
    """24 images of 20 x 20 of uint8 and their labels."""
    return bars(24)


@pytest.fixture(scope="session")
def more_images() -> tuple[np.ndarray, np.ndarray]:
    """40 other images of the same kind."""
    return bars(40, seed=1)


@pytest.fixture(scope="session")
def files(
    images: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """The same images as PNG files."""
    folder = tmp_path_factory.mktemp("bars")
    paths = [str(folder / f"{index:02}.png") for index in range(len(images[0]))]
    for path, image in zip(paths, images[0], strict=True):
        Image.fromarray(image).save(path)
    return paths
