"""scikit-learn's own checks of estimators."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import (
    check_estimator,
    check_estimator_cloneable,
    check_estimator_repr,
    check_get_params_invariance,
    check_mixin_order,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
    check_valid_tag_types,
    parametrize_with_checks,
)

from skcxr import CXRClassifier, CXRFeatures, ImageLoader
from skcxr.outliers import OutlierGate


@parametrize_with_checks([CXRClassifier()])
def test_classifier(estimator, check):
    check(estimator)


@parametrize_with_checks([CXRFeatures("smallnet", weights=None, random_state=0)])
def test_features(estimator, check):
    check(estimator)


@pytest.mark.slow
def test_every_check_of_the_classifier_runs_and_passes():
    """None skipped, with array API support switched on before scipy is imported."""
    code = """
from sklearn.utils.estimator_checks import check_estimator
from skcxr import CXRClassifier
results = check_estimator(CXRClassifier(), on_fail=None, on_skip=None)
bad = [(r["check_name"], r["status"], r["exception"]) for r in results if r["status"] != "passed"]
assert len(results) > 50 and not bad, bad
"""
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize(
    "check",
    [
        check_estimator_cloneable, check_estimator_repr, check_get_params_invariance,
        check_mixin_order, check_no_attributes_set_in_init, check_set_params,
        check_parameters_default_constructible, check_valid_tag_types,
    ],
)  # fmt: skip
def test_image_loader(check):
    check("ImageLoader", clone(ImageLoader()))


def test_image_loader_says_that_it_takes_no_rows_of_numbers():
    with pytest.warns(SkipTestWarning, match="Can't test estimator ImageLoader"):
        check_estimator(ImageLoader())


def test_gate():
    reason = "they want one of the films of the fit to be refused, or a known share of them"
    checks = ("check_outliers_train", "check_outliers_fit_predict")
    check_estimator(
        OutlierGate(n_synthetic=105, random_state=0),
        expected_failed_checks=dict.fromkeys(checks, reason),
        on_skip=None,
    )
