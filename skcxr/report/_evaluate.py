"""Everything that a reader asks of a fitted classifier, in one call."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skcxr._exceptions import InputError
from skcxr._seeds import draw_seed
from skcxr.audit import audit_dataset, shortcut_report
from skcxr.inspection._pictures import Films
from skcxr.inspection._seen import shown_of
from skcxr.metrics import classification_report_ci, operating_points
from skcxr.model_selection import patients_of, read_patients
from skcxr.report._card import fill_card, model_text, software
from skcxr.report._external import Collection, External, answers_of, sentences_of, unpack
from skcxr.report._films import draw_films, name_of
from skcxr.report._predictions import labels_of, one_hot, predict, readable, subgroups_of
from skcxr.report._report import EvaluationReport

__all__ = ["evaluate"]

Array = np.ndarray[Any, Any]

_SMALLEST = 8  # pixels on a side of what the audit looks at


@validate_params(
    {
        "estimator": "no_validation",
        "X": "no_validation",
        "y": "no_validation",
        "groups": "no_validation",
        "source": "no_validation",
        "frame": "no_validation",
        "train": "no_validation",
        "external": [dict, None],
        "prevalence": [dict, Real, None],
        "card": [dict, None],
        "title": [str],
        "audit": ["boolean"],
        "shortcuts": ["boolean"],
        "heatmaps": [StrOptions({"auto", "gradcam", "occlusion"}), None],
        "method": [StrOptions({"percentile", "BCa"})],
        "n_resamples": [Interval(Integral, 100, None, closed="left")],
        "confidence_level": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
        "progress": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def evaluate(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    source: Any = None,
    frame: Any = None,
    train: Any = None,
    external: dict[str, Any] | None = None,
    prevalence: dict[Any, float] | float | None = None,
    card: dict[str, str] | None = None,
    title: str = "Evaluation",
    audit: bool = True,
    shortcuts: bool = True,
    heatmaps: str | None = "auto",
    method: str = "percentile",
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    random_state: int | np.random.RandomState | None = 0,
    progress: bool = True,
) -> EvaluationReport:
    """Evaluate a fitted classifier: scores with intervals, audits, heatmaps, other hospitals.

    Parameters
    ----------
    estimator : object
        A fitted classifier with ``predict_proba``, ``decision_function`` or ``predict``; any of
        scikit-learn's, also a Pipeline, a search or an ensemble.
    X : paths or array
        Films that it was not fitted on, as the estimator takes them.
    y : array-like of shape (n,) or (n, n_findings)
        Classes; or findings of 0, 1 and NaN, which is "not labelled".
    groups : array-like of shape (n,), default=None
        The patient of each film, over whom intervals are drawn. None reads patients from the
        names of files that carry them.
    source : array-like of shape (n,), default=None
        The collection or hospital of each film; each gets scores of its own.
    frame : pandas.DataFrame of n rows, default=None
        What else is known: columns called age, sex, view and source become subgroups, and all
        columns are tested by the audit.
    train : Bunch or tuple (X, y) or (X, y, groups), default=None
        What the estimator was fitted on. With it the audit covers both sides: patients and
        duplicates on both, and what tells the classes of the training films without the lungs. Of
        `source` and `frame` only what a Bunch tells of the training films too is then audited.
    external : dict of str to Bunch or tuple (X, y) or (X, y, groups), default=None
        Other collections, y None where there are no labels.
    prevalence : dict of label to float, or float, default=None
        Shares of the population at which predictive values are wanted, in (0, 1); a float is of
        the second of two classes.
    card : dict of str to str, default=None
        Fields of the model card (`skcxr.report.CARD_FIELDS`); others are "not reported".
    title : str, default="Evaluation"
        Heads the page.
    audit : bool, default=True
        Whether :func:`skcxr.audit.audit_dataset` is asked.
    shortcuts : bool, default=True
        Whether :func:`skcxr.audit.shortcut_report` is asked; of classes only.
    heatmaps : {"auto", "gradcam", "occlusion"} or None, default="auto"
        What is shown beside films. "auto" is Grad-CAM where the estimator and the extra
        ``explain`` allow it, else nothing.
    method : {"percentile", "BCa"}, default="percentile"
        Kind of bootstrap interval.
    n_resamples : int, default=1000
        Draws of patients.
    confidence_level : float, default=0.95
        Of the intervals, in (0, 1).
    random_state : int, RandomState instance or None, default=0
        Seed of everything that is drawn.
    progress : bool, default=True
        Whether long work shows a bar on a terminal's standard error.

    Returns
    -------
    EvaluationReport
        Scores, audits, other collections and the card; :meth:`~EvaluationReport.to_html` writes
        the page.

    Raises
    ------
    InputError
        X, y, groups, `external` or `card` do not fit together or the estimator.
    ImageReadError
        A file cannot be read, and the estimator does not let it pass (``on_error="nan"``).
    MissingDependencyError
        `heatmaps` need the extra ``explain``.

    Warns
    -----
    PatientWarning
        `groups` is None.

    Notes
    -----
    For research only, not for diagnosis. A score says what happens on films like these.

    Examples
    --------
    >>> from skcxr import CXRClassifier, make_cxr_phantoms
    >>> from skcxr.report import evaluate
    >>> drawn = make_cxr_phantoms(32, n_classes=2, image_size=32, random_state=0)
    >>> test = make_cxr_phantoms(24, n_classes=2, image_size=32, random_state=1)
    >>> clf = CXRClassifier(max_epochs=2, random_state=0).fit(drawn.data, drawn.target)
    >>> report = evaluate(
    ...     clf, test.data, test.target, groups=test.groups, n_resamples=100, heatmaps=None,
    ...     shortcuts=False,
    ... )
    >>> report.labels
    ['Bacterial Pneumonia', 'Healthy']
    """
    fill_card(card, {})  # what is wrong is said before minutes of work
    others = {name: unpack(f"external[{name!r}]", x) for name, x in (external or {}).items()}
    fitted = None if train is None else unpack("train", train)
    seed = draw_seed(random_state)
    truth = labels_of(estimator, y, "y")
    pictures = shown_of(estimator, X)
    if len(truth) != pictures.n:
        raise InputError(f"X holds {pictures.n} images but y has {len(truth)} entries")
    patients = _patients(X, len(truth), groups)
    labels, proba, said = predict(estimator, X, truth)
    read = readable(proba, len(truth))
    if not read.any():
        raise InputError("none of the images of X can be read; there is nothing to score")
    kept = np.flatnonzero(read)
    options: dict[str, Any] = {
        "labels": labels, "method": method, "n_resamples": n_resamples,
        "confidence_level": confidence_level, "random_state": seed,
    }  # fmt: skip

    def at(values: Any) -> Any:
        return None if values is None else values[read]

    metrics = classification_report_ci(
        truth[read], at(proba), y_pred=said[read], groups=patients[read], prevalence=prevalence,
        subgroups=subgroups_of(frame, source, len(truth), read), **options,
    )  # fmt: skip
    multi = truth.ndim == 2
    chosen = one_hot(said, labels)
    report = EvaluationReport(
        title=title,
        labels=labels,
        y_true=truth[read],
        y_score=at(proba),
        y_pred=said[read],
        groups=patients[read],
        metrics=metrics,
        operating=_operating(truth[read], at(proba), labels, patients[read], prevalence, options),
        unread=[name_of(pictures, i) for i in np.flatnonzero(~read).tolist()],
    )
    report.data = _describe(report, groups is not None, frame, source, fitted)
    if audit:
        report.audit = _audit(
            estimator,
            pictures,
            truth,
            y,
            patients,
            groups is not None,
            source,
            frame,
            fitted,
            seed,
            progress,
        )
    if shortcuts and not multi:
        report.shortcuts = shortcut_report(
            estimator, pictures.take(kept.tolist()), truth[read], groups=patients[read],
            labels=labels, random_state=seed, n_resamples=n_resamples, progress=progress,
        )  # fmt: skip
    for name, other in others.items():
        report.external[name] = _external(estimator, name, other, report, chosen[read], options)
    draw_films(report, estimator, pictures, truth, proba, said, patients, read, heatmaps, seed)
    report.card = fill_card(card, _found(estimator, report, fitted))
    report.software = software()
    return report


def _patients(X: Any, n: int, groups: Any) -> Array:
    return np.asarray(patients_of(X, n, groups, "evaluate"))


def _operating(
    truth: Array, proba: Array | None, labels: list[Any], patients: Array, prevalence: Any,
    options: dict[str, Any],
) -> Any:  # fmt: skip
    """Thresholds of each class against the rest, at fixed sensitivity and specificity."""
    import pandas as pd

    if proba is None:
        return None
    more = {name: value for name, value in options.items() if name != "labels"}
    tables = []
    for k, label in enumerate(labels):
        if truth.ndim == 2:
            known = ~np.isnan(truth[:, k].astype(float))
            positive = truth[known, k].astype(float) == 1
        else:
            if len(labels) == 2 and k == 0:
                continue
            known = np.ones(len(truth), bool)
            positive = truth == label
        if not 0 < positive.sum() < len(positive):
            continue
        at = prevalence.get(label) if isinstance(prevalence, dict) else prevalence
        table = operating_points(
            positive, proba[known, k], pos_label=True, sensitivity=[0.9, 0.95],
            specificity=[0.9, 0.95], groups=patients[known], prevalence=at, **more,
        )  # fmt: skip
        table.insert(0, "class", label)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else None


def _audit(
    estimator: Any, pictures: Films, truth: Array, y: Any, patients: Array, given: bool,
    source: Any, frame: Any, train: Collection | None, seed: int, progress: bool,
) -> Any:  # fmt: skip
    """The audit of the test films, and of the training films where these are given."""
    options: dict[str, Any] = {"random_state": seed, "progress": progress}
    ours = _pixels_of(pictures)
    if ours is None:
        return None
    if train is None:
        return audit_dataset(ours, y, groups=patients, source=source, frame=frame, **options)
    before = labels_of(estimator, train.y, "train")
    theirs = _pixels_of(shown_of(estimator, train.X))
    if type(theirs) is not type(ours) or (
        not isinstance(ours, list) and np.shape(ours)[1:] != np.shape(theirs)[1:]
    ):
        raise InputError("train holds images of another kind or size than X")
    if len(before) != len(theirs):
        raise InputError(f"train holds {len(theirs)} images but {len(before)} labels")
    both = [*theirs, *ours] if isinstance(ours, list) else np.concatenate([theirs, ours])
    n_train, n_test = len(theirs), len(patients)
    people = _patients(train.X, n_train, train.groups).astype(str)
    tested = patients.astype(str)
    if pictures.paths is None:  # numbers of films are no patients
        people = people if train.groups is not None else np.char.add("training film ", people)
        tested = tested if given else np.char.add("test film ", tested)
    return audit_dataset(
        both, np.concatenate([before, truth]),
        groups=np.concatenate([people, tested]),
        split=np.repeat(["train", "test"], [n_train, n_test]),
        source=_joined(train.source, source), frame=_joined(train.frame, frame), **options,
    )  # fmt: skip


def _pixels_of(pictures: Films) -> Any:
    """Paths, or pixels of films; None of rows that are none."""
    if pictures.paths is not None:
        return pictures.paths
    pixels = np.stack([pictures.native(i) for i in range(pictures.n)])
    return pixels if min(pixels.shape[1:3]) >= _SMALLEST else None


def _joined(theirs: Any, ours: Any) -> Any:
    """What is known of training and test films; None where it is known of one side only.

    What is told of one side alone would be told apart by the side.
    """
    import pandas as pd

    if theirs is None or ours is None:
        return None
    if hasattr(ours, "columns"):
        shared = [column for column in ours.columns if column in theirs.columns]
        return pd.concat([theirs[shared], ours[shared]], ignore_index=True)
    return np.concatenate([np.asarray(theirs).astype(str), np.asarray(ours).astype(str)])


def _external(
    estimator: Any, name: str, other: Collection, report: EvaluationReport,
    inside: Array, options: dict[str, Any],
) -> External:  # fmt: skip
    X, y, groups, *_ = other
    truth = None if y is None else labels_of(estimator, y, f"external[{name!r}]")
    if truth is not None and truth.ndim != np.ndim(report.y_true):
        raise InputError(f"external[{name!r}]: y has shape {truth.shape}, unlike the test set's")
    labels, proba, said = predict(estimator, X, report.y_true[:0] if truth is None else truth)
    read = readable(proba, len(said))
    if not read.any():
        raise InputError(f"external[{name!r}]: none of its images can be read")
    chosen = one_hot(said, labels)[read]
    answers = answers_of(labels, chosen, None if proba is None else proba[read], inside)
    metrics, n_patients = None, None if groups is None else len(np.unique(np.asarray(groups)[read]))
    if truth is not None:
        if len(truth) != len(said):
            raise InputError(
                f"external[{name!r}]: X holds {len(said)} images but y has {len(truth)} entries"
            )
        patients = np.asarray(groups) if groups is not None else read_patients(X, len(truth))[0]
        metrics = classification_report_ci(
            truth[read], None if proba is None else proba[read], y_pred=said[read],
            groups=patients[read], **options,
        )  # fmt: skip
        n_patients = metrics.n_patients
    n = int(read.sum())
    sentences = sentences_of(name, n, answers, metrics, report.metrics)
    return External(name, n, n_patients, answers, metrics, sentences)


def _describe(
    report: EvaluationReport, given: bool, frame: Any, source: Any, train: Collection | None
) -> list[tuple[str, str]]:
    """What was evaluated on, in words."""
    lines = [
        ("test films", f"{len(report.y_true)} of {len(np.unique(report.groups))} patients"),
        ("patients", "given" if given else "read from file names, or each film one of its own"),
    ]
    for k, label in enumerate(report.labels):
        has = report.y_true[:, k] == 1 if report.y_true.ndim == 2 else report.y_true == label
        n_patients = len(np.unique(report.groups[has]))
        lines.append((str(label), f"{int(has.sum())} films of {n_patients} patients"))
    if report.unread:
        lines.append(("not read", f"{len(report.unread)}: " + ", ".join(report.unread[:5])))
    if source is not None:
        lines.append(("sources", ", ".join(sorted({str(s) for s in np.asarray(source)})[:12])))
    if train is None:
        lines.append(("training films", "not given: leaks between training and test are unchecked"))
    else:
        lines.append(("training films", f"{len(train.y)}, audited together with the test films"))
    if report.metrics.n_cases and frame is not None:
        lines.append(("known of each film", ", ".join(map(str, frame.columns))))
    return lines


def _found(estimator: Any, report: EvaluationReport, train: Collection | None) -> dict[str, str]:
    """Fields of the card that need nobody's word."""
    found = {
        "architecture": model_text(estimator),
        "not intended for": "diagnosis; research only",
        "failure analysis": "the most certain mistakes are shown on this page",
    }
    if report.external:
        found["external validation"] = ", ".join(report.external)
    subgroups = sorted({name.split("=")[0] for name in report.metrics.to_frame()["subgroup"]})
    subgroups = [name for name in subgroups if name != "all"]
    if subgroups:
        found["subgroups"] = ", ".join(subgroups)
    if report.y_score is not None:
        found["calibration"] = "reliability by class, ECE and Brier score on this page"
    if train is not None:
        found["training data"] = f"{len(train.y)} films, audited on this page"
    return found
