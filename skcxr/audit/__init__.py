"""Leaks between train and test, and shortcuts past the lungs: what undoes a score."""

from skcxr.audit._findings import AuditReport, Finding

__all__ = ["AuditReport", "Finding"]
