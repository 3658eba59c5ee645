"""Changes that take from a film what tells the hospital, and leave what tells the patient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skcxr.augmentation import CXRAugmentation


class HospitalAugmentation(CXRAugmentation):
    """Another hospital's processing, exposure, frame and markers, drawn anew for every batch.

    After the pose, gamma and contrast of :class:`skcxr.augmentation.CXRAugmentation` come

    - sharpness: blurred, or edges raised, at a scale of 0.5 to 1.7 pixels, as detectors and
      post-processing do;
    - local contrast: slow shades are taken out in part, as multi-scale processing and histogram
      equalisation do;
    - illumination: a smooth field over the film, as of a beam off its centre;
    - frame: bars of black, gray or white at some sides, as of collimation and scanning;
    - markers: up to two rectangles of one gray, where letters and labels stand.

    Domain randomisation in training is that of Tobin et al., IROS 2017, and Zhang et al., IEEE
    Transactions on Medical Imaging 39, 2020; the ranges are a choice of this project.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Change a batch ``(B, 1, H, W)`` of pixels in [0, 1]."""
        images = _sharpness(super().__call__(images))
        images = _local_contrast(images)
        images = _illumination(images).clamp(0, 1)
        return _markers(_frame(images))


def _uniform(images: Tensor, low: float, high: float) -> Tensor:
    """One number for each image, ``(B, 1, 1, 1)``."""
    return (torch.rand(len(images), 1, 1, 1) * (high - low) + low).to(images)


def _blur(images: Tensor, sigma: float) -> Tensor:
    radius = max(1, round(3 * sigma))
    at = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-((at / sigma) ** 2) / 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(images, [radius] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _sharpness(images: Tensor) -> Tensor:
    details = images - _blur(images, float(torch.rand(1)) * 1.2 + 0.5)
    strength = _uniform(images, -1, 1)
    return images + torch.where(strength < 0, strength, 1.5 * strength) * details


def _local_contrast(images: Tensor) -> Tensor:
    shades = F.interpolate(
        _blur(F.avg_pool2d(images, 8), 1.5), images.shape[2:], mode="bilinear", align_corners=False
    )
    mean = images.mean((1, 2, 3), keepdim=True)
    part = _uniform(images, -0.8, 0.8).clamp(min=0)  # every second film is left as it is
    return (1 + part) * (images - part * (shades - mean)) - part * mean


def _illumination(images: Tensor) -> Tensor:
    knots = ((torch.rand(len(images), 1, 3, 3) * 2 - 1) * 0.3).to(images)
    field = F.interpolate(knots, images.shape[2:], mode="bicubic", align_corners=True)
    return images * (1 + field)


def _gray(images: Tensor) -> Tensor:
    """Black or white for a third of the images each, a gray for the rest."""
    return _uniform(images, -1, 2).clamp(0, 1)


def _places(images: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns as parts of the height and the width."""
    height, width = images.shape[2:]
    down = torch.arange(height, device=images.device).view(1, 1, height, 1) / height
    right = torch.arange(width, device=images.device).view(1, 1, 1, width) / width
    return down, right


def _frame(images: Tensor) -> Tensor:
    down, right = _places(images)
    left, over, top, under = (
        _uniform(images, -0.24, 0.08).clamp(min=0) for _ in range(4)  # a quarter of the sides
    )  # fmt: skip
    bars = (right < left) | (right > 1 - over) | (down < top) | (down > 1 - under)
    return torch.where(bars, _gray(images), images)


def _markers(images: Tensor) -> Tensor:
    down, right = _places(images)
    for _ in range(2):
        height, width = _uniform(images, 0.02, 0.14), _uniform(images, 0.02, 0.14)
        top, left = _uniform(images, 0, 0.9), _uniform(images, 0, 0.9)
        box = (down >= top) & (down < top + height) & (right >= left) & (right < left + width)
        there = _uniform(images, 0, 1) < 0.5
        images = torch.where(box & there, _gray(images), images)
    return images
