"""CXRClassifier: what scikit-learn's users expect of it, beyond scikit-learn's own checks."""

from __future__ import annotations

import copy
import pickle
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    StratifiedGroupKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.utils._param_validation import InvalidParameterError
from skorch.callbacks import EpochScoring

from skcxr import (
    CXRClassifier,
    ImageLoader,
    ImageReadError,
    InputError,
    PatientWarning,
    TrainingError,
    WeightsError,
)
from skcxr.images import read_image

QUICK = {"max_epochs": 2, "random_state": 0}
# the strong network on small images: what runs on radiographs, in a second
STRONG = {**QUICK, "backbone": "cxrnet", "augmentation": "cxr", "batch_size": 8}


def as_kind(kind: str, files: list[str], images: np.ndarray) -> object:
    """The same images as each kind of X."""
    return {
        "list of str": lambda: files,
        "tuple of Path": lambda: tuple(map(Path, files)),
        "array of str": lambda: np.array(files),
        "object array": lambda: np.array(files, dtype=object),
        "column": lambda: np.array(files)[:, None],
        "Series": lambda: pd.Series(files, index=np.arange(len(files)) + 7),
        "DataFrame": lambda: pd.DataFrame({"path": files}),
        "3-D": lambda: images,
        "3-D float": lambda: images.astype(np.float32) / np.float32(255),
        "channels first": lambda: images[:, None],
        "RGB first": lambda: np.repeat(images[:, None], 3, axis=1),
        "RGB last": lambda: np.repeat(images[..., None], 3, axis=3),
        "list of arrays": lambda: list(images),
    }[kind]()


# ------------------------------------------------------------------------------------------
# X
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "tuple of Path", "array of str", "object array", "column", "Series", "DataFrame",
        "3-D", "3-D float", "channels first", "RGB first", "RGB last", "list of arrays",
    ],
)  # fmt: skip
def test_every_kind_of_x_gives_the_same_probabilities(kind, files, images):
    pixels, y = images
    clf = CXRClassifier(image_size=20, **STRONG)
    expected = clone(clf).fit(files, y).predict_proba(files)
    X = as_kind(kind, files, pixels)
    assert_array_equal(clf.fit(X, y).predict_proba(X), expected)


def test_arrays_are_resized_as_files_are(files, images):
    pixels, y = images
    clf = CXRClassifier(image_size=(14, 18), **STRONG)
    expected = clone(clf).fit(files, y).predict_proba(files)
    assert_array_equal(clf.fit(pixels, y).predict_proba(pixels), expected)
    assert clf.image_size_ == (14, 18)


def test_pipeline_with_image_loader_equals_paths(files, images):
    y = images[1]
    clf = CXRClassifier(image_size=24, **STRONG)
    pipe = make_pipeline(ImageLoader(image_size=24, n_jobs=2), clone(clf)).fit(files, y)
    assert_array_equal(pipe.predict_proba(files), clf.fit(files, y).predict_proba(files))


def test_rows_take_the_shape_that_is_said_or_a_square_or_a_strip(images):
    pixels, y = images
    rows = pixels[:, :, :18].reshape(len(pixels), -1)
    assert CXRClassifier(row_shape=(20, 18), **QUICK).fit(rows, y).image_size_ == (20, 18)
    assert CXRClassifier(**QUICK).fit(rows, y).image_size_ == (1, 360)
    assert CXRClassifier(**QUICK).fit(pixels.reshape(24, -1), y).image_size_ == (20, 20)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("a.png", "single path"),
        (["a.png", 3], r"X\[1\] is 3"),
        (["a.png", None], r"X\[1\] is None"),
        (pd.Series(["a.png", None]), r"X\[1\] is"),
        (np.zeros((2, 5, 5, 5), np.uint8), "channel_axis"),
        (np.zeros((2, 3, 5, 3), np.uint8), "channel_axis"),
        (np.zeros((2, 5, 5), np.int32), "int32"),
        (np.full((2, 5, 5), np.nan), "NaN or infinity in image 0"),
        (np.zeros((0, 5, 5), np.uint8), "0 sample"),
        ([np.zeros((5, 5)), np.zeros((5, 6))], r"X\[1\] has shape \(5, 6\)"),
        ([], "0 sample"),
        (None, "X may be paths"),
        (np.zeros((20, 20, 3), np.uint8), r"X\[None\]"),
        (pd.DataFrame({"path": ["a", "b"], "age": [1, 2]}), r"X\['path'\]"),
        (pd.Series([np.zeros((4, 4))] * 2), "np.stack"),
        (np.zeros((2, 3)) + 1j, "omplex"),
    ],
)
def test_x_that_cannot_be_used_is_a_value_error_that_says_where(X, message):
    with pytest.raises(ValueError, match=message):
        CXRClassifier(**QUICK).fit(X, ["a", "b"])


