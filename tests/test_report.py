"""evaluate() and its page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline

from skcxr import CXRClassifier, ImageLoader, InputError, PatientWarning, make_cxr_phantoms
from skcxr.metrics import classification_report_ci
from skcxr.report import CARD_FIELDS, evaluate

QUICK = {"n_resamples": 100, "progress": False}


@pytest.fixture(scope="module")
def train():
    return make_cxr_phantoms(40, n_classes=2, image_size=32, random_state=0)


@pytest.fixture(scope="module")
def test():
    return make_cxr_phantoms(36, n_classes=2, image_size=32, random_state=1)


@pytest.fixture(scope="module")
def clf(train):
    return CXRClassifier(max_epochs=3, random_state=0).fit(train.data, train.target)


@pytest.fixture(scope="module")
def report(clf, train, test):
    other = make_cxr_phantoms(12, n_classes=2, image_size=32, noise=2, random_state=2)
    frame = pd.DataFrame({"sex": np.tile(["F", "M"], 18), "age": np.repeat([3, 30, 50, 80], 9)})
    return evaluate(
        clf, test.data, test.target, groups=test.groups, frame=frame, train=train,
        source=np.repeat(["here", "there"], 18), prevalence={"Healthy": 0.9},
        external={"labelled": (other.data, other.target, other.groups),
                  "<script>unlabelled": (other.data, None)},
        card={"intended use": "<b>teaching</b>"}, title="Phantoms & more", **QUICK,
    )  # fmt: skip


class Page(HTMLParser):
    """Tags that stay open, ids, and what is fetched from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        for name in ("src", "href", "xlink:href"):
            if name in attrs:
                self.links.append(attrs[name])
        if tag not in ("meta", "link", "img", "br", "path", "use", "line", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in ("path", "use", "line", "rect"):
            return
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_scores_are_those_of_the_metrics(report, clf, test):
    proba = clf.predict_proba(test.data)
    np.testing.assert_allclose(report.y_score, proba)
    np.testing.assert_array_equal(report.y_pred, clf.predict(test.data))
    alone = classification_report_ci(
        test.target,
        proba,
        labels=list(clf.classes_),
        groups=test.groups,
        n_resamples=100,
        random_state=0,
    )
    for metric in ("accuracy", "macro AUROC", "log loss"):
        assert report.metrics.value(metric)[0] == pytest.approx(alone.value(metric)[0])
    assert report.confusion.to_numpy().sum() == len(test.data)
    frame = report.to_frame()
    assert set(frame["collection"]) == {"test set", "labelled"}
    subgroups = set(frame["subgroup"])
    assert {"sex=F", "source=here", "age=18 to 39", "age=1 to 17"} <= subgroups


def test_page_is_whole_and_fetches_nothing(report, tmp_path):
    path = tmp_path / "report.html"
    text = report.to_html(path)
    assert path.read_text(encoding="utf-8") == text
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link.startswith(("data:", "#")), link
        if link.startswith("#"):
            assert link[1:] in page.ids
    assert "@import" not in text
    assert "url(http" not in text
    assert len(text) < 5e6
    words = " ".join(page.words)
    assert "For research only, not for diagnosis." in words
    for wanted in ("Summary", "Confusion matrix", "Thresholds", "Subgroups", "Model card",
                   "The data: leaks and shortcuts", "does it read the lungs?"):  # fmt: skip
        assert wanted in words
    assert "nan" not in re.findall(r"[a-z]+", words)


def test_what_users_give_is_escaped(report):
    text = report.to_html()
    assert "<script>" not in text
    assert "<b>teaching</b>" not in text
    assert "&lt;b&gt;teaching&lt;/b&gt;" in text
    assert "Phantoms &amp; more" in text
    assert "<script>" not in report._repr_html_()


def test_card_says_what_is_not_reported(report):
    rows = [row for section in report.card.values() for row in section]
    assert [name for name, _ in rows] == [n for names in CARD_FIELDS.values() for n in names]
    card = dict(rows)
    assert card["intended use"] == "<b>teaching</b>"
    assert card["ethics approval"] == "not reported"
    assert "not reported" in report.to_html()


def test_other_collections_in_words(report, clf):
    unlabelled = report.external["<script>unlabelled"]
    assert unlabelled.metrics is None
    assert unlabelled.answers["images"].sum() == 12
    assert unlabelled.answers["share"].sum() == pytest.approx(1)
    top = unlabelled.answers.loc[unlabelled.answers["share"].idxmax()]
    assert f"calls {top['images']} ({top['share']:.0%}) {top['class']}" in unlabelled.sentences[0]
    labelled = report.external["labelled"]
    here, inside = labelled.metrics.value("accuracy")[0], report.metrics.value("accuracy")[0]
    said = next(sentence for sentence in labelled.sentences if sentence.startswith("Accuracy"))
    assert f"{here:.2f}" in said
    assert f"{inside:.2f}" in said


def test_audit_covers_the_training_films(report, train, test):
    assert report.audit is not None
    assert f"{len(train.data) + len(test.data)} images" in report.audit.title
    # the same patients' numbers stand on both sides of these phantoms
    assert "patients across the split" in [finding.check for finding in report.audit.alarms]
    alone = dict(report.data)["training films"]
    assert "audited" in alone


def test_same_seed_same_page(clf, test):
    pages = [
        evaluate(clf, test.data, test.target, groups=test.groups, heatmaps=None, **QUICK).to_html()
        for _ in range(2)
    ]
    assert pages[0] == pages[1]


def _written(images, folder):
    """The images as files."""
    folder.mkdir()
    paths = [str(folder / f"film{k:02}.png") for k in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def test_paths_and_files_that_cannot_be_read(test, train, tmp_path):
    paths = _written(test.data, tmp_path / "films")
    broken = str(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    model = CXRClassifier(max_epochs=1, on_error="nan", random_state=0)
    model.fit(train.data, train.target)
    with pytest.warns(UserWarning, match=r"broken\.png|groups is not given"):
        report = evaluate(
            model, [*paths, broken], [*test.target, "Healthy"], shortcuts=False, audit=False,
            **QUICK,
        )  # fmt: skip
    assert report.unread == ["broken.png"]
    assert len(report.y_true) == len(test.data)
    assert "broken.png" in report.to_html()


def test_patients_that_are_not_given_are_warned_of(clf, test):
    with pytest.warns(PatientWarning, match="evaluate: groups is not given"):
        evaluate(clf, test.data, test.target, audit=False, shortcuts=False, heatmaps=None, **QUICK)


def test_any_classifier_of_scikit_learn(train, test):
    X, X_test = (bunch.data.reshape(len(bunch.data), -1) / 255 for bunch in (train, test))
    forest = RandomForestClassifier(20, random_state=0).fit(X, train.target)
    report = evaluate(forest, X_test, test.target, groups=test.groups, **QUICK)
    assert report.heatmap_note.startswith("No heatmaps")
    assert len(report.gallery) == 8
    assert report.gallery[0].image.shape == (32, 32)
    svc = RidgeClassifier().fit(X, train.target)  # no probabilities
    report = evaluate(svc, X_test, test.target, groups=test.groups, **QUICK)
    assert report.y_score is None
    assert "macro AUROC" not in str(report.metrics)
    assert Page(report.to_html()).open == []


def test_heatmaps_of_a_pipeline(train, test, tmp_path):
    pipeline = make_pipeline(ImageLoader(32), CXRClassifier(max_epochs=1, random_state=0))
    pipeline.fit(_written(train.data, tmp_path / "train"), train.target)
    paths = _written(test.data, tmp_path / "test")
    report = evaluate(
        pipeline, paths, test.target, groups=test.groups, audit=False, shortcuts=False,
        heatmaps="gradcam", **QUICK,
    )  # fmt: skip
    assert all(film.heatmap is not None for film in report.gallery + report.errors)
    assert [film.true != film.predicted for film in report.errors] == [True] * len(report.errors)


def test_findings(train, test):
    def findings(bunch):
        y = np.stack([bunch.target == "Healthy", np.arange(len(bunch.target)) % 2 == 0], axis=1)
        return pd.DataFrame(y.astype(float), columns=["clear", "even"])

    y, y_test = findings(train), findings(test)
    y_test.iloc[0, 0] = np.nan
    model = CXRClassifier(max_epochs=1, random_state=0).fit(train.data, y)
    report = evaluate(model, test.data, y_test, groups=test.groups, heatmaps=None, **QUICK)
    assert report.confusion is None
    assert report.shortcuts is None
    assert report.labels == ["clear", "even"]
    assert Page(report.to_html()).open == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": ["Healthy"]}, "36 images but y has 1"),
        ({"y": ["Influenza"] * 36}, "Influenza"),
        ({"groups": [1, 2]}, "groups has shape"),
        ({"card": {"intended uses": "x"}}, "did you mean 'intended users'"),
        ({"external": {"there": 3}}, r"external\['there'\] must be"),
        ({"frame": pd.DataFrame({"sex": ["F"]})}, "36 rows"),
        ({"prevalence": {"Healthy": 2.0}}, "prevalence"),
        ({"train": (np.zeros((3, 8, 8)), ["Healthy"] * 3, [1, 2, 3])}, "another kind or size"),
    ],
)
def test_what_does_not_fit_is_said(clf, test, change, words):
    given = {"y": test.target, "groups": test.groups, "shortcuts": False, "heatmaps": None}
    given |= change
    with pytest.raises(InputError, match=words):
        evaluate(clf, test.data, given.pop("y"), **given, **QUICK)


def test_what_is_no_classifier_is_refused(test):
    with pytest.raises(InputError, match="neither predict_proba nor predict"):
        evaluate(object(), test.data, test.target, groups=test.groups, **QUICK)


def test_tuned_thresholds_are_kept(train, test):
    from sklearn.model_selection import FixedThresholdClassifier

    model = LogisticRegression(max_iter=500)
    X, X_test = (bunch.data.reshape(len(bunch.data), -1) / 255 for bunch in (train, test))
    model = FixedThresholdClassifier(model, threshold=0.99).fit(X, train.target)
    report = evaluate(
        model, X_test, test.target, groups=test.groups, audit=False, shortcuts=False, **QUICK
    )
    np.testing.assert_array_equal(report.y_pred, model.predict(X_test))


def test_patients_whom_nobody_knows_are_not_on_both_sides(train, test):
    X, X_test = (bunch.data.reshape(len(bunch.data), -1) / 255 for bunch in (train, test))
    model = LogisticRegression(max_iter=500).fit(X, train.target)
    with pytest.warns(PatientWarning):
        report = evaluate(
            model, X_test, test.target, train=(X, train.target), shortcuts=False, heatmaps=None,
            **QUICK,
        )  # fmt: skip
    assert "patients across the split" not in [finding.check for finding in report.audit]


def test_findings_are_taken_by_their_names(train, test):
    def findings(bunch):
        y = np.stack([bunch.target == "Healthy", np.arange(len(bunch.target)) % 3 == 0], axis=1)
        return pd.DataFrame(y.astype(float), columns=["clear", "third"])

    model = CXRClassifier(max_epochs=1, random_state=0).fit(train.data, findings(train))
    y, quiet = findings(test), {"shortcuts": False, "heatmaps": None, "audit": False} | QUICK
    a, b = (
        evaluate(model, test.data, y[order], groups=test.groups, **quiet).to_frame()
        for order in (["clear", "third"], ["third", "clear"])
    )
    pd.testing.assert_frame_equal(a, b)
    with pytest.raises(InputError, match="third"):
        evaluate(model, test.data, y.rename(columns={"third": "fourth"}), groups=test.groups,
                 **quiet)  # fmt: skip


def test_unusual_tables_and_labels(train, test, tmp_path):
    X, X_test = (bunch.data.reshape(len(bunch.data), -1) / 255 for bunch in (train, test))
    names = {"Healthy": "$\\frac$", "Bacterial Pneumonia": "a <b> & c"}
    y, y_test = ([names[label] for label in bunch.target] for bunch in (train, test))
    model = LogisticRegression(max_iter=500).fit(X, y)
    frame = pd.DataFrame({"sex": pd.array(["F", "M", None] * 12, dtype="string"),
                          "age": [-1, 30, 70] * 12})  # fmt: skip
    report = evaluate(model, X_test, y_test, groups=test.groups, frame=frame, shortcuts=False,
                      heatmaps=None, **QUICK)  # fmt: skip
    subgroups = set(report.to_frame()["subgroup"])
    assert {"sex=unknown", "age=unknown", "age=65 and over"} <= subgroups
    sizes = report.to_frame().query("subgroup == 'age=65 and over'")["n_cases"]
    assert sizes.max() == 12
    page = report.to_html()
    assert "$\\frac$" in page
    assert "a <b>" not in page
    with pytest.raises(InputError, match="folder"):
        report.to_html(tmp_path / "gone" / "report.html")


def test_films_show_what_is_predicted(train, test):
    from sklearn.model_selection import FixedThresholdClassifier

    X, X_test = (bunch.data.reshape(len(bunch.data), -1) / 255 for bunch in (train, test))
    model = FixedThresholdClassifier(LogisticRegression(C=1e-9), threshold=0.99)
    model.fit(X, train.target)
    report = evaluate(model, X_test, test.target, groups=test.groups, audit=False,
                      shortcuts=False, **QUICK)  # fmt: skip
    said = set(model.predict(X_test).tolist())
    assert len(said) == 1
    assert {film.predicted for film in report.gallery} == said
    assert all(film.wrong == (film.true != film.predicted) for film in report.gallery)
