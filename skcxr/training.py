"""The skorch net behind the classifier: its loss and its manners.

What a fit borrows it gives back: random number generators are forked, threads restored,
Ctrl-C goes through, and the optimiser's memory is dropped when nobody will use it.
"""

from __future__ import annotations

import copy
import math
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import skorch
import torch
from skorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from skcxr._epochs import StopTrainingError
from skcxr._exceptions import InputError, TrainingError
from skcxr._weights import title_of

__all__ = ["TrainingNet", "WeightedBinaryCrossEntropy", "WeightedCrossEntropy"]


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy in which every image counts by its weight.

    Parameters
    ----------
    label_smoothing : float, default=0.0
        Share of the target spread evenly over the classes, in [0, 1) (Szegedy et al., CVPR 2016).

    Examples
    --------
    >>> import torch
    >>> from skcxr.training import WeightedCrossEntropy
    >>> logits, target, weight = torch.zeros(3, 2), torch.tensor([0, 1, 1]), torch.ones(3)
    >>> round(WeightedCrossEntropy()(logits, (target, weight)).item(), 3)
    0.693
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: tuple[Tensor, Tensor]) -> Tensor:
        """Mean loss of ``(B, K)`` logits for ``(B,)`` labels with ``(B,)`` weights."""
        target, weight = labels
        loss = F.cross_entropy(
            logits, target, reduction="none", label_smoothing=self.label_smoothing
        )
        return (loss * weight).mean()


