"""Transforms side by side: what is merged, and that each is as it is alone."""

import pytest
import torch

import optfx
from optfx import tree
from tests.harness import assert_close, grads, params


def steps(tx, count=4):
    p, out = params(), []
    state = tx.init(p)
    for k in range(count):
        updates, state = tx.update(grads(k), state, p)
        p = optfx.apply_updates(p, updates)
        out.append(updates)
    return out, state


def test_one_branch_is_that_transform():
    tx = optfx.chain(optfx.clip_by_global_norm(0.5), optfx.adamw(0.1))
    for around in (optfx.parallel((tx,)), optfx.parallel({"only": tx})):
        assert_close(steps(around)[0], steps(tx)[0], 0)


def test_two_branches_are_added_and_each_keeps_its_own_state():
    a, b = optfx.scale_by_adam(), optfx.trace(0.9)
    (added, state), (x, own), (y, other) = steps(optfx.parallel((a, b)), 1), steps(a, 1), steps(b, 1)
    assert_close(added[0], tree.add(x[0], y[0]), 0)
    assert_close(state, (own, other), 0)


def test_the_merge_sees_the_branches_in_order():
    tx = optfx.parallel({"b": optfx.scale(5.0), "a": optfx.scale(2.0)}, tree.sub)
    assert_close(steps(tx, 1)[0][0], tree.scale(3.0, grads(0)), 1e-12)


def test_a_graft_has_the_direction_of_one_and_the_norm_of_the_other():
    direction, magnitude = optfx.scale_by_adam(), optfx.trace(0.9)
    (u,), (d,), (m,) = (
        map(tree.leaves, steps(tx, 1)[0]) for tx in (optfx.graft(direction, magnitude), direction, magnitude)
    )
    for x, y, z in zip(u, d, m, strict=True):
        torch.testing.assert_close(x.norm(), z.norm())
        torch.testing.assert_close(x * y.norm(), y * z.norm())


def test_no_direction_is_no_step():
    tx, ones = optfx.graft(optfx.set_to_zero(), optfx.identity()), torch.ones(2)
    assert not tx.update(ones, tx.init(ones))[0].any()


def test_both_parts_of_a_graft_have_the_gradient_of_the_chain():
    cautious = optfx.chain(optfx.trace(0.9), optfx.cautious())
    tx = optfx.chain(optfx.scale(2.0), optfx.graft(optfx.cautious(), optfx.scale(-1.0)))
    assert_close(steps(tx, 1)[0], steps(optfx.scale(2.0), 1)[0], 1e-12)
    assert_close(steps(optfx.parallel((cautious,)))[0], steps(cautious)[0], 0)


def test_numbers_and_averages_are_found_by_the_branch():
    tx = optfx.parallel({"fast": optfx.sgd(0.1), "slow": optfx.chain(optfx.scale(0.0), optfx.params_ema(0.5))})
    assert list(optfx.core.numbers(tx)) == ["fast.0.learning_rate", "slow.0.step_size", "slow.1.decay"]
    assert list(optfx.core.numbers(optfx.graft(optfx.scale(1.0), optfx.sgd(0.1)))) == [
        "direction.step_size",
        "magnitude.0.learning_rate",
    ]
    _, state = steps(tx, 1)
    assert_close(tx.eval_params(state, grads(0)), params(), 1e-12)


def test_a_state_of_something_else_is_an_error():
    tx = optfx.parallel((optfx.scale(1.0), optfx.scale(2.0)))
    with pytest.raises(ValueError, match="parallel: expected its state, a tuple of 2"):
        tx.update(params(), (), params())
