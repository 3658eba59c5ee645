"""Splits by patient without being told the patients."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score

from skcxr import InputError, PatientWarning
from skcxr.model_selection import PatientKFold, grouped_train_test_split, patients_of

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


def draw_patients(n_patients: int, seed: int, mixed: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Classes of images, from frequent to rare, and their patients, of whom some have several."""
    rng = np.random.default_rng(seed)
    of_patient = np.r_[
        np.repeat(np.arange(4), 3), rng.choice(4, n_patients, p=[0.5, 0.3, 0.15, 0.05])
    ]
    groups = np.repeat(np.arange(len(of_patient)), rng.integers(1, 7, len(of_patient)))
    y = of_patient[groups]
    changed = rng.random(len(y)) < mixed
    y[changed] = rng.integers(4, size=changed.sum())
    order = rng.permutation(len(y))
    return np.array(["a", "b", "c", "d"])[y[order]], groups[order]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("test_size", [0.1, 0.25, 0.5])
def test_a_split_keeps_patients_together_and_classes_in_shares(seed, test_size):
    y, groups = draw_patients(150, seed)
    rows = np.arange(len(y))
    train, test, y_train, y_test, g_train, g_test = grouped_train_test_split(
        rows, y, groups, groups=groups, test_size=test_size, random_state=seed
    )
    assert not set(g_train) & set(g_test)
    assert_array_equal(np.sort(np.r_[train, test]), rows)
    assert_array_equal(y_test, y[test])
    assert_array_equal(g_train, groups[train])
    assert abs(len(test) / len(y) - test_size) < 0.02
    for label in "abcd":
        share = (y_test == label).sum() / (y == label).sum()
        assert abs(share - test_size) < 0.1, label
        assert (y_train == label).any()
        assert (y_test == label).any()


