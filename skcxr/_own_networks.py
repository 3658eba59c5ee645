"""Our own networks, trained from nothing: the same numbers on any number of CPU threads.

Each takes gray pixels ``(B, 1, H, W)`` and returns logits ``(B, num_classes)``; `embed` gives what
its `head` gets, and embeddings ``(B, d)`` in place of pixels go through the head alone.

References
----------
He et al., "Deep residual learning for image recognition", CVPR 2016.
Ioffe and Szegedy, "Batch normalization", ICML 2015.
Lin, Chen and Yan, "Network in network", ICLR 2014 (global average pooling).
Srivastava et al., "Dropout", JMLR 15, 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skcxr._exceptions import InputError
from skcxr._threads import map_in_threads

# --------------------------------------------------------------------------------------------
# the same numbers on any number of CPU threads
#
# oneDNN and MKL split some sums by the number of threads, so a network trained with one thread
# and the same network trained with two part ways in the last bit, and then altogether. Our
# networks are cut into tasks that do not depend on the machine; each task runs in one thread,
# and what they give is joined in order. Busy neighbours then cost a share of a processor, where
# torch's own threads wait for each other at every layer.
# --------------------------------------------------------------------------------------------

Task = tuple[Callable[..., Tensor], tuple[Any, ...]]  # a module or its method, and arguments


def _precision() -> Callable[[], AbstractContextManager[Any]]:
    """The caller's mixed precision on a CPU, which torch keeps for each thread by itself."""
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    # no cache: tasks share weights, and the first to end would empty it for all
    return lambda: torch.autocast("cpu", dtype, enabled=enabled, cache_enabled=False)


