"""One schedule after another.

Each counts from its own beginning and never sees a count outside its own interval, so whatever it would do there
(overflow, say) affects neither values nor derivatives.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optfx.core import Schedule
from optfx.hints import hinted
from optfx.schedules.given import function_schedule
from optfx.schedules.numbers import Number, alike, as_count, as_scalar
from optfx.schedules.warmup import warmup_cosine_decay_schedule
from optfx.tree import record
from optfx.tree.record import is_record


@record
class join_schedules:
    r"""One schedule after another, each counting from its own boundary.

    $$ f_i(t - b_i) \quad\text{for}\quad b_i \le t < b_{i+1}, \qquad b_0 = 0 $$

    Args:
        schedules: the schedules, or plain functions of the count.
        boundaries: the counts at which the second and later schedules take over; Python numbers or () tensors (if one
            is a tensor, all become tensors). A boundary may lie between two counts.

    Raises:
        TypeError: a schedule that is not callable.
        ValueError: the number of boundaries is not one less than that of schedules.

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
        schedules, boundaries = tuple(self.schedules), alike("join_schedules: a boundary", self.boundaries)
        for i, schedule in enumerate(schedules):
            if not callable(schedule):
                raise TypeError(f"join_schedules: schedules[{i}] is a {type(schedule).__name__}, expected a schedule")
        if len(schedules) != len(boundaries) + 1:
            raise ValueError(
                f"join_schedules: {len(schedules)} schedules and {len(boundaries)} boundaries, expected one fewer"
            )
        records = tuple(schedule if is_record(schedule) else function_schedule(schedule) for schedule in schedules)
        object.__setattr__(self, "schedules", records)
        object.__setattr__(self, "boundaries", boundaries)

    def __call__(self, count: Tensor | int) -> Tensor:
        count = as_count(count, self)
        begins = [_edge(boundary, count) for boundary in (0, *self.boundaries)]
        value = count
        for i, schedule in enumerate(self.schedules):
            local = torch.maximum(count, begins[i]) - begins[i]
            if i + 1 < len(begins):
                local = torch.minimum(local, begins[i + 1] - begins[i])
            here = as_scalar(schedule(local), count)
            value = torch.where(count < begins[i], value, here) if i else here
        return value


def _edge(boundary: Number, count: Tensor) -> Tensor:
    """A boundary as a () tensor: an integer if it is one, so that the counts from it are integers."""
    fraction = boundary.is_floating_point() if isinstance(boundary, Tensor) else isinstance(boundary, float)
    return as_scalar(boundary, count, None if fraction else torch.int64)


@hinted
def sequential_lr(schedules: Sequence[Schedule], milestones: Sequence[Number]) -> join_schedules:
    """One schedule after another, each counting from its own milestone: `join_schedules`.

    Like torch's class, which restarts each scheduler from the base rate at its milestone.

    Args:
        schedules: the schedules, or plain functions of the count; each has its own base rate.
        milestones: the boundaries of `join_schedules`.

    Raises:
        TypeError: a schedule that is not callable.
        ValueError: the number of milestones is not one less than that of schedules.

    Reference: `torch.optim.lr_scheduler.SequentialLR`.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> warm, decay = schedules.constant_lr(1.0, 0.1, total_iters=2), schedules.exponential_lr(1.0, gamma=0.5)
        >>> torch.func.vmap(schedules.sequential_lr([warm, decay], [2]))(torch.arange(4))
        tensor([0.1000, 0.1000, 1.0000, 0.5000], dtype=torch.float64)
    """
    return join_schedules(schedules, milestones)


@hinted
def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> join_schedules:
    """Warm restarts: one `warmup_cosine_decay_schedule` after another.

    Args:
        cosine_kwargs: the arguments of each cycle; `decay_steps` is its length.

    Returns:
        The `join_schedules` of the cycles.

    Reference: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983; optax, `sgdr_schedule`.

    Example:
        >>> from optfx import schedules
        >>> cycle = dict(init_value=0.0, peak_value=1.0, warmup_steps=0, decay_steps=10)
        >>> schedules.sgdr_schedule([cycle, cycle | {"peak_value": 0.5}])(15)
        tensor(0.2500, dtype=torch.float64)
    """
    cycles = [warmup_cosine_decay_schedule(**kwargs) for kwargs in cosine_kwargs]
    return join_schedules(cycles, list(itertools.accumulate(cycle.decay_steps for cycle in cycles[:-1])))
