"""What an audit has found: findings, their figures, and the tables they rest on."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from skcxr._exceptions import InputError
from skcxr._files import write_text

__all__ = ["SEVERITIES", "AuditReport", "Finding"]

SEVERITIES = ("serious", "warning", "note")

_WIDTH = 88  # of the text for a terminal
_SHOWN = 5  # items of a finding in text and HTML; to_frame() has all


@dataclass(frozen=True)
class Finding:
    """One thing that an audit has found.

    Parameters
    ----------
    check : str
        The check that found it, such as ``"near duplicates"``.
    severity : {"serious", "warning", "note"}
        ``"serious"``: scores on these data are not to be believed before it is mended;
        ``"warning"``: it may have moved the scores; ``"note"``: worth knowing.
    sentence : str
        What was found and what it means, in a clinician's words.
    figures : dict of str to float, int or str, default={}
        The figures behind the sentence.
    items : list of str, default=[]
        The files, patients or classes concerned, if any.

    Raises
    ------
    InputError
        `severity` is another word.

    Examples
    --------
    >>> from skcxr.audit import Finding
    >>> finding = Finding("view", "serious", "All 5 lateral views are Covid-19.", {"images": 5})
    >>> print(finding)
    SERIOUS  view
      All 5 lateral views are Covid-19.
      images 5
    """

    check: str
    severity: str
    sentence: str
    figures: dict[str, Any] = field(default_factory=dict)
    items: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise InputError(f"severity={self.severity!r} is not one of {SEVERITIES}")

    def __str__(self) -> str:
        lines = [f"{self.severity.upper():<8} {self.check}"]
        parts = [self.sentence, figures_text(self.figures), items_text(self.items)]
        for part in filter(None, parts):
            lines += textwrap.wrap(
                part, _WIDTH, initial_indent="  ", subsequent_indent="  ",
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
        return "\n".join(lines)


class AuditReport:
    """What an audit has found, the most severe first.

    Parameters
    ----------
    findings : list of Finding
        What was found.
    tables : dict of str to pandas.DataFrame
        What the findings rest on, by name. Two names are drawn by :meth:`plot`: ``"scores"``
        with the columns input, score, low, high, chance and, where there is one, reference; and
        ``"variables"`` with the columns variable, AUROC and alarm.
    title : str, default="Audit"
        What was audited.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once plotted.
    axes_ : ndarray of matplotlib Axes
        The panels, once plotted.

    Examples
    --------
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.audit import audit_dataset
    >>> data = make_cxr_phantoms(40, n_classes=2, image_size=64, shortcut="border", random_state=0)
    >>> report = audit_dataset(data.data, data.target, groups=data.groups)
    >>> [finding.severity for finding in report.alarms][0]
    'serious'
    >>> report.to_frame().columns.tolist()
    ['severity', 'check', 'sentence', 'figures', 'items']
    """

    def __init__(
        self, findings: list[Finding], tables: dict[str, Any], *, title: str = "Audit"
    ) -> None:
        self.findings = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
        self.tables, self.title = tables, title

    @property
    def alarms(self) -> list[Finding]:
        """The findings that are serious or a warning."""
        return [finding for finding in self.findings if finding.severity != "note"]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __repr__(self) -> str:
        return f"<AuditReport: {self.title}; {self.summary()}>"

    def __str__(self) -> str:
        return "\n\n".join([f"{self.title}: {self.summary()}", *map(str, self.findings)])

    def _repr_html_(self) -> str:
        from skcxr.audit._html import notebook_html

        return notebook_html(self)

    def summary(self) -> str:
        """Count the findings in words.

        Returns
        -------
        str
            Such as "2 serious, 1 warning, 3 notes".
        """
        counts = [sum(finding.severity == name for finding in self) for name in SEVERITIES]
        words = [
            f"{n} {name}{'s' if n != 1 and name != 'serious' else ''}"
            for n, name in zip(counts, SEVERITIES, strict=True)
            if n
        ]
        return ", ".join(words) or "nothing found"

    def to_frame(self) -> Any:
        """List the findings.

        Returns
        -------
        pandas.DataFrame of shape (n_findings, 5)
            The columns severity, check, sentence, figures (dicts) and items (lists).
        """
        import pandas as pd

        columns = ["severity", "check", "sentence", "figures", "items"]
        rows = [[getattr(finding, name) for name in columns] for finding in self]
        return pd.DataFrame(rows, columns=columns)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write findings, picture and tables as one page that needs nothing else.

        Parameters
        ----------
        path : str, os.PathLike or None, default=None
            A file to write, whole or not at all; one that is there is replaced.

        Returns
        -------
        str
            The page.

        Raises
        ------
        InputError
            The folder of `path` does not exist.
        """
        from skcxr.audit._html import page_html

        page = page_html(self)
        if path is not None:
            write_text(path, page)
        return page

    def plot(self, ax: Any = None) -> AuditReport:
        """Plot what a classifier scores without the lungs, and what differs between classes.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where the first panel is drawn, and no other; None for a new figure with all.

        Returns
        -------
        AuditReport
            The report itself.
        """
        from skcxr.audit._picture import draw

        self.figure_, self.axes_ = draw(self, ax)
        return self


def figures_text(figures: dict[str, Any]) -> str:
    """The figures of a finding in one line."""
    return ", ".join(f"{name} {number_text(value)}" for name, value in figures.items())


def number_text(value: Any) -> str:
    """A number with as many digits as it is worth."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) >= 100 or abs(value) < 0.001 else f"{value:.3f}"
    return str(value)


def items_text(items: list[str]) -> str:
    """The first items of a finding in one line."""
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
