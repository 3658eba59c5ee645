"""Decoded and embedded images on disk: one file each, shared by folds, grid points and processes.

An image is kept as it is decoded, in its source's depth, under a name made of all that its
pixels depend on: the path, size and time of change of the file, how it is read, and the version
of the decoder. An embedding is kept in the same way under all that it depends on: the same, and
the network's weights. A changed file has another name, so nothing kept is ever wrong and nothing
has to be told apart. Entries are ``.npy`` files, which hold numbers and no code; joblib.Memory,
whose folders are taken too, would keep pickles and take three times as long for things this small.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import warnings
from typing import Any

import numpy as np
import PIL

from skcxr._exceptions import InputError, SkcxrWarning
from skcxr.images import Size, check_size, decode

__all__ = ["Decoder", "EmbeddingCache"]

Array = np.ndarray[Any, Any]

_VERSION = 2  # of our own part of the decoder: raise it where its pixels change
_TICK = 20_000_000  # nanoseconds; file systems tell changes this far apart
_DEPTHS = (np.uint8, np.uint16, np.float32, np.float64)


class Decoder:
    """:func:`images.decode` with a folder of what it has decoded before.

    Parameters
    ----------
    memory : str, os.PathLike, joblib.Memory or None, default=None
        Where decoded images are kept; None keeps none.
    interpolation : {"hamming", "bilinear", "bicubic"}, default="hamming"
        How images are resized, as in :func:`images.resize`.

    Raises
    ------
    InputError
        `memory` cannot be used as a folder.
    """

    def __init__(self, memory: Any = None, interpolation: str = "hamming") -> None:
        self.folder = _folder(memory, "skcxr-images")
        self.interpolation = interpolation

    def held(self, path: str, size: Size, resize_mode: str = "stretch") -> Array | None:
        """The image from the folder, or None where it is not there.

        It takes a tenth of a millisecond, most of it with the interpreter's lock held: ask in
        one thread and decode in several.
        """
        if self.folder is None:
            return None
        wanted = check_size(size, resize_mode)
        identity = _identify(path)
        if identity is None:
            return None  # decoding will say what is wrong
        image = _load(self._entry(identity, wanted, resize_mode))
        if image is None or image.ndim != 2 or wanted not in (None, image.shape):
            return None
        return image

    def __call__(self, path: str, size: Size, resize_mode: str = "stretch") -> Array:
        """Decode the file as :func:`images.decode` does, and keep the image."""
        wanted = check_size(size, resize_mode)
        identity = None if self.folder is None else _identify(path, settled=True)
        image = decode(path, wanted, resize_mode, self.interpolation)  # says what is wrong
        if identity is not None:
            _store(self._entry(identity, wanted, resize_mode), image)
        return image

    def _entry(self, identity: tuple[Any, ...], wanted: Size, resize_mode: str) -> str:
        assert self.folder is not None
        return _entry(self.folder, *identity, wanted, resize_mode, self.interpolation)


class EmbeddingCache:
    """What a network has made of images, by image.

    Parameters
    ----------
    memory : str, os.PathLike, joblib.Memory or None, default=None
        Where embeddings are kept; None keeps none.
    fingerprint : str, default=""
        All that the embedding depends on beside the image: the network, its weights, its input.

    Raises
    ------
    InputError
        `memory` cannot be used as a folder.
    """

    def __init__(self, memory: Any = None, fingerprint: str = "") -> None:
        self.folder = _folder(memory, "skcxr-embeddings")
        self.fingerprint = fingerprint

    def entry(self, item: str | Array) -> str | None:
        """Name of the entry of a file or of an array of pixels; None where there is no name."""
        if self.folder is None:
            return None
        if isinstance(item, str):
            identity = _identify(item, settled=True)
        else:
            pixels = np.ascontiguousarray(item)
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()
            identity = (digest, str(pixels.dtype), pixels.shape)
        return None if identity is None else _entry(self.folder, *identity, self.fingerprint)

    def load(self, entry: str | None, size: int) -> Array | None:
        """The embedding of `size` numbers under a name, or None where it is not there."""
        found = None if entry is None else _load(entry)
        return found if found is not None and found.shape == (size,) else None

    def store(self, entry: str | None, embedding: Array) -> None:
        """Keep an embedding under a name."""
        if entry is not None:
            _store(entry, embedding)


def _identify(path: str, settled: bool = False) -> tuple[Any, ...] | None:
    """What tells the content of a file apart, or None where there is no such file.

    `settled` waits until a second change of the file would be seen.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if settled:
        # a second change within the same tick of the clock would go unseen: let it pass
        age = time.time_ns() - status.st_mtime_ns
        if 0 <= age < _TICK:
            time.sleep((_TICK - age) / 1e9)
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def _entry(folder: str, *parts: Any) -> str:
    parts = (_VERSION, PIL.__version__, *parts)
    name = hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return os.path.join(folder, name[:2], f"{name[2:]}.npy")


def _folder(memory: Any, name: str) -> str | None:
    """Return the folder `name` in the one that `memory` means, made if need be, or None."""
    if memory is None:
        return None
    if isinstance(memory, str | os.PathLike):
        location: Any = os.fspath(memory)
    elif hasattr(memory, "location"):  # a joblib.Memory; its clear() clears our part too
        location = getattr(getattr(memory, "store_backend", None), "location", None)
    else:
        raise InputError(f"memory={memory!r} is neither a folder nor a joblib.Memory nor None")
    if location is None:
        return None
    if not isinstance(location, str) or not location:
        raise InputError(f"memory={memory!r} does not name a folder")
    folder = os.path.join(os.path.abspath(location), name)
    try:
        os.makedirs(folder, exist_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"memory={location!r} cannot be used as a folder: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from error
    return folder


def _load(entry: str) -> Array | None:
    """Load an entry; None where there is none, or none that is whole."""
    try:
        with open(entry, "rb") as file:
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):
                return None
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, OverflowError):
        return None
    return array if array.size and array.dtype in _DEPTHS else None


def _store(entry: str, array: Array) -> None:
    """Keep an array whole or not at all; other processes may do the same at the same time."""
    temporary = f"{entry}.{os.getpid()}-{threading.get_ident()}.part"
    try:
        os.makedirs(os.path.dirname(entry), exist_ok=True)
        with open(temporary, "wb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
        os.replace(temporary, entry)
    except OSError as error:
        if not os.path.exists(entry):  # where it does, another process was first
            warnings.warn(
                f"the cache {os.path.dirname(os.path.dirname(entry))!r} cannot be written "
                f"({error.strerror or error}); its images are read again each time",
                SkcxrWarning,
                stacklevel=2,
            )
    finally:
        with contextlib.suppress(OSError):  # replaced: gone
            os.unlink(temporary)
