"""How fast skcxr is, each time as a ratio to a named peer in the same run.

    python -m benchmarks                         all of the suite
    python -m benchmarks loading memory --quick  some of it, on sizes that take seconds
    python -m benchmarks --data FOLDER --weights FILE --out benchmarks

With ``--out`` results.json keeps what was measured; a later run of other benchmarks on the same
machine is added to it, and RESULTS.md, benchmarks.csv and benchmarks.png are drawn from all of it.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import importlib
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console

from benchmarks._suite import Missing, Options, Result, machine, one_at_a_time, shown

SUITE = ("loading", "inference", "training", "search", "memory", "start_up", "growth", "past")
CHOSEN = ("#0072B2", "#D55E00")  # of Okabe and Ito: told apart by all


class Benchmark(Protocol):
    """A module of the suite."""

    __doc__: str | None

    def run(self, options: Options) -> Any:
        """Lines."""


def main(argv: Sequence[str] | None = None, suite: Mapping[str, Benchmark] | None = None) -> int:
    """Run what is named. 0, or 1 if a benchmark failed.

    `suite` is there for tests; None is the modules of :data:`SUITE`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    known = list(SUITE if suite is None else suite)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="a smoke run, in seconds")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="one folder of images per class; else phantoms"
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="of timm:tf_efficientnet_lite0; else drawn"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--repeat", type=int, metavar="N", help="pairs of each benchmark")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the results there")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    given = parser.parse_args(argv)
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(known)}")
    for flag, at_least in (("threads", 1), ("repeat", 1)):
        value = getattr(given, flag)
        if value is not None and value < at_least:
            parser.error(f"--{flag} must be {at_least} or more, got {value}")
    if given.data is not None and not given.data.is_dir():
        parser.error(f"--data {given.data} is no folder")
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {given.device}: torch finds no GPU")

    console = Console(highlight=False, soft_wrap=True)
    if given.list:
        for name in known:
            first = (_module(name, suite).__doc__ or "").partition("\n")[0]
            console.print(f"{name:10} {first}", markup=False)
        return 0

    options = Options(
        given.quick, given.data, given.weights, given.device, given.threads, given.repeat
    )
    here = machine()
    record = Record(given.out, here) if given.out else None
    console.print(described(here), markup=False)
    threads = torch.get_num_threads()
    failed = []
    torch.set_num_threads(options.threads)
    try:
        for name in given.names or known:
            lines: list[Result | Missing] = []
            start = time.perf_counter()
            shown.clear()
            try:
                for line in one_at_a_time(_module(name, suite).run(options)):
                    say(console, line, lines[-1] if lines else None, options.quick)
                    lines.append(line)
            except Exception as error:  # one that fails must not take the others with it
                failed.append(name)
                traceback.print_exc()
                console.print(f"[bold red]ERROR[/] {name}: {type(error).__name__}", highlight=False)
                continue
            console.print(f"[dim]{name}: {time.perf_counter() - start:.0f} s[/]")
            if record:
                record.add(name, options, lines)
    finally:
        torch.set_num_threads(threads)
    if record:
        console.print(f"kept in {given.out}", markup=False)
    if failed:
        console.print(f"failed: {', '.join(failed)}", markup=False)
    return int(bool(failed))


def _module(name: str, suite: Mapping[str, Benchmark] | None) -> Benchmark:
    if suite is not None:
        return suite[name]
    return importlib.import_module(f"benchmarks.{name}")  # type: ignore[return-value]


def say(
    console: Console, line: Result | Missing, before: Result | Missing | None, quick: bool
) -> None:
    """Print a line, below a heading where it is another matter than the one before."""
    if before is None or before.what != line.what:
        console.print(f"\n{line.benchmark}: {line.what}", style="bold", markup=False)
    if isinstance(line, Missing):
        console.print(f"   not measured: {line.peer}: {line.install}", style="yellow", markup=False)
        return
    text = f"  {ratio(line):>24}  {line.peer}: {line.theirs}, skcxr {line.ours}; {pairs(line)}"
    if line.note:
        text += f"; {line.note}"
    console.print(text, markup=False, end="")
    if line.verdict and not quick:  # a smoke run proves nothing
        style = "green" if line.verdict == "met" else "bold red"
        console.print(f"  [{style}]bar {line.bar:g} {line.verdict}[/]", end="")
    console.print()


