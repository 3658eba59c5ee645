"""OutlierGate refuses what is no upright radiograph, and lets radiographs pass."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from skcxr import ImageReadError, InputError, make_cxr_phantoms
from skcxr.outliers import OutlierGate


@pytest.fixture(scope="module")
def films():
    return make_cxr_phantoms(60, image_size=64, random_state=0).data


@pytest.fixture(scope="module")
def others():
    return make_cxr_phantoms(40, image_size=80, noise=1.5, random_state=1).data


@pytest.fixture(scope="module")
def gate(films):
    return OutlierGate(contamination=0.02, random_state=0).fit(films)


def oddities(films):
    rng = np.random.default_rng(0)
    return {
        "turned by 90": np.rot90(films, 1, (1, 2)),
        "turned by 180": np.rot90(films, 2, (1, 2)),
        "turned by 270": np.rot90(films, 3, (1, 2)),
        "inverted": 255 - films,
        "noise": rng.integers(0, 256, films.shape).astype(np.uint8),
        "black": np.zeros_like(films),
    }


@pytest.mark.parametrize("kind", oddities(np.zeros((1, 2, 2), np.uint8)))
def test_what_is_no_radiograph_is_told_apart(gate, others, kind):
    odd = oddities(others)[kind]
    inside, outside = gate.score_samples(others), gate.score_samples(odd)
    y = np.repeat([1, 0], [len(inside), len(outside)])
    assert roc_auc_score(y, np.r_[inside, outside]) > 0.95
    assert (gate.predict(odd) == -1).mean() > 0.9


def test_radiographs_pass_also_when_taken_a_little_differently(gate, others):
    assert (gate.predict(others) == 1).mean() >= 0.85
    darker = (others * 0.7).astype(np.uint8)
    assert (gate.predict(darker) == 1).mean() >= 0.75
    assert (gate.predict(others[:, :, ::-1]) == 1).mean() >= 0.75
    cropped = others[:, 3:-3, 3:-3]
    assert (gate.predict(cropped) == 1).mean() >= 0.75


def test_predictions_are_the_sign_of_the_decision(gate, others):
    decision = gate.decision_function(others)
    np.testing.assert_allclose(decision, gate.score_samples(others) - gate.offset_)
    np.testing.assert_array_equal(gate.predict(others), np.where(decision >= 0, 1, -1))


def test_same_seed_same_scores_and_all_kinds_of_x(gate, films, others, tmp_path):
    again = clone(gate).fit(films)
    np.testing.assert_array_equal(again.score_samples(others), gate.score_samples(others))
    copy = pickle.loads(pickle.dumps(gate))
    wanted = gate.score_samples(others[:3])
    np.testing.assert_array_equal(copy.score_samples(others[:3]), wanted)
    paths = [str(tmp_path / f"{k}.png") for k in range(3)]
    for path, image in zip(paths, others, strict=False):
        Image.fromarray(image).save(path)
    np.testing.assert_allclose(gate.score_samples(paths), wanted, atol=0.02)
    np.testing.assert_allclose(gate.score_samples(others[:3] / 255.0), wanted, atol=0.02)
    np.testing.assert_allclose(gate.score_samples(others[:3, None]), wanted, atol=0.02)
    np.testing.assert_allclose(
        gate.score_samples(np.repeat(others[:3, ..., None], 3, -1)), wanted, atol=0.02
    )


def test_what_cannot_be_used_is_said(gate, films, tmp_path):
    with pytest.raises(NotFittedError):
        OutlierGate().predict(films)
    with pytest.raises(InputError, match="8 or more"):
        OutlierGate().fit(films[:3])
    with pytest.raises(InputError, match="NaN"):
        gate.predict(np.full((2, 16, 16), np.nan))
    with pytest.raises(ImageReadError, match=r"gone\.png"):
        gate.predict([str(tmp_path / "gone.png")])
    with pytest.raises(ValueError, match="contamination"):
        OutlierGate(contamination=0.9).fit(films)


@pytest.mark.slow
def test_radiographs_of_other_hospitals_pass(shared_data):
    def paths(name, step):
        return sorted(map(str, (shared_data / name).glob("*/*")))[::step]

    gate = OutlierGate(random_state=0).fit(paths("covid4", 1))
    for name in ("adults256", "nih64"):
        assert (gate.predict(paths(name, 4)) == -1).mean() <= 0.05