class WeightedBinaryCrossEntropy(nn.Module):
    """Binary cross-entropy of findings, in which each finding of each image has a weight.

    Parameters
    ----------
    label_smoothing : float, default=0.0
        Share of the target spread evenly over absent and present, in [0, 1).

    Examples
    --------
    >>> import torch
    >>> from skcxr.training import WeightedBinaryCrossEntropy
    >>> logits, target, weight = torch.zeros(3, 2), torch.ones(3, 2), torch.ones(3, 2)
    >>> round(WeightedBinaryCrossEntropy()(logits, (target, weight)).item(), 3)
    0.693
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: tuple[Tensor, Tensor]) -> Tensor:
        """Mean loss of ``(B, K)`` logits for ``(B, K)`` targets of 0 and 1 with weights."""
        target, weight = labels
        target = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (loss * weight).mean()


class TrainingNet(skorch.NeuralNet):
    """The net of skorch with what a fit on few radiographs needs, and Ctrl-C that gets out.

    Parameters
    ----------
    *args : tuple
        As for :class:`skorch.NeuralNet`.
    augment : callable or None, default=None
        Changes a training batch ``(B, 1, H, W)``.
    mix : callable or None, default=None
        Mixes a training batch: images and (target, weight) to the same, as
        :class:`skcxr.augmentation.MixBatch` does.
    freeze : "backbone", int or None, default=None
        What of the network is held still, in evaluation mode: all but the head, or the first
        stages.
    unfreeze_at : int or None, default=None
        Epochs after which nothing is held still any more; None holds to the end.
    ema : float or None, default=None
        Decay of the exponential moving average of the weights that is validated and kept.
    amp : bool, default=False
        Compute in bfloat16 where torch's autocast does.
    compiled : bool, default=False
        Compute with what torch.compile makes of the network.
    **kwargs : dict
        As for :class:`skorch.NeuralNet`.

    Examples
    --------
    >>> from skcxr import CXRClassifier, make_cxr_phantoms
    >>> drawn = make_cxr_phantoms(4, n_classes=2, image_size=32, random_state=0)
    >>> clf = CXRClassifier(max_epochs=1, random_state=0).fit(drawn.data, drawn.target)
    >>> type(clf.net_).__name__
    'TrainingNet'
    """

    def __init__(
        self,
        *args: Any,
        augment: Callable[[Tensor], Tensor] | None = None,
        mix: Callable[[Tensor, Any], tuple[Tensor, Any]] | None = None,
        freeze: str | int | None = None,
        unfreeze_at: int | None = None,
        ema: float | None = None,
        amp: bool = False,
        compiled: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.augment = augment
        self.mix = mix
        self.freeze = freeze
        self.unfreeze_at = unfreeze_at
        self.ema = ema
        self.amp = amp
        self.compiled = compiled
        self._compiled: Callable[..., Tensor] | None = None
        self._average: list[AveragedModel] = []  # in a list, or skorch takes it for its module
        self._raw: dict[str, Any] | None = None
        # (epochs, weights): the newest, and the newest that have given a loss since
        self._newest: tuple[int, dict[str, Tensor]] | None = None
        self._good: tuple[int, dict[str, Tensor]] | None = None
        self.epochs_before = 0  # of a fit that goes on from a checkpoint

    def initialize_module(self) -> Any:
        """Build the network and hold still what is to be."""
        super().initialize_module()
        self.still_ = hold_still(self.module_, self.freeze)
        return self

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Open a new epoch, and let go what was held still until now."""
        super().on_epoch_begin(net, **kwargs)
        if self.unfreeze_at is not None and len(self.history) > self.unfreeze_at:
            self.still_ = []
            self.module_.requires_grad_(True)

    def _set_training(self, training: bool = True) -> None:
        super()._set_training(training)
        for name in self.still_:  # its statistics are those it was trained with
            self.module_.get_submodule(name).eval()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **self._nothing_to_train(), "_compiled": None}

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Make the loader of batches; of a fit that goes on, with the order it would have had."""
        iterator = super().get_iterator(dataset, training=training)
        if training and self.epochs_before:
            iterator.skip(self.epochs_before)
        return iterator

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """Augment and mix a batch, then let skorch take its step."""
        images, labels = batch
        if self.augment is not None:
            images = self.augment(images.to(self.device, non_blocking=True))
        if self.mix is not None:
            images, labels = self.mix(images, labels)
        step = super().train_step((images, labels), **fit_params)
        if self.ema is not None:
            self._average[0].update_parameters(self.module_)
        return step

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """Compute the logits of a batch, in the type of the weights."""
        if not self.amp:
            return self._infer(x, **fit_params)
        kind = torch.device(self.device).type
        with torch.autocast(kind, dtype=torch.bfloat16):
            return self._infer(x, **fit_params).float()

    def _infer(self, x: Any, **fit_params: Any) -> Any:
        if isinstance(x, Tensor):
            x = x.to(self.device, non_blocking=True)
        if not self.compiled:
            return super().infer(x, **fit_params)
        if self._compiled is None:
            network = self.module_
            # not the module's own compile(), after which hooks of its layers would be ignored
            self._compiled = torch.compile(lambda x, **params: network(x, **params))
        try:
            return self._compiled(x, **fit_params)
        except torch._dynamo.exc.TorchDynamoException as error:
            said = " ".join(str(error).partition("\n\n")[0].split())[:300]
            raise InputError(
                f"compile=True: torch.compile fails with {title_of(self.module_)} ({said}); it "
                "needs a C++ compiler, such as g++ or clang, for CPUs, and Triton for GPUs; set "
                "compile=False"
            ) from error

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Run an epoch.

        Between the training steps of two epochs the network has the averaged weights, so that
        these are what is validated, shown to callbacks and kept.
        """
        if training and self.ema is not None:
            if self._raw is not None:
                self.module_.load_state_dict(self._raw)
            else:
                self._average = [self._new_average()]
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
        if training and self.ema is not None:
            self._raw = copy.deepcopy(self.module_.state_dict())
            self.module_.load_state_dict(self._average[0].module.state_dict())
        if training:
            trained = self._trained()
            if not all(tensor.isfinite().all() for tensor in trained.values()):
                raise TrainingError(f"weights became NaN or infinite {self._cause()}")
            self._newest = len(self.history), trained

    def _new_average(self) -> AveragedModel:
        """Begin the moving average of the weights with those of now."""
        average = get_ema_multi_avg_fn(self.ema)  # type: ignore[no-untyped-call]
        return AveragedModel(self.module_, multi_avg_fn=average, use_buffers=True)

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Tell the callbacks; then stop where the loss is no number any more."""
        super().notify(method_name, **cb_kwargs)
        if method_name != "on_batch_end" or not cb_kwargs["training"]:
            return
        if not math.isfinite(loss := self.history[-1]["batches"][-1]["train_loss"]):
            images = cb_kwargs["batch"][0]
            raise TrainingError(f"the loss became {loss} {self._cause(images.min(), images.max())}")
        self._good = self._newest

    def _cause(self, low: Any = 0, high: Any = 1) -> str:
        """Where a fit went astray and why, as far as can be told."""
        why = f"the learning rate (lr={self.lr:g}) is likely too high"
        if not -100 < low <= high < 100:
            why = (
                f"images run from {float(low):g} to {float(high):g}, bring them to [0, 1], or {why}"
            )
        batch = len(self.history[-1]["batches"])
        return f"in epoch {len(self.history)}, after batch {batch}: {why}"

    def _trained(self) -> dict[str, Tensor]:
        """Copy the entries of the network's state that an epoch may change."""
        still = {name for name, p in self.module_.named_parameters() if not p.requires_grad}
        held = tuple(f"{name}." for name in self.still_)
        return {
            key: tensor.clone()
            for key, tensor in self.module_.state_dict().items()
            if key not in still and not key.startswith(held) and tensor.is_floating_point()
        }

    def _go_back(self, dataset: Any) -> None:
        """Become what the net was when all was well; what its optimiser remembers is lost."""
        if self._good is None:
            return
        n_epochs, weights = self._good
        self.module_.load_state_dict(weights, strict=False)
        self.optimizer_.state.clear()
        del self.history[n_epochs:]
        if not self._answers(dataset):  # statistics of batches can be numbers and their mean none
            self._good = None

    def _answers(self, dataset: Any) -> bool:
        """Whether what was learnt gives numbers."""
        batch = dataset.__getitems__(list(range(min(2, len(dataset)))))
        return bool(self.evaluation_step(batch).isfinite().all())

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None, **fit_params: Any) -> Any:
        """Train for `max_epochs`; an interrupt is the caller's."""
        # skorch's own swallows KeyboardInterrupt and would leave a half-trained net called fitted
        if not self.initialized_:
            self.initialize()
        self.notify("on_train_begin", X=X, y=y)
        before = len(self.history)
        self._good = self._newest = (before, self._trained()) if before else None
        try:
            self.fit_loop(X, y, epochs=self.max_epochs - self.epochs_before, **fit_params)
            if not self._answers(X):
                raise TrainingError(f"the network answers with NaN or infinity {self._cause()}")
        except StopTrainingError:
            pass
        except TrainingError as error:
            self._go_back(X)
            kept = "of before there is nothing to keep"
            if self._good is not None:
                kept = f"the weights of epoch {self._good[0]} are kept"
            raise TrainingError(f"{error}; {kept}") from None
        except KeyboardInterrupt:  # skorch's EarlyStopping speaks by one too
            stops = [c for _, c in self.callbacks_ if isinstance(c, EarlyStopping)]
            if all(callback.misses_ != callback.patience for callback in stops):
                raise
        self.notify("on_train_end", X=X, y=y)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        # skorch looks for CUDA only, with two warnings; `device` tells where the net is
        super().__setstate__({**state, "device": device_here(str(state["device"]))})

    def snapshot(self) -> TrainingNet:
        """Copy the net: what comes predicts as this one does now.

        Returns
        -------
        TrainingNet
            A net without what only training needs.
        """
        net = copy.copy(self)  # skorch's copies what lies on the device
        net.history = skorch.history.History({**epoch, "batches": []} for epoch in self.history)
        net.train_split = net._compiled = None
        net.forget_training()
        return net

    @staticmethod
    def _nothing_to_train() -> dict[str, Any]:
        # the averaging of a fit under way holds a function of torch's that has no name
        return {"_average": [], "_raw": None, "_newest": None, "_good": None}

    def forget_training(self) -> None:
        """Drop what only training needs: optimiser state, schedules, copies of weights."""
        self.optimizer_.state.clear()
        for name, nothing in self._nothing_to_train().items():
            setattr(self, name, nothing)
        self.epochs_before = 0
        ours = {"lr_schedule", "early_stopping", "epoch_tasks", "bar", "checkpoint"}
        self.callbacks: list[Any] = [
            item for item in self.callbacks if not isinstance(item, tuple) or item[0] not in ours
        ]
        self.callbacks_: list[Any] = [item for item in self.callbacks_ if item[0] not in ours]
        for epoch in self.history:
            epoch["batches"] = []


