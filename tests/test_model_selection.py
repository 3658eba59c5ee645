"""Splits by patient without being told the patients."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score

from skcxr import InputError, PatientWarning
from skcxr.model_selection import PatientKFold

PATHS = [f"person{k // 3}_virus_{k}.jpeg" for k in range(30)]
PATHS += [f"IM-{k // 2:04}-{k}.jpeg" for k in range(30)]
Y = np.repeat([1, 0], 30)
PATIENTS = np.array([path.rpartition("_" if path[0] == "p" else "-")[0] for path in PATHS])


def test_patients_of_names_are_the_groups_of_scikit_learn():
    ours = PatientKFold(4, shuffle=True, random_state=0).split(PATHS, Y)
    theirs = StratifiedGroupKFold(4, shuffle=True, random_state=0).split(PATHS, Y, PATIENTS)
    for (train, test), (their_train, their_test) in zip(ours, theirs, strict=True):
        assert_array_equal(train, their_train)
        assert_array_equal(test, their_test)
        assert not set(PATIENTS[train]) & set(PATIENTS[test])


def test_groups_that_are_passed_count():
    groups = np.arange(60) // 10
    for train, test in PatientKFold(3).split(PATHS, Y, groups):
        assert not set(groups[train]) & set(groups[test])


def test_fewer_folds_than_there_are():
    splitter = PatientKFold(4, n_used=1, shuffle=True, random_state=0)
    assert splitter.get_n_splits() == 1
    [(train, test)] = splitter.split(PATHS, Y)
    first, *_ = PatientKFold(4, shuffle=True, random_state=0).split(PATHS, Y)
    assert_array_equal(test, first[1])
    assert len(train) + len(test) == 60
    assert "n_used=1" in repr(splitter)
    for n_used in (0, 5):
        with pytest.raises(InputError, match=f"n_used={n_used}"):
            PatientKFold(4, n_used=n_used)


def test_y_is_needed():
    with pytest.raises(InputError, match="y is None"):
        list(PatientKFold(3).split(PATHS, None))


def test_unknown_patients_are_told_and_each_its_own():
    rows = np.random.default_rng(0).random((60, 3))
    with pytest.warns(PatientWarning, match="60 of 60 images"):
        scores = cross_val_score(LogisticRegression(), rows, Y, cv=PatientKFold(3))
    assert scores.shape == (3,)
    with pytest.warns(PatientWarning, match="1 of 60 images"):
        list(PatientKFold(3).split([*PATHS[:-1], "film.png"], Y))


def test_it_is_cloned_by_what_clones_estimators():
    from sklearn.model_selection import GridSearchCV

    search = clone(GridSearchCV(LogisticRegression(), {}, cv=PatientKFold(3, n_used=2)))
    assert search.cv.n_used == 2
