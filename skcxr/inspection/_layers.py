"""Maps of features inside a network: where they are, and in which order of their axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skcxr._exceptions import InputError
from skcxr._weights import title_of

Forward = Callable[[Tensor], Tensor]

_SIDE = 6  # places along the shorter side of a map that "auto" wants, where the network has them
_MOST_PREFIX = 16  # tokens that stand for no place: class, distillation, registers
_NO_MAP = (nn.Linear, nn.Identity, nn.modules.dropout._DropoutNd)


@dataclass(frozen=True)
class MapFormat:
    """How a layer's output holds a map of h times w places.

    Parameters
    ----------
    axes : {"first", "last", "tokens"}
        ``(B, C, h, w)``, ``(B, h, w, C)``, or ``(B, prefix + h * w, C)``.
    grid : (int, int)
        Height and width of the map.
    prefix : int, default=0
        Tokens before the map.
    """

    axes: str
    grid: tuple[int, int]
    prefix: int = 0

    def take(self, output: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` of an output."""
        if self.axes == "first":
            return output
        if self.axes == "last":
            return output.permute(0, 3, 1, 2)
        patches = output[:, self.prefix :]
        return patches.reshape(len(output), *self.grid, -1).permute(0, 3, 1, 2)

    def put(self, found: Tensor, output: Tensor) -> Tensor:
        """An output with another map in it."""
        if self.axes == "first":
            return found
        if self.axes == "last":
            return found.permute(0, 2, 3, 1)
        patches = found.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat([output[:, : self.prefix], patches], 1)


