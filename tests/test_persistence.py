"""Saved models: a folder that gives back the same model, and nothing but a model."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch.callbacks import EpochScoring

from skcxr import (
    CXRClassifier,
    CXRFeatures,
    ImageLoader,
    InputError,
    MissingDependencyError,
    ModelFileError,
    SkcxrWarning,
    load_model,
    save_model,
)
from skcxr import persistence as room
from skcxr._model_files import decode, encode
from skcxr.augmentation import CXRAugmentation
from skcxr.metrics import make_masked_scorer
from skcxr.networks import CXRNet, SmallNet


def small(**parameters):
    return CXRClassifier(**{"max_epochs": 2, "random_state": 0, **parameters})


@pytest.fixture(scope="module")
def fitted(images):
    """A classifier that no test may change."""
    return small().fit(*images)


@pytest.fixture(scope="module")
def cxrnet(images):
    """The network for radiographs, fitted on 40 x 40 pixels."""
    large = images[0].repeat(2, axis=1).repeat(2, axis=2)
    return small().fit(large, images[1]), large


@pytest.fixture
def saved(fitted, tmp_path):
    """The folder of `fitted`, for tests that harm it."""
    return Path(save_model(fitted, tmp_path / "model"))


def alter(saved, keys, value):
    """Write another value into the config.json of a saved model."""
    config = json.loads((saved / "config.json").read_text())
    *parents, key = keys.split(".")
    part = config
    for parent in parents:
        part = part[parent]
    part[key] = value
    (saved / "config.json").write_text(json.dumps(config))


def findings(images):
    labels = pd.DataFrame({"bar": 1.0, "vertical": images[1] == "v"}).astype(float)
    labels.loc[::2, "bar"] = 0
    labels.loc[3, "vertical"] = np.nan
    return labels


# --------------------------------------------------------------------------------------------
# there and back
# --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def features(files):
    """Embeddings of a network of random weights."""
    return CXRFeatures("cxrnet", weights=None, image_size=32, random_state=0).fit(files)


def test_features_come_back_alone_and_in_pipelines(features, files, images, tmp_path):
    again = load_model(save_model(features, tmp_path / "features"))
    assert type(again) is CXRFeatures
    assert vars(again).keys() == vars(features).keys()
    assert (again.transform(files) == features.transform(files)).all()
    assert list(again.get_feature_names_out()) == list(features.get_feature_names_out())
    both = make_union(features, clone(features).set_params(layer=[0, -1], memory=tmp_path / "m"))
    model = make_pipeline(both, StandardScaler(), LogisticRegression()).fit(files, images[1])
    again = load_model(save_model(model, tmp_path / "pipeline"))
    np.testing.assert_allclose(again.predict_proba(files), model.predict_proba(files), atol=1e-12)
    assert again[0].transformer_list[1][1].memory is None


def test_weights_are_not_looked_for_when_a_model_is_loaded(files, images, tmp_path):
    file = tmp_path / "weights.pt"
    with torch.random.fork_rng():
        torch.save(CXRNet(num_classes=2).state_dict(), file)
    clf = small(image_size=32, backbone="cxrnet", weights=file).fit(files, images[1])
    features = CXRFeatures("cxrnet", weights=str(file), image_size=32).fit(files)
    saved = [save_model(model, tmp_path / str(k)) for k, model in enumerate((clf, features))]
    file.unlink()
    for path, model in zip(saved, (clf, features), strict=True):
        again = load_model(path)
        assert again.weights_ == model.weights_
        assert again.weights_.startswith("the file weights.pt")
        assert again.get_params()["weights"] == "weights.pt"
        assert str(tmp_path) not in Path(path, "config.json").read_text()


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        ("settings.interpolation", "lanczos", "interpolation='lanczos' is unknown"),
        ("settings.image_size", {"tuple": [10**6, 10**6]}, "is huge"),
        ("settings.max_epochs", 3, "'max_epochs' is unknown"),
        ("parameters.layer", "nonsense", "no module"),
        ("parameters.layer", {"tuple": [{"float": "nan"}]}, "neither the number"),
        ("parameters.memory", "/tmp", None),
        ("weights_", 3, "no 'weights_' that is a str"),
    ],
)  # fmt: skip
def test_altered_features(keys, value, reason, files, tmp_path):
    features = CXRFeatures("mobilenet_v3_small", weights=None, image_size=32, random_state=0)
    saved = Path(save_model(features.fit(files), tmp_path / "model"))
    alter(saved, keys, value)
    if reason is None:
        assert load_model(saved).memory is None
    else:
        with pytest.raises(ModelFileError, match=reason):
            load_model(saved)


def test_the_same_bits_in_a_new_process(images, files, cxrnet, tmp_path):
    pixels, labels = images
    rows = pixels.reshape(24, -1) / 255.0
    frame = pd.DataFrame(rows[:, :12], columns=[f"p{i}" for i in range(12)])
    early = small(max_epochs=4, early_stopping=True, validation_fraction=0.25)
    models = {
        "images": (cxrnet[0], cxrnet[1]),
        "paths": (small(image_size=(24, 36), backbone="cxrnet").fit(files, labels), files),
        "rows": (small().fit(rows, labels), rows),
        "frame": (small().fit(frame, labels), frame),
        "early": (early.fit(pixels, labels, groups=np.arange(24)), pixels),
        "findings": (small().fit(pixels, findings(images)), pixels),
        "going on": (small().partial_fit(pixels, labels, classes=["h", "v"]), pixels),
    }
    for name, (model, X) in models.items():
        save_model(model, tmp_path / name)
        pd.to_pickle((X, model.predict_proba(X)), tmp_path / f"{name}.pkl")
    code = (
        "import sys, pandas as pd, skcxr\n"
        "for name in sys.argv[1:]:\n"
        "    X, wanted = pd.read_pickle(name + '.pkl')\n"
        "    found = skcxr.load_model(name).predict_proba(X)\n"
        "    assert found.dtype == wanted.dtype and (found == wanted).all(), name\n"
    )
    subprocess.run([sys.executable, "-c", code, *models], check=True, cwd=tmp_path)


@pytest.mark.parametrize("kind", ["images", "findings", "rows"])
def test_everything_comes_back(kind, images, fitted, tmp_path):
    if kind == "images":
        model = fitted
    elif kind == "findings":
        model = small().fit(images[0], findings(images))
    else:
        rows = pd.DataFrame(images[0].reshape(24, -1)[:, :9]).rename(columns="p{}".format)
        model = small().fit(rows, images[1])
    again = load_model(save_model(model, tmp_path / "model"))
    assert type(again) is CXRClassifier
    assert again.get_params() == model.get_params()
    assert again.history_ == model.history_
    assert type(again.history_) is type(model.history_)
    assert vars(again).keys() == vars(model).keys()
    for name, value in vars(model).items():
        if name not in ("net_", "classes_", "findings_", "feature_names_in_"):
            assert vars(again)[name] == value, name
        elif name != "net_":
            np.testing.assert_array_equal(vars(again)[name], value, strict=True)
    for name, tensor in model.module_.state_dict().items():
        assert torch.equal(again.module_.state_dict()[name], tensor)
        assert again.module_.state_dict()[name].stride() == tensor.stride()


@pytest.mark.parametrize(
    "classes",
    [
        ["no", "pneumonia"], ["ja", "nein", "Käse\n"], [1, 2], [False, True], [1.0, 2.0],
        np.array([3, 200], np.uint8), np.array(["a", "bc"], object), np.array(["a", "b"], "<U9"),
        np.array([-(2**62), 2**62]), np.array([1, 2], np.float32),
    ],
    ids=repr,
)  # fmt: skip
def test_labels_of_any_kind(classes, images, tmp_path):
    y = np.asarray(classes)[np.arange(24) % len(classes)]
    model = small(max_epochs=1).fit(images[0], y)
    again = load_model(save_model(model, tmp_path / "model"))
    np.testing.assert_array_equal(again.classes_, model.classes_, strict=True)
    np.testing.assert_array_equal(again.predict(images[0]), model.predict(images[0]), strict=True)


@pytest.mark.parametrize(
    "value",
    [
        None, True, -3, 0.1, "text", "\ud800", [1, [2]], (1, (2, [3])), {}, {"a": (1,)}, {1: 2.0},
        {True: 1, "b": 2}, {"tuple": [1]}, {"dict": {"float": "x"}}, {(1, 2): {"torch.optim": 1}},
        float("inf"), float("-inf"), torch.optim.RMSprop, {"a": torch.optim.SGD},
    ],
    ids=repr,
)  # fmt: skip
def test_values_survive_as_json(value):
    text = json.dumps(encode(value, "x"), allow_nan=False)
    again = decode(json.loads(text))
    assert again == value
    assert repr(again) == repr(value)


def test_what_becomes_plainer():
    assert type(encode(np.float32(0.5), "x")) is float
    assert type(encode(np.bool_(True), "x")) is bool
    assert encode(Path("a") / "b", "x") == os.path.join("a", "b")
    assert np.isnan(decode(encode(float("nan"), "x")))


@pytest.mark.parametrize(
    "parameters",
    [
        {"image_size": (16, 24), "net_params": {"optimizer__betas": (0.8, 0.9)}},
        {"class_weight": {"h": 1, "v": np.float64(2)}, "dtype": "float64", "verbose": np.int64(0)},
        {"optimizer": torch.optim.RMSprop, "lr": 1e-3, "lr_schedule": None, "augmentation": None},
        {"backbone": "cxrnet", "net_params": {"module__width": 8, "callbacks": None}},
        {"backbone": "cxrnet", "augmentation": CXRAugmentation(aspect=0.3), "tta": 2, "ema": 0.5},
        {"backbone": "resnet18", "image_size": 32, "backbone_lr_mult": 0.1, "mixup": 0.2},
        {"backbone": "regnet_y_400mf", "image_size": 32, "freeze": "backbone"},
    ],
    ids=str,
)
def test_parameters_survive(parameters, images, tmp_path):
    model = small(**parameters).fit(*images)
    again = load_model(save_model(model, tmp_path / "model"))
    assert again.get_params() == model.get_params()
    assert (again.predict_proba(images[0]) == model.predict_proba(images[0])).all()


def test_training_goes_on(fitted, images, tmp_path):
    path = save_model(fitted, tmp_path / "model")
    before, again = load_model(path), load_model(path)
    warm = copy.deepcopy(fitted).set_params(warm_start=True).fit(*images)
    again.set_params(warm_start=True).fit(*images)
    assert (again.predict_proba(images[0]) == warm.predict_proba(images[0])).all()
    again = load_model(path).partial_fit(*images)
    assert again.n_iter_ == before.n_iter_ + 1
    assert (again.predict_proba(images[0]) != before.predict_proba(images[0])).any()


def test_the_cache_stays_behind(images, tmp_path):
    model = small(memory=str(tmp_path / "cache")).fit(*images)
    assert load_model(save_model(model, tmp_path / "model")).memory is None
    assert model.memory == str(tmp_path / "cache")


def test_callbacks_of_scikit_learn_stay_behind(images, tmp_path):
    callback = pytest.importorskip("sklearn.callback")
    model = small().fit(*images).set_callbacks(callback.ProgressBar())
    again = load_model(save_model(model, tmp_path / "model"))
    assert not hasattr(again, "_skl_callbacks")
    assert hasattr(model, "_skl_callbacks")


def test_metadata_requests_survive(images, tmp_path):
    with sklearn.config_context(enable_metadata_routing=True):
        model = small().set_fit_request(sample_weight=True, groups=False).fit(*images)
    again = load_model(save_model(model, tmp_path / "model"))
    assert str(again.get_metadata_routing()) == str(model.get_metadata_routing())


def test_a_model_of_a_gpu_comes_to_what_there_is(saved, fitted, images):
    config = json.loads((saved / "config.json").read_text())
    config["settings"]["device"] = "cuda:99"
    (saved / "config.json").write_text(json.dumps(config))
    again = load_model(saved)
    assert again.device_ == again._settings.device == ("cuda" * torch.cuda.is_available() or "cpu")
    if again.device_ == "cpu":
        assert (again.predict_proba(images[0]) == fitted.predict_proba(images[0])).all()


def test_the_config_is_for_people_too(saved):
    text = (saved / "config.json").read_text(encoding="utf-8")
    config = json.loads(text)
    assert list(config)[:5] == ["format", "format_version", "kind", "note", "versions"]
    assert config["note"].startswith("For research only")
    assert config["versions"]["scikit-learn"] == sklearn.__version__
    assert config["weights"]["file"] == "model.safetensors"
    assert text.count("\n") > 50
    assert set(load_file(saved / "model.safetensors")) >= {"layers.conv1.weight"}


# --------------------------------------------------------------------------------------------
# what is not saved, and what is not touched
# --------------------------------------------------------------------------------------------


class MyNet(SmallNet):
    def __init__(self, num_classes):
        super().__init__(num_classes, (20, 20))


class MyClassifier(CXRClassifier):
    pass


class MyAdam(torch.optim.Adam):
    pass


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"random_state": np.random.RandomState(0)}, r"random_state=RandomState"),
        ({"augmentation": lambda image: image}, r"augmentation=<function"),
        ({"augmentation": torch.nn.Identity()}, r"augmentation=Identity"),
        ({"backbone": MyNet}, r"backbone=<class"),
        ({"optimizer": MyAdam}, r"optimizer=<class"),
        (
            {"net_params": {"callbacks": [EpochScoring("neg_log_loss", name="x", on_train=True)]}},
            r"net_params\['callbacks'\]\[0\]=",
        ),
    ],
    ids=["random_state", "function", "module", "backbone", "optimizer", "callbacks"],
)
def test_what_needs_code_is_refused_by_name(parameters, named, fitted, tmp_path):
    model = copy.copy(fitted).set_params(**parameters)
    with pytest.raises(InputError, match=named + r"(?s:.*)set_params(?s:.*)joblib\.dump"):
        save_model(model, tmp_path / "deep" / "model")
    assert os.listdir(tmp_path) == []


def test_the_way_out_is_one(images, tmp_path):
    model = small(augmentation=lambda image: image).fit(*images)
    with pytest.raises(InputError, match="augmentation="):
        save_model(model, tmp_path / "model")
    again = load_model(save_model(model.set_params(augmentation="cxr"), tmp_path / "model"))
    assert again.augmentation_ == "cxr"
    assert (again.predict_proba(images[0]) == model.predict_proba(images[0])).all()


def test_a_network_of_ones_own_stays_refused_under_another_name(images, tmp_path):
    model = small(backbone=MyNet).fit(*images)
    with pytest.raises(InputError, match="backbone_=<class"):
        save_model(model.set_params(backbone="smallnet"), tmp_path / "model")


def test_parameters_that_no_longer_describe_the_network(images, tmp_path):
    model = small(backbone="cxrnet").fit(*images)
    with pytest.raises(InputError, match=r"not what the parameters describe.*should be"):
        save_model(model.set_params(net__module__width=8), tmp_path / "model")


def test_weights_that_are_no_numbers(fitted, tmp_path):
    model = copy.deepcopy(fitted)
    with torch.no_grad():
        next(model.module_.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="NaN"):
        save_model(model, tmp_path / "model")


def test_labels_that_are_not_json(images, tmp_path):
    days = np.array(["2020-01-01", "2020-01-02"], "datetime64[D]")[np.arange(24) % 2]
    model = small(max_epochs=1).fit(*images)
    model.classes_ = np.unique(days)
    with pytest.raises(InputError, match="classes_ of dtype datetime64"):
        save_model(model, tmp_path / "model")


def test_only_fitted_models(tmp_path):
    for model in (CXRClassifier(), make_pipeline(ImageLoader(), CXRClassifier())):
        with pytest.raises(NotFittedError):
            save_model(model, tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_only_models_of_ours(images, tmp_path):
    rows = images[0].reshape(24, -1)
    plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, images[1])
    for thing in ({"a": 1}, CXRClassifier, torch.nn.Identity(), plain):
        with pytest.raises(InputError, match="skops"):
            save_model(thing, tmp_path / "model")
    with pytest.raises(InputError, match="MyClassifier is a subclass"):
        save_model(MyClassifier(max_epochs=1).fit(*images), tmp_path / "model")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["", None, 3, b"model", "a\0b"])
def test_paths_that_are_none(path, fitted):
    with pytest.raises(InputError, match="is not the name of a folder"):
        save_model(fitted, path)
    with pytest.raises(InputError, match="is not the name of a folder"):
        load_model(path)


def test_parents_are_made_and_empty_folders_taken(fitted, tmp_path, monkeypatch):
    assert save_model(fitted, tmp_path / "a" / "b") == str(tmp_path / "a" / "b")
    (tmp_path / "empty").mkdir()
    load_model(save_model(fitted, str(tmp_path / "empty") + os.sep))
    monkeypatch.chdir(tmp_path)
    assert save_model(fitted, "here") == "here"
    assert sorted(os.listdir()) == ["a", "empty", "here"]


@pytest.mark.parametrize("what", ["file", "folder", "beside", "broken", "link", "dangling"])
def test_what_is_no_model_is_left_alone(what, fitted, tmp_path):
    path = tmp_path / "model"
    if what == "file":
        path.write_text("mine")
    elif what == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    elif what in ("link", "dangling"):
        path.symlink_to(tmp_path / "other")
        if what == "link":
            save_model(fitted, tmp_path / "other")
    else:
        save_model(fitted, path)
        if what == "beside":
            (path / "notes.txt").write_text("mine")
        else:
            (path / "config.json").write_text("{")
    before = snapshot(tmp_path)
    for name in (path, f"{path}{os.sep}"):
        with pytest.raises(InputError, match=r"path=.*give the name"):
            save_model(fitted, name)
    assert snapshot(tmp_path) == before


def snapshot(folder):
    """Every file below a folder, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_a_model_is_replaced(fitted, images, tmp_path):
    other = small(max_epochs=1).fit(*images)
    save_model(other, tmp_path / "model")
    save_model(fitted, tmp_path / "model")
    assert load_model(tmp_path / "model").n_iter_ == 2
    assert os.listdir(tmp_path) == ["model"]


