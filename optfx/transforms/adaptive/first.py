"""What a mean keeps at the first step, where it has nothing to keep."""

from __future__ import annotations

import torch
from torch import Tensor

from optfx import tree


def at_first(kept: float, count: Tensor, b: tree.Share) -> tree.Share:
    """`b`, but `kept` when no step has been taken: with 0 a mean begins with its first value, with 1 it waits."""
    first = count == 0
    return tree.Share(torch.where(first, kept, b.kept), torch.where(first, 1 - kept, b.new))
