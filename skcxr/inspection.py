"""Pictures of what a fit does: its augmentation, and the loss at each learning rate."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from sklearn.base import clone
from skorch.callbacks import Callback

from skcxr._cache import Decoder
from skcxr._callbacks import CALLBACKS
from skcxr._exceptions import InputError
from skcxr._inputs import read_images
from skcxr._settings import settle
from skcxr.classifier import CXRClassifier
from skcxr.training import StopTrainingError, draw_seed, one_at_a_time, own_randomness

__all__ = ["AugmentationDisplay", "LearningRateDisplay", "lr_find"]

Array = np.ndarray[Any, Any]

_MOST_ROWS = 20  # images in one picture
_DIVERGED = 4  # times its best, and the range test ends


class AugmentationDisplay:
    """Radiographs beside what augmentation makes of them.

    It is recommended to use :meth:`from_policy` or :meth:`from_estimator`.

    Parameters
    ----------
    images : ndarray of shape (n, H, W)
        The images as the network gets them.
    draws : ndarray of shape (n, n_draws, H, W)
        What augmentation made of each.
    names : list of str or None, default=None
        What stands beside each row.
    pixel_range : (float, float), default=(0.0, 1.0)
        The pixels that are black and white, for all panels alike: a change of exposure is seen
        as one.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    axes_ : ndarray of shape (n, 1 + n_draws) of matplotlib Axes
        The panels, once plotted.

    Examples
    --------
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.inspection import AugmentationDisplay
    >>> phantoms = make_cxr_phantoms(2, n_classes=2, image_size=64, random_state=0)
    >>> display = AugmentationDisplay.from_policy(phantoms.data, n_draws=3, random_state=0)
    >>> display.axes_.shape
    (2, 4)
    """

    def __init__(
        self,
        images: Array,
        draws: Array,
        *,
        names: list[str] | None = None,
        pixel_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.images, self.draws, self.names = images, draws, names
        self.pixel_range = pixel_range

    @classmethod
    def from_policy(
        cls,
        X: Any,
        augmentation: str | Callable[[torch.Tensor], torch.Tensor] | None = "cxr",
        *,
        n_draws: int = 5,
        image_size: str | int | tuple[int, int] = "auto",
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
    ) -> AugmentationDisplay:
        """Draw from a policy and plot.

        Parameters
        ----------
        X : paths or array
            Up to 20 images, as :class:`skcxr.CXRClassifier` takes them.
        augmentation : {"auto", "cxr"}, callable or None, default="cxr"
            As the parameter of :class:`skcxr.CXRClassifier`.
        n_draws : int, default=5
            How often each image is changed.
        image_size : "auto", int or (int, int), default="auto"
            As the parameter of :class:`skcxr.CXRClassifier`.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. The global generators are never moved.
        ax : matplotlib Axes, array of Axes or None, default=None
            As in :meth:`plot`.

        Returns
        -------
        AugmentationDisplay
            The plotted display.

        Raises
        ------
        InputError, ImageReadError
            X cannot be used, or a file cannot be read.
        """
        estimator = CXRClassifier(augmentation=augmentation, image_size=image_size)
        return cls.from_estimator(estimator, X, n_draws=n_draws, random_state=random_state, ax=ax)

    @classmethod
    def from_estimator(
        cls,
        estimator: CXRClassifier,
        X: Any,
        *,
        n_draws: int = 5,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
    ) -> AugmentationDisplay:
        """Draw as a classifier's fit does and plot.

        Parameters
        ----------
        estimator : CXRClassifier
            Fitted or not; its augmentation and image size are used.
        X : paths or array
            Up to 20 images.
        n_draws : int, default=5
            How often each image is changed.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. The global generators are never moved.
        ax : matplotlib Axes, array of Axes or None, default=None
            As in :meth:`plot`.

        Returns
        -------
        AugmentationDisplay
            The plotted display.

        Raises
        ------
        InputError, ImageReadError
            X cannot be used, a file cannot be read, or `estimator` is no CXRClassifier.
        """
        _check_classifier(estimator)
        if n_draws < 1:
            raise InputError(f"n_draws={n_draws!r} must be 1 or more")
        fitted = hasattr(estimator, "net_")
        if not fitted:  # look, and leave nothing behind
            estimator = clone(estimator)
            estimator._validate_params()
        images = read_images(estimator, X, reset=not fitted)
        n_images = len(images.items)
        if n_images > _MOST_ROWS:
            raise InputError(
                f"X holds {n_images} images, and each gets a row; pass up to {_MOST_ROWS}: X[:5]"
            )
        settings = (
            estimator._settings
            if fitted
            else settle(estimator, images, np.ones(n_images), multi_label=False)
        )
        decode = Decoder(estimator.memory, settings.interpolation)
        dataset = settings.dataset(images, decode=decode)
        pixels, _ = dataset.__getitems__(list(range(n_images)))
        augment = settings.augmenter()
        with one_at_a_time(), own_randomness(draw_seed(random_state), "cpu"):
            # of copies: a transform may work in place
            draws = [augment(pixels.clone()) if augment else pixels for _ in range(n_draws)]
        low, high = images.pixel_range
        names = (
            [os.path.basename(path) for path in images.items] if images.kind == "paths" else None
        )
        display = cls(
            pixels[:, 0].numpy(),
            torch.stack(draws, 1)[:, :, 0].numpy(),
            names=names,
            pixel_range=(min(0.0, low), max(1.0, high)),
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None) -> AugmentationDisplay:
        """Plot a row for each image: itself, then what was made of it.

        Parameters
        ----------
        ax : matplotlib Axes, array of Axes or None, default=None
            One Axes, whose place is divided; one for each panel, row by row; or None for a new
            figure.

        Returns
        -------
        AugmentationDisplay
            The display itself.

        Raises
        ------
        InputError
            `ax` holds another number of Axes than there are panels.
        """
        n_draws = self.draws.shape[1]
        self.axes_ = _panels(ax, len(self.images), 1 + n_draws, self.images.shape[1:])
        self.figure_ = self.axes_[0, 0].figure
        titles = ["original", *(f"draw {k + 1}" for k in range(n_draws))]
        for row, (image, draws) in enumerate(zip(self.images, self.draws, strict=True)):
            for axis, title, shown in zip(self.axes_[row], titles, (image, *draws), strict=True):
                low, high = self.pixel_range
                axis.imshow(shown, cmap="gray", vmin=low, vmax=high)
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                if row == 0:
                    axis.set_title(title, fontsize=10)
            if self.names is not None:
                name = self.names[row]
                short = name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}"
                self.axes_[row, 0].set_ylabel(short, fontsize=7)
        return self


def _panels(ax: Any, rows: int, columns: int, shape: tuple[int, int]) -> Array:
    """Axes of `rows` times `columns` panels for images of `shape`."""
    import matplotlib.pyplot as plt
    from matplotlib.gridspec import GridSpecFromSubplotSpec

    if ax is None:
        side = 1.7
        height = side * min(2.0, max(0.4, shape[0] / shape[1]))
        _, axes = plt.subplots(
            rows, columns, squeeze=False, layout="constrained",
            figsize=(side * columns + 0.2, height * rows + 0.3),
        )  # fmt: skip
        return np.asarray(axes)
    axes = np.asarray(ax, dtype=object)
    if axes.ndim == 0:
        place = ax.get_subplotspec()
        if place is None:
            raise InputError("ax has no place in a grid that could be divided; use plt.subplots")
        grid = GridSpecFromSubplotSpec(rows, columns, place, wspace=0.05, hspace=0.05)
        ax.set_axis_off()
        panels = [[ax.figure.add_subplot(grid[i, j]) for j in range(columns)] for i in range(rows)]
        return np.asarray(panels, dtype=object)
    if axes.size != rows * columns:
        raise InputError(
            f"ax holds {axes.size} Axes, but there are {rows} rows of {columns} panels"
        )
    return axes.reshape(rows, columns)


class LearningRateDisplay:
    """The loss while the learning rate rises.

    It is recommended to use :func:`lr_find`.

    Parameters
    ----------
    lr : ndarray of shape (n_steps,)
        Learning rate of each step.
    loss : ndarray of shape (n_steps,)
        Loss of each step's batch, before the step.
    suggestion : float
        The learning rate at which the smoothed loss falls fastest; NaN where it never falls.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes, once plotted.
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    line_ : matplotlib.lines.Line2D
        The smoothed loss, once plotted.

    Examples
    --------
    >>> import numpy as np
    >>> from skcxr.inspection import LearningRateDisplay
    >>> lr = np.geomspace(1e-6, 1, 50)
    >>> loss = 0.3 + 0.4 / (1 + (lr / 1e-3) ** 2)
    >>> display = LearningRateDisplay(lr=lr, loss=loss, suggestion=1e-3).plot()
    >>> display.ax_.get_xlabel()
    'learning rate'
    """

    def __init__(self, *, lr: Array, loss: Array, suggestion: float) -> None:
        self.lr, self.loss, self.suggestion = lr, loss, suggestion

    def plot(self, ax: Any = None) -> LearningRateDisplay:
        """Plot the loss against the learning rate, with the suggestion.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to plot; None makes a new figure.

        Returns
        -------
        LearningRateDisplay
            The display itself.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained")
        smooth = _smooth(self.loss)
        ax.plot(self.lr, self.loss, ".", color="0.75", markersize=4, label="loss of a batch")
        (self.line_,) = ax.plot(self.lr, smooth, color="tab:blue", label="smoothed")
        if np.isfinite(self.suggestion):
            label = f"steepest at {self.suggestion:.2g}"
            ax.axvline(self.suggestion, color="tab:orange", linestyle="--", label=label)
        ax.set(xscale="log", xlabel="learning rate", ylabel="training loss")
        if len(smooth):  # where it blows up at the end, the rest would be a flat line
            low, high = smooth.min(), smooth[: smooth.argmin() + 1].max()
            room = max(high - low, 0.1 * high)
            ax.set_ylim(max(0.0, low - 0.7 * room), high + 0.6 * room)
        ax.legend(loc="lower left")  # where the curve is not
        self.ax_, self.figure_ = ax, ax.figure
        return self


