"""load_cxr_table."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from skcxr import DatasetError, PatientWarning, load_cxr_folder, load_cxr_table


@pytest.fixture
def frame(files, images):
    return pd.DataFrame(
        {
            "file": files,
            "finding": images[1],
            "patient": [f"{k // 2:04}" for k in range(24)],
            "age": np.arange(24) + 20,
            "hospital": ["A", "B"] * 12,
        },
        index=range(5, 29),
    )


def load(table, **changes):
    options = {"path": "file", "target": "finding", "groups": "patient", "source": "hospital"}
    return load_cxr_table(table, **{**options, **changes})


@pytest.mark.parametrize("kind", ["frame", "csv", "tsv", "bom"])
def test_columns_become_the_fields_of_a_data_set(kind, frame, files, images, tmp_path):
    table = frame
    if kind != "frame":
        table = tmp_path / f"t.{'tsv' if kind == 'tsv' else 'csv'}"
        frame.to_csv(
            table, index=False, sep="\t" if kind == "tsv" else ",",
            encoding="utf-8-sig" if kind == "bom" else "utf-8",
        )  # fmt: skip
    bunch = load(table)
    assert bunch.data == files
    assert_array_equal(bunch.target, images[1])
    assert bunch.target_names == ["h", "v"]
    assert bunch.groups[:3].tolist() == ["0000", "0000", "0001"]
    assert bunch.source[:2].tolist() == ["A", "B"]
    assert set(bunch.split) == {""}
    assert bunch.skipped == []
    assert list(bunch.frame) == ["path", "target", "group", "source", "split", "age"]
    assert bunch.frame["age"].tolist() == list(range(20, 44))
    assert "24 images of 12 patients" in bunch.DESCR


def test_a_data_frame_is_left_as_it_is(frame):
    before = frame.copy(deep=True)
    load(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_paths_start_from_the_root_or_from_the_table(frame, files, tmp_path):
    folder, names = files[0].rpartition("/")[0], [file.rpartition("/")[2] for file in files]
    relative = frame.assign(file=names)
    expected = load(frame).target
    assert_array_equal(load(relative, root=folder).target, expected)
    relative["file"] = [f"{folder.rpartition('/')[2]}\\{name}" for name in names]
    assert_array_equal(load(relative, root=folder.rpartition("/")[0]).target, expected)
    shutil.copy(files[0], tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,target\na.png,1\n")
    with pytest.warns(PatientWarning):
        assert load_cxr_table(tmp_path / "t.csv").data == [str(tmp_path / "a.png")]


def test_what_cannot_be_used_is_skipped_with_its_row(frame, files, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    frame = frame.reset_index(drop=True)
    frame.loc[2, "file"] = str(tmp_path / "gone.png")
    frame.loc[4, "file"] = None
    frame.loc[6, "finding"] = None
    frame.loc[8, "file"] = str(tmp_path / "text.png")
    frame.loc[10] = frame.loc[9]
    bunch = load(frame)
    assert len(bunch.data) == len(bunch.target) == len(bunch.frame) == 19
    reasons = [entry.reason for entry in bunch.skipped]
    for row, words in ((3, "no such file"), (5, "empty"), (7, "no label"), (9, ""), (11, "row 10")):
        assert any(reason.startswith(f"row {row}: ") and words in reason for reason in reasons)
    assert bunch.frame.index.tolist() == list(range(19))


def test_findings_are_0_1_and_nan(frame, tmp_path):
    frame["mass"] = [0, 1, np.nan] * 8
    frame["nodule"] = ["1", "", "0.0"] * 8
    frame.loc[frame.index[5], ["mass", "nodule"]] = [np.nan, ""]
    frame.to_csv(tmp_path / "t.csv", index=False)
    for table in (frame, tmp_path / "t.csv"):
        bunch = load(table, target=["mass", "nodule"])
        assert bunch.target.shape == (23, 2)
        assert bunch.target_names == ["mass", "nodule"]
        assert_array_equal(bunch.target[:3], [[0, 1], [1, np.nan], [np.nan, 0]])
        assert bunch.skipped[0].reason == "row 6: no label"
        assert_array_equal(bunch.frame[["mass", "nodule"]], bunch.target)
        assert "finding" in bunch.frame
        assert "labelled in" in bunch.DESCR


def test_labels_keep_their_kind(frame, tmp_path):
    frame["finding"] = (frame["finding"] == "v").astype(int) + 3
    frame.to_csv(tmp_path / "t.csv", index=False)
    for table in (frame, tmp_path / "t.csv"):
        assert load(table).target.dtype.kind == "i"
        assert load(table).target_names == [3, 4]


def test_patients_unknown_are_their_own_and_are_counted(frame, files):
    frame["patient"] = [None, "", *frame["patient"][2:]]
    with pytest.warns(PatientWarning, match="2 of 24"):
        bunch = load(frame)
    assert bunch.groups[:3].tolist() == [*files[:2], "0001"]
    with pytest.warns(PatientWarning, match="24 of 24"):
        load(frame, groups=None)


def test_a_column_split_of_the_usual_words_is_taken(frame):
    frame["split"] = ["Training", "valid", "TEST", ""] * 6
    assert load(frame).split[:4].tolist() == ["train", "val", "test", ""]
    frame["split"] = ["train", "fold 1"] * 12
    bunch = load(frame)
    assert set(bunch.split) == {""}
    assert bunch.frame["split_table"][1] == "fold 1"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"path": "fiel"}, "did you mean 'file'"),
        ({"target": "nope"}, "no column 'nope'"),
        ({"target": ["age"]}, "20 in row 1"),
        ({"target": []}, "empty list"),
        ({"groups": "nope"}, "Its columns"),
    ],
)
def test_columns_that_cannot_be_used_are_named(changes, words, frame):
    frame["age"] = frame["age"].map(lambda age: f"{age} in row 1" if age == 20 else "0")
    with pytest.raises(DatasetError, match=words):
        load(frame, **changes)


def test_a_file_under_two_labels_is_an_error(frame, files):
    frame = frame.reset_index(drop=True)
    frame.loc[3, "file"] = files[0]
    with pytest.raises(DatasetError, match="row 1 and in row 4"):
        load(frame)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no table"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "UTF-8|no table|no column"),
        (b"path;target\na;b\n", "semicolons"),
        (b"path,target\n", "no image"),
        (b"path,target\n1,2,3,4\n5\n6,7,8,9,10\n", "no table|no image"),
        ("path,target\nfür.png,é\n".encode("latin-1"), "UTF-8"),
    ],
)
def test_files_that_are_no_table(content, words, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=words):
        load_cxr_table(tmp_path / "t.csv")


def test_what_is_no_table_at_all(tmp_path, files):
    for table, words in ((tmp_path, "opened"), (tmp_path / "x.csv", "opened"), (files, "list")):
        with pytest.raises(DatasetError, match=words):
            load_cxr_table(table)


def test_the_real_table_agrees_with_the_real_folder(shared_data):
    table = load_cxr_table(
        shared_data / "covid4.csv", root=shared_data / "covid4", target="finding",
        groups="patient", source="source",
    )  # fmt: skip
    with pytest.warns(PatientWarning):
        folder = load_cxr_folder(shared_data / "covid4")
    assert sorted(table.data) == folder.data
    assert dict(zip(table.data, table.target, strict=True)) == dict(
        zip(folder.data, folder.target, strict=True)
    )
    assert len(set(table.groups)) == 197
    assert table.frame["age"].notna().sum() > 0
    assert {"age", "sex", "view", "licence"} <= set(table.frame)
