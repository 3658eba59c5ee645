"""The documentation is whole: docstrings (numpydoc's checks), reference, command, examples.

The code on the pages is run by ``pytest docs --doctest-glob="*.rst"``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from numpydoc.validate import ERROR_MSGS, validate

import skcxr
from skcxr.cli import app

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LEFT_OUT = set(CONFIG["tool"]["numpydoc_validation"]["checks"]) - {"all"}

MODULES = (
    "datasets", "images", "preprocessing", "augmentation", "networks", "classifier", "features",
    "recipes", "inspection", "metrics", "model_selection", "audit", "outliers", "report",
    "persistence", "distributed", "batches", "training",
)  # fmt: skip
THINGS = {f"skcxr.{name}": getattr(skcxr, name) for name in skcxr.__all__ if name != "__version__"}
PUBLIC = {thing: name for name, thing in THINGS.items()}
for module in map(importlib.import_module, [f"skcxr.{name}" for name in MODULES]):
    for name in module.__all__:
        if getattr(module, name) not in PUBLIC:
            THINGS[f"{module.__name__}.{name}"] = getattr(module, name)
METHODS = {
    f"{name}.{attribute}": value
    for name, thing in THINGS.items()
    if inspect.isclass(thing)
    for attribute, value in vars(thing).items()
    if not attribute.startswith("_") and inspect.isfunction(value)
}


ALL_FUNCTIONS: dict[str, Any] = METHODS | {
    name: thing for name, thing in THINGS.items() if inspect.isfunction(thing)
}
# methods that torch or skorch call, and document
HOOKS = {
    name
    for name in METHODS
    for base in THINGS[name.rpartition(".")[0]].__mro__
    if name.rpartition(".")[2] in vars(base) and base.__module__.startswith(("torch", "skorch"))
}


def errors_of(name: str, *left_out: str) -> list[tuple[str, str]]:
    return [error for error in validate(name)["errors"] if error[0] not in LEFT_OUT | {*left_out}]


def test_what_is_left_out_is_a_check_of_numpydoc():
    assert set(ERROR_MSGS) >= LEFT_OUT


@pytest.mark.parametrize("name", THINGS)
def test_public_names_are_documented_with_an_example(name):
    assert errors_of(name) == []


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_documented(name):
    # the class has the example; what torch and skorch call takes what they say
    assert errors_of(name, "EX01", *(("PR01", "RT01") if name in HOOKS else ())) == []


@pytest.mark.parametrize("name", sorted(ALL_FUNCTIONS.keys() - HOOKS))
def test_what_is_raised_is_said(name):
    thing = inspect.unwrap(ALL_FUNCTIONS[name])
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    raised = {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
    }
    sections = re.split(r"\n\s*(?=\w[\w ]*\n\s*-{3,}\n)", thing.__doc__)
    said = " ".join(section for section in sections if section.startswith("Raises"))
    assert {error for error in raised if error not in said} == set()


@pytest.mark.parametrize(
    "name",
    ["CXRClassifier.fit", "CXRClassifier.partial_fit", "CXRClassifier.predict",
     "CXRClassifier.predict_proba", "CXRClassifier.predict_log_proba",
     "CXRClassifier.decision_function", "ImageLoader.fit", "ImageLoader.transform",
     "load_cxr_folder", "load_cxr_table", "make_cxr_phantoms", "read_image", "load_model",
     "save_model"],
)  # fmt: skip
def test_what_reads_or_checks_says_what_may_go_wrong(name):
    assert "Raises\n" in ALL_FUNCTIONS[f"skcxr.{name}"].__doc__


def test_every_public_name_is_in_the_reference():
    listed, module = set(), ""
    for line in (ROOT / "docs" / "api" / "index.rst").read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            listed.add(f"{module}.{line.strip()}")
    assert listed == set(THINGS)


def test_every_option_of_the_command_is_on_its_page():
    page = (ROOT / "docs" / "user_guide" / "cli.rst").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(app).commands.items():
        assert f"skcxr {name}" in page
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert f"``{parameter.opts[-1]}``" in page, (name, parameter.opts)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_an_example_is_run_and_claims_nothing(path):
    assert path.name.startswith("plot_")  # others are shown and not run
    text = path.read_text(encoding="utf-8")
    assert "drawings" in text
    assert re.search(r"says?\s+nothing\s+about", text)
    assert re.search(r"phantom\s+patients", text)
