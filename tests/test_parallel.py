"""Two processes that share each batch are one process that has all of it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skcxr import CXRClassifier, InputError, load_model
from skcxr._parallel import data_parallel

SETTINGS = {
    "plain": {"max_epochs": 3, "batch_size": 10},  # of 24: 10, 10 and 4
    "sgd": {"max_epochs": 2, "batch_size": 8, "optimizer": "sgd", "class_weight": "balanced"},
    "average": {"max_epochs": 3, "batch_size": 8, "ema": 0.8},
    "stopping": {
        "max_epochs": 12, "batch_size": 8, "early_stopping": True, "validation_fraction": 0.3,
        "n_iter_no_change": 2, "lr": 0.1,
    },
    "frozen": {"max_epochs": 3, "batch_size": 8, "freeze": 1, "unfreeze_at": 1},
    "odd": {"max_epochs": 2, "batch_size": 7},  # 7, 7, 7 and 3, which is too few to be parted
}  # fmt: skip

CHILD = """
import json, pickle, sys
sys.path.insert(0, sys.argv[1])
from skcxr import CXRClassifier, InputError, save_model
from skcxr.distributed import data_parallel
from test_parallel import SETTINGS, fitted, normalised
from conftest import bars
images, labels = bars(24)
out = sys.argv[2]
with data_parallel(timeout=60) as rank:
    results = {name: fitted(images, labels, **params) for name, params in SETTINGS.items()}
    results["normalised"] = normalised(images, labels).module_.state_dict()
    try:
        fitted(images[rank:], labels[rank:])
    except InputError as error:
        results["error"] = str(error)
with open(f"{out}/{rank}.pickle", "wb") as file:
    pickle.dump(results, file)
if rank == 0:
    save_model(results["plain"], f"{out}/model")
"""


def fitted(images, labels, **params):
    params = {"augmentation": None, "random_state": 0, **params}
    return CXRClassifier("smallnet", **params).fit(images, labels, groups=range(len(labels)))


class Normalised(nn.Module):
    """Two layers with batch normalisation."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(4 * 18 * 18, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_classes),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


def normalised(images, labels):
    clf = CXRClassifier(
        Normalised, dtype="float64", max_epochs=3, batch_size=9, lr=0.01, random_state=0
    )
    return clf.fit(images, labels)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Results of each of two processes, and where the first saved its model."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("torch has no gloo here")
    out = tmp_path_factory.mktemp("shared")
    (out / "fit.py").write_text(CHILD)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
            out / "fit.py", Path(__file__).parent, out,
        ],
        check=True, timeout=150, env=environment, capture_output=True,
    )  # fmt: skip
    return [pickle.loads((out / f"{rank}.pickle").read_bytes()) for rank in (0, 1)], out / "model"


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_are_one(shared, images, name):
    (first, second), _ = shared
    alone = fitted(*images, **SETTINGS[name])
    assert len(alone.history_) == len(first[name].history_) == len(second[name].history_)
    losses = [clf.history_[:, "train_loss"] for clf in (alone, first[name])]
    assert np.allclose(*losses, atol=1e-5)
    of_alone = alone.module_.state_dict()
    of_first, of_second = (results[name].module_.state_dict() for results in (first, second))
    for key, value in of_alone.items():
        assert torch.allclose(of_first[key], value, atol=1e-4), key
        assert torch.equal(of_first[key], of_second[key]), key


def test_batch_normalisation_is_over_the_whole_batch(shared, images):
    (first, _), _ = shared
    alone = normalised(*images).module_.state_dict()
    for key, value in first["normalised"].items():
        assert torch.allclose(alone[key].double(), value.double(), rtol=0, atol=1e-10), key


def test_what_comes_out_is_a_classifier_like_any_other(shared, images):
    (first, _), model = shared
    proba = first["plain"].predict_proba(images[0])
    assert np.array_equal(load_model(model).predict_proba(images[0]), proba)


def test_processes_with_other_images_are_told(shared):
    for results in shared[0]:
        assert "different images" in results["error"]


def test_it_needs_torchrun():
    with pytest.raises(InputError, match="torchrun"), data_parallel():
        pass


@pytest.fixture
def alone_in_a_group(monkeypatch):
    """A group of this process only."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_what_cannot_be_shared_is_told(alone_in_a_group, images, tmp_path):
    with data_parallel() as rank:
        assert rank == 0
        with pytest.raises(InputError, match="random_state"):
            fitted(*images, random_state=None)
        with pytest.raises(InputError, match="checkpoint"):
            fitted(*images, checkpoint=tmp_path / "run")
    assert torch.distributed.is_initialized()  # whose group it is closes it


def test_a_fit_outside_shares_nothing(alone_in_a_group, images):
    assert type(fitted(*images, max_epochs=1).net_).__name__ == "TrainingNet"
