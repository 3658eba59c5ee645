"""Metrics have scikit-learn's values, and their intervals are those of a bootstrap by patient."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binomtest, bootstrap
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)
from sklearn.utils import resample as resample_rows

from skcxr.metrics import _bootstrap as boot
from skcxr.metrics import classification_report_ci, expected_calibration_error
from skcxr.metrics._checks import check_cases
from skcxr.metrics._scores import Scores

NAMES = np.array(["b", "a", "d", "c"])  # not sorted


def draw(
    n: int = 240, k: int = 4, ties: bool = True, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, probabilities (rounded, so that many are tied) and patients."""
    rng = np.random.default_rng(seed)
    y, latent = rng.integers(k, size=n), rng.normal(size=(n, k))
    latent[np.arange(n), y] += 1
    proba = np.exp(latent)
    proba /= proba.sum(axis=1, keepdims=True)
    if ties:
        proba = np.round(proba * 10) / 10 + 1e-3
        proba /= proba.sum(axis=1, keepdims=True)
        proba = np.round(proba, 6)
        proba[:, -1] = 1 - proba[:, :-1].sum(axis=1)
    return y, proba, rng.integers(n // 3, size=n)


def figures(y: np.ndarray, proba: np.ndarray, predicted: np.ndarray) -> dict[tuple, float]:
    """What scikit-learn says."""
    k = proba.shape[1]
    labels = np.arange(k)
    precision, recall, f1, support = precision_recall_fscore_support(y, predicted, labels=labels)
    matrix = confusion_matrix(y, predicted, labels=labels)
    found: dict[tuple, float] = {
        ("accuracy", "overall"): accuracy_score(y, predicted),
        ("balanced accuracy", "overall"): balanced_accuracy_score(y, predicted),
        ("log loss", "overall"): log_loss(y, proba, labels=labels),
        ("Brier score", "overall"): brier_score_loss(y, proba, labels=labels),
    }
    for j in labels:
        tp, fp = matrix[j, j], matrix[:, j].sum() - matrix[j, j]
        fn = matrix[j].sum() - tp
        tn = matrix.sum() - tp - fp - fn
        found |= {
            ("sensitivity", j): recall[j], ("specificity", j): tn / (tn + fp),
            ("PPV", j): precision[j], ("precision", j): precision[j], ("NPV", j): tn / (tn + fn),
            ("F1", j): f1[j], ("support", j): support[j],
            ("AUROC", j): roc_auc_score(y == j, proba[:, j]),
            ("average precision", j): average_precision_score(y == j, proba[:, j]),
        }  # fmt: skip
    found["macro AUROC", "overall"] = np.mean([found["AUROC", j] for j in labels])
    return found


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("k", [2, 4])
def test_values_are_those_of_scikit_learn(k, ties):
    y, proba, groups = draw(k=k, ties=ties)
    report = classification_report_ci(y, proba, groups=groups, n_resamples=100, random_state=0)
    for (metric, label), value in figures(y, proba, proba.argmax(axis=1)).items():
        assert_allclose(report.value(metric, label)[0], value, rtol=1e-12, err_msg=metric)
    if k > 2:
        macro = roc_auc_score(y, proba, multi_class="ovr", average="macro")
        assert_allclose(report.value("macro AUROC")[0], macro)


def test_predictions_count_where_they_are_given():
    y, proba, _ = draw()
    predicted = np.random.default_rng(1).integers(4, size=len(y))
    report = classification_report_ci(y, proba, y_pred=predicted, n_resamples=100, random_state=0)
    for (metric, label), value in figures(y, proba, predicted).items():
        assert_allclose(report.value(metric, label)[0], value, err_msg=metric)


def test_a_resample_has_the_metrics_of_its_rows_repeated():
    y, proba, groups = draw(90)
    cases = check_cases(y, proba, None, None, groups)
    scores = Scores(cases, 10, {0: 0.1})
    [counts] = boot.resample_counts(cases.n_patients, 8, 3, 90)
    values = scores(counts)
    for b, column in enumerate(counts.T):
        rows = np.repeat(np.arange(90), column[cases.patients].astype(int))
        repeated = figures(y[rows], proba[rows], proba[rows].argmax(axis=1))
        repeated["ECE", "overall"] = expected_calibration_error(y[rows], proba[rows])
        for (metric, label), value in repeated.items():
            if metric != "support":
                at = scores.names.index((None if label == "overall" else label, metric))
                assert_allclose(values[at, b], value, rtol=1e-12, err_msg=metric)


def test_patients_are_drawn_with_all_their_images():
    counts = np.concatenate(list(boot.resample_counts(30, 500, 0, 30)), axis=1)
    assert counts.shape == (30, 500)
    assert_array_equal(counts.sum(axis=0), 30)
    assert_allclose(counts.mean(), 1)
    assert_allclose(counts.var(), 29 / 30, rtol=0.05)  # of a multinomial draw
    in_blocks = np.concatenate(list(boot.resample_counts(30, 500, 0, 2**15)), axis=1)
    assert_array_equal(counts, in_blocks)
    left_out = np.concatenate(list(boot.left_out_counts(30, 30)), axis=1)
    assert_array_equal(left_out, 1 - np.eye(30))


def test_many_patients_are_left_out_in_groups():
    left_out = np.concatenate(list(boot.left_out_counts(4500, 2**19)), axis=1)
    assert left_out.shape == (4500, 2000)
    assert_array_equal((left_out == 0).sum(axis=1), 1)


@pytest.mark.parametrize("method", ["percentile", "BCa"])
@pytest.mark.parametrize("metric", ["AUROC", "sensitivity"])
def test_intervals_are_those_of_scipy(method, metric):
    y, proba, groups = draw(120, k=2, seed=4)
    cases = check_cases(y, proba, None, None, groups)
    of_patient = [np.flatnonzero(cases.patients == j) for j in range(cases.n_patients)]

    def statistic(drawn):
        rows = np.concatenate([of_patient[j] for j in drawn])
        if metric == "AUROC":
            return roc_auc_score(y[rows], proba[rows, 1])
        return (proba[rows, 1] > 0.5)[y[rows] == 1].mean()

    theirs = bootstrap(
        (np.arange(cases.n_patients),), statistic, vectorized=False, method=method,
        n_resamples=300, random_state=np.random.default_rng(5),
    )  # fmt: skip
    scores = Scores(cases, 10, {})
    ours = boot.resample(scores, cases.n_patients, 300, 5, method, 120)
    row = scores.names.index((1, metric))
    # the same draws
    assert_allclose(ours.drawn[row], theirs.bootstrap_distribution, rtol=1e-12)
    assert_allclose(ours.limits(0.95)[row], theirs.confidence_interval, rtol=1e-9)


def test_a_seed_gives_the_same_report_and_another_one_another():
    y, proba, groups = draw(90)

    def frame(seed):
        return classification_report_ci(
            y, proba, groups=groups, n_resamples=100, random_state=seed
        ).to_frame()

    pd.testing.assert_frame_equal(frame(0), frame(0))
    pd.testing.assert_frame_equal(frame(np.random.RandomState(3)), frame(np.random.RandomState(3)))
    assert not frame(0)["low"].equals(frame(1)["low"])


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_the_order_of_rows_and_the_names_of_patients_do_not_matter(method):
    y, proba, groups = draw(90)
    order = np.random.default_rng(0).permutation(90)
    options = {"method": method, "n_resamples": 100, "random_state": 0}
    ours = classification_report_ci(y, proba, groups=groups, **options).to_frame()
    names = np.array([f"p{patient:03}" for patient in groups])
    other = classification_report_ci(
        y[order].tolist(), proba[order].tolist(), groups=pd.Series(names[order]), **options
    ).to_frame()
    pd.testing.assert_frame_equal(ours, other, rtol=1e-9)


def test_patients_with_many_images_widen_the_interval():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(60) < 0.7, 5)
    y = np.tile([0, 1], 150)
    predicted = np.where(right, y, 1 - y)
    patients = np.repeat(np.arange(60), 5)
    wide, narrow = (
        np.diff(
            classification_report_ci(y, y_pred=predicted, groups=groups, random_state=0).value(
                "accuracy"
            )[1:]
        )
        for groups in (patients, None)
    )
    assert 1.8 < wide / narrow < 2.7  # sqrt(5) is 2.24


