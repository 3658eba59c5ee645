"""One estimator of ours as an entry in ``config.json`` and a file of weights, and back."""

from __future__ import annotations

import math
import os
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, Union, get_args, get_origin, get_type_hints

import safetensors.torch
import sklearn
import torch
from skorch.history import History
from torch.nn.modules.module import register_module_parameter_registration_hook

from skcxr._exceptions import InputError
from skcxr._model_files import (
    ContentError,
    Files,
    decode,
    decode_labels,
    encode,
    encode_labels,
    part,
    read_recorded,
    record_of,
    require,
)
from skcxr._nets import build_net
from skcxr._settings import DTYPES, InputSettings, Settings
from skcxr._shipped import shipped_name
from skcxr._weights import looks_like_file
from skcxr.augmentation import CXRAugmentation
from skcxr.classifier import CXRClassifier
from skcxr.features import CXRFeatures, FrozenNetwork
from skcxr.images import INTERPOLATIONS
from skcxr.networks import draw_network, list_backbones
from skcxr.training import device_here, one_at_a_time, own_randomness

Ours = CXRClassifier | CXRFeatures

_KINDS: dict[str, tuple[type[Any], type[InputSettings]]] = {
    "CXRClassifier": (CXRClassifier, Settings),
    "CXRFeatures": (CXRFeatures, InputSettings),
}
# read now: to read them runs them, and nothing is run when a model is loaded
_HINTS = {kind: get_type_hints(kind) for kind in (Settings, InputSettings)}
_MOST_PIXELS = 2048**2  # in an image for which a file may make a network take memory
_MOST_TENSORS = 10_000  # in a network
_REQUESTING = ("fit", "partial_fit", "score")  # methods to which metadata can be routed
_FROZEN_OUTPUTS = 2  # of the head that CXRFeatures does not use


def describe(model: Any, name: str) -> tuple[dict[str, Any], Files]:
    """Entry of an estimator of ours in ``config.json``, and its weights if it is fitted."""
    kind = type(model).__name__
    if type(model) is not _KINDS.get(kind, (None,))[0]:
        raise InputError(f"{kind} is a subclass, which load_model does not know")
    model._validate_params()
    params = _anywhere(model.get_params(deep=False))
    for key in ("checkpoint", "compile"):  # nothing, and unknown to a skcxr that reads this format
        params.pop(key, None)
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
    difference = _difference(state, _network_of(model, settings, n_outputs))
    if difference:
        raise InputError(
            f"the fitted network is not what the parameters describe ({difference}); if they were "
            "changed after fit, set them back or fit again"
        )
    content = safetensors.torch.save(state, {"format": "pt"})
    entry["weights"] = record_of(name, content)
    return entry, {name: content}


