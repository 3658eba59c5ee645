"""The fetchers, against a server on this computer that behaves badly."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skcxr import DatasetError, DownloadError, MissingDependencyError, PatientWarning
from skcxr.datasets import (
    _fetch,
    _medmnist,
    _public,
    _unpack,
    fetch_chestmnist,
    fetch_covid19_image_data,
    fetch_kermany,
    fetch_pneumoniamnist,
)
from skcxr.datasets._fetch import Remote, fetch_file
from skcxr.datasets._unpack import fetch_folder

pooch = pytest.importorskip("pooch")

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's `behaviour` says: a function of the handler and of the call."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.calls.append((self.path, dict(self.headers)))
        with contextlib.suppress(OSError):
            self.server.behaviour(self, len(self.server.calls))

    def send(self, body, status=200, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_part(self, body):
        """As an honest server, with ranges."""
        at = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if at >= len(body):
            self.send(b"", 416)
        elif at:
            self.send(body[at:], 206, Content_Range=f"bytes {at}-{len(body) - 1}/{len(body)}")
        else:
            self.send(body)

    def hang_up(self):
        self.close_connection = True

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that hangs up is no news here."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server(("127.0.0.1", 0), Handler)
    server.calls, server.behaviour = [], lambda handler, call: handler.send_part(CONTENT)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def impatient(monkeypatch):
    def wait(fault):
        """As long as a busy computer may need, but for the faults that are about waiting."""
        slow = fault in (silent, trickle, trickle_of_heads)
        monkeypatch.setattr(_fetch, "TIMEOUT", 0.25 if slow else 5.0)

    return wait


def remote(server, **changes):
    told = {"name": "a.bin", "url": f"{server.url}/a.bin", "page": "https://page.example",
            "limit": 1_000_000, "checksum": SHA}  # fmt: skip
    return Remote(**{**told, **changes})


def fetch(of, folder, **changes):
    options = {"download_if_missing": True, "n_retries": 2, "delay": 0.01}
    return fetch_file(of, str(folder), **{**options, **changes})


def names(folder):
    """What a user sees in a folder."""
    return sorted(p.name for p in Path(folder).rglob("*") if not p.name.endswith(".lock"))


# -------------------------------------------------------------------------------- one file


def test_a_file_is_fetched_once_and_kept(server, tmp_path):
    path = fetch(remote(server), tmp_path / "x")
    assert Path(path).read_bytes() == CONTENT
    assert names(tmp_path / "x") == ["a.bin"]
    assert fetch(remote(server), tmp_path / "x") == path
    assert len(server.calls) == 1


def short(handler, call):
    handler.send(CONTENT[:100_000], length=len(CONTENT))
    handler.hang_up()


def lies_of_its_length(handler, call):
    handler.send(CONTENT, length=1000)
    handler.hang_up()


def other_content(handler, call):
    handler.send(bytes(len(CONTENT)))


def page(handler, call):
    handler.send(b"<!doctype html><title>Log in</title>", Content_Type="text/html; charset=utf-8")


def busy(handler, call):
    handler.send(b"busy", 503)


def circle(handler, call):
    handler.send(b"", 302, Location=handler.path)


def endless_circle(handler, call):
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    endless(handler, call, begun=True)


def silent(handler, call):
    time.sleep(2)


def trickle(handler, call):
    handler.send(b"", length=len(CONTENT))
    for byte in CONTENT[:200]:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.02)


def trickle_of_heads(handler, call):
    for byte in b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.02)


def no_http(handler, call):
    handler.wfile.write(b"\x00\x01 what?\r\n\r\n")
    handler.hang_up()


def no_length(handler, call):
    handler.send(CONTENT, length="many")
    handler.hang_up()


def bomb(handler, call):
    handler.send(b"x" * 2_000_000)


def endless(handler, call, begun=False):
    if not begun:
        handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


FAULTS = {
    short: "broke off",
    lies_of_its_length: "what came is not the file",
    other_content: "has the sha256",
    page: "web page",
    busy: "503",
    circle: "circles",
    endless_circle: "circles",
    silent: "silent for 0.25 s",
    trickle: "bytes in 0.5 s",
    trickle_of_heads: "bytes in 0.5 s",
    no_http: "broke off",
    no_length: "ValueError",
    bomb: "more than the 1,000,000 bytes",
    endless: "more than the 1,000,000 bytes",
    lambda handler, call: handler.send(b"", 404): "404",
    lambda handler, call: handler.send(b"", 403): "403",
    lambda handler, call: handler.hang_up(): "broke off",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_lasting_fault_is_an_error_that_says_what_to_do(server, tmp_path, fault, impatient):
    impatient(fault)
    server.behaviour = fault
    with pytest.raises(DownloadError) as info:
        fetch(remote(server), tmp_path / "x", n_retries=1)
    assert FAULTS[fault] in str(info.value)
    for told in (f"{server.url}/a.bin", "https://page.example", SHA.replace(":", " "),
                 str(tmp_path / "x" / "a.bin")):  # fmt: skip
        assert told in str(info.value)
    assert set(names(tmp_path)) <= {"x", "a.bin.part"}
    (tmp_path / "x" / "a.bin").write_bytes(CONTENT)  # by hand
    assert fetch(remote(server), tmp_path / "x", download_if_missing=False)


@pytest.mark.parametrize(
    "fault", [short, lies_of_its_length, other_content, page, busy, silent, no_http, trickle,
     endless_circle],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_a_passing_fault_is_recovered_from(server, tmp_path, fault, impatient):
    impatient(fault)
    server.behaviour = lambda handler, call: (
        fault(handler, call) if call == 1 else handler.send_part(CONTENT)
    )
    assert Path(fetch(remote(server), tmp_path)).read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]


def test_what_came_is_not_fetched_again(server, tmp_path):
    server.behaviour = short
    with pytest.raises(DownloadError):
        fetch(remote(server), tmp_path, n_retries=0)
    size = (tmp_path / "a.bin.part").stat().st_size
    assert 80_000 < size <= 100_000
    server.behaviour = lambda handler, call: handler.send_part(CONTENT)
    assert Path(fetch(remote(server), tmp_path)).read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in server.calls] == [None, f"bytes={size}-"]


@pytest.mark.parametrize("answer", ["all", "another part", "refused"])
def test_a_server_that_does_not_know_parts_is_put_up_with(server, tmp_path, answer):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])

    def behaviour(handler, call):
        if answer == "all" or not handler.headers.get("Range"):
            handler.send(CONTENT)
        elif answer == "another part":
            handler.send(CONTENT[5:], 206, Content_Range=f"bytes 5-{len(CONTENT) - 1}/*")
        else:
            handler.send(b"", 416)

    server.behaviour = behaviour
    assert Path(fetch(remote(server), tmp_path)).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"rubbish", CONTENT, CONTENT + b"more"])
def test_what_a_killed_run_left_does_no_harm(server, tmp_path, left):
    (tmp_path / "a.bin.part").write_bytes(left)
    assert Path(fetch(remote(server), tmp_path)).read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]


def test_a_file_that_is_another_one_is_fetched_anew(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"other")
    with pytest.raises(DownloadError, match="has the sha256"):
        fetch(remote(server), tmp_path, download_if_missing=False)
    assert (tmp_path / "a.bin").read_bytes() == b"other"
    assert Path(fetch(remote(server), tmp_path)).read_bytes() == CONTENT


def test_how_often_and_when_it_is_tried(server, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(_fetch.time, "sleep", waited.append)
    monkeypatch.setattr(_fetch, "LONGEST_PAUSE", 0.3)
    server.behaviour = lambda handler, call: handler.send(b"", 429, Retry_After="100000")
    with pytest.raises(DownloadError, match=r"429 .*tried 3 times"):
        fetch(remote(server), tmp_path, delay=0.01)
    assert len(server.calls) == 3
    server.behaviour = lambda handler, call: handler.send(b"", 404)
    with pytest.raises(DownloadError, match="404"):
        fetch(remote(server), tmp_path)
    assert len(server.calls) == 4
    assert max(waited) <= 0.3


def test_an_address_without_a_server_is_an_error(server, tmp_path):
    for url in ("http://127.0.0.1:9/a", "http://no-such-host.invalid/a", "nonsense"):
        with pytest.raises(DownloadError, match="To go on without this connection"):
            fetch(remote(server, url=url), tmp_path, n_retries=0)
    assert names(tmp_path) == []


def test_encryption_is_not_given_up(server, tmp_path):
    class Response:
        url, status_code, is_redirect, headers = "http://elsewhere", 200, False, {}

    answer = _fetch._Answer(remote(server, url="https://here/a"), io.BytesIO(), 0)
    with pytest.raises(_fetch._FetchFault, match="not encrypted"):
        answer.look(Response())


def test_folders_that_cannot_be_used_are_errors(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot write to"):
        fetch(remote(server), tmp_path / "file" / "x")
    for name in ("a\0b", "x" * 300):
        with pytest.raises(DownloadError, match="cannot write to"):
            fetch(remote(server), tmp_path / name)
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(DownloadError):
        fetch(remote(server), tmp_path)


def test_a_full_disk_is_an_error(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(_fetch.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match="the disk has 10 left"):
        fetch(remote(server), tmp_path)
    if Path("/dev/full").exists():
        os.symlink("/dev/full", tmp_path / "b.bin.part")
        usage.free = 1 << 40
        with pytest.raises(DownloadError, match="the disk is full"):
            fetch(remote(server, name="b.bin"), tmp_path)


def test_without_pooch_the_message_names_the_extra(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingDependencyError, match=r"skcxr\[fetch\]"):
        fetch(remote(server), tmp_path)
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert fetch(remote(server), tmp_path)  # a file that is there needs no pooch


def test_a_terminal_shows_how_far_it_is(server, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch(remote(server), tmp_path)
    assert "a.bin" in terminal.getvalue()


def test_where_data_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("SKCXR_DATA", str(tmp_path))
    assert _fetch.get_data_home(None) == str(tmp_path)
    assert _fetch.get_data_home(tmp_path / "x") == str(tmp_path / "x")
    monkeypatch.delenv("SKCXR_DATA")
    assert _fetch.get_data_home(None) == os.path.expanduser(os.path.join("~", "skcxr_data"))


# ---------------------------------------------------------------------------- other processes


RUN = """
    import sys, time
    from skcxr.datasets import _fetch, _unpack
    from skcxr.datasets._fetch import Remote
    url, folder, checksum, what = sys.argv[1:]
    if what == "file":
        of = Remote("a.bin", url, "p", 10**6, checksum)
        _fetch.fetch_file(of, folder, download_if_missing=True, n_retries=5, delay=0.01)
    else:
        if what == "slowly":
            extract = _unpack._extract
            def slow(*args):
                extract(*args)
                print("one", flush=True)
                time.sleep(0.05)
            _unpack._extract = slow
        of = Remote("a.zip", url, "p", 10**6, checksum)
        _unpack.fetch_folder(of, folder, lambda name: name, 10**7,
                             download_if_missing=True, n_retries=5, delay=0.01)
