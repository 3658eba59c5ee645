"""Networks: a name -> a torch module with a head, its input and its weights.

Every network of this room takes a gray batch ``(B, 1, H, W)`` with pixels as
:func:`skcxr.images.read_image` gives them and returns logits ``(B, num_classes)``; what the
pixels must become for the layers (standardised, three channels) is its first layer's job.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from skcxr._exceptions import InputError, SkcxrWarning, WeightsError
from skcxr._foreign_networks import (
    LIBRARIES,
    NO_HEAD,
    ForeignNet,
    InputSpec,
    build_foreign,
    resize_positions,
)
from skcxr._own_networks import CXRNet, SmallNet
from skcxr._shipped import SHIPPED, shipped_weights
from skcxr._weights import Names, linear_head, looks_like_file, put_weights, read_weights

__all__ = ["CXRNet", "InputSpec", "SmallNet", "build_network", "input_spec", "list_backbones"]

_OWN: dict[str, Callable[..., nn.Module]] = {"cxrnet": CXRNet, "smallnet": SmallNet}

_ANY_SIZE = InputSpec(None, 1, None, None, "hamming", False)


def list_backbones(kind: str | None = None) -> list[str]:
    """List the names that ``CXRClassifier(backbone=...)`` takes.

    Parameters
    ----------
    kind : {"own", "torchvision", "timm", "xrv"} or None, default=None
        Whose networks; None lists our own and torchvision's. Those of timm and torchxrayvision,
        whose names begin with ``timm:`` and ``xrv:``, need the extras of these names.

    Returns
    -------
    list of str
        The names, our own first.

    Raises
    ------
    InputError
        There is no such kind.
    MissingDependencyError
        The extra is not installed.

    Examples
    --------
    >>> from skcxr.networks import list_backbones
    >>> list_backbones("own")
    ['cxrnet', 'smallnet']
    >>> [name for name in list_backbones() if name.startswith("densenet")]
    ['densenet121', 'densenet161', 'densenet169', 'densenet201']
    """
    if kind is None:
        return list_backbones("own") + list_backbones("torchvision")
    if kind == "own":
        return sorted(_OWN)
    if kind not in LIBRARIES:
        raise InputError(f"kind={kind!r} is none of 'own', {', '.join(map(repr, LIBRARIES))}")
    return sorted(_full_name(kind, name) for name in LIBRARIES[kind].names())


def input_spec(
    backbone: str | Callable[..., nn.Module], weights: str | os.PathLike[str] | None = None
) -> InputSpec:
    """Tell on what images the weights of a backbone were trained; nothing is built or loaded.

    Parameters
    ----------
    backbone : str or callable
        As for :func:`build_network`.
    weights : str, os.PathLike or None, default=None
        As for :func:`build_network`; None and files take what the default weights have, or any
        size where a backbone of ours is trained from nothing.

    Returns
    -------
    InputSpec
        Size, channels, mean and standard deviation, interpolation.

    Raises
    ------
    InputError
        The backbone is unknown.
    WeightsError
        No weights of that name are published for it.
    MissingDependencyError
        The library is not installed.

    Examples
    --------
    >>> from skcxr.networks import input_spec
    >>> spec = input_spec("resnet18")
    >>> spec.size, spec.channels, spec.mean
    ((224, 224), 3, (0.485, 0.456, 0.406))
    """
    if not isinstance(backbone, str):
        return _ANY_SIZE
    kind, name = _find(backbone)
    published = None if weights is None else _published(kind, name, weights)
    if kind == "own":
        shipped = shipped_weights(published, name)
        return replace(_ANY_SIZE, size=shipped.image_size) if shipped else _ANY_SIZE
    return LIBRARIES[kind].spec(name, published)


def build_network(
    backbone: str | Callable[..., nn.Module],
    *,
    num_classes: int,
    image_size: tuple[int, int],
    pixels: tuple[float, float] | None = None,
    weights: str | os.PathLike[str] | None = None,
    dtype: torch.dtype = torch.float32,
    **kwargs: Any,
) -> nn.Module:
    """Build a network, with weights that are loaded or drawn from torch's generator.

    Parameters
    ----------
    backbone : str or callable
        A name of :func:`list_backbones`, or a class or factory of ``torch.nn.Module`` that is
        called with ``num_classes=`` and `kwargs` and maps ``(B, 1, H, W)`` to
        ``(B, num_classes)`` logits.
    num_classes : int
        Number of logits.
    image_size : (int, int)
        Height and width in pixels of the images to come.
    pixels : (float, float) or None, default=None
        Mean and standard deviation of all training pixels, for rows; None for images.
    weights : str, os.PathLike or None, default=None
        The path of a local ``.safetensors``, ``.pt`` or ``.pth`` file; "cxr" for "cxrnet", which
        come with the package; "DEFAULT" or another name that torchvision ("IMAGENET1K_V1") or
        timm ("ra_in1k") publishes for the backbone, which that library downloads. None draws them
        at random, but for ``xrv:`` backbones, which are named by their weights. A head of another
        size is replaced by a new one, and ``weights_info`` of the network says so.
    dtype : torch.dtype, default=torch.float32
        Type of the weights.
    **kwargs : dict
        Further arguments of the network. For those of torchvision, timm and torchxrayvision
        ``dropout`` is that before the head.

    Returns
    -------
    torch.nn.Module
        The network, on the CPU.

    Raises
    ------
    InputError
        The name is unknown, the network cannot be built for such images, or the factory does not
        return a module.
    WeightsError
        `weights` cannot be found or read, or do not fit; never is a random network given instead.
    MissingDependencyError
        The library is not installed.

    Warns
    -----
    SkcxrWarning
        A head that somebody fine-tuned is replaced by one of another size.

    Examples
    --------
    >>> from skcxr.networks import build_network
    >>> network = build_network("cxrnet", num_classes=3, image_size=(64, 64), width=8)
    >>> type(network).__name__, network.embedding_size, len(network.stages())
    ('CXRNet', 128, 4)
    """
    network, lost = load_network(
        backbone, num_classes=num_classes, image_size=image_size, pixels=pixels, weights=weights,
        dtype=dtype, **kwargs,
    )  # fmt: skip
    if lost:
        warnings.warn(
            f"weights={weights!r}: {network.weights_info}; what this head had learnt is lost",
            SkcxrWarning,
            stacklevel=2,
        )
    return network


def load_network(
    backbone: str | Callable[..., nn.Module],
    *,
    num_classes: int,
    image_size: tuple[int, int],
    pixels: tuple[float, float] | None = None,
    weights: str | os.PathLike[str] | None = None,
    dtype: torch.dtype = torch.float32,
    **kwargs: Any,
) -> tuple[nn.Module, bool]:
    """Build a network as :func:`build_network` does; and whether a fine-tuned head was lost."""
    height, width = image_size
    image_size = (int(height), int(width))
    kind, name = _find(backbone) if isinstance(backbone, str) else ("user", "")
    wanted = "DEFAULT" if weights is None and kind == "xrv" else weights
    published = None if wanted is None else _published(kind, name, wanted)
    network = draw_network(
        backbone, num_classes=num_classes, image_size=image_size, pixels=pixels,
        weights=published, dtype=dtype, **kwargs,
    )  # fmt: skip
    if wanted is None:
        return network, False
    kwargs.pop("dropout", None)
    shipped = shipped_weights(published, name)
    if published is None:
        state, origin = read_weights(wanted), f"the file {os.path.basename(wanted)}"
    elif shipped is not None:
        state, origin = read_weights(shipped.weights), f"the weights {shipped.name!r} of skcxr"
    else:
        state, origin = LIBRARIES[kind].fetch(name, published, image_size, **kwargs)
    adapt = None
    if isinstance(network, ForeignNet):
        names = network.names
        adapt = lambda found: resize_positions(network, found)  # noqa: E731
    elif kind == "own":
        names = Names("layers.head")
    else:
        names = Names(linear_head(network, num_classes))
    lost = put_weights(network, state, names=names, weights=wanted, origin=origin, adapt=adapt)
    return network, lost


def draw_network(
    backbone: str | Callable[..., nn.Module],
    *,
    num_classes: int,
    image_size: tuple[int, int],
    pixels: tuple[float, float] | None = None,
    weights: str | None = None,
    dtype: torch.dtype = torch.float32,
    **kwargs: Any,
) -> nn.Module:
    """Build a network of random weights for a state dict to come; `weights` settle its shape."""
    if not isinstance(backbone, str):
        network = backbone(num_classes=num_classes, **kwargs)
        if not isinstance(network, nn.Module):
            raise InputError(
                f"backbone={backbone!r} returned {type(network).__name__}, not a torch.nn.Module"
            )
        return network.to(dtype)
    kind, name = _find(backbone)
    if kind == "own":
        if (shipped := shipped_weights(weights, name)) is not None:
            kwargs = {**shipped.arguments, **kwargs}
        if name == "smallnet":
            kwargs = {"image_size": image_size, "pixels": pixels, **kwargs}
        return _OWN[name](num_classes=num_classes, **kwargs).to(dtype)
    spec = LIBRARIES[kind].spec(name, weights)
    return build_foreign(kind, name, num_classes, image_size, spec, **kwargs).to(dtype)


def _full_name(kind: str, name: str) -> str:
    return f"{kind}:{name}" if kind in ("timm", "xrv") else name


@lru_cache(maxsize=64)  # a search asks at every fit, and timm goes through a thousand names
def _find(backbone: str) -> tuple[str, str]:
    """Whose network a name means, and its name there."""
    kind, colon, name = backbone.partition(":")
    if colon and kind in ("timm", "xrv"):
        known = LIBRARIES[kind].names()
        architecture, _, tag = name.partition(".")
        if name in known:
            return kind, name
        tags = LIBRARIES[kind].published(name) if kind == "timm" and architecture in known else []
        if tag != "DEFAULT" and tag in tags:
            return kind, name
        near = get_close_matches(architecture, known, n=5) or known[:3]
        raise InputError(
            f"backbone={backbone!r} is unknown to {'timm' if kind == 'timm' else 'torchxrayvision'}"
            f"; {_near(kind, near)}; list_backbones({kind!r}) has all names"
        )
    if backbone in _OWN:
        return "own", backbone
    known = list_backbones("torchvision")
    if backbone in known:
        return "torchvision", backbone
    if backbone.startswith(NO_HEAD):
        raise InputError(
            f"backbone={backbone!r} has no linear layer at its end to put another in place of: it "
            "averages what a convolution and a ReLU say; take another, such as 'mobilenet_v3_small'"
        )
    near = get_close_matches(backbone, [*known, *_OWN], n=3)
    raise InputError(
        f"backbone={backbone!r} is unknown{'; ' if near else ''}{_near('', near)}; known are "
        f"{', '.join(sorted(_OWN))}, the networks of torchvision "
        "(skcxr.networks.list_backbones()), those of timm as 'timm:<name>' and of torchxrayvision "
        "as 'xrv:<name>'; or pass a torch.nn.Module class or factory that takes num_classes="
    )


def _near(kind: str, names: list[str]) -> str:
    shown = " or ".join(repr(_full_name(kind, name)) for name in names)
    return f"did you mean {shown}?" if names else ""


@lru_cache(maxsize=64)
def _known_weights(kind: str, name: str) -> tuple[str, ...]:
    if kind == "own":
        return tuple(each.name for each in SHIPPED.values() if each.backbone == name)
    return tuple(LIBRARIES[kind].published(name)) if kind in LIBRARIES else ()


def _published(kind: str, name: str, weights: str | os.PathLike[str]) -> str | None:
    """The name of published weights, None for a file, an error for anything else."""
    known = _known_weights(kind, name)
    if isinstance(weights, str) and (
        weights in known or (weights == "DEFAULT" and known and kind != "own")
    ):
        return weights
    if looks_like_file(weights):
        return None
    if kind in LIBRARIES:
        backbone = _full_name(kind, name)
        listed = ", ".join(repr(x) for x in ["DEFAULT", *(x for x in known if x != "DEFAULT")])
        there = f"for {backbone!r} there are {listed}" if known else f"{backbone!r} has none"
    elif known:
        there = f"for {name!r} there are {', '.join(map(repr, known))}"
    elif kind == "own":
        there = f"{name!r} is trained from nothing, and none are published for it"
    else:
        there = "for a network of yours none are published"
    raise WeightsError(
        f"weights={weights!r} is neither the name of published weights nor a file: {there}; "
        "None draws weights at random, and a local .safetensors, .pt or .pth file can be given by "
        "its path"
    )
