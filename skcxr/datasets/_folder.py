"""A folder of images, one sub-folder per class, as a data set."""

from __future__ import annotations

import os
import warnings
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import Bunch

from skcxr._exceptions import DatasetError, PatientWarning, SkcxrWarning
from skcxr._frames import frame_of
from skcxr._patients import Rule, patients_from_names, rule_from
from skcxr.images import sniff

__all__ = ["Skipped", "load_cxr_folder"]

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin"}


class Skipped(NamedTuple):
    """A file or folder that was left out, and why.

    Attributes
    ----------
    path : str
        The file or folder.
    reason : str
        Why it is no part of the data set.
    """

    path: str
    reason: str


class _Image(NamedTuple):
    relative: str  # to the root, with "/": what the order of a data set is made from
    path: str
    target: str
    split: str


def load_cxr_folder(
    root: str | os.PathLike[str], *, groups: Rule | None = None, source: Rule | None = None
) -> Bunch:
    """Load a folder of images that has one sub-folder per class.

    Two layouts are read: ``root/<class>/...`` and, with the sets of a given split above the
    classes, ``root/<split>/<class>/...``, where a split is called train, training, val, valid,
    validation, test or testing, in any case. Folders within a class are read too. Images are
    told by their first bytes, DICOM files by their headers, not by their names; their pixels are
    not decoded here.

    Parameters
    ----------
    root : str or os.PathLike
        The folder.
    groups : str, compiled pattern, callable or None, default=None
        How a file tells its patient. None knows the names of Kermany et al. 2018
        (``person10_bacteria_43.jpeg``, ``IM-0115-0001.jpeg``, ...) and NIH ChestX-ray14
        (``00000013_005.png``). A regular expression is searched in the file name; the patient is
        its group ``patient``, else its first group, else the whole match. A callable gets the
        path and returns the patient or None; :func:`skcxr.datasets.patient_from_dicom` makes one
        that reads the headers of DICOM files.
    source : str, compiled pattern, callable or None, default=None
        How a file tells the collection or hospital that it comes from, in the same manner. None,
        and a file that does not tell, give the empty string.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : list of str of length n_images
            The paths, below `root`, in the sorted order of their parts below `root` written with
            ``/``. The order is the same on every system and at every call.
        target : ndarray of shape (n_images,), dtype str
            The class of each image: the name of its folder.
        target_names : list of str
            The classes, sorted.
        groups : ndarray of shape (n_images,), dtype str
            The patient of each image; one whose patient is unknown is a patient of its own. A
            patient found in two classes is one patient.
        source : ndarray of shape (n_images,), dtype str
            The collection that each image comes from.
        split : ndarray of shape (n_images,), dtype str
            ``"train"``, ``"val"`` or ``"test"``; the empty string in the layout without splits.
        skipped : list of Skipped(path, reason)
            Every file and folder that was left out, and why.
        frame : pandas.DataFrame of shape (n_images, 5)
            The columns path, target, group, source and split.
        DESCR : str
            What was found, in a few sentences.

    Raises
    ------
    DatasetError
        If `root` is no folder, has no class folders or no images, or mixes splits and classes.
    InputError
        If `groups` or `source` is no valid regular expression.

    Warns
    -----
    PatientWarning
        If the patient of some files is unknown.
    SkcxrWarning
        If a class folder holds no image.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from skcxr.datasets._folder import load_cxr_folder
    >>> root = tempfile.mkdtemp()
    >>> for name in ["Normal/IM-0001-0001.png", "Normal/IM-0001-0002.png", "Ill/IM-0007-0001.png"]:
    ...     path = os.path.join(root, name)
    ...     os.makedirs(os.path.dirname(path), exist_ok=True)
    ...     Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(path)
    >>> bunch = load_cxr_folder(root)
    >>> bunch.target.tolist()
    ['Ill', 'Normal', 'Normal']
    >>> bunch.groups.tolist()
    ['IM-0007', 'IM-0001', 'IM-0001']
    """
    source_rule = None if source is None else rule_from(source, "source")
    group_rule = None if groups is None else rule_from(groups, "groups")
    root = folder_name(root)
    images, skipped = _find_images(root)
    images.sort()

    paths = [image.path for image in images]
    target = np.array([image.target for image in images], dtype=str)
    split = np.array([image.split for image in images], dtype=str)
    patients, n_unknown = patients_from_names(paths, group_rule)
    sources = np.array(
        [source_rule(path) or "" if source_rule else "" for path in paths], dtype=str
    )
    if n_unknown:
        warnings.warn(
            f"{n_unknown} of {len(paths)} files carry no patient id that is recognised; each is "
            "taken as a patient of its own, so images of one person may fall on both sides of a "
            "split. If their names tell the patient, pass groups= (a regular expression or a "
            "function of the path).",
            PatientWarning,
            stacklevel=2,
        )
    columns = {
        "path": paths,
        "target": target,
        "group": patients,
        "source": sources,
        "split": split,
    }
    frame = frame_of(columns)
    return Bunch(
        data=paths,
        target=target,
        target_names=sorted(set(target.tolist())),
        groups=patients,
        source=sources,
        split=split,
        skipped=skipped,
        frame=frame,
        DESCR=describe(f"the folder {root!r}", frame, n_unknown, skipped),
    )


