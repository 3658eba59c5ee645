"""ImageLoader."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils._param_validation import InvalidParameterError

from skcxr import ImageLoader, ImageReadError, InputError, read_image


@pytest.mark.parametrize("n_jobs", [None, 2, -1])
@pytest.mark.parametrize("resize_mode", ["stretch", "pad", "crop"])
def test_images_are_those_of_read_image(n_jobs, resize_mode, files):
    loader = ImageLoader((12, 9), resize_mode=resize_mode, n_jobs=n_jobs)
    images = loader.fit_transform(files)
    assert images.shape == (24, 12, 9)
    assert images.dtype == np.float32
    for path, image in zip(files, images, strict=True):
        assert_array_equal(image, read_image(path, size=(12, 9), resize_mode=resize_mode))


def test_rows_are_the_images_flat_with_names(files):
    loader = ImageLoader(5, output="rows")
    rows = loader.transform(files)
    assert_array_equal(rows.reshape(24, 5, 5), ImageLoader(5).transform(files))
    names = loader.get_feature_names_out()
    assert (names[0], names[-1], len(names)) == ("pixel_0_0", "pixel_4_4", 25)
    frame = (
        clone(loader)
        .set_output(transform="pandas")
        .fit_transform(pd.Series(files, index=range(3, 27)))
    )
    assert list(frame.columns) == list(names)
    assert_array_equal(frame, rows)


def test_images_have_no_feature_names(files):
    loader = ImageLoader(5)
    assert not hasattr(loader, "get_feature_names_out")
    with pytest.raises(AttributeError):
        loader.set_output(transform="pandas")


def test_rows_feed_any_estimator(files, images):
    model = make_pipeline(ImageLoader(10, output="rows"), RandomForestClassifier(random_state=0))
    assert model.fit(files, images[1]).score(files, images[1]) == 1


def test_errors_name_what_is_wrong(files, tmp_path):
    with pytest.raises(InputError, match="must be a list"):
        ImageLoader().transform(np.zeros((3, 4)))
    with pytest.raises(InputError, match="0 sample"):
        ImageLoader().transform([])
    with pytest.raises(ImageReadError, match=r"gone.png"):
        ImageLoader(n_jobs=2).transform([*files, str(tmp_path / "gone.png")])
    for wrong in (
        {"image_size": 0},
        {"output": "flat"},
        {"resize_mode": "squash"},
        {"n_jobs": 1.5},
    ):
        with pytest.raises(InvalidParameterError):
            ImageLoader(**wrong).fit(files)
    with pytest.raises(InputError):
        ImageLoader((3, 4, 5)).fit(files)
