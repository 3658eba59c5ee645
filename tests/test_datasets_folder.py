"""load_cxr_folder: what is found, in which order, with which patients, and what is left out."""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from skcxr._exceptions import DatasetError, InputError, PatientWarning, SkcxrWarning
from skcxr.datasets._folder import load_cxr_folder


@pytest.fixture
def folder(tmp_path):
    """Make a folder from relative names; a name that ends in "/" is a folder, others images."""

    def maker(*names):
        for name in names:
            path = tmp_path / name
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                Image.fromarray(np.zeros((4, 4), np.uint8)).save(path, format="PNG")
        return tmp_path

    return maker


def reasons(bunch, root):
    return {os.path.relpath(entry.path, root): entry.reason for entry in bunch.skipped}


def relative(bunch, root):
    return [os.path.relpath(path, root).replace(os.sep, "/") for path in bunch.data]


def test_a_folder_per_class(folder):
    root = folder("Well/IM-0002-0001.png", "Ill/IM-0001-0002.png", "Ill/IM-0001-0001.png")
    bunch = load_cxr_folder(root)
    assert relative(bunch, root) == [
        "Ill/IM-0001-0001.png", "Ill/IM-0001-0002.png", "Well/IM-0002-0001.png",
    ]  # fmt: skip
    assert all(isinstance(path, str) and os.path.isfile(path) for path in bunch.data)
    assert bunch.target.tolist() == ["Ill", "Ill", "Well"]
    assert bunch.target_names == ["Ill", "Well"]
    assert bunch.groups.tolist() == ["IM-0001", "IM-0001", "IM-0002"]
    assert bunch.source.tolist() == bunch.split.tolist() == ["", "", ""]
    assert bunch.skipped == []
    for key in ("target", "groups", "source", "split"):
        assert bunch[key].dtype.kind == "U"
        assert bunch[key].shape == (3,)


def test_frame_and_description_say_the_same(folder):
    root = folder("A/IM-0001-0001.png", "A/IM-0001-0002.png", "B/IM-0002-0001.png")
    bunch = load_cxr_folder(str(root))
    assert bunch.frame.columns.tolist() == ["path", "target", "group", "source", "split"]
    for column, key in [("path", "data"), ("target", "target"), ("group", "groups")]:
        assert bunch.frame[column].tolist() == list(bunch[key])
    assert "A: 2 images of 1 patient\n" in bunch.DESCR
    assert "all: 3 images of 2 patients\n" in bunch.DESCR


def test_folders_within_a_class_are_read(folder):
    root = folder("A/b/c/IM-0002-0001.png", "A/IM-0001-0001.png", "A/b/IM-0003-0001.png")
    bunch = load_cxr_folder(root)
    assert relative(bunch, root) == [
        "A/IM-0001-0001.png", "A/b/IM-0003-0001.png", "A/b/c/IM-0002-0001.png",
    ]  # fmt: skip
    assert bunch.target_names == ["A"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train", "val", "test"], ["train", "val", "test"]),
        (["Training", "VALID", "Testing"], ["train", "val", "test"]),
        (["TRAIN", "validation", "tEsT"], ["train", "val", "test"]),
    ],
)
def test_splits_above_the_classes(folder, names, splits):
    root = folder(*[f"{name}/{c}/IM-000{i}-0001.png" for i, name in enumerate(names) for c in "AB"])
    bunch = load_cxr_folder(root)
    assert bunch.target_names == ["A", "B"]
    found = {relative(bunch, root)[i].split("/")[0]: bunch.split[i] for i in range(6)}
    assert found == dict(zip(names, splits, strict=True))
    assert "patients in more than one of them: 0." in bunch.DESCR


def test_a_patient_in_two_splits_is_counted(folder):
    root = folder("train/A/IM-0001-0001.png", "test/A/IM-0001-0002.png", "test/A/IM-0002-0001.png")
    assert "patients in more than one of them: 1." in load_cxr_folder(root).DESCR


def test_the_same_patient_in_two_classes_is_one_group(folder):
    root = folder("A/00000001_000.png", "B/00000001_001.png")
    assert len(set(load_cxr_folder(root).groups)) == 1


