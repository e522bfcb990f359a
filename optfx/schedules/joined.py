"""One schedule after another.

A schedule in a row counts from its own beginning, and is never shown a count outside its own stretch: what it would
do there (overflow, say) reaches neither values nor derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from optfx.core import Schedule, scalar_dtype
from optfx.schedules.fields import Number, alike, numbers
from optfx.tree import record
from optfx.tree.record import is_record


@record
class from_function:
    """A plain function of the count as a schedule.

    `join_schedules` and `sequential_lr` wrap their functions in it.

    Args:
        function: () int64 count -> float or () tensor; in tensor operations where it is to be compiled or vmapped, at
            module level where it is to be pickled. torch gives `0.5**count` in float32, `0.5 ** count.double()` in
            float64.

    Example:
        >>> from optfx import schedules
        >>> schedules.from_function(lambda count: 1 / (1 + count))(3)
        tensor(0.2500, dtype=torch.float64)
    """

    function: Schedule

    def __call__(self, count: Tensor | int) -> Tensor:
        count = count if isinstance(count, Tensor) else torch.tensor(count)
        return numbers(count, self.function(count))[1]


def _edge(count: Tensor, boundary: Number) -> Tensor:
    """A boundary as a () tensor beside the count, an integer as long as it is one: so are then the counts from it."""
    fraction = boundary.is_floating_point() if isinstance(boundary, Tensor) else isinstance(boundary, float)
    dtype = scalar_dtype(count.device) if fraction else torch.int64
    if isinstance(boundary, Tensor):
        return boundary.to(count.device, dtype)
    return torch.full((), boundary, dtype=dtype, device=count.device)


def in_turn(count: Tensor | int, schedules: Sequence[Callable[[Tensor], Any]], boundaries: Sequence[Number]) -> Tensor:
    """Schedule i from boundary i - 1 on, until the next boundary; each counts from its own boundary."""
    count = count if isinstance(count, Tensor) else torch.tensor(count)
    edges = [_edge(count, boundary) for boundary in boundaries]
    begins = [_edge(count, 0), *edges]
    value = count
    for i, schedule in enumerate(schedules):
        local = torch.maximum(count, begins[i]) - begins[i]
        if i < len(edges):
            local = torch.minimum(local, edges[i] - begins[i])
        here = numbers(count, schedule(local))[1]
        value = here if i == 0 else torch.where(count < begins[i], value, here)
    return value


def _rows(joined: join_schedules | sequential_lr, boundaries: str) -> None:
    """Make both containers tuples of children or of structure, and check their lengths."""
    schedules, edges = tuple(joined.schedules), alike(getattr(joined, boundaries))
    name = type(joined).__name__
    for i, schedule in enumerate(schedules):
        if not callable(schedule):
            raise TypeError(f"{name}: schedules[{i}] is a {type(schedule).__name__}, expected a schedule")
    if len(schedules) != len(edges) + 1:
        raise ValueError(f"{name}: {len(schedules)} schedules and {len(edges)} {boundaries}, expected one fewer")
    object.__setattr__(joined, "schedules", tuple(s if is_record(s) else from_function(s) for s in schedules))
    object.__setattr__(joined, boundaries, edges)


@record
class join_schedules:
    r"""One schedule after another, each counting from its own boundary.

    $$ f_i(t - b_i) \quad\text{for}\quad b_i \le t < b_{i+1}, \qquad b_0 = 0 $$

    Args:
        schedules: the schedules, or plain functions of the count.
        boundaries: the counts at which the second and further schedules take over; Python numbers or () tensors
            (where one is, all become tensors). A boundary may lie between two counts.

    Raises:
        TypeError: a schedule that cannot be called.
        ValueError: not one boundary fewer than schedules.

    Reference: optax, `join_schedules`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> up, down = schedules.linear_schedule(0.0, 1.0, 2), schedules.linear_schedule(1.0, 0.5, 2)
        >>> torch.func.vmap(schedules.join_schedules([up, down], [2]))(torch.arange(6))
        tensor([0.0000, 0.5000, 1.0000, 0.7500, 0.5000, 0.5000], dtype=torch.float64)
    """

    schedules: Sequence[Schedule]
    boundaries: Sequence[Number]

    def __post_init__(self) -> None:
        _rows(self, "boundaries")

    def __call__(self, count: Tensor | int) -> Tensor:
        return in_turn(count, self.schedules, self.boundaries)


@record
class sequential_lr:
    """One schedule after another, each counting from its own milestone.

    As torch's class, which restarts each scheduler from the base rate at its milestone.

    Args:
        schedules: the schedules, or plain functions of the count; each has its own base rate.
        milestones: the counts at which the second and further schedules take over; Python numbers or () tensors
            (where one is, all become tensors).

    Raises:
        TypeError: a schedule that cannot be called.
        ValueError: not one milestone fewer than schedules.

    Reference: `torch.optim.lr_scheduler.SequentialLR`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> warm, decay = schedules.constant_lr(1.0, 0.1, total_iters=2), schedules.exponential_lr(1.0, gamma=0.5)
        >>> torch.func.vmap(schedules.sequential_lr([warm, decay], [2]))(torch.arange(4))
        tensor([0.1000, 0.1000, 1.0000, 0.5000], dtype=torch.float64)
    """

    schedules: Sequence[Schedule]
    milestones: Sequence[Number]

    def __post_init__(self) -> None:
        _rows(self, "milestones")

    def __call__(self, count: Tensor | int) -> Tensor:
        return in_turn(count, self.schedules, self.milestones)