class _Tasks(torch.autograd.Function):
    """Outputs of tasks, and the gradients of the parameters that they share."""

    @staticmethod
    def forward(ctx: Any, tasks: Sequence[Task], *parameters: Tensor) -> tuple[Tensor, ...]:
        precision = _precision()

        def run(task: Task) -> Tensor:
            function, arguments = task
            with torch.enable_grad(), precision():
                return function(*arguments)

        ctx.parameters = parameters
        ctx.outputs = map_in_threads(run, tasks)
        return tuple(output.detach() for output in ctx.outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [p for p in ctx.parameters if p.requires_grad]

        def run(output: Tensor, grad: Tensor) -> Any:
            if not output.requires_grad:
                return [None] * len(wanted)
            return torch.autograd.grad(output, wanted, grad, allow_unused=True)

        total: list[Tensor | None] = [None] * len(wanted)
        for of_task in map_in_threads(run, ctx.outputs, grads):
            for k, grad in enumerate(of_task):
                if grad is not None:
                    total[k] = grad if total[k] is None else total[k] + grad
        found = iter(total)
        return None, *(next(found) if p.requires_grad else None for p in ctx.parameters)


def run_tasks(network: nn.Module, tasks: Sequence[Task]) -> tuple[Tensor, ...]:
    """Run parts of `network`, each in one thread on a CPU."""
    given = [x for _, arguments in tasks for x in arguments if isinstance(x, Tensor)]
    if torch.compiler.is_compiling() or any(
        x.device.type != "cpu" or x.requires_grad for x in given
    ):
        return tuple(function(*arguments) for function, arguments in tasks)
    if torch.is_grad_enabled():
        return _Tasks.apply(tasks, *network.parameters())
    precision = _precision()

    def run(task: Task) -> Tensor:
        function, arguments = task
        with torch.no_grad(), precision():  # a thread's own settings
            return function(*arguments)

    return tuple(map_in_threads(run, tasks))


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


def parameters_of_stages(
    network: nn.Module, stages: list[list[nn.Module]], head: nn.Module
) -> list[list[nn.Parameter]]:
    """All parameters but the head's, each once; those of no stage go with the first."""
    seen = set(head.parameters())
    found: list[list[nn.Parameter]] = []
    for stage in stages:
        found.append([])
        for parameter in (p for module in stage for p in module.parameters()):
            if parameter not in seen:
                seen.add(parameter)
                found[-1].append(parameter)
    found[0] += [p for p in network.parameters() if p not in seen]
    return found


class _OwnNet(nn.Module):
    """What our networks share: `layers` with a `head`, which embeddings go through alone."""

    layers: _SmallNet | _CXRNet

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        return self.layers.head

    @property
    def embedding_size(self) -> int:
        """Number of features that the head gets."""
        return self.head.in_features

    def stages(self) -> list[list[nn.Module]]:
        """List the modules before the head, from the pixels on, stage by stage."""
        raise NotImplementedError

    def stage_parameters(self) -> list[list[nn.Parameter]]:
        """List the parameters of each stage; together all but the head's.

        Returns
        -------
        list of list of Parameter
            From the pixels on.
        """
        return parameters_of_stages(self, self.stages(), self.head)


class _SmallNet(nn.Module):
    def __init__(self, num_classes: int, cells: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(cells)
        self.hidden = nn.Linear(32 * cells[0] * cells[1], 64)
        self.head = nn.Linear(64, num_classes)

    def embed(self, x: Tensor) -> Tensor:  # (B, 1, H, W)
        x = self.conv1(x).relu()  # (B, 16, H, W)
        x = self.conv2(x).relu()  # (B, 32, H, W)
        x = self.pool(x).flatten(1)  # (B, 32 * cells)
        return self.hidden(x).relu()  # (B, 64)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, H, W)
        return self.head(self.embed(x))  # (B, num_classes)


class SmallNet(_OwnNet):
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

    Examples
    --------
    >>> import torch
    >>> from skcxr.networks import SmallNet
    >>> SmallNet(num_classes=3, image_size=(28, 28))(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 3])
    """

    layers: _SmallNet
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
        """Return logits ``(B, num_classes)`` of pixels ``(B, 1, H, W)`` or of embeddings."""
        if x.ndim == 2:
            return self._run(self.head, x)
        return self._run(self.layers, self.standardize(x))

    def embed(self, x: Tensor) -> Tensor:
        """Return embeddings ``(B, d)`` of pixels ``(B, 1, H, W)``: what the head gets.

        Parameters
        ----------
        x : Tensor of shape (B, 1, H, W)
            Pixels.

        Returns
        -------
        Tensor of shape (B, d)
            Embeddings.
        """
        return self._run(self.layers.embed, self.standardize(x))

    def _run(self, function: Callable[..., Tensor], x: Tensor) -> Tensor:
        pieces = torch.split(x, self.piece)
        return torch.cat(run_tasks(self, [(function, (piece,)) for piece in pieces]))

    def stages(self) -> list[list[nn.Module]]:
        """List the modules before the head, from the pixels on, stage by stage.

        Returns
        -------
        list of list of Module
            Three stages.
        """
        layers = self.layers
        return [[layers.conv1], [layers.conv2, layers.pool], [layers.hidden]]


class _BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over one piece of a batch, with running statistics for each piece.

    Small pieces are a mild regulariser (Hoffer, Hubara and Soudry, "Train longer, generalize
    better", NeurIPS 2017, who call it ghost batch normalisation).
    """

    def __init__(self, channels: int, pieces: int) -> None:
        super().__init__(channels)
        self.register_buffer("running_mean", torch.zeros(pieces, channels))
        self.register_buffer("running_var", torch.ones(pieces, channels))

    def statistics(self, piece: int) -> tuple[Tensor, Tensor]:
        """Running mean and variance: of a piece in training, of all of them afterwards."""
        mean, var = self.running_mean, self.running_var
        assert mean is not None
        assert var is not None
        if self.training:  # each piece moves its own row: no thread waits for another
            return mean[piece], var[piece]
        return mean.mean(0), var.mean(0)

    def forward(self, x: Tensor, piece: int = 0) -> Tensor:
        mean, var = self.statistics(piece)
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, 0.1, self.eps)


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, pieces: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm = _BatchNorm(out_channels, pieces)

    def forward(self, x: Tensor, piece: int) -> Tensor:
        watched = self.conv._forward_hooks or self.norm._forward_hooks
        if self.norm.training or torch.is_grad_enabled() or watched:
            return self.norm(self.conv(x), piece).relu_()
        # the normalisation as a part of the convolution: one large array less to write
        mean, var = self.norm.statistics(piece)
        scale = self.norm.weight * (var + self.norm.eps).rsqrt()
        weight, bias = self.conv.weight * scale[:, None, None, None], self.norm.bias - mean * scale
        return F.conv2d(x, weight, bias, self.conv.stride, self.conv.padding).relu_()


