"""How few labels a linear model needs on the weights, on patients that they have not seen.

`covid4` shares patients with the films of the training, so the weights to measure on it come from
``train --leave-out covid4.csv``; the shipped ones have seen all. Nothing of `adults256` is in
either.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skcxr
from skcxr import CXRClassifier, CXRFeatures, ImageLoader
from skcxr._shipped import SHIPPED

LITE0 = "timm:tf_efficientnet_lite0"


@dataclass(frozen=True)
class Task:
    """Images to tell apart, with the numbers of labels to learn from."""

    name: str
    paths: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    counts: tuple[int, ...]


def tasks(data: Path) -> list[Task]:
    """Four classes by patient, and adults of collections that the weights have not seen."""
    bunch = skcxr.load_cxr_table(
        data / "covid4.csv", target="finding", groups="patient", root=data / "covid4"
    )
    found = [
        Task("four classes", np.array(bunch.data), bunch.target.astype(str), bunch.groups,
             (5, 10, 20))
    ]  # fmt: skip
    adults = skcxr.load_cxr_folder(data / "adults256")
    paths, labels = np.array(adults.data), adults.target.astype(str)
    every = np.arange(len(paths)).astype(str)
    for name, classes, counts in (
        ("adults, normal or tuberculosis", ["Normal", "Tuberculosis"], (10, 80)),
        ("adults, normal or Covid-19", ["Normal", "Covid-19"], (10, 80)),
        ("adults, three classes", ["Normal", "Covid-19", "Tuberculosis"], (10, 80)),
    ):
        chosen = np.isin(labels, classes)
        found.append(Task(name, paths[chosen], labels[chosen], every[chosen], counts))
    return found


def draws(task: Task, n: int, n_draws: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`n` images of each class to learn from, and all images of other patients."""
    for seed in range(n_draws):
        rng = np.random.default_rng(seed)
        train = np.concatenate([
            rng.permutation(np.flatnonzero(task.labels == name))[:n]
            for name in np.unique(task.labels)
        ])  # fmt: skip
        yield train, np.flatnonzero(~np.isin(task.groups, task.groups[train]))


def linear(features: np.ndarray, task: Task, n: int, n_draws: int) -> list[float]:
    """Balanced accuracy of a logistic regression, in each draw."""
    scores = []
    for train, test in draws(task, n, n_draws):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(features[train], task.labels[train])
        scores.append(balanced_accuracy_score(task.labels[test], model.predict(features[test])))
    return scores


def scratch(task: Task, n: int, n_draws: int, **parameters: Any) -> list[float]:
    """Balanced accuracy of a network that is trained on the draw alone, or goes on from weights."""
    scores = []
    for train, test in draws(task, n, n_draws):
        model = CXRClassifier("cxrnet", random_state=0, **parameters)
        model.fit(task.paths[train].tolist(), task.labels[train])
        found = model.predict(task.paths[test].tolist())
        scores.append(balanced_accuracy_score(task.labels[test], found))
    return scores


def folds(task: Task, model: Any) -> tuple[list[float], float]:
    """Accuracy in five folds by patient, and seconds of a fit."""
    scores, seconds = [], []
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for train, test in splitter.split(task.paths, task.labels, task.groups):
        start = time.perf_counter()
        model.fit(task.paths[train].tolist(), task.labels[train])
        seconds.append(time.perf_counter() - start)
        found = model.predict(task.paths[test].tolist())
        scores.append(float(np.mean(found == task.labels[test])))
    return scores, float(np.median(seconds))


def rate(model: CXRFeatures, paths: list[str], size: int) -> float:
    """Decoded images a second on one core."""
    pixels = np.asarray(ImageLoader(image_size=size).fit_transform(paths)).reshape(-1, size, size)
    model.set_params(image_size=size).fit(pixels)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            model.transform(pixels)
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return len(pixels) / float(np.median(times))


def measure(data: Path, out: Path, weights: Path, lite0: Path | None, n_draws: int) -> None:
    """Write ``measured.json`` into `out`, and show it.

    `weights` is the folder of ``train --leave-out``.
    """
    out.mkdir(parents=True, exist_ok=True)
    SHIPPED["cxr"] = replace(SHIPPED["cxr"], folder=str(weights.resolve()))
    warnings.simplefilter("ignore", skcxr.PatientWarning)
    networks = {"cxr": CXRFeatures(weights="cxr")}
    if lite0 is not None:
        networks["ImageNet"] = CXRFeatures(LITE0, weights=lite0)
    found: list[dict[str, Any]] = []

    def keep(task: str, method: str, n: int | None, scores: list[float]) -> None:
        low, high = np.percentile(scores, [2.5, 97.5] if n else [0, 100])
        found.append({"task": task, "method": method, "n": n, "mean": float(np.mean(scores)),
                      "low": float(low), "high": float(high), "draws": len(scores)})  # fmt: skip

    given = tasks(data)
    for task in given:
        for name, network in networks.items():
            features = network.fit_transform(task.paths.tolist())
            for n in task.counts:
                keep(task.name, name, n, linear(features, task, n, n_draws))
        if task.name == "four classes":
            for n in task.counts:
                keep(task.name, "from nothing", n, scratch(task, n, 3))
    whole = given[0]
    linear_model = make_pipeline(networks["cxr"], StandardScaler(), LogisticRegression())
    keep(whole.name, "cxr, frozen", None, folds(whole, linear_model)[0])
    scores, seconds = folds(whole, CXRClassifier(weights="cxr", random_state=0))
    keep(whole.name, "cxr, fine-tuned", None, scores)
    paths = whole.paths[:64].tolist()
    rates = {
        name: rate(network, paths, 224 if name == "ImageNet" else 128)
        for name, network in networks.items()
    }
    content = {"results": found, "images_per_second": rates, "seconds_of_a_fit": seconds,
               "trained_on": len(np.load(SHIPPED["cxr"].hashes)),
               "patients": {"four classes": len(set(whole.groups.tolist()))},
               "images": {task.name: len(task.paths) for task in given}}  # fmt: skip
    (out / "measured.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    table = Table("task", "method", "per class", "mean", "95% of draws or folds")
    for row in found:
        table.add_row(row["task"], row["method"], str(row["n"] or "all"), f"{row['mean']:.3f}",
                      f"{row['low']:.3f} to {row['high']:.3f}")  # fmt: skip
    Console().print(table)
    Console().print(rates, f"{seconds:.0f} s a fit")
