"""The films on the page: mistakes, and some of each class, with heatmaps if they can be had."""

from __future__ import annotations

from typing import Any

import numpy as np

from skcxr._exceptions import InputError, MissingDependencyError
from skcxr.inspection import ErrorsDisplay, GradCAMDisplay, OcclusionDisplay
from skcxr.inspection._errors import _mistakes
from skcxr.inspection._pictures import Films
from skcxr.report._report import EvaluationReport, Film

Array = np.ndarray[Any, Any]

_GALLERY, _ERRORS = 8, 8


def draw_films(
    report: EvaluationReport, estimator: Any, pictures: Films, truth: Array, proba: Array | None,
    said: Array, patients: Array, read: Array, heatmaps: str | None, seed: int,
) -> None:  # fmt: skip
    """The most certain mistakes and some films of each class, with heatmaps if they can be had."""
    if proba is None:
        report.heatmap_note = "The estimator gives no probabilities, so no films are shown."
        return
    labels, multi = report.labels, truth.ndim == 2
    wrong = _mistakes(truth, proba, np.asarray(labels), multi, said, _ERRORS, patients)
    errors = ErrorsDisplay._of(pictures, wrong)
    report.n_errors, report.n_checked = errors.n_errors, errors.n_cases
    shown = _spread(truth, proba, labels, patients, read, np.random.default_rng(seed))
    where = [*wrong.indices.tolist(), *shown]
    targets = wrong.columns.tolist()
    targets += [int(proba[i].argmax()) if multi else labels.index(said[i]) for i in shown]
    heat = _heat(report, estimator, pictures, where, np.asarray(labels)[targets], heatmaps)
    films = []
    for k, (i, column) in enumerate(zip(where, targets, strict=True)):
        mistake = k < len(wrong.indices)
        films.append(
            Film(
                pictures.film(i),
                None if heat is None else heat[k],
                name_of(pictures, i),
                wrong.true[k] if mistake else _true(truth, labels, i),
                wrong.predicted[k] if mistake else _true(said, labels, i),
                float(wrong.probabilities[k] if mistake else proba[i, column]),
                mistake or _is_wrong(truth[i], said[i]),
            )
        )
    report.errors, report.gallery = films[: len(wrong.indices)], films[len(wrong.indices) :]


def _heat(
    report: EvaluationReport, estimator: Any, pictures: Any, where: list[int], targets: Array,
    heatmaps: str | None,
) -> Array | None:  # fmt: skip
    if heatmaps is None or not where:
        report.heatmap_note = "Heatmaps were not asked for."
        return None
    kind: Any = OcclusionDisplay if heatmaps == "occlusion" else GradCAMDisplay
    try:
        maps = kind._look(estimator, pictures.take(where), target=targets).heatmaps
    except (InputError, MissingDependencyError) as error:
        if heatmaps != "auto":
            raise
        report.heatmap_note = f"No heatmaps: {error}"
        return None
    report.heatmap_note = (
        "Colour shows what raises the score of the predicted class in this network, on each "
        "film's own scale. It is no proof that a finding is there or that the model is right."
    )
    return np.asarray(maps)


def _spread(
    truth: Array, proba: Array, labels: list[Any], patients: Array, read: Array,
    rng: np.random.Generator,
) -> list[int]:  # fmt: skip
    """Films of each class in turn, each of another patient, drawn at random."""
    order = [i for i in rng.permutation(len(truth)).tolist() if read[i]]
    queues: list[list[int]] = []
    for k, label in enumerate(labels):
        here = [i for i in order if (truth[i, k] == 1 if truth.ndim == 2 else truth[i] == label)]
        queues.append(here)
    chosen: list[int] = []
    seen: set[Any] = set()
    while len(chosen) < _GALLERY and any(queues):
        for queue in queues:
            while queue:
                i = queue.pop(0)
                if patients[i] not in seen:
                    chosen.append(i)
                    seen.add(patients[i])
                    break
    return chosen[:_GALLERY]


def _is_wrong(true: Any, said: Any) -> bool:
    """Whether an answer is wrong; of findings, one that is labelled."""
    if np.ndim(true) == 0:
        return bool(true != said)
    labels = np.asarray(true, dtype=float)
    known = ~np.isnan(labels)
    return bool(((labels == 1) != np.asarray(said, dtype=bool))[known].any())


def _true(truth: Array, labels: list[Any], i: int) -> str:
    if truth.ndim == 1:
        return str(truth[i])
    return ", ".join(str(labels[k]) for k in np.flatnonzero(truth[i] == 1)) or "none"


def name_of(pictures: Any, i: int) -> str:
    names = pictures.names
    return f"X[{i}]" if names is None else str(names[i])
