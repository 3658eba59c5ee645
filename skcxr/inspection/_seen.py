"""What of an estimator is a network, and what the network gets to see of X."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skcxr._cache import Decoder
from skcxr._exceptions import InputError
from skcxr._inputs import read_images
from skcxr._nets import build_net
from skcxr._seeds import draw_seed
from skcxr._settings import InputSettings
from skcxr._shipped import shipped_name
from skcxr.augmentation import make_views
from skcxr.classifier import CXRClassifier
from skcxr.features import CXRFeatures, _embedding
from skcxr.inspection._pictures import Films
from skcxr.networks import draw_network
from skcxr.preprocessing import ImageLoader
from skcxr.training import own_randomness

Array = np.ndarray[Any, Any]

_BATCH = 8  # images at a time: our networks cut larger batches into pieces


def steps_of(estimator: Any) -> list[Any]:
    """Fitted transformers and the classifier at the end, out of pipelines, searches and such."""
    if isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
        return [*steps, *steps_of(estimator.steps[-1][1])]
    if hasattr(estimator, "best_estimator_"):
        return steps_of(estimator.best_estimator_)
    if isinstance(estimator, FixedThresholdClassifier | TunedThresholdClassifierCV):
        check_is_fitted(estimator)
        return steps_of(estimator.estimator_)
    if isinstance(estimator, CalibratedClassifierCV):
        check_is_fitted(estimator)
        if len(estimator.calibrated_classifiers_) == 1:
            return steps_of(estimator.calibrated_classifiers_[0].estimator)
    if type(estimator).__name__ == "FrozenEstimator":
        return steps_of(estimator.estimator)
    return [estimator]


def findings_of(estimator: Any) -> Array | None:
    """Names of the findings, where a :class:`CXRClassifier` is at the end."""
    found: Array | None = getattr(steps_of(estimator)[-1], "findings_", None)
    return found


def shown_of(estimator: Any, X: Any) -> Films:
    """The films of X, whatever the estimator makes of them."""
    first = steps_of(estimator)[0]
    return Films(X, getattr(first, "channel_axis", "auto"), getattr(first, "row_shape", None))


def pictures_of(steps: list[Any], X: Any) -> tuple[Films, Any]:
    """What to show of X, and X as the last step gets it."""
    last, before = steps[-1], steps[:-1]
    given = X
    for step in before:
        given = step.transform(given)
    only_stretches = all(
        isinstance(step, ImageLoader) and step.resize_mode == "stretch" for step in before
    )
    shape = getattr(last, "row_shape", None)
    axis = getattr(last, "channel_axis", "auto")
    return Films(X if only_stretches else given, channel_axis=axis, row_shape=shape), given


@dataclass(frozen=True)
class Seen:
    """A network of its own, and the pixels that it gets.

    Parameters
    ----------
    network : torch.nn.Module
        A copy, in evaluation mode.
    forward : callable
        Pixels ``(B, 1, H, W)`` to one score for each class or finding, through `network`.
    pixels : Tensor of shape (n, 1, H, W)
        Images as the network gets them.
    pictures : Films
        The films that are shown.
    device : str
        Where the network is.
    tta : int
        Views beside the image itself.
    redraw : callable
        From a seed, a network of the same kind with weights that are drawn anew.
    """

    network: nn.Module
    forward: Callable[[Tensor], Tensor]
    pixels: Tensor
    pictures: Films
    device: str
    tta: int
    redraw: Callable[[int], nn.Module]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the network's images."""
        return int(self.pixels.shape[2]), int(self.pixels.shape[3])

    def first(self) -> Tensor:
        """The first image, ready for gradients."""
        return self.pixels[:1].to(self.device).requires_grad_()

    def batches(self) -> Iterator[tuple[int, Tensor]]:
        """Numbers of the first image of a batch, and its views, ready for gradients."""
        for start in range(0, len(self.pixels), _BATCH):
            batch = self.pixels[start : start + _BATCH]
            for view in make_views(batch, 1 + self.tta):
                yield start, view.to(self.device).requires_grad_()