def test_an_ambiguous_channel_axis_can_be_set():
    X = np.random.default_rng(0).random((6, 3, 5, 3), dtype=np.float32)
    first = CXRClassifier(channel_axis=1, **QUICK).fit(X, [0, 1] * 3)
    last = CXRClassifier(channel_axis=-1, **QUICK).fit(X, [0, 1] * 3)
    assert (first.image_size_, last.image_size_) == ((5, 3), (3, 5))


def test_files_that_cannot_be_read_are_named(files, images, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    paths = [*files[:-1], str(bad)]
    for workers in (0, 1):
        clf = CXRClassifier(num_workers=workers, **QUICK)
        with pytest.raises(ImageReadError) as caught:
            clf.fit(paths, images[1])
        assert caught.value.path == str(bad)
    assert not hasattr(clf, "net_")


def test_pixels_of_another_unit_are_refused(images):
    pixels, y = images
    unit = pixels / 255.0
    clf = CXRClassifier(**QUICK).fit(pixels, y)
    clf.predict(unit)
    with pytest.raises(InputError, match="from 0 to 1"):
        clf.predict(pixels.astype(float))
    clf.fit(pixels.astype(float), y)
    assert clf.pixel_range_[1] == 250
    with pytest.raises(InputError, match="same unit"):
        clf.predict(unit)
    with pytest.raises(InputError, match="same unit"):
        clf.predict(pixels)


def test_rows_and_images_are_not_confused(images):
    pixels, y = images
    clf = CXRClassifier(**QUICK).fit(pixels, y)
    with pytest.raises(InputError, match="fitted on images"):
        clf.predict(pixels.reshape(24, -1))
    clf.fit(pixels.reshape(24, -1), y)
    assert clf.n_features_in_ == 400
    with pytest.raises(InputError, match="fitted on rows"):
        clf.predict(pixels)
    assert not hasattr(clf.fit(pixels, y), "n_features_in_")


# ------------------------------------------------------------------------------------------
# y, weights, patients
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [["b", "a"], [7, -3], [True, False], [2.0, 5.0]])
def test_labels_of_any_kind_come_back(labels, images):
    pixels, _ = images
    y = np.array(labels)[np.arange(24) % 2]
    clf = CXRClassifier(**QUICK).fit(pixels, y)
    assert_array_equal(clf.classes_, sorted(labels))
    assert clf.predict(pixels).dtype == y.dtype


def test_it_learns(images, more_images):
    pixels, y = images
    test, truth = more_images
    clf = CXRClassifier(random_state=0, max_epochs=60).fit(pixels, y)
    assert clf.score(test, truth) >= 0.95
    clf.set_params(backbone="cxrnet", augmentation=None, max_epochs=30, batch_size=8)
    assert clf.fit(pixels, y).score(test, truth) >= 0.95


