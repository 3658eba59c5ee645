"""Images that trained the weights of the package are found, and no others."""

from __future__ import annotations

import io
import pickle
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skcxr import (
    ContaminationWarning,
    CXRClassifier,
    CXRFeatures,
    InputError,
    make_cxr_phantoms,
)
from skcxr._contamination import hash_bits, have_learnt, learnt_images
from skcxr._shipped import SHIPPED, Shipped
from skcxr.audit import audit_dataset
from skcxr.batches import ImageDataset


@pytest.fixture(scope="module")
def drawn():
    """24 phantoms of two classes."""
    return make_cxr_phantoms(24, n_classes=2, image_size=128, random_state=0)


@pytest.fixture
def trained_on(tmp_path, monkeypatch):
    """A function: pretend that images have trained the weights of the package."""

    def pretend(images: np.ndarray) -> Shipped:
        given = SHIPPED["cxr"]
        shutil.copy(given.weights, tmp_path)
        bits = hash_bits(torch.from_numpy(images)[:, None].float())
        np.save(tmp_path / "cxr.hashes.npy", np.packbits(bits, axis=1))
        shipped = Shipped("cxr", given.backbone, given.image_size, given.arguments, str(tmp_path))
        monkeypatch.setitem(SHIPPED, "cxr", shipped)
        return shipped

    return pretend


def changed(image: np.ndarray, how: str) -> np.ndarray:
    """One picture as another program may have it."""
    picture = Image.fromarray(image)
    if how == "larger":
        return np.asarray(picture.resize((300, 300), Image.Resampling.BICUBIC))
    if how == "smaller":
        return np.asarray(picture.resize((96, 80), Image.Resampling.HAMMING))
    if how == "compressed":
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=40)
        return np.asarray(Image.open(buffer))
    if how == "brighter":
        return (255 * (image / 255) ** 0.7).astype(np.uint8)
    return image[:, ::-1]


@pytest.mark.parametrize("how", ["larger", "smaller", "compressed", "brighter", "mirrored"])
def test_a_copy_is_found_however_it_was_changed(drawn, trained_on, how):
    known, strangers = drawn.data[:12], drawn.data[12:]
    shipped = trained_on(known)

    def learnt(images):
        worked = [torch.from_numpy(changed(image, how).copy())[None, None] for image in images]
        return [bool(have_learnt(shipped, hash_bits(image))[0]) for image in worked]

    assert sum(learnt(known)) >= 11
    assert not any(learnt(strangers))


def test_a_fit_warns_once_and_names_the_images(drawn, trained_on):
    trained_on(drawn.data[[3, 7, 8]])
    model = CXRClassifier(weights="cxr", max_epochs=1, random_state=0)
    for changes in ({}, {"freeze": "backbone"}, {"early_stopping": True}):
        model.set_params(**changes)
        with pytest.warns(ContaminationWarning) as caught:
            model.fit(drawn.data, drawn.target, groups=drawn.groups)
        assert [w.message.positions for w in caught] == [[3, 7, 8]]
        assert caught[0].filename == __file__
        assert "3 of 24 images" in str(caught[0].message)


def test_looking_holds_no_images_that_would_be_sent_to_workers(drawn, trained_on):
    shipped = trained_on(drawn.data[[3, 7, 8]])
    found = []
    for hold in (True, False):
        images = ImageDataset(drawn.data, (64, 64), ram_limit=2**30)
        empty = len(pickle.dumps(images))
        found.append(learnt_images(shipped, images, hold=hold))
        assert (len(pickle.dumps(images)) > empty) == hold
        assert (images.ram_left < 2**30) == hold
    np.testing.assert_array_equal(*found)
    assert found[0].sum() == 3


def test_positions_are_those_in_x_where_rows_count_for_nothing(drawn, trained_on):
    trained_on(drawn.data[[3, 7, 8]])
    weight = np.ones(24)
    weight[[0, 7]] = 0
    model = CXRClassifier(weights="cxr", max_epochs=1, random_state=0)
    with pytest.warns(ContaminationWarning) as caught:
        model.fit(drawn.data, drawn.target, sample_weight=weight)
    assert caught[0].message.positions == [3, 8]
    with pytest.warns(ContaminationWarning) as caught:
        CXRClassifier(weights="cxr", random_state=0).partial_fit(
            drawn.data, drawn.target, classes=np.unique(drawn.target), sample_weight=weight
        )
    assert caught[0].message.positions == [3, 8]


def test_features_warn_also_where_they_come_from_the_cache(drawn, trained_on, tmp_path):
    trained_on(drawn.data[:2])
    features = CXRFeatures(weights="cxr", memory=tmp_path / "memory")
    found = []
    for _ in range(2):
        with pytest.warns(ContaminationWarning, match="2 of 24"):
            found.append(features.fit_transform(drawn.data))
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (24, features.module_.embedding_size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features.transform(drawn.data[2:])


def test_no_other_weights_warn(drawn, trained_on, tmp_path):
    shipped = trained_on(drawn.data)
    model = make_pipeline(
        CXRFeatures("cxrnet", weights=None, random_state=0, image_size=64), LogisticRegression()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ContaminationWarning)
        model.fit(drawn.data, drawn.target)
        CXRClassifier(max_epochs=1, image_size=64, random_state=0).fit(drawn.data, drawn.target)
    assert shipped.name == "cxr"


def test_an_audit_lists_them(drawn, trained_on):
    trained_on(drawn.data[[3, 7]])
    report = audit_dataset(drawn.data, drawn.target, weights="cxr", progress=False)
    [finding] = [finding for finding in report if finding.check == "weights"]
    assert finding.severity == "serious"
    assert finding.figures == {"images": 2}
    assert finding.items == ["image 3", "image 7"]
    clean = audit_dataset(drawn.data[8:], drawn.target[8:], weights="cxr", progress=False)
    assert "weights" not in [finding.check for finding in clean]
    with pytest.raises(InputError, match=r"'IMAGENET1K_V1'.*'cxr'"):
        audit_dataset(drawn.data, drawn.target, weights="IMAGENET1K_V1")


def test_the_warning_survives_a_process():
    warning = ContaminationWarning("cxr", [4], 9)
    again = pickle.loads(pickle.dumps(warning))
    assert str(again) == str(warning)
    assert (again.positions, again.n_images, again.weights) == ([4], 9, "cxr")


def test_neither_noise_nor_nothing_is_an_image_that_was_learnt():
    generator = torch.Generator().manual_seed(0)
    for images in (torch.rand(200, 1, 64, 64, generator=generator), torch.zeros(2, 1, 64, 64)):
        assert not have_learnt(SHIPPED["cxr"], hash_bits(images)).any()


def test_real_films_that_are_in_both_collections_are_found_and_adults_are_not(shared_data):
    table = pd.read_csv(shared_data / "covid4.csv")
    paths = np.array([str(shared_data / "covid4" / path) for path in table["path"]])
    names = {path.name for path in (shared_data / "kermany224").rglob("*.jpeg")}
    both = np.array([path.rpartition("/")[2] in names for path in table["path"]])
    chosen = np.flatnonzero(both)[::5], np.flatnonzero(~both)[::5]
    features = CXRFeatures(weights="cxr")
    with pytest.warns(ContaminationWarning) as caught:
        features.fit_transform(np.concatenate([paths[k] for k in chosen]))
    assert caught[0].message.positions == list(range(len(chosen[0])))
    adults = sorted(map(str, (shared_data / "adults256").rglob("*.jpg")))[::10]
    nih = sorted(map(str, (shared_data / "nih64").rglob("*.png")))[::10]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features.transform(adults + nih)
