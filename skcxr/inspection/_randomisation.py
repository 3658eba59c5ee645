"""Whether heatmaps show what a network has learnt, or only the film."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any

import numpy as np
from scipy.stats import ConstantInputWarning, spearmanr
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skcxr._notice import RESEARCH_ONLY
from skcxr._optional import import_optional
from skcxr.inspection._answers import ask
from skcxr.inspection._gradcam import METHODS, signed_maps
from skcxr.inspection._heatmaps import check_number
from skcxr.inspection._layers import find_layer
from skcxr.inspection._seen import findings_of, look_inside, seeds
from skcxr.training import one_at_a_time

__all__ = ["RandomisationDisplay"]

Array = np.ndarray[Any, Any]

_ALIKE = 0.5  # rank correlation from which maps are called alike


class RandomisationDisplay:
    """How much heatmaps change when the weights are drawn anew.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    correlations : ndarray of shape (n_draws, n)
        Spearman's rank correlation between the map of each film in the fitted network and in one
        whose weights are drawn anew, in [-1, 1]; NaN where a map is constant.
    layer : str
        The layer whose map was taken.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    ax_ : matplotlib Axes
        The axes, once plotted.

    See Also
    --------
    GradCAMDisplay : The heatmaps themselves.

    Examples
    --------
    >>> from skcxr import CXRClassifier, make_cxr_phantoms
    >>> from skcxr.inspection import RandomisationDisplay
    >>> drawn = make_cxr_phantoms(24, n_classes=2, image_size=64, random_state=0)
    >>> clf = CXRClassifier(max_epochs=2, random_state=0).fit(drawn.data, drawn.target)
    >>> display = RandomisationDisplay.from_estimator(
    ...     clf, drawn.data[:4], n_draws=2, random_state=0
    ... )
    >>> display.correlations.shape
    (2, 4)
    """

    def __init__(self, correlations: Array, *, layer: str) -> None:
        self.correlations, self.layer = correlations, layer

    @classmethod
    @validate_params(
        {
            "layer": [str],
            "method": [StrOptions(set(METHODS))],
            "n_draws": [Interval(Integral, 1, None, closed="left")],
            "random_state": ["random_state"],
        },
        prefer_skip_nested_validation=True,
    )
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        target: Any = None,
        layer: str = "auto",
        method: str = "hirescam",
        n_draws: int = 3,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
    ) -> RandomisationDisplay:
        """Compare the heatmaps of a fitted network with those of networks that know nothing.

        Parameters
        ----------
        estimator : estimator instance
            As :meth:`GradCAMDisplay.from_estimator` takes it. It is not changed.
        X : paths or array
            Up to 24 images.
        target : label or array-like of shape (n,), default=None
            The class or finding that the heat is to speak for. None takes the predicted class.
        layer : str, default="auto"
            As in :meth:`GradCAMDisplay.from_estimator`.
        method : {"gradcam", "hirescam"}, default="hirescam"
            As in :meth:`GradCAMDisplay.from_estimator`.
        n_draws : int, default=3
            How often all weights are drawn anew.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. The global generators of torch are never moved.
        ax : matplotlib Axes or None, default=None
            As in :meth:`plot`.

        Returns
        -------
        RandomisationDisplay
            The plotted display.

        Raises
        ------
        InputError, ImageReadError
            X, `target`, `layer` or the kind of estimator cannot be used, or a file cannot be read.
        MissingDependencyError
            The extra ``skcxr[explain]`` is not installed.

        References
        ----------
        .. [1] J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
        """
        import_optional("captum", "explain")
        seen = look_inside(estimator, X)
        check_number(seen.pictures.n)
        answers = ask(estimator, X, target, findings_of(estimator))
        with one_at_a_time():
            found = find_layer(seen.network, seen.forward, seen.first(), layer)
            learnt = signed_maps(seen, found, seen.forward, answers.target, method)
            rows = []
            for seed in seeds(random_state, n_draws):
                seen.network.load_state_dict(seen.redraw(seed).state_dict())
                drawn = signed_maps(seen, found, seen.forward, answers.target, method)
                rows.append([_alike(a, b) for a, b in zip(learnt, drawn, strict=True)])
        return cls(np.array(rows), layer=found.name).plot(ax=ax)

    @property
    def sentence(self) -> str:
        """What it means, in words."""
        known = self.correlations[~np.isnan(self.correlations)]
        if not len(known):
            return "The maps are constant, so nothing can be compared."
        mean = float(known.mean())
        if mean > _ALIKE:
            return (
                f"The heatmaps hardly change when the weights are drawn anew (mean rank "
                f"correlation {mean:.2f}): they show the film, not what the network has learnt."
            )
        return (
            f"The heatmaps change when the weights are drawn anew (mean rank correlation "
            f"{mean:.2f}): they depend on what the network has learnt."
        )

    def plot(self, ax: Any = None) -> RandomisationDisplay:
        """Plot the correlation of each film and draw.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None for a new figure.

        Returns
        -------
        RandomisationDisplay
            The display itself.
        """
        import textwrap

        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        n = self.correlations.shape[1]
        for row in self.correlations:
            ax.plot(np.arange(n), row, "o", color="tab:blue", alpha=0.6)
        ax.axhline(0, linewidth=1, color="0.5")
        ax.axhline(_ALIKE, linewidth=1, linestyle=":", color="0.5")
        ax.set(
            ylim=(-1.05, 1.05), xlabel="film", xticks=np.arange(n),
            ylabel="rank correlation with the\nmap of a network drawn anew",
        )  # fmt: skip
        ax.set_title(textwrap.fill(self.sentence, 66) + f"\n{RESEARCH_ONLY}", fontsize=9)
        return self


def _alike(a: Array, b: Array) -> float:
    """Spearman's rank correlation of two maps, NaN where one is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        return float(spearmanr(a.ravel(), b.ravel()).statistic)
