"""The benchmark of accuracy: what it draws, keeps, resumes and computes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    roc_auc_score,
)
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skcxr import InputError, make_cxr_phantoms

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "accuracy.py"


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    """The script, read from its file: sys.path stays as it is, and so does what is tested."""
    if not FILE.is_file():
        pytest.skip("the benchmarks stand in the source tree only, and these tests outside of it")
    spec = importlib.util.spec_from_file_location("_skcxr_benchmark_accuracy", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the benchmark wants it, of small drawn images."""
    root = tmp_path_factory.mktemp("data")
    drawn = make_cxr_phantoms(24, image_size=32, random_state=0, save_to=root / "covid4")
    table = {"path": drawn.data, "finding": drawn.target, "patient": drawn.groups}
    pd.DataFrame(table).to_csv(root / "covid4.csv", index=False)
    rng = np.random.default_rng(0)
    names = [f"NORMAL/IM-{i:04}-0001.jpeg" for i in range(20)]
    for cause, most in (("bacteria", 5), ("virus", 3)):
        for person in range(10):
            files = range(1 + person % most)
            names += [f"PNEUMONIA/person{person}_{cause}_{n}.jpeg" for n in files]
    for name in names:
        path = root / "kermany224" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
    (root / "pneumoniamnist").mkdir()
    labels = np.arange(30)[:, None] % 3 // 2
    images = (rng.integers(0, 100, (30, 28, 28)) + 100 * labels[:, :, None]).astype(np.uint8)
    np.savez(
        root / "pneumoniamnist" / "pneumoniamnist_trainval.npz",
        train_images=images[:20], val_images=images[20:],
        train_labels=labels[:20], val_labels=labels[20:],
    )  # fmt: skip
    return root


class Counted(DummyClassifier):
    """Fits at once, and counts."""

    fits = 0
    stop_at = None

    def fit(self, X, y):
        """Fit, or stop as Ctrl-C does."""
        if Counted.fits == Counted.stop_at:
            raise KeyboardInterrupt
        Counted.fits += 1
        return super().fit(X, y)


def stub(train, seed, weights, memory):
    return Counted(strategy="prior")


def linear(train, seed, weights, memory):
    pixels = FunctionTransformer(lambda images: images.reshape(len(images), -1) / 255)
    return make_pipeline(pixels, LogisticRegression(C=0.001))


def cautious(train, seed, weights, memory):
    return FixedThresholdClassifier(linear(train, seed, weights, memory), threshold=0.999)


def refused(train, seed, weights, memory):
    raise InputError("no such images")


@pytest.fixture
def stubs(accuracy, monkeypatch):
    """Only stub methods, and no fit counted yet."""
    methods = {"stub": stub, "refused": refused}
    monkeypatch.setattr(accuracy, "METHODS", methods)
    monkeypatch.setattr(Counted, "fits", 0)
    monkeypatch.setattr(Counted, "stop_at", None)
    return methods


def run(accuracy, data, out, *more, task="covid4"):
    accuracy.main(
        [str(data), "--tasks", task, "--repeats", "2", "--folds", "3", "--out", str(out), *more]
    )


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "units").rglob("*") if path.is_file())


