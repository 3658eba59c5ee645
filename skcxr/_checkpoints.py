"""A fit's state in a folder after every epoch, and a fit that goes on from there.

A state is one ``.safetensors`` file with all that the rest of the fit depends on: weights,
optimiser, schedule, random generators, what early stopping has seen, history. Its name has the
sha256 of its content, so a damaged file is known by itself; it is written beside its place and
moved there, so a process that is killed leaves whole states only. The last two are kept. The
header says which fit it is: parameters, images, labels, first weights. Nothing in it is code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import stat
import warnings
from collections.abc import Iterator
from numbers import Integral
from typing import Any, NamedTuple

import joblib
import numpy as np
import safetensors
import safetensors.torch
import skorch
import torch
from filelock import FileLock, Timeout
from skorch.callbacks import Callback

from skcxr import __version__
from skcxr._epochs import EpochBar
from skcxr._exceptions import CheckpointError, InputError, SkcxrWarning
from skcxr._files import sync_folder
from skcxr._model_files import ContentError, decode, encode, require
from skcxr._settings import Settings
from skcxr.training import TrainingNet

_FORMAT = 1
_NAME = re.compile(r"epoch-(\d{5,9})-([0-9a-f]{64})\.safetensors")
_HASH = re.compile(r"[0-9a-f]{64}")
_KEPT = 2
_MOST_BYTES = 1 << 35
_PATIENCE = 5.0  # seconds; readers of images outlive a killed process by some
_TENSOR, _STATE = "__tensor__", "__state_dict__"

# parameters that do not change what a fit comes to; of others, what "auto" became counts
_OF_NO_MATTER = {
    "checkpoint", "memory", "num_workers", "on_error", "ram_limit", "random_state", "tta",
    "verbose", "warm_start",
}  # fmt: skip
_OF_THIS_RUN = {"bar", "checkpoint", "epoch_tasks", "epoch_timer", "print_log"}  # callbacks


class _OtherFormatError(Exception):
    """A state that another skcxr has written: whole, and nothing for this one."""


class Saved(NamedTuple):
    """A state as it was read."""

    epoch: int
    seed: int
    identity: dict[str, str]
    state: Any


class CheckpointFolder:
    """A folder of states, held by one fit at a time.

    Parameters
    ----------
    path : str or os.PathLike
        The folder; it is made if need be.

    Raises
    ------
    InputError
        `path` is no name of a folder.
    CheckpointError
        It cannot be written to, or another process holds it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = os.fspath(path)
        if not isinstance(given, str) or not given:
            raise InputError(f"checkpoint={path!r} is not the name of a folder")
        self.path, self.given = os.path.abspath(given), given
        self.seed = 0
        self.identity: dict[str, str] = {}
        self._damaged: list[str] = []

    @contextlib.contextmanager
    def held(self) -> Iterator[CheckpointFolder]:
        """Hold the folder against other processes; the system lets go when this one dies."""
        with self._spoken("cannot be used"):
            os.makedirs(self.path, exist_ok=True)
            lock = FileLock(os.path.join(self.path, "lock"))
            try:
                lock.acquire(timeout=_PATIENCE, poll_interval=0.1)
            except Timeout:
                lock = None  # type: ignore[assignment]
            except NotImplementedError as error:
                raise self._error("is on a file system that has no locks") from error
        if lock is None:
            raise self._error("is in use by another fit; give each fit a folder of its own")
        try:
            yield self
        finally:
            lock.release()

    def read(self) -> Saved | None:
        """The newest whole state, or None where there is none; of damaged ones it warns."""
        damaged = []
        found = None
        for name in self._names():
            try:
                with self._spoken(f"holds {name}, which cannot be read"):
                    found = _read(self.path, name)
                break
            except _OtherFormatError as error:
                raise self._error(f"holds {name}, which {error}; nothing was changed") from error
            except ContentError as error:
                damaged.append(f"{name} {error}")
                self._damaged.append(name)
        if damaged:
            instead = (
                "the fit begins anew" if found is None else f"going on from epoch {found.epoch}"
            )
            warnings.warn(
                f"checkpoint={self.given!r}: {'; '.join(damaged)}; {instead}",
                SkcxrWarning,
                stacklevel=5,
            )
        return found

    def check(self, saved: Saved | None) -> None:
        """A state that was read is of the fit that `identity` tells."""
        if saved is None:
            return
        differing = [
            _difference(key, saved.identity.get(key), self.identity.get(key))
            for key in sorted(saved.identity.keys() | self.identity.keys())
            if saved.identity.get(key) != self.identity.get(key)
        ]
        if differing:
            raise self._error(
                f"holds the state of another fit ({'; '.join(differing)}); give a folder for each "
                "fit, or delete this one to begin anew"
            )

    def write(self, epoch: int, state: Any) -> None:
        """Keep a state whole or not at all, and let go of all but the last two."""
        tensors: dict[str, torch.Tensor] = {}
        header = {
            "format": _FORMAT,
            "epoch": epoch,
            "seed": self.seed,
            "identity": self.identity,
            "state": encode(_take_out(state, tensors), "the state of the fit"),
        }
        content = safetensors.torch.save(tensors, {"skcxr": json.dumps(header)})
        name = f"epoch-{epoch:05}-{hashlib.sha256(content).hexdigest()}.safetensors"
        draft = os.path.join(self.path, f".{name}.part")
        try:
            with self._spoken("cannot be written"):
                with open(draft, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(draft, os.path.join(self.path, name))
                sync_folder(self.path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(draft)
        old = [other for other in self._names() if other not in (name, *self._damaged)]
        drafts = [f for f in os.listdir(self.path) if _NAME.fullmatch(f[1:].removesuffix(".part"))]
        for other in [*old[_KEPT - 1 :], *drafts, *(f for f in self._damaged if f != name)]:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.path, other))

    def _names(self) -> list[str]:
        """Names of states, the newest first."""
        with self._spoken("cannot be read"):
            names = filter(_NAME.fullmatch, os.listdir(self.path))
            return sorted(names, key=lambda name: int(name.split("-")[1]), reverse=True)

    @contextlib.contextmanager
    def _spoken(self, what: str) -> Iterator[None]:
        """Errors of the system become ours."""
        try:
            yield
        except CheckpointError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise self._error(f"{what}: {reason}") from error

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(f"checkpoint={self.given!r} {what}")


