"""Numbers and words of a saved model as JSON, and its files, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import math
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from skcxr._exceptions import InputError
from skcxr._files import sync_folder
from skcxr.augmentation import CXRAugmentation

FORMAT_VERSION = 1  # raise it where an older skcxr could not read a folder
CONFIG, WEIGHTS, PARTS = "config.json", "model.safetensors", "estimator.skops"
MOST_CONFIG = 4_000_000  # bytes
WAY_OUT = (
    "set it to a name or None with set_params before saving, or keep the model for yourself with "
    "joblib.dump, whose files run code when they are loaded"
)

Files = dict[str, bytes]  # name in the folder -> content

_FINAL = re.compile(r"config\.json|model\.safetensors|estimator\.skops|net_\d+\.safetensors")
# of a save that is under way, or was killed
_UNDER_WAY = re.compile(
    r"(model|estimator|net_\d+)\.[0-9a-f]{16}\.(safetensors|skops)|\.skcxr-[0-9a-f]{32}\.part"
)
_fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None
_PATIENCE = 60.0  # seconds for which a save waits for another one


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
        try:
            return _TAGS[tag](value[tag])
        except (ContentError, RecursionError):
            raise
        except Exception as error:  # whatever constructors make of anything
            raise ContentError(f"{CONFIG} has a {tag!r} that cannot be used: {error}") from error
    return {key: decode(item) for key, item in value.items()}


def encode_labels(labels: np.ndarray[Any, Any], where: str) -> dict[str, Any]:
    if labels.dtype.kind not in "biufUO":
        raise InputError(
            f"{where} of dtype {labels.dtype} cannot be saved; fit on str, int or bool"
        )
    return {"dtype": labels.dtype.str, "values": encode(labels.tolist(), where)}


def decode_labels(entry: dict[str, Any], key: str) -> np.ndarray[Any, Any]:
    saved = part(entry, key, dict)
    values, name = decode(part(saved, "values", list)), part(saved, "dtype", str)
    try:
        dtype = np.dtype(name)
        known = dtype.kind in "biufUO" and dtype.itemsize * len(values) <= MOST_CONFIG
        require(known, f"{key} cannot be of dtype {dtype}")
        labels = np.array(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ContentError(f"{key} of dtype {name!r} cannot be used: {error}") from error
    require(labels.ndim == 1 and labels.tolist() == values, f"{key} are no labels of {dtype}")
    return labels


def part(entry: Any, key: str, kind: type) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    require(type(value) is kind, f"{CONFIG} has no {key!r} that is a {kind.__name__}")
    return value


# --------------------------------------------------------------------------------------------
# files: read with suspicion
# --------------------------------------------------------------------------------------------

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _check_kind(status: os.stat_result, name: str) -> None:
    for is_kind, kind in _KINDS:
        require(not is_kind(status.st_mode), f"{name} is {kind}, not a file")


def read_file(folder: str, name: str, size: int | None = None) -> bytes:
    """The content of a file of `size` bytes, or of a configuration.

    A pipe or a device is never opened, and no more than the size is read of a file that grows.
    """
    file = os.path.join(folder, name)
    # a file that was exchanged for a link or a pipe since it was looked at
    flags = sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    try:
        _check_kind(os.lstat(file), name)
        with open(os.open(file, os.O_RDONLY | flags), "rb") as stream:
            status = os.fstat(stream.fileno())
            _check_kind(status, name)
            n_bytes = status.st_size
            if size is None:
                require(n_bytes <= MOST_CONFIG, f"{name} has {n_bytes:,} bytes, which is too much")
            elif n_bytes != size:
                harm = "was cut off" if n_bytes < size else "has something added to it"
                raise ContentError(
                    f"{name} has {n_bytes:,} bytes and should have {size:,}: it {harm}"
                )
            content = stream.read(n_bytes + 1)
            require(len(content) == n_bytes, f"{name} changes while it is read; try again")
            return content
    except FileNotFoundError as error:
        raise ContentError(f"{name} is missing") from error
    except OSError as error:
        raise ContentError(f"{name} cannot be read: {error.strerror or error}") from error


def read_config(folder: str) -> bytes:
    """The text of the configuration in a folder."""
    try:
        status = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ContentError("there is no such folder") from error
    except OSError as error:
        raise ContentError(f"the folder cannot be read: {error.strerror or error}") from error
    no_folder = "it is no folder; give the one that save_model has made"
    require(stat.S_ISDIR(status.st_mode), no_folder)
    return read_file(folder, CONFIG)


def parse_config(text: bytes) -> dict[str, Any]:
    """What a configuration says, if it is one of ours."""
    config = parse_json(text, CONFIG)
    ours = isinstance(config, dict) and config.get("format") == "skcxr"
    require(ours, f"{CONFIG} is not of save_model")
    number = part(config, "format_version", int)
    require(number > 0, f"{CONFIG} has the format {number}, which there never was")
    newer = (
        f"it was written by a newer skcxr (format {number}); this one reads up to {FORMAT_VERSION}"
    )
    require(number <= FORMAT_VERSION, newer)
    return config


def parse_json(text: bytes, name: str) -> Any:
    """JSON as the standard has it, with each key once."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in found if keys.count(key) > 1)
            raise ContentError(f"{name} has the key {twice!r} twice in one place")
        return found

    def finite(number: str) -> float:
        value = float(number)
        require(math.isfinite(value), f"{name} has the number {number[:40]}, which is too large")
        return value

    def whole(number: str) -> int:
        require(len(number) <= 20, f"{name} has the number {number[:20]}..., which is too large")
        return int(number)

    def refuse(number: str) -> float:
        raise ContentError(f"{name} is no JSON: it has the number {number}")

    try:
        return json.loads(
            text.decode("utf-8", "surrogatepass"),
            object_pairs_hook=unique, parse_int=whole, parse_float=finite, parse_constant=refuse,
        )  # fmt: skip
    except RecursionError as error:
        raise ContentError(f"{name} is no JSON of ours: it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ContentError(f"{name} is no JSON: it is no text in UTF-8") from error
    except ValueError as error:
        raise ContentError(f"{name} is no JSON: {error}") from error


def record_of(name: str, content: bytes) -> dict[str, Any]:
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def read_recorded(folder: str, name: str, record: Any) -> bytes:
    """The content of a file that the configuration tells of, wherever a save has got to."""
    size, digest = part(record, "size", int), part(record, "sha256", str)
    known = record.get("file") == name and re.fullmatch("[0-9a-f]{64}", digest) and size >= 0
    require(known, f"{CONFIG} has no sha256, size and name of {name}")
    harm = None
    for each in (name, _under_way(name, digest)):
        try:
            content = read_file(folder, each, size)
        except ContentError as error:
            harm = harm or error
            continue
        if hashlib.sha256(content).hexdigest() == digest:
            return content
        harm = harm or ContentError(
            f"{name} is damaged or exchanged: its sha256 is not that of {CONFIG}"
        )
    assert harm is not None
    raise harm


# --------------------------------------------------------------------------------------------
# files: written together or not at all
# --------------------------------------------------------------------------------------------


def _under_way(name: str, digest: str) -> str:
    """Name of a new file beside the one that it will replace."""
    stem, ending = os.path.splitext(name)
    return f"{stem}.{digest[:16]}{ending}"


def check_free(path: str) -> None:
    """There is nothing at `path`, or what may be replaced."""
    path = os.path.abspath(path)  # "link/" would be what the link names
    if not os.path.lexists(path):
        return
    if os.path.islink(path) or not os.path.isdir(path):
        raise InputError(f"path={path!r} is a file or a symbolic link; give the name of a folder")
    names = os.listdir(path)
    others = sorted(n for n in names if not _FINAL.fullmatch(n) and not _UNDER_WAY.fullmatch(n))
    try:
        require(not others, f"it holds {others[:3]}")
        if names:
            parse_config(read_config(path))
    except ContentError as error:
        raise InputError(
            f"path={path!r} is a folder, but no saved model that may be replaced ({error}); give "
            "the name of a new one"
        ) from error


def put_files(files: Files, path: str) -> None:
    """Put a folder of files at `path` as one, or in place of those of the model that is there."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.isdir(path):
        try:
            _make_folder(files, path)
            return
        except OSError:
            if not os.path.isdir(path):  # nobody else has made it meanwhile
                raise
            check_free(path)
    with _held(path):
        _exchange(files, path)


def _make_folder(files: Files, path: str) -> None:
    new = os.path.join(os.path.dirname(path), f".skcxr-{uuid.uuid4().hex}.new")
    try:
        os.mkdir(new)
        for name, content in files.items():
            _write(os.path.join(new, name), content)
        os.rename(new, path)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    sync_folder(os.path.dirname(path))


def _exchange(files: Files, path: str) -> None:
    """Replace a model in its folder, the configuration at one moment between old and new.

    Before that moment the new files stand beside the old ones under names with their sha256,
    after it they take their places; `read_recorded` knows both.
    """
    made = []
    moves = {}
    try:
        for name, content in files.items():
            if name != CONFIG:
                digest = hashlib.sha256(content).hexdigest()
                moves[name] = os.path.join(path, _under_way(name, digest))
                if not os.path.lexists(moves[name]):  # or the model that is there may need it
                    made.append(moves[name])
                _replace(moves[name], content)
        sync_folder(path)
        _replace(os.path.join(path, CONFIG), files[CONFIG])
    except BaseException:
        with contextlib.suppress(OSError, ContentError):
            if read_config(path) != files[CONFIG]:  # an interrupt may come just after
                for file in made:
                    os.unlink(file)
        raise
    sync_folder(path)
    with contextlib.suppress(OSError):  # the new model is there and whole
        for name, file in moves.items():
            os.replace(file, os.path.join(path, name))
        for name in set(os.listdir(path)) - files.keys():
            if _FINAL.fullmatch(name) or _UNDER_WAY.fullmatch(name):
                os.unlink(os.path.join(path, name))


def _replace(file: str, content: bytes) -> None:
    draft = os.path.join(os.path.dirname(file), f".skcxr-{uuid.uuid4().hex}.part")
    try:
        _write(draft, content)
        os.replace(draft, file)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def _write(file: str, content: bytes) -> None:
    with open(file, "xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def _held(folder: str) -> Iterator[None]:
    """Hold a folder against other saves; the system lets go when the process dies."""
    if _fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise OSError(
                        error.errno, "another process is saving a model there", folder
                    ) from error
                time.sleep(0.05)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(descriptor)
