"""The ``skcxr`` command: a thin face over the public API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from skcxr._exceptions import SkcxrError

__all__ = ["app", "main"]

app = typer.Typer(
    name="skcxr",
    help="Classify chest radiographs. For research only, not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Classify chest radiographs. For research only, not for diagnosis."""


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Argument(help="A folder with one folder of images per class; without it, phantoms."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to; made if need be.")] = Path(
        "skcxr-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
) -> None:
    """Fit and test a classifier on images that the package draws, or on DATA."""
    from skcxr._demo import run_demo

    run_demo(data, out, seed)


def main() -> None:
    """Run the command: exit code 0, or 1 with one line on standard error if it cannot be done."""
    try:
        app()
    except (SkcxrError, OSError) as error:
        print(f"skcxr: error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main()