def test_the_mean_of_values_and_its_interval():
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=300), np.repeat(np.arange(100), 3)
    low, high = boot.interval_of_mean(values, groups, random_state=0)
    assert low < values.mean() < high
    means = values.reshape(100, 3).mean(axis=1)
    width = 2 * 1.96 * means.std() / 10
    assert_allclose(high - low, width, rtol=0.1)
    assert np.isnan(boot.interval_of_mean([1.0, 2.0], ["a", "a"])).all()
    each = boot.interval_of_mean(values, None, random_state=0)
    assert each == boot.interval_of_mean(values, np.arange(300), random_state=0)


@pytest.mark.parametrize("n_bins", [1, 7, 10])
def test_ece_goes_with_the_calibration_curve(n_bins):
    rng = np.random.default_rng(0)
    p = rng.random(400)
    y = (rng.random(400) < p**2).astype(float)
    true, mean = calibration_curve(y, p, n_bins=n_bins)
    weights = np.histogram(p, np.linspace(0, 1, n_bins + 1))[0]
    findings = expected_calibration_error(np.stack([y, 1 - y], 1), np.stack([p, 1 - p], 1),
                                          n_bins=n_bins)  # fmt: skip
    assert_allclose(findings[0], np.abs(true - mean) @ weights / 400)
    of_classes = expected_calibration_error(y, p, n_bins=n_bins)
    top = np.maximum(p, 1 - p)
    true, mean = calibration_curve((p >= 0.5) == y, top, n_bins=n_bins)
    weights = np.histogram(top, np.linspace(0, 1, n_bins + 1))[0]
    assert_allclose(of_classes, np.abs(true - mean) @ weights[weights > 0] / 400)


