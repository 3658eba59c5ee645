"""Pictures of augmentation, and the learning-rate range test."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from torch import nn

from skcxr import CXRClassifier, ImageReadError, InputError
from skcxr.augmentation import CXRAugmentation
from skcxr.inspection import AugmentationDisplay, LearningRateDisplay, lr_find


@pytest.fixture(autouse=True)
def _no_window():
    with matplotlib.rc_context({"backend": "Agg"}):
        import matplotlib.pyplot as plt

        yield
        plt.close("all")


def darker(image: torch.Tensor) -> torch.Tensor:
    return image / 2


class Line(nn.Module):
    """One linear layer: quick, and it learns bars."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(400, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def quick(**parameters: object) -> CXRClassifier:
    return CXRClassifier(**{"backbone": Line, "batch_size": 8, "random_state": 0, **parameters})


# --------------------------------------------------------------------------------------------
# augmentation
# --------------------------------------------------------------------------------------------


def test_a_row_is_the_image_and_its_draws(images):
    X = images[0][:2]
    display = AugmentationDisplay.from_policy(X, n_draws=3, random_state=0)
    assert display.images.shape == (2, 20, 20)
    assert display.draws.shape == (2, 3, 20, 20)
    np.testing.assert_array_equal(display.images, X.astype(np.float32) / 255)
    assert len({draw.sum() for draw in display.draws.reshape(6, -1)}) == 6
    assert display.axes_.shape == (2, 4)
    assert [axis.get_title() for axis in display.axes_[0]] == [
        "original", "draw 1", "draw 2", "draw 3",
    ]  # fmt: skip
    for row, (image, draws) in enumerate(zip(display.images, display.draws, strict=True)):
        for axis, shown in zip(display.axes_[row], (image, *draws), strict=True):
            (picture,) = axis.images
            np.testing.assert_array_equal(picture.get_array(), shown)
            assert picture.get_clim() == (0, 1)
            assert len(axis.get_xticks()) == len(axis.get_yticks()) == 0
    assert display.figure_ is display.axes_[0, 0].figure


def test_draws_are_those_of_the_seed(images):
    def draws(random_state):
        display = AugmentationDisplay.from_policy(
            images[0][:2], n_draws=2, random_state=random_state
        )
        return display.draws

    np.testing.assert_array_equal(draws(0), draws(0))
    assert not np.array_equal(draws(0), draws(1))
    assert not np.array_equal(draws(None), draws(None))
    state = np.random.RandomState(0)
    assert not np.array_equal(draws(state), draws(state))


def test_files_and_pixels_look_the_same_and_files_have_names(images, files):
    of_pixels = AugmentationDisplay.from_policy(images[0][:3], image_size=16, random_state=0)
    of_files = AugmentationDisplay.from_policy(files[:3], image_size=16, random_state=0)
    np.testing.assert_array_equal(of_files.draws, of_pixels.draws)
    assert of_files.images.shape == (3, 16, 16)
    assert [axis.get_ylabel() for axis in of_files.axes_[:, 0]] == ["00.png", "01.png", "02.png"]


@pytest.mark.parametrize(
    ("augmentation", "factor"), [(None, 1.0), (darker, 0.5)], ids=["None", "callable"]
)
def test_augmentation_is_that_of_the_classifier(images, augmentation, factor):
    display = AugmentationDisplay.from_policy(images[0][:2], augmentation, n_draws=2)
    np.testing.assert_allclose(display.draws, factor * display.images[:, None].repeat(2, 1))


def test_a_transform_in_place_leaves_the_original(images):
    display = AugmentationDisplay.from_policy(images[0][:2], lambda image: image.mul_(0.5))
    np.testing.assert_array_equal(display.images, images[0][:2].astype(np.float32) / 255)
    np.testing.assert_allclose(display.draws[:, 4], 0.5 * display.images)


def test_a_policy_of_ones_own(images):
    still = AugmentationDisplay.from_policy(images[0][:2], CXRAugmentation(0, 0, 0, 0))
    np.testing.assert_allclose(still.draws[:, 0], still.images, atol=1e-6)


