"""One file of ONNX: what ONNX Runtime makes of images is what the classifier makes of them."""

from __future__ import annotations

import copy
import json
import logging
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from torch import nn

from skcxr import (
    CXRClassifier,
    CXRFeatures,
    ImageLoader,
    InputError,
    MissingDependencyError,
    make_cxr_phantoms,
    read_image,
)
from skcxr._onnx_input import write_resize
from skcxr.export import export_onnx
from skcxr.images import resize

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

BAR = 1e-5


def start(path):
    """Open a file or its bytes in ONNX Runtime."""
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(session, images):
    (probabilities,) = session.run(None, {"images": images.astype(np.float32)})
    return probabilities


def off(session, clf, X, images=None):
    """The largest difference from `predict_proba` of X, of which ONNX gets `images`."""
    images = X if images is None else images
    return float(np.abs(run(session, images) - clf.predict_proba(X)).max())


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return make_cxr_phantoms(
        18, n_classes=3, image_size=48, random_state=0,
        save_to=str(tmp_path_factory.mktemp("phantoms")),
    )  # fmt: skip


@pytest.fixture(scope="module")
def images(phantoms):
    """The same as uint8."""
    return np.stack([np.rint(read_image(path) * 255) for path in phantoms.data]).astype(np.uint8)


@pytest.fixture(scope="module")
def clf(phantoms):
    return CXRClassifier(image_size=32, max_epochs=3, random_state=0).fit(
        phantoms.data, phantoms.target
    )


