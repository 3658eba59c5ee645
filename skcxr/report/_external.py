"""Another hospital's films beside the test set: scores, or what is said of them, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skcxr._exceptions import InputError

__all__ = ["External"]

Array = np.ndarray[Any, Any]

_CLEAR = 0.05  # a drop that words speak of


@dataclass(frozen=True)
class External:
    """What a model says of another collection.

    Parameters
    ----------
    name : str
        The collection.
    n_cases : int
        Images that could be read.
    n_patients : int or None
        Their patients; None where nobody knows.
    answers : pandas.DataFrame
        A row for each class: how often it is predicted here, how often in the test set, and the
        mean probability of the predictions.
    metrics : MetricsReport or None
        Scores, where labels were given.
    sentences : list of str
        The drop, and what stands out, in words.

    Examples
    --------
    >>> from skcxr import CXRClassifier, make_cxr_phantoms
    >>> from skcxr.report import evaluate
    >>> drawn = make_cxr_phantoms(24, n_classes=2, image_size=32, random_state=0)
    >>> other = make_cxr_phantoms(8, n_classes=2, image_size=32, noise=3, random_state=1)
    >>> clf = CXRClassifier(max_epochs=1, random_state=0).fit(drawn.data, drawn.target)
    >>> report = evaluate(
    ...     clf, drawn.data, drawn.target, groups=drawn.groups, n_resamples=100, random_state=0,
    ...     external={"elsewhere": (other.data, None)}, heatmaps=None, shortcuts=False,
    ... )
    >>> report.external["elsewhere"].n_cases
    8
    """

    name: str
    n_cases: int
    n_patients: int | None
    answers: Any
    metrics: Any
    sentences: list[str]


class Collection(NamedTuple):
    """Films of a collection and what is known of them."""

    X: Any
    y: Any
    groups: Any = None
    source: Any = None
    frame: Any = None


def unpack(parameter: str, entry: Any) -> Collection:
    """What a user gave as `parameter`: a Bunch, (X, y) or (X, y, groups).

    Raises
    ------
    InputError
        It is none of these, or its lengths differ.
    """
    if hasattr(entry, "data") and hasattr(entry, "target"):
        more = (entry.get(name) for name in ("groups", "source", "frame"))
        found = Collection(entry.data, entry.target, *more)
    elif isinstance(entry, tuple | list) and len(entry) in (2, 3):
        found = Collection(*entry)
    else:
        raise InputError(
            f"{parameter} must be a Bunch, (X, y) or (X, y, groups), y None where there are no "
            f"labels; got {type(entry).__name__}"
        )
    if found.y is not None and found.groups is not None and len(found.y) != len(found.groups):
        raise InputError(f"{parameter} has {len(found.y)} labels but {len(found.groups)} groups")
    return found


def answers_of(labels: list[Any], predicted: Array, proba: Array | None, inside: Array) -> Any:
    """How often each class is said here and in the test set, and how surely."""
    import pandas as pd

    rows = []
    for k, label in enumerate(labels):
        said = predicted[:, k]
        sure = float(proba[said, k].mean()) if proba is not None and said.any() else float("nan")
        rows.append((label, int(said.sum()), float(said.mean()), float(inside[:, k].mean()), sure))
    columns = ["class", "images", "share", "share in the test set", "mean probability"]
    return pd.DataFrame(rows, columns=columns)


def sentences_of(name: str, n: int, answers: Any, metrics: Any, inside: Any) -> list[str]:
    """The drop against the test set, and the class that is said most, in words."""
    sentences = []
    top = answers.loc[answers["share"].idxmax()]
    sure = top["mean probability"]
    sentences.append(
        f"Of {n} films of {name} the model calls {top['images']} ({top['share']:.0%}) "
        f"{top['class']}"
        + (f", with a mean probability of {sure:.2f}" if sure == sure else "")
        + f"; in the test set it says so of {top['share in the test set']:.0%}."
    )
    if metrics is None:
        sentences.append(
            "There are no labels, so whether it is right cannot be told; if most of these are "
            "known to be something else, it is wrong."
        )
        return sentences
    for metric in ("accuracy", "macro AUROC"):
        here, there = metrics.value(metric), inside.value(metric)
        if here[0] != here[0] or there[0] != there[0]:
            continue
        change = here[0] - there[0]
        word = "falls to" if change < -_CLEAR else "rises to" if change > _CLEAR else "stays at"
        sentences.append(
            f"{metric[0].upper()}{metric[1:]} {word} {in_words(here, 2)}; in the test set it is "
            f"{in_words(there, 2)}."
        )
    frame = metrics.to_frame()
    lost = frame[(frame["metric"] == "sensitivity") & (frame["subgroup"] == "all")]
    for row in lost.itertuples():
        if row.value == row.value and row.value < 0.5:
            share = f"Only {row.value:.0%}" if row.value else "None"
            sentences.append(f"{share} of the {row.n_cases} {row.label} films is found here.")
    return sentences


def in_words(found: tuple[float, float, float], digits: int) -> str:
    """A metric with its interval, where it has one."""
    value, low, high = found
    text = f"{value:.{digits}f}"
    return text if low != low else f"{text} ({low:.{digits}f} to {high:.{digits}f})"