def test_the_order_does_not_depend_on_the_order_of_creation(folder, tmp_path_factory):
    names = [
        f"{c}/{n}" for c in "BA" for n in ("IM-0010-0001.png", "IM-0009-0001.png", "IM-0001-1.png")
    ]
    root = folder(*names)
    first = relative(load_cxr_folder(root), root)
    assert first == sorted(names)
    shutil.rmtree(root / "A")
    folder(*reversed(names))
    assert relative(load_cxr_folder(root), root) == first


def test_everything_left_out_is_listed_with_its_reason(folder):
    root = folder(
        "A/IM-0001-0001.png", "A/.hidden.png", "A/__MACOSX/x.png", ".git/x.png", "top.png"
    )
    (root / "A" / "Thumbs.db").write_bytes(b"thumbs")
    (root / "A" / "notes.txt").write_text("a note")
    (root / "A" / "empty.png").touch()
    (root / "A" / "page.jpg").write_text("<html>not found</html>")
    (root / "A" / "film.dcm").write_bytes(bytes(128) + b"DICM")
    os.symlink(root / "nowhere", root / "A" / "broken.png")
    os.symlink("self.png", root / "A" / "self.png")
    bunch = load_cxr_folder(root)
    assert relative(bunch, root) == ["A/IM-0001-0001.png"]
    found = reasons(bunch, root)
    expected = {
        ".git": "hidden", "top.png": "no class folder", "A/.hidden.png": "hidden",
        "A/__MACOSX": "system", "A/Thumbs.db": "system", "A/notes.txt": "no image",
        "A/empty.png": "empty", "A/page.jpg": "HTML", "A/film.dcm": "DICOM",
        "A/broken.png": "no such file", "A/self.png": "",
    }  # fmt: skip
    assert found.keys() == {name.replace("/", os.sep) for name in expected}
    for name, word in expected.items():
        assert word in found[name.replace("/", os.sep)]
    assert bunch.skipped == sorted(bunch.skipped)
    assert "Files or folders left out: 11;" in bunch.DESCR


def test_images_are_told_by_content_and_not_by_extension(folder):
    root = folder("A/IM-0001-0001.txt", "A/IM-0002-0001", "A/IM-0003-0001.JPG")
    assert len(load_cxr_folder(root).data) == 3


def test_links_are_followed_but_not_in_circles(folder):
    root = folder("A/IM-0001-0001.png", "elsewhere/B/IM-0002-0001.png")
    shutil.move(root / "elsewhere", root / ".elsewhere")
    os.symlink(root / ".elsewhere" / "B", root / "B")
    os.symlink(root / "A", root / "A" / "again")
    os.symlink(root / "A", root / ".elsewhere" / "B" / "across")
    bunch = load_cxr_folder(root)
    assert relative(bunch, root) == [
        "A/IM-0001-0001.png", "B/IM-0002-0001.png", "B/across/IM-0001-0001.png",
    ]  # fmt: skip
    assert "link back" in reasons(bunch, root)[os.path.join("A", "again")]


def test_unknown_patients_give_one_warning_with_their_number(folder):
    root = folder("A/x.png", "A/y.png", "B/x.png", "B/IM-0001-0001.png")
    with pytest.warns(PatientWarning, match=r"3 of 4 files .* groups=") as caught:
        bunch = load_cxr_folder(root)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert len(set(bunch.groups)) == 4
    assert "Images whose patient is unknown, each its own: 3." in bunch.DESCR


@pytest.mark.parametrize("groups", [r"p\d", re.compile(r"(p\d)-"), lambda path: path[-8:-6]])
def test_groups_may_be_a_pattern_or_a_function(folder, groups):
    root = folder("A/p1-1.png", "A/p1-2.png", "B/p2-1.png")
    assert load_cxr_folder(root, groups=groups).groups.tolist() == ["p1", "p1", "p2"]


def test_source_is_read_in_the_same_manner(folder):
    root = folder("A/IM-0001-0001.png", "A/NORMAL2-IM-0001-0001.png")
    bunch = load_cxr_folder(root, source="^NORMAL2")
    assert bunch.source.tolist() == ["", "NORMAL2"]
    bunch = load_cxr_folder(root, source=lambda path: os.path.basename(path)[:2])
    assert bunch.source.tolist() == ["IM", "NO"]