@pytest.fixture(scope="module")
def exported(clf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    path = export_onnx(clf, folder / "model.onnx")
    assert os.listdir(folder) == ["model.onnx"]  # the weights are inside, and no draft is left
    return path


@pytest.fixture(scope="module")
def session(exported):
    return start(exported)


# --------------------------------------------------------------------------------------------
# the same probabilities
# --------------------------------------------------------------------------------------------


def test_files_arrays_and_floats_have_the_classifiers_probabilities(session, clf, phantoms, images):
    sized = np.stack([read_image(path, size=clf.image_size_) for path in phantoms.data])
    assert off(session, clf, phantoms.data, sized) < BAR
    assert off(session, clf, phantoms.data, images / 255) < BAR  # resized in the graph
    assert off(session, clf, images, images / 255) < BAR
    noise = np.random.default_rng(0).random((3, 50, 41)).astype(np.float32)
    for floats in (noise, noise[:, :32, :32], noise[:1, :9, :7], noise[:, :1]):
        assert off(session, clf, floats) < BAR
    assert np.ptp(run(session, sized), axis=0).min() > 0.01  # they tell something


def test_an_image_has_its_probabilities_in_every_batch(session, images):
    mixed = np.concatenate([images[:9] / 255, np.random.default_rng(0).random((2, 48, 48))])
    alone = np.concatenate([run(session, image[None]) for image in mixed])
    np.testing.assert_allclose(run(session, mixed), alone, atol=1e-6)


def test_findings_and_views_are_in_the_graph(tmp_path, images):
    y = np.random.default_rng(0).integers(0, 2, (len(images), 2)).astype(float)
    y[0, 0] = np.nan
    clf = CXRClassifier(tta=3, max_epochs=3, random_state=0).fit(images, y)
    session = start(export_onnx(clf, tmp_path / "model.onnx"))
    assert off(session, clf, images, images / 255) < BAR
    told = session.get_modelmeta().custom_metadata_map
    assert (told["kind"], told["tta"], json.loads(told["classes"])) == ("findings", "3", [0, 1])


def test_rows_of_float64_keep_their_unit(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(300, 20, (60, 64))
    y = np.where(X[:, 0] > 300, "high", "low")
    clf = CXRClassifier(random_state=0).fit(X, y)
    assert clf.dtype_ == "float64"
    session = start(export_onnx(clf, tmp_path / "model.onnx"))
    assert session.get_inputs()[0].shape == ["batch", 64]
    assert off(session, clf, X) < BAR
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["high", "low"]


class Own(nn.Module):
    """A network of a user."""

    def __init__(self, num_classes, stops=False):
        super().__init__()
        self.layer, self.stops = nn.Conv2d(1, num_classes, 3), stops

    def forward(self, x):
        x = self.layer(x).mean((2, 3))
        if self.stops and not torch.compiler.is_compiling():
            return x
        return x if not self.stops or x.sum() > 0 else -x


def test_a_network_of_the_user_is_written_or_refused_with_the_reason(tmp_path, images):
    y = np.arange(len(images)) % 2
    clf = CXRClassifier(Own, max_epochs=1, random_state=0).fit(images, y)
    assert off(start(export_onnx(clf, tmp_path / "a.onnx")), clf, images, images / 255) < BAR
    clf.module_.stops = True
    with pytest.raises(InputError, match=r"cannot be written as ONNX by PyTorch: .*data-dependent"):
        export_onnx(clf, tmp_path / "b.onnx")
    assert os.listdir(tmp_path) == ["a.onnx"]


# --------------------------------------------------------------------------------------------
# what is in the file
# --------------------------------------------------------------------------------------------


def test_the_file_tells_what_it_is_and_not_where_it_was_made(exported, session, clf, phantoms):
    onnx.checker.check_model(exported, full_check=True)
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == (
        "images", "tensor(float)", ["batch", "height", "width"],
    )  # fmt: skip
    assert (found.name, found.type, found.shape) == ("probabilities", "tensor(float)", ["batch", 3])
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == clf.classes_.tolist()
    assert told["kind"] == "classes"
    assert json.loads(told["image_size"]) == [32, 32]
    assert json.loads(told["pixel_range"]) == [0, 1]
    assert told["interpolation"] == "hamming"
    assert "Not a medical device" in told["notice"]
    with open(exported, "rb") as file:
        content = file.read()
    for word in ("site-packages", ".py", "skcxr/", os.path.dirname(phantoms.data[0]), "stack_tr"):
        assert word.encode() not in content, word


def test_exporting_again_gives_the_same_bytes_and_moves_nothing(exported, clf, tmp_path, capfd):
    before = {key: value.clone() for key, value in clf.module_.state_dict().items()}
    clf.module_.train()  # as it may be between calls of partial_fit
    modes = [module.training for module in clf.module_.modules()]
    states = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an older one")
    try:
        assert export_onnx(clf, path) == str(path)
        assert [module.training for module in clf.module_.modules()] == modes
    finally:
        clf.module_.eval()
    assert capfd.readouterr() == ("", "")
    with open(exported, "rb") as file:
        assert path.read_bytes() == file.read()
    after = clf.module_.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(parameter.requires_grad for parameter in clf.module_.parameters())
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert [logger.level for logger in loggers] == levels


def test_the_file_runs_without_torch(exported, clf, images, tmp_path):
    np.save(tmp_path / "images.npy", images.astype(np.float32) / 255)
    code = (
        "import sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1])\n"
        "images = numpy.load(sys.argv[2])\n"
        "print(session.run(None, {'images': images})[0].tolist())\n"
        "assert not {'torch', 'skcxr', 'sklearn'} & set(sys.modules)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, exported, str(tmp_path / "images.npy")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    np.testing.assert_allclose(json.loads(found.stdout), clf.predict_proba(images), atol=BAR)


# --------------------------------------------------------------------------------------------
# the resize of Pillow
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["hamming", "bilinear", "bicubic"])
def test_the_graph_resizes_as_read_image_does(interpolation):
    rng = np.random.default_rng(0)
    for size in ((32, 32), (8, 30), (1, 5)):
        op = write_resize("images", "pixels", size, interpolation)
        make = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            op.nodes, "resize", [make("images", 1, ["n", "h", "w"])],
            [make("pixels", 1, ["n", 1, *size])], list(op.constants.values()),
        )  # fmt: skip
        opset = [onnx.helper.make_opsetid("", 18)]
        model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        session = start(model.SerializeToString())
        # Pillow begins with the columns of some of these, and with the rows of others
        for shape in ((61, 90), (300, 40), (7, 5), (1, 1), (40, 2), size):
            floats = (rng.random(shape) * 3 - 1).astype(np.float32)
            found = run(session, floats[None])[0, 0]
            expected = resize(floats, size, interpolation=interpolation)
            np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
            if shape == size:
                np.testing.assert_array_equal(found, floats)
            deep = rng.integers(0, 2**16, shape, dtype=np.uint16)
            found = run(session, deep[None] / 65535)[0, 0]
            expected = resize(deep, size, interpolation=interpolation) / 65535
            np.testing.assert_allclose(found, expected, atol=1 / 65535, rtol=0)
            eight = rng.integers(0, 256, shape, dtype=np.uint8)
            found = run(session, eight[None] / 255)[0, 0]
            expected = resize(eight, size, interpolation=interpolation) / np.float32(255)
            np.testing.assert_array_equal(found, expected)


# --------------------------------------------------------------------------------------------
# what cannot be written
# --------------------------------------------------------------------------------------------


def test_what_is_no_fitted_classifier_is_refused(clf, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(NotFittedError):
        export_onnx(CXRClassifier(), path)
    with pytest.raises(InputError, match=r"got Pipeline; export the fitted CXRClassifier inside"):
        export_onnx(make_pipeline(ImageLoader(), clf), path)
    with pytest.raises(InputError, match=r"got CXRFeatures; fit CXRClassifier\(freeze"):
        export_onnx(CXRFeatures(), path)
    for wrong in (CXRClassifier, None, "clf"):
        with pytest.raises(InputError, match="takes a fitted CXRClassifier, and got"):
            export_onnx(wrong, path)
    assert not os.listdir(tmp_path)


def test_a_network_that_answers_with_nan_is_refused(clf, tmp_path):
    broken = copy.deepcopy(clf)
    with torch.no_grad():
        broken.module_.head.bias[0] = float("nan")
    with pytest.raises(InputError, match="answers drawn images with NaN"):
        export_onnx(broken, tmp_path / "model.onnx")


def test_a_path_that_is_no_file_is_refused(clf, tmp_path):
    for wrong in (tmp_path, tmp_path / "gone" / "model.onnx", os.path.join("a" * 300, "b"), "a\0b",
                  "", 3, None, b"model.onnx", "\udcff/b"):  # fmt: skip
        with pytest.raises(InputError, match="file"):
            export_onnx(clf, wrong)


@pytest.mark.parametrize("fault", ["full", "off", "large", "extra"])
def test_what_fails_leaves_the_file_that_is_there(clf, tmp_path, monkeypatch, fault):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an older one")
    error, match = InputError, fault
    if fault == "full":

        def replace(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", replace)
        match = "cannot be written: No space left on device"
    elif fault == "off":
        monkeypatch.setattr("skcxr.export._MOST_OFF", 1e-12)
        match = "off those of the network by"
    elif fault == "large":
        monkeypatch.setattr("skcxr.export._MOST_BYTES", 1000)
        match = "of weights, and an ONNX file holds less than 2"
    else:
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        error, match = MissingDependencyError, r"skcxr\[onnx\]"
    with pytest.raises(error, match=match):
        export_onnx(clf, path)
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert path.read_bytes() == b"an older one"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_read_only_is_told(clf, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="cannot be written"):
            export_onnx(clf, tmp_path / "model.onnx")
    finally:
        tmp_path.chmod(0o700)


# --------------------------------------------------------------------------------------------
# every family of networks
# --------------------------------------------------------------------------------------------

FOREIGN = {
    "resnet18": 48, "densenet121": 48, "efficientnet_b0": 48, "mobilenet_v3_small": 48,
    "convnext_tiny": 48, "vit_b_16": 32, "swin_t": 48, "timm:resnet18": 48,
    "timm:tf_efficientnet_lite0": 48, "timm:vit_tiny_patch16_224": 32, "timm:convnext_atto": 48,
    "xrv:densenet121-res224-all": 32, "xrv:resnet50-res512-all": 32,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FOREIGN)
def test_foreign_networks_have_the_classifiers_probabilities(backbone, tmp_path, images):
    kind = backbone.partition(":")[0]
    if kind in ("timm", "xrv"):
        pytest.importorskip({"timm": "timm", "xrv": "torchxrayvision"}[kind])
    weights = None
    if kind == "xrv":  # these are named by weights, which are not here: draw some
        from safetensors.torch import save_file

        from skcxr.networks import draw_network

        with torch.random.fork_rng(devices=[]):
            network = draw_network(backbone, num_classes=3, image_size=(32, 32))
        weights = str(tmp_path / "weights.safetensors")
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, weights)
    size = FOREIGN[backbone]
    y = np.arange(len(images)) % 3
    clf = CXRClassifier(
        backbone, weights=weights, image_size=size, max_epochs=1, lr=1e-4, random_state=0
    ).fit(images, y)  # fmt: skip
    session = start(export_onnx(clf, tmp_path / "model.onnx"))
    floats = np.random.default_rng(0).random((5, 70, 61)).astype(np.float32)
    assert off(session, clf, floats) < BAR
    assert off(session, clf, images[:, :size, :size], images[:, :size, :size] / 255) < BAR