def test_weight_two_is_the_row_twice_and_weight_zero_is_absence():
    X, y = load_iris(return_X_y=True)
    X, y = X[::3], y[::3]
    weight = np.arange(len(y)) % 3
    clf = CXRClassifier(random_state=0)
    for class_weight in (None, "balanced", {0: 1, 1: 3, 2: 0.5}):
        clf.set_params(class_weight=class_weight)
        weighted = clf.fit(X, y, sample_weight=weight).predict_proba(X)
        repeated = clf.fit(X.repeat(weight, 0), y.repeat(weight)).predict_proba(X)
        assert_allclose(weighted, repeated, rtol=1e-7)


def test_weights_of_one_are_no_weights(images):
    pixels, y = images
    clf = CXRClassifier(**STRONG)
    plain = clf.fit(pixels, y).predict_proba(pixels)
    assert_array_equal(
        clf.fit(pixels, y, sample_weight=np.full(24, 3.0)).predict_proba(pixels), plain
    )
    assert_array_equal(
        clf.set_params(class_weight={"h": 2, "v": 2}).fit(pixels, y).predict_proba(pixels), plain
    )


def test_class_weight_moves_probability_to_the_class(images):
    pixels, y = images
    clf = CXRClassifier(**QUICK)
    plain = clf.fit(pixels, y).predict_proba(pixels)[:, 0].mean()
    heavy = clf.set_params(class_weight={"h": 10, "v": 1}).fit(pixels, y).predict_proba(pixels)
    assert heavy[:, 0].mean() > plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": None}, "y to be passed"),
        ({"y": ["a"] * 24}, "one class"),
        ({"y": ["a", "b"]}, "inconsistent"),
        ({"y": [0.5, np.nan] * 12}, "NaN"),
        ({"y": np.linspace(0, 1, 24)}, "continuous"),
        ({"sample_weight": np.zeros(24)}, "zero"),
        ({"sample_weight": -np.ones(24)}, "[Nn]egative"),
        ({"sample_weight": np.ones(3)}, "sample_weight"),
        ({"groups": [1, 2]}, "groups"),
        ({"groups": [*range(23), np.nan]}, r"groups\[23\]"),
        ({"y": np.array(["a", None] * 12, dtype=object)}, r"y\[1\] is None"),
    ],
)
def test_targets_that_cannot_be_used_are_value_errors(arguments, message, images):
    pixels, y = images
    with pytest.raises(ValueError, match=message):
        CXRClassifier(**QUICK).fit(**{"X": pixels, "y": y, **arguments})


def test_early_stopping_keeps_patients_together(images, monkeypatch):
    pixels, y = images
    patients = np.arange(24) // 3
    seen = {}
    import skcxr.classifier as module

    split = module.early_stopping_split

    def spy(*args):
        seen["train"], seen["valid"] = split(*args)
        return seen["train"], seen["valid"]

    monkeypatch.setattr(module, "early_stopping_split", spy)
    clf = CXRClassifier(early_stopping=True, validation_fraction=0.25, **QUICK)
    clf.fit(pixels, y, groups=patients)
    assert not set(patients[seen["train"]]) & set(patients[seen["valid"]])
    assert_array_equal(np.sort(np.r_[seen["train"], seen["valid"]]), np.arange(24))
    assert 3 <= len(seen["valid"]) <= 9
    assert "valid_loss" in clf.history_[-1]


def test_early_stopping_warns_when_patients_are_unknown(images):
    pixels, y = images
    with pytest.warns(PatientWarning, match="24 of 24"):
        CXRClassifier(early_stopping=True, **QUICK).fit(pixels, y)


