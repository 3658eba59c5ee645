"""Folders of the RSNA pneumonia challenge and of VinDr-CXR, as they are downloaded."""

from __future__ import annotations

import json
import os
import warnings
from typing import Any

from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from skcxr._exceptions import DatasetError, PatientWarning
from skcxr._frames import frame_of
from skcxr.datasets._layouts import as_folder, find_table, image_of, load, read_table, text_of

__all__ = ["load_rsna_pneumonia", "load_vindr_cxr"]

VINDR_FINDINGS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
    "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip
_MAPPINGS = "pneumonia-challenge-dataset-mappings_2018.json"
_LARGEST_MAPPINGS = 200 << 20  # bytes

_RSNA_ABOUT = (
    "RSNA Pneumonia Detection Challenge 2018: radiographs of NIH ChestX-ray14, annotated by "
    "radiologists of the RSNA and the Society of Thoracic Radiology. The RSNA allows academic, "
    "commercial and other uses to those who meet its attribution requirements; see "
    "https://www.rsna.org/education/ai-resources-and-training/ai-image-challenge/"
    "rsna-pneumonia-detection-challenge-2018.\n\n"
    "Shih G et al. Augmenting the National Institutes of Health Chest Radiograph Dataset with "
    "Expert Annotations of Possible Pneumonia. Radiology: Artificial Intelligence 2019;1(1):"
    "e180041."
)
_VINDR_ABOUT = (
    "VinDr-CXR, from two hospitals in Vietnam, published at PhysioNet for credentialed users who "
    "have signed its data use agreement: https://physionet.org/content/vindr-cxr/. Each image of "
    "train was read by three radiologists on their own, each of test by five in consensus.\n\n"
    "Nguyen HQ et al. VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations. "
    "Scientific Data 2022;9:429."
)


@validate_params({"folder": [str, os.PathLike]}, prefer_skip_nested_validation=True)
def load_rsna_pneumonia(folder: str | os.PathLike[str]) -> Bunch:
    r"""Load a downloaded RSNA Pneumonia Detection Challenge 2018: three classes.

    Read are ``stage_2_train_labels.csv``, ``stage_2_detailed_class_info.csv`` and the images in
    ``stage_2_train_images``: DICOM files, or copies of the same names as PNG or JPEG. Images that
    are not there are left out. DICOM needs the extra ``dicom`` when pixels are read.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder with the tables.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : list of str of length n_images
            The paths.
        target : ndarray of shape (n_images,), dtype str
            ``"Normal"``, ``"No Lung Opacity / Not Normal"`` or ``"Lung Opacity"``.
        target_names : list of str
            The classes, sorted.
        groups : ndarray of shape (n_images,), dtype str
            The patients of NIH ChestX-ray14, if ``pneumonia-challenge-dataset-mappings_2018.json``
            of the RSNA is in `folder`. The challenge's own "patientId" is one for each image, not
            for each patient; without the file each image is a patient of its own.
        source : ndarray of shape (n_images,), dtype str
            ``"RSNA 2018"``.
        split : ndarray of shape (n_images,), dtype str
            The empty string: the labels of the challenge's test set are not published with it.
        skipped : list of Skipped(path, reason)
            Every row whose image is not there or is none.
        frame : pandas.DataFrame
            The columns path, target, group, source, split, pneumonia (the challenge's target, 0 or
            1) and n_boxes.
        DESCR : str
            What was found, the terms of use and what to cite.

    Raises
    ------
    DatasetError
        A table is not there or is another one, or no image is there.
    InvalidParameterError
        `folder` has another type. It is a ValueError and a TypeError.

    Warns
    -----
    PatientWarning
        If the patient of some images is unknown.

    Examples
    --------
    >>> import os, tempfile, warnings
    >>> import numpy as np
    >>> from PIL import Image
    >>> from skcxr.datasets import load_rsna_pneumonia
    >>> folder = tempfile.mkdtemp()
    >>> os.makedirs(os.path.join(folder, "stage_2_train_images"))
    >>> image = Image.fromarray(np.zeros((8, 8), dtype=np.uint8))
    >>> image.save(os.path.join(folder, "stage_2_train_images", "0004cfab.png"))
    >>> with open(os.path.join(folder, "stage_2_train_labels.csv"), "w") as file:
    ...     _ = file.write("patientId,x,y,width,height,Target\n0004cfab,,,,,0\n")
    >>> with open(os.path.join(folder, "stage_2_detailed_class_info.csv"), "w") as file:
    ...     _ = file.write("patientId,class\n0004cfab,Normal\n")
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # of the patients, who are unknown here
    ...     load_rsna_pneumonia(folder).target.tolist()
    ['Normal']
    """
    import pandas as pd

    folder = as_folder(folder)
    path = str(find_table(folder, "stage_2_train_labels.csv"))
    boxes = read_table(path, "patientId", "Target")
    boxes["Target"] = pd.to_numeric(boxes["Target"], errors="coerce")
    if not boxes["Target"].isin([0, 1]).all():
        raise DatasetError(f"{path!r} has a Target that is not 0 or 1")
    path = str(find_table(folder, "stage_2_detailed_class_info.csv"))
    classes = read_table(path, "patientId", "class")
    one = classes.drop_duplicates(["patientId", "class"])
    if one["patientId"].duplicated().any():
        twice = one["patientId"][one["patientId"].duplicated()].iloc[0]
        raise DatasetError(f"{path!r} has two classes of {twice!r}")
    found = boxes.groupby("patientId", sort=False)["Target"].agg(["max", "sum"])
    names = text_of(one["patientId"])
    known = _nih_patients(folder)
    groups = [known.get(name, name) for name in names]
    images = os.path.join(folder, "stage_2_train_images")
    table = frame_of(
        {
            "path": [image_of(images, name, ".dcm") for name in names],
            "target": text_of(one["class"]),
            "group": groups,
            "split": "",
            "pneumonia": found["max"].reindex(one["patientId"]).to_numpy(),
            "n_boxes": found["sum"].reindex(one["patientId"]).to_numpy(),
        }
    )
    bunch = load(table, root=folder, target="target", source="RSNA 2018", about=_RSNA_ABOUT)
    patients = set(known.values())
    _warn_of_patients(
        sum(group not in patients for group in bunch.groups),
        bunch,
        f"The file {_MAPPINGS} of the RSNA tells them; put it into the folder",
    )
    return bunch


