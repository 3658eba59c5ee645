"""Folders that are no models, or models that somebody has forged: told apart, and never run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skcxr import (
    CXRClassifier,
    ImageLoader,
    InputError,
    ModelFileError,
    WeightsError,
    load_model,
    save_model,
)
from skcxr._weights import read_weights
from skcxr.outliers import OutlierGate

DATA = Path(__file__).parent / "data"
FUZZ = Path(__file__).parent / "fuzz"


class Canary:
    """A pickle that leaves a file behind where it is loaded."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return open, (str(self.place), "w")


@pytest.fixture
def canary(tmp_path):
    """A pickle, and the check that nobody has loaded it."""
    place = tmp_path / "canary-sang"
    yield pickle.dumps(Canary(place))
    assert not place.exists()


@pytest.fixture
def saved(tmp_path):
    """A small classifier."""
    return Path(shutil.copytree(DATA / "model_format_1" / "classifier", tmp_path / "model"))


@pytest.fixture
def pipeline(tmp_path):
    """A small pipeline of a loader, a scaler and a logistic regression."""
    pytest.importorskip("skops.io")
    return Path(shutil.copytree(DATA / "model_format_1" / "rows", tmp_path / "rows"))


def seal(folder, name):
    """Make the configuration agree with a changed file, as a forger would."""
    config = json.loads((folder / "config.json").read_text())
    content = (folder / name).read_bytes()
    record = config["weights" if name == "model.safetensors" else "estimator"]
    record.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / "config.json").write_text(json.dumps(config))


def rewrite(folder, change):
    """Change the schema of a skops archive, or its members, and seal it."""
    file = folder / "estimator.skops"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members["schema.json"])
    change(schema, members)
    members.setdefault("schema.json", b"")
    if members["schema.json"]:
        members["schema.json"] = json.dumps(schema).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    seal(folder, "estimator.skops")


def nodes(value):
    """Every node of a schema."""
    if isinstance(value, dict):
        if "__loader__" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from nodes(each)


# --------------------------------------------------------------------------------------------
# models of older formats
# --------------------------------------------------------------------------------------------

sys.path.insert(0, str(DATA))
from make_saved_models import phantoms, write_phantoms  # noqa: E402

sys.path.pop(0)


@pytest.mark.parametrize("name", ["classifier", "findings", "pipeline", "rows"])
@pytest.mark.parametrize("folder", sorted(DATA.glob("model_format_*")), ids=lambda x: x.name)
@pytest.mark.filterwarnings("ignore:the model .* was saved with scikit-learn")
def test_models_of_every_format_load_and_say_the_same(folder, name, tmp_path):
    if name in ("pipeline", "rows"):
        pytest.importorskip("skops.io")
    X = write_phantoms(tmp_path) if name in ("pipeline", "rows") else phantoms()[0]
    expected = json.loads((folder / "expected.json").read_text())[name]
    found = load_model(folder / name).predict_proba(X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# --------------------------------------------------------------------------------------------
# files that are none, or not the right ones
# --------------------------------------------------------------------------------------------


def device(file):
    try:
        os.mknod(file, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except (OSError, AttributeError):
        pytest.skip("no devices can be made here")


def unix_socket(file):
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(file.parent)
        try:
            one.bind(file.name)
        finally:
            os.chdir(here)


KINDS = {
    "link": (lambda file: file.symlink_to("/dev/zero"), "is a symbolic link"),
    "link to a file": (lambda file: file.symlink_to("other"), "is a symbolic link"),
    "loop": (lambda file: file.symlink_to(file.name), "is a symbolic link"),
    "folder": (lambda file: file.mkdir(), "is a folder"),
    "pipe": (lambda file: os.mkfifo(file), "is a named pipe"),
    "device": (device, "is a device"),
    "socket": (unix_socket, "is a socket"),
}


@pytest.mark.skipif(os.name != "posix", reason="kinds of files of POSIX")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "estimator.skops"])
def test_what_is_no_file_is_told_and_not_waited_for(kind, name, saved, pipeline):
    make, reason = KINDS[kind]
    folder = pipeline if name == "estimator.skops" else saved
    (folder / name).rename(folder / "other")
    make(folder / name)
    with pytest.raises(ModelFileError, match=f"{name} {reason}, not a file"):
        load_model(folder)


