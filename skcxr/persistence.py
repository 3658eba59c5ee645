"""A fitted model as a folder of numbers and words, and back: no pickle, no code.

``config.json`` holds what can be read: versions, parameters, what fit settled, labels, history.
``model.safetensors`` holds the weights. Pipelines and ensembles have their CXRClassifiers in
``config.json`` and ``net_<i>.safetensors``; the rest of them, scikit-learn's own estimators, is
in ``estimator.skops``. Names of files are fixed, classes come from fixed tables, networks from
:mod:`skcxr.networks`: what a folder says can choose among these and bring nothing of its own.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import os
import pickle
import platform
import re
import shutil
import stat
import types
import uuid
import warnings
import zipfile
from contextvars import ContextVar
from dataclasses import fields, replace
from importlib.metadata import version
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
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
from skcxr._optional import import_optional
from skcxr._settings import DTYPES, Settings, _device
from skcxr.classifier import CXRClassifier
from skcxr.metrics import _MaskedScorer
from skcxr.preprocessing import ImageLoader
from skcxr.training import one_at_a_time, own_randomness

__all__ = ["load_model", "save_model"]

_FORMAT = 1  # raise it where an older skcxr could not read a folder
_CLASSES = {"CXRClassifier": CXRClassifier}
_CONFIG, _WEIGHTS, _PARTS = "config.json", "model.safetensors", "estimator.skops"
_OURS = re.compile(r"config\.json|model\.safetensors|estimator\.skops|net_\d+\.safetensors")
_MOST_CONFIG = 50_000_000  # bytes
_WAY_OUT = (
    "set it to a name or None with set_params before saving, or keep the model for yourself with "
    "joblib.dump, whose files run code when they are loaded"
)

Files = dict[str, bytes]  # name in the folder -> content


def save_model(model: Any, path: str | os.PathLike[str]) -> str:
    """Save a fitted model as a folder from which `load_model` makes it again.

    Parameters
    ----------
    model : CXRClassifier or scikit-learn estimator
        A fitted :class:`skcxr.CXRClassifier`; or a fitted Pipeline, VotingClassifier,
        StackingClassifier, CalibratedClassifierCV, GridSearchCV, ... of it,
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
    `memory` becomes None, because it names a folder of this computer, and callbacks that
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
    alone = isinstance(model, CXRClassifier)
    config, files = _describe(model, _WEIGHTS) if alone else _describe_parts(model)
    libraries = ("numpy", "safetensors", "scikit-learn", "skorch", "torch")
    config = {
        "format": "skcxr",
        "format_version": _FORMAT,
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
    files[_CONFIG] = text.encode("utf-8", "surrogatepass")
    if len(files[_CONFIG]) > _MOST_CONFIG:
        raise InputError(f"labels and history take more than {_MOST_CONFIG:,} bytes as text")
    _put(files, os.path.abspath(given))
    return given


def load_model(path: str | os.PathLike[str]) -> Any:
    """Load a model that `save_model` has saved. Nothing in the folder is run.

    Parameters
    ----------
    path : str or os.PathLike
        The folder.

    Returns
    -------
    CXRClassifier or scikit-learn estimator
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
        config = _read_config(given)
        if config.get("kind") == "pipeline":
            return _load_parts(given, config)
        _require("settings" in config, f"{_CONFIG} has no 'settings'")
        return _rebuild(given, config, _WEIGHTS)
    except (ModelFileError, MissingDependencyError, Warning):
        raise
    except _ContentError as error:
        raise ModelFileError(given, str(error)) from error
    except Exception as error:  # whatever a broken or forged file leads to
        reason = f"its content cannot be used: {type(error).__name__}: {error}"
        raise ModelFileError(given, reason) from error


class _ContentError(Exception):
    """What is wrong with a saved model. Internal: it comes out as ModelFileError."""


def _require(condition: Any, reason: str) -> None:
    if not condition:
        raise _ContentError(reason)


def _name(path: Any) -> str:
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"path={path!r} is not the name of a folder")
    return name


# --------------------------------------------------------------------------------------------
# one classifier: what can be read, and weights
# --------------------------------------------------------------------------------------------


def _describe(model: CXRClassifier, name: str) -> tuple[dict[str, Any], Files]:
    """Entry of a classifier in ``config.json``, and its file of weights if it is fitted."""
    if type(model) is not CXRClassifier:
        raise InputError(f"{type(model).__name__} is a subclass, which load_model does not know")
    model._validate_params()
    params = model.get_params(deep=False)
    params["memory"] = None  # a folder of this computer
    entry: dict[str, Any] = {"kind": "CXRClassifier"}
    entry["parameters"] = {key: _encode(value, key) for key, value in params.items()}
    if "_metadata_request" in vars(model):  # by set_fit_request and its like
        routing = model.get_metadata_routing()
        entry["requests"] = {m: dict(getattr(routing, m).requests) for m in _REQUESTING}
    if not hasattr(model, "net_"):
        return entry, {}
    settings = model._settings
    if callable(settings.augmentation):  # only training uses it, and it may be set to a name now
        now = None if model.augmentation == "auto" else model.augmentation
        settings = replace(settings, augmentation=now)
    entry["settings"] = {
        field.name: _encode(getattr(settings, field.name), f"{field.name}_")
        for field in fields(settings)
    }
    labels = "findings" if settings.multi_label else "classes"
    names = getattr(model, f"{labels}_")
    entry[labels] = _encode_labels(names, f"{labels}_")
    if hasattr(model, "n_features_in_"):
        entry["n_features_in_"] = int(model.n_features_in_)
    if hasattr(model, "feature_names_in_"):
        entry["feature_names_in_"] = _encode_labels(model.feature_names_in_, "feature_names_in_")
    epochs = [{**epoch, "batches": []} for epoch in model.history_]
    entry["history"] = _encode(epochs, "history_")
    state = model.module_.state_dict()
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    difference = _difference(state, model, settings, len(names))
    if difference:
        raise InputError(
            f"the fitted network is not what the parameters describe ({difference}); if they were "
            "changed after fit, set them back or fit again"
        )
    content = safetensors.torch.save(state, {"format": "pt"})
    entry["weights"] = _record(name, content)
    return entry, {name: content}


def _rebuild(folder: str, entry: dict[str, Any], name: str) -> CXRClassifier:
    """Make the classifier of an entry, as `fit` leaves one."""
    kind = _part(entry, "kind", str)
    _require(kind in _CLASSES, f"its kind {kind!r} is unknown")
    params = {key: _decode(value) for key, value in _part(entry, "parameters", dict).items()}
    params["memory"] = None
    model = _CLASSES[kind]()
    unknown = sorted(params.keys() - model.get_params(deep=False).keys())
    _require(not unknown, f"its parameters {unknown} are unknown")
    model.set_params(**params)
    model._validate_params()
    with sklearn.config_context(enable_metadata_routing=True):
        for method, requests in entry.get("requests", {}).items():
            _require(method in _REQUESTING, f"its method {method!r} is unknown")
            getattr(model, f"set_{method}_request")(**requests)
    if "settings" not in entry:
        return model
    settings = _decode_settings(_part(entry, "settings", dict))
    names = _decode_labels(entry, "findings" if settings.multi_label else "classes")
    history = [_decode(epoch) for epoch in _part(entry, "history", list)]
    _require(all(isinstance(epoch, dict) for epoch in history), "its history is no list of dicts")
    content = _read_recorded(folder, name, entry.get("weights"))
    try:
        state = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise _ContentError(f"{name} is no safetensors file: {error}") from error
    difference = _difference(state, model, settings, len(names))
    _require(not difference, f"{name} does not fit the network: {difference}")
    with one_at_a_time(), own_randomness(0, settings.device):
        net = model._build_net(settings, len(names), 0, [], None)
    net.module_.load_state_dict(state)  # into what is there: the layout in memory stays
    net.history = History(history)
    net.forget_training()
    n_features = entry.get("n_features_in_")
    if settings.of_rows or n_features is not None:
        wanted = math.prod(settings.image_size)
        _require(n_features == wanted, f"n_features_in_={n_features!r} is not {wanted}")
        model.n_features_in_ = wanted
    if "feature_names_in_" in entry:
        model.feature_names_in_ = _decode_labels(entry, "feature_names_in_")
        n_names = len(model.feature_names_in_)
        _require(n_names == n_features, f"{n_names} feature_names_in_ are not {n_features}")
    model._keep(net, settings, names)
    return model


def _difference(
    state: dict[str, torch.Tensor], model: CXRClassifier, settings: Settings, n_classes: int
) -> str | None:
    """Say where weights do not fit the network that `model` would build, or are no numbers."""
    # without memory: what a file describes may be of any size
    with one_at_a_time(), own_randomness(0, "cpu"), torch.device("meta"):
        net = model._build_net(replace(settings, device="meta"), n_classes, 0, [], None)
    wanted = net.module_.state_dict()
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


def _decode_settings(saved: dict[str, Any]) -> Settings:
    """Settings, each of its type, with the device that this machine has."""
    hints = get_type_hints(Settings)
    values = {key: _decode(value) for key, value in saved.items()}
    for key in sorted(hints.keys() | values.keys()):
        _require(key in hints and key in values, f"its setting {key!r} is unknown or missing")
        _require(_is_a(hints[key], values[key]), f"its setting {key}={values[key]!r} cannot be")
    settings = Settings(**values)
    _require(settings.dtype in DTYPES, f"its setting dtype={settings.dtype!r} is unknown")
    policy = settings.augmentation
    _require(policy in (None, "cxr"), f"its setting augmentation={policy!r} is unknown")
    try:
        return replace(settings, device=_device(settings.device, settings.dtype))
    except InputError:  # another GPU, or none
        gpu = settings.device.startswith("cuda") and torch.cuda.is_available()
        return replace(settings, device="cuda" if gpu else "cpu")


def _is_a(hint: Any, value: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_is_a(each, value) for each in get_args(hint))
    if get_origin(hint) is tuple:
        inside = get_args(hint)
        return type(value) is tuple and len(value) == len(inside) and all(map(_is_a, inside, value))
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
_loaded: ContextVar[list[CXRClassifier] | None] = ContextVar("_loaded", default=None)


class _Saved:
    """Stands in a skops file for a CXRClassifier by its number; loading makes it that one."""

    index: int

    def __new__(cls, index: int) -> Any:
        models = _loaded.get()
        if models is not None:
            _require(type(index) is int and 0 <= index < len(models), f"it has no net {index!r}")
            return models[index]
        self = super().__new__(cls)
        self.index = index
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _Saved, (self.index,)


class _Copier(pickle.Pickler):
    """Copies an estimator within this process, with a `_Saved` for each CXRClassifier."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.taken: list[CXRClassifier] = []
        self.n_loaders = 0

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, CXRClassifier):
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
    names += [f"{x.__module__}.{x.__name__}" for x in (_Saved, ImageLoader, _MaskedScorer, *found)]
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
        raise InputError(f"{what} cannot be saved without code: {error}; {_WAY_OUT}") from error
    if not copier.taken and not copier.n_loaders:
        raise InputError(f"{what} holds no estimator of skcxr: save it with skops.io.dump")
    _, untrusted = _untrusted(content)
    if untrusted:
        raise InputError(f"{what} holds {untrusted}, which load_model would not trust; {_WAY_OUT}")
    files = {_PARTS: content}
    entries = []
    for index, inside in enumerate(copier.taken):
        entry, weights = _describe(inside, f"net_{index}.safetensors")
        entries.append(entry)
        files |= weights
    return {"estimator": _record(_PARTS, content), "classifiers": entries}, files


