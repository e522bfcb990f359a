"""Where the model is evaluated, through combinators (`tests/test_laws.py` asks every row of the registry)."""

import torch

import optfx
from optfx import select, tree
from tests.harness import assert_close, grads, params

B = select.path("b*")


def trained(tx, steps=3):
    p = params()
    state = tx.init(p)
    for step in range(steps):
        updates, state = tx.update(grads(step), state, p)
        p = optfx.apply_updates(p, updates)
    return state, p


def mean(decay=0.5):
    """The running mean of the parameters of `sgd(0.1)`, written out."""
    found = params()
    for steps in (1, 2, 3):
        _, p = trained(optfx.sgd(0.1), steps)
        found = tree.add(tree.scale(decay, found), tree.scale(1 - decay, p))
    return found


AVERAGED = optfx.chain(optfx.sgd(0.1), optfx.params_ema(0.5))


def test_an_average_in_a_chain():
    state, p = trained(AVERAGED)
    assert_close(AVERAGED.eval_params(state, p), mean(), 1e-12)


def test_an_average_of_some_leaves():
    tx = optfx.chain(optfx.sgd(0.1), optfx.masked(optfx.params_ema(0.5), B))
    state, p = trained(tx)
    found = tx.eval_params(state, p)
    assert_close(found["b"], mean()["b"], 1e-12)
    assert found["w"] is p["w"]
    assert found["k"]["conv"] is p["k"]["conv"]


def test_each_group_says_for_its_own_leaves():
    tx = optfx.partition({"mean": AVERAGED, "last": optfx.sgd(0.1)}, select.label({"mean": B}, default="last"))
    state, p = trained(tx)
    found = tx.eval_params(state, p)
    assert_close(found["b"], mean()["b"], 1e-12)
    assert found["w"] is p["w"]


def test_numbers_in_the_state_are_those_of_the_average():
    tx = optfx.inject_hyperparams(AVERAGED)
    state, p = trained(tx)
    assert_close(tx.eval_params(state, p), mean(), 1e-12)


def test_a_step_that_was_skipped_leaves_the_average_as_it_was():
    tx = optfx.apply_if_finite(AVERAGED, 3)
    state, p = trained(tx)
    updates, state = tx.update(tree.scale(torch.inf, grads(0)), state, p)
    assert_close(tx.eval_params(state, optfx.apply_updates(p, updates)), mean(), 1e-12)


def test_the_last_average_of_a_chain_counts():
    tx = optfx.chain(optfx.sgd(0.1), optfx.params_ema(0.0), optfx.named_chain(("mean", optfx.params_ema(0.5))))
    state, p = trained(tx)
    assert_close(tx.eval_params(state, p), mean(), 1e-12)


def test_trees_with_holes_and_nothing_in_them():
    p = {"w": torch.ones(2), "none": None, "hole": tree.Hole()}
    state = AVERAGED.init(p)
    _, state = AVERAGED.update({"w": torch.ones(2), "none": None, "hole": tree.Hole()}, state, p)
    found = AVERAGED.eval_params(state, p)
    assert tree.flatten(found)[1] == tree.flatten(p)[1]
    assert AVERAGED.eval_params(AVERAGED.init({}), {}) == {}
