"""Recipes: what they give for a data set, and what they say of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import StratifiedGroupKFold, TunedThresholdClassifierCV
from sklearn.utils import Bunch

from skcxr import InputError, load_cxr_table, load_model, make_cxr_phantoms, save_model
from skcxr.metrics import target_sensitivity
from skcxr.recipes import few_films, few_films_ensemble, screening, thumbnails

ALL = [few_films, few_films_ensemble, screening, thumbnails]


@pytest.fixture(scope="module")
def films(shared_data: Path) -> Bunch:
    """40 real films of four classes."""
    data = load_cxr_table(
        shared_data / "covid4.csv", path="path", target="finding", groups="patient",
        root=shared_data / "covid4",
    )  # fmt: skip
    chosen = np.concatenate(
        [np.flatnonzero(data.target == k)[::7][:10] for k in np.unique(data.target)]
    )
    return Bunch(
        data=[data.data[i] for i in chosen],
        target=data.target[chosen],
        groups=data.groups[chosen],
    )


@pytest.fixture(scope="module")
def drawn() -> Bunch:
    """Phantoms of two classes, 32 pixels wide."""
    return make_cxr_phantoms(60, n_classes=2, image_size=32, noise=0, random_state=0)


def test_few_films_starts_from_the_weights_of_the_package(tmp_path):
    drawn = make_cxr_phantoms(48, n_classes=2, image_size=96, random_state=0)
    model = few_films(drawn, memory=tmp_path / "m", random_state=0)
    assert model[0].get_params()["weights"] == "cxr"
    train, test = np.arange(0, 48, 2), np.arange(1, 48, 2)
    model.fit(drawn.data[train], drawn.target[train])
    proba = model.predict_proba(drawn.data[test])
    assert model.score(drawn.data[test], drawn.target[test]) > 0.6  # chance: 0.5
    again = load_model(save_model(model, tmp_path / "model"))
    assert_allclose(again.predict_proba(drawn.data[test]), proba, atol=1e-6)


def test_few_films_takes_weights_of_imagenet(films, lite0, tmp_path):
    model = few_films(films, weights=lite0, memory=tmp_path / "m", random_state=0)
    split = StratifiedGroupKFold(2, shuffle=True, random_state=0)
    train, test = next(split.split(films.data, films.target, films.groups))
    paths = np.array(films.data)
    model.fit(paths[train], films.target[train])
    proba = model.predict_proba(paths[test])
    assert_allclose(proba.sum(axis=1), 1)
    assert np.mean(model.predict(paths[test]) == films.target[test]) > 0.5  # chance: 0.25
    assert_array_equal(
        clone(model).fit(paths[train], films.target[train]).predict_proba(paths[test]), proba
    )
    again = load_model(save_model(model, tmp_path / "model"))
    assert_allclose(again.predict_proba(paths[test]), proba, atol=1e-6)


def test_thumbnails_find_the_share_that_was_asked_for(drawn, tmp_path):
    model = thumbnails(drawn, n_members=1, sensitivity=0.9, random_state=0)
    model.set_params(estimator__cxrnet_0__max_epochs=8)
    with pytest.warns(UserWarning, match="patient of 60 of 60"):
        model.fit(drawn.data, drawn.target)
    assert 0 < model.best_threshold_ < 1
    found = model.predict(drawn.data)[drawn.target != "Healthy"] != "Healthy"
    assert found.mean() > 0.6
    again = load_model(save_model(model, tmp_path / "model"))
    assert_array_equal(again.predict(drawn.data), model.predict(drawn.data))


def test_the_threshold_is_the_highest_that_finds_enough():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 200)
    X = np.concatenate([rng.uniform(0, 0.4, 200), rng.uniform(0.6, 1, 200)])[:, None]
    scorer = make_scorer(target_sensitivity, pos_label=1, sensitivity=0.9)
    model = TunedThresholdClassifierCV(
        FrozenEstimator(LogisticRegression().fit(X, y)), scoring=scorer, cv="prefit", refit=False,
        thresholds=2000,
    ).fit(X, y)  # fmt: skip
    found = model.predict(X)
    assert found[y == 1].mean() == pytest.approx(0.9, abs=0.01)  # although 1.0 costs no normal
    assert target_sensitivity([1, 1], [1, 1], pos_label=1) == pytest.approx(0.95)
    with pytest.raises(InputError, match="holds no 1"):
        target_sensitivity([0, 0], [1, 1], pos_label=1)


def test_more_classes_or_no_sensitivity_keep_the_usual_threshold(drawn):
    four = make_cxr_phantoms(12, n_classes=4, image_size=32, random_state=0)
    assert type(thumbnails(four)).__name__ == "VotingClassifier"
    assert type(thumbnails(drawn, sensitivity=None)).__name__ == "VotingClassifier"


@pytest.mark.parametrize(
    ("classes", "positive"),
    [(["NORMAL", "PNEUMONIA"], "PNEUMONIA"), (["Abnormal", "Normal"], "Abnormal"), ([0, 1], 1),
     ([False, True], True)],
)  # fmt: skip
def test_the_positive_class_is_the_one_that_is_not_normal(classes, positive):
    data = Bunch(data=np.zeros((6, 40, 40), np.uint8), target=np.array(classes * 3))
    scorer = screening(data).scoring
    assert scorer._kwargs["pos_label"] == positive


@pytest.mark.parametrize("recipe", ALL)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a.png"], "takes a data set with .data and .target"),
        (Bunch(data=np.zeros((4, 9)), target=[0, 1, 0, 1]), "data.data holds rows"),
        (Bunch(data=["a.png"] * 4, target=np.eye(4)), "one label an image"),
    ],
)
def test_what_is_no_data_set(recipe, data, message):
    with pytest.raises(InputError, match=message):
        recipe(data)


def test_what_does_not_fit_a_recipe():
    tiny = Bunch(data=np.zeros((4, 28, 28), np.uint8), target=np.array([0, 1, 0, 1]))
    with pytest.raises(InputError, match=r"28 x 28 pixels; see skcxr\.recipes\.thumbnails"):
        few_films(tiny)
    three = Bunch(data=["a.png"] * 6, target=np.array([0, 1, 2] * 2))
    with pytest.raises(InputError, match="holds 3"):
        screening(three)
    names = Bunch(data=["a.png"] * 4, target=np.array(["a", "b"] * 2))
    with pytest.raises(InputError, match=r"cannot be told .* set pos_label="):
        screening(names)
    with pytest.raises(InputError, match="pos_label='c' is none of the classes"):
        screening(names, pos_label="c")
    with pytest.raises(InputError, match=r"sensitivity=1\.5"):
        screening(names, pos_label="a", sensitivity=1.5)
    with pytest.raises(InputError, match="n_members=0"):
        thumbnails(tiny, n_members=0)
    single = Bunch(data=["a.png"] * 3, target=np.array(["a", "a", "b"]))
    with pytest.raises(InputError, match="two images of each class"):
        few_films(single)
