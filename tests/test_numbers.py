"""Odd numbers: what every estimator does about pixels and labels that are not as they should be.

Either all that comes out is finite, or an error of skcxr's own says what was found.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from skcxr import (
    CXRClassifier,
    CXRFeatures,
    ImageLoader,
    ImageReadError,
    ImageReadWarning,
    InputError,
    SkcxrError,
    make_cxr_phantoms,
)
from skcxr.augmentation import CXRAugmentation
from skcxr.metrics import classification_report_ci
from skcxr.outliers import OutlierGate

N = 12
PIXELS = np.random.default_rng(0).random((N, 16, 16)).astype(np.float32)
ROWS = PIXELS.reshape(N, -1)
LABELS = np.array(["a", "b"] * (N // 2))


def classifier(**parameters):
    return CXRClassifier(
        **{"backbone": "smallnet", "max_epochs": 2, "random_state": 0, **parameters}
    )


def features(**parameters):
    return CXRFeatures("smallnet", weights=None, random_state=0, **parameters)


def gate():
    return OutlierGate(n_synthetic=100, random_state=0)


@pytest.fixture(scope="module")
def fitted():
    """Estimators that know ordinary images, and what they predict by."""
    films = make_cxr_phantoms(16, image_size=32, random_state=0).data
    return [
        classifier().fit(PIXELS, LABELS).predict_proba,
        features().fit(PIXELS).transform,
        gate().fit(films).score_samples,
    ]


def but(image, value, of=PIXELS):
    changed = of.copy()
    changed[image] = value
    return changed


# --------------------------------------------------------------------------------------------
# pixels
# --------------------------------------------------------------------------------------------

INTEGERS = {
    "int8": (PIXELS * 100).astype(np.int8),
    "int16 as of CT": np.linspace(-1000, 3000, PIXELS.size).reshape(PIXELS.shape).astype(np.int16),
    "int32": (PIXELS * 200).astype(np.int32),
    "int64": (PIXELS * 200).astype(np.int64),
    "uint32": (PIXELS * 200).astype(np.uint32),
    "uint64": (PIXELS * 200).astype(np.uint64),
}
# what X is, and what the error of every estimator says
REFUSED = {
    "a pixel of NaN": (but((3, 2, 2), np.nan), "NaN or infinity in image 3"),
    "an image of NaN": (but(3, np.nan), "NaN or infinity in image 3"),
    "infinity": (but((5, 2, 2), np.inf), "NaN or infinity in image 5"),
    "minus infinity": (but((5, 2, 2), -np.inf), "NaN or infinity in image 5"),
    "NaN in float16": (but((3, 2, 2), np.nan, PIXELS.astype(np.float16)), "in image 3"),
    "nearly too large": (but((4, 0, 0), -2e38), r"as large as 2e\+38 in image 4"),
    "more than float32 holds": (but(0, 1e300, PIXELS.astype(float)), r"as large as 1e\+300"),
    **{
        name: (X, f"{X.dtype} with values from {X.min()} to {X.max()}.*scale them")
        for name, X in INTEGERS.items()
    },
    "complex": (PIXELS.astype(complex), "type complex128"),
    "objects": (PIXELS.astype(object), "type object"),
    "text": (PIXELS.astype(str), "type <U"),
    "dates": (PIXELS.astype("datetime64[s]"), "type datetime64"),
    "an empty list": ([], r"0 sample\(s\)"),
    "no images": (PIXELS[:0], r"0 sample\(s\)"),
    "images without rows": (PIXELS[:, :0], "images without pixels"),
    "no rows of a table": (ROWS[:0], r"0 sample\(s\)"),
    "a number": (3.0, "X is float"),
    "an array of no dimension": (np.float64(3), "2D array, got scalar"),
    "one dimension": (np.zeros(N), "2D array, got 1D"),
    "five dimensions": (np.zeros((N, 1, 1, 4, 4)), "dim 5"),
    "seven channels": (np.zeros((N, 7, 4, 4)), "no axis can be the channels"),
    "one RGB image": (np.zeros((4, 5, 3)), r"pass X\[None\]"),
    "a list of different sizes": ([*PIXELS[1:], PIXELS[0, 1:]], r"X\[11\] has shape \(15, 16\)"),
    "a list of None": ([None] * N, "2D array, got 1D"),
    "None": (None, "X is NoneType"),
    "text itself": ("film.png", "pass a list"),
    "a dict": ({"a": 1}, "X is dict"),
    "a generator": ((image for image in PIXELS), "X is generator"),
    "a path and a number": (["film.png", 3], r"X\[1\] is 3"),
}
OF_ROWS = {
    "NaN in rows": (but((3, 2), np.nan, ROWS), "contains NaN"),
    "infinity in rows": (but((3, 2), np.inf, ROWS), "contains infinity"),
    "more than float32 holds, in rows": (ROWS.astype(float) * 1e300, "too large for float32"),
    "text in rows": (ROWS.astype(str), "strings"),
    "complex rows": (ROWS.astype(complex), "Complex data"),
}


@pytest.mark.parametrize("name", [*REFUSED, *OF_ROWS])
def test_fits_refuse_what_means_nothing(name):
    X, message = {**REFUSED, **OF_ROWS}[name]
    for fit in (lambda X: classifier().fit(X, LABELS), features().fit, gate().fit):
        with pytest.raises(InputError, match=message):
            fit(X)


@pytest.mark.parametrize("name", REFUSED)
def test_predictions_refuse_what_means_nothing(name, fitted):
    X, message = REFUSED[name]
    for predict in fitted:
        with pytest.raises(InputError, match=message):
            predict(X)


@pytest.mark.parametrize("name", OF_ROWS)
def test_predictions_refuse_rows_that_mean_nothing(name):
    X, message = OF_ROWS[name]
    for predict in (classifier().fit(ROWS, LABELS).predict, features().fit(ROWS).transform):
        with pytest.raises(InputError, match=message):
            predict(X)


# what X is; the second is whether all images are of one gray value
TAKEN = {
    "black": (np.zeros((N, 16, 16), np.float32), True),
    "black uint8": (np.zeros((N, 16, 16), np.uint8), True),
    "black RGB": (np.zeros((N, 16, 16, 3), np.uint8), True),
    "white": (np.full((N, 16, 16), 255, np.uint8), True),
    "gray": (np.full((N, 16, 16), 0.5), True),
    "black rows": (np.zeros((N, 256)), True),
    "rows of 7": (np.full((N, 256), 7.0), True),
    "some black": (but(slice(0, 6), 0), False),
    "negative": (PIXELS - 0.5, False),
    "floats to 255": (PIXELS * 255, False),
    "floats of CT": (PIXELS * 4000 - 1000, False),
    "large": (PIXELS * 1e6, False),
    "tiny": (PIXELS * 1e-30, False),
    "denormal": ((PIXELS.astype(float) * 1e-44).astype(np.float32), False),
    "uint16": ((PIXELS * 60000).astype(np.uint16), False),
    "big-endian": ((PIXELS * 60000).astype(">u2"), False),
    "bool": (PIXELS > 0.5, False),
    "float16": (PIXELS.astype(np.float16), False),
    "float64": (PIXELS.astype(np.float64), False),
    "longdouble": (PIXELS.astype(np.longdouble), False),
    "a list of arrays": (list(PIXELS), False),
    "one pixel": (PIXELS[:, :1, :1], True),
    "one row of pixels": (np.random.default_rng(0).random((N, 1, 3000)), False),
    "one column of pixels": (np.random.default_rng(0).random((N, 3000, 1)), False),
    "rows of int16": (np.round(ROWS * 4000 - 1000).astype(np.int16), False),
    "rows of bool": (ROWS > 0.5, False),
    "backwards": (PIXELS[::-1, ::-1, ::-1], False),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken_gives_finite_numbers(name):
    X, blank = TAKEN[name]
    clf = classifier().fit(X, LABELS)
    proba = clf.predict_proba(X)
    assert_allclose(proba.sum(axis=1), 1)
    assert np.isfinite(clf.history_[:, "train_loss"]).all()
    assert_allclose(clf.predict_proba(X[:1]), proba[:1], rtol=1e-5)
    embedder = features().fit(X)
    assert np.isfinite(embedder.transform(X)).all()
    if blank:
        with pytest.raises(InputError, match="blank"):
            gate().fit(X)
    else:
        assert np.isfinite(gate().fit(X).score_samples(X)).all()


def test_the_other_network_on_black_images():
    clf = CXRClassifier("cxrnet", max_epochs=1, random_state=0)
    black = np.zeros((N, 40, 40), np.uint8)
    assert np.isfinite(clf.fit(black, LABELS).predict_proba(black)).all()


def test_blank_images_are_outliers(fitted):
    for value in (0, 0.5, 1):
        assert np.isfinite(fitted[2](np.full((2, 16, 16), float(value)))).all()


@pytest.mark.parametrize("X", [PIXELS * 255, PIXELS * 4000 - 1000], ids=["to 255", "CT"])
def test_another_unit_than_that_of_the_fit_is_an_error_with_both_ranges(X, fitted):
    for predict in fitted[:2]:
        with pytest.raises(InputError, match=r"pixels from .* to .* fitted on pixels from"):
            predict(X)


# --------------------------------------------------------------------------------------------
# files
# --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_all_sizes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    paths = []
    for k, (height, width) in enumerate([(1, 1), (1, 5000), (5000, 1), (3000, 4000), (2, 3)] * 2):
        paths.append(str(folder / f"{k}.png"))
        Image.fromarray(np.full((height, width), 20 * k, np.uint8)).save(paths[-1])
    return paths


@pytest.mark.parametrize("resize_mode", ["stretch", "pad", "crop"])
def test_files_of_wildly_different_sizes_in_one_list(resize_mode, of_all_sizes):
    images = ImageLoader(16, resize_mode=resize_mode).transform(of_all_sizes)
    assert_array_equal(images.max(axis=(1, 2)), np.float32(20 * np.arange(10)) / np.float32(255))


def test_a_fit_on_files_of_wildly_different_sizes(of_all_sizes):
    for estimator in (classifier(image_size=16), CXRClassifier("cxrnet", max_epochs=1)):
        proba = estimator.fit(of_all_sizes, LABELS[:10]).predict_proba(of_all_sizes)
        assert_allclose(proba.sum(axis=1), 1)
    assert np.isfinite(features(image_size=16).fit_transform(of_all_sizes)).all()


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (PIXELS, InputError, "reads files"),
        (ROWS, InputError, "reads files"),
        ([], InputError, r"0 sample\(s\)"),
        ([1, 2], InputError, "reads files"),
        ([None], InputError, "reads files"),
        (None, InputError, "reads files"),
        (["film.png", 3], InputError, r"X\[1\] is 3"),
        ("film.png", InputError, "pass a list"),
        ([""], ImageReadError, "no such file"),
        (["a\0b"], ImageReadError, "NUL"),
        (["/"], ImageReadError, "directory"),
    ],
)
def test_what_the_loader_refuses(X, error, message):
    with pytest.raises(error, match=message):
        ImageLoader(8).transform(X)


def test_float_files_out_of_range_are_named(tmp_path):
    for name, pixels in {"high": PIXELS[0] * 255, "nan": but(0, np.nan)[0]}.items():
        path = tmp_path / f"{name}.tiff"
        Image.fromarray(pixels).save(path)
        with pytest.raises(ImageReadError, match=name):
            ImageLoader(8).transform([path])
        with pytest.warns(ImageReadWarning):
            assert np.isnan(ImageLoader(8, on_error="nan").transform([path])).all()


# --------------------------------------------------------------------------------------------
# labels, weights, patients
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a"] * N, "only one class, 'a'"),
        ([], "12 images but y has 0"),
        (LABELS[:2], "12 images but y has 2"),
        (None, "y is None"),
        (3, "1d array"),
        ("ab" * 6, "1d array"),
        ([np.nan, *[1.0] * 11], "y contains NaN"),
        ([None, *["a"] * 11], r"y\[0\] is None"),
        (np.linspace(0, 1, N), "Unknown label type"),
        ([{}] * N, "Unknown label type"),
        ([1j, 2j] * 6, "Complex"),
        ([b"a", b"b"] * 6, "bytes"),
        (np.zeros((N, 2, 2)), "dim 3"),
        (np.full((N, 2), 2), r"y\[0, 0\] is 2"),
        (np.full((N, 2), np.nan), "nothing is labelled"),
        (np.stack([np.full(N, np.nan), np.ones(N)], 1), "finding 0 is labelled in no image"),
        ([["a"], ["b", "c"]] * 6, "no array of labels"),
    ],
)
def test_labels_that_nothing_can_be_learnt_from(y, message):
    with pytest.raises(InputError, match=message):
        classifier().fit(PIXELS, y)


@pytest.mark.parametrize(
    "y",
    [
        ["a"] * 11 + ["b"],
        [True, False] * 6,
        np.array(["2020-01-01", "2021-01-01"] * 6, dtype="datetime64[D]"),
        list("abcdefghijkl"),
        [-1, 2**60] * 6,
    ],
    ids=["a class with one member", "bool", "dates", "all different", "large integers"],
)
def test_labels_of_any_kind_come_back(y):
    clf = classifier().fit(PIXELS, y)
    assert_allclose(clf.predict_proba(PIXELS).sum(axis=1), 1)
    assert np.isin(clf.predict(PIXELS), y).all()


def test_a_class_with_one_member_and_early_stopping():
    y = ["a"] * 11 + ["b"]
    clf = classifier(early_stopping=True).fit(PIXELS, y, groups=range(N))
    assert clf.classes_.tolist() == ["a", "b"]
    with pytest.raises(InputError, match="differ in their labels"):
        classifier(early_stopping=True).fit(PIXELS[:2], ["a", "b"], groups=[0, 1])


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("sample_weight", [-1] * N, "Negative"),
        ("sample_weight", [0] * N, "non-zero"),
        ("sample_weight", [np.nan] * N, "NaN"),
        ("sample_weight", [np.inf] * N, "infinity"),
        ("sample_weight", [1], r"\(1,\)"),
        ("sample_weight", np.ones((N, 2)), "1D"),
        ("sample_weight", ["a"] * N, "convert"),
        ("sample_weight", [1, 0] * 6, "only one class"),
        ("groups", [1], "has 1 entries"),
        ("groups", [1] * N, "one patient"),
        ("groups", [np.nan] * N, "NaN"),
        ("groups", np.ones((N, 2)), "1d array"),
        ("groups", [{}, 1] * 6, "cannot be told apart"),
    ],
)
def test_weights_and_patients_that_mean_nothing(argument, value, message):
    with pytest.raises(InputError, match=message):
        classifier(early_stopping=True).fit(PIXELS, LABELS, **{argument: value})


@pytest.mark.parametrize("weight", [1e-300, 1e300])
def test_the_size_of_weights_does_not_matter(weight):
    plain = classifier().fit(PIXELS, LABELS).predict_proba(PIXELS)
    weighed = classifier().fit(PIXELS, LABELS, sample_weight=[weight] * N).predict_proba(PIXELS)
    assert_allclose(weighed, plain, rtol=1e-5)


def test_labels_that_were_never_seen():
    clf = classifier().fit(PIXELS, LABELS)
    assert clf.score(PIXELS, ["z"] * N) == 0
    with pytest.raises(InputError, match="not in classes: \\['z'\\]"):
        clf.partial_fit(PIXELS, ["z"] * N)
    with pytest.raises(InputError, match="goes on with the classes"):
        clf.set_params(warm_start=True).fit(PIXELS, ["a", "z"] * 6)
    assert clf.classes_.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("y", "proba", "message"),
    [
        (["z"] * 4, np.full((4, 2), 0.5), "2 columns, but y_true holds 1 classes"),
        ([], np.zeros((0, 2)), "no cases"),
        (list("abab"), np.full((4, 2), np.nan), "NaN in 4 of 4 rows"),
        (list("abab"), np.full((4, 2), np.inf), "is inf"),
        (list("abab"), np.full((4, 2), 255.0), "0 to 1"),
        (list("ab"), np.full((4, 2), 0.5), "4 entries"),
    ],
)
def test_scores_that_do_not_fit_to_labels(y, proba, message):
    with pytest.raises(InputError, match=message):
        classification_report_ci(y, proba, n_resamples=100, random_state=0)


def test_one_image():
    with pytest.raises(InputError, match="only one class"):
        classifier().fit(PIXELS[:1], ["a"])
    for network in ("smallnet", "cxrnet"):
        clf = CXRClassifier(network, max_epochs=1, random_state=0).fit(PIXELS[:2], ["a", "b"])
        assert clf.predict_proba(PIXELS[:1]).shape == (1, 2)
        assert clf.partial_fit(PIXELS[:2], ["a", "a"]).predict(PIXELS[0][None]).shape == (1,)
    assert features().fit_transform(PIXELS[:1]).shape == (1, 64)
    with pytest.raises(InputError, match="8 or more"):
        gate().fit(PIXELS[:7])


# --------------------------------------------------------------------------------------------
# augmentation
# --------------------------------------------------------------------------------------------

ALL_ON = CXRAugmentation(contrast=0.2, noise=0.1, aspect=0.1, cutout=0.3)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 1, 8, 8),
        torch.ones(3, 1, 8, 8, dtype=torch.float64),
        torch.full((3, 1, 8, 8), -1000.0),
        torch.full((3, 1, 8, 8), 1e18),
        torch.zeros(3, 1, 1, 1),
        torch.zeros(3, 1, 1, 300),
        torch.zeros(3, 1, 300, 1),
        torch.zeros(1, 8, 8),
        torch.zeros(3, 1, 8, 8, dtype=torch.float16),
    ],
)
def test_augmentation_keeps_finite_what_is(images):
    with torch.random.fork_rng(devices=[]):
        changed = ALL_ON(images)
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    assert changed.isfinite().all()


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 1, 8, 8, dtype=torch.int16),
        torch.zeros(0, 1, 8, 8),
        torch.zeros(2, 1, 0, 8),
        torch.zeros(8, 8),
        torch.zeros(1, 1, 1, 8, 8),
        np.zeros((2, 1, 8, 8)),
        None,
    ],
)
def test_augmentation_refuses_what_is_no_batch(images):
    with pytest.raises(InputError, match="CXRAugmentation changes a float tensor"):
        ALL_ON(images)


# --------------------------------------------------------------------------------------------


def test_nothing_but_our_own_errors_and_no_warning_on_the_way():
    """What is refused is refused quietly: no RuntimeWarning of numpy's before it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for X, _ in REFUSED.values():
            with pytest.raises(SkcxrError):
                classifier().fit(X, LABELS)
