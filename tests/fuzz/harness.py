"""What the fuzz targets share: the oracle, the runner, and mutations of bytes.

A target is a module with ``TARGET = Target(...)``. It is run in one of three ways:

    python tests/fuzz/fuzz_images.py --mutations 200000 --seed 0     # the same inputs each time
    python tests/fuzz/fuzz_images.py --seconds 600                   # guided by coverage (atheris)
    python tests/fuzz/fuzz_images.py --replay failures/*             # inputs that failed before

A mutation is a function of the seed and its number. A process that dies or hangs is counted
and followed by another one, which goes on behind the input that did it.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 5.0  # most that one input may compute
WAIT_SECONDS = 15.0  # most that it may take on a machine that does other things too
HANG_SECONDS = 30.0  # after which a process is given up
MEGABYTES = 1024  # most memory that a process may have held
STATS = "stats.json"


@dataclass
class Target:
    """One public entry.

    Parameters
    ----------
    name : str
        Name of the module.
    seeds : callable of a folder
        Inputs that are well formed, by kind; it may leave files in the folder.
    mutate : callable of seeds and random.Random
        The kind of an input, and the input.
    run : callable of the input and the folder
        What came of it, in a word. It may raise what the entry raises.
    base_megabytes : int
        Memory of the libraries that are needed, which an input is not to blame for.
    """

    name: str
    seeds: Callable[[Path], dict[str, bytes]]
    mutate: Callable[[dict[str, bytes], random.Random], tuple[str, bytes]]
    run: Callable[[bytes, Path], str]
    base_megabytes: int = 0
    prepare: Callable[[Path], None] = field(default=lambda folder: None)


# --------------------------------------------------------------------------------------------
# the oracle
# --------------------------------------------------------------------------------------------


class Wrong(Exception):  # noqa: N818
    """An input did what none may do."""


def allowed() -> tuple[type[BaseException], ...]:
    """What may come out of a public entry."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils._param_validation import InvalidParameterError

    from skcxr import SkcxrError

    return SkcxrError, InvalidParameterError, NotFittedError


def global_state() -> dict[str, Any]:
    """What belongs to the program and not to us."""
    from PIL import Image, ImageFile

    state: dict[str, Any] = {
        "modules": len(sys.modules),
        "Image.MAX_IMAGE_PIXELS": Image.MAX_IMAGE_PIXELS,
        "Image.OPEN": tuple(Image.OPEN),
        "Image.ID": tuple(Image.ID),
        "ImageFile.LOAD_TRUNCATED_IMAGES": ImageFile.LOAD_TRUNCATED_IMAGES,
        "ImageFile.MAXBLOCK": ImageFile.MAXBLOCK,
        "warnings.filters": tuple(warnings.filters),
        "warnings.showwarning": warnings.showwarning,
        "random": hash(random.getstate()),
        "numpy.random": hash(np.random.get_state()[1].tobytes()),
        "numpy.errstate": tuple(np.geterr().items()),
        "logging": (logging.root.level, logging.root.disabled, tuple(logging.root.handlers)),
        "working directory": os.getcwd(),
        "recursion limit": sys.getrecursionlimit(),
    }
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "get_rng_state"):
        state["torch"] = hash(torch.get_rng_state().numpy().tobytes())
        state["torch threads"] = torch.get_num_threads()
    if (config := sys.modules.get("pydicom.config")) is not None:
        state.update({
            f"pydicom.config.{name}": repr(getattr(config, name))
            for name in ("settings", "convert_wrong_length_to_UN", "use_DS_decimal", "debugging",
                         "assume_implicit_vr_switch", "show_file_meta", "data_element_callback")
            if hasattr(config, name)
        })  # fmt: skip
        state["pydicom.settings"] = repr(vars(config.settings))
    for name in ("pydicom", "PIL", "pooch"):
        logger = logging.root.manager.loggerDict.get(name)
        if isinstance(logger, logging.Logger):
            state[f"logger {name}"] = logger.level, logger.disabled, tuple(logger.handlers)
    return state


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of what differs; what a late import has added is no change."""
    return [
        name
        for name in before
        if name != "modules"
        and before[name] != after.get(name)
        and not (
            name in ("Image.OPEN", "Image.ID", "warnings.filters")
            and before["modules"] < after["modules"]
            and set(before[name]) <= set(after[name])
        )
    ]


class Strays:
    """Hears, by an audit hook, of files that are written outside a folder."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.found: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        path = None
        if event == "open":
            name, mode, flags = args
            writes = isinstance(flags, int) and flags & (
                os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
            )
            if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
                path = name
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.symlink"):
            path = args[-2] if event == "os.symlink" else args[0]
        elif event in ("os.rename", "os.link"):
            path = args[1]
        elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn",
                       "socket.connect", "socket.getaddrinfo", "pickle.find_class"):  # fmt: skip
            self.found.append(f"{event} {str(args)[:200]}")
        if isinstance(path, bytes | str | os.PathLike):
            where = os.path.realpath(os.fsdecode(path))
            inside = where.startswith((self.folder, "/dev/null", "/proc/", "/sys/"))
            if not inside and "__pycache__" not in where:
                self.found.append(f"{event} {where!r}")


