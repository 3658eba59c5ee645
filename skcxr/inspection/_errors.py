"""The mistakes of which an estimator is most certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skcxr._exceptions import InputError
from skcxr._notice import RESEARCH_ONLY
from skcxr._targets import check_groups
from skcxr.inspection._answers import check_scores, names_of, scores_of
from skcxr.inspection._gradcam import GradCAMDisplay
from skcxr.inspection._heatmaps import draw_films
from skcxr.inspection._occlusion import OcclusionDisplay
from skcxr.inspection._panels import panels, remark
from skcxr.inspection._pictures import Films
from skcxr.inspection._seen import findings_of, shown_of

Array = np.ndarray[Any, Any]

_N = Interval(Integral, 1, 24, closed="both")


class ErrorsDisplay:
    """The films on which an estimator is wrong and most certain.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    images : sequence of m ndarrays of shape (H, W)
        The films, each in a shape of its own, the most certain mistake first.
    y_true : sequence of m str
        What is true.
    y_pred : sequence of m str
        What was predicted.
    probabilities : sequence of m floats
        Probability of what was predicted.
    indices : ndarray of shape (m,)
        Where in X they are.
    n_cases : int
        Number of answers that could be checked: images, or labelled findings.
    n_errors : int
        How many of these are wrong.
    names : sequence of m str or None, default=None
        Names of the files.
    heatmaps : ndarray of shape (m, h, w) or None, default=None
        Heat for what was predicted, in [0, 1], stretched over the film.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    axes_ : ndarray of shape (m, 1) or (m, 2) of matplotlib Axes
        The films, and beside each its heatmap where there are some; (1, 1) where nothing is wrong.

    Notes
    -----
    Look at these first: wrong labels, lateral views, films of another size, markers and lines are
    found here. Whether a mistake is the network's or the label's is for a reader to say.

    Examples
    --------
    >>> from skcxr import CXRClassifier, make_cxr_phantoms
    >>> from skcxr.inspection import ErrorsDisplay
    >>> drawn = make_cxr_phantoms(24, n_classes=2, image_size=32, random_state=0)
    >>> clf = CXRClassifier(max_epochs=1, random_state=0).fit(drawn.data, drawn.target)
    >>> display = ErrorsDisplay.from_estimator(clf, drawn.data, drawn.target, n=4)
    >>> len(display.images) == min(4, display.n_errors)
    True
    """

    def __init__(
        self,
        images: Sequence[Array],
        y_true: Sequence[str],
        y_pred: Sequence[str],
        probabilities: Sequence[float] | Array,
        *,
        indices: Array,
        n_cases: int,
        n_errors: int,
        names: Sequence[str] | None = None,
        heatmaps: Array | None = None,
    ) -> None:
        self.images = images
        self.y_true = y_true
        self.y_pred = y_pred
        self.probabilities = probabilities
        self.indices = indices
        self.n_cases = n_cases
        self.n_errors = n_errors
        self.names = names
        self.heatmaps = heatmaps

    @classmethod
    @validate_params(
        {"n": [_N], "heatmaps": [None, StrOptions({"gradcam", "occlusion"})]},
        prefer_skip_nested_validation=True,
    )
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        n: int = 8,
        groups: Any = None,
        heatmaps: str | None = None,
        ax: Any = None,
    ) -> ErrorsDisplay:
        """Predict, and plot the most certain mistakes.

        Parameters
        ----------
        estimator : estimator instance
            A fitted classifier with `predict_proba` or `decision_function`.
        X : paths or array
            Images that the estimator was not fitted on.
        y : array-like of shape (n_images,) or (n_images, n_findings)
            True labels; findings that are NaN are not looked at.
        n : int, default=8
            How many to show, up to 24.
        groups : array-like of shape (n_images,), default=None
            Patients; of each only the most certain mistake is shown. None shows all images.
        heatmaps : {"gradcam", "occlusion"} or None, default=None
            What to show beside each film, as :class:`GradCAMDisplay` or :class:`OcclusionDisplay`
            do for the predicted class.
        ax : matplotlib Axes, array of Axes or None, default=None
            As in :meth:`plot`.

        Returns
        -------
        ErrorsDisplay
            The plotted display.

        Raises
        ------
        InputError, ImageReadError
            X, y or `groups` cannot be used, or a file cannot be read.
        MissingDependencyError
            Heatmaps need the extra ``skcxr[explain]``, which is not installed.
        """
        scores = scores_of(estimator, X)
        names, multi_label = names_of(estimator, findings_of(estimator), scores.shape[1])
        predicted = np.asarray(estimator.predict(X)) if hasattr(estimator, "predict") else None
        wrong = _mistakes(y, scores, names, multi_label, predicted, n, groups)
        pictures = shown_of(estimator, X)
        display = cls._of(pictures, wrong)
        if heatmaps is not None and len(wrong.indices):
            kind: Any = GradCAMDisplay if heatmaps == "gradcam" else OcclusionDisplay
            target = names[wrong.columns]
            found = kind._look(estimator, pictures.take(wrong.indices.tolist()), target=target)
            display.heatmaps = found.heatmaps
        return display.plot(ax=ax)

    @classmethod
    @validate_params({"n": [_N]}, prefer_skip_nested_validation=True)
    def from_predictions(
        cls,
        X: Any,
        y_true: Any,
        y_score: Any,
        *,
        labels: Any = None,
        n: int = 8,
        groups: Any = None,
        ax: Any = None,
    ) -> ErrorsDisplay:
        """Plot the most certain mistakes of predictions that exist.

        Parameters
        ----------
        X : paths or array
            The images.
        y_true : array-like of shape (n_images,) or (n_images, n_findings)
            True labels.
        y_score : array-like of shape (n_images, k) or (n_images,)
            Probabilities of classes or findings; with two classes those of the second one will do.
        labels : array-like of shape (k,), default=None
            What the columns stand for. None takes the sorted classes of `y_true`, or the columns
            of a DataFrame of findings.
        n : int, default=8
            How many to show, up to 24.
        groups : array-like of shape (n_images,), default=None
            Patients; of each only the most certain mistake is shown. None shows all images.
        ax : matplotlib Axes, array of Axes or None, default=None
            As in :meth:`plot`.

        Returns
        -------
        ErrorsDisplay
            The plotted display.

        Raises
        ------
        InputError, ImageReadError
            The arguments do not fit together, or a file cannot be read.
        """
        scores, names, multi_label = check_scores(y_true, y_score, labels)
        wrong = _mistakes(y_true, scores, names, multi_label, None, n, groups)
        return cls._of(Films(X), wrong).plot(ax=ax)

    @classmethod
    def _of(cls, pictures: Films, wrong: _Mistakes) -> ErrorsDisplay:
        if pictures.n != wrong.n_images:
            raise InputError(f"X holds {pictures.n} images but y has {wrong.n_images} entries")
        names = pictures.names
        return cls(
            [pictures.film(i) for i in wrong.indices.tolist()],
            wrong.true,
            wrong.predicted,
            wrong.probabilities,
            indices=wrong.indices,
            n_cases=wrong.n_cases,
            n_errors=wrong.n_errors,
            names=None if names is None else [names[i] for i in wrong.indices.tolist()],
        )

    def plot(self, ax: Any = None, *, n_columns: int | None = None) -> ErrorsDisplay:
        """Plot the films, with what is true and what was predicted.

        Parameters
        ----------
        ax : matplotlib Axes, array of Axes or None, default=None
            One Axes, whose place is divided; one for each panel, film by film; or None for a new
            figure.
        n_columns : int or None, default=None
            Films in a row, at most. None takes 4, and 3 with heatmaps.

        Returns
        -------
        ErrorsDisplay
            The display itself.

        Raises
        ------
        InputError
            `ax` holds another number of Axes than there are panels, or `n_columns` is below 1.
        """
        if n_columns is None:
            n_columns = 4 if self.heatmaps is None else 3
        if n_columns < 1:
            raise InputError(f"n_columns={n_columns!r} must be 1 or more")
        text = f"{self.n_errors} of {self.n_cases} wrong. {RESEARCH_ONLY}"
        if not len(self.images):
            self.axes_ = panels(ax, 1, 1, (1.0, 1.6)) if np.ndim(ax) == 0 else np.array([[ax[0]]])
            axis = self.axes_[0, 0]
            axis.set_axis_off()
            said = f"None of {self.n_cases} is wrong."
            axis.text(0.5, 0.5, said, ha="center", va="center", transform=axis.transAxes)
            remark(self.axes_, RESEARCH_ONLY, own=ax is None)
        else:
            answers = zip(self.y_pred, self.probabilities, strict=True)
            predicted = [[f"predicted, {value:.2f}", label] for label, value in answers]
            true = [["true", label] for label in self.y_true]
            if self.heatmaps is None:
                titles = [a + b for a, b in zip(true, predicted, strict=True)]
                self.axes_ = draw_films(ax, self.images, titles, self.names, text, n_columns)
            else:
                self.axes_ = draw_films(
                    ax, self.images, true, self.names, text, n_columns, self.heatmaps, predicted
                )
        self.figure_ = self.axes_[0, 0].figure
        return self


@dataclass(frozen=True)
class _Mistakes:
    """Where an estimator is wrong, the most certain first."""

    indices: Array
    columns: Array  # of what was predicted
    true: list[str]
    predicted: list[str]
    probabilities: Array
    n_images: int
    n_cases: int
    n_errors: int


def _mistakes(
    y: Any, scores: Array, names: Array, multi_label: bool, predicted: Any, n: int, groups: Any
) -> _Mistakes:
    truth: Array = np.asarray(y)
    wanted = scores.shape if multi_label else scores.shape[:1]
    if truth.shape != wanted:
        raise InputError(f"y has shape {truth.shape}, but the scores are for {wanted}")
    patients = check_groups(groups, len(truth))
    readable: Array = np.asarray(~np.isnan(scores).any(axis=1))
    if multi_label:
        truth = truth.astype(float)
        said = np.asarray(scores >= 0.5 if predicted is None else predicted == 1)
        case: Array = readable[:, None] & ~np.isnan(truth)
        rows, columns = np.nonzero(case & (said != (truth == 1)))
        values = np.where(said, scores, 1 - scores)[rows, columns]
        n_cases = int(case.sum())
    else:
        found = names[np.nan_to_num(scores).argmax(axis=1)] if predicted is None else predicted
        rows = np.flatnonzero(readable & (found != truth))
        known = {name: k for k, name in enumerate(names.tolist())}
        columns = np.array([known[label] for label in found[rows].tolist()], dtype=np.intp)
        values = scores[rows, columns]
        n_cases = int(readable.sum())
    order = np.argsort(-values, kind="stable")
    n_errors = len(order)
    if patients is not None:
        first = np.unique(patients[rows[order]], return_index=True)[1]
        order = order[np.sort(first)]
    order = order[:n]
    rows, columns, values = rows[order], columns[order], values[order]
    if multi_label:
        present = [str(name) for name in names[columns].tolist()]
        absent = [f"no {name}" for name in present]
        pairs = zip(present, absent, said[rows, columns], strict=True)
        shown = [name if yes else other for name, other, yes in pairs]
        pairs = zip(present, absent, truth[rows, columns] == 1, strict=True)
        true = [name if yes else other for name, other, yes in pairs]
    else:
        shown = [str(label) for label in names[columns].tolist()]
        true = [str(label) for label in truth[rows].tolist()]
    return _Mistakes(rows, columns, true, shown, values, len(truth), n_cases, n_errors)
