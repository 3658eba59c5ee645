"""The split that early stopping watches."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skcxr import PatientWarning
from skcxr._targets import early_stopping_split, weigh_classes


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.25, 0.3, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_whole_patients_the_asked_share_and_every_class(fraction, seed):
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, 120, 400)
    target = patients % 3
    train, valid = early_stopping_split(target, patients, None, fraction, seed)
    assert_array_equal(np.sort(np.r_[train, valid]), np.arange(400))
    assert not set(patients[train]) & set(patients[valid])
    assert len(valid) == pytest.approx(400 * fraction, rel=0.4)
    shares = np.bincount(target[valid]) / np.bincount(target)
    assert_array_equal(shares > 0, True)


def test_names_that_carry_patients_need_no_groups():
    paths = [f"x/person{k // 2}_virus_{k}.jpeg" for k in range(40)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, valid = early_stopping_split(np.arange(40) % 2, None, paths, 0.2, 0)
    assert not {k // 2 for k in train} & {k // 2 for k in valid}
    with pytest.warns(PatientWarning, match="1 of 41"):
        early_stopping_split(np.arange(41) % 2, None, [*paths, "y.png"], 0.2, 0)


def test_balanced_classes_weigh_the_same():
    target = np.array([0, 0, 0, 1, 2, 2])
    weights = np.array([1.0, 2, 3, 1, 4, 1])
    balanced = weigh_classes("balanced", np.arange(3), target, weights)
    np.testing.assert_allclose(np.bincount(target, balanced), 2)
    np.testing.assert_allclose(balanced.mean(), 1)