def failing(monkeypatch, name, at, error):
    """Have a function of `os` fail at one of its calls."""
    calls, real = [], getattr(os, name)

    def fail(*args):
        calls.append(args)
        if len(calls) == at:
            raise error
        return real(*args)

    monkeypatch.setattr(os, name, fail)
    return calls


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize(
    ("there", "name", "at"),
    [
        (True, "fsync", 1),  # the new weights
        (True, "replace", 1),
        (True, "fsync", 3),  # the new configuration
        (True, "replace", 2),
        (False, "fsync", 1),
        (False, "fsync", 2),
        (False, "rename", 1),
    ],
)
def test_a_failure_leaves_what_was_there(
    there, name, at, error, fitted, images, tmp_path, monkeypatch
):
    if there:
        save_model(small(max_epochs=1).fit(*images), tmp_path / "model")
    before = snapshot(tmp_path)
    with monkeypatch.context() as patch:
        calls = failing(patch, name, at, error)
        with pytest.raises(type(error)):
            save_model(fitted, tmp_path / "model")
    assert len(calls) >= at
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize(("name", "at"), [("fsync", 4), ("replace", 3)])
def test_after_the_configuration_the_new_model_is_there(
    name, at, error, fitted, images, tmp_path, monkeypatch
):
    save_model(small(max_epochs=1).fit(*images), tmp_path / "model")
    with monkeypatch.context() as patch:
        calls = failing(patch, name, at, error)
        if isinstance(error, KeyboardInterrupt):
            with pytest.raises(KeyboardInterrupt):
                save_model(fitted, tmp_path / "model")
        else:
            save_model(fitted, tmp_path / "model")
    assert len(calls) >= at
    assert load_model(tmp_path / "model").n_iter_ == 2
    save_model(fitted, tmp_path / "model")
    assert sorted(os.listdir(tmp_path / "model")) == ["config.json", "model.safetensors"]