_strays: Strays | None = None


@contextmanager
def aside() -> Iterator[None]:
    """What a target does itself is not watched."""
    folder = None if _strays is None else _strays.folder
    if _strays is not None:
        _strays.folder = None
    try:
        yield
    finally:
        if _strays is not None:
            _strays.folder = folder


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """An exception in the midst of Python code that runs too long."""

    def ring(*args: Any) -> None:
        raise Wrong(f"still running after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check(target: Target, data: bytes, folder: Path) -> tuple[str, float]:
    """Run one input; return what came of it and the seconds. Raise Wrong where it may not be."""
    global _strays
    if _strays is None:
        _strays = Strays()
    from skcxr import SkcxrWarning

    before = global_state()
    _strays.found.clear()
    _strays.folder = os.path.realpath(folder)
    start = time.process_time()
    try:
        with _alarm(WAIT_SECONDS), warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", SkcxrWarning)
            inside = global_state()
            outcome = target.run(data, folder)
            moved = changes(inside, global_state())
    except allowed() as error:
        outcome, moved = type(error).__name__, changes(before, global_state())
        if not str(error).isprintable():
            raise Wrong(f"a message that cannot be printed: {str(error)[:300]!r}") from error
        if len(str(error)) > 20_000:
            raise Wrong(f"a message of {len(str(error))} characters") from error
    except Wrong:
        raise
    except BaseException as error:
        where = "".join(traceback.format_exception(error)[-6:])
        raise Wrong(f"{type(error).__name__}: {str(error)[:300]}\n{where}") from error
    finally:
        _strays.folder = None
    seconds = time.process_time() - start
    if seconds > SECONDS:
        raise Wrong(f"took {seconds:.1f} s")
    if moved := moved + changes(before, global_state()):
        raise Wrong(f"changed {moved}")
    if _strays.found:
        raise Wrong(f"outside of its folder: {_strays.found[:3]}")
    return outcome, seconds


def warm(target: Target, seeds: dict[str, bytes], folder: Path) -> None:
    """Import what is imported late: an input is not to blame for it."""
    for data in seeds.values():
        with suppress(*allowed()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.run(data, folder)


def peak_megabytes() -> float:
    """Most memory that this process has held."""
    try:  # what getrusage says begins with the memory of the process that started this one
        with open("/proc/self/status") as file:
            return int(file.read().partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        pass
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1024 * 1024 if sys.platform == "darwin" else 1024)


# --------------------------------------------------------------------------------------------
# runs
# --------------------------------------------------------------------------------------------


def _rng(seed: int, index: int) -> random.Random:
    return random.Random(f"{seed} {index}")


def _work(target: Target, args: argparse.Namespace) -> int:
    """Mutations from `first` on in this process; what came of them goes to a file."""
    place = Path(args.place)
    folder = place / "work"
    folder.mkdir(exist_ok=True)
    seeds = target.seeds(folder)
    target.prepare(folder)
    warm(target, seeds, folder)
    counts: Counter[str] = Counter()
    slowest, failures = [0.0, -1, ""], []
    limit = MEGABYTES + target.base_megabytes
    with open(place / "at", "wb", buffering=0) as at:
        for index in range(args.first, args.mutations):
            os.pwrite(at.fileno(), f"{index:012}".encode(), 0)
            kind, data = target.mutate(seeds, _rng(args.seed, index))
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            wrong, seconds = None, 0.0
            try:
                outcome, seconds = check(target, data, folder)
            except Wrong as error:
                outcome, wrong = "FAILED", str(error)
            faulthandler.cancel_dump_traceback_later()
            full = peak_megabytes() > limit
            if full and wrong is None:
                outcome, wrong = "FAILED", f"memory of {peak_megabytes():.0f} MB"
            counts[f"{kind}: {outcome}"] += 1
            if seconds > slowest[0]:
                slowest = [seconds, index, kind]
            if wrong is not None:
                failures.append([index, kind, wrong])
            if full or index % 2000 == 0 or wrong is not None or index == args.mutations - 1:
                stats = {"next": index + 1, "counts": counts, "slowest": slowest,
                         "failures": failures, "peak": peak_megabytes()}  # fmt: skip
                part = place / "part"
                part.write_text(json.dumps(stats))
                part.replace(place / STATS)
            if full:
                return 0  # another process begins with little memory
    return 0


def _supervise(target: Target, args: argparse.Namespace) -> int:
    """Run mutations in processes that may die."""
    place = Path(tempfile.mkdtemp(prefix=f"skcxr-{target.name}-"))
    keep = Path(args.keep)
    counts: Counter[str] = Counter()
    slowest, failures, peak, first = [0.0, -1, ""], [], 0.0, args.first
    began = time.time()
    while first < args.mutations:
        (place / STATS).unlink(missing_ok=True)
        command = [sys.executable, sys.argv[0], "--place", str(place), "--first", str(first),
                   "--mutations", str(args.mutations), "--seed", str(args.seed)]  # fmt: skip
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
        stats: dict[str, Any] = {"next": first}
        if (place / STATS).exists():
            stats = json.loads((place / STATS).read_text())
        if not (place / "at").exists():
            print(done.stderr[-3000:], file=sys.stderr)
            return 2
        at = int((place / "at").read_text())
        counts.update(stats.get("counts", {}))
        slowest = max(slowest, stats.get("slowest", slowest))
        failures += stats.get("failures", [])
        peak = max(peak, stats.get("peak", 0.0))
        if done.returncode == 0:
            first = stats["next"]
            continue
        died = f"signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
        counts["process died: FAILED"] += 1
        counts["inputs of a dead process, not counted by kind"] += at - stats["next"]
        failures.append([at, "died", f"the process died ({died}): {done.stderr[-1500:]}"])
        first = at + 1
    shutil.rmtree(place, ignore_errors=True)
    _report(target, args, counts, slowest, failures, peak, time.time() - began)
    _keep_failures(target, args.seed, failures, keep)
    return 1 if failures else 0


def _report(
    target: Target,
    args: argparse.Namespace,
    counts: Counter[str],
    slowest: list[Any],
    failures: list[Any],
    peak: float,
    seconds: float,
) -> None:
    for name, count in sorted(counts.items()):
        print(f"{count:8} {name}")
    print(f"{sum(counts.values()):8} inputs in {seconds:.0f} s, seed {args.seed}")
    print(f"slowest: {slowest[0]:.3f} s, number {slowest[1]} ({slowest[2]})")
    print(f"most memory: {peak:.0f} MB, of which libraries may have {target.base_megabytes}")
    print(f"{len(failures)} failures")


def _keep_failures(target: Target, seed: int, failures: list[Any], keep: Path) -> None:
    if not failures:
        return
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        seeds = target.seeds(Path(place))
        for index, kind, wrong in failures:
            name = keep / f"{target.name}-{seed}-{index}"
            name.write_bytes(target.mutate(seeds, _rng(seed, index))[1])
            print(f"\n{kind}, number {index}: {wrong}")
            print(f"  again: python {sys.argv[0]} --replay {name}")


def _replay(target: Target, files: list[str]) -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        seeds = target.seeds(Path(place))
        target.prepare(Path(place))
        warm(target, seeds, Path(place))
        for file in files:
            try:
                outcome, seconds = check(target, Path(file).read_bytes(), Path(place))
                print(f"{file}: {outcome}, {seconds:.3f} s, {peak_megabytes():.0f} MB")
            except Wrong as error:
                failed += 1
                print(f"{file}: FAILED: {error}")
    return 1 if failed else 0


def _guided(target: Target, args: argparse.Namespace) -> int:
    """Let atheris look for inputs that reach new code."""
    try:
        import atheris
    except ImportError:
        print("atheris is not installed; it has wheels for Linux on x86_64. Use --mutations.")
        return 77
    with atheris.instrument_imports(include=["skcxr"]):
        import skcxr.images  # noqa: F401
    keep = Path(args.keep)
    place = Path(tempfile.mkdtemp(prefix=f"skcxr-{target.name}-"))
    seeds = target.seeds(place)
    target.prepare(place)
    warm(target, seeds, place)
    corpus = Path(args.corpus or tempfile.mkdtemp(prefix="skcxr-corpus-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for kind, data in seeds.items():
        (corpus / kind).write_bytes(data)

    megabytes = MEGABYTES + target.base_megabytes

    def one(data: bytes) -> None:
        check(target, data, place)
        if peak_megabytes() > megabytes:
            raise Wrong(f"memory of {peak_megabytes():.0f} MB")

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return target.mutate({**seeds, "corpus": data}, rng)[1][:max_size]

    keep.mkdir(parents=True, exist_ok=True)
    # libFuzzer's own limit would count the memory of the process that started this one
    options = [sys.argv[0], str(corpus), f"-artifact_prefix={keep}{os.sep}", "-max_len=65536",
               f"-timeout={int(HANG_SECONDS)}", "-rss_limit_mb=0",
               f"-seed={args.seed + 1}", "-print_final_stats=1"]  # fmt: skip
    options += [f"-max_total_time={args.seconds}"] if args.seconds else []
    options += [f"-runs={args.runs}"] if args.runs else []
    atheris.Setup(options, one, custom_mutator=change)
    atheris.Fuzz()
    return 0


def main(target: Target) -> int:
    """The command line of a target."""
    parser = argparse.ArgumentParser(description=f"{target.name}: see tests/fuzz/harness.py")
    parser.add_argument("--mutations", type=int, help="inputs, the same for the same seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, help="guided by coverage (atheris), this long")
    parser.add_argument("--runs", type=int, help="guided by coverage (atheris), so many inputs")
    parser.add_argument("--replay", nargs="+", metavar="FILE", help="inputs that failed")
    parser.add_argument("--keep", default=os.path.join(tempfile.gettempdir(), "skcxr-failures"),
                        help="folder for inputs that fail")  # fmt: skip
    parser.add_argument("--corpus", help="folder in which atheris keeps what it has found")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--place", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.place:
        return _work(target, args)
    if args.replay:
        return _replay(target, args.replay)
    if args.mutations:
        return _supervise(target, args)
    return _guided(target, args)


def short_run(target: Target, n: int, seed: int, folder: Path) -> Counter[str]:
    """Mutations in this process, for a test; raise Wrong at the first that fails."""
    seeds = target.seeds(folder)
    target.prepare(folder)
    warm(target, seeds, folder)
    counts: Counter[str] = Counter()
    for index in range(n):
        kind, data = target.mutate(seeds, _rng(seed, index))
        try:
            outcome, _ = check(target, data, folder)
        except Wrong as error:
            raise Wrong(f"number {index} of seed {seed} ({kind}): {error}") from error
        counts[f"{kind}: {outcome}"] += 1
        counts[outcome] += 1
    return counts


# --------------------------------------------------------------------------------------------
# mutations of bytes
# --------------------------------------------------------------------------------------------

EDGES = [0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 254, 255, 256, 1000, 32767, 32768, 65535, 65536,
         2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random, others: list[bytes] | None = None) -> bytes:
    """Flip, cut, repeat, splice, or write a number, in one to some places."""
    out = bytearray(data)
    reach = rng.choice([len(out), len(out), 64, 300])
    for _ in range(rng.choice([1, 1, 1, 2, 3, 10])):
        if not out:
            break
        at = rng.randrange(min(reach, len(out)))
        how = rng.randrange(10)
        if how == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            out[at] = rng.randrange(256)
        elif how == 2:
            width = rng.choice([1, 2, 4, 8])
            value = rng.choice(EDGES) % 256**width
            out[at : at + width] = value.to_bytes(width, rng.choice(["little", "big"]))
        elif how == 3:
            width = rng.choice([1, 2, 4])
            order = rng.choice(["little", "big"])
            value = int.from_bytes(out[at : at + width], order) + rng.randrange(-16, 17)
            out[at : at + width] = (value % 256**width).to_bytes(width, order)
        elif how == 4:
            del out[at:]
        elif how == 5:
            del out[at : at + rng.choice([1, 2, 4, 16, 1000])]
        elif how == 6:
            out[at:at] = rng.randbytes(rng.choice([1, 2, 4, 100]))
        elif how == 7:
            end = at + rng.choice([1, 4, 16, 200])
            out[at:at] = bytes(out[at:end]) * rng.choice([1, 1, 2, 20])
        elif how == 8:
            to = rng.randrange(len(out))
            n = rng.choice([1, 4, 16, 200])
            out[to : to + n] = out[at : at + n]
        elif others:
            other = rng.choice(others)
            if rng.random() < 0.5:
                out[at:] = other[rng.randrange(len(other) + 1) :]
            else:
                cut = rng.randrange(len(other) + 1)
                out[at : at + 64] = other[cut : cut + 64]
    return bytes(out)
