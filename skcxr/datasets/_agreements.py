"""Folders of NIH ChestX-ray14 and CheXpert, as their publishers lay them out.

These are downloaded by hand, since their publishers want to know by whom, or to be agreed with.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Options, StrOptions, validate_params

from skcxr._exceptions import DatasetError
from skcxr._frames import frame_of
from skcxr.datasets._layouts import (
    SEX,
    ages,
    as_folder,
    find_table,
    first_there,
    load,
    one_of,
    or_empty,
    read_table,
    text_of,
    wanted_views,
)

__all__ = ["load_chexpert", "load_nih_chestxray14"]

Array = np.ndarray[Any, Any]

NIH_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening",
    "Hernia",
)  # fmt: skip
CHEXPERT_FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip

_NIH_ABOUT = (
    "NIH ChestX-ray14. The publishers set no restrictions on its use, and ask for three things: a "
    "link to https://nihcc.app.box.com/v/ChestXray-NIHCC, a citation of the paper below, and an "
    "acknowledgement of the NIH Clinical Center as the provider. The labels were found in reports "
    "by a program; the publishers expect more than 90% of them to be right.\n\n"
    "Wang X et al. ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on "
    "Weakly-Supervised Classification and Localization of Common Thorax Diseases. CVPR "
    "2017:3462-3471."
)
_CHEXPERT_ABOUT = (
    "CheXpert, Stanford University. Use is bound to the publishers' Research Use Agreement, which "
    "everyone who downloads it has agreed to; see https://stanfordmlgroup.github.io/competitions/"
    "chexpert/. The labels of train were found in reports by a program; those of val (valid.csv) "
    "are of radiologists.\n\n"
    "Irvin J et al. CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert "
    "Comparison. AAAI 2019;33:590-597."
)


@validate_params(
    {"folder": [str, os.PathLike], "views": [str, list, tuple, None]},
    prefer_skip_nested_validation=True,
)
def load_nih_chestxray14(
    folder: str | os.PathLike[str], *, views: str | Sequence[str] | None = None
) -> Bunch:
    r"""Load a downloaded NIH ChestX-ray14: 14 findings, patients, views and the official split.

    Read are ``Data_Entry_2017*.csv``, the images in ``images_*/images``, ``images`` or `folder`
    itself, and, where they are there, ``train_val_list.txt`` and ``test_list.txt``. Images that
    are not there are left out: part of the data set will do.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder with the table.
    views : str, list or tuple of str, default=None
        ``"PA"``, ``"AP"`` or both, also as ``"frontal"``. None takes all images.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : list of str of length n_images
            The paths.
        target : ndarray of shape (n_images, 14), dtype float64
            0 or 1 for each finding; all 0 is the publishers' "No Finding".
        target_names : list of str
            The findings, in the publishers' words.
        groups : ndarray of shape (n_images,), dtype str
            The patients, eight digits as in the file names.
        source : ndarray of shape (n_images,), dtype str
            ``"NIH ChestX-ray14"``.
        split : ndarray of shape (n_images,), dtype str
            ``"train"`` for the images of ``train_val_list.txt``, ``"test"`` for those of
            ``test_list.txt``; the empty string where the lists are not there.
        skipped : list of Skipped(path, reason)
            Every row whose image is not there or is none.
        frame : pandas.DataFrame
            The columns path, those of the findings, group, source, split, view, sex, age and
            follow_up.
        DESCR : str
            What was found, the terms of use and what to cite.

    Raises
    ------
    DatasetError
        The table is not there or is another one, or no image is there.
    InputError
        `views` names an unknown view.
    InvalidParameterError
        A parameter has another type. It is a ValueError and a TypeError.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from skcxr.datasets import load_nih_chestxray14
    >>> folder = tempfile.mkdtemp()
    >>> os.makedirs(os.path.join(folder, "images_001", "images"))
    >>> image = Image.fromarray(np.zeros((8, 8), dtype=np.uint8))
    >>> image.save(os.path.join(folder, "images_001", "images", "00000001_000.png"))
    >>> with open(os.path.join(folder, "Data_Entry_2017_v2020.csv"), "w") as file:
    ...     _ = file.write(
    ...         "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,"
    ...         "View Position\n00000001_000.png,Cardiomegaly|Effusion,0,1,57,M,PA\n"
    ...     )
    >>> bunch = load_nih_chestxray14(folder)
    >>> [name for name, found in zip(bunch.target_names, bunch.target[0]) if found]
    ['Cardiomegaly', 'Effusion']
    >>> bunch.groups.tolist(), bunch.frame["view"].tolist()
    (['00000001'], ['PA'])
    """
    wanted = wanted_views(views)
    folder = as_folder(folder)
    path = str(find_table(folder, "Data_Entry_2017*.csv"))
    given = read_table(path, "Image Index", "Finding Labels", "Patient ID", "View Position")
    names = text_of(given["Image Index"])
    where = _files_below(folder, "images_*/images", "images_*", "images", "")
    splits = dict.fromkeys(_lines(folder, "train_val_list.txt"), "train")
    splits.update(dict.fromkeys(_lines(folder, "test_list.txt"), "test"))
    labels = [
        set(cell.split("|")) - {"No Finding", ""} for cell in text_of(given["Finding Labels"])
    ]
    if unknown := set().union(*labels) - set(NIH_FINDINGS):
        raise DatasetError(f"{path!r} has the findings {sorted(unknown)}, which are none of its 14")
    sex = "Patient Sex" if "Patient Sex" in given else "Patient Gender"
    table = frame_of(
        {
            "path": [where.get(name, os.path.join(folder, "images", name)) for name in names],
            **{finding: [float(finding in of) for of in labels] for finding in NIH_FINDINGS},
            "group": [patient.zfill(8) for patient in text_of(given["Patient ID"])],
            "split": [splits.get(name, "") for name in names],
            "view": one_of(text_of(given["View Position"]), {"PA": "PA", "AP": "AP"}, "other"),
            "sex": one_of(or_empty(given, sex), SEX),
            "age": ages(or_empty(given, "Patient Age")),
            "follow_up": or_empty(given, "Follow-up #"),
        }
    )
    return load(
        table,
        root=folder,
        target=NIH_FINDINGS,
        source="NIH ChestX-ray14",
        about=_NIH_ABOUT,
        views=wanted,
    )


@validate_params(
    {
        "folder": [str, os.PathLike],
        "views": [str, list, tuple, None],
        "uncertain": [StrOptions({"nan"}), Options(int, {0, 1})],
        "unmentioned": [StrOptions({"nan"}), Options(int, {0})],
    },
    prefer_skip_nested_validation=True,
)
def load_chexpert(
    folder: str | os.PathLike[str],
    *,
    views: str | Sequence[str] | None = None,
    uncertain: str | int = "nan",
    unmentioned: str | int = "nan",
) -> Bunch:
    r"""Load a downloaded CheXpert: 14 observations, patients and views.

    Read are ``train.csv`` and ``valid.csv``, in `folder` or one below it, of the full or the small
    version, and the images they name: in ``train`` and ``valid``, or in the folders of the four
    batches as they are unpacked. Images that are not there are left out.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder.
    views : str, list or tuple of str, default=None
        Some of ``"PA"``, ``"AP"``, ``"lateral"`` and ``"other"``; ``"frontal"`` stands for PA and
        AP. None takes all images.
    uncertain : {"nan", 0, 1}, default="nan"
        What becomes of -1, an observation that the report is unsure of: "nan" is no label.
    unmentioned : {"nan", 0}, default="nan"
        What becomes of an empty cell, an observation that the report does not mention: "nan" is
        no label, 0 takes it as absent.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : list of str of length n_images
            The paths.
        target : ndarray of shape (n_images, 14), dtype float64
            0, 1 or NaN for each observation.
        target_names : list of str
            The observations, in the publishers' words; "No Finding" is one of them.
        groups : ndarray of shape (n_images,), dtype str
            The patients, such as ``"patient00001"``.
        source : ndarray of shape (n_images,), dtype str
            ``"CheXpert"``.
        split : ndarray of shape (n_images,), dtype str
            ``"train"``, or ``"val"`` for the images of ``valid.csv``.
        skipped : list of Skipped(path, reason)
            Every row without a label, or whose image is not there or is none.
        frame : pandas.DataFrame
            The columns path, those of the observations, group, source, split, view, sex and age.
        DESCR : str
            What was found, the terms of use and what to cite.

    Raises
    ------
    DatasetError
        No table is there, it is another one, or no image is there.
    InputError
        `views` names an unknown view.
    InvalidParameterError
        A parameter has another type or value. It is a ValueError and a TypeError.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from skcxr.datasets import load_chexpert
    >>> from skcxr.datasets._agreements import CHEXPERT_FINDINGS
    >>> folder = tempfile.mkdtemp()
    >>> name = "train/patient00001/study1/view1_frontal.jpg"
    >>> os.makedirs(os.path.join(folder, os.path.dirname(name)))
    >>> image = Image.fromarray(np.zeros((8, 8), dtype=np.uint8))
    >>> image.save(os.path.join(folder, name))
    >>> with open(os.path.join(folder, "train.csv"), "w") as file:
    ...     _ = file.write("Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT_FINDINGS))
    ...     _ = file.write(f"\nCheXpert-v1.0-small/{name},Female,68,Frontal,AP,0,,1,,,-1,,,,,,,,\n")
    >>> bunch = load_chexpert(folder)
    >>> bunch.target[0, [0, 2, 5]].tolist(), bunch.groups.tolist()
    ([0.0, 1.0, nan], ['patient00001'])
    >>> load_chexpert(folder, uncertain=1).target[0, 5].item()
    1.0
    """
    import pandas as pd

    wanted = wanted_views(views)
    folder = as_folder(folder)
    needed = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS)
    meaning = {-1.0: float(uncertain), 0.0: 0.0, 1.0: 1.0}
    bases = [folder, *sorted(glob.glob(os.path.join(glob.escape(folder), "CheXpert*", "")))]
    tables = []
    for file, split in (("train.csv", "train"), ("valid.csv", "val")):
        path = find_table(folder, file, needed=False)
        if path is None:
            continue
        given = read_table(path, *needed)
        told = [re.search(r"(?:train|valid)/.*", cell) for cell in text_of(given["Path"])]
        names = [found.group() if found else "" for found in told]
        labels = {}
        for finding in CHEXPERT_FINDINGS:
            numbers = pd.to_numeric(given[finding], "coerce").to_numpy(dtype=float, na_value=np.nan)
            wrong = given[finding].notna().to_numpy() & ~np.isin(numbers, list(meaning))
            if wrong.any():
                cell = given[finding][wrong].iloc[0]
                raise DatasetError(
                    f"{path!r} has {cell!r} for {finding!r}; -1, 0, 1 or nothing is expected"
                )
            empty = float(unmentioned)
            labels[finding] = [empty if np.isnan(n) else meaning[n] for n in numbers]
        frontal = text_of(given["Frontal/Lateral"]) == "Frontal"
        tables.append(
            frame_of(
                {
                    "path": [_chexpert_image(bases, name) for name in names],
                    **labels,
                    "group": [_first(r"patient\d+", name) for name in names],
                    "split": split,
                    "view": np.where(
                        frontal,
                        one_of(text_of(given["AP/PA"]), {"PA": "PA", "AP": "AP"}, "other"),
                        "lateral",
                    ),
                    "sex": one_of(text_of(given["Sex"]), SEX),
                    "age": ages(text_of(given["Age"])),
                }
            )
        )
    if not tables:
        raise DatasetError(f"{folder!r} has no file 'train.csv' or 'valid.csv'")
    return load(
        pd.concat(tables),
        root=folder,
        target=CHEXPERT_FINDINGS,
        source="CheXpert",
        about=_CHEXPERT_ABOUT,
        views=wanted,
    )


def _files_below(folder: str, *patterns: str) -> dict[str, str]:
    """Files by their names, in the folders that fit the patterns; the first wins."""
    found: dict[str, str] = {}
    for pattern in patterns:
        for below in sorted(glob.glob(os.path.join(glob.escape(folder), pattern))):
            with contextlib.suppress(OSError):  # of files, and of folders that are not open to us
                for name in os.listdir(below):
                    found.setdefault(name, os.path.join(below, name))
    return found


def _lines(folder: str, name: str) -> list[str]:
    """The lines of a list of files, if it is there."""
    path = find_table(folder, name, needed=False)
    if path is None:
        return []
    try:
        with open(path, encoding="utf-8") as file:
            return [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path!r} cannot be read: {error}") from error


def _chexpert_image(bases: list[str], name: str) -> str:
    inner = name.partition("/")[2]  # the batches of train are unpacked without "train"
    return first_there(os.path.join(base, part) for base in bases for part in (name, inner))


def _first(pattern: str, name: str) -> str:
    found = re.search(pattern, name)
    return found.group() if found else ""
