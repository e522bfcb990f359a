"""Clipping where optax gives no number, or another layout: exact zeros, limits of zero and infinity, NaNs, shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.func import grad, hessian

import optfx

INF, NAN = float("inf"), float("nan")


def once(tx, updates, params=None):
    return tx.update(updates, tx.init(updates), params)


def test_the_norm_of_the_last_step_is_in_the_state():
    tx = optfx.clip_by_global_norm(1.0)
    state = tx.init({"a": torch.zeros(1), "b": torch.zeros(2, 2)})
    assert state.norm == 0
    for step in (1, 2):
        g = {"a": torch.tensor([3.0 * step]), "b": torch.full((2, 2), 2.0 * step)}
        updates, state = tx.update(g, state)
        assert state.norm == 5.0 * step
        assert state.norm.dtype == torch.float64
        assert optfx.tree.norm(updates).item() == pytest.approx(1)


def test_torchs_own_clipping_differs_only_by_its_epsilon():
    g = torch.randn(5, dtype=torch.float64)
    p = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    p.grad = g.clone()
    norm = torch.nn.utils.clip_grad_norm_([p], 0.5)
    updates, state = once(optfx.clip_by_global_norm(0.5), {"p": g})
    assert state.norm == norm
    torch.testing.assert_close(updates["p"], p.grad, rtol=2e-6, atol=0)
    torch.testing.assert_close(updates["p"] * norm / (norm + 1e-6), p.grad)


@pytest.mark.parametrize("limit", [0.0, torch.tensor(0.0, dtype=torch.float64)])
@pytest.mark.parametrize("g", [0.0, 2.0])
def test_a_limit_of_zero_gives_zeros(limit, g):
    g = torch.full((3,), g, dtype=torch.float64)
    for tx in (optfx.clip_by_global_norm(limit), optfx.clip_by_block_rms(limit), optfx.clip(limit)):
        assert torch.equal(once(tx, g)[0], torch.zeros(3, dtype=torch.float64))
    assert torch.equal(once(optfx.adaptive_grad_clip(limit), g, torch.ones_like(g))[0], torch.zeros_like(g))


@pytest.mark.parametrize("limit", [INF, torch.tensor(INF)])
def test_a_limit_of_infinity_only_measures(limit):
    g = torch.randn(3)
    for tx in (optfx.clip_by_global_norm(limit), optfx.clip_by_block_rms(limit), optfx.clip(limit)):
        assert torch.equal(once(tx, g)[0], g)
    assert torch.equal(once(optfx.adaptive_grad_clip(limit), g, torch.ones(3))[0], g)
    assert once(optfx.clip_by_global_norm(limit), g)[1].norm == g.norm()


def test_a_nan_or_infinity_is_not_hidden():
    for bad in (NAN, INF):
        g = {"a": torch.tensor([1.0, bad]), "b": torch.tensor(1.0)}
        theirs = optax.clip_by_global_norm(1.0).update(jax.tree.map(jnp.asarray, optfx.tree.map(np.asarray, g)), ())[0]
        mine, state = once(optfx.clip_by_global_norm(1.0), g)
        np.testing.assert_array_equal(mine["a"], theirs["a"])
        np.testing.assert_array_equal(mine["b"], theirs["b"])
        assert not state.norm.isfinite()
        assert once(optfx.clip_by_block_rms(1.0), g)[0]["a"].isnan().any()
        assert once(optfx.adaptive_grad_clip(1.0), g, optfx.tree.ones_like(g))[0]["a"].isnan().any()


TRANSFORMS = {
    "clip": optfx.clip,
    "clip_by_block_rms": optfx.clip_by_block_rms,
    "clip_by_global_norm": optfx.clip_by_global_norm,
    "adaptive_grad_clip": optfx.adaptive_grad_clip,
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e3, INF])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_derivatives_are_finite(name, limit, size, dtype):
    p = torch.ones(2, 3, dtype=dtype)

    def outcome(limit, g, p):
        updates, _ = once(TRANSFORMS[name](limit), {"g": g}, {"g": p})
        return (updates["g"] * (1 + torch.arange(6).reshape(2, 3))).sum()

    g = size * torch.arange(6, dtype=dtype).reshape(2, 3)
    arguments = (torch.tensor(limit, dtype=torch.float64), g, p)
    derivatives = grad(outcome, (0, 1, 2))(*arguments), hessian(outcome, (0, 1, 2))(*arguments)
    for path, x in zip(optfx.tree.paths(derivatives), optfx.tree.leaves(derivatives), strict=True):
        assert x.isfinite().all(), path


LAYOUTS = {1: 0, 2: 0, 3: (0, 1), 4: (0, 1, 2), 5: (0, 1, 2, 3)}  # optax's `axis` for (in..., out)


@pytest.mark.parametrize("ndim", LAYOUTS)
def test_units_lie_along_the_first_dimension_whatever_the_shape(ndim):
    g, p = (torch.randn((4, 3, 2, 2, 3)[:ndim], dtype=torch.float64) for _ in range(2))
    theirs = optax.adaptive_grad_clip(0.2, axis=LAYOUTS[ndim])
    expected, _ = theirs.update(jnp.moveaxis(g.numpy(), 0, -1), (), jnp.moveaxis(p.numpy(), 0, -1))
    mine, _ = once(optfx.adaptive_grad_clip(0.2), g, p)
    np.testing.assert_allclose(mine, np.moveaxis(expected, -1, 0), rtol=1e-12)
    assert not torch.equal(mine, g)


def test_a_column_is_many_units_and_a_scalar_is_one():
    g, p = torch.tensor([[3.0], [0.1]]), torch.tensor([[1.0], [1.0]])
    assert once(optfx.adaptive_grad_clip(1.0), g, p)[0].tolist() == [[1.0], [pytest.approx(0.1)]]
    assert once(optfx.adaptive_grad_clip(1.0), torch.tensor(-3.0), torch.tensor(2.0))[0] == -2.0


def test_adaptive_clipping_needs_params():
    with pytest.raises(ValueError, match="adaptive_grad_clip needs params"):
        once(optfx.adaptive_grad_clip(0.1), torch.ones(2))


def test_complex_numbers():
    z = torch.tensor([3 + 4j, 0.1 - 9j])
    assert once(optfx.clip(1.0), z)[0].tolist() == pytest.approx([1 + 1j, 0.1 - 1j])
    mine, state = once(optfx.clip_by_global_norm(1.0), z)
    theirs, _ = optax.clip_by_global_norm(1.0).update(jnp.asarray(z.numpy()), ())
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    assert state.norm == z.abs().norm()
    for ours, theirs in (
        (optfx.clip_by_block_rms(1.0), optax.clip_by_block_rms(1.0)),
        (optfx.adaptive_grad_clip(0.1), optax.adaptive_grad_clip(0.1)),
    ):
        expected, _ = theirs.update(jnp.asarray(z.numpy()), (), jnp.asarray(z.numpy()))
        np.testing.assert_allclose(once(ours, z, z)[0], expected, rtol=1e-6)
