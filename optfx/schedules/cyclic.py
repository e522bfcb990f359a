r"""`torch.optim.lr_scheduler.CyclicLR` as pure functions of the count: the rate, and the momentum that mirrors it.

A cycle rises for $u$ steps and falls for $d$; $c = 1 + \lfloor t / (u + d) \rfloor$ is its number, $h$ in [0, 1] how
high it stands. The height is scaled by $s$: 1 (`"triangular"`), $2^{1 - c}$ (`"triangular2"`), $\gamma^t$
(`"exp_range"`), or a function of one's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optfx.schedules.fields import Number, need, need_one_of, numbers
from optfx.tree import record


def _height(schedule: cyclic_lr | cyclic_momentum, count: Tensor | int) -> Tensor:
    """Where in its cycle the schedule stands, scaled: () in [0, 1] for the three modes."""
    down = schedule.step_size_up if schedule.step_size_down is None else schedule.step_size_down
    t, up, down, gamma = numbers(count, schedule.step_size_up, down, schedule.gamma)
    turns = torch.floor(t / (up + down))
    place = t - turns * (up + down)
    rising, falling = place / torch.where(up > 0, up, 1.0), (up + down - place) / torch.where(down > 0, down, 1.0)
    height = torch.where(place < up, rising, falling)
    if schedule.scale_fn is not None:
        return height * numbers(t, schedule.scale_fn(1 + turns if schedule.scale_mode == "cycle" else t))[1]
    if schedule.mode == "triangular2":
        return height * torch.exp2(-turns)
    return height * gamma**t if schedule.mode == "exp_range" else height


def _check(schedule: cyclic_lr | cyclic_momentum) -> None:
    need(schedule, "step_size_up", 0, above=True)
    if schedule.step_size_down is not None:
        need(schedule, "step_size_down", 0)
    if schedule.scale_fn is None:
        need_one_of(schedule, "mode", "triangular", "triangular2", "exp_range")
    need_one_of(schedule, "scale_mode", "cycle", "iterations")


@record
class cyclic_lr:
    r"""Up and down between two rates, on straight lines.

    $$ \eta_0 + (\eta_{max} - \eta_0) \, h(t) \, s(t) $$

    Args:
        base_lr: the smallest rate, at count 0.
        max_lr: the largest rate, where $s = 1$.
        step_size_up: steps on the way up, $u$.
        step_size_down: steps on the way down, $d$; None: as many as on the way up.
        mode: `"triangular"` ($s = 1$), `"triangular2"` ($s = 2^{1 - c}$ in cycle $c = 1, 2, \dots$) or `"exp_range"`
            ($s = \gamma^t$).
        gamma: the $\gamma$ of `"exp_range"`.
        scale_fn: $s$ itself, instead of a mode: a function of a () float64 tensor, in tensor operations.
        scale_mode: what `scale_fn` gets: `"cycle"`, the number of the cycle, from 1; or `"iterations"`, the count.

    Raises:
        ValueError: Python lengths that are not positive; another mode without a `scale_fn`; another `scale_mode`.

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
        _check(self)

    def __call__(self, count: Tensor | int) -> Tensor:
        height = _height(self, count)
        _, base, high = numbers(height, self.base_lr, self.max_lr)
        return base + (high - base) * height


@record
class cyclic_momentum:
    r"""Down and up between two momenta, the mirror of `cyclic_lr`.

    $$ m_{max} - (m_{max} - m_0) \, h(t) \, s(t) $$

    Args:
        base_momentum: the smallest momentum, where the rate is largest.
        max_momentum: the largest momentum, at count 0.
        step_size_up: steps on the way down (up for the rate).
        step_size_down: steps on the way back; None: as many.
        mode: as in `cyclic_lr`.
        gamma: as in `cyclic_lr`.
        scale_fn: as in `cyclic_lr`.
        scale_mode: as in `cyclic_lr`.

    Raises:
        ValueError: Python lengths that are not positive; another mode without a `scale_fn`; another `scale_mode`.

    Reference: Smith, https://arxiv.org/abs/1506.01186; `torch.optim.lr_scheduler.CyclicLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.cyclic_momentum(step_size_up=10)(5)
        tensor(0.8500, dtype=torch.float64)
    """

    base_momentum: Number = 0.8
    max_momentum: Number = 0.9
    step_size_up: Number = 2000
    step_size_down: Number | None = None
    mode: str = "triangular"
    gamma: Number = 1.0
    scale_fn: Callable[[Tensor], Any] | None = None
    scale_mode: str = "cycle"

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, count: Tensor | int) -> Tensor:
        height = _height(self, count)
        _, low, high = numbers(height, self.base_momentum, self.max_momentum)
        return high - (high - low) * height
