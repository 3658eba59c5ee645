"""Searches over images: how often each image is decoded and embedded, and on how many threads."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import cpu_count, parallel_config
from joblib.externals.loky import get_reusable_executor
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skcxr._cache
from skcxr import CXRClassifier, CXRFeatures, ImageLoader
from skcxr._cache import Decoder, EmbeddingCache
from skcxr._embeddings import Embedder
from skcxr.networks import CXRNet


class Tally:
    """What was decoded and embedded, in this process and in those in which `step` has come by."""

    def __init__(self, log: Path) -> None:
        self.log = log
        log.touch()
        path = str(log)

        def watch(X):
            """X itself. Nested, so that it goes into other processes by value."""
            import os

            import torch

            import skcxr._cache
            from skcxr.networks import CXRNet

            def tell(*words):
                line = " ".join(map(str, (os.getpid(), *words))) + "\n"
                file = os.open(path, os.O_WRONLY | os.O_APPEND)
                os.write(file, line.encode())
                os.close(file)

            tell("threads", torch.get_num_threads())
            if getattr(skcxr._cache.decode_with_kind, "tells", None) == path:
                return X
            decode, embed = skcxr._cache.decode_with_kind, CXRNet.embed

            def decoded(file, *arguments):
                tell("decoded", file)
                return decode(file, *arguments)

            def embedded(self, pixels):
                tell("embedded", len(pixels))
                return embed(self, pixels)

            decoded.tells = path
            skcxr._cache.decode_with_kind, CXRNet.embed = decoded, embedded
            return X

        self.watch = watch

    def step(self) -> FunctionTransformer:
        """A step of a pipeline that watches the process it runs in."""
        return FunctionTransformer(self.watch)

    def said(self, what: str) -> list[str]:
        """What was told, in this and other processes."""
        lines = [line.split(maxsplit=2) for line in self.log.read_text().splitlines()]
        return [line[2] for line in lines if line[1] == what]

    def decoded(self) -> Counter[str]:
        """How often each file was."""
        return Counter(self.said("decoded"))

    def embedded(self) -> int:
        """Images that went through a network."""
        return sum(map(int, self.said("embedded")))

    def threads_elsewhere(self) -> list[int]:
        """Torch's threads, as other processes have them."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        here = str(os.getpid())
        return [int(line[2]) for line in lines if line[1] == "threads" and line[0] != here]


@pytest.fixture
def tally(tmp_path, monkeypatch):
    """A Tally of a search in this process."""
    monkeypatch.setattr(skcxr._cache, "decode_with_kind", skcxr._cache.decode_with_kind)
    monkeypatch.setattr(CXRNet, "embed", CXRNet.embed)
    found = Tally(tmp_path / "tally.txt")
    found.watch(None)
    return found


