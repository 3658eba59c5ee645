"""`shortcut_report`: what a model reads is named, and nothing else; X, files and state stay."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skcxr import ImageLoader, ImageReadError, InputError, make_cxr_phantoms
from skcxr.audit import AuditReport, ShortcutReport, shortcut_report

SIDE, N = 32, 60
QUICK = {"n_resamples": 200, "progress": False}
PARTS = {"border", "corners", "outside the lungs", "brightness"}
FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "shortcuts.py"


def gray(X):
    """Films (n, SIDE, SIDE) from 0 to 1, of whatever X is."""
    if isinstance(X, pd.DataFrame | pd.Series):
        X = X.to_numpy().ravel()
    if isinstance(X[0], str | Path):
        X = np.stack([np.asarray(Image.open(path).convert("L")) for path in X])
    X = np.asarray(X)
    scale = 255 if X.dtype == np.uint8 else 1
    if X.ndim == 4:
        X = X[:, 0] if X.shape[1] in (1, 3) else X[..., 0]
    return X.reshape(-1, SIDE, SIDE) / scale


class Reads(ClassifierMixin, BaseEstimator):
    """A classifier that knows the mean of one region, and nothing else."""

    REGIONS: ClassVar = {
        "corner": (slice(0, 4), slice(0, 4)),
        "top": (slice(0, 1), slice(8, 24)),
        "centre": (slice(12, 20), slice(12, 20)),
        "all": (slice(None), slice(None)),
    }

    def __init__(self, region="corner", threshold=0.5):
        self.region, self.threshold = region, threshold
        self.classes_ = np.array(["ill", "well"])

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, X):
        value = gray(X)[:, *self.REGIONS[self.region]].mean(axis=(1, 2))
        p = 1 / (1 + np.exp(-40 * (value - self.threshold)))
        return np.column_stack([1 - p, p])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class OnlyPredicts(BaseEstimator):
    """The same without scores."""

    def __init__(self, region="corner"):
        self.region = region

    def predict(self, X):
        return Reads(self.region).predict(X)


def films(region, n=N, seed=0):
    """Noise whose mean in one region gives the class."""
    rng = np.random.default_rng(seed)
    y = np.array(["ill", "well"])[np.arange(n) % 2]
    X = rng.normal(0.5, 0.05, (n, SIDE, SIDE))
    shift = np.where(y == "well", 0.12, -0.12)[:, None, None]
    X[:, *Reads.REGIONS[region]] += shift
    return np.rint(255 * X.clip(0, 1)).astype(np.uint8), y


def saved(X, folder):
    paths = [folder / f"film{i:03d}.png" for i in range(len(X))]
    for film, path in zip(X, paths, strict=True):
        Image.fromarray(film).save(path)
    return paths


def parts_of(report):
    return {finding.check for finding in report.alarms} & PARTS


# ------------------------------------------------------------------------- what is read is named


@pytest.mark.parametrize(
    ("region", "named"),
    [("corner", "corners"), ("top", "border"), ("all", "brightness"), ("centre", None)],
)
def test_a_model_that_reads_one_part_is_told_so(region, named):
    X, y = films(region)
    report = shortcut_report(Reads(region), X, y, **QUICK)
    assert isinstance(report, ShortcutReport)
    assert isinstance(report, AuditReport)
    found = parts_of(report)
    if named is None:
        assert report.alarms == []
    else:
        # what lies in the border or the corners lies outside the lungs as well
        assert named in found
        assert found <= {named, "outside the lungs"}
    assert report.tables["scores"].iloc[0].score > 0.95


def test_a_share_is_all_of_it_for_the_corner_and_none_for_the_centre():
    for region, expected in (("corner", 1.0), ("centre", 0.0)):
        X, y = films(region)
        swaps = shortcut_report(Reads(region), X, y, **QUICK).tables["swaps"]
        share = swaps[(swaps.part == "corners") & (swaps.label == "all")].share.item()
        assert share == pytest.approx(expected, abs=0.05)


def test_a_model_at_chance_raises_no_alarm():
    X, _ = films("corner")
    y = np.random.default_rng(1).permutation(np.repeat(["ill", "well"], N // 2))
    report = shortcut_report(Reads("corner"), X, y, **QUICK)
    assert report.alarms == []
    assert (
        "no better than chance" in next(f for f in report.findings if f.check == "score").sentence
    )


def test_predict_alone_is_enough():
    X, y = films("corner")
    assert "corners" in parts_of(shortcut_report(OnlyPredicts("corner"), X, y, **QUICK))
    X, y = films("centre")
    assert shortcut_report(OnlyPredicts("centre"), X, y, **QUICK).alarms == []


@pytest.mark.parametrize(("shortcut", "named"), [("marker", "corners"), ("border", "border")])
def test_planted_in_phantoms(shortcut, named):
    data = make_cxr_phantoms(120, n_classes=2, image_size=32, shortcut=shortcut, random_state=3)
    X = data.data.reshape(120, -1) / 255
    model = LogisticRegression(C=0.01, max_iter=2000).fit(X[::2], data.target[::2])
    report = shortcut_report(
        model, X[1::2], data.target[1::2], groups=data.groups[1::2], **QUICK
    )  # fmt: skip
    assert named in parts_of(report)


def test_few_patients_are_mentioned():
    X, y = films("corner", 16)
    report = shortcut_report(Reads("corner"), X, y, groups=np.arange(16) % 4, **QUICK)
    assert any(f.check == "patients" and f.severity == "note" for f in report.findings)


# ------------------------------------------------------------------------------- all kinds of X


def test_every_kind_of_input_gives_the_same(tmp_path):
    X, y = films("corner", 24)
    paths = saved(X, tmp_path)
    kinds = {
        "pictures": X,
        "channel first": X[:, None],
        "channel last": X[..., None],
        "rows": X.reshape(len(X), -1),
        "paths": paths,
        "strings": [str(path) for path in paths],
        "Series": pd.Series([str(path) for path in paths]),
        "DataFrame": pd.DataFrame({"path": [str(path) for path in paths]}),
    }
    tables = {
        name: shortcut_report(Reads("corner"), kind, y, groups=np.arange(24), **QUICK).tables
        for name, kind in kinds.items()
    }
    for name, found in tables.items():
        for table in ("scores", "classes", "swaps"):
            expected = tables["pictures"][table]
            # the mean film of files is made at another size, so what is masked differs a little
            loose = ["paths", "strings", "Series", "DataFrame"]
            if name in loose and table != "swaps":
                expected, found[table] = expected[:1], found[table][:1]
            pd.testing.assert_frame_equal(found[table], expected, rtol=1e-6, obj=f"{name} {table}")


def test_a_pipeline_with_image_loader(tmp_path):
    X, y = films("corner")
    paths = saved(X, tmp_path)
    model = make_pipeline(
        ImageLoader(SIDE, output="rows"), LogisticRegression(), memory=str(tmp_path / "kept")
    ).fit(paths[:30], y[:30])
    before = sorted((tmp_path / "kept").rglob("*"))
    report = shortcut_report(model, paths[30:], y[30:], **QUICK)
    assert "corners" in parts_of(report)
    assert sorted((tmp_path / "kept").rglob("*")) == before  # changed films fill no cache
    assert model.memory == str(tmp_path / "kept")


def test_channels_of_colour():
    X, y = films("corner", 24)
    colour = np.repeat(X[:, None], 3, axis=1)
    plain = shortcut_report(Reads("corner"), X, y, **QUICK).tables["swaps"]
    pd.testing.assert_frame_equal(
        shortcut_report(Reads("corner"), colour, y, **QUICK).tables["swaps"], plain
    )


# ---------------------------------------------------------------------------- nothing is changed


class Fails(Reads):
    """Fails at changed films."""

    def predict_proba(self, X):
        if "skcxr-" in str(X[0]):
            raise RuntimeError("no")
        return super().predict_proba(X)


def test_files_stay_and_temporary_ones_go(tmp_path, monkeypatch):
    data, temporary = tmp_path / "data", tmp_path / "temporary"
    data.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    X, y = films("corner", 16)
    paths = saved(X, data)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    shortcut_report(Reads("corner"), paths, y, **QUICK)
    assert list(temporary.iterdir()) == []
    with pytest.raises(RuntimeError, match="no"):
        shortcut_report(Fails("corner"), paths, y, **QUICK)
    assert list(temporary.iterdir()) == []
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths} == before
    assert sorted(data.iterdir()) == paths


def test_input_and_state_stay():
    X, y = films("corner", 16)
    copies, state, look = (X.copy(), y.copy()), np.random.get_state()[1].copy(), dict(mpl.rcParams)
    X.setflags(write=False)
    shortcut_report(Reads("corner"), X, y, **QUICK)
    np.testing.assert_array_equal(X, copies[0])
    np.testing.assert_array_equal(y, copies[1])
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert dict(mpl.rcParams) == look


def test_the_seed_decides():
    X, y = films("corner", 40)
    first, again, other = (
        shortcut_report(Reads("corner"), X, y, random_state=seed, max_images=20, **QUICK)
        for seed in (1, 1, 2)
    )
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(table, again.tables[name])
    assert str(first) == str(again)
    assert list(first.tables["films"].row) != list(other.tables["films"].row)
    assert len(first.tables["films"]) == 20


# --------------------------------------------------------------------------------- hostile inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": ["ill"] * 16}, "two classes are needed"),
        ({"y": ["ill", "well"] * 7}, "16 films and y 14"),
        ({"y": ["ill", "dead"] * 8}, "y\\[1\\] is 'dead'"),
        ({"y": np.zeros((16, 2))}, "one class for each film"),
        ({"groups": [1, 2]}, "groups 2 patients"),
        ({"estimator": Reads}, "must be a fitted classifier"),
        ({"labels": ["ill"]}, "two or more"),
        ({"labels": ["ill", "well", "dead"]}, "pass labels="),
        ({"X": np.full((16, SIDE, SIDE), np.nan)}, "NaN or infinity in picture 0"),
        ({"X": np.zeros((16, 1000))}, "pixels of no square"),
        ({"X": np.zeros((16, 8, 8))}, "8 x 8 pixels"),
        ({"X": np.zeros((16, 5, 32, 32))}, "axis of the channels"),
    ],
)
def test_what_does_not_fit_is_said(change, message):
    X, y = films("corner", 16)
    given = {"estimator": Reads("corner"), "X": X, "y": y} | change
    with pytest.raises(InputError, match=message):
        shortcut_report(**given, **QUICK)


def test_a_broken_file_is_named(tmp_path):
    X, y = films("corner", 8)
    paths = saved(X, tmp_path)
    paths[3].write_bytes(b"no picture")
    with pytest.raises(ImageReadError, match="film003"):
        shortcut_report(Reads("corner"), paths, y, **QUICK)


# ---------------------------------------------------------------------------- plot and benchmark


def test_plot():
    import matplotlib.pyplot as plt

    X, y = films("corner", 16)
    report = shortcut_report(Reads("corner"), X, y, **QUICK)
    assert report.plot() is report
    assert len(report.axes_) == 2 + len(report.samples)
    names = [tick.get_text() for tick in report.axes_[0].get_yticklabels()]
    assert names == list(report.tables["scores"]["input"])
    figure, ax = plt.subplots()
    assert report.plot(ax).axes_[0] is ax
    assert len(figure.axes) == 1
    plt.close("all")


@pytest.mark.slow
def test_the_benchmark_prints_its_table(monkeypatch, capsys):
    if not FILE.is_file():
        pytest.skip("the benchmarks stand in the source tree only")
    spec = importlib.util.spec_from_file_location("_skcxr_benchmark_shortcuts", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["shortcuts", "--quick"])
    module.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["nothing", "marker", "border"]
