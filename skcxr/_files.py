"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os

from skcxr._exceptions import InputError


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole or not at all; one that is there is replaced.

    Raises
    ------
    InputError
        `path` is a folder, or stands in one that does not exist.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all; one that is there is replaced.

    Raises
    ------
    InputError
        `path` is a folder, or stands in one that does not exist.
    """
    target = check_target(path)
    folder, name = os.path.split(target)
    draft = os.path.join(folder, f".{name}.{os.getpid()}.part")
    try:
        with open(draft, "wb") as file:
            file.write(content)
        os.replace(draft, target)
    finally:
        if os.path.exists(draft):
            os.unlink(draft)


def check_target(path: str | os.PathLike[str]) -> str:
    """The file that `path` means, links followed, or what is wrong with it.

    Raises
    ------
    InputError
        `path` is a folder, or stands in one that does not exist.
    """
    target = os.path.realpath(path)
    if os.path.isdir(target) or not os.path.isdir(os.path.dirname(target)):
        raise InputError(f"{os.fspath(path)!r} is no file in a folder that exists")
    return target


def sync_folder(folder: str) -> None:
    """Have the names in a folder on disk, where the system can: a power cut then keeps them."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
