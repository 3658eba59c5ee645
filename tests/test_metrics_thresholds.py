"""Models against each other, thresholds, and predictive values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import roc_auc_score

from skcxr import InputError
from skcxr.metrics import (
    classification_report_ci,
    compare_models_ci,
    expected_calibration_error,
    operating_points,
    predictive_values,
)

QUICK = {"n_resamples": 200, "random_state": 0}


def draw(n: int = 240, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Two classes, probabilities of a model and of two that know the same cases, and patients."""
    rng = np.random.default_rng(seed)
    y, groups = rng.integers(2, size=n), np.arange(n) // 2
    latent = rng.normal(2 * y - 1, 1.2)
    more = latent + rng.normal(0, 0.1, n)
    less = latent + rng.normal(0, 2, n)
    models = {"first": latent, "like it": more, "worse": less}
    return y, {name: 1 / (1 + np.exp(-values)) for name, values in models.items()}, groups


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_differences_are_paired(method):
    y, scores, groups = draw()
    table = compare_models_ci(
        y, scores, groups=groups, metrics=["AUROC", "accuracy"], method=method, **QUICK
    )
    assert table["model"].tolist() == [*np.repeat([*scores], 2), *scores]
    table = table[table["label"] != 0].set_index(["metric", "model"])
    assert table.loc["AUROC"].loc["first", ["difference", "difference_low"]].isna().all()
    for model in ("like it", "worse"):
        row = table.loc[("AUROC", model)]
        expected = roc_auc_score(y, scores[model]) - roc_auc_score(y, scores["first"])
        assert_allclose(row["difference"], expected)
        assert row["difference_low"] <= expected <= row["difference_high"]
        report = classification_report_ci(y, scores[model], groups=groups, method=method, **QUICK)
        assert_allclose(row[["value", "low", "high"]].astype(float), report.value("AUROC", 1))
    like, worse = (table.loc[("AUROC", model)] for model in ("like it", "worse"))
    # the intervals of two models that know the same overlap, and that of their difference is small
    assert like["difference_high"] - like["difference_low"] < 0.3 * (like["high"] - like["low"])
    assert worse["difference_high"] < 0


def test_a_model_does_not_differ_from_itself():
    y, scores, groups = draw(60)
    table = compare_models_ci(y, dict.fromkeys("ab", scores["first"]), groups=groups, **QUICK)
    differences = table[table["model"] == "b"].filter(like="difference")
    assert (differences == 0).all(axis=None)
    assert table["metric"].unique().tolist() == [
        "accuracy", "balanced accuracy", "macro AUROC", "log loss", "Brier score", "ECE"
    ]  # fmt: skip


def test_findings_are_compared_too():
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=(80, 2)).astype(float)
    truth[::7, 0] = np.nan
    scores = {name: np.clip(rng.normal(0.3 + 0.4 * np.nan_to_num(truth), s), 0, 1)
              for name, s in (("good", 0.1), ("poor", 0.6))}  # fmt: skip
    table = compare_models_ci(truth, scores, labels=["a", "b"], metrics="AUROC", **QUICK)
    assert table["label"].tolist() == ["a", "b"] * 2
    assert (table["difference_high"][2:] < 0).all()


def test_what_cannot_be_compared_is_said():
    y, scores, _ = draw(40)
    with pytest.raises(InputError, match="1 models"):
        compare_models_ci(y, {"a": scores["first"]})
    with pytest.raises(InputError, match=r"\['recall'\] are unknown"):
        compare_models_ci(y, scores, metrics=["recall"])
    with pytest.raises(InputError, match=r"scores\['b'\]: y_score has 3 entries"):
        compare_models_ci(y, {"a": scores["first"], "b": [0.1] * 3})
    with pytest.raises(InputError, match=r"scores\['b'\]: y_score is None"):
        compare_models_ci(y, {"a": scores["first"], "b": None})


def brute(y: np.ndarray, score: np.ndarray, kind: str, value: float) -> tuple[float, float]:
    """Sensitivity and specificity of the best threshold; of equal ones, the one just reaching."""
    found = []
    for threshold in [*np.unique(score), np.inf]:
        called = score >= threshold
        pair = called[y == 1].mean(), (~called)[y == 0].mean()
        if pair[kind == "specificity"] >= value - 1e-12:
            found.append(pair)
    other = int(kind == "sensitivity")
    return max(found, key=lambda pair: (pair[other], -pair[1 - other]))


