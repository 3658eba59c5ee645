"""Splits in which no patient stands on both sides."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from skcxr._exceptions import InputError, PatientWarning
from skcxr._patients import as_paths, patients_from_names

__all__ = ["PatientKFold"]


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


def _patients(X: Any, n_images: int) -> np.ndarray[Any, Any]:
    paths = as_paths(X)
    if paths is None:
        patients, n_unknown = np.arange(n_images), n_images
    else:
        patients, n_unknown = patients_from_names(paths)
    if n_unknown:
        warnings.warn(
            f"PatientKFold: the patient of {n_unknown} of {n_images} images is unknown, so each "
            "of these is taken for a patient of its own; images of one patient on both sides make "
            "scores too good. Pass groups=patients where that is possible",
            PatientWarning,
            stacklevel=4,
        )
    return patients
