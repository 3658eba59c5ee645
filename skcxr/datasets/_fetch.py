"""A file of a public data set: fetched once, checked, kept.

    address -> <folder>/<name>.part -> size and checksum -> <folder>/<name>

A file under its own name is whole. What an attempt leaves behind is called ``.part`` and is gone
on with by the next one, where a checksum tells at the end whether the pieces fit. Whatever goes
wrong is said by one exception, `DownloadError`, with the place where the file can be put by hand.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import Interval

from skcxr._exceptions import DownloadError
from skcxr._optional import import_optional

TIMEOUT = 30.0  # seconds that a server may be silent
SLOWEST = 1024  # bytes per second, on average over twice that time
LONGEST_PAUSE = 60.0  # seconds that a server may ask to wait before a new attempt
LONGEST_SILENCE = 600.0  # seconds without a sign of life of another process that fetches the same
_POLL = 0.05
_BLOCK = 1 << 20
# what the parameters of every fetcher may be
FETCHED: dict[str, Any] = {
    "data_home": [str, os.PathLike, None],
    "download_if_missing": ["boolean"],
    "n_retries": [Interval(Integral, 0, None, closed="left")],
    "delay": [Interval(Real, 0, None, closed="left")],
}

_TRY_AGAIN = (408, 425, 429)  # of the answers that blame the client


@dataclass(frozen=True)
class Remote:
    """Where a file is published, and how it is known to be the right one."""

    name: str  # under which it is kept
    url: str
    page: str  # where a person finds it
    limit: int  # bytes; no honest file is larger
    checksum: str | None = None  # "md5:..." or "sha256:..."; None where none is known


class _FetchFault(Exception):  # noqa: N818  (never leaves this module)
    """Why an attempt failed, and whether another one may help."""

    def __init__(self, reason: str, final: bool = False, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.final = final
        self.wait = wait


def get_data_home(data_home: str | os.PathLike[str] | None) -> str:
    """The folder of fetched data: as given, else SKCXR_DATA, else ~/skcxr_data."""
    chosen = os.fsdecode(data_home) if data_home is not None else os.environ.get("SKCXR_DATA")
    return os.path.abspath(os.path.expanduser(chosen or os.path.join("~", "skcxr_data")))


def fetch_file(
    remote: Remote, folder: str, *, download_if_missing: bool, n_retries: int, delay: float
) -> str:
    """Return the path of a file that is whole; fetch it if it is not there.

    Raises
    ------
    DownloadError
        It is not there and cannot be fetched.
    """
    path = os.path.join(folder, remote.name)
    fault = _fault(remote, path)
    if fault is None:
        return path
    if not download_if_missing:
        raise DownloadError(advice(remote, path, f"{fault}, and download_if_missing is False"))
    with prepared(folder, remote.name, lambda reason: advice(remote, path, reason)) as alive:
        if _fault(remote, path, alive) is not None:  # no other process has fetched it meanwhile
            _download(remote, path, alive, n_retries, delay)
    return path


def advice(remote: Remote, path: str, reason: str) -> str:
    """What went wrong, and how to go on by hand."""
    known = (remote.checksum or "").replace(":", " ") or "no checksum of it is published"
    return (
        f"{remote.name!r} was not fetched from {remote.url}: {reason}. To go on without this "
        f"connection, download it from {remote.page}, put it at {path!r} ({known}) and call again"
    )


def explained(error: OSError | ValueError, doing: str) -> str:
    """Say what the system says; a ValueError is what Python says of a NUL in a path."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{doing}: the disk is full"
    return f"{doing}: {getattr(error, 'strerror', None) or error}"


# ----------------------------------------------------------------------- one process at a time


@contextlib.contextmanager
def prepared(folder: str, name: str, message: Callable[[str], str]) -> Iterator[Callable[[], None]]:
    """Make a folder and keep other processes from fetching the same into it.

    The lock is the system's, so that it ends with its process. What is yielded is to be called
    again and again as a sign of life. `message` puts a reason into a sentence.
    """
    path = os.path.join(folder, f".{name}.lock")
    try:
        os.makedirs(folder, exist_ok=True)
        file = open(path, "a+b")  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise DownloadError(message(explained(error, f"cannot write to {folder!r}"))) from error
    with file:
        waited, seen = time.monotonic(), 0
        while not _lock(file.fileno()):
            changed = os.fstat(file.fileno()).st_mtime_ns
            if changed != seen:
                waited, seen = time.monotonic(), changed
            if time.monotonic() - waited > LONGEST_SILENCE:
                raise DownloadError(
                    message(
                        f"another process holds {path!r} and has given no sign of life for "
                        f"{LONGEST_SILENCE:g} s"
                    )
                )
            time.sleep(2 * _POLL)
        last = 0.0

        def alive() -> None:
            nonlocal last
            if time.monotonic() - last > 1:
                last = time.monotonic()
                with contextlib.suppress(OSError):
                    os.utime(path)

        alive()
        yield alive


