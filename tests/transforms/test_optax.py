"""Every transform against optax's of the same name, in float64, step by step, states included."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import optfx
from tests.transforms.harness import as_vectors, assert_equal, factored_rms, layout, problem, run_optax, run_ours


def fading(count):
    # a plain function: torch computes `0.1 * count` in float32, unless the count is made float64 first
    return 1.0 / (1.0 + 0.1 * (count.double() if isinstance(count, torch.Tensor) else count))


MASK = {"scalar": False, "vector": True, "column": True, "deep": {"kernel": False, "dead": True}}
ADAM = {"b1": 0.8, "b2": 0.97, "eps": 1e-3, "eps_root": 1e-4}
OUTSIDE = {"decay": 0.95, "eps": 1e-6, "eps_in_sqrt": False}


def large(updates):
    return (optfx.tree.norm(updates) > 1.0).double()


def muons(**options):
    """On the matrices of the problem alone."""
    ours = optfx.masked(optfx.scale_by_muon(**options), optfx.select.ndim(2, 2))

    def axes(updates):
        return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(), updates)

    return ours, optax.masked(optax.contrib.scale_by_muon(**options, weight_dimension_numbers=axes), MATRICES)


MATRICES = {"scalar": False, "vector": False, "column": True, "deep": {"kernel": False, "dead": False}}

CASES = {
    "identity": (optfx.identity(), optax.identity()),
    "set_to_zero": (optfx.set_to_zero(), optax.set_to_zero()),
    "freeze": (optfx.freeze(MASK), optax.freeze(MASK)),
    "stateless": (
        optfx.stateless(lambda u, p: optfx.tree.mul(u, p)),
        optax.stateless(lambda u, p: optax.tree.mul(u, p)),
    ),
    "scale": (optfx.scale(-0.3), optax.scale(-0.3)),
    "scale, schedule": (optfx.scale(fading), optax.scale_by_schedule(fading)),
    "scale_by_schedule": (optfx.scale_by_schedule(fading), optax.scale_by_schedule(fading)),
    "scale_by_learning_rate": (optfx.scale_by_learning_rate(0.1), optax.scale_by_learning_rate(0.1)),
    "scale_by_learning_rate, schedule": (
        optfx.scale_by_learning_rate(fading),
        optax.scale_by_learning_rate(fading),
    ),
    "scale_by_learning_rate, no flip": (
        optfx.scale_by_learning_rate(0.1, flip_sign=False),
        optax.scale_by_learning_rate(0.1, flip_sign=False),
    ),
    "scale_by_sign": (optfx.scale_by_sign(), optax.scale_by_sign()),
    "trace": (optfx.trace(0.9), optax.trace(0.9)),
    "trace, nesterov": (optfx.trace(0.7, nesterov=True), optax.trace(0.7, nesterov=True)),
    "trace, 0": (optfx.trace(0.0, dampening=0.0), optax.trace(0.0)),
    "ema": (optfx.ema(0.9), optax.ema(0.9)),
    "ema, biased": (optfx.ema(0.7, debias=False), optax.ema(0.7, debias=False)),
    "scale_by_adam": (optfx.scale_by_adam(), optax.scale_by_adam()),
    "scale_by_adam, all": (optfx.scale_by_adam(**ADAM), optax.scale_by_adam(**ADAM)),
    "scale_by_adam, nesterov": (
        optfx.scale_by_adam(**ADAM, nesterov=True),
        optax.scale_by_adam(**ADAM, nesterov=True),
    ),
    "scale_by_amsgrad": (optfx.scale_by_amsgrad(), optax.scale_by_amsgrad()),
    "scale_by_amsgrad, all": (optfx.scale_by_amsgrad(**ADAM), optax.scale_by_amsgrad(**ADAM)),
    "scale_by_amsgrad, the paper's": (
        optfx.scale_by_amsgrad(**ADAM, bias_correction_mu=False, bias_correction_nu=False),
        optax.scale_by_amsgrad(**ADAM, bias_correction_mu=False, bias_correction_nu=False),
    ),
    "scale_by_radam": (optfx.scale_by_radam(), optax.scale_by_radam()),
    "scale_by_radam, all": (
        optfx.scale_by_radam(**ADAM, threshold=7.0, nesterov=True),
        optax.scale_by_radam(**ADAM, threshold=7.0, nesterov=True),
    ),
    "scale_by_radam, never tractable": (optfx.scale_by_radam(b2=0.5), optax.scale_by_radam(b2=0.5)),
    "scale_by_lion": (optfx.scale_by_lion(), optax.scale_by_lion()),
    "scale_by_lion, all": (optfx.scale_by_lion(0.5, 0.8), optax.scale_by_lion(0.5, 0.8)),
    "scale_by_optimistic_gradient": (optfx.scale_by_optimistic_gradient(), optax.scale_by_optimistic_gradient()),
    "scale_by_optimistic_gradient, all": (
        optfx.scale_by_optimistic_gradient(0.7, 0.3),
        optax.scale_by_optimistic_gradient(0.7, 0.3),
    ),
    "scale_by_belief": (optfx.scale_by_belief(), optax.scale_by_belief()),
    "scale_by_belief, all": (
        optfx.scale_by_belief(**ADAM, nesterov=True),
        optax.scale_by_belief(**ADAM, nesterov=True),
    ),
    "scale_by_yogi": (optfx.scale_by_yogi(), optax.scale_by_yogi()),
    "scale_by_yogi, all": (
        optfx.scale_by_yogi(**ADAM, initial_accumulator_value=0.2),
        optax.scale_by_yogi(**ADAM, initial_accumulator_value=0.2),
    ),
    # optax has 1 - b2 in the place of b2: at a half they are one
    "scale_by_adan": (optfx.scale_by_adan(b2=0.5), optax.scale_by_adan(b2=0.5)),
    "scale_by_adan, all": (
        optfx.scale_by_adan(0.8, 0.5, 0.97, 1e-3, 1e-4),
        optax.scale_by_adan(0.8, 0.5, 0.97, 1e-3, 1e-4),
    ),
    "scale_by_adamax": (optfx.scale_by_adamax(), optax.scale_by_adamax()),
    "scale_by_adamax, all": (optfx.scale_by_adamax(0.8, 0.97, 1e-3), optax.scale_by_adamax(0.8, 0.97, 1e-3)),
    "scale_by_adadelta": (optfx.scale_by_adadelta(), optax.scale_by_adadelta()),
    "scale_by_adadelta, all": (optfx.scale_by_adadelta(0.7, 1e-3), optax.scale_by_adadelta(0.7, 1e-3)),
    "scale_by_factored_rms": (optfx.scale_by_factored_rms(), factored_rms()),
    "scale_by_factored_rms, factored": (
        optfx.scale_by_factored_rms(min_dim_size_to_factor=2),
        factored_rms(min_dim_size_to_factor=2),
    ),
    "scale_by_factored_rms, some factored": (
        optfx.scale_by_factored_rms(True, 0.6, -3, 1, 1e-3),
        factored_rms(True, 0.6, -3, 1, 1e-3),
    ),
    "scale_by_factored_rms, none": (optfx.scale_by_factored_rms(False), factored_rms(False)),
    "scale_by_param_block_rms": (optfx.scale_by_param_block_rms(), optax.scale_by_param_block_rms()),
    "scale_by_param_block_rms, 1": (optfx.scale_by_param_block_rms(1.0), optax.scale_by_param_block_rms(1.0)),
    "scale_by_param_block_norm": (optfx.scale_by_param_block_norm(), optax.scale_by_param_block_norm()),
    "scale_by_param_block_norm, 1": (optfx.scale_by_param_block_norm(1.0), optax.scale_by_param_block_norm(1.0)),
    "scale_by_trust_ratio": (optfx.scale_by_trust_ratio(), optax.scale_by_trust_ratio()),
    "scale_by_trust_ratio, all": (optfx.scale_by_trust_ratio(2.0, 0.1, 0.3), optax.scale_by_trust_ratio(2.0, 0.1, 0.3)),
    "scale_by_ademamix": (optfx.scale_by_ademamix(), optax.contrib.scale_by_ademamix()),
    "scale_by_ademamix, all": (
        optfx.scale_by_ademamix(**ADAM, b3=0.9, alpha=2.0),
        optax.contrib.scale_by_ademamix(**ADAM, b3=0.9, alpha=2.0),
    ),
    "scale_by_ademamix, schedules": (
        optfx.scale_by_ademamix(b3=fading, alpha=fading),
        optax.contrib.scale_by_ademamix(b3=fading, alpha=fading),
    ),
    "scale_by_simplified_ademamix": (
        optfx.scale_by_simplified_ademamix(),
        optax.contrib.scale_by_simplified_ademamix(),
    ),
    "scale_by_simplified_ademamix, all": (
        optfx.scale_by_simplified_ademamix(**ADAM, alpha=2.0),
        optax.contrib.scale_by_simplified_ademamix(**ADAM, alpha=2.0),
    ),
    "scale_by_adopt": (optfx.scale_by_adopt(), optax.contrib.scale_by_adopt()),
    "scale_by_adopt, no clipping": (
        optfx.scale_by_adopt(0.8, 0.97, 1e-3, nesterov=True, use_clipping=False),
        optax.contrib.scale_by_adopt(0.8, 0.97, 1e-3, nesterov=True, use_clipping=False),
    ),
    "scale_by_adopt, another limit": (
        optfx.scale_by_adopt(clip_value_fn=fading),
        optax.contrib.scale_by_adopt(clip_value_fn=fading),
    ),
    "scale_by_novograd": (optfx.scale_by_novograd(), optax.scale_by_novograd()),
    "scale_by_novograd, all": (
        optfx.scale_by_novograd(**ADAM, weight_decay=0.1),
        optax.scale_by_novograd(**ADAM, weight_decay=0.1),
    ),
    "scale_by_sm3": (optfx.scale_by_sm3(), as_vectors(optax.scale_by_sm3())),
    "scale_by_sm3, decaying": (optfx.scale_by_sm3(0.8, 0.97, 1e-3), as_vectors(optax.scale_by_sm3(0.8, 0.97, 1e-3))),
    "normalize_by_update_norm": (optfx.normalize_by_update_norm(), optax.normalize_by_update_norm()),
    "normalize_by_update_norm, all": (
        optfx.normalize_by_update_norm(-2.0, 1e-3),
        optax.normalize_by_update_norm(-2.0, 1e-3),
    ),
    "normalize": (optfx.normalize(), optax.chain(optax.contrib.normalize(), optax.zero_nans())),  # NaN at zero
    "scale_by_muon": muons(),
    "scale_by_muon, plain": muons(nesterov=False),
    "scale_by_muon, all": muons(ns_coeffs=((3.0, -3.5, 1.5), (2.8, -3.1, 1.2)), ns_steps=2, beta=0.8, eps=1e-3),
    "scale_by_rms": (optfx.scale_by_rms(), optax.scale_by_rms()),
    "scale_by_rms, eps outside": (optfx.scale_by_rms(**OUTSIDE), optax.scale_by_rms(**OUTSIDE)),
    "scale_by_rms, corrected": (
        optfx.scale_by_rms(0.99, 1e-5, bias_correction=True),
        optax.scale_by_rms(0.99, 1e-5, bias_correction=True),
    ),
    "scale_by_rms, from 1": (optfx.scale_by_rms(initial_scale=1.0), optax.scale_by_rms(initial_scale=1.0)),
    "scale_by_stddev": (optfx.scale_by_stddev(), optax.scale_by_stddev()),
    "scale_by_stddev, eps outside": (optfx.scale_by_stddev(**OUTSIDE), optax.scale_by_stddev(**OUTSIDE)),
    "scale_by_stddev, corrected, from 2": (
        optfx.scale_by_stddev(0.9, 1e-4, initial_scale=2.0, bias_correction=True),
        optax.scale_by_stddev(0.9, 1e-4, initial_scale=2.0, bias_correction=True),
    ),
    "scale_by_rss": (optfx.scale_by_rss(), optax.scale_by_rss()),
    "scale_by_rss, from 0": (optfx.scale_by_rss(0.0, 1e-6), optax.scale_by_rss(0.0, 1e-6)),
    "scale_by_rss, from 0, no eps": (optfx.scale_by_rss(0.0, 0.0), optax.scale_by_rss(0.0, 0.0)),
    "add_decayed_weights": (optfx.add_decayed_weights(0.1), optax.add_decayed_weights(0.1)),
    "add_decayed_weights, 0": (optfx.add_decayed_weights(), optax.add_decayed_weights()),
    "add_decayed_weights, schedule": (optfx.add_decayed_weights(fading), optax.add_decayed_weights(fading)),
    "add_decayed_weights, masked": (
        optfx.add_decayed_weights(0.1, mask=MASK),
        optax.add_decayed_weights(0.1, mask=MASK),
    ),
    "clip": (optfx.clip(0.3), optax.clip(0.3)),
    "clip_by_block_rms": (optfx.clip_by_block_rms(0.5), optax.clip_by_block_rms(0.5)),
    "clip_by_global_norm": (optfx.clip_by_global_norm(20.0), optax.clip_by_global_norm(20.0)),
    "clip_by_global_norm, always": (optfx.clip_by_global_norm(1e-6), optax.clip_by_global_norm(1e-6)),
    "clip_by_global_norm, never": (optfx.clip_by_global_norm(1e9), optax.clip_by_global_norm(1e9)),
    "adaptive_grad_clip": (optfx.adaptive_grad_clip(0.1), layout(optax.adaptive_grad_clip(0.1))),
    "adaptive_grad_clip, eps": (optfx.adaptive_grad_clip(0.5, eps=2.0), layout(optax.adaptive_grad_clip(0.5, eps=2.0))),
    "keep_params_nonnegative": (optfx.keep_params_nonnegative(), optax.keep_params_nonnegative()),
    "centralize": (optfx.centralize(), optax.centralize()),
    "zero_nans": (optfx.zero_nans(), optax.zero_nans()),
    "apply_every": (optfx.apply_every(), optax.apply_every()),
    "apply_every, 4": (optfx.apply_every(4), optax.apply_every(4)),
    "snapshot": (optfx.snapshot("norm", optfx.tree.norm), optax.snapshot("norm", optax.tree.norm)),
    "monitor": (
        optfx.monitor({"norm": optfx.tree.norm, "all": optfx.tree.max}),
        optax.monitor({"norm": optax.tree.norm, "all": optax.tree.max}),
    ),
    "monitor, means": (
        optfx.monitor({"norm": optfx.tree.norm}, decay=0.9),
        optax.monitor({"norm": optax.measure_with_ema(optax.tree.norm, 0.9)}),
    ),
    "monitor, uncorrected means": (
        optfx.monitor({"large": large}, decay=0.7, debias=False),
        optax.monitor({"large": optax.measure_with_ema(lambda u: 1.0 * (optax.tree.norm(u) > 1.0), 0.7, False)}),
    ),
    "reduce_on_plateau": (
        optfx.reduce_on_plateau(0.5, patience=1, rtol=0.01, cooldown=2),
        optax.contrib.reduce_on_plateau(0.5, patience=2, rtol=0.01, cooldown=2),
    ),
    "reduce_on_plateau, means": (
        optfx.reduce_on_plateau(0.7, patience=0, rtol=0.0, atol=0.1, accumulation_size=3, min_scale=0.4),
        optax.contrib.reduce_on_plateau(0.7, patience=1, rtol=0.0, atol=0.1, accumulation_size=3, min_scale=0.4),
    ),
}

OWN_TESTS = {"add_noise", "scale_by_acprop", "scale_by_rprop"}
# tests/parity, since optax takes a root in float32, and projects in it
ELSEWHERE = {"scale_by_madgrad", "scale_by_galore"}
SAME_FIELDS = (
    "mu",
    "nu",
    "m1",
    "m2",
    "e_g",
    "e_x",
    "nu_max",
    "previous_gradient",
    "trace",
    "ema",
    "sum_of_squares",
    "found_nan",
    "scale",
    "measurements",
    "measurement",
    "best_value",
    "avg_value",
)


@pytest.mark.parametrize("name", CASES)
def test_it_is_optaxs(name):
    ours, theirs = CASES[name]
    mine, state = run_ours(ours, step_size=0.01)
    expected, their_state = run_optax(theirs, step_size=0.01)
    for a, b in zip(mine, expected, strict=True):
        assert_equal(a, b)
    for field in SAME_FIELDS:
        if hasattr(state, field) and hasattr(their_state, field):
            assert_equal(getattr(state, field), getattr(their_state, field))


def test_rprop_is_optaxs_a_step_early():
    """optax keeps the update in its state, and emits it at the next step, where it is zero if the gradient turned."""
    ours, state = run_ours(optfx.scale_by_rprop(0.1, 0.6, 1.3, 1e-2, 0.5))
    theirs = optax.scale_by_rprop(0.1, 0.6, 1.3, 1e-2, 0.5)
    start, grads, _ = problem()
    their_state = theirs.init(start)
    for g, mine in zip(grads, ours, strict=True):
        _, their_state = theirs.update(g, their_state)
        assert_equal(mine, their_state.prev_updates)
    assert_equal(state.step_sizes, their_state.step_sizes)


def test_acprop_is_optaxs_but_for_its_mean():
    """optax measures the distance from the mean of the step before, which is `1 / b1` times that from the new one."""
    b1, eps, eps_root = 0.8, 1e-3, 1e-4
    mine, state = run_ours(optfx.scale_by_acprop(b1, 0.97, b1 * eps, b1**2 * eps_root))
    expected, their_state = run_optax(optax.contrib.scale_by_acprop(b1, 0.97, eps, eps_root))
    for a, b in zip(mine[1:], expected[1:], strict=True):
        assert_equal(optfx.tree.map(lambda x: b1 * x, a), b)
    assert_equal(state.mu, their_state.mu)
    assert_equal(optfx.tree.scale(b1**-2, state.nu), their_state.nu)


def test_every_transform_that_optax_has_is_compared():
    theirs = set(dir(optax)) | set(dir(optax.contrib))
    compared = {name.partition(",")[0] for name in CASES} | OWN_TESTS | ELSEWHERE
    assert {n for n in optfx.transforms.__all__ if n in theirs and not n.endswith("State")} == compared


HALF_STATE = {
    "trace": (lambda o, d: o.trace(0.9, accumulator_dtype=d), "trace"),
    "ema": (lambda o, d: o.ema(0.9, accumulator_dtype=d), "ema"),
    "scale_by_adam": (lambda o, d: o.scale_by_adam(mu_dtype=d), "mu"),
    "scale_by_amsgrad": (lambda o, d: o.scale_by_amsgrad(mu_dtype=d), "mu"),
    "scale_by_lion": (lambda o, d: o.scale_by_lion(mu_dtype=d), "mu"),
}


@pytest.mark.parametrize("name", HALF_STATE)
def test_a_narrower_mean_is_kept_as_optax_keeps_it(name):
    make, field = HALF_STATE[name]
    mine, state = run_ours(make(optfx, torch.float32))
    expected, their_state = run_optax(make(optax, jnp.float32))
    assert {x.dtype for x in optfx.tree.leaves(getattr(state, field))} == {torch.float32}
    assert_equal(mine, expected, rtol=1e-5, atol=1e-4)
    assert_equal(getattr(state, field), getattr(their_state, field), rtol=1e-5, atol=1e-4)
    for leaf in optfx.tree.leaves(mine[0]):
        assert leaf.dtype == np.float64
