"""A classifier's parameters and settings -> the skorch net of its fit."""

from __future__ import annotations

import copy
from typing import Any

import torch

from skcxr._epochs import EpochBar
from skcxr._exceptions import InputError, SkcxrError
from skcxr._parallel import ParallelNet, check_parallel, current_share
from skcxr._settings import Settings
from skcxr._shipped import shipped_name
from skcxr._weights import title_of
from skcxr.augmentation import MixBatch
from skcxr.batches import BatchLoader
from skcxr.networks import build_network, draw_network
from skcxr.training import (
    TrainingNet,
    WeightedBinaryCrossEntropy,
    WeightedCrossEntropy,
)

_OPTIMIZERS = {
    "adamw": (torch.optim.AdamW, {}),
    "adam": (torch.optim.Adam, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
}
OPTIMIZERS = frozenset(_OPTIMIZERS)
_PINNED = ("iterator_train__pin_memory", "iterator_valid__pin_memory")  # copied without waiting

# skorch's arguments that CXRClassifier sets by itself, and how to set them here
_OWN_ARGUMENTS = {
    "module": "backbone=",
    "module__weights": "weights=",
    "criterion": "label_smoothing=",
    "criterion__label_smoothing": "label_smoothing=",
    "optimizer": "optimizer=",
    "optimizer__lr": "lr=",
    "optimizer__param_groups": "backbone_lr_mult=",
    "optimizer__weight_decay": "weight_decay=",
    "lr": "lr=",
    "max_epochs": "max_epochs=",
    "batch_size": "batch_size=",
    "iterator_train": "num_workers=",
    "iterator_train__batch_size": "batch_size=",
    "iterator_train__num_workers": "num_workers=",
    "iterator_train__shuffle_seed": "random_state=",
    "iterator_valid": "num_workers=",
    "iterator_valid__batch_size": "batch_size=",
    "iterator_valid__num_workers": "num_workers=",
    "dataset": "X",
    "train_split": "early_stopping=",
    "predict_nonlinearity": "predict_proba",
    "warm_start": "warm_start=",
    "verbose": "verbose=",
    "device": "device=",
    "classes": "y",
    "augment": "augmentation=",
    "mix": "mixup= or cutmix=",
    "freeze": "freeze=",
    "unfreeze_at": "unfreeze_at=",
    "ema": "ema=",
    "amp": "amp=",
    "compile": "compile=",
    "compiled": "compile=",
}


def build_net(
    estimator: Any,
    settings: Settings,
    num_classes: int,
    seed: int,
    *,
    load: bool = True,
    callbacks: Any = (),
    split: Any = None,
    ema: float | None = None,
) -> TrainingNet:
    """Build the net of a fit, its weights loaded or drawn from torch's generator.

    `estimator` is the CXRClassifier; the rest is what differs between `fit`, `partial_fit` and
    a model that is loaded from a file. Without `load` the weights are drawn for others to come.
    """
    extra = copy.deepcopy(estimator.net_params or {})  # the user's callbacks stay as they are
    if not isinstance(extra.get("callbacks") or [], list):
        raise InputError(f"net__callbacks={extra['callbacks']!r} is not a list")
    for name in extra:
        if name in _OWN_ARGUMENTS or not isinstance(name, str):
            instead = _OWN_ARGUMENTS.get(name, "a string")
            raise InputError(
                f"net_params (net__...) may not hold {name!r}, which CXRClassifier sets by "
                f"itself; use {instead} instead"
            )
    options: dict[str, Any]
    optimizer, options = (
        _OPTIMIZERS[estimator.optimizer]
        if isinstance(estimator.optimizer, str)
        else (estimator.optimizer, {})
    )
    options = {f"optimizer__{name}": value for name, value in options.items()}
    if estimator.backbone_lr_mult != 1:
        options["optimizer__param_groups"] = [
            ("head.*", {}),
            ("layers.head.*", {}),
            ("*", {"lr": settings.lr * estimator.backbone_lr_mult,
                   "lr_mult": estimator.backbone_lr_mult}),
        ]  # fmt: skip
    callbacks = list(callbacks)
    share = current_share() if load else None
    verbose = int(estimator.verbose)
    if share is not None:
        check_parallel(estimator)
        options["iterator_train__share"] = share
        verbose = 0 if share[0] else verbose
    if verbose == 1:
        callbacks.append(("bar", EpochBar(settings.max_epochs)))
    mix = None
    if estimator.mixup or estimator.cutmix:
        with torch.device("cpu"):  # where it draws, also for a network without memory
            mix = MixBatch(
                estimator.mixup, estimator.cutmix, None if settings.multi_label else num_classes
            )
    weights = estimator.weights if load else shipped_name(estimator.weights, settings.backbone)
    try:
        net = (TrainingNet if share is None else ParallelNet)(
            build_network if load else draw_network,
            module__backbone=settings.backbone,
            module__num_classes=num_classes,
            module__image_size=settings.image_size,
            module__pixels=settings.pixels,
            module__dtype=settings.torch_dtype,
            module__weights=weights,
            criterion=(
                WeightedBinaryCrossEntropy if settings.multi_label else WeightedCrossEntropy
            ),
            criterion__label_smoothing=settings.label_smoothing,
            optimizer=optimizer,
            optimizer__weight_decay=estimator.weight_decay,
            lr=settings.lr,
            max_epochs=settings.max_epochs,
            batch_size=settings.batch_size,
            iterator_train=BatchLoader,
            iterator_train__shuffle_seed=seed,
            iterator_train__num_workers=estimator.num_workers,
            iterator_valid=BatchLoader,
            iterator_valid__batch_size=settings.predict_batch_size,
            iterator_valid__num_workers=estimator.num_workers,
            **dict.fromkeys(_PINNED if settings.device.startswith("cuda") else (), True),
            train_split=split,
            augment=settings.augmenter(),
            mix=mix,
            freeze=estimator.freeze,
            unfreeze_at=estimator.unfreeze_at,
            ema=ema,
            amp=estimator.amp,
            compiled=estimator.compile,
            callbacks=[*(extra.pop("callbacks", None) or []), *callbacks],
            device=settings.device,
            verbose=max(0, verbose - 1),
            **{**options, **extra},
        )
        net.initialize()
        if estimator.backbone_lr_mult != 1 and len(net.optimizer_.param_groups) != 2:
            raise InputError(
                f"backbone_lr_mult={estimator.backbone_lr_mult} needs a network whose last layer "
                f"is its attribute `head`, and {title_of(net.module_)} has none"
            )
        return net
    except (TypeError, ValueError) as error:
        if isinstance(error, SkcxrError):
            raise
        extras = f", net_params={estimator.net_params!r}" if estimator.net_params else ""
        raise InputError(
            f"the net cannot be built with backbone={settings.backbone!r}, "
            f"optimizer={estimator.optimizer!r}{extras}: {error}"
        ) from error