def lr_find(
    estimator: CXRClassifier,
    X: Any,
    y: Any,
    *,
    start_lr: float = 1e-6,
    end_lr: float = 1.0,
    n_steps: int = 100,
    sample_weight: Any = None,
) -> LearningRateDisplay:
    """Train a copy of a classifier while its learning rate rises, and look at the loss.

    The learning-rate range test [1]_ [2]_: too small a rate leaves the loss where it is, too large
    a one lets it grow. Suggested is where the loss, smoothed along the logarithm of the rate,
    falls fastest, as in fastai [3]_: a place to start from, for a search to improve on.

    Parameters
    ----------
    estimator : CXRClassifier
        What is copied; it is not changed itself, and its schedule, early stopping and
        scikit-learn callbacks have no part in the test. Its `random_state` fixes the result.
    X : paths or array
        Training images, as in :meth:`skcxr.CXRClassifier.fit`; none of those of a test.
    y : array-like of shape (n,) or (n, n_findings)
        Their labels.
    start_lr : float, default=1e-6
        Learning rate of the first step.
    end_lr : float, default=1.0
        Learning rate of the last step.
    n_steps : int, default=100
        Batches to train on. It ends earlier where the smoothed loss is four times its best, or
        no number any more.
    sample_weight : array-like of shape (n,), default=None
        Weight of each image.

    Returns
    -------
    LearningRateDisplay
        The rates, the losses and the suggestion; ``plot()`` shows them.

    Raises
    ------
    InputError, ImageReadError, WeightsError
        As in :meth:`skcxr.CXRClassifier.fit`; also for rates that do not rise.

    Notes
    -----
    The steepest point is a cautious choice for the highest rate of "onecycle": on a few hundred
    films, the default of "cxrnet", 0.003, lies near the lowest point of the curve, some 30 times
    higher. Let a search compare the suggestion, ten times as much and the lowest point.

    Groups of parameters that have learning rates of their own keep their ratio.

    References
    ----------
    .. [1] L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017.
    .. [2] L. N. Smith, N. Topin, "Super-convergence: very fast training of neural networks using
       large learning rates", SPIE 11006, 2019.
    .. [3] J. Howard, S. Gugger, "fastai: a layered API for deep learning", Information 11, 2020.

    Examples
    --------
    >>> from skcxr import CXRClassifier, make_cxr_phantoms
    >>> from skcxr.inspection import lr_find
    >>> phantoms = make_cxr_phantoms(24, n_classes=2, image_size=32, random_state=0)
    >>> clf = CXRClassifier(batch_size=8, random_state=0)
    >>> found = lr_find(clf, phantoms.data, phantoms.target, n_steps=30)
    >>> bool(found.lr[0] <= found.suggestion <= found.lr[-1])
    True
    """
    _check_classifier(estimator)
    if not 0 < start_lr < end_lr < np.inf:
        raise InputError(f"start_lr={start_lr!r} and end_lr={end_lr!r} must rise from above 0")
    if n_steps < 2:
        raise InputError(f"n_steps={n_steps!r} must be 2 or more")
    test = clone(estimator)
    given = (test.net_params or {}).get("callbacks") or []
    rates = np.geomspace(start_lr, end_lr, n_steps)
    callbacks = (
        [*given, ("range_test", _RangeTest(rates))] if isinstance(given, list) else given
    )  # which fit refuses
    test.set_params(
        lr_schedule=None,
        max_epochs=n_steps,  # of one batch or more
        early_stopping=False,
        warm_start=False,
        verbose=0,
        net__callbacks=callbacks,
    )
    if CALLBACKS:
        test.set_callbacks()
    test.fit(X, y, sample_weight=sample_weight)
    loss = np.array(dict(test.net_.callbacks_)["range_test"].losses_)
    lr = rates[: len(loss)]
    return LearningRateDisplay(lr=lr, loss=loss, suggestion=_steepest(lr, loss))


