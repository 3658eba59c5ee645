"""How the weights of the package are made: which films, what changes, and a whole small run."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from skcxr import make_cxr_phantoms
from skcxr._shipped import SHIPPED

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pretraining():
    """The package beside ours: sys.path is as it was afterwards."""
    if not (ROOT / "pretraining").is_dir():
        pytest.skip("the training stands in the source tree only")
    sys.path.insert(0, str(ROOT))
    try:
        names = ("train", "augmentation", "card", "measure")
        modules = {name: importlib.import_module(f"pretraining.{name}") for name in names}
    finally:
        sys.path.remove(str(ROOT))
    return modules


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """30 drawn films under names of Kermany et al., in a split."""
    root = tmp_path_factory.mktemp("films")
    drawn = make_cxr_phantoms(36, n_classes=3, image_size=64, random_state=0)
    causes = dict(zip(np.unique(drawn.target), ("bacteria", "normal", "virus"), strict=True))
    for k, (image, label) in enumerate(zip(drawn.data, drawn.target, strict=True)):
        cause = causes[label]
        side = "test" if k >= 30 else "train"
        place = root / side / ("NORMAL" if cause == "normal" else "PNEUMONIA")
        place.mkdir(parents=True, exist_ok=True)
        name = f"IM-{k:04}-0001" if cause == "normal" else f"person{k}_{cause}_{k}"
        Image.fromarray(image).save(place / f"{name}.jpeg")
    return root


def test_a_person_is_one_whatever_the_cause(pretraining):
    person = pretraining["train"].person
    assert person("x/person10_bacteria_43.jpeg") == person("person10_virus_1.jpeg") == "person10"
    assert person("IM-0115-0001.jpeg") == "im-0115"
    assert person("NORMAL2-IM-0115-0001.jpeg") == "normal2-im-0115"
    assert person("film.png") is None


def test_only_the_training_split_is_taken_and_persons_are_left_out(pretraining, folder, tmp_path):
    list_films = pretraining["train"].list_films
    paths, labels = list_films(folder)
    assert len(paths) == 30
    assert not [path for path in paths if "test" in Path(path).parts]
    assert set(labels) == {"bacteria", "normal", "virus"}
    hidden = tmp_path / "others.csv"
    ill = next(Path(path).name for path in paths if "person" in path)
    number = ill.partition("_")[0]
    hidden.write_text(f"path\nclass/{number}_virus_999.jpeg\nclass/unknown.png\n")
    fewer, _ = list_films(folder, hidden)
    assert len(fewer) == 29
    assert ill not in {Path(path).name for path in fewer}


def test_changes_keep_shape_and_range_and_leave_a_share_of_the_frame(pretraining):
    augmentation = pretraining["augmentation"].HospitalAugmentation()
    images = torch.rand(16, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = augmentation(images)
        second = augmentation(images)
        torch.manual_seed(0)
        again = augmentation(images)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 1
    edges = torch.stack([first[:, 0, 0], first[:, 0, -1], first[:, 0, :, 0], first[:, 0, :, -1]])
    bars = (edges.std(-1) < 1e-6).float().mean()
    assert 0 < bars < 0.5


def test_a_small_run_writes_weights_that_the_network_takes_and_goes_on(
    pretraining, folder, tmp_path, monkeypatch
):
    train = pretraining["train"]
    monkeypatch.setitem(train.TRAINED, "width", 8)
    monkeypatch.setitem(train.RECIPE, "amp", False)
    train.train(folder, tmp_path / "out", epochs=2)
    facts = json.loads((tmp_path / "out" / "cxr.json").read_text())
    assert facts["films"] == 30
    assert sum(facts["of_label"].values()) == 30
    assert np.load(tmp_path / "out" / "cxr.hashes.npy").shape == (30, 16)
    first = (tmp_path / "out" / "cxr.safetensors").read_bytes()
    state = load_file(tmp_path / "out" / "cxr.safetensors")
    assert "layers.stem.conv.weight" in state
    assert not [name for name in state if ".head." in name or "tracked" in name]

    train.train(folder, tmp_path / "out", epochs=2)  # is taken up as it was
    assert (tmp_path / "out" / "cxr.safetensors").read_bytes() == first
    train.train(folder, tmp_path / "anew", epochs=2)  # and made anew is the same
    assert (tmp_path / "anew" / "cxr.safetensors").read_bytes() == first


def test_the_recipe_is_that_of_the_card(pretraining):
    card = Path(SHIPPED["cxr"].card).read_text(encoding="utf-8")
    recipe = json.loads(card.partition("```json\n")[2].partition("```")[0])
    changes = recipe.pop("augmentation")["HospitalAugmentation"]
    assert recipe == pretraining["train"].RECIPE
    assert changes == pretraining["train"].CHANGES
