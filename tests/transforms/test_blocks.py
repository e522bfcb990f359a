"""What rules by blocks of parameters are for, each in a property."""

import pytest
import torch

import optfx
from optfx import tree

F64 = torch.float64


def norms(t):
    return {name: x.norm() for name, x in t.items()}


def draw(seed, **shapes):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=g, dtype=F64) for name, shape in shapes.items()}


SHAPES = {"matrix": (4, 3), "vector": (5,), "number": ()}


def once(tx, g, p=None):
    p = tree.zeros_like(g) if p is None else p
    return tx.update(g, tx.init(p), p)[0]


# ---- in proportion to the parameters -----------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: optfx.lamb(0.1, eps=0.0), lambda: optfx.lars(0.1, trust_coefficient=1.0)])
def test_a_step_is_a_share_of_the_parameters_whatever_the_size_of_the_gradients(make):
    p, g = draw(0, **SHAPES), draw(1, **SHAPES)
    for size in (1e-6, 1.0, 1e6):
        u = once(make(), {name: size * (k + 1) * x for k, (name, x) in enumerate(g.items())}, p)
        for name, x in norms(p).items():
            torch.testing.assert_close(u[name].norm(), 0.1 * x)


def test_where_a_norm_is_zero_the_step_is_as_if_there_were_no_ratio():
    p = {"zero": torch.zeros(2, dtype=F64), "still": torch.ones(2, dtype=F64)}
    g = {"zero": torch.ones(2, dtype=F64), "still": torch.zeros(2, dtype=F64)}
    assert torch.equal(once(optfx.scale_by_trust_ratio(0.0, 0.5), g, p)["zero"], g["zero"])
    assert torch.equal(once(optfx.scale_by_trust_ratio(0.0, 0.5), g, p)["still"], g["still"])
    least = once(optfx.scale_by_trust_ratio(min_norm=1e-3), g, p)["zero"]  # which comes back from zero slowly
    torch.testing.assert_close(least.norm(), torch.tensor(1e-3, dtype=F64))


def test_lars_has_its_ratio_where_the_mask_says():
    p, g = draw(0, **SHAPES), draw(1, **SHAPES)
    matrices = optfx.select.ndim(min=2)
    u = once(optfx.lars(1.0, 0.5, matrices, 0.01, trust_ratio_mask=matrices), g, p)
    assert torch.equal(u["vector"], -g["vector"])
    torch.testing.assert_close(u["matrix"].norm(), 0.01 * p["matrix"].norm())


def test_a_step_of_fromage_across_the_parameters_keeps_their_norm():
    p = {"w": torch.tensor([3.0, 0.0, 4.0], dtype=F64)}
    for rate in (1e-3, 0.1, 1.0):
        new = optfx.apply_updates(p, once(optfx.fromage(rate), {"w": torch.tensor([4.0, 7.0, -3.0], dtype=F64)}, p))
        torch.testing.assert_close(new["w"].norm(), p["w"].norm(), rtol=1e-14, atol=0)
        assert not torch.equal(new["w"], p["w"])


def test_a_leaf_is_scaled_by_the_norm_of_its_parameter():
    p, g = draw(0, **SHAPES), draw(1, **SHAPES)
    u = once(optfx.scale_by_param_block_norm(), g, p)
    for name, x in norms(p).items():
        torch.testing.assert_close(u[name], x * g[name])


@pytest.mark.parametrize("make", [optfx.normalize, optfx.normalize_by_update_norm])
def test_all_leaves_together_have_the_norm_one(make):
    for size in (1.0, 1e4):
        found = tree.norm(once(make(), tree.scale(size, draw(0, **SHAPES))))
        torch.testing.assert_close(found, torch.tensor(1.0, dtype=F64), rtol=1e-6, atol=0)
    zeros = tree.zeros_like(draw(0, **SHAPES))
    assert tree.norm(once(make(), zeros)) == 0
    bad = {"a": torch.tensor([torch.nan]), "b": torch.ones(1)}
    assert all(x.isnan().all() for x in once(make(), bad).values())  # as `clip_by_global_norm`


# ---- one mean for each leaf --------------------------------------------------------------------------


