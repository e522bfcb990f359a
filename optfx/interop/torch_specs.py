"""How each optimizer of `torch.optim` is written here: the one place that says it.

A recipe is one expression, as a function of torch's options by their names. `from_torch` runs it, `to_torch` reads it
backwards, and the table of docs/from-torch.md shows it. An option whose default in the recipe is None may be absent,
which torch writes as 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from optfx.combinators import chain
from optfx.core import GradientTransformation
from optfx.optimizers import (
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    adamw,
    amsgrad,
    asgd,
    muon,
    nadam,
    radam,
    rmsprop,
    rprop,
    sgd,
)
from optfx.transforms import (
    add_decayed_weights,
    scale,
    scale_by_amsgrad,
    scale_by_learning_rate,
    scale_by_nadam,
    scale_by_radam,
)

Options = dict[str, Any]
Pair = tuple[Any, Any]


class Recipe(NamedTuple):
    """An optimizer as a function of torch's options."""

    make: Callable[..., GradientTransformation]
    when: Options  # the options that it is for

    @property
    def options(self) -> dict[str, bool]:
        """The options that it takes, each with whether it may be absent."""
        return {name: p.default is None for name, p in inspect.signature(self.make).parameters.items()}

    def fits(self, options: Options) -> bool:
        return all(is_value(options.get(name), x) for name, x in self.when.items())


class TorchSpec(NamedTuple):
    """How an optimizer of torch is written here."""

    optimizer: type[Optimizer]
    state: dict[str, str]  # torch's name for what it keeps of a parameter, and the field of our state
    counts: bool  # whether torch keeps a step
    recipes: list[Recipe]  # the first that fits the options is meant

    @property
    def defaults(self) -> Options:
        """Torch's options and their defaults, in torch's order."""
        parameters = inspect.signature(self.optimizer).parameters
        return {name: p.default for name, p in parameters.items() if name != "params"}

    def make(self, options: Options) -> GradientTransformation:
        """The transform of a group with these options of torch; it goes up the gradient where `maximize` says so."""
        recipe = next(recipe for recipe in self.recipes if recipe.fits(options))
        given = {k: None if absent and is_value(options[k], 0) else options[k] for k, absent in recipe.options.items()}
        tx = recipe.make(**given)
        return chain(scale(-1.0), tx) if options.get("maximize") else tx


def is_value(x: Any, value: Any) -> bool:
    """Whether an option has this value; a tensor may have any, so it has none."""
    return not isinstance(x, Tensor) and x == value


SPECS: dict[type[Optimizer], TorchSpec] = {}


def _spec(optimizer: type[Optimizer], *, counts: bool = True, **state: str) -> None:
    SPECS[optimizer] = TorchSpec(optimizer, state, counts, [])


