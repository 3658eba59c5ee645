"""What ``skcxr train``, ``predict``, ``evaluate`` and ``audit`` do.

What a person reads and progress go to standard error with ``--json``, so that standard output
holds one JSON document and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from sklearn.utils import Bunch

from skcxr._demo import describe_data, make_table
from skcxr._exceptions import DatasetError, ImageReadWarning, InputError
from skcxr._files import write_text
from skcxr._frames import frame_of
from skcxr._notice import RESEARCH_ONLY
from skcxr.datasets import load_cxr_folder, load_cxr_table
from skcxr.metrics._bootstrap import interval_of_mean

Array = np.ndarray[Any, Any]

SOME_UNREAD = 3  # exit code: done, but some files could not be read

_CHUNK = 256  # files in a step of prediction and of its progress bar


def make_console(as_json: bool) -> Console:
    """Where to write what is for people."""
    console = Console(highlight=False, markup=False, soft_wrap=True, stderr=as_json)
    console.width = max(console.width, 100)  # a pipe or a narrow window cuts no table
    return console


def load_data(data: Path, path: str, target: Sequence[str], groups: str | None) -> Bunch:
    """Load a folder of classes, or a table with columns `path`, `target` and `groups`."""
    if data.is_file():
        columns: Any = target[0] if len(target) == 1 else list(target) or "target"
        return load_cxr_table(data, path=path, target=columns, groups=groups)
    if target:
        raise InputError(
            f"--target names a column, but {str(data)!r} is no table; the classes of a folder are "
            "its sub-folders"
        )
    return load_cxr_folder(data, groups=groups)


def run_train(
    bunch: Bunch, out: Path, params: dict[str, Any], as_json: bool, console: Console
) -> None:
    """Fit on all of `bunch` but its test split, and save the model."""
    from skcxr._model_files import check_free
    from skcxr.classifier import CXRClassifier  # torch takes seconds: the data were told first
    from skcxr.persistence import save_model

    check_free(str(out))  # not after a fit of minutes
    train = np.flatnonzero(np.asarray(bunch.split) != "test")
    describe_data(console.print, bunch)
    if not len(train):
        raise DatasetError("every image is of the test split; there is nothing to train on")
    if len(train) < len(bunch.data):
        console.print(f"{len(bunch.data) - len(train)} images of the test split are left out")
    clf = CXRClassifier(**params, verbose=1)
    clf.fit([bunch.data[i] for i in train], _labels(bunch).take(train), groups=bunch.groups[train])
    clf.set_params(verbose=0)
    save_model(clf, out)
    console.print(f"Saved to {out}")
    console.print(RESEARCH_ONLY)
    if as_json:
        _print_json({
            "model": str(out),
            "n_images": len(train),
            "n_patients": len(set(bunch.groups[train].tolist())),
            "target_names": bunch.target_names,
            "skipped": [entry._asdict() for entry in bunch.skipped],
            "n_epochs": clf.n_iter_,
            "train_loss": clf.history_[-1, "train_loss"],
            "note": RESEARCH_ONLY,
        })  # fmt: skip


def run_predict(
    model: Any, files: Sequence[Path], csv: Path | None, as_json: bool, console: Console
) -> int:
    """Predict each file; return the exit code."""
    paths = list(_expand(files))
    proba, errors = _predict(model, paths, console)
    findings = getattr(model, "findings_", None)
    names = [str(name) for name in (model.classes_ if findings is None else findings)]
    read = ~np.isnan(proba).any(axis=1)
    best = np.where(read, np.nan_to_num(proba).argmax(axis=1), -1)
    labels = [names[k] if k >= 0 else "" for k in best]

    if csv is not None:
        frame = frame_of({"path": paths})
        if findings is None:
            frame["predicted"] = labels
        for k, name in enumerate(names):
            frame[f"probability of {name}"] = proba[:, k]
        frame["error"] = [errors.get(position, "") for position in range(len(paths))]
        write_text(csv, frame.to_csv(index=False))
        console.print(f"{len(paths)} predictions written to {csv}")
    elif not as_json:
        columns = [*(["predicted"] if findings is None else []), *names]
        table = make_table("file", *columns)
        for path, label, values in zip(paths, labels, proba, strict=True):
            shown = ["-" if np.isnan(value) else f"{value:.3f}" for value in values]
            table.add_row(path, *([label] if findings is None else []), *shown)
        console.print(table)
    for position, reason in errors.items():
        console.print(f"not read: {paths[position]}: {reason}")
    console.print(RESEARCH_ONLY)
    if as_json:
        records = [
            {
                "path": path,
                **({"predicted": labels[position] or None} if findings is None else {}),
                "probabilities": dict(zip(names, map(_number, proba[position]), strict=True)),
                "error": errors.get(position),
            }
            for position, path in enumerate(paths)
        ]
        _print_json({"predictions": records, "note": RESEARCH_ONLY})
    return SOME_UNREAD if errors else 0


def run_evaluate(
    model: Any, bunch: Bunch, report: Path | None, as_json: bool, console: Console
) -> int:
    """Score on the test split of `bunch`, or on all where it has none; return the exit code."""
    if report is not None:
        _check_place(report)
    describe_data(console.print, bunch)
    test = np.flatnonzero(np.asarray(bunch.split) == "test")
    which = "images of the test split"
    if not len(test):
        test, which = np.arange(len(bunch.data)), "images, all that there are"
        console.print("If the model was fitted on any of these patients, this is no test of it.")
    findings = getattr(model, "findings_", None)
    truth = _truth(model, bunch)[test]
    proba, errors = _predict(model, [bunch.data[i] for i in test], console)
    read = np.setdiff1d(np.arange(len(test)), list(errors))
    if not len(read):
        raise DatasetError("none of the images can be read; there is nothing to score")
    truth, proba, groups = truth[read], proba[read], bunch.groups[test][read]
    result: dict[str, Any] = {
        "n_images": len(read),
        "n_patients": len(set(groups.tolist())),
        "not_read": [
            {"path": bunch.data[test[i]], "reason": reason} for i, reason in errors.items()
        ],
    }
    console.print(f"\n{result['n_images']} {which}, of {result['n_patients']} patients")
    for failure in result["not_read"]:
        console.print(f"not read: {failure['path']}: {failure['reason']}")
    if findings is None:
        result.update(_score_classes(model.classes_, truth, proba, groups, console))
    else:
        result["findings"] = _score_findings(findings, truth, proba, console)
    if report is not None:
        _write_report(model, bunch, test, report)
        console.print(f"Report written to {report}")
        result["report"] = str(report)
    console.print(RESEARCH_ONLY)
    if as_json:
        _print_json({**result, "note": RESEARCH_ONLY})
    return SOME_UNREAD if errors else 0


def run_audit(
    bunch: Bunch, weights: str | None, report: Path | None, as_json: bool, console: Console
) -> None:
    """Look for leaks and shortcuts in `bunch`."""
    from skcxr.audit import audit_dataset

    if report is not None:
        _check_place(report)
    describe_data(console.print, bunch)
    found = audit_dataset(
        bunch.data, _labels(bunch), groups=bunch.groups, source=bunch.source, split=bunch.split,
        frame=bunch.frame, weights=weights,
    )  # fmt: skip
    console.print(f"\n{found}\n")
    if report is not None:
        found.to_html(report)
        console.print(f"Report written to {report}")
    console.print(RESEARCH_ONLY)
    if as_json:
        _print_json({
            "n_images": len(bunch.data),
            "n_patients": len(set(bunch.groups.tolist())),
            "findings": json.loads(found.to_frame().to_json(orient="records")),
            "skipped": [entry._asdict() for entry in bunch.skipped],
            "note": RESEARCH_ONLY,
        })  # fmt: skip


def _check_place(report: Path) -> None:
    """Refuse what cannot be written before minutes of work."""
    if report.is_dir():
        raise InputError(f"--report {str(report)!r} is a folder; name a file such as report.html")
    if not report.absolute().parent.is_dir():
        raise InputError(f"--report: there is no folder {str(report.absolute().parent)!r}")


def _write_report(model: Any, bunch: Bunch, rows: Array, path: Path) -> None:
    """Everything about the images at `rows`, and about the training split, as one page."""
    from skcxr.report import evaluate

    trained = np.flatnonzero(np.asarray(bunch.split) == "train")

    def part(at: Array) -> Bunch:
        return Bunch(
            data=[bunch.data[i] for i in at], target=_truth(model, bunch)[at],
            groups=bunch.groups[at], source=bunch.source[at],
            frame=bunch.frame.iloc[at].reset_index(drop=True),
        )  # fmt: skip

    test = part(rows)
    evaluate(
        model, test.data, test.target, groups=test.groups, source=test.source, frame=test.frame,
        train=part(trained) if len(trained) else None,
    ).to_html(path)  # fmt: skip


def _score_classes(
    classes: Array, truth: Array, proba: Array, groups: Array, console: Console
) -> dict[str, Any]:
    from sklearn.metrics import classification_report, confusion_matrix

    predicted = classes[proba.argmax(axis=1)]
    low, high = interval_of_mean(truth == predicted, groups, n_resamples=2000, random_state=0)
    accuracy = float(np.mean(truth == predicted))
    interval = (
        "no interval, as there is one patient"
        if np.isnan(low)
        else f"95% interval {low:.3f} to {high:.3f} (bootstrap over patients)"
    )
    console.print(f"Accuracy {accuracy:.3f}, {interval}\n")
    options = {"labels": classes, "zero_division": 0}
    console.print(classification_report(truth, predicted, **options))
    matrix = confusion_matrix(truth, predicted, labels=classes)
    table = make_table("true \\ predicted", *map(str, classes))
    for name, row in zip(classes, matrix, strict=True):
        table.add_row(str(name), *map(str, row))
    console.print(table)
    report = classification_report(truth, predicted, output_dict=True, **options)
    return {
        "accuracy": accuracy,
        "accuracy_interval_95": [_number(low), _number(high)],
        "classes": {str(name): report[str(name)] for name in classes},
        "confusion_matrix": matrix.tolist(),
    }


def _score_findings(
    findings: Array, truth: Array, proba: Array, console: Console
) -> dict[str, dict[str, Any]]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    result = {}
    table = make_table("finding", "labelled", "present", "AUROC", "average precision")
    for k, name in enumerate(findings.tolist()):
        labelled = ~np.isnan(truth[:, k])
        known, scores = truth[labelled, k], proba[labelled, k]
        both = len(np.unique(known)) == 2
        values = {
            "n_labelled": int(labelled.sum()),
            "n_present": int(known.sum()),
            "roc_auc": float(roc_auc_score(known, scores)) if both else None,
            "average_precision": float(average_precision_score(known, scores)) if both else None,
        }
        result[str(name)] = values
        table.add_row(str(name), *("-" if v is None else f"{v:.3g}" for v in values.values()))
    console.print(table)
    return result


def _truth(model: Any, bunch: Bunch) -> Array:
    """Labels of `bunch` as the model names them."""
    findings = getattr(model, "findings_", None)
    if findings is None:
        if bunch.target.ndim == 2:
            raise InputError("the model predicts one class, so evaluate needs one --target column")
        unknown = sorted(set(bunch.target.tolist()) - set(model.classes_.tolist()), key=str)
        if unknown:
            raise InputError(
                f"the data have the classes {unknown}, which the model does not know; it knows "
                f"{model.classes_.tolist()}"
            )
        return bunch.target
    missing = [name for name in findings if name not in bunch.target_names]
    if bunch.target.ndim != 2 or missing:
        raise InputError(
            f"the model predicts the findings {findings.tolist()}; name their columns with "
            "--target, once for each"
        )
    return bunch.target[:, [bunch.target_names.index(name) for name in findings]]


def _labels(bunch: Bunch) -> Any:
    """Labels of `bunch`, findings with their names."""
    import pandas as pd

    if bunch.target.ndim == 1:
        return bunch.target
    return pd.DataFrame(bunch.target, columns=bunch.target_names)


def _predict(model: Any, paths: list[str], console: Console) -> tuple[Array, dict[int, str]]:
    """Probabilities, NaN where a file cannot be read, and why, by place."""
    import warnings

    on_error = [name for name in model.get_params() if name.rpartition("__")[2] == "on_error"]
    model.set_params(**dict.fromkeys(on_error, "nan"))
    proba, errors = [], {}
    starts = range(0, len(paths), _CHUNK)
    bar = Console(stderr=True)
    for start in track(starts, "predicting", console=bar, disable=len(starts) < 2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            proba.append(model.predict_proba(paths[start : start + _CHUNK]))
        for warning in caught:
            if isinstance(warning.message, ImageReadWarning):
                for failure in warning.message.failures:
                    errors[start + failure.position] = failure.reason
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
    return np.concatenate(proba), errors


def _expand(files: Sequence[Path]) -> Iterator[str]:
    """The files, and those in folders, hidden ones left out."""
    for file in files:
        if not file.is_dir():
            yield str(file)
            continue
        inside = [
            str(path)
            for path in sorted(file.rglob("*"))
            if path.is_file() and not any(p.startswith(".") for p in path.relative_to(file).parts)
        ]
        if not inside:
            raise DatasetError(f"the folder {str(file)!r} holds no file")
        yield from inside


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False))  # noqa: T201
