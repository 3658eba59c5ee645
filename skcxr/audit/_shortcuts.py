"""Whether a model reads the lungs, or what stands beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, validate_params

from skcxr._exceptions import InputError
from skcxr._seeds import draw_seed
from skcxr.audit._masks import SWAPS, versions
from skcxr.audit._pictures import Pictures
from skcxr.audit._shortcut_findings import WHOLE, Judged, findings_from
from skcxr.audit._shortcut_plot import ShortcutReport
from skcxr.audit._swaps import Composites, Judge, pairs, without_memory
from skcxr.model_selection import read_patients

__all__ = ["ShortcutReport", "shortcut_report"]

Array = np.ndarray[Any, Any]

_CHUNK = 64  # films in one call of the estimator
_COMPOSITES = 600  # films composed for each part, at least
_SHOWN_AFTER = 2.0  # seconds


@validate_params(
    {
        "estimator": "no_validation",
        "X": "no_validation",
        "y": "no_validation",
        "groups": "no_validation",
        "labels": "no_validation",
        "max_images": [Interval(Integral, 4, None, closed="left"), None],
        "n_resamples": [Interval(Integral, 100, None, closed="left")],
        "confidence_level": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
        "progress": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def shortcut_report(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    labels: Any = None,
    max_images: int | None = 300,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: int | np.random.RandomState | None = 0,
    progress: bool = True,
) -> ShortcutReport:
    """Find out whether a fitted classifier reads the lungs or what stands beside them.

    Two kinds of evidence. *Versions*: the score on the same films with the lungs masked, only the
    border or the corners left, these masked, at low resolution, and with brightness made equal;
    what is masked is filled with the mean film, the same for all. *Swaps*: films get the border,
    the corners, all that is outside the lungs, or the brightness of a film of another patient. A
    model that reads the lungs says the same whatever class the donor has; a model that reads the
    border follows the donor. Both sides of that comparison are composed alike, so a model that is
    merely upset by masks raises no alarm.

    Parameters
    ----------
    estimator : object
        A fitted classifier with ``predict`` and, better, ``predict_proba`` or
        ``decision_function``; any of scikit-learn's, also a Pipeline or an ensemble.
    X : paths or array
        Films that it was not fitted on, as the estimator takes them: paths, pictures of shape
        (n, H, W), (n, C, H, W) or (n, H, W, C), or rows of the pixels of squares.
    y : array-like of shape (n,)
        The class of each film.
    groups : array-like of shape (n,), default=None
        The patient of each film. None reads patients from the names of files that carry them; any
        other film is taken for a patient of its own.
    labels : list, default=None
        The classes in the order of the columns of scores. None takes ``estimator.classes_``, else
        the sorted classes of `y`.
    max_images : int or None, default=300
        How many films are used at most, drawn at random within each class. None uses all.
    n_resamples : int, default=1000
        Draws of the bootstrap over patients and of the permutations.
    confidence_level : float, default=0.95
        Of the intervals, in (0, 1).
    random_state : int, RandomState instance or None, default=0
        Seed of everything that is drawn.
    progress : bool, default=True
        Whether work of more than two seconds shows a bar on a terminal's standard error.

    Returns
    -------
    ShortcutReport
        Findings, and the tables "scores" (balanced accuracy of each version), "classes"
        (sensitivity of each class), "swaps" (each part and class) and "films" (the rows of `X` that
        were used). A finding that is serious or a warning is an alarm.

    Raises
    ------
    InputError
        X, y, groups or labels do not fit together, or the estimator cannot predict.
    ImageReadError
        A file cannot be read.

    See Also
    --------
    audit_dataset : What a data set alone tells, without a model.

    Notes
    -----
    Intervals are percentile bootstraps over patients; those of swaps draw the patients of hosts and
    of donors anew. Chance is the mean, with its central range, over permutations of the classes
    among patients. A share is the change of log-odds with the class of the donor, divided by their
    change with the class of the whole film. An alarm needs a share whose lower bound, corrected for
    the number of shares looked at, is well above what films with nothing planted have.

    Changed files are written without loss, in the depth of the old ones and under their names, to a
    temporary folder, and removed. Nothing of the estimator or of X is changed.

    References
    ----------
    DeGrave et al., "AI for radiographic COVID-19 detection selects shortcuts over signal", Nature
    Machine Intelligence 3, 2021. Maguolo and Nanni, "A critic evaluation of methods for COVID-19
    automatic detection from X-ray images", Information Fusion 76, 2021 (lungs masked).

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.audit import shortcut_report
    >>> films = make_cxr_phantoms(60, n_classes=2, image_size=32, shortcut="border", random_state=0)
    >>> X = films.data.reshape(60, -1) / 255
    >>> model = LogisticRegression().fit(X[::2], films.target[::2])
    >>> report = shortcut_report(
    ...     model, X[1::2], films.target[1::2], groups=films.groups[1::2], progress=False
    ... )
    >>> "border" in [finding.check for finding in report.alarms]
    True
    """
    if not hasattr(estimator, "predict") or isinstance(estimator, type):
        raise InputError(f"estimator is {estimator!r}; it must be a fitted classifier")
    pictures = Pictures(X, getattr(estimator, "channel_axis", "auto"))
    names = _labels(estimator, y, labels)
    classes = _classes(y, names, pictures.n)
    patients = _patients(groups, pictures)
    rng = np.random.default_rng(draw_seed(random_state))
    used = _drawn(classes, max_images, rng)
    classes, patients = classes[used], patients[used]
    pictures = Pictures(pictures.take(used), getattr(estimator, "channel_axis", "auto"))

    judge = Judge(without_memory(estimator), names)
    made = versions(pictures, classes)
    dealt = pairs(classes, patients, max(_COMPOSITES, 3 * pictures.n), rng)
    n_films = pictures.n * (1 + len(made)) + len(dealt) * len(SWAPS)
    predicted, swaps = {}, {}
    with _bar(n_films, progress) as advance:
        predicted[WHOLE], odds = _judged_whole(judge, pictures, advance)
        for name, change in made.items():
            films = ((change(pictures[i]), i) for i in range(pictures.n))
            predicted[name], _ = _judged(judge, pictures, films, advance)
        for part, swap in SWAPS.items():
            films = ((swap(pictures[i], pictures[j]), i) for i, j in dealt)
            said = _judged(judge, pictures, films, advance)
            swaps[part] = Composites(dealt[:, 0], dealt[:, 1], *said)
    judged = Judged(predicted, odds, swaps, classes, patients, names)
    findings, tables = findings_from(
        judged, n_resamples=n_resamples, confidence_level=confidence_level, rng=rng
    )
    tables["films"] = _films(used, classes, patients, names, predicted)
    shown = pictures[0]
    samples = {WHOLE: shown} | {name: change(shown) for name, change in made.items()}
    return ShortcutReport(findings, tables, samples=samples)


def _labels(estimator: Any, y: Any, labels: Any) -> list[Any]:
    """The classes in the order of the columns of scores."""
    if labels is None:
        labels = getattr(estimator, "classes_", None)
        if isinstance(labels, list) or np.ndim(labels) > 1:
            raise InputError(
                "estimator was fitted on several findings; shortcut_report takes one class for "
                "each film: wrap the estimator so that it predicts one of them"
            )
    if labels is None:
        labels = np.unique(np.asarray(y))
    names = np.asarray(labels).tolist()
    if len(set(names)) != len(names) or len(names) < 2:
        raise InputError(f"the classes are {names}; two or more different ones are needed")
    return list(names)


def _classes(y: Any, names: list[Any], n: int) -> Array:
    """The class of each film as an index."""
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(f"y has shape {y.shape}; it must hold one class for each film")
    if len(y) != n:
        raise InputError(f"X holds {n} films and y {len(y)} classes")
    index = {name: k for k, name in enumerate(names)}
    for i, label in enumerate(y.tolist()):
        if label not in index:
            raise InputError(
                f"y[{i}] is {label!r}, which is none of the estimator's classes {names}"
            )
    classes = np.array([index[label] for label in y.tolist()])
    if len(np.unique(classes)) < 2:
        raise InputError(f"y holds only {names[classes[0]]!r}; films of two classes are needed")
    return classes


def _patients(groups: Any, pictures: Pictures) -> Array:
    """The patient of each film as an index."""
    if groups is None:
        groups, _ = read_patients(pictures.X, pictures.n)
    groups = np.asarray(groups).ravel()
    if len(groups) != pictures.n:
        raise InputError(f"X holds {pictures.n} films and groups {len(groups)} patients")
    index: dict[Any, int] = {}
    return np.array([index.setdefault(patient, len(index)) for patient in groups.tolist()])


def _drawn(classes: Array, max_images: int | None, rng: np.random.Generator) -> Array:
    """Which films are used, in their order: as many of each class as its share allows."""
    n = len(classes)
    if max_images is None or n <= max_images:
        return np.arange(n)
    chosen = [
        rng.permutation(at)[: max(2, round(max_images * len(at) / n))]
        for at in (np.flatnonzero(classes == c) for c in np.unique(classes))
    ]
    return np.sort(np.concatenate(chosen))


def _judged_whole(
    judge: Judge, pictures: Pictures, advance: Callable[[int], None]
) -> tuple[Array, Array]:
    """What is said of the films as they are, and whether predict is the highest score."""
    predicted, odds = [], []
    for start in range(0, pictures.n, _CHUNK):
        at = np.arange(start, min(start + _CHUNK, pictures.n))
        said = judge(pictures.take(at), len(at), check=True)
        predicted.append(said[0])
        odds.append(said[1])
        advance(len(at))
    return np.concatenate(predicted), np.concatenate(odds)


def _judged(
    judge: Judge,
    pictures: Pictures,
    films: Iterator[tuple[Array, int]],
    advance: Callable[[int], None],
) -> tuple[Array, Array]:
    """What is said of changed films, some at a time."""
    predicted, odds = [], []
    while chunk := list(islice(films, _CHUNK)):
        changed, origin = zip(*chunk, strict=True)
        with pictures.handed_back(changed, [int(i) for i in origin]) as X:
            said = judge(X, len(chunk))
        predicted.append(said[0])
        odds.append(said[1])
        advance(len(chunk))
    if not predicted:
        return np.empty(0, dtype=int), np.empty((0, len(judge.labels)))
    return np.concatenate(predicted), np.concatenate(odds)


def _films(
    used: Array, classes: Array, patients: Array, names: list[Any], predicted: dict[str, Array]
) -> Any:
    import pandas as pd

    columns = {"row": used, "target": [names[c] for c in classes], "patient": patients}
    called = {name: [names[c] for c in said] for name, said in predicted.items()}
    return pd.DataFrame(columns | called)


@contextmanager
def _bar(total: int, progress: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal's standard error, from when the work has proved long."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not progress or not console.is_terminal:
        yield lambda n: None
        return
    bar = Progress(console=console, transient=True)
    task = bar.add_task("films changed and read", total=total)
    begin, shown = time.monotonic(), False

    def advance(n: int) -> None:
        nonlocal shown
        if not shown and time.monotonic() - begin > _SHOWN_AFTER:
            bar.start()
            shown = True
        bar.advance(task, n)

    try:
        yield advance
    finally:
        bar.stop()
