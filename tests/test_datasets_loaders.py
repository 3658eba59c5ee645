"""Loaders of folders that are downloaded under agreement, on small folders of their layouts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skcxr import DatasetError, InputError, PatientWarning
from skcxr.datasets import (
    load_chexpert,
    load_nih_chestxray14,
    load_padchest,
    load_rsna_pneumonia,
    load_vindr_cxr,
)
from skcxr.datasets._agreements import CHEXPERT_FINDINGS, NIH_FINDINGS
from skcxr.datasets._challenges import VINDR_FINDINGS


def image(path):
    """A small image, as PNG whatever its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(path, "png")


def found(bunch, row):
    return [
        name for name, value in zip(bunch.target_names, bunch.target[row], strict=True) if value
    ]


def names(bunch):
    return [Path(path).name for path in bunch.data]


def check(bunch, n_images, source, multi_label=True):
    """What is true of every data set."""
    assert len(bunch.data) == n_images
    for values in (bunch.target, bunch.groups, bunch.source, bunch.split, bunch.frame):
        assert len(values) == n_images
    assert all(os.path.exists(path) for path in bunch.data)
    assert set(bunch.source) == {source}
    assert bunch.groups.dtype.kind == "U"
    assert bunch.frame["path"].tolist() == bunch.data
    assert f"{n_images} image" in bunch.DESCR
    assert bunch.DESCR.startswith(source)
    if multi_label:
        assert bunch.target.shape == (n_images, len(bunch.target_names))
        assert bunch.target.dtype == np.float64
        assert set(np.unique(bunch.target[~np.isnan(bunch.target)])) <= {0, 1}


# ------------------------------------------------------------------------------------------ NIH


@pytest.fixture
def nih(tmp_path):
    (tmp_path / "Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
        "00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n"
        "00000001_001.png,Cardiomegaly|Pleural_Thickening,1,1,58,M,AP,2894,2729,0.143,0.143,\n"
        "00000013_005.png,No Finding,5,13,414,F,AP,2500,2048,0.168,0.168,\n"
        "00000014_000.png,Hernia,0,14,11M,F,PA,2500,2048,0.168,0.168,\n"
    )
    image(tmp_path / "images_001" / "images" / "00000001_000.png")
    image(tmp_path / "images_001" / "images" / "00000001_001.png")
    image(tmp_path / "images_002" / "images" / "00000013_005.png")
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png")
    (tmp_path / "test_list.txt").write_text("00000013_005.png\n00000014_000.png\n")
    return tmp_path


def test_nih(nih):
    bunch = load_nih_chestxray14(nih)
    check(bunch, 3, "NIH ChestX-ray14")
    assert bunch.target_names == list(NIH_FINDINGS)
    assert [found(bunch, row) for row in range(3)] == [
        ["Cardiomegaly"], ["Cardiomegaly", "Pleural_Thickening"], [],
    ]  # fmt: skip
    assert bunch.groups.tolist() == ["00000001", "00000001", "00000013"]
    assert bunch.split.tolist() == ["train", "train", "test"]
    assert bunch.frame["view"].tolist() == ["PA", "AP", "AP"]
    assert bunch.frame["sex"].tolist() == ["M", "M", "F"]
    np.testing.assert_array_equal(bunch.frame["age"], [58, 58, np.nan])
    assert [Path(skipped.path).name for skipped in bunch.skipped] == ["00000014_000.png"]
    assert "no such file" in bunch.skipped[0].reason
    assert "no restrictions" in bunch.DESCR


def test_nih_in_other_layouts(nih):
    for place in ("images", "."):
        (nih / "moved").mkdir()
        for k, path in enumerate(sorted(nih.glob("images*/images/*.png")) or
                                 sorted(nih.glob("images/*.png"))):  # fmt: skip
            target = nih / place / path.name
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
            assert k < 3
        (nih / "moved").rmdir()
        assert len(load_nih_chestxray14(nih).data) == 3
    for name in ("train_val_list.txt", "test_list.txt"):
        (nih / name).unlink()
    assert set(load_nih_chestxray14(nih).split) == {""}


def test_views_are_chosen(nih):
    assert names(load_nih_chestxray14(nih, views="PA")) == ["00000001_000.png"]
    assert len(load_nih_chestxray14(nih, views="frontal").data) == 3
    assert len(load_nih_chestxray14(nih, views=["PA", "AP"]).data) == 3
    with pytest.raises(DatasetError, match=r"views lateral .* has AP, PA"):
        load_nih_chestxray14(nih, views="lateral")
    for wrong in ("pa", ["PA", "side"], []):
        with pytest.raises(InputError, match="views"):
            load_nih_chestxray14(nih, views=wrong)


