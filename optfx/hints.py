"""Errors that know what goes by another name elsewhere: names by the table of `elsewhere`, arguments by `ARGUMENTS`,
methods of a fused optimizer by `METHODS`."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from optfx.elsewhere import NAMES

P = ParamSpec("P")
T = TypeVar("T")

ARGUMENTS: dict[str, tuple[str, ...] | str] = {
    "sync_period": ("every",),
    "slow_step_size": "that is the rate of the slow optimizer: `outer=optfx.sgd(slow_step_size)`",
    "fast_optimizer": ("inner",),
    "base_optimizer": ("inner",),
    "opt": ("inner",),
    "every_k_schedule": ("every",),
    "should_skip_update_fn": ("skip",),
    "should_transform_fn": ("predicate",),
    "every_k": ("every",),
    "adv_optimizer": "it is a step of length `rho` up the gradient",
    "opaque_mode": "without a `sync_period`, `update` takes the second gradient with `grad_fn`",
    "lr": ("learning_rate", "base_lr", "init_value", "step_size"),
    "rate": ("learning_rate", "base_lr"),
    "eta": ("learning_rate",),
    "learning_rate": ("base_lr", "init_value", "step_size"),
    "betas": ("b1 and b2",),
    "beta1": ("b1",),
    "beta2": ("b2",),
    "beta3": ("b3",),
    "nus": ("nu1 and nu2",),
    "a": ("angle_scale",),
    "b": ("root_scale",),
    "initial_accumulator": ("initial_accumulator_value",),
    "beta": ("decay", "b1"),
    "alpha": ("decay",),
    "momentum": ("decay", "beta", "b1"),
    "mu": ("momentum", "decay"),
    "rho": ("decay",),
    "epsilon": ("eps",),
    "eps": ("epsilon",),
    "eps1": ("eps",),
    "wd": ("weight_decay", "weight_decay_rate"),
    "decay": ("weight_decay", "rho"),
    "l2": ("weight_decay",),
    "lambda_": ("weight_decay", "lambd"),
    "weight_decay": ("weight_decay_rate", "adam_weight_decay"),
    "weight_decay_mask": ("mask",),
    "mask": ("weight_decay_mask",),
    "etas": ("eta_minus and eta_plus",),
    "step_sizes": ("min_step_size and max_step_size",),
    "clip_norm": ("max_norm",),
    "clip_value": ("max_delta",),
    "clip": ("max_norm", "max_delta", "clipping_threshold"),
    "d": ("clipping_threshold",),
    "beta2_decay": ("decay_rate",),
    "ns_coefficients": ("ns_coeffs",),
    "adjust_lr_fn": ("consistent_rms",),
    "schedule": ("step_size_fn", "learning_rate"),
    "max_lr": ("peak_value",),
    "eta_min": ("end_value", "alpha"),
    "T_max": ("decay_steps", "total_iters"),
    "total_steps": ("transition_steps", "decay_steps"),
    "num_warmup_steps": ("warmup_steps",),
    "num_training_steps": ("decay_steps", "transition_steps"),
    "dtype": ("mu_dtype", "accumulator_dtype"),
    "params": "parameters go to `init`: `state = tx.init(params)`",
    "named_parameters": "parameters go to `init`: `state = tx.init(params)`",
    "amsgrad": "that is the optimizer `optfx.amsgrad`",
    "decoupled_weight_decay": "that is the optimizer `optfx.adamw`",
    "centered": "that is `optfx.scale_by_stddev`",
    "maximize": "put `optfx.scale(-1.0)` first in a chain",
    "foreach": "there is no such option: `optfx.fuse` makes a step fast",
    "fused": "there is no such option: `optfx.fuse` makes a step fast",
    "capturable": "there is no such option: nothing here waits for the device",
    "differentiable": "there is no such option: every update has a derivative",
    "optimizer": "a schedule is a function of the count, and is given as the learning rate",
    "last_epoch": "a schedule is a function of the count, and has no state",
    "verbose": "there is no such option",
}
"""`{argument elsewhere: what it is called here, or what to do}`. Of several names, the first that a function has."""


METHODS: dict[str, str] = {
    "zero_grad": "`module.zero_grad()`",
    "param_groups": "`optfx.hyperparams(tx, state)` reads the numbers; `optfx.interop.TorchOptimizer` has groups",
    "state_dict": "the state is yours: `optfx.interop.state_dict(state)`, `optfx.interop.save(state, path)`",
    "load_state_dict": "`opt.init(params, state)` goes on from a state, which `optfx.interop.load` reads",
    "eval_params": "that of the transform: `tx.eval_params(state, params)`",
    "update": "`params, state = opt.step(grads, state, params)` does all of it; `tx.update` is the pure function",
}
"""`{method of an optimizer elsewhere: what to write with a fused one}`."""


def for_method(name: str, who: str) -> str:
    """The error about a method that an object of optfx does not have."""
    return f"{who!r} object has no attribute {name!r}" + (f"; {METHODS[name]}" if name in METHODS else "")


def for_name(name: str, known: Iterable[str], where: str = "optfx") -> str:
    """The error about a name that `optfx`, or a module of it, does not have."""
    for key in (name, name.removeprefix("tree_")):  # optax.tree_utils.tree_add is optax.tree.add
        if key in NAMES:
            return f"{where} has no {name!r}; {NAMES[key]}"
    near = difflib.get_close_matches(name, list(known), 3)
    return f"module {where!r} has no attribute {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else "")


def for_argument(name: str, known: Iterable[str]) -> str:
    """What is said about an argument that a function does not have."""
    known, hint = list(known), ARGUMENTS.get(name, ())
    if isinstance(hint, str):
        return hint
    here = [words for words in hint if set(words.split(" and ")) <= set(known)]
    here += difflib.get_close_matches(name, known, 1)
    return f"here it is {here[0]}" if here else f"it takes {', '.join(known)}"


def hinted(f: Callable[P, T]) -> Callable[P, T]:
    """`f`, with an error for an unknown argument that says what it is called here."""
    parameters = inspect.signature(f).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return f
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
    who = f.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(f)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{who}() got an unexpected keyword argument {name!r}: {for_argument(name, known)}")
        return f(*args, **kwargs)

    return checked
