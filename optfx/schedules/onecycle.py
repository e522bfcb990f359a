"""One cycle, as in optax (`onecycle`) and as in torch (`one_cycle`): up, down, and further down.

optax turns at whole counts. torch turns one step before a fraction of the steps, and ends one step before their number.
Reference: Smith and Topin, https://arxiv.org/abs/1708.07120.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optfx.schedules.closed_form import ClosedForm
from optfx.schedules.curves import cosine, interpolate, linear
from optfx.schedules.numbers import Number
from optfx.tree import record


@record
class linear_onecycle_schedule(ClosedForm):
    r"""Up, down and further down on straight lines.

    $P / d$ at 0, $P$ at $\lfloor p_s T \rfloor$, $P / d$ at $\lfloor p_f T \rfloor$, and $P / (d f)$ from $T$ on. If
    two of these counts are equal, the value jumps there; optax loses one of the factors.

    Args:
        transition_steps: the length $T$, in steps; positive.
        peak_value: the largest value, $P$.
        pct_start: the fraction $p_s$ of the steps at which the peak is reached.
        pct_final: the fraction $p_f$ of the steps at which the first value is reached again, not before `pct_start`.
        div_factor: peak over first value, $d$.
        final_div_factor: first value over last value, $f$.

    Raises:
        ValueError: a Python number of steps that is not positive.

    Reference: optax, `linear_onecycle_schedule`.

    Example:
        >>> from optfx import schedules
        >>> schedules.linear_onecycle_schedule(100, 0.5)(30)
        tensor(0.5000, dtype=torch.float64)
    """

    transition_steps: Number
    peak_value: Number
    pct_start: Number = 0.3
    pct_final: Number = 0.85
    div_factor: Number = 25.0
    final_div_factor: Number = 1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need("transition_steps", ">", 0)

    def formula(self, t, transition_steps, peak_value, pct_start, pct_final, div_factor, final_div_factor):
        up, down = torch.floor(pct_start * transition_steps), torch.floor(pct_final * transition_steps)
        first = peak_value / div_factor
        last = first / final_div_factor
        boundaries = [torch.zeros_like(t), up, down, transition_steps]
        return torch.where(
            t >= transition_steps, last, interpolate(t, linear, boundaries, [first, peak_value, first, last])
        )


@record
class cosine_onecycle_schedule(ClosedForm):
    r"""Up and down again, each on half a cosine wave.

    $P / d$ at 0, $P$ at $\lfloor p_s T \rfloor$, and $P / (d f)$ from $T$ on. With `pct_start=1.0` the value drops from
    the peak at once; optax loses the way up then.

    Args:
        transition_steps: the length $T$, in steps; positive.
        peak_value: the largest value, $P$.
        pct_start: the fraction $p_s$ of the steps at which the peak is reached.
        div_factor: peak over first value, $d$.
        final_div_factor: first value over last value, $f$.

    Raises:
        ValueError: a Python number of steps that is not positive.

    Reference: optax, `cosine_onecycle_schedule`.

    Example:
        >>> from optfx import schedules
        >>> schedules.cosine_onecycle_schedule(100, 0.5)(30)
        tensor(0.5000, dtype=torch.float64)
    """

    transition_steps: Number
    peak_value: Number
    pct_start: Number = 0.3
    div_factor: Number = 25.0
    final_div_factor: Number = 1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need("transition_steps", ">", 0)

    def formula(self, t, transition_steps, peak_value, pct_start, div_factor, final_div_factor):
        up, end = torch.floor(pct_start * transition_steps), torch.floor(transition_steps)
        first = peak_value / div_factor
        last = first / final_div_factor
        value = interpolate(t, cosine, [torch.zeros_like(t), up, end], [first, peak_value, last])
        return torch.where(t >= end, last, value)


class OneCycle(ClosedForm):
    """What torch's rate and momentum share: from `first` to `turn` to `last`, in three phases by way of `first`."""

    anneal_strategy: str
    three_phase: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need("total_steps", ">", 0)
        self.need("pct_start", ">=", 0)
        self.need("pct_start", "<=", 1)
        self.need("anneal_strategy", "one of", ("cos", "linear"))

    def path(
        self, t: Tensor, first: Tensor, turn: Tensor, last: Tensor, total_steps: Tensor, pct_start: Tensor
    ) -> Tensor:
        curve = cosine if self.anneal_strategy == "cos" else linear
        begin, top, end = torch.zeros_like(t), pct_start * total_steps - 1, total_steps - 1
        back = [(2 * top, first)] if self.three_phase else []
        boundaries, values = zip((begin, first), (top, turn), *back, (end, last), strict=True)
        return interpolate(torch.minimum(t, end), curve, boundaries, values)


@record
class one_cycle_lr(OneCycle):
    r"""Up to the largest rate, then far down: the rate of the one-cycle policy.

    $\eta_{max} / d$ at count 0, $\eta_{max}$ at $p T - 1$, and $\eta_{max} / (d f)$ from $T - 1$ on (torch raises after
    $T$); in three phases also $\eta_{max} / d$ at $2 p T - 2$.

    Args:
        max_lr: the largest rate, $\eta_{max}$.
        total_steps: the length $T$, in steps (torch's `epochs * steps_per_epoch`).
        pct_start: the fraction $p$ of the steps on the way up.
        anneal_strategy: `"cos"` or `"linear"`.
        div_factor: the largest rate over the first, $d$.
        final_div_factor: the first rate over the last, $f$.
        three_phase: whether the rate first comes back to the first rate symmetrically, and then goes on down.

    Raises:
        ValueError: a Python number of steps that is not positive, a fraction outside [0, 1], another strategy.

    Reference: `torch.optim.lr_scheduler.OneCycleLR`.

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

    def formula(self, t, max_lr, div_factor, final_div_factor, **steps):
        first = max_lr / div_factor
        return self.path(t, first, max_lr, first / final_div_factor, **steps)


@record
class one_cycle_momentum(OneCycle):
    """Down to the smallest momentum, then up again: the momentum of the one-cycle policy.

    Args:
        total_steps: the length, in steps.
        pct_start: the fraction of the steps on the way down.
        anneal_strategy: `"cos"` or `"linear"`.
        base_momentum: the smallest momentum, where the rate is largest.
        max_momentum: the largest momentum, at both ends.
        three_phase: whether the momentum comes back up symmetrically, and then stays.

    Raises:
        ValueError: a Python number of steps that is not positive, a fraction outside [0, 1], another strategy.

    Reference: `torch.optim.lr_scheduler.OneCycleLR`.

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

    def formula(self, t, base_momentum, max_momentum, **steps):
        return self.path(t, max_momentum, base_momentum, max_momentum, **steps)