@pytest.mark.parametrize("kind", ["sensitivity", "specificity"])
@pytest.mark.parametrize("ties", [False, True])
def test_a_threshold_reaches_what_is_wanted_and_loses_least(kind, ties):
    y, scores, groups = draw()
    score = np.round(scores["first"], 1) if ties else scores["first"]
    wanted = [0.3, 0.8, 0.95, 1.0]
    table = operating_points(y, score, pos_label=1, groups=groups, **{kind: wanted}, **QUICK)
    for value, (name, part) in zip(wanted, table.groupby("wanted", sort=False), strict=True):
        assert name == f"{kind} >= {value:g}"
        values = part.set_index("metric")["value"]
        assert_allclose(values[["sensitivity", "specificity"]], brute(y, score, kind, value))
        called = np.where(score >= part["threshold"].iloc[0], 1, 0)
        report = classification_report_ci(y, y_pred=called, labels=[0, 1], groups=groups, **QUICK)
        for row in part.itertuples():
            assert_allclose([row.value, row.low, row.high], report.value(row.metric, 1))


def test_operating_points_of_many_classes_at_a_prevalence():
    rng = np.random.default_rng(0)
    y = np.array(["a", "b", "c"])[rng.integers(3, size=150)]
    score = rng.normal((y == "b") * 2.0)  # no probabilities
    table = operating_points(
        y, score, pos_label="b", sensitivity=0.9, specificity=0.9, prevalence=0.1, **QUICK
    )
    assert table["wanted"].unique().tolist() == ["sensitivity >= 0.9", "specificity >= 0.9"]
    first = table[table["wanted"] == "sensitivity >= 0.9"].set_index("metric")["value"]
    ppv, npv = predictive_values(first["sensitivity"], first["specificity"], 0.1)
    assert_allclose(first[["PPV at prevalence 0.1", "NPV at prevalence 0.1"]], [ppv, npv])


def test_a_specificity_of_one_may_find_nobody():
    y, score = [1, 1, 0, 0], [0.1, 0.2, 0.3, 0.9]
    table = operating_points(y, score, pos_label=1, specificity=1, **QUICK)
    assert np.isinf(table["threshold"]).all()
    assert table.set_index("metric")["value"]["sensitivity"] == 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sensitivity": None}, "neither sensitivity nor specificity"),
        ({"sensitivity": 0}, "sensitivity=0 cannot be reached"),
        ({"sensitivity": [0.9, 95]}, "sensitivity=95"),
        ({"sensitivity": "high"}, "sensitivity='high'"),
        ({"pos_label": "flu"}, "pos_label='flu' and another class"),
        ({"y_true": [1, 1, 1]}, "pos_label=1 and another class"),
        ({"y_score": [0.1, np.nan, 0.2]}, "y_score is nan in 1 of 3 cases, first in 1"),
        ({"y_score": [[0.1, 0.9]] * 3}, "pass the column of pos_label"),
        ({"y_score": [0.1, 0.2]}, "y_score has 2 entries, but y_true has 3"),
        ({"y_true": [[0, 1]] * 3}, "several columns"),
        ({"prevalence": 1.0}, "prevalence is 1.0"),
        ({"groups": [1]}, "groups has 1 entries"),
    ],
)
def test_points_that_cannot_be_had_are_said(change, match):
    arguments = {
        "y_true": [0, 1, 1], "y_score": [0.1, 0.2, 0.9], "pos_label": 1, "sensitivity": 0.9
    } | change  # fmt: skip
    with pytest.raises(InputError, match=match):
        operating_points(**arguments)


def test_predictive_values_by_counting():
    n, prevalence, sensitivity, specificity = 100_000, 0.02, 0.9, 0.8
    tp, fp = n * prevalence * sensitivity, n * (1 - prevalence) * (1 - specificity)
    tn, fn = n * (1 - prevalence) - fp, n * prevalence - tp
    expected = tp / (tp + fp), tn / (tn + fn)
    assert_allclose(predictive_values(sensitivity, specificity, prevalence), expected)
    ppv, npv = predictive_values([0.5, 0.9], 0.8, 0.02)
    assert ppv.shape == npv.shape == (2,)
    assert_allclose(ppv[1], expected[0])
    assert np.isnan(predictive_values(0, 1, 0.5)[0])  # nobody is called positive
    for wrong in (-0.1, 1.1, np.nan, "x"):
        with pytest.raises(InputError, match="specificity"):
            predictive_values(0.9, wrong, 0.5)


def test_ece_of_findings_is_one_for_each():
    truth = np.array([[0, 1], [1, np.nan], [1, 0], [0, 1.0]])
    errors = expected_calibration_error(truth, np.full((4, 2), 0.5), n_bins=5)
    assert_allclose(errors, [0, 2 / 3 - 0.5])
    with pytest.raises(InputError, match="y_score is NaN"):
        expected_calibration_error([0, 1], [0.5, np.nan])
    with pytest.raises(ValueError, match="n_bins"):
        expected_calibration_error([0, 1], [0.5, 0.5], n_bins=0)
