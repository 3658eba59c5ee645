"""Whatever is given instead of X, y and parameters: our own exceptions and no others come out."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from skcxr import (
    CXRClassifier,
    ImageLoader,
    SkcxrError,
    load_cxr_folder,
    load_cxr_table,
    read_image,
)
from skcxr.metrics import (
    classification_report_ci,
    compare_models_ci,
    expected_calibration_error,
    operating_points,
    predictive_values,
    target_sensitivity,
)

pytest.importorskip("hypothesis")
sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

import strategies
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

ALLOWED = (SkcxrError, InvalidParameterError, NotFittedError)
KEPT = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}
few = settings(max_examples=40, **KEPT)
many = settings(max_examples=80, **KEPT)


def ours(function, *args, **kwargs):
    """Call; let through what may come out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*args, **kwargs)
        except ALLOWED as error:
            message = str(error)
            assert len(message) < 20_000
            return None


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "film.png"
    Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 8, 8)).astype(np.uint8)
    clf = CXRClassifier("cxrnet", net_params={"module__width": 2}, image_size=8, max_epochs=1,
                        random_state=0)  # fmt: skip
    return clf.fit(images, np.arange(8) % 2)


def small():
    return CXRClassifier(max_epochs=1, image_size=4, backbone="smallnet", random_state=0)


PARAMETERS = st.one_of(
    strategies.anything(), st.tuples(st.integers(-1, 40), st.integers(-1, 40)), st.integers(-1, 40)
)


@many
@given(size=PARAMETERS, mode=st.one_of(st.sampled_from(["stretch", "pad"]), strategies.anything()))
def test_read_image_parameters(film, size, mode):
    image = ours(read_image, film, size=size, resize_mode=mode)
    assert image is None or image.ndim == 2


@many
@given(path=strategies.anything())
def test_read_image_path(path):
    assert ours(read_image, path) is None


@many
@given(X=strategies.anything())
def test_image_loader_x(X):
    ours(ImageLoader(4, on_error="nan").fit_transform, X)


@few
@given(value=strategies.anything())
@pytest.mark.parametrize("name", [*ImageLoader().get_params()])
def test_image_loader_parameters(film, name, value):
    if name in ("n_jobs", "memory") and isinstance(value, int | str):
        return  # threads and folders that exist afterwards
    ours(ImageLoader(**{name: value}).fit_transform, [film])


@many
@given(X=strategies.anything())
def test_fitted_classifier_x(fitted, X):
    proba = ours(fitted.predict_proba, X)
    assert proba is None or proba.shape[1] == 2


@few
@given(X=strategies.anything())
def test_unfitted_classifier_x(X):
    assert ours(CXRClassifier().predict, X) is None


@few
@given(X=strategies.anything(), y=strategies.anything())
def test_fit_anything(X, y):
    ours(small().fit, X, y)


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4)).astype(np.uint8)


@few
@given(y=strategies.labels(6))
def test_fit_labels(y):
    ours(small().fit, IMAGES, y)


@few
@given(weight=strategies.labels(6), groups=strategies.labels(6))
def test_fit_weights_and_groups(weight, groups):
    y = np.arange(6) % 2
    ours(small().fit, IMAGES, y, sample_weight=weight)
    ours(small().fit, IMAGES, y, groups=groups)


@few
@given(value=strategies.anything())
@pytest.mark.parametrize("parameter", ["path", "target", "groups", "source", "root"])
def test_table_parameters(film, parameter, value):
    import pandas as pd

    table = pd.DataFrame({"path": [film], "target": ["a"]})
    ours(load_cxr_table, table, **{parameter: value})


@few
@given(cells=strategies.labels(2), target=strategies.labels(2))
def test_table_cells(cells, target):
    import pandas as pd

    try:
        table = pd.DataFrame({"path": cells, "target": target})
    except Exception:
        return
    ours(load_cxr_table, table)
    ours(load_cxr_table, table, target=["target"], groups="path")


@few
@given(value=strategies.anything())
def test_what_is_no_table_or_folder(value):
    ours(load_cxr_table, value)
    if not isinstance(value, str):
        ours(load_cxr_folder, value)


@many
@given(truth=strategies.labels(6), scores=st.one_of(strategies.labels(6), strategies.anything()))
def test_metrics(truth, scores):
    ours(classification_report_ci, truth, scores, n_resamples=10)
    ours(classification_report_ci, truth, y_pred=scores, n_resamples=10)
    ours(compare_models_ci, truth, {"a": scores, "b": scores}, n_resamples=10)
    ours(expected_calibration_error, truth, scores)
    ours(operating_points, truth, scores, pos_label=1, sensitivity=0.9, n_resamples=10)
    ours(target_sensitivity, truth, scores, pos_label=1)


TRUTH = np.array([0, 1, 0, 1, 1, 0])
SCORES = np.array([0.1, 0.8, 0.4, 0.6, 0.3, 0.2])


@few
@given(value=strategies.anything())
@pytest.mark.parametrize(
    "name", ["labels", "groups", "subgroups", "prevalence", "method", "n_bins", "confidence_level"]
)
def test_report_parameters(name, value):
    ours(classification_report_ci, TRUTH, SCORES, n_resamples=10, **{name: value})


@few
@given(value=strategies.anything(), other=strategies.anything())
def test_rates(value, other):
    ours(predictive_values, value, 0.9, other)
    ours(predictive_values, 0.9, value, 0.1)
    ours(operating_points, TRUTH, SCORES, pos_label=value, sensitivity=other, n_resamples=10)
