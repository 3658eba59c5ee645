"""skcxr._patients: the patient that a file name tells, and what happens where it tells none."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from skcxr._exceptions import InputError
from skcxr._patients import patient_from_name, patients_from_names

KNOWN = [
    ("person10_bacteria_43.jpeg", "person10_bacteria"),
    ("person108_virus_200.jpeg", "person108_virus"),
    ("person447_virus_921_1.jpeg", "person447_virus"),
    ("Person10_Bacteria_43.JPEG", "person10_bacteria"),
    ("person1_bacteria_1 (copy).jpeg", "person1_bacteria"),
    ("IM-0115-0001.jpeg", "IM-0115"),
    ("IM-0640-0001-0002.jpeg", "IM-0640"),
    ("im-0640-0001.png", "IM-0640"),
    ("NORMAL2-IM-1018-0001.jpeg", "NORMAL2-IM-1018"),
    ("NORMAL2-IM-0851-0001-0002.jpeg", "NORMAL2-IM-0851"),
    ("VIRUS-1980593-0001.jpeg", "VIRUS-1980593"),
    ("BACTERIA-1008087-0002.jpeg", "BACTERIA-1008087"),
    ("NORMAL-1003233-0001.jpeg", "NORMAL-1003233"),
    ("00000013_005.png", "00000013"),
]
UNKNOWN = [
    "film.png", "Normal-12.jpg", "COVID-19.png", "TB.1907.jpg", "others_(7).jpg", "", "IM-.png",
    "20200101_001.png", "00000013_05.png", "00000013_005_a.png", "xperson1_bacteria_1.jpeg",
    "person1_fungus_1.jpeg", "covid-19-pneumonia-7-PA.jpg", "person1_bacteria.jpeg",
]  # fmt: skip


@pytest.mark.parametrize(("name", "patient"), KNOWN)
@pytest.mark.parametrize("folder", ["", "train/X/", "C:\\data\\train\\", "/person9_virus_1/"])
def test_known_names_tell_their_patient_in_any_folder(name, patient, folder):
    assert patient_from_name(folder + name) == patient


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_names_tell_none(name):
    assert patient_from_name(name) is None
    assert patient_from_name("person1_bacteria_1.jpeg/" + name) is None


def test_path_objects_work():
    assert patient_from_name(Path("a") / "IM-0115-0001.jpeg") == "IM-0115"


def test_a_path_without_patient_is_its_own_group():
    paths = ["a/x.png", "b/x.png", "a/IM-0001-0001.jpeg", "b/IM-0001-0002.jpeg"]
    patients, n_unknown = patients_from_names(paths)
    assert patients.tolist() == ["a/x.png", "b/x.png", "IM-0001", "IM-0001"]
    assert patients.dtype.kind == "U"
    assert n_unknown == 2


def test_no_paths_give_an_empty_array_of_str():
    patients, n_unknown = patients_from_names([])
    assert patients.shape == (0,)
    assert patients.dtype.kind == "U"
    assert n_unknown == 0


@pytest.mark.parametrize(
    "pattern",
    [
        r"pat\d+",
        r"(pat\d+)-(\d+)",
        r"(\w)-?(?P<patient>pat\d+)",
        re.compile(r"PAT\d+", re.IGNORECASE),
        lambda path: path.split("-")[0][-4:],
    ],
)
def test_a_pattern_may_be_text_compiled_or_a_function(pattern):
    names = ["pat1-x/a-pat1-3.png", "pat1-x/b-pat1-4.png"]
    patients, n_unknown = patients_from_names(names, pattern)
    assert patients.tolist() == ["pat1", "pat1"]
    assert n_unknown == 0


def test_a_pattern_is_searched_in_the_file_name_only():
    patients, n_unknown = patients_from_names(["p1/a.png", "c:\\p1\\b.png"], r"p\d")
    assert patients.tolist() == ["p1/a.png", "c:\\p1\\b.png"]
    assert n_unknown == 2


@pytest.mark.parametrize("pattern", [r"p(\d)?", r"x|(\d)", lambda _: None, lambda _: ""])
def test_no_or_an_empty_match_is_unknown(pattern):
    patients, n_unknown = patients_from_names(["px.png"], pattern)
    assert patients.tolist() == ["px.png"]
    assert n_unknown == 1


def test_a_function_may_return_a_number():
    patients, _ = patients_from_names(["7.png"], lambda path: int(path[0]))
    assert patients.tolist() == ["7"]


@pytest.mark.parametrize("pattern", ["(", "*", 3, b"p", re.compile(b"p"), ["a"]])
def test_an_invalid_pattern_is_named(pattern):
    with pytest.raises(InputError, match="pattern must be a regular expression"):
        patients_from_names(["a.png"], pattern)


def test_real_names_agree_with_the_table_of_patients(shared_data):
    with open(shared_data / "covid4.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["patient"].startswith("kermany-")]
    assert len(rows) == 239
    patients, n_unknown = patients_from_names([row["path"] for row in rows])
    assert n_unknown == 0
    assert np.array_equal(
        [f"kermany-{patient}" for patient in patients], [r["patient"] for r in rows]
    )


def test_every_name_of_the_large_collections_tells_its_patient(shared_data):
    for folder, n_images in [("kermany224", 5088), ("nih64", 800)]:
        paths = sorted((shared_data / folder).glob("*/*"))
        assert len(paths) == n_images
        assert patients_from_names(paths)[1] == 0
