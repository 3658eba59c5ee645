"""What an audit has found: findings, their figures, and the tables they rest on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SEVERITIES", "AuditReport", "Finding"]

SEVERITIES = ("serious", "warning", "note")


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
    figures : dict of str to float, int or str
        The figures behind the sentence.
    items : list of str
        The files, patients or classes concerned, if any.
    """

    check: str
    severity: str
    sentence: str
    figures: dict[str, Any] = field(default_factory=dict)
    items: list[str] = field(default_factory=list)


class AuditReport:
    """What an audit has found, the most severe first.

    Parameters
    ----------
    findings : list of Finding
        What was found.
    tables : dict of str to pandas.DataFrame
        What the findings rest on, by name.
    title : str
        What was audited.
    """

    def __init__(
        self, findings: list[Finding], tables: dict[str, Any], *, title: str = "Audit"
    ) -> None:
        self.findings = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
        self.tables, self.title = tables, title

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)
