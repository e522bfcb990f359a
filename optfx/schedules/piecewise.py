"""Piece by piece: jumps at boundaries, or curves between them."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from optfx.schedules.closed_form import ClosedForm
from optfx.schedules.curves import cosine, interpolate, jumps, linear
from optfx.schedules.numbers import Number, as_number
from optfx.tree import record


class Piecewise(ClosedForm):
    """A schedule given by `{boundary: scale}`, kept in the order of the boundaries."""

    boundaries_and_scales: dict[int, Number] | None

    def __post_init__(self) -> None:
        name, pieces = type(self).__name__, self.boundaries_and_scales or {}
        pieces = {as_number(f"{name}: a boundary", boundary): pieces[boundary] for boundary in sorted(pieces)}
        for boundary, scale in pieces.items():
            if not isinstance(scale, Tensor) and not scale >= 0:
                raise ValueError(f"{name}: the scale at {boundary} must be >= 0, got {scale}")
        object.__setattr__(self, "boundaries_and_scales", pieces)
        super().__post_init__()


@record
class piecewise_constant_schedule(Piecewise):
    r"""Constant between boundaries, multiplied by a factor at each: $I \prod_{b_i \le t} s_i$.

    Args:
        init_value: the value before the first boundary, $I$.
        boundaries_and_scales: `{boundary: scale}`, counts $b_i$ and factors $s_i$. The scales may be tensors (if
            one is, all become tensors); the boundaries are part of the structure. For boundaries that are tensors, see
            `join_schedules` and `multi_step_lr`.

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

    def formula(self, t, init_value, boundaries_and_scales):
        return jumps(t, init_value, boundaries_and_scales, boundaries_and_scales.values())


@record
class piecewise_interpolate_schedule(Piecewise):
    r"""From each boundary's value to the next along a line or half a cosine wave.

    The value at boundary $b_i$ is $v_i = I s_1 \cdots s_i$, and $v_0 = I$ at $b_0 = 0$; between two boundaries
    $$ v_i + (v_{i+1} - v_i) f\!\left(\frac{t - b_i}{b_{i+1} - b_i}\right), \qquad
       f(x) = x \;\text{or}\; \tfrac12 (1 - \cos \pi x) $$

    Args:
        interpolate_type: `"linear"` or `"cosine"`.
        init_value: the value at count 0, $I$.
        boundaries_and_scales: `{boundary: scale}`, as in `piecewise_constant_schedule`.

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
        super().__post_init__()
        self.need("interpolate_type", "one of", ("linear", "cosine"))

    def formula(self, t, init_value, boundaries_and_scales):
        curve = linear if self.interpolate_type == "linear" else cosine
        boundaries = [torch.full_like(t, boundary) for boundary in (0, *boundaries_and_scales)]
        values = list(itertools.accumulate((init_value, *boundaries_and_scales.values()), operator.mul))
        return torch.where(t >= boundaries[-1], values[-1], interpolate(t, curve, boundaries, values))


@record
class multi_step_lr(ClosedForm):
    r"""Multiply the rate by a factor at each milestone: $\eta_0 \, \gamma^{\#\{i:\, m_i \le t\}}$.

    Args:
        base_lr: the rate before the first milestone, $\eta_0$.
        milestones: counts $m_i$, in any order; one given twice counts twice. Python numbers or () tensors (if one is a
            tensor, all become tensors).
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
        object.__setattr__(self, "milestones", tuple(self.milestones))
        super().__post_init__()

    def formula(self, t, base_lr, milestones, gamma):
        return jumps(t, base_lr, milestones, [gamma] * len(milestones))


@record
class constant_lr(ClosedForm):
    r"""A fraction of the rate, $\eta_0 f$, for some steps, and then the rate.

    Args:
        base_lr: the rate from `total_iters` on, $\eta_0$.
        factor: the fraction, $f$.
        total_iters: how many steps the fraction lasts. With 0, torch itself keeps the fraction forever.

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
        super().__post_init__()
        self.need("factor", ">=", 0)
        self.need("factor", "<=", 1)

    def formula(self, t, base_lr, factor, total_iters):
        return torch.where(t < total_iters, base_lr * factor, base_lr)
