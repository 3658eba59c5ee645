"""Heatmaps lie where a class is told, in networks of every kind."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from skcxr import CXRClassifier, InputError
from skcxr.inspection import GradCAMDisplay, OcclusionDisplay, RandomisationDisplay
from skcxr.inspection._layers import MapFormat, find_layer
from skcxr.inspection._seen import look_inside
from skcxr.networks import draw_network, input_spec, list_backbones

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def planted(n, size, seed=0):
    """Noise; in the class "square" a bright square somewhere; and where: top, left, side."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, size, size)).astype(np.uint8)
    y = np.where(np.arange(n) % 2, "square", "none")
    side = size // 5
    places = rng.integers(2, size - side - 2, (n, 2))
    for image, (top, left) in zip(images[1::2], places[1::2], strict=True):
        image[top : top + side, left : left + side] += 150
    return images, y, places, side


def distances(heatmaps, places, side):
    """From the hottest pixel to the middle of the square, as parts of the film's side."""
    size = heatmaps.shape[1]
    hottest = [np.unravel_index(heat.argmax(), heat.shape) for heat in heatmaps]
    return np.abs(np.array(hottest) - (places + side / 2)).max(axis=1) / size


def drawn(backbone, size=None, num_classes=3):
    """A network with random weights, its images' size, and an image."""
    size = size or input_spec(backbone).size or (128, 128)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        network = draw_network(backbone, num_classes=num_classes, image_size=size).eval()
        if not network.head.weight.any():  # torchvision's transformers begin so
            network.head.reset_parameters()
        return network.requires_grad_(False), torch.rand(1, 1, *size).requires_grad_()


@pytest.mark.parametrize(
    ("backbone", "size", "epochs", "layer", "fit"),
    [("cxrnet", 64, 12, "layers.stage2", {}), ("smallnet", 32, 60, "layers.pool", {}),
     ("resnet18", 64, 5, "body.layer2", {"lr": 0.001})],
)  # fmt: skip
def test_the_heat_is_highest_at_a_planted_square(backbone, size, epochs, layer, fit):
    X, y, _, _ = planted(64, size)
    clf = CXRClassifier(
        backbone, max_epochs=epochs, augmentation=None, image_size=size, batch_size=8,
        random_state=0, **fit,
    ).fit(X, y)  # fmt: skip
    X, y, places, side = planted(24, size, seed=1)
    assert clf.score(X, y) > 0.9
    X, places = X[1::2], places[1::2]
    display = GradCAMDisplay.from_estimator(clf, X, target="square")
    assert display.layer_ == layer
    assert np.median(distances(display.heatmaps, places, side)) < 0.08
    assert distances(display.heatmaps, places, side).max() < 0.2
    covered = OcclusionDisplay.from_estimator(clf, X, target="square")
    assert np.median(distances(covered.heatmaps, places, side)) < 0.12


def test_averaged_gradients_mislead_where_the_map_is_flattened():
    X, y, _, _ = planted(64, 32)
    clf = CXRClassifier("smallnet", max_epochs=60, random_state=0, batch_size=8).fit(X, y)
    X, y, places, side = planted(24, 32, seed=1)
    X, places = X[1::2], places[1::2]
    far, near = (
        GradCAMDisplay.from_estimator(clf, X, target="square", method=method).heatmaps
        for method in ("gradcam", "hirescam")
    )
    assert np.median(distances(near, places, side)) < 0.08
    assert np.median(distances(far, places, side)) > 0.2


@pytest.mark.parametrize(
    ("backbone", "size", "layer", "axes", "rectified"),
    [("resnet18", (224, 224), "body.layer4", "first", True),
     ("resnet18", (96, 160), "body.layer3", "first", True),
     ("densenet121", (192, 192), "body.features", "first", True),
     ("efficientnet_b0", (224, 224), "body.features", "first", False),
     ("timm:vit_tiny_patch16_224", (224, 224), "body.blocks.11.norm1", "tokens", False),
     ("timm:deit_tiny_distilled_patch16_224", (224, 224), "body.blocks.11.norm1", "tokens", False),
     ("timm:swin_tiny_patch4_window7_224", (224, 224), "body.norm", "last", False)],
)  # fmt: skip
def test_the_last_map_on_which_scores_depend(backbone, size, layer, axes, rectified):
    network, pixels = drawn(backbone, size)
    found = find_layer(network, network, pixels, "auto")
    assert (found.name, found.format.axes, found.rectified) == (layer, axes, rectified)
    with found.probed():  # the way through the map changes no score
        torch.testing.assert_close(network(pixels), network(pixels.detach()), rtol=0, atol=0)
    assert not any(module._forward_hooks for module in network.modules())


def _families():
    """All our own and torchvision's networks but the largest of a kind."""
    large = (
        "efficientnet_b",
        "efficientnet_v2_l",
        "regnet_y_128gf",
        "vit_h",
        "vit_l",
        "convnext_l",
    )
    return [
        name
        for name in list_backbones()
        if not name.startswith(large) or name in ("efficientnet_b0", "vit_l_32")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", _families())
def test_every_backbone_has_a_map(backbone):
    network, pixels = drawn(backbone)
    found = find_layer(network, network, pixels, "auto")
    assert min(found.format.grid) >= 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "convnextv2_atto", "crossvit_9_240",
     "efficientformer_l1", "hiera_tiny_224", "levit_128s", "maxvit_tiny_tf_224", "mixer_s16_224",
     "mobilevit_xxs", "mvitv2_tiny", "nest_tiny", "nfnet_f0", "poolformer_s12", "pvt_v2_b0",
     "regnetx_002", "resmlp_12_224", "sequencer2d_s", "swinv2_tiny_window8_256",
     "tf_efficientnet_lite0", "tiny_vit_5m_224", "twins_svt_small", "visformer_tiny",
     "vit_base_patch16_siglip_224", "vit_small_patch14_reg4_dinov2", "volo_d1_224",
     "xcit_nano_12_p16_224"],
)  # fmt: skip
def test_networks_of_timm_have_a_map(name):
    network, pixels = drawn(f"timm:{name}")
    assert min(find_layer(network, network, pixels, "auto").format.grid) >= 6


