"""Which of scikit-learn's meta-estimators take which kind of X, as the user guide's tables say.

Every combination is fitted, and predicts or scores. What comes of it is compared with
``docs/user_guide/_meta_estimators.csv``, cell by cell and as a whole; the reasons and the ways
out are in ``docs/user_guide/_meta_estimators_notes.csv``. To write both files anew::

    SKCXR_REWRITE_TABLE=1 pytest tests/test_meta_estimators.py -k committed
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_array_equal
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    cross_val_score,
    learning_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from skcxr import CXRClassifier, ImageLoader

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "user_guide"
TABLE = FOLDER / "_meta_estimators.csv"
NOTES_TABLE = FOLDER / "_meta_estimators_notes.csv"

SKLEARN = tuple(int(part) for part in sklearn.__version__.split(".")[:2])

# scikit-learn 1.6 gives LogisticRegression's solver an option that later versions of SciPy drop
pytestmark = pytest.mark.filterwarnings(
    "ignore:scipy.optimize. The `disp` and `iprint` options:DeprecationWarning"
)

# ------------------------------------------------------------------------------------------
# columns: kinds of X, all of the same images
# ------------------------------------------------------------------------------------------

LIST = "list of paths"
OBJECTS = "1-D array of paths"
SERIES = "Series of paths"
FRAME = "one-column DataFrame of paths"
IMAGES = "images (n, H, W)"
FIRST = "images (n, C, H, W)"
LAST = "images (n, H, W, C)"
ROWS = "rows"
LOADER = 'paths behind ImageLoader(output="rows")'

PATHS = (LIST, OBJECTS, SERIES, FRAME)
ARRAYS = (IMAGES, FIRST, LAST)

KINDS: dict[str, Callable[[list[str], np.ndarray], Any]] = {
    LIST: lambda files, pixels: files,
    OBJECTS: lambda files, pixels: np.array(files, dtype=object),
    SERIES: lambda files, pixels: pd.Series(files),
    FRAME: lambda files, pixels: pd.DataFrame({"path": files}),
    IMAGES: lambda files, pixels: pixels,
    FIRST: lambda files, pixels: np.repeat(pixels[:, None], 3, axis=1),
    LAST: lambda files, pixels: np.repeat(pixels[..., None], 3, axis=3),
    ROWS: lambda files, pixels: pixels.reshape(len(pixels), -1),
    LOADER: lambda files, pixels: files,
}


def loader() -> ImageLoader:
    return ImageLoader(20, output="rows")


# ------------------------------------------------------------------------------------------
# rows: meta-estimators
# ------------------------------------------------------------------------------------------


class Members(NamedTuple):
    """What the meta-estimators are made of."""

    clf: CXRClassifier
    classical: Any  # a pipeline without a network, on the same X

    def both(self) -> list[tuple[str, Any]]:
        return [("network", self.clf), ("classical", self.classical)]


def flatten(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def members(kind: str) -> Members:
    # the quickest that is not nonsense: AdaBoost stops at members that are worse than chance
    clf = CXRClassifier("smallnet", max_epochs=3, lr=0.01, random_state=0)
    if kind in PATHS:
        clf.set_params(image_size=20)
        return Members(clf, make_pipeline(ImageLoader(8, output="rows"), LogisticRegression()))
    flat = make_pipeline(FunctionTransformer(flatten), StandardScaler(), LogisticRegression())
    return Members(clf, flat)


GRID = {"lr": [0.003, 0.03]}
SEARCH = {"cv": 2, "error_score": "raise"}

ESTIMATORS: dict[str, Callable[[Members], Any]] = {
    "Pipeline": lambda m: make_pipeline("passthrough", m.clf),
    "GridSearchCV": lambda m: GridSearchCV(m.clf, GRID, **SEARCH),
    "RandomizedSearchCV": lambda m: RandomizedSearchCV(
        m.clf, GRID, n_iter=2, random_state=0, **SEARCH
    ),
    "HalvingGridSearchCV": lambda m: HalvingGridSearchCV(
        m.clf, GRID, factor=2, random_state=0, **SEARCH
    ),
    "VotingClassifier, hard": lambda m: VotingClassifier(m.both(), voting="hard"),
    "VotingClassifier, soft": lambda m: VotingClassifier(m.both(), voting="soft"),
    "StackingClassifier": lambda m: StackingClassifier(m.both(), cv=2),
    "CalibratedClassifierCV, sigmoid": lambda m: CalibratedClassifierCV(
        m.clf, method="sigmoid", cv=2
    ),
    "CalibratedClassifierCV, isotonic": lambda m: CalibratedClassifierCV(
        m.clf, method="isotonic", cv=2
    ),
    "CalibratedClassifierCV, temperature": lambda m: CalibratedClassifierCV(
        m.clf, method="temperature", cv=2
    ),
    "TunedThresholdClassifierCV": lambda m: TunedThresholdClassifierCV(m.clf, cv=2, thresholds=5),
    "OneVsRestClassifier": lambda m: OneVsRestClassifier(m.clf),
    "AdaBoostClassifier": lambda m: AdaBoostClassifier(m.clf, n_estimators=2, random_state=0),
    "BaggingClassifier": lambda m: BaggingClassifier(m.clf, n_estimators=2, random_state=0),
    "OneVsOneClassifier": lambda m: OneVsOneClassifier(m.clf),
    "SelfTrainingClassifier": lambda m: SelfTrainingClassifier(m.clf, threshold=0.5, max_iter=2),
    # pixels of 0 to 255 beside probabilities: the last step scales them, or it would not converge
    "StackingClassifier, passthrough": lambda m: StackingClassifier(
        m.both(), make_pipeline(StandardScaler(), LogisticRegression()), cv=2, passthrough=True
    ),
}


def score_by_cross_validation(estimator: Any, X: Any, y: np.ndarray) -> np.ndarray:
    return cross_val_score(estimator, X, y, **SEARCH)


def scores_of_learning_curve(estimator: Any, X: Any, y: np.ndarray) -> np.ndarray:
    return learning_curve(estimator, X, y, train_sizes=[0.5, 1.0], **SEARCH)[2]


def importances(estimator: Any, X: Any, y: np.ndarray) -> np.ndarray:
    fitted = estimator.fit(X, y)
    found = permutation_importance(fitted, X, y, n_repeats=1, random_state=0).importances
    assert len(found) == np.shape(X)[1]
    return found


FUNCTIONS: dict[str, Callable[[Any, Any, np.ndarray], np.ndarray]] = {
    "cross_val_score": score_by_cross_validation,
    "learning_curve": scores_of_learning_curve,
    "permutation_importance": importances,
}

METAS = (*ESTIMATORS, *FUNCTIONS)


def labels(meta: str, n: int) -> np.ndarray:
    if meta in ("OneVsRestClassifier", "OneVsOneClassifier"):
        return np.array(["a", "b", "c"])[np.arange(n) % 3]
    if meta == "SelfTrainingClassifier":  # -1 is not labelled
        return np.where(np.arange(n) % 4 == 3, -1, np.arange(n) % 2)
    if meta == "TunedThresholdClassifierCV":
        return np.arange(n) % 2  # 1 is the positive class by default
    return np.array(["h", "v"])[np.arange(n) % 2]


# ------------------------------------------------------------------------------------------
# notes: why not, and the ways out
# ------------------------------------------------------------------------------------------


class Note(NamedTuple):
    """A reason for cells that say no."""

    metas: tuple[str, ...]
    kinds: tuple[str, ...]
    errors: tuple[tuple[type[Exception], str], ...]  # with a part of the message
    why: str
    columns: tuple[str, ...]  # the ways out
    way_out: str


ONE_D = (
    (ValueError, "Expected 2D array, got 1D array"),
    (ValueError, "Expected a 2-dimensional container"),
)
NO_NUMBER = (ValueError, "could not convert string to float")
TOO_DEEP = (ValueError, "Found array with dim")
UNEQUAL = (ValueError, "all the input arrays must have same number of dimensions")

IN_FRONT = (
    '``make_pipeline(ImageLoader(output="rows"), meta_estimator)``, with the classifier in the '
    "meta-estimator"
)
AS_ROWS = (
    "``X.reshape(len(X), -1)``, of one channel (``X[:, 0]`` or ``X[..., 0]``) where the channels "
    "are equal; ``row_shape=`` says height and width of images that are not square"
)

NOTES = {
    "a": Note(
        ("AdaBoostClassifier", "BaggingClassifier"),
        (LIST, OBJECTS, SERIES),
        ONE_D,
        "It wants X in two dimensions, and paths have one.",
        (FRAME, LOADER),
        f'``pd.DataFrame({{"path": paths}})``, or {IN_FRONT}.',
    ),
    "b": Note(
        ("permutation_importance",),
        (LIST, OBJECTS, SERIES),
        (ONE_D[0], (IndexError, "tuple index out of range")),
        "It permutes columns, and paths in one dimension have none.",
        (FRAME, LOADER),
        '``pd.DataFrame({"path": paths})`` gives one importance, of the image as a whole. '
        'A classifier on ``ImageLoader(output="rows").fit_transform(paths)`` has one for each '
        "pixel.",
    ),
    "c": Note(
        ("OneVsOneClassifier", "SelfTrainingClassifier"),
        PATHS,
        (*ONE_D, NO_NUMBER),
        "It turns X into a table of numbers, and paths are none.",
        (LOADER,),
        f"{IN_FRONT}.",
    ),
    "d": Note(
        (
            "BaggingClassifier",
            "permutation_importance",
            "OneVsOneClassifier",
            "SelfTrainingClassifier",
        ),
        ARRAYS,
        (TOO_DEEP,),
        "It wants X in two dimensions, and images have three or four.",
        (ROWS,),
        f"{AS_ROWS}.",
    ),
    "e": Note(
        ("StackingClassifier, passthrough",),
        PATHS,
        (UNEQUAL, NO_NUMBER),
        "It puts X as columns beside the predictions, and paths are no numbers.",
        (LOADER,),
        f"``passthrough=False``, or {IN_FRONT}.",
    ),
    "f": Note(
        ("StackingClassifier, passthrough",),
        ARRAYS,
        (UNEQUAL,),
        "It puts X as columns beside the predictions, and images are not columns.",
        (ROWS,),
        f"``passthrough=False``, or {AS_ROWS}.",
    ),
}

# how X of one column becomes X of another
WAYS_OUT: dict[tuple[str, str], Callable[[Any], Any]] = {
    (LIST, FRAME): lambda X: pd.DataFrame({"path": X}),
    (OBJECTS, FRAME): lambda X: pd.DataFrame({"path": X}),
    (SERIES, FRAME): lambda X: pd.DataFrame({"path": X}),
    (IMAGES, ROWS): lambda X: X.reshape(len(X), -1),
    (FIRST, ROWS): lambda X: X[:, 0].reshape(len(X), -1),
    (LAST, ROWS): lambda X: X[..., 0].reshape(len(X), -1),
}

# ------------------------------------------------------------------------------------------
# what comes of it
# ------------------------------------------------------------------------------------------


def run(meta: str, kind: str, files: list[str], pixels: np.ndarray) -> None:
    """Fit, and predict or score, as a user would."""
    X, y = KINDS[kind](files, pixels), labels(meta, len(files))
    parts = members(kind)
    if meta in FUNCTIONS:
        estimator = parts.clf
        if kind == LOADER and meta == "permutation_importance":
            X = loader().fit_transform(X)
        elif kind == LOADER:
            estimator = make_pipeline(loader(), estimator)
        assert np.isfinite(FUNCTIONS[meta](estimator, X, y)).all()
        return
    estimator = ESTIMATORS[meta](parts)
    if kind == LOADER:
        estimator = make_pipeline(loader(), estimator)
    predicted = estimator.fit(X, y).predict(X)
    assert predicted.shape == y.shape
    assert set(predicted) <= set(y) - {-1}
    if hasattr(estimator, "predict_proba"):
        proba = estimator.predict_proba(X)
        assert proba.shape == (len(y), len(set(y) - {-1}))
        assert np.isfinite(proba).all()


def outcome(meta: str, kind: str, files: list[str], pixels: np.ndarray) -> str:
    """The cell: "yes" or "no" with its note; an error that no note knows is raised."""
    try:
        run(meta, kind, files, pixels)
    except Exception as error:
        for key, note in NOTES.items():
            if meta in note.metas and kind in note.kinds:
                for expected, phrase in note.errors:
                    if type(error) is expected and phrase in str(error):
                        return f"no ({key})"
        raise
    return "yes"


def not_here(meta: str, kind: str) -> str | None:
    """Why this version of scikit-learn cannot say anything about a cell, or None."""
    if "temperature" in meta and SKLEARN < (1, 8):
        return "temperature scaling came with scikit-learn 1.8"
    if kind == FRAME and meta in NOTES["c"].metas and SKLEARN < (1, 8):
        return "pandas' string columns, new in pandas 3, pass through scikit-learn before 1.8"
    return None


def committed() -> dict[str, dict[str, str]]:
    """The table as it is in the user guide: row -> column -> cell."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row.pop("Meta-estimator"): row for row in rows}