"""


def start(server, folder, what, checksum=SHA):
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(RUN),
            f"{server.url}/a",
            str(folder),
            checksum,
            what,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_end_with_the_same_file(server, tmp_path):
    server.behaviour = lambda handler, call: (time.sleep(0.1), handler.send_part(CONTENT))
    runs = [start(server, tmp_path, "file") for _ in range(2)]
    for run in runs:
        _, errors = run.communicate(timeout=30)
        assert run.returncode == 0, errors
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]
    assert len(server.calls) == 1  # the second one waited


def test_threads_end_with_the_same_file(server, tmp_path):
    server.behaviour = lambda handler, call: (time.sleep(0.1), handler.send_part(CONTENT))
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(fetch(remote(server), tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [str(tmp_path / "a.bin")] * 4
    assert len(server.calls) == 1


def test_a_process_that_hangs_is_not_waited_for_for_ever(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_fetch, "LONGEST_SILENCE", 0.3)
    with (
        _fetch.prepared(str(tmp_path), "a.bin", str),
        pytest.raises(DownloadError, match="no sign of life"),
    ):
        fetch(remote(server), tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_download_that_is_killed_is_gone_on_with(server, tmp_path):
    sent = threading.Event()

    def half(handler, call):
        handler.send(CONTENT[:150_000], length=len(CONTENT))
        sent.set()
        time.sleep(5)

    server.behaviour = half
    run = start(server, tmp_path, "file")
    assert sent.wait(30)
    for _ in range(200):
        with contextlib.suppress(OSError):
            if (tmp_path / "a.bin.part").stat().st_size:
                break
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert names(tmp_path) == ["a.bin.part"]
    server.behaviour = lambda handler, call: handler.send_part(CONTENT)
    assert Path(fetch(remote(server), tmp_path)).read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]


# ----------------------------------------------------------------------------------- archives


def archive_of(files, **changes):
    """A ZIP archive as bytes; a file may come with its mode or other attributes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = changes.get("compress_type", zipfile.ZIP_DEFLATED)
            info.external_attr = changes.get("mode", 0) << 16
            archive.writestr(info, content)
    return made.getvalue()