def test_ece_lies_within_its_interval_though_resamples_have_more():
    rng = np.random.default_rng(0)
    p = rng.random(300)
    y = (rng.random(300) < p).astype(int)  # calibrated
    for method in ("percentile", "BCa"):
        value, low, high = classification_report_ci(y, p, method=method, random_state=0).value(
            "ECE"
        )
        assert 0 <= low < value < high


def test_what_has_no_error_has_an_exact_interval():
    y = np.repeat([0, 1], [40, 60])
    groups = np.arange(100)
    report = classification_report_ci(y, y_pred=y, groups=groups, random_state=0)
    exact = binomtest(60, 60).proportion_ci(method="exact")
    assert_allclose(report.value("sensitivity", 1), (1, exact.low, 1))
    assert_allclose(report.value("sensitivity", 1), report.value("specificity", 0))
    exact = binomtest(100, 100).proportion_ci(method="exact")
    assert_allclose(report.value("accuracy"), (1, exact.low, 1))
    never = classification_report_ci(y, y_pred=1 - y, groups=groups, random_state=0)
    exact = binomtest(0, 60).proportion_ci(method="exact")
    assert_allclose(never.value("sensitivity", 1), (0, 0, exact.high))
    assert np.isnan(report.value("F1", 1)[1:]).all()  # no such limits are known
    assert "exact" in str(report)
    assert "no interval" in str(report)


def test_images_of_one_patient_are_no_more_evidence_than_the_patient():
    y = np.tile([0, 1], 30)
    groups = np.arange(60) // 2 % 10  # each of ten patients has both classes, three times
    report = classification_report_ci(y, y_pred=y, groups=groups, random_state=0)
    exact = binomtest(10, 10).proportion_ci(method="exact")
    assert_allclose(report.value("sensitivity", 1), (1, exact.low, 1))


def test_an_auroc_of_one_has_an_interval_that_narrows():
    def low(n):
        y = np.repeat([0, 1], n)
        value, low, high = classification_report_ci(
            y, np.where(y, 0.8, 0.1), n_resamples=100, random_state=0
        ).value("AUROC", 1)
        assert value == high == 1
        return low

    assert 0.5 < low(10) < low(50) < low(500) < 1
    a = low(50)  # 1.96 of Newcombe's standard errors, at a itself, reach 1
    variance = a * (1 - a) * (1 + 49 * (1 - a) / (2 - a) + 49 * a / (1 + a)) / 2500
    assert_allclose((1 - a) / np.sqrt(variance), 1.959964, rtol=1e-6)


def test_predictive_values_without_an_error_are_not_certain():
    y = np.repeat([0, 1], 50)
    report = classification_report_ci(y, y_pred=y, prevalence=0.01, random_state=0)
    value, low, high = report.value("PPV at prevalence 0.01", 1)
    assert value == high == 1
    assert low < 0.2  # 50 cleared patients say little about one in a hundred


def test_a_class_of_few_patients_has_values_and_no_interval():
    y = np.repeat([0, 1], [50, 6])
    groups = np.r_[np.arange(50), np.repeat([50, 51], 3)]
    proba = np.linspace(0.05, 0.95, 56)
    proba[[10, 53]] = 0.9, 0.1
    report = classification_report_ci(y, proba, groups=groups, random_state=0)
    value, low, high = report.value("AUROC", 1)
    assert 0.5 < value < 1
    assert np.isnan([low, high]).all()
    assert np.isfinite(report.value("accuracy")).all()


def test_an_absent_class_is_nan_and_nothing_warns():
    y, proba, groups = draw(60)
    y[y == 3] = 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in ("percentile", "BCa"):
            report = classification_report_ci(
                y, proba, labels=range(4), groups=groups, method=method, random_state=0
            )
    for metric in ("sensitivity", "AUROC", "average precision"):
        assert np.isnan(report.value(metric, 3)).all(), metric
    assert report.value("support", 3)[0] == 0
    present = [report.value("AUROC", j)[0] for j in range(3)]
    assert_allclose(report.value("macro AUROC")[0], np.mean(present))
    assert np.isfinite(report.value("macro AUROC")).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn tells of the absent class
        expected = balanced_accuracy_score(y, proba.argmax(axis=1))
    assert_allclose(report.value("balanced accuracy")[0], expected)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_cases_is_scored(n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for groups in (None, ["a"] * n):
            for method in ("percentile", "BCa"):
                report = classification_report_ci(
                    [0, 1, 0][:n], [0.2, 0.4, 0.3][:n], labels=[0, 1], groups=groups,
                    method=method, random_state=0,
                )  # fmt: skip
                str(report)
    assert np.isnan(report.to_frame()[["low", "high"]]).all(axis=None)  # one patient


def test_rows_drawn_by_scikit_learn_scatter_as_much():
    y, proba, _ = draw(200, k=2)
    report = classification_report_ci(y, proba, n_resamples=2000, random_state=0)
    aurocs = []
    for seed in range(500):
        rows = resample_rows(np.arange(200), random_state=seed)
        aurocs.append(roc_auc_score(y[rows], proba[rows, 1]))
    _, low, high = report.value("AUROC", 1)
    assert_allclose([low, high], np.quantile(aurocs, [0.025, 0.975]), atol=0.012)