def test_a_refusal_leaves_the_old_model(fitted, saved):
    before = snapshot(saved.parent)
    with pytest.raises(InputError, match="augmentation"):
        save_model(copy.copy(fitted).set_params(augmentation=abs), saved)
    assert snapshot(saved.parent) == before


# --------------------------------------------------------------------------------------------
# loading what is broken or forged
# --------------------------------------------------------------------------------------------


def test_no_folder_and_no_folder_at_all(saved):
    with pytest.raises(ModelFileError, match="there is no such folder") as caught:
        load_model(saved.parent / "nothing")
    assert caught.value.path == str(saved.parent / "nothing")
    with pytest.raises(ModelFileError, match="it is no folder"):
        load_model(saved / "config.json")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_links_and_folders(name, saved):
    file = saved / name
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(ModelFileError, match=f"{name} is missing"):
        load_model(saved)
    (saved.parent / "elsewhere").write_bytes(content)
    file.symlink_to(saved.parent / "elsewhere")
    with pytest.raises(ModelFileError, match=f"{name} is a symbolic link"):
        load_model(saved)
    file.unlink()
    file.mkdir()
    with pytest.raises(ModelFileError, match=f"{name} is a folder, not a file"):
        load_model(saved)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 200_000, "is no JSON"),
        (b'{"a":' * 200_000, "is no JSON"),
        (b"1" * 10_000, "which is too large"),
        (b"[]", "not of save_model"),
        (b'{"format": "other"}', "not of save_model"),
        (b'{"format": "skcxr"}', "no 'format_version'"),
        (b'{"format": "skcxr", "format_version": 1}', "no 'settings'"),
        (b'{"format": "skcxr", "format_version": true}', "no 'format_version'"),
        (
            b'{"format": "skcxr", "format_version": 99}',
            r"written by a newer skcxr \(format 99\); this one reads up to 1",
        ),
    ],
    ids=range(12),
)
def test_configs_that_are_none(content, reason, saved):
    (saved / "config.json").write_bytes(content)
    with pytest.raises(ModelFileError, match=reason):
        load_model(saved)