def ratio(line: Result) -> str:
    """The median of the ratio and its quartiles."""
    low, median, high = (f"{value:.{digits(value)}f}" for value in line.ratio)
    return f"{median}x ({low} to {high})"


def digits(value: float) -> int:
    """How many digits after the point say enough of a ratio."""
    return 0 if value >= 100 else 1 if value >= 10 else 2


def pairs(line: Result) -> str:
    """How often."""
    return f"{line.n} {'pair' if line.n == 1 else 'pairs'}"


def described(here: Mapping[str, Any]) -> str:
    """The machine in a sentence."""
    libraries = ", ".join(
        f"{name} {here[name]}" for name in list(here)[list(here).index("python") :]
    )
    gpu = "" if here["gpu"] == "none" else f"{here['gpu']}, "
    return (
        f"{here['processor']}, {here['cores']} cores, {here['memory']}, {gpu}{here['system']}; "
        f"{libraries}"
    )


class Record:
    """What was measured on one machine, in a folder."""

    def __init__(self, folder: Path, here: Mapping[str, Any]) -> None:
        self.folder = folder
        self.file = folder / "results.json"
        self.content: dict[str, Any] = {"machine": dict(here), "runs": {}}
        if self.file.is_file():
            kept = json.loads(self.file.read_text(encoding="utf-8"))
            if kept["machine"] != self.content["machine"]:
                changed = [
                    f"{key} was {kept['machine'].get(key)!r}, is {value!r}"
                    for key, value in here.items()
                    if kept["machine"].get(key) != value
                ]
                sys.exit(
                    f"{self.file} is of another machine ({'; '.join(changed)}); give another "
                    "folder as --out, or remove it"
                )
            self.content = kept

    def add(self, name: str, options: Options, lines: Sequence[Result | Missing]) -> None:
        """Put the lines of a benchmark in the place of its former ones, and write all files."""
        key = name if options.device == "cpu" else f"{name} ({options.device})"
        self.content["runs"][key] = {
            "date": datetime.date.today().isoformat(),
            "quick": options.quick,
            "threads": options.threads,
            "device": options.device,
            "images": sorted(shown),
            "lines": [
                {"kind": type(line).__name__, **dataclasses.asdict(line)} for line in lines
            ],
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.file, json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")
        _write(self.folder / "RESULTS.md", self.markdown())
        _write(self.folder / "benchmarks.csv", self.csv())
        self.plot(self.folder / "benchmarks.png")

    def runs(self) -> list[tuple[str, dict[str, Any], list[Result | Missing]]]:
        """Name, settings and lines of each run, in the order of the suite."""
        order = {name: place for place, name in enumerate(SUITE)}
        names = sorted(
            self.content["runs"],
            key=lambda name: (name.endswith(")"), order.get(name.split(" (")[0], len(order))),
        )
        return [
            (name, self.content["runs"][name], _lines(self.content["runs"][name]["lines"]))
            for name in names
        ]

    def markdown(self) -> str:
        """A table of each benchmark."""
        parts = [
            "# Results of the benchmarks\n",
            described(self.content["machine"]) + ".\n",
            "Ratios are those of speeds (of amounts, the peer's over skcxr's): above 1 is good for "
            "skcxr. Medians of paired runs, with quartiles in brackets.\n",
        ]
        for name, run, lines in self.runs():
            quick = "a smoke run, whose figures mean little; " if run["quick"] else ""
            parts.append(f"## {name}\n")
            images = f", images: {', '.join(run['images'])}" if run["images"] else ""
            parts.append(
                f"{quick}{run['date']}, {run['threads']} torch "
                f"{'thread' if run['threads'] == 1 else 'threads'}, {run['device']}{images}\n"
            )
            head = ["what", "against", "ratio", "bar", "skcxr", "peer", "pairs"]
            rows = [_row(line, run["quick"])[1:] for line in lines]
            parts.append(
                "\n".join(
                    "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
                    for row in [head, ["---"] * len(head), *rows]
                )
                + "\n"
            )
        return "\n".join(parts)

    def csv(self) -> str:
        """One table of all."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["benchmark", "what", "against", "ratio", "bar", "skcxr", "peer", "pairs"])
        for name, run, lines in self.runs():
            writer.writerows([name, *_row(line, run["quick"])[1:]] for line in lines)
        return text.getvalue()

    def plot(self, file: Path) -> None:
        """Draw the ratios, a row each."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        rows: list[tuple[str, Result | None]] = []
        for name, _, lines in self.runs():
            what = None
            for line in lines:
                if isinstance(line, Missing):
                    continue
                if line.what != what:
                    rows.append((f"{name}: {line.what}", None))
                    what = line.what
                rows.append((line.peer, line))
        shown = [line for _, line in rows if line is not None]
        if not shown:
            return
        height = 1.05 + 0.21 * len(rows)
        drawing = Figure(figsize=(8.5, height), dpi=130)
        FigureCanvasAgg(drawing)
        axes = drawing.add_axes((0.40, 0.55 / height, 0.57, 1 - 0.9 / height))
        axes.set_xscale("log")
        axes.axvline(1, color="0.35", linewidth=1, zorder=0)
        reached = bars = None
        for y, (label, line) in enumerate(rows):
            if line is None:
                axes.text(
                    -0.68, y, label, transform=axes.get_yaxis_transform(), fontsize=8,
                    fontweight="bold", va="center", bbox={"color": "white", "pad": 0.5},
                )  # fmt: skip
                continue
            low, median, high = line.ratio
            axes.axhline(y, color="0.92", linewidth=0.8, zorder=0)
            axes.plot([low, high], [y, y], color=CHOSEN[0], linewidth=2.2, solid_capstyle="butt")
            (reached,) = axes.plot(median, y, "o", color=CHOSEN[0], markersize=5)
            if line.bar is not None:
                (bars,) = axes.plot(
                    line.bar, y, "|", color=CHOSEN[1], markersize=10, markeredgewidth=2
                )
            axes.text(
                -0.02, y, label, transform=axes.get_yaxis_transform(), fontsize=8, ha="right",
                va="center",
            )  # fmt: skip
        ends = [value for line in shown for value in (*line.ratio, line.bar or 1)]
        axes.set_xlim(min(0.8, 0.85 * min(ends)), max(1.25, 1.2 * max(ends)))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks([])
        for steps in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
            ticks = [step * 10.0**power for power in range(-3, 5) for step in steps]
            ticks = [tick for tick in ticks if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
            if len(ticks) > 4:
                break
        axes.set_xticks(ticks, [f"{tick:.3g}x" for tick in ticks], fontsize=8)
        axes.set_xticks([], minor=True)
        axes.set_xlabel(
            "speed of skcxr over the peer's (amounts: the peer's over skcxr's)", fontsize=8
        )
        axes.tick_params(labeltop=len(rows) > 20)
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        handles = [(reached, "median and quartiles"), (bars, "what the project promises")]
        handles = [pair for pair in handles if pair[0] is not None]
        drawing.legend(
            [handle for handle, _ in handles], [text for _, text in handles], fontsize=8,
            loc="lower left", frameon=False,
        )  # fmt: skip
        part = file.with_name(f".{file.name}")
        drawing.savefig(part, format="png")
        os.replace(part, file)


def _row(line: Result | Missing, quick: bool) -> list[str]:
    if isinstance(line, Missing):
        return [line.benchmark, line.what, line.peer, "not measured", "", "", line.install, ""]
    what = f"{line.what} ({line.note})" if line.note else line.what
    bar = "" if line.bar is None else f"{line.bar:g} {'' if quick else line.verdict}".strip()
    return [line.benchmark, what, line.peer, ratio(line), bar, line.ours, line.theirs, str(line.n)]


def _lines(kept: Sequence[Mapping[str, Any]]) -> list[Result | Missing]:
    lines: list[Result | Missing] = []
    for entry in kept:
        fields = dict(entry)
        if fields.pop("kind") == "Missing":
            lines.append(Missing(**fields))
            continue
        ours, theirs = fields["raw"]
        low, median, high = fields["ratio"]
        fields.update(raw=(tuple(ours), tuple(theirs)), ratio=(low, median, high))
        lines.append(Result(**fields))
    return lines


def _write(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)


if __name__ == "__main__":
    sys.exit(main())
