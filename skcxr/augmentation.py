"""Augmentation that a chest radiograph survives.

A policy acts on training batches only. Left and right are never exchanged: that turns the heart
around (situs inversus is a finding, not a variation).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from skcxr._exceptions import InputError

__all__ = ["CXRAugmentation", "PerImage"]


class CXRAugmentation:
    """Small changes of pose and exposure, drawn anew for every image of a batch.

    Parameters
    ----------
    degrees : float, default=10
        Largest rotation to either side, in degrees: how far patients lean.
    translate : float, default=0.06
        Largest shift, as a part of the width and of the height: centring of the beam.
    scale : float, default=0.1
        Largest change of size, as a part: body size and distance to the detector.
    gamma : float, default=0.3
        The exponent of the gray values is drawn between ``exp(-gamma)`` and ``exp(gamma)``:
        exposure and the film's or detector's curve. Pixels outside [0, 1] are left alone.

    Examples
    --------
    >>> import torch
    >>> from skcxr.augmentation import CXRAugmentation
    >>> batch = torch.rand(4, 1, 64, 64)
    >>> CXRAugmentation()(batch).shape
    torch.Size([4, 1, 64, 64])
    """

    def __init__(
        self,
        degrees: float = 10,
        translate: float = 0.06,
        scale: float = 0.1,
        gamma: float = 0.3,
    ) -> None:
        self.degrees, self.translate, self.scale, self.gamma = degrees, translate, scale, gamma

    def __call__(self, images: Tensor) -> Tensor:
        """Change a batch ``(B, 1, H, W)`` of pixels."""
        height, width = images.shape[2:]
        # (5, B) numbers in [-1, 1); from the CPU's generator, so that every device sees the same
        draw = (torch.rand(5, len(images)) * 2 - 1).to(images)
        angle = draw[0] * self.degrees * torch.pi / 180
        scale = 1 + draw[1] * self.scale
        # the grid is in units of half a side; height / width keeps a rotation a rotation
        cos, sin, ratio = angle.cos() / scale, angle.sin() / scale, height / width
        dx, dy = 2 * self.translate * draw[2], 2 * self.translate * draw[3]
        row1 = torch.stack([cos, -sin * ratio, dx], 1)
        row2 = torch.stack([sin / ratio, cos, dy], 1)
        grid = F.affine_grid(torch.stack([row1, row2], 1), list(images.shape), align_corners=False)
        # the nearest pixel: interpolation would blur what is trained on, and not what is predicted
        images = F.grid_sample(images, grid, "nearest", padding_mode="border", align_corners=False)
        gamma = (draw[4] * self.gamma).exp().view(-1, 1, 1, 1)
        unit = images.clamp(0, 1)
        return images + (unit**gamma - unit)


class PerImage:
    """Apply a user's transform to each image ``(1, H, W)`` of a batch by itself.

    Parameters
    ----------
    transform : callable
        A torchvision v2 transform or any function from a float tensor ``(1, H, W)`` to one of
        the same shape.

    Examples
    --------
    >>> import torch
    >>> from skcxr.augmentation import PerImage
    >>> brighter = PerImage(lambda image: image * 1.1)
    >>> brighter(torch.rand(4, 1, 64, 64)).shape
    torch.Size([4, 1, 64, 64])
    """

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    def __call__(self, images: Tensor) -> Tensor:
        """Change a batch ``(B, 1, H, W)`` of pixels."""
        changed = [self.transform(image) for image in images]
        for image in changed:
            if not isinstance(image, Tensor) or image.shape != images.shape[1:]:
                what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
                raise InputError(
                    f"augmentation={self.transform!r} turned an image of shape "
                    f"{tuple(images.shape[1:])} into {what}; it must keep the shape"
                )
        return torch.stack(changed).to(images.dtype)