FILES = {f"d/{k:02}.bin": CONTENT[k : k + 9000] for k in range(12)}


def unpack(server, folder, content, checksum="right", keep=lambda name: name, **changes):
    server.behaviour = lambda handler, call: handler.send_part(content)
    known = f"sha256:{hashlib.sha256(content).hexdigest()}" if checksum == "right" else checksum
    of = remote(server, name="a.zip", url=f"{server.url}/a.zip", checksum=known)
    options = {"limit": 10_000_000, "download_if_missing": True, "n_retries": 0, "delay": 0}
    return fetch_folder(of, str(folder), keep, **{**options, **changes})


def test_an_archive_becomes_a_folder_once(server, tmp_path):
    folder = unpack(server, tmp_path, archive_of(FILES))
    assert {p: Path(folder, p).read_bytes() for p in FILES} == FILES
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == [
        "a", "a.zip",
    ]  # fmt: skip
    (tmp_path / "a.zip").unlink()  # not needed any more
    assert unpack(server, tmp_path, b"") == folder
    assert len(server.calls) == 1


@pytest.mark.parametrize("change", ["gone", "shorter", "list gone", "list damaged"])
def test_a_folder_that_is_not_whole_is_not_taken_for_whole(server, tmp_path, change):
    folder = Path(unpack(server, tmp_path, archive_of(FILES)))
    if change == "gone":
        (folder / "d" / "03.bin").unlink()
    elif change == "shorter":
        (folder / "d" / "03.bin").write_bytes(b"x")
    elif change == "list gone":
        (folder / _unpack.WHOLE).unlink()
    else:
        (folder / _unpack.WHOLE).write_text('{"d/00.bin": [')
    assert unpack(server, tmp_path, archive_of(FILES)) == str(folder)
    assert {p: (folder / p).read_bytes() for p in FILES} == FILES
    assert len(server.calls) == 1


