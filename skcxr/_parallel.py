"""One fit by several processes: each takes its part of every batch, and gradients are averaged.

The network stays the one that it is in a fit of one process, not wrapped in another module, so
that freezing, moving averages, early stopping, pickles and saved models work as they do there.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, distributed, nn

from skcxr._exceptions import InputError
from skcxr.training import TrainingNet

_share: ContextVar[tuple[int, int] | None] = ContextVar("skcxr_share", default=None)


@contextmanager
def data_parallel(timeout: float = 600.0) -> Iterator[int]:
    """Let the processes of a ``torchrun`` share each fit inside.

    Every process runs the same script on the same images. Each takes its part of every batch, the
    gradients are averaged over the images, and all end with the same weights.

    Parameters
    ----------
    timeout : float, default=600.0
        Seconds that a process waits for the others before it fails.

    Yields
    ------
    int
        The number of this process, from 0.

    Raises
    ------
    InputError
        The process was not started by ``torchrun``, or torch has been built without distributed.

    Notes
    -----
    `batch_size` stays the number of images in a step of all processes together, so that the same
    parameters are the same fit: the gradient of a step is that of one process to rounding. Torch's
    own batch normalisation takes the mean and deviation of the whole batch too. What differs is
    what each process does on its part: augmentation and dropout draw other numbers, `mixup` and
    `cutmix` mix within the part, and "cxrnet" and timm's networks normalise over the part.

    `random_state` has to be an int; `checkpoint` and `compile` are not for these fits. With
    ``freeze="backbone"`` every process embeds every image, and nothing is gained.

    Examples
    --------
    >>> from skcxr import InputError
    >>> from skcxr.distributed import data_parallel
    >>> try:
    ...     with data_parallel():
    ...         pass
    ... except InputError as error:
    ...     print(error)
    data_parallel is for processes that torchrun has started: torchrun --nproc_per_node 2 fit.py
    """
    if not distributed.is_available():
        raise InputError("this build of torch has no torch.distributed")
    opened = not distributed.is_initialized()
    if opened:
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
            raise InputError(
                "data_parallel is for processes that torchrun has started: "
                "torchrun --nproc_per_node 2 fit.py"
            )
        distributed.init_process_group(timeout=timedelta(seconds=timeout))
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(local % torch.cuda.device_count())
    rank = distributed.get_rank()
    token = _share.set((rank, distributed.get_world_size()))
    try:
        yield rank
    finally:
        _share.reset(token)
        if opened:
            distributed.destroy_process_group()


def current_share() -> tuple[int, int] | None:
    """Number of this process and of all that share the fits of now; None where none do."""
    return _share.get()


def check_parallel(estimator: Any) -> None:
    """Say what cannot be shared."""
    if not isinstance(estimator.random_state, Integral):
        raise InputError(
            f"random_state={estimator.random_state!r} would be another one in each process of "
            "data_parallel; give an int"
        )
    if estimator.checkpoint is not None:
        raise InputError(
            f"checkpoint={estimator.checkpoint!r} is the state of a fit of one process; "
            "in data_parallel set it to None"
        )
    if estimator.compile:
        raise InputError("compile=True is not for data_parallel; set it to False")


class _Sum(torch.autograd.Function):
    """Sum over the processes, of values and, on the way back, of gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return _Sum.forward(context, gradients[0].contiguous())


def _normalise(norm: Any, pixels: Tensor) -> Tensor:
    """Batch normalisation over the parts of all processes; torch has it for GPUs only."""
    if not norm.training:
        return type(norm).forward(norm, pixels)
    places = [0, *range(2, pixels.ndim)]
    count = torch.tensor([pixels.numel() / pixels.shape[1]], device=pixels.device).to(pixels.dtype)
    sums = _Sum.apply(torch.cat([pixels.sum(places), count]))
    mean, n = sums[:-1] / sums[-1], sums[-1].detach()
    shape = (1, -1, *[1] * (pixels.ndim - 2))
    centred = pixels - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(places)) / n
    if norm.track_running_stats:
        norm.num_batches_tracked += 1
        step = norm.momentum
        if step is None:
            step = 1 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean.detach(), step)
        norm.running_var.lerp_(variance.detach() * n / (n - 1), step)
    result: Tensor = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        result = result * norm.weight.view(shape) + norm.bias.view(shape)
    return result


