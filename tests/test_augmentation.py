"""Augmentation of training batches."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skcxr import InputError
from skcxr.augmentation import CXRAugmentation, CXRViews, MixBatch, PerImage, make_views

FULL = CXRAugmentation(contrast=0.3, noise=0.1, cutout=0.3)


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def blob(height: int, width: int, row: float, column: float) -> torch.Tensor:
    """An image with one bright spot at parts of its height and width."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = (y - row * height) ** 2 + (x - column * width) ** 2
    return torch.exp(-distance / 8)[None, None]


def centre(image: torch.Tensor) -> tuple[float, float]:
    """The spot's place, in pixels."""
    y, x = torch.meshgrid(*map(torch.arange, image.shape), indexing="ij")
    return float((image * y).sum() / image.sum()), float((image * x).sum() / image.sum())


def test_nothing_asked_nothing_changed():
    x = torch.rand(3, 1, 20, 30)
    torch.testing.assert_close(CXRAugmentation(0, 0, 0, 0)(x), x, atol=1e-5, rtol=0)


def test_left_stays_left():
    x = blob(64, 64, 0.5, 0.25).expand(200, 1, 64, 64)
    for image in CXRAugmentation()(x)[:, 0]:
        assert centre(image)[1] < 32


@pytest.mark.parametrize("size", [(64, 64), (40, 80)])
def test_a_rotation_turns_without_bending(size):
    height, width = size
    x = torch.cat([blob(height, width, 0.5, 0.25), blob(height, width, 0.5, 0.75)])
    policy = CXRAugmentation(degrees=20, translate=0, scale=0, gamma=0)
    for _ in range(10):
        turned = policy(torch.cat([x, x.sum(0, keepdim=True)]))[:2, 0]
        for image in turned:
            row, column = centre(image)
            distance = ((row - (height - 1) / 2) ** 2 + (column - (width - 1) / 2) ** 2) ** 0.5
            assert abs(distance - width / 4) < 1


def test_aspect_keeps_the_area_and_changes_the_shape():
    x = torch.cat([blob(64, 64, 0.5, 0.3), blob(64, 64, 0.3, 0.5)])
    policy = CXRAugmentation(degrees=0, translate=0, scale=0, gamma=0, aspect=0.5)
    draw = torch.zeros(12, 2)
    draw[11] = 0.8
    sideways, upwards = (centre(image) for image in policy.apply(x, draw)[:, 0])
    wide = (31.5 - sideways[1]) / (31.5 - 0.3 * 64)
    high = (31.5 - upwards[0]) / (31.5 - 0.3 * 64)
    assert wide / high == pytest.approx(np.exp(0.8 * 0.5), rel=0.05)
    assert wide * high == pytest.approx(1, rel=0.05)


def test_images_of_a_batch_differ_and_stay_in_range():
    x = torch.rand(1, 1, 32, 32).expand(8, 1, 32, 32)
    y = CXRAugmentation()(x)
    assert len({image.sum().item() for image in y}) == 8
    assert y.min() >= 0
    assert y.max() <= 1


def test_pixels_out_of_range_keep_their_excess():
    x = torch.full((2, 1, 8, 8), 200.0)
    torch.testing.assert_close(CXRAugmentation()(x), x)


# --------------------------------------------------------------------------------------------
# drawing and applying
# --------------------------------------------------------------------------------------------


def test_the_default_draws_five_numbers_an_image_as_ever():
    torch.manual_seed(1)
    draw = CXRAugmentation().draw(7)
    torch.manual_seed(1)
    assert torch.equal(draw, torch.rand(5, 7) * 2 - 1)
    assert FULL.draw(7).shape == (12, 7)


@pytest.mark.parametrize("policy", [CXRAugmentation(), FULL], ids=["default", "full"])
def test_a_call_is_a_draw_applied(policy):
    x = torch.rand(4, 1, 16, 24)
    torch.manual_seed(1)
    called = policy(x)
    torch.manual_seed(1)
    assert torch.equal(policy.apply(x, policy.draw(4)), called)


@pytest.mark.parametrize("policy", [CXRAugmentation(), FULL], ids=["default", "full"])
def test_an_image_is_changed_by_its_own_draw_alone(policy):
    x, draw = torch.rand(9, 1, 33, 47), policy.draw(9)
    whole = policy.apply(x, draw)
    for i in (0, 4, 8):
        assert torch.equal(policy.apply(x[i : i + 1], draw[:, i : i + 1]), whole[i : i + 1])
    with pytest.raises(InputError, match=r"\(12, 9\); for 2 images"):
        policy.apply(x[:2], torch.zeros(12, 9))


def test_a_policy_is_a_transform_of_single_images_too():
    x = torch.rand(3, 1, 16, 16)
    assert PerImage(CXRAugmentation())(x).shape == x.shape


def test_a_policy_is_a_value():
    assert CXRAugmentation(noise=0.1) == pickle.loads(pickle.dumps(CXRAugmentation(noise=0.1)))
    assert "noise=0.1" in repr(CXRAugmentation(noise=0.1))


