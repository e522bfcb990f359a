"""From one value to another, once: constant, polynomial, linear, exponential and cosine schedules, as optax has them.

`t` is the count, () int64, the steps taken before this one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optfx.schedules.curves import power, progress
from optfx.schedules.fields import Number, need, numbers
from optfx.tree import record


def polynomial(t: Tensor, init: Tensor, end: Tensor, exponent: Tensor, steps: Tensor, begin: Tensor) -> Tensor:
    left = 1 - progress(t - begin.clamp(min=0), steps)
    return (init - end) * power(left, exponent) + end


def exponential(
    t: Tensor, init: Tensor, steps: Tensor, rate: Tensor, begin: Tensor, staircase: bool, end: Tensor | None
) -> Tensor:
    active = (steps > 0) & (rate != 0)
    rate = torch.where(active, rate, 1.0)
    p = (t - begin.clamp(min=0)).clamp(min=0) / torch.where(active, steps, 1.0)
    if staircase:
        p = torch.floor(p)
    if end is None:
        return init * rate**p
    # Growth stops far above any end: the derivative of an infinity that is then clipped would be nan.
    largest = math.log(torch.finfo(rate.dtype).max) / 2
    value = init * rate ** torch.minimum(p, largest / rate.detach().abs().log().abs())
    bounded = torch.where(rate < 1, torch.maximum(value, end), torch.minimum(value, end))
    return torch.where(active, bounded, init)


def cosine_decay(t: Tensor, init: Tensor, steps: Tensor, alpha: Tensor, exponent: Tensor) -> Tensor:
    left = (1 + torch.cos(math.pi * progress(t, steps))) / 2
    return init * ((1 - alpha) * power(left, exponent) + alpha)


@record
class constant_schedule:
    """The same value at every count.

    Args:
        value: the value.

    Reference: optax, `constant_schedule`.

    Example:
        >>> from optfx import schedules
        >>> schedules.constant_schedule(0.1)(7)
        tensor(0.1000, dtype=torch.float64)
    """

    value: Number

    def __call__(self, count: Tensor | int) -> Tensor:
        return numbers(count, self.value)[1]


@record
class polynomial_schedule:
    r"""From one value to another along a polynomial.

    With the initial value $I$, the end value $E$, the power $P$, $T$ transition steps from $B$ on:
    $$ E + (I - E) \left(1 - \frac{\min(\max(t - B, 0), T)}{T}\right)^P $$

    Args:
        init_value: the value until `transition_begin`.
        end_value: the value from `transition_begin + transition_steps` on.
        power: the power of the polynomial.
        transition_steps: length of the transition, in steps; not positive: `init_value` for ever.
        transition_begin: the count at which it begins; a negative one counts as 0.

    Reference: optax, `polynomial_schedule`.

    Example:
        >>> from optfx import schedules
        >>> schedules.polynomial_schedule(1.0, 0.0, power=2, transition_steps=10)(5)
        tensor(0.2500, dtype=torch.float64)
    """

    init_value: Number
    end_value: Number
    power: Number
    transition_steps: Number
    transition_begin: Number = 0

    def __call__(self, count: Tensor | int) -> Tensor:
        return polynomial(
            *numbers(count, self.init_value, self.end_value, self.power, self.transition_steps, self.transition_begin)
        )


@record
class linear_schedule:
    r"""From one value to another on a straight line.

    With the initial value $I$, the end value $E$, $T$ transition steps from $B$ on:
    $$ E + (I - E) \left(1 - \frac{\min(\max(t - B, 0), T)}{T}\right) $$

    Args:
        init_value: the value until `transition_begin`.
        end_value: the value from `transition_begin + transition_steps` on.
        transition_steps: length of the transition, in steps; not positive: `init_value` for ever.
        transition_begin: the count at which it begins; a negative one counts as 0.

    Reference: optax, `linear_schedule`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> torch.func.vmap(schedules.linear_schedule(0.0, 1.0, transition_steps=4))(torch.arange(6))
        tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000, 1.0000], dtype=torch.float64)
    """

    init_value: Number
    end_value: Number
    transition_steps: Number
    transition_begin: Number = 0

    def __call__(self, count: Tensor | int) -> Tensor:
        return polynomial(
            *numbers(count, self.init_value, self.end_value, 1.0, self.transition_steps, self.transition_begin)
        )


@record
class exponential_decay:
    r"""Multiply by a factor every so many steps, smoothly or in stairs.

    With the initial value $I$, the rate $r$, $T$ transition steps from $B$ on:
    $$ I \, r^{p}, \qquad p = \max(t - B, 0) / T \quad\text{(rounded down with `staircase`)} $$

    Args:
        init_value: the value until `transition_begin`.
        transition_steps: the steps in which the value is multiplied by `decay_rate` once; not positive: `init_value`
            for ever.
        decay_rate: the factor; zero: `init_value` for ever.
        transition_begin: the count at which the decay begins; a negative one counts as 0.
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

    def __call__(self, count: Tensor | int) -> Tensor:
        t, init, steps, rate, begin = numbers(
            count, self.init_value, self.transition_steps, self.decay_rate, self.transition_begin
        )
        end = None if self.end_value is None else numbers(t, self.end_value)[1]
        return exponential(t, init, steps, rate, begin, self.staircase, end)


@record
class cosine_decay_schedule:
    r"""Down half a cosine wave, then constant.

    With the initial value $I$ and $T$ decay steps:
    $$ I \left( (1 - \alpha) \left[\tfrac12 (1 + \cos(\pi \min(t, T) / T))\right]^p + \alpha \right) $$

    Args:
        init_value: the value at count 0.
        decay_steps: length of the decay, in steps; positive.
        alpha: what the value ends at, as a fraction of `init_value`.
        exponent: the power $p$ of the wave.

    Raises:
        ValueError: a Python number of decay steps that is not positive.

    Reference: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983; optax, `cosine_decay_schedule`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> peaks = schedules.cosine_decay_schedule(torch.tensor([0.1, 0.2]), decay_steps=100)
        >>> torch.func.vmap(lambda schedule: schedule(50))(peaks)
        tensor([0.0500, 0.1000], dtype=torch.float64)
    """

    init_value: Number
    decay_steps: Number
    alpha: Number = 0.0
    exponent: Number = 1.0

    def __post_init__(self) -> None:
        need(self, "decay_steps", 0, above=True)

    def __call__(self, count: Tensor | int) -> Tensor:
        return cosine_decay(*numbers(count, self.init_value, self.decay_steps, self.alpha, self.exponent))