def test_enormous_configs_are_not_read(saved):
    with open(saved / "config.json", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ModelFileError, match=r"config\.json has 1,099,511,627,776 bytes"):
        load_model(saved)


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        ("kind", "rm -rf", "kind 'rm -rf' is unknown"),
        ("kind", ["a"], "no 'kind'"),
        ("kind", "pipeline", "no 'size'"),
        ("parameters", None, "no 'parameters'"),
        ("parameters.nonsense", 1, "'nonsense'.* unknown"),
        ("parameters.optimizer", 3, "optimizer"),
        ("parameters.optimizer", {"torch.optim": "system"}, "system"),
        ("parameters.optimizer", {"torch.optim": []}, "cannot be used"),
        ("parameters.lr", {"float": []}, "cannot be used"),
        ("parameters.image_size", {"tuple": 3}, "cannot be used"),
        ("parameters.class_weight", {"dict": [[[], 1]]}, "cannot be used"),
        ("parameters.net_params", {"module": "os.system"}, "net_params"),
        ("parameters.net_params", {"module__nonsense": 1}, "nonsense"),
        ("parameters.net_params", {"callbacks": "os.system"}, "callbacks"),
        ("settings", [], "no 'settings'"),
        ("settings.backbone", "os.system", "backbone='os.system' is unknown"),
        ("settings.backbone", None, "setting backbone=None"),
        ("settings.device", 3, "setting device=3"),
        ("settings.dtype", "float8", "dtype='float8' is unknown"),
        ("settings.image_size", {"tuple": [0, 20]}, "image_size"),
        ("settings.image_size", {"tuple": [20]}, "image_size"),
        ("settings.image_size", [20, 20], "image_size"),
        ("settings.pixel_range", {"tuple": [0, "1"]}, "pixel_range"),
        ("settings.augmentation", "os.system", "augmentation='os.system' is unknown"),
        ("settings.max_epochs", True, "max_epochs"),
        ("settings.of_rows", True, "n_features_in_=None"),
        ("settings.multi_label", True, "no 'findings'"),
        ("settings.nonsense", 1, "'nonsense' is unknown"),
        ("classes", None, "no 'classes'"),
        ("classes.values", ["h"], "does not fit the network"),
        ("classes.values", "hv", "no 'values'"),
        ("classes.values", [["h"], ["v"]], "no labels"),
        ("classes.values", [1, 2], "no labels"),
        ("classes.dtype", "nonsense", "nonsense"),
        ("classes.dtype", "<M8[D]", "dtype datetime64"),
        ("classes.dtype", "<U99999999", "dtype <U99999999"),
        ("classes.dtype", "<i8", "cannot be used"),
        ("history", {}, "no 'history'"),
        ("history", [1], "no list of dicts"),
        ("feature_names_in_", {"dtype": "|O", "values": ["a"]}, "feature_names_in_"),
        ("n_features_in_", 3, "n_features_in_"),
        ("requests", {"predict": {}}, "'predict' is unknown"),
        ("requests", {"fit": {"nonsense": True}}, "nonsense"),
        ("weights", None, "no 'size'"),
        ("weights.size", 3, "should have 3"),
        ("weights.size", "3", "no 'size'"),
        ("weights.sha256", "0" * 64, "sha256"),
        ("weights.file", "../model.safetensors", "sha256"),
    ],
)  # fmt: skip
def test_altered_configs(keys, value, reason, saved):
    alter(saved, keys, value)
    with pytest.raises(ModelFileError, match=reason):
        load_model(saved)


