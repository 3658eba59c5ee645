"""load_cxr_table."""

from __future__ import annotations

import gzip
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


def read(tmp_path, text, files, **changes):
    """Load a CSV file in which {0}, {1}, ... stand for images."""
    (tmp_path / "t.csv").write_text(text.format(*files))
    return load_cxr_table(tmp_path / "t.csv", groups="p", **changes)


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        (["3", "", "4"], [3, 4]),
        (["0.0", "", "1.5"], [0.0, 1.5]),
        (["True", "", "False"], [True, False]),
        (["01", "", "02"], ["01", "02"]),
        (["None", " ", "NA"], ["None", "NA"]),  # words, not gaps
        (["1", "", "ill"], ["1", "ill"]),
    ],
)
def test_an_empty_cell_does_not_change_the_kind_of_the_others(written, labels, files, tmp_path):
    rows = [f"{{{k}}},{word},{k}\n" for k, word in enumerate(written)]
    bunch = read(tmp_path, "path,target,p\n" + "".join(rows), files)
    assert bunch.target.tolist() == labels
    assert [type(label) for label in bunch.target.tolist()] == [type(label) for label in labels]
    assert [entry.reason for entry in bunch.skipped] == ["row 2: no label"]


def test_rows_cut_short_have_no_label(files, tmp_path):
    bunch = read(tmp_path, "path,target,p\n{0},a,1\n{1}\n", files)
    assert bunch.skipped == [(files[1], "row 2: no label")]


def test_blank_cells_are_no_common_patient(files, tmp_path):
    with pytest.warns(PatientWarning, match="2 of 3"):
        bunch = read(tmp_path, "path,target,p\n{0},a, \n{1},a, \n{2},b,7\n", files)
    assert bunch.groups.tolist() == [files[0], files[1], "7"]


def test_a_file_of_two_patients_is_an_error(files, tmp_path):
    with pytest.raises(DatasetError, match=r"two patients, in row 1 and in row 2 .* '1' and '2'"):
        read(tmp_path, "path,target,p\n{0},a,1\n{0},a,2\n", files)


def test_another_spelling_of_a_path_is_the_same_file(frame, files):
    frame = frame.reset_index(drop=True)
    folder, _, name = files[0].rpartition("/")
    frame.loc[3, "file"] = f"{folder}/./{name}"
    with pytest.raises(DatasetError, match="two labels, in row 1 and in row 4"):
        load(frame)


def test_all_other_columns_stay_whatever_their_names(frame):
    wide = pd.DataFrame(np.zeros((24, 150)), frame.index, [f"c{k}" for k in range(150)])
    other = pd.DataFrame({"group_table": 1, "group": 2, "age": 3}, frame.index)
    columns = list(load(pd.concat([frame, wide, other], axis=1)).frame)
    assert columns[5:7] == ["age", "c0"]
    assert columns[-3:] == ["group_table", "group_table_table", "age_table"]


@pytest.mark.parametrize("findings", [["m", "m"], ["split", "m"], ["m", "group"]])
def test_findings_with_a_name_that_is_taken_are_an_error(findings, frame):
    with pytest.raises(DatasetError, match=r"twice|has the name of a column"):
        load(frame.assign(m=1, split=0, group=1), target=findings)


def test_a_label_that_is_a_list_is_an_error(frame):
    frame["finding"] = [["mass", "nodule"]] * 24
    with pytest.raises(DatasetError, match=r"'finding' .* in row 1"):
        load(frame)


def test_the_split_is_judged_by_all_rows_of_the_table(frame, tmp_path):
    frame = frame.reset_index(drop=True).assign(split=["train"] * 23 + ["fold 1"])
    frame.loc[23, "file"] = str(tmp_path / "gone.png")
    assert set(load(frame).split) == {""}
    assert "split_table" not in load(frame.assign(split="")).frame


def test_a_damaged_archive_is_no_table(tmp_path):
    packed = gzip.compress(b"path,target\na.png,1\n" * 500)
    for name, content in (
        ("a.csv.gz", packed[:40]), ("b.csv.gz", packed[:12] + b"\xff" * 30), ("c.csv.zip", b"PK"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match="no table that can be read"):
            load_cxr_table(tmp_path / name)