def _load_parts(folder: str, config: dict[str, Any]) -> Any:
    skops = import_optional("skops.io", "skops")
    content = _read_recorded(folder, _PARTS, config.get("estimator"))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        packed = any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist())
    _require(not packed, f"{_PARTS} is compressed, as save_model never does and bombs are")
    trusted, untrusted = _untrusted(content)
    _require(not untrusted, f"{_PARTS} holds {untrusted}, which is not trusted")
    entries = enumerate(_part(config, "classifiers", list))
    token = _loaded.set([_rebuild(folder, e, f"net_{i}.safetensors") for i, e in entries])
    saved = _part(config, "versions", dict).get("scikit-learn")
    try:
        with warnings.catch_warnings():
            if saved != sklearn.__version__:  # said once below, not for each estimator
                warnings.simplefilter("ignore", InconsistentVersionWarning)
            model = skops.loads(content, trusted=trusted)
    finally:
        _loaded.reset(token)
    _require(isinstance(model, BaseEstimator), f"{_PARTS} holds no estimator")
    if saved != sklearn.__version__:
        message = (
            f"the model {folder!r} was saved with scikit-learn {saved} and is loaded with "
            f"{sklearn.__version__}: scikit-learn's part of it may fail or give other results"
        )
        warnings.warn(message, SkcxrWarning, stacklevel=3)
    return model