@pytest.mark.parametrize("key", ["settings", "parameters", "classes", "history", "weights"])
def test_missing_parts(key, saved):
    config = json.loads((saved / "config.json").read_text())
    del config[key]
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match=r"config\.json has no"):
        load_model(saved)


def test_deep_values_are_not_followed(saved):
    config = json.loads((saved / "config.json").read_text())
    text = json.dumps({**config, "history": ["HERE"]})
    (saved / "config.json").write_text(text.replace('"HERE"', "[" * 900 + "]" * 900))
    with pytest.raises(ModelFileError):
        load_model(saved)


@pytest.mark.parametrize("harm", ["cut", "longer", "flipped", "empty"])
def test_damaged_weights(harm, saved):
    file = saved / "model.safetensors"
    content = bytearray(file.read_bytes())
    if harm == "flipped":
        content[-5] ^= 1
    else:
        content = {"cut": content[:-1], "longer": content + b"\0", "empty": b""}[harm]
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match="sha256" if harm == "flipped" else "should have"):
        load_model(saved)


def seal(folder, name="model.safetensors", **record):
    """Make the config agree with a changed file, as a forger would."""
    config = json.loads((folder / "config.json").read_text())
    content = (folder / name).read_bytes()
    part = config["weights" if name == "model.safetensors" else "estimator"]
    part.update(size=len(content), sha256=hashlib.sha256(content).hexdigest(), **record)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("missing", "'layers.conv1.bias' is absent"),
        ("extra", "'another' is torch.float32 .* should be absent"),
        ("shape", r"'layers.conv1.bias' is torch.float32 \(3,\) and should be .* \(16,\)"),
        ("dtype", "'layers.conv1.bias' is torch.float64"),
        ("nan", "'layers.conv1.bias' holds NaN"),
        ("inf", "'layers.conv1.bias' holds NaN or infinity"),
        ("garbage", "no safetensors file"),
        ("header", "no safetensors file"),
        ("pickle", "is a pickle, which is not loaded"),
    ],
)
def test_forged_weights(harm, reason, saved):
    file = saved / "model.safetensors"
    state = load_file(file)
    bias = state["layers.conv1.bias"]
    if harm == "missing":
        del state["layers.conv1.bias"]
    state |= {
        "extra": {"another": torch.zeros(1)},
        "shape": {"layers.conv1.bias": torch.zeros(3)},
        "dtype": {"layers.conv1.bias": bias.double()},
        "nan": {"layers.conv1.bias": bias * torch.nan},
        "inf": {"layers.conv1.bias": bias / 0},
    }.get(harm, {})
    save_file(state, file)
    if harm in ("garbage", "header", "pickle"):
        file.write_bytes(
            {
                "garbage": b"no weights" * 9,
                "header": b"\xff" * 8 + b"{}",
                "pickle": pickle.dumps(["no weights"]),
            }[harm]
        )
    seal(saved)
    with pytest.raises(ModelFileError, match=reason):
        load_model(saved)


