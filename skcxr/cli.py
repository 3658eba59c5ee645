"""The ``skcxr`` command: a thin face over the public API.

Exit codes: 0 done; 1 it cannot be done, and one line on standard error says why; 2 wrong usage;
3 done, but some files could not be read; 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

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

_Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Model = Annotated[Path, typer.Argument(help="A model that `train` or save_model has saved.")]
_Data = Annotated[
    Path, typer.Argument(help="A folder with one folder of images per class, or a table (CSV).")
]
_PathColumn = Annotated[str, typer.Option("--path", help="Column of the image files in a table.")]
_Target = Annotated[
    list[str] | None,
    typer.Option(help='Column of the labels in a table ("target"); repeated, of findings.'),
]
_Report = Annotated[
    Path | None, typer.Option(help="Write a page (HTML) that needs nothing else to this file.")
]
_Groups = Annotated[
    str | None,
    typer.Option(help="Column of the patients in a table; for a folder, how file names tell them."),
]


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
    seed: _Seed = 0,
) -> None:
    """Fit and test a classifier on images that the package draws, or on DATA."""
    from skcxr._demo import run_demo

    run_demo(data, out, seed)


@app.command()
def train(
    data: _Data,
    out: Annotated[Path, typer.Option(help="Folder to save the model in.")],
    path: _PathColumn = "path",
    target: _Target = None,
    groups: _Groups = None,
    weights: Annotated[
        str | None,
        typer.Option(help='What to start from: "cxr", which comes with the package, or a file.'),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the images.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Side in pixels.")] = None,
    early_stopping: Annotated[
        bool, typer.Option("--early-stopping", help="Set patients aside and stop by their loss.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder from which a fit that was stopped goes on.")
    ] = None,
    seed: _Seed = 0,
    as_json: _Json = False,
) -> None:
    """Fit a classifier on DATA, a test split left out, and save it."""
    from skcxr._commands import load_data, make_console, run_train

    params = {
        "weights": weights,
        "max_epochs": epochs or "auto",
        "image_size": image_size or "auto",
        "early_stopping": early_stopping,
        "checkpoint": checkpoint,
        "random_state": seed,
    }
    bunch = load_data(data, path, target or [], groups)
    run_train(bunch, out, params, as_json, make_console(as_json))


@app.command()
def predict(
    model: _Model,
    files: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    csv: Annotated[Path | None, typer.Option(help="Write a table to this file.")] = None,
    as_json: _Json = False,
) -> None:
    """Predict FILES with a saved model. A file that cannot be read is listed: exit code 3."""
    from skcxr._commands import make_console, run_predict

    code = run_predict(_load(model), files, csv, as_json, make_console(as_json))
    raise typer.Exit(code)


@app.command()
def evaluate(
    model: _Model,
    data: _Data,
    path: _PathColumn = "path",
    target: _Target = None,
    groups: _Groups = None,
    report: _Report = None,
    as_json: _Json = False,
) -> None:
    """Score a saved model on the test split of DATA, or on all where it has none."""
    from skcxr._commands import load_data, make_console, run_evaluate

    bunch = load_data(data, path, target or [], groups)
    code = run_evaluate(_load(model), bunch, report, as_json, make_console(as_json))
    raise typer.Exit(code)


@app.command()
def audit(
    data: _Data,
    path: _PathColumn = "path",
    target: _Target = None,
    groups: _Groups = None,
    weights: Annotated[
        str | None,
        typer.Option(help='Look for images that trained weights of the package: "cxr".'),
    ] = None,
    report: _Report = None,
    as_json: _Json = False,
) -> None:
    """Look for leaks and shortcuts in DATA, before anything is trained on it."""
    from skcxr._commands import load_data, make_console, run_audit

    bunch = load_data(data, path, target or [], groups)
    run_audit(bunch, weights, report, as_json, make_console(as_json))


def _load(model: Path) -> Any:
    from skcxr.persistence import load_model

    return load_model(model)


def _say(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    print(f"skcxr: warning: {message}", file=sys.stderr)  # noqa: T201


def main() -> None:
    """Run the command; see the exit codes above."""
    with warnings.catch_warnings():
        warnings.showwarning = _say
        try:
            app()
        except (SkcxrError, OSError) as error:
            line = " ".join(str(error).split())
            print(f"skcxr: error: {line}", file=sys.stderr)  # noqa: T201
            sys.exit(1)


if __name__ == "__main__":
    main()
