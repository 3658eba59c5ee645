"""Whether predictions follow a part of the film: the part is taken from films of other patients.

Film i (the host) gets the border, say, of film j (the donor), of another patient. Hosts get
donors of every class, so that all films compared are composed alike; what differs is the class
of the donor. For class d, and t its log-odds,

    effect = mean of t over donors of d - mean of t over donors of other classes
    whole  = mean of t over films of d  - mean of t over films of other classes

and effect / whole is the share of what tells class d that comes with the part.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skcxr._exceptions import InputError

Array = np.ndarray[Any, Any]

_CLIP = 0.01  # probabilities nearer to 0 and 1 count as these: confidence is not evidence


class Judge:
    """What an estimator says of films: predicted classes, and log-odds or what stands for them.

    Parameters
    ----------
    estimator : object
        Fitted, with predict and, better, predict_proba or decision_function.
    labels : list
        The classes, in the order of the columns of scores.
    """

    def __init__(self, estimator: Any, labels: list[Any]) -> None:
        self.estimator, self.labels = estimator, labels
        self._index = {label: k for k, label in enumerate(labels)}
        names = ("predict_proba", "decision_function")
        self.method = next((name for name in names if hasattr(estimator, name)), None)
        self.needs_predict = self.method is None

    def __call__(self, X: Any, n: int, check: bool = False) -> tuple[Array, Array]:
        """Predicted class (n,) as an index, and log-odds (n, n_classes).

        With `check` it is noted whether predict is the class of the highest score, in which case
        later films are not sent through the estimator twice.
        """
        k = len(self.labels)
        if self.method is None:
            predicted = self._predicted(X, n)
            return predicted, np.eye(k)[predicted]
        raw = np.asarray(getattr(self.estimator, self.method)(X), dtype=float)
        if self.method == "decision_function" and raw.ndim == 1 and k == 2:
            raw = np.column_stack([-raw, raw])
        if raw.shape != (n, k):
            raise InputError(
                f"{self.method} gave shape {raw.shape} for {n} films and the {k} classes "
                f"{self.labels}; pass labels= in the order of its columns"
            )
        if not np.isfinite(raw).all():
            raise InputError(f"{self.method} gave NaN or infinity for some films")
        if self.method == "predict_proba":
            p = np.clip(raw, _CLIP, 1 - _CLIP)
            odds = np.log(p / (1 - p))
        else:
            odds = raw - (raw.sum(axis=1, keepdims=True) - raw) / (k - 1)
        highest = raw.argmax(axis=1)
        if not check and not self.needs_predict:
            return highest, odds
        predicted = self._predicted(X, n)
        self.needs_predict |= bool((predicted != highest).any())
        return predicted, odds

    def _predicted(self, X: Any, n: int) -> Array:
        values = np.asarray(self.estimator.predict(X)).ravel().tolist()
        if len(values) != n:
            raise InputError(f"predict gave {len(values)} values for {n} films")
        unknown = [value for value in values if value not in self._index]
        if unknown:
            raise InputError(f"predict gave {unknown[0]!r}, which is none of {self.labels}")
        return np.array([self._index[value] for value in values])


def without_memory(estimator: Any) -> Any:
    """The estimator, or a copy of it that keeps nothing of what it reads on disk.

    Changed films would fill the folder that `memory` names, and never be read again.
    """

    def with_memory(thing: Any, seen: set[int]) -> list[Any]:
        if id(thing) in seen:
            return []
        seen.add(id(thing))
        if isinstance(thing, dict):
            return [x for value in thing.values() for x in with_memory(value, seen)]
        if isinstance(thing, list | tuple):
            return [x for value in thing for x in with_memory(value, seen)]
        if not isinstance(thing, BaseEstimator):
            return []
        own = [thing] if getattr(thing, "memory", None) is not None else []
        return own + with_memory(vars(thing), seen)

    if not with_memory(estimator, set()):
        return estimator
    copy = deepcopy(estimator)
    for thing in with_memory(copy, set()):
        thing.memory = None
    return copy


@dataclass(frozen=True)
class Composites:
    """Films composed of a host and a part of a donor, and what was said of them."""

    host: Array  # (m,) indices of films
    donor: Array
    predicted: Array  # (m,)
    odds: Array  # (m, n_classes)


def pairs(classes: Array, groups: Array, n_wanted: int, rng: np.random.Generator) -> Array:
    """Hosts and donors, (m, 2): each host has donors of each class, of other patients.

    Donors are dealt in turn, so that each is used about as often as others of its class.
    """
    n, present = len(classes), np.unique(classes)
    each = int(np.clip(round(n_wanted / (n * len(present))), 1, 4))
    hosts = rng.permutation(n)[: max(n_wanted // (each * len(present)), 1)]
    found = []
    for label in present:
        queue = rng.permutation(np.flatnonzero(classes == label)).tolist()
        for _ in range(each):
            for host in hosts:
                at = next((k for k, d in enumerate(queue) if groups[d] != groups[host]), None)
                if at is not None:
                    donor = queue.pop(at)
                    queue.append(donor)
                    found.append((host, donor))
    return np.array(found, dtype=int).reshape(-1, 2)


@dataclass(frozen=True)
class Effects:
    """Draws of a bootstrap; the first is the estimate itself."""

    effect: Array  # (1 + n_resamples, n_classes) difference in log-odds by the donor's class
    whole: Array  # the same by the whole film
    called: Array  # how often a film of another class is called so with the part of this class
    control: Array  # ... and with the part of other classes

    def share(self, label: int | None = None) -> Array:
        """Part of what tells a class, or all classes, that comes with the part."""
        if label is None:
            return self.effect.sum(axis=1) / np.maximum(self.whole.sum(axis=1), 1e-9)
        return self.effect[:, label] / np.maximum(self.whole[:, label], 1e-9)


def effects(swap: Composites, odds: Array, classes: Array, hosts: Array, donors: Array) -> Effects:
    """Bootstrap the effects of a swap, patients of hosts and of donors each drawn anew.

    `odds` are those of the whole films; `hosts` and `donors` (1 + n_resamples, n) are how often
    each film is drawn.
    """
    n_draws, k = len(hosts), odds.shape[1]
    present = np.unique(classes)
    said = np.eye(k)[swap.predicted]
    # less that of the host itself, which hosts drawn more often would else bring in
    change = swap.odds - odds[swap.host]
    weight = hosts[:, swap.host] * donors[:, swap.donor]
    by_class = np.full((n_draws, k, k), np.nan)  # class of the film, column
    table = np.full((2, n_draws, k, k, k), np.nan)  # class of host, of donor, column
    with np.errstate(invalid="ignore", divide="ignore"):
        for c in present:
            w = hosts[:, classes == c]
            by_class[:, c] = (w @ odds[classes == c]) / w.sum(axis=1, keepdims=True)
            for o in present:
                cell = (classes[swap.host] == c) & (classes[swap.donor] == o)
                w = weight[:, cell]
                for t, values in zip(table, (change, said), strict=True):
                    t[:, c, o] = (w @ values[cell]) / w.sum(axis=1, keepdims=True)
    out = np.full((4, n_draws, k), np.nan)
    for d in present:
        rest = present[present != d]
        t = table[0, :, :, :, d]
        difference = t[:, :, d] - mean_of(t[:, :, rest], 2)
        out[0, :, d] = mean_of(difference[:, present], 1)
        out[1, :, d] = by_class[:, d, d] - mean_of(by_class[:, rest, d], 1)
        q = table[1, :, :, :, d][:, rest]
        out[2, :, d] = mean_of(q[:, :, d], 1)
        out[3, :, d] = mean_of(q[:, :, rest].reshape(n_draws, -1), 1)
    return Effects(*(values[:, present] for values in out))


def mean_of(values: Array, axis: int) -> Array:
    """The mean of what is there."""
    there = np.isfinite(values)
    n = there.sum(axis=axis)
    return np.where(n > 0, np.where(there, values, 0).sum(axis=axis) / np.maximum(n, 1), np.nan)
