"""The schedulers of `torch.optim.lr_scheduler` that go one way, as pure functions of the count.

Names, arguments and values are torch's, with the base rate first. torch computes most rates from the rate of the step
before, so that rounding adds up (in 100 000 steps to 1e-14 of an exponential, 1e-12 of a line); here each value is
torch's closed form, from the count alone.
`t` is the count, the steps taken before this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from optfx.schedules.curves import linear, power, progress
from optfx.schedules.fields import Number, alike, need, numbers
from optfx.tree import record


@record
class step_lr:
    r"""Multiply the rate by a factor every so many steps.

    $$ \eta_0 \, \gamma^{\lfloor t / S \rfloor} $$

    Args:
        base_lr: the rate at count 0.
        step_size: steps between two changes, $S$.
        gamma: the factor.

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
        need(self, "step_size", 0, above=True)

    def __call__(self, count: Tensor | int) -> Tensor:
        t, base, size, gamma = numbers(count, self.base_lr, self.step_size, self.gamma)
        return base * gamma ** torch.floor(t / size)


@record
class multi_step_lr:
    r"""Multiply the rate by a factor at each milestone.

    With milestones $m_i$: $$ \eta_0 \, \gamma^{\#\{i:\, m_i \le t\}} $$

    Args:
        base_lr: the rate before the first milestone.
        milestones: counts, in any order; one that is given twice counts twice. Python numbers or () tensors (where one
            is, all become tensors).
        gamma: the factor.

    Reference: `torch.optim.lr_scheduler.MultiStepLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.multi_step_lr(1.0, milestones=[30, 80], gamma=0.5)(80)
        tensor(0.2500, dtype=torch.float64)
    """

    base_lr: Number
    milestones: Sequence[Number]
    gamma: Number = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", alike(self.milestones))

    def __call__(self, count: Tensor | int) -> Tensor:
        t, value, gamma, *milestones = numbers(count, self.base_lr, self.gamma, *self.milestones)
        for milestone in milestones:
            value = torch.where(t >= milestone, value * gamma, value)
        return value


@record
class constant_lr:
    r"""A fraction of the rate for some steps, then the rate.

    $$ \eta_0 f \;\text{ for } t < T, \qquad \eta_0 \;\text{ from } T \text{ on} $$

    Args:
        base_lr: the rate from `total_iters` on.
        factor: the fraction, $f$.
        total_iters: how many steps it lasts, $T$. With 0, torch itself keeps the fraction for ever.

    Raises:
        ValueError: a Python factor outside [0, 1].

    Reference: `torch.optim.lr_scheduler.ConstantLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.constant_lr(1.0, factor=0.5, total_iters=4)(3)
        tensor(0.5000, dtype=torch.float64)
    """

    base_lr: Number
    factor: Number = 1 / 3
    total_iters: Number = 5

    def __post_init__(self) -> None:
        need(self, "factor", 0, 1)

    def __call__(self, count: Tensor | int) -> Tensor:
        t, base, factor, total = numbers(count, self.base_lr, self.factor, self.total_iters)
        return torch.where(t < total, base * factor, base)


