"""Networks and the layers they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from skcxr import InputError
from skcxr.networks import build_network, list_backbones


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_gradients_of_tasks_are_torch_s():
    network = build_network("cxrnet", num_classes=3, image_size=(40, 40), dropout=0).double()
    x = torch.rand(6, 1, 40, 40).double()
    loss = network(x)[:, 1].square().mean()
    ours = torch.autograd.grad(loss, list(network.parameters()))
    x.requires_grad_()  # takes torch's own way, as heatmaps need it
    theirs = torch.autograd.grad(network(x)[:, 1].square().mean(), [x, *network.parameters()])
    assert theirs[0].abs().sum() > 0
    for a, b in zip(ours, theirs[1:], strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_parameters_get_no_gradient():
    network = build_network("smallnet", num_classes=3, image_size=(9, 9))
    network.layers.conv1.requires_grad_(False)
    network(torch.rand(3, 1, 9, 9)).sum().backward()
    assert network.layers.conv1.weight.grad is None
    assert network.layers.head.weight.grad is not None


@pytest.mark.parametrize("backbone", list_backbones())
@pytest.mark.parametrize("n_images", [2, 13, 32])
@pytest.mark.parametrize("size", [(33, 40), (96, 96)])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_threads_change_no_bit(backbone, n_images, size, num_classes):
    x = torch.rand(n_images, 1, *size)
    labels = torch.arange(n_images) % num_classes
    results = []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        torch.manual_seed(0)
        network = build_network(backbone, num_classes=num_classes, image_size=size)
        nn.functional.cross_entropy(network(x), labels).backward()
        loss = network(x).sum()
        results.append([loss, network.eval()(x), *(p.grad for p in network.parameters())])
    torch.set_num_threads(1)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("backbone", list_backbones())
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (2, 2), (7, 5), (28, 28), (65, 33)])
def test_any_size_gives_logits(backbone, size):
    network = build_network(backbone, num_classes=3, image_size=size)
    assert network(torch.rand(2, 1, *size)).shape == (2, 3)


def test_small_network_mixes_no_rows():
    network = build_network("smallnet", num_classes=2, image_size=(9, 9)).double()
    x = torch.rand(6, 1, 9, 9).double()
    torch.testing.assert_close(network(x)[2:4], network(x[2:4]))


@pytest.mark.parametrize("backbone", list_backbones())
def test_exposure_does_not_matter_to_images(backbone):
    network = build_network(backbone, num_classes=2, image_size=(40, 40)).double().eval()
    x = torch.rand(3, 1, 40, 40).double()
    torch.testing.assert_close(network(0.3 * x + 0.2), network(x), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(network(torch.zeros(2, 1, 40, 40).double())).all()


def test_unknown_names_list_the_known():
    with pytest.raises(InputError, match="cxrnet, smallnet"):
        build_network("alexnet", num_classes=2, image_size=(3, 3))


def test_rows_are_standardized_by_what_they_are_told():
    network = build_network("smallnet", num_classes=2, image_size=(1, 4), pixels=(100.0, 5.0))
    x = 100 + 5 * torch.randn(8, 1, 1, 4)
    assert np.isclose(network.standardize(x).std().item(), 1, atol=0.3)
    assert network.state_dict()["standardize.mean"] == 100
