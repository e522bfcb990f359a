"""Masks and labels that are a function, or a tree, of all parameters, where only some of these have a gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import optfx
from optfx import select, tree
from optfx.combinators import views
from optfx.combinators.codecs import eight_bits
from optfx.interop import TorchOptimizer

COMPILE = pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
SHAPES = {"a.weight": (64, 64), "a.bias": (3,), "b.weight": (3, 3), "b.bias": (3,)}  # eight bits want 4096 elements

MASKS = {
    "function": lambda params: tree.map(lambda p: p.ndim > 1, params),
    "loop": lambda params: {name: p.ndim > 1 for name, p in params.items()},
    "tree": {name: len(shape) > 1 for name, shape in SHAPES.items()},
}
USES = {
    "decay": lambda mask: optfx.adamw(0.1, weight_decay=0.1, mask=mask),
    "masked": lambda mask: optfx.masked(optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adam(0.1)), mask),
    "freeze": lambda mask: optfx.chain(optfx.adam(0.1), optfx.freeze(mask)),
    "stored": lambda mask: optfx.stored(optfx.sgd(0.1, momentum=0.9), eight_bits(), select=mask),
    "inside": lambda mask: optfx.apply_if_finite(optfx.chain(optfx.adamw(0.1, mask=mask), optfx.params_ema(0.9)), 3),
}


def parameters():
    torch.manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, dtype=torch.float64)) for name, shape in SHAPES.items()}


def trained(tx, compile, steps=9):
    """The parameters after some steps, in each of which another one has no gradient."""
    params = parameters()
    optimizer = TorchOptimizer(params.items(), tx, compile=compile)
    for step in range(steps):
        for k, p in enumerate(params.values()):
            p.grad = torch.sin(p.detach()) if step < 2 or k != step % 4 else None
        optimizer.step()
    with optimizer.evaluating():
        return [p.detach().clone() for p in params.values()]


@COMPILE
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_mask_is_as_a_selector(use, mask, compile):
    torch.testing.assert_close(trained(use(mask), compile), trained(use(select.ndim(min=2)), compile))


@COMPILE
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_labels_are_as_a_selector(mask, compile):
    def labels(params):
        found = mask(params) if callable(mask) else mask
        return {name: "matrix" if found[name] else "rest" for name in params}

    parts = {"matrix": optfx.sgd(0.1, momentum=0.9), "rest": optfx.adam(0.1)}
    given = labels if callable(mask) else labels(mask)
    rules = select.label({"matrix": select.ndim(min=2)}, default="rest")
    torch.testing.assert_close(
        trained(optfx.partition(parts, given), compile), trained(optfx.partition(parts, rules), compile)
    )


@COMPILE
def test_a_mask_sees_what_its_transform_sees(compile):
    """One transform is in two places, and one is inside a view, which shows matrices."""

    def make(matrices, wide):
        decay = optfx.add_decayed_weights(0.5, mask=matrices)
        twice = optfx.chain(decay, optfx.scale(2.0))
        two = optfx.partition({"a": decay, "b": twice}, select.label({"a": select.path("a.*")}, default="b"))
        seen = optfx.viewed(optfx.add_decayed_weights(0.3, mask=wide), views.as_matrix())
        return optfx.chain(two, seen, optfx.sgd(0.1))

    mine = make(MASKS["function"], lambda params: tree.map(lambda p: p.shape[1] > 3, params))
    rules = make(select.ndim(min=2), select.leaf(lambda path, p: p.shape[1] > 3))
    torch.testing.assert_close(trained(mine, compile), trained(rules, compile))


@COMPILE
def test_a_mask_sees_the_tensors_of_all_parameters(compile):
    seen = []

    def mask(params):
        seen.append({name: tuple(p.shape) for name, p in params.items()})
        return dict.fromkeys(params, True)

    params = parameters()
    optimizer = TorchOptimizer(params.items(), optfx.adamw(0.1, mask=mask), compile=compile)
    params["b.bias"].grad = torch.ones(3, dtype=torch.float64)
    seen.clear()
    optimizer.step()
    more = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer.add_param_group({"params": [("more", more)]})
    more.grad = torch.ones_like(more)
    optimizer.step()
    assert set(map(str, seen)) == {str(SHAPES | {"more": (2,)})}  # anew where there are other parameters
    assert more[0] < 1


def zeros(params):
    return {name: torch.zeros_like(p) for name, p in params.items()}


def momentum(updates, state, params=None):
    new = {name: 0.9 * state[name] + u for name, u in updates.items()}
    return {name: -0.1 * m for name, m in new.items()}, new


@COMPILE
def test_functions_that_are_no_masks_see_the_parameters_with_a_gradient(compile):
    ours = trained(optfx.core.from_functions(zeros, momentum), compile)
    torch.testing.assert_close(ours, trained(optfx.sgd(0.1, momentum=0.9), compile))
    double = optfx.stateless(lambda updates, params: {name: 2 * u for name, u in updates.items()})
    torch.testing.assert_close(trained(optfx.chain(double, optfx.sgd(0.1)), compile), trained(optfx.sgd(0.2), compile))


@COMPILE
def test_codecs_by_name_are_no_masks(compile):
    codec = eight_bits()
    by_name = optfx.stored(optfx.adam(0.1), {"mu": codec, "nu": codec})
    torch.testing.assert_close(trained(by_name, compile), trained(optfx.stored(optfx.adam(0.1), codec), compile))
