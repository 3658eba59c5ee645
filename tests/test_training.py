"""The loss, the schedule and the manners of the net."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from skcxr._epochs import schedule
from skcxr.training import WeightedCrossEntropy, own_randomness


def test_the_loss_is_torch_s_with_weights():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator)
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    ours = WeightedCrossEntropy(0.1)
    plain = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(logits, target)
    torch.testing.assert_close(ours(logits, (target, torch.ones(6))), plain)
    doubled = ours(
        torch.cat([logits, logits[:1]]), (torch.cat([target, target[:1]]), torch.ones(7))
    )
    weight = torch.tensor([2.0, 1, 1, 1, 1, 1])
    torch.testing.assert_close(ours(logits, (target, weight / weight.mean())), doubled)


@pytest.mark.parametrize(("name", "first", "last"), [("onecycle", 0.04, 0), ("cosine", 1 / 3, 0)])
def test_schedules_end_at_nothing(name, first, last):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    [(_, callback)] = schedule(name, [1.0], n_epochs=5, n_batches=4)
    policy = callback.initialize().policy_(optimizer, **callback.kwargs)
    rates = []
    for _ in range(20):
        rates.append(policy.get_last_lr()[0])
        optimizer.step()
        policy.step()
    assert rates[0] == pytest.approx(first)
    assert max(rates) == pytest.approx(1, abs=0.02)
    assert rates[-1] == pytest.approx(last, abs=0.01)


def test_no_schedule():
    assert schedule(None, 1.0, 5, 4) == []


def test_own_randomness_is_seeded_and_gives_back():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    with own_randomness(3, "cpu"):
        outer = draw()
        with own_randomness(5, "cpu"):
            inner = draw()
        more = draw()
    with own_randomness(5, "cpu"):
        assert draw() == inner
    with own_randomness(3, "cpu"):
        assert draw() == outer
        assert draw() == more