def test_early_stopping_reads_patients_from_file_names(tmp_path, images):
    from PIL import Image

    pixels, y = images
    paths = []
    for index, image in enumerate(pixels):
        paths.append(str(tmp_path / f"person{index // 2}_bacteria_{index}.png"))
        Image.fromarray(image).save(paths[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CXRClassifier(early_stopping=True, **QUICK).fit(paths, y)


def test_early_stopping_stops_and_takes_the_best_weights(images):
    pixels, _ = images
    noise = np.array(["a", "b"])[np.random.default_rng(0).integers(0, 2, 24)]
    clf = CXRClassifier(
        early_stopping=True, n_iter_no_change=3, max_epochs=80, validation_fraction=0.4,
        random_state=0,
    ).fit(pixels, noise, groups=np.arange(24))  # fmt: skip
    losses = clf.history_[:, "valid_loss"]
    assert clf.n_iter_ == len(losses) == np.argmin(losses) + 1 + 3 < 80


def test_a_split_that_loses_a_class_is_an_error(images):
    pixels, y = images
    clf = CXRClassifier(early_stopping=True, **QUICK)
    with pytest.raises(InputError, match="one patient"):
        clf.fit(pixels, y, groups=np.zeros(24))
    with pytest.raises(InputError, match="early_stopping"):
        clf.fit(pixels, y, groups=y)


# ------------------------------------------------------------------------------------------
# randomness, threads, memory
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [{"num_workers": 2}, {"ram_limit": 0}, {"ram_limit": 3000}])
def test_workers_and_memory_change_nothing(setting, files, images):
    clf = CXRClassifier(image_size=16, **STRONG)
    expected = clone(clf).fit(files, images[1]).predict_proba(files)
    assert_array_equal(
        clf.set_params(**setting).fit(files, images[1]).predict_proba(files), expected
    )


def test_jobs_change_nothing(files, images):
    clf = CXRClassifier(image_size=48, **STRONG)
    alone, pair = (
        cross_val_predict(clf, files, images[1], cv=2, method="predict_proba", n_jobs=n_jobs)
        for n_jobs in (1, 2)
    )
    assert_array_equal(alone, pair)


def test_fits_in_threads_do_not_disturb_each_other(images):
    pixels, y = images
    models = [("a", CXRClassifier(**STRONG)), ("b", CXRClassifier(**STRONG).set_params(lr=0.01))]
    alone = VotingClassifier(models, voting="soft").fit(pixels, y).predict_proba(pixels)
    with parallel_config("threading", n_jobs=2):
        together = VotingClassifier(models, voting="soft", n_jobs=2).fit(pixels, y)
    assert_array_equal(together.predict_proba(pixels), alone)


def test_threads_change_nothing(images):
    pixels, y = images
    X = np.kron(pixels, np.ones((3, 3), np.uint8))
    clf = CXRClassifier("cxrnet", max_epochs=2, batch_size=16, random_state=0)
    one = clf.fit(X, y).predict_proba(X)
    torch.set_num_threads(2)
    try:
        two = clf.fit(X, y).predict_proba(X)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert_array_equal(one, two)


def test_seeds(images):
    pixels, y = images
    clf = CXRClassifier(max_epochs=1)
    a, b, c = (
        clf.set_params(random_state=seed).fit(pixels, y).predict_proba(pixels) for seed in (0, 0, 1)
    )
    assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    first = clf.set_params(random_state=None).fit(pixels, y).predict_proba(pixels)
    assert not np.array_equal(first, clf.fit(pixels, y).predict_proba(pixels))


def test_pickle_and_copy_predict_the_same_and_hold_no_images(images):
    pixels, y = images
    X = np.kron(pixels, np.ones((3, 3), np.uint8))
    clf = CXRClassifier("cxrnet", early_stopping=True, **QUICK).fit(X, y, groups=np.arange(24))
    expected = clf.predict_proba(X)
    data = pickle.dumps(clf)
    assert_array_equal(pickle.loads(data).predict_proba(X), expected)
    assert_array_equal(copy.deepcopy(clf).predict_proba(X), expected)
    weights = sum(p.numel() * p.element_size() for p in clf.module_.state_dict().values())
    assert len(data) < 1.1 * weights


def test_an_interrupt_gets_out_and_keeps_the_last_fit(images):
    pixels, y = images

    def interrupt(image):
        raise KeyboardInterrupt

    clf = CXRClassifier(**QUICK).fit(pixels, y)
    expected = clf.predict_proba(pixels)
    with pytest.raises(KeyboardInterrupt):
        clf.set_params(augmentation=interrupt, verbose=1).fit(pixels, y)
    assert_array_equal(clf.predict_proba(pixels), expected)


# ------------------------------------------------------------------------------------------
# parameters
# ------------------------------------------------------------------------------------------


def test_auto_is_settled_by_the_kind_of_x(files, images):
    pixels, y = images
    clf = CXRClassifier(max_epochs=1, random_state=0)
    clf.fit(pixels, y)
    assert (clf.backbone_, clf.augmentation_, clf.dtype_) == ("smallnet", None, "float32")
    assert clf.image_size_ == (20, 20)
    assert clf.batch_size_ == 24
    clf.fit(files, y)
    assert (clf.backbone_, clf.augmentation_, clf.image_size_) == ("cxrnet", "cxr", (128, 128))
    clf.fit(pixels.reshape(24, -1).astype(float), y)
    assert (clf.backbone_, clf.dtype_) == ("smallnet", "float64")
    clf.fit(np.zeros((4, 40, 512), np.uint8), [0, 1, 0, 1])
    assert clf.image_size_ == (20, 256)


def test_network_arguments_are_searched(images):
    pixels, y = images
    grid = {"net__optimizer__betas": [(0.9, 0.9), (0.5, 0.5)], "lr": [0.1, 0.001]}
    search = GridSearchCV(CXRClassifier(**QUICK), grid, cv=2, error_score="raise").fit(pixels, y)
    assert set(search.best_params_) == set(grid)
    best = search.best_estimator_
    assert best.net_.optimizer_.param_groups[0]["betas"] == best.net_params["optimizer__betas"]


def test_net_params_are_shown_and_not_mutated(images):
    callbacks = [("acc", EpochScoring(lambda net, X, y: 1.0, name="one"))]
    clf = CXRClassifier(net_params={"callbacks": callbacks}, **QUICK)
    assert clf.get_params()["net__callbacks"] is callbacks
    assert "net__callbacks" not in clf.get_params(deep=False)
    before = copy.deepcopy(vars(callbacks[0][1]))
    clf.fit(*images)
    assert vars(callbacks[0][1]).keys() == before.keys()
    given = {"optimizer__betas": (0.8, 0.9)}
    clf = clone(CXRClassifier(net_params=given)).set_params(net__optimizer__eps=1e-3)
    assert given == {"optimizer__betas": (0.8, 0.9)}
    assert clf.net_params == {"optimizer__betas": (0.8, 0.9), "optimizer__eps": 1e-3}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"net__lr": 1}, "use lr="),
        ({"net__module": torch.nn.Linear}, "use backbone="),
        ({"net__iterator_train__batch_size": 3}, "use batch_size="),
        ({"net__optimzer__lr": 3}, "optimzer__lr"),
        ({"net__iterator_trainshuffle": 3}, "did you mean"),
        ({"backbone": "resnet"}, "cxrnet, smallnet"),
        ({"backbone": lambda num_classes: None}, "not a torch.nn.Module"),
        ({"row_shape": (3, 4)}, "row_shape"),
        ({"row_shape": (3,)}, "row_shape"),
        ({"image_size": 12}, "row_shape="),
        ({"device": "nonsense"}, "device"),
    ],
)
def test_parameters_that_cannot_be_used_are_named(params, message, images):
    pixels, y = images
    with pytest.raises(InputError, match=message):
        CXRClassifier(**QUICK).set_params(**params).fit(pixels.reshape(24, -1), y)