class KeepState(Callback):
    """Takes a fit up where its folder says, and keeps its state after every epoch.

    It must be the last of the net's callbacks: what the others do in an epoch is part of it.

    Parameters
    ----------
    folder : CheckpointFolder
        The folder.
    saved : Saved or None
        The state to go on from.
    """

    def __init__(self, folder: CheckpointFolder, saved: Saved | None) -> None:
        self.folder = folder
        self.saved = saved

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        if self.saved is None:
            self.folder.write(0, training_state(net))
            return
        try:
            load_training_state(net, self.saved.state)
        except Exception as error:  # forged: each part of it raises its own
            raise CheckpointError(
                f"checkpoint={self.folder.given!r} holds a state that does not fit the net "
                f"({error}); delete the folder to begin anew"
            ) from error
        net.epochs_before = self.saved.epoch
        for _, callback in net.callbacks_:
            if isinstance(callback, EpochBar):
                callback.skip(self.saved.epoch)
        self.saved = None

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.folder.write(len(net.history), training_state(net))


def _read(folder: str, name: str) -> Saved:
    path = os.path.join(folder, name)
    status = os.lstat(path)
    require(stat.S_ISREG(status.st_mode), "is no file")
    require(status.st_size <= _MOST_BYTES, f"has {status.st_size:,} bytes")
    match = _NAME.fullmatch(name)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        require(match and digest == match[2], "is damaged")
        file.seek(0)
        content = file.read()
    try:
        tensors = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["skcxr"])
        if header["format"] != _FORMAT:
            raise _OtherFormatError(f"is of format {header['format']}, not {_FORMAT}")
        epoch, seed, identity = header["epoch"], header["seed"], header["identity"]
        state = _put_in(decode(header["state"]), tensors)
        require(type(seed) is int and 0 <= seed < 2**31, "has no seed")
        require(all(type(text) is str for text in identity.values()), "tells no fit")
        require(type(epoch) is int and len(state["history"]) == epoch, "has another history")
        return Saved(epoch, seed, identity, state)
    except _OtherFormatError:
        raise
    except Exception as error:  # forged: its hash is right and its content is not
        raise ContentError("is no state of a fit") from error


# --------------------------------------------------------------------------------------------
# which fit it is
# --------------------------------------------------------------------------------------------