@validate_params(
    {"folder": [str, os.PathLike], "votes": [StrOptions({"majority", "any", "agree"})]},
    prefer_skip_nested_validation=True,
)
def load_vindr_cxr(folder: str | os.PathLike[str], *, votes: str = "majority") -> Bunch:
    r"""Load a downloaded VinDr-CXR: 28 findings and diagnoses.

    Read are ``image_labels_train.csv`` and ``image_labels_test.csv``, in ``annotations`` or
    `folder` itself, and the images in ``train`` and ``test``: DICOM files, or copies of the same
    names as PNG or JPEG. Images that are not there are left out. DICOM needs the extra ``dicom``
    when pixels are read.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder that has ``annotations``, ``train`` and ``test``.
    votes : {"majority", "any", "agree"}, default="majority"
        How the labels of the three radiologists of an image become one: what more than half of
        them found, what any of them found, or what all agree on, with NaN where they do not.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : list of str of length n_images
            The paths.
        target : ndarray of shape (n_images, 28), dtype float64
            0, 1 or NaN.
        target_names : list of str
            22 findings, 5 diagnoses and "No finding", in the publishers' words.
        groups : ndarray of shape (n_images,), dtype str
            The publishers do not tell the patients, so each image is a patient of its own here.
        source : ndarray of shape (n_images,), dtype str
            ``"VinDr-CXR"``.
        split : ndarray of shape (n_images,), dtype str
            ``"train"`` or ``"test"``.
        skipped : list of Skipped(path, reason)
            Every row whose image is not there or is none.
        frame : pandas.DataFrame
            The columns path, those of the findings, group, source, split and n_readers.
        DESCR : str
            What was found, the terms of use and what to cite.

    Raises
    ------
    DatasetError
        No table is there, it is another one, or no image is there.
    InvalidParameterError
        A parameter has another type or value. It is a ValueError and a TypeError.

    Warns
    -----
    PatientWarning
        Always: the patients are unknown.

    Examples
    --------
    >>> import os, tempfile, warnings
    >>> import numpy as np
    >>> from PIL import Image
    >>> from skcxr.datasets import load_vindr_cxr
    >>> from skcxr.datasets._challenges import VINDR_FINDINGS
    >>> folder = tempfile.mkdtemp()
    >>> os.makedirs(os.path.join(folder, "train"))
    >>> Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(
    ...     os.path.join(folder, "train", "9a5094b2.png")
    ... )
    >>> with open(os.path.join(folder, "image_labels_train.csv"), "w") as file:
    ...     _ = file.write("image_id,rad_id," + ",".join(VINDR_FINDINGS) + "\n")
    ...     for reader, found in (("R1", 1), ("R2", 1), ("R3", 0)):
    ...         _ = file.write(f"9a5094b2,{reader},{found}" + ",0" * 27 + "\n")
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # of the patients, who are unknown
    ...     bunch = load_vindr_cxr(folder)
    ...     strict = load_vindr_cxr(folder, votes="agree")
    >>> bunch.target[0, 0].item(), strict.target[0, 0].item()
    (1.0, nan)
    """
    import pandas as pd

    folder = as_folder(folder)
    tables = []
    for split in ("train", "test"):
        path = find_table(folder, f"image_labels_{split}.csv", needed=False)
        if path is None:
            continue
        given = read_table(path, "image_id")
        given = given.rename(columns={"Other disease": "Other diseases"})  # in the test table
        if missing := [name for name in VINDR_FINDINGS if name not in given]:
            raise DatasetError(f"{path!r} has no column {missing[0]!r}")
        labels = given[list(VINDR_FINDINGS)].apply(pd.to_numeric, errors="coerce")
        if not labels.isin([0, 1]).all(axis=None):
            raise DatasetError(f"{path!r} has labels that are not 0 or 1")
        grouped = labels.groupby(text_of(given["image_id"]), sort=False)
        mean = grouped.mean()
        if votes == "majority":
            settled = (mean > 0.5).astype(float)
        elif votes == "any":
            settled = (mean > 0).astype(float)
        else:
            settled = mean.where(mean.isin([0, 1]))
        names = settled.index.tolist()
        tables.append(
            settled.reset_index(drop=True).assign(
                path=[image_of(os.path.join(folder, split), name, ".dicom") for name in names],
                group=names,
                split=split,
                n_readers=grouped.size().to_numpy(),
            )
        )
    if not tables:
        raise DatasetError(
            f"{folder!r} has no file 'image_labels_train.csv', in annotations or not"
        )
    bunch = load(
        pd.concat(tables),
        root=folder,
        target=VINDR_FINDINGS,
        source="VinDr-CXR",
        about=_VINDR_ABOUT,
    )
    _warn_of_patients(len(bunch.data), bunch, "The publishers do not tell them")
    return bunch


def _nih_patients(folder: str) -> dict[str, str]:
    """The patients of the challenge's images, if the file that maps them to NIH's is there."""
    path = find_table(folder, _MAPPINGS, needed=False)
    if path is None:
        return {}
    try:
        if os.path.getsize(path) > _LARGEST_MAPPINGS:
            raise ValueError("it is too large")
        with open(path, encoding="utf-8") as file:
            entries: list[dict[str, Any]] = json.load(file)
        return {
            str(entry["subset_img_id"]): str(entry["img_id"]).partition("_")[0]
            for entry in entries
            if entry.get("subset_img_id")
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{path!r} does not map images to those of the NIH: {error}") from error


def _warn_of_patients(n_unknown: int, bunch: Bunch, advice: str) -> None:
    if not n_unknown:
        return
    bunch["DESCR"] += f"\n\nImages whose patient is unknown, each its own: {n_unknown}."
    warnings.warn(
        f"{n_unknown} of {len(bunch.data)} images have no patient that is known; each is taken as "
        "a patient of its own, so images of one person may fall on both sides of a split. "
        f"{advice}",
        PatientWarning,
        stacklevel=4,  # past the loader and the check of its parameters
    )