def test_an_enormous_network_is_not_built(cxrnet, tmp_path):
    path = Path(save_model(cxrnet[0], tmp_path / "model"))
    config = json.loads((path / "config.json").read_text())
    config["parameters"]["net_params"] = {"module__width": 20_000}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="does not fit the network"):
        load_model(path)


# --------------------------------------------------------------------------------------------
# pipelines and ensembles
# --------------------------------------------------------------------------------------------

skops = pytest.importorskip("skops.io")


def loader(**parameters):
    return make_pipeline(ImageLoader(20), small(max_epochs=1, **parameters))


def rows(**parameters):
    return make_pipeline(ImageLoader(8, output="rows"), StandardScaler(), LogisticRegression())


ENSEMBLES = {
    "pipeline": loader,
    "rows": rows,
    "voting": lambda: VotingClassifier([("a", small()), ("b", loader())], voting="soft"),
    "stacking": lambda: StackingClassifier([("a", small()), ("b", rows())], cv=2),
    "calibrated": lambda: CalibratedClassifierCV(small(), cv=2),
    "isotonic": lambda: CalibratedClassifierCV(loader(), cv=2, method="isotonic"),
    "search": lambda: GridSearchCV(small(), {"lr": [0.01, 0.1]}, cv=2),
    "search of pipelines": lambda: GridSearchCV(
        Pipeline([("load", ImageLoader(20)), ("model", small())]),
        {"model": [small(max_epochs=1), small(max_epochs=3)]},
        cv=StratifiedGroupKFold(2), scoring=["roc_auc", "accuracy"], refit="roc_auc",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def ensembles(images, files):
    groups = np.arange(24) // 2
    return {
        name: make().fit(files, images[1], **({"groups": groups} if "of" in name else {}))
        for name, make in ENSEMBLES.items()
    }


def test_ensembles_give_the_same_bits_in_a_new_process(ensembles, files, tmp_path):
    for name, model in ensembles.items():
        save_model(model, tmp_path / name)
        pd.to_pickle((files, model.predict_proba(files)), tmp_path / f"{name}.pkl")
    code = (
        "import sys, pandas as pd, skcxr\n"
        "for name in sys.argv[1:]:\n"
        "    files, wanted = pd.read_pickle(name + '.pkl')\n"
        "    assert (skcxr.load_model(name).predict_proba(files) == wanted).all(), name\n"
    )
    subprocess.run([sys.executable, "-c", code, *ensembles], check=True, cwd=tmp_path)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_are_folders_without_pickle(name, ensembles, tmp_path):
    path = Path(save_model(ensembles[name], tmp_path / "model"))
    config = json.loads((path / "config.json").read_text())
    assert config["kind"] == "pipeline"
    weights = [entry["weights"]["file"] for entry in config["classifiers"] if "weights" in entry]
    assert sorted(os.listdir(path)) == sorted(["config.json", "estimator.skops", *weights])
    again = load_model(path)
    assert type(again) is type(ensembles[name])
    assert repr(again) == repr(ensembles[name])
    with zipfile.ZipFile(path / "estimator.skops") as archive:
        assert not any(name.endswith((".pkl", ".bin")) for name in archive.namelist())
    save_model(again, path)
    assert repr(load_model(path)) == repr(again)


def test_one_classifier_in_two_places_is_one_again(ensembles, tmp_path):
    again = load_model(save_model(ensembles["voting"], tmp_path / "model"))
    assert again.estimators_[0] is again.named_estimators_["a"]
    assert not hasattr(again.estimators[0][1], "net_")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert len(config["classifiers"]) == 4  # two that are fitted, two as they were given
    assert again.estimators[0][1].get_params() == ensembles["voting"].estimators[0][1].get_params()


def test_a_search_by_findings(images, tmp_path):
    scorer = make_masked_scorer(roc_auc_score, response_method="predict_proba")
    search = GridSearchCV(small(), {"lr": [0.01, 0.1]}, cv=KFold(2), scoring=scorer)
    labels = findings(images).to_numpy()
    labels[1::4, 0] = 1 - labels[1::4, 0]
    labels[[0, 2], 1] = 1
    search.fit(images[0], labels)
    again = load_model(save_model(search, tmp_path / "model"))
    assert again.score(images[0], labels) == search.score(images[0], labels)
    assert (again.predict_proba(images[0]) == search.predict_proba(images[0])).all()


def test_saving_changes_nothing(ensembles, tmp_path):
    before = pickle.dumps(ensembles["stacking"])
    save_model(ensembles["stacking"], tmp_path / "model")
    assert pickle.dumps(ensembles["stacking"]) == before


def test_caches_of_pipelines_stay_behind(images, files, tmp_path):
    memory = str(tmp_path / "cache")
    steps = [("load", ImageLoader(20, memory=memory)), ("model", small(memory=memory))]
    model = Pipeline(steps, memory=joblib.Memory(memory, verbose=0)).fit(files, images[1])
    again = load_model(save_model(model, tmp_path / "model"))
    assert again.memory is again["load"].memory is again["model"].memory is None
    assert model["load"].memory == model["model"].memory == memory
    assert model.memory is not None
    assert (again.predict_proba(files) == model.predict_proba(files)).all()


class MyScaler(StandardScaler):
    pass


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (FunctionTransformer(lambda rows: rows), "lambda"),
        (FunctionTransformer(np.atleast_2d), "atleast_2d"),
        (MyScaler(), "MyScaler"),
    ],
    ids=["lambda", "function", "class"],
)
def test_code_in_pipelines_is_refused(step, named, images, files, tmp_path):
    model = make_pipeline(ImageLoader(8, output="rows"), step, LogisticRegression())
    model.fit(files, images[1])
    with pytest.raises(InputError, match=f"{named}.*joblib.dump"):
        save_model(model, tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_trees_are_refused(images, files, tmp_path):
    model = make_pipeline(ImageLoader(8, output="rows"), RandomForestClassifier(2, random_state=0))
    with pytest.raises(InputError, match=r"sklearn\.tree\._tree\.Tree"):
        save_model(model.fit(files, images[1]), tmp_path / "model")


def test_parameters_within_pipelines_are_refused_by_name(images, files, tmp_path):
    model = loader(augmentation=abs).fit(files, images[1])
    with pytest.raises(InputError, match="augmentation=<built-in"):
        save_model(model, tmp_path / "model")
    voting = VotingClassifier([("a", small(random_state=np.random.RandomState(0)))])
    with pytest.raises(InputError, match="random_state=RandomState"):
        save_model(voting.fit(files, images[1]), tmp_path / "model")


@pytest.fixture
def pipeline(ensembles, tmp_path):
    """The folder of a pipeline, for tests that harm it."""
    return Path(save_model(ensembles["pipeline"], tmp_path / "pipeline"))


class Harmful:
    def __reduce__(self):
        return Harmful, ("touched",)

    def __init__(self, name):
        Path(name).touch()


@pytest.mark.parametrize("thing", ["class", "function", "partial", "method"])
def test_forged_pipelines_run_nothing(thing, pipeline, monkeypatch, tmp_path):
    from functools import partial

    harm = Harmful.__new__(Harmful)
    harmful = {
        "class": harm, "function": os.system, "partial": partial(os.system, "touch touched"),
        "method": Path("touched").touch,
    }[thing]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = FunctionTransformer(func=harmful)
    try:
        (pipeline / "estimator.skops").write_bytes(skops.dumps(model))
    except TypeError:  # skops has no way to write it: write one that it would have
        pytest.skip("skops cannot hold it")
    seal(pipeline, "estimator.skops")
    with pytest.raises(ModelFileError, match=r"estimator\.skops holds .* not trusted"):
        load_model(pipeline)
    assert not os.path.exists("touched")


@pytest.mark.parametrize("index", [1, -1, True, "0", None])
def test_forged_placeholders(index, pipeline):
    (pipeline / "estimator.skops").write_bytes(skops.dumps(make_pipeline(room._Saved(index))))
    seal(pipeline, "estimator.skops")
    with pytest.raises(ModelFileError, match="it has no net"):
        load_model(pipeline)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("list", "holds no estimator"),
        ("garbage", "no archive of skops"),
        ("packed", "is compressed"),
        ("flipped", "sha256"),
        ("missing", "estimator.skops is missing"),
        ("no net", "net_0.safetensors is missing"),
        ("no entries", "no 'classifiers'"),
        ("fewer entries", "it has no net 0"),
        ("deep", "nested too deeply"),
    ],
)
def test_damaged_pipelines(harm, reason, pipeline):
    file = pipeline / "estimator.skops"
    content = file.read_bytes()
    config = json.loads((pipeline / "config.json").read_text())
    if harm == "list":
        file.write_bytes(skops.dumps([1, 2]))
    elif harm == "garbage":
        file.write_bytes(b"garbage")
    elif harm == "packed":
        file.write_bytes(skops.dumps(LogisticRegression(), compression=zipfile.ZIP_DEFLATED))
    elif harm == "deep":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("schema.json", "[" * 200_000)
    elif harm == "flipped":
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif harm == "missing":
        file.unlink()
    elif harm == "no net":
        (pipeline / "net_0.safetensors").unlink()
    else:
        config["classifiers"] = None if harm == "no entries" else []
        (pipeline / "config.json").write_text(json.dumps(config))
    if harm in ("list", "garbage", "packed", "deep"):
        seal(pipeline, "estimator.skops")
    with pytest.raises(ModelFileError, match=reason):
        load_model(pipeline)