@pytest.fixture(scope="module")
def _processes():
    """Processes of these tests alone, which get what joblib makes of the environment."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment.delenv(name, raising=False)
        yield
    get_reusable_executor().shutdown(wait=True)


@pytest.fixture
def together(tally, _processes):
    """A Tally of a search in several processes."""
    return tally


def features(**parameters):
    return CXRFeatures("cxrnet", weights=None, image_size=32, random_state=0, **parameters)


def linear(*first):
    return make_pipeline(*first, StandardScaler(), LogisticRegression())


GRID = {"logisticregression__C": [0.01, 0.1, 1]}


def test_each_image_is_decoded_and_embedded_once_for_all_folds_and_settings(
    tally, files, images, tmp_path
):
    model = linear(features(memory=tmp_path / "cache"))
    search = GridSearchCV(model, GRID, cv=3, return_train_score=True).fit(files, images[1])
    search.score(files, images[1])
    cross_val_score(model, files, images[1], cv=4)
    assert tally.decoded() == dict.fromkeys(files, 1)
    assert tally.embedded() == len(files)


def test_once_for_each_setting_of_the_network(tally, files, images, tmp_path):
    grid = GRID | {"cxrfeatures__layer": [None, 1], "cxrfeatures__image_size": [32, 40]}
    GridSearchCV(linear(features(memory=tmp_path / "cache")), grid, cv=2).fit(files, images[1])
    # a network of another layer sees the same pixels, but these are not kept
    assert tally.decoded() == dict.fromkeys(files, 4)
    # a layer's width is told by one black image for each size and fit
    assert tally.embedded() - 4 * len(files) <= 3 * 2 * 2 * 2 + 1


def test_without_memory_each_fit_and_each_scoring_embeds(tally, files, images):
    n_folds, n_settings = 3, len(GRID["logisticregression__C"])
    GridSearchCV(linear(features()), GRID, cv=n_folds).fit(files, images[1])
    # training and test part of each fold, and all for the refit
    assert tally.embedded() == len(files) * (n_folds * n_settings + 1)


def test_memory_of_the_pipeline_keeps_training_parts_alone(tally, files, images, tmp_path):
    n_folds, n_settings = 3, len(GRID["logisticregression__C"])
    model = linear(features()).set_params(memory=str(tmp_path / "cache"))
    GridSearchCV(model, GRID, cv=n_folds).fit(files, images[1])
    train = len(files) * (n_folds - 1) + len(files)  # those of the folds, and of the refit
    test = len(files) * n_settings  # each setting scores each image once
    assert tally.embedded() == train + test


def test_halving(tally, files, images, tmp_path):
    model = linear(features(memory=tmp_path / "cache"))
    search = HalvingGridSearchCV(
        model, GRID, cv=2, factor=2, min_resources=8, random_state=0
    )  # fmt: skip
    search.fit(np.array(files), images[1])
    assert search.n_iterations_ > 1
    assert tally.decoded() == dict.fromkeys(files, 1)
    assert tally.embedded() == len(files)


@pytest.mark.filterwarnings(
    "ignore:OptunaSearchCV is experimental",
    "ignore:.optuna.terminator. module has been deprecated:FutureWarning",
)
def test_optuna(tally, files, images, tmp_path):
    pytest.importorskip("optuna_integration", reason="needs optuna-integration")
    from optuna.distributions import FloatDistribution
    from optuna_integration import OptunaSearchCV

    space = {"logisticregression__C": FloatDistribution(1e-4, 10, log=True)}
    model = linear(features(memory=tmp_path / "cache"))
    search = OptunaSearchCV(model, space, cv=3, n_trials=4, random_state=0)
    search.fit(np.array(files), images[1])
    assert len(search.trials_) == 4
    assert tally.decoded() == dict.fromkeys(files, 1)
    assert tally.embedded() == len(files)


def test_networks_side_by_side(tally, files, images, tmp_path):
    both = FeatureUnion(
        [
            ("cxrnet", features(memory=tmp_path / "cache")),
            ("other", features(memory=tmp_path / "cache").set_params(random_state=1)),
        ]
    )
    GridSearchCV(linear(both), GRID, cv=3).fit(files, images[1])
    assert tally.embedded() == 2 * len(files)


def test_a_frozen_backbone_is_passed_once(tally, files, images, tmp_path):
    clf = CXRClassifier(
        "cxrnet", freeze="backbone", image_size=32, max_epochs=2, random_state=0,
        early_stopping=False, memory=tmp_path / "cache",
    )  # fmt: skip
    search = GridSearchCV(clf, {"lr": [0.001, 0.01]}, cv=3).fit(files, images[1])
    search.predict(files)
    assert tally.decoded() == dict.fromkeys(files, 1)
    # what is trained makes logits of embeddings, which pass through embed() no more
    assert tally.embedded() == len(files)


@pytest.mark.parametrize("loader", [False, True])
def test_fits_of_a_network_decode_once(loader, tally, files, images, tmp_path):
    folder = tmp_path / "cache"
    clf = CXRClassifier("cxrnet", image_size=32, max_epochs=2, random_state=0)
    if loader:
        model = make_pipeline(ImageLoader(32, memory=folder), clf)
        grid = {"cxrclassifier__lr": [0.001, 0.01]}
    else:
        model, grid = clf.set_params(memory=folder), {"lr": [0.001, 0.01]}
    GridSearchCV(model, grid, cv=2).fit(files, images[1]).predict(files)
    assert tally.decoded() == dict.fromkeys(files, 1)


@pytest.mark.parametrize("search_in", ["loky", "threading"])
def test_processes_and_threads_share_what_is_embedded(search_in, together, files, images, tmp_path):
    model = linear(together.step(), features(memory=tmp_path / "cache", batch_size=2))
    with parallel_config(search_in, n_jobs=2):
        GridSearchCV(model, GRID, cv=3).fit(np.array(files), images[1])
    assert set(together.decoded()) == set(files)
    # at worst the batch that another process is at when this one has no other left, in each
    # transform of the two that may meet: fit and score of the first setting
    most = 0 if search_in == "threading" else 2 * 2
    assert together.embedded() <= len(files) + most
    assert not list((tmp_path / "cache" / "skcxr-embeddings" / "parts").iterdir())


def test_what_a_killed_process_was_at_is_embedded_by_others(tally, files, tmp_path):
    model = features(memory=tmp_path / "cache")
    expected = model.fit_transform(files)
    folder = tmp_path / "cache" / "skcxr-embeddings"
    for entry in list(folder.glob("??/*.npy"))[::2]:
        (folder / "parts" / f"{entry.name}.part").touch()
        entry.unlink()
    np.testing.assert_allclose(model.transform(files), expected, atol=1e-6)
    assert tally.embedded() == len(files) + len(files) // 2


def test_a_file_that_is_there_twice_is_embedded_once(tally, files, tmp_path):
    model = features(memory=tmp_path / "cache", batch_size=4)
    twice = [*files, *files[::-1]]
    np.testing.assert_array_equal(model.fit_transform(twice)[::-1], model.transform(twice))
    assert tally.embedded() == len(files)


def test_processes_that_start_alike_share_the_work(files, tmp_path):
    decode, n_embedded = Decoder(), 0

    def embedder(function):
        cache = EmbeddingCache(tmp_path, "some network")
        return Embedder(function, 2, (8, 8), decode, cache, batch_size=4)

    def means(pixels):
        nonlocal n_embedded
        n_embedded += len(pixels)
        return torch.stack([pixels.mean((1, 2, 3)), pixels.amax((1, 2, 3))], 1)

    def after_another(pixels):
        if not n_embedded:  # it comes while this one is at its first batch
            others.append(embedder(means)(files).rows)
        return means(pixels)

    others = []
    found = embedder(after_another)(files).rows
    np.testing.assert_array_equal(found, others[0])
    assert n_embedded == len(files) + 4


# --------------------------------------------------------------------------------------------
# threads: what processes side by side have is divided among them
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["folds", "nested", "voting", "stacking"])
def test_threads_are_divided_among_processes(what, together, images):
    clf = CXRClassifier("cxrnet", image_size=20, max_epochs=1, random_state=0)
    model = make_pipeline(together.step(), clf)
    two = [("one", model), ("other", model)]
    X, y = images
    if what == "folds":
        cross_val_score(model, X, y, cv=2, n_jobs=2)
    elif what == "nested":
        search = GridSearchCV(model, {"cxrclassifier__lr": [0.001, 0.01]}, cv=2, n_jobs=2)
        cross_val_score(search, X, y, cv=2, n_jobs=2)
    elif what == "voting":
        VotingClassifier(two, n_jobs=2).fit(X, y)
    else:
        StackingClassifier(two, cv=2, n_jobs=2).fit(X, y)
    seen = together.threads_elsewhere()
    assert seen, "nothing ran in another process"
    assert max(seen) == max(1, cpu_count() // 2)


def test_threads_beside_each_other_take_turns(tally, images):
    clf = CXRClassifier("cxrnet", image_size=20, max_epochs=1, random_state=0)
    with parallel_config("threading", n_jobs=2):
        scores = cross_val_score(make_pipeline(tally.step(), clf), *images, cv=2)
    np.testing.assert_array_equal(scores, cross_val_score(clf, *images, cv=2))
    assert set(tally.said("threads")) == {str(torch.get_num_threads())}


def test_processes_that_read_images_start_in_processes_of_a_search(together, files, images):
    clf = CXRClassifier(
        "cxrnet", image_size=20, max_epochs=1, num_workers=1, random_state=0
    )  # fmt: skip
    model = make_pipeline(together.step(), clf)
    scores = cross_val_score(model, np.array(files), images[1], cv=2, n_jobs=2)
    assert together.threads_elsewhere()
    np.testing.assert_array_equal(scores, cross_val_score(clf, files, images[1], cv=2))
