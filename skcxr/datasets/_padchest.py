"""A folder of PadChest, as its publishers lay it out."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from skcxr._exceptions import DatasetError
from skcxr._frames import frame_of
from skcxr.datasets._layouts import (
    SEX,
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

__all__ = ["load_padchest"]

_LONGEST_CELL = 10_000  # characters of a list of labels

_PADCHEST_ABOUT = (
    "PadChest, Hospital San Juan (Spain) and BIMCV. Use is bound to the terms that are agreed to "
    "at http://bimcv.cipf.es/bimcv-projects/padchest/. 27% of the reports were labelled by "
    "physicians, the others by a network: the column method says which.\n\n"
    "Bustos A et al. PadChest: A large chest x-ray image dataset with multi-label annotated "
    "reports. Medical Image Analysis 2020;66:101797."
)


@validate_params(
    {
        "folder": [str, os.PathLike],
        "views": [str, list, tuple, None],
        "findings": [list, tuple, None],
    },
    prefer_skip_nested_validation=True,
)
def load_padchest(
    folder: str | os.PathLike[str],
    *,
    views: str | Sequence[str] | None = None,
    findings: Sequence[str] | None = None,
) -> Bunch:
    r"""Load a downloaded PadChest: its findings, patients and views.

    Read are ``PADCHEST_chest_x_ray_images_labels_160K*.csv`` (also as ``.csv.gz``) and the images,
    in ``<ImageDir>`` (0 to 54) as the table says, in ``images`` or in `folder` itself. Images that
    are not there, and rows without labels, are left out.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder with the table.
    views : str, list or tuple of str, default=None
        Some of ``"PA"``, ``"AP"``, ``"AP supine"`` (the publishers' AP_horizontal), ``"lateral"``
        and ``"other"`` (ribs, excluded and unknown); ``"frontal"`` stands for the first three.
        None takes all images.
    findings : list or tuple of str, default=None
        The findings that become columns. None takes all that the table has, nearly 200.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : list of str of length n_images
            The paths.
        target : ndarray of shape (n_images, n_findings), dtype float64
            1 for each finding that the report was labelled with, else 0.
        target_names : list of str
            The findings in the publishers' words, sorted; with `findings`, those in its order.
        groups : ndarray of shape (n_images,), dtype str
            The patients.
        source : ndarray of shape (n_images,), dtype str
            ``"PadChest"``.
        split : ndarray of shape (n_images,), dtype str
            The empty string: the publishers give no split.
        skipped : list of Skipped(path, reason)
            Every row without labels, or whose image is not there or is none.
        frame : pandas.DataFrame
            The columns path, those of the findings, group, source, split, view, sex, age and
            method ("Physician", or "RNN_model" for labels of a network).
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
    >>> from skcxr.datasets import load_padchest
    >>> folder = tempfile.mkdtemp()
    >>> os.makedirs(os.path.join(folder, "0"))
    >>> image = Image.fromarray(np.zeros((8, 8), dtype=np.uint8))
    >>> image.save(os.path.join(folder, "0", "a.png"))
    >>> name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    >>> with open(os.path.join(folder, name), "w") as file:
    ...     _ = file.write("ImageID,ImageDir,PatientID,Projection,Labels\n")
    ...     _ = file.write("a.png,0,83986,PA,\"['kyphosis', 'chronic changes']\"\n")
    >>> bunch = load_padchest(folder)
    >>> bunch.target_names, bunch.target.tolist()
    (['chronic changes', 'kyphosis'], [[1.0, 1.0]])
    """
    import pandas as pd

    wanted = wanted_views(views)
    folder = as_folder(folder)
    path = str(find_table(folder, *(f"PADCHEST*labels*.csv{end}" for end in ("", ".gz"))))
    given = read_table(path, "ImageID", "ImageDir", "PatientID", "Projection", "Labels")
    given = given.drop_duplicates(["ImageID", "Labels"])  # some images are told of twice
    labels = [_listed(cell, path) for cell in text_of(given["Labels"])]
    known = set().union(*(of for of in labels if of))
    if findings is not None and (unknown := set(findings) - known):
        raise DatasetError(f"{path!r} has no finding {sorted(unknown)[0]!r}")
    names = sorted(known) if findings is None else list(findings)
    values = np.zeros((len(labels), len(names)))
    column = {name: k for k, name in enumerate(names)}
    for row, of in enumerate(labels):
        values[row, [column[label] for label in of if label in column]] = 1.0
    values[[not of for of in labels]] = np.nan
    projections = {"PA": "PA", "AP": "AP", "AP_horizontal": "AP supine", "L": "lateral"}
    studied = pd.to_numeric(or_empty(given, "StudyDate_DICOM", as_text=False), "coerce")
    born = pd.to_numeric(or_empty(given, "PatientBirth", as_text=False), "coerce")
    folders = [folder, os.path.join(folder, "images")]
    table = frame_of(
        {
            "path": [
                first_there(
                    os.path.join(base, *parts)
                    for base in folders
                    for parts in ((number, image), (image,))
                )
                for number, image in zip(
                    text_of(given["ImageDir"]), text_of(given["ImageID"]), strict=True
                )
            ],
            **dict(zip(names, values.T, strict=True)),
            "group": text_of(given["PatientID"]),
            "split": "",
            "view": one_of(text_of(given["Projection"]), projections, "other"),
            "sex": one_of(or_empty(given, "PatientSex_DICOM"), SEX),
            "age": np.asarray(studied, dtype=float) // 10_000 - np.asarray(born, dtype=float),
            "method": or_empty(given, "MethodLabel"),
        }
    )
    return load(
        table,
        root=folder,
        target=names,
        source="PadChest",
        about=_PADCHEST_ABOUT,
        views=wanted,
    )


def _listed(cell: str, path: str) -> set[str]:
    """The labels in a cell that is written as a list of Python's."""
    if cell in ("", "nan"):
        return set()
    try:
        if len(cell) > _LONGEST_CELL:
            raise ValueError
        found = ast.literal_eval(cell)
        if not isinstance(found, list):
            raise ValueError
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise DatasetError(f"{path!r} has {cell[:80]!r} where a list of labels is expected") from (
            error
        )
    return {str(label).strip() for label in found} - {""}
