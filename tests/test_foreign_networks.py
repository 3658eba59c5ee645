"""Networks of torchvision, timm and torchxrayvision for gray pixels."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from skcxr import InputError, SkcxrWarning, WeightsError
from skcxr._foreign_networks import ForeignNet, Normalize, resize_positions, stages_of
from skcxr._weights import Names, put_weights
from skcxr.networks import InputSpec, build_network, draw_network, input_spec, list_backbones

# one of each family, and a side that it takes
TORCHVISION = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_5": 32,
    "swin_t": 32,
    "swin_v2_t": 32,
    "vgg11": 32,
    "vit_b_32": 32,
    "wide_resnet50_2": 32,
}
TIMM = {
    "timm:tf_efficientnet_lite0": 32,
    "timm:test_vit": 32,
    "timm:deit_tiny_distilled_patch16_224": 32,
    "timm:swin_tiny_patch4_window7_224": 56,
    "timm:convnext_atto": 32,
    "timm:mobilenetv3_small_050.lamb_in1k": 32,
    "timm:levit_128s": 224,
}
SLOW = {"maxvit_t", "vgg11", "wide_resnet50_2"}
XRV = {"xrv:densenet121-res224-all": 32, "xrv:resnet50-res512-all": 32}


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def draw(backbone: str, side: int = 32, num_classes: int = 3, **kwargs):
    return draw_network(backbone, num_classes=num_classes, image_size=(side, side), **kwargs)


def modules_of(network):
    return [module for stage in network.stages() for module in stage]


# --------------------------------------------------------------------------------------------
# every family
# --------------------------------------------------------------------------------------------


def test_no_family_of_torchvision_is_left_out():
    def family(name):
        return (
            name.removeprefix("wide_").rstrip("_0123456789").partition("_")[0].rstrip("0123456789")
        )

    listed = {family(name) for name in list_backbones("torchvision")}
    assert listed == {family(name) for name in TORCHVISION}


@pytest.mark.parametrize(
    "backbone",
    [pytest.param(x, marks=pytest.mark.slow) if x in SLOW else x
     for x in [*TORCHVISION, *TIMM, *XRV]],
)  # fmt: skip
def test_body_head_and_stages(backbone):
    side = {**TORCHVISION, **TIMM, **XRV}[backbone]
    network = draw(backbone, side).eval()
    x = torch.rand(2, 1, side, side)

    # the head of embeddings gives the logits
    with torch.no_grad():
        logits, embeddings = network(x), network.embed(x)
    assert logits.shape == (2, 3)
    assert isinstance(network.head, nn.Linear)
    assert embeddings.shape == (2, network.embedding_size) == (2, network.head.in_features)
    torch.testing.assert_close(network(embeddings), logits, rtol=1e-5, atol=1e-5)

    # stages hold every parameter but the head's, once
    stages = network.stage_parameters()
    assert len(stages) == len(network.stages()) >= 4
    found = [id(p) for stage in stages for p in stage]
    of_head = {id(p) for p in network.head.parameters()}
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in network.parameters()} - of_head
    inside = [id(m) for module in modules_of(network) for m in module.modules()]
    assert len(inside) == len(set(inside))

    # a frozen body draws the same from pixels and from embeddings
    network.train()
    for module in modules_of(network):
        module.eval()
    drawn = []
    for given in (x, embeddings):
        torch.manual_seed(1)
        with torch.no_grad():
            drawn.append([network(given), torch.rand(3)])
    for a, b in zip(*drawn, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "n_stages"),
    [("densenet121", 8), ("mobilenet_v3_small", 14), ("timm:tf_efficientnet_lite0", 9),
     ("timm:test_vit", 7), ("xrv:densenet121-res224-nih", 8)],
)  # fmt: skip
def test_number_of_stages(backbone, n_stages):
    assert len(draw(backbone).stages()) == n_stages


def test_stages_of_a_plain_network_end_with_pooling():
    body = torchvision.models.resnet18()
    stages = stages_of(body)
    assert stages[0] == [body.conv1, body.bn1, body.relu, body.maxpool]
    assert stages[1:4] == [[body.layer1], [body.layer2], [body.layer3]]
    assert stages[4][0] is body.layer4
    features = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)
    )
    stages = stages_of(nn.ModuleDict({"features": features, "norm": nn.BatchNorm2d(2)}))
    assert [len(stage) for stage in stages] == [3, 3]


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "timm:test_vit"])
def test_dropout_before_the_head(backbone):
    assert draw(backbone).dropout.p == (0.2 if backbone.startswith("mobile") else 0)
    network = draw(backbone, dropout=0.5)
    assert network.dropout.p == 0.5
    assert not any(m.p for m in network.body.modules() if isinstance(m, nn.Dropout))
    embeddings = torch.rand(2, network.embedding_size)
    assert not torch.equal(network.train()(embeddings), network(embeddings))
    with pytest.raises(InputError, match="dropout=1"):
        draw(backbone, dropout=1)


def test_filters_lie_in_memory_with_channels_last():
    network = draw("shufflenet_v2_x0_5")
    filters = [p for p in network.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in filters)


@pytest.mark.parametrize(
    ("backbone", "size", "said"),
    [("vit_b_32", (32, 64), "32 x 64 pixels: it takes square images"),
     ("vit_b_32", (33, 33), "33 x 33 pixels.* it is made for 224 x 224"),
     ("timm:swin_tiny_patch4_window7_224", (-1, 5), "-1 x 5 pixels"),
     ("maxvit_t", (100, 100), "not divisible")],
)  # fmt: skip
def test_sizes_that_cannot_be_are_an_error(backbone, size, said):
    with pytest.raises(InputError, match=f"(?s){said}"):
        draw_network(backbone, num_classes=3, image_size=size)


def test_unknown_arguments_are_an_error():
    for backbone in ("resnet18", "timm:resnet18", *XRV):
        with pytest.raises(InputError, match=r"\{'nonsense': 3\}.*unexpected keyword"):
            draw(backbone, nonsense=3)
    for name in ("aux_logits", "transform_input"):
        with pytest.raises(InputError, match=name):
            draw("googlenet", **{name: True})


def test_arguments_reach_the_library():
    network = draw("resnet18", zero_init_residual=True)
    assert not network.body.layer1[0].bn2.weight.any()
    network = draw("timm:test_vit", depth=2)
    assert len(network.body.blocks) == 2


# --------------------------------------------------------------------------------------------
# what goes in
# --------------------------------------------------------------------------------------------

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("backbone", "weights", "expected"),
    [("resnet50", None, InputSpec((224, 224), 3, *IMAGENET, "bilinear", False)),
     ("efficientnet_b3", None, InputSpec((300, 300), 3, *IMAGENET, "bicubic", False)),
     ("vit_b_16", None, InputSpec((224, 224), 3, *IMAGENET, "bilinear", True)),
     ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", InputSpec((384, 384), 3, *IMAGENET, "bicubic", True)),
     ("resnet18", "folder/file.pt", InputSpec((224, 224), 3, *IMAGENET, "bilinear", False)),
     ("inception_v3", "DEFAULT", InputSpec((299, 299), 3, *[(0.5,) * 3] * 2, "bilinear", False)),
     ("timm:resnet18", None, InputSpec((224, 224), 3, *IMAGENET, "bicubic", False)),
     ("timm:resnet18", "gluon_in1k", InputSpec((224, 224), 3, *IMAGENET, "bicubic", False)),
     ("timm:tf_efficientnet_lite0", "DEFAULT",
      InputSpec((224, 224), 3, *[(0.5,) * 3] * 2, "bicubic", False)),
     ("timm:test_vit", None, InputSpec((160, 160), 3, *[(0.5,) * 3] * 2, "bicubic", True)),
     ("timm:vit_base_patch16_384", None,
      InputSpec((384, 384), 3, *[(0.5,) * 3] * 2, "bicubic", True)),
     ("xrv:resnet50-res512-all", None,
      InputSpec((512, 512), 1, (0.5,), (1 / 2048,), "bilinear", False)),
     ("xrv:densenet121-res224-rsna", None,
      InputSpec((224, 224), 1, (0.5,), (1 / 2048,), "bilinear", False))],
)  # fmt: skip
def test_input(backbone, weights, expected):
    assert input_spec(backbone, weights) == expected


def test_names_have_an_input_and_nothing_is_drawn(monkeypatch):
    monkeypatch.setattr(nn.Conv2d, "__init__", None)
    names = list_backbones() + list_backbones("timm")[::9] + list_backbones("xrv")
    for name in names:
        spec = input_spec(name)
        assert spec.interpolation in ("hamming", "bilinear", "bicubic")
        if spec.mean is not None:
            assert len(spec.mean) == len(spec.std) == spec.channels
            assert all(isinstance(side, int) for side in spec.size)


def test_gray_becomes_three_channels_each_normalised_by_its_own():
    x = torch.rand(2, 1, 5, 4)
    by_hand = torch.empty(2, 3, 5, 4)
    for channel, (mean, std) in enumerate(zip(*IMAGENET, strict=True)):
        by_hand[:, channel] = (x[:, 0] - mean) / std
    torch.testing.assert_close(Normalize(*IMAGENET)(x), by_hand, rtol=0, atol=1e-5)
    repeated = torchvision.transforms.functional.normalize(x.repeat(1, 3, 1, 1), *IMAGENET)
    torch.testing.assert_close(draw("resnet18").normalize(x), repeated, rtol=0, atol=1e-5)


def test_pixels_of_torchxrayvision_lie_between_minus_and_plus_1024():
    x = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)
    network = draw("xrv:densenet121-res224-all")
    assert network.normalize(x).flatten().tolist() == [-1024, 0, 1024]


def test_networks_that_normalise_once_more_get_what_their_weights_are_used_to(tmp_path):
    theirs = torchvision.models.googlenet(
        weights=None, num_classes=3, aux_logits=False, init_weights=False, transform_input=True
    ).eval()
    path = tmp_path / "w.pt"
    torch.save(theirs.state_dict(), path)
    ours = build_network("googlenet", num_classes=3, image_size=(32, 32), weights=path).eval()
    x = torch.rand(2, 1, 32, 32)
    repeated = torchvision.transforms.functional.normalize(x.repeat(1, 3, 1, 1), *IMAGENET)
    torch.testing.assert_close(ours(x), theirs(repeated), rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------
# published weights
# --------------------------------------------------------------------------------------------


def test_real_weights_give_the_library_s_embeddings(lite0):
    import timm

    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    theirs.load_state_dict(
        {k: v for k, v in load_file(lite0).items() if not k.startswith("classifier.")}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a head of 1000 classes is nobody's loss
        ours = build_network(
            "timm:tf_efficientnet_lite0", num_classes=4, image_size=(64, 64), weights=lite0
        ).eval()
    assert ours.weights_info == (
        f"the file {lite0.name}; its head of 1000 outputs was replaced by a new one of 4"
    )
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = theirs((x.repeat(1, 3, 1, 1) - 0.5) / 0.5)
        found = ours.embed(x)
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, rtol=1e-5, atol=1e-5)


def test_real_weights_and_all_of_their_head(lite0):
    ours = build_network(
        "timm:tf_efficientnet_lite0", num_classes=1000, image_size=(32, 32), weights=str(lite0)
    )
    assert torch.equal(ours.head.weight, load_file(lite0)["classifier.weight"])
    assert ours.weights_info.endswith("with its head of 1000 outputs")


def test_published_weights_of_torchvision(monkeypatch):
    theirs = torchvision.models.shufflenet_v2_x0_5()
    known = torchvision.models.ShuffleNet_V2_X0_5_Weights
    asked = []

    def get_state_dict(self, *args, **kwargs):
        asked.append((self, args, kwargs))
        return theirs.state_dict()

    monkeypatch.setattr(known, "get_state_dict", get_state_dict)
    for weights in ("DEFAULT", "IMAGENET1K_V1"):
        ours = build_network(
            "shufflenet_v2_x0_5", num_classes=4, image_size=(32, 32), weights=weights
        )
        assert torch.equal(ours.body.conv5[0].weight, theirs.conv5[0].weight)
        assert ours.weights_info == (
            "IMAGENET1K_V1 of torchvision; its head of 1000 outputs was replaced by a new one of 4"
        )
    assert asked == [(known.IMAGENET1K_V1, (), {"progress": False, "check_hash": True})] * 2


def test_published_weights_of_timm(monkeypatch):
    import timm

    create, made = timm.create_model, []

    def create_model(name, pretrained=False, **kwargs):
        model = create(name, pretrained=False, **kwargs)
        if pretrained:
            made.append((name, model))
        return model

    monkeypatch.setattr(timm, "create_model", create_model)
    for backbone, weights in [
        ("timm:test_vit", "DEFAULT"), ("timm:test_vit", "r160_in1k"),
        ("timm:test_vit.r160_in1k", "DEFAULT"),
    ]:  # fmt: skip
        ours = build_network(backbone, num_classes=4, image_size=(32, 32), weights=weights)
        name, theirs = made.pop()
        assert name in ("test_vit", "test_vit.r160_in1k")
        assert torch.equal(ours.body.pos_embed, theirs.pos_embed)
        assert ours.weights_info == (
            "r160_in1k of timm; its head of 1000 outputs was replaced by a new one of 4"
        )


@pytest.mark.parametrize("weights", [None, "DEFAULT"])
def test_published_weights_of_torchxrayvision(weights, tmp_path, monkeypatch, capsys):
    from torchxrayvision import models

    name = "densenet121-res224-nih"
    theirs = models.DenseNet(num_classes=18)
    path = tmp_path / "w.pt"
    torch.save(theirs, path)  # a whole module, as theirs are
    monkeypatch.setattr(models, "get_weights", lambda *args: str(path))
    ours = build_network(f"xrv:{name}", num_classes=2, image_size=(32, 32), weights=weights)
    assert ours.weights_info == (
        f"{name} of torchxrayvision; its head of 18 outputs was replaced by a new one of 2"
    )
    x = torch.rand(2, 1, 32, 32).double()
    with torch.no_grad():
        maps = theirs.double().eval().features((2 * x - 1) * 1024)
        torch.testing.assert_close(ours.double().eval().embed(x), maps.relu().mean((2, 3)))
    assert capsys.readouterr() == ("", "")
    # a file of one's own is never unpickled
    with pytest.raises(WeightsError, match=r"would run code.*save the module's state_dict"):
        build_network(f"xrv:{name}", num_classes=2, image_size=(32, 32), weights=path)


def test_a_resnet_of_torchxrayvision_from_its_file(tmp_path):
    theirs = torchvision.models.resnet50(num_classes=18)
    theirs.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    path = tmp_path / "w.pt"
    torch.save(
        {**{f"model.{k}": v for k, v in theirs.state_dict().items()}, "op_threshs": torch.ones(18)},
        path,
    )
    ours = build_network(
        "xrv:resnet50-res512-all", num_classes=2, image_size=(32, 32), weights=path
    )
    assert torch.equal(ours.body.layer4[2].conv3.weight, theirs.layer4[2].conv3.weight)


def test_importing_torchxrayvision_silences_no_warning():
    list_backbones("xrv")
    with pytest.raises(SkcxrWarning):
        warnings.warn("heard", SkcxrWarning, stacklevel=1)


def test_a_download_that_fails_is_an_error_and_never_a_random_network(monkeypatch):
    import timm
    from torchxrayvision import models

    def fail(*args, **kwargs):
        raise OSError("no route to host\nand more")

    create = timm.create_model
    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", fail)
    monkeypatch.setattr(models, "get_weights", fail)
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: fail() if k["pretrained"] else create(*a, **k)
    )
    for backbone, where in [
        ("resnet18", "download.pytorch.org/models/resnet18"),
        ("timm:resnet18", "huggingface.co/timm/resnet18.a1_in1k"),
        ("xrv:resnet50-res512-all", "github.com/mlmed/torchxrayvision"),
    ]:
        with pytest.raises(
            WeightsError, match=rf"{where}.*OSError: no route to host\. Without.* local \.safe"
        ):
            build_network(backbone, num_classes=2, image_size=(32, 32), weights="DEFAULT")
    with pytest.raises(WeightsError, match="no route to host"):
        build_network("xrv:densenet121-res224-all", num_classes=2, image_size=(32, 32))


def test_names_without_published_weights_have_none():
    import timm

    name = next(n for n in timm.list_models("resnet*") if not timm.list_pretrained(f"{n}.*"))
    with pytest.raises(WeightsError, match=f"'timm:{name}' has none"):
        input_spec(f"timm:{name}", "DEFAULT")


# --------------------------------------------------------------------------------------------
# position embeddings
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 64, 128])
def test_position_embeddings_of_another_size_are_interpolated(side, tmp_path):
    from timm.layers import resample_abs_pos_embed

    before = draw("timm:test_vit", 64)
    path = tmp_path / "w.pt"
    torch.save(before.body.state_dict(), path)
    after = build_network("timm:test_vit", num_classes=3, image_size=(side, side), weights=path)
    expected = resample_abs_pos_embed(before.body.pos_embed, [side // 16] * 2)
    torch.testing.assert_close(after.body.pos_embed, expected)
    after(torch.rand(2, 1, side, side))


def test_position_embeddings_of_torchvision_too():
    def vit(side):
        body = torchvision.models.VisionTransformer(side, 16, 1, 2, 8, 8)
        body.heads = nn.Identity()
        names = Names("head", "body.", ("heads.head",))
        return ForeignNet("vit", body, nn.Linear(8, 3), input_spec("vit_b_16"), names)

    state = {key: value.clone() for key, value in vit(32).body.state_dict().items()}
    before = state["encoder.pos_embedding"]
    before[:, 1:] = torch.arange(8.0)  # the same everywhere
    network = vit(48)

    def load():
        put_weights(
            network, state, names=network.names, weights="w.pt", origin="the file w.pt",
            adapt=lambda found: resize_positions(network, found),
        )  # fmt: skip

    load()
    after = network.body.encoder.pos_embedding
    assert after.shape == (1, 1 + 9, 8)
    torch.testing.assert_close(after[:, 0], before[:, 0])
    torch.testing.assert_close(after[0, 1:], torch.arange(8.0).expand(9, -1))
    state["encoder.pos_embedding"] = before[:, :3]  # one token and no square
    with pytest.raises(WeightsError, match=r"pos_embedding has the shape \(1, 3, 8\) instead"):
        load()


@pytest.mark.parametrize("name", ["checkpoint_path", "pretrained", "pretrained_cfg"])
def test_nothing_is_loaded_behind_weights(name, tmp_path):
    with pytest.raises(InputError, match=f"{name}= .* use weights= instead"):
        draw("timm:tf_efficientnet_lite0", **{name: str(tmp_path / "gone.pt")})