@pytest.mark.parametrize(
    "name", ["degrees", "scale", "gamma", "contrast", "noise", "aspect", "cutout"]
)
def test_ranges_are_not_negative(name):
    with pytest.raises(InputError, match=f"{name}=-0.1"):
        CXRAugmentation(**{name: -0.1})


@pytest.mark.parametrize("name", ["scale", "cutout"])
def test_parts_are_below_one(name):
    with pytest.raises(InputError, match=rf"{name}=1.5 .* in \[0, 1\)"):
        CXRAugmentation(**{name: 1.5})


# --------------------------------------------------------------------------------------------
# contrast, noise, cut-out
# --------------------------------------------------------------------------------------------


def test_contrast_keeps_the_mean_and_the_order_of_pixels():
    x = torch.rand(6, 1, 16, 16) * 0.2 + 0.4  # nothing gets cut off
    y = CXRAugmentation(0, 0, 0, 0, contrast=0.5)(x)
    torch.testing.assert_close(y.mean((1, 2, 3)), x.mean((1, 2, 3)))
    ratio = y.std((1, 2, 3)) / x.std((1, 2, 3))
    assert ratio.log().abs().max() <= 0.5 + 1e-4
    assert len({round(r, 4) for r in ratio.tolist()}) == 6
    for a, b in zip(x, y, strict=True):
        assert torch.equal(a.flatten().argsort(), b.flatten().argsort())


def test_contrast_is_cut_off_at_black_and_white_but_excess_stays():
    x = (torch.rand(20, 1, 16, 16) > 0.5).float()
    y = CXRAugmentation(0, 0, 0, 0, contrast=1.0)(x)
    assert y.min() >= 0
    assert y.max() <= 1
    x = torch.full((2, 1, 8, 8), 200.0)
    torch.testing.assert_close(CXRAugmentation(0, 0, 0, 0, contrast=1.0)(x), x)


def test_noise_has_a_deviation_of_up_to_what_was_asked():
    x = torch.full((50, 1, 64, 64), 0.5)
    added = CXRAugmentation(0, 0, 0, 0, noise=0.1)(x) - x
    deviation = added.std((1, 2, 3))
    assert deviation.max() < 0.105
    assert deviation.min() < 0.02
    assert 0.03 < deviation.mean() < 0.07
    assert added.mean().abs() < 0.001
    noisy = added[deviation > 0.02].flatten(1)
    assert torch.corrcoef(noisy).fill_diagonal_(0).abs().max() < 0.1  # each image has its own


def test_a_cut_out_is_a_whole_square_of_the_mean_in_half_of_the_images():
    x = torch.rand(200, 1, 20, 30)
    y = CXRAugmentation(0, 0, 0, 0, cutout=0.25)(x)
    changed = (y - x).abs() > 1e-5
    counts = changed.sum((1, 2, 3))
    assert set(counts.tolist()) <= {0, *range(21, 26)}  # 5 x 5, but for pixels that are the mean
    assert 70 < (counts > 0).sum() < 130
    places = set()
    for image, new, mask in zip(x[:, 0], y[:, 0], changed[:, 0], strict=True):
        if mask.any():
            rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
            assert rows[-1] - rows[0] == columns[-1] - columns[0] == 4
            torch.testing.assert_close(new[mask], image.mean().expand(mask.sum()))
            places.add((int(rows[0]), int(columns[0])))
    assert min(row for row, _ in places) == 0
    assert max(row for row, _ in places) == 15
    assert max(column for _, column in places) >= 24


# --------------------------------------------------------------------------------------------
# views
# --------------------------------------------------------------------------------------------


def test_views_depend_on_nothing_but_the_image():
    x = torch.rand(6, 1, 33, 47)
    torch.manual_seed(1)
    views = list(make_views(x, 7))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = list(make_views(x.flip(0)[:3], 7))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(views, again, strict=True):
        assert torch.equal(a.flip(0)[:3], b)


def test_the_first_view_is_the_image_and_the_others_are_not():
    x = torch.rand(2, 1, 32, 32)
    first, *others = make_views(x, 8)
    assert torch.equal(first, x)
    assert len(others) == 7
    assert len({view.sum().item() for view in others} | {x.sum().item()}) == 8


def test_more_views_go_on_from_fewer():
    assert torch.equal(CXRViews(4).draws, CXRViews(9).draws[:, :4])


@pytest.mark.parametrize("n_views", [1, 3, 7, 15])
def test_views_are_balanced_within_half_of_the_ranges(n_views):
    draws = CXRViews(n_views).draws
    assert draws.shape == (5, n_views)
    assert draws.abs().max() <= 0.5
    assert draws.mean(1).abs().max() == 0
    if n_views >= 7:  # no two changes go together
        assert torch.corrcoef(draws).fill_diagonal_(0).abs().max() < 0.75


def test_views_take_pose_and_gamma_of_a_policy():
    x = torch.rand(2, 1, 32, 32)
    still = list(CXRViews(4, CXRAugmentation(0, 0, 0, 0, contrast=1, noise=1, cutout=0.5))(x))
    for view in still:
        torch.testing.assert_close(view, x, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="n_views=0"):
        CXRViews(0)