def _lock(descriptor: int) -> bool:
    """Take the lock, or say that another process has it; where there are no locks, go on."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


# ------------------------------------------------------------------------------ is it the file?


def _fault(remote: Remote, path: str, alive: Callable[[], None] = lambda: None) -> str | None:
    """Say what is wrong with the file at `path`; None where it is the right one."""
    try:
        if not os.path.isfile(path):
            return f"there is no file {path!r}"
        if os.path.getsize(path) > remote.limit:
            return f"{path!r} is larger than the {remote.limit:,} bytes that it may have"
        if remote.checksum is None:
            return None if zipfile.is_zipfile(path) else f"{path!r} is no whole ZIP archive"
        kind, _, expected = remote.checksum.partition(":")
        digest = hashlib.new(kind, usedforsecurity=False)
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                alive()
    except OSError as error:
        return explained(error, f"{path!r} cannot be read")
    found = digest.hexdigest()
    return None if found == expected else f"{path!r} has the {kind} {found}, not {expected}"


# ------------------------------------------------------------------------------------- download


def _download(
    remote: Remote, path: str, alive: Callable[[], None], n_retries: int, delay: float
) -> None:
    import_optional("pooch", "fetch")
    part = f"{path}.part"
    if remote.checksum is not None and _fault(remote, part, alive) is None:
        os.replace(part, path)  # a run ended between the last byte and its name
        return
    reason, final = "", False
    for attempt in range(n_retries + 1):
        try:
            _attempt(remote, part, alive)
            if (fault := _fault(remote, part, alive)) is not None:
                os.unlink(part)
                raise _FetchFault(f"what came is not the file: {fault}")
            os.replace(part, path)
            return
        except _FetchFault as error:
            reason, final, wait = str(error), error.final, error.wait
        except OSError as error:
            reason, final, wait = explained(error, f"cannot write {part!r}"), True, 0.0
        if final:
            break
        if attempt < n_retries:
            until = time.monotonic() + min(max(delay * 4**attempt, wait), LONGEST_PAUSE)
            while (left := until - time.monotonic()) > 0:
                alive()
                time.sleep(min(left, 1.0))
    with contextlib.suppress(OSError):
        if remote.checksum is None or os.path.getsize(part) == 0:
            os.unlink(part)
    tried = "" if final else f" (tried {n_retries + 1} times)"
    raise DownloadError(advice(remote, path, reason + tried))


def _attempt(remote: Remote, part: str, alive: Callable[[], None]) -> None:
    """Get the rest of a file, in a thread that is left alone where it hangs.

    The timeout of a socket counts from byte to byte; a server that sends one now and then, or a
    name server that is silent, could hold it for ever.
    """
    mode = "ab" if remote.checksum is not None and os.path.exists(part) else "wb"
    with open(part, mode) as file:
        answer = _Answer(remote, file, start=file.tell())
        thread = threading.Thread(target=answer.receive, name="skcxr-fetch", daemon=True)
        thread.start()
        since, before = time.monotonic(), answer.done
        try:
            with _bar(remote.name) as show:
                while thread.is_alive():
                    thread.join(_POLL)
                    alive()
                    show(answer.done, answer.total)
                    if time.monotonic() - since > 2 * TIMEOUT:
                        if answer.done - before < 2 * TIMEOUT * SLOWEST:
                            raise _FetchFault(
                                f"the server sent {max(answer.done - before, 0):,} bytes in "
                                f"{2 * TIMEOUT:g} s"
                            )
                        since, before = time.monotonic(), answer.done
        finally:
            answer.abandoned = True
            answer.hang_up()
    if answer.fault is not None:
        raise answer.fault


@dataclass
class _Answer:
    """What pooch writes to: the file, with its limits; and what it is asked before it writes."""

    remote: Remote
    file: Any
    start: int  # bytes that are there already
    done: int = 0
    total: int | None = None
    abandoned: bool = False
    response: Any = None
    fault: _FetchFault | None = None

    def __post_init__(self) -> None:
        self.done = self.start

    def receive(self) -> None:
        pooch = import_optional("pooch", "fetch")

        headers = {"Accept-Encoding": "identity"}  # a file is what its checksum is of
        if self.start:
            headers["Range"] = f"bytes={self.start}-"
        try:
            download = pooch.HTTPDownloader(
                chunk_size=1 << 14,  # what comes is seen, and kept, in such pieces
                timeout=TIMEOUT,
                headers=headers,
                hooks={"response": self.look},
            )
            download(self.remote.url, self, None)
        except _FetchFault as fault:
            self.fault = fault
        except Exception as error:  # of requests, urllib3 and below
            self.fault = _meaning(error)
        finally:
            if self.response is not None:
                self.response.close()

    def hang_up(self) -> None:
        """End a thread that still waits for the server, where urllib3 can do it (from 2.3 on)."""
        with contextlib.suppress(Exception):
            self.response.raw.shutdown()

    def look(self, response: Any, *args: Any, **kwargs: Any) -> None:
        """Look at the head of an answer, redirections too, before its body is read."""
        self.response = response
        if self.remote.url.startswith("https:") and not response.url.startswith("https:"):
            raise _FetchFault(f"it leads to {response.url}, which is not encrypted", final=True)
        if response.is_redirect:  # requests would read its body to the end, if it has one
            response.raw.close()
            response.raw = io.BytesIO()
            return
        if response.status_code >= 400:
            if response.status_code == 416:  # of the rest: there is none
                self.restart()
            return
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise _FetchFault("the server sent a web page instead of the file")
        at = f"bytes {self.start}-"
        if not (response.status_code == 206 and
                response.headers.get("Content-Range", "").startswith(at)):  # fmt: skip
            if response.status_code == 206:
                self.restart()
                raise _FetchFault("the server sent another part of the file than was asked for")
            self.restart()
        length = response.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit():
            self.total = self.start + int(length)
            self.check(self.total)
            free = shutil.disk_usage(os.path.dirname(self.file.name)).free
            if int(length) > free:
                raise _FetchFault(
                    f"it has {int(length):,} bytes to come, and the disk has {free:,} left",
                    final=True,
                )

    def restart(self) -> None:
        if self.start:
            self.file.seek(0)
            self.file.truncate()
        self.start = self.done = 0

    def check(self, size: int) -> None:
        if size > self.remote.limit:
            raise _FetchFault(
                f"the server sends more than the {self.remote.limit:,} bytes that it may have",
                final=True,
            )

    def write(self, chunk: bytes) -> None:
        if self.abandoned:
            raise _FetchFault("given up")
        self.check(self.done + len(chunk))
        try:
            self.file.write(chunk)
        except OSError as error:
            raise _FetchFault(explained(error, f"cannot write {self.file.name!r}"), True) from error
        self.done += len(chunk)

    def flush(self) -> None:
        """Nothing: the file is closed at the end."""


def _meaning(error: Exception) -> _FetchFault:
    """Say in plain words what went wrong on the way."""
    requests = import_optional("requests", "fetch")

    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        asked = error.response.headers.get("Retry-After", "")
        return _FetchFault(
            f"the server answered {status} {error.response.reason or ''}".rstrip(),
            final=400 <= status < 500 and status not in (*_TRY_AGAIN, 416),
            wait=float(asked) if asked.isascii() and asked.isdigit() else 0.0,
        )
    if isinstance(error, requests.Timeout):
        return _FetchFault(f"the server was silent for {TIMEOUT:g} s")
    if isinstance(error, requests.exceptions.SSLError):
        return _FetchFault(f"the connection is not safe: {error}", final=True)
    if isinstance(error, requests.TooManyRedirects):
        return _FetchFault("the server leads in circles", final=True)
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return _FetchFault("the connection broke off")
    if isinstance(error, requests.ConnectionError):
        return _FetchFault(f"no connection, or it broke off ({_cause(error)})")
    return _FetchFault(f"{type(error).__name__}: {error}")


def _cause(error: BaseException) -> str:
    """The innermost reason that a chain of exceptions tells."""
    inner: Any = error
    while True:
        below = getattr(inner, "reason", None) or inner.__cause__ or inner.__context__
        if not isinstance(below, BaseException):
            return str(inner)
        inner = below


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show how far a download is, on a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
