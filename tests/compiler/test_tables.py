"""Tables in kernels: what stands at a place, and the place of a number, bit for bit as torch has them."""

import math

import pytest
import torch

import optfx
from optfx import tree
from optfx.combinators.codecs import FLOATS, TABLES
from optfx.compiler.kernels.cpp.tables import cells_of
from tests.compiler.harness import events

LIMITS = {f"{len(t)} numbers, {k}": limits for k, (t, limits) in enumerate([*TABLES.values(), *FLOATS.values()])}
LIMITS |= {
    "of one number": [0.5],
    "close together": [1.0, 1.0 + 2.0**-20, 1.0 + 2.0**-19],  # more than one in a cell
    "on both sides of zero": [-1e-30, 0.0, 1e-30],
    "the same twice": [1.0, 1.0, 2.0],
}


def numbers(limits, dtype):
    g, inf = torch.Generator().manual_seed(0), torch.tensor(math.inf, dtype=dtype)
    x = torch.tensor(limits, dtype=dtype)
    some = torch.randn(5000, generator=g, dtype=torch.float64)
    sizes = torch.empty(5000, dtype=torch.float64).uniform_(-9, 2, generator=g)
    ends = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, 1e-42, -1e-42], dtype=dtype)
    return torch.cat([x, x.nextafter(inf), x.nextafter(-inf), (some * 10**sizes).to(dtype), some.to(dtype), ends])


def fused(f, x):
    """What a function makes of a leaf in a fused step, which has no event in it."""
    tx = optfx.core.from_functions(tree.zeros_like, lambda updates, state, params: (updates, tree.map(f, updates)))
    opt = optfx.fuse(tx)
    params, state = opt.init({"w": torch.zeros_like(x)})
    state = opt.step({"w": x}, state, params)[1]
    assert not events(opt)
    assert all(unit.kernel.by == "C++" for stage in opt._plan.stages for unit in stage.units)
    return state["w"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_places(limits, dtype):
    def places(x):
        among = torch.tensor(limits, dtype=x.dtype)
        return torch.bucketize(x, among, right=True, out_int32=True).to(x.dtype)

    x = numbers(limits, dtype)
    assert torch.equal(fused(places, x), places(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_numbers_at_places(dtype):
    limits, table = [-0.5, 0.25, 3.0], [1.0 / 3, -2.0, math.inf, 1e-30]

    def at_places(x):
        at = torch.bucketize(x, torch.tensor(limits, dtype=x.dtype), right=True, out_int32=True)
        return torch.tensor(table, dtype=x.dtype)[at] * x

    x = torch.linspace(-1, 4, 1001, dtype=dtype)
    assert torch.equal(fused(at_places, x), at_places(x))


def test_a_table_that_may_change_is_no_part_of_a_program():
    """It is looked at in each step."""

    def update(updates, state, params):
        limits = torch.stack([state, state + 1, state + 2])
        f = lambda x: torch.bucketize(x, limits, right=True, out_int32=True).to(x.dtype)
        return tree.map(f, updates), state + 0.5

    tx = optfx.core.from_functions(lambda params: torch.zeros(()), update)
    opt, g = optfx.fuse(tx), {"w": torch.linspace(-1, 4, 20)}
    params, state = opt.init({"w": torch.zeros(20)})
    expected, own = {"w": torch.zeros(20)}, tx.init(g)
    for _ in range(3):
        params, state = opt.step(g, state, params)
        updates, own = tx.update(g, own, expected)
        expected = optfx.apply_updates(expected, updates)
        assert torch.equal(params["w"], expected["w"])


def test_cells_hold_one_limit_each():
    for _, limits in TABLES.values():
        cells = cells_of(tuple(limits))
        assert len(cells.numbers) == (1 + cells.both) * (cells.last - cells.first + 1)
        below = [k >> cells.open for k in cells.numbers]
        assert (min(below), max(below)) == (0, len(limits))
    assert cells_of(tuple(LIMITS["close together"])) is None
