"""One evaluation in one object and one page."""

from skcxr.report._card import CARD_FIELDS
from skcxr.report._evaluate import evaluate
from skcxr.report._external import External
from skcxr.report._report import EvaluationReport, Film

__all__ = ["CARD_FIELDS", "EvaluationReport", "External", "Film", "evaluate"]
