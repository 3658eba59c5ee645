"""PneumoniaMNIST and ChestMNIST of the MedMNIST collection."""

from __future__ import annotations

import os
import warnings
import zipfile
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Options, StrOptions, validate_params

from skcxr._exceptions import DatasetError, PatientWarning
from skcxr.datasets._fetch import FETCHED, Remote, fetch_file, get_data_home
from skcxr.datasets._folder import describe

__all__ = ["fetch_chestmnist", "fetch_pneumoniamnist"]

Array = np.ndarray[Any, Any]

SIZES = (28, 64, 128, 224)
SPLITS = ("train", "val", "test")
PNEUMONIA = ("normal", "pneumonia")
FINDINGS = (
    "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
    "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
)  # fmt: skip

# Record, file names and MD5 as they stand in info.py of the publishers' package medmnist 3.0.2.
_RECORD = "https://zenodo.org/records/10519652"
_MD5 = {
    ("pneumoniamnist", 28): "28209eda62fecd6e6a2d98b1501bb15f",
    ("pneumoniamnist", 64): "8f4eceb4ccffa70c672198ea285246c6",
    ("pneumoniamnist", 128): "05b46931834c231683c68f40c47b2971",
    ("pneumoniamnist", 224): "d6a3c71de1b945ea11211b03746c1fe1",
    ("chestmnist", 28): "02c8a6516a18b556561a56cbdd36c4a8",
    ("chestmnist", 64): "9de6cd0b934ebb5b7426cfba5efbae16",
    ("chestmnist", 128): "db107e5590b27930b62dbaf558aebee3",
    ("chestmnist", 224): "45bd33e6f06c3e8cdb481c74a89152aa",
}
_N_IMAGES = {"pneumoniamnist": 4708 + 524 + 624, "chestmnist": 78468 + 11219 + 22433}
_MOST_BYTES = 8 << 30  # of the pixels of one array

_CITED = (
    "Yang J et al. MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image "
    "classification. Scientific Data 2023;10:41. MedMNIST is not intended for clinical use."
)
_ABOUT = {
    "pneumoniamnist": (
        "PneumoniaMNIST of MedMNIST, licence CC BY 4.0: the chest radiographs of children of "
        "Kermany et al. 2018, cut to their middle and made small. The publishers split the "
        "training set of Kermany 9:1 into train and val; its other set is test. Nothing says that "
        "the 9:1 split was made by patient, and the source has several images of many children.\n\n"
        f"{_CITED}\nKermany DS et al. Identifying Medical Diagnoses and Treatable Diseases by "
        "Image-Based Deep Learning. Cell 2018;172(5):1122-1131."
    ),
    "chestmnist": (
        "ChestMNIST of MedMNIST, licence CC BY 4.0: the 112,120 frontal radiographs of NIH "
        "ChestX-ray14, made small, in its official split. Its labels were found in reports by a "
        "program and are partly wrong.\n\n"
        f"{_CITED}\nWang X et al. ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks "
        "on Weakly-Supervised Classification and Localization of Common Thorax Diseases. CVPR "
        "2017:3462-3471."
    ),
}

_CONSTRAINTS: dict[str, Any] = {
    "size": [Options(Integral, set(SIZES))],
    "split": [StrOptions(set(SPLITS)), None],
    **FETCHED,
}


@validate_params(_CONSTRAINTS, prefer_skip_nested_validation=True)
def fetch_pneumoniamnist(
    *,
    size: int = 28,
    split: str | None = None,
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    n_retries: int = 3,
    delay: float = 1.0,
) -> Bunch:
    """Fetch PneumoniaMNIST: 5,856 small radiographs of children, with pneumonia or without.

    The file comes from the publishers' record at Zenodo and is checked by their MD5 [1]_. Needs
    the extra ``fetch`` unless the file is there.

    Parameters
    ----------
    size : {28, 64, 128, 224}, default=28
        Height and width of the images.
    split : {"train", "val", "test"}, default=None
        The set that is loaded: 4,708, 524 and 624 images. None loads all of them, in this order.
    data_home : str or os.PathLike, default=None
        Folder of fetched data. None is that of the environment variable ``SKCXR_DATA``, else
        ``~/skcxr_data``. The file lies in its folder ``medmnist``.
    download_if_missing : bool, default=True
        Whether to fetch the file if it is not there; else that is an error.
    n_retries : int, default=3
        New attempts after a failed one.
    delay : float, default=1.0
        Seconds to wait before the first new attempt; each further one waits four times as long,
        a minute at most.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_images, size, size), dtype uint8
            The images.
        target : ndarray of shape (n_images,), dtype str
            ``"normal"`` or ``"pneumonia"``.
        target_names : list of str
            The two.
        groups : ndarray of shape (n_images,), dtype str
            The publishers do not tell the patients, so each image is a patient of its own here.
        source : ndarray of shape (n_images,), dtype str
            ``"pneumoniamnist"``.
        split : ndarray of shape (n_images,), dtype str
            ``"train"``, ``"val"`` or ``"test"``.
        skipped : list
            Empty; there for likeness with the loaders.
        frame : pandas.DataFrame of shape (n_images, 5)
            The columns index (the row in `data`), target, group, source and split.
        DESCR : str
            What it is, its licence and what to cite.

    Raises
    ------
    DownloadError
        The file is not there and cannot be fetched. The message says where to put it by hand.
    MissingDependencyError
        The extra ``fetch`` is needed and not installed.
    DatasetError
        The file does not hold such images.

    Warns
    -----
    PatientWarning
        Always: images of one child may stand in both train and val.

    Notes
    -----
    The address is taken from the publishers' package ``medmnist`` 3.0.2. It is not tried when
    skcxr is tested.

    References
    ----------
    .. [1] Yang J et al. "MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical
       image classification." Scientific Data 2023;10:41. https://zenodo.org/records/10519652

    Examples
    --------
    >>> from skcxr.datasets import fetch_pneumoniamnist
    >>> data = fetch_pneumoniamnist(split="train")  # doctest: +SKIP
    >>> data.data.shape  # doctest: +SKIP
    (4708, 28, 28)
    """
    path = _fetch("pneumoniamnist", size, data_home, download_if_missing, n_retries, delay)
    bunch = load(path, "pneumoniamnist", size, SPLITS if split is None else (split,))
    _warn(len(bunch.data))
    return bunch