def test_links_to_the_folder_and_hard_links_are_files_like_any(saved, tmp_path):
    (tmp_path / "link").symlink_to(saved)
    os.link(saved / "model.safetensors", tmp_path / "again")
    assert load_model(tmp_path / "link").n_iter_ == 2
    before = (tmp_path / "again").read_bytes()
    save_model(load_model(saved).set_params(verbose=1), saved)
    assert (tmp_path / "again").read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", ""])
def test_what_may_not_be_read(name, saved):
    (saved / name).chmod(0)
    with pytest.raises(ModelFileError, match="cannot be read: Permission denied"):
        load_model(saved)
    (saved / name).chmod(0o700)


@pytest.mark.parametrize("name", ["notes.txt", "extra.pkl", "Config.json", ".DS_Store", "n.skops"])
def test_further_files_are_not_looked_at(name, saved, canary):
    (saved / name).write_bytes(canary)
    assert load_model(saved).n_iter_ == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "config.json is missing"),
        (b'{"architectures": ["ResNetForImageClassification"]}', "is not of save_model"),
        (b"\x80\x04.", "no text in UTF-8"),
        (b'{"format": "skcxr", "format_version": 0}', "the format 0, which there never was"),
        (b'{"format": "skcxr", "format_version": 99}', r"newer skcxr \(format 99\)"),
        (b'{"format": "skcxr", "format_version": 1e999999}', "number 1e999999, which is too large"),
        (b'{"format": "skcxr", "format_version": NaN}', "is no JSON: it has the number NaN"),
        (b'{"format": "skcxr", "format_version": ' + b"9" * 5000 + b"}", "9{20}..., which is too"),
        (b'{"format": "skcxr", "format": "skcxr"}', "the key 'format' twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"", "is no JSON"),
    ],
    ids=range(12),
)  # fmt: skip
def test_folders_of_others(content, reason, saved):
    (saved / "config.json").unlink()
    if content is not None:
        (saved / "config.json").write_bytes(content)
    with pytest.raises(ModelFileError, match=reason):
        load_model(saved)


def test_files_of_two_models_exchanged(saved):
    other = DATA / "model_format_1" / "findings"
    shutil.copy(other / "model.safetensors", saved)
    with pytest.raises(ModelFileError, match="damaged or exchanged: its sha256"):
        load_model(saved)
    seal(saved, "model.safetensors")  # of the same shape: nobody can know better
    load_model(saved)


@pytest.mark.parametrize("size", [10, 2**40])
def test_files_of_another_size_are_not_read(size, saved):
    with open(saved / "model.safetensors", "r+b") as file:
        file.truncate(size)
    harm = "was cut off" if size == 10 else "has something added to it"
    with pytest.raises(ModelFileError, match=rf"{size:,} bytes and should have 9,408: it {harm}"):
        load_model(saved)


def test_weights_that_no_network_would_take_are_not_read(saved):
    config = json.loads((saved / "config.json").read_text())
    with open(saved / "model.safetensors", "r+b") as file:
        file.truncate(2**40)
    config["weights"]["size"] = 2**40
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="does not fit the network: it has 1,099,511,627,776"):
        load_model(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_grows_while_it_is_read(name, saved, monkeypatch):
    real = os.fstat

    def grow(descriptor):
        status = real(descriptor)
        with open(saved / name, "ab") as file:
            if status.st_ino == os.stat(saved / name).st_ino:
                file.write(b" ")
        return status

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", grow)
        with pytest.raises(ModelFileError, match=r"while it is read; try again"):
            load_model(saved)


def test_a_file_that_becomes_a_pipe_after_a_look(saved, monkeypatch):
    real = os.lstat

    def swap(file, **kwargs):
        status = real(file, **kwargs)
        if os.path.basename(file) == "model.safetensors":
            os.unlink(file)
            os.mkfifo(file)
        return status

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", swap)
        with pytest.raises(ModelFileError, match=r"model\.safetensors is a named pipe"):
            load_model(saved)


def test_messages_are_one_line_that_a_terminal_can_show(saved):
    config = json.loads((saved / "config.json").read_text())
    config["kind"] = "\x1b[2J\n\ud800" + "x" * 10_000
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError) as caught:
        load_model(saved)
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) < 1000
    caught.value.reason.encode()


@pytest.mark.parametrize("name", ["a\ud800", "\udfff", "x" * 5000, "a/" * 3000])
def test_names_that_no_folder_has(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ModelFileError, InputError)):
        load_model(name)


