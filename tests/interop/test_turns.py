"""Parameters that take turns, as experts do: other ones have a gradient in each step. One program does them all."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

import optfx
from optfx.interop import TorchOptimizer, turns
from optfx.interop.program import Whole

PAIRS = {
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1), lambda: optfx.adamw(0.01, weight_decay=0.1)),
    "sgd": (
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda: optfx.sgd(0.1, momentum=0.9, nesterov=True),
    ),
    "adamax": (lambda p: torch.optim.Adamax(p, lr=0.01), lambda: optfx.adamax(0.01)),
}
SHAPES = [(3,), (2, 3), (), (0, 2), (4, 4), (1,)] * 2


def two():
    torch.manual_seed(0)
    mine = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in SHAPES]
    return mine, [nn.Parameter(p.detach().clone()) for p in mine]


def give(step, *lists, share=0.5):
    """Gradients for some of the parameters."""
    chance = random.Random(step)
    for i, of_all in enumerate(zip(*lists, strict=True)):
        g = torch.sin(torch.arange(of_all[0].numel(), dtype=torch.float64) + i + step).view(of_all[0].shape)
        has = chance.random() < share
        for p in of_all:
            p.grad = g.clone() if has else None


def assert_equal(mine, theirs):
    for i, (x, y) in enumerate(zip(mine, theirs, strict=True)):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12, msg=lambda words, i=i: f"parameter {i}: {words}")


@pytest.mark.parametrize(("theirs", "ours"), PAIRS.values(), ids=PAIRS)
def test_one_program_for_all_turns(theirs, ours):
    mine, other = two()
    a, b = TorchOptimizer([{"params": mine[:5]}, {"params": mine[5:]}], ours(), compile=True), theirs(other)
    for step in range(30):
        give(step, mine, other, share=1.0 if step in (12, 20) else 0.4)
        if step == 15:
            for group in (*a.param_groups, *b.param_groups):
                group["lr"] *= 0.5
        a.step()
        b.step()
        assert_equal(mine, other)
        if step == 10:
            programs = dict(a._members._programs)
            plans = {key: list(p.fused._plans) for key, p in programs.items()}
    assert dict(a._members._programs) == programs  # nothing is compiled any more
    assert {key: list(p.fused._plans) for key, p in programs.items()} == plans
    assert len(programs) <= turns.FEW + 3


def test_what_is_saved_and_copied_between_turns():
    mine, other = two()
    a, b = TorchOptimizer(mine, optfx.adamw(0.01, weight_decay=0.1), compile=True), PAIRS["adamw"][0](other)
    for step in range(24):
        give(step, mine, other)
        a.step()
        b.step()
        assert_equal(mine, other)
        if step == 10:
            saved = copy.deepcopy(a.state_dict())
            a = TorchOptimizer(mine, optfx.adamw(0.01, weight_decay=0.1), compile=True)
            a.load_state_dict(saved)
        if step == 18:
            for p in mine:
                p.data = p.data.clone()


@pytest.mark.parametrize(
    "tx",
    [
        optfx.chain(optfx.centralize(), optfx.sgd(0.1, momentum=0.9)),
        optfx.chain(optfx.clip_by_global_norm(0.5), optfx.adamw(0.1)),
        optfx.chain(optfx.adamw(0.1), optfx.params_ema(0.9)),
    ],
    ids=["whole leaves", "all leaves", "average"],
)
def test_what_cannot_rest_has_a_program_for_each_turn(tx):
    """The numbers are those of the eager optimizer."""
    mine, other = two()
    a, b = TorchOptimizer(mine, tx, compile=True), TorchOptimizer(other, tx)
    for step in range(12):
        give(step, mine, other)
        a.step()
        b.step()
        assert_equal(mine, other)


def test_a_set_that_comes_once_compiles_nothing():
    """Where a transform looks at all leaves, which no program for all turns can."""
    mine, other = two()
    tx = optfx.chain(optfx.clip_by_global_norm(0.5), optfx.adamw(0.1))
    a, b = TorchOptimizer(mine, tx, compile=True), TorchOptimizer(other, tx)
    made = []
    for rests in (*range(len(mine)), 10, 10, 3):
        for i, (p, q) in enumerate(zip(mine, other, strict=True)):
            p.grad = None if i == rests else torch.cos(p.detach())
            q.grad = None if i == rests else torch.cos(q.detach())
        a.step()
        b.step()
        assert_equal(mine, other)
        made.append(sum(kind is Whole and p.fused is not None for (kind, *_), p in a._members._programs.items()))
    once = len(mine)
    assert made == [*range(1, turns.FEW + 1), *[turns.FEW] * (once - turns.FEW), *[turns.FEW + 1] * 2, turns.FEW + 2]
