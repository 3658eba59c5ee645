"""Imports run downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import skcxr

ROOT = Path(skcxr.__file__).parent

# each room may import those before it
ORDER = [
    "_exceptions", "_shipped", "_optional", "_notice", "_onnx_input", "_seeds", "_files", "_frames",
    "_callbacks", "_quiet", "_pillow", "_dicom", "images", "_cache", "_patients", "_pictures",
    "_fingerprints", "datasets", "_threads", "batches", "_contamination",
    "_embeddings", "preprocessing",
    "augmentation", "_model_files", "_archives", "_weights", "_own_networks", "_foreign_networks",
    "networks", "_epochs", "training", "_inputs", "_settings", "_checkpoints", "_parallel",
    "_nets", "_targets", "classifier", "features", "metrics", "model_selection", "recipes",
    "inspection", "audit", "outliers", "report", "_model_entries", "persistence", "distributed",
    "export", "_demo", "_commands", "cli",
]  # fmt: skip
HEAVY = {
    "matplotlib",
    "pandas",
    "pydicom",
    "timm",
    "captum",
    "imagecodecs",
    "imagehash",
    "jinja2",
    "dask",
    "distributed",
    "accelerate",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pooch",
    "requests",
}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path: Path) -> str:
    """The room that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(tree: ast.AST) -> list[str]:
    """Names of the modules that a piece of code imports."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            found.append(node.module)
    return found


def test_every_module_has_its_place():
    assert {room(path) for path in MODULES} == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_arrow_runs_up(path):
    here = ORDER.index(room(path))
    for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
        parts = name.split(".")
        if parts[0] == "skcxr" and len(parts) > 1:
            assert ORDER.index(parts[1]) <= here, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_heavy_libraries_are_imported_where_they_are_used(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
    assert not {name.split(".")[0] for name in imports(top)} & HEAVY
