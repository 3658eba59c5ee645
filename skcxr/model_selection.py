"""Splits in which no patient stands on both sides."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import _num_samples

from skcxr._exceptions import InputError, PatientWarning
from skcxr._patients import as_paths, patients_from_names
from skcxr._seeds import draw_seed
from skcxr.metrics._checks import is_missing

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

    No patient stands on both sides. Patients are dealt at random, class by class, many times; the
    deal is taken whose test set is nearest to the wanted share of each class and of the whole.

    Parameters
    ----------
    X : paths or array of n images
        As :class:`skcxr.CXRClassifier` takes them.
    y : array-like of shape (n,) or (n, n_findings)
        Classes, or findings of 0, 1 and NaN.
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
        X_train, X_test, y_train, y_test, then each of `arrays`, split likewise. Lists stay lists
        and tables keep their index; images stay in their order.

    Raises
    ------
    InputError
        The lengths differ, y has missing classes, a class has images of one patient only, or no
        deal leaves each class on both sides.

    Warns
    -----
    PatientWarning
        `groups` is None.

    See Also
    --------
    sklearn.model_selection.train_test_split : Splits by image.
    sklearn.model_selection.StratifiedGroupKFold : Several splits.

    Examples
    --------
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.model_selection import grouped_train_test_split
    >>> drawn = make_cxr_phantoms(40, n_classes=2, image_size=32, random_state=0)
    >>> X_train, X_test, y_train, y_test, p_train, p_test = grouped_train_test_split(
    ...     drawn.data, drawn.target, drawn.groups, groups=drawn.groups, random_state=0
    ... )
    >>> len(X_train), len(X_test), set(p_train) & set(p_test)
    (29, 11, set())
    """
    n = _num_samples(y)
    for name, values in (("X", X), *((f"arrays[{k}]", array) for k, array in enumerate(arrays))):
        if _num_samples(values) != n:
            raise InputError(f"{name} holds {_num_samples(values)} entries but y has {n}")
    columns = _columns_of(y)
    groups = patients_of(X, n, groups, "grouped_train_test_split")
    people, patients = np.unique(groups, return_inverse=True)
    # images of each class and patient, shape (n_classes, n_patients)
    sums = np.stack([np.bincount(patients, column) for column in columns.values()])
    for label, of_class in zip(columns, sums, strict=True):
        owners = np.flatnonzero(of_class)
        if len(owners) == 1:
            raise InputError(
                f"all images of {label!r} are of the one patient {people.tolist()[owners[0]]!r}, "
                "who cannot stand on both sides of a split; leave that class out or add patients"
            )
    rng = np.random.default_rng(draw_seed(random_state))
    test = _best_deal(sums, np.bincount(patients), test_size, rng)
    if test is None:
        raise InputError(
            f"none of {_DEALS} deals of {len(people)} patients leaves every class on both sides; "
            "some patients have images of several classes. Add patients, or leave a class out"
        )
    there = test[patients]
    sides = np.flatnonzero(~there), np.flatnonzero(there)
    return [_safe_indexing(array, side) for array in (X, y, *arrays) for side in sides]


def _columns_of(y: Any) -> dict[Any, Array]:
    """What is shared out: whether an image has each class, or each finding that occurs."""
    try:
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim == 2:
            names = list(y.columns) if hasattr(y, "columns") else range(labels.shape[1])
            columns = dict(zip(names, np.nan_to_num(labels.astype(np.float64)).T, strict=True))
            return {name: column for name, column in columns.items() if column.any()} or {
                "no finding": np.ones(len(labels))
            }
        _check_none_missing("y", labels)
        classes = np.unique(labels)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"y holds neither classes of one type nor findings: {error}") from error
    return {label: (labels == label).astype(np.float64) for label in classes.tolist()}


def _best_deal(
    sums: Array, n_images: Array, test_size: float, rng: np.random.Generator
) -> Array | None:
    """Which patients are tested, shape (n_patients,); None where a class stays on one side.

    A patient counts to the rarest class that he has; of each, a share of the images is dealt.
    """
    rarest_first = np.argsort((sums > 0).sum(axis=1), kind="stable")
    has = (sums > 0)[rarest_first]
    stratum = np.where(has.any(axis=0), has.argmax(axis=0), len(sums))
    members = [np.flatnonzero(stratum == k) for k in np.unique(stratum)]
    shares = np.vstack([sums / sums.sum(axis=1, keepdims=True), n_images / n_images.sum()])
    best, chosen = np.inf, None
    for _ in range(_DEALS):
        test = np.zeros(len(n_images), bool)
        for own in members:
            order = rng.permutation(own)
            dealt = np.append(0, np.cumsum(n_images[order]))
            # by chance more or less: what is left over evens out between the classes
            wanted = test_size * dealt[-1] + rng.uniform(-0.5, 0.5) * n_images[own].max()
            n_test = int(np.abs(dealt - wanted).argmin())
            if len(own) > 1:
                n_test = min(max(n_test, 1), len(own) - 1)
            test[order[:n_test]] = True
        reached = shares[:, test].sum(axis=1)
        within = (sums[:, test] > 0).any(axis=1) & (sums[:, ~test] > 0).any(axis=1)
        *of_classes, of_all = np.abs(reached - test_size)
        off = float(np.mean(of_classes) + of_all)
        if within.all() and test.any() and not test.all() and off < best:
            best, chosen = off, test
    return chosen


def patients_of(X: Any, n_images: int, groups: Any, caller: str) -> Array:
    """The patient of each image: as given, else from file names, with a warning. Internal.

    Raises
    ------
    InputError
        `groups` has another length, or lacks a patient.
    """
    if groups is not None:
        patients = np.asarray(groups)
        if patients.ndim == 2 and patients.shape[1] == 1:
            patients = patients[:, 0]
        if patients.shape != (n_images,):
            raise InputError(
                f"groups has shape {patients.shape}, but there are {n_images} images, of one "
                "patient each"
            )
        _check_none_missing("groups", patients)
        return patients.astype(str) if patients.dtype == object else patients
    patients, n_unknown = read_patients(X, n_images)
    if n_unknown:
        said = (
            f"groups is not given, and {_unknown(n_unknown, n_images)}; where patients have "
            "several images, scores and intervals look better than they are. Pass groups=patients"
        )
    else:
        said = (
            f"groups is not given; the patients of {n_images} images were read from the file "
            "names. Pass groups=patients where these are known better"
        )
    warnings.warn(f"{caller}: {said}", PatientWarning, stacklevel=4)
    return patients


def _check_none_missing(name: str, values: Array) -> None:
    if values.dtype.kind in "fOMm":
        for index, value in enumerate(values.tolist()):
            if is_missing(value):
                raise InputError(f"{name}[{index}] is {value}: it must not be missing")


def read_patients(X: Any, n_images: int) -> tuple[Array, int]:
    paths = as_paths(X)
    return (np.arange(n_images), n_images) if paths is None else patients_from_names(paths)


def _unknown(n_unknown: int, n_images: int) -> str:
    return (
        f"the patient of {n_unknown} of {n_images} images is unknown, so each of these is taken "
        "for a patient of its own"
    )


def _patients(X: Any, n_images: int) -> Array:
    patients, n_unknown = read_patients(X, n_images)
    if n_unknown:
        warnings.warn(
            f"PatientKFold: {_unknown(n_unknown, n_images)}; images of one patient on both sides "
            "make scores too good. Pass groups=patients where that is possible",
            PatientWarning,
            stacklevel=4,
        )
    return patients