@pytest.mark.parametrize(
    "params",
    [
        {"max_epochs": 0}, {"batch_size": 2.5}, {"lr": 0}, {"validation_fraction": 1},
        {"lr_schedule": "linear"}, {"optimizer": "lion"}, {"class_weight": "even"},
        {"image_size": -3}, {"ram_limit": -1}, {"augmentation": "flip"}, {"dtype": "float16"},
        {"channel_axis": 2},
    ],
)  # fmt: skip
def test_wrong_values_are_scikit_learns_error(params, images):
    with pytest.raises(InvalidParameterError, match=next(iter(params))):
        CXRClassifier(**QUICK).set_params(**params).fit(*images)


def test_weights_that_do_not_exist_are_an_error(images):
    with pytest.raises(WeightsError, match="for 'cxrnet' there are 'cxr'"):
        CXRClassifier(weights="DEFAULT", **QUICK).fit(*images)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", torch.optim.RMSprop])
@pytest.mark.parametrize("lr_schedule", ["onecycle", "cosine", None])
def test_optimizers_and_schedules(optimizer, lr_schedule, images):
    clf = CXRClassifier(optimizer=optimizer, lr_schedule=lr_schedule, **QUICK).fit(*images)
    assert np.isfinite(clf.predict_proba(images[0])).all()