HOSTILE = {
    "../out.bin": "leads out",
    "d/../../out.bin": "leads out",
    "/tmp/out.bin": "leads out",
    "C:/out.bin": "leads out",
    "c:out.bin": "leads out",
    "d\\..\\..\\out.bin": "leads out",
    "\\\\host\\out.bin": "leads out",
    "..": "leads out",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_written_outside_the_folder(server, tmp_path, name):
    home = tmp_path / "deep" / "er"
    with pytest.raises(DownloadError, match=HOSTILE[name]):
        unpack(server, home, archive_of({"d/0.bin": b"0", name: b"1"}))
    assert names(tmp_path) in (
        ["a.unpacking", "a.zip", "deep", "er"], ["a.zip", "deep", "er"],
    )  # fmt: skip
    assert not Path("/tmp/out.bin").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(server, tmp_path, kind):
    content = archive_of({"d/a": b"/etc/passwd"}, mode=kind | 0o777)
    with pytest.raises(DownloadError, match="link or a device"):
        unpack(server, tmp_path, content)
    with pytest.raises(DownloadError, match="another archive"):  # not wanted, so not looked at
        unpack(server, tmp_path, content, keep=lambda name: None)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_meet_are_refused(server, tmp_path, monkeypatch):
    for names, caseless in ((("d/a.bin", "d/a.bin"), False), (("d/a.bin", "d/A.BIN"), True)):
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for name in names:
                archive.writestr(name, b"1")
        if caseless:
            monkeypatch.setattr(_unpack, "_swapped", lambda folder: folder)
        with pytest.raises(DownloadError, match="two entries"):
            unpack(server, tmp_path / str(caseless), made.getvalue())
    for files in ({"a": b"", "a/b": b"1"}, {"a/b": b"1", "a": b""}, {"x" * 300: b"1"}):
        with pytest.raises(DownloadError):
            unpack(server, tmp_path / next(iter(files))[:9], archive_of(files))


def test_bombs_are_refused(server, tmp_path, monkeypatch):
    with pytest.raises(DownloadError, match="would grow"):
        unpack(server, tmp_path / "1", archive_of({"a": bytes(5_000_000)}))
    with pytest.raises(DownloadError, match="bytes; 50,000 are allowed"):
        unpack(server, tmp_path / "2", archive_of(FILES), limit=50_000)
    monkeypatch.setattr(_unpack, "MOST_FILES", 11)
    with pytest.raises(DownloadError, match="12 entries; 11 are allowed"):
        unpack(server, tmp_path / "3", archive_of(FILES))
    monkeypatch.setattr(_unpack, "LARGEST_INDEX", 100)
    with pytest.raises(DownloadError, match="list of files has"):
        unpack(server, tmp_path / "4", archive_of(FILES))


def test_a_size_that_is_a_lie_is_found(server, tmp_path):
    for declared in (100, 20_000):
        content = bytearray(archive_of({"a": CONTENT[:9000]}))
        at = content.rfind(b"PK\1\2")
        content[at + 24 : at + 28] = declared.to_bytes(4, "little")
        with pytest.raises(DownloadError, match=r"damaged|cut short"):
            unpack(server, tmp_path / str(declared), bytes(content))
        assert not (tmp_path / str(declared) / "a").exists()


def test_what_is_not_unpacked_here_is_refused(server, tmp_path):
    with pytest.raises(DownloadError, match="compressed in a way"):
        unpack(server, tmp_path / "1", archive_of({"a": b"1"}, compress_type=zipfile.ZIP_LZMA))
    content = bytearray(archive_of({"a": b"1"}))
    content[content.rfind(b"PK\1\2") + 8] |= 1
    with pytest.raises(DownloadError, match="encrypted"):
        unpack(server, tmp_path / "2", bytes(content))
    with pytest.raises(DownloadError, match="another archive"):
        unpack(server, tmp_path / "3", archive_of(FILES), keep=lambda name: None)


def test_an_archive_cut_short_is_an_error_and_then_mended(server, tmp_path):
    good = archive_of(FILES)
    with pytest.raises(DownloadError, match="no whole ZIP"):
        unpack(server, tmp_path, good[:-30], checksum=None)
    assert not (tmp_path / "a").exists()
    assert unpack(server, tmp_path, good, checksum=None)


def test_every_damage_of_an_archive_is_recovered_from_or_said(server, tmp_path):
    good, rng = archive_of({"d/a": CONTENT[:300], "d/b": b"x" * 300}), np.random.default_rng(0)
    for k in range(150):
        damaged = bytearray(good)
        for at in rng.integers(0, len(good), rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        folder = tmp_path / str(k)
        try:
            unpack(server, folder, bytes(damaged), checksum=None, limit=10_000)
        except DownloadError:
            assert not (folder / "a").exists()
        else:
            sizes = [p.stat().st_size for p in (folder / "a").rglob("*") if p.is_file()]
            assert sizes
    assert names(tmp_path.parent) == names(tmp_path.parent)


NAMES = st.text("ab./\\:C~\0é ", max_size=9) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20
)


@given(
    files=st.dictionaries(NAMES, st.binary(max_size=99), max_size=5),
    mode=st.sampled_from([0, stat.S_IFREG | 0o4777, stat.S_IFLNK | 0o777, stat.S_IFDIR]),
    keep=st.sampled_from([lambda name: name, lambda name: f"x/{name}"]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_any_archive_stays_in_its_folder(files, mode, keep):
    with tempfile.TemporaryDirectory() as outside:
        home = Path(outside, "deep", "er")
        home.mkdir(parents=True)
        (home / "a.zip").write_bytes(archive_of(files, mode=mode))
        with contextlib.suppress(DownloadError):
            folder = fetch_folder(
                Remote("a.zip", "http://127.0.0.1:9/", "page", 10_000),
                str(home),
                keep,
                10_000,
                download_if_missing=False,
                n_retries=0,
                delay=0,
            )
            with zipfile.ZipFile(home / "a.zip") as archive:
                expected = [archive.read(of) for of in archive.infolist() if not of.is_dir()]
            there = [path for path in Path(folder).rglob("*") if path.is_file()]
            contents = [path.read_bytes() for path in there if path.name != _unpack.WHOLE]
            assert sorted(contents) == sorted(expected)
        assert os.listdir(outside) == ["deep"]
        assert os.listdir(home.parent) == ["er"]
        assert {*os.listdir(home)} <= {"a", "a.zip", "a.unpacking", ".a.zip.lock"}
        assert not any(path.is_symlink() for path in home.rglob("*"))


def test_a_disk_that_is_full_is_said_and_gone_on_with(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1 << 40})
    monkeypatch.setattr(_unpack.shutil, "disk_usage", lambda path: usage)
    write, calls = _unpack.shutil.copyfileobj, []

    def full(source, file, length):
        calls.append(1)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        write(source, file, length)

    monkeypatch.setattr(_unpack.shutil, "copyfileobj", full)
    with pytest.raises(DownloadError, match=r"the disk is full; call again"):
        unpack(server, tmp_path, archive_of(FILES))
    assert not (tmp_path / "a").exists()
    assert unpack(server, tmp_path, archive_of(FILES))
    assert len(calls) == 5 + 8  # four were done
    usage.free = 10
    with pytest.raises(DownloadError, match="the disk has 10 left"):
        unpack(server, tmp_path / "other", archive_of(FILES))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_unpacking_that_is_killed_is_gone_on_with(server, tmp_path):
    content = archive_of(FILES)
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    server.behaviour = lambda handler, call: handler.send_part(content)
    run = start(server, tmp_path, "slowly", checksum)
    for _ in range(5):
        assert run.stdout.readline() == "one\n"
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert not (tmp_path / "a").exists()
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "a.unpacking" / "d").glob("*.bin")}
    assert len(kept) >= 5
    assert unpack(server, tmp_path, content)
    assert {p: (tmp_path / "a" / p).read_bytes() for p in FILES} == FILES
    assert not list(tmp_path.rglob("*.part"))
    for path, changed in kept.items():
        assert (tmp_path / "a" / "d" / path.name).stat().st_mtime_ns == changed


