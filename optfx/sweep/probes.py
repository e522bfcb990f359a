"""What tells two jobs apart: a look at what the functions of the user give for the first member.

Another machine finds nearly the same numbers, not the same bits, so their size is compared.
"""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import torch
from torch import Tensor

from optfx.sweep.window import WORDS
from optfx.tree import flatten

SAME, TINY = 1e-3, 1e-7  # how far apart numbers may be, as a share of them, or beside 0


def measured(x: Any) -> list[Any]:
    """The structure of a tree; of each tensor the shape, the mean, the root mean square; other leaves as written."""
    leaves, structure = flatten(x)
    words = re.sub(r" at 0x[0-9a-f]+", "", str(structure))  # a function is elsewhere in each process
    return [words, *(_of_tensor(leaf) if isinstance(leaf, Tensor) else _written(leaf) for leaf in leaves)]


def alike(then: Any, now: Any) -> bool:
    """Whether two jobs found the same."""
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(map(alike, then, now))
    if isinstance(then, float) and isinstance(now, float):
        return math.isclose(then, now, rel_tol=SAME, abs_tol=TINY) or (math.isnan(then) and math.isnan(now))
    return then == now


def compared(batch: Any, before: list[Any]) -> list[Any]:
    """What the first batch of a chunk of members is like; a warning if the chunk before began with another one."""
    now = measured(batch)
    if before and not alike(before, now):
        warnings.warn(
            "batches gave another batch for one step to each chunk of members, so they cannot be compared: make it a "
            "function of the step",
            stacklevel=5,
        )
    return now


def _of_tensor(x: Tensor) -> list[Any]:
    if x.layout != torch.strided or not x.numel():
        return [*x.shape]
    x = torch.view_as_real(x.detach().resolve_conj()) if x.is_complex() else x.detach()
    x = x.double()
    return [*x.shape, x.mean().item(), x.square().mean().sqrt().item()]


def _written(x: Any) -> str:
    return repr(x) if isinstance(x, WORDS) else type(x).__qualname__
