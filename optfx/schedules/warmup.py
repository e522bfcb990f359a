"""Up a straight line first, then constant, down a cosine, or down an exponential."""

from __future__ import annotations

import torch
from torch import Tensor

from optfx.hints import hinted
from optfx.schedules.closed_form import ClosedForm
from optfx.schedules.curves import linear, progress
from optfx.schedules.decay import exponential
from optfx.schedules.numbers import Number
from optfx.schedules.ramps import cosine_decay, linear_schedule
from optfx.tree import record


def warmed_up(t: Tensor, init_value: Tensor, peak_value: Tensor, warmup_steps: Tensor, after: Tensor) -> Tensor:
    """The straight line until `warmup_steps`, then `after`."""
    return torch.where(t < warmup_steps, linear(init_value, peak_value, progress(t, warmup_steps)), after)


@hinted
def warmup_constant_schedule(init_value: Number, peak_value: Number, warmup_steps: Number) -> linear_schedule:
    """Up a straight line, then constant: a `linear_schedule`.

    Args:
        init_value: the value at count 0.
        peak_value: the value from `warmup_steps` on.
        warmup_steps: length of the way up, in steps; if not positive, the value stays `init_value`.

    Reference: optax, `warmup_constant_schedule`.

    Example:
        >>> from optfx import schedules
        >>> schedules.warmup_constant_schedule(0.0, 1.0, warmup_steps=10)(5)
        tensor(0.5000, dtype=torch.float64)
    """
    return linear_schedule(init_value, peak_value, warmup_steps)


@record
class warmup_cosine_decay_schedule(ClosedForm):
    r"""Up a straight line, down half a cosine wave, then constant.

    $$ I + (P - I) \frac{t}{W} \;\text{ for } t < W, \qquad
       E + (P - E) \left[\tfrac12 \left(1 + \cos \pi \frac{\min(t, D) - W}{D - W}\right)\right]^p $$

    Args:
        init_value: the value at count 0, $I$.
        peak_value: the value at `warmup_steps`, $P$.
        warmup_steps: length of the way up, $W$, in steps.
        decay_steps: length of the whole schedule, warmup included, $D$, in steps; more than `warmup_steps`.
        end_value: the value from `decay_steps` on, $E$.
        exponent: the power $p$ of the wave.

    Raises:
        ValueError: Python numbers of decay steps not above the warmup steps.

    Reference: optax, `warmup_cosine_decay_schedule`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> schedule = schedules.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=2, decay_steps=6)
        >>> torch.func.vmap(schedule)(torch.arange(7))
        tensor([0.0000, 0.5000, 1.0000, 0.8536, 0.5000, 0.1464, 0.0000], dtype=torch.float64)
    """

    init_value: Number
    peak_value: Number
    warmup_steps: Number
    decay_steps: Number
    end_value: Number = 0.0
    exponent: Number = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need("decay_steps", ">", self.warmup_steps)

    def formula(self, t, init_value, peak_value, warmup_steps, decay_steps, end_value, exponent):
        nonzero = peak_value != 0
        alpha = torch.where(nonzero, end_value / torch.where(nonzero, peak_value, 1.0), 0.0)
        after = cosine_decay((t - warmup_steps).clamp(min=0), peak_value, decay_steps - warmup_steps, alpha, exponent)
        return warmed_up(t, init_value, peak_value, warmup_steps, after)


@record
class warmup_exponential_decay_schedule(ClosedForm):
    """Up a straight line, then an exponential decay.

    Args:
        init_value: the value at count 0.
        peak_value: the value at `warmup_steps`.
        warmup_steps: length of the way up, in steps.
        transition_steps: the number of steps in which the value is then multiplied by `decay_rate` once; if not
            positive, there is no decay.
        decay_rate: the factor; if zero, there is no decay.
        transition_begin: how many steps after the warmup the decay begins.
        staircase: whether the value then changes only every `transition_steps`.
        end_value: where the decay stops: a lower bound when `decay_rate < 1`, else an upper bound.

    Reference: optax, `warmup_exponential_decay_schedule`.

    Example:
        >>> from optfx import schedules
        >>> schedules.warmup_exponential_decay_schedule(0.0, 1.0, 10, transition_steps=10, decay_rate=0.25)(15)
        tensor(0.5000, dtype=torch.float64)
    """

    init_value: Number
    peak_value: Number
    warmup_steps: Number
    transition_steps: Number
    decay_rate: Number
    transition_begin: Number = 0
    staircase: bool = False
    end_value: Number | None = None

    def formula(self, t, init_value, peak_value, warmup_steps, **decay):
        after = exponential((t - warmup_steps).clamp(min=0), peak_value, staircase=self.staircase, **decay)
        return warmed_up(t, init_value, peak_value, warmup_steps, after)
