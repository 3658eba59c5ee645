"""The score of a classifier that is shown nothing of the lungs."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold

from skcxr.audit._acquisition import LEVEL, p_text
from skcxr.audit._findings import Finding

Array = np.ndarray[Any, Any]

_FOLDS = 5
_MOST = 3000  # images; of larger sets, whole patients are drawn
_DRAWS = 999
_SERIOUS, _WARNING = 0.25, 0.1  # share of the way from chance to 1


def score_without_lungs(
    tables: dict[str, Any], labels: Array, patients: Array, seed: int, threads: int
) -> Any:
    """Cross-validate a forest by patient on each table.

    Parameters
    ----------
    tables : dict of str to pandas.DataFrame
        Inputs, one row an image.
    labels, patients : ndarray of shape (n,)
        Classes and patients.
    seed : int
        Of folds, forest and resampling.
    threads : int
        Threads of the forest.

    Returns
    -------
    pandas.DataFrame
        The columns input, score (balanced accuracy), low, high, chance, accuracy, p, patients and
        images; no row where a class has fewer than two patients.
    """
    import pandas as pd

    rng = np.random.default_rng(seed)
    columns = ["input", "score", "low", "high", "chance", "accuracy", "p", "patients", "images"]
    classes, codes = np.unique(labels.astype(str), return_inverse=True)
    _, who = np.unique(patients, return_inverse=True)
    if len(codes) > _MOST:
        order = rng.permutation(who.max() + 1)
        size = np.cumsum(np.bincount(who)[order])
        kept = np.isin(who, order[: max(1, int((size <= _MOST).sum()))])
        tables = {name: table[kept] for name, table in tables.items()}
        codes = codes[kept]
        _, who = np.unique(who[kept], return_inverse=True)
    fewest = min(len(np.unique(who[codes == k])) for k in range(len(classes)))
    rows: list[list[Any]] = []
    if len(classes) < 2 or fewest < 2:
        return pd.DataFrame(rows, columns=columns)
    folds = StratifiedGroupKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed)
    splits = list(folds.split(codes, codes, who))
    for name, table in tables.items():
        values = _as_numbers(table)
        if not values.shape[1]:
            continue
        predicted = np.empty(len(codes), dtype=int)
        for train, test in splits:
            forest = RandomForestClassifier(
                100, min_samples_leaf=2, max_depth=10, class_weight="balanced",
                random_state=seed, n_jobs=threads,
            )  # fmt: skip
            predicted[test] = forest.fit(values[train], codes[train]).predict(values[test])
        score, low, high, p = _interval(codes, predicted, who, len(classes), rng)
        rows.append([
            name, score, low, high, 1 / len(classes), float((predicted == codes).mean()), p,
            int(who.max() + 1), len(codes),
        ])  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _as_numbers(table: Any) -> Array:
    """Columns as floats, words as indicators of their commoner values; constant ones left out."""
    import pandas as pd

    parts = []
    for name in table.columns:
        column = table[name]
        if pd.api.types.is_numeric_dtype(column):
            parts.append(column.to_numpy(dtype=float, na_value=np.nan))
        else:
            words = column.astype(object).where(column.notna(), "").map(str)
            common = words.value_counts().index[:10]
            parts += [(words == word).to_numpy(dtype=float) for word in common]
    varying = [part for part in parts if len(np.unique(part)) > 1]
    return np.array(varying).T if varying else np.empty((len(table), 0))


def _interval(
    codes: Array, predicted: Array, who: Array, n_classes: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Balanced accuracy, its 95% bootstrap interval over patients, p of permuted patients."""
    pairs, unit = np.unique(who * n_classes + codes, return_inverse=True)
    truth, patient = pairs % n_classes, pairs // n_classes
    votes = np.zeros((len(pairs), n_classes))
    np.add.at(votes, (unit, predicted), 1)
    sizes = votes.sum(1)

    def balanced(labels: Array, weights: Array) -> Array:
        """For rows of labels and weights of units."""
        hits = np.take_along_axis(votes[None], labels[:, :, None], axis=2)[:, :, 0]
        recalls = []
        for k in range(n_classes):
            here = (labels == k) * weights
            total = (here * sizes).sum(1)
            recalls.append(np.where(total > 0, (here * hits).sum(1) / np.maximum(total, 1), np.nan))
        return np.nanmean(recalls, axis=0)

    one = np.ones((1, len(pairs)))
    score = float(balanced(truth[None], one)[0])
    drawn = rng.integers(who.max() + 1, size=(_DRAWS, who.max() + 1))
    weights = np.array([np.bincount(row, minlength=who.max() + 1)[patient] for row in drawn])
    resampled = np.concatenate(
        [balanced(np.broadcast_to(truth, part.shape), part) for part in np.array_split(weights, 20)]
    )
    low, high = np.quantile(resampled, [0.025, 0.975])
    shuffled = np.array([rng.permutation(truth) for _ in range(_DRAWS)])
    null = np.concatenate([
        balanced(part, np.ones_like(part)) for part in np.array_split(shuffled, 20)
    ])  # fmt: skip
    p = (1 + int((null >= score - 1e-12).sum())) / (_DRAWS + 1)
    return score, float(low), float(high), p


def score_finding(scores: Any, telling: dict[str, bool], what: str) -> Finding | None:
    """Shout the best score that is no chance, or note it where nothing else is conspicuous.

    Parameters
    ----------
    scores : pandas.DataFrame
        Of `score_without_lungs`.
    telling : dict of str to bool
        Whether some variable of the input raises an alarm of its own. Where none does, exposure
        control that answers to dense lungs may be all that is told.
    what : str
        What is told apart, such as "the 4 classes".

    Returns
    -------
    Finding or None
        The finding.
    """
    chosen = None
    for row in scores.to_dict("records"):
        gain = (row["score"] - row["chance"]) / (1 - row["chance"])
        if row["p"] > LEVEL or row["low"] <= row["chance"] or gain < _WARNING:
            continue
        severity = "note"
        if telling[row["input"]]:
            severity = "serious" if gain >= _SERIOUS else "warning"
        rank = ("note", "warning", "serious").index(severity), row["score"]
        if chosen is None or rank > chosen[0]:
            chosen = rank, severity, row
    if chosen is None:
        return None
    _, severity, row = chosen
    reached = (
        f"a classifier that is shown {row['input']}, and nothing of the lungs, tells {what} with "
        f"a balanced accuracy of {row['score']:.2f}, where chance is {row['chance']:.2f}"
    )
    if severity == "note":
        sentence = (
            f"{reached[0].upper()}{reached[1:]}. No single variable stands out: exposure control "
            "answers to dense lungs, and that may be all."
        )
    else:
        sentence = (
            f"WITHOUT THE LUNGS: {reached}. A model trained on these images can score as much "
            "without any knowledge of the disease, and a score on images of the same making does "
            "not show it."
        )
    figures = {
        "balanced accuracy": row["score"],
        "95% interval": f"{row['low']:.2f} to {row['high']:.2f}",
        "chance": row["chance"],
        "accuracy": row["accuracy"],
        "p": p_text(row["p"]),
        "patients": row["patients"],
        "images": row["images"],
    }
    return Finding("score without the lungs", severity, sentence, figures)
