"""Periodic schedules: cosines, with or without restarts, and the cycles of `torch.optim.lr_scheduler.CyclicLR`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optfx.hints import hinted
from optfx.schedules.closed_form import ClosedForm
from optfx.schedules.curves import cosine, linear
from optfx.schedules.numbers import Number, as_scalar
from optfx.tree import record


@record
class cosine_annealing_lr(ClosedForm):
    r"""Down a cosine wave and up again, forever.

    $$ \eta_{min} + \tfrac12 (\eta_0 - \eta_{min}) \left(1 + \cos(\pi t / T)\right) $$

    Args:
        base_lr: the rate at count 0, and at every even multiple of `T_max`.
        T_max: half the period, $T$, in steps. The rate is lowest there, and rises again afterwards.
        eta_min: the lowest rate. For a rate that stays at the lowest, see `cosine_decay_schedule`.

    torch computes each rate from the one before, and drifts by rounding: by 1e-15 of `base_lr` in a few hundred steps,
    1e-12 in ten thousand, 1e-9 in some hundred thousand.

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
        super().__post_init__()
        self.need("T_max", ">", 0)

    def formula(self, t, base_lr, T_max, eta_min):
        return cosine(base_lr, eta_min, t / T_max)


def since_restart(t: Tensor, first: Tensor, mult: Tensor) -> tuple[Tensor, Tensor]:
    """The steps since the last restart, and the length of this cycle. Cycle n has `first * mult**n` steps."""
    same = mult == 1
    growth = torch.where(same, 2.0, mult)

    def begin(n: Tensor) -> Tensor:
        # A geometric sum; if the ratio is one, its expansion, so that the derivative is right too.
        return first * torch.where(same, n + n * (n - 1) / 2 * (mult - 1), (growth**n - 1) / (growth - 1))

    n = torch.floor(torch.where(same, t / first, torch.log1p(t / first * (growth - 1)) / torch.log(growth)))
    # The logarithm and the power may miss an integer by rounding: a restart must never come a step late.
    late = t * (1 + 8 * torch.finfo(t.dtype).eps)
    n = torch.where(begin(n + 1) <= late, n + 1, torch.where(begin(n) > late, n - 1, n))
    return (t - begin(n)).clamp(min=0), first * mult**n


@record
class cosine_annealing_warm_restarts(ClosedForm):
    r"""Down half a cosine wave, again and again, each time longer.

    With $t_n$ steps since the last restart in a cycle of $T_n = T_0 \, m^n$ steps:
    $$ \eta_{min} + \tfrac12 (\eta_0 - \eta_{min}) \left(1 + \cos(\pi t_n / T_n)\right) $$

    Args:
        base_lr: the rate at count 0 and at every restart.
        T_0: length of the first cycle, in steps.
        T_mult: the factor by which each cycle is longer than the one before, $m$.
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
        super().__post_init__()
        self.need("T_0", ">", 0)
        self.need("T_mult", ">=", 1)

    def formula(self, t, base_lr, T_0, T_mult, eta_min):
        since, length = since_restart(t, T_0, T_mult)
        return cosine(base_lr, eta_min, since / length)


@record
class cyclic_lr(ClosedForm):
    r"""Up and down between two rates, on straight lines.

    $$ \eta_0 + (\eta_{max} - \eta_0) \, h(t) \, s(t) $$

    A cycle rises for $u$ steps and falls for $d$. $c = 1 + \lfloor t / (u + d) \rfloor$ is the number of the cycle, and
    $h$ in [0, 1] the height within it.

    Args:
        base_lr: the smallest rate, at count 0.
        max_lr: the largest rate, where $s = 1$.
        step_size_up: steps on the way up, $u$.
        step_size_down: steps on the way down, $d$; None for as many as on the way up.
        mode: `"triangular"` ($s = 1$), `"triangular2"` ($s = 2^{1 - c}$) or `"exp_range"` ($s = \gamma^t$).
        gamma: the $\gamma$ of `"exp_range"`.
        scale_fn: $s$ itself, instead of a mode: a function of a () float64 tensor, in tensor operations.
        scale_mode: what `scale_fn` gets: `"cycle"`, the number of the cycle, from 1; or `"iterations"`, the count.

    Raises:
        ValueError: a Python number of steps up that is not positive, or of steps down that is negative; another mode
            without a `scale_fn`; another `scale_mode`.

    Reference: Smith, https://arxiv.org/abs/1506.01186; `torch.optim.lr_scheduler.CyclicLR`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> schedule = schedules.cyclic_lr(0.0, 1.0, step_size_up=2, mode="triangular2")
        >>> torch.func.vmap(schedule)(torch.arange(8))
        tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000, 0.2500, 0.5000, 0.2500], dtype=torch.float64)
    """

    base_lr: Number
    max_lr: Number
    step_size_up: Number = 2000
    step_size_down: Number | None = None
    mode: str = "triangular"
    gamma: Number = 1.0
    scale_fn: Callable[[Tensor], Any] | None = None
    scale_mode: str = "cycle"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need("step_size_up", ">", 0)
        self.need("step_size_down", ">=", 0)
        if self.scale_fn is None:
            self.need("mode", "one of", ("triangular", "triangular2", "exp_range"))
        self.need("scale_mode", "one of", ("cycle", "iterations"))

    def formula(self, t, base_lr, max_lr, step_size_up, step_size_down, gamma):
        up, down = step_size_up, step_size_up if step_size_down is None else step_size_down
        turns = torch.floor(t / (up + down))
        since = t - turns * (up + down)
        rising, falling = since / torch.where(up > 0, up, 1.0), (up + down - since) / torch.where(down > 0, down, 1.0)
        height = torch.where(since < up, rising, falling)
        if self.scale_fn is not None:
            height = height * as_scalar(self.scale_fn(1 + turns if self.scale_mode == "cycle" else t), t)
        elif self.mode == "triangular2":
            height = height * torch.exp2(-turns)
        elif self.mode == "exp_range":
            height = height * gamma**t
        return linear(base_lr, max_lr, height)


@hinted
def cyclic_momentum(
    base_momentum: Number = 0.8,
    max_momentum: Number = 0.9,
    step_size_up: Number = 2000,
    step_size_down: Number | None = None,
    mode: str = "triangular",
    gamma: Number = 1.0,
    scale_fn: Callable[[Tensor], Any] | None = None,
    scale_mode: str = "cycle",
) -> cyclic_lr:
    """Down and up between two momenta: the `cyclic_lr` that starts from the largest one.

    Args:
        base_momentum: the smallest momentum, where the rate is largest.
        max_momentum: the largest momentum, at count 0.
        step_size_up: steps on the way down (up for the rate).
        step_size_down: steps on the way back; None for as many.
        mode: as in `cyclic_lr`, as are `gamma`, `scale_fn` and `scale_mode`.

    Raises:
        ValueError: as `cyclic_lr`.

    Reference: Smith, https://arxiv.org/abs/1506.01186; `torch.optim.lr_scheduler.CyclicLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.cyclic_momentum(step_size_up=10)(5)
        tensor(0.8500, dtype=torch.float64)
    """
    return cyclic_lr(max_momentum, base_momentum, step_size_up, step_size_down, mode, gamma, scale_fn, scale_mode)
