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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from skcxr._exceptions import InputError

__all__ = ["CXRNet", "SmallNet", "build_network", "list_backbones"]


# --------------------------------------------------------------------------------------------
# the same numbers on any number of CPU threads
#
# oneDNN and MKL split some sums by the number of threads, so a network trained with one thread
# and the same network trained with two part ways in the last bit, and then altogether. Our
# networks are cut into tasks that do not depend on the machine; each task runs in one thread,
# and what they give is joined in order. Busy neighbours then cost a share of a processor, where
# torch's own threads wait for each other at every layer.
# --------------------------------------------------------------------------------------------

Task = tuple[nn.Module, tuple[Tensor, ...]]  # a module and its arguments


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


def _map(function: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
    """Map `function`, each call in one thread."""
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        return list(map(function, *arguments))
    return list(_workers(n_threads, os.getpid()).map(function, *arguments))


class _Tasks(torch.autograd.Function):
    """Outputs of tasks, and the gradients of the parameters that they share."""

    @staticmethod
    def forward(ctx: Any, tasks: Sequence[Task], *parameters: Tensor) -> tuple[Tensor, ...]:
        def run(task: Task) -> Tensor:
            module, arguments = task
            with torch.enable_grad():
                return module(*arguments)

        ctx.parameters = parameters
        ctx.outputs = _map(run, tasks)
        return tuple(output.detach() for output in ctx.outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [p for p in ctx.parameters if p.requires_grad]

        def run(output: Tensor, grad: Tensor) -> Any:
            return torch.autograd.grad(output, wanted, grad, allow_unused=True)

        total: list[Tensor | None] = [None] * len(wanted)
        for of_task in _map(run, ctx.outputs, grads):
            for k, grad in enumerate(of_task):
                if grad is not None:
                    total[k] = grad if total[k] is None else total[k] + grad
        del ctx.outputs
        found = iter(total)
        return None, *(next(found) if p.requires_grad else None for p in ctx.parameters)


def run_tasks(network: nn.Module, tasks: Sequence[Task]) -> tuple[Tensor, ...]:
    """Run parts of `network`, each in one thread on a CPU."""
    arguments = [argument for _, given in tasks for argument in given]
    if any(argument.device.type != "cpu" or argument.requires_grad for argument in arguments):
        return tuple(module(*given) for module, given in tasks)
    if torch.is_grad_enabled():
        return _Tasks.apply(tasks, *network.parameters())

    def run(task: Task) -> Tensor:
        module, given = task
        with torch.inference_mode(torch.is_inference_mode_enabled()), torch.no_grad():
            return module(*given)

    return tuple(_map(run, tasks))


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


class _SmallNet(nn.Module):
    def __init__(self, num_classes: int, cells: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.hidden = nn.Linear(32 * cells[0] * cells[1], 64)
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, H, W)
        x = self.conv1(x).relu()  # (B, 16, H, W)
        x = self.conv2(x).relu()  # (B, 32, H, W)
        x = self.pool(x).flatten(1)  # (B, 32 * cells)
        x = self.hidden(x).relu()  # (B, 64)
        return self.head(x)  # (B, num_classes)


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

    piece = 64  # images of a batch that are one task

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
        self.layers = _SmallNet(num_classes, cells)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of pixels ``(B, 1, H, W)``."""
        pieces = torch.split(self.standardize(x), self.piece)
        return torch.cat(run_tasks(self, [(self.layers, (piece,)) for piece in pieces]))


def _block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class _Member(nn.Module):
    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.stem = _block(1, width, stride=2)
        self.stage1 = _block(width, 2 * width)
        self.stage2 = _block(2 * width, 4 * width)
        self.stage3 = _block(4 * width, 8 * width)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:  # (B, 1, H, W), (B, 8w)
        x = self.pool(self.stem(x))  # (B, w, H/4, W/4)
        x = self.pool(self.stage1(x))  # (B, 2w, H/8, W/8)
        x = self.pool(self.stage2(x))  # (B, 4w, H/16, W/16)
        x = self.stage3(x).mean((2, 3))  # (B, 8w)
        return self.head(x * kept)  # (B, num_classes)


class CXRNet(nn.Module):
    """A committee of plain convolutional networks, trained from nothing on a laptop.

    On some hundred images two networks that differ in nothing but their first weights disagree
    about one image in ten; a committee of narrow ones costs what one wide network costs and is
    right more often than any of them. Its members see the same batches, each learns by its own
    loss, and the committee's probability is the mean of theirs (Lakshminarayanan et al., "Simple
    and scalable predictive uncertainty estimation using deep ensembles", NeurIPS 2017).

    Parameters
    ----------
    num_classes : int
        Number of logits.
    members : int, default=4
        Networks in the committee.
    width : int, default=16
        Channels after the stem of each; they double three times.
    dropout : float, default=0.3
        Share of the pooled features that a training step leaves out, in [0, 1).
    """

    def __init__(
        self, num_classes: int, members: int = 4, width: int = 16, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.standardize = StandardizeEach()
        self.members = nn.ModuleList(_Member(num_classes, width) for _ in range(members))
        self.features = 8 * width
        self.dropout = dropout

    def member_logits(self, x: Tensor) -> Tensor:
        """Logits ``(B, members, num_classes)`` of pixels ``(B, 1, H, W)``."""
        x = self.standardize(x)
        kept = torch.ones(len(self.members), len(x), self.features, dtype=x.dtype)
        if self.training:  # drawn here, in one thread: members draw in no fixed order
            kept = torch.bernoulli(kept * (1 - self.dropout)) / (1 - self.dropout)
        tasks = list(
            zip(self.members, ((x, of_member) for of_member in kept.to(x.device)), strict=True)
        )
        return torch.stack(run_tasks(self, tasks), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of pixels ``(B, 1, H, W)``: logs of mean probabilities."""
        return self.member_logits(x).log_softmax(2).exp().mean(1).log()


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