def test_another_scikit_learn_is_told_once(pipeline, saved):
    for folder in (pipeline, saved):
        config = json.loads((folder / "config.json").read_text())
        config["versions"]["scikit-learn"] = "1.6.0"
        (folder / "config.json").write_text(json.dumps(config))
    load_model(saved)  # no warning: nothing of scikit-learn is inside
    with pytest.warns(SkcxrWarning, match=r"saved with scikit-learn 1\.6\.0") as caught:
        load_model(pipeline)
    assert len(caught) == 1


def test_inner_versions_do_not_double_the_warning(pipeline):
    file = pipeline / "estimator.skops"
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["schema.json"] = parts["schema.json"].replace(sklearn.__version__.encode(), b"1.6.0")
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    config = json.loads((pipeline / "config.json").read_text())
    config["versions"]["scikit-learn"] = "1.6.0"
    (pipeline / "config.json").write_text(json.dumps(config))
    seal(pipeline, "estimator.skops")
    with pytest.warns(SkcxrWarning) as caught:
        load_model(pipeline)
    assert len(caught) == 1


def test_without_skops(pipeline, saved, fitted, ensembles, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(MissingDependencyError, match=r"skcxr\[skops\]"):
        load_model(pipeline)
    with pytest.raises(MissingDependencyError, match=r"skcxr\[skops\]"):
        save_model(ensembles["pipeline"], tmp_path / "model")
    load_model(save_model(load_model(saved), saved))


# --------------------------------------------------------------------------------------------
# pickle and joblib, for one's own use
# --------------------------------------------------------------------------------------------


def test_pickle_and_joblib_give_the_same_bits(cxrnet, tmp_path):
    model, X = cxrnet
    wanted = model.predict_proba(X)
    joblib.dump(model, tmp_path / "model.joblib")
    for again in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")):
        assert (again.predict_proba(X) == wanted).all()
        assert again.history_ == model.history_


def test_a_pickle_is_hardly_more_than_its_weights(cxrnet):
    state = cxrnet[0].module_.state_dict()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    assert len(pickle.dumps(cxrnet[0])) <= 1.1 * weights


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_pickle_of_a_gpu_is_read_without_one(device, cxrnet, images, monkeypatch):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU here")
    model, X = copy.deepcopy(cxrnet[0]), cxrnet[1]
    model.net_.device = model.device_ = device
    model._settings = replace(model._settings, device=device)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: device)
        content = pickle.dumps(model)
    again = pickle.loads(content)
    assert again.device_ == again._settings.device == str(again.net_.device) == "cpu"
    assert {parameter.device.type for parameter in again.module_.parameters()} == {"cpu"}
    assert (again.predict_proba(X) == cxrnet[0].predict_proba(X)).all()
    again.partial_fit(X, images[1])