def _recipe(optimizer: type[Optimizer], **when: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The function below is the recipe of this optimizer, for these options of it."""

    def add(make: Callable[..., Any]) -> Callable[..., Any]:
        SPECS[optimizer].recipes.append(Recipe(make, when))
        return make

    return add


_spec(torch.optim.SGD, momentum_buffer="trace", counts=False)
_spec(torch.optim.AdamW, exp_avg="mu", exp_avg_sq="nu", max_exp_avg_sq="nu_max")
_spec(torch.optim.Adam, exp_avg="mu", exp_avg_sq="nu", max_exp_avg_sq="nu_max")
_spec(torch.optim.NAdam, exp_avg="mu", exp_avg_sq="nu", mu_product="mu_product")
_spec(torch.optim.RAdam, exp_avg="mu", exp_avg_sq="nu")
_spec(torch.optim.Adamax, exp_avg="mu", exp_inf="nu")
_spec(torch.optim.Adadelta, square_avg="e_g", acc_delta="e_x")
_spec(torch.optim.Adagrad, sum="sum_of_squares")
_spec(torch.optim.RMSprop, square_avg="nu", grad_avg="mu", momentum_buffer="trace")
_spec(torch.optim.Rprop, prev="previous", step_size="step_sizes")
_spec(torch.optim.ASGD, ax="average", eta="eta", mu="weight")
_spec(torch.optim.Adafactor, row_var="v_row", col_var="v_col", variance="v")
_spec(torch.optim.Muon, momentum_buffer="mu", counts=False)


@_recipe(torch.optim.SGD, momentum=0)
def _descent(lr, weight_decay=None):
    return sgd(lr, weight_decay=weight_decay)


@_recipe(torch.optim.SGD)
def _momentum(lr, momentum, nesterov, dampening=None, weight_decay=None):
    return sgd(lr, momentum, nesterov, dampening=dampening, weight_decay=weight_decay)


@_recipe(torch.optim.AdamW, amsgrad=True)
@_recipe(torch.optim.Adam, amsgrad=True, decoupled_weight_decay=True)
def _adamw_amsgrad(lr, betas: Pair, eps, weight_decay):
    return chain(
        scale_by_amsgrad(*betas, eps, bias_correction_nu="after_max"),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(lr),
    )


@_recipe(torch.optim.AdamW)
@_recipe(torch.optim.Adam, decoupled_weight_decay=True)
def _adamw(lr, betas: Pair, eps, weight_decay):
    return adamw(lr, *betas, eps, weight_decay=weight_decay)


@_recipe(torch.optim.Adam, amsgrad=True)
def _amsgrad(lr, betas: Pair, eps, weight_decay=None):
    return amsgrad(lr, *betas, eps, bias_correction_nu="after_max", weight_decay=weight_decay)


@_recipe(torch.optim.Adam)
def _adam(lr, betas: Pair, eps, weight_decay=None):
    return adam(lr, *betas, eps, weight_decay=weight_decay)


@_recipe(torch.optim.NAdam, decoupled_weight_decay=True)
def _nadamw(lr, betas: Pair, eps, weight_decay, momentum_decay):
    return chain(
        scale_by_nadam(*betas, eps, momentum_decay=momentum_decay),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(lr),
    )


@_recipe(torch.optim.NAdam)
def _nadam(lr, betas: Pair, eps, momentum_decay, weight_decay=None):
    return nadam(lr, *betas, eps, momentum_decay=momentum_decay, weight_decay=weight_decay)


@_recipe(torch.optim.RAdam, decoupled_weight_decay=True)
def _radamw(lr, betas: Pair, eps, weight_decay):
    return chain(
        scale_by_radam(*betas, eps, eps_before_correction=True),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(lr),
    )


@_recipe(torch.optim.RAdam)
def _radam(lr, betas: Pair, eps, weight_decay=None):
    return radam(lr, *betas, eps, eps_before_correction=True, weight_decay=weight_decay)


@_recipe(torch.optim.Adamax)
def _adamax(lr, betas: Pair, eps, weight_decay=None):
    return adamax(lr, *betas, eps, weight_decay=weight_decay)


@_recipe(torch.optim.Adadelta)
def _adadelta(lr, rho, eps, weight_decay):
    return adadelta(lr, rho, eps, weight_decay=weight_decay)


@_recipe(torch.optim.Adagrad)
def _adagrad(lr, initial_accumulator_value, eps, lr_decay=None, weight_decay=None):
    return adagrad(
        lr, initial_accumulator_value, eps=eps, eps_in_sqrt=False, lr_decay=lr_decay, weight_decay=weight_decay
    )


@_recipe(torch.optim.RMSprop)
def _rmsprop(lr, alpha, eps, centered, momentum=None, weight_decay=None):
    return rmsprop(
        lr,
        decay=alpha,
        eps=eps,
        eps_in_sqrt=False,
        centered=centered,
        momentum=momentum,
        momentum_after_lr=False,
        weight_decay=weight_decay,
    )


@_recipe(torch.optim.Rprop)
def _rprop(lr, etas: Pair, step_sizes: Pair):
    return rprop(lr, *etas, *step_sizes)


@_recipe(torch.optim.ASGD)
def _asgd(lr, lambd, alpha, t0, weight_decay=None):
    return asgd(lr, lambd, alpha, t0, weight_decay=weight_decay)


@_recipe(torch.optim.Adafactor)
def _adafactor(lr, beta2_decay, eps, d, weight_decay):
    return adafactor(
        lr,
        min_dim_size_to_factor=1,
        decay_rate=-beta2_decay,
        clipping_threshold=d,
        weight_decay_rate=weight_decay,
        eps=eps[0],
        factored="last",
        eps_is_floor=True,
        min_scale=eps[1],
        relative_step=True,
    )


@_recipe(torch.optim.Muon, adjust_lr_fn="match_rms_adamw")
def _muon_of_one_rms(lr, weight_decay, momentum, nesterov, ns_coefficients, eps, ns_steps):
    return muon(
        lr,
        ns_coefficients,
        ns_steps,
        beta=momentum,
        eps=eps,
        weight_decay=weight_decay,
        nesterov=nesterov,
        consistent_rms=0.2,
        bias_correction=False,
        eps_is_floor=True,
        ns_dtype=torch.bfloat16,
    ).transforms["muon"]


@_recipe(torch.optim.Muon)
def _muon(lr, weight_decay, momentum, nesterov, ns_coefficients, eps, ns_steps):
    return muon(
        lr,
        ns_coefficients,
        ns_steps,
        beta=momentum,
        eps=eps,
        weight_decay=weight_decay,
        nesterov=nesterov,
        bias_correction=False,
        eps_is_floor=True,
        ns_dtype=torch.bfloat16,
    ).transforms["muon"]
