"""Decoded and embedded images on disk: one file each, shared by folds, grid points and processes.

An image is kept as it is decoded, in its source's depth, under a name made of all that its
pixels depend on: the path, inode, size and times of change of the file, how it is read, and the
versions of the decoders. An embedding is kept in the same way under all that it depends on: the
same, and the network's weights. A changed file has another name, so nothing kept is ever wrong and
nothing has to be told apart. Entries are ``.npy`` files, which hold numbers and no code, with a
checksum behind them; joblib.Memory, whose folders are taken too, would keep pickles and take three
times as long for things this small.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import io
import os
import secrets
import stat
import time
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL
from PIL import features

from skcxr._exceptions import InputError, SkcxrWarning
from skcxr._pillow import MAX_PIXELS
from skcxr.images import Size, Window, check_size, check_window, decode_with_kind, is_dicom

__all__ = ["Decoder", "EmbeddingCache"]

Array = np.ndarray[Any, Any]

_VERSION = 4  # of our own part of the decoder: raise it where its pixels change
_CODECS = tuple(features.version(name) for name in ("jpg", "libjpeg_turbo", "libtiff", "webp"))
_TICK = 20_000_000  # nanoseconds; file systems tell changes this far apart
_DEPTHS = (np.uint8, np.uint16, np.float32, np.float64)
_PARTS = "parts"  # the folder of what is being written
_PART_AGE = 86_400  # seconds after which such a file is what a killed process has left
_MOST_HEADER = 10_000  # bytes; numpy writes and reads no longer ones
# errors that other entries would meet too
_HOPELESS = tuple(
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "ENOSPC", "EPERM", "EROFS")
    if hasattr(errno, name)
)


class Decoder:
    """:func:`images.decode` with a folder of what it has decoded before.

    Parameters
    ----------
    memory : str, os.PathLike, joblib.Memory or None, default=None
        Where decoded images are kept; None keeps none.
    interpolation : {"hamming", "bilinear", "bicubic"}, default="hamming"
        How images are resized, as in :func:`images.resize`.
    window : int, (float, float) or None, default=0
        What of a DICOM file is shown, as in :func:`images.read_image`.

    Raises
    ------
    InputError
        `memory` cannot be used as a folder, or `window` is no window.
    """

    def __init__(
        self, memory: Any = None, interpolation: str = "hamming", window: Window = 0
    ) -> None:
        self.folder = _folder(memory, "skcxr-images")
        self.interpolation = interpolation
        self.window = check_window(window)
        self._store = _Store()

    def held(self, path: str, size: Size, resize_mode: str = "stretch") -> Array | None:
        """The image from the folder, or None where it is not there.

        It takes some 20 microseconds, most of them with the interpreter's lock held: ask in one
        thread and decode in several.
        """
        if self.folder is None:
            return None
        wanted = check_size(size, resize_mode)
        identity = _identify(path)
        if identity is None:
            return None  # decoding will say what is wrong
        n_pixels = MAX_PIXELS if wanted is None else wanted[0] * wanted[1]
        image = _load(self._entry(identity, wanted, resize_mode), 4 * n_pixels)
        if image is None:
            entry = self._entry((*identity, *_dicom(self.window)), wanted, resize_mode)
            image = _load(entry, 4 * n_pixels)
        if image is None or image.ndim != 2 or wanted not in (None, image.shape):
            return None
        return image

    def __call__(self, path: str, size: Size, resize_mode: str = "stretch") -> Array:
        """Decode the file as :func:`images.decode` does, and keep the image."""
        wanted = check_size(size, resize_mode)
        identity = None if self.folder is None else _identify(path, settled=True)
        # says what is wrong
        image, kind = decode_with_kind(path, wanted, resize_mode, self.interpolation, self.window)
        if identity is not None:
            if kind == "DICOM":
                identity = (*identity, *_dicom(self.window))
            self._store(self._entry(identity, wanted, resize_mode), image)
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
        self._store = _Store()

    def entry(self, item: str | Array) -> str | None:
        """Name of the entry of a file or of an array of pixels; None where there is no name."""
        if self.folder is None:
            return None
        if isinstance(item, str):
            identity = _identify(item, settled=True)
            if identity is not None and _is_dicom(identity):
                identity = (*identity, *_dicom(0))
        else:
            pixels = np.ascontiguousarray(item)
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()
            identity = (digest, str(pixels.dtype), pixels.shape)
        return None if identity is None else _entry(self.folder, *identity, self.fingerprint)

    def load(self, entry: str | None, size: int) -> Array | None:
        """The embedding of `size` numbers under a name, or None where it is not there."""
        found = None if entry is None else _load(entry, 8 * size)
        return found if found is not None and found.shape == (size,) else None

    def store(self, entry: str | None, embedding: Array) -> None:
        """Keep an embedding under a name."""
        if entry is not None:
            self._store(entry, embedding)

    @contextlib.contextmanager
    def claimed(self, entry: str) -> Iterator[bool]:
        """Tell the processes that share a cache who embeds an image; False if another does.

        What a killed process has left there is removed like the parts of files that it has left.
        """
        parts = os.path.join(os.path.dirname(os.path.dirname(entry)), _PARTS)
        claim = os.path.join(parts, f"{os.path.basename(entry)}.part")
        ours = False
        try:
            try:
                _create(claim)
            except FileNotFoundError:  # the first one, or somebody has removed the folders
                os.makedirs(parts, exist_ok=True)
                _create(claim)
            ours = True
        except FileExistsError:
            yield False
            return
        except OSError:  # the disk is full or only read: each for itself
            pass
        try:
            yield True
        finally:
            if ours:
                with contextlib.suppress(OSError):
                    os.unlink(claim)


def _create(path: str) -> None:
    """Make an empty file, or fail where there is one."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


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
        age = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
        if 0 <= age < _TICK:
            time.sleep((_TICK - age) / 1e9)
    # the size and the time of the last change can be set at will, the other two cannot
    changes = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    return os.path.abspath(path), *changes


