"""The code on the pages is run: pytest docs --doctest-glob="*.rst"."""

from __future__ import annotations

import pytest
import torch

collect_ignore_glob = ["conf.py", "_build/*", "auto_examples/*", "gen_modules/*", "*/generated/*"]

torch.set_num_threads(1)  # pages are tested side by side with other things


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Every page writes where nothing else is."""
    monkeypatch.chdir(tmp_path)
