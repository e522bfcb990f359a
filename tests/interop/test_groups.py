"""What a mask sees in an optimizer of several groups: all parameters. (`test_registry.py` has the laws of groups.)"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import optfx
from optfx import core, tree
from optfx.interop import TorchOptimizer

SHAPES = {"a.weight": (3, 2), "a.bias": (3,), "b.weight": (2, 3), "b.bias": ()}


def parameters():
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for name, s in SHAPES.items()}


def pairs(params, letter):
    return [(name, p) for name, p in params.items() if name.startswith(letter)]


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
    for k in range(2):
        for p in params.values():
            p.grad = torch.full_like(p, k + 1.0)
        optimizer.step()
    for name, p in params.items():
        assert list(optimizer.state[p]) == ["0", "1.count"]
        decay = 0.25 if name.startswith("a") else 0.5
        assert torch.equal(optimizer.state[p]["0"], torch.full_like(p, decay * 1 + 2))
