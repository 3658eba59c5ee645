"""Augmentation of training batches."""

from __future__ import annotations

import pytest
import torch

from skcxr.augmentation import CXRAugmentation


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def blob(height: int, width: int, row: float, column: float) -> torch.Tensor:
    """An image with one bright spot at parts of its height and width."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = (y - row * height) ** 2 + (x - column * width) ** 2
    return torch.exp(-distance / 8)[None, None]


def centre(image: torch.Tensor) -> tuple[float, float]:
    """The spot's place, in pixels."""
    y, x = torch.meshgrid(*map(torch.arange, image.shape), indexing="ij")
    return float((image * y).sum() / image.sum()), float((image * x).sum() / image.sum())


def test_nothing_asked_nothing_changed():
    x = torch.rand(3, 1, 20, 30)
    torch.testing.assert_close(CXRAugmentation(0, 0, 0, 0)(x), x, atol=1e-5, rtol=0)


def test_left_stays_left():
    x = blob(64, 64, 0.5, 0.25).expand(200, 1, 64, 64)
    for image in CXRAugmentation()(x)[:, 0]:
        assert centre(image)[1] < 32


@pytest.mark.parametrize("size", [(64, 64), (40, 80)])
def test_a_rotation_turns_without_bending(size):
    height, width = size
    x = torch.cat([blob(height, width, 0.5, 0.25), blob(height, width, 0.5, 0.75)])
    policy = CXRAugmentation(degrees=20, translate=0, scale=0, gamma=0)
    for _ in range(10):
        turned = policy(torch.cat([x, x.sum(0, keepdim=True)]))[:2, 0]
        for image in turned:
            row, column = centre(image)
            distance = ((row - (height - 1) / 2) ** 2 + (column - (width - 1) / 2) ** 2) ** 0.5
            assert abs(distance - width / 4) < 1


def test_images_of_a_batch_differ_and_stay_in_range():
    x = torch.rand(1, 1, 32, 32).expand(8, 1, 32, 32)
    y = CXRAugmentation()(x)
    assert len({image.sum().item() for image in y}) == 8
    assert y.min() >= 0
    assert y.max() <= 1


def test_pixels_out_of_range_keep_their_excess():
    x = torch.full((2, 1, 8, 8), 200.0)
    torch.testing.assert_close(CXRAugmentation()(x), x)
