"""Numbers and words of a saved model as JSON, and its files, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import stat
import uuid
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from skcxr._exceptions import InputError
from skcxr.augmentation import CXRAugmentation

FORMAT_VERSION = 1  # raise it where an older skcxr could not read a folder
CONFIG, WEIGHTS, PARTS = "config.json", "model.safetensors", "estimator.skops"
OURS = re.compile(r"config\.json|model\.safetensors|estimator\.skops|net_\d+\.safetensors")
MOST_CONFIG = 50_000_000  # bytes
WAY_OUT = (
    "set it to a name or None with set_params before saving, or keep the model for yourself with "
    "joblib.dump, whose files run code when they are loaded"
)

Files = dict[str, bytes]  # name in the folder -> content


class ContentError(Exception):
    """What is wrong with a saved model. Internal: it comes out as ModelFileError."""


def require(condition: Any, reason: str) -> None:
    if not condition:
        raise ContentError(reason)


# --------------------------------------------------------------------------------------------
# values as JSON; what it does not have is a dict of one key: a tag and what is inside
# --------------------------------------------------------------------------------------------

_OPTIMIZERS = {
    name: value
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
}
_TAGS: dict[str, Any] = {
    "tuple": lambda inside: tuple(decode(inside)),
    "dict": lambda inside: {decode(key): decode(value) for key, value in inside},
    "float": float,
    "torch.optim": _OPTIMIZERS.__getitem__,
    "CXRAugmentation": lambda inside: CXRAugmentation(**inside),
}


def encode(value: Any, where: str) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    kind = type(value)
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is float:
        return {"float": repr(value)}
    if kind in (list, tuple):
        items = [encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if kind is list else {"tuple": items}
    if kind is dict:
        pairs = [[encode(k, where), encode(v, f"{where}[{k!r}]")] for k, v in value.items()]
        plain = all(type(key) is str for key, _ in pairs) and not (
            len(pairs) == 1 and pairs[0][0] in _TAGS
        )
        return dict(pairs) if plain else {"dict": pairs}
    if kind is type and value in _OPTIMIZERS.values():
        return {"torch.optim": value.__name__}
    if kind is CXRAugmentation:
        return {"CXRAugmentation": asdict(value)}
    raise InputError(f"{where}={value!r} cannot be saved without code; {WAY_OUT}")


def decode(value: Any) -> Any:
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and (tag := next(iter(value))) in _TAGS:
        return _TAGS[tag](value[tag])
    return {key: decode(item) for key, item in value.items()}


def encode_labels(labels: np.ndarray[Any, Any], where: str) -> dict[str, Any]:
    if labels.dtype.kind not in "biufUO":
        raise InputError(
            f"{where} of dtype {labels.dtype} cannot be saved; fit on str, int or bool"
        )
    return {"dtype": labels.dtype.str, "values": encode(labels.tolist(), where)}


def decode_labels(entry: dict[str, Any], key: str) -> np.ndarray[Any, Any]:
    saved = part(entry, key, dict)
    values, dtype = decode(part(saved, "values", list)), np.dtype(part(saved, "dtype", str))
    known = dtype.kind in "biufUO" and dtype.itemsize * len(values) <= MOST_CONFIG
    require(known, f"{key} cannot be of dtype {dtype}")
    labels = np.array(values, dtype=dtype)
    require(labels.ndim == 1 and labels.tolist() == values, f"{key} are no labels of {dtype}")
    return labels


def part(entry: Any, key: str, kind: type) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    require(type(value) is kind, f"{CONFIG} has no {key!r} that is a {kind.__name__}")
    return value


# --------------------------------------------------------------------------------------------
# files: read whole and checked; put in place together or not at all
# --------------------------------------------------------------------------------------------


def read_file(folder: str, name: str) -> bytes:
    file = os.path.join(folder, name)
    try:
        status = os.lstat(file)
        require(stat.S_ISREG(status.st_mode), f"{name} is a link or a folder, not a file")
        if name == CONFIG:
            require(status.st_size <= MOST_CONFIG, f"{name} has {status.st_size:,} bytes")
        with open(file, "rb") as stream:
            return stream.read()
    except FileNotFoundError as error:
        raise ContentError(f"{name} is missing") from error
    except OSError as error:
        raise ContentError(f"{name} cannot be read: {error.strerror or error}") from error


def read_config(folder: str) -> dict[str, Any]:
    require(os.path.lexists(folder), "there is no such folder")
    require(os.path.isdir(folder), "it is no folder; give the one that save_model has made")
    content = read_file(folder, CONFIG)
    try:
        config = json.loads(content.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise ContentError(f"{CONFIG} is no JSON: {error}") from error
    ours = isinstance(config, dict) and config.get("format") == "skcxr"
    require(ours, f"{CONFIG} is not of save_model")
    number = part(config, "format_version", int)
    newer = (
        f"it was written by a newer skcxr (format {number}); this one reads up to {FORMAT_VERSION}"
    )
    require(number <= FORMAT_VERSION, f"it was written {newer}")
    return config


def record_of(name: str, content: bytes) -> dict[str, Any]:
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def read_recorded(folder: str, name: str, record: Any) -> bytes:
    content, size = read_file(folder, name), part(record, "size", int)
    require(len(content) == size, f"{name} has {len(content):,} bytes and should have {size:,}")
    same = record_of(name, content) == record
    require(same, f"{name} is damaged or exchanged: its sha256 is not that of {CONFIG}")
    return content


def check_free(path: str) -> None:
    """There is nothing at `path`, or what may be replaced."""
    path = os.path.abspath(path)  # "link/" would be what the link names
    if not os.path.lexists(path):
        return
    if os.path.islink(path) or not os.path.isdir(path):
        raise InputError(f"path={path!r} is a file or a symbolic link; give the name of a folder")
    names = os.listdir(path)
    others = sorted(name for name in names if not OURS.fullmatch(name))
    try:
        require(not others, f"it holds {others[:3]}")
        if names:
            read_config(path)
    except ContentError as error:
        raise InputError(
            f"path={path!r} is a folder, but no saved model that may be replaced ({error}); give "
            "the name of a new one"
        ) from error


def put_files(files: Files, path: str) -> None:
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