# ----------------------------------------------------------------------------------- MedMNIST


def medmnist(n_findings=1, size=28, **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 5), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, size, size), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (n, n_findings), dtype=np.uint8)
    arrays.update(changes)
    made = io.BytesIO()
    np.savez_compressed(made, **{k: v for k, v in arrays.items() if v is not None})
    return made.getvalue(), arrays


@pytest.fixture
def serve(server, monkeypatch):
    """Let the fetchers get a content from the server, as if it were the publishers' file."""

    def put(content):
        server.behaviour = lambda handler, call: handler.send_part(content)
        original = _medmnist.remote

        def local(name, size):
            of = original(name, size)
            return Remote(of.name, f"{server.url}/{of.name}", of.page, of.limit,
                          f"md5:{hashlib.md5(content).hexdigest()}")  # fmt: skip

        monkeypatch.setattr(_medmnist, "remote", local)

    return put


@pytest.mark.parametrize("split", [None, "train", "val", "test"])
@pytest.mark.parametrize("size", [28, 64])
def test_pneumoniamnist(serve, tmp_path, split, size):
    content, arrays = medmnist(size=size)
    serve(content)
    with pytest.warns(PatientWarning, match="does not tell the patients") as warned:
        bunch = fetch_pneumoniamnist(size=size, split=split, data_home=tmp_path)
    assert warned[0].filename == __file__
    splits = ["train", "val", "test"] if split is None else [split]
    np.testing.assert_array_equal(
        bunch.data, np.concatenate([arrays[f"{of}_images"] for of in splits])
    )
    labels = np.concatenate([arrays[f"{of}_labels"] for of in splits])[:, 0]
    assert bunch.target.tolist() == [("normal", "pneumonia")[label] for label in labels]
    assert bunch.target_names == ["normal", "pneumonia"]
    assert len(set(bunch.groups)) == len(bunch.data)
    assert sorted(set(bunch.split)) == sorted(splits)
    assert list(bunch.frame) == ["index", "target", "group", "source", "split"]
    assert "CC BY 4.0" in bunch.DESCR
    file = "pneumoniamnist.npz" if size == 28 else f"pneumoniamnist_{size}.npz"
    assert names(tmp_path) == ["medmnist", file]


