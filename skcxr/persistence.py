"""A fitted model as a folder of numbers and words, and back: no pickle, no code.

``config.json`` holds what can be read: versions, parameters, what fit settled, labels, history.
``model.safetensors`` holds the weights. Pipelines and ensembles have their CXRClassifiers and
CXRFeatures in ``config.json`` and ``net_<i>.safetensors``; the rest of them, scikit-learn's own
estimators, is in ``estimator.skops``. Names of files are fixed, classes come from fixed tables,
networks from :mod:`skcxr.networks`: what a folder says can choose among these and bring nothing of
its own.
"""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pickle
import platform
import types
import warnings
import zipfile
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import fields, replace
from importlib.metadata import version
from typing import Any, Union, get_args, get_origin, get_type_hints

import safetensors.torch
import sklearn
import sklearn.metrics
import sklearn.model_selection
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils.validation import check_is_fitted
from skorch.history import History

from skcxr import __version__
from skcxr._exceptions import InputError, MissingDependencyError, ModelFileError, SkcxrWarning
from skcxr._model_files import (
    CONFIG,
    FORMAT_VERSION,
    MOST_CONFIG,
    PARTS,
    WAY_OUT,
    WEIGHTS,
    ContentError,
    Files,
    check_free,
    decode,
    decode_labels,
    encode,
    encode_labels,
    part,
    put_files,
    read_config,
    read_recorded,
    record_of,
    require,
)
from skcxr._nets import build_net
from skcxr._optional import import_optional
from skcxr._settings import DTYPES, InputSettings, Settings
from skcxr._weights import looks_like_file
from skcxr.augmentation import CXRAugmentation
from skcxr.classifier import CXRClassifier
from skcxr.features import CXRFeatures, FrozenNetwork
from skcxr.images import INTERPOLATIONS
from skcxr.metrics import target_sensitivity
from skcxr.metrics._labelled import _MaskedScorer
from skcxr.model_selection import PatientKFold
from skcxr.networks import draw_network, list_backbones
from skcxr.preprocessing import ImageLoader
from skcxr.training import device_here, one_at_a_time, own_randomness

__all__ = ["load_model", "save_model"]

Ours = CXRClassifier | CXRFeatures

_KINDS: dict[str, tuple[type[Any], type[InputSettings]]] = {
    "CXRClassifier": (CXRClassifier, Settings),
    "CXRFeatures": (CXRFeatures, InputSettings),
}
_MOST_PIXELS = 2048**2  # in an image for which a file may make a network take memory


