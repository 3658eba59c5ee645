"""Decoded images on disk."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.model_selection import GridSearchCV

import skcxr._cache
from skcxr import (
    CXRClassifier,
    CXRFeatures,
    ImageLoader,
    ImageReadError,
    InputError,
    SkcxrWarning,
)
from skcxr._cache import Decoder
from skcxr.images import decode, decode_with_kind


def entries(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def decodes(monkeypatch):
    """Paths that were really decoded."""
    seen = []

    def spy(path, *args):
        seen.append(os.fspath(path))
        return decode_with_kind(path, *args)

    monkeypatch.setattr(skcxr._cache, "decode_with_kind", spy)
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


def test_an_entry_is_an_npy_file_with_a_checksum_behind_it(files, tmp_path):
    image = Decoder(tmp_path)(files[0], (8, 9))
    (entry,) = entries(tmp_path)
    assert entry.read_bytes()[:-4] == _npy(image)
    assert_array_equal(np.load(entry), image)


def test_a_file_is_opened_once_to_be_decoded_and_kept_and_never_again(files, tmp_path, monkeypatch):
    opened = []

    def spy(path, *args, **kwargs):
        opened.append(path)
        return open(path, *args, **kwargs)

    monkeypatch.setattr("skcxr.images.open", spy, raising=False)
    for _ in range(2):
        ImageLoader(8, memory=tmp_path).transform(files)
    assert sorted(opened) == sorted(files)


def test_nothing_half_written_is_left_where_writing_fails_or_is_interrupted(
    files, tmp_path, monkeypatch
):
    cache = Decoder(tmp_path)
    cache(files[0], 8)
    for error in (OSError(errno.EIO, "no"), KeyboardInterrupt()):

        def fail(*paths, error=error):
            raise error

        monkeypatch.setattr(os, "replace", fail)
        expected = pytest.raises(KeyboardInterrupt)
        if isinstance(error, OSError):
            expected = pytest.warns(SkcxrWarning, match="cannot be written")
        with expected:
            cache(files[1], 8)
    assert len(entries(tmp_path)) == 1


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


def _flipped(whole, at):
    changed = bytearray(whole)
    changed[at] ^= 1
    return bytes(changed)


def _npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


DAMAGES = {
    "empty": lambda whole: b"",
    "nonsense": lambda whole: b"nonsense",
    "cut short": lambda whole: whole[:-5],
    "without its checksum": lambda whole: whole[:-4],
    "extended": lambda whole: whole + b"\0",
    "zeros of its length": lambda whole: bytes(len(whole)),
    "a bit of the magic": lambda whole: _flipped(whole, 0),
    "a bit of the shape": lambda whole: _flipped(whole, whole.index(b"(8") + 1),
    "a bit of a pixel": lambda whole: _flipped(whole, 150),
    "a bit of the checksum": lambda whole: _flipped(whole, -1),
    "a pickle": lambda whole: _npy(np.array([{"a": 1}], dtype=object)),
    "another type": lambda whole: _npy(np.zeros((8, 8))),
    "another shape": lambda whole: _npy(np.zeros((4, 16), np.uint8)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_again(damage, files, tmp_path):
    loader = ImageLoader(8, memory=tmp_path)
    first = loader.transform(files[:1])
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    entry.write_bytes(DAMAGES[damage](whole))
    assert_array_equal(loader.transform(files[:1]), first)
    assert entry.read_bytes() == whole


@pytest.mark.parametrize("damage", ["cut short", "a bit of a pixel", "another type"])
def test_a_damaged_embedding_is_made_again(damage, files, tmp_path):
    features = CXRFeatures("smallnet", weights=None, image_size=8, random_state=0, memory=tmp_path)
    first = features.fit(files).transform(files[:1])
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    entry.write_bytes(DAMAGES[damage](whole))
    assert_array_equal(features.transform(files[:1]), first)
    assert entry.read_bytes() == whole


def test_no_single_flipped_bit_is_taken(tmp_path):
    entry = tmp_path / "ab" / "cd.npy"
    entry.parent.mkdir()
    assert skcxr._cache._store(str(entry), np.arange(6, dtype=np.uint16).reshape(2, 3)) is None
    whole = entry.read_bytes()
    assert skcxr._cache._load(str(entry), 12) is not None
    for at in range(len(whole)):
        entry.write_bytes(_flipped(whole, at))
        assert skcxr._cache._load(str(entry), 12) is None, at


def test_an_entry_under_the_name_of_another_is_made_again(files, tmp_path):
    loader = ImageLoader(8, memory=tmp_path)
    both = loader.transform(files[:2])
    one, two = entries(tmp_path)
    one.write_bytes(two.read_bytes())
    assert_array_equal(loader.transform(files[:2]), both)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "link to another", "dead link", "loop"])
def test_what_is_no_file_in_place_of_an_entry_is_replaced(kind, files, tmp_path):
    loader = ImageLoader(8, memory=tmp_path)
    both = loader.transform(files[:2])
    one, two = entries(tmp_path)
    one.unlink()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    if kind == "pipe":
        os.mkfifo(one)
    else:
        targets = {"link to a pipe": pipe, "link to another": two, "loop": one}
        one.symlink_to(targets.get(kind, tmp_path / "nowhere"))
    assert_array_equal(loader.transform(files[:2]), both)
    assert one.is_file()
    assert not one.is_symlink()


def test_a_directory_in_place_of_an_entry_is_said_and_others_are_kept(files, tmp_path):
    loader = ImageLoader(8, memory=tmp_path)
    first = loader.transform(files[:1])
    (entry,) = entries(tmp_path)
    entry.unlink()
    entry.mkdir()
    with pytest.warns(SkcxrWarning, match="cannot be written"):
        assert_array_equal(loader.transform(files)[:1], first)
    assert len(entries(tmp_path)) == len(files) - 1


def test_an_entry_that_is_far_too_long_is_not_read(files, tmp_path):
    loader = ImageLoader(8, memory=tmp_path)
    first = loader.transform(files[:1])
    (entry,) = entries(tmp_path)
    os.truncate(entry, 2**40)  # takes no place on the disk, but would in memory
    assert_array_equal(loader.transform(files[:1]), first)


def test_a_changed_file_misses_also_where_its_size_and_time_are_forged(tmp_path):
    path, cache = tmp_path / "film.bmp", tmp_path / "cache"
    black, white = (np.full((4, 4), value, np.uint8) for value in (0, 255))
    Image.fromarray(black).save(path)
    time = os.stat(path).st_mtime_ns
    assert ImageLoader(4, memory=cache).transform([path]).max() == 0
    Image.fromarray(white).save(path)
    os.utime(path, ns=(time, time))
    assert ImageLoader(4, memory=cache).transform([path]).min() == 1
    other = tmp_path / "other.bmp"
    Image.fromarray(black).save(other)
    os.utime(other, ns=(time, time))
    os.replace(other, path)
    assert ImageLoader(4, memory=cache).transform([path]).max() == 0


def test_a_link_to_another_file_of_the_same_size_and_time_misses(tmp_path):
    link, cache = tmp_path / "film.bmp", tmp_path / "cache"
    for value in (0, 255):
        path = tmp_path / f"{value}.bmp"
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(path)
        os.utime(path, ns=(10**18, 10**18))
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        assert ImageLoader(4, memory=cache).transform([link])[0, 0, 0] == value / 255


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (skcxr._cache, "_VERSION", -1),
        (skcxr._cache, "_CODECS", ("another",)),
        (skcxr._cache.PIL, "__version__", "0"),
    ],
)
def test_a_cache_of_another_version_is_not_used(
    module, name, value, files, tmp_path, decodes, monkeypatch
):
    features = CXRFeatures("smallnet", weights=None, image_size=8, random_state=0, memory=tmp_path)
    loader = ImageLoader(8, memory=tmp_path)
    for transformer in (loader, features.fit(files)):
        transformer.transform(files[:2])
    before = entries(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, value)
        for transformer in (loader, features):
            transformer.transform(files[:2])
    assert len(entries(tmp_path)) == 2 * len(before) == 8
    decodes.clear()
    loader.transform(files[:2])
    assert not decodes


def test_what_killed_processes_have_left_is_removed_after_a_day(files, tmp_path):
    loader = ImageLoader(8, memory=tmp_path)
    loader.transform(files[:1])
    parts = tmp_path / "skcxr-images" / "parts"
    old, new, other = parts / "old.part", parts / "new.part", parts / "other"
    for path in (old, new, other):
        path.write_bytes(b"half of an ent")
    for path in (old, other):
        os.utime(path, (0, 0))
    loader.transform(files[:1])
    assert not old.exists()
    assert new.exists()
    assert other.exists()


def test_a_cache_may_be_removed_while_it_is_used(files, tmp_path):
    cache = Decoder(tmp_path)
    plain = decode(files[0], 8)
    for _ in range(2):
        assert_array_equal(cache(files[0], 8), plain)
        assert len(entries(tmp_path)) == 1
        shutil.rmtree(tmp_path / "skcxr-images")


def test_a_disk_that_is_full_is_said_once_and_not_needed(files, tmp_path):
    """As real as it gets without a disk: the system lets the process write no byte to any file."""
    code = (
        "import resource, sys, warnings; import numpy as np; "
        "from skcxr import CXRClassifier, CXRFeatures, ImageLoader; "
        "paths = sys.argv[2:]; "
        "arguments = {'image_size': 16, 'memory': sys.argv[1]}; "
        "clf = CXRClassifier('smallnet', image_size=16, max_epochs=1, random_state=0); "
        "clf.fit(paths, [k % 2 for k in range(len(paths))]).set_params(**arguments); "
        "features = CXRFeatures('smallnet', weights=None, random_state=0, **arguments); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
        "caught = warnings.catch_warnings(record=True, action='always'); "
        "seen = caught.__enter__(); "
        "ImageLoader(**arguments).transform(paths); "
        "clf.predict_proba(paths); "
        "features.fit_transform(paths); "
        "ours = [w for w in seen if w.category.__name__ == 'SkcxrWarning']; "
        "print(len(ours), *{str(w.message).partition('(')[2] for w in ours})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = "File too large); what is not in it is computed again each time"
    assert done.stdout.strip() == f"3 {said}"
    assert not entries(tmp_path)


def test_threads_that_meet_a_full_disk_together_say_so_once(files, tmp_path, monkeypatch):
    together = threading.Barrier(2)

    def refuse(entry, array):
        together.wait(30)
        return OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(skcxr._cache, "_store", refuse)
    cache = Decoder(tmp_path)
    with warnings.catch_warnings(record=True) as seen, ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("always")
        list(pool.map(lambda path: cache(path, 8), files[:2]))
    assert [str(w.message).count("no space") for w in seen] == [1]
    cache(files[2], 8)  # does not try again: nobody else would come to the barrier


def test_a_folder_that_may_not_be_written_is_said_and_not_needed(files, tmp_path, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    plain = ImageLoader(8).transform(files)
    with monkeypatch.context() as patch:
        patch.setattr(os, "makedirs", refuse)
        with pytest.warns(SkcxrWarning, match="Read-only") as caught:
            assert_array_equal(ImageLoader(8, memory=tmp_path).transform(files), plain)
        assert len(caught) == 1
        with pytest.raises(InputError, match="cannot be used as a folder"):
            ImageLoader(8, memory=tmp_path / "new").transform(files)
    loader = ImageLoader(8, memory=tmp_path)
    loader.transform(files[:3])
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(SkcxrWarning, match="Read-only") as caught:  # what is there is read
        assert_array_equal(loader.transform(files), plain)
    assert len(caught) == 1
    assert len(entries(tmp_path)) == 3


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")
def test_two_processes_that_are_killed_and_restarted_get_no_wrong_array():
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cache", "--kill", "10", "--size", "64"],
        cwd=root, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1000 files" in done.stdout
    assert done.stdout.strip().endswith(": 0 wrong")


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
