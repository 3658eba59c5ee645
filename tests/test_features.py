"""Embeddings of a network that is held still."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcxr import (
    CXRClassifier,
    CXRFeatures,
    ImageLoader,
    ImageReadError,
    ImageReadWarning,
    InputError,
    WeightsError,
)
from skcxr.features import _pool
from skcxr.networks import CXRNet


def small(backbone="cxrnet", **parameters):
    """Features of random weights, which serve as well as others to test what is around them."""
    return CXRFeatures(backbone, weights=None, random_state=0, image_size=32, **parameters)


@pytest.fixture
def embeds(monkeypatch):
    """Sizes of the batches that went through a network."""
    sizes = []
    embed = CXRNet.embed

    def counted(self, x):
        sizes.append(len(x))
        return embed(self, x)

    monkeypatch.setattr(CXRNet, "embed", counted)
    return sizes


def test_embeddings_are_what_the_head_gets(files):
    features = small().fit(files)
    embeddings = features.transform(files)
    assert embeddings.shape == (24, features.module_.embedding_size)
    assert embeddings.dtype == np.float32
    pixels = torch.from_numpy(ImageLoader(32).transform(files))[:, None]
    with torch.no_grad():
        logits = features.module_(pixels)
        assert_allclose(
            features.module_(torch.from_numpy(embeddings)).numpy(), logits.numpy(), atol=1e-5
        )


@pytest.mark.parametrize("X", ["paths", "frame", "images", "channels", "loader"])
def test_every_kind_of_x_gives_the_same(X, files, images):
    given = {
        "paths": np.array(files),
        "frame": pd.DataFrame({"path": files}),
        "images": images[0],
        "channels": images[0][..., None],
    }
    expected = small().fit_transform(files)
    if X == "loader":
        model = make_pipeline(ImageLoader(32), CXRFeatures("cxrnet", weights=None, random_state=0))
        found = model.fit_transform(files)
    else:
        found = small().fit_transform(given[X])
    assert_allclose(found, expected, atol=1e-6)


def test_batches_and_workers_do_not_change_embeddings(files):
    expected = small().fit_transform(files)
    assert_allclose(small(batch_size=5).fit_transform(files), expected, atol=1e-6)
    assert_array_equal(small(num_workers=2).fit_transform(files), expected)


def test_rows_keep_their_precision():
    rows = np.random.default_rng(0).random((10, 36))
    features = CXRFeatures("smallnet", weights=None, random_state=0).fit(rows)
    assert features.transform(rows).dtype == np.float64
    assert features.n_features_in_ == 36
    with pytest.raises(InputError, match="fitted on rows"):
        features.transform(np.zeros((2, 6, 6), np.uint8))


def test_names_and_data_frames(files):
    features = small().set_output(transform="pandas").fit(files)
    frame = features.transform(pd.DataFrame({"path": files}, index=range(100, 124)))
    assert list(frame.columns) == list(features.get_feature_names_out())
    assert frame.columns[0] == "cxrfeatures0"
    assert list(frame.index) == list(range(100, 124))


@pytest.mark.parametrize(
    ("layer", "pooling", "width"),
    [(None, "avg", 256), (None, "avgmax", 512), (0, None, 32), (-2, "max", 128),
     ("stage1", "avg", 64), ([1, None], None, 64 + 512), ([0, "stage2"], "avgmax", 64 + 256)],
)  # fmt: skip
def test_layers_and_pooling(layer, pooling, width, files):
    features = small(layer=layer, pooling=pooling).fit(files)
    assert features.transform(files).shape == (24, width)
    assert len(features.get_feature_names_out()) == width


def test_the_own_embedding_of_cxrnet_is_mean_and_maximum_of_its_last_stage(files):
    assert_allclose(
        small(pooling="avgmax").fit_transform(files), small().fit_transform(files), atol=1e-6
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"layer": "layer9"}, "layer='layer9' is no module of CXRNet; it has .*stage1"),
        ({"layer": 7}, "layer=7, but the network has stages 0 to 3"),
        ({"layer": "stage1.conv.weight"}, "no module"),
    ],
)
def test_layers_that_are_not_there(parameters, message, files):
    with pytest.raises(InputError, match=message):
        small(**parameters).fit(files)


def test_images_that_vanish_in_a_network(files):
    features = CXRFeatures("alexnet", weights=None, image_size=8, random_state=0).fit(files)
    with pytest.raises(InputError, match=r"'alexnet' cannot run on 24 images of 8 x 8 pixels"):
        features.transform(files)


def test_weights_that_cannot_be_had_are_an_error(files, tmp_path):
    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        CXRFeatures("cxrnet", weights=tmp_path / "gone.safetensors").fit(files)
    with pytest.raises(WeightsError, match="IMAGENET9"):
        CXRFeatures("resnet18", weights="IMAGENET9").fit(files)


def test_each_image_is_embedded_once_for_all_folds_and_settings(files, images, tmp_path, embeds):
    model = make_pipeline(
        CXRFeatures("cxrnet", weights=None, random_state=0, image_size=32, memory=tmp_path),
        StandardScaler(),
        LogisticRegression(),
    )
    search = GridSearchCV(model, {"logisticregression__C": [0.1, 1.0]}, cv=3).fit(files, images[1])
    assert sum(embeds) == len(files)
    search.predict(files)
    assert sum(embeds) == len(files)


def test_cached_embeddings_are_those_without_a_cache(files, tmp_path):
    expected = small().fit_transform(files)
    for _ in range(2):
        assert_array_equal(small(memory=tmp_path).fit_transform(files), expected)


def test_what_changes_an_embedding_is_another_entry(files, images, tmp_path, embeds):
    small(memory=tmp_path).fit_transform(files)
    embeds.clear()
    for other in (
        small(memory=tmp_path).set_params(image_size=40),
        small(memory=tmp_path).set_params(random_state=1),
        small(memory=tmp_path, pooling="max"),
    ):
        plain = other.fit_transform(files)
        assert_allclose(other.set_params(memory=None).fit_transform(files), plain, atol=1e-6)
    assert not os.path.exists(tmp_path / "skcxr-images")
    # arrays are known by their pixels
    embeds.clear()
    small(memory=tmp_path).fit_transform(images[0])
    small(memory=tmp_path).fit_transform(images[0][::-1])
    assert sum(embeds) == len(files)


def test_a_changed_file_is_embedded_again(tmp_path):
    path = tmp_path / "film.bmp"
    features = small(memory=tmp_path / "cache")
    for value in (10, 200):
        pixels = np.full((32, 32), value, np.uint8)
        pixels[: value // 10] = 0
        Image.fromarray(pixels).save(path)
        found = features.fit_transform([str(path)])
        expected = small().fit_transform([str(path)])
        assert_allclose(found, expected, atol=1e-6)


def test_files_that_cannot_be_read(files, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nonsense")
    some = [files[0], str(bad), files[1]]
    with pytest.raises(ImageReadError, match=r"bad\.png"):
        small().fit(files).transform(some)
    for memory in (None, tmp_path / "cache", tmp_path / "cache"):
        features = small(on_error="nan", memory=memory).fit(files)
        with pytest.warns(ImageReadWarning, match=r"X\[1\]") as told:
            embeddings = features.transform(some)
        assert_array_equal(np.isnan(embeddings).all(axis=1), [False, True, False])
        assert told[0].message.failures[0].position == 1


def test_the_network_is_shared_and_not_moved_by_a_fit(files):
    first, second = small().fit(files), small().fit(files)
    assert first.module_ is second.module_
    assert not any(parameter.requires_grad for parameter in first.module_.parameters())
    before = {key: value.clone() for key, value in first.module_.state_dict().items()}
    CXRClassifier("cxrnet", image_size=32, max_epochs=1, random_state=0).fit(files, ["a", "b"] * 12)
    assert all(torch.equal(before[key], value) for key, value in first.module_.state_dict().items())


def test_a_pickle_gives_the_same(files):
    features = small().fit(files)
    again = pickle.loads(pickle.dumps(features))
    assert_array_equal(again.transform(files), features.transform(files))


def test_a_progress_bar_goes_to_standard_error(files, capsys):
    small(verbose=1).fit(files).transform(files)
    out, err = capsys.readouterr()
    assert not out
    assert "embedding" in err


def test_a_layer_is_taken_before_the_next_one_works_in_place(images):
    features = CXRFeatures("resnet18", weights=None, image_size=32, layer="bn1", random_state=0)
    found = features.fit_transform(images[0])
    assert (found < 0).any()  # its rectifier overwrites it


@pytest.mark.parametrize(
    ("shape", "image_size", "axes"),
    [
        ((2, 8, 7, 7), (224, 224), (2, 3)), ((2, 7, 7, 8), (224, 224), (1, 2)),
        ((2, 8, 7, 14), (224, 448), (2, 3)), ((2, 7, 14, 8), (224, 448), (1, 2)),
        ((2, 8, 1, 1), (32, 32), (2, 3)), ((2, 1, 1, 8), (32, 32), (1, 2)),
    ],
)  # fmt: skip
def test_places_of_a_map_are_found_where_channels_come_last(shape, image_size, axes):
    output = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_pool(output, "avg", image_size, None), output.mean(axes))


def test_a_fit_that_fails_leaves_what_was_fitted(files):
    rows = np.random.default_rng(0).random((6, 64))
    features = CXRFeatures("smallnet", weights=None, random_state=0).fit(rows)
    before = features.transform(rows)
    with pytest.raises(InputError, match="no module"):
        features.set_params(layer="gone").fit(rows[:, :16])
    assert features.n_features_in_ == 64
    assert_array_equal(features.transform(rows), before)


def test_a_head_that_is_not_used_is_not_missed(files, images, tmp_path):
    labels = np.array(["a", "b", "c"] * 8)
    clf = CXRClassifier("cxrnet", image_size=32, max_epochs=1, random_state=0).fit(files, labels)
    torch.save(clf.module_.state_dict(), tmp_path / "three.pt")
    features = CXRFeatures("cxrnet", weights=tmp_path / "three.pt", image_size=32).fit(files)
    assert "its head of 3 outputs was replaced" in features.weights_
    assert features.transform(files).shape == (24, 512)


class Tiny(torch.nn.Module):
    """A network of somebody's own."""

    def __init__(self, num_classes):
        super().__init__()
        self.embedding_size = 4
        self.conv = torch.nn.Conv2d(1, 4, 3)

    def embed(self, x):
        return self.conv(x).mean((2, 3))


def test_networks_of_your_own(images, tmp_path):
    features = CXRFeatures(Tiny, weights=None, random_state=0, memory=tmp_path).fit(images[0])
    assert features.transform(images[0]).shape == (24, 4)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # its code may change
    with pytest.raises(InputError, match="Tiny does not tell its own"):
        features.set_params(layer=0).fit(images[0])


def test_nan_images_are_nan_rows_without_a_word(images):
    pixels = images[0] / 255.0
    pixels[3] = np.nan
    found = small(on_error="nan").fit(pixels).transform(pixels)
    assert_array_equal(np.flatnonzero(np.isnan(found).any(axis=1)), [3])
