"""Every optimizer against optax's of the same name, in float64, step by step, and their signatures."""

from __future__ import annotations

import optax
import pytest

import optfx
from tests.transforms.harness import assert_equal, run_optax, run_ours
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
    "rmsprop": ("rmsprop", {}),
    "rmsprop, eps outside": ("rmsprop", {**RMS, "eps_in_sqrt": False}),
    "rmsprop, momentum": ("rmsprop", {**RMS, "momentum": 0.9}),
    "rmsprop, all": (
        "rmsprop",
        {**RMS, "centered": True, "momentum": 0.5, "nesterov": True, "bias_correction": True},
    ),
    "adamax": ("adamax", {}),
    "adamax, all": ("adamax", {"b1": 0.8, "b2": 0.97, "eps": 1e-3}),
    "nadam": ("nadam", {}),
    "nadam, all": ("nadam", ADAM),
    "radam": ("radam", {}),
    "radam, all": ("radam", {**ADAM, "threshold": 4.5, "nesterov": True}),
    "adadelta": ("adadelta", {}),
    "adadelta, all": ("adadelta", {"rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
    "adagrad": ("adagrad", {}),
    "adagrad, from 0": ("adagrad", {"initial_accumulator_value": 0.0, "eps": 1e-4}),
}


@pytest.mark.parametrize("rate", [0.03, fading], ids=["constant", "schedule"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_optaxs(name, rate):
    optimizer, options = CASES[name]
    mine, _ = run_ours(getattr(optfx, optimizer)(rate, **options))
    expected, _ = run_optax(getattr(optax, optimizer)(rate, **options))
    for a, b in zip(mine, expected, strict=True):
        assert_equal(a, b, atol=1e-12)


def test_every_optimizer_is_compared():
    compared = {optimizer for optimizer, _ in CASES.values()}
    others = {"rprop"}  # see `docs/differences.md`
    assert compared == {name for name in optfx.optimizers.__all__ if hasattr(optax, name)} - others