def as_csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def table_of_notes() -> str:
    rows = [["Note", "Why not, and what to do"]]
    for key, note in NOTES.items():
        metas = ", ".join(note.metas)
        kinds = {PATHS: "paths of any kind", ARRAYS: "images"}.get(
            note.kinds, ", ".join(note.kinds)
        )
        errors = " or ".join(f"``{error.__name__}: {phrase}``" for error, phrase in note.errors)
        rows.append(
            [f"{key}: {metas}; {kinds}", f"{note.why} ({errors}) **Way out:** {note.way_out}"]
        )
    return as_csv(rows)


@pytest.fixture(scope="module")
def cell(files: list[str], images: tuple[np.ndarray, np.ndarray]) -> Callable[[str, str], str]:
    """Compute a cell, once."""
    known: dict[tuple[str, str], str] = {}

    def compute(meta: str, kind: str) -> str:
        if (meta, kind) not in known:
            known[meta, kind] = outcome(meta, kind, files, images[0])
        return known[meta, kind]

    return compute


# ------------------------------------------------------------------------------------------
# tests
# ------------------------------------------------------------------------------------------


def test_the_committed_tables_are_what_comes_of_it(cell):
    rewrite = os.environ.get("SKCXR_REWRITE_TABLE") == "1"
    rows = [["Meta-estimator", *KINDS]]
    for meta in METAS:
        cells = [
            committed()[meta][kind] if not_here(meta, kind) else cell(meta, kind) for kind in KINDS
        ]
        rows.append([meta, *cells])
    if rewrite:
        TABLE.write_text(as_csv(rows), encoding="utf-8", newline="\n")
        NOTES_TABLE.write_text(table_of_notes(), encoding="utf-8", newline="\n")
    assert TABLE.read_text(encoding="utf-8") == as_csv(rows)
    assert NOTES_TABLE.read_text(encoding="utf-8") == table_of_notes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("meta", METAS)