# --------------------------------------------------------------------------------------------
# mixing
# --------------------------------------------------------------------------------------------

KINDS = [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}]


def shares(mixed: torch.Tensor) -> torch.Tensor:
    """Share of an image in a mixture, where images are 0 and 1 by turns."""
    means = mixed.double().mean((1, 2, 3))
    means[::2] = 1 - means[::2]
    return means


def by_turns(n: int) -> torch.Tensor:
    return (torch.arange(n) % 2).float().view(-1, 1, 1, 1).expand(n, 1, 12, 12).clone()


@pytest.mark.parametrize("kind", [{}, *KINDS], ids=str)
def test_a_share_of_one_changes_nothing(kind, monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self, shape: torch.ones(1))
    x, weight = torch.rand(6, 1, 8, 8), torch.rand(6) + 0.1
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    images, (mixed, mixed_weight) = MixBatch(**kind, num_classes=3)(x, (target, weight))
    torch.testing.assert_close(images, x)
    torch.testing.assert_close(mixed, F.one_hot(target).float())
    torch.testing.assert_close(mixed_weight, weight)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses(kind, label_smoothing):
    mix = MixBatch(**kind, num_classes=3)
    target, weight = torch.tensor([0, 2, 1, 1]), torch.tensor([1.0, 0.5, 0.0, 2.5])
    seen = set()
    for _ in range(8):
        logits = torch.randn(4, 3)

        def loss(target, logits=logits):
            return F.cross_entropy(
                logits, target, reduction="none", label_smoothing=label_smoothing
            )

        images, (mixed, mixed_weight) = mix(by_turns(4), (target, weight))
        lam = shares(images).float()
        assert lam.max() - lam.min() < 1e-6
        other = (target.roll(1), weight.roll(1))
        by_hand = lam * weight * loss(target) + (1 - lam) * other[1] * loss(other[0])
        torch.testing.assert_close(mixed_weight * loss(mixed), by_hand)
        torch.testing.assert_close(mixed.sum(1), torch.ones(4))
        seen.add(round(lam[0].item(), 3))
    assert len(seen) > 3


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_loss_of_mixed_findings_is_the_mixture_of_the_losses(kind):
    mix, loss = MixBatch(**kind), F.binary_cross_entropy_with_logits
    target = torch.tensor([[0.0, 1], [1, 1], [torch.nan, 0], [1, 0]])
    weight = torch.tensor([[1.0, 0.5], [2, 1], [0, 1], [0.5, 3]])
    known = target.nan_to_num()
    for _ in range(8):
        logits = torch.randn(4, 2)
        images, (mixed, mixed_weight) = mix(by_turns(4), (target, weight))
        lam = shares(images).float()[:, None]
        by_hand = lam * weight * loss(logits, known, reduction="none") + (1 - lam) * weight.roll(
            1, 0
        ) * loss(logits, known.roll(1, 0), reduction="none")
        torch.testing.assert_close(mixed_weight * loss(logits, mixed, reduction="none"), by_hand)


def test_what_has_no_weight_gets_an_even_target():
    x, weight = torch.rand(3, 1, 8, 8), torch.zeros(3)
    _, (target, mixed) = MixBatch(mixup=1, num_classes=4)(x, (torch.tensor([0, 1, 2]), weight))
    assert torch.equal(target, torch.full((3, 4), 0.25))
    assert torch.equal(mixed, weight)
    unlabelled = torch.full((3, 2), torch.nan), torch.zeros(3, 2)
    _, (target, mixed) = MixBatch(cutmix=1)(x, unlabelled)
    assert torch.equal(target, torch.full((3, 2), 0.5))
    assert torch.equal(mixed, torch.zeros(3, 2))


def test_with_both_each_batch_gets_one():
    mix, labels = MixBatch(1, 1, num_classes=2), (torch.tensor([0, 1]), torch.ones(2))
    cut = [set(mix(by_turns(2), labels)[0].unique().tolist()) <= {0.0, 1.0} for _ in range(60)]
    assert 15 < sum(cut) < 45


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_mixing_draws_from_torch_alone_and_keeps_its_input(kind):
    mix = pickle.loads(pickle.dumps(MixBatch(**kind, num_classes=2)))
    x, target, weight = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 1, 0]), torch.rand(4)
    before = x.clone(), target.clone(), weight.clone()
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        images, (mixed, mixed_weight) = mix(x, (target, weight))
        results.append((images, mixed, mixed_weight))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    for a, b in zip((x, target, weight), before, strict=True):
        assert torch.equal(a, b)


def test_mixing_keeps_double_precision():
    x, weight = torch.rand(2, 1, 4, 4, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    images, (target, weight) = MixBatch(0.4, num_classes=2)(x, (torch.tensor([0, 1]), weight))
    assert {images.dtype, target.dtype, weight.dtype} == {torch.float64}


def test_mixing_says_what_is_missing():
    with pytest.raises(InputError, match="num_classes=None"):
        MixBatch(0.2)(torch.rand(2, 1, 4, 4), (torch.tensor([0, 1]), torch.ones(2)))
    with pytest.raises(InputError, match="cutmix=-1"):
        MixBatch(cutmix=-1)