def test_a_split_is_nearer_to_the_shares_than_one_by_chance():
    ours, by_chance = [], []
    for seed in range(10):
        y, groups = draw_patients(60, seed)
        people = np.unique(groups)
        for offs, test in (
            (ours, grouped_train_test_split(y, y, groups=groups, random_state=seed)[1]),
            (by_chance, y[np.isin(groups, np.random.default_rng(seed).choice(
                people, len(people) // 4, replace=False))]),
        ):  # fmt: skip
            offs.append(max(abs((test == k).sum() / (y == k).sum() - 0.25) for k in "abcd"))
    assert np.mean(ours) < 0.5 * np.mean(by_chance)


def test_a_seed_gives_the_same_split():
    y, groups = draw_patients(40, 0)
    first, again, other = (
        grouped_train_test_split(np.arange(len(y)), y, groups=groups, random_state=seed)[1]
        for seed in (0, np.random.RandomState(0), 1)
    )
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    grouped_train_test_split(np.arange(len(y)), y, groups=groups)  # moves no global generator


def test_containers_stay_what_they_are():
    frame = pd.DataFrame({"age": range(60)}, index=[f"row{k}" for k in range(60)])
    series = pd.Series(Y, index=frame.index)
    images = np.zeros((60, 4, 4))
    X_train, X_test, y_train, y_test, frame_train, frame_test, _, images_test = (
        grouped_train_test_split(PATHS, series, frame, images, groups=PATIENTS, random_state=0)
    )
    assert isinstance(X_train, list)
    assert isinstance(y_test, pd.Series)
    at = [PATHS.index(path) for path in X_test]
    assert at == sorted(at)
    assert frame_test.index.tolist() == y_test.index.tolist() == [f"row{k}" for k in at]
    assert len(frame_train) == len(X_train) == len(y_train)
    assert images_test.shape == (len(X_test), 4, 4)


def test_findings_are_split_in_shares():
    rng = np.random.default_rng(0)
    groups = np.arange(300) // 2
    y = (rng.random((300, 3)) < [0.4, 0.2, 0.05]).astype(float)
    y[rng.random((300, 3)) < 0.1] = np.nan
    _, _, y_train, y_test = grouped_train_test_split(
        np.arange(300), pd.DataFrame(y, columns=list("abc")), groups=groups, random_state=0
    )
    shares = (y_test == 1).sum() / np.nansum(y, axis=0)
    assert (abs(shares - 0.25) < 0.1).all()
    assert (y_train == 1).any().all()


def test_patients_are_read_from_names_and_that_is_said():
    with pytest.warns(PatientWarning, match="groups is not given; the patients of 60 images were"):
        by_name = grouped_train_test_split(PATHS, Y, random_state=0)
    told = grouped_train_test_split(PATHS, Y, groups=PATIENTS, random_state=0)
    names_told, names_read = ({PATIENTS[PATHS.index(p)] for p in s[1]} for s in (told, by_name))
    assert not names_read & {PATIENTS[PATHS.index(p)] for p in by_name[0]}
    assert names_told == names_read
    with pytest.warns(PatientWarning, match="patient of 60 of 60 images is unknown") as caught:
        grouped_train_test_split(np.zeros((60, 3)), Y, random_state=0)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(PatientWarning, match="audit: .* patient of 1 of 60 images is unknown"):
        patients = patients_of([*PATHS[:-1], "film.png"], 60, None, "audit")
    assert len(set(patients)) == len(set(PATIENTS)) + 1


def test_groups_that_are_given_say_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_array_equal(patients_of(PATHS, 60, PATIENTS, "audit"), PATIENTS)
        assert_array_equal(patients_of(None, 2, pd.Series(["a", "b"]), "audit"), ["a", "b"])


@pytest.mark.parametrize(
    ("y", "options", "match"),
    [
        ([0] * 50 + [1] * 10, {"groups": [0, 1] * 25 + [9] * 10}, "all images of 1 are of the one "
         "patient 9"),
        ([0] * 60, {"groups": ["p"] * 60}, "all images of 0 are of the one patient 'p'"),
        (Y[:50], {"groups": PATIENTS}, "X holds 60 entries but y has 50"),
        (Y, {"groups": PATIENTS[:9]}, r"groups has shape \(9,\), but there are 60 images"),
        (Y, {"groups": [None, *PATIENTS[1:]]}, r"groups\[0\] is None"),
        ([None, *Y[1:]], {"groups": PATIENTS}, r"y\[0\] is None"),
        ([np.nan, *Y[1:]], {"groups": PATIENTS}, r"y\[0\] is nan"),
        (np.array(["a", 1] * 30, dtype=object), {"groups": PATIENTS}, "classes of one type"),
        # two patients have class 1, and they are the only ones of class 0 and of class 2
        ([0, 1, 0, 1, 2, 2] * 10, {"groups": [0, 0, 1, 1, 0, 0] * 10}, "one patient 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_said(y, options, match):
    with pytest.raises(InputError, match=match):
        grouped_train_test_split(PATHS, y, random_state=0, **options)
    with pytest.raises(InputError, match=r"arrays\[1\] holds 3 entries but y has 60"):
        grouped_train_test_split(PATHS, Y, Y, [1, 2, 3], groups=PATIENTS)


def test_patients_with_several_classes_are_split_where_it_can_be():
    # whoever of the three is alone on a side lacks one of the classes there
    y, groups = np.array([0, 1, 0, 2, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    with pytest.raises(InputError, match="none of 200 deals of 3 patients"):
        grouped_train_test_split(y, y, groups=groups, random_state=0)
    more_y, more_groups = np.r_[y, 0, 1, 2], np.r_[groups, 3, 3, 3]
    for seed in range(5):  # the fourth has all classes: it alone can be tested, or all the others
        _, _, y_train, y_test, _, tested = grouped_train_test_split(
            more_y, more_y, more_groups, groups=more_groups, random_state=seed
        )
        assert set(y_train) == set(y_test) == {0, 1, 2}
        assert set(tested) == {3}


@pytest.mark.parametrize("test_size", [0, 1, 1.5, "x"])
def test_the_size_is_a_share(test_size):
    with pytest.raises(ValueError, match="test_size"):
        grouped_train_test_split(PATHS, Y, groups=PATIENTS, test_size=test_size)