def look_inside(estimator: Any, X: Any) -> Seen:
    """Take the network out of a fitted estimator, as a copy, with its images."""
    steps = steps_of(estimator)
    last = steps[-1]
    if isinstance(last, CXRClassifier):
        check_is_fitted(last)
        pictures, given = pictures_of(steps, X)
        pixels = pixels_of(last, last._settings, given, last.memory)
        network = _copy(last.module_)
        return Seen(
            network, network, pixels, pictures, last.device_, last.tta, partial(_redrawn, last)
        )
    at = [k for k, step in enumerate(steps) if isinstance(step, CXRFeatures)]
    if len(at) == 1 and hasattr(last, "decision_function"):
        features = steps[at[0]]
        check_is_fitted(features)
        pictures, given = pictures_of([*steps[: at[0]], features], X)
        pixels = pixels_of(features, features._settings, given, None)
        network = _copy(features.module_)
        head = _linear(steps[at[0] + 1 :], features, given)
        layer, pooling = features._taken
        embed = _embedding(network, layer, pooling, features._settings)
        return Seen(
            network, lambda x: head(embed(x)), pixels, pictures, features.device_, 0,
            partial(_redrawn_features, features),
        )  # fmt: skip
    raise InputError(
        f"estimator is {type(estimator).__name__}"
        + (f" ending in {type(last).__name__}" if last is not estimator else "")
        + "; Grad-CAM looks into one network: a CXRClassifier, a Pipeline or search that ends in "
        "one, or a Pipeline of CXRFeatures and a linear classifier; OcclusionDisplay takes any "
        "estimator"
    )


def _copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).eval().requires_grad_(False)


def pixels_of(estimator: Any, settings: InputSettings, X: Any, memory: Any) -> Tensor:
    """X as the network gets it, (n, 1, H, W)."""
    images = read_images(estimator, X, reset=False, allow_nan=False)
    dataset = settings.dataset(images, decode=Decoder(memory, settings.interpolation))
    pixels, _ = dataset.__getitems__(list(range(len(images.items))))
    found: Tensor = pixels
    return found


def _redrawn(classifier: CXRClassifier, seed: int) -> nn.Module:
    settings = classifier._settings
    n_outputs = len(getattr(classifier, "findings_", classifier.classes_))
    with own_randomness(seed, settings.device):
        network = build_net(classifier, settings, n_outputs, seed, load=False).module_
        _reset(network, settings.backbone)
    return _copy(network)


def _redrawn_features(features: CXRFeatures, seed: int) -> nn.Module:
    settings = features._settings
    with own_randomness(seed, settings.device):
        network = draw_network(
            settings.backbone, num_classes=2, image_size=settings.image_size,
            pixels=settings.pixels, weights=shipped_name(features.weights, settings.backbone),
            dtype=settings.torch_dtype,
        )  # fmt: skip
        _reset(network, settings.backbone)
    return _copy(network).to(settings.device)


def _reset(network: nn.Module, backbone: Any) -> None:
    """Draw what has not been drawn.

    The layers of a user's network, which may come with weights of its own, and matrices of zeros,
    with which some heads begin: through these no place of a film says anything.
    """
    for module in network.modules():
        reset: Any = getattr(module, "reset_parameters", None)
        weight = getattr(module, "weight", None)
        zero = isinstance(weight, Tensor) and weight.ndim > 1 and not bool(weight.any())
        if reset is not None and (zero or not isinstance(backbone, str)):
            reset()


def _linear(steps: list[Any], features: CXRFeatures, X: Any) -> nn.Linear:
    """All steps after the features as one linear layer, where they come to one."""

    def scores(embeddings: Array) -> Array:
        for step in steps[:-1]:
            embeddings = step.transform(embeddings)
        found = np.asarray(steps[-1].decision_function(embeddings), dtype=np.float64)
        return np.stack([-found, found], axis=1) if found.ndim == 1 else found

    embeddings = np.asarray(features.transform(X), dtype=np.float64)
    centre = embeddings.mean(axis=0)
    scale = max(float(np.abs(embeddings).max()), 1e-6)
    steps_out = centre + scale * np.eye(len(centre))
    offset = scores(centre[None])[0]
    weight = (scores(steps_out) - offset) / scale  # (d, k)
    n_classes = len(steps[-1].classes_)
    straight = offset + (embeddings - centre) @ weight
    told = scores(embeddings)
    if told.shape[1] != n_classes or not np.allclose(
        told, straight, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(told).max()))
    ):
        named = " and ".join(type(step).__name__ for step in steps)
        raise InputError(
            f"CXRFeatures is followed by {named}, which is not linear, so Grad-CAM cannot follow "
            "its scores to the features; OcclusionDisplay takes any estimator"
        )
    # on "meta" nothing is drawn from the caller's generator
    head = nn.Linear(
        len(weight), n_classes, dtype=features._settings.torch_dtype, device="meta"
    ).to_empty(device="cpu")
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight.T))
        head.bias.copy_(torch.from_numpy(offset - centre @ weight))
    return head.to(features.device_).requires_grad_(False)


def seeds(random_state: Any, n: int) -> list[int]:
    """Seeds of n draws."""
    first = draw_seed(random_state)
    return [int(seed) for seed in np.random.default_rng(first).integers(2**31 - 1, size=n)]