# --------------------------------------------------------------------------------------------
# configurations that ask for too much
# --------------------------------------------------------------------------------------------

CONFIGS = {
    "timm of a hub": ({"settings.backbone": "timm:hf-hub:timm/resnet18"}, "unknown to timm"),
    "of a hub": ({"settings.backbone": "hf-hub:timm/resnet18"}, "is unknown"),
    "of a folder": ({"settings.backbone": "timm:local-dir:/tmp"}, "unknown to timm"),
    "hub in params": (
        {"settings.backbone": "resnet18", "parameters.net_params": {"module__weights": "DEFAULT"}},
        "net_params",
    ),
    "a checkpoint": (
        {"settings.backbone": "timm:resnet18",
         "parameters.net_params": {"module__checkpoint_path": "x.pt"}},
        "checkpoint_path= may not be passed",
    ),
    "pretrained": (
        {"settings.backbone": "timm:resnet18", "parameters.net_params": {"module__pretrained": 1}},
        "pretrained= may not be passed",
    ),
    "a deep one": (
        {"settings.backbone": "mobilenet_v2", "settings.image_size": {"tuple": [32, 32]},
         "parameters.net_params": {"module__inverted_residual_setting": [[1, 8, 4000, 1]] * 20}},
        "is huge",
    ),
    "a deeper one": (
        {"settings.backbone": "timm:vit_tiny_patch16_224",
         "parameters.net_params": {"module__depth": 10**9}},
        "huge",
    ),
    "a compiler": ({"parameters.net_params": {"compile": True}}, "would run a compiler"),
    "a wide one": ({"parameters.net_params": {"module__width": 10**7}}, "fit the network|built"),
    "a large image": (
        {"settings.backbone": "resnet18", "settings.image_size": {"tuple": [10**6, 10**6]}},
        "is huge",
    ),
    "many classes": ({"classes.values": ["v"] * 100_000}, "fit the network"),
    "a large number": ({"parameters.lr": 10**4000}, "which is too large"),
    "surrogates": ({"parameters.backbone": "\ud800"}, None),
    "devices": ({"parameters.weights": "/dev/zero"}, None),
    "checkpoints": ({"parameters.checkpoint": "/tmp/elsewhere"}, None),
    "compiled": ({"parameters.compile": True}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_that_ask_for_too_much(name, saved):
    changes, reason = CONFIGS[name]
    if "timm" in str(changes):
        pytest.importorskip("timm")
    config = json.loads((saved / "config.json").read_text())
    for keys, value in changes.items():
        *parents, key = keys.split(".")
        part = config
        for parent in parents:
            part = part[parent]
        part[key] = value
    (saved / "config.json").write_text(json.dumps(config))
    if reason is None:
        params = load_model(saved).get_params()
        assert params["weights"] in (None, "zero")
        assert params["checkpoint"] is None
        assert params["compile"] is False
    else:
        with pytest.raises(ModelFileError, match=reason):
            load_model(saved)


# --------------------------------------------------------------------------------------------
# forged weights
# --------------------------------------------------------------------------------------------


def header(entry, rest=b"\0" * 64):
    text = json.dumps({"layers.head.bias": entry}).encode()
    return struct.pack("<Q", len(text)) + text + rest


WEIGHTS = {
    "overlap": save({"a": torch.zeros(2), "b": torch.zeros(2)}).replace(b"[8,16]", b"[0,8]  "),
    "past the end": header({"dtype": "F32", "shape": [32], "data_offsets": [0, 128]}),
    "negative": header({"dtype": "F32", "shape": [16], "data_offsets": [-64, 0]}),
    "too large": header({"dtype": "F32", "shape": [2**63, 2], "data_offsets": [0, 64]}),
    "no shape": header({"dtype": "F32", "data_offsets": [0, 64]}),
    "strange type": header({"dtype": "OBJ", "shape": [16], "data_offsets": [0, 64]}),
    "length of the header": struct.pack("<Q", 2**62) + b"{}",
    "header of 100 MB": struct.pack("<Q", 100_000_001) + b"{}",
    "empty": b"",
    "deep": struct.pack("<Q", 9000) + b"[" * 9000,
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_headers_of_weights(name, saved):
    (saved / "model.safetensors").write_bytes(WEIGHTS[name])
    seal(saved, "model.safetensors")
    with pytest.raises(ModelFileError, match=r"safetensors (is no safetensors|does not fit)"):
        load_model(saved)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool,
              torch.float8_e4m3fn, torch.complex64],
    ids=str,
)  # fmt: skip
def test_weights_of_other_types(dtype, saved):
    state = load_file(saved / "model.safetensors")
    state["layers.head.bias"] = state["layers.head.bias"].to(dtype)
    (saved / "model.safetensors").write_bytes(save(state))
    seal(saved, "model.safetensors")
    with pytest.raises(ModelFileError, match=f"'layers.head.bias' is {dtype}"):
        load_model(saved)


def zipped(canary):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", canary)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "estimator.skops"])
def test_pickles_in_place_of_files(form, name, saved, pipeline, canary):
    folder = pipeline if name == "estimator.skops" else saved
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + canary
    content = {"pickle": canary, "zip": zipped(canary), "legacy": legacy}[form]
    (folder / name).write_bytes(content)
    if name != "config.json":
        seal(folder, name)
    said = {"model.safetensors": "is a pickle, which is not loaded", "config.json": "is no JSON",
            "estimator.skops": "archive of skops|never writes"}  # fmt: skip
    with pytest.raises(ModelFileError, match=f"{name}.*({said[name]})"):
        load_model(folder)


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy", "packed", "tensor"])
def test_pickles_as_weights_of_a_classifier(form, canary, tmp_path):
    content = {
        "pickle": canary,
        "legacy": pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + canary,
    }.get(form)
    stream = io.BytesIO()
    if form == "tensor":
        torch.save({"a": torch.zeros(2), "b": Canary(tmp_path / "canary-sang")}, stream)
    elif form != "legacy":
        packing = zipfile.ZIP_DEFLATED if form == "packed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(stream, "w", packing) as archive:
            archive.writestr("archive/data.pkl", canary)
            archive.writestr("archive/version", b"3")
            archive.writestr("archive/data/0", bytes(20_000_000))
    file = tmp_path / "x.pt"
    file.write_bytes(content or stream.getvalue())
    with pytest.raises(WeightsError, match="unpack to" if form == "packed" else None):
        read_weights(file)
    clf = CXRClassifier(backbone="cxrnet", weights=file, max_epochs=1)
    with pytest.raises(WeightsError):
        clf.fit(phantoms()[0], phantoms()[1])


def endless():
    """A pickle of a dict whose key holds two tuples that each hold two that ... 80 times."""
    codes = b"\x80\x02}(K\x01q\x00"
    for number in range(80):
        codes += bytes([ord("h"), number, 0x86, ord("q"), number + 1])
    return codes + b"K\x01u."


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_weights_that_take_years_to_read(form, tmp_path):
    content = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    (tmp_path / "x.pt").write_bytes(zipped(endless()) if form == "zip" else content + endless())
    with pytest.raises(WeightsError, match="tuples in tuples without end"):
        read_weights(tmp_path / "x.pt")


@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_weights_that_are_no_files(kind, ending, tmp_path):
    file = tmp_path / f"x{ending}"
    KINDS[kind][0](file)
    with pytest.raises(WeightsError, match="is no file"):
        read_weights(file)


def test_a_weights_parameter_names_a_pickle(saved, canary, tmp_path, monkeypatch):
    (tmp_path / "x.pt").write_bytes(canary)
    config = json.loads((saved / "config.json").read_text())
    config["parameters"]["weights"] = str(tmp_path / "x.pt")
    (saved / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    again = load_model(saved)
    assert again.weights == "x.pt"
    with pytest.raises(WeightsError, match="run code"):
        again.fit(phantoms()[0], phantoms()[1])


# --------------------------------------------------------------------------------------------
# forged archives of skops
# --------------------------------------------------------------------------------------------

NAMES = [
    ("os", "system"), ("posix", "system"), ("subprocess", "Popen"), ("builtins", "eval"),
    ("builtins", "exec"), ("builtins", "print"), ("pickle", "loads"), ("joblib", "load"),
    ("numpy", "load"), ("numpy.random", "seed"), ("functools", "partial"), ("torch", "load"),
    ("operator", "methodcaller"), ("importlib", "import_module"), ("shutil", "rmtree"),
    ("skcxr", "load_model"), ("joblib.memory", "Memory"), ("antigravity", "fly"),
    ("sklearn.tree._tree", "Tree"), ("sklearn.datasets._base", "load_files"),
    ("sklearn.utils._joblib", "load"), ("sklearn.utils.validation", "os.system"),
]  # fmt: skip
LOADERS = [
    "DictNode", "DefaultDictNode", "ListNode", "SetNode", "TupleNode", "FunctionNode", "TypeNode",
    "MethodNode", "PartialNode", "OperatorFuncNode", "ConstructorFromReduceNode", "ObjectNode",
    "NdArrayNode", "MaskedArrayNode", "DTypeNode", "RandomStateNode", "RandomGeneratorNode",
    "LossNode", "TreeNode", "SparseMatrixNode", "BytesNode", "BytearrayNode", "SliceNode",
    "CachedNode", "QuantileForestNode", "ReduceNode",
]  # fmt: skip


def text(value):
    return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode",
            "content": json.dumps(value), "is_json": True, "__id__": 9}  # fmt: skip


def some(kind, inside, number=99):
    return {"__class__": kind, "__module__": "builtins", "content": inside, "__id__": number,
            "__loader__": f"{kind.title()}Node"}  # fmt: skip


@pytest.mark.parametrize("loader", LOADERS)
def test_nothing_strange_is_made_in_any_way(loader, pipeline, monkeypatch):
    content = (pipeline / "estimator.skops").read_bytes()
    made = []
    monkeypatch.setattr(os, "system", made.append)
    before = set(sys.modules)
    for module, kind in NAMES:
        (pipeline / "estimator.skops").write_bytes(content)

        def change(schema, members, module=module, kind=kind):
            args = some("tuple", [text("touch canary")])
            step = {
                "__class__": kind, "__module__": module, "__loader__": loader, "__id__": 77,
                "content": args, "attrs": args, "args": args, "type": "json", "shape": args,
                "__reduce__": {"args": args}, "key_types": args, "is_json": True,
            }  # fmt: skip
            if loader in ("ListNode", "SetNode", "TupleNode"):
                step["content"] = [text("a")]
            elif loader == "DictNode":
                step |= {"key_types": some("list", []), "content": {}}
            elif loader == "PartialNode":
                step["content"] = dict.fromkeys(["func", "args", "kwds", "namespace"], args)
            elif loader == "MethodNode":
                step["content"] = {"func": "system", "obj": {**args, "__class__": kind,
                                                             "__module__": module}}  # fmt: skip
            schema["content"]["content"]["steps"] = step

        rewrite(pipeline, change)
        with pytest.raises(ModelFileError, match=r"not trusted|estimator\.skops"):
            load_model(pipeline)
    assert not made
    assert not {"antigravity", "this"} & (set(sys.modules) - before)


@pytest.mark.parametrize("what", [os.system, print, eval, np.load, abs, json.loads])
def test_functions_are_not_trusted(what, pipeline):
    skops = pytest.importorskip("skops.io")
    (pipeline / "estimator.skops").write_bytes(skops.dumps(FunctionTransformer(what)))
    seal(pipeline, "estimator.skops")
    with pytest.raises(ModelFileError, match="not trusted"):
        load_model(pipeline)


def forge_members(how, canary):
    def change(schema, members):
        array = next(name for name in members if name.endswith(".npy"))
        stream = io.BytesIO()
        if how == "object array":
            np.lib.format.write_array_header_1_0(
                stream, {"descr": "|O", "fortran_order": False, "shape": (1,)}
            )
            members[array] = stream.getvalue() + canary
        elif how == "huge array":
            np.lib.format.write_array_header_1_0(
                stream, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
            )
            members[array] = stream.getvalue() + bytes(100)
        elif how == "empty things":
            np.lib.format.write_array_header_1_0(
                stream, {"descr": "|V0", "fortran_order": False, "shape": (2**40,)}
            )
            members[array] = stream.getvalue()
        elif how == "pickle":
            members[array] = canary
        elif how == "npz":
            members[array] = zipped(canary)
        elif how == "slip":
            members["../../canary"] = canary
        elif how == "absolute":
            members["/tmp/canary"] = canary
        elif how == "pkl":
            members["data.pkl"] = canary
        elif how == "no schema":
            members["schema.json"] = b""
        elif how == "shared":
            for number, node in enumerate(nodes(schema)):
                if "file" in node:
                    node.update(file=array, __id__=number + 1)
        elif how == "as bytes":
            first = next(node for node in nodes(schema) if "file" in node)
            first.update(__loader__="BytesNode", __module__="builtins", __class__="bytes")
        elif how == "elsewhere":
            next(node for node in nodes(schema) if "file" in node)["file"] = "schema.json"

    return change


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("object array", "is a pickle, which is not loaded"),
        ("huge array", "should have 8796093022208"),
        ("empty things", "holds nothing, many times"),
        ("pickle", "is no array"),
        ("npz", "is no array"),
        ("slip", r"has a member '\.\./\.\./canary', which skops never writes"),
        ("absolute", "has a member '/tmp/canary', which skops never writes"),
        ("pkl", "has a member 'data.pkl', which skops never writes"),
        ("no schema", "is no JSON"),
        ("shared", "for several things"),
        ("as bytes", "as what it is not"),
        ("elsewhere", "as what it is not"),
    ],
)
def test_forged_members(how, reason, pipeline, canary):
    rewrite(pipeline, forge_members(how, canary))
    with pytest.raises(ModelFileError, match=reason):
        load_model(pipeline)