def test_backbone_may_be_a_factory(images):
    def factory(num_classes, hidden=3):
        return torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.LazyLinear(hidden), torch.nn.Linear(hidden, num_classes)
        )

    class Fixed(torch.nn.Sequential):
        def __init__(self, num_classes, hidden=3):
            super().__init__(
                torch.nn.Flatten(),
                torch.nn.Linear(400, hidden),
                torch.nn.Linear(hidden, num_classes),
            )

    pixels, y = images
    clf = CXRClassifier(Fixed, net_params={"module__hidden": 5}, **QUICK).fit(pixels, y)
    assert clf.module_[1].out_features == 5
    assert clf.predict_proba(pixels).shape == (24, 2)


def test_augmentation_by_hand_sees_each_training_image_alone(images):
    shapes = []

    def spy(image):
        shapes.append(tuple(image.shape))
        return image

    pixels, y = images
    clf = CXRClassifier(augmentation=spy, **QUICK).fit(pixels, y)
    assert shapes == [(1, 20, 20)] * 48
    clf.predict(pixels)
    assert len(shapes) == 48
    with pytest.raises(InputError, match="must keep the shape"):
        clf.set_params(augmentation=lambda image: image[:, 1:]).fit(pixels, y)


def test_a_loss_that_is_no_number_stops_the_fit(images):
    clf = CXRClassifier(**QUICK).fit(*images)
    expected = clf.predict_proba(images[0])
    with pytest.raises(TrainingError, match="learning rate"):
        clf.set_params(lr=1e30, lr_schedule=None, max_epochs=5).fit(*images)
    assert_array_equal(clf.predict_proba(images[0]), expected)