def _find_images(root: str) -> tuple[list[_Image], list[Skipped]]:
    """Find the images of every class, and say of all else why it is left out."""
    if not os.path.isdir(root):
        what = "is a file, not a folder" if os.path.exists(root) else "does not exist"
        raise DatasetError(f"{root!r} {what}; give a folder that has one sub-folder per class")
    skipped: list[Skipped] = []
    top = _subfolders(root, "", skipped)
    splits = [name for name in top if name.lower() in SPLIT_NAMES]
    others = [name for name in top if name.lower() not in SPLIT_NAMES]
    if splits and others:
        raise DatasetError(
            f"{root!r} has split folders ({listed(splits)}) and others ({listed(others)}) side "
            "by side; give a folder with either splits or classes in it"
        )
    if splits:  # root/<split>/<class>
        folders = [
            (f"{split}/{name}", name, SPLIT_NAMES[split.lower()])
            for split in splits
            for name in _subfolders(root, split, skipped)
        ]
    else:  # root/<class>
        folders = [(name, name, "") for name in top]
    if not folders:
        raise DatasetError(
            f"{root!r} has no class folders; put the images into one sub-folder per class"
            + first_skipped(skipped)
        )
    if len(top) == 1 and not splits:
        inner = _subfolders(root, top[0], [])
        if any(name.lower() in SPLIT_NAMES for name in inner):
            deeper = os.path.join(root, top[0])
            raise DatasetError(
                f"{root!r} has one sub-folder, with {listed(inner)} in it; give {deeper!r}"
            )

    images: list[_Image] = []
    found: Counter[str] = Counter()
    for relative, target, split in folders:
        before = len(images)
        _walk(root, relative, target, split, images, skipped)
        found[target] += len(images) - before
        if len(images) == before:
            skipped.append(Skipped(_joined(root, relative), "the class folder holds no image"))
    if not images:
        raise DatasetError(f"{root!r} holds no image that can be read{first_skipped(skipped)}")
    if empty := [name for name, count in found.items() if count == 0]:
        warnings.warn(
            f"no image in the class folders {listed(empty)} of {root!r}; they are left out",
            SkcxrWarning,
            stacklevel=3,
        )
    return images, sorted(skipped)


def _subfolders(root: str, relative: str, skipped: list[Skipped]) -> list[str]:
    """List the folders in one that should hold nothing else; all else goes to `skipped`."""
    names = []
    for entry in _entries(_joined(root, relative), skipped):
        if _is_system(entry.name):
            skipped.append(Skipped(entry.path, "a hidden file or one of the system"))
        elif os.path.isdir(entry.path):
            names.append(entry.name)
        else:
            skipped.append(Skipped(entry.path, "lies in no class folder"))
    return names


