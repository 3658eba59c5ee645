"""OutlierGate refuses what is no upright radiograph, and lets radiographs pass."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from skcxr import ImageReadError, InputError, make_cxr_phantoms
from skcxr.outliers import OutlierGate
from skcxr.outliers._drawn import oddities, retakes
from skcxr.outliers._looks import look, unit

small = partial(OutlierGate, n_synthetic=1500, random_state=0)


@pytest.fixture(scope="module")
def films():
    return make_cxr_phantoms(60, image_size=64, random_state=0).data


@pytest.fixture(scope="module")
def others():
    return make_cxr_phantoms(40, image_size=80, noise=1.5, random_state=1).data


@pytest.fixture(scope="module")
def gate(films):
    return small().fit(films)


def is_none(films):
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, films.shape[1]).astype(np.uint8)
    lines = np.where(np.arange(films.shape[1]) % 6 < 3, 230, 20).astype(np.uint8)
    return {
        "turned by 90": np.rot90(films, 1, (1, 2)),
        "turned by 180": np.rot90(films, 2, (1, 2)),
        "turned by 270": np.rot90(films, 3, (1, 2)),
        "inverted": 255 - films,
        "noise": rng.integers(0, 256, films.shape).astype(np.uint8),
        "black": np.zeros_like(films),
        "a ramp": np.broadcast_to(ramp, films.shape),
        "lines": np.broadcast_to(lines[:, None], films.shape),
        "a corner": films[:, :20, :20],
    }


def differently(films):
    framed = films.copy()
    framed[:, :6] = framed[:, -6:] = framed[:, :, :6] = framed[:, :, -6:] = 255
    marked = films.copy()
    marked[:, 4:12, 4:12] = 255
    return {
        "darker": (films * 0.5).astype(np.uint8),
        "another gamma": (255 * (films / 255) ** 1.5).astype(np.uint8),
        "16 bit": films.astype(np.uint16) * 257,
        "mirrored": films[:, :, ::-1],
        "cropped": films[:, 4:-4, 4:-4],
        "framed": framed,
        "marked": marked,
    }


@pytest.mark.parametrize("kind", is_none(np.zeros((1, 24, 24), np.uint8)))
def test_what_is_no_radiograph_is_refused(gate, others, kind):
    odd = is_none(others)[kind]
    inside, outside = gate.score_samples(others), gate.score_samples(odd)
    y = np.repeat([1, 0], [len(inside), len(outside)])
    assert roc_auc_score(y, np.r_[inside, outside]) > 0.98
    assert (gate.predict(odd) == -1).mean() > 0.9


@pytest.mark.parametrize("how", differently(np.zeros((1, 24, 24), np.uint8)))
def test_radiographs_that_are_taken_differently_pass(gate, others, how):
    assert (gate.predict(others) == 1).mean() >= 0.95
    assert (gate.predict(differently(others)[how]) == 1).mean() >= 0.9


def test_predictions_are_the_sign_of_the_decision(gate, others):
    decision = gate.decision_function(others)
    np.testing.assert_array_equal(decision, gate.score_samples(others) - gate.offset_)
    np.testing.assert_array_equal(gate.predict(others), np.where(decision >= 0, 1, -1))
    assert gate.offset_ == 0


def test_contamination_is_the_share_of_new_films_that_is_refused():
    new = make_cxr_phantoms(300, image_size=48, random_state=2).data
    tried = clone(small(contamination=0.2)).fit(new[:150])
    assert (tried.predict(new[150:]) == -1).mean() == pytest.approx(0.2, abs=0.1)


def test_patients_are_set_aside_together(films):
    """A strange patient of many films is judged by models that have not seen the others."""
    X = np.concatenate([films[:30], np.repeat(255 - films[30:31], 10, axis=0)])
    patients = np.minimum(np.arange(40), 30)
    options = {"contamination": 0.1, "n_synthetic": 600}
    alone = small(**options).fit(X).offset_
    together = small(**options).fit(X, groups=patients).offset_
    assert together < alone - 0.5
    with pytest.raises(InputError, match="groups has shape"):
        small(**options).fit(X, groups=patients[:5])
    with pytest.raises(InputError, match="one patient"):
        small(**options).fit(X, groups=np.zeros(40))


def test_same_seed_same_scores_and_other_seed_other_scores(films, others):
    first, again, other = (
        OutlierGate(n_synthetic=300, random_state=seed).fit(films).score_samples(others)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    OutlierGate(n_synthetic=300).fit(films)  # no seed: conftest.py looks at the global ones


def test_every_kind_of_x_gives_the_same(gate, films, others, tmp_path):
    few = others[:3]
    wanted = gate.score_samples(few)
    paths = [str(tmp_path / f"{k}.png") for k in range(3)]
    for path, image in zip(paths, few, strict=True):
        Image.fromarray(image).save(path)
    np.testing.assert_array_equal(gate.score_samples(paths), wanted)
    for same in (few[:, None], few[..., None], np.repeat(few[..., None], 3, -1)):
        np.testing.assert_array_equal(gate.score_samples(same), wanted)
    for near in (few / 255.0, few.astype(np.float32), few.astype(np.uint16) * 257):
        np.testing.assert_allclose(gate.score_samples(near), wanted, atol=0.05)
    rows = films.reshape(len(films), -1)
    np.testing.assert_allclose(
        small().fit(rows).score_samples(rows[:3]), gate.score_samples(films[:3]), atol=0.05
    )


def test_decoded_files_are_kept(films, tmp_path):
    paths = [str(tmp_path / f"{k}.png") for k in range(10)]
    for path, image in zip(paths, films, strict=False):
        Image.fromarray(image).save(path)
    kept = OutlierGate(n_synthetic=100, memory=str(tmp_path / "memory"), random_state=0).fit(paths)
    assert len(list((tmp_path / "memory").rglob("*.npy"))) == 10
    without = OutlierGate(n_synthetic=100, random_state=0).fit(paths)
    np.testing.assert_array_equal(kept.score_samples(paths), without.score_samples(paths))


def test_a_copy_is_the_same(gate, others):
    copy = pickle.loads(pickle.dumps(gate))
    np.testing.assert_array_equal(copy.score_samples(others), gate.score_samples(others))
    with pytest.raises(NotFittedError):
        clone(gate).predict(others)


def test_what_cannot_be_used_is_said(gate, films, tmp_path):
    with pytest.raises(InputError, match=r"1 film\(s\).*8 or more"):
        small().fit(films[:1])
    with pytest.raises(InputError, match="blank"):
        small().fit(np.full((20, 32, 32), 7, np.uint8))
    with pytest.raises(InputError, match="NaN"):
        gate.predict(np.full((2, 16, 16), np.nan))
    with pytest.raises(InputError, match="fitted on images"):
        gate.predict(films[0])
    with pytest.raises(ImageReadError, match=r"gone\.png"):
        gate.predict([str(tmp_path / "gone.png")])
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageReadError, match=r"broken\.png"):
        small().fit([str(tmp_path / "broken.png")] * 10)
    for wrong in ({"contamination": 0.9}, {"contamination": "some"}, {"n_synthetic": 5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            small(**wrong).fit(films)


def test_a_blank_film_among_others_stops_nothing(films, gate):
    mixed = films.copy()
    mixed[0] = 0
    assert np.isfinite(small().fit(mixed).score_samples(mixed)).all()
    assert gate.predict(mixed)[0] == -1


def test_looks_do_not_depend_on_exposure_or_company():
    rng = np.random.default_rng(0)
    pictures = unit(rng.random((5, 48, 48)))
    np.testing.assert_allclose(look(unit(pictures * 300 - 20)), look(pictures), atol=1e-4)
    np.testing.assert_array_equal(look(pictures)[2:3], look(pictures[2:3]))


def test_what_is_made_is_finite_and_knows_its_film():
    films = unit(make_cxr_phantoms(6, image_size=48, random_state=0).data.astype(float))
    altered, origin = retakes(films, 20, np.random.default_rng(0))
    assert altered.shape == (20, 48, 48)
    assert sorted(set(origin)) == list(range(6))
    odd, origin = oddities(films, 210, np.random.default_rng(0))
    assert np.isfinite(odd).all()
    assert set(origin) == {-1, *range(6)}
    assert (origin == -1).mean() == pytest.approx(1 / 3)


@pytest.mark.slow
@pytest.mark.parametrize("fitted_on", ["covid4", "kermany224"])
def test_radiographs_of_other_hospitals_pass_and_their_turned_copies_do_not(shared_data, fitted_on):
    def paths(name, n):
        found = sorted(map(str, (shared_data / name).glob("*/*")))
        return np.random.default_rng(0).permutation(found)[:n].tolist()

    gate = OutlierGate(random_state=0).fit(paths(fitted_on, 300))
    for name in ("adults256", "nih64"):
        files = paths(name, 400)
        assert (gate.predict(files) == -1).mean() <= 0.05
        upside_down = np.stack(
            [np.asarray(Image.open(file).convert("L").resize((64, 64)))[::-1] for file in files]
        )
        assert (gate.predict(upside_down) == -1).mean() >= 0.99
