"""The table of what `torch.optim` calls things and how they are written here: one form for each optimizer.

A form makes the chain of a parameter group from torch's options; `patterns` reads it backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.combinators import chain
from optfx.core import GradientTransformation
from optfx.optimizers import adadelta, adagrad, adam, adamax, amsgrad, asgd, nadam, radam, rmsprop, rprop, sgd
from optfx.schedules import relative_step
from optfx.transforms import (
    add_decayed_weights,
    clip_by_block_rms,
    scale,
    scale_by_adam,
    scale_by_amsgrad,
    scale_by_factored_rms,
    scale_by_learning_rate,
    scale_by_muon,
    scale_by_nadam,
    scale_by_param_block_rms,
    scale_by_radam,
    scale_by_schedule,
    scale_by_shape,
)

Options = dict[str, Any]


class Form(NamedTuple):
    """How an optimizer of torch is written here."""

    optimizer: type[torch.optim.Optimizer]
    chain: Callable[[Options], GradientTransformation]  # of a group with these options
    state: dict[str, str]  # torch's name for what it keeps of a parameter, and the field of our state
    numbers: tuple[str, ...]  # options that are numbers; `a.i` is one of a tuple
    choices: dict[str, tuple[Any, ...]]  # options that change the form; MARKED stands for any number
    counted: bool = True  # whether torch keeps a step


MARKED = "any number but 0"
BOTH = (False, True)
DECAY = {"weight_decay": (0, MARKED)}


def _some(x: Any) -> Any:
    """What an option of 0 is here: nothing."""
    return None if not isinstance(x, Tensor) and x == 0 else x


def _sgd(o: Options) -> Any:
    moves = _some(o["momentum"])
    dampening = None if moves is None else _some(o["dampening"])
    return sgd(o["lr"], moves, o["nesterov"], dampening=dampening, weight_decay=_some(o["weight_decay"]))


def _adam(o: Options) -> Any:
    (b1, b2), eps, lr = o["betas"], o["eps"], o["lr"]
    if o["decoupled_weight_decay"]:
        return _decoupled(scale_by_adam(b1, b2, eps) if not o["amsgrad"] else _amsgrad(b1, b2, eps), o)
    decay = _some(o["weight_decay"])
    if o["amsgrad"]:
        return amsgrad(lr, b1, b2, eps, bias_correction_nu="after_max", weight_decay=decay)
    return adam(lr, b1, b2, eps, weight_decay=decay)


def _amsgrad(b1: Any, b2: Any, eps: Any) -> Any:
    return scale_by_amsgrad(b1, b2, eps, bias_correction_nu="after_max")


def _decoupled(scaled: Any, o: Options) -> Any:
    decay = o["weight_decay"]
    return chain(scaled, add_decayed_weights(decay), scale_by_learning_rate(o["lr"]))


def _nadam(o: Options) -> Any:
    (b1, b2), decay = o["betas"], o["momentum_decay"]
    if o["decoupled_weight_decay"]:
        return _decoupled(scale_by_nadam(b1, b2, o["eps"], momentum_decay=decay), o)
    return nadam(o["lr"], b1, b2, o["eps"], momentum_decay=decay, weight_decay=_some(o["weight_decay"]))


def _radam(o: Options) -> Any:
    b1, b2 = o["betas"]
    if o["decoupled_weight_decay"]:
        return _decoupled(scale_by_radam(b1, b2, o["eps"], eps_before_correction=True), o)
    decay = _some(o["weight_decay"])
    return radam(o["lr"], b1, b2, o["eps"], eps_before_correction=True, weight_decay=decay)


def _adamax(o: Options) -> Any:
    b1, b2 = o["betas"]
    return adamax(o["lr"], b1, b2, o["eps"], weight_decay=_some(o["weight_decay"]))


def _adadelta(o: Options) -> Any:
    return adadelta(o["lr"], o["rho"], o["eps"], o["weight_decay"])


def _adagrad(o: Options) -> Any:
    return adagrad(
        o["lr"],
        o["initial_accumulator_value"],
        o["eps"],
        eps_in_sqrt=False,
        lr_decay=_some(o["lr_decay"]),
        weight_decay=_some(o["weight_decay"]),
    )


def _rmsprop(o: Options) -> Any:
    return rmsprop(
        o["lr"],
        o["alpha"],
        o["eps"],
        eps_in_sqrt=False,
        centered=o["centered"],
        momentum=_some(o["momentum"]),
        momentum_after_lr=False,
        weight_decay=_some(o["weight_decay"]),
    )


def _rprop(o: Options) -> Any:
    return rprop(o["lr"], *o["etas"], *o["step_sizes"])


def _asgd(o: Options) -> Any:
    return asgd(o["lr"], o["lambd"], o["alpha"], o["t0"], weight_decay=_some(o["weight_decay"]))


def _adafactor(o: Options) -> Any:
    eps, least = o["eps"]
    return chain(
        scale_by_factored_rms("last", -o["beta2_decay"], 0, 1, eps, epsilon_is_floor=True),
        clip_by_block_rms(o["d"]),
        scale_by_param_block_rms(least),
        scale_by_schedule(relative_step(o["lr"])),
        add_decayed_weights(o["weight_decay"]),
        scale_by_learning_rate(o["lr"]),
    )


def _muon(o: Options) -> Any:
    torchs: dict[str, Any] = {"bias_correction": False, "eps_is_floor": True, "ns_dtype": torch.bfloat16}
    coefficients, steps, eps = o["ns_coefficients"], o["ns_steps"], o["eps"]
    return chain(
        scale_by_muon(coefficients, steps, o["momentum"], eps, nesterov=o["nesterov"], **torchs),
        scale_by_shape(0.2 if o["adjust_lr_fn"] == "match_rms_adamw" else None),
        add_decayed_weights(o["weight_decay"]),
        scale_by_learning_rate(o["lr"]),
    )


BETAS = ("lr", "betas.0", "betas.1", "eps")
MEANS = {"exp_avg": "mu", "exp_avg_sq": "nu"}

FORMS = {
    form.optimizer: form
    for form in (
        Form(
            torch.optim.SGD,
            _sgd,
            {"momentum_buffer": "trace"},
            ("lr",),
            {"momentum": (0, MARKED), "dampening": (0, MARKED), "nesterov": BOTH, **DECAY},
            counted=False,
        ),
        Form(
            torch.optim.AdamW,
            _adam,
            {**MEANS, "max_exp_avg_sq": "nu_max"},
            (*BETAS, "weight_decay"),
            {"amsgrad": BOTH, "decoupled_weight_decay": (True,)},
        ),
        Form(
            torch.optim.Adam,
            _adam,
            {**MEANS, "max_exp_avg_sq": "nu_max"},
            BETAS,
            {"amsgrad": BOTH, "decoupled_weight_decay": (False,), **DECAY},
        ),
        Form(
            torch.optim.NAdam,
            _nadam,
            {**MEANS, "mu_product": "mu_product"},
            (*BETAS, "momentum_decay"),
            {"decoupled_weight_decay": BOTH, **DECAY},
        ),
        Form(torch.optim.RAdam, _radam, MEANS, BETAS, {"decoupled_weight_decay": BOTH, **DECAY}),
        Form(torch.optim.Adamax, _adamax, {"exp_avg": "mu", "exp_inf": "nu"}, BETAS, DECAY),
        Form(
            torch.optim.Adadelta,
            _adadelta,
            {"square_avg": "e_g", "acc_delta": "e_x"},
            ("lr", "rho", "eps", "weight_decay"),
            {},
        ),
        Form(
            torch.optim.Adagrad,
            _adagrad,
            {"sum": "sum_of_squares"},
            ("lr", "initial_accumulator_value", "eps"),
            {"lr_decay": (0, MARKED), **DECAY},
        ),
        Form(
            torch.optim.RMSprop,
            _rmsprop,
            {"square_avg": "nu", "grad_avg": "mu", "momentum_buffer": "trace"},
            ("lr", "alpha", "eps"),
            {"centered": BOTH, "momentum": (0, MARKED), **DECAY},
        ),
        Form(
            torch.optim.Rprop,
            _rprop,
            {"prev": "previous", "step_size": "step_sizes"},
            ("lr", "etas.0", "etas.1", "step_sizes.0", "step_sizes.1"),
            {},
        ),
        Form(
            torch.optim.Adafactor,
            _adafactor,
            {"row_var": "v_row", "col_var": "v_col", "variance": "v"},
            ("lr", "beta2_decay", "eps.1", "d", "weight_decay"),
            {"eps.0": (None, MARKED)},
        ),
        Form(
            torch.optim.Muon,
            _muon,
            {"momentum_buffer": "mu"},
            (
                "lr",
                "momentum",
                "weight_decay",
                "ns_coefficients.0",
                "ns_coefficients.1",
                "ns_coefficients.2",
                "ns_steps",
                "eps",
            ),
            {"nesterov": BOTH, "adjust_lr_fn": ("original", "match_rms_adamw")},
            counted=False,
        ),
        Form(
            torch.optim.ASGD,
            _asgd,
            {"ax": "average", "eta": "eta", "mu": "weight"},
            ("lr", "lambd", "alpha", "t0"),
            DECAY,
        ),
    )
}


def make(form: Form, options: Options) -> GradientTransformation:
    """The chain of a group, which goes up the gradient where torch's `maximize` says so."""
    tx = form.chain(options)
    return chain(scale(-1.0), tx) if options.get("maximize") else tx
