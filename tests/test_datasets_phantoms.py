"""make_cxr_phantoms: what is drawn, who gets which image, what is refused."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.utils._param_validation import InvalidParameterError

from skcxr._exceptions import DatasetError
from skcxr._patients import patient_from_name
from skcxr.datasets import _phantoms as phantoms
from skcxr.datasets import load_cxr_folder, make_cxr_phantoms
from skcxr.datasets._anatomy import attenuation, draw_patient, draw_view

ILL = phantoms.CLASSES[1:]


def twins(finding, seed, size=96):
    """One patient with a finding and without: what the finding adds, the healthy film, lungs."""
    patient = draw_patient(np.random.default_rng([seed, 0]))
    view = draw_view(np.random.default_rng([seed, 1]))
    ill, _ = attenuation(patient, view, size, finding)
    healthy, lungs = attenuation(patient, view, size)
    return ill - healthy, healthy, lungs


@pytest.fixture(scope="module")
def bunch():
    return make_cxr_phantoms(14, n_patients=6, image_size=64, random_state=0)


# ---------------------------------------------------------------------------- the bunch


def test_keys_shapes_and_types(bunch):
    assert set(bunch) == {
        "data", "target", "target_names", "groups", "source", "split", "skipped", "frame", "DESCR",
    }  # fmt: skip
    assert bunch.data.shape == (14, 64, 64)
    assert bunch.data.dtype == np.uint8
    assert bunch.target_names == np.unique(bunch.target).tolist() == sorted(phantoms.CLASSES)
    for key in ("target", "groups", "source", "split"):
        assert bunch[key].shape == (14,)
        assert bunch[key].dtype.kind == "U"
    assert set(bunch.source) == {"phantom"}
    assert set(bunch.split) == {""}
    assert bunch.skipped == []
    assert list(bunch.frame.columns) == ["index", "target", "group", "source", "split"]
    assert bunch.frame["group"].tolist() == bunch.groups.tolist()
    assert bunch.frame["index"].tolist() == list(range(14))
    assert "14 synthetic" in bunch.DESCR
    assert "no result on them is evidence about patients" in bunch.DESCR


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_the_first_classes_are_drawn(n_classes):
    bunch = make_cxr_phantoms(5, n_classes=n_classes, image_size=32, random_state=0)
    assert bunch.target_names == sorted(phantoms.CLASSES[:n_classes])
    assert bunch.target_names == np.unique(bunch.target).tolist()


@pytest.mark.parametrize(
    ("n_samples", "n_classes", "n_patients"), [(103, 4, 34), (10, 3, 10), (50, 2, 7), (9, 4, 4)]
)
def test_images_are_dealt_evenly(n_samples, n_classes, n_patients):
    exposures = phantoms._deal(n_samples, n_classes, n_patients)
    assert len(set(exposures)) == len(exposures) == n_samples
    assert {exposure.patient for exposure in exposures} == set(range(n_patients))
    of_classes = np.bincount([exposure.label for exposure in exposures])
    assert len(of_classes) == n_classes
    assert np.ptp(of_classes) <= 1
    for label in range(n_classes):
        patients = [exposure.patient for exposure in exposures if exposure.label == label]
        assert np.ptp(np.unique(patients, return_counts=True)[1]) <= 1
    labels = {}
    assert all(labels.setdefault(e.patient, e.label) == e.label for e in exposures)


@pytest.mark.parametrize(("n_samples", "n_patients"), [(20, 7), (5, 4)])
def test_patients_by_default_are_a_third(n_samples, n_patients):
    bunch = make_cxr_phantoms(n_samples, image_size=32, random_state=0)
    assert len(set(bunch.groups)) == n_patients


def test_images_of_a_patient_differ(bunch):
    assert len({image.tobytes() for image in bunch.data}) == 14


# ---------------------------------------------------------------------------- randomness


def test_a_seed_determines_the_bytes(bunch):
    before = np.random.get_state()[1].tobytes()
    again = make_cxr_phantoms(14, n_patients=6, image_size=64, random_state=0)
    assert np.random.get_state()[1].tobytes() == before
    assert np.array_equal(again.data, bunch.data)
    state = make_cxr_phantoms(
        14, n_patients=6, image_size=64, random_state=np.random.RandomState(0)
    )
    assert np.array_equal(state.data, bunch.data)
    other = make_cxr_phantoms(14, n_patients=6, image_size=64, random_state=1)
    assert not np.array_equal(other.data, bunch.data)


def test_an_image_depends_on_no_other(bunch):
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    exposures = phantoms._deal(14, 4, 6)
    for i in (9, 2):
        alone = phantoms._draw(exposures[i], i, seed, 64, 1.0, None)
        assert np.array_equal(alone, bunch.data[i])


# ---------------------------------------------------------------------------- anatomy


@pytest.mark.parametrize("seed", range(4))
def test_a_chest_is_where_it_should_be(seed):
    _, healthy, lungs = twins("Healthy", seed)
    aerated = lungs.path > 1.0
    assert 0.1 < aerated.mean() < 0.4
    left, right = aerated[:, :48], aerated[:, 48:]  # of the viewer
    assert left.sum() > right.sum()  # the heart takes from the patient's left lung
    lowest = [np.flatnonzero(half.any(axis=1)).max() for half in (left, right)]
    assert lowest[0] <= lowest[1] + 2  # the liver lifts the right diaphragm
    spine = healthy[40:60, 44:52]
    assert healthy[aerated].mean() + 1.0 < spine.mean()
    assert healthy[:6, :6].min() < 0.5  # air above the shoulder


def test_anatomy_does_not_depend_on_the_size():
    small, large = (
        make_cxr_phantoms(4, image_size=size, noise=0, random_state=0).data.astype(float)
        for size in (96, 192)
    )
    large = large.reshape(4, 96, 2, 96, 2).mean(axis=(2, 4))
    assert np.abs(small - large).mean() < 2.0


def test_gray_values_are_those_of_a_film(bunch):
    assert np.percentile(bunch.data, 2) < 40
    assert np.percentile(bunch.data, 98) > 200


# ---------------------------------------------------------------------------- findings


@pytest.mark.parametrize("finding", ILL)
@pytest.mark.parametrize("seed", range(4))
def test_a_finding_changes_the_lungs_alone(finding, seed):
    added, _, lungs = twins(finding, seed)
    assert np.all(added[lungs.path == 0] == 0)
    assert added.min() > -1e-3  # fluid only adds
    assert added.max() > 0.3


def shares(finding, seed):
    """Share of a finding in the viewer's left half, and its mean lateral and vertical place."""
    added, _, lungs = twins(finding, seed)
    added = np.maximum(added, 0)
    aerated = lungs.path / lungs.path.sum()
    place = [np.average(at, weights=added) for at in (lungs.lateral, lungs.level)]
    usual = [np.average(at, weights=aerated) for at in (lungs.lateral, lungs.level)]
    return added[lungs.side < 0].sum() / added.sum(), np.subtract(place, usual)


