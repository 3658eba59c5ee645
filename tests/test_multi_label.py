"""Findings: several, or none, in one image, and some of them not labelled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_matrix
from scipy.special import expit
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from skcxr import CXRClassifier, ImageLoader, InputError
from skcxr.metrics import make_masked_scorer
from skcxr.training import WeightedBinaryCrossEntropy

NAN = np.nan


def small(**params):
    return CXRClassifier(
        **{"backbone": "smallnet", "max_epochs": 3, "random_state": 0, "image_size": 16, **params}
    )


def exact(**params):
    """Full batches, no batch statistics, double precision: where weights act exactly."""
    return small(**{"dtype": "float64", "batch_size": 256, "lr": 0.01, **params})


@pytest.fixture(scope="module")
def findings():
    """Three findings of 24 images, all labelled."""
    rng = np.random.default_rng(0)
    return (rng.random((24, 3)) < [0.5, 0.3, 0.6]).astype(int)


@pytest.fixture(scope="module")
def masked(findings):
    """The same, a quarter of them not labelled."""
    y = findings.astype(float)
    y[np.random.default_rng(1).random(y.shape) < 0.25] = NAN
    return y


def test_shapes_types_and_agreement(files, findings):
    clf = small().fit(files, findings)
    proba, logits = clf.predict_proba(files), clf.decision_function(files)
    assert proba.shape == logits.shape == findings.shape
    assert_allclose(proba, expit(logits))
    assert_allclose(clf.predict_log_proba(files), np.log(proba))
    assert_array_equal(clf.predict(files), (proba > 0.5).astype(int))
    assert clf.predict(files).dtype.kind == "i"
    assert_array_equal(clf.findings_, [0, 1, 2])
    assert clf.classes_.shape == (3, 2)
    assert clf.score(files, findings) == accuracy_score(findings, clf.predict(files))
    assert get_tags(clf).classifier_tags.multi_label


def test_the_findings_are_learnt(images):
    pixels, labels = images
    y = np.stack([labels == "v", pixels[:, 0, 0] < 300], axis=1)[:, [0, 1]]
    y[:, 1] = np.arange(len(y)) % 3 == 0
    pixels = pixels.copy()
    pixels[y[:, 1] == 1, :4, :4] = 255  # the second finding is a bright corner
    clf = CXRClassifier("smallnet", max_epochs=120, random_state=0).fit(pixels, y)
    assert clf.score(pixels, y) > 0.9


def test_names_come_from_the_columns(files, findings):
    frame = pd.DataFrame(findings, columns=["effusion", "mass", "nodule"])
    clf = small().fit(files, frame)
    assert clf.findings_.tolist() == ["effusion", "mass", "nodule"]
    assert_array_equal(clf.predict_proba(files), small().fit(files, findings).predict_proba(files))
    clf.fit(files, findings[:, 0])
    assert not hasattr(clf, "findings_")


@pytest.mark.parametrize(
    "make",
    [
        lambda y: y.astype(bool),
        lambda y: y.tolist(),
        lambda y: csr_matrix(y),
        lambda y: pd.DataFrame(y).astype("Int64"),
    ],
)
def test_indicators_of_any_kind_are_the_same(make, files, findings):
    expected = small().fit(files, findings).predict_proba(files)
    assert_array_equal(small().fit(files, make(findings)).predict_proba(files), expected)


def test_missing_values_of_pandas_are_nan(files, masked):
    frame = pd.DataFrame(masked).astype("Int64")
    expected = small().fit(files, masked).predict_proba(files)
    assert_array_equal(small().fit(files, frame).predict_proba(files), expected)


def test_an_image_without_a_label_is_absent(files, masked):
    y = np.vstack([masked[:20], np.full((4, 3), NAN)])
    labelled = ~np.isnan(y).all(axis=1)
    expected = small().fit([f for f, k in zip(files, labelled, strict=True) if k], y[labelled])
    assert_array_equal(small().fit(files, y).predict_proba(files), expected.predict_proba(files))


def test_what_is_not_labelled_gives_no_gradient():
    logits = torch.zeros(3, 2, requires_grad=True)
    target = torch.tensor([[0.0, 1], [1, 0], [1, 1]])
    weight = torch.tensor([[1.0, 0], [1, 0], [1, 0]])
    WeightedBinaryCrossEntropy()(logits, (target, weight)).backward()
    assert (logits.grad[:, 0] != 0).all()
    assert (logits.grad[:, 1] == 0).all()


def test_the_loss_is_that_of_scikit_learn(files, masked):
    clf = exact(lr_schedule=None, max_epochs=1, weight_decay=0.0, lr=1e-12).fit(files, masked)
    proba, labelled = clf.predict_proba(files), ~np.isnan(masked)
    expected = log_loss(masked[labelled], proba[labelled])
    assert_allclose(clf.history_[0, "train_loss"], expected, rtol=1e-6)


def test_weight_2_equals_the_row_twice(files, masked):
    weight = np.where(np.arange(24) % 3, 1, 2)
    twice = np.repeat(np.arange(24), weight)
    weighted = exact().fit(files, masked, sample_weight=weight)
    repeated = exact().fit([files[i] for i in twice], masked[twice])
    assert_allclose(weighted.predict_proba(files), repeated.predict_proba(files), rtol=1e-9)


def test_balanced_is_per_finding(files, masked):
    rules = []
    for column in masked.T:
        n, positive = (~np.isnan(column)).sum(), np.nansum(column)
        rules.append({0: n / (2 * (n - positive)), 1: n / (2 * positive)})
    balanced = exact(class_weight="balanced").fit(files, masked)
    by_hand = exact(class_weight=rules).fit(files, masked)
    assert_allclose(balanced.predict_proba(files), by_hand.predict_proba(files), rtol=1e-9)
    for_all = exact(class_weight={0: 1, 1: 5}).fit(files, masked).predict_proba(files)
    assert for_all.mean() > exact().fit(files, masked).predict_proba(files).mean()


def test_early_stopping_keeps_patients_together(files, masked):
    clf = small(early_stopping=True, validation_fraction=0.25)
    clf.fit(files, masked, groups=np.repeat(np.arange(12), 2))
    assert np.isfinite(clf.history_[-1, "valid_loss"])


def test_partial_fit_and_warm_start(files, masked, findings):
    clf = small(class_weight=None).partial_fit(files, masked)
    clf.partial_fit(files[:4], np.where([[1, 0, 0]], findings[:4], NAN))
    assert clf.predict_proba(files).shape == (24, 3)
    with pytest.raises(InputError, match="goes on with the findings"):
        clf.partial_fit(files, findings[:, :2])
    with pytest.raises(InputError, match="goes on with the findings"):
        clf.partial_fit(files, np.arange(24) % 2)
    warm = small(warm_start=True).fit(files, findings)
    with pytest.raises(InputError, match="warm_start"):
        warm.fit(files, findings[:, 0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y + 1, r"y\[0, .\] is 2"),
        (lambda y: np.where(y == 1, "yes", "no"), "0, 1 or NaN"),
        (lambda y: y * NAN, "nothing is labelled"),
        (lambda y: np.where([[1, 0, 1]], y, NAN), "finding 1 is labelled in no image"),
        (lambda y: y[:-1], "24 images but y has 23"),
        (lambda y: np.where(y == 1, np.inf, 0), "0, 1 or NaN"),
    ],
)
def test_findings_that_cannot_be_used_are_named(change, words, files, findings):
    with pytest.raises(InputError, match=words):
        small().fit(files, change(findings))


def test_class_weights_that_cannot_be_used_are_named(files, findings):
    with pytest.raises(InputError, match="2 entries for 3 findings"):
        small(class_weight=[{0: 1, 1: 1}] * 2).fit(files, findings)
    with pytest.raises(InputError, match="which is for findings"):
        small(class_weight=[{0: 1, 1: 1}]).fit(files, findings[:, 0])


@pytest.mark.parametrize("scoring", ["roc_auc", "average_precision", "f1_macro"])
def test_scikit_learns_scorers_work_where_all_is_labelled(scoring, files):
    y = np.stack([np.arange(24) % 2, np.arange(24) % 3 == 0], axis=1).astype(int)
    for k in (2, 1):  # two findings must not be taken for two classes
        scores = cross_val_score(small(), files, np.tile(y, (1, 3 - k)), cv=2, scoring=scoring)
        assert np.isfinite(scores).all()
    proba = cross_val_predict(small(), files, y, cv=2, method="predict_proba")
    assert proba.shape == y.shape


@pytest.mark.parametrize(
    "cv", [KFold(2), GroupKFold(2), ShuffleSplit(2, random_state=0), LeaveOneGroupOut()]
)
def test_splitters_that_take_nan(cv, files, masked):
    scorer = make_masked_scorer(accuracy_score)
    groups = np.repeat([0, 1], 12) if "Group" in type(cv).__name__ else None
    scores = cross_val_score(small(), files, masked, groups=groups, cv=cv, scoring=scorer)
    assert np.isfinite(scores).all()


def test_stratified_splitters_refuse_nan(files, masked):
    with pytest.raises(ValueError, match="NaN"):
        cross_val_score(small(), files, masked, cv=StratifiedKFold(2), error_score="raise")


def test_masked_scorer_is_the_mean_over_findings_of_the_labelled(files, masked, findings):
    model = make_pipeline(ImageLoader(16), small(image_size="auto")).fit(files, masked)
    scorer = make_masked_scorer(roc_auc_score, response_method="predict_proba")
    proba = model.predict_proba(files)
    expected = []
    for k in range(3):
        rows = ~np.isnan(masked[:, k])
        expected.append(roc_auc_score(masked[rows, k], proba[rows, k]))
    assert_allclose(scorer(model, files, masked), np.mean(expected))
    assert_allclose(scorer(model, files, findings), roc_auc_score(findings, proba))
    one = np.where([[0, 1, 0]], masked, NAN)
    assert_allclose(scorer(model, files, one), expected[1])
    assert np.isnan(scorer(model, files, masked * NAN))


def test_masked_scorer_in_a_search_with_weights_and_with_forests(files, masked):
    scorer = make_masked_scorer(
        log_loss, response_method="predict_proba", greater_is_better=False, labels=[0, 1]
    )
    search = GridSearchCV(small(), {"lr": [0.001, 0.01]}, cv=KFold(2), scoring=scorer)
    assert search.fit(files, masked).best_score_ < 0
    clf = clone(small()).fit(files, masked)
    ones = scorer(clf, files, masked, sample_weight=np.ones(24))
    assert_allclose(scorer(clf, files, masked), ones)
    rows = ImageLoader(8, output="rows").transform(files)
    forest = RandomForestClassifier(10, random_state=0).fit(rows, np.nan_to_num(masked))
    assert scorer(forest, rows, masked) < 0


def test_masked_scorer_says_what_is_wrong(files, findings):
    with pytest.raises(InputError, match="response_method"):
        make_masked_scorer(accuracy_score, response_method="transform")
    scorer = make_masked_scorer(accuracy_score)
    clf = small(max_epochs=1).fit(files, findings)
    with pytest.raises(InputError, match=r"\(24,\)"):
        scorer(clf, files, findings[:, 0])
    with pytest.raises(InputError, match="gives shape"):
        scorer(clf, files, findings[:, :2])
