"""Decoded images on disk."""

from __future__ import annotations

import os
import subprocess
import sys

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.model_selection import GridSearchCV

import skcxr._cache
from skcxr import CXRClassifier, ImageLoader, ImageReadError, InputError, SkcxrWarning
from skcxr._cache import Decoder
from skcxr.images import decode


def entries(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def decodes(monkeypatch):
    """Paths that were really decoded."""
    seen = []

    def spy(path, *args):
        seen.append(os.fspath(path))
        return decode(path, *args)

    monkeypatch.setattr(skcxr._cache, "decode", spy)
    return seen


@pytest.mark.parametrize("output", ["images", "rows"])
def test_a_second_pass_decodes_nothing_and_equals_the_first(output, files, tmp_path, decodes):
    loader = ImageLoader(12, output=output, memory=tmp_path)
    plain = ImageLoader(12, output=output).transform(files)
    decodes.clear()
    assert_array_equal(loader.transform(files), plain)
    assert sorted(decodes) == sorted(files)
    assert_array_equal(loader.transform(files), plain)
    assert len(decodes) == len(files) == len(entries(tmp_path))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_are_kept_in_the_depth_of_their_source(dtype, tmp_path):
    path = tmp_path / "film.tiff"
    pixels = np.arange(20).reshape(4, 5) / (20 if dtype == np.float32 else 1)
    Image.fromarray(pixels.astype(dtype)).save(path)
    cache = Decoder(tmp_path / "cache")
    fresh = cache(str(path), None)
    held = cache.held(str(path), None)
    assert fresh.dtype == held.dtype == dtype
    assert_array_equal(fresh, held)


def test_a_changed_file_misses_even_with_its_old_size(tmp_path):
    path, cache = tmp_path / "film.bmp", tmp_path / "cache"
    for value in (10, 200, 30):
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(path)
        image = ImageLoader(4, memory=cache).transform([path])
        assert_array_equal(image, np.full((1, 4, 4), np.float32(value) / 255))


def test_what_is_read_otherwise_is_another_entry(files, tmp_path):
    for loader in (
        ImageLoader(8, memory=tmp_path),
        ImageLoader((8, 9), memory=tmp_path),
        ImageLoader((8, 9), resize_mode="pad", memory=tmp_path),
    ):
        assert_array_equal(
            loader.transform(files[:2]), loader.set_params(memory=None).transform(files[:2])
        )
    assert len(entries(tmp_path)) == 6


@pytest.mark.parametrize("damage", [b"", b"nonsense", "truncate", "extend", "pickle"])
def test_a_damaged_entry_is_made_again(damage, files, tmp_path):
    loader = ImageLoader(8, memory=tmp_path)
    first = loader.transform(files[:1])
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    if damage == "pickle":
        np.save(entry, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        entry.write_bytes({"truncate": whole[:-5], "extend": whole + b"\0"}.get(damage, damage))
    assert_array_equal(loader.transform(files[:1]), first)
    assert entry.read_bytes() == whole


def test_a_joblib_memory_is_a_folder_and_its_clear_clears(files, tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    loader = ImageLoader(8, memory=memory)
    loader.transform(files)
    assert len([path for path in entries(tmp_path) if path.suffix == ".npy"]) == len(files)
    memory.clear(warn=False)
    assert not [path for path in entries(tmp_path) if path.suffix == ".npy"]
    assert ImageLoader(8, memory=joblib.Memory(None)).transform(files).shape == (24, 8, 8)


def test_two_processes_on_one_folder_agree(files, tmp_path):
    code = (
        "import sys, numpy as np; from skcxr import ImageLoader; "
        "loader = ImageLoader(16, memory=sys.argv[2], n_jobs=2); "
        "np.save(sys.argv[1], loader.transform(sys.argv[3:]))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / f"{k}.npy"),
                          str(tmp_path / "cache"), *files])
        for k in range(2)
    ]  # fmt: skip
    assert [process.wait() for process in processes] == [0, 0]
    first, second = (np.load(tmp_path / f"{k}.npy") for k in range(2))
    assert_array_equal(first, second)
    assert_array_equal(first, ImageLoader(16).transform(files))
    assert len(entries(tmp_path / "cache")) == len(files)  # nothing half-written is left


def test_folds_grid_points_and_epochs_decode_each_file_once(files, images, tmp_path, decodes):
    clf = CXRClassifier(
        "smallnet", image_size=16, max_epochs=2, random_state=0, memory=tmp_path, ram_limit=0
    )
    search = GridSearchCV(clf, {"lr": [0.001, 0.01]}, cv=2).fit(files, images[1])
    assert len(decodes) == len(files)
    plain = search.best_estimator_.set_params(memory=None).predict_proba(files)
    assert_array_equal(search.predict_proba(files), plain)


def test_loader_and_classifier_share_one_cache(files, images, tmp_path, decodes):
    ImageLoader(16, memory=tmp_path).transform(files)
    decodes.clear()
    CXRClassifier("smallnet", image_size=16, max_epochs=1, memory=str(tmp_path)).fit(
        files, images[1]
    )
    assert not decodes


def test_errors_name_the_file_or_the_parameter(files, tmp_path):
    with pytest.raises(ImageReadError, match=r"gone.png"):
        ImageLoader(8, memory=tmp_path).transform([str(tmp_path / "gone.png")])
    with pytest.raises(InputError, match="memory="):
        ImageLoader(8, memory=files[0]).transform(files)
    with pytest.raises(InputError, match="memory="):
        ImageLoader(8, memory="").transform(files)


def test_a_cache_that_cannot_be_written_is_said_and_not_needed(files, tmp_path):
    loader = ImageLoader(8, memory=tmp_path)
    loader.transform(files[:1])
    (entry,) = entries(tmp_path)
    folder = entry.parent
    entry.unlink()
    folder.rmdir()
    folder.write_text("a file where a folder should be")
    with pytest.warns(SkcxrWarning, match="cannot be written"):
        image = loader.transform(files[:1])
    assert_array_equal(image, ImageLoader(8).transform(files[:1]))


def test_real_radiographs_come_back_to_the_bit(shared_data, tmp_path):
    paths = sorted(map(str, (shared_data / "covid4").rglob("*.*")))[::10]
    loader = ImageLoader(64, memory=tmp_path)
    plain = ImageLoader(64).transform(paths)
    assert_array_equal(loader.transform(paths), plain)
    assert_array_equal(loader.transform(paths), plain)
