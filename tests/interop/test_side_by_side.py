"""docs/from-torch.md puts a line of torch beside a line of optfx: both are run in float64, and give the same numbers.

A comment above a table, `<!-- compared: optimizers -->`, says what its rows are, and so which test here reads them. The
code of a cell is evaluated as it stands; words beside it are for the reader.
"""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import utils
from torch.optim import lr_scheduler, swa_utils

import optfx
from optfx import schedules, select
from tests.interop.torch_table import PAGE

TABLE = re.compile(r"<!-- compared: (\w+) -->\n\n((?:\|.*\n)+)")
BATCHES, EPOCHS, LR = 4, 100, 0.1


def pairs(kind):
    """(code of torch, code of optfx), each a list, of the rows of that kind."""
    tables = [lines.splitlines()[2:] for found, lines in TABLE.findall(PAGE.read_text()) if found == kind]
    cells = [row.strip("| ").split(" | ") for rows in tables for row in rows]
    return [pytest.param(*(re.findall(r"`(.+?)`", cell) for cell in row), id=row[0]) for row in cells]


def test_every_table_is_compared():
    kinds = {kind for kind, _ in TABLE.findall(PAGE.read_text())}
    assert kinds == {"optimizers", "schedules", "plateaus", "layers", "clips", "averages"}
    assert len(pairs("optimizers")) >= 12
    assert PAGE.read_text().count("<!-- compared") == len(TABLE.findall(PAGE.read_text()))


def build():
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    return model, optfx.tree.map(torch.clone, optfx.params(model))


def gradients(params, step):
    generator = torch.Generator().manual_seed(step)
    noise = {name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in params.items()}
    return {name: torch.sin(p) + noise[name] for name, p in params.items()}


def give(model, step):
    for (_, p), grad in zip(model.named_parameters(), gradients(optfx.params(model), step).values(), strict=True):
        p.grad = grad


def names(model):
    params = list(model.parameters())
    label = select.label({"head": select.path("2.*")}, default="body")
    return {
        "optfx": optfx,
        "select": select,
        "model": model,
        "params": params,
        "matrices": [p for p in params if p.ndim >= 2],
        "rest": [p for p in params if p.ndim < 2],
        "body": [*model[0].parameters()],
        "head": [*model[2].parameters()],
        "label": label,
        "batches": BATCHES,
    }


def ours_after(tx, params, steps):
    state = tx.init(params)
    for k in range(steps):
        updates, state = tx.update(gradients(params, k), state, params)
        params = optfx.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize(("theirs", "ours"), [*pairs("optimizers"), *pairs("layers")])
def test_optimizers(theirs, ours):
    model, params = build()
    found = [eval(code, vars(torch.optim) | names(model)) for code in theirs]
    optimizers = [x for x in found if isinstance(x, torch.optim.Optimizer)]
    assert optimizers
    start = copy.deepcopy(params)
    for k in range(30):
        give(model, k)
        for optimizer in optimizers:
            optimizer.step()
    params, _ = ours_after(eval(*ours, names(model)), params, 30)
    torch.testing.assert_close(params, optfx.params(model), rtol=1e-11, atol=1e-13)
    assert not torch.equal(params["2.weight"], start["2.weight"])


@pytest.mark.parametrize(("theirs", "ours"), pairs("schedules"))
@pytest.mark.parametrize("batches", [1, BATCHES])
def test_schedules(theirs, ours, batches):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = eval(*theirs, vars(lr_scheduler) | {"optimizer": optimizer})
    schedule = eval(*ours, vars(schedules) | {"batches": batches})
    expected = []
    for _ in range(EPOCHS):
        expected += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    found = torch.stack([schedule(epoch * batches) for epoch in range(EPOCHS)])
    expected = torch.tensor(expected, dtype=torch.float64)
    # torch computes a rate from the one before, and so adds up roundings
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-15)
    assert expected.unique().numel() > 1


@pytest.mark.parametrize(("theirs", "ours"), pairs("plateaus"))
def test_plateaus(theirs, ours):
    losses = [5.0, 4.0, *[4.0] * 8, 3.0, *[3.5] * 20, 2.0]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = eval(*theirs, vars(lr_scheduler) | {"optimizer": optimizer})
    tx, params = eval(*ours, {"optfx": optfx, "batches": BATCHES}), {"w": torch.zeros(1)}
    state, seen = tx.init(params), set()
    for loss in losses:
        scheduler.step(loss)
        for _ in range(BATCHES):
            _, state = tx.update(params, state, params, value=loss)
        assert float(state.scale) == optimizer.param_groups[0]["lr"]
        seen.add(float(state.scale))
    assert len(seen) > 3


@pytest.mark.parametrize(("theirs", "ours"), pairs("clips"))
def test_clips(theirs, ours):
    model, params = build()
    give(model, 0)
    before = optfx.tree.map(torch.clone, optfx.grads(model))
    eval(*theirs, vars(utils) | names(model))
    tx = eval(*ours, names(model))
    found, _ = tx.update(before, tx.init(params), params)
    torch.testing.assert_close(found, optfx.grads(model), rtol=1e-5, atol=0)  # torch adds 1e-6 to the norm
    assert not torch.equal(found["0.weight"], before["0.weight"])


@pytest.mark.parametrize(("theirs", "ours"), pairs("averages"))
def test_averages(theirs, ours):
    model, params = build()
    code, *condition = theirs
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    averaged = eval(code, vars(swa_utils) | names(model))
    average = eval(*ours, names(model))
    start, after_first = copy.deepcopy(params), None
    for i in range(30):
        give(model, i)
        optimizer.step()
        after_first = after_first or optfx.tree.map(torch.clone, optfx.params(model))
        if not condition or eval(condition[0].removeprefix("if "), {"i": i}):
            averaged.update_parameters(model)
    tx = optfx.chain(optfx.sgd(0.1), average)
    params, state = ours_after(tx, params, 30)
    found = tx.eval_params(state, params)
    expected = optfx.params(averaged.module)
    if isinstance(average, optfx.params_ema):  # which begins one step earlier
        other = optfx.tree.sub(start, after_first)
        expected = optfx.tree.add_scale(expected, average.decay**30, other)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