class CXRNet(_OwnNet):
    """A plain convolutional network for radiographs, trained from nothing on a laptop.

    A batch goes through in pieces, each with its own batch statistics.

    Parameters
    ----------
    num_classes : int
        Number of logits.
    width : int, default=32
        Channels after the stem; they double three times.
    dropout : float, default=0.3
        Share of the pooled features that a training step leaves out, in [0, 1).
    pooling : {"avgmax", "top"}, default="avgmax"
        What the head gets. "avgmax": the mean and the maximum of the last feature maps; what is
        spread over the lungs speaks by the one, what is in one place by the other. "top": of the
        last maps the maximum and the mean of the highest sixteenth of their places, and the means
        of the two stages before, as the weights "cxr" have it: parts of a lung, and texture, which
        say more where there are few films to learn from.

    Raises
    ------
    InputError
        `pooling` is another word.

    Examples
    --------
    >>> import torch
    >>> from skcxr.networks import CXRNet
    >>> CXRNet(num_classes=3, width=8)(torch.rand(2, 1, 64, 64)).shape
    torch.Size([2, 3])
    """

    layers: _CXRNet
    pieces = 2  # of a training batch
    least = 8  # images in a piece, or the batch is not cut

    def __init__(
        self, num_classes: int, width: int = 32, dropout: float = 0.3, pooling: str = "avgmax"
    ) -> None:
        super().__init__()
        if pooling not in _POOLED:
            raise InputError(f"pooling={pooling!r} of cxrnet is none of 'avgmax' and 'top'")
        self.standardize = StandardizeEach()
        self.layers = _CXRNet(num_classes, width, self.pieces, pooling)
        self.features = self.layers.head.in_features
        self.dropout = dropout
        self.to(memory_format=torch.channels_last)  # a third faster on a CPU

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)`` of pixels ``(B, 1, H, W)`` or of embeddings."""
        kept = x.new_ones(len(x), self.features)
        if self.training:  # drawn here, in one thread: threads draw in no fixed order
            kept = torch.bernoulli(kept * (1 - self.dropout)) / (1 - self.dropout)
        if x.ndim == 2:
            return self._run(lambda x, kept, piece: self.head(x * kept), x, kept)
        return self._run(self.layers, self.standardize(x), kept)

    def embed(self, x: Tensor) -> Tensor:
        """Return embeddings ``(B, d)`` of pixels ``(B, 1, H, W)``: what the head gets.

        Parameters
        ----------
        x : Tensor of shape (B, 1, H, W)
            Pixels.

        Returns
        -------
        Tensor of shape (B, d)
            The pooled features, before dropout.
        """
        return self._run(self.layers.embed, self.standardize(x))

    def _run(self, function: Callable[..., Tensor], *given: Tensor) -> Tensor:
        n_pieces = self.pieces if len(given[0]) >= self.pieces * self.least else 1
        cuts = zip(*(x.tensor_split(n_pieces) for x in given), strict=True)
        tasks = [(function, (*cut, piece)) for piece, cut in enumerate(cuts)]
        return torch.cat(run_tasks(self, tasks))

    def stages(self) -> list[list[nn.Module]]:
        """List the modules before the head, from the pixels on, stage by stage.

        Returns
        -------
        list of list of Module
            Four stages.
        """
        layers = self.layers
        return [[layers.stem], [layers.stage1], [layers.stage2], [layers.stage3]]


def _top(x: Tensor) -> Tensor:  # (B, C, H, W)
    """The mean of the highest sixteenth of the places of each feature map."""
    x = x.flatten(2)
    return x.topk(max(1, x.shape[2] // 16), 2).values.mean(2)  # (B, C)


_POOLED = {"avgmax": 16, "top": 22}  # features that the head gets, in widths


class _CXRNet(nn.Module):
    pooling = "avgmax"  # of pickles from before there was a choice

    def __init__(self, num_classes: int, width: int, pieces: int, pooling: str) -> None:
        super().__init__()
        self.stem = _Block(1, width, pieces, stride=2)
        self.stage1 = _Block(width, 2 * width, pieces)
        self.stage2 = _Block(2 * width, 4 * width, pieces)
        self.stage3 = _Block(4 * width, 8 * width, pieces)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.head = nn.Linear(_POOLED[pooling] * width, num_classes)
        self.pooling = pooling

    def embed(self, x: Tensor, piece: int) -> Tensor:  # (B, 1, H, W)
        x = self.pool(self.stem(x, piece))  # (B, w, H/4, W/4)
        x1 = self.pool(self.stage1(x, piece))  # (B, 2w, H/8, W/8)
        x2 = self.pool(self.stage2(x1, piece))  # (B, 4w, H/16, W/16)
        x3 = self.stage3(x2, piece)  # (B, 8w, H/16, W/16)
        if self.pooling == "top":
            earlier = [x2.mean((2, 3)), x1.mean((2, 3))]
            return torch.cat([x3.amax((2, 3)), _top(x3), *earlier], 1)  # (B, 22w)
        return torch.cat([x3.mean((2, 3)), x3.amax((2, 3))], 1)  # (B, 16w)

    def forward(self, x: Tensor, kept: Tensor, piece: int) -> Tensor:  # (B, 1, H, W), (B, d)
        return self.head(self.embed(x, piece) * kept)  # (B, num_classes)
