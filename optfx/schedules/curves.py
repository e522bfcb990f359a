"""The few curves that schedules are made of: plain functions of () tensors, with finite derivatives everywhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def progress(t: Tensor, length: Tensor) -> Tensor:
    """How much of `length` steps is done after `t`, in [0, 1]; 0 where the length is not positive."""
    some = length > 0
    return torch.where(some, (t / torch.where(some, length, 1.0)).clamp(0.0, 1.0), 0.0)


def power(base: Tensor, exponent: Tensor) -> Tensor:
    """base**exponent for a base that is not negative; where it is zero, so are the derivatives."""
    some = base > 0
    return torch.where(some, torch.where(some, base, 1.0) ** exponent, torch.zeros_like(base) ** exponent.detach())


def linear(start: Tensor, end: Tensor, done: Tensor) -> Tensor:
    """From `start` to `end` on a straight line, `done` in [0, 1]."""
    return start + (end - start) * done


def cosine(start: Tensor, end: Tensor, done: Tensor) -> Tensor:
    """From `start` to `end` on half a cosine wave, `done` in [0, 1]."""
    return end + (start - end) * (1 + torch.cos(math.pi * done)) / 2


CURVES = {"linear": linear, "cosine": cosine, "cos": cosine}