def test_chestmnist(serve, tmp_path):
    content, arrays = medmnist(14)
    serve(content)
    with pytest.warns(PatientWarning):
        bunch = fetch_chestmnist(data_home=tmp_path)
    assert bunch.target.dtype == np.float64
    np.testing.assert_array_equal(bunch.target[:5], arrays["train_labels"])
    assert bunch.target_names[:2] == ["atelectasis", "cardiomegaly"]
    assert bunch.frame.shape == (10, 18)


def test_the_real_file_is_read(shared_data):
    path = shared_data / "pneumoniamnist" / "pneumoniamnist_trainval.npz"
    bunch = _medmnist.load(str(path), "pneumoniamnist", 28, ("train", "val"))
    with np.load(path) as arrays:
        np.testing.assert_array_equal(bunch.data[bunch.split == "val"], arrays["val_images"])
        expected = arrays["train_labels"][:, 0] == 1
    np.testing.assert_array_equal(bunch.target[bunch.split == "train"] == "pneumonia", expected)


class Canary:
    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.mark.parametrize(
    "changes",
    [{"train_images": None}, {"val_labels": None},
     {"train_images": np.zeros((5, 28, 28), np.float64)},
     {"train_images": np.zeros((5, 28, 28, 3), np.uint8)},
     {"train_images": np.zeros((5, 27, 28), np.uint8)},
     {"train_images": np.zeros((0, 28, 28), np.uint8)},
     {"train_labels": np.full((5, 1), 2, np.uint8)}, {"train_labels": np.zeros((4, 1), np.uint8)},
     {"train_labels": np.zeros(5, np.uint8)}, {"train_labels": np.array([["a"]] * 5)},
     {"train_images": np.asfortranarray(np.zeros((5, 28, 28), np.uint8))},
     {"train_labels": np.array([[Canary()]] * 5, dtype=object)}],
    ids=str,
)  # fmt: skip
def test_arrays_that_do_not_fit_are_errors(changes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npz").write_bytes(medmnist(**changes)[0])
    with pytest.raises(DatasetError, match=r"a\.npz"):
        _medmnist.load("a.npz", "pneumoniamnist", 28)
    assert not (tmp_path / "canary").exists()


def test_hostile_arrays_are_errors(tmp_path):
    head = b"\x93NUMPY\x01\x00v\x00"
    said = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 28, 28), }"
    bodies = [
        b"", b"\x93NUMPY", head + said.ljust(117).encode() + b"\n",
        head + b"__import__('os').mkdir('canary')".ljust(117) + b"\n",
        b"\x93NUMPY\x03\x00\xff\xff\xff\xff" + b"(" * 1000, b"\x80\x04.",
    ]  # fmt: skip
    for k, body in enumerate(bodies):
        path = tmp_path / f"{k}.npz"
        path.write_bytes(archive_of({"train_images.npy": body, "train_labels.npy": body}))
        with pytest.raises(DatasetError):
            _medmnist.load(str(path), "pneumoniamnist", 28, ("train",))
    for k, content in enumerate([b"", b"PK\3\4", b"<html>", medmnist()[0][:-40]]):
        path = tmp_path / f"x{k}.npz"
        path.write_bytes(content)
        with pytest.raises(DatasetError):
            _medmnist.load(str(path), "pneumoniamnist", 28)


