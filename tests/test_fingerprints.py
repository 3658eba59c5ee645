"""Copies of a picture are found, and pictures of other chests are not taken for copies."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import ndimage

from skcxr import MissingDependencyError, make_cxr_phantoms
from skcxr._fingerprints import SIDE, find_copies, picture_hashes, thumbnail
from skcxr.images import resize


@pytest.fixture(scope="module")
def films():
    """One film of each of eight patients."""
    return make_cxr_phantoms(8, n_patients=8, image_size=160, random_state=0).data


def pictures(images):
    return np.array([thumbnail(np.ascontiguousarray(image)) for image in images])


CHANGES = {
    "the same": lambda film: film,
    "resized": lambda film: resize(film, (70, 90)),
    "darker": lambda film: np.clip(film.astype(int) - 25, 0, 255).astype(np.uint8),
    "less contrast": lambda film: (film * 0.6 + 40).astype(np.uint8),
    "noisy": lambda film: np.clip(
        film + np.random.default_rng(0).normal(0, 2, film.shape), 0, 255
    ).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else(films, change):
    copies = find_copies(pictures(films), pictures([CHANGES[change](film) for film in films]))
    assert {(copy.first, copy.second) for copy in copies} == {(i, i) for i in range(8)}
    assert not any(copy.mirrored for copy in copies)


def test_a_mirrored_copy_is_said_to_be_mirrored(films):
    (copy,) = find_copies(pictures(films), pictures([films[3][:, ::-1]]))
    assert (copy.first, copy.second, copy.mirrored) == (3, 0, True)


def test_a_copy_that_was_cropped_a_little_is_found(films):
    (copy,) = find_copies(pictures(films), pictures([films[2][4:-2, 3:-5]]))
    assert (copy.first, copy.second) == (2, 0)


def test_other_films_of_one_patient_are_no_copies():
    data = make_cxr_phantoms(24, n_patients=4, image_size=128, random_state=1).data
    assert find_copies(pictures(data)) == []


def test_among_themselves_each_pair_comes_once(films):
    copies = find_copies(pictures([*films, films[5], films[5]]))
    assert sorted((copy.first, copy.second) for copy in copies) == [(5, 8), (5, 9), (8, 9)]


def test_empty_pictures_are_no_copies_of_anything(films):
    blank = np.zeros((2, SIDE, SIDE), dtype=np.uint8)
    assert find_copies(np.concatenate([pictures(films), blank])) == []


def test_hashes_change_little_where_a_picture_changes_little(films):
    given = pictures(films)
    smooth = np.array([ndimage.gaussian_filter(picture, 0.6) for picture in given])
    first, second = picture_hashes(given), picture_hashes(smooth)
    assert set(np.unique(first)) == {-1, 1}
    assert ((first != second).sum(1) < 40).all()
    assert (first[0] != first[1:]).sum(1).min() > 40


def test_without_imagehash_the_error_names_the_extra(films, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(MissingDependencyError, match=r"skcxr\[audit\]"):
        find_copies(pictures(films))