def test_a_cell_is_what_comes_of_it(meta, kind, cell):
    if reason := not_here(meta, kind):
        pytest.skip(reason)
    assert cell(meta, kind) == committed()[meta][kind]


def test_every_note_is_used():
    used = {cell for row in committed().values() for cell in row.values()} - {"yes"}
    assert used == {f"no ({key})" for key in NOTES}


@pytest.mark.parametrize("key", NOTES)
def test_a_way_out_is_a_cell_that_says_yes(key):
    for row in committed().values():
        if f"no ({key})" in row.values():
            assert {row[column] for column in NOTES[key].columns} == {"yes"}


def test_stacking_without_passthrough_takes_every_kind():
    assert set(committed()["StackingClassifier"].values()) == {"yes"}


@pytest.mark.parametrize("kinds", WAYS_OUT, ids=" to ".join)
def test_a_way_out_gives_the_x_of_its_column(kinds, files, images):
    found, expected = (KINDS[kind](files, images[0]) for kind in kinds)
    assert_array_equal(WAYS_OUT[kinds](found), expected)


@pytest.mark.parametrize("kind", PATHS)
def test_every_kind_of_paths_gives_the_same_rows(kind, files, images):
    X = KINDS[kind](files, images[0])
    assert_array_equal(loader().fit_transform(X), loader().fit_transform(files))


@pytest.mark.parametrize("kind", [ROWS, LOADER])
def test_rows_are_taken_by_every_meta_estimator(kind):
    assert {row[kind] for row in committed().values()} == {"yes"}


def test_a_data_frame_is_taken_wherever_other_paths_are():
    for row in committed().values():
        assert row[FRAME] == "yes" or "yes" not in {row[kind] for kind in PATHS}