def test_every_damage_of_a_file_of_arrays_is_said_or_harmless(tmp_path):
    good, rng = medmnist()[0], np.random.default_rng(0)
    path = tmp_path / "a.npz"
    for _ in range(200):
        damaged = bytearray(good)
        for at in rng.integers(0, len(good), rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(DatasetError):
            assert _medmnist.load(str(path), "pneumoniamnist", 28).data.shape == (10, 28, 28)


def test_parameters_are_checked():
    for wrong in ({"size": 32}, {"split": "dev"}, {"n_retries": -1}, {"data_home": 3}):
        with pytest.raises(ValueError, match="parameter"):
            fetch_pneumoniamnist(**wrong)
    for name in ("pneumoniamnist", "chestmnist"):
        for size in _medmnist.SIZES:
            of = _medmnist.remote(name, size)
            assert of.url.startswith("https://zenodo.org/records/10519652/files/")
            assert len(of.checksum) == len("md5:") + 32


# ---------------------------------------------------------------------- Kermany and COVID-19


def png(value=0):
    made = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, dtype=np.uint8)).save(made, "png")
    return made.getvalue()


@pytest.fixture
def publish(server, monkeypatch):
    def put(constant, content, **changes):
        server.behaviour = lambda handler, call: handler.send_part(content)
        of = getattr(_public, constant)
        told = {"name": of.name, "url": f"{server.url}/{of.name}", "page": of.page,
                "limit": of.limit, "checksum": None, **changes}  # fmt: skip
        monkeypatch.setattr(_public, constant, Remote(**told))

    return put


