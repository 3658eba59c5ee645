"""Whether weights that come with the package have learnt an image.

A score on images that trained the weights says how well they are remembered. So the package
carries a perceptual hash of each of them, and compares. A hash is the signs of 128 low
frequencies, as in Zauner, "Implementation and benchmarking of perceptual image hash functions",
2010, but for the forty lowest, in which all chests are alike, and after a taper, so that the edge
of a film has no say. It survives another size, compression and exposure, and a mirror.
"""

from __future__ import annotations

import copy
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skcxr._exceptions import ContaminationWarning
from skcxr._shipped import Shipped

Array = np.ndarray[Any, Any]

N_BITS = 128
_SIDE = 64  # to which images are brought
_FREQUENCIES = 24  # of each axis that are looked at
_LOWEST = 40  # frequencies of the plane that are passed over
_FAR = 9  # bits in which two pictures of one exposure may differ; the nearest strangers have 10


@lru_cache(maxsize=1)
def _transform() -> tuple[Tensor, Tensor, Tensor]:
    """Tapered cosines ``(frequencies, side)``; which of the plane make the bits; signs mirrored."""
    place = (torch.arange(_SIDE, dtype=torch.float64) + 0.5) / _SIDE
    frequency = torch.arange(_FREQUENCIES, dtype=torch.float64)
    taper = torch.sin(torch.pi * place).clamp(min=0)
    cosines = torch.cos(torch.pi * frequency[:, None] * place) * taper
    down, right = torch.meshgrid(frequency, frequency, indexing="ij")
    distance = down**2 + right**2 + 1e-3 * down
    chosen = distance.flatten().argsort(stable=True)[_LOWEST : _LOWEST + N_BITS]
    odd = right.flatten()[chosen] % 2 == 1
    return cosines.float(), chosen, odd


def hash_bits(pixels: Tensor) -> Array:
    """Hash images.

    Parameters
    ----------
    pixels : Tensor of shape (B, 1, H, W)
        Gray images, their values in any range.

    Returns
    -------
    ndarray of shape (B, 128), dtype bool
        The bits.
    """
    cosines, chosen, _ = _transform()
    small = F.adaptive_avg_pool2d(pixels.detach().float().cpu(), _SIDE)[:, 0]
    small = small - small.mean((1, 2), keepdim=True)
    plane = cosines @ small @ cosines.T
    return (plane.flatten(1)[:, chosen] > 0).numpy()


@lru_cache(maxsize=4)
def _known(path: str) -> Array:
    """The hashes in a file, as -1 and 1, ``(n_images, 128)``."""
    bits = np.unpackbits(np.load(path, allow_pickle=False), axis=1)
    return bits.astype(np.float32) * 2 - 1


def have_learnt(shipped: Shipped, bits: Array) -> Array:
    """Tell which images trained weights.

    Parameters
    ----------
    shipped : Shipped
        The weights.
    bits : ndarray of shape (n, 128), dtype bool
        Hashes of images.

    Returns
    -------
    ndarray of shape (n,), dtype bool
        Whether an image, or its mirror image, is one of those that trained them.
    """
    known, odd = _known(shipped.hashes), _transform()[2].numpy()
    seen = np.zeros(len(bits), dtype=bool)
    for start in range(0, len(bits), 1024):
        part = slice(start, start + 1024)
        for mirrored in (False, True):
            signs = (bits[part] ^ (odd & mirrored)).astype(np.float32) * 2 - 1
            seen[part] |= (known @ signs.T).max(axis=0) >= N_BITS - 2 * _FAR
    return seen


def learnt_images(shipped: Shipped | None, images: Any, *, hold: bool = True) -> Array:
    """Tell which images of a data set trained weights.

    Parameters
    ----------
    shipped : Shipped or None
        The weights; None have learnt nothing that is known here.
    images : ImageDataset or None
        The images; None are none.
    hold : bool, default=True
        Whether `images` may hold what is decoded here, for the epochs to come.

    Returns
    -------
    ndarray of shape (n,), dtype bool
        Whether an image is one of those that trained them.
    """
    n_images = 0 if images is None else len(images)
    if shipped is None or not n_images:
        return np.zeros(n_images, dtype=bool)
    if not hold:
        images = copy.copy(images)
        images.ram_left = 0
    parts = [list(range(k, min(k + 64, n_images))) for k in range(0, n_images, 64)]
    bits = [hash_bits(images.__getitems__(part)[0]) for part in parts]
    return have_learnt(shipped, np.concatenate(bits))


def warn_if_learnt(shipped: Shipped | None, learnt: Array, stacklevel: int = 3) -> None:
    """Give one warning where some of the images have trained the weights.

    Warns
    -----
    ContaminationWarning
        Some have.
    """
    if shipped is not None and learnt.any():
        positions = np.flatnonzero(learnt).tolist()
        warnings.warn(
            ContaminationWarning(shipped.name, positions, len(learnt)), stacklevel=stacklevel + 1
        )
