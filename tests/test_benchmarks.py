"""The suite of benchmarks, and that of accuracy: what they draw, keep, resume and compute."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
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


# ---------------------------------------------------------------------------------------------
# the suite: python -m benchmarks
# ---------------------------------------------------------------------------------------------

SOURCE = FILE.parent


@pytest.fixture(scope="module")
def suite() -> Iterator[SimpleNamespace]:
    """The package of the suite, without a path that leads to it: `_suite` and `__main__`."""
    if not (SOURCE / "__main__.py").is_file():
        pytest.skip("the benchmarks stand in the source tree only, and these tests outside of it")
    before = {name: module for name, module in sys.modules.items() if _of_suite(name)}
    for name in before:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        "benchmarks", SOURCE / "__init__.py", submodule_search_locations=[str(SOURCE)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["benchmarks"] = package
    spec.loader.exec_module(package)
    yield SimpleNamespace(
        frame=importlib.import_module("benchmarks._suite"),
        door=importlib.import_module("benchmarks.__main__"),
    )
    for name in [name for name in sys.modules if _of_suite(name)]:
        del sys.modules[name]
    sys.modules.update(before)


def _of_suite(name: str) -> bool:
    return name == "benchmarks" or name.startswith("benchmarks.")


class Fake:
    """A benchmark that knows its lines."""

    def __init__(self, *lines, error=None):
        self.__doc__ = "A benchmark that knows its lines.\n\nMore.\n"
        self.lines, self.error, self.asked = lines, error, []

    def run(self, options):
        self.asked.append((options, torch.get_num_threads()))
        yield from self.lines
        if self.error is not None:
            raise self.error


def fakes(suite):
    """Two benchmarks: of two peers, one of them slower than its bar; and of one not installed."""
    result, missing = suite.frame.result, suite.frame.Missing
    fast = result("loading", "decode", "Pillow | by hand", [1.0, 1.0], [2.0, 3.0], "1.00 s",
                  "2.50 s", bar=1.5)  # fmt: skip
    slow = result("loading", "decode", "cv2", [1.0, 2.0], [0.5, 1.0], "1.50 s", "0.75 s", bar=0.9,
                  note="a note")  # fmt: skip
    return {
        "loading": Fake(fast, slow),
        "inference": Fake(missing("inference", "a network", "fastai", 'pip install ".[peers]"')),
    }


def test_the_ratio_is_that_of_pairs_with_its_quartiles(suite):
    line = suite.frame.result("b", "w", "p", [1, 2, 4, 8], [2, 8, 4, 80], "", "", bar=2.9)
    assert line.ratio == pytest.approx(tuple(np.quantile([2, 4, 1, 10], [0.25, 0.5, 0.75])))
    assert (line.n, line.verdict) == (4, "met")
    assert dataclasses.replace(line, bar=3.1).verdict == "MISSED"
    assert dataclasses.replace(line, bar=None).verdict == ""


def test_all_run_in_turn_and_each_is_the_first_as_often(suite):
    order = []
    calls = {name: partial(order.append, name) for name in ("ours", "a", "b")}
    ours, peers = suite.frame.paired(calls.pop("ours"), calls, 3)
    assert len(ours) == 3
    assert {name: len(seconds) for name, seconds in peers.items()} == {"a": 3, "b": 3}
    assert order[:3] == ["ours", "a", "b"]  # unmeasured
    rounds = [order[k : k + 3] for k in (3, 6, 9)]
    assert [turn[0] for turn in rounds] == ["ours", "a", "b"]
    assert all(sorted(turn) == ["a", "b", "ours"] for turn in rounds)


def test_figures_are_a_second_or_seconds(suite, monkeypatch):
    seconds = iter([2.0, 4.0, 4.0, 2.0])
    monkeypatch.setattr(suite.frame, "_seconds", lambda call: (call(), next(seconds))[1])
    (line,) = suite.frame.compare(
        "b", "w", lambda: None, {"p": lambda: None}, 2, per=100, bars={"p": 2.0}
    )
    assert (line.ours, line.theirs) == ("50.0 images/s", "25.0 images/s")
    assert line.ratio == (2.0, 2.0, 2.0)
    assert line.bar == 2.0
    assert line.raw == ((2.0, 2.0), (4.0, 4.0))
    assert suite.frame.figure(0.0123, "s") == "12.3 ms"


def test_films_begin_anew_where_there_are_fewer(suite, tmp_path):
    make_cxr_phantoms(8, image_size=32, random_state=0, save_to=tmp_path / "data")
    paths, labels = suite.frame.films(suite.frame.Options(data=tmp_path / "data"), 19)
    assert len(paths) == len(labels) == 19
    assert len(set(paths)) == 8
    assert paths[8:16] == paths[:8]
    assert [Path(path).parent.name for path in paths] == labels.tolist()
    assert len(set(labels[:4])) == 4


def test_films_are_drawn_without_data(suite):
    paths, labels = suite.frame.films(suite.frame.Options(quick=True), 20, size=32)
    assert len(set(paths)) == 20
    assert len(set(labels[:4])) == 4
    with Image.open(paths[19]) as copy, Image.open(paths[3]) as drawn:
        assert copy.format == "JPEG"
        assert copy.size == (32, 32)
        assert (np.asarray(copy) == np.asarray(drawn)).all()
    assert labels[19] == labels[3]


def test_the_suite_shows_lines_and_bars(suite, capsys):
    assert suite.door.main(["--threads", "1"], fakes(suite)) == 0
    said = capsys.readouterr().out
    assert "2.50x (2.25 to 2.75)  Pillow | by hand: 2.50 s, skcxr 1.00 s; 2 pairs  bar 1.5 met" in (
        said
    )
    assert "0.50x (0.50 to 0.50)  cv2: 0.75 s, skcxr 1.50 s; 2 pairs; a note  bar 0.9 MISSED" in (
        said
    )
    assert 'not measured: fastai: pip install ".[peers]"' in said
    assert f"torch {torch.__version__.partition('+')[0]}" in said


def test_a_smoke_run_judges_nothing(suite, capsys):
    suite.door.main(["loading", "--quick"], fakes(suite))
    assert "bar" not in capsys.readouterr().out


def test_options_reach_the_benchmark(suite, tmp_path):
    known, before = fakes(suite), torch.get_num_threads()
    given = [
        "--quick",
        "--data",
        str(tmp_path),
        "--weights",
        "w",
        "--threads",
        "2",
        "--repeat",
        "3",
    ]
    suite.door.main(["loading", *given], known)
    ((options, threads),) = known["loading"].asked
    assert options == suite.frame.Options(True, tmp_path, "w", "cpu", 2, 3)
    assert threads == 2
    assert torch.get_num_threads() == before
    assert known["inference"].asked == []


def test_one_that_fails_does_not_take_the_others_along(suite, tmp_path, capsys):
    known = {
        "loading": Fake(*fakes(suite)["loading"].lines, error=OSError("disk full")),
        "search": Fake("no line"),
        "inference": fakes(suite)["inference"],
    }
    assert suite.door.main(["--out", str(tmp_path)], known) == 1
    said = capsys.readouterr()
    assert "ERROR loading: OSError" in said.out
    assert "ERROR search: TypeError" in said.out
    assert "disk full" in said.err
    assert "failed: loading, search" in said.out
    assert list(json.loads((tmp_path / "results.json").read_text())["runs"]) == ["inference"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no benchmark is called nothing; there are loading, inference"),
        (["--repeat", "0"], "--repeat must be 1 or more, got 0"),
        (["--data", "nowhere"], "nowhere is no folder"),
    ],
)
def test_what_cannot_be_run_is_said(suite, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        suite.door.main(arguments, fakes(suite))
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_later_runs_join_the_results_of_the_machine(suite, tmp_path):
    known = fakes(suite)
    suite.door.main(["inference", "--out", str(tmp_path)], known)
    suite.door.main(["loading", "--out", str(tmp_path)], known)
    suite.door.main(["inference", "--quick", "--out", str(tmp_path)], known)
    record = suite.door.Record(tmp_path, suite.frame.machine())
    assert [name for name, _, _ in record.runs()] == ["loading", "inference"]  # the suite's order
    assert [run["quick"] for _, run, _ in record.runs()] == [False, True]
    assert tuple(record.runs()[0][2]) == known["loading"].lines
    assert tuple(record.runs()[1][2]) == known["inference"].lines


def test_results_of_another_machine_are_not_mixed(suite, tmp_path):
    known = fakes(suite)
    suite.door.main(["loading", "--out", str(tmp_path)], known)
    file = tmp_path / "results.json"
    content = json.loads(file.read_text())
    content["machine"]["processor"] = "another"
    file.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="processor was 'another'"):
        suite.door.main(["inference", "--out", str(tmp_path)], known)
    assert json.loads(file.read_text()) == content
    assert known["inference"].asked == []


def test_tables_and_the_picture_show_every_line(suite, tmp_path):
    suite.door.main(["--out", str(tmp_path)], fakes(suite))
    table = (tmp_path / "RESULTS.md").read_text()
    assert "| decode | Pillow \\| by hand | 2.50x (2.25 to 2.75) | 1.5 met | 1.00 s |" in table
    assert '| a network | fastai | not measured |  |  | pip install ".[peers]" |  |' in table
    rows = pd.read_csv(tmp_path / "benchmarks.csv", keep_default_na=False)
    assert rows["against"].tolist() == ["Pillow | by hand", "cv2", "fastai"]
    assert rows["bar"].tolist() == ["1.5 met", "0.9 MISSED", ""]
    assert not list(tmp_path.glob(".*"))
    with Image.open(tmp_path / "benchmarks.png") as picture:
        assert min(picture.size) > 100


def test_a_benchmark_is_listed_with_what_it_is(suite, capsys):
    assert suite.door.main(["--list"], fakes(suite)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["loading", "inference"]
    assert lines[0].endswith("A benchmark that knows its lines.")


def test_every_benchmark_says_what_it_compares(suite):
    for name in suite.door.SUITE:
        module = importlib.import_module(f"benchmarks.{name}")
        assert len(module.__doc__.strip().splitlines()) > 1, name
        assert list(inspect.signature(module.run).parameters) == ["options"], name


def test_peak_memory_is_that_of_the_process_alone(suite):
    memory = importlib.import_module("benchmarks.memory")
    held = np.ones(2**25)  # 256 MiB here must not be seen there
    few, many = (
        memory.peak(f"held = b'x' * {n} * 2**20", options=suite.frame.Options()) for n in (1, 201)
    )
    assert few < held.nbytes / 2**20
    assert many - few == pytest.approx(200, abs=20)


@pytest.mark.slow
def test_the_command_runs(suite, tmp_path):
    command = [sys.executable, "-m", "benchmarks", "growth", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=SOURCE.parent, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same with 200 files") == 3
    assert (tmp_path / "benchmarks.png").is_file()