@record
class linear_lr:
    r"""From one fraction of the rate to another on a straight line.

    $$ \eta_0 \left(f_0 + (f_1 - f_0) \min(t, T) / T\right) $$

    Args:
        base_lr: the rate that the fractions are of.
        start_factor: the fraction at count 0, $f_0$.
        end_factor: the fraction from `total_iters` on, $f_1$.
        total_iters: how many steps it takes, $T$; not positive: `start_factor` for ever.

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
        need(self, "start_factor", 0, 1, above=True)
        need(self, "end_factor", 0, 1)

    def __call__(self, count: Tensor | int) -> Tensor:
        t, base, start, end, total = numbers(count, self.base_lr, self.start_factor, self.end_factor, self.total_iters)
        return base * linear(start, end, progress(t, total))


@record
class exponential_lr:
    r"""Multiply the rate by a factor at each step.

    $$ \eta_0 \, \gamma^t $$

    Args:
        base_lr: the rate at count 0.
        gamma: the factor.

    Reference: `torch.optim.lr_scheduler.ExponentialLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.exponential_lr(1.0, gamma=0.5)(3)
        tensor(0.1250, dtype=torch.float64)
    """

    base_lr: Number
    gamma: Number

    def __call__(self, count: Tensor | int) -> Tensor:
        t, base, gamma = numbers(count, self.base_lr, self.gamma)
        return base * gamma**t


@record
class polynomial_lr:
    r"""Down to zero along a polynomial.

    $$ \eta_0 \left(1 - \min(t, T) / T\right)^p $$

    Args:
        base_lr: the rate at count 0.
        total_iters: how many steps it takes, $T$; not positive: `base_lr` for ever.
        power: the power of the polynomial.

    Reference: `torch.optim.lr_scheduler.PolynomialLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.polynomial_lr(1.0, total_iters=4, power=2.0)(2)
        tensor(0.2500, dtype=torch.float64)
    """

    base_lr: Number
    total_iters: Number = 5
    power: Number = 1.0

    def __call__(self, count: Tensor | int) -> Tensor:
        t, base, total, exponent = numbers(count, self.base_lr, self.total_iters, self.power)
        return base * power(1 - progress(t, total), exponent)


@record
class lambda_lr:
    r"""The rate times a function of the count.

    $$ \eta_0 \, f(t) $$

    Args:
        base_lr: the rate that the function scales.
        lr_lambda: the function. It gets the count as a () float64 tensor, in which `0.95 ** count` and `count // 30`
            are exact; torch's class gives an int. In tensor operations (`torch.where`, not `if`) where it is to be
            compiled or vmapped, at module level where it is to be pickled. For any other function there is
            `from_torch_scheduler`.

    Reference: `torch.optim.lr_scheduler.LambdaLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.lambda_lr(2.0, lambda count: 0.5**count)(3)
        tensor(0.2500, dtype=torch.float64)
    """

    base_lr: Number
    lr_lambda: Callable[[Tensor], Any]

    def __call__(self, count: Tensor | int) -> Tensor:
        t, base = numbers(count, self.base_lr)
        return base * numbers(t, self.lr_lambda(t))[1]


@record
class inverse_time_decay:
    r"""Fall as one over the time: the factor that `lr_decay` of `torch.optim.Adagrad` puts on the rate.

    $$ \frac{1}{1 + r\, t} $$

    Args:
        decay_rate: $r$.

    Reference: `torch.optim.Adagrad`.

    Example:
        >>> from optfx import schedules
        >>> schedules.inverse_time_decay(0.5)(2)
        tensor(0.5000, dtype=torch.float64)
    """

    decay_rate: Number

    def __call__(self, count: Tensor | int) -> Tensor:
        t, rate = numbers(count, self.decay_rate)
        return 1 / (1 + rate * t)


@record
class relative_step:
    r"""The factor that brings a rate down to one over the root of the time, once it is above: the relative step size
    of Adafactor, which `torch.optim.Adafactor` puts on its rate.

    $$ \min\left(1, \frac{1}{\eta\, \sqrt{t + 1}}\right) $$

    Args:
        base_lr: the rate $\eta$: a number, or a schedule of its own.

    Reference: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
        <https://arxiv.org/abs/1804.04235>; `torch.optim.Adafactor`.

    Example:
        >>> from optfx import schedules
        >>> 0.5 * schedules.relative_step(0.5)(24)
        tensor(0.2000, dtype=torch.float64)
    """

    base_lr: Number | Callable[[Tensor], Any]

    def __call__(self, count: Tensor | int) -> Tensor:
        t, base = numbers(count, self.base_lr(count) if callable(self.base_lr) else self.base_lr)  # type: ignore[arg-type]
        return 1 / (base * (t + 1).sqrt()).clamp(min=1.0)
