"""Splits in which no patient stands on both sides."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import _num_samples

from skcxr._exceptions import InputError, PatientWarning
from skcxr._patients import as_paths, patients_from_names

__all__ = ["PatientKFold", "grouped_train_test_split"]

Array = np.ndarray[Any, Any]

_DEALS = 200  # of patients, of which the best is taken


class PatientKFold(StratifiedGroupKFold):
    """StratifiedGroupKFold that reads patients from file names where nobody passes groups.

    What has no way to be told the groups, such as the inner split of a meta-estimator without
    metadata routing, still keeps each patient on one side.

    Parameters
    ----------
    n_splits : int, default=5
        Folds into which patients are dealt, at least 2.
    n_used : int or None, default=None
        How many of the folds are tested in turn; None tests all. 1 gives a single split.
    shuffle : bool, default=False
        Whether patients are shuffled before.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling.

    Raises
    ------
    InputError
        `n_used` is not in 1 to `n_splits`.

    See Also
    --------
    sklearn.model_selection.StratifiedGroupKFold : Where groups are passed always.

    Notes
    -----
    The names of Kermany's and NIH's files are known (as in :func:`skcxr.load_cxr_folder`). Without
    `groups`, an image whose name tells nothing, or which is no file, is taken for a patient of its
    own, and one :class:`skcxr.PatientWarning` counts them.

    Examples
    --------
    >>> from skcxr.model_selection import PatientKFold
    >>> X = ["person1_virus_1.jpeg", "person1_virus_2.jpeg", "person2_virus_3.jpeg"]
    >>> X += ["IM-0001-0001.jpeg", "IM-0002-0001.jpeg", "IM-0002-0002.jpeg"]
    >>> for train, test in PatientKFold(2).split(X, [1, 1, 1, 0, 0, 0]):
    ...     print(train.tolist(), test.tolist())
    [0, 1, 3] [2, 4, 5]
    [2, 4, 5] [0, 1, 3]
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        n_used: int | None = None,
        shuffle: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(n_splits, shuffle=shuffle, random_state=random_state)
        if n_used is not None and not 1 <= n_used <= n_splits:
            raise InputError(f"n_used={n_used!r} is not in 1 to n_splits={n_splits}")
        self.n_used = n_used

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Count the splits.

        Parameters
        ----------
        X, y, groups : ignored
            Here for scikit-learn's sake.

        Returns
        -------
        int
            `n_used`, else `n_splits`.
        """
        return self.n_splits if self.n_used is None else self.n_used

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[tuple[Any, Any]]:
        """Go through the splits.

        Parameters
        ----------
        X : paths or array
            As :class:`skcxr.CXRClassifier` takes them.
        y : array-like of shape (n,)
            Classes, by which is stratified.
        groups : array-like of shape (n,), default=None
            Patient of each image; None reads them from the file names.

        Yields
        ------
        train, test : ndarray of int
            Indices of images.

        Raises
        ------
        InputError
            `y` is None.

        Warns
        -----
        PatientWarning
            Patients are unknown.
        """
        if y is None:
            raise InputError("PatientKFold stratifies by y, and y is None")
        if groups is None:
            groups = _patients(X, len(y))
        yield from islice(super().split(np.zeros(len(y)), y, groups), self.get_n_splits())


@validate_params(
    {
        "X": "no_validation",
        "y": "no_validation",
        "groups": "no_validation",
        "test_size": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def grouped_train_test_split(
    X: Any,
    y: Any,
    *arrays: Any,
    groups: Any = None,
    test_size: float = 0.25,
    random_state: int | np.random.RandomState | None = None,
) -> list[Any]:
    """Split into train and test by patient, with the classes in about the same shares.

    Patients are dealt at random many times; the deal is taken whose test set is nearest to the
    wanted share of each class and of the whole.

    Parameters
    ----------
    X : paths or array of n images
        As :class:`skcxr.CXRClassifier` takes them.
    y : array-like of shape (n,) or (n, n_findings)
        Classes or findings.
    *arrays : sequences of length n
        What else is to be split, such as the groups themselves.
    groups : array-like of shape (n,), default=None
        Patient of each image; None reads them from the file names.
    test_size : float, default=0.25
        Wanted share of the images, in (0, 1).
    random_state : int, RandomState instance or None, default=None
        Seed of the deals.

    Returns
    -------
    list
        X_train, X_test, y_train, y_test, then each of `arrays`, split likewise.

    Raises
    ------
    InputError
        The lengths differ, or a class has images of one patient only, who cannot stand on both
        sides.

    Warns
    -----
    PatientWarning
        `groups` is None.

    Examples
    --------
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.model_selection import grouped_train_test_split
    >>> drawn = make_cxr_phantoms(40, n_classes=2, image_size=32, random_state=0)
    >>> X_train, X_test, y_train, y_test, p_train, p_test = grouped_train_test_split(
    ...     drawn.data, drawn.target, drawn.groups, groups=drawn.groups, random_state=0
    ... )
    >>> len(X_train), len(X_test), set(p_train) & set(p_test)
    (31, 9, set())
    """
    n = _num_samples(y)
    for name, values in (("X", X), *((f"arrays[{k}]", array) for k, array in enumerate(arrays))):
        if _num_samples(values) != n:
            raise InputError(f"{name} holds {_num_samples(values)} entries but y has {n}")
    people, patients = np.unique(
        patients_of(X, n, groups, "grouped_train_test_split").astype(str), return_inverse=True
    )
    sums = np.stack([np.bincount(patients, column, len(people)) for column in _shares_of(y)])
    rare = np.flatnonzero((sums > 0).sum(axis=1) == 1)
    if len(rare):
        raise InputError(
            f"{'the images of a class are' if len(people) > 1 else 'all images are'} of one "
            f"patient, {people[int(sums[rare[0]].argmax())]!r}, who cannot stand on both sides of "
            "a split"
        )
    rng = check_random_state(random_state)
    total, best, test = sums.sum(axis=1), np.inf, np.array([], dtype=np.intp)
    for _ in range(_DEALS):
        order = rng.permutation(len(people))
        taken = np.cumsum(sums[:, order], axis=1) / total[:, None]
        off = np.abs(taken - test_size).mean(axis=0)
        both = ((taken > 0) & (taken < 1)).all(axis=0)
        off[~both] += 1  # a side without a class is taken only where there is no other
        k = int(off.argmin())
        if off[k] < best:
            best, test = float(off[k]), order[: k + 1]
    if best >= 1:
        raise InputError("no split by patient leaves each class on both sides; give more patients")
    there = np.isin(patients, test)
    sides = np.flatnonzero(~there), np.flatnonzero(there)
    return [_safe_indexing(array, side) for array in (X, y, *arrays) for side in sides]


def _shares_of(y: Any) -> list[Array]:
    """What is to be shared out: images, and those of each class or finding."""
    labels = np.asarray(y)
    if labels.ndim == 2:
        columns = [np.nan_to_num(labels[:, k].astype(float)) for k in range(labels.shape[1])]
    else:
        columns = [(labels == label).astype(float) for label in np.unique(labels)]
    return [np.ones(len(labels)), *(column for column in columns if column.any())]


def patients_of(X: Any, n_images: int, groups: Any, caller: str) -> Array:
    """The patient of each image: as given, else from file names, with a warning. Internal.

    Raises
    ------
    InputError
        `groups` has another length, or lacks a patient.
    """
    if groups is not None:
        patients = np.asarray(groups)
        if patients.shape != (n_images,):
            raise InputError(f"groups has shape {patients.shape} for {n_images} images")
        missing = [value is None or value != value for value in patients.tolist()]
        if any(missing):
            raise InputError(f"groups holds no patient at place {missing.index(True)}")
        return patients
    patients, n_unknown = _read_patients(X, n_images)
    if n_unknown == n_images:
        said = "and file names tell none, so each image is taken for a patient of its own"
    else:
        said = f"so the patients of {n_images - n_unknown} images were read from their file names"
        if n_unknown:
            said += f", and each of the other {n_unknown} is taken for a patient of its own"
    warnings.warn(
        f"{caller}: groups is not given, {said}. Pass groups=patients", PatientWarning, stacklevel=4
    )
    return patients


def _read_patients(X: Any, n_images: int) -> tuple[Array, int]:
    paths = as_paths(X)
    return (np.arange(n_images), n_images) if paths is None else patients_from_names(paths)


def _patients(X: Any, n_images: int) -> Array:
    patients, n_unknown = _read_patients(X, n_images)
    if n_unknown:
        warnings.warn(
            f"PatientKFold: the patient of {n_unknown} of {n_images} images is unknown, so each "
            "of these is taken for a patient of its own; images of one patient on both sides make "
            "scores too good. Pass groups=patients where that is possible",
            PatientWarning,
            stacklevel=4,
        )
    return patients
