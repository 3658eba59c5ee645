"""skcxr train, predict and evaluate, as a person or a script uses them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from PIL import Image
from sklearn.metrics import accuracy_score
from typer.testing import CliRunner

from skcxr import CXRClassifier, ImageReadWarning, load_model, make_cxr_phantoms, save_model
from skcxr import cli as command_line

RESEARCH_ONLY = "For research only, not for diagnosis."


def run(*arguments, code=0):
    """The command within this process."""
    result = CliRunner().invoke(command_line.app, list(map(str, arguments)))
    if result.exit_code != code:
        raise AssertionError(result.output) from result.exception
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory, files, images):
    """The bars, two images of each patient, in one folder per class."""
    root = tmp_path_factory.mktemp("commands") / "data"
    for index, (path, label) in enumerate(zip(files, images[1], strict=True)):
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.open(path).save(root / label / f"{index // 4 * 2 + (label == 'v'):08}_{index:03}.png")
    return root


@pytest.fixture(scope="module")
def model(folder):
    """A saved model of these."""
    out = folder.parent / "model"
    run("train", folder, "--out", out, "--epochs", 2, "--image-size", 24)
    return out


@pytest.fixture(scope="module")
def table(folder):
    """The same images in a table, two findings of which one is not always known."""
    paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    frame = pd.DataFrame({
        "file": paths,
        "vertical": [int(Path(path).parts[0] == "v") for path in paths],
        "odd": [k % 2 if k % 3 else np.nan for k in range(len(paths))],
        "who": [f"p{k // 2}" for k in range(len(paths))],
    })  # fmt: skip
    frame.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def test_train_says_what_it_used_and_saves_what_python_would_fit(folder, model):
    paths = sorted(map(str, folder.rglob("*.png")))
    labels = np.array([Path(path).parent.name for path in paths])
    clf = CXRClassifier(max_epochs=2, image_size=24, random_state=0).fit(paths, labels)
    assert np.array_equal(load_model(model).predict_proba(paths), clf.predict_proba(paths))
    result = run("train", folder, "--out", model, "--epochs", 1, "--image-size", 24, "--json")
    told = json.loads(result.stdout)
    assert told["n_images"] == 24
    assert told["n_patients"] == 12
    assert told["n_epochs"] == 1
    assert told["target_names"] == ["h", "v"]
    assert told["note"] == RESEARCH_ONLY
    run("train", folder, "--out", model, "--epochs", 2, "--image-size", 24)


def test_train_goes_on_from_a_checkpoint(folder, tmp_path):
    given = ("train", folder, "--image-size", 24, "--epochs", 2, "--checkpoint", tmp_path / "fit")
    run(*given, "--out", tmp_path / "first")
    kept = sorted(name.name for name in (tmp_path / "fit").iterdir())
    assert [name[:11] for name in kept] == ["epoch-00001", "epoch-00002", "lock"]
    run(*given, "--out", tmp_path / "again")
    paths = sorted(map(str, folder.rglob("*.png")))
    first, again = (load_model(tmp_path / name) for name in ("first", "again"))
    assert np.array_equal(first.predict_proba(paths), again.predict_proba(paths))
    result = run(*given, "--out", tmp_path / "other", "--seed", 1, code=1)
    assert "random_state was 0 and is 1" in str(result.exception)


def test_predict_prints_a_table_and_the_line_about_research(folder, model):
    files = sorted(map(str, (folder / "v").iterdir()))
    result = run("predict", model, *files[:2])
    assert RESEARCH_ONLY in result.output
    for file in files[:2]:
        assert file in result.output


def test_predict_json_and_csv_hold_the_probabilities_of_the_model(folder, model, tmp_path):
    files = sorted(map(str, folder.rglob("*.png")))
    expected = load_model(model).predict_proba(files)
    told = json.loads(run("predict", model, *files, "--json").stdout)
    assert [entry["path"] for entry in told["predictions"]] == files
    proba = [[e["probabilities"][name] for name in "hv"] for e in told["predictions"]]
    assert_allclose(proba, expected)
    run("predict", model, folder, "--csv", tmp_path / "out.csv")  # the same files by their folder
    rows = pd.read_csv(tmp_path / "out.csv")
    assert rows["path"].tolist() == files
    assert_allclose(rows[["probability of h", "probability of v"]], expected)
    assert rows["predicted"].tolist() == [e["predicted"] for e in told["predictions"]]
    assert not list(tmp_path.glob(".*"))


def test_one_bad_file_is_listed_and_is_exit_code_3(folder, model, tmp_path):
    good, bad = next((folder / "v").iterdir()), tmp_path / "gone.png"
    result = run("predict", model, good, bad, code=3)
    assert f"not read: {bad}: there is no such file" in result.output
    told = json.loads(run("predict", model, good, bad, "--json", code=3).stdout)
    assert told["predictions"][0]["error"] is None
    assert told["predictions"][1]["error"] == "there is no such file"
    assert told["predictions"][1]["predicted"] is None
    run("predict", model, good, bad, "--csv", tmp_path / "out.csv", code=3)
    with open(tmp_path / "out.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["predicted"] == rows[1]["probability of v"] == ""


def test_evaluate_scores_all_or_the_test_split(folder, model, tmp_path):
    told = json.loads(run("evaluate", model, folder, "--json").stdout)
    clf = load_model(model)
    paths = sorted(map(str, folder.rglob("*.png")))
    truth = [Path(path).parent.name for path in paths]
    assert told["accuracy"] == accuracy_score(truth, clf.predict(paths))
    low, high = told["accuracy_interval_95"]
    assert low <= told["accuracy"] <= high
    assert np.sum(told["confusion_matrix"]) == told["n_images"] == 24
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for name in "hv":
            (tmp_path / split / name).mkdir()
            for path in sorted((folder / name).iterdir())[:: 1 if split == "train" else 3]:
                (tmp_path / split / name / path.name).write_bytes(path.read_bytes())
    result = run("evaluate", model, tmp_path)
    assert "8 images of the test split" in result.output
    assert "precision" in result.output
    assert RESEARCH_ONLY in result.output
    result = run("train", tmp_path, "--out", tmp_path / "m", "--epochs", 1, "--image-size", 24)
    assert "8 images of the test split are left out" in result.output


def test_a_table_of_findings(table, tmp_path):
    columns = ["--path", "file", "--target", "vertical", "--target", "odd", "--groups", "who"]
    out = tmp_path / "model"
    run("train", table, "--out", out, *columns, "--epochs", 1, "--image-size", 24)
    assert load_model(out).findings_.tolist() == ["vertical", "odd"]
    told = json.loads(run("evaluate", out, table, *columns, "--json").stdout)
    assert told["findings"]["vertical"]["n_labelled"] == 24
    assert told["findings"]["odd"]["n_labelled"] == 16
    assert 0 <= told["findings"]["odd"]["roc_auc"] <= 1
    file = str(next(table.parent.rglob("*.png")))
    told = json.loads(run("predict", out, file, "--json").stdout)
    assert set(told["predictions"][0]["probabilities"]) == {"vertical", "odd"}
    assert "predicted" not in told["predictions"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "{folder}", "--out", "{folder}"], "no saved"),
        (["train", "{folder}", "--out", "x", "--target", "finding"], "no table"),
        (["train", "{table}", "--out", "x", "--path", "nope"], "nope"),
        (["predict", "{folder}", "{table}"], "cannot load the model"),
        (["predict", "{model}", "{empty}"], "holds no file"),
        (["evaluate", "{model}", "{other}"], "which the model does not know"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_1(
    arguments, words, folder, table, model, tmp_path, monkeypatch, capsys
):
    (tmp_path / "empty").mkdir()
    for name in ("left", "right"):
        (tmp_path / "other" / name).mkdir(parents=True)
        for k in range(2):
            image = Image.open(next((folder / "v").iterdir()))
            image.save(tmp_path / "other" / name / f"0000000{name == 'left':d}_00{k}.png")
    places = {
        "folder": folder, "table": table, "model": model, "empty": tmp_path / "empty",
        "other": tmp_path / "other",
    }  # fmt: skip
    monkeypatch.setattr("sys.argv", ["skcxr", *(a.format(**places) for a in arguments)])
    with pytest.raises(SystemExit) as exit_:
        command_line.main()
    error = capsys.readouterr().err
    assert exit_.value.code == 1
    assert error.splitlines()[-1].startswith("skcxr: error: ")
    assert words in error
    assert "Traceback" not in error


def test_a_model_that_python_has_saved_is_predicted_with(files, images, tmp_path):
    clf = CXRClassifier("smallnet", image_size=16, max_epochs=1, random_state=0)
    path = save_model(clf.fit(files, (images[1] == "v").astype(int)), tmp_path / "m")
    told = json.loads(run("predict", path, files[0], "--json").stdout)
    assert told["predictions"][0]["predicted"] in {"0", "1"}
    assert issubclass(ImageReadWarning, UserWarning)


def test_evaluate_writes_a_report(folder, model, tmp_path):
    page = tmp_path / "report.html"
    result = run("evaluate", model, folder, "--report", page, "--json")
    document = json.loads(result.stdout)
    assert document["report"] == str(page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert f"{document['accuracy']:.3f}" in text
    assert RESEARCH_ONLY in text
    run("evaluate", model, folder, "--report", tmp_path, code=1)
    run("evaluate", model, folder, "--report", tmp_path / "gone" / "report.html", code=1)


def test_audit_finds_a_planted_border(tmp_path):
    make_cxr_phantoms(
        48, n_classes=2, image_size=64, shortcut="border", random_state=0, save_to=tmp_path / "data"
    )
    page = tmp_path / "audit.html"
    result = run("audit", tmp_path / "data", "--report", page, "--json")
    document = json.loads(result.stdout)
    assert document["n_images"] == 48
    assert "border" in [finding["check"] for finding in document["findings"]]
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert "SERIOUS  border" in run("audit", tmp_path / "data").stdout