def _anywhere(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters without what is of one computer only."""
    nothing = {"memory": None, "checkpoint": None, "compile": False}
    own: dict[str, Any] = {key: value for key, value in nothing.items() if key in params}
    weights = params.get("weights")
    if isinstance(weights, str | os.PathLike) and looks_like_file(weights):
        own["weights"] = os.path.basename(weights) or None
    return {**params, **own}


def rebuild(folder: str, entry: dict[str, Any], name: str) -> Any:
    """Make the estimator of an entry, as `fit` leaves one."""
    kind = part(entry, "kind", str)
    require(kind in _KINDS, f"its kind {kind!r} is unknown")
    params = {key: decode(value) for key, value in part(entry, "parameters", dict).items()}
    model = _KINDS[kind][0]()
    unknown = sorted(params.keys() - model.get_params(deep=False).keys())
    require(not unknown, f"its parameters {unknown} are unknown")
    model.set_params(**params)  # says what cannot be
    model.set_params(**_anywhere(model.get_params(deep=False)))
    model._validate_params()
    with sklearn.config_context(enable_metadata_routing=True):
        requested = part(entry, "requests", dict) if "requests" in entry else {}
        for method, requests in requested.items():
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
    wanted = _network_of(model, settings, n_outputs)
    state = _read_state(folder, name, entry.get("weights"), wanted)
    difference = _difference(state, wanted)
    require(not difference, f"{name} does not fit the network: {difference}")
    with one_at_a_time(), own_randomness(0, settings.device):
        built = _build(model, settings, n_outputs)
    module = built.module_ if isinstance(settings, Settings) else built
    module.load_state_dict(state)  # into what is there: the layout in memory stays
    if "weights_" in entry:
        module.weights_info = part(entry, "weights_", str)
    n_features = entry.get("n_features_in_")
    if settings.of_rows or n_features is not None:
        n_pixels = math.prod(settings.image_size)
        require(n_features == n_pixels, f"n_features_in_={n_features!r} is not {n_pixels}")
        model.n_features_in_ = n_pixels
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


def _build(model: Any, settings: Any, n_outputs: int) -> Any:
    """The net or network that `model` would build, its weights not loaded."""
    if isinstance(settings, Settings):
        return build_net(model, settings, n_outputs, 0, load=False)
    return draw_network(
        settings.backbone,
        num_classes=n_outputs,
        image_size=settings.image_size,
        pixels=settings.pixels,
        weights=shipped_name(model.weights, settings.backbone),
        dtype=settings.torch_dtype,
    )


def _network_of(model: Any, settings: Any, n_outputs: int) -> dict[str, torch.Tensor]:
    """The tensors, without memory, of the network that `model` would build."""
    # torchvision's RegNets, whose sizes their names settle, cannot be built so
    device = "cpu" if str(settings.backbone).startswith("regnet_") else "meta"
    params = getattr(model, "net_params", None) or {}
    require(not params.get("compile"), "net_params asks for compile=, which would run a compiler")
    asked = {key: value for key, value in params.items() if str(key).startswith("module__")}
    if device == "cpu" and set(asked) - {"module__dropout"}:
        raise ContentError(f"{settings.backbone} with {min(asked)}= is not saved")
    if settings.backbone not in list_backbones("own"):
        numbers = list(_numbers(list(asked.values())))
        known = len(numbers) <= 100 and all(abs(number) <= 4096 for number in numbers)
        require(known, f"net_params asks for a network that is huge: {asked}")
    with one_at_a_time(), own_randomness(0, "cpu"), torch.device(device), _of_bounded_size():
        built = _build(model, replace(settings, device=device), n_outputs)
    state: dict[str, torch.Tensor] = (
        built.module_ if isinstance(settings, Settings) else built
    ).state_dict()
    return state


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield value


@contextmanager
def _of_bounded_size() -> Iterator[None]:
    """Stop this thread where it builds a network without end."""
    thread, n_tensors = threading.get_ident(), 0

    def count(*_: Any) -> None:
        nonlocal n_tensors
        if threading.get_ident() == thread:
            n_tensors += 1
            require(n_tensors <= _MOST_TENSORS, "the network that it describes is huge")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _read_state(
    folder: str, name: str, record: Any, wanted: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Weights from a file, if it is not much larger than the network takes."""
    most = sum(t.numel() * t.element_size() + 12 * len(key) + 200 for key, t in wanted.items())
    size = part(record, "size", int)
    fits = size <= most + 10_000
    require(fits, f"{name} does not fit the network: it has {size:,} bytes, and {most:,} are many")
    content = read_recorded(folder, name, record)
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        pickled = content[:1] == b"\x80" or content[:2] == b"PK"
        what = "a pickle, which is not loaded" if pickled else f"no safetensors file: {error}"
        raise ContentError(f"{name} is {what}") from error


def _difference(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> str | None:
    """Say where weights do not fit a network, or are no numbers."""
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
    hints = _HINTS[kind]
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
        return bool(Callable[[torch.Tensor], torch.Tensor] == hint)
    if hint is int:  # all of them count something
        return type(value) is int and 0 < value < 2**31
    return type(value) in ((int, float) if hint is float else (hint,))
