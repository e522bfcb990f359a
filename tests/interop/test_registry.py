"""Every row of the registry as an optimizer of `torch.optim`: its numbers are those of the parameter groups."""

import pytest
import torch

import optfx
from optfx import tree
from optfx.interop import TorchOptimizer
from optfx.tree.recording import recording
from tests.harness import Asked, assert_close, each, grads, hyper_rows, params, rows

FIRST = ("w", "b.0")  # the parameters of the first of two groups


def start():
    return {name: x.clone().requires_grad_() for name, x in tree.to_dict(params()).items()}


def gradient(step):
    return tree.to_dict(grads(step))


def step(optimizer, p, k, extra):
    for name, g in gradient(k).items():
        if name in p:
            p[name].grad = g.clone()
    optimizer.step(**extra)


def in_two(p):
    """The parameters as two groups."""
    return [{"params": [(n, x) for n, x in p.items() if (n in FIRST) == first]} for first in (True, False)]


def other(row, *names):
    """Other values of some numbers of a row."""
    return {name: 0.5 * row.hypers[name] or 2.0 for name in names}


def knobs(row, change):
    """What the groups of two optimizers have that differ in some numbers of a row: {knob: its value in the second}."""
    first, second = (TorchOptimizer(start().items(), row.make(**row.hypers | x)).param_groups[0] for x in ({}, change))
    return {knob: x for knob, x in second.items() if knob != "params" and x != first[knob]}


def owners(row, name):
    """The paths of what has a number of a row: a transform, or a schedule."""
    first, second = (optfx.core.numbers(row.make(**row.hypers | x)) for x in ({}, other(row, name)))
    return {path.rpartition(".")[0] for path in first if first[path] != second[path]}


def looks_across(row):
    """The paths of the transforms that look across leaves, or hold one that does."""
    tx, asked = row.make(**row.hypers), Asked()
    state = tx.init(params())
    with recording(asked):
        tx.update(grads(0), state, params(), **row.extra)
    across = [*asked.across, *(x for _, part in each(tx) if isinstance(part, optfx.flatten) for _, x in each(part))]
    return {path for path, part in each(tx) if any(x is y for _, x in each(part) for y in across)}


def in_schedules(row):
    """The numbers of a row that its schedules have, which are no knobs."""
    transforms = {path for path, _ in each(row.make(**row.hypers))}
    return {name for name in row.hypers if not owners(row, name) <= transforms}


@rows
@pytest.mark.parametrize("groups", [1, 2])
def test_a_step_adds_the_updates(row, groups):
    tx, p = row.make(**row.hypers), start()
    if any(isinstance(part, optfx.inject_hyperparams) for _, part in each(tx)):
        with pytest.raises(TypeError, match="inject_hyperparams keeps numbers in the state"):
            TorchOptimizer(p.items(), tx)
        return
    optimizer = TorchOptimizer(in_two(p) if groups == 2 else p.items(), tx)
    q = tree.map(torch.detach, start())
    state = tx.init(q)
    for k in range(2):
        step(optimizer, p, k, row.extra)
        updates, state = tx.update(gradient(k), state, q, **row.extra)
        q = optfx.apply_updates(q, updates)
        assert_close(tree.map(torch.detach, p), q, 1e-12, 1e-13)


@hyper_rows
def test_every_number_is_a_knob(row):
    for name in row.hypers.keys() - in_schedules(row):
        change, p = other(row, name), start()
        optimizer, found = TorchOptimizer(p.items(), row.make(**row.hypers)), knobs(row, change)
        assert found, f"{name} is in no group"
        for knob, value in found.items():
            given = optimizer.param_groups[0][knob]
            pairs = zip(given, value, strict=True) if isinstance(value, tuple) else [(given, value)]
            assert (row.hypers[name], change[name]) in pairs
        q = tree.map(torch.detach, start())
        tx, changed = row.make(**row.hypers), row.make(**row.hypers | change)
        updates, state = tx.update(gradient(0), tx.init(q), q, **row.extra)
        q = optfx.apply_updates(q, updates)
        updates, _ = changed.update(gradient(1), state, q, **row.extra)
        step(optimizer, p, 0, row.extra)
        optimizer.param_groups[0] |= found
        step(optimizer, p, 1, row.extra)
        assert_close(tree.map(torch.detach, p), optfx.apply_updates(q, updates), 1e-12, 1e-13)


@hyper_rows
def test_two_groups_are_two_optimizers(row):
    """But a number of a transform that looks across leaves is one for all of them."""
    across, tx = looks_across(row), row.make(**row.hypers)
    shared = {name for name in row.hypers if owners(row, name) & across}
    for name in shared:
        first, second = in_two(start())
        with pytest.raises(ValueError, match=r"belongs to \w+, which looks across all parameters"):
            TorchOptimizer([first, second | knobs(row, other(row, name))], tx)
    change, p, apart = other(row, *row.hypers.keys() - shared - in_schedules(row)), start(), start()
    first, second = in_two(p)
    optimizer = TorchOptimizer([first, second | knobs(row, change)], tx)
    if across:
        return
    alone = [
        TorchOptimizer(group["params"], row.make(**row.hypers | numbers))
        for group, numbers in zip(in_two(apart), ({}, change), strict=True)
    ]
    for k in range(2):
        step(optimizer, p, k, row.extra)
        for one in alone:
            step(one, apart, k, row.extra)
        assert_close(p, apart, 1e-12, 1e-13)