def test_nih_of_another_kind_is_an_error(nih, tmp_path):
    table = nih / "Data_Entry_2017.csv"
    content = table.read_text()
    table.write_text(content.replace("Hernia", "Hernia|Gout"))
    with pytest.raises(DatasetError, match="Gout"):
        load_nih_chestxray14(nih)
    table.write_text(content.replace("Patient ID", "Who"))
    with pytest.raises(DatasetError, match="no column 'Patient ID'"):
        load_nih_chestxray14(nih)
    table.unlink()
    with pytest.raises(DatasetError, match=r"no file 'Data_Entry_2017\*\.csv'"):
        load_nih_chestxray14(nih)
    for wrong in (nih / "gone", nih / "test_list.txt"):
        with pytest.raises(DatasetError, match="give the folder"):
            load_nih_chestxray14(wrong)


# ------------------------------------------------------------------------------------- CheXpert


def chexpert_row(path, view="Frontal", position="AP", **labels):
    cells = [str(labels.get(name.replace(" ", "_"), "")) for name in CHEXPERT_FINDINGS]
    return ",".join([path, "Female", "68", view, position, *cells])


@pytest.fixture
def chexpert(tmp_path):
    head = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT_FINDINGS)
    top = "CheXpert-v1.0-small"
    train = [
        chexpert_row(f"{top}/train/patient00001/study1/view1_frontal.jpg", No_Finding="1.0"),
        chexpert_row(f"{top}/train/patient00002/study2/view1_frontal.jpg", position="PA",
                     Edema="-1.0", Cardiomegaly="0.0", Fracture="1.0"),
        chexpert_row(f"{top}/train/patient00002/study1/view2_lateral.jpg", "Lateral", "",
                     Edema="-1.0", Pneumonia="1"),
        chexpert_row(f"{top}/train/patient00003/study1/view1_frontal.jpg", position="LL",
                     Edema="1.0"),
    ]  # fmt: skip
    valid = [chexpert_row(f"{top}/valid/patient64541/study1/view1_frontal.jpg", Edema="0.0")]
    (tmp_path / "train.csv").write_text("\n".join([head, *train]))
    (tmp_path / "valid.csv").write_text("\n".join([head, *valid]))
    for row in (*train[:3], *valid):
        image(tmp_path / row.partition("/")[2].partition(",")[0])
    return tmp_path


def test_chexpert(chexpert):
    bunch = load_chexpert(chexpert)
    check(bunch, 4, "CheXpert")
    edema = bunch.target_names.index("Edema")
    np.testing.assert_array_equal(bunch.target[:, edema], [np.nan, np.nan, np.nan, 0])
    assert bunch.target[1, bunch.target_names.index("Cardiomegaly")] == 0
    assert np.isnan(bunch.target[0, 1])
    assert bunch.groups.tolist() == [
        "patient00001", "patient00002", "patient00002", "patient64541",
    ]  # fmt: skip
    assert bunch.split.tolist() == ["train", "train", "train", "val"]
    assert bunch.frame["view"].tolist() == ["AP", "PA", "lateral", "AP"]
    assert bunch.frame["age"].tolist() == [68] * 4
    assert [Path(skipped.path).name for skipped in bunch.skipped] == ["view1_frontal.jpg"]
    assert "Research Use Agreement" in bunch.DESCR
    assert load_chexpert(chexpert, views=["lateral"]).data == bunch.data[2:3]


@pytest.mark.parametrize(("uncertain", "unmentioned"), [(0, "nan"), (1, 0), ("nan", 0)])
def test_chexpert_settles_what_is_unsure(chexpert, uncertain, unmentioned):
    bunch = load_chexpert(chexpert, uncertain=uncertain, unmentioned=unmentioned)
    edema = bunch.target[:, bunch.target_names.index("Edema")]
    expected = [float(unmentioned), float(uncertain), float(uncertain), 0]
    np.testing.assert_array_equal(edema, expected)


