"""What pyproject.toml declares is what the package uses."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

import skcxr

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOR_DEVELOPERS = {"docs", "peers", "test"}
FOR_USERS_CODE = {"torchvision"}  # what the pages pass as augmentation and backbone

TREES = {
    path.as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in Path(skcxr.__file__).parent.rglob("*.py")
}


def name_of(requirement: str) -> str:
    """Name of the distribution, as pip spells it."""
    return re.split(r"[^\w.-]", requirement)[0].lower()


def required(extra: str) -> set[str]:
    """Distributions of an extra, and of those extras of skcxr that it names."""
    found = set()
    for requirement in EXTRAS[extra]:
        inner = re.fullmatch(r"skcxr\[(.+)\]", requirement)
        names = re.split(r"\s*,\s*", inner[1]) if inner else []
        found |= set().union(*map(required, names)) if inner else {name_of(requirement)}
    return found


def asked_for() -> set[tuple[str, str]]:
    """(library, extra) of every call that imports a library of an extra or says it is missing."""
    found = set()
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or file.endswith("_optional.py"):
                continue
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called in ("import_optional", "MissingDependencyError"):
                given = [*node.args, *(keyword.value for keyword in node.keywords)]
                library, extra = (ast.literal_eval(value) for value in given)
                found.add((library.partition(".")[0], extra))
    return found


def imported() -> set[str]:
    """Libraries outside Python that the package imports by an import statement."""
    found = set()
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - {"skcxr"} - sys.stdlib_module_names


def test_the_version_is_that_of_the_installed_package():
    assert version("skcxr") == skcxr.__version__


def test_every_import_is_a_dependency_and_every_dependency_is_imported():
    distributions = packages_distributions()
    used = {name_of(distributions[library][0]) for library in imported()}
    assert used | FOR_USERS_CODE == set(map(name_of, PROJECT["dependencies"]))


def test_every_extra_that_the_code_names_is_declared_with_its_library():
    assert asked_for(), "the code names no extra any more"
    for library, extra in asked_for():
        assert extra in EXTRAS, f"the code says skcxr[{extra}] for {library}"
        assert name_of(packages_distributions()[library][0]) in required(extra)


def test_every_extra_for_users_is_named_by_the_code_and_is_in_all():
    for_users = EXTRAS.keys() - FOR_DEVELOPERS - {"all"}
    assert for_users == {extra for _, extra in asked_for()}
    assert required("all") == set().union(*map(required, for_users))


def test_the_tests_install_every_extra_for_users():
    assert required("all") <= required("test")


@pytest.mark.parametrize("extra", [None, *sorted(EXTRAS.keys() - {"peers"})])
def test_every_requirement_has_a_lower_bound_and_no_upper_one(extra):
    requirements = PROJECT["dependencies"] if extra is None else EXTRAS[extra]
    for requirement in requirements:
        assert re.fullmatch(r"[\w.-]+>=[\d.]+(; .+)?|skcxr\[[\w,]+\]", requirement), requirement


def test_every_extra_that_a_page_names_is_declared():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.rst")]
    for page in pages:
        for names in re.findall(r"(?:skcxr|\.)\[([\w,]+)\]", page.read_text(encoding="utf-8")):
            assert set(names.split(",")) <= EXTRAS.keys(), f"{page.name}: [{names}]"
