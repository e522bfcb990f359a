"""The table of what `torch.optim` calls things and how they are written here: one form for each optimizer.

A form makes the chain of a parameter group from torch's options. Read backwards, by making it of marks instead of
numbers and laying it beside a chain, it gives the options of the chain.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

import optfx
from optfx.core import GradientTransformation
from optfx.schedules import inverse_sqrt_limit
from optfx.tree import is_record

Options = dict[str, Any]


class Mark(float):
    """Stands for a number of an option while a form is read backwards."""

    name: str

    def __neg__(self) -> Mark:
        return mark(f"-{self.name}")


def mark(name: str) -> Mark:
    made = Mark("nan")
    made.name = name
    return made


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
    return optfx.sgd(o["lr"], moves, o["nesterov"], dampening=dampening, weight_decay=_some(o["weight_decay"]))


def _adam(o: Options) -> Any:
    (b1, b2), eps, lr = o["betas"], o["eps"], o["lr"]
    if o["decoupled_weight_decay"]:
        return _decoupled(optfx.scale_by_adam(b1, b2, eps) if not o["amsgrad"] else _amsgrad(b1, b2, eps), o)
    decay = _some(o["weight_decay"])
    if o["amsgrad"]:
        return optfx.amsgrad(lr, b1, b2, eps, bias_correction_nu="after_max", weight_decay=decay)
    return optfx.adam(lr, b1, b2, eps, weight_decay=decay)


def _amsgrad(b1: Any, b2: Any, eps: Any) -> Any:
    return optfx.scale_by_amsgrad(b1, b2, eps, bias_correction_nu="after_max")


def _decoupled(scaled: Any, o: Options) -> Any:
    decay = o["weight_decay"]
    return optfx.chain(scaled, optfx.add_decayed_weights(decay), optfx.scale_by_learning_rate(o["lr"]))


def _nadam(o: Options) -> Any:
    (b1, b2), decay = o["betas"], o["momentum_decay"]
    if o["decoupled_weight_decay"]:
        return _decoupled(optfx.scale_by_nadam(b1, b2, o["eps"], momentum_decay=decay), o)
    return optfx.nadam(o["lr"], b1, b2, o["eps"], momentum_decay=decay, weight_decay=_some(o["weight_decay"]))


def _radam(o: Options) -> Any:
    b1, b2 = o["betas"]
    if o["decoupled_weight_decay"]:
        return _decoupled(optfx.scale_by_radam(b1, b2, o["eps"], eps_before_correction=True), o)
    decay = _some(o["weight_decay"])
    return optfx.radam(o["lr"], b1, b2, o["eps"], eps_before_correction=True, weight_decay=decay)


def _adamax(o: Options) -> Any:
    b1, b2 = o["betas"]
    return optfx.adamax(o["lr"], b1, b2, o["eps"], weight_decay=_some(o["weight_decay"]))


def _adadelta(o: Options) -> Any:
    return optfx.adadelta(o["lr"], o["rho"], o["eps"], o["weight_decay"])


def _adagrad(o: Options) -> Any:
    return optfx.adagrad(
        o["lr"],
        o["initial_accumulator_value"],
        o["eps"],
        eps_in_sqrt=False,
        lr_decay=_some(o["lr_decay"]),
        weight_decay=_some(o["weight_decay"]),
    )


def _rmsprop(o: Options) -> Any:
    return optfx.rmsprop(
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
    return optfx.rprop(o["lr"], *o["etas"], *o["step_sizes"])


def _asgd(o: Options) -> Any:
    return optfx.asgd(o["lr"], o["lambd"], o["alpha"], o["t0"], weight_decay=_some(o["weight_decay"]))


def _adafactor(o: Options) -> Any:
    eps, scale = o["eps"]
    return optfx.chain(
        optfx.scale_by_adafactor(-o["beta2_decay"], eps),
        optfx.clip_by_block_rms(o["d"]),
        optfx.scale_by_param_block_rms(scale),
        optfx.scale_by_schedule(inverse_sqrt_limit(o["lr"])),
        optfx.add_decayed_weights(o["weight_decay"]),
        optfx.scale_by_learning_rate(o["lr"]),
    )


def _muon(o: Options) -> Any:
    size = "rms" if o["adjust_lr_fn"] == "match_rms_adamw" else "spectral"
    coefficients, steps, eps = o["ns_coefficients"], o["ns_steps"], o["eps"]
    return optfx.chain(
        optfx.ema(o["momentum"], debias=False, nesterov=o["nesterov"]),
        optfx.orthogonalize(coefficients, steps, eps, torch.bfloat16, size),
        optfx.add_decayed_weights(o["weight_decay"]),
        optfx.scale_by_learning_rate(o["lr"]),
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
            {"prev": "prev_updates", "step_size": "step_sizes"},
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
            {"momentum_buffer": "ema"},
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
        Form(torch.optim.ASGD, _asgd, {"ax": "average"}, ("lr", "lambd", "alpha", "t0"), DECAY),
    )
}


def make(form: Form, options: Options) -> GradientTransformation:
    """The chain of a group, which goes up the gradient where torch's `maximize` says so."""
    tx = form.chain(options)
    return optfx.chain(optfx.scale(-1.0), tx) if options.get("maximize") else tx


def read(tx: GradientTransformation) -> tuple[Form, Options] | None:
    """The optimizer of torch that a chain is, and its options; None where it is none."""
    for form in FORMS.values():
        for pattern in _patterns(form):
            try:
                chain = make(form, _gathered(pattern))
            except ValueError:  # options that do not go together
                continue
            found: Options = {}
            marks = {v.name for v in pattern.values() if isinstance(v, Mark)}
            if _fits(chain, tx, found):
                numbers = {k.removeprefix("-"): -v if k.startswith("-") else v for k, v in found.items()}
                if numbers.keys() == marks:
                    return form, _gathered(pattern | numbers)
    return None


def _patterns(form: Form) -> Iterator[Options]:
    """The options of each form that an optimizer has, with marks for its numbers; tuples in parts."""
    choices = form.choices
    if "maximize" in inspect.signature(form.optimizer).parameters:
        choices = choices | {"maximize": BOTH}
    for values in itertools.product(*choices.values()):
        options = {k: mark(k) if v is MARKED else v for k, v in zip(choices, values, strict=True)}
        yield options | {name: mark(name) for name in form.numbers}


def _gathered(options: Options) -> Options:
    """`{"a.0": x, "a.1": y}` as `{"a": (x, y)}`."""
    whole = {k: v for k, v in options.items() if "." not in k}
    for k in sorted(k for k in options if "." in k):
        name = k.partition(".")[0]
        whole[name] = (*whole.get(name, ()), options[k])
    return whole


def _fits(pattern: Any, x: Any, found: Options) -> bool:
    """Whether `x` is what the pattern is, with numbers where that has marks; they are put into `found`."""
    if isinstance(pattern, Mark):
        number = isinstance(x, (int, float, Tensor)) and not isinstance(x, bool)
        return number and _same(found.setdefault(pattern.name, x), x)
    if is_record(pattern):
        names = [field.name for field in dataclasses.fields(pattern)]
        return type(x) is type(pattern) and all(_fits(getattr(pattern, n), getattr(x, n), found) for n in names)
    if isinstance(pattern, (tuple, list)):
        return (
            type(x) is type(pattern)
            and len(x) == len(pattern)
            and all(_fits(p, y, found) for p, y in zip(pattern, x, strict=True))
        )
    return _same(pattern, x)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and bool((a == b).all())
    return isinstance(a, bool) == isinstance(b, bool) and a == b
