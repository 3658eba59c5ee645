"""Occlusion: how far a probability falls when a part of the film is covered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skcxr.classifier import CXRClassifier
from skcxr.inspection._answers import Answers, ask, scores_of
from skcxr.inspection._heatmaps import HeatmapDisplay, check_number, to_unit_heat
from skcxr.inspection._pictures import Films
from skcxr.inspection._seen import findings_of, pixels_of, shown_of
from skcxr.preprocessing import ImageLoader

Array = np.ndarray[Any, Any]
Scores = Callable[[Any], Array]

_RASTER = (128, 128)  # of heatmaps over files, which differ in shape
_AT_A_TIME = 16  # covered pictures


class OcclusionDisplay(HeatmapDisplay):
    """Films beside the places whose covering makes the probability of a class fall.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    images : sequence of n ndarrays of shape (H, W)
        The films, each in a shape of its own.
    heatmaps : ndarray of shape (n, h, w)
        Heat in [0, 1], stretched over the film.
    labels : sequence of n labels
        What is predicted.
    probabilities : sequence of n floats
        Probability of the predicted labels.
    targets : sequence of n labels or None, default=None
        The class or finding that the heat speaks for; None is the predicted one.
    target_probabilities : sequence of n floats or None, default=None
        Its probability.
    y_true : sequence of n str or None, default=None
        The true labels.
    names : sequence of n str or None, default=None
        Names of the files.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    axes_ : ndarray of shape (n, 2) of matplotlib Axes
        The film and the film with its heatmap, once plotted.
    falls_ : ndarray of shape (n, n_rows, n_columns)
        How far the probability fell with each place of the patch; negative where it rose. Only
        from :meth:`from_estimator`.

    See Also
    --------
    GradCAMDisplay : Faster, by looking into one network.

    Notes
    -----
    A covered film is none that the model has learnt: it may fall for the patch and not for what is
    under it. Evidence that stands in several places stays visible when one of them is covered.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.inspection import OcclusionDisplay
    >>> drawn = make_cxr_phantoms(40, n_classes=2, image_size=32, random_state=0)
    >>> X = drawn.data.reshape(40, -1) / 255
    >>> model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, drawn.target)
    >>> display = OcclusionDisplay.from_estimator(model, X[:2], patch=0.25, stride=0.25)
    >>> display.falls_.shape
    (2, 4, 4)
    """

    legend = "Colour: how far the probability falls when covered, on each film's own scale."
    falls_: Array

    @classmethod
    @validate_params(
        {
            "patch": [Interval(Real, 0, 1, closed="neither")],
            "stride": [Interval(Real, 0, 1, closed="neither")],
            "fill": [StrOptions({"mean", "blur"}), Real],
        },
        prefer_skip_nested_validation=True,
    )
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        y: Any = None,
        target: Any = None,
        patch: float = 0.2,
        stride: float = 0.1,
        fill: str | float = "mean",
        ax: Any = None,
    ) -> OcclusionDisplay:
        """Cover the films of a fitted estimator part by part and plot.

        Parameters
        ----------
        estimator : estimator instance
            A fitted classifier with `predict_proba` or `decision_function`.
        X : paths or array
            Up to 24 images, as the estimator takes them: paths, images of shape (n, H, W),
            (n, C, H, W) or (n, H, W, C), or rows of pixels. Covered files are written to a folder
            that is removed.
        y : array-like of shape (n,) or (n, n_findings), default=None
            True labels, to be shown.
        target : label or array-like of shape (n,), default=None
            The class or finding whose probability is watched, or one for each image. None takes
            the predicted class, or the finding of the highest probability.
        patch : float, default=0.2
            Side of the patch, as a part of the film's height and width, in (0, 1).
        stride : float, default=0.1
            How far the patch moves, as a part of the height and width, in (0, 1). Half of it costs
            four times as many predictions.
        fill : {"mean", "blur"} or float, default="mean"
            What covers: the mean of the film, the film itself without its detail, or a gray value,
            where 8-bit and 16-bit pixels run from 0 to 1.
        ax : matplotlib Axes, array of Axes or None, default=None
            As in :meth:`plot`.

        Returns
        -------
        OcclusionDisplay
            The plotted display.

        Raises
        ------
        InputError, ImageReadError
            X, y, `target` or the kind of estimator cannot be used, or a file cannot be read.

        Notes
        -----
        The mean fall over all patches that cover a place is its heat [1]_; where the probability
        rises there is none.

        References
        ----------
        .. [1] M. D. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks",
           ECCV 2014.
        """
        return cls._look(estimator, X, y, target, patch, stride, fill).plot(ax=ax)

    @classmethod
    def _look(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        target: Any = None,
        patch: float = 0.2,
        stride: float = 0.1,
        fill: str | float = "mean",
    ) -> OcclusionDisplay:
        shown = shown_of(estimator, X)
        check_number(shown.n)
        answers = ask(estimator, X, target, findings_of(estimator))
        scores, pictures = _as_seen(estimator, X, shown)
        falls, heat = falls_of(scores, pictures, answers, patch, stride, fill)
        display = cls._of(shown, to_unit_heat(heat), answers, y)
        display.falls_ = falls
        return display


def falls_of(
    scores: Scores,
    pictures: Films,
    answers: Answers,
    patch: float,
    stride: float,
    fill: str | float,
) -> tuple[Array, Array]:
    """How far the target's probability falls for each place of the patch, and for each pixel.

    Shapes (n, n_rows, n_columns) and (n, h, w).
    """
    of_films = pictures.paths is None
    falls, heats = [], []
    for i in range(pictures.n):
        picture = pictures[i]
        height, width = picture.shape[:2]
        cover = _cover(picture, patch, fill)
        places = [
            (r, c) for r in _spans(height, patch, stride) for c in _spans(width, patch, stride)
        ]
        base = answers.scores[i, answers.target[i]]
        fall: list[float] = []
        for start in range(0, len(places), _AT_A_TIME):
            covered = []
            for rows, columns in places[start : start + _AT_A_TIME]:
                changed = picture.copy()
                changed[rows, columns] = cover[rows, columns]
                covered.append(changed)
            with pictures.handed_back(covered, [i] * len(covered)) as X:
                fall += (base - scores(X)[:, answers.target[i]]).tolist()
        shape = (height, width) if of_films else _RASTER
        sides = [_spans(n, patch, stride) for n in shape]
        if height == 1:
            sides[0] = [slice(0, shape[0])]
        if width == 1:
            sides[1] = [slice(0, shape[1])]
        falls.append(np.reshape(fall, (len(sides[0]), len(sides[1]))))
        heats.append(_spread(falls[-1], sides, shape))
    return np.stack(falls), np.stack(heats)


def _spans(n: int, patch: float, stride: float) -> list[slice]:
    """Where a patch lies along a side of n pixels, from one end to the other."""
    if n == 1:
        return [slice(0, 1)]
    starts = np.linspace(0, 1 - patch, int(np.ceil((1 - patch) / stride - 1e-9)) + 1)
    found = []
    for start in starts.tolist():
        first = min(round(start * n), n - 1)
        found.append(slice(first, max(first + 1, round((start + patch) * n))))
    return found


def _cover(picture: Array, patch: float, fill: str | float) -> Array:
    """A picture of what covers, in the shape of the film."""
    if not isinstance(fill, str):
        return np.full_like(picture, fill)
    axes = (0, 1)
    if fill == "mean":
        return np.broadcast_to(picture.mean(axis=axes, keepdims=True), picture.shape)
    sigma = [patch * n / 2 if axis in axes else 0.0 for axis, n in enumerate(picture.shape)]
    return np.asarray(gaussian_filter(picture, sigma, mode="nearest"))


def _spread(fall: Array, sides: list[list[slice]], shape: tuple[int, int]) -> Array:
    """The mean fall over all patches that cover a pixel."""
    total, count = np.zeros(shape), np.zeros(shape)
    for row, rows in enumerate(sides[0]):
        for column, columns in enumerate(sides[1]):
            total[rows, columns] += fall[row, column]
            count[rows, columns] += 1
    return np.asarray(total / np.maximum(count, 1))


def _as_seen(estimator: Any, X: Any, shown: Films) -> tuple[Scores, Films]:
    """Scores of covered pictures, and the pictures to cover.

    Of files that a CXRClassifier or an ImageLoader reads first, what these make of them is
    covered: nothing has to be written.
    """
    model = getattr(estimator, "best_estimator_", estimator)
    if shown.paths is not None:
        if isinstance(model, CXRClassifier):
            pixels = pixels_of(model, model._settings, X, model.memory)
            return partial(scores_of, model), Films(pixels[:, 0].numpy())
        loader = model.steps[0][1] if isinstance(model, Pipeline) else None
        if isinstance(loader, ImageLoader) and loader.resize_mode == "stretch":
            loaded = Films(loader.transform(X), row_shape=loader._shape())
            return partial(scores_of, model[1:]), loaded
    return partial(scores_of, estimator), shown
