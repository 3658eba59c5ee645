"""Heatmaps, mistakes and reliability: what they show, and that they change nothing."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from skcxr import CXRClassifier, CXRFeatures, InputError, MissingDependencyError
from skcxr.inspection import (
    ErrorsDisplay,
    GradCAMDisplay,
    OcclusionDisplay,
    RandomisationDisplay,
    ReliabilityDisplay,
)
from skcxr.metrics import expected_calibration_error

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def squares(n, size=32, seed=0):
    """Noise, with a bright square at the upper left in the class "square"."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 80, (n, size, size)).astype(np.uint8)
    y = np.array(["none", "square"])[np.arange(n) % 2]
    images[y == "square", 4:12, 4:12] = 250
    return images, y


@pytest.fixture(scope="module")
def clf():
    X, y = squares(48, size=64)
    return CXRClassifier(
        max_epochs=8, random_state=0, augmentation=None, image_size=64, batch_size=8
    ).fit(X, y)  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    X, y = squares(48)
    return make_pipeline(LogisticRegression()).fit(X.reshape(48, -1) / 255.0, y)


def hottest(heatmap):
    return np.unravel_index(heatmap.argmax(), heatmap.shape)


def test_heat_lies_where_the_class_is_told(clf):
    X, y = squares(8, size=64, seed=1)
    X = X[y == "square"]
    display = GradCAMDisplay.from_estimator(clf, X, y=y[y == "square"])
    assert display.heatmaps.shape == (4, 64, 64)
    assert display.heatmaps.min() >= 0
    assert display.heatmaps.max() <= 1
    assert list(display.labels) == ["square"] * 4
    inside = display.heatmaps[:, :32, :32].sum() / display.heatmaps.sum()
    assert inside > 0.5  # a quarter of the film
    texts = [text.get_text() for text in display.figure_.texts]
    assert any("For research only" in text for text in texts)


def test_occlusion_of_any_estimator_on_rows(rows):
    X, _ = squares(4, seed=1)
    display = OcclusionDisplay.from_estimator(rows, X[1::2].reshape(2, -1) / 255.0)
    for heatmap in display.heatmaps:
        height, width = (at / n for at, n in zip(hottest(heatmap), heatmap.shape, strict=True))
        assert 0.05 < height < 0.45
        assert 0.05 < width < 0.45


def test_files_give_what_arrays_give(clf, tmp_path):
    X, _ = squares(2, size=64, seed=1)
    paths = [str(tmp_path / f"{k}.png") for k in range(2)]
    for path, image in zip(paths, X, strict=True):
        Image.fromarray(image).save(path)
    for kind in (GradCAMDisplay, OcclusionDisplay):
        a, b = kind.from_estimator(clf, X), kind.from_estimator(clf, paths)
        # covers are rounded to 8 bits in files
        np.testing.assert_allclose(a.heatmaps, b.heatmaps, atol=5e-3)
        assert list(b.names) == ["0.png", "1.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.png", "1.png"]


def test_the_estimator_is_left_as_it_was(clf):
    before = {name: value.clone() for name, value in clf.module_.state_dict().items()}
    hooks = sum(len(module._forward_hooks) for module in clf.module_.modules())
    grads = [None if p.grad is None else p.grad.clone() for p in clf.module_.parameters()]
    GradCAMDisplay.from_estimator(clf, squares(2)[0])
    after = clf.module_.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)
    assert hooks == sum(len(module._forward_hooks) for module in clf.module_.modules())
    for before, parameter in zip(grads, clf.module_.parameters(), strict=True):
        assert (before is None) == (parameter.grad is None)
        assert before is None or torch.equal(before, parameter.grad)


@pytest.mark.parametrize("backbone", ["smallnet", "cxrnet", "mobilenet_v3_small"])
def test_backbones_give_a_map(backbone):
    X, y = squares(8, size=64)
    model = CXRClassifier(backbone, max_epochs=1, random_state=0, image_size=64).fit(X, y)
    display = GradCAMDisplay.from_estimator(model, X[:2])
    assert display.heatmaps.shape == (2, 64, 64)
    assert np.isfinite(display.heatmaps).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    ["resnet18", "densenet121", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t",
     "maxvit_t", "vgg11", "timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224",
     "timm:tf_efficientnet_lite0"],
)  # fmt: skip
def test_every_family_gives_a_map(backbone):
    X, y = squares(4, size=64)
    model = CXRClassifier(
        backbone, max_epochs=1, random_state=0, image_size=224, batch_size=2, augmentation=None
    ).fit(X, y)  # fmt: skip
    display = GradCAMDisplay.from_estimator(model, X[:1])
    assert np.isfinite(display.heatmaps).all()
    assert display.layer_


def test_pipelines_searches_and_features(files, images):
    X, y = squares(12)
    search = GridSearchCV(
        CXRClassifier(max_epochs=1, random_state=0, image_size=32), {"lr": [0.01]}, cv=2
    ).fit(X, y)  # fmt: skip
    assert GradCAMDisplay.from_estimator(search, X[:1]).heatmaps.shape == (1, 32, 32)
    features = CXRFeatures("cxrnet", weights=None, random_state=0, image_size=32)
    linear = make_pipeline(features, LogisticRegression()).fit(X, y)
    assert np.isfinite(GradCAMDisplay.from_estimator(linear, X[:1]).heatmaps).all()