def save_model(model: Any, path: str | os.PathLike[str]) -> str:
    """Save a fitted model as a folder from which `load_model` makes it again.

    Parameters
    ----------
    model : CXRClassifier, CXRFeatures or scikit-learn estimator
        A fitted :class:`skcxr.CXRClassifier` or :class:`skcxr.CXRFeatures`; or a fitted Pipeline,
        VotingClassifier, StackingClassifier, CalibratedClassifierCV, GridSearchCV, ... of these,
        :class:`skcxr.ImageLoader` and scikit-learn's own estimators, for which the extra
        ``skcxr[skops]`` is needed.
    path : str or os.PathLike
        The folder. Its parents are made where they are missing. A model that is there already is
        replaced as a whole, and stays where that fails.

    Returns
    -------
    str
        `path`.

    Raises
    ------
    InputError
        A parameter cannot be written without code (a function, a class, a RandomState), the
        message says which; `model` is nothing that skcxr can save; or `path` is a file, a symbolic
        link, or a folder with anything else in it. What is at `path` stays as it is.
    NotFittedError, InvalidParameterError
        `model` is not fitted, or a parameter was set to something that it cannot be.
    MissingDependencyError
        skops is needed and not installed.
    OSError
        The folder cannot be written. What was at `path` stays.

    See Also
    --------
    load_model : The way back.

    Notes
    -----
    `memory` becomes None and of the path in `weights` the name of the file is left, because
    folders are of this computer: to fit again, set `weights` anew. Callbacks that
    ``set_callbacks`` has set are left out. The optimiser's state and the single batches in
    `history_` are not kept. A process that is killed while it replaces a model may leave the old
    one beside it as ``.skcxr-*.old``.

    Models of trees (RandomForestClassifier, HistGradientBoostingClassifier) are refused in
    pipelines: scikit-learn does not check the numbers in a tree, and a forged file could crash
    the process that predicts with it.

    Examples
    --------
    >>> import os, tempfile
    >>> from skcxr import CXRClassifier, load_model, make_cxr_phantoms, save_model
    >>> phantoms = make_cxr_phantoms(8, n_classes=2, image_size=32, random_state=0)
    >>> clf = CXRClassifier(max_epochs=2, random_state=0).fit(phantoms.data, phantoms.target)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_model(clf, os.path.join(folder, "model"))
    ...     print(sorted(os.listdir(path)))
    ...     again = load_model(path)
    ['config.json', 'model.safetensors']
    >>> bool((again.predict_proba(phantoms.data) == clf.predict_proba(phantoms.data)).all())
    True
    """
    given = _name(path)
    if not isinstance(model, BaseEstimator):
        what = model.__name__ if isinstance(model, type) else type(model).__name__
        raise InputError(f"{what} is no CXRClassifier and no estimator with one inside: use skops")
    check_is_fitted(model)
    check_free(given)
    alone = isinstance(model, Ours)
    config, files = _describe(model, WEIGHTS) if alone else _describe_parts(model)
    libraries = ("numpy", "safetensors", "scikit-learn", "skorch", "torch")
    config = {
        "format": "skcxr",
        "format_version": FORMAT_VERSION,
        "kind": "pipeline",
        "note": "For research only: not a medical device, not for decisions about patients.",
        "versions": {
            "skcxr": __version__,
            "python": platform.python_version(),
            **{library: version(library) for library in libraries},
        },
        **config,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    files[CONFIG] = text.encode("utf-8", "surrogatepass")
    if len(files[CONFIG]) > MOST_CONFIG:
        raise InputError(f"labels and history take more than {MOST_CONFIG:,} bytes as text")
    put_files(files, os.path.abspath(given))
    return given


def load_model(path: str | os.PathLike[str]) -> Any:
    """Load a model that `save_model` has saved. Nothing in the folder is run.

    Parameters
    ----------
    path : str or os.PathLike
        The folder.

    Returns
    -------
    CXRClassifier, CXRFeatures or scikit-learn estimator
        The fitted model. On the same kind of machine it gives the same probabilities to the bit.

    Raises
    ------
    ModelFileError
        There is no model, it is damaged or incomplete, it comes from a newer version, or it is
        none that skcxr has written; the message says which.
    MissingDependencyError
        It is a pipeline or an ensemble, and skops is not installed.

    Warns
    -----
    SkcxrWarning
        A pipeline or an ensemble comes from another version of scikit-learn.

    See Also
    --------
    save_model : The way there.

    Notes
    -----
    A model that was fitted on a GPU is loaded to the CPU where there is none; `device_` says
    where it is. ``fit`` with ``warm_start=True`` goes on from the weights; ``partial_fit`` goes
    on too, with a fresh optimiser.

    The checksums find damage, not forgery: who can change the weights can change the sums. A
    forged folder runs no code, but its model may predict anything.

    Examples
    --------
    >>> from skcxr import ModelFileError, load_model
    >>> try:
    ...     load_model("no-such-model")
    ... except ModelFileError as error:
    ...     print(error)
    cannot load the model 'no-such-model': there is no such folder
    """
    given = _name(path)
    try:
        config = read_config(given)
        if config.get("kind") == "pipeline":
            return _load_parts(given, config)
        require("settings" in config, f"{CONFIG} has no 'settings'")
        return _rebuild(given, config, WEIGHTS)
    except (ModelFileError, MissingDependencyError, Warning):
        raise
    except ContentError as error:
        raise ModelFileError(given, str(error)) from error
    except Exception as error:  # whatever a broken or forged file leads to
        reason = f"its content cannot be used: {type(error).__name__}: {error}"
        raise ModelFileError(given, reason) from error


def _name(path: Any) -> str:
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"path={path!r} is not the name of a folder")
    return name


# --------------------------------------------------------------------------------------------
# one classifier: what can be read, and weights
# --------------------------------------------------------------------------------------------