def test_chexpert_as_its_batches_are_unpacked(chexpert):
    for patient, batch in (("patient00001", "2 (train 1)"), ("patient00002", "3 (train 2)")):
        folder = chexpert / f"CheXpert-v1.0 batch {batch}"
        folder.mkdir()
        (chexpert / "train" / patient).rename(folder / patient)
    first = chexpert / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir()
    for name in ("train.csv", "valid.csv", "valid"):
        (chexpert / name).rename(first / name)
    check(load_chexpert(chexpert), 4, "CheXpert")
    above = chexpert / "CheXpert-v1.0-small"
    above.mkdir()
    assert len(load_chexpert(chexpert).data) == 4


def test_chexpert_of_another_kind_is_an_error(chexpert):
    for wrong in ({"uncertain": 2}, {"uncertain": "ones"}, {"unmentioned": 1}, {"views": 3}):
        with pytest.raises(ValueError, match="parameter"):
            load_chexpert(chexpert, **wrong)
    table = chexpert / "train.csv"
    table.write_text(table.read_text().replace("-1.0", "perhaps"))
    with pytest.raises(DatasetError, match="'perhaps' for 'Edema'"):
        load_chexpert(chexpert)
    table.unlink()
    assert len(load_chexpert(chexpert).data) == 1
    (chexpert / "valid.csv").unlink()
    with pytest.raises(DatasetError, match=r"no file 'train\.csv' or 'valid\.csv'"):
        load_chexpert(chexpert)


# ----------------------------------------------------------------------------------------- RSNA


@pytest.fixture
def rsna(tmp_path):
    (tmp_path / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\n0004,,,,,0\n0031,264.0,152.0,213.0,379.0,1\n"
        "0031,562.0,152.0,256.0,453.0,1\n0099,,,,,0\n1e10,,,,,0\n"
    )
    (tmp_path / "stage_2_detailed_class_info.csv").write_text(
        "patientId,class\n0004,No Lung Opacity / Not Normal\n0031,Lung Opacity\n"
        "0031,Lung Opacity\n0099,Normal\n1e10,Normal\n"
    )
    for name in ("0004.dcm", "0031.dcm", "1e10.png"):
        image(tmp_path / "stage_2_train_images" / name)
    return tmp_path


def test_rsna(rsna):
    with pytest.warns(PatientWarning, match="3 of 3 .*mappings_2018") as warned:
        bunch = load_rsna_pneumonia(rsna)
    assert warned[0].filename == __file__
    check(bunch, 3, "RSNA 2018", multi_label=False)
    assert names(bunch) == ["0004.dcm", "0031.dcm", "1e10.png"]
    assert bunch.target.tolist() == ["No Lung Opacity / Not Normal", "Lung Opacity", "Normal"]
    assert bunch.frame["n_boxes"].tolist() == [0, 2, 0]
    assert bunch.frame["pneumonia"].tolist() == [0, 1, 0]
    assert len(set(bunch.groups)) == 3
    assert [Path(skipped.path).name for skipped in bunch.skipped] == ["0099.dcm"]


def test_rsna_patients_come_from_the_mapping(rsna, recwarn):
    path = rsna / "pneumonia-challenge-dataset-mappings_2018.json"
    entries = [{"img_id": f"0000001{k // 2}_00{k}.png", "subset_img_id": name}
               for k, name in enumerate(["0004", "0031", "1e10"])]  # fmt: skip
    path.write_text(json.dumps(entries))
    bunch = load_rsna_pneumonia(rsna)
    assert bunch.groups.tolist() == ["00000010", "00000010", "00000011"]
    assert not recwarn.list
    path.write_text(json.dumps(entries[:2]))
    with pytest.warns(PatientWarning, match="1 of 3"):
        load_rsna_pneumonia(rsna)
    for wrong in ("{", "[1]", '[{"subset_img_id": "a"}]', "3"):
        path.write_text(wrong)
        with pytest.raises(DatasetError, match="mappings_2018"):
            load_rsna_pneumonia(rsna)


def test_rsna_of_another_kind_is_an_error(rsna):
    labels = rsna / "stage_2_train_labels.csv"
    good = labels.read_text()
    labels.write_text(good.replace("1e10,,,,,0", "1e10,,,,,2"))
    with pytest.raises(DatasetError, match="Target that is not 0 or 1"):
        load_rsna_pneumonia(rsna)
    labels.write_text(good)
    path = rsna / "stage_2_detailed_class_info.csv"
    path.write_text(path.read_text() + "0099,Lung Opacity\n")
    with pytest.raises(DatasetError, match="two classes of '0099'"):
        load_rsna_pneumonia(rsna)
    path.unlink()
    with pytest.raises(DatasetError, match="detailed_class_info"):
        load_rsna_pneumonia(rsna)


