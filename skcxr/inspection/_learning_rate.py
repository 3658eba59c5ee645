"""The range test of learning rates, and its picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.base import clone
from skorch.callbacks import Callback

from skcxr._callbacks import CALLBACKS
from skcxr._epochs import StopTrainingError
from skcxr._exceptions import InputError
from skcxr.classifier import CXRClassifier
from skcxr.inspection._panels import check_classifier

Array = np.ndarray[Any, Any]

_DIVERGED = 4  # times its best, and the range test ends


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
    check_classifier(estimator)
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


class _RangeTest(Callback):
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
