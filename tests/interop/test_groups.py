"""Laws of parameter groups, for every row of the registry, and what a mask sees of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import optfx
from optfx import core, tree
from optfx.interop import TorchOptimizer
from optfx.interop.groups import Knobs, across
from tests.registry import ROWS

SHAPES = {"a.weight": (3, 2), "a.bias": (3,), "b.weight": (2, 3), "b.bias": ()}
TAKEN = [row for row in ROWS if row.name != "inject_hyperparams"]  # which keeps its numbers in the state
ALONE = [row for row in TAKEN if not across(core.as_transform(row.make(**row.hypers)))]


def parameters():
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for name, s in SHAPES.items()}


def train(params, optimizers, extra, steps=4):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params.values():
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for optimizer in optimizers:
            optimizer.step(**extra)
    return params


def pairs(params, letter):
    return [(name, p) for name, p in params.items() if name.startswith(letter)]


def other(value):
    return tuple(0.9 * x for x in value) if isinstance(value, tuple) else 0.9 * value


@pytest.mark.parametrize("row", TAKEN, ids=lambda row: row.id)
def test_every_number_is_a_knob(row):
    tx = core.as_transform(row.make(**row.hypers))
    paths = [path for knob in Knobs(tx).found.values() for path in knob.paths]
    assert len(paths) == len(set(paths))
    named = {path for path in core.numbers(tx) if path in optfx.hyperparams(tx, tx.init(parameters()))}
    assert named <= set(paths)


@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.id)
def test_two_groups_equal_two_optimizers(row):
    tx = core.as_transform(row.make(**row.hypers))
    numbers = {name: other(knob.value) for name, knob in Knobs(tx).found.items()}
    mine, theirs = parameters(), parameters()
    both = TorchOptimizer([{"params": pairs(mine, "a")}, {"params": pairs(mine, "b"), **numbers}], tx)
    each = TorchOptimizer(pairs(theirs, "a"), tx), TorchOptimizer(pairs(theirs, "b"), tx, **numbers)
    train(mine, [both], row.extra)
    train(theirs, each, row.extra)
    for name, p in mine.items():
        assert torch.equal(p, theirs[name]), name
    for letter, optimizer in zip("ab", each, strict=True):
        for name, p in pairs(theirs, letter):
            assert both.state[mine[name]].keys() == optimizer.state[p].keys()
            for key, x in optimizer.state[p].items():
                assert torch.equal(both.state[mine[name]][key], x), (name, key)


@pytest.mark.parametrize(
    "mask",
    [
        {"a.weight": True, "a.bias": False, "b.weight": False, "b.bias": True},
        optfx.select.path("a.weight") | optfx.select.path("b.bias"),
        lambda params: {name: i in (1, 2) for i, name in enumerate(sorted(params))},
    ],
    ids=["tree", "selector", "function of all"],
)
@pytest.mark.parametrize("around", [False, True], ids=["mask of the decay", "masked decay"])
def test_a_mask_is_of_all_parameters(mask, around):
    decay = optfx.masked(optfx.add_decayed_weights(0.5), mask) if around else optfx.add_decayed_weights(0.5, mask)
    params = parameters()
    start = {name: p.detach().clone() for name, p in params.items()}
    groups = [{"params": pairs(params, "a"), "lr": 1.0}, {"params": pairs(params, "b"), "weight_decay": 0.25}]
    optimizer = TorchOptimizer(groups, optfx.chain(decay, optfx.scale_by_learning_rate(1.0)))
    for p in params.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    factors = {"a.weight": 0.5, "a.bias": 1.0, "b.weight": 1.0, "b.bias": 0.75}
    for name, p in params.items():
        torch.testing.assert_close(p.detach(), factors[name] * start[name])


def add(m, g, decay):
    return decay * m + g


@tree.record
class masked_momentum(core.GradientTransformation):
    """Has a number, a mask and a state like the parameters."""

    decay: core.Hyper
    mask: Any

    def begin(self, params):
        return tree.zeros_like(params)

    def step(self, updates, state, params):
        keep = optfx.select.resolve(self.mask, params, bool, "masked_momentum")
        state = tree.elementwise(add, state, updates, decay=self.at(torch.tensor(0))["decay"])
        (mine, _), (_, rest) = tree.split(state, keep), tree.split(updates, keep)
        return tree.merge(mine, rest), state


def test_the_state_beside_a_mask_belongs_to_each_parameter():
    mask = {name: name.endswith("weight") for name in SHAPES}
    params = parameters()
    groups = [{"params": pairs(params, "a")}, {"params": pairs(params, "b"), "decay": 0.5}]
    optimizer = TorchOptimizer(groups, optfx.chain(masked_momentum(0.25, mask), optfx.scale(-1.0)))
    train(params, [optimizer], {}, steps=1)
    grads = {name: p.grad.clone() for name, p in params.items()}
    train(params, [optimizer], {}, steps=1)
    for name, p in params.items():
        assert list(optimizer.state[p]) == ["0", "1.count"]
        expected = grads[name] * (0.25 if name.startswith("a") else 0.5) + p.grad
        torch.testing.assert_close(optimizer.state[p]["0"], expected)