# --------------------------------------------------------------------------------------------
# values as JSON; what it does not have is a dict of one key: a tag and what is inside
# --------------------------------------------------------------------------------------------

_OPTIMIZERS = {
    name: value
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
}
_TAGS: dict[str, Any] = {
    "tuple": lambda inside: tuple(_decode(inside)),
    "dict": lambda inside: {_decode(key): _decode(value) for key, value in inside},
    "float": float,
    "torch.optim": _OPTIMIZERS.__getitem__,
}


def _encode(value: Any, where: str) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    kind = type(value)
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is float:
        return {"float": repr(value)}
    if kind in (list, tuple):
        items = [_encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if kind is list else {"tuple": items}
    if kind is dict:
        pairs = [[_encode(k, where), _encode(v, f"{where}[{k!r}]")] for k, v in value.items()]
        plain = all(type(key) is str for key, _ in pairs) and not (
            len(pairs) == 1 and pairs[0][0] in _TAGS
        )
        return dict(pairs) if plain else {"dict": pairs}
    if kind is type and value in _OPTIMIZERS.values():
        return {"torch.optim": value.__name__}
    raise InputError(f"{where}={value!r} cannot be saved without code; {_WAY_OUT}")


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and (tag := next(iter(value))) in _TAGS:
        return _TAGS[tag](value[tag])
    return {key: _decode(item) for key, item in value.items()}


def _encode_labels(labels: np.ndarray[Any, Any], where: str) -> dict[str, Any]:
    if labels.dtype.kind not in "biufUO":
        raise InputError(
            f"{where} of dtype {labels.dtype} cannot be saved; fit on str, int or bool"
        )
    return {"dtype": labels.dtype.str, "values": _encode(labels.tolist(), where)}


def _decode_labels(entry: dict[str, Any], key: str) -> np.ndarray[Any, Any]:
    saved = _part(entry, key, dict)
    values, dtype = _decode(_part(saved, "values", list)), np.dtype(_part(saved, "dtype", str))
    known = dtype.kind in "biufUO" and dtype.itemsize * len(values) <= _MOST_CONFIG
    _require(known, f"{key} cannot be of dtype {dtype}")
    labels = np.array(values, dtype=dtype)
    _require(labels.ndim == 1 and labels.tolist() == values, f"{key} are no labels of {dtype}")
    return labels


def _part(entry: Any, key: str, kind: type) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    _require(type(value) is kind, f"{_CONFIG} has no {key!r} that is a {kind.__name__}")
    return value


# --------------------------------------------------------------------------------------------
# files: read whole and checked; put in place together or not at all
# --------------------------------------------------------------------------------------------


def _read(folder: str, name: str) -> bytes:
    file = os.path.join(folder, name)
    try:
        status = os.lstat(file)
        _require(stat.S_ISREG(status.st_mode), f"{name} is a link or a folder, not a file")
        if name == _CONFIG:
            _require(status.st_size <= _MOST_CONFIG, f"{name} has {status.st_size:,} bytes")
        with open(file, "rb") as stream:
            return stream.read()
    except FileNotFoundError as error:
        raise _ContentError(f"{name} is missing") from error
    except OSError as error:
        raise _ContentError(f"{name} cannot be read: {error.strerror or error}") from error


def _read_config(folder: str) -> dict[str, Any]:
    _require(os.path.lexists(folder), "there is no such folder")
    _require(os.path.isdir(folder), "it is no folder; give the one that save_model has made")
    content = _read(folder, _CONFIG)
    try:
        config = json.loads(content.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise _ContentError(f"{_CONFIG} is no JSON: {error}") from error
    ours = isinstance(config, dict) and config.get("format") == "skcxr"
    _require(ours, f"{_CONFIG} is not of save_model")
    number = _part(config, "format_version", int)
    newer = f"it was written by a newer skcxr (format {number}); this one reads up to {_FORMAT}"
    _require(number <= _FORMAT, newer)
    return config


def _record(name: str, content: bytes) -> dict[str, Any]:
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _read_recorded(folder: str, name: str, record: Any) -> bytes:
    content, size = _read(folder, name), _part(record, "size", int)
    _require(len(content) == size, f"{name} has {len(content):,} bytes and should have {size:,}")
    same = _record(name, content) == record
    _require(same, f"{name} is damaged or exchanged: its sha256 is not that of {_CONFIG}")
    return content


def check_free(path: str) -> None:
    """There is nothing at `path`, or what may be replaced."""
    path = os.path.abspath(path)  # "link/" would be what the link names
    if not os.path.lexists(path):
        return
    if os.path.islink(path) or not os.path.isdir(path):
        raise InputError(f"path={path!r} is a file or a symbolic link; give the name of a folder")
    names = os.listdir(path)
    others = sorted(name for name in names if not _OURS.fullmatch(name))
    try:
        _require(not others, f"it holds {others[:3]}")
        if names:
            _read_config(path)
    except _ContentError as error:
        raise InputError(
            f"path={path!r} is a folder, but no saved model that may be replaced ({error}); give "
            "the name of a new one"
        ) from error


def _put(files: Files, path: str) -> None:
    """Write a folder whole: beside `path`, then in its place."""
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    new, old = (
        os.path.join(parent, f".skcxr-{uuid.uuid4().hex}.{what}") for what in ("new", "old")
    )
    try:
        os.mkdir(new)
        for name, content in files.items():
            with open(os.path.join(new, name), "xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        try:
            if os.path.lexists(path):
                os.rename(path, old)
            os.rename(new, path)
        except BaseException:
            if os.path.lexists(old) and not os.path.lexists(path):
                os.rename(old, path)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if os.path.lexists(path):
            shutil.rmtree(old, ignore_errors=True)
