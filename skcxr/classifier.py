"""CXRClassifier: labels in, probabilities out."""

from __future__ import annotations

import copy
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import EarlyStopping
from skorch.helper import predefined_split
from skorch.utils import noop, to_device
from torch.nn import functional as F

from skcxr._cache import Decoder, EmbeddingCache
from skcxr._callbacks import CALLBACKS, CallbackSupportMixin
from skcxr._checkpoints import CheckpointFolder, KeepState, identify
from skcxr._contamination import learnt_images, warn_if_learnt
from skcxr._embeddings import Embedder, cache_mark, fingerprint
from skcxr._epochs import EpochBar, EpochTasks, schedule
from skcxr._exceptions import ImageReadWarning, InputError, TrainingError, Unreadable
from skcxr._inputs import columns_kept, read_images
from skcxr._nets import OPTIMIZERS, build_net
from skcxr._seeds import draw_seed
from skcxr._settings import DTYPES, Settings, settle
from skcxr._shipped import shipped_weights
from skcxr._targets import (
    check_groups,
    check_labels,
    check_weights,
    early_stopping_split,
    name_findings,
    name_labels,
    weigh_classes,
)
from skcxr.augmentation import make_views
from skcxr.batches import EmbeddingDataset, ImageDataset, count_batches
from skcxr.images import INTERPOLATIONS
from skcxr.training import TrainingNet, one_at_a_time, own_randomness

__all__ = ["CXRClassifier"]