@validate_params(_CONSTRAINTS, prefer_skip_nested_validation=True)
def fetch_chestmnist(
    *,
    size: int = 28,
    split: str | None = None,
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    n_retries: int = 3,
    delay: float = 1.0,
) -> Bunch:
    """Fetch ChestMNIST: 112,120 small frontal radiographs with 14 findings.

    The file comes from the publishers' record at Zenodo and is checked by their MD5 [1]_. Needs
    the extra ``fetch`` unless the file is there.

    Parameters
    ----------
    size : {28, 64, 128, 224}, default=28
        Height and width of the images. All images of 224 take 5.6 GB of memory.
    split : {"train", "val", "test"}, default=None
        The set that is loaded: 78,468, 11,219 and 22,433 images. None loads all of them, in this
        order.
    data_home : str or os.PathLike, default=None
        Folder of fetched data. None is that of the environment variable ``SKCXR_DATA``, else
        ``~/skcxr_data``. The file lies in its folder ``medmnist``.
    download_if_missing : bool, default=True
        Whether to fetch the file if it is not there; else that is an error.
    n_retries : int, default=3
        New attempts after a failed one.
    delay : float, default=1.0
        Seconds to wait before the first new attempt; each further one waits four times as long,
        a minute at most.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_images, size, size), dtype uint8
            The images.
        target : ndarray of shape (n_images, 14), dtype float64
            0 or 1 for each finding.
        target_names : list of str
            The findings, in the publishers' words and order.
        groups : ndarray of shape (n_images,), dtype str
            The publishers do not tell the patients, so each image is a patient of its own here.
        source : ndarray of shape (n_images,), dtype str
            ``"chestmnist"``.
        split : ndarray of shape (n_images,), dtype str
            ``"train"``, ``"val"`` or ``"test"``.
        skipped : list
            Empty; there for likeness with the loaders.
        frame : pandas.DataFrame of shape (n_images, 18)
            The columns index (the row in `data`), those of the findings, group, source and split.
        DESCR : str
            What it is, its licence and what to cite.

    Raises
    ------
    DownloadError
        The file is not there and cannot be fetched. The message says where to put it by hand.
    MissingDependencyError
        The extra ``fetch`` is needed and not installed.
    DatasetError
        The file does not hold such images.

    Warns
    -----
    PatientWarning
        Always: images of one patient may stand on both sides of a split.

    Notes
    -----
    The address is taken from the publishers' package ``medmnist`` 3.0.2. It is not tried when
    skcxr is tested. :func:`skcxr.datasets.load_nih_chestxray14` has the same images with their
    patients.

    References
    ----------
    .. [1] Yang J et al. "MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical
       image classification." Scientific Data 2023;10:41. https://zenodo.org/records/10519652

    Examples
    --------
    >>> from skcxr.datasets import fetch_chestmnist
    >>> data = fetch_chestmnist(size=64, split="val")  # doctest: +SKIP
    >>> data.data.shape, data.target.shape  # doctest: +SKIP
    ((11219, 64, 64), (11219, 14))
    """
    path = _fetch("chestmnist", size, data_home, download_if_missing, n_retries, delay)
    bunch = load(path, "chestmnist", size, SPLITS if split is None else (split,))
    _warn(len(bunch.data))
    return bunch


def remote(name: str, size: int) -> Remote:
    """Where a file of the collection is published."""
    file = f"{name}.npz" if size == 28 else f"{name}_{size}.npz"
    return Remote(
        name=file,
        url=f"{_RECORD}/files/{file}?download=1",
        page=_RECORD,
        limit=_N_IMAGES[name] * (size * size + 200) + (1 << 20),
        checksum=f"md5:{_MD5[name, size]}",
    )