@pytest.mark.parametrize("parameter", ["groups", "source"])
def test_an_invalid_pattern_is_named(folder, parameter):
    with pytest.raises(InputError, match=f"{parameter} must be"):
        load_cxr_folder(folder("A/IM-0001-0001.png"), **{parameter: "("})


def test_an_empty_class_is_listed_and_warned_about(folder):
    root = folder("A/IM-0001-0001.png", "B/")
    (root / "B" / "notes.txt").write_text("a note")
    with pytest.warns(SkcxrWarning, match="'B'") as caught:
        bunch = load_cxr_folder(root)
    assert caught[0].filename == __file__
    assert bunch.target_names == ["A"]
    assert reasons(bunch, root)["B"] == "the class folder holds no image"


def test_a_class_without_images_in_one_split_only_is_listed(folder):
    root = folder("train/A/IM-0001-0001.png", "train/B/IM-0002-0001.png", "test/A/")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bunch = load_cxr_folder(root)
    assert list(reasons(bunch, root)) == [os.path.join("test", "A")]


def test_images_without_a_class_below_a_split_are_listed(folder):
    root = folder("train/A/IM-0001-0001.png", "test/IM-0002-0001.png")
    bunch = load_cxr_folder(root)
    assert "no class folder" in reasons(bunch, root)[os.path.join("test", "IM-0002-0001.png")]


def test_what_is_no_data_set_is_an_error_that_says_what_was_found(folder, tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        load_cxr_folder(tmp_path / "missing")
    with pytest.raises(DatasetError, match="no class folders"):
        load_cxr_folder(tmp_path)
    folder("top.png")
    with pytest.raises(DatasetError, match=r"no class folders.*top\.png"):
        load_cxr_folder(tmp_path)
    with pytest.raises(DatasetError, match="is a file"):
        load_cxr_folder(tmp_path / "top.png")
    folder("A/")
    (tmp_path / "A" / "notes.txt").write_text("a note")
    with pytest.raises(DatasetError, match=r"no image that can be read.*notes\.txt"):
        load_cxr_folder(tmp_path)


def test_splits_and_classes_side_by_side_are_an_error(folder):
    root = folder("train/A/IM-0001-0001.png", "Normal/IM-0002-0001.png")
    with pytest.raises(DatasetError, match=r"'train'.*'Normal'"):
        load_cxr_folder(root)


def test_splits_without_classes_are_an_error(folder):
    with pytest.raises(DatasetError, match="no class folders"):
        load_cxr_folder(folder("train/IM-0001-0001.png", "test/IM-0002-0001.png"))


def test_a_folder_around_the_splits_is_an_error_that_says_where_to_look(folder):
    root = folder("chest_xray/train/A/IM-0001-0001.png", "chest_xray/test/A/IM-0002-0001.png")
    with pytest.raises(DatasetError, match=re.escape(str(root / "chest_xray"))):
        load_cxr_folder(root)
    assert len(load_cxr_folder(root / "chest_xray").data) == 2


@pytest.mark.parametrize(
    ("name", "n_images", "n_classes", "n_unknown"),
    [("covid4", 309, 4, 70), ("kermany224", 5088, 2, 0), ("nih64", 800, 2, 0)],
)
def test_real_collections(shared_data, name, n_images, n_classes, n_unknown):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bunch = load_cxr_folder(shared_data / name)
    assert len(bunch.data) == n_images
    assert len(bunch.target_names) == n_classes
    assert bunch.skipped == []
    assert [w.category for w in caught] == ([PatientWarning] if n_unknown else [])
    if n_unknown:
        assert f"{n_unknown} of {n_images}" in str(caught[0].message)


def test_the_source_of_a_real_collection(shared_data):
    with pytest.warns(PatientWarning, match="2000 of 2000"):
        bunch = load_cxr_folder(shared_data / "adults256", source=r"^[A-Za-z]+")
    assert set(bunch.source) == {"COVID", "Normal", "TB", "Tuberculosis", "others"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_names_that_are_no_text_where_pandas_keeps_text_in_arrow(tmp_path):
    pytest.importorskip("pyarrow")
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        make = Image.new("L", (8, 8))
        make.save(os.path.join(tmp_path, name, os.fsdecode(b"film\xff.png")))
    data = load_cxr_folder(tmp_path, groups=lambda path: path)
    assert data.frame["path"].tolist() == data.data
    assert all(path.endswith("film\udcff.png") for path in data.data)
