"""The command, as a person types it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from skcxr import __version__, make_cxr_phantoms
from skcxr.cli import app


def skcxr(*arguments: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "skcxr.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)


def folder_of(root: Path, n_patients: int, size: int = 24) -> Path:
    """Two classes of tiny images, two per patient, named as NIH does."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 120)):
        (root / name).mkdir(parents=True)
        for patient in range(n_patients):
            for k in range(2):
                image = rng.integers(low, low + 100, (size, size)).astype(np.uint8)
                number = patient + (100 if low else 0)
                Image.fromarray(image).save(root / name / f"{number:08}_{k:03}.png")
    return root


def test_help_names_the_command_and_its_limits():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "demo" in result.output
    assert "not for diagnosis" in result.output
    assert __version__


@pytest.mark.slow
def test_demo_on_a_folder_and_the_lines_that_it_prints(tmp_path):
    data = tmp_path / "data"
    make_cxr_phantoms(48, n_classes=2, n_patients=16, image_size=48, random_state=0, save_to=data)
    result = skcxr("demo", data, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    out = result.stdout
    assert "48 images of 16 patients" in out
    assert "no patient stands on both sides" in out
    assert re.search(r"Accuracy on the \d+ test images of 4 patients .* 95% interval", out)
    for word in ("precision", "recall", "f1-score", "Confusion matrix", "For research only"):
        assert word in out
    assert "60/60" in result.stderr
    with Image.open(tmp_path / "out" / "demo.png") as picture:
        assert min(picture.size) > 400
    code = out[out.index("import numpy") :]
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    table = again.stdout[again.stdout.index("precision") :].split()
    assert table == out[out.index("precision") :].split()[: len(table)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root / "missing", "missing"),
        (lambda root: root, "no"),
        (lambda root: folder_of(root, 2), "at least 4"),
        (lambda root: folder_of(root, 5) / "dark", "."),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line_and_exit_code_1(make, words, tmp_path):
    result = skcxr(
        "demo", make(tmp_path / "x" if words != "no" else tmp_path), "--out", tmp_path / "out"
    )
    assert result.returncode == 1
    assert result.stderr.startswith("skcxr: error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_wrong_usage_is_exit_code_2():
    assert skcxr("demo", "--seed", "-1").returncode == 2
    assert skcxr("dmeo").returncode == 2
