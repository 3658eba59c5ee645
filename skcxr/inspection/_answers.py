"""What an estimator says of X, whatever its kind: scores, labels, the class that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from skcxr._exceptions import InputError

Array = np.ndarray[Any, Any]


def scores_of(estimator: Any, X: Any) -> Array:
    """Probabilities (n, k) of classes or findings; of scores without probabilities, squashed."""
    if hasattr(estimator, "predict_proba"):
        answer = estimator.predict_proba(X)
        if isinstance(answer, list):  # one (n, 2) for each finding, as forests give
            answer = np.stack([of_finding[:, 1] for of_finding in answer], axis=1)
        return np.asarray(answer, dtype=np.float64)
    if not hasattr(estimator, "decision_function"):
        raise InputError(
            f"estimator is {type(estimator).__name__}, which has neither predict_proba nor "
            "decision_function, so nothing says how sure it is"
        )
    answer = np.asarray(estimator.decision_function(X), dtype=np.float64)
    if answer.ndim == 1:
        return np.stack([expit(-answer), expit(answer)], axis=1)
    if _is_multi_label(estimator):
        return np.asarray(expit(answer))
    return np.asarray(softmax(answer, axis=1))


def _is_multi_label(estimator: Any) -> bool:
    classes: Any = getattr(estimator, "classes_", ())
    return (isinstance(classes, list) and len(classes) > 0) or np.ndim(classes) == 2


@dataclass(frozen=True)
class Answers:
    """Scores of images, and the class of each that is looked at.

    Parameters
    ----------
    names : ndarray of shape (k,)
        Classes, or findings.
    scores : ndarray of shape (n, k)
        Probabilities.
    multi_label : bool
        Whether the names are findings.
    predicted : ndarray of shape (n,) of int
        The class that is predicted; the finding of the highest probability.
    target : ndarray of shape (n,) of int
        The class that is looked at.
    """

    names: Array
    scores: Array
    multi_label: bool
    predicted: Array
    target: Array

    def pick(self, index: Array) -> tuple[Array, Array]:
        """Names and probabilities of one class for each image."""
        return self.names[index], self.scores[np.arange(len(index)), index]


def names_of(estimator: Any, findings: Array | None, n_columns: int) -> tuple[Array, bool]:
    """Names of the columns of an estimator's scores, and whether they are findings."""
    multi_label = _is_multi_label(estimator)
    if multi_label:
        return (np.arange(n_columns) if findings is None else np.asarray(findings)), True
    if not hasattr(estimator, "classes_"):
        raise InputError(
            f"estimator is {type(estimator).__name__}, which has no classes_; it must be a fitted "
            "classifier"
        )
    names = np.asarray(estimator.classes_)
    if len(names) != n_columns:
        raise InputError(
            f"{type(estimator).__name__} gives {n_columns} scores for {len(names)} classes"
        )
    return names, False


def ask(estimator: Any, X: Any, target: Any, findings: Array | None) -> Answers:
    """Scores of X, and the column of `target`: a label, one for each image, or None."""
    scores = scores_of(estimator, X)
    names, multi_label = names_of(estimator, findings, scores.shape[1])
    if np.isnan(scores).any():
        row = int(np.isnan(scores).any(axis=1).argmax())
        raise InputError(f"estimator gives NaN for image {row} of X, which cannot be explained")
    predicted = scores.argmax(axis=1)
    if not multi_label and hasattr(estimator, "predict"):  # which may have a threshold of its own
        predicted = _columns(names, np.asarray(estimator.predict(X)))
    chosen = predicted
    if target is not None:
        wanted = np.asarray(target)
        if wanted.ndim > 1 or (wanted.ndim == 1 and len(wanted) != len(scores)):
            raise InputError(
                f"target has shape {wanted.shape} for {len(scores)} images; give one label, or "
                "one for each image"
            )
        chosen = np.broadcast_to(_columns(names, np.atleast_1d(wanted)), len(scores))
    return Answers(names, scores, multi_label, predicted, chosen)


def _columns(names: Array, labels: Array) -> Array:
    """Where labels stand among names."""
    known = {name: k for k, name in enumerate(names.tolist())}
    found = []
    for label in labels.tolist():
        if label not in known:
            raise InputError(f"target={label!r} is none of {names.tolist()}")
        found.append(known[label])
    return np.array(found, dtype=np.intp)


def check_scores(y_true: Any, y_score: Any, labels: Any) -> tuple[Array, Array, bool]:
    """Scores (n, k), what their columns stand for, and whether these are findings."""
    truth, scores = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    multi_label = truth.ndim == 2 and truth.shape[1] > 1
    if labels is not None:
        names = np.asarray(labels)
    elif multi_label:
        names = (
            np.asarray(y_true.columns) if hasattr(y_true, "columns") else np.arange(len(truth[0]))
        )
    else:
        names = np.unique(truth)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.ndim == 1:
        scores = np.stack([1 - scores, scores], axis=1)
    if scores.shape != (len(truth), len(names)):
        raise InputError(
            f"y_score has shape {np.shape(y_score)} for {len(truth)} images and the labels "
            f"{names.tolist()}; set labels= to what its columns stand for"
        )
    if ((scores < 0) | (scores > 1)).any():
        raise InputError("y_score holds values outside of [0, 1]; give probabilities")
    return scores, names, multi_label
