"""Radiographs beside what augmentation makes of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from skcxr._cache import Decoder
from skcxr._exceptions import InputError
from skcxr._inputs import read_images
from skcxr._seeds import draw_seed
from skcxr._settings import settle
from skcxr.classifier import CXRClassifier
from skcxr.inspection._panels import check_classifier, panels
from skcxr.training import one_at_a_time, own_randomness

Array = np.ndarray[Any, Any]

_MOST_ROWS = 20  # images in one picture


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
        check_classifier(estimator)
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
        self.axes_ = panels(ax, len(self.images), 1 + n_draws, self.images.shape[1:])
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
