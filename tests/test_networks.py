"""Names, inputs and networks: what every backbone has in common."""

from __future__ import annotations

import pickle
import sys

import pytest
import torch
from torch import nn

from skcxr import InputError, MissingDependencyError, SkcxrWarning, WeightsError, networks
from skcxr.networks import InputSpec, build_network, input_spec, list_backbones

ANY_SIZE = InputSpec(None, 1, None, None, "hamming", False)


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Mine(nn.Module):
    """Somebody's own network."""

    def __init__(self, num_classes, channels=4):
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3)
        self.last = nn.Linear(channels, num_classes)

    def forward(self, x):
        return self.last(self.conv(x).mean((2, 3)))


def test_names_by_kind():
    assert list_backbones("own") == ["cxrnet", "smallnet"]
    assert list_backbones() == list_backbones("own") + list_backbones("torchvision")
    assert {"resnet18", "vit_b_16", "swin_t", "densenet121"} <= {*list_backbones("torchvision")}
    assert "timm:tf_efficientnet_lite0" in list_backbones("timm")
    assert "xrv:densenet121-res224-all" in list_backbones("xrv")
    assert not [name for name in list_backbones() if ":" in name]
    with pytest.raises(InputError, match="kind='jax'"):
        list_backbones("jax")


def test_our_networks_and_yours_take_any_size():
    assert {input_spec(x) for x in ("cxrnet", "smallnet", Mine, lambda **k: Mine(**k))} == {
        ANY_SIZE
    }


def test_unknown_names_list_the_known():
    with pytest.raises(InputError, match=r"did you mean 'alexnet'.*cxrnet, smallnet"):
        build_network("alexnett", num_classes=2, image_size=(3, 3))
    with pytest.raises(InputError, match="did you mean 'timm:resnet18'"):
        input_spec("timm:resnet188")
    with pytest.raises(InputError, match="did you mean 'timm:resnet18'"):
        input_spec("timm:resnet18.a9_in1k")
    with pytest.raises(InputError, match="did you mean 'xrv:densenet121-res224-all'"):
        input_spec("xrv:densenet121-res224-al")
    with pytest.raises(InputError, match="no linear layer at its end"):
        input_spec("squeezenet1_1")


@pytest.mark.parametrize("name", ["timm:hf-hub:somebody/something", "timm:local-dir:x", "timm:"])
def test_timm_brings_nothing_from_elsewhere(name):
    with pytest.raises(InputError, match="unknown to timm"):
        build_network(name, num_classes=2, image_size=(32, 32))


@pytest.mark.parametrize(
    ("library", "kind", "name"),
    [("timm", "timm", "resnet18"), ("torchxrayvision", "xrv", "densenet121-res224-all")],
)
def test_libraries_that_are_not_there_are_named(library, kind, name, monkeypatch):
    networks._find.cache_clear()
    networks._known_weights.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    for call in (
        lambda: list_backbones(kind),
        lambda: input_spec(f"{kind}:{name}"),
        lambda: build_network(f"{kind}:{name}", num_classes=2, image_size=(32, 32)),
    ):
        with pytest.raises(MissingDependencyError, match=rf"{library} .*skcxr\[{kind}\]"):
            call()
    assert len(list_backbones()) > 50  # the others go on


@pytest.mark.parametrize("backbone", ["cxrnet", Mine, "resnet18", "timm:resnet18"])
def test_weights_that_are_nowhere_are_an_error(backbone):
    for weights in ("gone", "IMAGENET1K_V9"):
        with pytest.raises(WeightsError, match=f"weights='{weights}' is neither"):
            build_network(backbone, num_classes=2, image_size=(32, 32), weights=weights)
    with pytest.raises(WeightsError, match=r"weights='gone\.pt' does not exist"):
        build_network(backbone, num_classes=2, image_size=(32, 32), weights="gone.pt")


def test_your_network_is_returned_as_it_is():
    network = build_network(Mine, num_classes=3, image_size=(9, 9), channels=5)
    assert type(network) is Mine
    assert network.conv.out_channels == 5
    with pytest.raises(InputError, match="returned dict, not a torch"):
        build_network(dict, num_classes=3, image_size=(9, 9))


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
def test_your_network_takes_a_file_too(suffix, tmp_path):
    from safetensors.torch import save_file

    before = build_network(Mine, num_classes=3, image_size=(9, 9))
    path = tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(before.state_dict(), path)
    after = build_network(Mine, num_classes=3, image_size=(9, 9), weights=path)
    x = torch.rand(2, 1, 9, 9)
    assert torch.equal(before(x), after(x))
    assert after.weights_info == f"the file {path.name}; with its head of 3 outputs"
    with pytest.warns(SkcxrWarning, match="its head of 3 outputs was replaced"):
        other = build_network(Mine, num_classes=5, image_size=(9, 9), weights=str(path))
    assert torch.equal(other.conv.weight, before.conv.weight)


def test_only_a_head_is_ever_replaced(tmp_path):
    class Odd(Mine):
        def __init__(self, num_classes, hidden=6):
            super().__init__(num_classes)
            self.hidden = nn.Linear(4, hidden)  # comes last and is not the head

    path = tmp_path / "w.pt"
    torch.save(Odd(3, hidden=7).state_dict(), path)
    with pytest.raises(WeightsError, match=r"hidden.weight has the shape \(7, 4\) instead of"):
        build_network(Odd, num_classes=3, image_size=(9, 9), weights=path)


@pytest.mark.parametrize("backbone", ["cxrnet", "smallnet", "resnet18", "timm:resnet18"])
def test_a_network_is_its_seed(backbone):
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(build_network(backbone, num_classes=2, image_size=(32, 32)))
    for a, b in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backbone", ["cxrnet", "smallnet", "resnet18", "timm:resnet18"])
def test_a_network_can_be_pickled_and_computes_in_double_precision(backbone):
    network = build_network(backbone, num_classes=2, image_size=(32, 32), dtype=torch.float64)
    x = torch.rand(2, 1, 32, 32).double()
    logits = network.eval()(x)
    assert logits.dtype == torch.float64
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), logits)