def identify(
    estimator: Any,
    settings: Settings,
    seed: int,
    images: Any,
    labels: dict[str, Any],
    network: torch.nn.Module,
) -> dict[str, str]:
    """What tells one fit from another, each in words or as a hash.

    Parameters
    ----------
    estimator, settings, seed
        The CXRClassifier, its settled parameters, its seed.
    images : Images
        The images; of files the content counts, wherever they lie.
    labels : dict of ndarray
        Targets, weights and the two sides of a split.
    network : torch.nn.Module
        The network as it is before the first step.
    """
    params = estimator.get_params(deep=False)
    params |= {key: getattr(settings, key) for key in vars(settings)}
    told = {key: _tell(value) for key, value in params.items() if key not in _OF_NO_MATTER}
    given = estimator.random_state
    told["random_state"] = f"{given}" if isinstance(given, Integral) else f"of the seed {seed}"
    told["images"] = _hash_of_images(images.items)
    for key, values in labels.items():
        array = np.asarray(values)
        content = array.tobytes() if array.dtype != object else repr(array.tolist()).encode()
        told[key] = hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    for key, tensor in network.state_dict().items():
        digest.update(key.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    told["first weights"] = digest.hexdigest()
    libraries = {"skcxr": __version__, "torch": torch.__version__, "skorch": skorch.__version__}
    told |= {f"version of {name}": f"{number}" for name, number in libraries.items()}
    return told


def _hash_of_images(items: Any) -> str:
    digest = hashlib.sha256()
    if isinstance(items, np.ndarray):
        digest.update(f"{items.dtype.str}{items.shape}".encode())
        for image in items:  # one at a time: X may be a view or a memory map
            digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()
    for path in items:
        try:
            require(stat.S_ISREG(os.stat(path).st_mode), "is no file")  # a pipe would not end
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except (OSError, ValueError, ContentError):
            digest.update(b"unread")  # reading it says what is wrong
    return digest.hexdigest()


def _tell(value: Any) -> str:
    """A parameter as text that is the same in another process."""
    try:
        return json.dumps(encode(value, ""))
    except InputError:
        pass
    kind = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    try:
        return f"{name} {joblib.hash(value)}"
    except Exception:  # whatever an object's own pickling raises
        return name


def _difference(key: str, was: str | None, now: str | None) -> str:
    if was and now and _HASH.fullmatch(was) and _HASH.fullmatch(now):
        return f"other {key}"
    was, now = ("absent" if text is None else text[:80] for text in (was, now))
    return f"{key} was {was} and is {now}"


# --------------------------------------------------------------------------------------------
# all that the rest of a fit depends on
# --------------------------------------------------------------------------------------------


def training_state(net: TrainingNet) -> dict[str, Any]:
    """The state of a net between two epochs, as tensors, numbers and words."""
    state = {
        "weights": net.module_.state_dict(),
        "raw": net._raw,
        "average": [average.state_dict() for average in net._average],
        "optimizer": net.optimizer_.state_dict(),
        "criterion": net.criterion_.state_dict(),
        "history": [{**epoch, "batches": []} for epoch in net.history],
        "random": _random_states(net.device),
        "callbacks": [],
    }
    for name, callback in net.callbacks_:
        if name in _OF_THIS_RUN:
            continue
        held = {}
        for key, value in vars(callback).items():
            if _is_learnt(key) and not callable(value):
                own = hasattr(value, "state_dict") and not isinstance(value, dict)
                held[key] = {_STATE: value.state_dict()} if own else value
        try:
            encode(_take_out(held, {}), name)
        except InputError as error:
            raise InputError(
                f"checkpoint= cannot keep the state of the callback {name!r} without code "
                f"({error}); leave the callback or the checkpoint out"
            ) from error
        state["callbacks"].append([name, held])
    return state


def load_training_state(net: TrainingNet, state: dict[str, Any]) -> None:
    """Become the net of a state, between the same two epochs."""
    net.module_.load_state_dict(state["weights"])
    net._raw = state["raw"]
    net._average = [net._new_average() for _ in state["average"]]
    for average, saved in zip(net._average, state["average"], strict=True):
        average.load_state_dict(saved)
    net.optimizer_.load_state_dict(state["optimizer"])
    net.criterion_.load_state_dict(state["criterion"])
    net.history = skorch.history.History(state["history"])
    callbacks = dict(net.callbacks_)
    for name, held in state["callbacks"]:
        for key, value in held.items():
            require(_is_learnt(key), f"{name} has no {key!r}")
            if isinstance(value, dict) and value.keys() == {_STATE}:
                getattr(callbacks[name], key).load_state_dict(value[_STATE])
            else:
                setattr(callbacks[name], key, value)
    _set_random_states(state["random"], net.device)


def _is_learnt(key: str) -> bool:
    return key.endswith("_") and not key.startswith("_")


def _random_states(device: Any) -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  (the legacy one is what is global)
    kind = torch.device(device).type
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    if kind == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    elif kind == "mps":
        states["device"] = torch.mps.get_rng_state()
    return states


def _set_random_states(states: dict[str, Any], device: Any) -> None:
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
    elif kind == "mps":
        torch.mps.set_rng_state(states["device"])


def _take_out(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The same tree with the names of its tensors in their places."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {key: _take_out(item, tensors) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_take_out(item, tensors) for item in value)
    return value


def _put_in(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _put_in(item, tensors) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_put_in(item, tensors) for item in value)
    return value