def probabilities(n_classes: int, n: int = 90) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, coarse probabilities with many ties, and patients of one to five images."""
    rng = np.random.default_rng(n_classes)
    y = np.arange(n) % n_classes
    proba = rng.integers(1, 6, (n, n_classes)) + 2.0 * (y[:, None] == np.arange(n_classes))
    groups = np.repeat(np.arange(n), rng.integers(1, 6, n))[:n].astype(str)
    return y, proba / proba.sum(1, keepdims=True), groups


def test_tasks_have_labels_and_patients(accuracy, data):
    tasks = {name: load(data) for name, load in accuracy.TASKS.items()}
    assert len(set(tasks["covid4"].target)) == 4
    assert len(set(tasks["covid4"].groups)) == 8
    assert set(tasks["kermany3"].target) == {"normal", "bacteria", "virus"}
    assert set(tasks["kermany2"].target) == {"normal", "pneumonia"}
    assert len(set(tasks["kermany3"].groups)) == 40
    assert tasks["pneumoniamnist"].unit == "images"
    assert len(set(tasks["pneumoniamnist"].groups)) == 30


@pytest.mark.parametrize("name", ["kermany3", "kermany2"])
def test_limit_keeps_whole_patients_and_the_classes(accuracy, data, name):
    whole = accuracy.TASKS[name](data)
    part = accuracy.limited(whole, 30)
    assert abs(len(part.target) - 30) <= 6
    assert len(part.data) == len(part.target) == len(part.groups)
    for patient in set(part.groups):
        assert (part.groups == patient).sum() == (whole.groups == patient).sum()
    for label in set(whole.target):
        share = (whole.target == label).mean()
        assert (part.target == label).mean() == pytest.approx(share, abs=0.1)
    assert accuracy.limited(whole, 30).data == part.data
    assert accuracy.limited(whole, 1000) is whole


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("drawn", [0, 7], ids=["as it is", "a resample"])
def test_scores_are_those_of_scikit_learn(accuracy, n_classes, drawn):
    y, proba, groups = probabilities(n_classes)
    weights = accuracy.resamples(groups, 10)
    predicted = np.where(proba[:, 1] > 0.3, 1, proba.argmax(1))  # as with a threshold of its own
    scores = accuracy.scores(y, predicted, proba, weights)
    found = {name: row[drawn] for name, row in scores.items()}
    of = {"sample_weight": weights[drawn]}
    score = proba[:, 1] if n_classes == 2 else proba
    assert found == pytest.approx(
        {
            "accuracy": accuracy_score(y, predicted, **of),
            "balanced accuracy": balanced_accuracy_score(y, predicted, **of),
            "macro F1": f1_score(y, predicted, average="macro", **of),
            "AUROC": roc_auc_score(y, score, multi_class="ovr", **of),
            "log loss": log_loss(y, proba, **of),
            "Brier": brier_score_loss(y, score, **of),
        }
    )


def test_a_class_that_is_not_drawn_has_no_area_under_its_curve(accuracy):
    y, proba, _ = probabilities(2)
    weights = np.array([np.ones(len(y)), y == 0])
    found = accuracy.scores(y, proba.argmax(1), proba, weights)
    assert np.isnan(found["AUROC"][1])
    assert np.isfinite(found["accuracy"]).all()


def test_resamples_draw_whole_patients(accuracy):
    groups = probabilities(2)[2]
    weights = accuracy.resamples(groups, 20)
    assert (weights[0] == 1).all()
    for patient in set(groups):
        of_patient = weights[:, groups == patient]
        assert (of_patient == of_patient[:, :1]).all()
    first = np.unique(groups, return_index=True)[1]
    assert (weights[:, first].sum(1) == len(first)).all()


def test_intervals_hold_the_score_of_the_data(accuracy):
    y, proba, groups = probabilities(3)
    weights = accuracy.resamples(groups)
    for name, values in accuracy.scores(y, proba.argmax(1), proba, weights).items():
        cell = accuracy.interval(values)
        low, high = cell["interval"]
        assert low < cell["value"] < high, name


def test_a_second_run_fits_nothing(accuracy, data, tmp_path, stubs, capsys):
    run(accuracy, data, tmp_path)
    assert Counted.fits == 6
    first = json.loads((tmp_path / "accuracy.json").read_text())
    files = written(tmp_path)
    run(accuracy, data, tmp_path)
    assert Counted.fits == 6
    assert written(tmp_path) == files
    assert json.loads((tmp_path / "accuracy.json").read_text()) == first
    assert "refused: left out, no such images" in capsys.readouterr().out


def test_other_settings_are_other_units(accuracy, data, tmp_path, stubs):
    run(accuracy, data, tmp_path)
    stubs["stub"] = lambda *given: Counted(strategy="stratified", random_state=0)
    run(accuracy, data, tmp_path)
    assert Counted.fits == 12
    run(accuracy, data, tmp_path, "--limit", "16")
    assert Counted.fits == 18
    entry = json.loads((tmp_path / "accuracy.json").read_text())["covid4"]
    assert entry["all images"] == 24
    assert entry["images"] < 24


def test_an_interrupted_run_goes_on(accuracy, data, tmp_path, stubs, monkeypatch):
    monkeypatch.setattr(Counted, "stop_at", 4)
    with pytest.raises(KeyboardInterrupt):
        run(accuracy, data, tmp_path)
    assert len(written(tmp_path)) == 4
    accuracy.main(["--report-only", "--out", str(tmp_path)])  # the repeat that is complete
    entry = json.loads((tmp_path / "accuracy.json").read_text())["covid4"]
    assert entry["methods"]["stub"]["repeats"] == 1
    monkeypatch.setattr(Counted, "stop_at", None)
    run(accuracy, data, tmp_path)
    assert Counted.fits == 6


def test_a_write_that_is_interrupted_leaves_nothing(accuracy, tmp_path):
    def half(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accuracy.write(tmp_path / "unit.npz", half)
    assert list(tmp_path.iterdir()) == []
    accuracy.write(tmp_path / "unit.npz", lambda file: file.write(b"whole"))
    with pytest.raises(KeyboardInterrupt):
        accuracy.write(tmp_path / "unit.npz", half)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


def test_the_report_pools_the_folds(accuracy, data, tmp_path, stubs):
    stubs[accuracy.REFERENCE] = stubs.pop("stub")
    stubs["linear"] = linear
    run(accuracy, data, tmp_path, task="pneumoniamnist")
    entry = json.loads((tmp_path / "accuracy.json").read_text())["pneumoniamnist"]
    found, wanted = entry["methods"]["linear"], []
    folder = tmp_path / "units" / "pneumoniamnist" / "linear"
    for repeat in range(2):
        parts = [dict(np.load(path)) for path in folder.glob(f"r{repeat}f*")]
        index = np.concatenate([part["index"] for part in parts])
        assert sorted(index) == list(range(30))
        target = np.concatenate([part["target"] for part in parts])
        score = np.concatenate([part["proba"][:, 1] for part in parts])
        wanted.append(roc_auc_score(target == "pneumonia", score))
    assert found["AUROC"]["value"] == pytest.approx(np.mean(wanted))
    reference = entry["methods"][accuracy.REFERENCE]
    assert found["gain"]["value"] == pytest.approx(
        found["accuracy"]["value"] - reference["accuracy"]["value"]
    )
    assert "gain" not in reference
    table = (tmp_path / "accuracy.md").read_text()
    assert "their patients are not known" in table
    assert accuracy.CAUTION in table
    assert str(data) not in table
    with Image.open(tmp_path / "accuracy.png") as picture:
        assert min(picture.size) > 100


def test_what_predict_says_is_scored(accuracy, data, tmp_path, stubs):
    stubs.update({"linear": linear, "cautious": cautious})
    run(accuracy, data, tmp_path, task="pneumoniamnist")
    found = json.loads((tmp_path / "accuracy.json").read_text())["pneumoniamnist"]["methods"]
    assert found["cautious"]["accuracy"]["value"] == pytest.approx(20 / 30)  # all are "normal"
    assert found["cautious"]["AUROC"] == found["linear"]["AUROC"]


def test_later_runs_join_the_table(accuracy, data, tmp_path, stubs):
    run(accuracy, data, tmp_path, "--methods", "stub")
    run(accuracy, data, tmp_path, "--methods", "stub", task="kermany3")
    stubs["linear"] = linear
    run(accuracy, data, tmp_path, "--methods", "linear", task="pneumoniamnist")
    run(accuracy, data, tmp_path, "--methods", "stub", task="pneumoniamnist")
    record = json.loads((tmp_path / "accuracy.json").read_text())
    assert list(record) == ["covid4", "kermany3", "pneumoniamnist"]
    assert list(record["pneumoniamnist"]["methods"]) == ["stub", "linear"]


@pytest.mark.parametrize("method", ["file metadata + forest", "PCA + SVC"])
def test_the_plain_methods_fit(accuracy, data, tmp_path, method):
    task = accuracy.TASKS["kermany2"](data)
    model = accuracy.METHODS[method](task, 0, None, str(tmp_path))
    proba = model.fit(task.data, task.target).predict_proba(task.data)
    assert proba.shape == (len(task.data), 2)


def test_a_method_says_why_it_is_left_out(accuracy, data, tmp_path):
    task = accuracy.TASKS["pneumoniamnist"](data)
    with pytest.raises(accuracy.LeftOutError, match="no files"):
        accuracy.METHODS["file metadata + forest"](task, 0, None, str(tmp_path))
    with pytest.raises(accuracy.LeftOutError, match="--weights"):
        accuracy.METHODS["fine-tuned"](task, 0, None, str(tmp_path))


def test_the_name_of_a_unit_does_not_depend_on_where_things_lie(accuracy):
    def described(weights, memory):
        model = accuracy.CXRClassifier(weights=weights, memory=memory, random_state=0)
        return accuracy.settings(make_pipeline(model), {weights: "digest"})

    assert described("/a/w.safetensors", "/a/m") == described("/b/w.safetensors", "/b/m")
    assert "weights=digest" in described("/a/w.safetensors", None)


def test_a_recipe_is_given_what_its_signature_takes(accuracy):
    def few(data, *, random_state=None):
        return data, random_state

    def strong(data, *, weights, memory=None):
        return data, weights, memory

    assert accuracy.recipe(few)("task", 3, None, "folder") == ("task", 3)
    assert accuracy.recipe(strong)("task", 3, "w", "folder") == ("task", "w", "folder")
    with pytest.raises(accuracy.LeftOutError):
        accuracy.recipe(strong)("task", 3, None, "folder")
