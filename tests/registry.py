"""Every public transform, combinator and optimizer, in the option sets that the laws are checked for.

A row says how to make one from its numeric hyperparameters, and how to call it. A public name without a row fails
`test_public.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import optfx
from optfx import select
from optfx.combinators.codecs import eight_bits, four_bits, fp8, half
from optfx.combinators.views import as_matrix, blocks
from optfx.optimizers.schedule_free import rectified  # noqa: F401  which a repr names


@dataclass(frozen=True)
class Row:
    """One public name in one option set."""

    name: str
    make: Callable[..., Any]
    hypers: dict[str, float] = field(default_factory=dict)  # those that may be a float, a tensor or a schedule
    option: str = ""
    extra: dict[str, Any] = field(default_factory=dict)  # extra arguments of update

    @property
    def id(self) -> str:
        return self.name + (f"[{self.option}]" if self.option else "")


MATRICES = select.ndim(min=2)
BATCHES = select.label({"muon": MATRICES}, default="adam")
FILLED = select.label({"muon": MATRICES & select.size(min=1)}, default="adam")  # torch guards the strides of empty ones
ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-6, "eps_root": 1e-7}
ADAN = {"b1": 0.98, "b2": 0.9, "b3": 0.99}
SCHEDULE_FREE = {"b1": 0.9, "b2": 0.99, "eps": 1e-6, "weight_decay": 0.1}
RPROP = {"eta_minus": 0.5, "eta_plus": 1.2, "min_step_size": 1e-3, "max_step_size": 0.11}
ASGD = {"learning_rate": 0.1, "lambd": 0.2, "alpha": 0.75}
ADEMAMIX = {**ADAM, "b3": 0.95, "alpha": 2.0}
SIMPLIFIED = {**ADAM, "alpha": 2.0}
ADOPT = {"b1": 0.9, "b2": 0.99, "eps": 1e-4}
NOVOGRAD = {**ADAM, "weight_decay": 0.2}
STABLE = {"b1": 0.9, "b2": 0.99, "eps": 1e-6, "weight_decay": 0.2}
CAME = {"b1": 0.9, "b2": 0.99, "b3": 0.95, "eps1": 1e-12, "eps2": 1e-6}
VALUE = {"value": torch.tensor(1.5)}
BYTES = {"mu": eight_bits(block=2, least=2), "nu": eight_bits(False, block=2, least=2)}
NIBBLES = {"mu": four_bits(block=2, least=2), "nu": four_bits(False, block=2, least=2)}
LOGITS = {"max_logits": torch.tensor(150.0)}


def clipped_adam(rate=0.1, decay=0.2, limit=0.5, b1=0.9):
    return optfx.chain(
        optfx.clip_by_global_norm(limit),
        optfx.scale_by_adam(b1=b1),
        optfx.masked(optfx.add_decayed_weights(decay), MATRICES),
        optfx.scale_by_learning_rate(rate),
    )


def two_groups(rate=0.1, decay=0.2, momentum=0.8):
    return optfx.partition(
        {"matrix": optfx.adamw(rate, weight_decay=decay), "rest": optfx.sgd(rate, momentum=momentum)},
        select.label({"matrix": MATRICES}, default="rest"),
    )


def mean_of_two(a, b):
    return optfx.tree.scale(0.5, optfx.tree.add(a, b))


def halve(updates, params):
    return optfx.tree.scale(0.5, updates)


def uphill(params):
    return optfx.tree.scale(0.3, params)


def at_odd_counts(count):
    return count % 2 == 1


def size_of(updates):
    return optfx.tree.norm(updates)


def is_finite(updates):
    return optfx.tree.all_finite(updates)


def no_state(params):
    return ()


def halve_pair(updates, state, params=None):
    return optfx.tree.scale(0.5, updates), state


ROWS = [
    # ---- scaling -----------------------------------------------------------------------------------
    Row("identity", optfx.identity),
    Row("set_to_zero", optfx.set_to_zero),
    Row("freeze", lambda: optfx.freeze(MATRICES)),
    Row("freeze", lambda: optfx.freeze(select.path("b*") | select.path("k*")), option="a whole branch"),
    Row("stateless", lambda: optfx.stateless(halve)),
    Row("scale", optfx.scale, {"step_size": 0.3}),
    Row("scale_by_learning_rate", optfx.scale_by_learning_rate, {"learning_rate": 0.3}),
    Row(
        "scale_by_learning_rate",
        lambda **h: optfx.scale_by_learning_rate(**h, flip_sign=False),
        {"learning_rate": 0.3},
        "no flip",
    ),
    Row("scale_by_schedule", optfx.scale_by_schedule, {"step_size_fn": 0.3}),
    Row("scale_by_sign", optfx.scale_by_sign),
    # ---- momentum ----------------------------------------------------------------------------------
    Row("trace", optfx.trace, {"decay": 0.9}),
    Row("trace", lambda **h: optfx.trace(**h, nesterov=True), {"decay": 0.9, "dampening": 0.1}, "nesterov, dampening"),
    Row("trace", lambda **h: optfx.trace(**h, accumulator_dtype=torch.float32), {"decay": 0.9}, "float32"),
    Row("ema", optfx.ema, {"decay": 0.9}),
    Row(
        "ema",
        lambda **h: optfx.ema(**h, debias=False, accumulator_dtype=torch.float32),
        {"decay": 0.9},
        "biased, float32",
    ),
    Row("scale_by_lion", optfx.scale_by_lion, {"b1": 0.9, "b2": 0.99}),
    Row("scale_by_lion", lambda **h: optfx.scale_by_lion(**h, mu_dtype=torch.float32), {"b1": 0.9}, "float32"),
    Row("scale_by_optimistic_gradient", optfx.scale_by_optimistic_gradient, {"alpha": 1.0, "beta": 0.8}),
    Row(
        "scale_by_optimistic_gradient",
        lambda **h: optfx.scale_by_optimistic_gradient(**h, accumulator_dtype=torch.float32),
        {"beta": 0.8},
        "float32",
    ),
    # ---- adaptive ----------------------------------------------------------------------------------
    Row("scale_by_adam", optfx.scale_by_adam, ADAM),
    Row(
        "scale_by_adam",
        lambda **h: optfx.scale_by_adam(**h, nesterov=True, mu_dtype=torch.bfloat16),
        ADAM,
        "nesterov, bf16 mu",
    ),
    Row("scale_by_adam", lambda **h: optfx.scale_by_adam(**h, nu_dtype=torch.float32), ADAM, "float32 nu"),
    Row("scale_by_amsgrad", optfx.scale_by_amsgrad, ADAM),
    Row("scale_by_amsgrad", lambda **h: optfx.scale_by_amsgrad(**h, bias_correction_nu="after_max"), ADAM, "torch's"),
    Row(
        "scale_by_amsgrad",
        lambda **h: optfx.scale_by_amsgrad(**h, bias_correction_mu=False, bias_correction_nu=False),
        ADAM,
        "the paper's",
    ),
    Row("scale_by_amsgrad", lambda **h: optfx.scale_by_amsgrad(**h, nu_dtype=torch.float32), ADAM, "float32 nu"),
    Row("scale_by_nadam", optfx.scale_by_nadam, {**ADAM, "momentum_decay": 0.004}),
    Row("scale_by_nadam", lambda **h: optfx.scale_by_nadam(**h, nu_dtype=torch.float32), ADAM, "float32 nu"),
    Row("scale_by_radam", optfx.scale_by_radam, {**ADAM, "threshold": 5.0}),
    Row(
        "scale_by_radam",
        lambda **h: optfx.scale_by_radam(**h, nesterov=True, eps_before_correction=True),
        {**ADAM, "threshold": 5.0},
        "nesterov, torch's",
    ),
    Row(
        "scale_by_radam",
        lambda **h: optfx.scale_by_radam(**h, mu_dtype=torch.float32, nu_dtype=torch.float32),
        ADAM,
        "float32",
    ),
    Row("scale_by_adamax", optfx.scale_by_adamax, {"b1": 0.9, "b2": 0.99, "eps": 1e-6}),
    Row(
        "scale_by_adamax",
        lambda **h: optfx.scale_by_adamax(**h, mu_dtype=torch.float32, nu_dtype=torch.float32),
        {"b1": 0.9, "b2": 0.99},
        "float32",
    ),
    Row("scale_by_belief", optfx.scale_by_belief, ADAM),
    Row(
        "scale_by_belief",
        lambda **h: optfx.scale_by_belief(**h, nesterov=True, mu_dtype=torch.float32, nu_dtype=torch.float32),
        ADAM,
        "nesterov, float32",
    ),
    Row("scale_by_acprop", optfx.scale_by_acprop, {**ADAM, "eps_root": 1e-3}),
    Row(
        "scale_by_acprop",
        lambda **h: optfx.scale_by_acprop(**h, mu_dtype=torch.float32, nu_dtype=torch.float32),
        {**ADAM, "eps_root": 1e-3},
        "float32",
    ),
    Row("scale_by_yogi", optfx.scale_by_yogi, {**ADAM, "initial_accumulator_value": 0.3}),
    Row(
        "scale_by_yogi",
        lambda **h: optfx.scale_by_yogi(**h, mu_dtype=torch.float32, nu_dtype=torch.float32),
        {"b1": 0.9, "b2": 0.99, "eps": 1e-3},
        "float32",
    ),
    Row("scale_by_adan", optfx.scale_by_adan, {**ADAN, "eps": 1e-6, "eps_root": 1e-7}),
    Row(
        "scale_by_adan",
        lambda **h: optfx.scale_by_adan(**h, mu_dtype=torch.float32, nu_dtype=torch.float32),
        ADAN,
        "float32",
    ),
    Row("scale_by_laprop", optfx.scale_by_laprop, {"b1": 0.9, "b2": 0.99, "eps": 1e-6}),
    Row(
        "scale_by_laprop",
        lambda **h: optfx.scale_by_laprop(**h, mu_dtype=torch.float32, nu_dtype=torch.float32),
        {"b1": 0.9, "b2": 0.99},
        "float32",
    ),
    Row(
        "scale_by_adam_atan2",
        optfx.scale_by_adam_atan2,
        {"b1": 0.9, "b2": 0.99, "angle_scale": 1.27, "root_scale": 1.5},
    ),
    Row(
        "scale_by_adam_atan2",
        lambda **h: optfx.scale_by_adam_atan2(**h, mu_dtype=torch.float32, nu_dtype=torch.float32),
        {"b1": 0.9, "b2": 0.99},
        "float32",
    ),
    Row("scale_by_qhm", optfx.scale_by_qhm, {"decay": 0.9, "nu": 0.7}),
    Row("scale_by_qhm", lambda **h: optfx.scale_by_qhm(**h, mu_dtype=torch.float32), {"decay": 0.9}, "float32"),
    Row("scale_by_qhadam", optfx.scale_by_qhadam, {"b1": 0.9, "b2": 0.99, "nu1": 0.7, "nu2": 0.8, "eps": 1e-6}),
    Row(
        "scale_by_qhadam",
        lambda **h: optfx.scale_by_qhadam(**h, mu_dtype=torch.float32, nu_dtype=torch.float32),
        {"b1": 0.9, "b2": 0.99},
        "float32",
    ),
    Row("scale_by_rms", optfx.scale_by_rms, {"decay": 0.9, "eps": 1e-6}),
    Row("scale_by_rms", optfx.scale_by_rms, {"decay": 0.9, "eps": 1e-6, "initial_scale": 0.3}, "initial scale"),
    Row(
        "scale_by_rms",
        lambda **h: optfx.scale_by_rms(**h, eps_in_sqrt=False, bias_correction=True),
        {"decay": 0.9, "eps": 1e-6},
        "eps outside, debiased",
    ),
    Row(
        "scale_by_rms",
        lambda **h: optfx.scale_by_rms(**h, nu_dtype=torch.float32),
        {"decay": 0.9, "initial_scale": 0.3},
        "float32",
    ),
    Row("scale_by_stddev", optfx.scale_by_stddev, {"decay": 0.9, "eps": 1e-6}),
    Row(
        "scale_by_stddev",
        lambda **h: optfx.scale_by_stddev(**h, eps_in_sqrt=False),
        {"decay": 0.9, "eps": 1e-6},
        "eps outside",
    ),
    Row(
        "scale_by_stddev",
        lambda **h: optfx.scale_by_stddev(**h, nu_dtype=torch.float32),
        {"decay": 0.9, "initial_scale": 0.3},
        "float32",
    ),
    Row("scale_by_rss", optfx.scale_by_rss, {"eps": 1e-6}),
    Row("scale_by_rss", optfx.scale_by_rss, {"eps": 1e-6, "initial_accumulator_value": 0.3}, "initial value"),
    Row(
        "scale_by_rss",
        lambda **h: optfx.scale_by_rss(**h, initial_accumulator_value=0.0, eps_in_sqrt=False),
        {"eps": 1e-6},
        "torch's",
    ),
    Row("scale_by_rss", lambda **h: optfx.scale_by_rss(**h, accumulator_dtype=torch.float32), {"eps": 1e-6}, "float32"),
    Row("scale_by_adadelta", optfx.scale_by_adadelta, {"rho": 0.9, "eps": 1e-6}),
    Row(
        "scale_by_adadelta",
        lambda **h: optfx.scale_by_adadelta(**h, accumulator_dtype=torch.float32),
        {"rho": 0.9, "eps": 1e-6},
        "float32",
    ),
    Row(
        "scale_by_factored_rms",
        lambda **h: optfx.scale_by_factored_rms(**h, min_dim_size_to_factor=1),
        {"decay_rate": 0.8, "epsilon": 1e-12},
    ),
    Row(
        "scale_by_factored_rms",
        lambda **h: optfx.scale_by_factored_rms(
            "last", **h, min_dim_size_to_factor=1, epsilon=None, epsilon_is_floor=True
        ),
        {"decay_rate": 0.8},
        "torch's",
    ),
    Row(
        "scale_by_factored_rms",
        lambda **h: optfx.scale_by_factored_rms(**h, min_dim_size_to_factor=1, accumulator_dtype=torch.float32),
        {"decay_rate": 0.8, "step_offset": 1.0},
        "float32, offset",
    ),
    Row("scale_by_rprop", optfx.scale_by_rprop, {"learning_rate": 0.1, **RPROP}),
    Row(
        "scale_by_factored_rms",
        lambda **h: optfx.scale_by_factored_rms(**h, min_dim_size_to_factor=1),
        {"decay": 0.9, "epsilon": 1e-12},
        "a constant decay",
    ),
    Row("scale_by_ademamix", optfx.scale_by_ademamix, ADEMAMIX),
    Row(
        "scale_by_ademamix",
        lambda **h: optfx.scale_by_ademamix(**h, mu_dtype=torch.float32, nu_dtype=torch.float32),
        ADEMAMIX,
        "float32",
    ),
    Row("scale_by_simplified_ademamix", optfx.scale_by_simplified_ademamix, SIMPLIFIED),
    Row(
        "scale_by_simplified_ademamix",
        lambda **h: optfx.scale_by_simplified_ademamix(**h, mu_dtype=torch.float32, nu_dtype=torch.float32),
        SIMPLIFIED,
        "float32",
    ),
    Row("scale_by_adopt", optfx.scale_by_adopt, ADOPT),
    Row("scale_by_adopt", optfx.scale_by_adopt, {**ADOPT, "clip_value_fn": 0.4}, "another limit"),
    Row(
        "scale_by_adopt",
        lambda **h: optfx.scale_by_adopt(
            **h, nesterov=True, use_clipping=False, mu_dtype=torch.float32, nu_dtype=torch.float32
        ),
        ADOPT,
        "nesterov, no clipping, float32",
    ),
    Row("scale_by_stable_adam", optfx.scale_by_stable_adam, STABLE),
    Row(
        "scale_by_stable_adam",
        lambda **h: optfx.scale_by_stable_adam(**h, mask=MATRICES, mu_dtype=torch.float32, nu_dtype=torch.float32),
        STABLE,
        "masked, float32",
    ),
    Row("scale_by_confidence", optfx.scale_by_confidence, {"b1": 0.9, "b3": 0.95, "eps": 1e-6}),
    Row(
        "scale_by_confidence",
        lambda **h: optfx.scale_by_confidence(**h, mu_dtype=torch.float32, accumulator_dtype=torch.float32),
        {"b1": 0.9, "b3": 0.95},
        "float32",
    ),
    Row("scale_by_novograd", optfx.scale_by_novograd, NOVOGRAD),
    Row(
        "scale_by_novograd",
        lambda **h: optfx.scale_by_novograd(**h, mu_dtype=torch.float32, nu_dtype=torch.float32),
        NOVOGRAD,
        "float32",
    ),
    Row("scale_by_sm3", optfx.scale_by_sm3, {"b1": 0.9, "b2": 1.0, "eps": 1e-6}),
    Row(
        "scale_by_sm3",
        lambda **h: optfx.scale_by_sm3(**h, mu_dtype=torch.float32, accumulator_dtype=torch.float32),
        {"b1": 0.9, "b2": 0.95, "eps": 1e-6},
        "decaying, float32",
    ),
    # ---- dual averaging, another direction ---------------------------------------------------------
    Row("scale_by_madgrad", optfx.scale_by_madgrad, {"learning_rate": 0.1, "momentum": 0.9, "eps": 1e-6}),
    Row(
        "scale_by_madgrad",
        lambda **h: optfx.scale_by_madgrad(**h, accumulator_dtype=torch.float32),
        {"learning_rate": 0.1, "momentum": 0.9},
        "float32",
    ),
    Row(
        "take_sign_of_grad",
        lambda **h: optfx.chain(optfx.trace(**h), optfx.take_sign_of_grad()),
        {"decay": 0.9},
    ),
    # ---- for matrices, in proportion to size -------------------------------------------------------
    Row("scale_by_muon", lambda **h: optfx.masked(optfx.scale_by_muon(**h), MATRICES), {"beta": 0.9, "eps": 1e-6}),
    Row(
        "scale_by_muon",
        lambda **h: optfx.masked(
            optfx.scale_by_muon(**h, nesterov=False, bias_correction=False, eps_is_floor=True), MATRICES
        ),
        {"beta": 0.9, "eps": 1e-6},
        "uncorrected, floor",
    ),
    Row("orthogonalize", lambda **h: optfx.masked(optfx.orthogonalize(**h), MATRICES), {"eps": 1e-6}),
    Row("orthogonalize", lambda: optfx.masked(optfx.orthogonalize("svd"), MATRICES), option="exact"),
    Row("polargrad", lambda **h: optfx.masked(optfx.polargrad(**h), MATRICES), {"eps": 1e-6}),
    Row("equilibrate_rows", lambda **h: optfx.masked(optfx.equilibrate_rows(**h), MATRICES), {"eps": 1e-3}),
    Row("renormalize", lambda **h: optfx.masked(optfx.renormalize(**h), MATRICES), {"eps": 1e-3}),
    Row(
        "scale_by_row_rms", lambda **h: optfx.masked(optfx.scale_by_row_rms(**h), MATRICES), {"decay": 0.9, "eps": 1e-6}
    ),
    Row(
        "scale_by_namo",
        lambda **h: optfx.masked(optfx.scale_by_namo(**h), MATRICES),
        {"b1": 0.9, "b2": 0.99, "eps": 1e-6},
    ),
    Row("scale_by_dion", lambda **h: optfx.masked(optfx.scale_by_dion(**h), MATRICES), {"decay": 0.9, "eps": 1e-6}),
    Row(
        "scale_by_dion2",
        lambda **h: optfx.masked(optfx.scale_by_dion2(**h, fraction=0.5), MATRICES),
        {"decay": 0.9, "eps": 1e-6},
    ),
    Row(
        "scale_by_dion3",
        lambda **h: optfx.masked(optfx.scale_by_dion3(**h, fraction=0.5), MATRICES),
        {"decay": 0.9, "b2": 0.8, "eps": 1e-6},
    ),
    Row("lmo", lambda **h: optfx.masked(optfx.lmo(**h), MATRICES), {"eps": 1e-6}),
    Row("lmo", lambda **h: optfx.masked(optfx.lmo("rms", **h), ~MATRICES), {"eps": 1e-3}, "rms"),
    Row(
        "scale_by_soap",
        lambda **h: optfx.masked(optfx.scale_by_soap(**h), MATRICES),
        {"b1": 0.9, "b2": 0.8, "eps": 1e-6, "frequency": 1.0},
    ),
    Row(
        "scale_by_kl_soap",
        lambda **h: optfx.masked(optfx.scale_by_kl_soap(**h), MATRICES),
        {"b1": 0.9, "b2": 0.8, "eps": 1e-6, "frequency": 1.0, "init_factor": 0.1},
    ),
    Row(
        "scale_by_shampoo",
        lambda **h: optfx.masked(optfx.scale_by_shampoo(**h), MATRICES),
        {"eps": 1e-2, "exponent": 0.3, "frequency": 1.0},
    ),
    Row(
        "scale_by_shampoo",
        lambda **h: optfx.masked(optfx.scale_by_shampoo(**h, sides="right"), MATRICES),
        {"beta": 0.9, "eps": 1e-2},
        "one side, means",
    ),
    Row(
        "scale_by_kl_shampoo",
        lambda **h: optfx.masked(optfx.scale_by_kl_shampoo(**h), MATRICES),
        {"b1": 0.9, "shampoo_beta": 0.8, "eps": 1e-6, "frequency": 1.0, "init_factor": 0.1},
    ),
    Row(
        "scale_by_kron",
        lambda **h: optfx.masked(optfx.scale_by_kron(**h, max_dim=2), MATRICES),
        {"preconditioner_lr": 0.1, "update_probability": 1.0, "init_scale": 0.5},
    ),
    Row(
        "scale_by_splus",
        lambda **h: optfx.masked(optfx.scale_by_splus(**h), MATRICES),
        {"b1": 0.9, "b2": 0.8, "frequency": 2.0},
    ),
    Row(
        "scale_by_sinksoap",
        lambda **h: optfx.masked(optfx.scale_by_sinksoap(**h, steps=3), MATRICES),
        {"b1": 0.9, "shampoo_beta": 0.8, "eps": 0.1, "frequency": 1.0},
    ),
    Row(
        "scale_by_galore",
        lambda b1=0.9, **h: optfx.masked(
            optfx.scale_by_galore(2, **h, base_optimizer=optfx.scale_by_adam(b1)), MATRICES
        ),
        {"update_proj_gap": 2.0, "scale": 0.3, "b1": 0.9},
    ),
    Row(
        "scale_by_apollo",
        lambda b1=0.9, **h: optfx.masked(
            optfx.scale_by_apollo(1, **h, base_optimizer=optfx.scale_by_adam(b1)), MATRICES
        ),
        {"update_proj_gap": 2.0, "scale": 0.3, "growth": 1.1, "b1": 0.9},
    ),
    Row("scale_by_param_block_rms", optfx.scale_by_param_block_rms, {"min_scale": 0.4}),
    Row("scale_by_param_block_norm", optfx.scale_by_param_block_norm, {"min_scale": 0.4}),
    Row("scale_by_trust_ratio", optfx.scale_by_trust_ratio, {"trust_coefficient": 0.3, "eps": 1e-3}),
    Row("scale_by_trust_ratio", optfx.scale_by_trust_ratio, {"min_norm": 0.4}, "a least norm"),
    Row("step_and_shrink", optfx.step_and_shrink, {"learning_rate": 0.3}),
    Row("scale_by_shape", lambda **h: optfx.masked(optfx.scale_by_shape(**h), MATRICES), {"consistent_rms": 0.2}),
    Row("scale_by_shape", lambda: optfx.masked(optfx.scale_by_shape(), MATRICES), option="width"),
    Row("normalize_by_update_norm", optfx.normalize_by_update_norm, {"scale_factor": 0.3, "eps": 1e-3}),
    Row("normalize", optfx.normalize),
    # ---- weight decay ------------------------------------------------------------------------------
    Row("add_decayed_weights", optfx.add_decayed_weights, {"weight_decay": 0.2}),
    Row(
        "add_decayed_weights",
        lambda **h: optfx.add_decayed_weights(**h, mask=MATRICES),
        {"weight_decay": 0.2},
        "masked",
    ),
    Row("cautious_weight_decay", optfx.cautious_weight_decay, {"weight_decay": 0.2}),
    Row(
        "cautious_weight_decay",
        lambda rate=0.1, decay=0.2: optfx.chain(
            optfx.scale_by_adam(), optfx.cautious_weight_decay(decay, MATRICES), optfx.scale_by_learning_rate(rate)
        ),
        {"rate": 0.1, "decay": 0.2},
        "after adam, masked",
    ),
    Row("l1_weight_decay", optfx.l1_weight_decay, {"weight_decay": 0.2}),
    Row("l1_weight_decay", lambda **h: optfx.l1_weight_decay(**h, mask=MATRICES), {"weight_decay": 0.2}, "masked"),
    Row("huber_weight_decay", optfx.huber_weight_decay, {"weight_decay": 0.2, "delta": 0.5}),
    Row("proximal_weight_decay", optfx.proximal_weight_decay, {"learning_rate": 0.1, "weight_decay": 0.2}),
    Row(
        "proximal_weight_decay",
        lambda **h: optfx.chain(optfx.scale_by_adam(), optfx.proximal_weight_decay(**h, mask=MATRICES)),
        {"learning_rate": 0.1, "weight_decay": 0.2, "delta": 0.5},
        "of Huber, masked",
    ),
    # ---- lengths, and limits on the parameters -------------------------------------------------------
    Row("relative_update", optfx.relative_update, {"min_ratio": 1.0, "max_ratio": 1.0}),
    Row(
        "relative_update",
        lambda **h: optfx.relative_update(**h, max_ratio=None, per_unit=True),
        {"min_ratio": 0.9},
        "floor of units",
    ),
    Row("radial_brake", optfx.radial_brake, {"outward_scale": 0.5, "inward_scale": 0.9}),
    Row("keep_norm", optfx.keep_norm),
    Row("hyperball", optfx.hyperball, {"learning_rate": 0.1}),
    Row(
        "hyperball",
        lambda **h: optfx.chain(optfx.scale_by_adam(), optfx.hyperball(**h)),
        {"learning_rate": 0.1, "radius": 2.0},
        "given radius",
    ),
    Row("keep_params_nonnegative", optfx.keep_params_nonnegative),
    Row("qk_clip", optfx.qk_clip, {"tau": 100.0, "power": 0.5}, extra=LOGITS),
    Row(
        "qk_clip",
        lambda **h: optfx.chain(optfx.sgd(0.1), optfx.masked(optfx.qk_clip(**h), MATRICES)),
        {"tau": 100.0},
        "after sgd, masked",
        extra=LOGITS,
    ),
    # ---- limits ------------------------------------------------------------------------------------
    Row("clip", optfx.clip, {"max_delta": 0.4}),
    Row("clip_by_block_rms", optfx.clip_by_block_rms, {"threshold": 0.4}),
    Row("clip_by_global_norm", optfx.clip_by_global_norm, {"max_norm": 0.4}),
    Row("adaptive_grad_clip", optfx.adaptive_grad_clip, {"clipping": 0.1, "eps": 1e-3}),
    # ---- averages of the parameters ----------------------------------------------------------------
    Row("params_ema", optfx.params_ema, {"decay": 0.9}),
    Row("params_ema", lambda **h: optfx.chain(optfx.sgd(0.1), optfx.params_ema(**h)), {"decay": 0.9}, "after sgd"),
    Row("params_ema", lambda **h: optfx.params_ema(**h, dtype=torch.float32), {"decay": 0.9}, "float32"),
    Row("params_average", optfx.params_average, {"start": 1.0}),
    Row(
        "params_average",
        lambda **h: optfx.chain(optfx.sgd(0.1), optfx.params_average(**h)),
        {"start": 0.0},
        "after sgd",
    ),
    Row("params_average", lambda **h: optfx.params_average(**h, dtype=torch.float32), {"start": 1.0}, "float32"),
    # ---- cleaner gradients -------------------------------------------------------------------------
    Row("centralize", optfx.centralize),
    Row("zero_nans", optfx.zero_nans),
    Row("compensate", lambda rate=0.1: optfx.chain(optfx.sgd(rate), optfx.compensate()), {"rate": 0.1}),
    Row("round_stochastically", lambda: optfx.round_stochastically(key=1)),
    Row("add_noise", lambda **h: optfx.add_noise(**h, key=1), {"eta": 0.1, "gamma": 0.55}),
    Row("add_noise", lambda **h: optfx.add_noise(**h, key=optfx.random.key(7)), {"eta": 0.1, "gamma": 0.55}, "key"),
    Row("clip_spikes", optfx.clip_spikes, {"threshold": 2.0, "b2": 0.9, "start": 1.0}),
    Row(
        "clip_spikes",
        lambda **h: optfx.clip_spikes(**h, nu_dtype=torch.float32),
        {"threshold": 2.0, "b2": 0.9, "start": 1.0},
        "float32",
    ),
    # ---- other gradients, and in agreement with them -------------------------------------------------
    Row("mars", optfx.mars, {"gamma": 0.1, "b1": 0.9, "max_norm": 0.8}),
    Row(
        "mars",
        lambda **h: optfx.mars(**h, max_norm=None, accumulator_dtype=torch.float32),
        {"gamma": 0.1, "b1": 0.9},
        "no limit, float32",
    ),
    Row("grokfast", optfx.grokfast, {"alpha": 0.9, "lamb": 2.0}),
    Row("grokfast", lambda **h: optfx.grokfast(**h, accumulator_dtype=torch.float32), {"alpha": 0.9}, "float32"),
    Row("orthograd", optfx.orthograd),
    Row(
        "cautious",
        lambda b1=0.9, **h: optfx.chain(optfx.scale_by_adam(b1), optfx.cautious(**h)),
        {"b1": 0.9, "min_share": 1e-3},
    ),
    Row(
        "cautious",
        lambda **h: optfx.chain(optfx.trace(0.9), optfx.masked(optfx.cautious(**h), MATRICES)),
        {"min_share": 1.0},
        "as it is, masked",
    ),
    # ---- several updates at once, measurements -----------------------------------------------------
    Row("apply_every", lambda k=2.0: optfx.chain(optfx.sgd(0.1), optfx.apply_every(k)), {"k": 2.0}),
    Row("monitor", lambda: optfx.monitor({"norm": size_of, "finite": is_finite})),
    Row(
        "monitor",
        lambda **h: optfx.monitor({"norm": size_of, "finite": is_finite}, **h),
        {"decay": 0.9},
        "means",
    ),
    Row("snapshot", lambda: optfx.snapshot("norm", size_of)),
    # ---- rates that watch progress -----------------------------------------------------------------
    Row(
        "reduce_on_plateau",
        lambda **h: optfx.reduce_on_plateau(**h, mode="max", accumulation_size=2, cooldown=1),
        {"factor": 0.5, "rtol": 1e-4, "atol": 1e-3, "min_scale": 0.2},
        "max, averaged",
        extra=VALUE,
    ),
    Row(
        "reduce_on_plateau",
        lambda **h: optfx.reduce_on_plateau(**h, patience=1),
        {"factor": 0.5, "rtol": 1e-4},
        extra=VALUE,
    ),
    Row(
        "reduce_on_plateau",
        lambda **h: optfx.reduce_on_plateau(**h, patience=0),
        {"factor": 0.5, "batches": 2.0},
        "epochs",
        extra=VALUE,
    ),
    Row("scale_by_asgd", optfx.scale_by_asgd, ASGD),
    # ---- foreign pairs, and combinators ------------------------------------------------------------
    Row("from_functions", lambda: optfx.core.from_functions(no_state, halve_pair)),
    Row("chain", clipped_adam, {"rate": 0.1, "decay": 0.2, "limit": 0.5, "b1": 0.9}),
    Row(
        "named_chain",
        lambda rate=0.1: optfx.named_chain(("b", optfx.scale_by_adam()), ("a", optfx.scale_by_learning_rate(rate))),
        {"rate": 0.1},
    ),
    Row(
        "parallel",
        lambda rate=0.1, b1=0.9: optfx.parallel((optfx.sgd(rate), optfx.chain(optfx.scale_by_adam(b1)))),
        {"rate": 0.1, "b1": 0.9},
    ),
    Row(
        "parallel",
        lambda rate=0.1, slow=0.9: optfx.parallel(
            {"fast": optfx.adam(rate), "slow": optfx.chain(optfx.ema(slow), optfx.params_ema(0.75))}, mean_of_two
        ),
        {"rate": 0.1, "slow": 0.9},
        "by name, mean",
    ),
    Row(
        "graft",
        lambda rate=0.1, b1=0.9: optfx.graft(optfx.scale_by_adam(b1), optfx.sgd(rate)),
        {"rate": 0.1, "b1": 0.9},
    ),
    Row(
        "anchored",
        lambda decay=0.9, **h: optfx.anchored(optfx.add_decayed_weights(**h), decay),
        {"decay": 0.9, "weight_decay": 0.2},
    ),
    Row(
        "anchored",
        lambda **h: optfx.chain(
            optfx.anchored(optfx.l1_weight_decay(0.2), **h, dtype=torch.float32), optfx.scale_by_learning_rate(0.1)
        ),
        {"decay": 1.0},
        "start, float32",
    ),
    Row("masked", lambda rate=0.1: optfx.masked(optfx.adam(rate), MATRICES), {"rate": 0.1}),
    Row("masked", lambda rate=0.1: optfx.masked(optfx.adam(rate), select.path("w")), {"rate": 0.1}, "one leaf"),
    Row("partition", two_groups, {"rate": 0.1, "decay": 0.2, "momentum": 0.8}),
    Row("inject_hyperparams", lambda: optfx.inject_hyperparams(clipped_adam())),
    Row("apply_if_finite", lambda **h: optfx.apply_if_finite(clipped_adam(**h), 2), {"rate": 0.1, "limit": 0.5}),
    Row("stored", lambda **h: optfx.stored(clipped_adam(**h), BYTES), {"rate": 0.1, "b1": 0.9}),
    Row("stored", lambda rate=0.1: optfx.stored(optfx.adam(rate), NIBBLES), {"rate": 0.1}, "four bits"),
    Row(
        "stored",
        lambda rate=0.1: optfx.stored(optfx.adam(rate), fp8(block=2, least=2), MATRICES),
        {"rate": 0.1},
        "fp8",
    ),
    Row("stored", lambda rate=0.1: optfx.stored(optfx.adam(rate), half()), {"rate": 0.1}, "half"),
    Row("master_weights", lambda **h: optfx.master_weights(clipped_adam(**h)), {"rate": 0.1, "limit": 0.5}),
    # ---- combinators in time -----------------------------------------------------------------------
    Row("accumulate", lambda every=2.0, rate=0.1: optfx.accumulate(optfx.adam(rate), every), {"every": 2.0}),
    Row(
        "accumulate",
        lambda every=2.0: optfx.accumulate(
            optfx.sgd(0.1, 0.9), every, optfx.skip_not_finite, accumulator_dtype=torch.float32
        ),
        {"every": 2.0},
        "skip, float32",
    ),
    Row(
        "accumulate",
        lambda rate=0.1: optfx.accumulate(optfx.sgd(rate, 0.9), 1, optfx.skip_large_updates(9.0)),
        {"rate": 0.1},
        "skip large",
    ),
    Row("when", lambda: optfx.when(at_odd_counts, optfx.adam(0.1))),
    Row("when", lambda: optfx.when(at_odd_counts, optfx.adam(0.1), "zero"), option="zero"),
    Row(
        "lookahead",
        lambda every=2.0, rate=0.1: optfx.lookahead(optfx.adam(rate), every, optfx.sgd(0.7, 0.9, nesterov=True)),
        {"every": 2.0, "rate": 0.1},
    ),
    Row(
        "schedule_free",
        lambda **h: optfx.schedule_free(
            optfx.scale_by_rms(eps=1e-6), **h, r=1.0, warmup=optfx.linear_schedule(0.5, 1.0, 2)
        ),
        {"learning_rate": 0.1, "b1": 0.8, "weight_lr_power": 2.0},
    ),
    Row(
        "schedule_free",
        lambda **h: optfx.schedule_free(optfx.identity(), **h, state_dtype=torch.float32),
        {"learning_rate": 0.1, "r": 0.5},
        "float32",
    ),
    Row("gpa", lambda rate=0.1, **h: optfx.gpa(optfx.adam(rate), **h), {"rate": 0.1, "mu_x": 0.9, "mu_y": 0.7}),
    Row("gpa", lambda rate=0.1: optfx.gpa(optfx.sgd(rate), state_dtype=torch.float32), {"rate": 0.1}, "float32"),
    Row("ema_nesterov", lambda **h: optfx.ema_nesterov(optfx.sgd(0.1, 0.9), **h), {"beta": 0.5, "gamma": 0.9}),
    Row("sam", lambda **h: optfx.sam(optfx.sgd(0.1), **h), {"rho": 0.05, "sync_period": 2.0}),
    Row(
        "sam", lambda: optfx.sam(optfx.adam(0.1), adaptive=True), option="adaptive, grad_fn", extra={"grad_fn": uphill}
    ),
    Row("reset_every", lambda every=2.0, rate=0.1: optfx.reset_every(optfx.adam(rate), every), {"every": 2.0}),
    Row(
        "viewed",
        lambda rate=0.1: optfx.viewed(optfx.adafactor(rate, min_dim_size_to_factor=1), as_matrix(), select.ndim(min=3)),
        {"rate": 0.1},
    ),
    Row(
        "viewed",
        lambda rate=0.1: optfx.viewed(optfx.fromage(rate), blocks(2), MATRICES),
        {"rate": 0.1},
        "in parts",
    ),
    Row(
        "weight_norm",
        lambda rate=0.1, beta=0.9: optfx.partition(
            {
                "muon": optfx.weight_norm(
                    optfx.chain(optfx.scale_by_muon(beta=beta), optfx.scale_by_learning_rate(rate)), optfx.adam(rate)
                ),
                "adam": optfx.adam(rate),
            },
            FILLED,
        ),
        {"rate": 0.1, "beta": 0.9},
    ),
    Row("flatten", lambda rate=0.1: optfx.flatten(optfx.adam(rate)), {"rate": 0.1}),
    Row("flatten", lambda limit=0.5: optfx.flatten(optfx.clip_by_block_rms(limit)), {"limit": 0.5}, "whole"),
    Row(
        "master_weights",
        lambda rate=0.1: optfx.master_weights(optfx.adam(rate), torch.float64),
        {"rate": 0.1},
        "float64",
    ),
    # ---- optimizers --------------------------------------------------------------------------------
    Row("sgd", lambda **h: optfx.sgd(**h, nesterov=True), {"learning_rate": 0.1, "momentum": 0.9}, "momentum"),
    Row("sgd", optfx.sgd, {"learning_rate": 0.1}),
    Row(
        "sgd",
        lambda **h: optfx.sgd(**h),
        {"learning_rate": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1},
        "torch's",
    ),
    Row("noisy_sgd", lambda **h: optfx.noisy_sgd(**h, key=1), {"learning_rate": 0.1, "eta": 0.2, "gamma": 0.55}),
    Row("optimistic_gradient_descent", optfx.optimistic_gradient_descent, {"learning_rate": 0.1, "alpha": 0.9}),
    Row("qhm", optfx.qhm, {"learning_rate": 0.1, "momentum": 0.9, "nu": 0.7}),
    Row("sign_sgd", optfx.sign_sgd, {"learning_rate": 0.1}),
    Row("signum", optfx.signum, {"learning_rate": 0.1, "beta": 0.9}),
    Row("tiger", optfx.tiger, {"learning_rate": 0.1, "beta": 0.9, "weight_decay": 0.2}),
    Row("lion", optfx.lion, {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 0.2}),
    Row("adam", optfx.adam, {"learning_rate": 0.1, **ADAM}),
    Row("adam", optfx.adam, {"learning_rate": 0.1, "weight_decay": 0.1}, "weight decay"),
    Row("adamw", optfx.adamw, {"learning_rate": 0.1, **ADAM, "weight_decay": 0.1}),
    Row(
        "adamw",
        lambda **h: optfx.adamw(**h, mask=MATRICES, nesterov=True),
        {"learning_rate": 0.1, "weight_decay": 0.1},
        "masked, nesterov",
    ),
    Row("nadamw", optfx.nadamw, {"learning_rate": 0.1, **ADAM, "weight_decay": 0.2}),
    Row("optimistic_adam_v2", optfx.optimistic_adam_v2, {"learning_rate": 0.1, **ADAM, "beta": 0.8}),
    Row("adabelief", optfx.adabelief, {"learning_rate": 0.1, **ADAM}),
    Row("acprop", optfx.acprop, {"learning_rate": 0.1, **ADAM, "eps_root": 1e-3, "weight_decay": 0.2}),
    Row("yogi", optfx.yogi, {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-3}),
    Row("adan", optfx.adan, {"learning_rate": 0.1, **ADAN, "weight_decay": 0.2}),
    Row("laprop", optfx.laprop, {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 0.2}),
    Row("adam_atan2", optfx.adam_atan2, {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 0.2}),
    Row("qhadam", optfx.qhadam, {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "nu1": 0.7, "eps": 1e-6}),
    Row("amsgrad", optfx.amsgrad, {"learning_rate": 0.1, **ADAM}),
    Row("amsgrad", optfx.amsgrad, {"learning_rate": 0.1, "weight_decay": 0.1}, "weight decay"),
    Row("nadam", optfx.nadam, {"learning_rate": 0.1, **ADAM}),
    Row("nadam", optfx.nadam, {"learning_rate": 0.1, "momentum_decay": 0.004, "weight_decay": 0.1}, "torch's"),
    Row("radam", optfx.radam, {"learning_rate": 0.1, **ADAM, "threshold": 5.0}),
    Row(
        "radam",
        lambda **h: optfx.radam(**h, eps_before_correction=True),
        {"learning_rate": 0.1, "weight_decay": 0.1},
        "torch's",
    ),
    Row("adamax", optfx.adamax, {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-6}),
    Row("adamax", optfx.adamax, {"learning_rate": 0.1, "weight_decay": 0.1}, "weight decay"),
    Row("adamaxw", optfx.adamaxw, {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 0.2}),
    Row(
        "rmsprop",
        lambda **h: optfx.rmsprop(**h, centered=True),
        {"learning_rate": 0.1, "decay": 0.9, "eps": 1e-6, "momentum": 0.5},
        "centered, momentum",
    ),
    Row("rmsprop", optfx.rmsprop, {"learning_rate": 0.1, "decay": 0.9, "eps": 1e-6}),
    Row(
        "rmsprop",
        lambda **h: optfx.rmsprop(**h, eps_in_sqrt=False, momentum_after_lr=False),
        {"learning_rate": 0.1, "decay": 0.9, "eps": 1e-6, "momentum": 0.5, "weight_decay": 0.1},
        "torch's",
    ),
    Row("adagrad", optfx.adagrad, {"learning_rate": 0.1, "eps": 1e-6}),
    Row(
        "adagrad",
        lambda **h: optfx.adagrad(**h, eps_in_sqrt=False, initial_accumulator_value=0.0, lr_decay=0.1),
        {"learning_rate": 0.1, "eps": 1e-6, "weight_decay": 0.1},
        "torch's",
    ),
    Row(
        "schedule_free_sgd",
        lambda **h: optfx.schedule_free_sgd(**h, warmup_steps=2),
        {"learning_rate": 0.1, "b1": 0.8, "weight_decay": 0.1},
    ),
    Row("schedule_free_adamw", optfx.schedule_free_adamw, {"learning_rate": 0.1, **SCHEDULE_FREE}),
    Row(
        "schedule_free_adamw",
        lambda **h: optfx.schedule_free_adamw(**h, warmup_steps=2, r=1.0, mask=MATRICES),
        {"learning_rate": 0.1, "weight_decay": 0.1},
        "masked, warmup",
    ),
    Row("schedule_free_radam", optfx.schedule_free_radam, {"learning_rate": 0.1, "b1": 0.9, "eps": 1e-6}),
    Row(
        "schedule_free_radam",
        lambda **h: optfx.schedule_free_radam(**h, b2=0.9, nu_dtype=torch.float32),
        {"learning_rate": 0.1},
        "float32",
    ),
    Row("adadelta", optfx.adadelta, {"learning_rate": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.1}),
    Row("rprop", optfx.rprop, {"learning_rate": 0.1, **RPROP}),
    Row("asgd", optfx.asgd, {**ASGD, "t0": 1.0}),
    Row("asgd", optfx.asgd, {"learning_rate": 0.1, "weight_decay": 0.1}, "weight decay"),
    Row(
        "adafactor",
        lambda **h: optfx.adafactor(**h, min_dim_size_to_factor=1),
        {"learning_rate": 0.1, "decay_rate": 0.8, "clipping_threshold": 0.9, "momentum": 0.9, "eps": 1e-12},
    ),
    Row(
        "adafactor",
        lambda **h: optfx.adafactor(
            **h, min_dim_size_to_factor=1, eps=None, factored="last", eps_is_floor=True, relative_step=True
        ),
        {"learning_rate": 0.8, "weight_decay_rate": 0.1, "min_scale": 0.01},
        "torch's",
    ),
    Row("adafactor", lambda: optfx.adafactor(), option="no rate"),
    Row("ademamix", optfx.ademamix, {"learning_rate": 0.1, **ADEMAMIX, "weight_decay": 0.2}),
    Row("simplified_ademamix", optfx.simplified_ademamix, {"learning_rate": 0.1, **SIMPLIFIED, "weight_decay": 0.2}),
    Row("adopt", optfx.adopt, {"learning_rate": 0.1, **ADOPT}),
    Row("grams", optfx.grams, {"learning_rate": 0.1, **STABLE}),
    Row("madgrad", optfx.madgrad, {"learning_rate": 0.1, "momentum": 0.9, "eps": 1e-6, "weight_decay": 0.2}),
    Row("lamb", optfx.lamb, {"learning_rate": 0.1, **ADAM, "weight_decay": 0.2}),
    Row(
        "lars",
        optfx.lars,
        {"learning_rate": 0.1, "weight_decay": 0.2, "trust_coefficient": 0.3, "eps": 1e-3, "momentum": 0.9},
    ),
    Row(
        "lars",
        lambda **h: optfx.lars(**h, weight_decay_mask=MATRICES, trust_ratio_mask=MATRICES, nesterov=True),
        {"learning_rate": 0.1, "weight_decay": 0.2},
        "masked, nesterov",
    ),
    Row("fromage", optfx.fromage, {"learning_rate": 0.1, "min_norm": 1e-3}),
    Row("novograd", optfx.novograd, {"learning_rate": 0.1, **NOVOGRAD}),
    Row("sm3", optfx.sm3, {"learning_rate": 0.1, "momentum": 0.9}),
    Row("stableadamw", optfx.stableadamw, {"learning_rate": 0.1, **STABLE}),
    Row("came", optfx.came, {"learning_rate": 0.1, **CAME, "clipping_threshold": 0.9, "weight_decay": 0.2}),
    Row(
        "muon",
        lambda **h: optfx.muon(**h, labels=select.label({"muon": MATRICES}, default="adam")),
        {"learning_rate": 0.1, "beta": 0.9, "weight_decay": 0.1, "eps": 1e-6},
        "batches",
    ),
    Row("muon", optfx.muon, {"learning_rate": 0.1, "adam_learning_rate": 0.2, "consistent_rms": 0.2}),
    Row(
        "muown",
        lambda **h: optfx.muown(**h, labels=FILLED),
        {"learning_rate": 0.1, "beta": 0.9, "b1": 0.8, "b2": 0.9, "weight_decay": 0.1},
    ),
    Row(
        "normuon",
        lambda **h: optfx.normuon(**h, labels=BATCHES),
        {"learning_rate": 0.1, "beta": 0.9, "b2": 0.8, "eps": 1e-6, "weight_decay": 0.1},
    ),
    Row("adamuon", optfx.adamuon, {"learning_rate": 0.1, "b1": 0.9, "b2": 0.8, "eps": 1e-6, "weight_decay": 0.1}),
    Row("dion2", optfx.dion2, {"learning_rate": 0.1, "decay": 0.9, "eps": 1e-6, "weight_decay": 0.1}),
    Row("scion", optfx.scion, {"learning_rate": 0.1, "b1": 0.9, "radius": 2.0, "eps": 1e-6}),
    Row(
        "scion_light",
        lambda **h: optfx.scion_light(**h, constrained=True, labels=select.label({"sign": MATRICES}, default="rms")),
        {"learning_rate": 0.1, "b1": 0.9, "radius": 2.0, "sign_radius": 3.0},
    ),
    Row(
        "kron",
        lambda **h: optfx.kron(**h, labels=select.label({"kron": MATRICES}, default="adam")),
        {"learning_rate": 0.1, "b1": 0.9, "weight_decay": 0.1, "max_rms": 0.8},
    ),
    Row(
        "shampoo",
        lambda **h: optfx.shampoo(**h, labels=select.label({"shampoo": MATRICES}, default="adam")),
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.8, "weight_decay": 0.1, "matrix_eps": 1e-3},
    ),
    Row(
        "soap",
        lambda **h: optfx.soap(**h, max_dim=2, labels=select.label({"soap": MATRICES}, default="adam")),
        {"learning_rate": 0.1, "weight_decay": 0.1, "shampoo_beta": 0.9},
    ),
]
