"""From what a model said of changed films to figures and sentences."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import ndtri

from skcxr.audit._findings import Finding
from skcxr.audit._swaps import Composites, Effects, effects, mean_of
from skcxr.metrics._bootstrap import resample_counts

Array = np.ndarray[Any, Any]

WHOLE = "whole image"

# What the corrected lower bound of a share must exceed to be an alarm, for all classes together and
# for one class. Films with nothing planted tell something of their class beside the lungs, as
# exposure follows the opacities and these may reach the edge; in the corners least of all.
MARGINS = {
    "border": (0.05, 0.12),
    "corners": (0.025, 0.06),
    "outside": (0.15, 0.30),
    "brightness": (0.10, 0.15),
}
MATERIAL = 0.08  # a smaller share is no alarm, however sure
FEW = 5  # patients of a class
SERIOUS = 0.25  # lower bound of a share of all classes from which scores are not to be believed

# Where two parts raise an alarm, the one with less than this share of the other's may be the same.
OVERLAPS = {
    "border": {"corners": 0.7, "brightness": 0.7},
    "corners": {"border": 0.7, "brightness": 0.7},
    "brightness": {"border": 0.7, "corners": 0.7},
}

_OF = {
    "border": "the border of the films, the outermost 4% of the picture",
    "corners": "the corners of the films, where side markers, names and other text stand",
    "outside": "what is outside the lungs: arms, neck, corners and the background around them",
    "brightness": "the overall brightness and contrast of the films",
}
_WITH = {
    "border": "the border",
    "corners": "the corners",
    "outside": "all that is outside the lungs",
    "brightness": "the brightness and contrast",
}
_MASKED = {
    "border": "border masked",
    "corners": "corners masked",
    "outside": None,
    "brightness": "brightness equalised",
}


@dataclass(frozen=True)
class Judged:
    """What was said of all films, and who they are."""

    predicted: dict[str, Array]  # version -> (n,)
    odds: Array  # of the whole films (n, n_classes)
    swaps: dict[str, Composites]
    classes: Array
    patients: Array
    names: list[Any]


def findings_from(
    judged: Judged, *, n_resamples: int, confidence_level: float, rng: np.random.Generator
) -> tuple[list[Finding], dict[str, Any]]:
    """Findings, and the tables "scores", "classes" and "swaps"."""
    draws = patient_draws(judged.patients, n_resamples, rng)
    level = confidence_level
    scores, per_class = _scores(judged, draws, n_resamples, level, rng)
    donors = patient_draws(judged.patients, n_resamples, rng)
    shares = {
        part: effects(swap, judged.odds, judged.classes, draws, donors)
        for part, swap in judged.swaps.items()
    }
    above = bool(scores.loc[WHOLE, "low"] > scores.loc[WHOLE, "chance"])
    swaps = _swaps(judged, shares, level, above)
    found = [_of_score(judged, scores, above)]
    alarmed = set(swaps.loc[swaps.alarm, "part"])
    found += [_of_part(part, swaps, scores, alarmed) for part in judged.swaps if part in alarmed]
    found += _of_few(judged)
    found += _of_classes(swaps, alarmed)
    found += _of_lungs(scores, "outside" in alarmed or "border" in alarmed or "corners" in alarmed)
    found += _of_masks(scores, alarmed)
    found += _of_resolution(scores)
    tables = {
        "scores": scores.reset_index(names="input"), "classes": per_class, "swaps": swaps
    }  # fmt: skip
    return found, tables


# ------------------------------------------------------------------------------------- figures


def patient_draws(patients: Array, n_resamples: int, rng: np.random.Generator) -> Array:
    """How often each film is drawn, (1 + n_resamples, n); the first row is all films once."""
    _, index = np.unique(patients, return_inverse=True)
    seed = int(rng.integers(2**31))
    blocks = resample_counts(int(index.max()) + 1, n_resamples, seed, len(index))
    counts = np.concatenate(list(blocks), axis=1).T
    return np.vstack([np.ones(len(index)), counts[:, index]])


def _scores(
    judged: Judged, draws: Array, n_resamples: int, level: float, rng: np.random.Generator
) -> tuple[Any, Any]:
    import pandas as pd

    present = np.unique(judged.classes)
    shuffled = _permuted(judged, n_resamples, rng)
    rows, per_class, kept = [], [], {}
    for version, predicted in judged.predicted.items():
        right = predicted == judged.classes
        with np.errstate(invalid="ignore", divide="ignore"):
            sensitivity = np.stack(
                [
                    (w @ right[judged.classes == c]) / w.sum(axis=1)
                    for c in present
                    for w in [draws[:, judged.classes == c]]
                ],
                axis=1,
            )
        balanced = mean_of(sensitivity, 1)  # of the classes that were drawn
        accuracy = draws @ right / draws.sum(axis=1)
        chance = np.mean(
            [((predicted == c) & (shuffled == c)).sum(1) / (shuffled == c).sum(1) for c in present],
            axis=0,
        )
        kept[version] = balanced, sensitivity
        against = balanced - kept[WHOLE][0]
        rows.append(
            {"input": version}
            | _interval(balanced, level, "score", "low", "high")
            | _interval(np.r_[chance.mean(), chance], level, "chance", "chance_low", "chance_high")
            | {"reference": kept[WHOLE][0][0]}
            | _interval(against, level, "difference", "difference_low", "difference_high")
            | _interval(accuracy, level, "accuracy", "accuracy_low", "accuracy_high")
        )
        # what is left of the score above chance
        left = (balanced - chance.mean()) / np.maximum(kept[WHOLE][0] - chance.mean(), 1e-9)
        rows[-1] |= _interval(left, level, "left", "left_low", "left_high")
        for k, c in enumerate(present):
            s = sensitivity[:, k]
            per_class.append(
                {"input": version, "label": judged.names[c]}
                | _interval(s, level, "sensitivity", "low", "high")
                | _interval(s - kept[WHOLE][1][:, k], level, "difference", "difference_low",
                            "difference_high")
                | {"called": float((predicted == c).mean()),
                   "n_films": int((judged.classes == c).sum())}
            )  # fmt: skip
    return pd.DataFrame(rows).set_index("input"), pd.DataFrame(per_class)


def _permuted(judged: Judged, n: int, rng: np.random.Generator) -> Array:
    """Classes dealt anew among patients, (n, n_films): patients in another order, films in theirs.

    Patients with many films keep them together, so the spread is that of so many patients.
    """
    order = np.argsort(judged.patients, kind="stable")
    _, starts = np.unique(judged.patients[order], return_index=True)
    blocks = np.split(judged.classes[order], starts[1:])
    shuffled = np.empty((n, len(order)), dtype=int)
    for row in shuffled:
        row[order] = np.concatenate([blocks[k] for k in rng.permutation(len(blocks))])
    return shuffled


def _interval(draws: Array, level: float, value: str, low: str, high: str) -> dict[str, float]:
    """The estimate (the first draw) and the interval of the others."""
    tail = 50 * (1 - level)
    bounds = np.nanpercentile(draws[1:], [tail, 100 - tail])
    return {value: float(draws[0]), low: float(bounds[0]), high: float(bounds[1])}


def _bound(draws: Array, tail: float, wider: float) -> float:
    """The lower bound, the distance to it made wider for the number of shares looked at.

    So far out the draws themselves are those that lack half of the patients of a class.
    """
    low = float(np.nanpercentile(draws[1:], 100 * tail))
    return min(low, float(draws[0] - wider * (draws[0] - low)))


def _swaps(judged: Judged, shares: dict[str, Effects], level: float, above: bool) -> Any:
    import pandas as pd

    present = np.unique(judged.classes)
    tail = (1 - level) / 2
    wider = ndtri(tail / (len(shares) * (1 + len(present)))) / ndtri(tail)
    rows = []
    for part, effect in shares.items():
        for k in (None, *range(len(present))):
            share = effect.share(k)
            if not np.isfinite(share[0]):
                continue
            at = slice(None) if k is None else slice(k, k + 1)
            called, control = (mean_of(v[:, at], 1) for v in (effect.called, effect.control))
            whole = _bound(effect.whole[:, at].sum(axis=1), tail, wider)
            bound = _bound(share, tail, wider)
            margin = MARGINS[part][k is not None]
            rows.append(
                {"part": part, "label": "all" if k is None else judged.names[present[k]]}
                | _interval(share, level, "share", "low", "high")
                | {"bound": bound}
                | _interval(called, level, "called", "called_low", "called_high")
                | _interval(control, level, "control", "control_low", "control_high")
                | {"alarm": bool(above and whole > 0 and bound > margin and share[0] > MATERIAL)}
            )
    columns = ["part", "label", "share", "low", "high", "bound", "called", "called_low",
               "called_high", "control", "control_low", "control_high", "alarm"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


# ----------------------------------------------------------------------------------- sentences


def _of_score(judged: Judged, scores: Any, above: bool) -> Finding:
    row = scores.loc[WHOLE]
    n, patients = len(judged.classes), len(np.unique(judged.patients))
    text = f"On {n} whole films of {patients} patients the model reaches {_value(row)}"
    text += f"; chance is {row.chance:.2f} ({row.chance_low:.2f} to {row.chance_high:.2f})."
    if not above:
        text += " That is no better than chance, so what it reads cannot be told."
    return Finding("score", "note", text, _figures(row))


def _of_few(judged: Judged) -> list[Finding]:
    """Classes of too few patients for intervals and swaps to say much."""
    patients = {
        judged.names[c]: len(np.unique(judged.patients[judged.classes == c]))
        for c in np.unique(judged.classes)
    }
    few = {str(name): n for name, n in patients.items() if n < FEW}
    if not few:
        return []
    counts = ", ".join(f"{name} {n}" for name, n in few.items())
    text = (
        f"Some classes have fewer than {FEW} patients ({counts}): intervals are too narrow, parts "
        "can hardly be swapped, and the absence of an alarm says little."
    )
    return [Finding("patients", "note", text, few, list(few))]


def _stronger(part: str, swaps: Any, alarmed: set[str]) -> str | None:
    """A part that explains what is seen in this one: they overlap, and it has the larger share."""
    every = swaps[swaps.label == "all"].set_index("part")
    found = [
        other
        for other, ratio in OVERLAPS.get(part, {}).items()
        if other in alarmed
        and every.share[part] < ratio * every.share[other]
        # brightness stands everywhere, but does not explain so much at the edge
        and not (other == "brightness" and every.bound[part] > SERIOUS)
    ]
    return max(found, key=lambda other: every.share[other]) if found else None


def _of_part(part: str, swaps: Any, scores: Any, alarmed: set[str]) -> Finding:
    rows = swaps[swaps.part == part]
    every = rows.iloc[0]
    if stronger := _stronger(part, swaps, alarmed):
        share = swaps[(swaps.part == stronger) & (swaps.label == "all")].share.iloc[0]
        text = (
            f"{every.share:.0%} ({every.low:.0%} to {every.high:.0%}) of what tells the model the "
            f"classes comes with {_WITH[part]}; this may be a part of what comes with "
            f"{_WITH[stronger]} ({share:.0%})."
        )
        return Finding(_CHECKS[part], "note", text, {"share": round(every.share, 3)})
    classes = rows.iloc[1:].sort_values("share", ascending=False)
    named = classes[(classes.bound > 0) & (classes.share > MATERIAL)]
    named = named if len(named) else classes[:1]
    text = f"The model reads {_OF[part]}. "
    text += (
        f"Of what tells it the classes, {every.share:.0%} ({every.low:.0%} to {every.high:.0%}) "
        f"comes with {_WITH[part]}."
    )
    text += "".join(map(partial(_class_sentence, part), named.itertuples()))
    masked = _MASKED[part]
    if masked is not None and scores.loc[masked, "difference_high"] < 0:
        text += f" With {_WITH[part]} {masked.split()[-1]} the score falls to "
        text += f"{_value(scores.loc[masked], False)}."
    left = scores.loc["lungs masked"]
    if part != "brightness" and left.low > left.chance_high:
        text += " " + _lungs_sentence(scores)
    serious = every.bound > SERIOUS or classes.bound.max() > 2 * SERIOUS
    figures = {"share": every.share, "low": every.low, "high": every.high}
    figures |= {f"share, {row.label}": row.share for row in classes.itertuples()}
    return Finding(
        _CHECKS[part], "serious" if serious else "warning", text,
        {name: round(value, 3) for name, value in figures.items()},
        [str(label) for label in named.label],
    )  # fmt: skip


_CHECKS = {
    "border": "border",
    "corners": "corners",
    "outside": "outside the lungs",
    "brightness": "brightness",
}


def _of_classes(swaps: Any, alarmed: set[str]) -> list[Finding]:
    """Classes that are told in part by what raises no alarm."""
    found = []
    for part in ("border", "corners", "outside"):
        rows = swaps[(swaps.part == part) & (swaps.label != "all")]
        rows = rows[(rows.bound > 0) & (rows.share > MATERIAL)].sort_values("share")[::-1]
        if part in alarmed or rows.empty:
            continue
        text = (
            f"Some of what tells these classes comes with {_WITH[part]}, too little for an alarm."
        )
        text += "".join(map(partial(_class_sentence, part), rows.itertuples()))
        figures = {f"share, {row.label}": round(row.share, 3) for row in rows.itertuples()}
        found.append(Finding(_CHECKS[part], "note", text, figures, [str(c) for c in rows.label]))
    return found


def _class_sentence(part: str, row: Any) -> str:
    return (
        f" {row.label}: {row.share:.0%} ({row.low:.0%} to {row.high:.0%}); with {_WITH[part]} of a "
        f"film of this class, {row.called:.0%} of the films of other classes are called "
        f"{row.label}, against {row.control:.0%} with that of other films."
    )


def _lungs_sentence(scores: Any) -> str:
    masked, whole = scores.loc["lungs masked"], scores.loc[WHOLE]
    return (
        f"The model reaches {_value(masked)} with the lungs masked, against {whole.score:.2f} on "
        f"whole films; chance is {whole.chance:.2f}."
    )


def _of_lungs(scores: Any, alarmed: bool) -> list[Finding]:
    row = scores.loc["lungs masked"]
    if row.low <= row.chance_high:
        return []
    text = _lungs_sentence(scores)
    if alarmed and row.left_low > 0.5:
        return [
            Finding(
                "lungs masked", "serious",
                f"{text} It scores nearly as well without the lungs: it reads something else.",
                _figures(row),
            )
        ]  # fmt: skip
    if alarmed:
        return []  # the sentence of the part has it
    text += (
        " Films tell something of their class beside the lungs, as their exposure follows the "
        "opacities; see the shares for what the model makes of it."
    )
    return [Finding("lungs masked", "note", text, _figures(row))]


def _of_masks(scores: Any, alarmed: set[str]) -> list[Finding]:
    found = []
    for part, masked in _MASKED.items():
        if masked is None or part in alarmed:
            continue
        row = scores.loc[masked]
        if row.difference_high < -0.1:
            text = (
                f"With {_WITH[part]} {masked.split()[-1]} the score falls to {_value(row, False)}, "
                f"from {row.reference:.2f}. But predictions do not follow {_WITH[part]} of other "
                "films: the model is upset by the change rather than reading the class there."
            )
            found.append(Finding(masked, "note", text, _figures(row)))
    return found


def _of_resolution(scores: Any) -> list[Finding]:
    for name in ("8 pixels", "16 pixels"):
        row = scores.loc[name]
        if row.left > 0.8 and row.low > row.chance_high:
            text = (
                f"At {name} to a side the model still reaches {_value(row, False)}, against "
                f"{row.reference:.2f}: what it reads is coarse, no fine structure of the lungs."
            )
            return [Finding("low resolution", "note", text, _figures(row))]
    return []


def _value(row: Any, named: bool = True) -> str:
    name = "a balanced accuracy of " if named else ""
    return f"{name}{row.score:.2f} ({row.low:.2f} to {row.high:.2f})"


def _figures(row: Any) -> dict[str, Any]:
    names = ["score", "low", "high", "chance", "chance_low", "chance_high", "accuracy"]
    return {name: round(float(row[name]), 3) for name in names}
