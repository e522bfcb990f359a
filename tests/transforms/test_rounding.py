"""Parameters in bfloat16 move by steps smaller than their spacing."""

import optimi
import pytest
import torch

import optfx
from optfx import tree

BF16 = torch.bfloat16
START = {"a": torch.linspace(0.5, 2.0, 50).to(BF16), "b": [-torch.rand(7).to(BF16) - 1]}


def shrunk(*last, steps=1000, start=START):
    """Params after steps that make them smaller by 1e-4 each, and the same in float64."""
    tx, p = optfx.chain(optfx.scale(-1e-4), *last), start
    exact, state = tree.cast(p, torch.float64), tx.init(p)
    for _ in range(steps):
        updates, state = tx.update(p, state, p)
        p = optfx.apply_updates(p, updates)
        exact = tree.scale(1 - 1e-4, exact)
    return p, exact


def spacings(p, exact):
    """How far apart, in spacings of bfloat16."""
    ulp = lambda x: torch.exp2(x.abs().log2().floor() - 7)
    return max(
        ((x.double() - y).abs() / ulp(y)).max().item() for x, y in zip(tree.leaves(p), tree.leaves(exact), strict=True)
    )


def test_alone_they_stand_still():
    assert tree.leaves(shrunk()[0])[0].equal(START["a"])


def test_compensated_they_move_as_float32_does():
    assert spacings(*shrunk(optfx.compensate())) <= 1


def test_compensation_is_that_of_optimi_which_rounds_once_more():
    rate = 2.0**-10
    theirs = [x.clone().requires_grad_() for x in tree.leaves(START)]
    peer = optimi.SGD(theirs, lr=rate, momentum=0.0, kahan_sum=True, foreach=False, triton=False)
    tx, p = optfx.chain(optfx.sgd(rate), optfx.compensate()), START
    state = tx.init(p)
    for step in range(50):
        g = tree.map(lambda x, step=step: torch.cos(step + x.float()).to(BF16), START)
        updates, state = tx.update(g, state, p)
        p = optfx.apply_updates(p, updates)
        for x, y in zip(theirs, tree.leaves(g), strict=True):
            x.grad = y
        peer.step()
        for x, y in zip(theirs, tree.leaves(p), strict=True):
            assert spacings(y, x.detach().double()) <= 1, step


@pytest.mark.parametrize("size", [1e-4, 0.3, 3.0])
def test_the_error_is_what_is_missing(size):
    """Params and error together are the sum of all updates, also where a step leads across zero."""
    tx, p = optfx.compensate(), {"w": torch.linspace(-1.0, 1.0, 101).to(BF16)}
    state, total = tx.init(p), p["w"].double()
    for step in range(20):
        u = {"w": (size * torch.sin(7 * p["w"].double() + step)).to(BF16)}
        total = total + u["w"].double()
        updates, state = tx.update(u, state, p)
        p = optfx.apply_updates(p, updates)
    both = p["w"].double() + state.error["w"].double()
    torch.testing.assert_close(both, total, rtol=0, atol=2e-4 * max(size, 1))


def test_stochastic_rounding_is_exact_in_the_mean():
    start = {"w": torch.full((20_000,), 1.5, dtype=BF16), "v": [torch.full((20_000,), -0.7, dtype=BF16)]}
    p, exact = shrunk(optfx.round_stochastically(key=0), steps=100, start=start)
    for x, y in zip(tree.leaves(p), tree.leaves(exact), strict=True):
        assert x.unique().numel() > 2
        torch.testing.assert_close(x.double().mean(), y.mean(), rtol=3e-4, atol=0.0)


def test_it_rounds_to_a_neighbor_with_the_right_probability():
    tx = optfx.round_stochastically(key=1)
    low, high = 1.0, 1.0 + 2.0**-7
    for share in (0.0, 0.1, 0.5, 0.9):
        p = {"w": torch.full((40_000,), low, dtype=BF16)}
        u = {"w": torch.full((40_000,), share * 2.0**-7)}
        new = optfx.apply_updates(p, tx.update(u, tx.init(p), p)[0])["w"].double()
        assert set(new.unique().tolist()) <= {low, high}
        assert abs((new == high).double().mean().item() - share) < 0.01


def test_each_leaf_and_step_draws_anew_and_runs_repeat():
    tx, p = optfx.round_stochastically(key=3), tree.map(lambda x: torch.ones(999).to(BF16), START)
    u, state = tree.map(lambda x: torch.full((999,), 2.0**-8, dtype=BF16), p), tx.init(p)
    first, state = tx.update(u, state, p)
    second, _ = tx.update(u, state, p)
    assert not torch.equal(first["a"], second["a"])
    assert not torch.equal(first["a"], first["b"][0])
    assert torch.equal(tx.update(u, tx.init(p), p)[0]["a"], first["a"])


@pytest.mark.parametrize("last", [optfx.compensate(), optfx.round_stochastically(key=0)], ids=repr)
def test_wide_leaves_are_passed_through_and_what_is_not_finite_stays_so(last):
    p = {"wide": torch.ones(2), "w": torch.ones(3, dtype=BF16)}
    u = {"wide": torch.full((2,), 1e-4), "w": torch.tensor([torch.inf, -torch.inf, torch.nan], dtype=BF16)}
    updates, _ = last.update(u, last.init(p), p)
    assert updates["wide"] is u["wide"]
    assert not optfx.apply_updates(p, updates)["w"].isfinite().any()
