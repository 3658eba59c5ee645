"""The report on shortcuts, and its picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from skcxr.audit._findings import AuditReport, Finding

Array = np.ndarray[Any, Any]


class ShortcutReport(AuditReport):
    """What :func:`shortcut_report` has found.

    Parameters
    ----------
    findings : list of Finding
        What was found.
    tables : dict of str to pandas.DataFrame
        What the findings rest on.
    samples : dict of str to ndarray
        One film, whole and in each version.
    title : str, default="Shortcuts"
        What was audited.
    """

    def __init__(
        self,
        findings: list[Finding],
        tables: dict[str, Any],
        *,
        samples: dict[str, Array],
        title: str = "Shortcuts",
    ) -> None:
        super().__init__(findings, tables, title=title)
        self.samples = samples