def _walk(
    root: str,
    relative: str,
    target: str,
    split: str,
    images: list[_Image],
    skipped: list[Skipped],
) -> None:
    """Collect the images of a class, from each folder once, however many links lead to it."""
    ahead: list[tuple[str, tuple[tuple[int, int], ...]]] = [(relative, ())]  # and those above
    seen: set[tuple[int, int]] = set()
    while ahead:
        relative, above = ahead.pop()
        folder = _joined(root, relative)
        try:
            status = os.stat(folder)
        except OSError as error:
            skipped.append(Skipped(folder, f"the folder cannot be read: {error.strerror}"))
            continue
        here = (status.st_dev, status.st_ino)
        if here in above:
            skipped.append(Skipped(folder, "a link back to a folder above it"))
            continue
        if here in seen:
            skipped.append(Skipped(folder, "a link to a folder that is read already"))
            continue
        seen.add(here)
        folders = []
        for entry in _entries(folder, skipped):
            below = f"{relative}/{entry.name}"
            if _is_system(entry.name):
                skipped.append(Skipped(entry.path, "a hidden file or one of the system"))
            elif os.path.isdir(entry.path):
                folders.append((below, (*above, here)))
            elif reason := sniff(entry.path):
                skipped.append(Skipped(entry.path, reason))
            else:
                images.append(_Image(below, entry.path, target, split))
        ahead += reversed(folders)


def _entries(folder: str, skipped: list[Skipped]) -> list[os.DirEntry[str]]:
    """List what lies in a folder, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        skipped.append(Skipped(folder, f"the folder cannot be read: {error.strerror}"))
        return []


def _joined(root: str, relative: str) -> str:
    return os.path.join(root, *relative.split("/")) if relative else root


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def folder_name(root: object) -> str:
    """The name of a folder as str, or say that it is none."""
    if not isinstance(root, str | bytes | os.PathLike):
        raise DatasetError(f"root={shown(root)} is no folder; give a str or os.PathLike")
    return os.fsdecode(root)


def shown(value: object, most: int = 200) -> str:
    """What a value looks like; of a long one, its two ends."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 40]} ... {text[-35:]}"


def listed(names: list[Any], most: int = 8) -> str:
    """The first names of some, as a part of a message."""
    first = ", ".join(shown(name) for name in names[:most])
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def first_skipped(skipped: list[Skipped], most: int = 3) -> str:
    """List the first files left out, as the end of a message."""
    if not skipped:
        return ""
    some = "; ".join(f"{shown(entry.path, 500)}: {entry.reason}" for entry in skipped[:most])
    return f". Left out were {len(skipped)} entries, such as {some}"


def _counted(frame: Any) -> str:
    n_patients = frame["group"].nunique()
    images = "image" if len(frame) == 1 else "images"
    return f"{len(frame)} {images} of {n_patients} {'patient' if n_patients == 1 else 'patients'}"


def describe(
    where: str,
    frame: Any,
    n_unknown: int,
    skipped: list[Skipped],
    findings: list[str] | None = None,
) -> str:
    """Say what a data set holds: classes, or findings, which are columns of `frame`."""
    lines = [f"Chest radiographs from {where}:", ""]
    lines += [f"- all: {_counted(frame)}"]
    if findings is None:
        for name in sorted(set(frame["target"].dropna())):
            lines.append(f"- {name}: {_counted(frame[frame['target'] == name])}")
    for name in findings or []:
        present = frame[frame[name] == 1]
        lines.append(f"- {name}: {_counted(present)}, labelled in {frame[name].count()}")
    splits = frame[frame["split"] != ""]
    if len(splits):
        counts = ", ".join(f"{name} {len(part)}" for name, part in splits.groupby("split"))
        seen: dict[str, set[str]] = defaultdict(set)
        for patient, split in zip(splits["group"], splits["split"], strict=True):
            seen[patient].add(split)
        n_shared = sum(len(names) > 1 for names in seen.values())
        lines += ["", f"Splits: {counts}; patients in more than one of them: {n_shared}."]
    if n_unknown:
        lines += ["", f"Images whose patient is unknown, each its own: {n_unknown}."]
    if skipped:
        lines += ["", f"Files or folders left out: {len(skipped)}; `skipped` says why."]
    return "\n".join(lines)
