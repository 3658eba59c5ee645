"""Pictures that come twice: the same file, the same pixels, or a copy that was worked on."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from skcxr._exceptions import MissingDependencyError
from skcxr._fingerprints import find_copies
from skcxr._frames import frame_of
from skcxr._shipped import Shipped
from skcxr.audit._findings import Finding
from skcxr.audit._reading import Reading

Array = np.ndarray[Any, Any]

_MOST_EQUAL = 20  # files of one content of which every pair is listed
_SMALLEST = 48  # sides below have no details that tell a copy

COLUMNS = ["first", "second", "kind", "similarity", "mirrored"]


def duplicate_pairs(reading: Reading, others: dict[str, Reading]) -> tuple[Any, list[Finding]]:
    """List pairs of one picture within `reading` and between it and `others`.

    Parameters
    ----------
    reading : Reading
        The data set.
    others : dict of str to Reading
        Other collections.

    Returns
    -------
    table : pandas.DataFrame
        The columns first (row in the data set), second (row there or in the collection), kind
        ("file", "pixels" or "near"), similarity, mirrored and collection ("" for the data set).
    notes : list of Finding
        What was not looked for.
    """
    rows: list[list[Any]] = []
    notes: list[Finding] = []
    usable = [_usable(reading), *map(_usable, others.values())]
    for name, other, there in zip(["", *others], [reading, *others.values()], usable, strict=True):
        second = None if name == "" else other
        pairs = _equal(reading, second)
        rows += [[i, j, kind, 1.0, False, name] for (i, j), kind in pairs.items()]
        here = usable[0]
        if not len(here) or not len(there):
            continue
        try:
            copies = find_copies(
                reading.pictures[here], None if second is None else other.pictures[there]
            )
        except MissingDependencyError as error:
            notes = [
                Finding("near duplicates", "note", f"Near duplicates were not looked for: {error}.")
            ]
            continue
        for copy in copies:
            i, j = int(here[copy.first]), int(there[copy.second])
            if (i, j) not in pairs:
                rows.append([i, j, "near", copy.similarity, copy.mirrored, name])
    if len(usable[0]) < len(reading) - len(reading.failures):
        notes.append(
            Finding(
                "near duplicates",
                "note",
                f"Near duplicates of images below {_SMALLEST} pixels were not looked for: they "
                "have no details that tell a copy from another chest.",
            )
        )
    return frame_of(rows, columns=[*COLUMNS, "collection"]), notes


def _usable(reading: Reading) -> Array:
    sides = np.array([min(row["height"], row["width"]) if row else 0 for row in reading.rows])
    return np.flatnonzero(sides >= _SMALLEST)


def _equal(reading: Reading, other: Reading | None) -> dict[tuple[int, int], str]:
    """Pairs of the same bytes, or of the same pixels."""
    pairs: dict[tuple[int, int], str] = {}
    for kind, here, there in (
        ("file", reading.bytes_, (other or reading).bytes_),
        ("pixels", reading.pixels, (other or reading).pixels),
    ):
        places = defaultdict(list)
        for j, digest in enumerate(there):
            if digest:
                places[digest].append(j)
        if other is None:
            for equal in places.values():
                every = len(equal) <= _MOST_EQUAL
                found = combinations(equal, 2) if every else ((equal[0], j) for j in equal[1:])
                for pair in found:
                    pairs.setdefault(pair, kind)
        else:
            for i, digest in enumerate(here):
                for j in places.get(digest, ())[:_MOST_EQUAL] if digest else ():
                    pairs.setdefault((i, j), kind)
    return pairs


_MEANING = {
    "labels": (
        "serious", "{pairs} under different labels",
        "At least one label of each is wrong, and a model is taught both.",
    ),
    "splits": (
        "serious", "{pairs} on both sides of the split",
        "The test holds images that were trained on; take them out of one side.",
    ),
    "patients": (
        "serious", "{pairs} and are not known to be of one patient",
        "A split by patient does not keep them on one side; keep one of each, or give both the "
        "same patient.",
    ),
    "same": (
        "note", "{pairs} of one patient and one class",
        "A split by patient keeps them on one side, but they count twice; keep one of each.",
    ),
}  # fmt: skip


def duplicate_findings(
    table: Any,
    names: list[str],
    labels: Callable[[int], Any] | None,
    patients: Array,
    split: Array | None,
) -> list[Finding]:
    """Say what the pairs of the data set mean: the worst that is true of each.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `duplicate_pairs`.
    names : list of str
        The images.
    labels : callable or None
        The label of an image, as something that can be compared.
    patients, split : ndarray of shape (n,)
        Patients; side of the split, if there is one.

    Returns
    -------
    list of Finding
        For exact and near duplicates, one of each meaning.
    """
    found: dict[tuple[str, str], list[tuple[int, int, bool]]] = defaultdict(list)
    for row in table[table["collection"] == ""].to_dict("records"):
        i, j = row["first"], row["second"]
        meaning = "same"
        if labels is not None and labels(i) != labels(j):
            meaning = "labels"
        elif split is not None and split[i] != split[j]:
            meaning = "splits"
        elif patients[i] != patients[j]:
            meaning = "patients"
        check = "near duplicates" if row["kind"] == "near" else "exact duplicates"
        found[check, meaning].append((i, j, row["mirrored"]))
    findings = []
    for (check, meaning), pairs in found.items():
        severity, opening, advice = _MEANING[meaning]
        n_mirrored = sum(mirrored for _, _, mirrored in pairs)
        what = "picture stands" if len(pairs) == 1 else "pairs of one picture stand"
        counted = f"{len(pairs)} {what}" + (" twice" if len(pairs) == 1 else "")
        if check == "near duplicates":
            counted += " (resized, recompressed, cropped, brighter or mirrored)"
        sentence = f"{opening.format(pairs=counted)}. {advice}"
        figures = {"pairs": len(pairs), "images": len({k for i, j, _ in pairs for k in (i, j)})}
        if n_mirrored:
            figures["mirrored"] = n_mirrored
        items = [f"{names[i]} = {names[j]}" for i, j, _ in pairs]
        findings.append(Finding(check, severity, sentence, figures, items))
    return findings


def shared_findings(table: Any, names: list[str], others: dict[str, Reading]) -> list[Finding]:
    """Name the images that stand in another collection too."""
    findings = []
    for name, other in others.items():
        rows = table[table["collection"] == name].to_dict("records")
        if not rows:
            continue
        n = len({row["first"] for row in rows})
        sentence = (
            f"{n} of {len(names)} images {'stand' if n > 1 else 'stands'} in {name} too. A score "
            "on one of the two, of a model that was trained on the other, is too good; take them "
            "out."
        )
        figures = {"images": n, "pairs": len(rows)}
        items = [
            f"{names[row['first']]} = {os.path.basename(other.names[row['second']])}"
            for row in rows
        ]
        findings.append(Finding("other collections", "serious", sentence, figures, items))
    return findings


def learnt_findings(
    shipped: Shipped, pictures: Array, readable: Array, names: list[str]
) -> list[Finding]:
    """Name the images that trained weights which come with the package."""
    import torch

    from skcxr._contamination import hash_bits, have_learnt

    pixels = torch.from_numpy(pictures)[:, None].float() / 255
    learnt = have_learnt(shipped, hash_bits(pixels)) & readable
    if not learnt.any():
        return []
    items = [names[k] for k in np.flatnonzero(learnt)]
    n = len(items)
    sentence = (
        f"{n} of {len(names)} images {'is' if n == 1 else 'are'} among those that trained the "
        f"weights {shipped.name!r}. A score of a model that starts from these weights, on these "
        "images or on others of their patients, is too good; test on other patients, or start "
        "from other weights."
    )
    return [Finding("weights", "serious", sentence, {"images": n}, items)]
