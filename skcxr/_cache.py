"""Decoded images on disk: one file each, shared by folds, grid points, epochs and processes.

An image is kept as it is decoded, in its source's depth, under a name made of all that its
pixels depend on: the path, size and time of change of the file, how it is read, and the version
of the decoder. A changed file has another name, so nothing kept is ever wrong and nothing has to
be told apart. Entries are ``.npy`` files, which hold numbers and no code; joblib.Memory, whose
folders are taken too, would keep pickles and take three times as long for things this small.
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

__all__ = ["Decoder"]

Array = np.ndarray[Any, Any]

_VERSION = 1  # of our own part of the decoder: raise it where its pixels change
_TICK = 20_000_000  # nanoseconds; file systems tell changes this far apart
_DEPTHS = (np.uint8, np.uint16, np.float32)


class Decoder:
    """:func:`images.decode` with a folder of what it has decoded before.

    Parameters
    ----------
    memory : str, os.PathLike, joblib.Memory or None, default=None
        Where decoded images are kept; None keeps none.

    Raises
    ------
    InputError
        `memory` cannot be used as a folder.
    """

    def __init__(self, memory: Any = None) -> None:
        self.folder = _folder(memory)

    def held(self, path: str, size: Size, resize_mode: str = "stretch") -> Array | None:
        """The image from the folder, or None where it is not there.

        It takes a tenth of a millisecond, most of it with the interpreter's lock held: ask in
        one thread and decode in several.
        """
        if self.folder is None:
            return None
        wanted = check_size(size, resize_mode)
        try:
            entry = self._entry(path, os.stat(path), wanted, resize_mode)
        except (OSError, ValueError):
            return None  # decoding will say what is wrong
        return _load(entry, wanted)

    def __call__(self, path: str, size: Size, resize_mode: str = "stretch") -> Array:
        """Decode the file as :func:`images.decode` does, and keep the image."""
        wanted = check_size(size, resize_mode)
        if self.folder is None:
            return decode(path, wanted, resize_mode)
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return decode(path, wanted, resize_mode)  # which says what is wrong
        # a second change within the same tick of the clock would go unseen: let it pass
        age = time.time_ns() - status.st_mtime_ns
        if 0 <= age < _TICK:
            time.sleep((_TICK - age) / 1e9)
        image = decode(path, wanted, resize_mode)
        _store(self._entry(path, status, wanted, resize_mode), image)
        return image

    def _entry(self, path: str, status: os.stat_result, wanted: Size, resize_mode: str) -> str:
        parts = (
            _VERSION, PIL.__version__, os.path.abspath(path), status.st_size, status.st_mtime_ns,
            wanted, resize_mode,
        )  # fmt: skip
        name = hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()
        assert self.folder is not None
        return os.path.join(self.folder, name[:2], f"{name[2:]}.npy")


def _folder(memory: Any) -> str | None:
    """Return the folder that `memory` means, made if need be, or None."""
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
    folder = os.path.join(os.path.abspath(location), "skcxr-images")
    try:
        os.makedirs(folder, exist_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"memory={location!r} cannot be used as a folder: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from error
    return folder


def _load(entry: str, wanted: Size) -> Array | None:
    """Load an entry; None where there is none, or none that is whole."""
    try:
        with open(entry, "rb") as file:
            image: Array = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):
                return None
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, OverflowError):
        return None
    fits = image.ndim == 2 and image.size and image.dtype in _DEPTHS
    return image if fits and wanted in (None, image.shape) else None


def _store(entry: str, image: Array) -> None:
    """Keep an image whole or not at all; other processes may do the same at the same time."""
    temporary = f"{entry}.{os.getpid()}-{threading.get_ident()}.part"
    try:
        os.makedirs(os.path.dirname(entry), exist_ok=True)
        with open(temporary, "wb") as file:
            np.lib.format.write_array(file, image, allow_pickle=False)
        os.replace(temporary, entry)
    except OSError as error:
        if not os.path.exists(entry):  # where it does, another process was first
            warnings.warn(
                f"the image cache {os.path.dirname(os.path.dirname(entry))!r} cannot be written "
                f"({error.strerror or error}); images are decoded again each time",
                SkcxrWarning,
                stacklevel=2,
            )
    finally:
        with contextlib.suppress(OSError):  # replaced: gone
            os.unlink(temporary)