class Flat(nn.Module):
    """A network without a map."""

    def __init__(self, num_classes: int, in_chans: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.Linear(8, num_classes))

    def forward(self, x):
        return self.layers(x)


def test_what_cannot_be_explained_says_what_to_do(clf, rows, monkeypatch):
    X, y = squares(8, size=16)
    flat = CXRClassifier(Flat, max_epochs=1, random_state=0, image_size=16).fit(X, y)
    with pytest.raises(InputError, match="layer"):
        GradCAMDisplay.from_estimator(flat, X[:1])
    with pytest.raises(InputError, match="layer"):
        GradCAMDisplay.from_estimator(clf, squares(1)[0], layer="nonsense")
    with pytest.raises(InputError, match="OcclusionDisplay"):
        GradCAMDisplay.from_estimator(rows, squares(1)[0].reshape(1, -1) / 255.0)
    with pytest.raises(InputError, match="Influenza"):
        GradCAMDisplay.from_estimator(clf, squares(1)[0], target="Influenza")
    with pytest.raises(InputError, match="24"):
        GradCAMDisplay.from_estimator(clf, squares(30)[0])

    def gone(library, extra):
        raise MissingDependencyError(library, extra)

    monkeypatch.setattr("skcxr.inspection._gradcam.import_optional", gone)
    with pytest.raises(MissingDependencyError, match=r"skcxr\[explain\]"):
        GradCAMDisplay.from_estimator(clf, squares(1)[0])


def test_maps_of_a_network_that_knows_nothing_differ(clf):
    X, _ = squares(4, size=64, seed=1)
    before = {name: value.clone() for name, value in clf.module_.state_dict().items()}
    a, b = (RandomisationDisplay.from_estimator(clf, X, random_state=0) for _ in range(2))
    np.testing.assert_array_equal(a.correlations, b.correlations)
    assert a.correlations.shape == (3, 4)
    assert np.nanmean(a.correlations) < 0.5
    assert "depend on what the network has learnt" in a.sentence
    for name, value in before.items():
        assert torch.equal(value, clf.module_.state_dict()[name])
    same = RandomisationDisplay(np.full((2, 3), 0.9), layer="x")
    assert "hardly change" in same.sentence
    assert "constant" in RandomisationDisplay(np.full((1, 1), np.nan), layer="x").sentence
    features = CXRFeatures("cxrnet", weights=None, random_state=0, image_size=64)
    X, y = squares(12, size=64)
    linear = make_pipeline(features, LogisticRegression()).fit(X, y)
    display = RandomisationDisplay.from_estimator(linear, X[:2], n_draws=1, random_state=0)
    assert display.correlations.shape == (1, 2)


def test_mistakes_come_by_certainty():
    X, y = squares(6)
    score = np.array([0.1, 0.2, 0.9, 0.95, 0.6, 0.4])  # of "square"; the true ones are at odd rows
    display = ErrorsDisplay.from_predictions(X, y, score)
    assert display.indices.tolist() == [2, 1, 4, 5]
    assert display.n_errors == 4
    assert display.n_cases == 6
    np.testing.assert_allclose(display.probabilities, [0.9, 0.8, 0.6, 0.6])
    of_patients = ErrorsDisplay.from_predictions(X, y, score, groups=[0, 0, 0, 1, 1, 1])
    assert of_patients.indices.tolist() == [2, 4]
    fine = ErrorsDisplay.from_predictions(X, y, (y == "square").astype(float))
    assert fine.n_errors == 0
    assert "None of 6" in fine.axes_[0, 0].texts[0].get_text()


def test_mistakes_of_an_estimator_with_heat(clf):
    X, y = squares(6, size=64, seed=1)
    wrong = y.copy()
    wrong[1] = "none"
    display = ErrorsDisplay.from_estimator(clf, X, wrong, heatmaps="gradcam")
    assert 1 in display.indices.tolist()
    assert display.heatmaps.shape[0] == len(display.images)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_reliability_is_that_of_scikit_learn(strategy):
    rng = np.random.default_rng(0)
    y, score = rng.integers(2, size=200), rng.random(200)
    display = ReliabilityDisplay.from_predictions(
        y, score, strategy=strategy, groups=np.arange(200) // 2, random_state=0
    )
    true, predicted = calibration_curve(y, score, n_bins=10, strategy=strategy)
    curve = display.curves[1]
    np.testing.assert_allclose(curve.prob_true, true)
    np.testing.assert_allclose(curve.prob_pred, predicted)
    known = np.isfinite(curve.low)
    assert (curve.low[known] <= curve.prob_true[known]).all()
    assert (curve.high[known] >= curve.prob_true[known]).all()
    assert curve.counts.sum() == 200


def test_the_error_of_calibration_is_that_of_the_metrics():
    rng = np.random.default_rng(0)
    score = rng.dirichlet(np.ones(3), 150)
    y = rng.integers(3, size=150)
    display = ReliabilityDisplay.from_predictions(y, score, random_state=0)
    curve = next(iter(display.curves.values()))  # of the predicted class
    assert curve.error == pytest.approx(expected_calibration_error(y, score))


def test_displays_refuse_what_does_not_fit():
    X, y = squares(4)
    with pytest.raises(InputError):
        ReliabilityDisplay.from_predictions(y, np.full((4, 3), 1 / 3))
    with pytest.raises(InputError):
        ErrorsDisplay.from_predictions(X, y[:3], [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        ReliabilityDisplay.from_predictions(y, [2.0, 0.1, 0.1, 0.1])
