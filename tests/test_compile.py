"""`CXRClassifier(compile=True)`: the same numbers to rounding, and nothing of it stays behind."""

from __future__ import annotations

import copy
import pickle
import shutil

import numpy as np
import pytest
import torch

from skcxr import CXRClassifier, InputError, load_model, save_model
from skcxr.inspection import GradCAMDisplay

NO_COMPILER = not (shutil.which("g++") or shutil.which("clang++") or shutil.which("cl"))
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:triton"),
]


class Linear(torch.nn.Module):
    """One layer: compiled in a second."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(400, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


@pytest.fixture
def counted(monkeypatch):
    """torch.compile that runs what it gets as it is, and how often it was asked and called."""
    counts = {"made": 0, "called": 0}

    def compile_nothing(function):
        counts["made"] += 1

        def call(*args, **kwargs):
            counts["called"] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return counts


def test_it_is_asked_for_once_and_may_be_set_after_fit(images, counted):
    X, y = images
    clf = CXRClassifier("smallnet", max_epochs=3, batch_size=8, random_state=0).fit(X, y)
    expected = clf.predict_proba(X)
    assert counted["made"] == 0
    clf.set_params(compile=True)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    clf.predict(X)
    assert counted["made"] == 1
    called = counted["called"]
    np.testing.assert_array_equal(clf.set_params(compile=False).predict_proba(X), expected)
    assert counted["called"] == called
    CXRClassifier("smallnet", max_epochs=3, batch_size=8, compile=True, random_state=0).fit(X, y)
    assert counted["made"] == 2
    assert counted["called"] > called + 8


@pytest.mark.usefixtures("counted")
def test_copies_and_saved_models_are_not_compiled(images, tmp_path):
    X, y = images
    clf = CXRClassifier("smallnet", max_epochs=1, compile=True, random_state=0).fit(X, y)
    expected = clf.predict_proba(X)
    for other in (copy.deepcopy(clf), pickle.loads(pickle.dumps(clf))):
        assert other.net_._compiled is None
        np.testing.assert_array_equal(other.predict_proba(X), expected)
    save_model(clf, tmp_path / "model")
    assert "compile" not in (tmp_path / "model" / "config.json").read_text()
    loaded = load_model(tmp_path / "model")
    assert loaded.compile is False
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)


@pytest.mark.usefixtures("counted")
def test_heatmaps_see_the_layers(images):
    X, y = images
    clf = CXRClassifier("cxrnet", max_epochs=1, random_state=0).fit(X, y)
    plain = GradCAMDisplay.from_estimator(clf, X[:2])
    clf.set_params(compile=True).predict(X)
    np.testing.assert_array_equal(
        GradCAMDisplay.from_estimator(clf, X[:2]).heatmaps, plain.heatmaps
    )


def test_skorch_s_own_is_refused(images):
    X, y = images
    for name in ("compile", "compiled"):
        with pytest.raises(InputError, match="use compile= instead"):
            CXRClassifier(net_params={name: True}).fit(X, y)


def test_without_a_compiler(images, monkeypatch, tmp_path):
    X, y = images
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    def compile_badly(function):
        def call(*args, **kwargs):
            raise torch._dynamo.exc.BackendCompilerFailed(compile_badly, OSError("no g++"), None)

        return call

    monkeypatch.setattr(torch, "compile", compile_badly)
    with pytest.raises(InputError, match=r"compile=True.*no g\+\+.*needs a C\+\+ compiler"):
        CXRClassifier("smallnet", max_epochs=1, compile=True).fit(X, y)


@pytest.mark.slow
@pytest.mark.skipif(NO_COMPILER, reason="there is no C++ compiler")
def test_truly_compiled(images, monkeypatch, tmp_path):
    X, y = images
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain = CXRClassifier(Linear, max_epochs=3, lr=0.01, random_state=0).fit(X, y)
    compiled = CXRClassifier(Linear, max_epochs=3, lr=0.01, compile=True, random_state=0).fit(X, y)
    np.testing.assert_allclose(compiled.predict_proba(X), plain.predict_proba(X), atol=1e-5, rtol=0)
    network = CXRClassifier("cxrnet", max_epochs=1, random_state=0).fit(X, y)
    expected = network.predict_proba(X)
    network.set_params(compile=True)
    for n in (24, 5, 1):
        np.testing.assert_allclose(network.predict_proba(X[:n]), expected[:n], atol=1e-5, rtol=0)
