"""Grad-CAM: which places of a film raise the score of a class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions, validate_params
from torch.nn import functional as F

from skcxr._optional import import_optional
from skcxr.inspection._answers import ask
from skcxr.inspection._heatmaps import HeatmapDisplay, check_number, to_unit_heat
from skcxr.inspection._layers import Forward, Layer, find_layer
from skcxr.inspection._seen import Seen, findings_of, look_inside
from skcxr.training import one_at_a_time

Array = np.ndarray[Any, Any]

METHODS = ("gradcam", "hirescam")


class GradCAMDisplay(HeatmapDisplay):
    """Films beside the places that raise the score of a class in a network.

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
    layer_ : str
        Name of the layer whose map was taken; only from :meth:`from_estimator`.

    See Also
    --------
    OcclusionDisplay : The same question to any estimator, by covering parts of the film.
    RandomisationDisplay : Whether the heatmaps depend on what the network has learnt.

    Notes
    -----
    Heat says which places raise a score in this network. It is no proof that a finding is there,
    nor that the network is right or looks at it for the reason that a reader would: films of
    another hospital, a randomised network and a marker in the corner get convincing heatmaps too.
    Each film has a scale of its own, so that a weak map looks as strong as any. In a transformer
    places have exchanged what they hold before its last map; there OcclusionDisplay tells more.

    Examples
    --------
    >>> from skcxr import CXRClassifier, make_cxr_phantoms
    >>> from skcxr.inspection import GradCAMDisplay
    >>> drawn = make_cxr_phantoms(24, n_classes=2, image_size=64, random_state=0)
    >>> clf = CXRClassifier(max_epochs=2, random_state=0).fit(drawn.data, drawn.target)
    >>> display = GradCAMDisplay.from_estimator(clf, drawn.data[:2], y=drawn.target[:2])
    >>> display.heatmaps.shape, display.layer_
    ((2, 64, 64), 'layers.stage2')
    """

    legend = "Colour: what raises the score of the class, on each film's own scale."
    layer_: str

    @classmethod
    @validate_params(
        {"layer": [str], "method": [StrOptions(set(METHODS))]}, prefer_skip_nested_validation=True
    )
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        y: Any = None,
        target: Any = None,
        layer: str = "auto",
        method: str = "hirescam",
        ax: Any = None,
    ) -> GradCAMDisplay:
        """Look into the network of a fitted estimator and plot.

        Parameters
        ----------
        estimator : estimator instance
            A fitted :class:`skcxr.CXRClassifier`; a Pipeline, search or threshold around one; or
            a Pipeline of :class:`skcxr.CXRFeatures` and steps that are linear together, as a
            scaler and a logistic regression are. A copy of its network is looked at; it is not
            changed itself.
        X : paths or array
            Up to 24 images, as the estimator takes them.
        y : array-like of shape (n,) or (n, n_findings), default=None
            True labels, to be shown.
        target : label or array-like of shape (n,), default=None
            The class or finding that the heat is to speak for, or one for each image. None takes
            the predicted class, or the finding of the highest probability.
        layer : str, default="auto"
            Name of the module whose map is taken, as in ``module_.named_modules()``. "auto" takes
            the last one on whose places the scores depend, and that tells six or more apart along
            the shorter side where there is one. What a head takes of earlier maps, as it does with
            the weights "cxr" (their means), is not shown.
        method : {"gradcam", "hirescam"}, default="hirescam"
            "gradcam" weighs each feature by its gradient averaged over the map [1]_, "hirescam" by
            the gradient of each place [2]_. Where a network takes the mean of its last map and
            that map is looked at, both are the same. Elsewhere the averaged gradient can point to
            places that say nothing: after a maximum ("cxrnet"), a map that is flattened
            ("smallnet", "vgg16", "alexnet"), an earlier map, or in a transformer.
        ax : matplotlib Axes, array of Axes or None, default=None
            As in :meth:`plot`.

        Returns
        -------
        GradCAMDisplay
            The plotted display.

        Raises
        ------
        InputError, ImageReadError
            X, y, `target`, `layer` or the kind of estimator cannot be used, or a file cannot be
            read.
        MissingDependencyError
            The extra ``skcxr[explain]`` is not installed.

        Notes
        -----
        The score is the logit of the class. With ``tta``, the maps of all views are averaged;
        their poses differ by less than a place of a usual map. Of tokens, as in a vision
        transformer, those that stand for places are taken for the map.

        References
        ----------
        .. [1] R. R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via
           gradient-based localization", ICCV 2017.
        .. [2] R. L. Draelos, L. Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations
           of convolutional neural networks", arXiv:2011.08891, 2020.
        """
        return cls._look(estimator, X, y, target, layer, method).plot(ax=ax)

    @classmethod
    def _look(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        target: Any = None,
        layer: str = "auto",
        method: str = "hirescam",
    ) -> GradCAMDisplay:
        import_optional("captum", "explain")
        seen = look_inside(estimator, X)
        check_number(seen.pictures.n)
        answers = ask(estimator, X, target, findings_of(estimator))
        with one_at_a_time():
            found = find_layer(seen.network, seen.forward, seen.first(), layer)
            maps = signed_maps(seen, found, seen.forward, answers.target, method)
        heat = to_unit_heat(upsampled(maps, seen.shape))
        display = cls._of(seen.pictures, heat, answers, y)
        display.layer_ = found.name
        return display


def signed_maps(seen: Seen, layer: Layer, forward: Forward, target: Array, method: str) -> Array:
    """What each place of a layer's map (n, h, w) adds to the score of the target, or takes."""
    attr = import_optional("captum.attr", "explain")
    total = np.zeros((len(seen.pixels), *layer.format.grid))
    with layer.probed() as probe:
        for start, view in seen.batches():
            wanted = [int(k) for k in target[start : start + len(view)]]
            if method == "gradcam":
                found = attr.LayerGradCam(forward, probe).attribute(view, target=wanted)
            else:
                found = attr.LayerGradientXActivation(forward, probe).attribute(view, target=wanted)
            found = found.detach().sum(1).double().cpu().numpy()
            total[start : start + len(view)] += found
    return np.nan_to_num(total / (1 + seen.tta))


def upsampled(maps: Array, shape: tuple[int, int]) -> Array:
    """Maps (n, h, w) at another size, without what is negative before it spreads."""
    heat = torch.from_numpy(np.maximum(maps, 0))[:, None]
    large = F.interpolate(heat, shape, mode="bilinear", align_corners=False)
    return np.asarray(large[:, 0].numpy())