def _describe(model: Any, name: str) -> tuple[dict[str, Any], Files]:
    """Entry of an estimator of ours in ``config.json``, and its weights if it is fitted."""
    kind = type(model).__name__
    if type(model) is not _KINDS.get(kind, (None,))[0]:
        raise InputError(f"{kind} is a subclass, which load_model does not know")
    model._validate_params()
    params = model.get_params(deep=False)
    params["memory"] = None  # a folder of this computer
    if params["weights"] is not None and looks_like_file(params["weights"]):
        params["weights"] = os.path.basename(params["weights"])  # its folder is of this computer
    entry: dict[str, Any] = {"kind": kind}
    entry["parameters"] = {key: encode(value, key) for key, value in params.items()}
    if "_metadata_request" in vars(model):  # by set_fit_request and its like
        routing = model.get_metadata_routing()
        requests = {method: getattr(routing, method, None) for method in _REQUESTING}
        entry["requests"] = {
            m: dict(request.requests) for m, request in requests.items() if request
        }
    if not model.__sklearn_is_fitted__():
        return entry, {}
    settings = model._settings
    policy = getattr(settings, "augmentation", None)
    if callable(policy) and not isinstance(policy, CXRAugmentation):
        # only training uses it, and it may be set to a name now
        now = None if model.augmentation == "auto" else model.augmentation
        settings = replace(settings, augmentation=now)
    entry["settings"] = {
        field.name: encode(getattr(settings, field.name), f"{field.name}_")
        for field in fields(settings)
    }
    n_outputs = _FROZEN_OUTPUTS
    if isinstance(model, CXRClassifier):
        labels = "findings" if settings.multi_label else "classes"
        names = getattr(model, f"{labels}_")
        n_outputs = len(names)
        entry[labels] = encode_labels(names, f"{labels}_")
        epochs = [{**epoch, "batches": []} for epoch in model.history_]
        entry["history"] = encode(epochs, "history_")
    if hasattr(model, "n_features_in_"):
        entry["n_features_in_"] = int(model.n_features_in_)
    if hasattr(model, "feature_names_in_"):
        entry["feature_names_in_"] = encode_labels(model.feature_names_in_, "feature_names_in_")
    if model.weights_ is not None:
        entry["weights_"] = model.weights_
    state = model.module_.state_dict()
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    difference = _difference(state, model, settings, n_outputs)
    if difference:
        raise InputError(
            f"the fitted network is not what the parameters describe ({difference}); if they were "
            "changed after fit, set them back or fit again"
        )
    content = safetensors.torch.save(state, {"format": "pt"})
    entry["weights"] = record_of(name, content)
    return entry, {name: content}


def _rebuild(folder: str, entry: dict[str, Any], name: str) -> Any:
    """Make the estimator of an entry, as `fit` leaves one."""
    kind = part(entry, "kind", str)
    require(kind in _KINDS, f"its kind {kind!r} is unknown")
    params = {key: decode(value) for key, value in part(entry, "parameters", dict).items()}
    params["memory"] = None
    model = _KINDS[kind][0]()
    unknown = sorted(params.keys() - model.get_params(deep=False).keys())
    require(not unknown, f"its parameters {unknown} are unknown")
    model.set_params(**params)
    model._validate_params()
    with sklearn.config_context(enable_metadata_routing=True):
        for method, requests in entry.get("requests", {}).items():
            require(method in _REQUESTING, f"its method {method!r} is unknown")
            getattr(model, f"set_{method}_request")(**requests)
    if "settings" not in entry:
        return model
    settings = _decode_settings(part(entry, "settings", dict), _KINDS[kind][1])
    n_outputs = _FROZEN_OUTPUTS
    if isinstance(settings, Settings):
        names = decode_labels(entry, "findings" if settings.multi_label else "classes")
        n_outputs = len(names)
        history = [decode(epoch) for epoch in part(entry, "history", list)]
        known = all(isinstance(epoch, dict) for epoch in history)
        require(known, "its history is no list of dicts")
    content = read_recorded(folder, name, entry.get("weights"))
    try:
        state = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ContentError(f"{name} is no safetensors file: {error}") from error
    difference = _difference(state, model, settings, n_outputs)
    require(not difference, f"{name} does not fit the network: {difference}")
    with one_at_a_time(), own_randomness(0, settings.device):
        built = _build(model, settings, n_outputs)
    module = built.module_ if isinstance(settings, Settings) else built
    module.load_state_dict(state)  # into what is there: the layout in memory stays
    if "weights_" in entry:
        module.weights_info = part(entry, "weights_", str)
    n_features = entry.get("n_features_in_")
    if settings.of_rows or n_features is not None:
        wanted = math.prod(settings.image_size)
        require(n_features == wanted, f"n_features_in_={n_features!r} is not {wanted}")
        model.n_features_in_ = wanted
    if "feature_names_in_" in entry:
        model.feature_names_in_ = decode_labels(entry, "feature_names_in_")
        n_names = len(model.feature_names_in_)
        require(n_names == n_features, f"{n_names} feature_names_in_ are not {n_features}")
    if isinstance(settings, Settings):
        built.history = History(history)
        built.forget_training()
        model._keep(built, settings, names)
    else:
        module = module.to(settings.device).eval().requires_grad_(False)
        model._become(FrozenNetwork(module, str(settings.backbone)), settings)
    return model


