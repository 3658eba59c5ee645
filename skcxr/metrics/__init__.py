"""Scores with intervals over patients; of findings that are not all labelled; of thresholds."""

from skcxr.metrics._labelled import make_masked_scorer, target_sensitivity

__all__ = ["make_masked_scorer", "target_sensitivity"]
