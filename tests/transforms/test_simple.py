"""What the transforms without a reference of their own must do: signs, zeros, NaNs, masks, rounding."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import optfx
from optfx import tree

NAN = float("nan")


def once(tx, updates, params=None):
    return tx.update(updates, tx.init(updates), params)[0]


def test_the_sign_of_a_nan_is_a_nan_as_in_optax():
    g = torch.tensor([-2.0, -0.0, 0.0, float("inf"), NAN])
    np.testing.assert_array_equal(once(optfx.scale_by_sign(), g), optax.scale_by_sign().update(jnp.asarray(g), ())[0])


def test_zeros_come_of_anything():
    g = torch.tensor([NAN, float("inf"), 3.0])
    assert torch.equal(once(optfx.set_to_zero(), g), torch.zeros(3))


def test_frozen_parameters_stay_bit_for_bit():
    params = {"body": {"w": torch.randn(3), "b": torch.randn(())}, "head": torch.randn(2)}
    tx = optfx.chain(optfx.adamw(0.1), optfx.freeze({"body": True, "head": False}))
    state, p = tx.init(params), params
    for _ in range(3):
        updates, state = tx.update(p, state, p)
        p = optfx.apply_updates(p, updates)
    assert torch.equal(p["body"]["w"], params["body"]["w"])
    assert torch.equal(p["body"]["b"], params["body"]["b"])
    assert not torch.equal(p["head"], params["head"])


def test_stateless_gives_its_function_the_parameters():
    tx = optfx.stateless(lambda updates, params: tree.add_scale(updates, 0.5, params))
    assert once(tx, {"w": torch.ones(1)}, {"w": torch.full((1,), 4.0)})["w"] == 3


def test_nans_are_found_where_they_are():
    tx = optfx.zero_nans()
    g = {"a": torch.tensor([1.0, NAN]), "b": torch.tensor(2.0), "empty": torch.zeros(0)}
    state = tx.init(g)
    assert not any(found for found in tree.leaves(state))
    updates, state = tx.update(g, state)
    assert updates["a"].tolist() == [1, 0]
    assert {k: bool(v) for k, v in state.found_nan.items()} == {"a": True, "b": False, "empty": False}
    _, state = tx.update(tree.zeros_like(g), state)
    assert not any(found for found in tree.leaves(state))


def test_a_complex_number_with_one_nan_is_zeroed_whole_as_in_optax():
    z = np.array([1 + 2j, complex(NAN, 1), complex(1, NAN)])
    theirs = optax.zero_nans().update(jnp.asarray(z), ())[0]
    np.testing.assert_array_equal(once(optfx.zero_nans(), torch.tensor(z)), theirs)


def test_infinities_are_no_nans():
    g = torch.tensor([float("inf"), 1.0])
    assert torch.equal(once(optfx.zero_nans(), g), g)


def test_the_first_gradient_goes_in_undamped():
    tx, state = optfx.trace(0.5, dampening=0.25), None
    seen = []
    state = tx.init(torch.zeros(()))
    for g in (4.0, 8.0, 0.0):
        u, state = tx.update(torch.tensor(g), state)
        seen.append(u.item())
    assert seen == [4.0, 0.5 * 4 + 0.75 * 8, 0.5 * 8]


def test_decay_needs_params_and_a_mask_that_fits():
    tx = optfx.add_decayed_weights(0.1)
    with pytest.raises(ValueError, match="add_decayed_weights needs params"):
        once(tx, torch.ones(1))
    with pytest.raises(ValueError, match="add_decayed_weights needs params"):
        once(optfx.add_decayed_weights(0.1, mask=True), torch.ones(1))
    with pytest.raises(ValueError, match="'b'"):
        once(optfx.add_decayed_weights(0.1, mask={"a": True}), {"a": torch.ones(1), "b": torch.ones(1)}, {
            "a": torch.ones(1), "b": torch.ones(1)})  # fmt: skip


def test_a_masked_decay_counts_its_steps():
    tx = optfx.add_decayed_weights(lambda count: 1.0 * count, mask={"a": True, "b": False})
    params = {"a": torch.ones(1), "b": torch.ones(1)}
    state = tx.init(params)
    for step in range(3):
        updates, state = tx.update(tree.zeros_like(params), state, params)
        assert updates == {"a": torch.tensor([float(step)]), "b": torch.zeros(1)}
    assert optfx.hyperparams(tx, state)["weight_decay"] == 3


def test_a_variance_that_rounding_makes_negative_counts_as_zero():
    """optax gives NaNs here."""
    tx = optfx.scale_by_stddev(0.9, eps=1e-3, eps_in_sqrt=False)
    g = torch.linspace(0.1, 3, 50)
    state = tx.init(g)._replace(mu=g, nu=g.square() * (1 - 1e-6))
    assert (state.nu - state.mu.square() < 0).all()
    updates, state = tx.update(g, state)
    assert (state.nu - state.mu.square() < 0).all()
    torch.testing.assert_close(updates, g / 1e-3)


def test_a_sum_of_zeros_gives_zero_and_a_finite_derivative():
    for tx in (
        optfx.scale_by_rss(0.0, 1e-7),
        optfx.scale_by_rss(0.0, 1e-10, eps_in_sqrt=False),
        optfx.scale_by_rss(0.0, 0.0),
    ):
        g = torch.zeros(2, dtype=torch.float64)
        assert torch.equal(once(tx, g), g)
        assert torch.func.jacrev(lambda g, tx=tx: once(tx, g))(g).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("eps", [1e-8, 0.0])
def test_no_epsilon_is_too_small_for_zero_gradients(dtype, eps):
    g = torch.zeros(2, dtype=dtype)
    for tx in (
        optfx.scale_by_adam(eps=eps),
        optfx.scale_by_adam(eps=eps, nesterov=True),
        optfx.scale_by_amsgrad(eps=eps),
        optfx.scale_by_amsgrad(eps=eps, bias_correction_nu="after_max"),
        optfx.scale_by_rms(eps=eps),
        optfx.scale_by_rms(eps=eps, eps_in_sqrt=False),
        optfx.scale_by_stddev(eps=eps),
        optfx.scale_by_rss(0.0, eps),
    ):
        assert torch.equal(once(tx, g), g)


def test_initial_values_may_be_swept_and_scheduled():
    starts = torch.tensor([0.0, 0.1, 1.0], dtype=torch.float64)
    g = torch.tensor([1.0, -2.0], dtype=torch.float64)
    for make in (
        lambda x: optfx.scale_by_rss(x),
        lambda x: optfx.scale_by_rms(initial_scale=x),
        lambda x: optfx.scale_by_stddev(initial_scale=x),
    ):
        swept = torch.func.vmap(lambda x, make=make: once(make(x), g))(starts)
        for row, x in zip(swept, starts, strict=True):
            torch.testing.assert_close(row, once(make(float(x)), g), rtol=1e-12, atol=0)
            torch.testing.assert_close(row, once(make(lambda count, x=x: x + count), g), rtol=1e-12, atol=0)


def test_a_tensor_costs_no_digits_in_float32():
    """1 - b2 is worked out in float64 before it meets a float32 leaf: in float32 it would be off by 5e-5."""
    g = torch.linspace(0.1, 3, 50)
    for make in (optfx.scale_by_adam, optfx.scale_by_amsgrad):
        plain, given = make(b2=0.999), make(b2=torch.tensor(0.999, dtype=torch.float64))
        updates, state = plain.update(g, plain.init(g))
        other, other_state = given.update(g, given.init(g))
        torch.testing.assert_close(other_state.nu, state.nu, rtol=2e-7, atol=0)
        torch.testing.assert_close(other, updates, rtol=4e-7, atol=0)
