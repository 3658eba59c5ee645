"""Weights: files, their names, heads of other sizes, and what is refused."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from argparse import Namespace
from contextlib import nullcontext

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from skcxr import SkcxrWarning, WeightsError
from skcxr._weights import looks_like_file, read_weights
from skcxr.networks import build_network, draw_network

SMALL = "shufflenet_v2_x0_5"  # 350 thousand weights and batch normalisation


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def theirs():
    """A network of torchvision's with statistics of its own and three outputs."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
        network.train()(torch.rand(4, 3, 32, 32))
        return network.eval()


def write(state, path):
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def load(path, num_classes=3, backbone=SMALL, lost=False, **kwargs):
    """Build a network with weights; `lost` is whether a head that was fine-tuned is told lost."""
    kwargs = {"image_size": (32, 32), **kwargs}
    told = (
        pytest.warns(SkcxrWarning, match="what this head had learnt is lost")
        if lost
        else nullcontext()
    )
    with told:
        return build_network(backbone, num_classes=num_classes, weights=path, **kwargs).eval()


def assert_is(ours, theirs, head=True):
    """The body, and the head if asked, is theirs; buffers too."""
    x = torch.rand(2, 1, 32, 32)
    whole = nn.Sequential(ours.normalize, theirs)
    with torch.no_grad():
        if head:
            torch.testing.assert_close(ours(x), whole(x))
        state = ours.body.state_dict()
        for key, value in theirs.state_dict().items():
            assert key.startswith("fc.") or torch.equal(state[key], value), key


# --------------------------------------------------------------------------------------------
# what is taken
# --------------------------------------------------------------------------------------------

PREFIXES = [
    "", "module.", "model.", "backbone.", "encoder.", "net.", "network.", "_orig_mod.",
    "module.model.", "model.backbone.", "_orig_mod.module.", "module._orig_mod.encoder.",
]  # fmt: skip


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [(prefix, suffix) for prefix in PREFIXES for suffix in (".safetensors", ".pt")]
    + [("", ".PTH")],
)
def test_names_with_prefixes(prefix, suffix, theirs, tmp_path):
    state = {prefix + key: value for key, value in theirs.state_dict().items()}
    ours = load(write(state, tmp_path / f"w{suffix}"))
    assert_is(ours, theirs)
    assert ours.weights_info == f"the file w{suffix}; with its head of 3 outputs"


@pytest.mark.parametrize("inside", ["state_dict", "model_state_dict", "model", "model_ema"])
def test_weights_inside_a_training_script_s_dict(inside, theirs, tmp_path):
    content = {"epoch": 3, inside: theirs.state_dict(), "optimizer": {"lr": 0.1}}
    assert_is(load(write(content, tmp_path / "w.pt")), theirs)
    assert_is(load(write({"model": content}, tmp_path / "w.pt")), theirs)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_of_our_own_wrapper(prefix, theirs, tmp_path):
    before = load(write(theirs.state_dict(), tmp_path / "theirs.pt"))
    before.normalize.mean.fill_(0.25)
    state = {prefix + key: value for key, value in before.state_dict().items()}
    after = load(write(state, tmp_path / "ours.safetensors"))
    assert_is(after, theirs)
    assert (after.normalize.mean == 0.25).all()


@pytest.mark.parametrize("backbone", ["cxrnet", "smallnet"])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_our_own_networks_take_files(backbone, prefix, tmp_path):
    before = draw_network(backbone, num_classes=3, image_size=(32, 32)).eval()
    state = {prefix + key: value for key, value in before.state_dict().items()}
    path = write(state, tmp_path / "w.safetensors")
    x = torch.rand(2, 1, 32, 32)
    assert torch.equal(load(path, backbone=backbone)(x), before(x))
    other = load(path, 5, backbone, lost=True)
    assert torch.equal(other.embed(x), before.embed(x))
    assert other(x).shape == (2, 5)


def test_the_other_types_of_numbers(theirs, tmp_path):
    path = write({k: v.half() if v.is_floating_point() else v
                  for k, v in theirs.state_dict().items()}, tmp_path / "w.pt")  # fmt: skip
    ours = load(path, dtype=torch.float64)
    assert {p.dtype for p in ours.parameters()} == {torch.float64}
    torch.testing.assert_close(
        ours.head.weight.data, theirs.fc.weight.data.double(), rtol=1e-3, atol=1e-4
    )


def test_counts_of_batches_may_be_absent_or_too_many(theirs, tmp_path):
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    ours = load(write(state, tmp_path / "w.pt"))
    assert torch.equal(ours.body.conv1[0].weight, theirs.conv1[0].weight)
    state["fc.num_batches_tracked"] = torch.tensor(3)
    load(write(state, tmp_path / "w.pt"))


