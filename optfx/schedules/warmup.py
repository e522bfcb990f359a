"""Up first: linear warmup followed by a constant, a cosine or an exponential, and cosines with restarts, as optax."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optfx.schedules.curves import linear, progress
from optfx.schedules.decay import cosine_decay, exponential
from optfx.schedules.fields import Number, need, numbers
from optfx.schedules.joined import join_schedules
from optfx.tree import record


@record
class warmup_constant_schedule:
    """Up a straight line, then constant.

    Args:
        init_value: the value at count 0.
        peak_value: the value from `warmup_steps` on.
        warmup_steps: length of the way up, in steps; not positive: `init_value` for ever.

    Reference: optax, `warmup_constant_schedule`.

    Example:
        >>> from optfx import schedules
        >>> schedules.warmup_constant_schedule(0.0, 1.0, warmup_steps=10)(5)
        tensor(0.5000, dtype=torch.float64)
    """

    init_value: Number
    peak_value: Number
    warmup_steps: Number

    def __call__(self, count: Tensor | int) -> Tensor:
        t, init, peak, warmup = numbers(count, self.init_value, self.peak_value, self.warmup_steps)
        return linear(init, peak, progress(t, warmup))


@record
class warmup_cosine_decay_schedule:
    r"""Up a straight line, down half a cosine wave, then constant.

    With the initial value $I$, the peak $P$, the end $E$, $W$ warmup steps and $D$ steps in all:
    $$ I + (P - I) \frac{t}{W} \;\text{ for } t < W, \qquad
       E + (P - E) \left[\tfrac12 \left(1 + \cos \pi \frac{\min(t, D) - W}{D - W}\right)\right]^p $$

    Args:
        init_value: the value at count 0.
        peak_value: the value at `warmup_steps`.
        warmup_steps: length of the way up, in steps.
        decay_steps: length of the whole schedule, warmup included, in steps; more than `warmup_steps`.
        end_value: the value from `decay_steps` on.
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
        if not isinstance(self.warmup_steps, Tensor):
            need(self, "decay_steps", self.warmup_steps, above=True)

    def __call__(self, count: Tensor | int) -> Tensor:
        t, init, peak, warmup, steps, end, exponent = numbers(
            count, self.init_value, self.peak_value, self.warmup_steps, self.decay_steps, self.end_value, self.exponent
        )
        some = peak != 0
        alpha = torch.where(some, end / torch.where(some, peak, 1.0), 0.0)
        up = linear(init, peak, progress(t, warmup))
        down = cosine_decay((t - warmup).clamp(min=0), peak, steps - warmup, alpha, exponent)
        return torch.where(t < warmup, up, down)


@record
class warmup_exponential_decay_schedule:
    """Up a straight line, then an exponential decay.

    Args:
        init_value: the value at count 0.
        peak_value: the value at `warmup_steps`.
        warmup_steps: length of the way up, in steps.
        transition_steps: the steps in which the value is then multiplied by `decay_rate` once; not positive: no decay.
        decay_rate: the factor; zero: no decay.
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

    def __call__(self, count: Tensor | int) -> Tensor:
        t, init, peak, warmup, steps, rate, begin = numbers(
            count,
            self.init_value,
            self.peak_value,
            self.warmup_steps,
            self.transition_steps,
            self.decay_rate,
            self.transition_begin,
        )
        end = None if self.end_value is None else numbers(t, self.end_value)[1]
        up = linear(init, peak, progress(t, warmup))
        down = exponential((t - warmup).clamp(min=0), peak, steps, rate, begin, self.staircase, end)
        return torch.where(t < warmup, up, down)


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> join_schedules:
    """Warm restarts: one `warmup_cosine_decay_schedule` after another.

    Args:
        cosine_kwargs: the arguments of each cycle; `decay_steps` says how long it lasts.

    Returns:
        `join_schedules` of the cycles.

    Reference: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983; optax, `sgdr_schedule`.

    Example:
        >>> from optfx import schedules
        >>> cycle = dict(init_value=0.0, peak_value=1.0, warmup_steps=0, decay_steps=10)
        >>> schedules.sgdr_schedule([cycle, cycle | {"peak_value": 0.5}])(15)
        tensor(0.2500, dtype=torch.float64)
    """
    cycles = [warmup_cosine_decay_schedule(**kwargs) for kwargs in cosine_kwargs]
    boundaries: list[Number] = []
    for cycle in cycles[:-1]:
        boundaries.append(cycle.decay_steps + (boundaries[-1] if boundaries else 0))
    return join_schedules(cycles, boundaries)
