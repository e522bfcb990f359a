"""`add_noise`: optax's variance, jax's normal numbers, and noise that depends on nothing but key, path and step."""

import jax
import numpy as np
import pytest
import torch

import optfx
from optfx import random, tree

PARAMS = {"a": torch.zeros(3, 2, dtype=torch.float64), "b": [torch.zeros((), dtype=torch.float64)]}


def noise(tx, params, steps, state=None):
    state, out = tx.init(params) if state is None else state, []
    for _ in range(steps):
        updates, state = tx.update(tree.zeros_like(params), state, params)
        out.append(updates)
    return out, state


def test_it_is_jaxs_normal_numbers_at_optaxs_variance():
    eta, gamma = 0.3, 0.55
    out, state = noise(optfx.add_noise(eta, gamma, key=7), PARAMS, 4)
    for t, updates in enumerate(out, 1):
        for key, u in zip(tree.leaves(state.keys), tree.leaves(updates), strict=True):
            theirs = jax.random.fold_in(jax.random.wrap_key_data(np.asarray(key, np.uint32)), t)
            xi = jax.random.normal(theirs, u.shape, np.float64)
            np.testing.assert_allclose(u, np.sqrt(eta / t**gamma) * xi, rtol=1e-8)


def test_its_variance_is_optaxs_and_falls():
    params = {"w": torch.zeros(20_000, dtype=torch.float64)}
    out, _ = noise(optfx.add_noise(0.04, 1.0, key=0), params, 4)
    for t, updates in enumerate(out, 1):
        assert updates["w"].std().item() == pytest.approx(0.2 / t**0.5, rel=0.03)
        assert updates["w"].mean().item() == pytest.approx(0, abs=0.01)
    everything = torch.stack([u["w"] for u in out])
    correlations = torch.corrcoef(everything) - torch.eye(4, dtype=torch.float64)
    assert correlations.abs().max() < 0.03


def test_what_else_is_in_the_tree_does_not_matter():
    tx = optfx.add_noise(1.0, 0.5, key=3)
    out, _ = noise(tx, PARAMS, 2)
    more = {"0": torch.zeros(4), **PARAMS, "z": torch.zeros(2)}
    again, _ = noise(tx, more, 2)
    masked, _ = noise(optfx.masked(tx, optfx.select.path("a")), PARAMS, 2)
    for x, y, z in zip(out, again, masked, strict=True):
        assert torch.equal(x["a"], y["a"])
        assert torch.equal(x["b"][0], y["b"][0])
        assert torch.equal(x["a"], z["a"])
    assert not torch.equal(out[0]["a"][0], out[0]["a"][1])
    assert not torch.equal(out[0]["a"][0, 0], out[0]["b"][0])


def test_a_run_that_goes_on_from_a_saved_state_sees_the_same_noise():
    tx = optfx.add_noise(1.0, 0.5, key=3)
    whole, _ = noise(tx, PARAMS, 4)
    _, state = noise(tx, PARAMS, 2)
    saved = {path: x.clone() for path, x in tree.to_dict(state).items()}
    rest, _ = noise(tx, PARAMS, 2, tree.from_dict(tx.init(PARAMS), saved))
    assert all(bool(tree.allclose(x, y, 0, 0)) for x, y in zip(whole[2:], rest, strict=True))


def test_an_int_and_its_key_are_the_same_and_keys_may_be_batched():
    by_int, _ = noise(optfx.add_noise(1.0, 0.5, 5), PARAMS, 2)
    by_key, _ = noise(optfx.add_noise(1.0, 0.5, random.key(5)), PARAMS, 2)
    other, _ = noise(optfx.add_noise(1.0, 0.5, random.key(6)), PARAMS, 2)
    keys = torch.stack([random.key(5), random.key(6)])
    many = torch.func.vmap(lambda tx: noise(tx, PARAMS, 2)[0])(optfx.add_noise(1.0, 0.5, keys))
    for x, y, z, both in zip(by_int, by_key, other, many, strict=True):
        assert torch.equal(x["a"], y["a"])
        assert not torch.equal(x["a"], z["a"])
        assert torch.equal(both["a"], torch.stack([x["a"], z["a"]]))


def test_no_state_of_the_transform_shares_memory():
    tx = optfx.add_noise(1.0, 0.5, random.key(0))
    state = tx.init(PARAMS)
    owners = {x.untyped_storage().data_ptr() for x in (*tree.leaves(state), tx.key)}
    assert len(owners) == len(tree.leaves(state)) + 1
    step = optfx.donate(lambda state: tx.update(PARAMS, state, PARAMS)[1], argnums=0)
    assert step(state).count == 1


def test_half_precision_noise_is_drawn_in_float32():
    params = {"w": torch.zeros(4000, dtype=torch.bfloat16)}
    out, _ = noise(optfx.add_noise(1.0, 0.0, key=0), params, 1)
    wide, _ = noise(optfx.add_noise(1.0, 0.0, key=0), {"w": torch.zeros(4000)}, 1)
    assert torch.equal(out[0]["w"], wide[0]["w"].bfloat16())


def test_complex_noise_has_the_same_variance_in_all():
    params = {"w": torch.zeros(20_000, dtype=torch.complex128)}
    out, _ = noise(optfx.add_noise(4.0, 0.0, key=0), params, 1)
    assert out[0]["w"].abs().square().mean().item() == pytest.approx(4.0, rel=0.03)
    assert out[0]["w"].real.var().item() == pytest.approx(2.0, rel=0.03)


def test_noisy_sgd_takes_the_noise_down_the_gradient():
    g = tree.map(torch.ones_like, PARAMS)
    tx, alone = optfx.noisy_sgd(0.5, 0.3, 0.55, key=7), optfx.add_noise(0.3, 0.55, key=7)
    state, other = tx.init(PARAMS), alone.init(PARAMS)
    for _ in range(3):
        updates, state = tx.update(g, state, PARAMS)
        xi, other = alone.update(tree.zeros_like(g), other, PARAMS)
        assert tree.allclose(updates, tree.map(lambda x: -0.5 * (1 + x), xi), 1e-12, 0)