def test_members_twice_or_in_secret(pipeline, canary):
    file = pipeline / "estimator.skops"
    content = file.read_bytes()
    with (
        zipfile.ZipFile(file, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("schema.json", b"{}")
    seal(pipeline, "estimator.skops")
    with pytest.raises(ModelFileError, match="two members of one name"):
        load_model(pipeline)
    file.write_bytes(content[:30] + b"\1" + content[31:])
    seal(pipeline, "estimator.skops")
    with pytest.raises(ModelFileError, match=r"estimator\.skops"):
        load_model(pipeline)


def doubled(depth, loader="Tuple"):
    """Things that each hold the next twice: few in the file, 2 ** depth where one follows them."""
    value = some(loader.lower(), [], 999)
    for number in range(depth):
        number += 1000
        again = {key: inside for key, inside in value.items() if key != "content"}
        kind = loader.lower()
        value = some(kind, [value, again], number)
    return value


def test_references_that_multiply_are_refused(pipeline):
    start = time.monotonic()

    def change(schema, members):
        schema["content"]["content"]["steps"] = some("set", [doubled(60)])

    rewrite(pipeline, change)
    with pytest.raises(ModelFileError, match="two things with the number"):
        load_model(pipeline)
    assert time.monotonic() - start < 60  # and not for years


def test_a_thing_within_itself_is_refused(pipeline):
    def change(schema, members):
        inner = next(node for node in nodes(schema["content"]) if node["__loader__"] == "ListNode")
        inner["content"].append({**some("list", []), "__id__": inner["__id__"]})

    rewrite(pipeline, change)
    with pytest.raises(ModelFileError, match="two things with the number"):
        load_model(pipeline)


def test_too_many_things_are_refused(pipeline):
    def change(schema, members):
        schema["content"]["content"]["steps"] = some("list", [text(1)] * 110_000)

    rewrite(pipeline, change)
    with pytest.raises(ModelFileError, match=r"more than|too large"):
        load_model(pipeline)


def test_folders_of_pickles_are_forgotten(pipeline, canary, tmp_path):
    """A joblib.Memory would load what lies in its folder."""

    def change(schema, members):
        steps = schema["content"]["content"]
        steps["memory"] = text(str(tmp_path / "cache"))
        for node in nodes(steps["steps"]):
            if node["__class__"] == "ImageLoader":
                node["content"]["content"]["memory"] = text(str(tmp_path / "cache"))

    rewrite(pipeline, change)
    again = load_model(pipeline)
    assert again.memory is again[0].memory is None


def test_parameters_that_came_later_have_their_defaults(pipeline):
    rewrite(pipeline, lambda schema, members: schema["content"]["content"].pop("verbose"))
    assert load_model(pipeline).get_params()["verbose"] is False
    rewrite(pipeline, lambda schema, members: schema["content"]["content"].pop("steps"))
    with pytest.raises(ModelFileError, match="has a Pipeline without its 'steps'"):
        load_model(pipeline)


def test_sparse_matrices_are_refused_in_words(tmp_path):
    pytest.importorskip("skops.io")
    files = write_phantoms(tmp_path)
    model = make_pipeline(ImageLoader(8, output="rows"), StandardScaler(), LogisticRegression())
    model.fit(files, phantoms()[1])[-1].sparsify()
    with pytest.raises(InputError, match="csr_matrix, which load_model would not trust"):
        save_model(model, tmp_path / "model")


def test_a_refused_pipeline_leaves_nothing_behind(pipeline, tmp_path):
    model = load_model(pipeline)
    config = json.loads((pipeline / "config.json").read_text())
    del config["versions"]
    (pipeline / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="no 'versions'"):
        load_model(pipeline)
    other = DATA / "model_format_1" / "pipeline"
    save_model(load_model(other), tmp_path / "other")
    save_model(model, tmp_path / "again")


# --------------------------------------------------------------------------------------------
# the command
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["pipe", "pickle", "none"])
def test_the_command_says_it_on_one_line(harm, saved, tmp_path, capsys, monkeypatch):
    from skcxr import cli

    files = write_phantoms(tmp_path)
    name = saved / "model.safetensors"
    if harm == "pipe":
        name.unlink()
        os.mkfifo(name)
    elif harm == "pickle":
        name.write_bytes(pickle.dumps(Canary(tmp_path / "canary-sang")))
        seal(saved, "model.safetensors")
    else:
        shutil.rmtree(saved)
    monkeypatch.setattr(sys, "argv", ["skcxr", "predict", str(saved), files[0]])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("skcxr: error: cannot load the model")
    assert said.count("\n") == 1
    assert not (tmp_path / "canary-sang").exists()


# --------------------------------------------------------------------------------------------
# saving where others read, and where processes are killed
# --------------------------------------------------------------------------------------------

SAVING = """
import sys
from skcxr import load_model, save_model
models = [load_model(name) for name in sys.argv[2:]]
print("ready", flush=True)
while True:
    for model in models:
        save_model(model, sys.argv[1])
"""


@pytest.fixture
def two(tmp_path):
    """Two models that tell themselves apart by their probabilities, and a folder for one."""
    one = Path(shutil.copytree(DATA / "model_format_1" / "classifier", tmp_path / "one"))
    model = load_model(one).set_params(lr=0.25)
    with torch.no_grad():
        model.module_.head.bias += 1
    save_model(model, tmp_path / "two")
    save_model(model, tmp_path / "place")
    return one, tmp_path / "two", tmp_path / "place"


def whole(model):
    """Whether parameters and weights are of one model."""
    bias = load_model(DATA / "model_format_1" / "classifier").module_.head.bias
    return bool((model.module_.head.bias == bias + (model.lr == 0.25)).all())


def saver(place, *models):
    process = subprocess.Popen(
        [sys.executable, "-c", SAVING, *map(str, (place, *models))], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize(
    ("n_writers", "least"), [(1, 30), pytest.param(3, 1000, marks=pytest.mark.slow)]
)
def test_readers_beside_writers_get_a_whole_model(n_writers, least, two):
    one, other, place = two
    both = {load_model(one).lr, load_model(other).lr}
    processes = [saver(place, one, other) for _ in range(n_writers)]
    seen, n_loads, until = set(), 0, time.monotonic() + 300
    try:
        while n_loads < least or (seen != both and time.monotonic() < until):
            n_loads += 1
            try:
                model = load_model(place)
            except ModelFileError as error:
                assert error.reason.endswith("try again")  # noqa: PT017
                continue
            assert whole(model)
            seen.add(model.lr)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert seen == both
    assert whole(load_model(place))


def killed_while_saving(two, n_times, seed=0):
    one, other, place = two
    rng = random.Random(seed)
    for _ in range(n_times):
        process = saver(place, one, other)
        time.sleep(rng.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert whole(load_model(place))
    save_model(load_model(one), place)
    assert sorted(os.listdir(place)) == ["config.json", "model.safetensors"]
    assert sorted(os.listdir(place.parent)) == ["one", "place", "two"]


@pytest.mark.slow
def test_a_dozen_killed_saves(two):
    killed_while_saving(two, 12)


CALLS = ["open", "replace", "fsync", "unlink", "listdir"]


class Killed(BaseException):
    pass


def last_call(at):
    """Functions of `os`, of which the call number `at` and all after it never happen."""
    n_calls = 0

    def of(real):
        def call(*args, **kwargs):
            nonlocal n_calls
            n_calls += 1
            if n_calls >= at:
                raise Killed
            return real(*args, **kwargs)

        return call

    return {name: of(getattr(os, name)) for name in CALLS}


def test_a_save_that_ends_at_any_call_leaves_the_old_or_the_new_model(two, monkeypatch):
    one, other, place = two
    models = [load_model(one), load_model(other)]
    for at in range(1, 60):
        with monkeypatch.context() as patch:
            for name, call in last_call(at).items():
                patch.setattr(os, name, call)
            try:
                save_model(models[at % 2], place)
                ended = True
            except Killed:
                ended = False
        assert whole(load_model(place))
        if ended:
            break
    assert ended
    assert at > 10
    save_model(models[0], place)
    assert sorted(os.listdir(place)) == ["config.json", "model.safetensors"]


def test_what_a_killed_save_leaves_is_removed_by_the_next(two, canary):
    """What others leave is not."""
    one, _, place = two
    (place / "model.0123456789abcdef.safetensors").write_bytes(b"half")
    (place / f".skcxr-{'a' * 32}.part").write_bytes(b"half")
    save_model(load_model(one), place)
    assert sorted(os.listdir(place)) == ["config.json", "model.safetensors"]
    (place / "model.v2.safetensors").write_bytes(canary)
    with pytest.raises(InputError, match=r"model\.v2\.safetensors"):
        save_model(load_model(one), place)


def test_saves_wait_for_each_other(two, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    from skcxr import _model_files as room

    one, _, place = two
    held = os.open(place, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        monkeypatch.setattr(room, "_PATIENCE", 0.1)
        with pytest.raises(OSError, match="another process is saving a model there"):
            save_model(load_model(one), place)
        monkeypatch.setattr(room, "_PATIENCE", 60)
        thread = threading.Timer(0.2, os.close, [held])
        thread.start()
        save_model(load_model(one), place)
        thread.join()
    finally:
        if thread.is_alive():
            os.close(held)
    assert whole(load_model(place))


def test_nothing_stays_open(saved, pipeline):
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("no /proc here")
    load_model(saved)
    load_model(pipeline)
    before = len(os.listdir(descriptors)), threading.active_count()
    for name in ("model.safetensors", "config.json"):
        for _ in range(5):
            load_model(saved)
            load_model(pipeline)
        (saved / name).write_bytes(b"{}")
        for _ in range(5):
            with pytest.raises(ModelFileError):
                load_model(saved)
        shutil.copy(DATA / "model_format_1" / "classifier" / name, saved)
    assert (len(os.listdir(descriptors)), threading.active_count()) == before


# --------------------------------------------------------------------------------------------
# the gate
# --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gate(images):
    return OutlierGate(0.1, n_synthetic=100, random_state=0, memory=None).fit(images[0])


def test_gates_come_back_to_the_bit(gate, images, tmp_path):
    pytest.importorskip("skops.io")
    gate = OutlierGate(0.1, n_synthetic=100, random_state=0, memory=str(tmp_path / "cache"))
    gate.fit(images[0])
    again = load_model(save_model(gate, tmp_path / "gate"))
    assert type(again) is OutlierGate
    assert again.memory is None
    assert gate.memory == str(tmp_path / "cache")
    assert {**again.get_params(), "memory": gate.memory} == gate.get_params()
    assert again.offset_ == gate.offset_
    assert (again.score_samples(images[0]) == gate.score_samples(images[0])).all()
    assert str(tmp_path) not in (tmp_path / "gate" / "config.json").read_text()


def test_gates_come_back_inside_others(gate, images, tmp_path):
    pytest.importorskip("skops.io")
    model = make_pipeline(OutlierGate(n_synthetic=100, random_state=0)).fit(images[0])
    again = load_model(save_model(model, tmp_path / "gate"))
    assert (again.predict(images[0]) == model.predict(images[0])).all()


# --------------------------------------------------------------------------------------------
# many mutations
# --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mutated_models():
    pytest.importorskip("skops.io")
    command = [sys.executable, str(FUZZ / "fuzz_models.py"), "--seed", "7", "--mutations", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "harm", ["os.system('true')", "open('x', 'w')", "exec('1')", "subprocess.run(['true'])",
             "socket.create_connection(('127.0.0.1', 9))", "pickle.loads(canary)"],
)  # fmt: skip
def test_the_watch_would_see_it(harm, tmp_path):
    code = (
        "import os, pickle, socket, subprocess, sys\n"
        f"sys.path.insert(0, {str(FUZZ)!r})\n"
        "import fuzz_models\n"
        "canary = fuzz_models.PICKLE\n"
        "watch = fuzz_models.Watch()\n"
        "try:\n"
        "    with watch.watching():\n"
        f"        {harm}\n"
        "except OSError:\n"
        "    pass\n"
        "sys.exit(0 if watch.seen else 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == 0