def hold_still(network: nn.Module, freeze: str | int | None) -> list[str]:
    """Take what `freeze` names out of training; the names of modules to keep in evaluation mode.

    Parameters
    ----------
    network : torch.nn.Module
        A network of :func:`skcxr.networks.build_network`.
    freeze : "backbone", int or None
        All but the head, the first stages, or nothing.

    Returns
    -------
    list of str
        Their names in the network: modules themselves would not be its own in a copy of the net.

    Raises
    ------
    InputError
        The network has not so many stages, or does not tell them.
    """
    if freeze is None:
        return []
    if isinstance(freeze, bool):
        raise InputError(
            f'freeze={freeze} is neither "backbone", nor a number of stages, nor None for nothing'
        )
    if not hasattr(network, "stages"):
        raise InputError(
            f"freeze={freeze!r} needs a network that tells its stages, and "
            f"{title_of(network)} does not; use a backbone by name, or give the module "
            "stages() and stage_parameters()"
        )
    modules: list[list[nn.Module]] = network.stages()  # type: ignore[operator]
    parameters: list[list[nn.Parameter]] = network.stage_parameters()  # type: ignore[operator]
    if freeze == "backbone":
        n_stages = len(modules)
    elif int(freeze) > len(modules):
        raise InputError(
            f"freeze={freeze} stages, but {title_of(network)} has {len(modules)} before its "
            f'head; freeze="backbone" holds them all'
        )
    else:
        n_stages = int(freeze)
    for stage in parameters[:n_stages]:
        for parameter in stage:
            parameter.requires_grad_(False)
    still = [module for stage in modules[:n_stages] for module in stage]
    if n_stages == len(modules) and isinstance(getattr(network, "body", None), nn.Module):
        still.append(network.body)  # type: ignore[arg-type]
    names = {id(module): name for name, module in network.named_modules()}
    return [names[id(module)] for module in still]


def device_here(device: str) -> str:
    """The device of a fit, or what this machine has in its place."""
    for name in (device, device.partition(":")[0]):  # another number, perhaps
        try:
            torch.empty(1, device=name).item()
        except (RuntimeError, AssertionError, TypeError):
            continue
        return name
    return "cpu"


_torch_in_use = threading.RLock()


def _renew_lock() -> None:
    global _torch_in_use
    _torch_in_use = threading.RLock()


if hasattr(os, "register_at_fork"):  # the thread that holds it does not exist in the child
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def own_randomness(seed: int, device: str) -> Iterator[None]:
    """Seed python, numpy and torch inside; outside they go on as if nothing had happened."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002  (the legacy generator is what is global)
    kind = device.partition(":")[0]
    devices = [torch.device(device)] if kind in ("cuda", "mps") else []
    with torch.random.fork_rng(devices=devices, device_type=kind if devices else "cuda"):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed all devices
            if devices:
                getattr(torch, kind).manual_seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def one_at_a_time() -> threading.RLock:
    """Lock that lets one thread of this process use torch.

    The random generators of a process are shared by its threads, and torch's threads already use
    every processor: fits side by side in threads would disturb and slow each other.
    """
    return _torch_in_use
