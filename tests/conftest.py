"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real radiographs for development; tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKCXR_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real radiographs at {folder}; set SKCXR_SHARED_DATA")
    return folder
