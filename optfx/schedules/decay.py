"""Decay without an end: by a factor every few steps, or like one over the time.

torch computes each rate from the one before, so rounding errors add up: to 1e-14 in 100 000 steps of an exponential.
Here each value depends on the count alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optfx.core import Schedule
from optfx.schedules.closed_form import ClosedForm
from optfx.schedules.numbers import Number
from optfx.tree import record


def exponential(
    t: Tensor,
    init_value: Tensor,
    transition_steps: Tensor,
    decay_rate: Tensor,
    transition_begin: Tensor,
    end_value: Tensor | None,
    staircase: bool,
) -> Tensor:
    active = (transition_steps > 0) & (decay_rate != 0)
    rate = torch.where(active, decay_rate, 1.0)
    p = (t - transition_begin.clamp(min=0)).clamp(min=0) / torch.where(active, transition_steps, 1.0)
    if staircase:
        p = torch.floor(p)
    if end_value is None:
        return init_value * rate**p
    # Stop growing far above any end: the derivative of an infinity that is then clipped would be NaN.
    largest = math.log(torch.finfo(rate.dtype).max) / 2
    value = init_value * rate ** torch.minimum(p, largest / rate.detach().abs().log().abs())
    bounded = torch.where(rate < 1, torch.maximum(value, end_value), torch.minimum(value, end_value))
    return torch.where(active, bounded, init_value)


@record
class exponential_decay(ClosedForm):
    r"""Multiply by a factor every `transition_steps`, smoothly or in stairs.

    $$ I \, r^{p}, \qquad p = \max(t - B, 0) / T \quad\text{(rounded down with `staircase`)} $$

    Args:
        init_value: the value until `transition_begin`, $I$.
        transition_steps: the number of steps $T$ in which the value is multiplied by `decay_rate` once; if not
            positive, the value stays `init_value`.
        decay_rate: the factor, $r$; if zero, the value stays `init_value`.
        transition_begin: the count at which the decay begins, $B$; a negative one counts as 0.
        staircase: whether the value changes only every `transition_steps`.
        end_value: where the decay stops: a lower bound when `decay_rate < 1`, else an upper bound.

    Reference: optax, `exponential_decay`.

    Example:
        >>> from optfx import schedules
        >>> schedules.exponential_decay(1.0, transition_steps=10, decay_rate=0.25)(5)
        tensor(0.5000, dtype=torch.float64)
    """

    init_value: Number
    transition_steps: Number
    decay_rate: Number
    transition_begin: Number = 0
    staircase: bool = False
    end_value: Number | None = None

    def formula(self, t, **numbers):
        return exponential(t, staircase=self.staircase, **numbers)


@record
class exponential_lr(ClosedForm):
    r"""Multiply the rate by a factor at each step: $\eta_0 \, \gamma^t$.

    Args:
        base_lr: the rate at count 0, $\eta_0$.
        gamma: the factor; unlike in `exponential_decay`, zero gives zero.

    Reference: `torch.optim.lr_scheduler.ExponentialLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.exponential_lr(1.0, gamma=0.5)(3)
        tensor(0.1250, dtype=torch.float64)
    """

    base_lr: Number
    gamma: Number

    def formula(self, t, base_lr, gamma):
        return base_lr * gamma**t


@record
class step_lr(ClosedForm):
    r"""Multiply the rate by a factor every `step_size` steps: $\eta_0 \, \gamma^{\lfloor t / S \rfloor}$.

    Args:
        base_lr: the rate at count 0, $\eta_0$.
        step_size: steps between changes, $S$.
        gamma: the factor; unlike in `exponential_decay`, zero gives zero.

    Raises:
        ValueError: a Python number of steps that is not positive.

    Reference: `torch.optim.lr_scheduler.StepLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.step_lr(1.0, step_size=10)(25)
        tensor(0.0100, dtype=torch.float64)
    """

    base_lr: Number
    step_size: Number
    gamma: Number = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need("step_size", ">", 0)

    def formula(self, t, base_lr, step_size, gamma):
        return base_lr * gamma ** torch.floor(t / step_size)


@record
class inverse_time_decay(ClosedForm):
    r"""The factor $1 / (1 + r\, t)$, by which `lr_decay` of `torch.optim.Adagrad` multiplies the rate.

    Args:
        decay_rate: $r$.

    Reference: `torch.optim.Adagrad`.

    Example:
        >>> from optfx import schedules
        >>> schedules.inverse_time_decay(0.5)(2)
        tensor(0.5000, dtype=torch.float64)
    """

    decay_rate: Number

    def formula(self, t, decay_rate):
        return 1 / (1 + decay_rate * t)


@record
class relative_step(ClosedForm):
    r"""The factor that keeps a rate below one over the square root of time: the relative step size of Adafactor.

    $$ \min\left(1, \frac{1}{\eta\, \sqrt{t + 1}}\right) $$

    Args:
        base_lr: the rate $\eta$ that is to be multiplied by the factor: a number, or a schedule.

    Reference: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
        <https://arxiv.org/abs/1804.04235>; `torch.optim.Adafactor`.

    Example:
        >>> from optfx import schedules
        >>> 0.5 * schedules.relative_step(0.5)(24)
        tensor(0.2000, dtype=torch.float64)
    """

    base_lr: Number | Schedule

    def formula(self, t, base_lr):
        return 1 / (base_lr * (t + 1).sqrt()).clamp(min=1.0)
