"""The numbers of a schedule: reading them beside a count, keeping them alike, checking them.

Every number may be a () tensor, lengths too, so that it can be swept and differentiated. A schedule reads all of its
numbers as () tensors of one dtype and device, and branches on no value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from optfx.core import scalar_dtype

Number = float | Tensor
"""A number of a schedule: a Python number, or a () tensor."""


def numbers(count: Tensor | int, *values: Number) -> list[Tensor]:
    """The count and the numbers of a schedule as () tensors, float64 where the device has it, on the count's device."""
    if not isinstance(count, Tensor):
        count = torch.tensor(count, device=next((x.device for x in values if isinstance(x, Tensor)), None))
    device, dtype = count.device, scalar_dtype(count.device)
    return [
        x.to(device, dtype) if isinstance(x, Tensor) else torch.full((), x, dtype=dtype, device=device)
        for x in (count, *values)
    ]


def alike(values: Iterable[Number]) -> tuple[Number, ...]:
    """Numbers that share a container: all tensors where one is, as a record asks for; else all floats, or all ints."""
    values = tuple(values)
    first = next((x for x in values if isinstance(x, Tensor)), None)
    if first is None:
        return tuple(map(float, values)) if any(isinstance(x, float) for x in values) else values
    return tuple(
        x
        if isinstance(x, Tensor)
        else torch.full_like(first, x, dtype=torch.int64 if isinstance(x, int) else scalar_dtype(first.device))
        for x in values
    )


def need(schedule: Any, name: str, low: float, high: float = math.inf, *, above: bool = False) -> None:
    """Raise unless a field lies in [low, high], or in (low, high] with `above`. Tensors are not looked at.

    Raises:
        ValueError: naming the schedule and the field.
    """
    x = getattr(schedule, name)
    if isinstance(x, Tensor) or (low < x <= high if above else low <= x <= high):
        return
    bound = f"{'>' if above else '>='} {low}" + (f" and <= {high}" if high < math.inf else "")
    raise ValueError(f"{type(schedule).__name__}: {name} must be {bound}, got {x}")


def need_one_of(schedule: Any, name: str, *choices: str) -> None:
    """Raise unless a field is one of these words.

    Raises:
        ValueError: naming the schedule, the field and the words.
    """
    x = getattr(schedule, name)
    if x not in choices:
        raise ValueError(f"{type(schedule).__name__}: {name} must be one of {', '.join(map(repr, choices))}, got {x!r}")