def _format_of(
    shape: tuple[int, ...], image: tuple[int, int], grid: tuple[int, int] | None
) -> MapFormat | None:
    """How an output of `shape` holds a map of an `image`; `grid` is the last one met."""
    ratio = image[0] / image[1]
    if len(shape) == 4:
        first, last = (_off(shape[k] / shape[k + 1], ratio) for k in (2, 1))
        axes, sides = ("last", shape[1:3]) if last < first else ("first", shape[2:4])
        places = (sides[0], sides[1])
        fits = places[0] <= image[0] and places[1] <= image[1]
        return MapFormat(axes, places) if fits and places[0] * places[1] > 1 else None
    if len(shape) != 3 or shape[1] < 2:
        return None
    n_tokens = shape[1]
    if grid is not None and 0 <= n_tokens - grid[0] * grid[1] <= _MOST_PREFIX:
        return MapFormat("tokens", grid, n_tokens - grid[0] * grid[1])
    for prefix in range(min(_MOST_PREFIX, n_tokens - 2) + 1):
        n = n_tokens - prefix
        heights = [h for h in range(1, n + 1) if n % h == 0]
        height = min(heights, key=lambda h: _off(h * h / n, ratio))
        if _off(height * height / n, ratio) < 1.1:
            return MapFormat("tokens", (height, n // height), prefix)
    return None


def _off(a: float, b: float) -> float:
    """How many times larger the larger one is."""
    return max(a / b, b / a)


@dataclass(frozen=True)
class Layer:
    """A module of a network whose output holds a map.

    Parameters
    ----------
    name : str
        Its name in the network.
    module : torch.nn.Module
        The module.
    format : MapFormat
        How its output holds the map.
    rectified : bool
        Whether a ReLU follows at once, so that negative features say nothing.
    """

    name: str
    module: nn.Module
    format: MapFormat
    rectified: bool

    @contextmanager
    def probed(self) -> Iterator[nn.Module]:
        """Lead the map through a module of its own, ``(B, C, h, w)``, for gradients to be taken."""
        probe = _Probe(self.rectified)

        def hook(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            # a copy: what comes next may work in place
            return self.format.put(probe(self.format.take(output)), output).clone()

        handle = self.module.register_forward_hook(hook)
        try:
            yield probe
        finally:
            handle.remove()


class _Probe(nn.Module):
    def __init__(self, rectified: bool) -> None:
        super().__init__()
        self.rectified = rectified

    def forward(self, x: Tensor) -> Tensor:
        if self.rectified:  # above 0, where the ReLU that follows would have no slope
            return x.clamp_min(torch.finfo(x.dtype).tiny)
        return x.clone()


def find_layer(network: nn.Module, forward: Forward, pixels: Tensor, layer: str) -> Layer:
    """Find the layer whose map is looked at.

    Parameters
    ----------
    network : torch.nn.Module
        The network, in evaluation mode.
    forward : callable
        Pixels to logits through `network`.
    pixels : Tensor of shape (1, 1, H, W)
        An image.
    layer : str
        The name of a module, or "auto" for the last whose places the logits depend on.
    """
    outputs, logits = _run(network, forward, pixels)
    image = (int(pixels.shape[2]), int(pixels.shape[3]))
    found: list[tuple[str, MapFormat, Tensor]] = []
    grid = None
    for name, output in outputs.items():
        held = _format_of(tuple(output.shape), image, grid)
        if held is None:
            continue
        if held.axes != "tokens" and min(held.grid) > 1:
            grid = held.grid
        found.append((name, held, output))
    weight = torch.linspace(1, 2, logits.shape[1], dtype=logits.dtype, device=logits.device)
    gradients: tuple[Tensor | None, ...] = ()
    if found and logits.requires_grad:
        gradients = torch.autograd.grad(
            (logits * weight).sum(), [output for _, _, output in found], allow_unused=True
        )
    usable = [
        (name, held)
        for (name, held, _), gradient in zip(found, gradients, strict=False)
        if gradient is not None and bool(held.take(gradient).any())
    ]
    name, held = _choose(network, layer, usable, outputs)
    module = network.get_submodule(name)
    if held.axes == "first":  # a ReLU may work in place, so that `output` does not tell
        with Layer(name, module, held, rectified=True).probed():
            rectified = torch.equal(forward(pixels), logits)
        return Layer(name, module, held, rectified)
    return Layer(name, module, held, rectified=False)


def _run(network: nn.Module, forward: Forward, pixels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs of all modules that run once, in the order in which they end, and the logits."""
    outputs: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(output, Tensor) and output.requires_grad and len(output) == len(pixels):
                outputs[name] = output

        return hook

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in network.named_modules(remove_duplicate=True)
        if name and not isinstance(module, _NO_MAP) and not _inside_attention(network, name)
    ]
    try:
        with torch.enable_grad():
            logits = forward(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return {name: output for name, output in outputs.items() if calls[name] == 1}, logits


def _inside_attention(network: nn.Module, name: str) -> bool:
    """Whether a module computes within attention, whose axes are heads and windows."""
    parts = name.split(".")
    above = [network.get_submodule(".".join(parts[:k])) for k in range(1, len(parts))]
    return any("attention" in type(module).__name__.lower() for module in above)


def _choose(
    network: nn.Module,
    layer: str,
    usable: list[tuple[str, MapFormat]],
    outputs: dict[str, Tensor],
) -> tuple[str, MapFormat]:
    names = [name for name, _ in usable]
    if layer == "auto":
        if not usable:
            raise InputError(
                f"no layer of {title_of(network)} has a map of features on whose places its "
                "output depends, so Grad-CAM has nothing to show; where there is one all the "
                "same, give its name by layer=, and OcclusionDisplay takes any estimator"
            )
        fine = [entry for entry in usable if min(entry[1].grid) >= _SIDE]
        most = max(min(held.grid) for _, held in usable)
        return (fine or [entry for entry in usable if min(entry[1].grid) == most])[-1]
    for name in (layer, f"body.{layer}", f"layers.{layer}"):
        if name in names:
            return usable[names.index(name)]
    shape = next(
        (tuple(outputs[n].shape) for n in (layer, f"body.{layer}", f"layers.{layer}")
         if n in outputs), None,
    )  # fmt: skip
    modules = {name for name, _ in network.named_modules()}
    if shape is not None:
        what = f"gives {shape} for one image, no map on whose places the output depends"
    elif {layer, f"body.{layer}", f"layers.{layer}"} & modules:
        what = "does not run once for each image, or gives no single tensor"
    else:
        what = f"is no module of {title_of(network)}"
    last = ", ".join(names[-12:]) if names else "none"
    raise InputError(f"layer={layer!r} {what}; the last layers with a map are {last}")
