"""The curves that schedules are made of: plain functions of () tensors with finite derivatives everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Curve = Callable[[Tensor, Tensor, Tensor], Tensor]  # (start, end, done) -> value, where `done` goes from 0 to 1


def progress(t: Tensor, length: Tensor) -> Tensor:
    """The fraction of `length` steps that is done after `t`, in [0, 1]; 0 if the length is not positive."""
    positive = length > 0
    return torch.where(positive, (t / torch.where(positive, length, 1.0)).clamp(0.0, 1.0), 0.0)


def safe_power(base: Tensor, exponent: Tensor) -> Tensor:
    """base**exponent for a nonnegative base; at zero, the derivatives are zero."""
    positive = base > 0
    power = torch.where(positive, base, 1.0) ** exponent
    return torch.where(positive, power, torch.zeros_like(base) ** exponent.detach())


def linear(start: Tensor, end: Tensor, done: Tensor) -> Tensor:
    return start + (end - start) * done


def cosine(start: Tensor, end: Tensor, done: Tensor) -> Tensor:
    """Half a cosine wave."""
    return end + (start - end) * (1 + torch.cos(math.pi * done)) / 2


def interpolate(t: Tensor, curve: Curve, boundaries: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """`values[i]` at `boundaries[i]`, and a curve from each to the next. Segments of length zero do nothing."""
    value = values[0]
    for i in range(len(boundaries) - 1):
        done = progress(t - boundaries[i], boundaries[i + 1] - boundaries[i])
        value = torch.where(t >= boundaries[i], curve(values[i], values[i + 1], done), value)
    return value


def jumps(t: Tensor, value: Tensor, boundaries: Iterable[Tensor | float], factors: Iterable[Tensor]) -> Tensor:
    """The value, multiplied by a factor from each boundary on."""
    for boundary, factor in zip(boundaries, factors, strict=True):
        value = torch.where(t >= boundary, value * factor, value)
    return value
