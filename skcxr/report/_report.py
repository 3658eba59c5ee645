"""What an evaluation has found, and its page."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skcxr._files import write_text
from skcxr._notice import RESEARCH_ONLY
from skcxr.report._external import External, in_words

__all__ = ["EvaluationReport", "Film"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Film:
    """A film on the page.

    Parameters
    ----------
    image : ndarray of shape (H, W)
        Gray floats.
    heatmap : ndarray of shape (h, w) or None
        Heat in [0, 1].
    name : str
        The file's name, or its place in X.
    true, predicted : str
        Labels.
    probability : float
        Of what was predicted.
    wrong : bool
        Whether the two differ in what is labelled.

    Examples
    --------
    >>> import numpy as np
    >>> from skcxr.report import Film
    >>> Film(np.zeros((8, 8)), None, "a.png", "Healthy", "Covid-19", 0.9, True).predicted
    'Covid-19'
    """

    image: Array
    heatmap: Array | None
    name: str
    true: str
    predicted: str
    probability: float
    wrong: bool


@dataclass
class EvaluationReport:
    """What :func:`evaluate` has found.

    Parameters
    ----------
    title : str
        Heads the page.
    labels : list of object
        Classes or findings, in the order of the columns of `y_score`.
    y_true : ndarray of shape (n,) or (n, n_findings)
        Labels of the films that could be read.
    y_score : ndarray of shape (n, k) or None
        Probabilities; None where the estimator gives none.
    y_pred : ndarray of shape (n,) or (n, n_findings)
        What was predicted.
    groups : ndarray of shape (n,)
        Patients.
    metrics : MetricsReport
        Scores with intervals, subgroups among them.
    operating : pandas.DataFrame or None
        Thresholds at fixed sensitivity and specificity.
    unread : list of str, default=[]
        Names of the films that could not be read.
    audit, shortcuts : AuditReport or None, default=None
        What the audits have found.
    external : dict of str to External, default={}
        Other collections.
    errors, gallery : list of Film, default=[]
        The most certain mistakes, and films of each class.
    n_errors, n_checked : int, default=0
        How many answers are wrong, of how many.
    heatmap_note : str, default=""
        What the colours mean, or why there are none.
    data : list of (str, str), default=[]
        What was evaluated on.
    card : dict of str to list of (str, str), default={}
        The model card by section.
    software : dict of str to str, default={}
        Versions.

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
    >>> page = report.to_html()
    >>> page.startswith("<!DOCTYPE html>")
    True
    """

    title: str
    labels: list[Any]
    y_true: Array
    y_score: Array | None
    y_pred: Array
    groups: Array
    metrics: Any
    operating: Any
    unread: list[str] = field(default_factory=list)
    audit: Any = None
    shortcuts: Any = None
    external: dict[str, External] = field(default_factory=dict)
    errors: list[Film] = field(default_factory=list)
    gallery: list[Film] = field(default_factory=list)
    n_errors: int = 0
    n_checked: int = 0
    heatmap_note: str = ""
    data: list[tuple[str, str]] = field(default_factory=list)
    card: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    software: dict[str, str] = field(default_factory=dict)

    @property
    def confusion(self) -> Any:
        """Counts, true classes in rows; None of findings. A pandas.DataFrame."""
        import pandas as pd
        from sklearn.metrics import confusion_matrix

        if self.y_true.ndim == 2:
            return None
        matrix = confusion_matrix(self.y_true, self.y_pred, labels=self.labels)
        return pd.DataFrame(matrix, index=self.labels, columns=self.labels)

    def sentences(self) -> list[str]:
        """Say what matters most, in words.

        Returns
        -------
        list of str
            The scores, then what speaks against believing them.
        """
        n_patients = len(np.unique(self.groups))
        level = f"{self.metrics.confidence_level:.0%}"
        said = []
        names = ("accuracy", "balanced accuracy", "macro AUROC")
        parts = []
        for name in names:
            found = self.metrics.value(name)
            if found[0] == found[0]:
                parts.append(f"{name} {in_words(found, 3)}")
        said.append(
            f"On {len(self.y_true)} films of {n_patients} patients: {', '.join(parts)}; "
            f"{level} intervals over patients."
        )
        for report in (self.audit, self.shortcuts):
            if report is None:
                continue
            serious = [finding for finding in report if finding.severity == "serious"]
            said += [finding.sentence for finding in serious[:4]]
            if len(serious) > 4:
                said.append(f"{len(serious) - 4} more serious findings are below.")
        for other in self.external.values():
            said += other.sentences[:2]
        if not self.external:
            said.append(
                "No films of another hospital were looked at: how the model does there is unknown."
            )
        return said

    def to_frame(self) -> Any:
        """List all scores: of the test set, its subgroups and the other collections.

        Returns
        -------
        pandas.DataFrame
            The columns collection ("test set" or a name), subgroup, label, metric, value, low,
            high, n_cases, n_patients.
        """
        import pandas as pd

        tables = {"test set": self.metrics}
        tables |= {name: o.metrics for name, o in self.external.items() if o.metrics is not None}
        frames = []
        for name, metrics in tables.items():
            frame = metrics.to_frame()
            frame.insert(0, "collection", name)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write everything as one page that needs nothing else.

        Parameters
        ----------
        path : str, os.PathLike or None, default=None
            A file to write, complete or not at all; one that is there is replaced.

        Returns
        -------
        str
            The page.

        Raises
        ------
        InputError
            The folder of `path` does not exist.
        """
        from skcxr.report._page import page_html

        page = page_html(self)
        if path is not None:
            write_text(path, page)
        return page

    def __str__(self) -> str:
        parts = [self.title, *self.sentences(), str(self.metrics)]
        if self.confusion is not None:
            parts.append(f"Confusion matrix, true classes in rows\n{self.confusion.to_string()}")
        parts += [str(report) for report in (self.audit, self.shortcuts) if report is not None]
        parts += [" ".join(other.sentences) for other in self.external.values()]
        return "\n\n".join([*parts, RESEARCH_ONLY])

    def __repr__(self) -> str:
        accuracy = in_words(self.metrics.value("accuracy"), 3)
        return f"<EvaluationReport: {self.title}; {len(self.y_true)} films, accuracy {accuracy}>"

    def _repr_html_(self) -> str:
        from skcxr.report._page import notebook_html

        return notebook_html(self)
