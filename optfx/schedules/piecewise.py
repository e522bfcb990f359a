"""Piece by piece: jumps or curves between boundaries, and the one-cycle policy, as optax has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from optfx.schedules.curves import CURVES, progress
from optfx.schedules.fields import Number, alike, need, need_one_of, numbers
from optfx.tree import record


def interpolate(t: Tensor, curve: str, boundaries: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """`values[i]` at `boundaries[i]`, `curve` between them, the last value afterwards; the boundaries are in order."""
    value = values[0]
    for i in range(len(boundaries) - 1):
        done = progress(t - boundaries[i], boundaries[i + 1] - boundaries[i])
        value = torch.where(t >= boundaries[i], CURVES[curve](values[i], values[i + 1], done), value)
    return torch.where(t >= boundaries[-1], values[-1], value)


def _in_order(schedule: piecewise_constant_schedule | piecewise_interpolate_schedule) -> None:
    """Sort the boundaries, make the scales alike, and refuse negative ones."""
    pieces = schedule.boundaries_and_scales
    if pieces is None:
        return
    boundaries = sorted(pieces)
    for boundary in boundaries:
        scale = pieces[boundary]
        if not isinstance(scale, Tensor) and not scale >= 0:
            raise ValueError(f"{type(schedule).__name__}: the scale at {boundary} must be >= 0, got {scale}")
    scales = alike(pieces[boundary] for boundary in boundaries)
    object.__setattr__(schedule, "boundaries_and_scales", dict(zip(boundaries, scales, strict=True)))


@record
class piecewise_constant_schedule:
    r"""Constant between boundaries, multiplied by a factor at each.

    With the initial value $I$ and scales $s_i$ at boundaries $b_i$:
    $$ I \prod_{b_i \le t} s_i $$

    Args:
        init_value: the value before the first boundary.
        boundaries_and_scales: `{boundary: scale}`, counts and what the value is multiplied by from there on. The
            scales may be tensors (where one is, all become tensors); the boundaries are part of the structure. For
            boundaries that are tensors see `join_schedules` and `multi_step_lr`.

    Raises:
        ValueError: a Python scale that is negative.

    Reference: optax, `piecewise_constant_schedule`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> schedule = schedules.piecewise_constant_schedule(1.0, {2: 0.5, 4: 0.1})
        >>> torch.func.vmap(schedule)(torch.arange(5))
        tensor([1.0000, 1.0000, 0.5000, 0.5000, 0.0500], dtype=torch.float64)
    """

    init_value: Number
    boundaries_and_scales: dict[int, Number] | None = None

    def __post_init__(self) -> None:
        _in_order(self)

    def __call__(self, count: Tensor | int) -> Tensor:
        pieces = self.boundaries_and_scales or {}
        t, value, *scales = numbers(count, self.init_value, *pieces.values())
        for boundary, scale in zip(pieces, scales, strict=True):
            value = torch.where(t >= boundary, value * scale, value)
        return value


@record
class piecewise_interpolate_schedule:
    r"""From each boundary's value to the next on a line or on half a cosine wave.

    The value at boundary $b_i$ is $v_i = I s_1 \cdots s_i$, and $v_0 = I$ at $b_0 = 0$; between two boundaries
    $$ v_i + (v_{i+1} - v_i) f\!\left(\frac{t - b_i}{b_{i+1} - b_i}\right), \qquad
       f(x) = x \;\text{or}\; \tfrac12 (1 - \cos \pi x) $$

    Args:
        interpolate_type: `"linear"` or `"cosine"`.
        init_value: the value at count 0.
        boundaries_and_scales: `{boundary: scale}`; the scales may be tensors (where one is, all become tensors), the
            boundaries are part of the structure.

    Raises:
        ValueError: another type; a Python scale that is negative.

    Reference: optax, `piecewise_interpolate_schedule`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> schedule = schedules.piecewise_interpolate_schedule("linear", 1.0, {4: 0.5, 6: 0.0})
        >>> torch.func.vmap(schedule)(torch.tensor([0, 2, 4, 5, 6, 7]))
        tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000, 0.0000], dtype=torch.float64)
    """

    interpolate_type: str
    init_value: Number
    boundaries_and_scales: dict[int, Number] | None = None

    def __post_init__(self) -> None:
        need_one_of(self, "interpolate_type", "linear", "cosine")
        _in_order(self)

    def __call__(self, count: Tensor | int) -> Tensor:
        pieces = self.boundaries_and_scales or {}
        t, init, *scales = numbers(count, self.init_value, *pieces.values())
        boundaries = numbers(t, 0.0, *pieces)[1:]
        values = [init]
        for scale in scales:
            values.append(values[-1] * scale)
        return interpolate(t, self.interpolate_type, boundaries, values)


@record
class linear_onecycle_schedule:
    r"""Up, down and further down on straight lines.

    With the peak $P$ and $T$ steps: $P / d$ at 0, $P$ at $\lfloor p_s T \rfloor$, $P / d$ at
    $\lfloor p_f T \rfloor$, and $P / (d f)$ from $T$ on.

    Args:
        transition_steps: the length $T$, in steps; positive.
        peak_value: the largest value, $P$.
        pct_start: the fraction $p_s$ of the steps at which the peak is reached.
        pct_final: the fraction $p_f$ of the steps at which the first value is reached again, not before `pct_start`.
        div_factor: peak over first value, $d$.
        final_div_factor: first value over last value, $f$.

    Where the fractions are so close that two boundaries fall together, optax loses one of the factors; here the value
    jumps.

    Raises:
        ValueError: a Python number of steps that is not positive.

    Reference: Smith and Topin, https://arxiv.org/abs/1708.07120; optax, `linear_onecycle_schedule`.

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
        need(self, "transition_steps", 0, above=True)

    def __call__(self, count: Tensor | int) -> Tensor:
        t, steps, peak, start, final, div, final_div = numbers(
            count,
            self.transition_steps,
            self.peak_value,
            self.pct_start,
            self.pct_final,
            self.div_factor,
            self.final_div_factor,
        )
        boundaries = [torch.zeros_like(t), torch.floor(start * steps), torch.floor(final * steps), steps]
        low = peak / div
        return interpolate(t, "linear", boundaries, [low, peak, low, low / final_div])


@record
class cosine_onecycle_schedule:
    r"""Up and down again, each on half a cosine wave.

    With the peak $P$ and $T$ steps: $P / d$ at 0, $P$ at $\lfloor p_s T \rfloor$, and $P / (d f)$ from $T$ on.

    Args:
        transition_steps: the length $T$, in steps; positive.
        peak_value: the largest value, $P$.
        pct_start: the fraction $p_s$ of the steps at which the peak is reached.
        div_factor: peak over first value, $d$.
        final_div_factor: first value over last value, $f$.

    At `pct_start=1.0` optax loses the way up; here the value falls from the peak at once.

    Raises:
        ValueError: a Python number of steps that is not positive.

    Reference: Smith and Topin, https://arxiv.org/abs/1708.07120; optax, `cosine_onecycle_schedule`.

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
        need(self, "transition_steps", 0, above=True)

    def __call__(self, count: Tensor | int) -> Tensor:
        t, steps, peak, start, div, final_div = numbers(
            count, self.transition_steps, self.peak_value, self.pct_start, self.div_factor, self.final_div_factor
        )
        boundaries = [torch.zeros_like(t), torch.floor(start * steps), torch.floor(steps)]
        low = peak / div
        return interpolate(t, "cosine", boundaries, [low, peak, low / final_div])