def test_bacterial_is_on_one_side():
    sides = np.array([shares("Bacterial Pneumonia", seed)[0] for seed in range(16)])
    assert np.all((sides > 0.97) | (sides < 0.03))
    assert np.any(sides > 0.5)
    assert np.any(sides < 0.5)


@pytest.mark.parametrize("seed", range(6))
def test_viral_is_on_both_sides_and_not_peripheral(seed):
    side, (lateral, _) = shares("Viral Pneumonia", seed)
    assert 0.3 < side < 0.75
    assert lateral < 0.05


@pytest.mark.parametrize("seed", range(6))
def test_covid_is_bilateral_peripheral_and_low(seed):
    side, (lateral, level) = shares("Covid-19", seed)
    assert 0.15 < side < 0.9
    assert lateral > 0.1
    assert level > 0.03


def test_noise_adds_grain_and_fades_findings():
    clear, noisy = (
        make_cxr_phantoms(8, image_size=96, noise=noise, random_state=0).data.astype(float)
        for noise in (0, 3)
    )

    def grain(images):  # in the abdomen, where there is nothing else as fine
        return np.abs(np.diff(images[:, -16:, 40:56], axis=2)).mean()

    assert grain(noisy) > 2 * grain(clear)
    full, _, _ = twins("Covid-19", 0)
    patient = draw_patient(np.random.default_rng([0, 0]))
    view = draw_view(np.random.default_rng([0, 1]))
    faint = attenuation(patient, view, 96, "Covid-19", 0.3)[0] - attenuation(patient, view, 96)[0]
    assert 0 < faint.max() < 0.5 * full.max()


def test_brightness_does_not_tell_the_class():
    bunch = make_cxr_phantoms(80, n_patients=80, image_size=48, random_state=0)
    brightness = bunch.data.mean(axis=(1, 2))
    means = [brightness[bunch.target == name].mean() for name in bunch.target_names]
    assert np.ptp(means) < brightness.std()


# ---------------------------------------------------------------------------- shortcuts


@pytest.mark.parametrize("shortcut", ["marker", "border"])
@pytest.mark.parametrize("size", [32, 64])
def test_a_shortcut_leaves_the_chest_alone(shortcut, size):
    plain, planted = (
        make_cxr_phantoms(8, image_size=size, shortcut=name, random_state=0)
        for name in (None, shortcut)
    )
    # all but the corners, all but the rim
    edge = size // 5 if shortcut == "marker" else max(3, size // 20)
    changed = plain.data != planted.data
    middle = slice(edge, -edge)
    assert not changed[:, middle, middle].any()
    if shortcut == "marker":
        assert not changed[:, middle].any()
        assert not changed[:, :, middle].any()
    # what is planted is the same within a class and differs between classes
    where = {
        name: changed[planted.target == name].any(axis=0).tobytes() for name in plain.target_names
    }
    assert len(set(where.values())) == 4
    assert f"A shortcut is planted: {shortcut}." in planted.DESCR


