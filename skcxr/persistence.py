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
import inspect
import io
import json
import os
import pickle
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any

import numpy as np
import sklearn
import sklearn.metrics
import sklearn.model_selection
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.validation import check_is_fitted

from skcxr import __version__
from skcxr._archives import check_archive
from skcxr._exceptions import InputError, MissingDependencyError, ModelFileError, SkcxrWarning
from skcxr._model_entries import Ours, describe, rebuild
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
    parse_config,
    part,
    put_files,
    read_config,
    read_file,
    read_recorded,
    record_of,
    require,
)
from skcxr._optional import import_optional
from skcxr.metrics import target_sensitivity
from skcxr.metrics._labelled import _MaskedScorer
from skcxr.model_selection import PatientKFold
from skcxr.outliers import OutlierGate
from skcxr.preprocessing import ImageLoader

__all__ = ["load_model", "save_model"]

_MOST_PARTS = 2_000  # estimators of ours in a pipeline
_TRIES = 5  # at a model that is saved meanwhile
_MOST_REASON = 600  # characters


def save_model(model: Any, path: str | os.PathLike[str]) -> str:
    """Save a fitted model as a folder from which `load_model` makes it again.

    Parameters
    ----------
    model : CXRClassifier, CXRFeatures or scikit-learn estimator
        A fitted :class:`skcxr.CXRClassifier` or :class:`skcxr.CXRFeatures`; or a fitted
        :class:`skcxr.outliers.OutlierGate`, Pipeline, VotingClassifier, StackingClassifier,
        CalibratedClassifierCV, GridSearchCV, ... of these, :class:`skcxr.ImageLoader` and
        scikit-learn's own estimators, for which the extra ``skcxr[skops]`` is needed.
    path : str or os.PathLike
        The folder. Its parents are made where they are missing. A model that is there already is
        replaced at one moment, and stays where that fails: who loads it, or finds it after a
        process was killed, gets the old or the new one.

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
        The folder cannot be written, or another process goes on saving to it for a minute. What
        was at `path` stays.

    See Also
    --------
    load_model : The way back.

    Notes
    -----
    `memory` and `checkpoint` become None and of the path in `weights` the name of the file is
    left, because folders are of this computer: to fit again, set `weights` anew. Callbacks that
    ``set_callbacks`` has set are left out. The optimiser's state and the single batches in
    `history_` are not kept.

    A process that is killed while it saves may leave files behind: within the folder, where the
    next save removes them, or beside a new one as ``.skcxr-*.new``, which may be deleted.

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
    try:
        config, files = describe(model, WEIGHTS) if alone else _describe_parts(model)
    except ContentError as error:  # load_model would say so
        raise InputError(f"{type(model).__name__} cannot be saved: {error}") from error
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
        none that skcxr has written; the message says which, and of which file.
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
    for _ in range(_TRIES):
        save = _save_of(given)
        try:
            return _load(given, parse_config(read_config(given)))
        except (ModelFileError, MissingDependencyError, SkcxrWarning):
            raise
        except Exception as error:  # whatever a broken or forged file leads to
            if save == _save_of(given):
                raise ModelFileError(given, _reason(error)) from error
    raise ModelFileError(given, "it is changed while it is read; try again")


def _load(folder: str, config: dict[str, Any]) -> Any:
    if config.get("kind") == "pipeline":
        return _load_parts(folder, config)
    require("settings" in config, f"{CONFIG} has no 'settings'")
    return rebuild(folder, config, WEIGHTS)


def _save_of(folder: str) -> tuple[Any, ...] | None:
    """What tells one save into a folder from the next, even of the same model."""
    try:
        status = os.lstat(os.path.join(folder, CONFIG))
        content = read_file(folder, CONFIG)  # saves in one tick of the clock may share an inode
    except (OSError, ContentError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, content


def _reason(error: Exception) -> str:
    """What is wrong, on a line that a terminal can show."""
    said = str(error)
    if isinstance(error, RecursionError):
        said = "its content is nested too deeply"
    elif isinstance(error, InputError | InvalidParameterError):
        said = f"{CONFIG} says what cannot be: {said}"
    elif not isinstance(error, ContentError):
        said = f"its content cannot be used: {type(error).__name__}: {said}"
    short = said if len(said) <= _MOST_REASON else f"{said[:_MOST_REASON]} ..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in short)


def _name(path: Any) -> str:
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    known = isinstance(name, str) and name and "\0" not in name
    with suppress(UnicodeEncodeError):
        if known and os.fsencode(str(name)):
            return str(name)
    raise InputError(f"path={path!r} is not the name of a folder")


# --------------------------------------------------------------------------------------------
# pipelines and ensembles: skops for scikit-learn's part, placeholders for ours
# --------------------------------------------------------------------------------------------

_OF_SKLEARN = {  # what its estimators hold inside; none of it runs what a file gives it
    "calibration": ("_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling"),
    "feature_selection._univariate_selection": ("f_classif",),
    "metrics._scorer": ("_CurveScorer", "_MultimetricScorer", "_PassthroughScorer", "_Scorer"),
    "neural_network._stochastic_optimizers": ("AdamOptimizer", "SGDOptimizer"),
    "utils._bunch": ("Bunch",),
    "utils._metadata_requests": ("MetadataRequest", "MethodMetadataRequest"),
}
_HELD = (ImageLoader, OutlierGate)  # of ours, what skops saves; a model of them alone is one
_OURS = (*_HELD, PatientKFold, _MaskedScorer, target_sensitivity)  # hold no code
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
        self.n_held = 0

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Ours):
            self.taken.append(obj)
            return _Saved, (len(self.taken) - 1,)
        if not isinstance(obj, BaseEstimator):
            return NotImplemented
        self.n_held += isinstance(obj, _HELD)
        obj = copy.copy(obj)
        vars(obj).pop("_skl_callbacks", None)
        if getattr(obj, "memory", None) is not None:
            obj.memory = None
        return obj.__reduce_ex__(5)


def _untrusted(content: bytes) -> tuple[list[str], str]:
    """What skops may make of a file beside what it trusts, and what it may not, as text."""
    names = [f"sklearn.{room}.{name}" for room, inside in _OF_SKLEARN.items() for name in inside]
    found = [x for name, x in vars(sklearn.metrics).items() if name.endswith(("_score", "_loss"))]
    splits = vars(sklearn.model_selection).values()
    found += [x for x in splits if isinstance(x, type) and x.__module__.endswith("._split")]
    names += [f"{x.__module__}.{x.__name__}" for x in (_Saved, *_OURS, *found)]
    skops = import_optional("skops.io", "skops")
    wanted = set(skops.get_untrusted_types(data=content))
    return sorted(wanted & set(names)), ", ".join(sorted(wanted - set(names)))


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
    if not copier.taken and not copier.n_held:
        raise InputError(f"{what} holds no estimator of skcxr: save it with skops.io.dump")
    _, untrusted = _untrusted(content)
    if untrusted:
        raise InputError(f"{what} holds {untrusted}, which load_model would not trust; {WAY_OUT}")
    check_archive(content, PARTS)
    require(len(copier.taken) <= _MOST_PARTS, f"it holds more than {_MOST_PARTS:,} estimators")
    files = {PARTS: content}
    entries = []
    for index, inside in enumerate(copier.taken):
        entry, weights = describe(inside, f"net_{index}.safetensors")
        entries.append(entry)
        files |= weights
    return {"estimator": record_of(PARTS, content), "classifiers": entries}, files


def _load_parts(folder: str, config: dict[str, Any]) -> Any:
    skops = import_optional("skops.io", "skops")
    content = read_recorded(folder, PARTS, config.get("estimator"))
    check_archive(content, PARTS)
    with _saying(f"{PARTS} is not as skops writes it"):
        trusted, untrusted = _untrusted(content)
    require(not untrusted, f"{PARTS} holds {untrusted}, which is not trusted")
    entries = part(config, "classifiers", list)
    require(len(entries) <= _MOST_PARTS, f"it holds more than {_MOST_PARTS:,} estimators")
    nets = [rebuild(folder, e, f"net_{i}.safetensors") for i, e in enumerate(entries)]
    saved = part(config, "versions", dict).get("scikit-learn")
    token = _loaded.set(nets)
    try:
        with warnings.catch_warnings():
            if saved != sklearn.__version__:  # said once below, not for each estimator
                warnings.simplefilter("ignore", InconsistentVersionWarning)
            with _saying(f"{PARTS} is not as skops writes it"):
                model = skops.loads(content, trusted=trusted)
                require(isinstance(model, BaseEstimator), f"{PARTS} holds no estimator")
                _check_inside(model)
    finally:
        _loaded.reset(token)
    if saved != sklearn.__version__:
        message = (
            f"the model {folder!r} was saved with scikit-learn {saved} and is loaded with "
            f"{sklearn.__version__}: scikit-learn's part of it may fail or give other results"
        )
        warnings.warn(message, SkcxrWarning, stacklevel=3)
    return model


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """Say of what an error tells; skops and scikit-learn raise what they like."""
    try:
        yield
    except (ContentError, RecursionError, Warning):
        raise
    except Exception as error:
        raise ContentError(f"{what}: {type(error).__name__}: {error}") from error


def _check_inside(model: Any) -> None:
    """Have every estimator in a model whole, and none of them read a folder of its own."""
    seen: dict[int, Any] = {}
    ahead = [model]
    while ahead:
        value = ahead.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, list | tuple | set):
            ahead += value
        elif isinstance(value, dict):
            ahead += value.values()
        elif isinstance(value, np.ndarray) and value.dtype.hasobject:
            ahead += value.ravel().tolist()
        elif isinstance(value, BaseEstimator) and not isinstance(value, Ours):
            _complete(value)
            if getattr(value, "memory", None) is not None:
                value.memory = None  # what lies there may be pickles
            ahead += vars(value).values()
        elif hasattr(value, "__dict__") and not isinstance(value, type | Ours):
            ahead += vars(value).values()
    check_is_fitted(model)


def _complete(estimator: Any) -> None:
    """Set parameters that were not there when the estimator was saved to what they then were."""
    parameters = inspect.signature(type(estimator).__init__).parameters
    for name in set(estimator._get_param_names()) - vars(estimator).keys():
        default = parameters[name].default
        known = default is not inspect.Parameter.empty
        require(known, f"{PARTS} has a {type(estimator).__name__} without its {name!r}")
        setattr(estimator, name, default)
