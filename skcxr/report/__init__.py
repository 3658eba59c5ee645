"""One evaluation in one object and one page."""

from skcxr.report._card import CARD_FIELDS as CARD_FIELDS
from skcxr.report._evaluate import evaluate
from skcxr.report._external import External
from skcxr.report._report import EvaluationReport, Film

__all__ = ["EvaluationReport", "External", "Film", "evaluate"]