def test_novograd_keeps_one_number_a_leaf_and_begins_with_the_norm():
    g = draw(0, **SHAPES)
    tx = optfx.scale_by_novograd(eps=0.0)
    updates, state = tx.update(g, tx.init(g), g)
    for name, x in norms(g).items():
        assert state.nu[name].shape == ()
        torch.testing.assert_close(state.nu[name], x**2)
        torch.testing.assert_close(updates[name].norm(), torch.tensor(1.0, dtype=F64))


def spike(tx, p, size):
    """The updates at a gradient that is `size` times what it used to be."""
    g, state = draw(0, **SHAPES), tx.init(p)
    for _ in range(50):
        _, state = tx.update(g, state, p)
    return tx.update({**g, "matrix": size * g["matrix"]}, state, p)[0]


def test_stableadamw_is_adamw_until_the_gradient_grows_and_then_shorter():
    p = draw(1, **SHAPES)
    ours, adamw = optfx.stableadamw(0.1, weight_decay=0.5), optfx.adamw(0.1, 0.9, 0.99, 1e-6, weight_decay=0.5)
    for a, b in zip(tree.leaves(spike(ours, p, 1.0)), tree.leaves(spike(adamw, p, 1.0)), strict=True):
        torch.testing.assert_close(a, b)
    a, b = spike(ours, p, 10.0), spike(adamw, p, 10.0)
    torch.testing.assert_close(a["vector"], b["vector"])
    ratio = a["matrix"] / b["matrix"]  # one number, of the decay too
    torch.testing.assert_close(ratio, ratio[0, 0].expand(4, 3))
    assert ratio[0, 0] < 0.25


# ---- rows and columns --------------------------------------------------------------------------------


def test_sm3_is_adagrad_for_vectors_and_never_bolder_for_matrices():
    gs = [draw(k, **SHAPES, kernel=(2, 3, 2, 2)) for k in range(6)]
    ours, adagrad = optfx.scale_by_sm3(b1=0.0), optfx.scale_by_rss(0.0, 1e-8)
    state, other = ours.init(gs[0]), adagrad.init(gs[0])
    for g in gs:
        u, state = ours.update(g, state)
        v, other = adagrad.update(g, other)
        for name in ("vector", "number"):
            torch.testing.assert_close(u[name], v[name])
        for name in ("matrix", "kernel"):
            assert (u[name].abs() <= v[name].abs() * (1 + 1e-12)).all()
            assert (u[name].sign() == v[name].sign()).all()
    numbers = {name: sum(x.numel() for x in xs) for name, xs in state.maxima.items()}
    assert numbers == {"matrix": 7, "vector": 5, "number": 1, "kernel": 9}


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0, 2), (1,), (1, 1)])
@pytest.mark.parametrize("make", [optfx.scale_by_sm3, optfx.scale_by_novograd, optfx.scale_by_confidence], ids=str)
def test_small_and_empty_leaves(make, shape):
    p, tx = {"w": torch.ones(shape)}, make()
    state = tx.init(p)
    for _ in range(2):
        updates, state = tx.update(p, state, p)
    assert updates["w"].shape == shape
    assert tree.all_finite((updates, tree.cast(state, torch.float64)))


def test_came_takes_longer_steps_where_its_updates_agree():
    tx, p = optfx.scale_by_confidence(b3=0.9), {"w": torch.zeros(2, 4, dtype=F64)}
    state = tx.init(p)
    for k in range(40):
        steady = torch.full((4,), 1.0 + 0.1 * (-1) ** k, dtype=F64)
        updates, state = tx.update({"w": torch.stack([steady, 1.0 + 3.0 * (-1) ** k * torch.ones_like(steady)])}, state)
    gain = updates["w"] / state.mu["w"]
    assert (gain[0] > 5 * gain[1]).all()


def test_a_constant_decay_of_the_factored_means():
    tx, g = optfx.scale_by_factored_rms(min_dim_size_to_factor=1, decay=0.75, epsilon=0.0), draw(0, w=(4, 3), v=(5,))
    state = tx.init(g)
    for _ in range(2):
        _, state = tx.update(g, state)
    torch.testing.assert_close(state.v["v"], (1 - 0.75**2) * g["v"].square())
    torch.testing.assert_close(state.v_row["w"].sum(), (1 - 0.75**2) * g["w"].square().mean(0).sum())
