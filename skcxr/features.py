"""CXRFeatures: a network that is held still makes numbers of images for other estimators."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skcxr._cache import Decoder, EmbeddingCache
from skcxr._callbacks import CALLBACKS, CallbackSupportMixin
from skcxr._contamination import warn_if_learnt
from skcxr._embeddings import Embedder, cache_mark, fingerprint
from skcxr._exceptions import ImageReadWarning, InputError
from skcxr._inputs import columns_kept, read_images
from skcxr._seeds import draw_seed
from skcxr._settings import InputSettings, settle_input
from skcxr._shipped import SHIPPED, shipped_weights
from skcxr._weights import title_of
from skcxr.images import INTERPOLATIONS
from skcxr.networks import load_network
from skcxr.training import device_here, one_at_a_time, own_randomness

__all__ = ["CXRFeatures"]


class CXRFeatures(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Embeddings of chest radiographs by a network that is not trained further.

    A linear model on the embeddings of a network that has learnt elsewhere is hard to beat on
    some hundred images, and is fitted in seconds: ``make_pipeline(CXRFeatures(),
    StandardScaler(), LogisticRegression())``.

    For research only, as everything in skcxr.

    Parameters
    ----------
    backbone : str or callable, default="auto"
        The network, as in :class:`skcxr.CXRClassifier`; "auto" takes "cxrnet" for the weights "cxr"
        and "resnet18" for all others.
    weights : str, os.PathLike or None, default="DEFAULT"
        What it has learnt, as in :class:`skcxr.CXRClassifier`: "cxr" has learnt chest radiographs
        and comes with the package, "DEFAULT" is downloaded by the library that the backbone comes
        from, a local file is not. None draws weights at random, which serves for tests and
        comparisons.
    layer : int, str, list of these or None, default=None
        Where the embedding is taken. None takes what the network's own head gets; an int the
        output of that stage, counted from the input, negative ones from the end; a str the output
        of the module of that name, such as "layer3" of a ResNet; a list, which may hold None, all
        of them side by side. Earlier layers know texture, later ones the things of ImageNet.
    pooling : {"avg", "max", "avgmax"} or None, default=None
        How a map of features becomes numbers: the mean over all places, the maximum, or both side
        by side. None takes the network's own way, and "avg" with a `layer`. With a value and no
        `layer`, the output of the last stage is pooled.
    image_size : "auto", int or (int, int), default="auto"
        As in :class:`skcxr.CXRClassifier`: "auto" takes the size for which the weights were made.
        Networks with convolutions take other sizes too, and larger ones often do better.
    interpolation : {"auto", "hamming", "bilinear", "bicubic"}, default="auto"
        As in :class:`skcxr.CXRClassifier`.
    row_shape : (int, int), default=None
        As in :class:`skcxr.CXRClassifier`.
    channel_axis : {"auto", 1, 3, -1}, default="auto"
        As in :class:`skcxr.CXRClassifier`.
    batch_size : "auto" or int, default="auto"
        Images that go through the network at a time. "auto" takes 3 of 224 pixels, or as many as
        take their memory, which is the fastest on a processor, and many more on a GPU.
    num_workers : int, default=0
        Processes that decode images; 0 decodes in threads of this one. The result is the same.
    memory : str, os.PathLike, joblib.Memory or None, default=None
        Folder in which the embedding of each image is kept, one small file each, for other
        folds, searches, processes and days. Its name depends on the file's path, inode, size and
        times of change, or on the pixels of an array, and on the network, its weights and its
        input: what has changed is embedded again. The result is the same to the rounding of
        float32. Nothing is ever removed from it. Not for a `backbone` of your own, whose code may
        change.
    on_error : {"raise", "nan"}, default="raise"
        What becomes of a file that cannot be read: "raise" stops with its ImageReadError, "nan"
        gives a row of NaN and one :class:`skcxr.ImageReadWarning` that lists the files.
    device : str, default="auto"
        A torch device; "auto" takes a GPU where there is one.
    random_state : int, RandomState instance or None, default=None
        Seed of weights that are drawn.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    module_ : torch.nn.Module
        The network. It is shared with other CXRFeatures of the same parameters in this process:
        do not change it.
    weights_ : str or None
        What was loaded; None without `weights`.
    image_size_ : (int, int)
        Height and width in pixels of the network's input.
    device_ : str
        Where the network computes.
    n_features_in_ : int
        Number of columns; only after a fit on a 2-D X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns; only after a fit on a 2-D X whose column names are strings.

    See Also
    --------
    skcxr.CXRClassifier : With ``freeze="backbone"``, the same with a head of one linear layer.

    Notes
    -----
    ``Pipeline(memory=...)`` keeps what ``fit_transform`` returns only, so each scoring in a search
    goes through the network again. `memory` here keeps each image's embedding for all of them.

    Images are brought to the network as its weights want them (size, interpolation, mean and
    standard deviation of each channel); gray is repeated into its three channels.

    References
    ----------
    Kornblith, Shlens and Le, "Do better ImageNet models transfer better?", CVPR 2019 (linear
    models on frozen networks).

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skcxr import CXRFeatures, make_cxr_phantoms
    >>> drawn = make_cxr_phantoms(24, n_classes=2, image_size=32, random_state=0)
    >>> features = CXRFeatures("cxrnet", weights=None, random_state=0)
    >>> features.fit_transform(drawn.data).shape
    (24, 512)
    >>> model = make_pipeline(features, StandardScaler(), LogisticRegression())
    >>> model.fit(drawn.data, drawn.target).predict(drawn.data[:2]).shape
    (2,)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012  (scikit-learn's convention)
        "backbone": [str, callable],
        "weights": [None, str, os.PathLike],
        "layer": [None, Integral, str, list, tuple],
        "pooling": [None, StrOptions({"avg", "max", "avgmax"})],
        "image_size": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
            tuple,
            list,
        ],
        "interpolation": [StrOptions({"auto", *INTERPOLATIONS})],
        "row_shape": [None, tuple, list],
        "channel_axis": [StrOptions({"auto"}), Options(Integral, {1, 3, -1})],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "num_workers": [Interval(Integral, 0, None, closed="left")],
        "memory": [None, str, os.PathLike, HasMethods("cache")],
        "on_error": [StrOptions({"raise", "nan"})],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone: str | Callable[..., nn.Module] = "auto",
        *,
        weights: str | os.PathLike[str] | None = "DEFAULT",
        layer: Any = None,
        pooling: str | None = None,
        image_size: str | int | tuple[int, int] = "auto",
        interpolation: str = "auto",
        row_shape: tuple[int, int] | None = None,
        channel_axis: str | int = "auto",
        batch_size: str | int = "auto",
        num_workers: int = 0,
        memory: Any = None,
        on_error: str = "raise",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layer = layer
        self.pooling = pooling
        self.image_size = image_size
        self.interpolation = interpolation
        self.row_shape = row_shape
        self.channel_axis = channel_axis
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.memory = memory
        self.on_error = on_error
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> CXRFeatures:
        """Load the network. Of images nothing is learnt, of rows their mean and deviation.

        Parameters
        ----------
        X : paths or array
            As :class:`skcxr.CXRClassifier` takes them. Files are not opened.
        y : ignored
            Here for scikit-learn's sake.

        Returns
        -------
        CXRFeatures
            The transformer itself.

        Raises
        ------
        InputError
            X or a parameter cannot be used; the message says which.
        WeightsError
            `weights` cannot be loaded or do not fit the network.
        MissingDependencyError
            `backbone` needs an extra that is not installed.
        """
        with one_at_a_time(), columns_kept(self):
            images = read_images(self, X, reset=True, allow_nan=self.on_error == "nan")
            settings = settle_input(self, images, auto="resnet18")
            seed = draw_seed(self.random_state) if self.weights is None else None
            self._become(_network(settings, self.weights, seed), settings)
        if CALLBACKS:  # a progress bar of the pipeline asks for no more than this
            context = self._init_callback_context()
            context.call_on_fit_task_begin(estimator=self, X=X, y=y)
            context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _become(self, network: FrozenNetwork, settings: InputSettings) -> None:
        """Become the fitted transformer of a network, or say what of it does not exist."""
        function = _embedding(network.module, self.layer, self.pooling, settings)
        if self.layer is None and self.pooling is None:
            size = int(network.module.embedding_size)  # type: ignore[arg-type]
        else:
            blank = torch.zeros(1, 1, *settings.image_size, dtype=settings.torch_dtype)
            with one_at_a_time(), torch.no_grad():
                size = function(blank.to(settings.device)).shape[1]
        self._network, self._settings = network, settings
        self._taken = self.layer, self.pooling
        self._n_features_out = size
        self.image_size_ = settings.image_size
        self.device_ = settings.device

    def transform(self, X: Any) -> np.ndarray[Any, Any]:
        """Embed images.

        Parameters
        ----------
        X : paths or array
            As :class:`skcxr.CXRClassifier` takes them.

        Returns
        -------
        ndarray of shape (n, d)
            The embeddings, float32 (float64 for rows of float64); NaN for a file that cannot be
            read, with ``on_error="nan"``.

        Raises
        ------
        InputError, ImageReadError
            X cannot be used, or a file cannot be read.

        Warns
        -----
        ImageReadWarning
            Files cannot be read, with ``on_error="nan"``.
        ContaminationWarning
            With ``weights="cxr"``, images are among those that trained the weights.
        """
        check_is_fitted(self)
        self._validate_params()
        images = read_images(self, X, reset=False)
        settings, network = self._settings, self._network
        function = _embedding(network.module, *self._taken, settings)
        shipped = shipped_weights(self.weights, settings.backbone)
        mark = ""
        memory = self.memory if isinstance(settings.backbone, str) else None  # code may change
        if memory is not None:
            mark = cache_mark(
                network.fingerprint(), settings.image_size, settings.interpolation, *self._taken,
                shipped=shipped,
            )  # fmt: skip
        embedder = Embedder(
            function,
            self._n_features_out,
            settings.image_size,
            Decoder(interpolation=settings.interpolation),
            EmbeddingCache(memory, mark),
            settings.predict_batch_size if self.batch_size == "auto" else int(self.batch_size),
            self.num_workers,
            settings.device,
            settings.torch_dtype,
            bool(self.verbose),
            shipped,
        )
        with one_at_a_time():
            if any(module.training for module in network.module.modules()):
                network.module.eval()
            embeddings, failures, learnt = embedder(images.items, self.on_error)
        if failures and images.kind == "paths":  # what is NaN in an array is known
            warnings.warn(ImageReadWarning(failures, len(embeddings)), stacklevel=2)
        warn_if_learnt(shipped, learnt)
        return embeddings

    @property
    def module_(self) -> nn.Module:
        """The network."""
        check_is_fitted(self)
        return self._network.module

    @property
    def weights_(self) -> str | None:
        """What was loaded."""
        return getattr(self.module_, "weights_info", None)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "_network"):  # its GPU may not be here
            self.device_ = device_here(self._settings.device)
            self._settings = replace(self._settings, device=self.device_)
            self._network.module.to(self.device_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


# --------------------------------------------------------------------------------------------
# networks, loaded once for all folds and grid points of a process
# --------------------------------------------------------------------------------------------


class FrozenNetwork:
    """A network that nobody trains, with the hash of its weights."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module = module
        self.name = name
        self._fingerprint: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "module": copy.deepcopy(self.module).cpu()}

    def fingerprint(self) -> str:
        """All that its outputs depend on."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.module, self.name)
        return self._fingerprint


class _Key(NamedTuple):
    """What tells networks apart within a process."""

    backbone: str | Callable[..., nn.Module]
    weights: str | None
    changed: tuple[int, int] | None
    image_size: tuple[int, int]
    pixels: tuple[float, float] | None
    dtype: torch.dtype
    device: str
    seed: int | None


def _network(settings: InputSettings, weights: Any, seed: int | None) -> FrozenNetwork:
    """The network of these settings, from memory where it was built before."""
    changed = None
    if weights is not None:
        name = os.fspath(weights)
        if not isinstance(weights, str) and name in SHIPPED:
            name = os.path.join(os.curdir, name)  # a file, though it is called as they are
        weights = name
        try:
            status = os.stat(weights)
            changed = (status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            pass  # a name, or a file whose absence the loader will tell
    key = _Key(
        settings.backbone, weights, changed, settings.image_size, settings.pixels,
        settings.torch_dtype, settings.device, seed,
    )  # fmt: skip
    return _remembered(key) if isinstance(settings.backbone, str) else _build(key)


@lru_cache(maxsize=2)
def _remembered(key: _Key) -> FrozenNetwork:
    return _build(key)


def _build(key: _Key) -> FrozenNetwork:
    with own_randomness(key.seed or 0, key.device):
        module, _ = load_network(
            key.backbone,
            num_classes=2,
            image_size=key.image_size,
            pixels=key.pixels,
            weights=key.weights,
            dtype=key.dtype,
        )
    name = key.backbone if isinstance(key.backbone, str) else repr(key.backbone)
    if not isinstance(key.backbone, str):
        module = copy.deepcopy(module)  # a factory may give one that is used elsewhere
    return FrozenNetwork(module.to(key.device).eval().requires_grad_(False), name)


# --------------------------------------------------------------------------------------------
# where the embedding is taken
# --------------------------------------------------------------------------------------------


def _embedding(
    network: nn.Module, layer: Any, pooling: str | None, settings: InputSettings
) -> Callable[[Tensor], Tensor]:
    """What makes embeddings of pixels."""
    if not hasattr(network, "embed"):
        raise InputError(
            f"backbone={settings.backbone!r} has no embed(), so that CXRFeatures cannot tell where "
            "its embedding is; use a backbone by name, or give the module embed(x) and "
            "embedding_size"
        )
    if layer is None and pooling is None:
        return network.embed  # type: ignore[return-value]
    layers = list(layer) if isinstance(layer, list | tuple) else [layer]
    if not layers:
        raise InputError("layer is an empty list; None takes the network's own embedding")
    if pooling is not None:  # the network's own embedding is pooled already
        layers = [-1 if which is None else which for which in layers]
    modules = [None if which is None else _find_layer(network, which) for which in layers]
    names = {m: which for m, which in zip(modules, layers, strict=True) if m is not None}
    # of our own networks larger batches run in pieces side by side, and hooks would see each
    piece = len if hasattr(network, "body") else (lambda pixels: 8)

    def run(pixels: Tensor) -> Tensor:
        return torch.cat([run_piece(part) for part in torch.split(pixels, piece(pixels))])

    def run_piece(pixels: Tensor) -> Tensor:
        outputs: dict[nn.Module, Tensor] = {}

        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            # here: what comes next may work in place
            outputs[module] = _pool(output, pooling or "avg", settings.image_size, names[module])

        handles = [m.register_forward_hook(keep) for m in modules if m is not None]
        try:
            own = network.embed(pixels)  # type: ignore[operator]
        finally:
            for handle in handles:
                handle.remove()
        parts = []
        for which, module in zip(layers, modules, strict=True):
            if module is not None and module not in outputs:
                raise InputError(f"layer={which!r} is not run when the network embeds images")
            parts.append(own if module is None else outputs[module])
        return torch.cat(parts, 1)

    return run


def _find_layer(network: nn.Module, layer: Any) -> nn.Module:
    if isinstance(layer, str):
        for name in (layer, f"body.{layer}", f"layers.{layer}"):
            try:
                return network.get_submodule(name)
            except AttributeError:
                continue
        names = [name.removeprefix("body.") for name, _ in network.named_modules() if name]
        raise InputError(
            f"layer={layer!r} is no module of {title_of(network)}; it has "
            f"{', '.join(names[:40])}{', ...' if len(names) > 40 else ''}"
        )
    if isinstance(layer, bool) or not isinstance(layer, Integral):
        raise InputError(f"layer={layer!r} is neither the number of a stage nor a module's name")
    if not hasattr(network, "stages"):
        raise InputError(
            f"layer={layer} counts stages, and {title_of(network)} does not tell its own; give the "
            "name of a module"
        )
    stages = network.stages()  # type: ignore[operator]
    number = int(layer)
    if not -len(stages) <= number < len(stages):
        raise InputError(f"layer={layer}, but the network has stages 0 to {len(stages) - 1}")
    found: nn.Module = stages[number][-1]
    return found


def _pool(output: Any, pooling: str, image_size: tuple[int, int], layer: Any) -> Tensor:
    """Features of shape (B, C), (B, N, C), (B, C, H, W) or (B, H, W, C) -> (B, d)."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"layer={layer!r} gives {what}, which cannot be pooled into one row each")
    if output.ndim == 2:
        return output
    places: tuple[int, ...] = (1,)
    if output.ndim == 4:
        # the places of a map stand to each other as the sides of the image do
        ratio = image_size[0] / image_size[1]
        first, last = (abs(np.log(output.shape[k] / output.shape[k + 1] / ratio)) for k in (2, 1))
        places = (1, 2) if last < first else (2, 3)
    parts = []
    if "avg" in pooling:
        parts.append(output.mean(places))
    if "max" in pooling:
        parts.append(output.amax(places))
    return torch.cat(parts, 1)