# ---------------------------------------------------------------------------------------- VinDr


@pytest.fixture
def vindr(tmp_path):
    (tmp_path / "annotations").mkdir()
    head = ",".join(VINDR_FINDINGS)
    votes = {"aa": ("10", "10", "01"), "bb": ("00", "00", "00"), "cc": ("00", "10", "00")}
    rows = [
        f"{name},R{k + 1},{','.join(vote)}" + ",0.0" * 26
        for name, all_votes in votes.items()
        for k, vote in enumerate(all_votes)
    ]
    folder = tmp_path / "annotations"
    (folder / "image_labels_train.csv").write_text("\n".join([f"image_id,rad_id,{head}", *rows]))
    (folder / "image_labels_test.csv").write_text(
        f"image_id,{head.replace('Other diseases', 'Other disease')}\ndd,0,1" + ",0" * 25 + ",1\n"
    )
    for name in ("train/aa.dicom", "train/bb.dicom", "train/cc.png", "test/dd.dicom"):
        image(tmp_path / name)
    return tmp_path


def test_vindr(vindr):
    with pytest.warns(PatientWarning, match="4 of 4") as warned:
        bunch = load_vindr_cxr(vindr)
    assert warned[0].filename == __file__
    check(bunch, 4, "VinDr-CXR")
    assert bunch.target_names == list(VINDR_FINDINGS)
    assert [found(bunch, row) for row in range(4)] == [
        ["Aortic enlargement"], [], [], ["Atelectasis", "No finding"],
    ]  # fmt: skip
    assert bunch.split.tolist() == ["train", "train", "train", "test"]
    assert bunch.frame["n_readers"].tolist() == [3, 3, 3, 1]
    assert "three radiologists" in bunch.DESCR


@pytest.mark.parametrize(
    ("votes", "expected"),
    [("majority", [[1, 0], [0, 0], [0, 0]]), ("any", [[1, 1], [0, 0], [1, 0]]),
     ("agree", [[np.nan, np.nan], [0, 0], [np.nan, 0]])],
)  # fmt: skip
def test_vindr_votes(vindr, votes, expected):
    with pytest.warns(PatientWarning):
        bunch = load_vindr_cxr(vindr, votes=votes)
    np.testing.assert_array_equal(bunch.target[:3, :2], expected)


def test_vindr_of_another_kind_is_an_error(vindr):
    with pytest.raises(ValueError, match="parameter"):
        load_vindr_cxr(vindr, votes="mean")
    path = vindr / "annotations" / "image_labels_test.csv"
    content = path.read_text()
    path.write_text(content.replace("dd,0,1", "dd,0,2"))
    with pytest.raises(DatasetError, match="not 0 or 1"):
        load_vindr_cxr(vindr)
    path.write_text(content.replace("COPD", "X"))
    with pytest.raises(DatasetError, match="no column 'COPD'"):
        load_vindr_cxr(vindr)
    path.unlink()
    (vindr / "annotations" / "image_labels_train.csv").unlink()
    with pytest.raises(DatasetError, match="image_labels_train"):
        load_vindr_cxr(vindr)


# ------------------------------------------------------------------------------------- PadChest

PADCHEST = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
PADCHEST_TABLE = """\
,ImageID,ImageDir,StudyDate_DICOM,PatientID,PatientBirth,PatientSex_DICOM,Projection,MethodLabel,Labels
0,a.png,0,20140915,83986048869429233163,1930.0,F,PA,Physician,['normal']
1,b.png,0,20150914,31357275043099734750,1929.0,M,L,Physician,"[' kyphosis', 'chronic changes', '']"
2,c.png,54,20150914,31357275043099734750,,M,AP_horizontal,RNN_model,"['kyphosis', 'kyphosis']"
3,d.png,54,20150914,1,1990,O,COSTAL,RNN_model,
4,e.png,1,20150914,2,1990,M,UNK,RNN_model,"['normal']"
5,a.png,0,20140915,83986048869429233163,1930.0,F,PA,Physician,['normal']
6,f.png,1,20150914,3,1990,M,PA,RNN_model,[]
"""


@pytest.fixture
def padchest(tmp_path):
    (tmp_path / PADCHEST).write_text(PADCHEST_TABLE)
    for name in ("0/a.png", "0/b.png", "54/c.png", "54/d.png", "1/f.png"):
        image(tmp_path / name)
    return tmp_path


