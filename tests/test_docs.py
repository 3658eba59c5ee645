"""Every public name says what it takes, gives and raises, with an example (numpydoc's checks)."""

from __future__ import annotations

import inspect

import pytest
from numpydoc.validate import validate

import skcxr
from skcxr.augmentation import CXRAugmentation

LEFT_OUT = {
    "ES01",  # a summary may be enough
    "SA01",  # so may the example
    "RT02", "RT04",  # a result may have a name, and a Bunch has fields
}  # fmt: skip
NAMES = [f"skcxr.{name}" for name in skcxr.__all__ if name != "__version__"]
NAMES += [
    "skcxr.augmentation.CXRAugmentation",
    "skcxr.metrics.make_masked_scorer",
    "skcxr.networks.list_backbones",
]
METHODS = [
    f"skcxr.{name}.{method}"
    for name in ("CXRClassifier", "ImageLoader")
    for method, value in vars(getattr(skcxr, name)).items()
    if inspect.isfunction(value) and not method.startswith("_")
]


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_documented_with_an_example(name):
    errors = [error for error in validate(name)["errors"] if error[0] not in LEFT_OUT]
    assert errors == []


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_documented(name):
    errors = [error for error in validate(name)["errors"] if error[0] not in {*LEFT_OUT, "EX01"}]
    assert errors == []


@pytest.mark.parametrize(
    "thing",
    [
        skcxr.CXRClassifier.fit, skcxr.CXRClassifier.predict, skcxr.ImageLoader.transform,
        skcxr.load_cxr_folder, skcxr.load_cxr_table, skcxr.load_model, skcxr.make_cxr_phantoms,
        skcxr.read_image, skcxr.save_model,
    ],
)  # fmt: skip
def test_what_may_go_wrong_is_said(thing):
    assert "Raises\n" in thing.__doc__


def test_every_parameter_of_the_classifier_is_in_its_docstring():
    for estimator in (skcxr.CXRClassifier, skcxr.ImageLoader):
        for name in estimator().get_params():
            assert f"    {name} : " in estimator.__doc__, name
    assert CXRAugmentation.__doc__
