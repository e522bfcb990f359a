"""Every optimizer against optax's of the same name, in float64, step by step, and their signatures."""

from __future__ import annotations

import optax
import pytest
import torch

import optfx
from tests.transforms.harness import assert_equal, factored_rms, layout, run_optax, run_ours
from tests.transforms.test_optax import ADAM, MASK, fading

RMS = {"decay": 0.95, "eps": 1e-6, "initial_scale": 0.5}

CASES = {
    "sgd": ("sgd", {}),
    "sgd, momentum": ("sgd", {"momentum": 0.9}),
    "sgd, nesterov": ("sgd", {"momentum": 0.8, "nesterov": True}),
    "adam": ("adam", {}),
    "adam, all": ("adam", {**ADAM, "nesterov": True}),
    "adamw": ("adamw", {}),
    "adamw, all": ("adamw", {**ADAM, "weight_decay": 0.3, "mask": MASK, "nesterov": True}),
    "amsgrad": ("amsgrad", {}),
    "amsgrad, the paper's": ("amsgrad", {**ADAM, "bias_correction_mu": False, "bias_correction_nu": False}),
    "nadam": ("nadam", {}),
    "nadam, all": ("nadam", ADAM),
    "radam": ("radam", {}),
    "radam, all": ("radam", {**ADAM, "threshold": 7.0, "nesterov": True}),
    "adamax": ("adamax", {}),
    "adamax, all": ("adamax", {"b1": 0.8, "b2": 0.97, "eps": 1e-3}),
    "adadelta": ("adadelta", {}),
    "adadelta, all": ("adadelta", {"rho": 0.7, "eps": 1e-3, "weight_decay": 0.3, "weight_decay_mask": MASK}),
    "adafactor": ("adafactor", {}),
    "adafactor, factored": ("adafactor", {"min_dim_size_to_factor": 2}),
    "adafactor, plain": (
        "adafactor",
        {"multiply_by_parameter_scale": False, "clipping_threshold": None, "factored": False, "eps": 1e-3},
    ),
    "adafactor, all": (
        "adafactor",
        {
            "min_dim_size_to_factor": 1,
            "decay_rate": 0.6,
            "decay_offset": -3,
            "clipping_threshold": 0.5,
            "momentum": 0.9,
            "dtype_momentum": "float64",
            "weight_decay_rate": 0.01,
            "weight_decay_mask": MASK,
        },
    ),
    "muon": ("muon", {}),
    "muon, all": (
        "muon",
        {
            "ns_coeffs": (3.0, -3.5, 1.5),
            "ns_steps": 3,
            "beta": 0.8,
            "eps": 1e-3,
            "weight_decay": 0.3,
            "weight_decay_mask": MASK,
            "nesterov": False,
            "adam_b1": 0.8,
            "adam_b2": 0.97,
            "adam_eps_root": 1e-4,
            "adam_weight_decay": 0.1,
            "adam_learning_rate": 0.2,
            "consistent_rms": 0.2,
        },
    ),
    "rmsprop": ("rmsprop", {}),
    "rmsprop, eps outside": ("rmsprop", {**RMS, "eps_in_sqrt": False}),
    "rmsprop, momentum": ("rmsprop", {**RMS, "momentum": 0.9}),
    "rmsprop, all": (
        "rmsprop",
        {**RMS, "centered": True, "momentum": 0.5, "nesterov": True, "bias_correction": True},
    ),
    "adagrad": ("adagrad", {}),
    "adagrad, from 0": ("adagrad", {"initial_accumulator_value": 0.0, "eps": 1e-4}),
}


@pytest.mark.parametrize("rate", [0.03, fading], ids=["constant", "schedule"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_optaxs(name, rate, monkeypatch):
    monkeypatch.setattr("optax._src.factorized.scale_by_factored_rms", factored_rms)  # which adafactor calls
    optimizer, options = CASES[name]
    wide = {k: torch.float64 for k, v in options.items() if v == "float64"}
    mine, _ = run_ours(getattr(optfx, optimizer)(rate, **{**options, **wide}))
    make = getattr(optax, optimizer, None) or getattr(optax.contrib, optimizer)
    expected, _ = run_optax(layout(make(rate, **options)) if optimizer == "muon" else make(rate, **options))
    for a, b in zip(mine, expected, strict=True):
        assert_equal(a, b, atol=1e-12)


def test_every_optimizer_is_compared():
    compared = {optimizer for optimizer, _ in CASES.values()}
    # optax has no asgd, its rprop is compared in tests/transforms, and its schedule-free ones in tests/parity
    others = {name for name in optfx.optimizers.__all__ if name.startswith("schedule_free")}
    assert compared == set(optfx.optimizers.__all__) - others - {"asgd", "rprop"}
