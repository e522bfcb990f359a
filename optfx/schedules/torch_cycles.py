"""The schedulers of `torch.optim.lr_scheduler` that turn, as pure functions of the count: cosines and cycles.

Names, arguments and values are torch's, with the base rate first. `t` is the count, the steps taken before this one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from optfx.schedules.curves import CURVES, cosine
from optfx.schedules.fields import Number, need, need_one_of, numbers
from optfx.tree import record


@record
class cosine_annealing_lr:
    r"""Down a cosine wave and up again, without end.

    $$ \eta_{min} + \tfrac12 (\eta_0 - \eta_{min}) \left(1 + \cos(\pi t / T)\right) $$

    Args:
        base_lr: the rate at count 0, and at every even multiple of `T_max`.
        T_max: half the period, $T$, in steps: there the rate is lowest, and rises again afterwards.
        eta_min: the lowest rate.

    torch computes each rate from the one before, and drifts by rounding: by 1e-15 of `base_lr` in a few hundred steps,
    by 1e-12 in ten thousand, by 1e-9 in some hundred thousand. For a rate that stays low see `cosine_decay_schedule`.

    Raises:
        ValueError: a Python number `T_max` that is not positive.

    Reference: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983;
    `torch.optim.lr_scheduler.CosineAnnealingLR`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> torch.func.vmap(schedules.cosine_annealing_lr(1.0, T_max=2))(torch.arange(5))
        tensor([1.0000, 0.5000, 0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """

    base_lr: Number
    T_max: Number
    eta_min: Number = 0.0

    def __post_init__(self) -> None:
        need(self, "T_max", 0, above=True)

    def __call__(self, count: Tensor | int) -> Tensor:
        t, base, half, low = numbers(count, self.base_lr, self.T_max, self.eta_min)
        return cosine(base, low, t / half)


def since_restart(t: Tensor, first: Tensor, mult: Tensor) -> tuple[Tensor, Tensor]:
    """The steps since the last restart and the length of this cycle; cycle n has `first * mult**n` steps."""
    same = mult == 1
    growth = torch.where(same, 2.0, mult)

    def begin(n: Tensor) -> Tensor:
        # A geometric sum; where the ratio is one, its expansion, so that the derivative is right too.
        return first * torch.where(same, n + n * (n - 1) / 2 * (mult - 1), (growth**n - 1) / (growth - 1))

    n = torch.floor(torch.where(same, t / first, torch.log1p(t / first * (growth - 1)) / torch.log(growth)))
    # The logarithm and the power may miss a whole number by a rounding: a restart is never to come a step late.
    late = t * (1 + 8 * torch.finfo(t.dtype).eps)
    n = torch.where(begin(n + 1) <= late, n + 1, torch.where(begin(n) > late, n - 1, n))
    return (t - begin(n)).clamp(min=0), first * mult**n


@record
class cosine_annealing_warm_restarts:
    r"""Down half a cosine wave, again and again, each time longer.

    With $t_n$ steps since the last restart in a cycle of $T_n = T_0 \, m^n$ steps:
    $$ \eta_{min} + \tfrac12 (\eta_0 - \eta_{min}) \left(1 + \cos(\pi t_n / T_n)\right) $$

    Args:
        base_lr: the rate at count 0 and at every restart.
        T_0: length of the first cycle, in steps.
        T_mult: how much longer each cycle is than the one before, $m$.
        eta_min: the lowest rate.

    Raises:
        ValueError: a Python number `T_0` that is not positive, or `T_mult` below 1.

    Reference: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983;
    `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> torch.func.vmap(schedules.cosine_annealing_warm_restarts(1.0, T_0=2, T_mult=2))(torch.arange(7))
        tensor([1.0000, 0.5000, 1.0000, 0.8536, 0.5000, 0.1464, 1.0000], dtype=torch.float64)
    """

    base_lr: Number
    T_0: Number
    T_mult: Number = 1
    eta_min: Number = 0.0

    def __post_init__(self) -> None:
        need(self, "T_0", 0, above=True)
        need(self, "T_mult", 1)

    def __call__(self, count: Tensor | int) -> Tensor:
        t, base, first, mult, low = numbers(count, self.base_lr, self.T_0, self.T_mult, self.eta_min)
        since, length = since_restart(t, first, mult)
        return cosine(base, low, since / length)


def one_cycle(
    t: Tensor, levels: Sequence[Tensor], total: Tensor, start: Tensor, strategy: str, three_phase: bool
) -> Tensor:
    """From level to level; a phase ends where torch's class has it end, and the last level is held."""
    ends = [start * total - 1, 2 * start * total - 2, total - 1] if three_phase else [start * total - 1, total - 1]
    begins = [torch.zeros_like(t), *ends[:-1]]
    t = torch.minimum(t, total - 1)
    value = t
    for i in reversed(range(len(ends))):
        length = ends[i] - begins[i]
        done = (t - begins[i]) / torch.where(length != 0, length, 1.0)
        phase = CURVES[strategy](levels[i], levels[i + 1], done)
        value = phase if i == len(ends) - 1 else torch.where(t <= ends[i], phase, value)
    return value


def _check_one_cycle(schedule: one_cycle_lr | one_cycle_momentum) -> None:
    need(schedule, "total_steps", 0, above=True)
    need(schedule, "pct_start", 0, 1)
    need_one_of(schedule, "anneal_strategy", "cos", "linear")


@record
class one_cycle_lr:
    r"""Up to the largest rate, then far down: the rate of the one-cycle policy.

    From $\eta_{max} / d$ at count 0 to $\eta_{max}$ at $p T - 1$ to $\eta_{max} / (d f)$ at $T - 1$, where it stays;
    in three phases also $\eta_{max} / d$ at $2 p T - 2$.

    Args:
        max_lr: the largest rate.
        total_steps: the length $T$, in steps (torch's `epochs * steps_per_epoch`).
        pct_start: the fraction $p$ of the steps on the way up.
        anneal_strategy: `"cos"` or `"linear"`.
        div_factor: largest over first rate, $d$.
        final_div_factor: first over last rate, $f$.
        three_phase: whether the rate comes down to the first one symmetrically, and goes on from there.

    After `total_steps - 1` the last rate is held; torch goes one step beyond its end, and then raises.

    Raises:
        ValueError: a Python number of steps that is not positive, a fraction outside [0, 1], another strategy.

    Reference: Smith and Topin, https://arxiv.org/abs/1708.07120; `torch.optim.lr_scheduler.OneCycleLR`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> schedule = schedules.one_cycle_lr(1.0, total_steps=10, anneal_strategy="linear")
        >>> torch.func.vmap(schedule)(torch.tensor([0, 1, 2, 9]))
        tensor([4.0000e-02, 5.2000e-01, 1.0000e+00, 4.0000e-06], dtype=torch.float64)
    """

    max_lr: Number
    total_steps: Number
    pct_start: Number = 0.3
    anneal_strategy: str = "cos"
    div_factor: Number = 25.0
    final_div_factor: Number = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        _check_one_cycle(self)

    def __call__(self, count: Tensor | int) -> Tensor:
        t, peak, total, start, div, final = numbers(
            count, self.max_lr, self.total_steps, self.pct_start, self.div_factor, self.final_div_factor
        )
        first = peak / div
        levels = [first, peak, first, first / final] if self.three_phase else [first, peak, first / final]
        return one_cycle(t, levels, total, start, self.anneal_strategy, self.three_phase)


@record
class one_cycle_momentum:
    """Down to the smallest momentum, then up again: the momentum of the one-cycle policy.

    Args:
        total_steps: the length, in steps.
        pct_start: the fraction of the steps on the way down.
        anneal_strategy: `"cos"` or `"linear"`.
        base_momentum: the smallest momentum, where the rate is largest.
        max_momentum: the largest momentum, at both ends.
        three_phase: whether the momentum comes up symmetrically, and stays there.

    Raises:
        ValueError: a Python number of steps that is not positive, a fraction outside [0, 1], another strategy.

    Reference: Smith and Topin, https://arxiv.org/abs/1708.07120; `torch.optim.lr_scheduler.OneCycleLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.one_cycle_momentum(total_steps=10)(2)
        tensor(0.8500, dtype=torch.float64)
    """

    total_steps: Number
    pct_start: Number = 0.3
    anneal_strategy: str = "cos"
    base_momentum: Number = 0.85
    max_momentum: Number = 0.95
    three_phase: bool = False

    def __post_init__(self) -> None:
        _check_one_cycle(self)

    def __call__(self, count: Tensor | int) -> Tensor:
        t, total, start, low, high = numbers(
            count, self.total_steps, self.pct_start, self.base_momentum, self.max_momentum
        )
        levels = [high, low, high, high] if self.three_phase else [high, low, high]
        return one_cycle(t, levels, total, start, self.anneal_strategy, self.three_phase)