@functools.lru_cache(1 << 16)
def _is_dicom(identity: tuple[Any, ...]) -> bool:
    """Whether a file is DICOM; what has not changed is opened once, in searches asked for often."""
    return is_dicom(identity[0])


def _dicom(window: Window) -> tuple[Any, ...]:
    """What the pixels of a DICOM file depend on beside the file."""
    return "DICOM", window, *_dicom_versions()


@functools.cache
def _dicom_versions() -> tuple[str | None, ...]:
    found: list[str | None] = []
    for name in ("pydicom", "imagecodecs"):
        try:
            found.append(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            found.append(None)
    return tuple(found)


def _entry(folder: str, *parts: Any) -> str:
    parts = (_VERSION, PIL.__version__, _CODECS, *parts)
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
        if getattr(error, "errno", None) in _HOPELESS and os.path.isdir(location):
            _warn(folder, error)
            return None
        raise InputError(
            f"memory={location!r} cannot be used as a folder: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from error
    _sweep(os.path.join(folder, _PARTS))
    return folder


def _sweep(parts: str) -> None:
    """Remove what processes that were killed in the middle of writing have left."""
    with contextlib.suppress(OSError), os.scandir(parts) as files:
        for file in files:
            if file.name.endswith(".part"):
                with contextlib.suppress(OSError):
                    if time.time() - file.stat(follow_symlinks=False).st_mtime > _PART_AGE:
                        os.unlink(file.path)


def _check(entry: str, *contents: Any) -> bytes:
    """The checksum of an entry's content under its name."""
    folder, name = os.path.split(entry)
    check = zlib.crc32((os.path.basename(folder) + name).encode())
    for content in contents:
        check = zlib.crc32(content, check)
    return check.to_bytes(4, "little")


# without waiting, as for the writer of a pipe
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_READ |= getattr(os, "O_CLOEXEC", 0)


def _load(entry: str, limit: int) -> Array | None:
    """Load an entry of at most `limit` bytes of numbers; None where there is none that is whole."""
    try:
        descriptor = os.open(entry, _READ)
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit + _MOST_HEADER:
            return None
        content = os.read(descriptor, status.st_size)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    checked = memoryview(content)[:-4]
    if len(content) != status.st_size or _check(entry, checked) != content[-4:]:
        return None
    try:
        start = 10 + int.from_bytes(content[8:10], "little")
        shape, dtype = _described(content[:start])
        array = np.frombuffer(checked, dtype, offset=start).reshape(shape)
    except Exception:  # numpy raises nearly every builtin on forged headers
        return None
    return array if array.size else None


@functools.lru_cache(256)
def _described(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type in the header of an .npy file; nearly all entries have the same."""
    file = io.BytesIO(header)
    np.lib.format.read_magic(file)
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if in_columns or dtype not in _DEPTHS or file.tell() != len(header):
        raise ValueError("an array of another kind")
    return shape, dtype


class _Store:
    """Stores arrays until the disk refuses, and says so once, whatever thread is the first."""

    def __init__(self) -> None:
        self._refused: dict[str, OSError] = {}

    def __call__(self, entry: str, array: Array) -> None:
        error = None if self._refused else _store(entry, array)
        if error is None:
            return
        # setdefault is one step; a lock would not go into a pickle
        hopeless = error.errno in _HOPELESS
        if hopeless and self._refused.setdefault("by", error) is not error:
            return
        _warn(os.path.dirname(os.path.dirname(entry)), error)


def _store(entry: str, array: Array) -> OSError | None:
    """Keep an array whole or not at all; other processes may do the same at the same time.

    Returns what kept it from being kept; None too where another process was first.
    """
    array = np.ascontiguousarray(array)
    header = _header(array.shape, array.dtype)
    content = b"".join((header, array.data, _check(entry, header, array.data)))
    folder = os.path.dirname(os.path.dirname(entry))
    temporary = os.path.join(folder, _PARTS, f"{secrets.token_hex(12)}.part")
    try:
        try:
            _write(temporary, content, entry)
        except FileNotFoundError:  # the first one, or somebody has removed the folders
            os.makedirs(os.path.dirname(temporary), exist_ok=True)
            os.makedirs(os.path.dirname(entry), exist_ok=True)
            _write(temporary, content, entry)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            return None if os.path.isfile(entry) else error
        raise
    return None


@functools.lru_cache(256)
def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The header of an .npy file."""
    file = io.BytesIO()
    fields = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


def _write(temporary: str, content: bytes, entry: str) -> None:
    with open(temporary, "wb", buffering=0) as file:
        if file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.replace(temporary, entry)


def _warn(folder: str, error: Any) -> None:
    warnings.warn(
        f"the cache {folder!r} cannot be written ({error.strerror or error}); what is not in it "
        "is computed again each time",
        SkcxrWarning,
        stacklevel=3,
    )