class CXRClassifier(CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    """Convolutional network that classifies chest radiographs.

    An ordinary scikit-learn classifier around a skorch net: it takes image files or pixels,
    labels of any kind, and works in pipelines, searches and ensembles. With nothing set it is
    meant for a folder of some hundred radiographs on a computer without a GPU.

    For research only: nothing here is a medical device, and no score on one data set says how a
    model does on the patients of another hospital.

    Parameters
    ----------
    backbone : str or callable, default="auto"
        The network: a name of :func:`skcxr.networks.list_backbones` (our own "cxrnet" and
        "smallnet", torchvision's classifiers by their own names, ``"timm:<name>"`` and
        ``"xrv:<weights>"`` with the extras of these names), or a class or factory of
        ``torch.nn.Module`` that is called with ``num_classes=`` (and ``net__module__...``
        arguments) and maps a float batch ``(B, 1, H, W)`` to logits ``(B, num_classes)``.
        "auto" takes "cxrnet", and without weights of the package "smallnet" where the shorter side
        of the images has at most 32 pixels, as rows of a table have.
    weights : str, os.PathLike or None, default=None
        Weights to start from: "cxr", which have learnt chest radiographs and come with the package,
        for "cxrnet"; "DEFAULT" or another name that torchvision or timm has for this backbone (a
        download); or a local ``.safetensors``, ``.pt`` or ``.pth`` file. None draws them at random.
        Weights that cannot be loaded are an error, never drawn instead.
    image_size : "auto", int or (int, int), default="auto"
        Side, or height and width, in pixels, to which images are brought (antialiased, aspect
        not kept: nothing of the lungs is lost and no bars tell where an image comes from).
        "auto" takes the size for which the weights of the backbone were made; our own networks
        take 128 for files and leave arrays their size, up to a longer side of 256. Rows are never
        resized.
    interpolation : {"auto", "hamming", "bilinear", "bicubic"}, default="auto"
        The window of the antialiased resize. "auto" takes the one that the weights of the backbone
        were trained with, and "hamming" for our own networks.
    row_shape : (int, int), default=None
        Height and width of the images in the rows of a 2-D X. None takes a square where the
        number of columns is one, else a strip of one row.
    channel_axis : {"auto", 1, 3, -1}, default="auto"
        Axis of the channels in a 4-D X; "auto" takes the one of 1 and 3 with 1 or 3 entries.
    max_epochs : "auto" or int, default="auto"
        Passes over the training images. "auto" takes 60 for up to 250 images, fewer for more
        (falling with the square root of their number, at least 15); with `weights` 20 ("cxr": 16)
        for 250 images, up to 60 for fewer and at least 5; 100 with "smallnet" and where a backbone
        with weights is held still.
    batch_size : "auto" or int, default="auto"
        Images in a step. "auto" takes 32, and with "smallnet" all of up to 256, else 64. A last
        batch of one joins the one before it.
    lr : "auto" or float, default="auto"
        Learning rate; the highest one of a schedule. "auto" takes 0.03 for SGD, 0.0005 where
        `weights` are fine-tuned (0.001 for "cxr"), else 0.003. :func:`skcxr.inspection.lr_find`
        shows what a data set bears.
    optimizer : {"adamw", "adam", "sgd"} or torch.optim.Optimizer class, default="adamw"
        "sgd" has a Nesterov momentum of 0.9.
    weight_decay : float, default=0.01
        Weight decay of the optimizer.
    lr_schedule : {"onecycle", "cosine"} or None, default="onecycle"
        "onecycle" rises to `lr` over 30% of the steps and falls to nothing (Smith and Topin, 2019),
        "cosine" rises over 10% and falls along half a cosine (Loshchilov and Hutter, ICLR 2017),
        None stays, as `partial_fit` always does.
    freeze : "backbone", int or None, default=None
        What is held still, normalisation layers in evaluation mode: all but the head, or that
        many stages, counted from the input. With "backbone" and no augmentation or mixing each
        image goes through the backbone once, and the head is trained on what comes out: the same
        result many times faster.
    unfreeze_at : int or None, default=None
        Epochs after which nothing is held still any more. None holds to the end.
    backbone_lr_mult : float, default=1.0
        Learning rate of all but the head, as a part of `lr`.
    label_smoothing : "auto" or float, default="auto"
        Share of the target spread evenly over the classes, in [0, 1) (Szegedy et al., CVPR 2016).
        "auto" takes 0.05 with "cxrnet", else 0.
    mixup, cutmix : float, default=0.0
        Mix pairs of training images: a weighted mean of both (Zhang et al., ICLR 2018), or a
        rectangle of one in the other (Yun et al., ICCV 2019), their labels in the same
        proportion, drawn from a Beta distribution with this parameter. 0 does not mix; with both,
        one of them is drawn for each batch.
    ema : float or None, default=None
        Decay, in (0, 1), of the moving average of the weights over the steps that is validated
        and kept (Polyak and Juditsky, 1992); for fits of many more than 1 / (1 - `ema`) steps. None
        keeps the last weights. Not in `partial_fit`.
    amp : bool, default=False
        Compute in bfloat16 where torch's autocast does. Faster on some machines, and not the same
        numbers: of a trained model some labels change.
    compile : bool, default=False
        Let torch.compile translate the network for this machine: some seconds to minutes at the
        first batch of each process, then faster batches, equal to the rounding of float32. It needs
        a C++ compiler, or a GPU. It may be set after `fit`, and is not kept by
        :func:`skcxr.save_model`.
    augmentation : {"auto", "cxr"}, callable or None, default="auto"
        Changes of training images: "cxr" is :class:`skcxr.augmentation.CXRAugmentation`, a
        callable (such as a torchvision v2 transform) gets one float image ``(1, H, W)`` at a
        time. "auto" takes "cxr" where a named network is trained on images, and None with
        "smallnet", where the backbone is held still and with a network of your own.
    tta : int, default=0
        Test-time augmentation: as many fixed small changes of pose and exposure of every image
        are predicted beside it, and probabilities averaged. Costs as many predictions.
    class_weight : dict, list of dict, "balanced" or None, default=None
        Weight of each class, or weights against unequal class sizes. With findings, a dict of
        the weights of 0 and 1 for all of them, or a list of one for each; "balanced" weighs
        each finding's presence against its absence.
    early_stopping : bool, default=False
        Set `validation_fraction` of the patients aside, stop when the loss on them has not
        fallen for `n_iter_no_change` epochs, and keep the weights of the best epoch.
    validation_fraction : float, default=0.1
        Share of the images to set aside, in (0, 1); stratified, whole patients.
    n_iter_no_change : int, default=10
        Epochs without improvement before early stopping.
    net_params : dict or None, default=None
        Further arguments of :class:`skorch.NeuralNet`, such as ``{"callbacks": [...]}`` or
        ``{"optimizer__betas": (0.9, 0.99)}``; get_params and set_params show each as
        ``net__<argument>``. Those that CXRClassifier has itself are refused.
    warm_start : bool, default=False
        Start `fit` from the weights of the last one.
    ram_limit : int, default=2**30
        Bytes of decoded images to hold during one fit; images beyond are decoded again in every
        epoch. The result is the same.
    device : str, default="auto"
        A torch device; "auto" takes a GPU where there is one.
    dtype : {"auto", "float32", "float64"}, default="auto"
        Type of the weights. "auto" takes float64 for rows of float64 or of wide integers, else
        float32.
    num_workers : int, default=0
        Processes that decode images; 0 decodes in threads of this one. The result is the same.
    memory : str, os.PathLike, joblib.Memory or None, default=None
        Folder in which decoded images are kept, one small file for each file and size, for other
        epochs, folds, searches and processes. A file that has changed is decoded again. The
        result is the same to the bit. Where the backbone is held still its embeddings are kept in
        place of images, and the result is the same to the rounding of float32. Each has a checksum,
        and what is damaged is made again. Nothing is ever removed; delete it when you like.
    checkpoint : str, os.PathLike or None, default=None
        Folder in which `fit` keeps its whole state after every epoch. A `fit` that was killed, on
        the same images with the same parameters, goes on from the last epoch and on a CPU ends
        with the same weights to the bit. One that had ended is taken up as it was; delete the
        folder, or give another, for a new one. Folders of other images or parameters are refused,
        so it is nothing for searches and cross-validation, whose fits differ. Not in
        `partial_fit`.
    on_error : {"raise", "nan"}, default="raise"
        What prediction does about a file that cannot be read: "raise" stops with its
        ImageReadError, "nan" gives a row of NaN and one :class:`skcxr.ImageReadWarning` that
        lists the files. `fit` always stops.
    random_state : int, RandomState instance or None, default=None
        Seed of everything that is drawn: weights, order, augmentation, dropout, the split of
        early stopping. None draws a seed from the operating system. The global generators of
        python, numpy and torch are never moved.
    verbose : int, default=0
        1 shows a progress bar, 2 a line for each epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_findings, 2)
        The labels, sorted; after a fit on findings 0 and 1 for each.
    findings_ : ndarray of shape (n_findings,)
        Names of the findings: the columns of a DataFrame y, else 0, 1, ... Only after a fit on
        a 2-D y.
    n_features_in_ : int
        Number of columns; only after a fit on a 2-D X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns; only after a fit on a 2-D X whose column names are strings.
    history_ : skorch.history.History
        One dict per epoch, with "train_loss" and, with early stopping, "valid_loss".
    n_iter_ : int
        Epochs that the last fit ran.
    net_ : skorch.NeuralNet
        The fitted net.
    module_ : torch.nn.Module
        The fitted network.
    pixel_range_ : (float, float)
        Lowest and highest value that pixels had in fit: (0, 1) for files and integers.
    weights_ : str or None
        What was loaded and what became of its head; None without `weights`.
    backbone_, image_size_, interpolation_, max_epochs_, batch_size_, lr_, label_smoothing_, \
augmentation_, device_, dtype_
        What "auto" became.

    Notes
    -----
    Pixel values: uint8 is divided by 255, uint16 by 65535, floats are taken as they are. RGB is
    read as its luminance.

    Findings, a y of shape (n, k), have one sigmoid each and the mean of their binary
    cross-entropies as the loss. scikit-learn's own scorers and stratified splitters refuse NaN in
    y: :func:`skcxr.metrics.make_masked_scorer` and the splitters that do not look at y take it.

    From scikit-learn 1.9 on, ``set_callbacks`` takes its callbacks: every epoch is a task, after
    which a callback that asks for it gets the classifier as fitted so far and may stop the fit.

    The loss is the mean of the images' cross-entropies, each times its weight, the weights scaled
    to mean 1. Ones equal no weights and weight 0 equals absence. Weight 2 equals the image twice to
    the rounding of float64 where a batch holds all images and the network has no batch statistics
    ("smallnet" with up to 256 rows), and on average in mini-batches.

    With the same `random_state` and machine the probabilities are the same to the bit for any
    number of jobs, workers and CPU threads ("cxrnet" and "smallnet"). Threads of one process fit
    and predict one at a time; processes run side by side.

    Examples
    --------
    >>> from skcxr import CXRClassifier, make_cxr_phantoms
    >>> phantoms = make_cxr_phantoms(24, n_classes=2, image_size=32, noise=0, random_state=0)
    >>> clf = CXRClassifier(random_state=0).fit(phantoms.data, phantoms.target)
    >>> clf.predict_proba(phantoms.data[:3]).shape
    (3, 2)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012  (scikit-learn's convention)
        "backbone": [str, callable],
        "weights": [None, str, os.PathLike],
        "image_size": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
            tuple,
            list,
        ],
        "interpolation": [StrOptions({"auto", *INTERPOLATIONS})],
        "row_shape": [None, tuple, list],
        "channel_axis": [StrOptions({"auto"}), Options(Integral, {1, 3, -1})],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "lr": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "optimizer": [StrOptions(set(OPTIMIZERS)), callable],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "lr_schedule": [None, StrOptions({"onecycle", "cosine"})],
        "freeze": [None, StrOptions({"backbone"}), Interval(Integral, 0, None, closed="left")],
        "unfreeze_at": [None, Interval(Integral, 0, None, closed="left")],
        "backbone_lr_mult": [Interval(Real, 0, None, closed="left")],
        "label_smoothing": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="left")],
        "mixup": [Interval(Real, 0, None, closed="left")],
        "cutmix": [Interval(Real, 0, None, closed="left")],
        "ema": [None, Interval(Real, 0, 1, closed="neither")],
        "amp": ["boolean"],
        "compile": ["boolean"],
        "augmentation": [None, StrOptions({"auto", "cxr"}), callable],
        "tta": [Interval(Integral, 0, None, closed="left")],
        "class_weight": [None, StrOptions({"balanced"}), dict, list],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "net_params": [None, dict],
        "warm_start": ["boolean"],
        "ram_limit": [Interval(Integral, 0, None, closed="left")],
        "device": [str],
        "dtype": [StrOptions({"auto", *DTYPES})],
        "num_workers": [Interval(Integral, 0, None, closed="left")],
        "memory": [None, str, os.PathLike, HasMethods("cache")],
        "checkpoint": [None, str, os.PathLike],
        "on_error": [StrOptions({"raise", "nan"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # under metadata routing, scikit-learn passes patients to fit without being asked
    __metadata_request__fit = {"groups": True}  # noqa: RUF012

    classes_: Any
    findings_: np.ndarray[Any, Any]
    net_: TrainingNet

    def __init__(
        self,
        backbone: str | Callable[..., torch.nn.Module] = "auto",
        *,
        weights: str | os.PathLike[str] | None = None,
        image_size: str | int | tuple[int, int] = "auto",
        interpolation: str = "auto",
        row_shape: tuple[int, int] | None = None,
        channel_axis: str | int = "auto",
        max_epochs: str | int = "auto",
        batch_size: str | int = "auto",
        lr: str | float = "auto",
        optimizer: str | type[torch.optim.Optimizer] = "adamw",
        weight_decay: float = 0.01,
        lr_schedule: str | None = "onecycle",
        freeze: str | int | None = None,
        unfreeze_at: int | None = None,
        backbone_lr_mult: float = 1.0,
        label_smoothing: str | float = "auto",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        ema: float | None = None,
        amp: bool = False,
        compile: bool = False,  # noqa: A002  (torch's and skorch's name)
        augmentation: str | Callable[[torch.Tensor], torch.Tensor] | None = "auto",
        tta: int = 0,
        class_weight: dict[Any, float] | list[dict[int, float]] | str | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        net_params: dict[str, Any] | None = None,
        warm_start: bool = False,
        ram_limit: int = 2**30,
        device: str = "auto",
        dtype: str = "auto",
        num_workers: int = 0,
        memory: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        on_error: str = "raise",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.interpolation = interpolation
        self.row_shape = row_shape
        self.channel_axis = channel_axis
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.freeze = freeze
        self.unfreeze_at = unfreeze_at
        self.backbone_lr_mult = backbone_lr_mult
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.cutmix = cutmix
        self.ema = ema
        self.amp = amp
        self.compile = compile
        self.augmentation = augmentation
        self.tta = tta
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.net_params = net_params
        self.warm_start = warm_start
        self.ram_limit = ram_limit
        self.device = device
        self.dtype = dtype
        self.num_workers = num_workers
        self.memory = memory
        self.checkpoint = checkpoint
        self.on_error = on_error
        self.random_state = random_state
        self.verbose = verbose

    # ---------------------------------------------------------------------------------------
    # fitting
    # ---------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> CXRClassifier:
        """Fit the network.

        Parameters
        ----------
        X : paths or array
            Paths (a list, 1-D array, Series or one column of str or PathLike); images of shape
            (n, H, W), (n, C, H, W) or (n, H, W, C) with C of 1 or 3; or rows of pixels of shape
            (n, n_features).
        y : array-like of shape (n,) or (n, n_findings)
            One label for each image, of any kind that scikit-learn takes; or findings, a column
            of 0 and 1 for each, any number of which may be present in an image. NaN there means
            "not labelled" and counts neither way.
        sample_weight : array-like of shape (n,), default=None
            Weight of each image, not negative.
        groups : array-like of shape (n,), default=None
            Patient of each image, for the split of early stopping. None takes patients from
            the file names that carry them.

        Returns
        -------
        CXRClassifier
            The estimator itself.

        Raises
        ------
        InputError
            X, y, sample_weight, groups or a parameter cannot be used; the message says which.
        ImageReadError
            A file cannot be read.
        TrainingError
            The loss, or a weight, is no number any more. Where an epoch had ended before, its
            weights are kept, and the classifier is fitted with them.
        CheckpointError
            The folder `checkpoint` cannot be written, is in use, or holds the state of another fit.
        WeightsError
            `weights` cannot be loaded or do not fit the network.
        MissingDependencyError
            `backbone` needs an extra that is not installed.

        Warns
        -----
        ContaminationWarning
            With ``weights="cxr"``, images are among those that trained the weights. Prediction
            does not look: audit what you test on (:func:`skcxr.audit.audit_dataset`).
        """
        with one_at_a_time(), columns_kept(self):
            if self.checkpoint is None:
                return self._fit(X, y, sample_weight, groups)
            with CheckpointFolder(self.checkpoint).held() as folder:
                return self._fit(X, y, sample_weight, groups, folder)

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, groups: Any,
        folder: CheckpointFolder | None = None,
    ) -> CXRClassifier:  # fmt: skip
        warm = self.warm_start and hasattr(self, "net_")
        given: dict[str, Any] = {"X": X, "y": y}
        if sample_weight is not None:
            given["metadata"] = {"sample_weight": sample_weight}
        images = read_images(self, X, reset=not warm)
        n_samples = len(images.items)
        labels = check_labels(y, n_samples)
        weight = check_weights(sample_weight, n_samples, labels)
        groups = check_groups(groups, n_samples)
        counted = np.flatnonzero(weight)
        if len(counted) < n_samples:  # weight 0 is absence
            images, labels, weight = images.take(counted), labels[counted], weight[counted]
            groups = None if groups is None else groups[counted]
        names, target = name_labels(y, labels)
        if warm:
            self._check_names(names, target, "warm_start=True goes on with", "warm_start=False")
        seed = draw_seed(self.random_state)
        saved = None if folder is None else folder.read()
        if saved is not None and self.random_state is None:
            seed = saved.seed
        paths = images.items if isinstance(images.items, list) else None
        train, valid = np.arange(len(target)), np.arange(0)
        if self.early_stopping:
            train, valid = early_stopping_split(
                target, groups, paths, self.validation_fraction, seed
            )
        settings = settle(self, images.take(train), weight[train], multi_label=target.ndim == 2)
        weight = weigh_classes(self.class_weight, names, target, weight)
        target = np.nan_to_num(target)  # where a finding is not labelled, its weight is 0
        decode = Decoder(self.memory, settings.interpolation)
        dataset: Any = settings.dataset(
            images.take(train), target[train], weight[train] / weight[train].mean(),
            decode=decode, ram_limit=self.ram_limit * len(train) // len(target),
        )  # fmt: skip
        rest: Any = None
        if self.early_stopping:
            rest = settings.dataset(
                images.take(valid), target[valid], weight[valid],
                decode=decode, ram_limit=self.ram_limit * len(valid) // len(target),
            )  # fmt: skip
        n_batches = count_batches(len(train), settings.batch_size)
        rates = [settings.lr]
        if self.backbone_lr_mult != 1:
            rates.append(settings.lr * self.backbone_lr_mult)
        callbacks = schedule(self.lr_schedule, rates, settings.max_epochs, n_batches)
        if CALLBACKS:
            context = self._init_callback_context(max_subtasks=settings.max_epochs)
            context.call_on_fit_task_begin(estimator=self, **given)
            callbacks.append(("epoch_tasks", EpochTasks(context, partial(
                self._tell_of_epoch, given, names, settings
            ))))  # fmt: skip
        if self.early_stopping:
            callbacks.append(
                ("early_stopping", EarlyStopping(
                    patience=self.n_iter_no_change, threshold=0, load_best=True, sink=noop
                ))
            )  # fmt: skip
        with own_randomness(seed, settings.device):
            net = build_net(
                self, settings, len(names), seed,
                load=not warm, callbacks=callbacks, ema=self.ema,
            )  # fmt: skip
            if warm:
                self._continue_from_last_fit(net)
            if self.verbose and not warm and hasattr(net.module_, "weights_info"):
                print(f"CXRClassifier: {net.module_.weights_info}", file=sys.stderr)  # noqa: T201
            if folder is not None:
                told = {"labels": target, "names of labels": names, "sample_weight": weight,
                          "split of early stopping": valid}  # fmt: skip
                folder.seed = seed
                folder.identity = identify(self, settings, seed, images, told, net.module_)
                folder.check(saved)
                net.callbacks_.append(("checkpoint", KeepState(folder, saved)))
            shipped = shipped_weights(self.weights, settings.backbone)
            if self._embeds_once(settings):
                embedder = self._embedder(net, settings)
                (dataset, learnt), (rest, more) = (
                    self._embedded(embedder, part) for part in (dataset, rest)
                )
            else:
                hold = not self.num_workers  # or what is held would be sent to each of them
                learnt, more = (learnt_images(shipped, part, hold=hold) for part in (dataset, rest))
            all_learnt = np.zeros(n_samples, dtype=bool)
            all_learnt[counted[train]], all_learnt[counted[valid]] = learnt, more
            warn_if_learnt(shipped, all_learnt, stacklevel=4)
            if rest is not None:
                net.train_split = predefined_split(rest)
            try:
                self._train(net, dataset)
            except TrainingError:
                if net._good is not None:
                    net.forget_training()
                    self._keep(net, settings, names)
                raise
        net.forget_training()
        self._keep(net, settings, names)
        if CALLBACKS:
            context.call_on_fit_task_end(estimator=self, **given, reconstruction_attributes={})
        return self

    def _embeds_once(self, settings: Settings) -> bool:
        """Whether all that changes in this fit is the head, so that each image is embedded once."""
        changes = settings.augmentation is not None or self.mixup or self.cutmix
        return settings.frozen and not changes and isinstance(settings.backbone, str)

    def _embedder(self, net: TrainingNet, settings: Settings) -> Embedder:
        network: Any = net.module_

        def embed(pixels: torch.Tensor) -> torch.Tensor:
            with torch.autocast(torch.device(settings.device).type, torch.bfloat16, net.amp):
                return network.embed(pixels)

        network.eval()
        shipped = shipped_weights(self.weights, settings.backbone)
        mark = ""
        if self.memory is not None:  # the entries are those of CXRFeatures
            of_module = [item for item in sorted((self.net_params or {}).items(), key=str)
                         if item[0].startswith("module__")]  # fmt: skip
            mark = cache_mark(
                fingerprint(network, settings.backbone, *of_module),
                settings.image_size, settings.interpolation, amp=net.amp, shipped=shipped,
            )  # fmt: skip
        return Embedder(
            embed, network.embedding_size, settings.image_size,
            Decoder(interpolation=settings.interpolation), EmbeddingCache(self.memory, mark),
            settings.predict_batch_size, self.num_workers, settings.device, settings.torch_dtype,
            shipped=shipped,
        )  # fmt: skip

    @staticmethod
    def _embedded(
        embedder: Embedder, images: ImageDataset | None
    ) -> tuple[EmbeddingDataset | None, np.ndarray[Any, Any]]:
        """Images as embeddings, and which of them have trained the weights."""
        if images is None:
            return None, np.zeros(0, dtype=bool)
        found = embedder(images.items)
        return EmbeddingDataset(torch.from_numpy(found.rows), images), found.learnt

    def _tell_of_epoch(
        self, given: dict[str, Any], names: Any, settings: Settings, net: TrainingNet
    ) -> dict[str, Any]:
        """What scikit-learn's callbacks are told when an epoch begins or ends."""

        def as_if_fitted() -> dict[str, Any]:
            estimator = copy.copy(self)
            estimator._keep(net.snapshot(), settings, names)
            return dict(vars(estimator))

        return {"estimator": self, **given, "reconstruction_attributes": as_if_fitted}

    def _check_names(self, names: Any, target: Any, what: str, instead: str) -> None:
        """New labels are those of the last fit."""
        multi_label = self._settings.multi_label
        known = self.findings_ if multi_label else self.classes_
        if multi_label != (target.ndim == 2) or not np.array_equal(names, known):
            raise InputError(
                f"{what} the {'findings' if multi_label else 'classes'} {known.tolist()}, but y "
                f"holds {names.tolist()}; set {instead}"
            )

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> CXRClassifier:
        """Go over the images once, going on from where the last call ended.

        The learning rate is constant and there is no early stopping. "auto" values are settled
        by the first call.

        Parameters
        ----------
        X : paths or array
            As in `fit`.
        y : array-like of shape (n,) or (n, n_findings)
            As in `fit`.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come; needed in the first call, unless y holds findings.
        sample_weight : array-like of shape (n,), default=None
            As in `fit`.

        Returns
        -------
        CXRClassifier
            The estimator itself.

        Raises
        ------
        InputError, ImageReadError, WeightsError
            As in `fit`; also for labels that are not in `classes`.
        """
        if self.class_weight == "balanced":
            raise InputError(
                'class_weight="balanced" is not for partial_fit, which never sees all labels; give '
                "a dict"
            )
        with one_at_a_time(), columns_kept(self):
            return self._partial_fit(X, y, classes, sample_weight)

    def _partial_fit(self, X: Any, y: Any, classes: Any, sample_weight: Any) -> CXRClassifier:
        first = not hasattr(self, "net_")
        images = read_images(self, X, reset=first)
        n_samples = len(images.items)
        labels = check_labels(y, n_samples)
        weight = check_weights(sample_weight, n_samples, labels)
        counted = np.flatnonzero(weight)
        images, labels, weight = images.take(counted), labels[counted], weight[counted]
        names, target = self._known_labels(y, labels, classes, first)
        if first:
            settings = settle(self, images, weight, multi_label=target.ndim == 2)
            settings = replace(settings, max_epochs=1)
            if self.batch_size == "auto":  # not what happens to come first
                settings = replace(settings, batch_size=32)
        else:
            settings = self._settings
        lr = settings.lr if self.lr == "auto" else self.lr
        seed = draw_seed(self.random_state) + (0 if first else len(self.history_))
        weight = weigh_classes(self.class_weight, names, target, weight)
        shipped = shipped_weights(self.weights, settings.backbone)
        dataset = settings.dataset(
            images, np.nan_to_num(target), weight,
            decode=Decoder(self.memory, settings.interpolation),
            ram_limit=0 if shipped is None else self.ram_limit,  # they are looked at before
        )  # fmt: skip
        learnt = np.zeros(n_samples, dtype=bool)
        learnt[counted] = learnt_images(shipped, dataset)
        warn_if_learnt(shipped, learnt, stacklevel=4)
        with own_randomness(seed, settings.device):
            if first:
                net = build_net(self, settings, len(names), seed)
            else:
                net = self.net_
                net.max_epochs, net.iterator_train__shuffle_seed, net.ema = 1, seed, None
                for group in net.optimizer_.param_groups:
                    group["lr"] = lr * group.get("lr_mult", 1)
            self._train(net, dataset)
        self._keep(net, settings, names)
        return self

    def _known_labels(self, y: Any, labels: Any, classes: Any, first: bool) -> tuple[Any, Any]:
        """Names and target of partial_fit, where a call may see but some of the classes."""
        if labels.ndim == 2:  # a column is a finding, so `classes` has nothing to add
            names = name_findings(y, labels)
            if not first:
                self._check_names(names, labels, "partial_fit goes on with", "those names")
            return names, labels
        if first and classes is None:
            raise InputError("classes must be passed on the first call to partial_fit")
        if not first and self._settings.multi_label:
            self._check_names(np.unique(labels), labels, "partial_fit goes on with", "those names")
        try:
            named = self.classes_ if classes is None else np.unique(classes)
        except TypeError as error:
            raise InputError(f"classes={classes!r} cannot be sorted: {error}") from error
        known = named if first else self.classes_
        if not np.array_equal(named, known):
            raise InputError(f"classes={list(classes)} is not what it was: {known.tolist()}")
        if len(known) < 2:
            raise InputError(f"classes={known.tolist()} is one class; a classifier needs two")
        unknown = np.setdiff1d(labels, known)
        if len(unknown):
            raise InputError(f"y holds labels that are not in classes: {unknown.tolist()}")
        return known, np.searchsorted(known, labels)

    def _continue_from_last_fit(self, net: TrainingNet) -> None:
        try:
            net.module_.load_state_dict(self.module_.state_dict())
        except RuntimeError as error:
            raise InputError(
                f"warm_start=True, but the weights of the last fit ({self.backbone_!r} on images "
                f"of {self.image_size_}) do not fit the network of this one; set warm_start=False"
            ) from error
        if self.weights_ is not None:
            net.module_.weights_info = self.weights_

    def _train(self, net: TrainingNet, dataset: ImageDataset) -> None:
        try:
            net.partial_fit(dataset)
        except ValueError as error:
            if isinstance(error, InputError) or "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                "one image this small leaves batch normalisation nothing to average over; take "
                "batches of two or more (batch_size=), or larger images"
            ) from error
        finally:
            for _, callback in net.callbacks_:
                if isinstance(callback, EpochBar):
                    callback.close()
            net.train_split = None  # or the fitted net would hold the images

    def _keep(self, net: TrainingNet, settings: Settings, names: Any) -> None:
        """Become the fitted classifier of `names`, which are classes or findings."""
        self.net_ = net
        self._settings = settings
        self.__dict__.pop("findings_", None)
        self.classes_ = names
        if settings.multi_label:
            self.findings_ = names
            # one row for each finding: what scikit-learn's scorers and cross_val_predict read
            self.classes_ = np.tile([0, 1], (len(names), 1))
        self.n_iter_ = len(net.history)
        self.backbone_ = settings.backbone
        self.image_size_ = settings.image_size
        self.interpolation_ = settings.interpolation
        self.label_smoothing_ = settings.label_smoothing
        self.max_epochs_ = settings.max_epochs
        self.batch_size_ = settings.batch_size
        self.lr_ = settings.lr
        self.augmentation_ = settings.augmentation
        self.device_ = settings.device
        self.dtype_ = settings.dtype
        self.pixel_range_ = settings.pixel_range

    # ---------------------------------------------------------------------------------------
    # predicting
    # ---------------------------------------------------------------------------------------

    def _logits(self, X: Any) -> np.ndarray[Any, Any]:
        """Logits of shape (n, k) in float64; NaN for images that cannot be read."""
        check_is_fitted(self)
        images = read_images(self, X, reset=False)
        decode = Decoder(self.memory, self._settings.interpolation)
        dataset: Any = self._settings.dataset(images, decode=decode, on_error=self.on_error)
        # one array: small tensors that live on keep the memory of batches from being used again
        n_outputs = len(self.findings_ if self._settings.multi_label else self.classes_)
        logits = np.empty((len(images.items), n_outputs))
        n_done = 0
        failures: list[Unreadable] = []
        self.net_.compiled = self.compile
        with one_at_a_time():
            if self.memory is not None and not self.tta and self._embeds_once(self._settings):
                embedded = self._embedder(self.net_, self._settings)(images.items, self.on_error)
                failures = embedded.failures
                dataset = EmbeddingDataset(torch.from_numpy(embedded.rows), dataset)
            for batch in self.net_.get_iterator(dataset, training=False):
                found = self._logits_of_batch(batch).numpy()
                logits[n_done : n_done + len(found)] = found
                n_done += len(found)
                failures += batch[1][2] if len(batch[1]) > 2 else []
        if failures:
            logits[[failure.position for failure in failures]] = np.nan
            if images.kind == "paths":  # what is NaN in an array has been told before
                warnings.warn(ImageReadWarning(failures, len(logits)), stacklevel=3)
        return logits

    def _logits_of_batch(self, batch: Any) -> torch.Tensor:
        """Logits (B, k); of several views of each image, those of the mean probability."""
        pixels, labels = batch[0], batch[1]
        if not self.tta:
            return to_device(self.net_.evaluation_step(batch), "cpu")
        views = [
            to_device(self.net_.evaluation_step((view, labels)), "cpu").double()
            for view in make_views(pixels, 1 + self.tta)
        ]
        logits = torch.stack(views)
        count = np.log(len(views))
        if not self._settings.multi_label:
            return torch.logsumexp(logits.log_softmax(2), 0) - count
        present, absent = (F.logsigmoid(sign * logits).logsumexp(0) for sign in (1, -1))
        return present - absent

    def predict(self, X: Any) -> np.ndarray[Any, Any]:
        """Predict the most probable class, or the findings that are more probable than not.

        Parameters
        ----------
        X : paths or array
            As in `fit`.

        Returns
        -------
        ndarray of shape (n,) or (n, n_findings)
            A label of `classes_` for each image, or 0 and 1 for each finding. Where an image
            cannot be read and ``on_error="nan"``, NaN, in an array of float64 or, if labels are
            no numbers, of object.

        Raises
        ------
        InputError, ImageReadError
            X cannot be used, or a file cannot be read.

        Warns
        -----
        ImageReadWarning
            Files cannot be read, with ``on_error="nan"``.
        """
        logits = self._logits(X)
        unread = np.isnan(logits).any(axis=1)
        if self._settings.multi_label:
            labels = (logits > 0).astype(np.int64)
        else:
            labels = self.classes_[logits.argmax(axis=1)]
        if unread.any():
            labels = labels.astype(np.float64 if labels.dtype.kind in "iuf" else object)
            labels[unread] = np.nan
        return labels

    def predict_proba(self, X: Any) -> np.ndarray[Any, Any]:
        """Predict the probability of each class or finding.

        Parameters
        ----------
        X : paths or array
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, n_classes) or (n, n_findings)
            Probabilities in [0, 1], in the order of `classes_`, each row of which sums to 1; or
            of each finding for itself, in the order of `findings_`.

        Raises
        ------
        InputError, ImageReadError
            X cannot be used, or a file cannot be read.

        Warns
        -----
        ImageReadWarning
            Files cannot be read, with ``on_error="nan"``.
        """
        logits = self._logits(X)
        return expit(logits) if self._settings.multi_label else softmax(logits, axis=1)

    def predict_log_proba(self, X: Any) -> np.ndarray[Any, Any]:
        """Predict the logarithm of the probability of each class or finding.

        Parameters
        ----------
        X : paths or array
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, n_classes) or (n, n_findings)
            Natural logarithms, in the order of `classes_` or `findings_`.

        Raises
        ------
        InputError, ImageReadError
            X cannot be used, or a file cannot be read.

        Warns
        -----
        ImageReadWarning
            Files cannot be read, with ``on_error="nan"``.
        """
        logits = self._logits(X)
        return log_expit(logits) if self._settings.multi_label else log_softmax(logits, axis=1)

    def decision_function(self, X: Any) -> np.ndarray[Any, Any]:
        """Compute logits: scores that are higher for more probable classes.

        Parameters
        ----------
        X : paths or array
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, n_classes), (n,) or (n, n_findings)
            The logits in the order of `classes_`; with two classes, the logit of the second
            minus that of the first. With findings, the logit of each.

        Raises
        ------
        InputError, ImageReadError
            X cannot be used, or a file cannot be read.

        Warns
        -----
        ImageReadWarning
            Files cannot be read, with ``on_error="nan"``.
        """
        logits = self._logits(X)
        binary = logits.shape[1] == 2 and not self._settings.multi_label
        return logits[:, 1] - logits[:, 0] if binary else logits

    # ---------------------------------------------------------------------------------------
    # scikit-learn's ways
    # ---------------------------------------------------------------------------------------

    @property
    def module_(self) -> torch.nn.Module:
        """The fitted network."""
        check_is_fitted(self)
        return self.net_.module_

    @property
    def weights_(self) -> str | None:
        """What was loaded to start from."""
        return getattr(self.module_, "weights_info", None)

    @property
    def history_(self) -> Any:
        """What skorch recorded, epoch by epoch."""
        check_is_fitted(self)
        return self.net_.history

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of this estimator, those in `net_params` also as ``net__<argument>``.

        Parameters
        ----------
        deep : bool, default=True
            Whether to show ``net__<argument>`` too.

        Returns
        -------
        dict
            Names and values.
        """
        params: dict[str, Any] = super().get_params(deep=deep)
        if deep and isinstance(self.net_params, dict):
            params.update({f"net__{name}": value for name, value in self.net_params.items()})
        return params

    def set_params(self, **params: Any) -> CXRClassifier:
        """Set parameters; ``net__<argument>`` sets one entry of `net_params`.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        CXRClassifier
            The estimator itself.
        """
        of_net = {name[5:]: params.pop(name) for name in list(params) if name.startswith("net__")}
        super().set_params(**params)
        if of_net:
            self.net_params = {**(self.net_params or {}), **of_net}
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "net_") and str(self.net_.device) != self.device_:  # its GPU is not here
            self.device_ = str(self.net_.device)
            self._settings = replace(self._settings, device=self.device_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.classifier_tags.multi_label = True
        return tags
