"""What happens around the epochs of a fit: schedules, progress, scikit-learn's callbacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from skorch.callbacks import Callback, LRScheduler


class StopTrainingError(Exception):
    """A callback of scikit-learn's asks for the end of the fit. Internal."""


class EpochTasks(Callback):
    """Tells scikit-learn's callbacks of every epoch, as a task of the fit.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext
        The fit's.
    told : callable
        Net -> what a task's hooks are told (estimator, X, y, ...), as keyword arguments.
    """

    def __init__(self, context: Any, told: Callable[[Any], dict[str, Any]]) -> None:
        self.context = context
        self.told = told

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.task_ = self.context.subcontext(task_name="epoch")
        self.task_.call_on_fit_task_begin(**self.told(net))

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        task, self.task_ = self.task_, None
        if task.call_on_fit_task_end(**self.told(net)):
            raise StopTrainingError

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        if getattr(self, "task_", None) is not None:  # another callback ended the epoch early
            self.task_.call_on_fit_task_end(**self.told(net))


class EpochBar(Callback):
    """A progress bar over the epochs of a fit, on standard error."""

    def __init__(self, max_epochs: int) -> None:
        self.max_epochs = max_epochs

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        from rich.console import Console

        self.bar_ = Progress(
            TextColumn("fitting"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs  loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task_ = self.bar_.add_task("", total=self.max_epochs, loss="-")
        self.bar_.start()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        loss = net.history[-1]
        shown = f"{loss['train_loss']:.3f}"
        if "valid_loss" in loss:
            shown += f" (validation {loss['valid_loss']:.3f})"
        self.bar_.update(self.task_, advance=1, loss=shown)

    def skip(self, n_epochs: int) -> None:
        """Count epochs of a fit that was taken up."""
        self.bar_.update(self.task_, completed=n_epochs)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Stop the bar; needed too when a fit ends by an exception."""
        if hasattr(self, "bar_"):
            self.bar_.stop()
            del self.bar_


class _WarmupCosine:
    """Factor of the learning rate: up in a line over a tenth of the steps, down along a cosine."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.warmup = steps // 10

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return (1 + math.cos(math.pi * min(1.0, done))) / 2


def schedule(
    lr_schedule: str | None, lr: list[float], n_epochs: int, n_batches: int
) -> list[tuple[str, Any]]:
    """List the callback of a learning-rate schedule, if there is one.

    `lr` has the highest rate of each of the optimizer's groups of parameters. ``"onecycle"``
    rises to it over 30% of the steps and falls to nothing (Smith and Topin, 2019); ``"cosine"``
    rises over 10% and falls along half a cosine (Loshchilov and Hutter, ICLR 2017; the warm-up:
    Goyal et al., 2017).
    """
    steps = n_epochs * n_batches
    if lr_schedule is None:
        return []
    policy: Any
    if lr_schedule == "onecycle":
        policy = torch.optim.lr_scheduler.OneCycleLR
        # cycling the momentum too would override what the user sets as the optimizer's
        options = {"max_lr": lr, "total_steps": max(steps, 2), "cycle_momentum": False}
    else:
        policy = torch.optim.lr_scheduler.LambdaLR
        options = {"lr_lambda": _WarmupCosine(steps)}
    callback = LRScheduler(policy, step_every="batch", event_name=None, last_epoch=-1, **options)
    return [("lr_schedule", callback)]