def test_a_classifier_shows_its_own_augmentation_fitted_or_not(images):
    X, y = images
    for augmentation, image_size in ((darker, 16), ("cxr", 24), (None, 20)):
        clf = quick(augmentation=augmentation, image_size=image_size, max_epochs=1)
        if image_size != 20:  # Line takes 20 x 20 pixels
            clf.set_params(backbone="smallnet")
        before = dict(vars(clf))
        new = AugmentationDisplay.from_estimator(clf, X[:2], random_state=0)
        assert vars(clf) == before
        assert new.images.shape == (2, image_size, image_size)
        fitted = AugmentationDisplay.from_estimator(clf.fit(X, y), X[:2], random_state=0)
        np.testing.assert_array_equal(fitted.draws, new.draws)


def test_pixels_outside_of_the_range_widen_it():
    display = AugmentationDisplay.from_policy(np.linspace(-1, 3, 800).reshape(2, 20, 20), None)
    assert display.axes_[1, 0].images[0].get_clim() == (-1, 3)


def test_it_plots_where_it_is_told(images):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3)
    display = AugmentationDisplay.from_policy(images[0][:2], n_draws=2, ax=axes)
    assert display.axes_.tolist() == axes.tolist()
    figure, (left, right) = plt.subplots(1, 2)
    display.plot(ax=left)
    assert display.figure_ is figure
    assert display.axes_.shape == (2, 3)
    figure.canvas.draw()
    assert display.axes_[0, 2].get_position().x1 < right.get_position().x0
    with pytest.raises(InputError, match="ax holds 2 Axes, but there are 2 rows of 3 panels"):
        display.plot(ax=[left, right])
    with pytest.raises(InputError, match="no place in a grid"):
        display.plot(ax=figure.add_axes((0, 0, 1, 1)))


def test_what_cannot_be_shown_is_said(images, tmp_path):
    X = images[0]
    with pytest.raises(InputError, match=r"X holds 24 images.*up to 20"):
        AugmentationDisplay.from_policy(X)
    with pytest.raises(InputError, match="n_draws=0"):
        AugmentationDisplay.from_policy(X[:1], n_draws=0)
    with pytest.raises(InputError, match="estimator is Pipeline"):
        AugmentationDisplay.from_estimator(make_pipeline(quick()), X[:1])
    with pytest.raises(ValueError, match="augmentation"):
        AugmentationDisplay.from_policy(X[:1], "strong")
    with pytest.raises(ImageReadError):
        AugmentationDisplay.from_policy([str(tmp_path / "gone.png")])


# --------------------------------------------------------------------------------------------
# learning rate
# --------------------------------------------------------------------------------------------


class Spy(Callback):
    """Keeps what every batch sees; class-wide, because classifiers copy callbacks."""

    rates: list[list[float]] = []  # noqa: RUF012

    def on_batch_end(self, net, **kwargs):
        self.rates.append([group["lr"] for group in net.optimizer_.param_groups])


@pytest.fixture
def spy():
    Spy.rates.clear()
    return Spy()


def test_the_rate_rises_evenly_on_its_logarithm_and_loss_falls(images):
    found = lr_find(quick(), *images, start_lr=1e-4, end_lr=0.1, n_steps=40)
    np.testing.assert_allclose(found.lr, np.geomspace(1e-4, 0.1, 40))
    assert found.loss.shape == (40,)
    assert found.loss[-10:].mean() < found.loss[:10].mean()
    assert 1e-4 < found.suggestion < 0.1


def test_the_estimator_is_left_alone_and_the_result_is_the_seeds(images):
    clf = quick(early_stopping=True, lr_schedule="cosine", warm_start=True, verbose=2)
    before = dict(vars(clf))
    first, second = (lr_find(clf, *images, n_steps=9) for _ in range(2))
    assert vars(clf) == before
    np.testing.assert_array_equal(first.loss, second.loss)
    assert first.suggestion == second.suggestion or np.isnan(first.suggestion)
    state = np.random.RandomState(0)
    lr_find(quick(random_state=state), *images, n_steps=3)
    assert state.randint(1000) == np.random.RandomState(0).randint(1000)


def test_a_fitted_classifier_keeps_its_weights(images):
    clf = quick(max_epochs=1).fit(*images)
    before = clf.predict_proba(images[0])
    lr_find(clf, *images, n_steps=5)
    np.testing.assert_array_equal(clf.predict_proba(images[0]), before)


