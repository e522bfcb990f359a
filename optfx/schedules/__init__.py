"""Schedules: count -> value. They are records whose numbers, rates and lengths alike, may be tensors.

A schedule maps the count of steps taken, a () int64 tensor or a Python int, to a () float64 tensor. It does not branch
on values, so it runs in eager code, under `torch.compile`, `torch.func.vmap` (over counts, or over any of its numbers)
and `torch.func.grad`. Any function of the count is a schedule too; `optfx.schedules.closed_form.ClosedForm` is the base
class of schedules given by a formula and its numbers.

optax's schedules have optax's names. torch's schedulers are here as functions of the count alone, with torch's names in
lower case (`StepLR` is `step_lr`) and the base rate first. Some names are recipes that return another schedule:
`polynomial_lr` returns a `polynomial_schedule`, `sequential_lr` a `join_schedules`, `cyclic_momentum` a `cyclic_lr`.

All of them count updates; inside `per_epoch(schedule, batches)` they count epochs.
"""

from typing import Any

from optfx import hints
from optfx.schedules.cycles import (
    cosine_annealing_lr,
    cosine_annealing_warm_restarts,
    cyclic_lr,
    cyclic_momentum,
)
from optfx.schedules.decay import exponential_decay, exponential_lr, inverse_time_decay, relative_step, step_lr
from optfx.schedules.epochs import per_epoch
from optfx.schedules.given import from_torch_scheduler, function_schedule, lambda_lr, table_schedule
from optfx.schedules.joined import join_schedules, sequential_lr, sgdr_schedule
from optfx.schedules.onecycle import (
    cosine_onecycle_schedule,
    linear_onecycle_schedule,
    one_cycle_lr,
    one_cycle_momentum,
)
from optfx.schedules.piecewise import (
    constant_lr,
    multi_step_lr,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
)
from optfx.schedules.ramps import (
    constant_schedule,
    cosine_decay_schedule,
    half_life_schedule,
    linear_lr,
    linear_schedule,
    polynomial_lr,
    polynomial_schedule,
)
from optfx.schedules.warmup import (
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
)

__all__ = [
    "constant_lr",
    "constant_schedule",
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "cyclic_lr",
    "cyclic_momentum",
    "exponential_decay",
    "exponential_lr",
    "from_torch_scheduler",
    "function_schedule",
    "half_life_schedule",
    "inverse_time_decay",
    "join_schedules",
    "lambda_lr",
    "linear_lr",
    "linear_onecycle_schedule",
    "linear_schedule",
    "multi_step_lr",
    "one_cycle_lr",
    "one_cycle_momentum",
    "per_epoch",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_lr",
    "polynomial_schedule",
    "relative_step",
    "sequential_lr",
    "sgdr_schedule",
    "step_lr",
    "table_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]


def __getattr__(name: str) -> Any:
    raise AttributeError(hints.for_name(name, __all__, "optfx.schedules"))