def _fetch(
    name: str, size: int, data_home: Any, download_if_missing: bool, n_retries: int, delay: float
) -> str:
    return fetch_file(
        remote(name, size),
        os.path.join(get_data_home(data_home), "medmnist"),
        download_if_missing=download_if_missing,
        n_retries=n_retries,
        delay=delay,
    )


def _warn(n_images: int) -> None:
    warnings.warn(
        f"MedMNIST does not tell the patients of its {n_images} images; each is taken as a patient "
        "of its own, so images of one person may fall on both sides of a split",
        PatientWarning,
        stacklevel=4,  # past the function and the check of its parameters
    )


def load(path: str, name: str, size: int, splits: tuple[str, ...] = SPLITS) -> Bunch:
    """Read a file of the collection as a data set."""
    import pandas as pd

    images, labels, split = _read(path, size, len(FINDINGS) if name == "chestmnist" else 1, splits)
    numbers = [str(k) for of in splits for k in range(int(np.sum(split == of)))]
    groups = np.array(
        [f"{name}-{of}-{number}" for of, number in zip(split, numbers, strict=True)], dtype=str
    )
    findings = list(FINDINGS) if name == "chestmnist" else None
    target = labels.astype(np.float64) if findings else np.array(PNEUMONIA)[labels[:, 0]]
    source = np.full(len(images), name)
    series: dict[str, Any] = {"index": np.arange(len(images))}
    series.update(zip(findings, target.T, strict=True) if findings else [("target", target)])
    series.update(group=groups, source=source, split=split)
    frame = pd.DataFrame(series)
    about = describe(f"the file {path!r}", frame, len(frame), [], findings)
    return Bunch(
        data=images,
        target=target,
        target_names=findings or list(PNEUMONIA),
        groups=groups,
        source=source,
        split=split,
        skipped=[],
        frame=frame,
        DESCR=f"{about}\n\n{_ABOUT[name]}",
    )


def _read(
    path: str, size: int, n_columns: int, splits: tuple[str, ...]
) -> tuple[Array, Array, Array]:
    """Images, labels and the split of each, from arrays that are looked at before they are read."""
    try:
        with zipfile.ZipFile(path) as archive:
            shapes = {}
            for of in splits:
                n_images, *pixels = _shape(archive, f"{of}_images")
                labels = _shape(archive, f"{of}_labels")
                if tuple(pixels) != (size, size) or labels != (n_images, n_columns):
                    raise DatasetError(
                        f"{path!r} has {of}_images of shape {(n_images, *pixels)} and {of}_labels "
                        f"of shape {labels}; (n, {size}, {size}) and (n, {n_columns}) are expected"
                    )
                shapes[of] = n_images
            total = sum(shapes.values())
            if total == 0 or total * size * size > _MOST_BYTES:
                raise DatasetError(f"{path!r} has {total:,} images in {', '.join(splits)}")
            images = np.empty((total, size, size), dtype=np.uint8)
            targets = np.empty((total, n_columns), dtype=np.uint8)
            start = 0
            for of, n_images in shapes.items():
                stop = start + n_images
                _fill(archive, f"{of}_images", images[start:stop])
                _fill(archive, f"{of}_labels", targets[start:stop])
                start = stop
    except DatasetError:
        raise
    except Exception as error:  # of zipfile, zlib and numpy, on damaged files
        raise DatasetError(
            f"{path!r} is no file of MedMNIST that can be read ({type(error).__name__}: {error})"
        ) from error
    if targets.max() > 1:
        raise DatasetError(f"{path!r} has the label {targets.max()}; labels are 0 and 1")
    return images, targets, np.repeat(list(shapes), list(shapes.values()))


def _shape(archive: zipfile.ZipFile, key: str) -> tuple[int, ...]:
    """The shape of an array that has as many bytes as its head says."""
    with _opened(archive, key) as (file, shape):
        info = archive.getinfo(f"{key}.npy")
        if info.file_size - file.tell() != np.prod(shape, dtype=object):
            raise ValueError(f"{key} has not the bytes of its shape {shape}")
    return shape


class _opened:  # noqa: N801
    """An array in an archive, open behind its head."""

    def __init__(self, archive: zipfile.ZipFile, key: str) -> None:
        self.file = archive.open(f"{key}.npy")
        self.key = key

    def __enter__(self) -> tuple[Any, tuple[int, ...]]:
        version = np.lib.format.read_magic(self.file)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"{self.key} is written in version {version} of numpy's format")
        shape, fortran, dtype = readers[version](self.file)
        if dtype != np.uint8 or (fortran and len(shape) > 1):
            raise ValueError(
                f"{self.key} holds {dtype}, Fortran order {fortran}; uint8 is expected"
            )
        return self.file, shape

    def __exit__(self, *of_error: object) -> None:
        self.file.close()


def _fill(archive: zipfile.ZipFile, key: str, array: Array) -> None:
    with _opened(archive, key) as (file, _):
        into = memoryview(array).cast("B")  # type: ignore[arg-type]
        at = 0
        while at < len(into):
            n_read = file.readinto(into[at : at + (1 << 20)])
            if not n_read:
                raise EOFError(f"{key} is cut short")
            at += n_read
        file.read(1)  # the checksum is checked at the end
