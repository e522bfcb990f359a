"""Which dtype to compute in."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch

HALF = (torch.float16, torch.bfloat16)
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def is_inexact(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the real numbers that a leaf of this dtype is made of."""
    return _REAL.get(dtype, dtype)


def computation_dtype(dtypes: Iterable[torch.dtype]) -> torch.dtype | None:
    """The dtype to compute in with leaves of these dtypes: at least float32; None if no leaf is floating or complex."""
    inexact = [d for d in dtypes if is_inexact(d)]
    if not inexact:
        return None
    wide = functools.reduce(torch.promote_types, inexact)
    return torch.float32 if wide in HALF else wide
