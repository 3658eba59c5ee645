"""Weights that come with the package, and which images they have learnt.

Beside this file lie, for each name, ``<name>.safetensors`` (the tensors of a network without its
head), ``<name>.hashes.npy`` (a perceptual hash of each image that trained them) and ``<name>.md``
(the card: data, licence, recipe, seed, versions, checksum, results and limits). They are made by
``python -m pretraining``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass(frozen=True)
class Shipped:
    """Weights in the package.

    Parameters
    ----------
    name : str
        What `weights` calls them.
    backbone : str
        The network that they are for.
    image_size : (int, int)
        Height and width in pixels of the images that trained them.
    arguments : dict
        Those of the network that are not its defaults.
    folder : str
        Where its files lie.
    """

    name: str
    backbone: str
    image_size: tuple[int, int]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    folder: str = _HERE

    @property
    def weights(self) -> str:
        """Path of the tensors."""
        return os.path.join(self.folder, f"{self.name}.safetensors")

    @property
    def hashes(self) -> str:
        """Path of the hashes of the images that trained them."""
        return os.path.join(self.folder, f"{self.name}.hashes.npy")

    @property
    def card(self) -> str:
        """Path of the card."""
        return os.path.join(self.folder, f"{self.name}.md")


SHIPPED = {"cxr": Shipped("cxr", "cxrnet", (128, 128), {"width": 48, "pooling": "top"})}


def shipped_weights(weights: Any, backbone: Any) -> Shipped | None:
    """The weights of the package that `weights` names for a network; None for any others."""
    shipped = SHIPPED.get(weights) if isinstance(weights, str) else None
    return shipped if shipped is not None and shipped.backbone == backbone else None


def shipped_name(weights: Any, backbone: Any) -> str | None:
    """Their name, which settles the shape of a network that is drawn; None for any others."""
    shipped = shipped_weights(weights, backbone)
    return None if shipped is None else shipped.name