def test_padchest(padchest):
    bunch = load_padchest(padchest)
    check(bunch, 3, "PadChest")
    assert bunch.target_names == ["chronic changes", "kyphosis", "normal"]
    assert bunch.target.tolist() == [[0, 0, 1], [1, 1, 0], [0, 1, 0]]
    assert bunch.groups.tolist() == ["83986048869429233163"] + ["31357275043099734750"] * 2
    assert bunch.frame["view"].tolist() == ["PA", "lateral", "AP supine"]
    np.testing.assert_array_equal(bunch.frame["age"], [84, 86, np.nan])
    assert bunch.frame["method"].tolist() == ["Physician", "Physician", "RNN_model"]
    reasons = {Path(skipped.path).name: skipped.reason for skipped in bunch.skipped}
    assert "no label" in reasons["d.png"]
    assert "no label" in reasons["f.png"]
    assert "no such file" in reasons["e.png"]
    assert names(load_padchest(padchest, views="frontal")) == ["a.png", "c.png"]


def test_padchest_findings_are_chosen(padchest):
    bunch = load_padchest(padchest, findings=["kyphosis", "normal"])
    assert bunch.target_names == ["kyphosis", "normal"]
    assert bunch.target.tolist() == [[0, 1], [1, 0], [1, 0]]
    with pytest.raises(DatasetError, match="no finding 'gout'"):
        load_padchest(padchest, findings=["gout"])


def test_padchest_without_its_folders(padchest):
    (padchest / "0" / "a.png").rename(padchest / "a.png")
    image(padchest / "images" / "e.png")
    assert names(load_padchest(padchest)) == ["a.png", "b.png", "c.png", "e.png"]


@pytest.mark.parametrize(
    "cell", ["__import__('os').mkdir('x')", "{'normal'}", "[" * 5000, "normal", "[" + "0," * 9999]
)
def test_padchest_labels_are_read_and_not_run(padchest, cell, monkeypatch):
    monkeypatch.chdir(padchest)
    table = padchest / PADCHEST
    table.write_text(PADCHEST_TABLE.replace("['normal']\n1", f'"{cell}"\n1', 1))
    with pytest.raises(DatasetError, match="a list of labels is expected"):
        load_padchest(padchest)
    assert not (padchest / "x").exists()


# -------------------------------------------------------------------------------------- all five

LOADERS = pytest.mark.parametrize(
    ("fixture", "load"),
    [("nih", load_nih_chestxray14), ("chexpert", load_chexpert), ("rsna", load_rsna_pneumonia),
     ("vindr", load_vindr_cxr), ("padchest", load_padchest)],
)  # fmt: skip


@LOADERS
@pytest.mark.filterwarnings("ignore::skcxr.PatientWarning")
def test_folders_may_be_relative_or_paths(fixture, load, request, monkeypatch):
    folder = request.getfixturevalue(fixture)
    expected = load(folder)
    monkeypatch.chdir(folder.parent)
    bunch = load(folder.name)
    assert [os.path.abspath(path) for path in bunch.data] == expected.data
    np.testing.assert_array_equal(bunch.target, expected.target)


@LOADERS
def test_parameters_of_another_type_are_errors(fixture, load):
    for wrong in (3, None, b"x", ["x"]):
        with pytest.raises(ValueError, match="'folder' parameter"):
            load(wrong)
    for wrong in ("a\0b", "", "x" * 5000):
        with pytest.raises(DatasetError, match="does not exist"):
            load(wrong)


@LOADERS
def test_a_folder_without_images_is_an_error(fixture, load, request):
    folder = request.getfixturevalue(fixture)
    for path in list(folder.rglob("*")):
        if path.suffix in (".png", ".jpg", ".dcm", ".dicom"):
            path.unlink()
    with pytest.raises(DatasetError, match="has no image that can be used"):
        load(folder)


@LOADERS
@pytest.mark.filterwarnings("ignore::skcxr.PatientWarning")
def test_tables_with_damage_are_read_or_said(fixture, load, request):
    folder = request.getfixturevalue(fixture)
    rng = np.random.default_rng(0)
    tables = [path for path in folder.rglob("*.csv") if path.is_file()]
    for table in tables:
        good = table.read_bytes()
        for _ in range(20):
            damaged = bytearray(good)
            for at in rng.integers(0, len(good), rng.integers(1, 4)):
                damaged[at] = rng.integers(256)
            table.write_bytes(damaged)
            try:
                bunch = load(folder)
            except DatasetError:
                continue
            assert len(bunch.data) == len(bunch.target) == len(bunch.groups)
        table.write_bytes(good)
