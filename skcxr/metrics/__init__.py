"""Scores with intervals over patients; of findings that are not all labelled; of thresholds."""

from skcxr.metrics._compare import compare_models_ci
from skcxr.metrics._labelled import make_masked_scorer, target_sensitivity
from skcxr.metrics._report import MetricsReport, classification_report_ci
from skcxr.metrics._thresholds import (
    expected_calibration_error,
    operating_points,
    predictive_values,
)

__all__ = [
    "MetricsReport",
    "classification_report_ci",
    "compare_models_ci",
    "expected_calibration_error",
    "make_masked_scorer",
    "operating_points",
    "predictive_values",
    "target_sensitivity",
]
