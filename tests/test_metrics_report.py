"""Reports of classes, findings and subgroups, and what is said of arguments that do not fit."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from skcxr import InputError
from skcxr.metrics import classification_report_ci, predictive_values

COLUMNS = ["subgroup", "label", "metric", "value", "low", "high", "n_cases", "n_patients"]
QUICK = {"n_resamples": 100, "random_state": 0}


def draw(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of three classes, probabilities in their sorted order, and patients."""
    rng = np.random.default_rng(seed)
    numbers, latent = rng.integers(3, size=n), rng.normal(size=(n, 3))
    latent[np.arange(n), numbers] += 1
    proba = np.exp(latent) / np.exp(latent).sum(axis=1, keepdims=True)
    return np.array(["covid", "healthy", "other"])[numbers], proba, rng.integers(n // 3, size=n)


def draw_findings(n: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three findings with NaN, probabilities and patients."""
    rng = np.random.default_rng(0)
    truth = (rng.random((n, 3)) < [0.5, 0.3, 0.2]).astype(float)
    proba = np.clip(rng.normal(0.3 + 0.4 * truth, 0.2), 0.01, 0.99)
    truth[rng.random((n, 3)) < 0.2] = np.nan
    return truth, proba, np.arange(n) // 2


def test_the_frame_is_tidy():
    y, proba, groups = draw()
    report = classification_report_ci(y, proba, groups=groups, **QUICK)
    frame = report.to_frame()
    assert list(frame.columns) == COLUMNS
    assert not frame.duplicated(["subgroup", "label", "metric"]).any()
    assert frame["label"].unique().tolist() == ["overall", "covid", "healthy", "other"]
    assert report.labels == ["covid", "healthy", "other"]
    assert (report.n_cases, report.n_patients) == (120, len(set(groups)))
    for row in frame.itertuples():
        of_label = np.ones(120, bool) if row.label == "overall" else y == row.label
        assert row.n_cases == of_label.sum()
        assert row.n_patients == len(set(groups[of_label]))
        assert report.value(row.metric, row.label) == pytest.approx(
            (row.value, row.low, row.high), nan_ok=True
        )
    known = frame.dropna()
    assert ((known["low"] <= known["value"]) & (known["value"] <= known["high"])).all()


def test_it_is_printed_for_a_terminal_and_a_page():
    y, proba, groups = draw()
    report = classification_report_ci(
        np.where(y == "other", "a <b>", y), proba[:, [2, 0, 1]], groups=groups,
        subgroups={"sex": np.where(groups % 2, "F", "M")}, prevalence={"covid": 0.02}, **QUICK,
    )  # fmt: skip
    text = str(report)
    value, low, high = report.value("sensitivity", "covid")
    assert f"{value:.3f} ({low:.3f} to {high:.3f})" in text
    assert "PPV (precision)" in text
    assert text.count("precision") == 2  # there, and of average precision
    assert max(map(len, text.splitlines())) <= 100
    for part in ("120 cases", "sex=F", "balanced accuracy", "PPV at prevalence 0.02"):
        assert part in text
    page = report._repr_html_()
    assert "<b>" not in page
    assert "a &lt;b&gt;" in page
    assert page.count("<table>") == page.count("</table>") == 3
    assert "120 cases" in repr(report)


@pytest.mark.parametrize("cast", [list, np.array, pd.Series, lambda v: np.array(v, dtype=object),
                                  lambda v: pd.Series(v, dtype="category"),
                                  lambda v: pd.DataFrame({"y": v})])  # fmt: skip
@pytest.mark.parametrize("names", [["b", "a"], [7, 3], [True, False], [1.0, 0.0]])
def test_classes_may_be_anything_that_sorts(cast, names):
    rng = np.random.default_rng(0)
    numbers = rng.integers(2, size=60)
    p = np.clip(rng.normal(0.4 + 0.2 * numbers, 0.2), 0, 1)
    first, second = sorted(names)
    y = cast([second if number else first for number in numbers])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = classification_report_ci(y, pd.Series(p), **QUICK)
    assert report.labels == [first, second]
    assert_allclose(report.value("AUROC", second)[0], roc_auc_score(numbers, p))
    same = classification_report_ci(y, np.column_stack([1 - p, p]).tolist(), **QUICK)
    pd.testing.assert_frame_equal(report.to_frame(), same.to_frame())


def test_the_order_of_labels_is_that_of_the_columns():
    y, proba, groups = draw()
    ours = classification_report_ci(y, proba, groups=groups, **QUICK)
    turned = classification_report_ci(
        y, proba[:, ::-1], labels=["other", "healthy", "covid"], groups=groups, **QUICK
    )
    assert turned.labels == ["other", "healthy", "covid"]
    for label in ours.labels:
        assert_allclose(turned.value("AUROC", label), ours.value("AUROC", label))


def test_predictions_alone_leave_out_what_needs_probabilities():
    y, proba, groups = draw()
    predicted = np.array(["covid", "healthy", "other"])[proba.argmax(axis=1)]
    alone = classification_report_ci(y, y_pred=predicted, groups=groups, **QUICK)
    both = classification_report_ci(y, proba, groups=groups, **QUICK)
    known = set(alone.to_frame()["metric"])
    assert not known & {"AUROC", "average precision", "macro AUROC", "log loss", "Brier score"}
    merged = alone.to_frame().merge(both.to_frame(), on=COLUMNS[:3])
    assert_allclose(merged[["value_x", "low_x", "high_x"]], merged[["value_y", "low_y", "high_y"]])
    assert np.isnan(alone.value("macro AUROC")).all()


def test_a_subgroup_has_the_report_of_its_cases():
    y, proba, groups = draw(150)
    sex = np.where(groups % 2, "F", "M").astype(object)
    sex[:9] = None
    frame = pd.DataFrame({"sex": sex, "age": pd.cut(groups, [-1, 15, 99], labels=["<16", "16+"])})
    whole = classification_report_ci(y, proba, groups=groups, subgroups=frame, **QUICK)
    tidy = whole.to_frame()
    assert tidy["subgroup"].unique().tolist() == [
        "all", "sex=F", "sex=M", "sex=unknown", "age=<16", "age=16+"
    ]  # fmt: skip
    for name, rows in (("sex=F", sex == "F"), ("age=16+", groups > 15)):
        part = classification_report_ci(y[rows], proba[rows], groups=groups[rows], **QUICK)
        found = tidy[tidy["subgroup"] == name].drop(columns="subgroup").reset_index(drop=True)
        pd.testing.assert_frame_equal(found, part.to_frame().drop(columns="subgroup"))
        assert whole.value("accuracy", subgroup=name) == part.value("accuracy")
    plain = classification_report_ci(y, proba, groups=groups, **QUICK).to_frame()
    pd.testing.assert_frame_equal(tidy[tidy["subgroup"] == "all"], plain)


def test_predictive_values_go_with_the_prevalence():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    p = np.clip(rng.normal(0.3 + 0.4 * y, 0.2), 0, 1)
    share = float(y.mean())
    report = classification_report_ci(y, p, prevalence=share, **QUICK)
    for metric in ("PPV", "NPV"):
        name = f"{metric} at prevalence {share:g}"
        assert_allclose(report.value(name, 1)[0], report.value(metric, 1)[0])
    rare = classification_report_ci(y, p, prevalence={1: 0.01}, **QUICK)
    ppv, low, high = rare.value("PPV at prevalence 0.01", 1)
    sensitivity, specificity = (rare.value(m, 1)[0] for m in ("sensitivity", "specificity"))
    assert_allclose(ppv, predictive_values(sensitivity, specificity, 0.01)[0])
    assert low < ppv < high < report.value("PPV", 1)[1]


def test_findings_are_scored_where_they_are_labelled():
    truth, proba, groups = draw_findings()
    names = ["opacity", "effusion", "mass"]
    report = classification_report_ci(
        pd.DataFrame(truth, columns=names), proba, groups=groups, **QUICK
    )
    assert report.labels == names
    losses, briers, aurocs = [], [], []
    for name, column, p in zip(names, truth.T, proba.T, strict=True):
        known = ~np.isnan(column)
        y, p = column[known], p[known]
        aurocs.append(roc_auc_score(y, p))
        losses.append(log_loss(y, p))
        briers.append(brier_score_loss(y, p))
        assert_allclose(report.value("AUROC", name)[0], aurocs[-1])
        assert_allclose(report.value("average precision", name)[0], average_precision_score(y, p))
        assert_allclose(report.value("sensitivity", name)[0], (p > 0.5)[y == 1].mean())
        assert_allclose(report.value("specificity", name)[0], (p <= 0.5)[y == 0].mean())
        assert report.value("support", name)[0] == y.sum()
    for metric, values in (("macro AUROC", aurocs), ("log loss", losses), ("Brier score", briers)):
        value, low, high = report.value(metric)
        assert_allclose(value, np.mean(values))
        assert low < value < high
    as_lists = [np.column_stack([1 - p, p]) for p in proba.T]  # what forests give
    same = classification_report_ci(truth, as_lists, labels=names, groups=groups, **QUICK)
    pd.testing.assert_frame_equal(report.to_frame(), same.to_frame())


def test_what_is_not_labelled_does_not_count():
    truth, proba, groups = draw_findings()
    other = np.where(np.isnan(truth), 0.77, proba)
    ours, theirs = (
        classification_report_ci(truth, p, groups=groups, **QUICK).to_frame()
        for p in (proba, other)
    )
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_finding_that_is_never_labelled_or_present_is_nan():
    truth, proba, groups = draw_findings()
    truth[:, 0], truth[:, 1] = np.nan, 0
    report = classification_report_ci(truth, proba, groups=groups, **QUICK)
    assert np.isnan(report.value("AUROC", 0)[0])
    assert np.isnan(report.value("sensitivity", 1)[0])
    assert report.value("macro AUROC") == report.value("AUROC", 2)


def test_what_a_report_does_not_hold_is_said():
    y, proba, _ = draw()
    report = classification_report_ci(y, proba, **QUICK)
    with pytest.raises(InputError, match=r"'recall'.*sensitivity"):
        report.value("recall", "covid")
    with pytest.raises(InputError, match=r"'flu'.*\['overall', 'covid', 'healthy', 'other'\]"):
        report.value("sensitivity", "flu")
    with pytest.raises(InputError, match="'sex=F'"):
        report.value("accuracy", subgroup="sex=F")
    assert any("groups is not given" in note for note in report.notes)
    assert max(map(len, str(report).splitlines())) <= 100


Y, P, G = draw(30)
NAN = P.copy()
NAN[[3, 7]] = np.nan
HIGH = P.copy()
HIGH[4] = 1.5, -0.25, -0.25
OFF = P.copy()
OFF[5] *= 0.8
MULTI = np.tile([[0.0, 1.0]], (30, 1))


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        ((Y, P[:20]), {}, "y_score has 20 entries, but y_true has 30 cases"),
        ((Y, P[:, :2]), {}, r"y_score has 2 columns, but y_true holds 3 classes.*clf\.classes_"),
        ((Y, P), {"labels": ["covid", "healthy"]}, "3 columns, but labels has 2"),
        ((Y, P[:, 0]), {}, "one probability a case, but y_true holds 3 classes"),
        ((Y, NAN), {}, r"NaN in 2 of 30 rows \(3, 7\)"),
        ((Y, HIGH), {}, r"y_score\[4, 0\] is 1.5, but probabilities.*predict_proba"),
        ((Y, OFF), {}, "1 of 30 rows of y_score do not sum to 1, first in row 5: 0.8"),
        ((Y, P.astype(str)), {"labels": list("abc")}, "not among the labels"),
        ((Y, [["x"] * 3] * 30), {}, "y_score holds what is no number"),
        ((Y, np.zeros((30, 3, 2))), {}, "y_score has shape"),
        ((Y,), {}, "neither y_score nor y_pred"),
        (([], []), {}, "there are no cases"),
        ((Y, P), {"y_pred": Y[:9]}, "y_pred has 9 entries"),
        ((Y, P), {"y_pred": ["flu", *Y[1:]]}, r"y_pred\[0\] is 'flu', which is not among"),
        ((Y, P), {"labels": ["covid", "healthy", "flu"]}, r"y_true\[\d+\] is 'other'"),
        ((Y, P), {"labels": ["covid", "covid", "other"]}, r"\['covid'\] stand more than once"),
        ((["a", None] * 15, P[:, 0]), {}, r"y_true\[1\] is None"),
        (([0.0, np.nan] * 15, P[:, 0]), {}, r"y_true\[1\] is nan"),
        ((pd.Series(["a", pd.NA] * 15), P[:, 0]), {}, r"y_true\[1\] is (<NA>|nan)"),
        ((["a", 1] * 15, P[:, 0]), {}, "cannot be sorted"),
        ((["overall", "b"] * 15, P[:, 0]), {}, "'overall'"),
        ((Y, P), {"groups": G[:7]}, "groups has 7 entries, but y_true has 30 cases"),
        ((Y, P), {"groups": [None, *G[1:]]}, r"groups\[0\] is None"),
        ((Y, P), {"groups": np.stack([G, G], 1)}, r"groups has shape \(30, 2\)"),
        ((Y, P), {"groups": "patient"}, "groups is str"),
        ((Y, P), {"prevalence": 0.1}, "there are 3 labels; pass a dict"),
        ((Y, P), {"prevalence": {"flu": 0.1}}, "prevalence names 'flu'"),
        ((Y, P), {"prevalence": {"covid": 1}}, "prevalence of 'covid' is 1"),
        ((Y, P), {"prevalence": {"covid": "high"}}, "prevalence of 'covid' is 'high'"),
        ((Y, P), {"subgroups": ["F"] * 30}, "subgroups is list"),
        ((Y, P), {"subgroups": {"sex": ["F"] * 3}}, r"subgroups\['sex'\] has 3 entries"),
        ((Y, P), {"subgroups": {"age": np.arange(30)}}, "30 different values.*pandas.cut"),
        ((MULTI * 2, MULTI), {}, r"y_true\[0, 1\] is 2; findings"),
        ((MULTI, P), {}, r"y_score has shape \(30, 3\), but y_true has shape \(30, 2\)"),
        ((MULTI, MULTI), {"labels": ["a"]}, "labels has 1 names, but y_true has 2 findings"),
        ((MULTI,), {"y_pred": MULTI + 0.5}, r"y_pred\[0, 0\] is 0.5"),
        ((MULTI,), {"y_pred": MULTI[:, :1]}, r"y_pred has shape \(30, 1\)"),
        ((np.zeros((30, 2, 2)), P), {}, r"y_true has shape \(30, 2, 2\)"),
        ((np.full((30, 2), "x"), P), {}, "y_true holds what is no number"),
    ],
)  # fmt: skip
def test_an_error_names_what_is_wrong(arguments, options, match):
    with pytest.raises(InputError, match=match):
        classification_report_ci(*arguments, **options)


@pytest.mark.parametrize(
    "options",
    [{"method": "bca"}, {"n_resamples": 10}, {"confidence_level": 95}, {"n_bins": 0},
     {"random_state": "x"}],
)  # fmt: skip
def test_parameters_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        classification_report_ci(Y, P, **options)
