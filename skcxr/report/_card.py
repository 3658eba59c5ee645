"""The fields of a model card, most of which only the authors can fill."""

from __future__ import annotations

import difflib
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from skcxr._exceptions import InputError

__all__ = ["CARD_FIELDS", "NOT_REPORTED"]

NOT_REPORTED = "not reported"

# after the checklists CLAIM (2024 update) and TRIPOD+AI: what a reader asks of a study
CARD_FIELDS: dict[str, tuple[str, ...]] = {
    "Purpose": (
        "intended use",
        "intended users",
        "clinical role",
        "not intended for",
    ),
    "Data": (
        "data sources",
        "dates of acquisition",
        "setting and sites",
        "inclusion and exclusion",
        "demographics",
        "equipment and views",
        "preprocessing",
        "de-identification",
        "missing data",
        "sample size rationale",
    ),
    "Reference standard": (
        "definition",
        "annotators",
        "agreement of annotators",
    ),
    "Model": (
        "architecture",
        "initial weights",
        "training data",
        "training procedure",
        "model selection",
        "threshold selection",
    ),
    "Evaluation": (
        "data split",
        "external validation",
        "subgroups",
        "failure analysis",
        "calibration",
        "comparison with readers",
    ),
    "Governance": (
        "ethics approval",
        "registration and protocol",
        "funding",
        "conflicts of interest",
        "code and model availability",
        "data availability",
        "patient involvement",
        "limitations",
    ),
}


def fill_card(
    given: dict[str, str] | None, found: dict[str, str]
) -> dict[str, list[tuple[str, str]]]:
    """The card by section: what was given, else what was found out, else "not reported".

    Raises
    ------
    InputError
        A field of `given` is none of the card's.
    """
    given = dict(given or {})
    known = [name for names in CARD_FIELDS.values() for name in names]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the fields are {known}"
            raise InputError(f"card has the unknown field {name!r}{hint}")
    filled = {**found, **{name: str(text) for name, text in given.items()}}
    return {
        section: [(name, filled.get(name, NOT_REPORTED)) for name in names]
        for section, names in CARD_FIELDS.items()
    }


def software() -> dict[str, str]:
    """Versions of what computed the figures."""
    found = {"python": platform.python_version()}
    for name in ("skcxr", "scikit-learn", "torch", "torchvision", "skorch", "numpy", "pandas"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from its source
            continue
    return found


def model_text(estimator: Any) -> str:
    """An estimator in a line, with the parameters that are not its defaults."""
    text = " ".join(repr(estimator).split())
    return text if len(text) <= 600 else text[:599] + "…"