@pytest.mark.parametrize(
    ("held", "shape"),
    [(MapFormat("first", (2, 3)), (2, 5, 2, 3)), (MapFormat("last", (2, 3)), (2, 2, 3, 5)),
     (MapFormat("tokens", (2, 3), 1), (2, 7, 5))],
    ids=["first", "last", "tokens"],
)  # fmt: skip
def test_a_map_is_taken_out_and_put_back(held, shape):
    output = torch.arange(float(np.prod(shape))).reshape(shape)
    found = held.take(output)
    assert found.shape == (2, 5, 2, 3)
    assert torch.equal(held.put(found, output), output)
    if held.axes == "tokens":  # in the order of a film's rows
        assert torch.equal(found[0, :, 1, 0], output[0, 4])


class TwoMaps(nn.Module):
    """A network that works in place, and whose last module is run twice."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.unused = nn.Conv2d(4, 4, 1)
        self.end = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.end(self.act(self.second(self.act(self.first(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def two_maps():
    X, y, _, _ = planted(16, 20)
    return CXRClassifier(TwoMaps, max_epochs=2, batch_size=8, random_state=0).fit(X, y)


def test_a_network_of_ones_own(two_maps):
    X = planted(4, 20, seed=1)[0]
    display = GradCAMDisplay.from_estimator(two_maps, X)
    assert display.layer_ == "second"
    assert GradCAMDisplay.from_estimator(two_maps, X, layer="first").layer_ == "first"
    for layer, message in (
        ("act", "does not run once.*first, second"),
        ("unused", "does not run once"),
        ("third", "is no module of TwoMaps"),
    ):
        with pytest.raises(InputError, match=message):
            GradCAMDisplay.from_estimator(two_maps, X, layer=layer)


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_of_a_mean_both_methods_are_the_textbook_one(two_maps, method):
    X = planted(4, 20, seed=1)[0]
    network = two_maps.module_
    pixels = torch.from_numpy(X[:, None] / 255).float()
    features = network.second(network.first(pixels).relu()).relu()  # (4, 4, 20, 20)
    weights = network.end.weight[1] / features[0, 0].numel()  # (4,), the mean gradient
    wanted = (features * weights[:, None, None]).sum(1).relu().detach().numpy()
    most = wanted.max(axis=(1, 2), keepdims=True)
    display = GradCAMDisplay.from_estimator(two_maps, X, target="square", method=method)
    np.testing.assert_allclose(display.heatmaps, wanted / np.where(most, most, 1), atol=1e-5)


def test_views_are_averaged_and_probabilities_are_those_of_predict(two_maps):
    X = planted(4, 20, seed=1)[0]
    two_maps.set_params(tta=3)
    try:
        display = GradCAMDisplay.from_estimator(two_maps, X)
        expected = two_maps.predict_proba(X).max(axis=1)
    finally:
        two_maps.set_params(tta=0)
    np.testing.assert_allclose(display.probabilities, expected)
    plain = GradCAMDisplay.from_estimator(two_maps, X)
    assert not np.array_equal(plain.heatmaps, display.heatmaps)


def test_each_finding_has_a_place_of_its_own():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 60, (64, 64, 64)).astype(np.uint8)
    Y = np.stack([np.arange(64) % 2, np.arange(64) // 2 % 2], axis=1).astype(float)
    X[Y[:, 0] == 1, 8:20, 8:20] += 150
    X[Y[:, 1] == 1, 44:56:3, 44:56] += 150  # stripes: a place alone no pooled map tells
    Y[5, 1] = np.nan
    clf = CXRClassifier(max_epochs=15, augmentation=None, batch_size=8, random_state=0).fit(X, Y)
    both = X[3:64:4]
    for finding, place in ((0, (8, 8)), (1, (44, 44))):
        display = GradCAMDisplay.from_estimator(clf, both, y=Y[3:64:4], target=finding)
        assert list(display.targets) == [finding] * 16
        assert display.y_true == [str(finding)] * 16
        assert np.median(distances(display.heatmaps, np.array([place]), 12)) < 0.1
    display = GradCAMDisplay.from_estimator(clf, X[4:6], y=Y[4:6], target=1)
    assert display.y_true == ["no 1", "1 not labelled"]


class ZeroHead(TwoMaps):
    """A network whose head begins with zeros, as torchvision's transformers do."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        nn.init.zeros_(self.end.weight)


def test_a_head_of_zeros_is_drawn_before_it_is_compared():
    X, y, _, _ = planted(16, 20)
    clf = CXRClassifier(ZeroHead, max_epochs=2, batch_size=8, random_state=0).fit(X, y)
    display = RandomisationDisplay.from_estimator(clf, X[:3], n_draws=1, random_state=0)
    assert np.isfinite(display.correlations).all()


def test_weights_of_a_users_network_are_drawn_anew(two_maps):
    X = planted(4, 20, seed=1)[0]
    seen = look_inside(two_maps, X)
    for name, value in seen.redraw(0).state_dict().items():
        assert not torch.equal(value, two_maps.module_.state_dict()[name]), name
    display = RandomisationDisplay.from_estimator(two_maps, X, n_draws=2, random_state=0)
    assert display.correlations.shape == (2, 4)