_FROZEN_OUTPUTS = 2  # of the head that CXRFeatures does not use


def _build(model: Any, settings: Any, n_outputs: int) -> Any:
    """The net or network that `model` would build, its weights not loaded."""
    if isinstance(settings, Settings):
        return build_net(model, settings, n_outputs, 0, load=False)
    return draw_network(
        settings.backbone,
        num_classes=n_outputs,
        image_size=settings.image_size,
        pixels=settings.pixels,
        dtype=settings.torch_dtype,
    )


def _difference(
    state: dict[str, torch.Tensor], model: Any, settings: Any, n_outputs: int
) -> str | None:
    """Say where weights do not fit the network that `model` would build, or are no numbers."""
    # without memory: what a file describes may be of any size; torchvision's RegNets, whose
    # sizes their names settle, cannot be built so
    device = "cpu" if str(settings.backbone).startswith("regnet_") else "meta"
    asked = [key for key in getattr(model, "net_params", None) or {} if key.startswith("module__")]
    if device == "cpu" and set(asked) - {"module__dropout"}:
        return f"{settings.backbone} with {asked[0]}= is not saved"
    with one_at_a_time(), own_randomness(0, "cpu"), torch.device(device):
        built = _build(model, replace(settings, device=device), n_outputs)
    module = built.module_ if isinstance(settings, Settings) else built
    wanted = module.state_dict()
    for key in sorted(state.keys() | wanted.keys()):
        found, right = (
            f"{tensors[key].dtype} {tuple(tensors[key].shape)}" if key in tensors else "absent"
            for tensors in (state, wanted)
        )
        if found != right:
            return f"{key!r} is {found} and should be {right}"
        if not state[key].isfinite().all():
            return f"{key!r} holds NaN or infinity"
    return None


def _decode_settings(saved: dict[str, Any], kind: type[InputSettings]) -> InputSettings:
    """Settings, each of its type, with the device that this machine has."""
    hints = get_type_hints(kind)
    values = {key: decode(value) for key, value in saved.items()}
    for key in sorted(hints.keys() | values.keys()):
        require(key in hints and key in values, f"its setting {key!r} is unknown or missing")
        require(_is_a(hints[key], values[key]), f"its setting {key}={values[key]!r} cannot be")
    settings = kind(**values)
    require(settings.dtype in DTYPES, f"its setting dtype={settings.dtype!r} is unknown")
    window = settings.interpolation
    require(window in INTERPOLATIONS, f"its setting interpolation={window!r} is unknown")
    # for less, layers of CXRFeatures are tried and networks of other libraries built
    unlimited = kind is Settings and settings.backbone in list_backbones("own")
    known = unlimited or math.prod(settings.image_size) <= _MOST_PIXELS
    require(known, f"its image_size={settings.image_size} is huge")
    policy = getattr(settings, "augmentation", None)
    known = policy in (None, "cxr") or type(policy) is CXRAugmentation
    require(known, f"its setting augmentation={policy!r} is unknown")
    return replace(settings, device=device_here(settings.device))


def _is_a(hint: Any, value: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_is_a(each, value) for each in get_args(hint))
    if get_origin(hint) is tuple:
        inside = get_args(hint)
        return type(value) is tuple and len(value) == len(inside) and all(map(_is_a, inside, value))
    if type(value) is CXRAugmentation:
        return Callable[[torch.Tensor], torch.Tensor] == hint
    if hint is int:  # all of them count something
        return type(value) is int and 0 < value < 2**31
    return type(value) in ((int, float) if hint is float else (hint,))


# --------------------------------------------------------------------------------------------
# pipelines and ensembles: skops for scikit-learn's part, placeholders for ours
# --------------------------------------------------------------------------------------------

_REQUESTING = ("fit", "partial_fit", "score")  # methods to which metadata can be routed
_OF_SKLEARN = {  # what its estimators hold inside; none of it runs what a file gives it
    "calibration": ("_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling"),
    "feature_selection._univariate_selection": ("f_classif",),
    "metrics._scorer": ("_CurveScorer", "_MultimetricScorer", "_PassthroughScorer", "_Scorer"),
    "neural_network._stochastic_optimizers": ("AdamOptimizer", "SGDOptimizer"),
    "utils._bunch": ("Bunch",),
    "utils._metadata_requests": ("MetadataRequest", "MethodMetadataRequest"),
}
_OURS = (ImageLoader, PatientKFold, _MaskedScorer, target_sensitivity)  # hold no code
_loaded: ContextVar[list[Ours] | None] = ContextVar("_loaded", default=None)


