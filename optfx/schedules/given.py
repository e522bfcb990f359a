"""Schedules made from something else: a function of the count, a table of values, one of torch's schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from optfx.core import Schedule
from optfx.hints import hinted
from optfx.schedules.closed_form import ClosedForm
from optfx.schedules.numbers import Number, as_count, as_scalar
from optfx.tree import record
from optfx.tree.share import scalar_dtype


@record
class function_schedule:
    """A plain function of the count as a schedule.

    `join_schedules` wraps plain functions in it.

    Args:
        function: () int64 count -> float or () tensor. Write it in tensor operations to compile or vmap it, and at
            module level to pickle it. torch computes `0.5**count` in float32, `0.5 ** count.double()` in float64.

    Example:
        >>> from optfx import schedules
        >>> schedules.function_schedule(lambda count: 1 / (1 + count))(3)
        tensor(0.2500, dtype=torch.float64)
    """

    function: Schedule

    def __call__(self, count: Tensor | int) -> Tensor:
        count = as_count(count, self)
        return as_scalar(self.function(count), count)


@record
class lambda_lr(ClosedForm):
    r"""The rate times a function of the count: $\eta_0 \, f(t)$.

    Args:
        base_lr: the rate, $\eta_0$.
        lr_lambda: the function $f$. It gets the count as a () float64 tensor, in which `0.95 ** count` and
            `count // 30` are exact; torch's class passes an int. Write it in tensor operations (`torch.where`, not
            `if`) to compile or vmap it, and at module level to pickle it. For any other function, use
            `from_torch_scheduler`.

    Reference: `torch.optim.lr_scheduler.LambdaLR`.

    Example:
        >>> from optfx import schedules
        >>> schedules.lambda_lr(2.0, lambda count: 0.5**count)(3)
        tensor(0.2500, dtype=torch.float64)
    """

    base_lr: Number
    lr_lambda: Callable[[Tensor], Any]

    def formula(self, t, base_lr):
        return base_lr * as_scalar(self.lr_lambda(t), t)


@record
class table_schedule:
    """The values of a table, one per step; the last one is held.

    Put the table on the device of the parameters (`optfx.tree.map(lambda x: x.cuda(), schedule)`), or it is copied
    there at every step. A stack of tables, (n, steps), is mapped over like any other batch; see `optfx.sweep.in_axes`
    for a table that all share.

    Args:
        values: (steps,) floating, the value at each count.

    Raises:
        ValueError: the table is not one-dimensional when it is called.

    Example:
        >>> import torch
        >>> from optfx import schedules
        >>> schedule = schedules.table_schedule(torch.tensor([0.5, 0.25, 0.125]))
        >>> torch.func.vmap(schedule)(torch.arange(4))
        tensor([0.5000, 0.2500, 0.1250, 0.1250], dtype=torch.float64)
    """

    values: Tensor

    def __call__(self, count: Tensor | int) -> Tensor:
        if self.values.ndim != 1:
            raise ValueError(
                f"a table of shape {tuple(self.values.shape)} where (steps,) was expected: "
                "batches of schedules run under torch.func.vmap"
            )
        count = as_count(count, self)
        index = count.to(torch.int64).clamp(0, len(self.values) - 1)
        # index_select, not self.values[index]: under vmap the index may be a batch.
        return self.values.to(count.device, scalar_dtype(count.device)).index_select(0, index.reshape(1)).reshape(())


@hinted
def from_torch_scheduler(
    make: Callable[[torch.optim.Optimizer], LRScheduler], base_lr: float, total_steps: int
) -> table_schedule:
    """A table of the rates that one of torch's schedulers gives.

    Use it for a scheduler that depends on its own history (`MultiplicativeLR`, `ChainedScheduler`, `SWALR`, a class of
    your own), or on Python code that cannot be traced (a `LambdaLR` with branches).

    Args:
        make: optimizer -> scheduler; the optimizer is a `torch.optim.SGD` with one parameter at `base_lr`. Called once.
        base_lr: the rate that the optimizer starts with.
        total_steps: how many steps to take; the last rate is held from then on.

    Returns:
        A `table_schedule` of (total_steps + 1,) float64 values. It has no derivative with respect to `base_lr`.

    Raises:
        TypeError: `make` returned a `ReduceLROnPlateau`, which looks at the loss, or something that is not a scheduler.

    Reference: `torch.optim.lr_scheduler`.

    Example:
        >>> import torch
        >>> from torch.optim import lr_scheduler
        >>> from optfx import schedules
        >>> def make(optimizer):
        ...     return lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 1 / epoch)
        >>> schedules.from_torch_scheduler(make, 1.0, total_steps=3)
        table_schedule(values=torch.tensor([1.0, 1.0, 0.5, 0.16666666666666666], dtype=torch.float64))
    """
    optimizer = torch.optim.SGD([torch.zeros(())], lr=base_lr)
    scheduler = make(optimizer)
    if isinstance(scheduler, ReduceLROnPlateau):
        raise TypeError(
            "from_torch_scheduler: ReduceLROnPlateau looks at the loss, so no table can hold it; "
            "optfx.reduce_on_plateau is the transform that does the same"
        )
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(f"from_torch_scheduler: make returned a {type(scheduler).__name__}, expected a scheduler")
    rates = [float(optimizer.param_groups[0]["lr"])]
    for _ in range(total_steps):
        optimizer.step()
        scheduler.step()
        rates.append(float(optimizer.param_groups[0]["lr"]))
    return table_schedule(torch.tensor(rates, dtype=torch.float64))
