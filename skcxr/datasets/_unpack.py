"""A ZIP archive -> a folder that is whole or not there.

    archive -> names and sizes -> <target>.unpacking -> a list of what is whole -> <target>

A run that was killed is gone on with: a file under its own name has been checked. Nothing is
written outside the folder, whatever the archive says.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from skcxr._exceptions import DownloadError
from skcxr._files import write_text
from skcxr.datasets._fetch import Remote, explained, fetch_file, prepared

WHOLE = ".whole.json"  # the files of a folder and their sizes
MOST_FILES = 200_000
LARGEST_INDEX = 64 << 20  # bytes of an archive's own list of its files
HIGHEST_RATIO = 200  # times that a file may grow, beyond what small files may
_BLOCK = 1 << 20

Keep = Callable[[str], str | None]


class _ArchiveFault(Exception):  # noqa: N818  (never leaves this module)
    """Why an archive cannot be unpacked."""


def fetch_folder(
    remote: Remote,
    folder: str,
    keep: Keep,
    limit: int,
    *,
    download_if_missing: bool,
    n_retries: int,
    delay: float,
) -> str:
    """Return the folder of what an archive holds; fetch and unpack it if it is not whole.

    Parameters
    ----------
    remote : Remote
        The archive; the folder has its name without ``.zip``.
    folder : str
        Where both are.
    keep : callable
        The path below the new folder of a file in the archive, or None for one that is left out.
    limit : int
        Bytes that the files may have in all.
    download_if_missing, n_retries, delay
        As in `fetch_file`.

    Raises
    ------
    DownloadError
        The archive is not there and cannot be fetched, or cannot be unpacked.
    """
    target = os.path.join(folder, remote.name.removesuffix(".zip"))
    if is_whole(target):
        return target
    archive = fetch_file(
        remote,
        folder,
        download_if_missing=download_if_missing,
        n_retries=n_retries,
        delay=delay,
    )

    def message(reason: Any) -> str:
        return f"{archive!r} cannot be unpacked: {reason}"

    with prepared(folder, remote.name, message) as alive:
        if not is_whole(target):
            try:
                _unpack(archive, target, keep, limit, alive)
            except _ArchiveFault as error:
                raise DownloadError(message(error)) from error
            except OSError as error:
                said = explained(error, f"in {target!r}")
                raise DownloadError(message(f"{said}; call again to go on")) from error
    return target


def is_whole(target: str) -> bool:
    """Whether a folder has all the files that were unpacked into it."""
    try:
        with open(os.path.join(target, WHOLE), encoding="utf-8") as file:
            sizes = json.load(file)
        return bool(sizes) and all(
            os.path.getsize(os.path.join(target, *name.split("/"))) == size
            for name, size in sizes.items()
        )
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _unpack(archive: str, target: str, keep: Keep, limit: int, alive: Callable[[], None]) -> None:
    work = f"{target}.unpacking"
    if os.path.isdir(target) and not os.path.exists(work):
        os.replace(target, work)  # some of its files are gone
    if os.path.lexists(target):
        raise _ArchiveFault(f"{target!r} is in its way; delete it and call again")
    os.makedirs(work, exist_ok=True)
    if os.path.exists(os.path.join(work, WHOLE)):
        os.unlink(os.path.join(work, WHOLE))
    try:
        _check_index(archive)
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened, keep, limit, os.path.exists(_swapped(work)))
            free = shutil.disk_usage(work).free
            needed = sum(
                info.file_size
                for name, info in members.items()
                if not os.path.exists(_below(work, name))
            )
            if needed > free:
                raise _ArchiveFault(
                    f"its files need {needed:,} bytes, and the disk has {free:,} left"
                )
            for name, info in members.items():
                alive()
                _extract(opened, info, _below(work, name))
    except (_ArchiveFault, OSError):
        raise
    except Exception as error:  # of zipfile, zlib and below, on damaged archives
        raise _ArchiveFault(
            f"it is damaged ({type(error).__name__}: {error}); delete it and call again"
        ) from error
    sizes = {name: info.file_size for name, info in members.items()}
    write_text(os.path.join(work, WHOLE), json.dumps(sizes, indent=0))
    os.replace(work, target)


def _below(folder: str, name: str) -> str:
    return os.path.join(folder, *name.split("/"))


def _check_index(archive: str) -> None:
    """Refuse an archive whose list of files alone would fill the memory."""
    with open(archive, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 200))
        tail = file.read()
    at, at64 = tail.rfind(b"PK\5\6"), tail.rfind(b"PK\6\6")
    index = struct.unpack_from("<L", tail, at + 12)[0] if 0 <= at <= len(tail) - 22 else 0
    if 0 <= at64 <= len(tail) - 56:
        index = max(index % 0xFFFFFFFF, struct.unpack_from("<Q", tail, at64 + 40)[0])
    if index > LARGEST_INDEX:
        raise _ArchiveFault(f"its list of files has {index:,} bytes")


def _swapped(folder: str) -> str:
    """The folder's name in the other case, which is the same one where case does not count."""
    above, name = os.path.split(folder)
    return os.path.join(above, name.swapcase())


def _members(
    opened: zipfile.ZipFile, keep: Keep, limit: int, caseless: bool
) -> dict[str, zipfile.ZipInfo]:
    """The files to be unpacked by their new names, after a look at every entry."""
    entries = opened.infolist()
    if len(entries) > MOST_FILES:
        raise _ArchiveFault(f"it has {len(entries):,} entries; {MOST_FILES:,} are allowed")
    chosen: dict[str, zipfile.ZipInfo] = {}
    seen = set()
    for info in entries:
        name = None if info.is_dir() else keep(info.filename)
        fault = _name_fault(info.orig_filename) or (_entry_fault(info) if name else None)
        if fault:
            raise _ArchiveFault(f"its entry {info.orig_filename!r} {fault}; nothing was unpacked")
        if name is None:
            continue
        same = name.casefold() if caseless else name
        if same in seen:
            raise _ArchiveFault(f"it has two entries {name!r}; nothing was unpacked")
        seen.add(same)
        chosen[name] = info
    total = sum(info.file_size for info in chosen.values())
    if total > limit:
        raise _ArchiveFault(f"its files have {total:,} bytes; {limit:,} are allowed")
    if not chosen:
        raise _ArchiveFault("it has none of the files that are expected; is it another archive?")
    return chosen


def _name_fault(name: str) -> str | None:
    if (
        name.startswith("/")
        or any(character in name for character in "\\\0")
        or re.match("[A-Za-z]:", name)
        or ".." in name.split("/")
    ):
        return "leads out of its folder"
    return None


def _entry_fault(info: zipfile.ZipInfo) -> str | None:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a device"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed in a way ({info.compress_type}) that is not unpacked here"
    if info.file_size > max(HIGHEST_RATIO * info.compress_size, 1 << 20):
        return f"would grow from {info.compress_size:,} to {info.file_size:,} bytes"
    return None


def _extract(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> None:
    if os.path.isfile(path) and os.path.getsize(path) == info.file_size:
        with open(path, "rb") as file:
            if _crc(file) == info.CRC:
                return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.part"
    with opened.open(info) as source, open(part, "wb") as file:
        shutil.copyfileobj(source, file, _BLOCK)  # the checksum is checked at its end
    if os.path.getsize(part) != info.file_size:
        raise _ArchiveFault(f"its entry {info.filename!r} is cut short; delete it and call again")
    os.replace(part, path)


def _crc(file: Any) -> int:
    crc = 0
    while block := file.read(_BLOCK):
        crc = zlib.crc32(block, crc)
    return crc
