"""From one value to another in a number of steps: constant, linear, along a polynomial, along a cosine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optfx.hints import hinted
from optfx.schedules.closed_form import ClosedForm
from optfx.schedules.curves import linear, progress, safe_power
from optfx.schedules.numbers import Number
from optfx.tree import record


def remaining(t: Tensor, begin: Tensor, steps: Tensor) -> Tensor:
    """The fraction of a transition that is still to come, from 1 down to 0."""
    return 1 - progress(t - begin.clamp(min=0), steps)


def cosine_decay(t: Tensor, init_value: Tensor, decay_steps: Tensor, alpha: Tensor, exponent: Tensor) -> Tensor:
    wave = (1 + torch.cos(math.pi * progress(t, decay_steps))) / 2
    return init_value * ((1 - alpha) * safe_power(wave, exponent) + alpha)


@record
class constant_schedule(ClosedForm):
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

    def formula(self, t, value):
        return value


@record
class linear_schedule(ClosedForm):
    r"""From one value to another along a straight line.

    $$ E + (I - E) \left(1 - \frac{\min(\max(t - B, 0), T)}{T}\right) $$

    Args:
        init_value: the value until `transition_begin`, $I$.
        end_value: the value after the transition, $E$.
        transition_steps: length of the transition, $T$, in steps; if not positive, the value stays `init_value`.
        transition_begin: the count at which it begins, $B$; a negative one counts as 0.

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

    def formula(self, t, init_value, end_value, transition_steps, transition_begin):
        return linear(end_value, init_value, remaining(t, transition_begin, transition_steps))


@record
class polynomial_schedule(ClosedForm):
    r"""From one value to another along a polynomial.

    $$ E + (I - E) \left(1 - \frac{\min(\max(t - B, 0), T)}{T}\right)^P $$

    Args:
        init_value: the value until `transition_begin`, $I$.
        end_value: the value after the transition, $E$.
        power: the power of the polynomial, $P$.
        transition_steps: length of the transition, $T$, in steps; if not positive, the value stays `init_value`.
        transition_begin: the count at which it begins, $B$; a negative one counts as 0.

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

    def formula(self, t, init_value, end_value, power, transition_steps, transition_begin):
        return linear(end_value, init_value, safe_power(remaining(t, transition_begin, transition_steps), power))


@record
class half_life_schedule(ClosedForm):
    r"""From one decay to another, so that the half-life grows along a straight line: the $\beta_3$ of AdEMAMix.

    $$ \exp\left(\frac{\ln I\, \ln E}{(1 - s) \ln E + s \ln I}\right), \qquad s = \frac{\min(t, T)}{T} $$

    A mean that keeps $\beta$ at each step has forgotten half after $\ln \tfrac12 / \ln \beta$ steps.

    Args:
        init_value: the decay at count 0, $I$, between 0 and 1.
        end_value: the decay from count $T$ on, $E$, between 0 and 1.
        transition_steps: length of the transition, $T$, in steps; if not positive, the value stays `init_value`.

    Raises:
        ValueError: a Python number that is not between 0 and 1.

    Reference: Pagliardini et al., "The AdEMAMix Optimizer: Better, Faster, Older", 2024,
        <https://arxiv.org/abs/2409.03137>.

    Example:
        >>> import math
        >>> from optfx import schedules
        >>> b3 = schedules.half_life_schedule(0.9, 0.9999, transition_steps=100)
        >>> [round(math.log(0.5) / math.log(b3(t)), 1) for t in (0, 50, 100)]
        [6.6, 3468.9, 6931.1]
    """

    init_value: Number
    end_value: Number
    transition_steps: Number

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("init_value", "end_value"):
            self.need(name, ">", 0)
            self.need(name, "<", 1)

    def formula(self, t, init_value, end_value, transition_steps):
        return linear(1 / init_value.log(), 1 / end_value.log(), progress(t, transition_steps)).reciprocal().exp()


@hinted
def polynomial_lr(base_lr: Number, total_iters: Number = 5, power: Number = 1.0) -> polynomial_schedule:
    r"""Down to zero along a polynomial: $\eta_0 \left(1 - \min(t, T) / T\right)^p$.

    Args:
        base_lr: the rate at count 0, $\eta_0$.
        total_iters: how many steps it takes, $T$; if not positive, the rate stays `base_lr`.
        power: the power of the polynomial, $p$.

    Reference: `torch.optim.lr_scheduler.PolynomialLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.polynomial_lr(1.0, total_iters=4, power=2.0)
        polynomial_schedule(init_value=1.0, end_value=0.0, power=2.0, transition_steps=4, transition_begin=0)
    """
    return polynomial_schedule(base_lr, 0.0, power, total_iters)


@record
class linear_lr(ClosedForm):
    r"""From one fraction of the rate to another along a straight line: $\eta_0 (f_0 + (f_1 - f_0) \min(t, T) / T)$.

    Args:
        base_lr: the rate, $\eta_0$.
        start_factor: the fraction at count 0, $f_0$.
        end_factor: the fraction from `total_iters` on, $f_1$.
        total_iters: how many steps it takes, $T$; if not positive, the fraction stays `start_factor`.

    Raises:
        ValueError: a Python start factor outside (0, 1], or end factor outside [0, 1].

    Reference: `torch.optim.lr_scheduler.LinearLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.linear_lr(1.0, start_factor=0.5, total_iters=4)(2)
        tensor(0.7500, dtype=torch.float64)
    """

    base_lr: Number
    start_factor: Number = 1 / 3
    end_factor: Number = 1.0
    total_iters: Number = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need("start_factor", ">", 0)
        self.need("start_factor", "<=", 1)
        self.need("end_factor", ">=", 0)
        self.need("end_factor", "<=", 1)

    def formula(self, t, base_lr, start_factor, end_factor, total_iters):
        return base_lr * linear(start_factor, end_factor, progress(t, total_iters))


@record
class cosine_decay_schedule(ClosedForm):
    r"""Down half a cosine wave, then constant.

    $$ I \left( (1 - \alpha) \left[\tfrac12 (1 + \cos(\pi \min(t, T) / T))\right]^p + \alpha \right) $$

    Args:
        init_value: the value at count 0, $I$.
        decay_steps: length of the decay, $T$, in steps; positive.
        alpha: the last value, as a fraction of `init_value`.
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
        super().__post_init__()
        self.need("decay_steps", ">", 0)

    def formula(self, t, **numbers):
        return cosine_decay(t, **numbers)
