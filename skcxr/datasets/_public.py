"""Kermany's chest X-rays and the COVID-19 image data collection, fetched and unpacked."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from skcxr._exceptions import DatasetError
from skcxr._frames import frame_of
from skcxr.datasets._fetch import FETCHED, Remote, get_data_home
from skcxr.datasets._folder import Skipped, describe, load_cxr_folder
from skcxr.datasets._layouts import load, one_of, read_table, text_of, wanted_views
from skcxr.datasets._unpack import WHOLE, fetch_folder

__all__ = ["fetch_covid19_image_data", "fetch_kermany"]

# Version 2 of doi:10.17632/rscbjbr9sj. Mendeley Data was not reachable when this was written:
# the address of the file, its size of 1,235,512,464 bytes and its SHA-256 are those that three
# public repositories, of different authors, give alike; none is taken from the publisher's page.
KERMANY = Remote(
    name="ChestXRay2017.zip",
    url=(
        "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
        "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded"
    ),
    page="https://data.mendeley.com/datasets/rscbjbr9sj/2",
    limit=1_300_000_000,
    checksum="sha256:13efc055629733dbab07877f8b3c9f81097840dbcdaa326a8542322c2281ce36",
)
KERMANY_LIMIT = 3 << 30  # bytes of its images

# GitHub packs the archive of a commit when it is asked for, and publishes no checksum of it.
_COMMIT = "6a4242344473ccb5ed0d2148d8c7bfb1691e4ed8"
_COVID_PAGE = "https://github.com/ieee8023/covid-chestxray-dataset"
COVID19 = Remote(
    name=f"covid-chestxray-dataset-{_COMMIT}.zip",
    url=f"{_COVID_PAGE}/archive/{_COMMIT}.zip",
    page=f"{_COVID_PAGE}/tree/{_COMMIT}",
    limit=4 << 30,
)
COVID19_LIMIT = 4 << 30

_KERMANY_ABOUT = (
    "Chest radiographs of children of one to five years, Guangzhou Women and Children's Medical "
    "Center; Mendeley Data, version 2, licence CC BY 4.0.\n\n"
    "Kermany D, Zhang K, Goldbaum M. Labeled Optical Coherence Tomography (OCT) and Chest X-Ray "
    "Images for Classification. Mendeley Data, V2, 2018. doi:10.17632/rscbjbr9sj.2\n"
    "Kermany DS et al. Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep "
    "Learning. Cell 2018;172(5):1122-1131."
)
_COVID19_ABOUT = (
    f"COVID-19 image data collection, state {_COMMIT[:7]}. Each image has a licence of its own, in "
    "the column license (empty: unknown); among them are Apache 2.0, CC BY 4.0 and CC BY-NC-SA "
    "4.0. The table is under CC BY-NC-SA 4.0. Its publishers ask not to claim diagnostic "
    "performance without a clinical study: it is gathered from publications, and findings, "
    "hospitals and ages go together.\n\n"
    "Cohen JP, Morrison P, Dao L. COVID-19 image data collection. arXiv:2003.11597, 2020.\n"
    "Cohen JP et al. COVID-19 Image Data Collection: Prospective Predictions Are the Future. "
    "arXiv:2006.11988, 2020."
)
_CAUSES = {"bacteria": "BACTERIA", "virus": "VIRUS"}
_UNLABELLED = ("todo", "Unknown", "")
_COVID19_COLUMNS = ("RT_PCR_positive", "survival", "intubated", "went_icu", "offset", "date",
                    "location", "doi", "url", "license")  # fmt: skip


@validate_params({"cause": ["boolean"], **FETCHED}, prefer_skip_nested_validation=True)
def fetch_kermany(
    *,
    cause: bool = False,
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    n_retries: int = 3,
    delay: float = 1.0,
) -> Bunch:
    """Fetch Kermany's chest X-rays: 5,856 radiographs of children, in full size.

    An archive of 1.2 GB comes from Mendeley Data (version 2 of the record [1]_), is checked and
    unpacked beside itself. It may be deleted then. Needs the extra ``fetch`` unless the archive or
    the images are there.

    Parameters
    ----------
    cause : bool, default=False
        Whether pneumonia is told apart by its cause, which the file names tell.
    data_home : str or os.PathLike, default=None
        Folder of fetched data. None is that of the environment variable ``SKCXR_DATA``, else
        ``~/skcxr_data``. Archive and images lie in its folder ``kermany``.
    download_if_missing : bool, default=True
        Whether to fetch the archive if it is not there; else that is an error.
    n_retries : int, default=3
        New attempts after a failed one.
    delay : float, default=1.0
        Seconds to wait before the first new attempt; each further one waits four times as long,
        a minute at most.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : list of str of length n_images
            The paths, sorted.
        target : ndarray of shape (n_images,), dtype str
            ``"NORMAL"`` or ``"PNEUMONIA"``; with `cause`, ``"BACTERIA"`` and ``"VIRUS"`` instead
            of the latter.
        target_names : list of str
            The classes, sorted.
        groups : ndarray of shape (n_images,), dtype str
            The patients, from the file names.
        source : ndarray of shape (n_images,), dtype str
            ``"Kermany 2018"``.
        split : ndarray of shape (n_images,), dtype str
            ``"train"`` or ``"test"``, as published.
        skipped : list of Skipped(path, reason)
            Files that are no images.
        frame : pandas.DataFrame of shape (n_images, 5)
            The columns path, target, group, source and split.
        DESCR : str
            What was found, the licence and what to cite.

    Raises
    ------
    DownloadError
        The archive is not there and cannot be fetched, or cannot be unpacked. The message says
        what to do by hand.
    MissingDependencyError
        The extra ``fetch`` is needed and not installed.
    DatasetError
        The archive does not hold these images.

    Notes
    -----
    The publisher's page could not be read when this was written, nor is the address tried when
    skcxr is tested. The address and the SHA-256 are those that several public repositories give
    alike. Other releases, such as version 3 of the record (``ZhangLabData.zip``) or that of Kaggle
    with its folder ``val``, are read by :func:`skcxr.load_cxr_folder` once they are unpacked:
    give it their folder ``chest_xray``.

    References
    ----------
    .. [1] Kermany D, Zhang K, Goldbaum M. "Labeled Optical Coherence Tomography (OCT) and Chest
       X-Ray Images for Classification." Mendeley Data, V2, 2018. doi:10.17632/rscbjbr9sj.2

    Examples
    --------
    >>> from skcxr.datasets import fetch_kermany
    >>> data = fetch_kermany(cause=True)  # doctest: +SKIP
    >>> data.target_names  # doctest: +SKIP
    ['BACTERIA', 'NORMAL', 'VIRUS']
    """
    folder = fetch_folder(
        KERMANY,
        os.path.join(get_data_home(data_home), "kermany"),
        _kept_of_kermany,
        KERMANY_LIMIT,
        download_if_missing=download_if_missing,
        n_retries=n_retries,
        delay=delay,
    )
    bunch = load_cxr_folder(folder, source=lambda _: "Kermany 2018")
    bunch["skipped"] = [s for s in bunch.skipped if os.path.basename(s.path) != WHOLE]
    if cause:
        found = [
            re.search("bacteria|virus", os.path.basename(path), re.IGNORECASE)
            for path in bunch.data
        ]
        causes = [_CAUSES[of.group().lower()] if of else "" for of in found]
        sick = bunch.target != "NORMAL"
        if any(ill and not told for ill, told in zip(sick, causes, strict=True)):
            raise DatasetError(f"some files in {folder!r} do not tell the cause of a pneumonia")
        bunch["target"] = np.where(sick, causes, bunch.target)
        bunch["target_names"] = sorted(set(bunch.target.tolist()))
        bunch["frame"] = bunch.frame.assign(target=bunch.target)
    told = describe(f"the folder {folder!r}", bunch.frame, 0, bunch.skipped)
    bunch["DESCR"] = f"{told}\n\n{_KERMANY_ABOUT}"
    return bunch


@validate_params({"views": [str, list, tuple, None], **FETCHED}, prefer_skip_nested_validation=True)
def fetch_covid19_image_data(
    *,
    views: str | Sequence[str] | None = None,
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    n_retries: int = 3,
    delay: float = 1.0,
) -> Bunch:
    """Fetch the COVID-19 image data collection: radiographs of several kinds of pneumonia.

    The archive of one state of the publishers' repository comes from GitHub [1]_ and is unpacked
    beside itself. It may be deleted then. CT images, and images that are not labelled, are left
    out. Needs the extra ``fetch`` unless the archive or the images are there.

    Parameters
    ----------
    views : str, list or tuple of str, default=None
        Some of ``"PA"``, ``"AP"``, ``"AP supine"``, ``"lateral"`` and ``"other"``; ``"frontal"``
        stands for the first three. None takes all radiographs.
    data_home : str or os.PathLike, default=None
        Folder of fetched data. None is that of the environment variable ``SKCXR_DATA``, else
        ``~/skcxr_data``. Archive and images lie in its folder ``covid19``.
    download_if_missing : bool, default=True
        Whether to fetch the archive if it is not there; else that is an error.
    n_retries : int, default=3
        New attempts after a failed one.
    delay : float, default=1.0
        Seconds to wait before the first new attempt; each further one waits four times as long,
        a minute at most.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : list of str of length n_images
            The paths.
        target : ndarray of shape (n_images,), dtype str
            The finding from general to special, such as ``"Pneumonia/Viral/COVID-19"`` or
            ``"No Finding"``.
        target_names : list of str
            The findings, sorted.
        groups : ndarray of shape (n_images,), dtype str
            The patients.
        source : ndarray of shape (n_images,), dtype str
            ``"COVID-19 image data collection"``; the hospital is the column location of `frame`.
        split : ndarray of shape (n_images,), dtype str
            The empty string: the publishers give no split.
        skipped : list of Skipped(path, reason)
            CT images, unlabelled ones, and files that are not there or no images.
        frame : pandas.DataFrame
            The columns path, target, group, source, split, view, sex, age, and of the publishers'
            table RT_PCR_positive, survival, intubated, went_icu, offset, date, location, doi, url
            and license, as far as it has them.
        DESCR : str
            What was found, the licences and what to cite.

    Raises
    ------
    DownloadError
        The archive is not there and cannot be fetched, or cannot be unpacked. The message says
        what to do by hand.
    MissingDependencyError
        The extra ``fetch`` is needed and not installed.
    DatasetError
        The archive does not hold these images.
    InputError
        `views` names an unknown view.

    Warns
    -----
    PatientWarning
        If the patient of some images is unknown.

    Notes
    -----
    GitHub publishes no checksum of such archives, so there is none to compare with: what is
    checked is that the connection is encrypted, that the archive names the commit, and that every
    file has the CRC-32 that the archive gives. The address is not tried when skcxr is tested.

    References
    ----------
    .. [1] Cohen JP, Morrison P, Dao L. "COVID-19 image data collection." arXiv:2003.11597, 2020.
       https://github.com/ieee8023/covid-chestxray-dataset

    Examples
    --------
    >>> from skcxr.datasets import fetch_covid19_image_data
    >>> data = fetch_covid19_image_data(views="frontal")  # doctest: +SKIP
    >>> sorted(set(data.frame["view"]))  # doctest: +SKIP
    ['AP', 'AP supine', 'PA']
    """
    wanted = wanted_views(views)
    folder = fetch_folder(
        COVID19,
        os.path.join(get_data_home(data_home), "covid19"),
        _kept_of_covid19,
        COVID19_LIMIT,
        download_if_missing=download_if_missing,
        n_retries=n_retries,
        delay=delay,
    )
    return _covid19(folder, wanted)


def _kept_of_kermany(name: str) -> str | None:
    found = re.fullmatch(r"chest_xray/((?:train|val|test)/\w+/[^./][^/]*\.jpe?g)", name)
    return found[1] if found else None


def _kept_of_covid19(name: str) -> str | None:
    found = re.fullmatch(
        rf"covid-chestxray-dataset-{_COMMIT}/"
        r"(metadata\.csv|README\.md|SCHEMA\.md|images/[^./][^/]*\.(?:jpe?g|png))",
        name,
        re.IGNORECASE,
    )
    return found[1] if found else None


def _covid19(folder: str, views: set[str] | None) -> Bunch:
    """The collection in a folder of its layout."""
    import pandas as pd

    needed = ("patientid", "finding", "view", "modality", "folder", "filename")
    given = read_table(os.path.join(folder, "metadata.csv"), *needed)
    words = {"PA": "PA", "AP": "AP", "AP Erect": "AP", "AP Supine": "AP supine", "L": "lateral"}
    findings = text_of(given["finding"])
    paths = [
        os.path.join(folder, *parts)
        for parts in zip(text_of(given["folder"]), text_of(given["filename"]), strict=True)
    ]
    reasons = [
        f"row {row + 1}: {modality or 'of an unknown kind'}, no radiograph"
        if modality != "X-ray"
        else f"row {row + 1}: no label ({finding or 'empty'})"
        for row, (modality, finding) in enumerate(
            zip(text_of(given["modality"]), findings, strict=True)
        )
    ]
    usable = (text_of(given["modality"]) == "X-ray") & ~np.isin(findings.astype(str), _UNLABELLED)
    columns = [name for name in _COVID19_COLUMNS if name in given]
    table = frame_of(
        {
            "path": paths,
            "target": findings,
            "group": text_of(given["patientid"]),
            "split": "",
            "view": one_of(text_of(given["view"]), words, "other"),
            "sex": text_of(given["sex"]) if "sex" in given else "",
            "age": pd.to_numeric(given["age"], "coerce") if "age" in given else np.nan,
            **{name: given[name] for name in columns},
        }
    )
    bunch = load(
        table[usable],
        root=folder,
        target="target",
        source="COVID-19 image data collection",
        about=_COVID19_ABOUT,
        views=views,
    )
    left_out = [Skipped(paths[k], reasons[k]) for k in np.flatnonzero(~usable)]
    bunch["skipped"] = left_out + bunch.skipped
    return bunch
