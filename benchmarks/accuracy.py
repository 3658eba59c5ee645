"""What each way to a classifier scores, cross-validated by patient, beside plain scikit-learn.

    python -m benchmarks.accuracy DATA [--weights FILE] [--tasks covid4 ...] [--methods ...]
        [--repeats 3] [--folds 5] [--limit N] [--out FOLDER] [--threads 1]
    python -m benchmarks.accuracy --report-only --out FOLDER

DATA holds covid4.csv and covid4/, kermany224/ and pneumoniamnist/; a task whose data is not there
ends the run, so name those that are with --tasks. FILE has weights of tf_efficientnet_lite0 in
timm's names; methods that need them are left out without it.

Every fold is written as it is done, under a name made of all that it depends on: a run that was
stopped goes on where it was, and a change of data or settings never mixes with what is there.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import sklearn
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import threadpool_limits

import skcxr
from skcxr import CXRClassifier, CXRFeatures, ImageLoader, SkcxrError, recipes

BACKBONE = "timm:tf_efficientnet_lite0"
REFERENCE = "from scratch"  # what gains are counted from
RESAMPLES = 1000
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr"]
CAUTION = "Development figures: they say nothing about the patients of another hospital."


# The tasks


@dataclass(frozen=True, eq=False)
class Task:
    """A labelled set of images, with the attributes of the package's own data sets.

    Parameters
    ----------
    name : str
        What it is called on the command line.
    data : list of str or ndarray of shape (n, H, W)
        Paths, or pixels.
    target, groups : ndarray of shape (n,), dtype str
        Label and patient of each image.
    unit : {"patients", "images"}
        What the groups are; "images" where nothing tells the patient.
    """

    name: str
    data: Any
    target: np.ndarray
    groups: np.ndarray
    unit: str = "patients"

    @property
    def has_files(self) -> bool:
        """Whether the images are files."""
        return not isinstance(self.data, np.ndarray)

    def take(self, index: np.ndarray) -> Task:
        """Return the task on some of its images."""
        data = [self.data[i] for i in index] if self.has_files else self.data[index]
        return replace(self, data=data, target=self.target[index], groups=self.groups[index])


def covid4(folder: Path) -> Task:
    """Healthy children, two pneumonias of children, and Covid-19 of adults."""
    bunch = skcxr.load_cxr_table(
        folder / "covid4.csv", target="finding", groups="patient", root=folder / "covid4"
    )
    return Task("covid4", bunch.data, bunch.target.astype(str), bunch.groups)


def kermany3(folder: Path) -> Task:
    """Children: normal, bacteria, virus, as the file names say."""
    bunch = skcxr.load_cxr_folder(folder / "kermany224")
    target = []
    for path in bunch.data:
        cause = re.search(r"_(bacteria|virus)_", os.path.basename(path))
        target.append(cause[1] if cause else "normal")
    return Task("kermany3", bunch.data, np.array(target), bunch.groups)


def kermany2(folder: Path) -> Task:
    """Children: normal or pneumonia, as the folders say."""
    bunch = skcxr.load_cxr_folder(folder / "kermany224")
    return Task("kermany2", bunch.data, np.char.lower(bunch.target), bunch.groups)


def pneumoniamnist(folder: Path) -> Task:
    """The same children at 28 x 28 pixels, without their patients."""
    with np.load(folder / "pneumoniamnist" / "pneumoniamnist_trainval.npz") as arrays:
        data = np.concatenate([arrays["train_images"], arrays["val_images"]])
        labels = np.concatenate([arrays["train_labels"], arrays["val_labels"]]).ravel()
    target = np.array(["normal", "pneumonia"])[labels]
    return Task("pneumoniamnist", data, target, np.arange(len(data)).astype(str), "images")


TASKS: dict[str, Callable[[Path], Task]] = {
    "covid4": covid4,
    "kermany3": kermany3,
    "kermany2": kermany2,
    "pneumoniamnist": pneumoniamnist,
}


def limited(task: Task, limit: int | None) -> Task:
    """Return about `limit` images of a larger task: whole patients, classes in proportion."""
    if limit is None or limit >= len(task.target):
        return task
    rng, kept = np.random.default_rng(0), []
    patients, first, sizes = np.unique(task.groups, return_index=True, return_counts=True)
    for label in np.unique(task.target):
        order = rng.permutation(np.flatnonzero(task.target[first] == label))
        wanted = limit * sizes[order].sum() / len(task.target)
        images = np.cumsum(sizes[order])
        kept.append(patients[order[: np.argmin(np.abs(images - wanted)) + 1]])
    return task.take(np.flatnonzero(np.isin(task.groups, np.concatenate(kept))))


# The methods: from the training part of a task, a seed, the file of weights and a folder for what
# need not be computed twice, to an unfitted classifier


class LeftOutError(Exception):
    """Why a method has nothing for a task."""


@cache
def file_facts(path: str) -> list[float]:
    """What a file tells without a look at the lungs: size, mode, bytes, mean gray."""
    with Image.open(path) as image:
        size, mode = image.size, image.mode
    known = MODES.index(mode) if mode in MODES else len(MODES)
    return [*size, known, os.path.getsize(path), float(skcxr.read_image(path).mean())]


def facts_of_files(paths: list[str]) -> np.ndarray:
    """One row of facts a file."""
    return np.array([file_facts(path) for path in paths])


def rows_of_pixels(images: np.ndarray) -> np.ndarray:
    """One row of gray in [0, 1] an image."""
    return images.reshape(len(images), -1) / np.float32(255)


def metadata(train: Task, seed: int, weights: str | None, memory: str) -> Any:
    """Build a forest that never sees a lung: what it scores, the labels give away elsewhere."""
    if not train.has_files:
        raise LeftOutError("arrays have no files to tell anything")
    forest = RandomForestClassifier(500, min_samples_leaf=2, random_state=seed)
    return make_pipeline(FunctionTransformer(facts_of_files), forest)


def pca_svc(train: Task, seed: int, weights: str | None, memory: str) -> Any:
    """Build the plain way: principal components of small images and a kernel."""
    if train.has_files:
        pixels: Any = ImageLoader(image_size=64, output="rows", memory=memory)
    else:
        pixels = FunctionTransformer(rows_of_pixels)
    # the scores become probabilities on patients that did not make them
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    folds = list(splitter.split(train.target, train.target, train.groups))
    svc = CalibratedClassifierCV(SVC(C=10, random_state=seed), cv=folds, ensemble=False)
    n_components = min(50, len(train.target) // 2)
    components = PCA(n_components, whiten=True, svd_solver="randomized", random_state=seed)
    return make_pipeline(pixels, StandardScaler(), components, svc)


def from_scratch(train: Task, seed: int, weights: str | None, memory: str) -> Any:
    """Build the classifier as it comes."""
    return CXRClassifier(memory=memory, random_state=seed)


def views(train: Task, seed: int, weights: str | None, memory: str) -> Any:
    """Build the classifier as it comes, with test-time augmentation."""
    return CXRClassifier(memory=memory, random_state=seed, tta=6)


def frozen(train: Task, seed: int, weights: str | None, memory: str) -> Any:
    """Build a linear model on a network that learnt from photographs and is held still."""
    size = 320 if train.has_files else 224
    features = CXRFeatures(BACKBONE, weights=needed(weights), image_size=size, memory=memory)
    return make_pipeline(features, StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))


def fine_tuned(train: Task, seed: int, weights: str | None, memory: str) -> Any:
    """Build the same network, trained further."""
    return CXRClassifier(
        BACKBONE,
        weights=needed(weights),
        image_size=224,
        backbone_lr_mult=0.3,
        memory=memory,
        random_state=seed,
    )


def needed(weights: str | None) -> str:
    """Return the file of weights, or say that it was not given."""
    if weights is None:
        raise LeftOutError("needs --weights")
    return weights


def recipe(function: Callable[..., Any]) -> Callable[[Task, int, str | None, str], Any]:
    """Turn a recipe of the package into a method: it is given what its signature takes."""
    parameters = inspect.signature(function).parameters

    def build(train: Task, seed: int, weights: str | None, memory: str) -> Any:
        offered = {"random_state": seed, "memory": memory, "weights": weights}
        taken = {name: value for name, value in offered.items() if name in parameters}
        if "weights" in taken and parameters["weights"].default is not None:
            needed(weights)
        return function(train, **taken)

    return build


METHODS: dict[str, Callable[[Task, int, str | None, str], Any]] = {
    "file metadata + forest": metadata,
    "PCA + SVC": pca_svc,
    REFERENCE: from_scratch,
    "from scratch, 7 views": views,
    "frozen + LogisticRegression": frozen,
    "fine-tuned": fine_tuned,
    **{f"recipes.{name}": recipe(getattr(recipes, name)) for name in recipes.__all__},
}


# what a method adds to another one is counted for itself too
PARENTS = {
    "from scratch, 7 views": REFERENCE,
    "recipes.few_films": "frozen + LogisticRegression",
    "recipes.few_films_ensemble": "recipes.few_films",
}


# The units of work: one fold of one repeat of one method on one task


class Unit(NamedTuple):
    """One fit and the images that it is scored on."""

    task: Task
    method: str
    repeat: int
    estimator: Any
    train: np.ndarray
    test: np.ndarray
    file: Path


def settings(estimator: Any, replaced: dict[str, str]) -> str:
    """Write an estimator's parameters the same on every machine."""

    def written(value: Any) -> str:
        if isinstance(value, list | tuple):
            return f"[{', '.join(written(one) for one in value)}]"
        return type(value).__qualname__ if hasattr(value, "get_params") else repr(value)

    parts = [type(estimator).__qualname__]
    for name, value in sorted(estimator.get_params(deep=True).items()):
        if name.split("__")[-1] != "memory":  # it changes no number
            parts.append(f"{name}={replaced.get(str(value), written(value))}")
    return re.sub(r" at 0x[0-9a-f]+", "", "\n".join(parts))