def test_older_names_of_torchvision(tmp_path):
    dense = torchvision.models.DenseNet(4, (1, 1), 8, num_classes=3)
    before = {k: v for k, v in dense.state_dict().items() if k.startswith("features.denseblock1")}

    class Mine(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.features = nn.ModuleDict({"denseblock1": dense.features.denseblock1})

    older = {re.sub(r"(norm|conv)([12])\.", r"\1.\2.", key): value for key, value in before.items()}
    assert older.keys() != before.keys()
    load(write(older, tmp_path / "w.pt"), backbone=Mine)

    vit = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 8, num_classes=3)
    older = {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value
        for key, value in vit.state_dict().items()
    }
    assert older.keys() != vit.state_dict().keys()
    load(write(older, tmp_path / "w.pt"), backbone=lambda num_classes: vit)


def test_auxiliary_heads_are_left_out(tmp_path):
    theirs = torchvision.models.googlenet(num_classes=3, init_weights=False, aux_logits=True)
    ours = load(write(theirs.state_dict(), tmp_path / "w.pt"), backbone="googlenet")
    assert torch.equal(ours.head.weight, theirs.fc.weight)


def test_a_state_dict_may_be_loaded_without_its_versions():
    before, after = (draw_network("mnasnet0_5", num_classes=3, image_size=(32, 32)) for _ in "ab")
    after.load_state_dict(dict(before.state_dict()))
    assert torch.equal(after.head.weight, before.head.weight)


# --------------------------------------------------------------------------------------------
# heads
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_outputs", "published"), [(1000, True), (21841, True), (7, False)])
def test_a_head_of_another_size_is_replaced(n_outputs, published, theirs, tmp_path):
    head = nn.Linear(1024, n_outputs).state_dict()
    state = theirs.state_dict() | {f"fc.{key}": value for key, value in head.items()}
    path = write(state, tmp_path / "w.pt")
    torch.manual_seed(5)
    fresh = draw_network(SMALL, num_classes=3, image_size=(32, 32)).head.weight
    torch.manual_seed(5)
    told = f"its head of {n_outputs} outputs was replaced by a new one of 3"
    ours = load(path, lost=not published)
    assert_is(ours, theirs, head=False)
    assert torch.equal(ours.head.weight, fresh)
    assert ours.weights_info == f"the file {path.name}; {told}"


def test_a_file_without_a_head_gets_a_new_one(theirs, tmp_path):
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    path = write(state, tmp_path / "w.safetensors")
    ours = load(path)
    assert_is(ours, theirs, head=False)
    assert ours.weights_info == f"the file {path.name}; it has no head, so there is a new one of 3"


def test_two_heads_of_a_distilled_network_are_replaced(tmp_path):
    import timm

    name = "deit_tiny_distilled_patch16_224"
    theirs = timm.create_model(name, img_size=32, depth=1)
    path = write(theirs.state_dict(), tmp_path / "w.pt")
    for num_classes in (1000, 3):
        ours = load(path, num_classes, f"timm:{name}", depth=1)
        assert ours.weights_info.endswith(
            f"its heads of 1000 outputs were replaced by a new one of {num_classes}"
        )
        assert torch.equal(ours.body.dist_token, theirs.dist_token)


# --------------------------------------------------------------------------------------------
# what is refused
# --------------------------------------------------------------------------------------------


def harm(state, how):
    if how == "missing":
        del state["conv5.0.weight"]
    elif how == "unexpected":
        state["layer9.weight"] = torch.ones(2, 3)
    elif how == "shape":
        state["conv5.0.weight"] = torch.ones(2, 3)
    elif how == "whole numbers":
        state["conv5.0.weight"] = torch.ones(1024, 192, 1, 1, dtype=torch.int64)
    elif how == "head of another width":
        state["fc.weight"] = torch.ones(3, 2)
    elif how == "half a head":
        del state["fc.bias"]
    elif how == "scalar head":
        state["fc.weight"] = torch.tensor(1.0)
    elif how in ("nan", "inf"):
        state["conv5.0.weight"] = state["conv5.0.weight"].clone()
        state["conv5.0.weight"][3] = float(how)
    elif how == "too large":
        state["conv5.0.weight"] = torch.full((1024, 192, 1, 1), 1e300, dtype=torch.float64)
    elif how == "another network":
        return torchvision.models.mnasnet0_5(num_classes=3).state_dict()
    elif how == "twice":
        state["_orig_mod.fc.bias"] = state["fc.bias"]
    return state