def falling_apart(image, calls):
    """Change images to what no network survives, from the 60th on."""
    calls[0] += 1
    return image * (float("inf") if calls[0] > 60 else 1)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_the_last_good_weights_of_a_fit_that_falls_apart_are_kept(early_stopping, images):
    params = {"lr_schedule": None, "random_state": 0, "early_stopping": early_stopping}
    groups = np.arange(24)
    n_train = 21 if early_stopping else 24
    calls = [60 - 2 * n_train - n_train // 2]  # in the middle of the third epoch
    policy = partial(falling_apart, calls=calls)
    clf = CXRClassifier(augmentation=policy, max_epochs=5, batch_size=7, **params)
    with pytest.raises(
        TrainingError, match=r"nan in epoch 3, after batch .*weights of epoch 2 are"
    ):
        clf.fit(*images, groups=groups)
    params["augmentation"] = partial(falling_apart, calls=[-999])
    whole = CXRClassifier(max_epochs=2, batch_size=7, **params).fit(*images, groups=groups)
    if not early_stopping:  # which would have gone back to its best epoch
        assert_array_equal(clf.predict_proba(images[0]), whole.predict_proba(images[0]))
    assert clf.n_iter_ == 2
    assert len(clf.history_) == 2
    pickle.loads(pickle.dumps(clf)).predict(images[0])


def test_partial_fit_that_falls_apart_is_what_it_was_and_goes_on(images):
    pixels, y = images
    clf = CXRClassifier("cxrnet", random_state=0)
    clf.partial_fit(pixels, y, classes=["h", "v"])
    before = clf.predict_proba(pixels)
    with pytest.raises(TrainingError, match=r"epoch 2, .*epoch 1 are kept"):
        clf.set_params(lr=1e30).partial_fit(pixels, y)
    clf.set_params(lr="auto")
    assert_array_equal(clf.predict_proba(pixels), before)
    clf.partial_fit(pixels, y)
    assert np.isfinite(clf.predict_proba(pixels)).all()


@pytest.mark.parametrize("lr", [1e6, 1e15, 1e30])
@pytest.mark.parametrize("max_epochs", [1, 3])
def test_a_huge_learning_rate_gives_numbers_or_an_error(lr, max_epochs, images):
    clf = CXRClassifier("cxrnet", lr=lr, lr_schedule=None, max_epochs=max_epochs, random_state=0)
    try:
        clf.fit(*images)
    except TrainingError:
        assert not hasattr(clf, "net_") or clf.n_iter_ < max_epochs
    if hasattr(clf, "net_"):
        assert np.isfinite(clf.predict_proba(images[0])).all()


def test_images_of_large_values_are_named_as_a_cause(images):
    pixels = images[0].astype(np.float32) * 255
    clf = CXRClassifier("cxrnet", lr=1e30, lr_schedule=None, max_epochs=3, random_state=0)
    with pytest.raises(TrainingError, match=r"images run from .*, bring them .*learning rate"):
        clf.fit(pixels, images[1])


def test_a_fit_that_fails_leaves_the_last_one_whole(images):
    X, y = load_iris(return_X_y=True)
    clf = CXRClassifier(**QUICK).fit(X, y)
    for wrong in (X[:, :3], images[0]):
        with pytest.raises(InputError):
            clf.fit(wrong, y[:5])
        assert clf.n_features_in_ == 4
        clf.predict(X)


@pytest.mark.parametrize("class_weight", [{"h": -1, "v": 1}, {"h": np.inf, "v": 1}])
def test_class_weights_are_not_negative(class_weight, images):
    with pytest.raises(InputError, match="class_weight"):
        CXRClassifier(class_weight=class_weight, **QUICK).fit(*images)


def test_a_last_batch_of_one_is_not_trained_alone(images):
    pixels, y = images
    X = np.kron(pixels[:17], np.ones((2, 2), np.uint8))
    clf = CXRClassifier("cxrnet", max_epochs=1, batch_size=16, random_state=0).fit(X, y[:17])
    assert [b["train_batch_count"] for b in clf.history_] == [1]


# ------------------------------------------------------------------------------------------
# scikit-learn's other doors
# ------------------------------------------------------------------------------------------


def test_unfitted():
    clf = CXRClassifier()
    for ask in (clf.predict, clf.predict_proba, clf.predict_log_proba, clf.decision_function):
        with pytest.raises(NotFittedError):
            ask([[1.0]])
    assert not hasattr(clf, "module_")
    assert not hasattr(clf, "history_")


def test_decision_log_and_probability_agree(images):
    pixels, y = images
    clf = CXRClassifier(**QUICK).fit(pixels, y)
    proba = clf.predict_proba(pixels)
    assert_allclose(proba.sum(1), 1, rtol=1e-12)
    assert_allclose(np.exp(clf.predict_log_proba(pixels)), proba)
    assert_allclose(1 / (1 + np.exp(-clf.decision_function(pixels))), proba[:, 1])


def test_warm_start_goes_on(images):
    pixels, y = images
    clf = CXRClassifier(warm_start=True, max_epochs=20, random_state=0).fit(pixels, y)
    before = clf.history_[-1]["train_loss"]
    assert clf.set_params(max_epochs=1).fit(pixels, y).history_[0]["train_loss"] < before * 1.5
    with pytest.raises(InputError, match="classes"):
        clf.fit(pixels, np.where(y == "h", "h", "w"))
    with pytest.raises(InputError, match="do not fit"):
        clf.fit(pixels[:, :5], y)


def test_partial_fit_learns_and_knows_its_classes(images):
    pixels, y = images
    clf = CXRClassifier(random_state=0)
    with pytest.raises(InputError, match="classes"):
        clf.partial_fit(pixels, y)
    for _ in range(30):
        clf.partial_fit(pixels[:12], y[:12], classes=["h", "v"]).partial_fit(pixels[12:], y[12:])
    assert clf.n_iter_ == 60
    assert clf.score(pixels, y) == 1
    with pytest.raises(InputError, match="not in classes"):
        clf.partial_fit(pixels, ["x"] * 24)
    n_epochs = clf.fit(pixels, y).n_iter_
    clf.set_params(lr=0.5).partial_fit(pixels, y)
    assert clf.n_iter_ == n_epochs + 1
    assert clf.net_.optimizer_.param_groups[0]["lr"] == 0.5
    with pytest.raises(InputError, match="balanced"):
        clf.set_params(class_weight="balanced").partial_fit(pixels, y)


def test_cross_validation_by_patient_with_and_without_routing(images):
    pixels, y = images
    patients = np.arange(24) // 2
    clf = CXRClassifier(early_stopping=True, validation_fraction=0.3, **QUICK)
    cv = StratifiedGroupKFold(2)
    with pytest.warns(PatientWarning):
        cross_val_score(clf, pixels, y, groups=patients, cv=cv)
    with sklearn.config_context(enable_metadata_routing=True):
        scores = cross_val_score(
            clf, pixels, y, params={"groups": patients}, cv=cv, error_score="raise"
        )
        GridSearchCV(clf, {"lr": [0.01, 0.1]}, cv=GroupKFold(2), error_score="raise").fit(
            pixels, y, groups=patients
        )
        weighted = CXRClassifier(**QUICK).set_fit_request(sample_weight=True)
        weighted.set_score_request(sample_weight=True)
        cross_val_score(weighted, pixels, y, params={"sample_weight": np.ones(24)}, cv=2)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("kind", ["list of str", "Series", "DataFrame", "3-D"])
def test_ensembles_take_images(kind, files, images):
    pixels, y = images
    X = as_kind(kind, files, pixels)
    clf = CXRClassifier(image_size=16, **QUICK)
    members = [("a", clf), ("b", clone(clf).set_params(random_state=1))]
    for ensemble in (
        VotingClassifier(members, voting="soft"),
        StackingClassifier(members, cv=2),
        CalibratedClassifierCV(clf, cv=2),
    ):
        assert ensemble.fit(X, y).predict_proba(X).shape == (24, 2)


def test_stacking_with_a_classical_pipeline_on_the_same_paths(files, images):
    y = images[1]
    rows = make_pipeline(ImageLoader(image_size=8, output="rows"), LogisticRegression())
    members = [("cnn", CXRClassifier(image_size=16, **QUICK)), ("linear", rows)]
    stack = StackingClassifier(members, LogisticRegression(), cv=2).fit(files, y)
    assert stack.predict(files).shape == (24,)


def test_verbose_shows_progress_on_standard_error(images, capsys):
    CXRClassifier(verbose=1, **QUICK).fit(*images)
    out, err = capsys.readouterr()
    assert "2/2" in err
    assert "epochs" in err
    assert not out


@pytest.mark.slow
def test_defaults_on_real_radiographs(shared_data):
    """A quarter of a real set, fitted for a tenth of the time, is far above chance."""
    table = pd.read_csv(shared_data / "covid4.csv")
    paths = np.array([str(shared_data / "covid4" / path) for path in table["path"]])
    y, patients = table["finding"].to_numpy(str), table["patient"].to_numpy(str)
    train, test = next(
        StratifiedGroupKFold(4, shuffle=True, random_state=0).split(paths, y, patients)
    )
    clf = CXRClassifier(random_state=0, max_epochs=8).fit(paths[train], y[train])
    assert clf.score(paths[test], y[test]) > 0.5
    pixels = np.stack([read_image(path, size=128) for path in paths[test][:8]])
    assert_array_equal(clf.predict_proba(pixels), clf.predict_proba(paths[test][:8]))