class ParallelNet(TrainingNet):
    """A net that several processes train, each on its part of every batch.

    Parameters
    ----------
    *args, **kwargs
        As for :class:`skcxr.training.TrainingNet`.
    """

    _sampler: Any = None  # of the batches of an epoch under way

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None, **fit_params: Any) -> Any:
        """Train, all processes on the same images and from the weights of the first."""
        self._check_same(X)
        for tensor in self.module_.state_dict().values():
            distributed.broadcast(tensor, 0)
        plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # subclasses have their own ways
        norms = [module for module in self.module_.modules() if type(module) in plain]
        # the parts of a batch are other images: let them have other augmentation
        drawn = int(torch.randint(2**62, ()).item())
        torch.default_generator.manual_seed(drawn + distributed.get_rank())
        for norm in norms:
            norm.forward = partial(_normalise, norm)
        try:
            super().partial_fit(X, y, classes, **fit_params)
        finally:
            for norm in norms:
                del norm.forward
        self._sampler = None
        return self

    def _check_same(self, dataset: Any) -> None:
        """Every process fits the same images, or none does."""
        items = getattr(dataset, "items", dataset)
        names = "\0".join(items) if isinstance(items, list) else ""
        told = f"{len(dataset)} {names} {dataset.target.tolist()} {dataset.weight.tolist()}"
        mine = torch.tensor([zlib.crc32(told.encode("utf-8", "surrogatepass"))], device=self.device)
        sums = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
        distributed.all_gather(sums, mine)
        if len({int(value) for value in sums}) > 1:
            raise InputError(
                "the processes of data_parallel have different images, labels or weights; load "
                "them in the same way, in the same order, in each"
            )

    def train_step_single(self, batch: Any, **fit_params: Any) -> Any:
        """Compute gradients of a part of a batch, and average them over all images of it."""
        step = super().train_step_single(batch, **fit_params)
        loss = step["loss"].detach()
        gradients = [p.grad for p in self.module_.parameters() if p.grad is not None]
        n_images = torch.full_like(loss, len(batch[0]))
        parts = [part.reshape(-1).to(loss.dtype) for part in (*gradients, loss, n_images)]
        total = torch.cat(parts)
        distributed.all_reduce(total)
        total /= total[-1].clone()
        at = 0
        for gradient in gradients:
            gradient.copy_(total[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()
        step["loss"] = total[-2].clone()
        return step

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run an epoch, of which this process goes through its parts of the batches."""
        if training:
            self._sampler = iterator.batch_sampler
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Let the loss of a batch count in that of the epoch by all images of the batch."""
        super().on_batch_end(net, training=training, **kwargs)
        if training:
            before = (len(self.history[-1]["batches"]) - 1) * self._sampler.batch_size
            last = len(self.history[-1]["batches"]) == len(self._sampler)
            size = self._sampler.n - before if last else self._sampler.batch_size
            self.history.record_batch("train_batch_size", size)

    def get_loss(self, y_pred: Any, y_true: Any, X: Any = None, training: bool = False) -> Any:
        """Compute the loss; of a part of a batch the sum, which can be added to others'."""
        loss = super().get_loss(y_pred, y_true, X=X, training=training)
        return loss * len(y_pred) if training else loss

    def validation_step(self, batch: Any, **fit_params: Any) -> Any:
        """Compute the loss of a validation batch: the first process's, for all stop together."""
        step = super().validation_step(batch, **fit_params)
        distributed.broadcast(step["loss"], 0)
        return step
