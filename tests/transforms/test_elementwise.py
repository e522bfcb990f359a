"""The point of each elementwise rule, as its paper makes it."""

import math

import pytest
import torch

import optfx
from optfx import tree


def train(tx, gradient, p, steps):
    """The updates of each step, with `gradient(t, p)`, and the last parameters."""
    state, out = tx.init(p), []
    for t in range(steps):
        updates, state = tx.update(gradient(t, p), state, p)
        p = optfx.apply_updates(p, updates)
        out.append(updates)
    return out, p


def noise(t, p):
    g = torch.Generator().manual_seed(t)
    return tree.map(lambda x: torch.randn(x.shape, generator=g, dtype=x.dtype), p)


W = {"w": torch.ones(50, dtype=torch.float64)}
SIGNS = {
    "lion": optfx.lion(0.1, weight_decay=0.0),
    "sign_sgd": optfx.sign_sgd(0.1),
    "signum": optfx.signum(0.1),
    "tiger": optfx.tiger(0.1, weight_decay=0.0),
}


@pytest.mark.parametrize("tx", SIGNS.values(), ids=SIGNS)
def test_every_step_along_a_sign_has_one_length(tx):
    for updates in train(tx, noise, W, 5)[0]:
        assert torch.equal(updates["w"].abs(), torch.full_like(updates["w"], 0.1))
    zeros = train(tx, lambda t, p: tree.zeros_like(p), W, 2)[0]
    assert not zeros[-1]["w"].any()


@pytest.mark.parametrize("tx", SIGNS.values(), ids=SIGNS)
def test_a_nan_is_seen(tx):
    (updates,), _ = train(tx, lambda t, p: tree.full_like(p, math.nan), W, 1)
    assert updates["w"].isnan().all()


def test_belief_goes_far_where_the_gradient_is_as_foretold():
    def alternating(t, p):
        return {"steady": torch.ones(1), "turning": torch.tensor([(-1.0) ** t])}

    p = {"steady": torch.zeros(1), "turning": torch.zeros(1)}
    believing = train(optfx.scale_by_belief(eps_root=1e-8), alternating, p, 50)[0][-1]
    adam = train(optfx.scale_by_adam(), alternating, p, 50)[0][-1]
    assert believing["steady"] > 3 * adam["steady"]
    assert believing["turning"].abs() < 1.2 * adam["turning"].abs()


def test_the_denominator_of_acprop_knows_nothing_of_its_gradient():
    tx, p = optfx.scale_by_acprop(), {"w": torch.zeros(1)}
    _, state = tx.update({"w": torch.ones(1)}, tx.init(p))
    once, ten = (tx.update({"w": torch.tensor([x])}, state)[0]["w"] for x in (1.0, 10.0))
    torch.testing.assert_close(ten, 10 * once)


def test_the_mean_of_yogi_moves_by_no_more_than_a_share_of_the_square():
    tx, p = optfx.scale_by_yogi(), {"w": torch.zeros(1)}
    _, state = tx.update({"w": torch.full((1,), 100.0)}, tx.init(p))
    before = state.nu["w"]
    _, state = tx.update({"w": torch.full((1,), 0.1)}, state)
    torch.testing.assert_close(before - state.nu["w"], torch.tensor([0.001 * 0.1**2]), rtol=0, atol=1e-6)
    adam = 0.001 * (before - 0.1**2)  # what Adam's would lose
    assert adam > 100 * (before - state.nu["w"])


def test_adan_looks_ahead_of_a_gradient_that_changes():
    def last(tx, slope):
        return train(tx, lambda t, p: tree.full_like(p, 3.0 + slope * t), W, 10)[0][-1]["w"][0].item()

    adam = optfx.scale_by_adam(0.98, 0.99)
    assert last(optfx.scale_by_adan(), 0.0) == pytest.approx(1) == last(adam, 0.0)
    assert last(optfx.scale_by_adan(), 1.0) > last(adam, 1.0)
    assert last(optfx.scale_by_adan(), -0.2) < last(adam, -0.2)


def test_laprop_is_no_longer_than_its_longest_divided_gradient():
    """After a silence, Adam with b1 > sqrt(b2) takes a step of any length; LaProp does not."""

    def silence(t, p):
        return tree.full_like(p, 1.0 if t == 0 else 0.0)

    lengths = {
        make: max(u["w"][0].item() for u in train(make(b1=0.99, b2=0.9), silence, W, 100)[0])
        for make in (optfx.scale_by_laprop, optfx.scale_by_adam)
    }
    assert lengths[optfx.scale_by_laprop] <= 1 + 1e-12
    assert lengths[optfx.scale_by_adam] > 3


def test_laprop_is_rms_and_then_a_mean():
    whole = train(optfx.scale_by_laprop(0.8, 0.95, 1e-3), noise, W, 6)[0]
    rms = optfx.scale_by_rms(0.95, 1e-3, eps_in_sqrt=False, bias_correction=True)
    parts = train(optfx.chain(rms, optfx.ema(0.8)), noise, W, 6)[0]
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_an_angle_is_the_same_for_gradients_of_any_size():
    steps = [
        train(optfx.scale_by_adam_atan2(), lambda t, p, k=k: tree.scale(k, noise(t, p)), W, 5)[0]
        for k in (1.0, 1e-30, 1e30)
    ]
    for a, b, c in zip(*steps, strict=True):
        torch.testing.assert_close(b, a)
        torch.testing.assert_close(c, a)
        assert a["w"].abs().max() <= 1.27 * math.pi / 2


def test_quasi_hyperbolic_momentum_has_its_limits():
    def same(a, b):
        for x, y in zip(train(a, noise, W, 4)[0], train(b, noise, W, 4)[0], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)

    same(optfx.scale_by_qhm(0.9, nu=0.0), optfx.identity())
    same(optfx.scale_by_qhm(0.9, nu=1.0), optfx.ema(0.9, debias=False))
    nesterov = optfx.chain(optfx.trace(0.9, nesterov=True), optfx.scale(1 - 0.9))
    same(optfx.scale_by_qhm(0.9, nu=0.9), nesterov)
    same(optfx.scale_by_qhadam(0.9, 0.999, nu1=1.0, nu2=1.0), optfx.scale_by_adam())


def test_optimism_finds_the_saddle_that_descent_circles():
    def game(t, p):  # x goes down x * y, and y up
        return {"x": p["y"], "y": -p["x"]}

    p = {"x": torch.ones(()), "y": torch.ones(())}
    found = train(optfx.optimistic_gradient_descent(0.3), game, p, 200)[1]
    circling = train(optfx.sgd(0.3), game, p, 200)[1]
    assert tree.norm(found) < 1e-2
    assert tree.norm(circling) > 10


def test_a_proximal_decay_crosses_no_zero():
    p = {"w": torch.tensor([4.0, -4.0])}
    for rate, expected in ((0.1, 4 / 1.5), (100.0, 4 / 501)):
        _, shrunk = train(optfx.proximal_weight_decay(rate, 5.0), lambda t, p: tree.zeros_like(p), p, 1)
        torch.testing.assert_close(shrunk["w"], torch.tensor([expected, -expected]))
    small = train(optfx.proximal_weight_decay(1e-4, 0.1), noise, W, 1)[1]
    plain = optfx.chain(optfx.add_decayed_weights(0.1), optfx.scale_by_learning_rate(1e-4))
    torch.testing.assert_close(small, train(plain, noise, W, 1)[1], rtol=0, atol=1e-8)
