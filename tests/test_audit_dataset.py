"""audit_dataset: what it finds, what it leaves in peace, and what it refuses."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from skcxr import InputError, load_cxr_table, make_cxr_phantoms
from skcxr.audit import AuditReport, Finding, audit_dataset


def audit(data, y, **options):
    return audit_dataset(data, y, progress=False, **options)


def checks(report):
    return [finding.check for finding in report.alarms]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """60 films in files, nothing planted."""
    folder = tmp_path_factory.mktemp("audit") / "films"
    return make_cxr_phantoms(60, n_classes=3, image_size=96, random_state=5, save_to=folder)


@pytest.mark.parametrize("shortcut", ["border", "brightness"])
def test_what_is_planted_is_named(shortcut):
    data = make_cxr_phantoms(100, n_classes=2, image_size=64, shortcut=shortcut, random_state=100)
    report = audit(data.data, data.target, groups=data.groups)
    assert shortcut in checks(report)
    assert any(shortcut in finding.sentence for finding in report.alarms)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_planted_raises_no_alarm(seed):
    data = make_cxr_phantoms(90, n_classes=2 + seed, image_size=64, random_state=200 + seed)
    report = audit(data.data, data.target, groups=data.groups, source=data.source,
                   split=data.split, frame=data.frame)  # fmt: skip
    assert report.alarms == []


def test_files_without_a_shortcut_raise_no_alarm(phantoms):
    report = audit(phantoms.data, phantoms.target, groups=phantoms.groups, frame=phantoms.frame)
    assert report.alarms == []


def _copies(paths, folder):
    """Each path changed in a way of its own: resized, recompressed, brighter, mirrored."""
    folder.mkdir()
    made = []
    for k, path in enumerate(paths):
        image = Image.open(path).convert("L")
        way = k % 4
        if way == 0:
            image = image.resize((image.width * 3 // 4, image.height * 3 // 4))
        elif way == 2:
            image = image.point(lambda value: min(255, value + 20))
        elif way == 3:
            image = ImageOps.mirror(image)
        made.append(str(folder / f"copy{k:02}.jpg"))
        image.save(made[-1], quality=60 if way == 1 else 92)
    return made


def test_copies_are_found_and_other_films_are_not(phantoms, tmp_path):
    copies = _copies(phantoms.data[::6][:8], tmp_path / "copies")
    report = audit(
        [*phantoms.data, *copies],
        np.concatenate([phantoms.target, phantoms.target[::6][:8]]),
        groups=np.concatenate([phantoms.groups, phantoms.groups[::6][:8]]),
        split=np.repeat(["train", "test"], [60, 8]),
    )
    assert "patients across the split" in checks(report)
    table = report.tables["duplicates"]

    def pairs(rows):
        return {tuple(sorted(map(os.path.basename, pair))) for pair in rows}

    found = pairs(table.iloc[:, :2].itertuples(index=False))
    true = pairs(zip(phantoms.data[::6][:8], copies, strict=True))
    assert len(found & true) >= 0.95 * len(true)
    for first, second in found - true:  # drawings of one patient are nearly the same
        assert first[:8] == second[:8]


def test_the_same_file_twice_is_serious_across_a_split(phantoms, tmp_path):
    twin = tmp_path / "twin.png"
    shutil.copy(phantoms.data[0], twin)
    report = audit(
        [*phantoms.data, str(twin)],
        [*phantoms.target, phantoms.target[0]],
        groups=[*phantoms.groups, "somebody else"],
        split=np.repeat(["train", "test"], [60, 1]),
    )
    finding = next(f for f in report if "duplicates" in f.check)
    assert finding.severity == "serious"
    assert any("twin.png" in item for item in finding.items)


def test_other_collections_are_looked_through(phantoms, tmp_path):
    copies = _copies(phantoms.data[:4], tmp_path / "other")
    report = audit(
        phantoms.data, phantoms.target, groups=phantoms.groups, other={"elsewhere": copies}
    )
    assert any("elsewhere" in finding.sentence for finding in report.alarms)


def test_metadata_that_tells_the_class_is_named(phantoms):
    frame = pd.DataFrame({
        "age": np.where(phantoms.target == "Healthy", 30, 70) + np.arange(60) % 7,
        "ward": np.arange(60) % 3,
    })  # fmt: skip
    source = np.where(phantoms.target == "Healthy", "hospital A", "hospital B")
    report = audit(phantoms.data, phantoms.target, groups=phantoms.groups, source=source,
                   frame=frame)  # fmt: skip
    said = " ".join(finding.sentence for finding in report.alarms)
    assert "Source tells the class" in said
    assert "Age tells the class" in said
    assert "ward" not in said.lower()


def test_lateral_views_in_a_table_are_named(phantoms):
    view = np.full(60, "PA", dtype=object)
    view[np.flatnonzero(phantoms.target == "Viral Pneumonia")[:5]] = "L"
    report = audit(phantoms.data, phantoms.target, groups=phantoms.groups,
                   frame=pd.DataFrame({"view": view}))  # fmt: skip
    assert any("All 5 lateral views are Viral Pneumonia" in f.sentence for f in report)


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_audited(phantoms, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    report = audit([*phantoms.data, str(bad)], [*phantoms.target, "Healthy"],
                   groups=[*phantoms.groups, "x"])  # fmt: skip
    assert any("bad.png" in item for finding in report.alarms for item in finding.items)


def test_groups_that_are_not_given_are_read_from_names(tmp_path):
    data = make_cxr_phantoms(24, n_classes=2, image_size=64, random_state=0, save_to=tmp_path / "d")
    report = audit(data.data, data.target)
    assert any("groups" in finding.sentence for finding in report)


def test_without_the_extra_a_note_names_it(phantoms, monkeypatch):
    import skcxr._fingerprints

    def gone(library, extra):
        raise skcxr.MissingDependencyError(library, extra)

    monkeypatch.setattr(skcxr._fingerprints, "import_optional", gone)
    report = audit(phantoms.data[:20], phantoms.target[:20], groups=phantoms.groups[:20])
    assert any("skcxr[audit]" in finding.sentence for finding in report)


def test_no_labels_and_findings(phantoms):
    assert isinstance(audit(phantoms.data[:20], None, groups=phantoms.groups[:20]), AuditReport)
    y = np.stack([phantoms.target == name for name in phantoms.target_names[:2]], 1).astype(float)
    y[0, 0] = np.nan
    report = audit(phantoms.data, pd.DataFrame(y, columns=phantoms.target_names[:2]),
                   groups=phantoms.groups)  # fmt: skip
    assert report.alarms == []


def test_reports_are_text_tables_pictures_and_escaped_pages(tmp_path):
    findings = [
        Finding("view", "note", "Nothing much."),
        Finding("<b>x</b>", "serious", "<script>alert(1)</script>", {"AUROC": 0.75}, ["a.png"] * 9),
    ]
    report = AuditReport(findings, {"files": pd.DataFrame({"path": ["<i>"]})}, title="<title>")
    assert [finding.severity for finding in report] == ["serious", "note"]
    assert len(report.alarms) == 1
    assert report.to_frame()["severity"].tolist() == ["serious", "note"]
    assert "SERIOUS" in str(report)
    page = report.to_html(tmp_path / "audit.html")
    assert (tmp_path / "audit.html").read_text(encoding="utf-8") == page
    for text in (page, report._repr_html_()):
        assert "<script>" not in text
        assert "<i>" not in text
        assert "&lt;script&gt;" in text
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    assert report.plot(ax=ax) is report
    plt.close(figure)
    with pytest.raises(InputError, match="severity"):
        Finding("x", "terrible", "x")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": ["Healthy"]}, "y"),
        ({"groups": [1, 2]}, "groups"),
        ({"source": ["a"]}, "source"),
        ({"split": ["train"]}, "split"),
        ({"frame": pd.DataFrame({"age": [1]})}, "frame"),
        ({"paths": []}, "empty|no"),
        ({"paths": np.zeros((60, 3))}, "paths must be"),
    ],
)
def test_what_does_not_fit_is_said(phantoms, change, words):
    given = {"paths": phantoms.data, "y": phantoms.target, "groups": phantoms.groups} | change
    with pytest.raises(InputError, match=words):
        audit(given.pop("paths"), given.pop("y"), **given)


def test_the_same_seed_gives_the_same_report(phantoms):
    texts = [str(audit(phantoms.data, phantoms.target, groups=phantoms.groups)) for _ in range(2)]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_real_films_covid4(shared_data):
    table = pd.read_csv(shared_data / "covid4.csv")
    table["path"] = [str(shared_data / "covid4" / path) for path in table["path"]]
    data = load_cxr_table(table, target="finding", groups="patient", source="source")
    report = audit(data.data, data.target, groups=data.groups, source=data.source,
                   frame=table[["age", "sex", "view"]])  # fmt: skip
    said = " ".join(finding.sentence for finding in report.alarms)
    assert "28 of the 79 Bacterial Pneumonia images are of one patient" in said
    assert "All 5 lateral views are Covid-19" in said
    assert "WITHOUT THE LUNGS" in said
    scores = report.tables["scores"]
    assert scores["score"].max() > 0.6
    assert "Source tells the class" in said


@pytest.mark.slow
def test_real_films_adults256(shared_data):
    paths = sorted(map(str, (shared_data / "adults256").glob("*/*")))[::4]
    y = np.array([path.split("/")[-2] for path in paths])
    source = np.array([path.rsplit("/", 1)[1].split("-")[0].split("_")[0] for path in paths])
    with_copies = sorted(map(str, (shared_data / "covid4" / "Covid-19").iterdir()))
    every = sorted(map(str, (shared_data / "adults256" / "Covid-19").iterdir()))
    report = audit(paths, y, groups=np.arange(len(paths)), source=source)
    assert any("Source tells the class" in finding.sentence for finding in report.alarms)
    shared = audit(with_copies, None, groups=np.arange(len(with_copies)), other={"adults": every})
    assert any("adults" in finding.sentence for finding in shared.alarms)