def digest(*parts: Any) -> str:
    """Return a short name for anything that has a repr or bytes."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part if isinstance(part, bytes) else repr(part).encode())
        total.update(b"\0")
    return total.hexdigest()[:12]


def identity(task: Task) -> str:
    """Return a short name for the images, labels and patients of a task."""
    data = task.data
    if task.has_files:
        data = [(os.path.basename(path), os.path.getsize(path)) for path in data]
    else:
        data = data.tobytes()
    return digest(task.name, data, task.target.tolist(), task.groups.tolist())


def plan(task: Task, options: argparse.Namespace) -> tuple[list[Unit], dict[str, str]]:
    """Return the units of a task, repeat by repeat, and why methods are left out."""
    units, left_out = [], {}
    same, weights, memory = identity(task), options.weights, str(options.out / "memory")
    replaced = {} if weights is None else {weights: digest(Path(weights).read_bytes())}
    for repeat in range(options.repeats):
        splitter = StratifiedGroupKFold(options.folds, shuffle=True, random_state=repeat)
        splits = list(splitter.split(task.target, task.target, task.groups))
        for method, (fold, (train, test)) in product(options.methods, enumerate(splits)):
            if method in left_out:
                continue
            try:
                estimator = METHODS[method](task.take(train), repeat, weights, memory)
            except (LeftOutError, SkcxrError) as error:
                left_out[method] = str(error)
                continue
            known = (same, method, len(splits), repeat, fold, skcxr.__version__)
            name = f"r{repeat}f{fold}-{digest(*known, settings(estimator, replaced))}.npz"
            file = options.out / "units" / task.name / re.sub(r"\W+", "-", method) / name
            units.append(Unit(task, method, repeat, estimator, train, test, file))
    return [unit for unit in units if unit.method not in left_out], left_out


def write(path: Path, content: Callable[[BinaryIO], Any]) -> None:
    """Write a file that is complete or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            content(file)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def fit(unit: Unit) -> float:
    """Fit a unit, keep what it says of the images that it has not seen, return the seconds."""
    train, test = unit.task.take(unit.train), unit.task.take(unit.test)
    estimator, arguments = clone(unit.estimator), {}  # what is fitted is not held any longer
    if has_fit_parameter(estimator, "groups"):
        arguments["groups"] = train.groups
    start = time.perf_counter()
    estimator.fit(train.data, train.target, **arguments)
    seconds = time.perf_counter() - start
    given = np.asarray(estimator.predict_proba(test.data))
    classes = np.unique(unit.task.target)
    proba = np.zeros((len(unit.test), len(classes)), dtype=given.dtype)
    proba[:, np.searchsorted(classes, estimator.classes_)] = given
    arrays = {"index": unit.test, "target": test.target, "groups": test.groups}
    arrays |= {"proba": proba, "predicted": np.asarray(estimator.predict(test.data))}
    arrays |= {"classes": classes, "seconds": np.array(seconds)}
    write(unit.file, lambda file: np.savez_compressed(file, **arrays))
    return seconds