@pytest.mark.parametrize(
    ("how", "said"),
    [("missing", r"1 of the tensors differ: body.conv5.0.weight \(1024, 192, 1, 1\) is missing"),
     ("unexpected", r"body.layer9.weight \(2, 3\) is unexpected"),
     ("shape", r"body.conv5.0.weight has the shape \(2, 3\) instead of \(1024, 192, 1, 1\)"),
     ("whole numbers", r"body.conv5.0.weight is torch.int64 instead of torch.float32"),
     ("head of another width", r"head.weight has the shape \(3, 2\) instead of \(3, 1024\)"),
     ("half a head", r"head.bias \(3\) is missing"),
     ("scalar head", r"head.weight has the shape \(\) instead of \(3, 1024\)"),
     ("nan", "body.conv5.0.weight holds NaN or infinity"),
     ("inf", "body.conv5.0.weight holds NaN or infinity"),
     ("too large", "body.conv5.0.weight holds NaN or infinity"),
     ("another network", "body.conv1.0.weight .* is missing; .*; and [0-9]+ more; nothing")],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_what_does_not_fit_is_an_error(how, said, suffix, theirs, tmp_path):
    path = write(harm(dict(theirs.state_dict()), how), tmp_path / f"w{suffix}")
    start = re.escape(f"weights={os.fspath(path)!r} do not fit {SMALL}: ")
    with pytest.raises(WeightsError, match=start + ".*" + said):
        load(path)


def test_one_tensor_under_two_names_is_an_error(theirs, tmp_path):
    before = load(write(theirs.state_dict(), tmp_path / "w.pt")).state_dict()
    state = dict(before) | {"fc.bias": before["head.bias"]}
    with pytest.raises(WeightsError, match=r"hold 'head\.bias' twice"):
        load(write(state, tmp_path / "w.pt"))


@pytest.mark.parametrize("backbone", ["cxrnet", SMALL, nn.LazyLinear])
def test_files_that_are_none(backbone, tmp_path):
    if backbone is nn.LazyLinear:
        backbone = lambda num_classes: nn.Linear(2, num_classes)  # noqa: E731
    (tmp_path / "file").touch()
    (tmp_path / "w.onnx").touch()
    (tmp_path / "folder.pt").mkdir()
    for path, said in [
        (tmp_path / "gone.pt", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "folder.pt", "is a folder"),
        (tmp_path / "file", "has no extension"),
        (str(tmp_path / "file"), "has no extension"),
        (tmp_path / "w.onnx", r"ends with '\.onnx'"),
        ("w.npz", r"ends with '\.npz'"),
        ("gone.safetensors", "does not exist"),
    ]:
        with pytest.raises(WeightsError, match=re.escape(f"weights={os.fspath(path)!r} ") + said):
            load(path, backbone=backbone)


class Canary:
    """Unpickled, it leaves a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "how", ["pickle", "old pickle", "torch", "torch, old", "inside", "module", "script args"]
)
def test_no_code_of_a_file_is_run(how, theirs, tmp_path):
    path, canary = tmp_path / "w.pt", Canary(str(tmp_path / "hatched"))
    if how.endswith("pickle"):
        path.write_bytes(pickle.dumps({"fc.weight": canary}, protocol=2 if "old" in how else None))
    elif how == "inside":
        torch.save({"state_dict": theirs.state_dict(), "epoch": canary}, path)
    elif how == "module":
        torch.save(theirs, path)
    elif how == "script args":
        torch.save({"model": theirs.state_dict(), "args": Namespace(lr=0.1)}, path)
    else:
        torch.save({"a": canary}, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(WeightsError, match=r"would run code that .* nothing was run.*state_dict"):
        load(path)
    assert not (tmp_path / "hatched").exists()


def test_a_torchscript_file_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 3)), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="would run code"):
        load(tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("how", ["empty", "text", "noise", "half", "end"])
def test_damaged_files(how, suffix, theirs, tmp_path):
    path = write(theirs.state_dict(), tmp_path / f"w{suffix}")
    whole = path.read_bytes()
    path.write_bytes({
        "empty": b"", "text": b"version https://git-lfs.github.com/spec/v1\n" * 9,
        "noise": bytes(range(128, 256)) * 9, "half": whole[: len(whole) // 2], "end": whole[:-9],
    }[how])  # fmt: skip
    with pytest.raises(WeightsError, match=rf"cannot be read as a \{suffix} file: \w+: .*damaged"):
        load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [(torch.ones(3), "holds Tensor, not a dict of tensors"),
     ([torch.ones(3)], "holds list, not a dict of tensors"),
     ({}, "it is empty"),
     ({"state_dict": {}}, "it is empty"),
     ({"epoch": 3, "fc.weight": torch.ones(3)}, "no tensor is in 'epoch'"),
     ({3: torch.ones(3)}, "no tensor is in 3"),
     ({"a": torch.ones(3).to_sparse()}, "no tensor is in 'a'")],
)  # fmt: skip
def test_files_that_hold_something_else(content, said, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=said):
        read_weights(tmp_path / "w.pt")


def test_a_failed_load_leaves_the_network_as_it_was(theirs, tmp_path):
    from skcxr._weights import Names, put_weights

    network = nn.Linear(2, 3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = {"weight": torch.ones(3, 2), "bias": torch.full((3,), torch.nan)}
    with pytest.raises(WeightsError, match="bias holds NaN"):
        put_weights(network, state, names=Names(None), weights="w.pt", origin="the file w.pt")
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not hasattr(network, "weights_info")


def test_what_can_only_be_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    for weights in ("a.pt", "folder/a", tmp_path / "a", "there", "a.bin"):
        assert looks_like_file(weights)
    for weights in ("DEFAULT", "IMAGENET1K_V1", "ra_in1k", "gone"):
        assert not looks_like_file(weights)
