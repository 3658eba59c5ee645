"""Our own networks and the layers they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from skcxr import InputError
from skcxr.networks import build_network, list_backbones

OWN = list_backbones("own")


@pytest.fixture(autouse=True)
def _seeded():
    n_threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(n_threads)


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


@pytest.mark.parametrize("pooling", ["avgmax", "top"])
def test_a_prediction_is_what_is_differentiated(pooling):
    network = build_network("cxrnet", num_classes=3, image_size=(48, 48), pooling=pooling)
    network(torch.rand(8, 1, 48, 48))  # statistics
    x = torch.rand(8, 1, 48, 48)
    with_grad = network.eval().embed(x)
    assert with_grad.requires_grad
    with torch.no_grad():  # here the normalisation is a part of the convolution
        torch.testing.assert_close(network.embed(x), with_grad.detach(), rtol=1e-5, atol=1e-5)
        seen = []
        network.layers.stage1.conv.register_forward_hook(lambda *given: seen.append(given[2]))
        torch.testing.assert_close(network.embed(x), with_grad.detach(), rtol=1e-6, atol=1e-6)
    assert len(seen) == 1


def test_the_pooling_of_three_stages():
    network = build_network("cxrnet", num_classes=3, image_size=(64, 64), width=4, pooling="top")
    assert network.embedding_size == 22 * 4
    outputs = {}
    for name in ("stage1", "stage2", "stage3"):
        getattr(network.layers, name).register_forward_hook(
            lambda module, given, output, name=name: outputs.update({name: output})
        )
    with torch.no_grad():
        found = network.eval().embed(torch.rand(3, 1, 64, 64))
    last = outputs["stage3"].flatten(2)  # (3, 32, 16): a sixteenth of 16 places is the highest
    torch.testing.assert_close(found[:, :32], last.amax(2))
    torch.testing.assert_close(found[:, 32:64], last.amax(2))
    for name, part in (("stage2", found[:, 64:80]), ("stage1", found[:, 80:])):
        pooled = nn.functional.max_pool2d(outputs[name], 2, ceil_mode=True)
        torch.testing.assert_close(part, pooled.mean((2, 3)))
    with pytest.raises(InputError, match="pooling='mean'"):
        build_network("cxrnet", num_classes=2, image_size=(64, 64), pooling="mean")


def test_frozen_parameters_get_no_gradient():
    network = build_network("smallnet", num_classes=3, image_size=(9, 9))
    network.layers.conv1.requires_grad_(False)
    network(torch.rand(3, 1, 9, 9)).sum().backward()
    assert network.layers.conv1.weight.grad is None
    assert network.layers.head.weight.grad is not None


@pytest.mark.parametrize("backbone", OWN)
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
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("backbone", OWN)
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (2, 2), (7, 5), (28, 28), (65, 33)])
def test_any_size_gives_logits(backbone, size):
    network = build_network(backbone, num_classes=3, image_size=size)
    assert network(torch.rand(2, 1, *size)).shape == (2, 3)


def test_small_network_mixes_no_rows():
    network = build_network("smallnet", num_classes=2, image_size=(9, 9)).double()
    x = torch.rand(6, 1, 9, 9).double()
    torch.testing.assert_close(network(x)[2:4], network(x[2:4]))


@pytest.mark.parametrize("backbone", OWN)
def test_exposure_does_not_matter_to_images(backbone):
    network = build_network(backbone, num_classes=2, image_size=(40, 40)).double().eval()
    x = torch.rand(3, 1, 40, 40).double()
    torch.testing.assert_close(network(0.3 * x + 0.2), network(x), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(network(torch.zeros(2, 1, 40, 40).double())).all()


def test_rows_are_standardized_by_what_they_are_told():
    network = build_network("smallnet", num_classes=2, image_size=(1, 4), pixels=(100.0, 5.0))
    x = 100 + 5 * torch.randn(8, 1, 1, 4)
    assert np.isclose(network.standardize(x).std().item(), 1, atol=0.3)
    assert network.state_dict()["standardize.mean"] == 100


# --------------------------------------------------------------------------------------------
# a body and a head
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", OWN)
@pytest.mark.parametrize("n_images", [5, 32])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_head_of_embeddings_gives_the_logits(backbone, n_images, n_threads):
    torch.set_num_threads(n_threads)
    network = build_network(backbone, num_classes=3, image_size=(33, 33)).eval()
    x = torch.rand(n_images, 1, 33, 33)
    embeddings = network.embed(x)
    assert embeddings.shape == (n_images, network.embedding_size)
    assert network.head.in_features == network.embedding_size
    torch.testing.assert_close(network(embeddings), network(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", OWN)
def test_a_frozen_body_draws_the_same_from_pixels_and_from_embeddings(backbone):
    network = build_network(backbone, num_classes=3, image_size=(33, 33))
    network.train()
    for module in (module for stage in network.stages() for module in stage):
        module.eval().requires_grad_(False)
    x = torch.rand(20, 1, 33, 33)
    embeddings = network.embed(x)
    results = []
    for given in (x, embeddings.detach()):
        torch.manual_seed(1)
        network.zero_grad()
        logits = network(given)
        logits.square().sum().backward()
        results.append([logits, torch.rand(3), network.head.weight.grad])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("backbone", "n_stages"), [("cxrnet", 4), ("smallnet", 3)])
def test_stages_hold_every_parameter_but_the_head_s(backbone, n_stages):
    network = build_network(backbone, num_classes=3, image_size=(33, 33))
    stages = network.stage_parameters()
    assert len(stages) == len(network.stages()) == n_stages
    found = [id(p) for stage in stages for p in stage]
    assert len(found) == len(set(found))
    of_head = {id(p) for p in network.head.parameters()}
    assert set(found) == {id(p) for p in network.parameters()} - of_head


# --------------------------------------------------------------------------------------------
# mixed precision
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", OWN)
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("grad", [True, False])
def test_mixed_precision_reaches_the_threads(backbone, n_threads, grad):
    torch.set_num_threads(n_threads)
    network = build_network(backbone, num_classes=3, image_size=(33, 33)).eval()
    x = torch.rand(70, 1, 33, 33)
    with torch.set_grad_enabled(grad):
        full = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed, of_embeddings = network(x), network(network.embed(x))
        after = network(x)
    assert full.dtype == after.dtype == torch.float32
    assert mixed.dtype == of_embeddings.dtype == torch.bfloat16
    assert torch.equal(full, after)
    assert 0 < (mixed.float() - full).abs().max() < 0.05
    assert (of_embeddings.float() - full).abs().max() < 0.05


def test_gradients_in_mixed_precision_are_those_of_float32_by_and_large():
    torch.set_num_threads(2)
    network = build_network("cxrnet", num_classes=3, image_size=(33, 33), dropout=0)
    x, labels = torch.rand(32, 1, 33, 33), torch.arange(32) % 3
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = network(x)
        network.zero_grad()
        nn.functional.cross_entropy(logits.float(), labels).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert nn.functional.cosine_similarity(*gradients, dim=0) > 0.99
