"""Leaks between train and test, and shortcuts past the lungs: what undoes a score."""

from skcxr.audit._dataset import audit_dataset
from skcxr.audit._findings import AuditReport, Finding
from skcxr.audit._shortcuts import ShortcutReport, shortcut_report

__all__ = ["AuditReport", "Finding", "ShortcutReport", "audit_dataset", "shortcut_report"]
