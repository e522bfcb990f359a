"""A schedule that is a table of its values: what torch's schedulers do that no closed form tells."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from optfx.core import scalar_dtype
from optfx.tree import record


@record
class table_schedule:
    """The values of a table, one a step; the last one is held.

    The table should lie on the device of the parameters (`optfx.tree.map(lambda x: x.cuda(), schedule)`): elsewhere it
    is copied there at every step. It is a tensor of one dimension: `optfx.in_axes` takes it for a batch, so state the
    axes of an optimizer that holds a table yourself (None for the table). A stack of tables, (n, steps), is mapped
    over as any other batch.

    Args:
        values: (steps,) floating, the value at each count.

    Raises:
        ValueError: when it is called with a table that is not one-dimensional.

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
        count = count if isinstance(count, Tensor) else torch.tensor(count, device=self.values.device)
        index = count.to(torch.int64).clamp(0, len(self.values) - 1)
        # index_select, not self.values[index]: under vmap the index may be a batch.
        return self.values.to(count.device, scalar_dtype(count.device)).index_select(0, index.reshape(1)).reshape(())


def from_torch_scheduler(
    make: Callable[[torch.optim.Optimizer], LRScheduler], base_lr: float, total_steps: int
) -> table_schedule:
    """The rates that one of torch's schedulers gives, step by step.

    For what depends on its own history (`MultiplicativeLR`, `ChainedScheduler`, `SWALR`, a class of one's own), or on
    Python code that cannot be traced (a `LambdaLR` with branches).

    Args:
        make: optimizer -> scheduler; the optimizer is a `torch.optim.SGD` of one parameter at `base_lr`. Called once.
        base_lr: the rate that the optimizer is made with.
        total_steps: how many steps to take; the rate after the last is held from then on.

    Returns:
        A `table_schedule` of (total_steps + 1,) float64 values. It depends on `base_lr` no longer, so it has no
        derivative with respect to it.

    Raises:
        TypeError: `make` returned `ReduceLROnPlateau`, which looks at the loss, or no scheduler at all.

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