class _Saved:
    """Stands in a skops file for an estimator of ours by its number; loading makes it that one."""

    index: int

    def __new__(cls, index: int) -> Any:
        models = _loaded.get()
        if models is not None:
            require(type(index) is int and 0 <= index < len(models), f"it has no net {index!r}")
            return models[index]
        self = super().__new__(cls)
        self.index = index
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _Saved, (self.index,)


class _Copier(pickle.Pickler):
    """Copies an estimator within this process, with a `_Saved` for each of ours."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.taken: list[Ours] = []
        self.n_loaders = 0

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Ours):
            self.taken.append(obj)
            return _Saved, (len(self.taken) - 1,)
        if not isinstance(obj, BaseEstimator):
            return NotImplemented
        self.n_loaders += isinstance(obj, ImageLoader)
        obj = copy.copy(obj)
        vars(obj).pop("_skl_callbacks", None)
        if getattr(obj, "memory", None) is not None:
            obj.memory = None
        return obj.__reduce_ex__(5)


def _untrusted(content: bytes) -> tuple[list[str], str]:
    """What skops may make beside what it trusts by itself, and what it may not, as text."""
    names = [f"sklearn.{room}.{name}" for room, inside in _OF_SKLEARN.items() for name in inside]
    found = [x for name, x in vars(sklearn.metrics).items() if name.endswith(("_score", "_loss"))]
    splits = vars(sklearn.model_selection).values()
    found += [x for x in splits if isinstance(x, type) and x.__module__.endswith("._split")]
    names += [f"{x.__module__}.{x.__name__}" for x in (_Saved, *_OURS, *found)]
    skops = import_optional("skops.io", "skops")
    return names, ", ".join(sorted(set(skops.get_untrusted_types(data=content)) - set(names)))


def _describe_parts(model: Any) -> tuple[dict[str, Any], Files]:
    skops = import_optional("skops.io", "skops")
    what = type(model).__name__
    buffer = io.BytesIO()
    copier = _Copier(buffer)
    try:
        copier.dump(model)
        content = skops.dumps(pickle.loads(buffer.getvalue()))
    except (pickle.PicklingError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} cannot be saved without code: {error}; {WAY_OUT}") from error
    if not copier.taken and not copier.n_loaders:
        raise InputError(f"{what} holds no estimator of skcxr: save it with skops.io.dump")
    _, untrusted = _untrusted(content)
    if untrusted:
        raise InputError(f"{what} holds {untrusted}, which load_model would not trust; {WAY_OUT}")
    files = {PARTS: content}
    entries = []
    for index, inside in enumerate(copier.taken):
        entry, weights = _describe(inside, f"net_{index}.safetensors")
        entries.append(entry)
        files |= weights
    return {"estimator": record_of(PARTS, content), "classifiers": entries}, files


def _load_parts(folder: str, config: dict[str, Any]) -> Any:
    skops = import_optional("skops.io", "skops")
    content = read_recorded(folder, PARTS, config.get("estimator"))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        packed = any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist())
    require(not packed, f"{PARTS} is compressed, as save_model never does and bombs are")
    trusted, untrusted = _untrusted(content)
    require(not untrusted, f"{PARTS} holds {untrusted}, which is not trusted")
    entries = enumerate(part(config, "classifiers", list))
    token = _loaded.set([_rebuild(folder, e, f"net_{i}.safetensors") for i, e in entries])
    saved = part(config, "versions", dict).get("scikit-learn")
    try:
        with warnings.catch_warnings():
            if saved != sklearn.__version__:  # said once below, not for each estimator
                warnings.simplefilter("ignore", InconsistentVersionWarning)
            model = skops.loads(content, trusted=trusted)
    finally:
        _loaded.reset(token)
    require(isinstance(model, BaseEstimator), f"{PARTS} holds no estimator")
    if saved != sklearn.__version__:
        message = (
            f"the model {folder!r} was saved with scikit-learn {saved} and is loaded with "
            f"{sklearn.__version__}: scikit-learn's part of it may fail or give other results"
        )
        warnings.warn(message, SkcxrWarning, stacklevel=3)
    return model
