"""A schedule that counts epochs, where the others count updates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx.core import Schedule
from optfx.schedules.given import function_schedule
from optfx.schedules.numbers import Number, as_count, as_number, as_scalar
from optfx.tree import record
from optfx.tree.record import is_record


@record
class per_epoch:
    r"""A schedule that counts epochs: its value changes once an epoch, as if stepped there.

    $$ f(\lfloor t / b \rfloor) $$

    Every other schedule counts updates. In this one the lengths are epochs, as in the schedulers of `torch.optim` that
    are stepped at the end of each.

    Args:
        schedule: $f$, the schedule, or a plain function of the number of epochs that have ended, () int64.
        batches: $b$, the updates in an epoch, at least 1: `len(loader)`, or `len(loader) / k` if each update is of k
            batches.

    Raises:
        TypeError: a schedule that is not callable; `batches` that is not a number.
        ValueError: fewer than one batch.

    Reference: `torch.optim.lr_scheduler`, stepped at the end of each epoch.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> schedule = schedules.per_epoch(schedules.exponential_lr(0.1, gamma=0.5), batches=3)
        >>> torch.func.vmap(schedule)(torch.arange(7))
        tensor([0.1000, 0.1000, 0.1000, 0.0500, 0.0500, 0.0500, 0.0250], dtype=torch.float64)
    """

    schedule: Schedule
    batches: Number

    def __post_init__(self) -> None:
        schedule: Any = self.schedule
        if not callable(schedule):
            raise TypeError(f"per_epoch: schedule is a {type(schedule).__name__}, expected a schedule")
        batches = as_number("per_epoch: batches", self.batches)
        if batches is None or (callable(batches) and not isinstance(batches, Tensor)):
            raise TypeError(f"per_epoch: batches is {batches!r}, expected a number or a () tensor")
        if not isinstance(batches, Tensor) and not batches >= 1:
            raise ValueError(f"per_epoch: batches must be >= 1, got {batches!r}")
        object.__setattr__(self, "schedule", schedule if is_record(schedule) else function_schedule(schedule))
        object.__setattr__(self, "batches", batches)

    def __call__(self, count: Tensor | int) -> Tensor:
        count = as_count(count, self)
        # of whole numbers below 2**53 the quotient in float64 is a whole number exactly where it should be
        epoch = torch.floor(as_scalar(count, count) / as_scalar(self.batches, count)).to(torch.int64)
        return as_scalar(self.schedule(epoch), count)
