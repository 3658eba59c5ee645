"""Networks: a name -> a torch module with a head for ``n_classes``.

Every network of this room takes a gray batch ``(B, 1, H, W)`` with pixels as
:func:`skcxr.images.read_image` gives them and returns logits ``(B, n_classes)``; what the
pixels must become for the layers (standardised, three channels) is its first layer's job.

References
----------
He et al., "Deep residual learning for image recognition", CVPR 2016.
Ioffe and Szegedy, "Batch normalization", ICML 2015.
Lin, Chen and Yan, "Network in network", ICLR 2014 (global average pooling).
Srivastava et al., "Dropout", JMLR 15, 2014.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skcxr._exceptions import InputError

__all__ = ["CXRNet", "SmallNet", "build_network", "list_backbones"]


# --------------------------------------------------------------------------------------------
# layers that compute the same on any number of CPU threads
#
# oneDNN and MKL split some sums by the number of threads, so a network trained with one thread
# and the same network trained with two part ways in the last bit, and then altogether. These
# layers cut a batch into fixed pieces, give each piece to one thread, and add in order.
# --------------------------------------------------------------------------------------------

_PIECE = 8  # images


@lru_cache(maxsize=4)
def _workers(n_threads: int, pid: int) -> ThreadPoolExecutor:
    """Threads that each run torch single-threaded (`pid`: a fork has none of its parent's)."""
    started = threading.Barrier(n_threads + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread's first look takes the process's value: look now
        torch.set_num_threads(1)
        started.wait()

    workers = ThreadPoolExecutor(n_threads, thread_name_prefix="skcxr", initializer=start)
    for _ in range(n_threads):
        workers.submit(int)
    started.wait()
    torch.set_num_threads(n_threads)  # new threads of the process inherit the last value set
    return workers


def _map(function: Callable[..., Tensor], *pieces: Iterable[Tensor]) -> list[Tensor]:
    """Map `function` over pieces of a batch, each in one thread."""
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        return list(map(function, *pieces))
    return list(_workers(n_threads, os.getpid()).map(function, *pieces))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return torch.conv2d(x, weight, None, stride, padding=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors

        def gradients(x: Tensor, grad: Tensor, *wanted: bool) -> Any:
            return torch.ops.aten.convolution_backward(
                grad, x, weight, None, ctx.stride, (1, 1), (1, 1), False, (0, 0), 1, wanted
            )

        def of_weight(x: Tensor, grad: Tensor) -> Tensor:
            return gradients(x, grad, False, True, False)[1]

        of_x, _, _ = gradients(x, grad, ctx.needs_input_grad[0], False, False)
        if not ctx.needs_input_grad[1]:
            return of_x, None, None
        parts = _map(of_weight, torch.split(x, _PIECE), torch.split(grad, _PIECE))
        return of_x, sum(parts[1:], start=parts[0]), None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _map(F.linear, [x], [weight])[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = _map(torch.mm, [grad, grad.t()], [weight, x])
        return of_x, of_weight


class Conv2d(nn.Conv2d):
    """A 3 x 3 convolution, zero-padded, the same to the bit for any number of CPU threads."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps ``(B, C', H', W')`` of ``(B, C, H, W)``."""
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        y = _Convolution.apply(x, self.weight, self.stride)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


class Linear(nn.Linear):
    """A linear layer, the same to the bit for any number of CPU threads."""

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, D')`` of ``(B, D)``."""
        if x.device.type == "cpu":
            return _Linear.apply(x, self.weight) + self.bias
        return super().forward(x)


# --------------------------------------------------------------------------------------------
# what pixels become before the first layer
# --------------------------------------------------------------------------------------------


class StandardizeEach(nn.Module):
    """Each image to mean 0 and standard deviation 1: exposure differs from film to film."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((1, 2, 3), keepdim=True)
        spread = centred.square().mean((1, 2, 3), keepdim=True).sqrt()
        return centred / (spread + 1e-6)


class StandardizeAll(nn.Module):
    """All pixels by one mean and one standard deviation, those of the training rows."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)


# --------------------------------------------------------------------------------------------
# the networks
# --------------------------------------------------------------------------------------------


class SmallNet(nn.Module):
    """Two convolutions and two linear layers without batch statistics, for rows and thumbnails.

    Nothing in it mixes the rows of a batch, so a row's weight acts exactly, and it keeps the
    position of every pixel (or cell of pixels): a column of a table is not a translation of its
    neighbour.

    Parameters
    ----------
    num_classes : int
        Number of logits.
    image_size : tuple of int
        Height and width in pixels.
    pixels : (mean, std) or None, default=None
        Standardise all pixels by these two; None standardises each image by its own.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        pixels: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        height, width = image_size
        # at most 64 cells are told apart: 8 x 8 of an image, 64 in a line of a strip
        cells = (min(height, 64 if width == 1 else 8), min(width, 64 if height == 1 else 8))
        self.standardize = StandardizeEach() if pixels is None else StandardizeAll(*pixels)
        self.conv1 = Conv2d(1, 16)
        self.conv2 = Conv2d(16, 32)
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.hidden = Linear(32 * cells[0] * cells[1], 64)
        self.head = Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of pixels ``(B, 1, H, W)``."""
        x = self.standardize(x)  # (B, 1, H, W)
        x = self.conv1(x).relu()  # (B, 16, H, W)
        x = self.conv2(x).relu()  # (B, 32, H, W)
        x = self.pool(x).flatten(1)  # (B, 32 * cells)
        x = self.hidden(x).relu()  # (B, 64)
        return self.head(x)  # (B, num_classes)


def _block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        Conv2d(in_channels, out_channels, stride, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class CXRNet(nn.Module):
    """A plain convolutional network for radiographs, trained from nothing on a laptop.

    Of the last feature maps it takes the mean and the maximum: what is spread over the lungs
    speaks by the one, what is in one place by the other.

    Parameters
    ----------
    num_classes : int
        Number of logits.
    width : int, default=32
        Channels after the stem; they double three times.
    dropout : float, default=0.3
        Share of the pooled features that a training step leaves out, in [0, 1).
    """

    def __init__(self, num_classes: int, width: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        self.standardize = StandardizeEach()
        self.stem = _block(1, width, stride=2)
        self.stage1 = _block(width, 2 * width)
        self.stage2 = _block(2 * width, 4 * width)
        self.stage3 = _block(4 * width, 8 * width)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.dropout = nn.Dropout(dropout)
        self.head = Linear(16 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of pixels ``(B, 1, H, W)``."""
        x = self.standardize(x)  # (B, 1, H, W)
        x = self.pool(self.stem(x))  # (B, w, H/4, W/4)
        x = self.pool(self.stage1(x))  # (B, 2w, H/8, W/8)
        x = self.pool(self.stage2(x))  # (B, 4w, H/16, W/16)
        x = self.stage3(x)  # (B, 8w, H/16, W/16)
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)  # (B, 16w)
        return self.head(self.dropout(x))  # (B, num_classes)


_BACKBONES: dict[str, Callable[..., nn.Module]] = {"cxrnet": CXRNet, "smallnet": SmallNet}


def list_backbones() -> list[str]:
    """Names that ``CXRClassifier(backbone=...)`` takes.

    Returns
    -------
    list of str
        The names, sorted.

    Examples
    --------
    >>> from skcxr.networks import list_backbones
    >>> list_backbones()
    ['cxrnet', 'smallnet']
    """
    return sorted(_BACKBONES)


def build_network(
    backbone: str | Callable[..., nn.Module],
    *,
    num_classes: int,
    image_size: tuple[int, int],
    pixels: tuple[float, float] | None = None,
    dtype: torch.dtype = torch.float32,
    **kwargs: Any,
) -> nn.Module:
    """Build a network, its weights drawn from torch's random number generator.

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
    dtype : torch.dtype, default=torch.float32
        Type of the weights.
    **kwargs : dict
        Further arguments of the network.

    Returns
    -------
    torch.nn.Module
        The network, on the CPU.

    Raises
    ------
    InputError
        The name is unknown, or the factory does not return a module.
    """
    if isinstance(backbone, str):
        if backbone not in _BACKBONES:
            raise InputError(
                f"backbone={backbone!r} is unknown; known are {', '.join(list_backbones())}, "
                "or pass a torch.nn.Module class or factory that takes num_classes="
            )
        if backbone == "smallnet":
            kwargs = {"image_size": image_size, "pixels": pixels, **kwargs}
        backbone = _BACKBONES[backbone]
    network = backbone(num_classes=num_classes, **kwargs)
    if not isinstance(network, nn.Module):
        raise InputError(
            f"backbone={backbone!r} returned {type(network).__name__}, not a torch.nn.Module"
        )
    return network.to(dtype)
