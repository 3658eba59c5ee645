"""The weights that come with the package: offline, for our network alone, and told all about."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcxr import (
    CXRClassifier,
    CXRFeatures,
    WeightsError,
    load_model,
    make_cxr_phantoms,
    save_model,
)
from skcxr._contamination import N_BITS
from skcxr._shipped import SHIPPED, shipped_weights
from skcxr.networks import build_network, input_spec

CXR = SHIPPED["cxr"]


@pytest.fixture(scope="module")
def drawn():
    """36 phantoms of two classes."""
    return make_cxr_phantoms(36, n_classes=2, image_size=96, random_state=0)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("the weights of the package need no network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)


def built(**arguments):
    with torch.random.fork_rng():
        return build_network(
            "cxrnet", num_classes=3, image_size=(128, 128), weights="cxr", **arguments
        ).eval()


def test_the_files_are_small_and_there_is_a_hash_of_each_film():
    n_bytes = sum(os.path.getsize(path) for path in (CXR.weights, CXR.hashes, CXR.card))
    assert n_bytes < 4_000_000
    assert os.path.getsize(CXR.hashes) < 100_000
    hashes = np.load(CXR.hashes)
    assert hashes.dtype == np.uint8
    assert hashes.shape[1] * 8 == N_BITS
    n_films = int(re.search(r"([\d,]+) films of", Path(CXR.card).read_text())[1].replace(",", ""))
    assert len(hashes) == n_films


def test_the_card_is_that_of_the_file():
    card = Path(CXR.card).read_text(encoding="utf-8")
    digest = hashlib.sha256(Path(CXR.weights).read_bytes()).hexdigest()
    assert digest in card
    for told in ("CC BY 4.0", "Kermany", "For research only", "seed 0", "must not be used for"):
        assert told in card, told


def test_float16_gives_the_same_outputs_and_all_tensors_are_used(drawn):
    state = load_file(CXR.weights)
    assert {t.dtype for t in state.values() if t.ndim > 2} == {torch.float16}
    assert not [name for name in state if ".head." in name]
    network = built()
    assert_array_equal(
        network.layers.stage3.conv.weight.detach().numpy(),
        state["layers.stage3.conv.weight"].float().numpy(),
    )
    for name, tensor in network.state_dict().items():
        if "running" in name or name.endswith("norm.weight"):
            assert_array_equal(tensor.numpy(), state[name].numpy())


def test_names_of_the_weights():
    assert shipped_weights("cxr", "cxrnet") is CXR
    for other in ("DEFAULT", "", None, Path("cxr")):
        assert shipped_weights(other, "cxrnet") is None
    assert shipped_weights("cxr", "resnet18") is None
    assert input_spec("cxrnet", "cxr") == replace(input_spec("cxrnet"), size=(128, 128))
    for backbone in ("smallnet", "resnet18"):
        with pytest.raises(WeightsError, match="weights='cxr'"):
            CXRFeatures(backbone, weights="cxr").fit(np.zeros((2, 40, 40), np.uint8))
    with pytest.raises(WeightsError, match="for 'cxrnet' there are 'cxr'"):
        CXRFeatures("cxrnet").fit(np.zeros((2, 40, 40), np.uint8))
    with pytest.raises(WeightsError, match="for 'cxrnet' there are 'cxr'"):
        CXRClassifier("cxrnet", weights="kermany").fit(np.zeros((2, 40, 40), np.uint8), [0, 1])


def test_a_file_of_that_name_in_the_folder_changes_nothing(drawn, tmp_path, monkeypatch):
    expected = CXRFeatures(weights="cxr").fit_transform(drawn.data[:4])
    (tmp_path / "cxr").write_text("no weights")
    monkeypatch.chdir(tmp_path)
    assert_array_equal(CXRFeatures(weights="cxr").fit_transform(drawn.data[:4]), expected)


def test_auto_takes_the_network_of_the_weights(drawn):
    features = CXRFeatures(weights="cxr").fit(drawn.data)
    assert features.image_size_ == (128, 128)
    assert features.module_.embedding_size == 22 * 48
    assert features.weights_.startswith("the weights 'cxr' of skcxr")
    thumbnails = make_cxr_phantoms(12, n_classes=2, image_size=32, random_state=0)
    clf = CXRClassifier(weights="cxr", max_epochs=1, random_state=0)
    clf.fit(thumbnails.data[:, 2:30, 2:30], thumbnails.target)
    assert (clf.backbone_, clf.image_size_) == ("cxrnet", (128, 128))
    assert clf.weights_ == "the weights 'cxr' of skcxr; it has no head, so there is a new one of 2"
    assert CXRClassifier().get_params()["weights"] is None


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1"])
def test_no_features_take_them_unasked(weights, monkeypatch):
    def load(backbone, *, weights, **more):
        raise WeightsError(f"{backbone} {weights}")

    monkeypatch.setattr("skcxr.features.load_network", load)
    assert CXRFeatures().weights == "DEFAULT"
    with pytest.raises(WeightsError, match=f"resnet18 {weights}"):
        CXRFeatures(weights=weights).fit(np.zeros((2, 40, 40), np.uint8))


def test_a_path_of_that_name_is_a_file():
    with pytest.raises(WeightsError, match=r"\./cxr"):
        CXRFeatures("cxrnet", weights=Path("cxr")).fit(np.zeros((2, 40, 40), np.uint8))


def test_embeddings_are_what_the_head_gets_whatever_the_batch(drawn):
    features = CXRFeatures(weights="cxr", batch_size=5).fit(drawn.data)
    embeddings = features.transform(drawn.data)
    assert_allclose(features.set_params(batch_size=36).transform(drawn.data), embeddings, atol=1e-5)
    network = features.module_
    with torch.no_grad():
        again = network(torch.from_numpy(embeddings))
    assert again.shape == (36, 2)
    assert np.isfinite(embeddings).all()
    # the maximum is at least the mean of the highest places
    width = 8 * 48
    assert (embeddings[:, :width] >= embeddings[:, width : 2 * width] - 1e-6).all()


def test_models_that_start_from_them_are_saved_and_pickled(drawn, tmp_path):
    models = [
        CXRClassifier(weights="cxr", max_epochs=1, random_state=0),
        CXRClassifier(weights="cxr", freeze="backbone", max_epochs=2, random_state=0),
        make_pipeline(CXRFeatures(weights="cxr"), StandardScaler(), LogisticRegression()),
    ]
    for k, model in enumerate(models):
        expected = model.fit(drawn.data, drawn.target).predict_proba(drawn.data)
        loaded = load_model(save_model(model, tmp_path / str(k)))
        assert_array_equal(loaded.predict_proba(drawn.data), expected)
        again = pickle.loads(pickle.dumps(model))
        assert_array_equal(again.predict_proba(drawn.data), expected)


def test_a_fit_goes_on_from_a_fit(drawn):
    clf = CXRClassifier(weights="cxr", max_epochs=1, warm_start=True, random_state=0)
    before = clf.fit(drawn.data, drawn.target).weights_
    assert clf.fit(drawn.data, drawn.target).weights_ == before


def test_defaults_of_fine_tuning(drawn):
    clf = CXRClassifier(weights="cxr", freeze=3, image_size=32, random_state=0)
    clf.fit(drawn.data, drawn.target)
    assert (clf.lr_, clf.max_epochs_, clf.label_smoothing_) == (0.001, 42, 0.05)  # 16 of 250


def test_a_width_of_ones_own_does_not_fit_them(drawn):
    clf = CXRClassifier(weights="cxr", net_params={"module__width": 16}, random_state=0)
    with pytest.raises(WeightsError, match="do not fit"):
        clf.fit(drawn.data, drawn.target)


def test_a_search_embeds_each_image_once(drawn, tmp_path):
    model = make_pipeline(
        CXRFeatures(weights="cxr", memory=tmp_path), StandardScaler(), LogisticRegression()
    )
    search = GridSearchCV(model, {"logisticregression__C": [0.01, 1]}, cv=2)
    search.fit(drawn.data, drawn.target)
    assert sum(len(files) for _, _, files in os.walk(tmp_path)) >= 36


def test_real_films_five_of_each_class_tell_more_than_random_weights(shared_data):
    adults = sorted(map(str, (shared_data / "adults256").glob("*/*.jpg")))
    names = np.array([Path(path).parent.name for path in adults])
    paths, labels = np.array(adults)[names != "Covid-19"], names[names != "Covid-19"]
    some = np.concatenate([np.flatnonzero(labels == name)[::4] for name in np.unique(labels)])
    paths, labels = paths[some], labels[some]
    scores = {}
    for weights in ("cxr", None):
        features = CXRFeatures("cxrnet", weights=weights, image_size=128, random_state=0)
        found = features.fit_transform(paths)
        scores[weights] = 0.0
        for seed in range(10):
            rng = np.random.default_rng(seed)
            train = np.concatenate([
                rng.permutation(np.flatnonzero(labels == name))[:5] for name in np.unique(labels)
            ])  # fmt: skip
            test = np.setdiff1d(np.arange(len(labels)), train)
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            scores[weights] += model.fit(found[train], labels[train]).score(
                found[test], labels[test]
            )
    assert scores["cxr"] > scores[None] + 0.5  # five points on average
