"""Any X -> batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

from skcxr import InputError
from skcxr.batches import BatchLoader, ImageDataset, as_images, as_paths, to_gray
from skcxr.images import read_image


def test_numbers_are_no_paths():
    for X in (np.zeros(3), [[1, 2]], np.zeros((2, 1)), np.zeros((2, 3, 3)), np.array([["a", "b"]])):
        assert as_paths(X) is None


def test_an_array_that_is_no_image_is_left_to_scikit_learn():
    assert as_images(np.zeros((2, 3))) is None
    assert as_images([[1, 2], [3, 4]]) is None


@pytest.mark.parametrize("axis", [1, 3])
def test_channels_of_one_and_three(axis):
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 255, (4, 6, 5)).astype(np.uint8)
    assert_array_equal(as_images(np.expand_dims(gray, axis)), gray)
    rgb = as_images(np.repeat(np.expand_dims(gray, axis), 3, axis))
    assert rgb.shape == (4, 6, 5, 3)
    assert_array_equal(to_gray(rgb), gray)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_gray_of_equal_channels_is_exactly_their_value(dtype):
    values = np.random.default_rng(0).random(500)
    values = (values * 60_000).astype(dtype) if dtype != np.uint8 else (values * 255).astype(dtype)
    gray = to_gray(np.repeat(values[:, None], 3, axis=1))
    assert gray.dtype == dtype
    assert_array_equal(gray, values)


def test_gray_is_pillows():
    rgb = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    assert_array_equal(to_gray(rgb), np.asarray(Image.fromarray(rgb).convert("L")))


def test_pixels_are_those_of_read_image(files):
    pixels, _ = ImageDataset(files, (11, 13))[2]
    assert pixels.shape == (1, 1, 11, 13)
    assert_array_equal(pixels[0, 0].numpy(), read_image(files[2], size=(11, 13)))


def test_depths_may_differ_between_files(tmp_path):
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray((deep >> 8).astype(np.uint8)).save(tmp_path / "flat.png")
    dataset = ImageDataset([str(tmp_path / "deep.png"), str(tmp_path / "flat.png")], (8, 8))
    pixels, _ = dataset.__getitems__([0, 1])
    assert_array_equal(pixels[0, 0].numpy(), deep / np.float32(65535))
    assert_array_equal(pixels[1, 0].numpy(), (deep >> 8) / np.float32(255))


def test_held_images_stay_within_the_limit_in_their_own_depth(files):
    dataset = ImageDataset(files, (10, 10), ram_limit=550)
    for _ in range(2):
        for batch in BatchLoader(dataset, 8):
            assert batch[0].dtype == torch.float32
    assert sum(image.nbytes for image in dataset._held.values()) == 500
    assert {image.dtype for image in dataset._held.values()} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("size", [1, 2, 5, 8, 23, 24, 100])
def test_batches_hold_every_image_once_and_none_is_alone(size, files):
    loader = BatchLoader(ImageDataset(files, (4, 4), np.arange(24)), size, shuffle_seed=0)
    batches = [labels[0] for _, labels in loader]
    assert_array_equal(np.sort(torch.cat(batches)), np.arange(24))
    assert size == 1 or min(map(len, batches)) > 1
    assert len(batches) == len(loader)


def test_order_is_new_in_every_epoch_and_the_seed_s():
    dataset = ImageDataset(np.zeros((50, 2, 2)), (2, 2), np.arange(50))
    loaders = [BatchLoader(dataset, 50, shuffle_seed=seed) for seed in (0, 0, 1)]
    first, same, other = (
        [next(iter(loader))[1][0].tolist() for _ in range(2)] for loader in loaders
    )
    assert first == same
    assert first[0] != first[1]
    assert first != other


def test_a_bad_file_is_the_same_error_from_a_worker(tmp_path):
    from skcxr import ImageReadError

    dataset = ImageDataset([str(tmp_path / "no.png")], (4, 4))
    for workers in (0, 1):
        with pytest.raises(ImageReadError, match="no") as caught:
            list(BatchLoader(dataset, 1, num_workers=workers))
        assert caught.value.path == str(tmp_path / "no.png")


def test_bytes_are_no_path():
    with pytest.raises(InputError, match=r"X\[1\] is b'b'"):
        as_paths(["a", b"b"])
