"""Freezing, averaging, mixing and the other ways of a fit."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from skcxr import CXRClassifier, CXRFeatures, InputError
from skcxr.networks import CXRNet, ForeignNet

QUICK = {"image_size": 32, "max_epochs": 3, "batch_size": 8, "random_state": 0}


def quick(backbone="cxrnet", **parameters):
    return CXRClassifier(backbone, **{**QUICK, **parameters})


class Watch(Callback):
    """Keeps the weights before the fit and after each epoch."""

    seen: list = []  # noqa: RUF012

    def on_train_begin(self, net, **kwargs):
        Watch.seen = [self.copy(net)]

    def on_epoch_end(self, net, **kwargs):
        Watch.seen.append(self.copy(net))

    @staticmethod
    def copy(net):
        return {key: value.clone() for key, value in net.module_.state_dict().items()}


def watched(clf, images):
    clf.set_params(net__callbacks=[Watch()]).fit(*images)
    return Watch.seen


def changed(before, after):
    return {key for key in before if not torch.equal(before[key], after[key])}


@pytest.fixture
def passes(monkeypatch):
    """Number of images that went through the backbone in each pass."""
    sizes = []
    for kind in (CXRNet, ForeignNet):
        embed = kind.embed

        def counted(self, x, embed=embed):
            sizes.append(len(x))
            return embed(self, x)

        monkeypatch.setattr(kind, "embed", counted)
    return sizes


@pytest.mark.parametrize("backbone", ["cxrnet", "resnet18"])
def test_a_frozen_backbone_does_not_move_and_its_statistics_neither(backbone, images):
    before, *_, after = watched(quick(backbone, freeze="backbone", augmentation="cxr"), images)
    assert {key.rpartition("head.")[2] for key in changed(before, after)} == {"weight", "bias"}


def test_the_first_stages_are_held_still(images):
    before, *_, after = watched(quick(freeze=2), images)
    moved = {key.split(".")[1] for key in changed(before, after)}
    assert moved == {"stage2", "stage3", "head"}


def test_nothing_is_held_still_after_unfreeze_at(images):
    clf = quick(freeze="backbone", unfreeze_at=2)
    before, first, second, third = watched(clf, images)
    assert {key.split(".")[1] for key in changed(before, second)} == {"head"}
    assert {key.split(".")[1] for key in changed(second, third)} >= {"stem", "stage3", "head"}
    assert changed(before, first)


@pytest.mark.parametrize("backbone", ["cxrnet", "resnet18"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_stored_embeddings_change_nothing(backbone, early_stopping, images, files, passes):
    clf = quick(backbone, freeze="backbone", max_epochs=6, early_stopping=early_stopping)
    groups = np.arange(len(files))
    stored = clone(clf).fit(files, images[1], groups=groups)
    assert sum(passes) == len(files)  # each image once
    passes.clear()

    def nothing(image):
        return image

    passed = clone(clf).set_params(augmentation=nothing).fit(files, images[1], groups=groups)
    assert backbone == "cxrnet" or sum(passes) >= 6 * len(files) * 0.8
    assert_allclose(passed.predict_proba(files), stored.predict_proba(files), atol=1e-5)


def test_memory_keeps_embeddings_for_a_search(images, files, passes, tmp_path):
    clf = quick(freeze="backbone", memory=tmp_path)
    search = GridSearchCV(clf, {"lr": [0.001, 0.01]}, cv=2, error_score="raise", refit=False)
    search.fit(files, images[1])
    assert sum(passes) == len(files)
    clf.fit(files, images[1])
    features = CXRFeatures("cxrnet", weights=None, image_size=32, memory=tmp_path, random_state=0)
    assert sum(passes) == len(files)
    kept = clf.predict_proba(files)
    assert_allclose(kept, clf.set_params(memory=None).predict_proba(files), atol=1e-6)
    assert features.fit_transform(files).shape == (24, 512)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"freeze": True}, "freeze=True is neither"),
        ({"freeze": 9}, "freeze=9 stages, but CXRNet has 4 before its head"),
        ({"backbone": lambda num_classes: torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.LazyLinear(num_classes)), "freeze": "backbone"},
         "freeze='backbone' needs a network that tells its stages"),
        ({"net__criterion__label_smoothing": 0.1}, "use label_smoothing= instead"),
        ({"net__freeze": 1}, "use freeze= instead"),
    ],
)  # fmt: skip
def test_what_cannot_be_says_so(parameters, message, images):
    with pytest.raises(InputError, match=message):
        quick().set_params(**parameters).fit(*images)


def test_backbone_lr_mult_of_zero_is_a_backbone_that_learns_nothing(images):
    before, *_, after = watched(quick(backbone_lr_mult=0, weight_decay=0), images)
    assert {k.split(".")[1] for k in changed(before, after) if "running" not in k
            and "batches" not in k} == {"head"}  # fmt: skip


@pytest.mark.parametrize("lr_schedule", ["onecycle", "cosine", None])
def test_backbone_lr_mult_scales_all_rates(lr_schedule, images):
    rates = []

    class Rates(Callback):
        def on_batch_begin(self, net, **kwargs):
            rates.append([group["lr"] for group in net.optimizer_.param_groups])

    clf = quick(backbone_lr_mult=0.1, lr_schedule=lr_schedule, net_params={"callbacks": [Rates()]})
    clf.fit(*images)
    rates = np.array(rates)
    assert_allclose(rates[:, 1], rates[:, 0] * 0.1)


def test_the_average_of_weights_is_what_is_kept(images):
    clf = quick(ema=0.5, lr_schedule=None, batch_size=24, optimizer="sgd", lr=0.1, max_epochs=2)
    seen = watched(clf, images)
    plain = watched(clone(clf).set_params(ema=None), images)
    key = "layers.head.weight"
    # one step an epoch: the first average is the first weights, the second the mean of two
    assert torch.equal(seen[1][key], plain[1][key])
    assert_allclose(seen[2][key], (plain[1][key] + plain[2][key]) / 2, atol=1e-6)
    assert torch.equal(clf.module_.state_dict()[key], seen[2][key])
    assert not clf.net_._average
    assert clf.net_._raw is None


def test_early_stopping_keeps_the_best_average(images):
    groups = np.arange(24)
    clf = quick(ema=0.9, early_stopping=True, n_iter_no_change=2, max_epochs=8)
    clf.fit(*images, groups=groups)
    assert np.isfinite(clf.predict_proba(images[0])).all()
    assert min(epoch["valid_loss"] for epoch in clf.history_) < np.inf


@pytest.mark.parametrize("mixing", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_is_seeded_and_learns(mixing, images, more_images):
    clf = quick(max_epochs=25, **mixing)
    first = clone(clf).fit(*images).predict_proba(more_images[0])
    second = clone(clf).fit(*images).predict_proba(more_images[0])
    assert_array_equal(first, second)
    plain = clone(clf).set_params(mixup=0.0, cutmix=0.0).fit(*images)
    assert not np.array_equal(first, plain.predict_proba(more_images[0]))
    assert clf.fit(*images).score(*more_images) > 0.8


def test_mixing_findings(images):
    y = np.array([[0, 1, np.nan], [1, 0, 1]] * 12)
    proba = quick(mixup=0.4, cutmix=1.0).fit(images[0], y).predict_proba(images[0])
    assert np.isfinite(proba).all()


def test_weight_zero_is_absence_with_mixing(images):
    X, y = images
    weight = np.ones(24)
    weight[::5] = 0
    clf = quick(mixup=0.4)
    with_zero = clone(clf).fit(X, y, sample_weight=weight).predict_proba(X)
    without = clone(clf).fit(X[weight > 0], y[weight > 0]).predict_proba(X)
    assert_array_equal(with_zero, without)


def test_label_smoothing_is_what_it_was(images):
    auto = quick().fit(*images).predict_proba(images[0])
    assert_array_equal(auto, quick(label_smoothing=0.05).fit(*images).predict_proba(images[0]))
    other = quick(label_smoothing=0.3).fit(*images).predict_proba(images[0])
    assert not np.array_equal(auto, other)


def test_mixed_precision_is_near_and_off_by_default(images):
    plain = quick(max_epochs=8).fit(*images)
    mixed = clone(plain).set_params(amp=True).fit(*images)
    assert mixed.predict_proba(images[0]).dtype == np.float64
    assert not np.array_equal(mixed.predict_proba(images[0]), plain.predict_proba(images[0]))
    assert np.abs(mixed.predict_proba(images[0]) - plain.predict_proba(images[0])).max() < 0.2


def test_views_are_averaged_and_no_view_is_none(images):
    clf = quick(max_epochs=8).fit(*images)
    plain = clf.predict_proba(images[0])
    clf.set_params(tta=4)
    averaged = clf.predict_proba(images[0])
    assert_allclose(averaged.sum(axis=1), 1)
    assert not np.allclose(averaged, plain)
    # of an image alone as among others, and always the same
    assert_allclose(clf.predict_proba(images[0][3:4]), averaged[3:4], atol=1e-6)
    assert_array_equal(clf.predict_proba(images[0]), averaged)
    assert_array_equal(clf.predict(images[0]), clf.classes_[averaged.argmax(axis=1)])
    assert_allclose(np.exp(clf.predict_log_proba(images[0])), averaged, atol=1e-6)
    clf.set_params(tta=0)
    assert_array_equal(clf.predict_proba(images[0]), plain)


def test_views_of_findings(images):
    y = np.array([[0, 1], [1, 0]] * 12)
    clf = quick(max_epochs=4).fit(images[0], y)
    one_by_one = clf.predict_proba(images[0])
    clf.set_params(tta=3)
    proba = clf.predict_proba(images[0])
    assert ((proba > 0) & (proba < 1)).all()
    assert np.abs(proba - one_by_one).max() < 0.5
    assert_array_equal(clf.predict(images[0]), (proba > 0.5).astype(int))


def test_what_was_loaded_is_told(images, tmp_path, capsys):
    plain = quick().fit(*images)
    file = tmp_path / "weights.pt"
    torch.save(plain.module_.state_dict(), file)
    assert plain.weights_ is None
    clf = quick(weights=file, max_epochs=1, lr=1e-12, verbose=1, augmentation=None).fit(*images)
    assert clf.weights_.startswith("the file weights.pt; with its head")
    assert clf.weights_ in capsys.readouterr().err
    assert_allclose(clf.module_.head.weight.detach(), plain.module_.head.weight.detach(), atol=1e-6)


def test_warm_start_and_partial_fit_do_not_load_again(images, tmp_path):
    file = tmp_path / "weights.pt"
    torch.save(quick().fit(*images).module_.state_dict(), file)
    clf = quick(weights=file, warm_start=True, max_epochs=1).fit(*images)
    gone = quick(weights=file, max_epochs=1, backbone_lr_mult=0.1)
    gone.partial_fit(*images, classes=["h", "v"])
    file.unlink()
    assert clf.fit(*images).weights_.startswith("the file weights.pt")
    gone.partial_fit(*images)
    assert [group["lr"] for group in gone.net_.optimizer_.param_groups] == pytest.approx(
        [gone.lr_, gone.lr_ * 0.1]
    )


def test_torchvision_networks_are_trained_and_saved(images, tmp_path):
    from skcxr import load_model, save_model

    clf = quick("mobilenet_v3_small", max_epochs=1).fit(*images)
    again = load_model(save_model(clf, tmp_path / "model"))
    assert_allclose(again.predict_proba(images[0]), clf.predict_proba(images[0]), atol=1e-6)


def test_a_copy_of_a_frozen_classifier_is_frozen_too(images):
    clf = quick("resnet18", freeze="backbone", max_epochs=1).fit(*images)
    content = pickle.dumps(clf)
    weights = sum(tensor.nbytes for tensor in clf.module_.state_dict().values())
    assert len(content) < 1.1 * weights
    for again in (pickle.loads(content), copy.deepcopy(clf)):
        before = Watch.copy(again.net_)
        again.partial_fit(*images)
        assert changed(before, Watch.copy(again.net_)) == {"head.weight", "head.bias"}


def test_partial_fit_does_not_average(images):
    clf = quick(ema=0.9).fit(*images)
    plain = pickle.loads(pickle.dumps(clf))
    plain.net_.ema = None
    clf.partial_fit(*images)
    again = pickle.loads(pickle.dumps(clf))
    assert_array_equal(
        plain.partial_fit(*images).predict_proba(images[0]), again.predict_proba(images[0])
    )


def test_memory_tells_networks_of_equal_weights_apart(images, tmp_path):
    scores = []
    for pool in ("avg", "max"):
        clf = quick("timm:resnet18", freeze="backbone", image_size=64, memory=tmp_path)
        clf.set_params(net__module__global_pool=pool).fit(*images)
        kept = clf.decision_function(images[0])
        assert_allclose(clf.set_params(memory=None).decision_function(images[0]), kept, atol=1e-4)
        scores.append(kept)
    assert not np.allclose(*scores)


@pytest.mark.parametrize("lr_schedule", ["onecycle", None])
def test_rates_of_a_network_without_a_head_are_told(lr_schedule, images):
    def flat(num_classes):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 32, num_classes))

    with pytest.raises(InputError, match="its attribute `head`, and Sequential has none"):
        quick(flat, backbone_lr_mult=0.1, lr_schedule=lr_schedule).fit(*images)


def test_batch_statistics_of_one_image_are_told(images):
    with pytest.raises(InputError, match=r"'resnet18' cannot run on 1 images of 32 x 32 pixels"):
        quick("resnet18", batch_size=1).fit(*images)


def test_held_still_to_the_last_epoch_is_held_still(images, passes):
    clf = quick("resnet18", freeze="backbone", unfreeze_at=3).fit(*images)
    assert clf.augmentation_ is None
    assert sum(passes) == 24