def run(units: list[Unit]) -> dict[tuple[str, str], str]:
    """Fit the units that are not there yet; return the methods that a task could not have."""
    failed: dict[tuple[str, str], str] = {}
    text = TextColumn("{task.description}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as progress:
        say = progress.console.print
        bar = progress.add_task("", total=len(units))
        for number, unit in enumerate(units, start=1):
            name = (unit.task.name, unit.method)
            text = f"{name[0]}: {name[1]}, repeat {unit.repeat + 1}"
            progress.update(bar, description=text)
            if name not in failed and not unit.file.exists():
                try:
                    seconds = fit(unit)
                except SkcxrError as error:  # such as an extra that is not installed
                    failed[name] = str(error)
                    say(f"{name[0]}: {name[1]} left out, {error}", markup=False)
                else:
                    if not progress.console.is_terminal:  # a log has no bar to look at
                        say(f"{number} of {len(units)}, {text}: {seconds:.1f} s", markup=False)
            progress.advance(bar)
    return failed


# The scores: each from weights of the images, so that one call does all resamples


def resamples(groups: np.ndarray, n: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Draw patients with replacement.

    Returns
    -------
    ndarray of shape (1 + n, n_images)
        How many times each image is drawn; the first row is one of each, the data as it is.
    """
    patients, patient = np.unique(groups, return_inverse=True)
    share = np.full(len(patients), 1 / len(patients))
    drawn = np.random.default_rng(seed).multinomial(len(patients), share, size=n)
    return np.vstack([np.ones_like(patient), drawn[:, patient]])


def auroc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for each row of weights; NaN where only one class is drawn."""
    order = np.argsort(score, kind="stable")
    positive, weights = positive[order], weights.T[order]
    _, ties = np.unique(score[order], return_index=True)  # where each run of equal scores begins
    here = np.add.reduceat(weights * positive[:, None], ties)
    there = np.add.reduceat(weights * ~positive[:, None], ties)
    won = (here * (np.cumsum(there, axis=0) - there / 2)).sum(0)
    pairs = here.sum(0) * there.sum(0)
    return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def scores(
    y: np.ndarray, predicted: np.ndarray, proba: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Score predictions once for each row of weights, by scikit-learn's definitions.

    Parameters
    ----------
    y, predicted : ndarray of shape (n,)
        Column of `proba` that is right, and the one that `predict` chose.
    proba : ndarray of shape (n, n_classes)
        Probabilities.
    weights : ndarray of shape (n_rows, n)
        Weights of the images.

    Returns
    -------
    dict of str to ndarray of shape (n_rows,)
        AUROC is the mean over the classes, each against the rest. The Brier score is that of the
        second class where there are two, else the sum over the classes.
    """
    weights = weights.astype(float)
    is_class = y[:, None] == np.arange(proba.shape[1])
    is_called = predicted[:, None] == np.arange(proba.shape[1])
    hits = weights @ (is_class & is_called)
    true, called, total = weights @ is_class, weights @ is_called, weights.sum(1)
    recall = np.divide(hits, true, out=np.full(hits.shape, np.nan), where=true > 0)
    both = true + called
    f1 = np.divide(2 * hits, both, out=np.zeros(hits.shape), where=both > 0)
    eps = np.finfo(proba.dtype).eps
    right = proba[np.arange(len(y)), y].clip(eps, 1 - eps)
    squares = (proba.astype(float) - is_class) ** 2
    if proba.shape[1] == 2:
        areas = auroc(is_class[:, 1], proba[:, 1], weights)
        squares = squares[:, 1:]
    else:
        each = [auroc(is_class[:, k], proba[:, k], weights) for k in range(proba.shape[1])]
        areas = np.mean(each, axis=0)
    return {
        "accuracy": hits.sum(1) / total,
        "balanced accuracy": np.nanmean(recall, axis=1),
        "macro F1": f1.mean(1),
        "AUROC": areas,
        "log loss": weights @ -np.log(right.astype(float)) / total,
        "Brier": weights @ squares.sum(1) / total,
    }


def interval(values: np.ndarray) -> dict[str, Any]:
    """Return the value of the data and the middle 95% of the resamples."""
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return {"value": float(values[0]), "interval": [float(low), float(high)]}


# The report


class Pooled(NamedTuple):
    """What a method said of each image of a task, in one repeat."""

    y: np.ndarray
    predicted: np.ndarray
    proba: np.ndarray
    groups: np.ndarray
    folds: list[float]
    seconds: list[float]


def pooled(files: list[Path]) -> Pooled | None:
    """Put the folds of a repeat together; None where one is missing."""
    if not all(file.exists() for file in files):
        return None
    parts = []
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            parts.append(dict(arrays))
    order = np.argsort(np.concatenate([part["index"] for part in parts]))
    whole = {
        name: np.concatenate([part[name] for part in parts])[order]
        for name in ("target", "predicted", "proba", "groups")
    }
    folds = [float(np.mean(part["predicted"] == part["target"])) for part in parts]
    for name in ("target", "predicted"):
        whole[name] = np.searchsorted(parts[0]["classes"], whole[name])
    return Pooled(*whole.values(), folds, [float(part["seconds"]) for part in parts])


def summarise(out: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Score all methods of a task; those without a complete repeat have no entry."""
    result: dict[str, Any] = {}
    draws: dict[str, list[dict[str, np.ndarray]]] = {}
    weights = None
    for method, repeats in entry["methods"].items():
        found = [pooled([out / file for file in files]) for files in repeats]
        complete = [one for one in found if one is not None]
        if not complete:
            continue
        if weights is None:
            weights = resamples(complete[0].groups)
        # repeats are kept in their places, for the gain is counted within each
        draws[method] = [
            {} if one is None else scores(one.y, one.predicted, one.proba, weights) for one in found
        ]
        done = [drawn for drawn in draws[method] if drawn]
        result[method] = {
            name: interval(np.mean([drawn[name] for drawn in done], axis=0)) for name in done[0]
        }
        result[method]["mean of folds"] = float(np.mean([one.folds for one in complete]))
        result[method]["seconds per fit"] = float(np.mean([one.seconds for one in complete]))
        result[method]["repeats"] = len(complete)

    def above(method: str, other: str, score: str) -> dict[str, Any] | None:
        """How much a score changes from one method to another, with its interval."""
        pairs = zip(draws[method], draws.get(other, []), strict=False)
        gains = [a[score] - b[score] for a, b in pairs if a and b]
        return interval(np.mean(gains, axis=0)) if gains and method != other else None

    for method in draws:
        parent = PARENTS.get(method, REFERENCE)
        wanted = {
            "gain": (REFERENCE, "accuracy"),
            f"accuracy above {parent}": (parent, "accuracy"),
            f"log loss above {parent}": (parent, "log loss"),
        }
        for name, (other, score) in wanted.items():
            if (found := above(method, other, score)) is not None:
                result[method][name] = found
    return result


def shown(cell: Any, sign: str = "") -> str:
    """Write a value with its interval."""
    if cell is None:
        return ""
    low, high = cell["interval"]
    return f"{cell['value']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def markdown(record: dict[str, Any], results: dict[str, Any]) -> str:
    """Write the tables."""
    lines = ["# Accuracy by patient", "", CAUTION, ""]
    commands = dict.fromkeys(line for entry in record.values() for line in entry["commands"])
    lines += ["```", *commands, "```", ""]
    lines += [
        "Scores of the pooled out-of-fold predictions of each repeat, averaged over repeats, with "
        f"the middle 95% of {RESAMPLES} resamples of the patients (of the images, where a table "
        "says so). Mean of folds: the mean of each fold's accuracy, as it is often published. The "
        "intervals tell how far other patients of the same kind may move a score; they do not "
        f"tell how another training would. Gain: accuracy above \"{REFERENCE}\", with its interval "
        "over the same resamples. Accuracies and F1 are of what predict says, which for some "
        "recipes is not the likeliest class but one above a threshold that finds more of the ill. "
        "AUROC: mean of each class against the rest. Brier: of the "
        "second class where there are two, else summed over the classes. Seconds per fit: mean; "
        "images decoded or embedded before are read from a cache.",
        "",
    ]  # fmt: skip
    head = [
        "method", "accuracy", "mean of folds", "balanced accuracy", "macro F1", "AUROC",
        "log loss", "Brier", "gain", "repeats", "seconds per fit",
    ]  # fmt: skip
    for task, entry in record.items():
        lines += [f"## {task}", "", describe(entry), ""]
        lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for method, row in results[task].items():
            cells = [method, shown(row["accuracy"]), f"{row['mean of folds']:.3f}"]
            cells += [shown(row[name]) for name in head[3:8]]
            cells += [shown(row.get("gain"), "+"), str(row["repeats"])]
            lines.append(f"| {' | '.join(cells)} | {row['seconds per fit']:.1f} |")
        reasons = {m: "not complete" for m in entry["methods"] if m not in results[task]}
        reasons |= {m: why for m, why in entry["left out"].items() if m not in results[task]}
        beside = [
            f"- {method}: {name} {shown(value, '+')}"
            for method, row in results[task].items()
            for name, value in row.items()
            if " above " in name and method in PARENTS
        ]
        left_out = [f"- {method}: left out, {why}" for method, why in reasons.items()]
        lines += ["", *beside, *left_out, *([""] if beside or left_out else [])]
    return "\n".join(lines).rstrip() + "\n"


def describe(entry: dict[str, Any]) -> str:
    """Say in a few sentences what a task's figures are made of."""
    text = f"{entry['images']} images"
    if entry["unit"] == "patients":
        text += f" of {entry['patients']} patients"
    if entry["all images"] > entry["images"]:
        text += f", drawn from {entry['all images']} by whole {entry['unit']}"
    if entry["unit"] == "images":
        text += (
            "; their patients are not known, so folds and intervals are by image, and images of "
            "one patient may stand on both sides"
        )
    counts = ", ".join(f"{name} {n}" for name, n in entry["classes"].items())
    return f"{text}. {entry['folds']} folds. Classes: {counts}."


def plot(record: dict[str, Any], results: dict[str, Any], file: Path) -> None:
    """Draw a panel a task: the accuracy of each method with its interval, best on top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = [task for task in record if results[task]]
    if not tasks:
        return
    n_columns = min(2, len(tasks))
    heights = [
        1.2 + 0.34 * max(len(results[task]) for task in tasks[i : i + n_columns])
        for i in range(0, len(tasks), n_columns)
    ]
    figure = Figure(figsize=(5.6 * n_columns, sum(heights) + 0.3), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(heights), n_columns, height_ratios=heights)
    for place, task in enumerate(tasks):
        axes = figure.add_subplot(grid[place // n_columns, place % n_columns])
        entry = record[task]
        rows = sorted(results[task].items(), key=lambda item: item[1]["accuracy"]["value"])
        for y, (_, row) in enumerate(rows):
            cell = row["accuracy"]
            axes.plot(cell["interval"], [y, y], color="tab:blue", linewidth=2, alpha=0.45)
            axes.plot(cell["value"], y, "o", color="tab:blue", markersize=6)
            axes.annotate(
                f"{cell['value']:.3f}", (cell["value"], y), (0, 5), textcoords="offset points",
                ha="center", fontsize=7.5, color="0.25",
            )  # fmt: skip
        majority = max(entry["classes"].values()) / entry["images"]
        lowest = min(majority, *(row["accuracy"]["interval"][0] for _, row in rows))
        axes.axvline(majority, color="0.5", linestyle=":", linewidth=1.2)
        side = "left" if majority < (lowest + 1) / 2 else "right"
        axes.annotate(
            "largest class", (majority, 0), (4 if side == "left" else -4, 3), ha=side,
            xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7.5,
            color="0.4",
        )  # fmt: skip
        axes.set_yticks(range(len(rows)), [method for method, _ in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlim(lowest - 0.05 * (1 - lowest), 1.0 + 0.01 * (1 - lowest))
        groups = f"{entry['patients']} patients" if entry["unit"] == "patients" else "by image"
        axes.set_title(f"{task}: {entry['images']} images, {groups}", fontsize=10, loc="left")
        axes.set_xlabel(f"accuracy, 95% interval over {entry['unit']}", fontsize=8.5)
        axes.tick_params(labelsize=8.5, length=0)
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    write(file, lambda stream: figure.savefig(stream, format="png", dpi=150))


def report(out: Path) -> str:
    """Write accuracy.md, .json and .png from what is there; return the first."""
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    results = {task: summarise(out, entry) for task, entry in record.items()}
    text = markdown(record, results)
    whole = {
        task: {**{k: v for k, v in entry.items() if k != "methods"}, "methods": results[task]}
        for task, entry in record.items()
    }
    content = json.dumps(whole, indent=1) + "\n"
    write(out / "accuracy.md", lambda file: file.write(text.encode()))
    write(out / "accuracy.json", lambda file: file.write(content.encode()))
    plot(record, results, out / "accuracy.png")
    return text


# The command


def command(options: argparse.Namespace) -> str:
    """Write the command without the folders of this machine, and what it ran on."""
    words = ["python", "-m", "benchmarks.accuracy", "DATA"]
    if options.weights:
        words += ["--weights", os.path.basename(options.weights)]
    if options.tasks != list(TASKS):
        words += ["--tasks", *options.tasks]
    if options.methods != list(METHODS):
        words += ["--methods", *options.methods]
    words += ["--repeats", str(options.repeats), "--folds", str(options.folds)]
    if options.limit:
        words += ["--limit", str(options.limit)]
    line = shlex.join([*words, "--threads", str(options.threads)])
    versions = f"skcxr {skcxr.__version__}, scikit-learn {sklearn.__version__}"
    return f"{line}  # {versions}, torch {torch.__version__}"


def record_run(out: Path, entries: dict[str, dict[str, Any]]) -> None:
    """Write down what belongs to the report, beside earlier runs on the same images."""
    file = out / "run.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for task, entry in entries.items():
        old = record.get(task, {})
        if old.get("data") == entry["data"] and old.get("folds") == entry["folds"]:
            methods = {**old["methods"], **entry["methods"]}
            order = [name for name in METHODS if name in methods]
            entry["methods"] = {name: methods[name] for name in [*order, *methods]}
            left_out = {k: v for k, v in old["left out"].items() if k not in entry["methods"]}
            entry["left out"] = {**left_out, **entry["left out"]}
            entry["commands"] = list(dict.fromkeys([*old["commands"], *entry["commands"]]))
        record[task] = entry
    content = json.dumps(record, indent=1) + "\n"
    write(file, lambda stream: stream.write(content.encode()))


def prepare(options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], list[Unit]]]:
    """Give what is known of each task before the first fit, and its units."""
    for name in options.tasks:
        whole = TASKS[name](options.data)
        task = limited(whole, options.limit)
        units, left_out = plan(task, options)
        methods: dict[str, list[list[str]]] = {}
        for unit in units:
            repeats = methods.setdefault(unit.method, [])
            if unit.repeat == len(repeats):
                repeats.append([])
            repeats[unit.repeat].append(unit.file.relative_to(options.out).as_posix())
        classes, counts = np.unique(task.target, return_counts=True)
        yield (
            {
                "images": len(task.target),
                "patients": len(np.unique(task.groups)),
                "unit": task.unit,
                "all images": len(whole.target),
                "classes": dict(zip(classes.tolist(), counts.tolist(), strict=True)),
                "folds": options.folds,
                "data": identity(task),
                "methods": methods,
                "left out": left_out,
                "commands": [command(options)],
            },
            units,
        )


def main(argv: list[str] | None = None) -> None:
    """Fit what is missing, then write and print the tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA")
    parser.add_argument("--weights", metavar="FILE")
    for option, known in (("--tasks", list(TASKS)), ("--methods", list(METHODS))):
        words = {"metavar": "NAME", "help": shlex.join(known)}
        parser.add_argument(option, nargs="+", choices=known, default=known, **words)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--limit", type=int, metavar="N", help="images to draw of larger sets")
    parser.add_argument("--out", type=Path, default=Path("accuracy"), metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report-only", action="store_true", help="fit nothing")
    options = parser.parse_args(argv)
    if options.report_only:
        if not (options.out / "run.json").exists():
            parser.error(f"no run has been written to {options.out}; name it with --out")
        print(report(options.out))
        return
    if options.data is None or not options.data.is_dir():
        parser.error(f"DATA must be the folder of the data, got {options.data}")
    if options.weights and not os.path.isfile(options.weights):
        parser.error(f"--weights must be a file, got {options.weights}")
    torch.set_num_threads(options.threads)
    entries, units = {}, []
    for name, (entry, own) in zip(options.tasks, prepare(options), strict=True):
        entries[name] = entry
        units += own
    units.sort(key=lambda unit: unit.repeat)  # a whole table first, then a better one
    record_run(options.out, entries)
    with threadpool_limits(options.threads):
        for (task, method), why in run(units).items():
            entries[task]["left out"][method] = why
    record_run(options.out, entries)
    print(report(options.out))


if __name__ == "__main__":
    main()
