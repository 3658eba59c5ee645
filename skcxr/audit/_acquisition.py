"""Whether what is not the lungs tells the classes apart: a test for each variable, over patients.

The observations are patients (a patient with images in two classes is two): images of one patient
are alike and count once. The p-values are those of the family: of permutations of the classes
over patients, the share in which any variable does as well as this one (Westfall and Young 1993).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from skcxr.audit._findings import Finding

Array = np.ndarray[Any, Any]

LEVEL = 0.01  # of the family of all variables
SERIOUS, WARNING = 0.85, 0.7  # AUROC of a variable alone

_PERMUTATIONS = 999
_LEVELS = 12  # values of a column that are told apart; rarer ones are "other"
_MISSING = "not given"

# The exposure control darkens what surrounds dense lungs, so brightness differs between classes a
# little where nothing is wrong. From these differences on it is not that: shares of the side or
# of white, measured on phantoms.
LEAST = {
    "white frame": 0.004,
    "black frame": 0.01,
    "edge brightness": 0.15,
    "step at the edge": 0.1,
    "top corners": 0.06,
    "bottom corners": 0.2,
    "darkest level": 0.045,
    "brightest level": 0.12,
    "share cut off at black": 0.05,
    "share cut off at white": 0.01,
}

FAMILIES = {
    "size": ("height", "width", "aspect"),
    "file": ("format", "mode", "JPEG quality", "bytes per pixel"),
    "border": ("white frame", "black frame", "edge brightness", "step at the edge"),
    "brightness": (
        "top corners", "bottom corners", "darkest level", "brightest level",
        "share cut off at black", "share cut off at white",
    ),
    "burned in": ("white rectangles",),
}  # fmt: skip

_ADVICE = {
    "size": "The size of the images tells the class",
    "file": "How the files were saved tells the class",
    "border": "The border of the images tells the class",
    "brightness": "The brightness away from the lungs tells the class",
    "burned in": "Filled white rectangles, as over a name that was hidden, tell the class",
}
_THEN = {
    "size": "scaling to one size leaves traces that a model can read instead of the lungs",
    "file": "a model can read the traces of saving instead of the lungs",
    "border": "a model can read the border instead of the lungs; crop all images alike",
    "brightness": "a model can read the brightness instead of the lungs",
    "burned in": "a model can read them instead of the lungs",
}


class Units(NamedTuple):
    """Patients, each with one class.

    Parameters
    ----------
    of_image : ndarray of shape (n_images,)
        The unit of each image.
    labels : ndarray of shape (n_units,)
        Index of the class of each.
    classes : list of str
        The classes.
    """

    of_image: Array
    labels: Array
    classes: list[str]

    @property
    def one_hot(self) -> Array:
        """Of shape (n_classes, n_units)."""
        return (self.labels == np.arange(len(self.classes))[:, None]).astype(float)


def make_units(labels: Array, patients: Array) -> Units:
    """Units of images with the given classes and patients."""
    classes, codes = np.unique(labels.astype(str), return_inverse=True)
    _, who = np.unique(patients, return_inverse=True)
    pairs, of_image = np.unique(who * len(classes) + codes, return_inverse=True)
    return Units(of_image, pairs % len(classes), classes.tolist())


class Variables(NamedTuple):
    """What is compared, by unit.

    Parameters
    ----------
    numbers : dict of str to ndarray of shape (n_units,)
        Means over the images of each unit, NaN where nothing is known.
    kinds : dict of str to (ndarray of shape (n_units,), list of str)
        The commonest value of each unit, as an index into the values.
    """

    numbers: dict[str, Array]
    kinds: dict[str, tuple[Array, list[str]]]


def make_variables(table: Any, units: Units) -> Variables:
    """Bring the columns of a data frame, one row an image, to units; constant ones are left out."""
    import pandas as pd

    n_units = len(units.labels)
    numbers: dict[str, Array] = {}
    kinds: dict[str, tuple[Array, list[str]]] = {}
    for name in table.columns:
        column = table[name]
        known = column.notna().to_numpy()
        if pd.api.types.is_numeric_dtype(column):
            values = column.to_numpy(dtype=float, na_value=np.nan)
            known = np.isfinite(values)
            sums = np.bincount(units.of_image[known], values[known], minlength=n_units)
            counts = np.bincount(units.of_image[known], minlength=n_units)
            means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
            if len(np.unique(means[counts > 0].round(9))) > 1:
                numbers[name] = means
            if 0 < known.sum() < len(known):
                words = np.where(known, "given", _MISSING)
                kinds[f"{name} is given"] = _commonest(words, units.of_image, n_units)
        else:
            words = column.astype(object).where(column.notna(), _MISSING).map(str).to_numpy()
            codes, values = _commonest(words.astype(str), units.of_image, n_units)
            if len(values) > 1:
                kinds[name] = codes, values
    return Variables(numbers, kinds)


def _commonest(words: Array, of_image: Array, n_units: int) -> tuple[Array, list[str]]:
    values, codes, counts = np.unique(words, return_inverse=True, return_counts=True)
    if len(values) > _LEVELS:
        kept = np.sort(np.argsort(-counts, kind="stable")[: _LEVELS - 1])
        place = np.full(len(values), len(kept))
        place[kept] = np.arange(len(kept))
        codes, values = place[codes], np.append(values[kept], "other")
    seen = np.zeros((n_units, len(values)))
    np.add.at(seen, (of_image, codes), 1)
    return seen.argmax(1), [str(value) for value in values]


def test_variables(variables: Variables, units: Units, rng: np.random.Generator) -> Any:
    """Test every variable.

    Parameters
    ----------
    variables : Variables
        What is compared.
    units : Units
        Who.
    rng : numpy.random.Generator
        For the permutations.

    Returns
    -------
    pandas.DataFrame
        The columns variable, AUROC (of the class that it tells best, 0.5 to 1), class, p (of the
        family), difference (largest between means of classes) and alarm.
    """
    import pandas as pd

    names = [*variables.numbers, *variables.kinds]
    columns = ["variable", "AUROC", "class", "p", "difference", "alarm"]
    if not names:
        return pd.DataFrame(columns=columns)
    permuted = [units.labels, *(rng.permutation(units.labels) for _ in range(_PERMUTATIONS))]
    hot = np.array(permuted)[:, None, :] == np.arange(len(units.classes))[:, None]
    logs = np.concatenate(
        [_log_p_numbers(variables.numbers, hot), _log_p_kinds(variables.kinds, hot)], axis=1
    )
    best = logs.min(axis=1)
    p = (best[:, None] <= logs[0] + 1e-9).mean(axis=0)
    rows = []
    for name, value in zip(names, p.tolist(), strict=True):
        if name in variables.numbers:
            auroc, which, difference = _effect(variables.numbers[name], units)
        else:
            auroc, which = _effect_of_kind(*variables.kinds[name], units)
            difference = np.nan
        alarm = value <= LEVEL and (
            auroc >= WARNING or (name == "white rectangles" and difference > 0.02)
        )
        if name in LEAST:
            alarm = alarm and difference >= LEAST[name]
        rows.append([name, auroc, which, value, difference, bool(alarm)])
    return pd.DataFrame(rows, columns=columns)


test_variables.__test__ = False  # type: ignore[attr-defined]  # no test of pytest


def _log_p_numbers(numbers: dict[str, Array], hot: Array) -> Array:
    """Log p of an analysis of variance of normal scores, for each permutation and variable."""
    if not numbers:
        return np.zeros((len(hot), 0))
    values = np.array(list(numbers.values())).T
    known = np.isfinite(values)
    scores = np.zeros_like(values)
    for k, column in enumerate(values.T):
        inside = known[:, k]
        ranks = stats.rankdata(column[inside])
        scores[inside, k] = stats.norm.ppf((ranks - 0.5) / len(ranks))
        scores[inside, k] -= scores[inside, k].mean()
    result = np.empty((len(hot), values.shape[1]))
    total = (scores**2).sum(0)
    n = known.sum(0)
    for start in range(0, len(hot), 100):
        part = hot[start : start + 100].astype(float)
        sums, counts = part @ scores, part @ known.astype(float)
        between = np.where(counts > 0, sums**2 / np.maximum(counts, 1), 0).sum(1)
        free = np.maximum((counts > 0).sum(1) - 1, 0)
        rest = np.maximum(n - free - 1, 1)
        within = np.maximum(total - between, 1e-9 * np.maximum(total, 1e-9))
        ratio = (between / np.maximum(free, 1)) / (within / rest)
        logs = stats.f.logsf(ratio, np.maximum(free, 1), rest)
        result[start : start + 100] = np.where(free > 0, logs, 0)
    return result


def _log_p_kinds(kinds: dict[str, tuple[Array, list[str]]], hot: Array) -> Array:
    """Log p of a chi-squared test, for each permutation and variable."""
    result = np.zeros((len(hot), len(kinds)))
    sizes = hot[0].sum(1).astype(float)
    for k, (codes, values) in enumerate(kinds.values()):
        levels = (codes[:, None] == np.arange(len(values))).astype(float)
        levels = levels[:, levels.sum(0) > 0]
        expected = sizes[:, None] * levels.sum(0) / sizes.sum()
        free = (len(sizes) - 1) * (levels.shape[1] - 1)
        if free == 0:
            continue
        for start in range(0, len(hot), 100):
            counts = hot[start : start + 100].astype(float) @ levels
            chi2 = ((counts - expected) ** 2 / expected).sum((1, 2))
            result[start : start + 100, k] = stats.chi2.logsf(chi2, free)
    return result


def _effect(values: Array, units: Units) -> tuple[float, str, float]:
    """AUROC of the class that a number tells best from the rest, that class, and the difference."""
    known = np.isfinite(values)
    ranks, labels = stats.rankdata(values[known]), units.labels[known]
    best, which = 0.5, ""
    means = []
    for k, name in enumerate(units.classes):
        here = labels == k
        inside, outside = int(here.sum()), int((~here).sum())
        if inside:
            means.append(values[known][here].mean())
        if inside and outside:
            area = (ranks[here].sum() - inside * (inside + 1) / 2) / (inside * outside)
            if max(area, 1 - area) > best:
                best, which = max(area, 1 - area), name
    return float(best), which, float(max(means) - min(means))


def _effect_of_kind(codes: Array, values: list[str], units: Units) -> tuple[float, str]:
    """AUROC of the value and the class that tell each other best."""
    best, which = 0.5, ""
    for k, name in enumerate(units.classes):
        here = units.labels == k
        if here.all() or not here.any():
            continue
        for level in range(len(values)):
            area = 0.5 + abs((codes[here] == level).mean() - (codes[~here] == level).mean()) / 2
            if area > best:
                best, which = area, name
    return float(best), which


def family_findings(tests: Any, variables: Variables, units: Units) -> list[Finding]:
    """One finding for each family of variables, or column given, that raises an alarm."""
    findings = []
    alarming = tests[tests["alarm"]].sort_values("AUROC", ascending=False, kind="stable")
    left = list(alarming.to_dict("records"))
    families = {name: family for family, names in FAMILIES.items() for name in names}
    grouped: dict[str, list[Any]] = {}
    for row in left:
        column = row["variable"].removesuffix(" is given")
        grouped.setdefault(families.get(column, column), []).append(row)
    for family, rows in grouped.items():
        first = rows[0]
        told = "; ".join(_told(row["variable"], variables, units) for row in rows[:3])
        if family in _ADVICE:
            sentence = f"{_ADVICE[family]}: {told}. On these data {_THEN[family]}."
        else:
            sentence = (
                f"{family[:1].upper()}{family[1:]} tells the class: {told}. What a model learns of "
                f"{family} looks like knowledge of the disease here and is none elsewhere."
            )
        serious = first["AUROC"] >= SERIOUS and first["variable"] != "bytes per pixel"
        check = family if family in _ADVICE else f"{family} and class"
        figures = {"AUROC": first["AUROC"], "p": p_text(first["p"]), "patients": len(units.labels)}
        if len(rows) > 1:
            figures["variables"] = len(rows)
        findings.append(Finding(check, "serious" if serious else "warning", sentence, figures))
    return findings


def p_text(p: float) -> str:
    """A p-value of permutations in words."""
    least = 1 / (_PERMUTATIONS + 1)
    return "0.001 or less" if p <= least else f"{p:.3f}"


_PERCENT = {"white rectangles", *LEAST}
_UNITS = {"height": " pixels", "width": " pixels"}


def _told(name: str, variables: Variables, units: Units) -> str:
    """How a variable differs, in words: the two extreme classes, or the commonest values."""
    if name in variables.numbers:
        values = variables.numbers[name]
        means = {
            label: float(np.nanmean(values[here]))
            for k, label in enumerate(units.classes)
            if np.isfinite(values[here := units.labels == k]).any()
        }
        low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        shown = {label: _amount(name, means[label]) for label in (low, high)}
        noun = _NOUNS.get(name, name)
        return f"{noun} is {shown[high]} in {high} and {shown[low]} in {low} on average"
    codes, words = variables.kinds[name]
    parts = []
    given = name.endswith(" is given")
    for k, label in enumerate(units.classes[:6]):
        here = codes[units.labels == k]
        counts = np.bincount(here, minlength=len(words))
        share = counts / len(here)
        if given:
            parts.append(f"{share[words.index('given')]:.0%} of {label}")
        else:
            parts.append(f"{words[int(share.argmax())]} in {share.max():.0%} of {label}")
    more = len(units.classes) - len(parts)
    opening = f"{name} for" if given else f"{name} is"
    return f"{opening} {', '.join(parts)}" + (f" and {more} more classes" if more > 0 else "")


_NOUNS = {
    "white frame": "the white frame's width",
    "black frame": "the black frame's width",
    "edge brightness": "the brightness of the border",
    "step at the edge": "the border's brightness over its neighbourhood's",
    "top corners": "the brightness of the top corners",
    "bottom corners": "the brightness of the bottom corners",
    "darkest level": "the brightness of the darkest part",
    "brightest level": "the brightness of the brightest part",
    "share cut off at black": "the share that is cut off at black",
    "share cut off at white": "the share that is cut off at white",
    "white rectangles": "the share of images with a white rectangle",
    "bytes per pixel": "the number of bytes per pixel, to which content adds,",
}


def _amount(name: str, value: float) -> str:
    if name in _PERCENT:
        of = " of the side" if "frame" in name else ""
        return f"{100 * value:.1f}%{of}" if abs(value) < 0.095 else f"{value:.0%}{of}"
    if name in _UNITS:
        return f"{value:.0f}{_UNITS[name]}"
    return f"{value:.3g}"