def test_callbacks_of_the_user_stay_and_see_the_rates(images, spy):
    clf = quick(net_params={"callbacks": [spy]})
    found = lr_find(clf, *images, n_steps=7)
    np.testing.assert_allclose(np.ravel(Spy.rates), found.lr[: len(Spy.rates)])
    assert len(Spy.rates) >= 6
    assert clf.net_params == {"callbacks": [spy]}


def test_groups_of_parameters_keep_their_ratio(images, spy):
    clf = quick(backbone="smallnet", lr=0.5, backbone_lr_mult=0.01, net_params={"callbacks": [spy]})
    found = lr_find(clf, *images, n_steps=5)
    for lr, rates in zip(found.lr, Spy.rates, strict=False):
        np.testing.assert_allclose(sorted({min(rates), max(rates)}), [0.01 * lr, lr])


def test_weights_count(images):
    X, y = images
    weight = np.where(np.arange(24) < 12, 1.0, 0.0)
    weighted = lr_find(quick(), X, y, n_steps=6, sample_weight=weight)
    half = lr_find(quick(), X[:12], y[:12], n_steps=6)
    np.testing.assert_array_equal(weighted.loss, half.loss)


def test_findings_are_found_too(images):
    X, y = images
    Y = np.stack([y == "h", y == "v"], 1).astype(float)
    Y[::5, 0] = np.nan
    assert len(lr_find(quick(), X, Y, n_steps=6).loss) == 6


def test_it_ends_where_the_loss_grows(images):
    found = lr_find(quick(optimizer="sgd"), *images, end_lr=1e4, n_steps=60)
    assert len(found.lr) == len(found.loss) < 60
    assert np.isfinite(found.loss).all()
    assert found.suggestion < found.lr[-1]


@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_loss_that_is_no_number_ends_it_quietly(images, at):
    class Breaks(Line):
        calls = 0

        def forward(self, x):
            Breaks.calls += 1
            return super().forward(x) * (torch.nan if Breaks.calls > at else 1)

    found = lr_find(quick(backbone=Breaks), *images, n_steps=10)
    assert len(found.lr) == len(found.loss) == at
    assert np.isfinite(found.loss).all()
    found.plot().figure_.canvas.draw()


def test_scikit_learns_callbacks_have_no_part_in_it(images):
    pytest.importorskip("sklearn.callback")
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    lr_find(quick().set_callbacks(monitor), *images, n_steps=5)
    with pytest.raises(ValueError, match="No logs"):
        monitor.get_logs()


def test_a_classifier_without_a_fall_gets_no_suggestion():
    lr = np.geomspace(1e-3, 1, 30)
    display = LearningRateDisplay(lr=lr, loss=np.linspace(1, 2, 30), suggestion=float("nan"))
    texts = [text.get_text() for text in display.plot().ax_.get_legend().get_texts()]
    assert texts == ["loss of a batch", "smoothed"]


def test_the_plot_marks_the_suggestion(images):
    import matplotlib.pyplot as plt

    found = lr_find(quick(), *images, start_lr=1e-4, end_lr=0.1, n_steps=30)
    _, axis = plt.subplots()
    assert found.plot(ax=axis) is found
    assert found.ax_ is axis
    assert found.figure_ is axis.figure
    assert axis.get_xscale() == "log"
    np.testing.assert_array_equal(found.line_.get_xdata(), found.lr)
    marks = [line for line in axis.lines if len(set(line.get_xdata())) == 1]
    assert [line.get_xdata()[0] for line in marks] == [found.suggestion]
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert f"steepest at {found.suggestion:.2g}" in texts


def test_what_cannot_be_tested_is_said(images):
    with pytest.raises(InputError, match="must rise"):
        lr_find(quick(), *images, start_lr=1, end_lr=0.1)
    with pytest.raises(InputError, match="n_steps=1"):
        lr_find(quick(), *images, n_steps=1)
    with pytest.raises(InputError, match="estimator is Pipeline"):
        lr_find(make_pipeline(quick()), *images)
    with pytest.raises(InputError, match="is not a list"):
        lr_find(quick(net_params={"callbacks": "all"}), *images)