class _RangeTest(Callback):  # type: ignore[misc]  # skorch has no types
    """Raises the learning rate batch by batch, and ends the fit.

    Parameters
    ----------
    rates : ndarray of shape (n_steps,)
        Learning rate of each batch.
    """

    def __init__(self, rates: Array) -> None:
        self.rates = rates

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.losses_: list[float] = []
        self.average_, self.best_ = 0.0, np.inf
        self.ratios_ = [group["lr"] / net.lr for group in net.optimizer_.param_groups]

    def on_batch_begin(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        if training:
            rate = float(self.rates[len(self.losses_)])
            for group, ratio in zip(net.optimizer_.param_groups, self.ratios_, strict=True):
                group["lr"] = ratio * rate

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        if not training:
            return
        loss = net.history[-1, "batches", -1, "train_loss"]
        if not np.isfinite(loss):
            raise StopTrainingError
        self.losses_.append(loss)
        self.average_ = 0.9 * self.average_ + 0.1 * loss
        average = self.average_ / (1 - 0.9 ** len(self.losses_))  # it began at 0
        self.best_ = min(self.best_, average)
        begun = len(self.losses_) > len(self.rates) // 10
        if len(self.losses_) == len(self.rates) or (begun and average > _DIVERGED * self.best_):
            raise StopTrainingError


def _smooth(loss: Array) -> Array:
    """Loss of each step, averaged over its neighbours: a Gaussian of a twelfth of all steps.

    With half of it, the suggestions of six seeds scattered twice as much.
    """
    if len(loss) == 0:
        return loss
    return np.asarray(gaussian_filter1d(loss, max(1.0, len(loss) / 12), mode="nearest"))


def _steepest(lr: Array, loss: Array) -> float:
    """The rate at which the smoothed loss falls fastest, before its lowest; NaN for none."""
    smooth = _smooth(loss)
    until = smooth.argmin() + 1 if len(smooth) else 0
    if until < 2:
        return float("nan")
    slope = np.gradient(smooth, np.log(lr))[:until]
    return float(lr[slope.argmin()]) if slope.min() < 0 else float("nan")


def _check_classifier(estimator: Any) -> None:
    if not isinstance(estimator, CXRClassifier):
        raise InputError(
            f"estimator is {type(estimator).__name__}; it must be a CXRClassifier (the last step "
            "of a Pipeline is pipeline[-1])"
        )
