"""Files that cannot be read, among many that can."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.pipeline import make_pipeline

from skcxr import CXRClassifier, ImageLoader, ImageReadError, ImageReadWarning, InputError


@pytest.fixture
def some_bad(files, tmp_path):
    """Six files of which the second and the last cannot be read."""
    text = tmp_path / "text.png"
    text.write_text("no image")
    return [files[0], str(text), *files[1:4], str(tmp_path / "gone.png")]


GOOD, BAD = [0, 2, 3, 4], [1, 5]


@pytest.fixture(scope="module")
def clf(files, images):
    return CXRClassifier("smallnet", image_size=16, max_epochs=2, random_state=0).fit(
        files, images[1]
    )


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_loader_gives_nan_and_one_warning(n_jobs, some_bad, files):
    loader = ImageLoader(9, on_error="nan", n_jobs=n_jobs)
    with pytest.warns(ImageReadWarning) as caught:
        images = loader.transform(some_bad)
    assert len(caught) == 1
    warning = caught[0].message
    assert [failure.position for failure in warning.failures] == BAD
    assert [failure.path for failure in warning.failures] == [some_bad[1], some_bad[5]]
    assert "no such file" in warning.failures[1].reason
    assert pickle.loads(pickle.dumps(warning)).failures == warning.failures
    assert np.isnan(images[BAD]).all()
    assert_array_equal(images[GOOD], ImageLoader(9).transform(files[:4]))


def test_the_default_raises(some_bad, clf):
    with pytest.raises(ImageReadError, match=r"text\.png"):
        ImageLoader(9).transform(some_bad)
    with pytest.raises(ImageReadError, match=r"text\.png"):
        clf.predict(some_bad)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_classifier_predicts_the_others_as_if_alone(num_workers, some_bad, files, images):
    clf = CXRClassifier(
        "smallnet", image_size=16, max_epochs=1, random_state=0, num_workers=num_workers,
        on_error="nan",
    ).fit(files, images[1])  # fmt: skip
    with pytest.warns(ImageReadWarning) as caught:
        proba = clf.predict_proba(some_bad)
    assert len(caught) == 1
    assert [failure.position for failure in caught[0].message.failures] == BAD
    assert np.isnan(proba[BAD]).all()
    assert_array_equal(proba[GOOD], clf.set_params(on_error="raise").predict_proba(files[:4]))


def test_predicted_labels_are_nan_and_none_is_invented(some_bad, files, images, clf):
    text = pickle.loads(pickle.dumps(clf)).set_params(on_error="nan")
    numbers = CXRClassifier("smallnet", image_size=16, max_epochs=1, on_error="nan").fit(
        files, (images[1] == "v").astype(int)
    )
    findings = CXRClassifier("smallnet", image_size=16, max_epochs=1, on_error="nan").fit(
        files, np.stack([images[1] == "v", images[1] == "h"], axis=1)
    )
    for model, dtype in ((text, object), (numbers, np.float64), (findings, np.float64)):
        with pytest.warns(ImageReadWarning):
            labels = model.predict(some_bad)
        assert labels.dtype == dtype
        assert all(np.isnan(np.asarray(label, dtype=float)).all() for label in labels[BAD])
        assert set(np.ravel(labels[GOOD])) <= set(np.ravel(model.predict(files)))
        assert model.predict(files).dtype != object


def test_a_batch_without_a_readable_file(tmp_path, clf):
    clf = pickle.loads(pickle.dumps(clf)).set_params(on_error="nan")
    with pytest.warns(ImageReadWarning, match="2 of 2"):
        assert np.isnan(clf.predict_proba([tmp_path / "a.png", tmp_path / "b.png"])).all()


def test_nothing_is_said_where_nothing_is_wrong(files, clf):
    clf = pickle.loads(pickle.dumps(clf)).set_params(on_error="nan")
    before = clf.predict_proba(files)
    assert_array_equal(before, clf.set_params(on_error="raise").predict_proba(files))


@pytest.mark.parametrize("size", [16, 24])
def test_a_pipeline_warns_once_and_passes_nan_on(size, some_bad, files, images):
    pipeline = make_pipeline(
        ImageLoader(size, on_error="nan"),
        CXRClassifier("smallnet", image_size=16, max_epochs=1, random_state=0, on_error="nan"),
    ).fit(files, images[1])
    with pytest.warns(ImageReadWarning) as caught:
        proba = pipeline.predict_proba(some_bad)
    assert len(caught) == 1
    assert np.isnan(proba[BAD]).all()
    assert_array_equal(proba[GOOD], pipeline.predict_proba(files[:4]))


def test_fit_never_takes_what_cannot_be_read(some_bad, files, images, clf):
    clf = pickle.loads(pickle.dumps(clf)).set_params(on_error="nan")
    with pytest.raises(ImageReadError):
        clf.fit(some_bad, images[1][:6])
    with pytest.warns(ImageReadWarning), pytest.raises(InputError, match="NaN"):
        make_pipeline(ImageLoader(16, on_error="nan"), clf).fit(some_bad, images[1][:6])


def test_a_single_nan_pixel_is_still_an_error(clf):
    clf = pickle.loads(pickle.dumps(clf)).set_params(on_error="nan")
    pixels = np.zeros((2, 16, 16), np.float32)
    pixels[1, 3, 3] = np.nan
    with pytest.raises(InputError, match="image 1"):
        clf.predict(pixels)