def test_brightness_shifts_by_class():
    plain, planted = (
        make_cxr_phantoms(8, image_size=32, shortcut=name, random_state=0)
        for name in (None, "brightness")
    )
    shift = planted.data.astype(int) - plain.data
    inner = (plain.data > 30) & (plain.data < 225)
    for label, name in enumerate(phantoms.CLASSES):
        mine = (plain.target == name)[:, None, None] & inner
        assert np.all(np.abs(shift[mine] - 255 * 0.06 * (label - 1.5)) <= 1)


# ---------------------------------------------------------------------------- files


def test_files_hold_the_same_pixels(bunch, tmp_path):
    folder = tmp_path / "new" / "films"
    saved = make_cxr_phantoms(14, n_patients=6, image_size=64, random_state=0, save_to=folder)
    assert isinstance(saved.data, list)
    for path, image, target, group in zip(
        saved.data, bunch.data, bunch.target, bunch.groups, strict=True
    ):
        assert isinstance(path, str)
        with Image.open(path) as film:
            assert film.mode == "L"
            assert film.format == "PNG"
            assert np.array_equal(np.asarray(film), image)
        assert os.path.basename(os.path.dirname(path)) == target
        assert patient_from_name(path) == group == os.path.basename(path)[:8]
    assert saved.frame["path"].tolist() == saved.data
    assert os.listdir(tmp_path / "new") == ["films"]


def test_the_loader_reads_the_folder_back(tmp_path):
    saved = make_cxr_phantoms(9, image_size=32, random_state=0, save_to=str(tmp_path / "films"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_cxr_folder(tmp_path / "films")
    assert loaded.data == saved.data
    for key in ("target", "groups", "split"):
        assert loaded[key].tolist() == saved[key].tolist()
    assert loaded.target_names == saved.target_names


def test_an_empty_folder_is_filled(tmp_path):
    saved = make_cxr_phantoms(4, image_size=32, random_state=0, save_to=tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(phantoms.CLASSES)
    assert all(map(os.path.isfile, saved.data))


def test_a_full_folder_or_a_file_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DatasetError, match=r"is not empty.*give save_to= another folder"):
        make_cxr_phantoms(4, image_size=32, random_state=0, save_to=tmp_path)
    with pytest.raises(DatasetError, match="is a file; give save_to= a folder"):
        make_cxr_phantoms(4, image_size=32, random_state=0, save_to=tmp_path / "mine.txt")
    assert os.listdir(tmp_path) == ["mine.txt"]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(tmp_path, monkeypatch, there, error):
    folder = tmp_path / "films"
    if there:
        folder.mkdir()
    draw = phantoms._draw

    def failing(exposure, i, *rest):
        if i == 3:
            raise error
        return draw(exposure, i, *rest)

    monkeypatch.setattr(phantoms, "_draw", failing)
    with pytest.raises(type(error)):
        make_cxr_phantoms(8, image_size=32, random_state=0, save_to=folder)
    assert os.listdir(tmp_path) == (["films"] if there else [])
    assert not there or os.listdir(folder) == []


def test_a_failing_move_leaves_nothing(tmp_path, monkeypatch):
    rename = os.rename

    def failing(source, target):
        if target.endswith("Covid-19"):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="no"):
        make_cxr_phantoms(4, image_size=32, random_state=0, save_to=tmp_path)
    assert os.listdir(tmp_path) == []


def test_each_image_is_written_before_the_next_is_drawn(tmp_path, monkeypatch):
    written = []
    draw = phantoms._draw

    def counting(*args):
        written.append(sum(len(files) for _, _, files in os.walk(tmp_path)))
        return draw(*args)

    monkeypatch.setattr(phantoms, "_draw", counting)
    make_cxr_phantoms(6, image_size=32, random_state=0, save_to=tmp_path / "films")
    assert written == list(range(6))


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_samples", 0),
        ("n_samples", 4.0),
        ("n_classes", 1),
        ("n_classes", 5),
        ("n_patients", 0),
        ("n_patients", 100_000),
        ("image_size", 31),
        ("noise", -0.1),
        ("noise", float("nan")),
        ("noise", float("inf")),
        ("shortcut", "text"),
        ("random_state", "seed"),
        ("save_to", 3),
    ],
)
def test_wrong_parameters_are_named(name, value):
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of make_cxr_phantoms"):
        make_cxr_phantoms(**{name: value})


@pytest.mark.parametrize(("n_samples", "n_patients"), [(20, 3), (20, 21), (3, None), (8001, 4)])
def test_patients_must_fit(n_samples, n_patients, tmp_path):
    with pytest.raises(ValueError, match=r"The 'n_patients' parameter.* Got "):
        make_cxr_phantoms(n_samples, n_patients=n_patients, random_state=0, save_to=tmp_path / "a")
    assert os.listdir(tmp_path) == []
