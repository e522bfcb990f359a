"""The numbers of a schedule: Python numbers or () tensors, so that each may be swept and differentiated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from optfx.core import Number, is_number
from optfx.tree import leaves
from optfx.tree.share import scalar_dtype


def as_number(what: str, x: Any) -> Any:
    """`x` as a number of a schedule: a numpy scalar becomes a Python number; None, tensors and schedules stay.

    Raises:
        TypeError: `x` is something else, such as a bool; the message names it as `what`.
    """
    if x is None or isinstance(x, Tensor) or callable(x):
        return x
    x = x.item() if hasattr(x, "item") else x
    if not is_number(x):
        raise TypeError(f"{what} is a {type(x).__name__}, expected a number or a () tensor")
    return x


def alike(what: str, values: Iterable[Any]) -> tuple[Number, ...]:
    """Numbers that share a container: all tensors if one is, as a record requires; else all floats, or all ints."""
    values = tuple(as_number(what, x) for x in values)
    first = next((x for x in values if isinstance(x, Tensor)), None)
    if first is None:
        return tuple(map(float, values)) if any(isinstance(x, float) for x in values) else values
    dtypes = {int: torch.int64, float: scalar_dtype(first.device)}
    return tuple(x if isinstance(x, Tensor) else torch.full_like(first, x, dtype=dtypes[type(x)]) for x in values)


def as_count(count: Tensor | int, schedule: Any) -> Tensor:
    """The count as a () tensor; a Python int goes to the device of the schedule's own tensors."""
    if isinstance(count, Tensor):
        return count
    return torch.tensor(count, device=next((x.device for x in leaves(schedule)), None))


def as_scalar(x: Number, count: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A number as a () tensor on the device of the count, float64 if the device has it."""
    dtype = dtype or scalar_dtype(count.device)
    return x.to(count.device, dtype) if isinstance(x, Tensor) else torch.full((), x, dtype=dtype, device=count.device)