def test_kermany(publish, tmp_path):
    files = {
        f"chest_xray/{name}": png(k)
        for k, name in enumerate([
            "train/NORMAL/IM-0115-0001.jpeg", "train/PNEUMONIA/person1_bacteria_1.jpeg",
            "train/PNEUMONIA/person1_bacteria_2.jpeg", "test/PNEUMONIA/person5_virus_9.jpeg",
            "test/NORMAL/IM-0001-0001.jpeg", "train/NORMAL/.DS_Store", ".DS_Store",
        ])
    }  # fmt: skip
    files["__MACOSX/chest_xray/train/NORMAL/._IM-0115-0001.jpeg"] = b"?"
    publish("KERMANY", archive_of(files))
    bunch = fetch_kermany(data_home=tmp_path)
    assert len(bunch.data) == 5
    assert bunch.target_names == ["NORMAL", "PNEUMONIA"]
    assert bunch.groups.tolist().count("person1_bacteria") == 2
    assert sorted(set(bunch.split)) == ["test", "train"]
    assert set(bunch.source) == {"Kermany 2018"}
    assert bunch.skipped == []
    assert "CC BY 4.0" in bunch.DESCR
    caused = fetch_kermany(cause=True, data_home=tmp_path, download_if_missing=False)
    assert caused.target_names == ["BACTERIA", "NORMAL", "VIRUS"]
    assert caused.frame["target"].tolist() == caused.target.tolist()
    assert "- VIRUS: 1 image" in caused.DESCR


def test_kermany_is_another_archive(publish, tmp_path):
    publish("KERMANY", archive_of(FILES))
    with pytest.raises(DownloadError, match="none of the files that are expected"):
        fetch_kermany(data_home=tmp_path)
    with pytest.raises(DownloadError, match="download_if_missing is False"):
        fetch_kermany(data_home=tmp_path / "x", download_if_missing=False)
    assert names(tmp_path / "x") == []


COVID19_TABLE = """\
patientid,sex,age,finding,view,modality,location,folder,filename,license
2,M,65,Pneumonia/Viral/COVID-19,PA,X-ray,"Hanoi, Vietnam",images,a.png,
2,M,65,Pneumonia/Viral/COVID-19,L,X-ray,,images,b.png,CC BY-NC-SA
324a,F,,No Finding,AP Supine,X-ray,,images,c.png,CC BY 4.0
5,,40,Pneumonia/Viral/COVID-19,Axial,CT,,images,d.png,
6,,40,todo,PA,X-ray,,images,a.png,
7,,40,Pneumonia,AP,X-ray,,images,gone.png,
8,,40,Pneumonia,AP,X-ray,,volumes,e.nii.gz,
"""


def covid19_archive(commit=_public._COMMIT):
    top = f"covid-chestxray-dataset-{commit}"
    files = {f"{top}/images/{name}.png": png(k) for k, name in enumerate("abcd")}
    files[f"{top}/metadata.csv"] = COVID19_TABLE
    files[f"{top}/annotations/x.png"] = png()
    return archive_of(files)


def test_covid19_image_data(publish, tmp_path):
    publish("COVID19", covid19_archive())
    bunch = fetch_covid19_image_data(data_home=tmp_path)
    assert [Path(path).name for path in bunch.data] == ["a.png", "b.png", "c.png"]
    assert bunch.target.tolist() == ["Pneumonia/Viral/COVID-19"] * 2 + ["No Finding"]
    assert bunch.groups.tolist() == ["2", "2", "324a"]
    assert bunch.frame["view"].tolist() == ["PA", "lateral", "AP supine"]
    assert bunch.frame["license"].tolist()[1:] == ["CC BY-NC-SA", "CC BY 4.0"]
    assert bunch.frame["age"].tolist()[:2] == [65, 65]
    reasons = " ".join(skipped.reason for skipped in bunch.skipped)
    assert "row 4: CT" in reasons
    assert "row 5: no label (todo)" in reasons
    assert "no such file" in reasons
    assert len(bunch.skipped) == 4
    frontal = fetch_covid19_image_data(views="frontal", data_home=tmp_path)
    assert [Path(path).name for path in frontal.data] == ["a.png", "c.png"]
    with pytest.raises(ValueError, match="'axial'"):
        fetch_covid19_image_data(views="axial", data_home=tmp_path)


def test_covid19_of_another_commit_is_refused(publish, tmp_path):
    publish("COVID19", covid19_archive("0" * 40))
    with pytest.raises(DownloadError, match="another archive"):
        fetch_covid19_image_data(data_home=tmp_path)


def test_published_addresses_are_encrypted_and_limited():
    for of in (_public.KERMANY, _public.COVID19):
        assert of.url.startswith("https://")
        assert of.page.startswith("https://")
        assert 0 < of.limit < 5 << 30
    assert len(_public.KERMANY.checksum) == len("sha256:") + 64
