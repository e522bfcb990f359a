"""Limits on the size of updates."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.core import GradientTransformation, Hyper, at, counter, wide
from optfx.tree import Tree, elementwise, norm, record


class ClipByGlobalNormState(NamedTuple):
    """The state of `clip_by_global_norm`."""

    count: Tensor  # () int64, steps taken
    norm: Tensor  # () float64, the norm of the last updates before they were clipped


def times(u: Tensor, factor: Any) -> Tensor:
    return factor * u


@record
class clip_by_global_norm(GradientTransformation):
    """Shrink the whole tree of updates so that its 2-norm is at most `max_norm`."""

    max_norm: Hyper

    def init(self, params: Tree) -> ClipByGlobalNormState:
        count = counter(params)
        return ClipByGlobalNormState(count, torch.zeros_like(count, dtype=wide(count.device)))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        size = norm(updates).to(state.norm)
        max_norm = at(state.count, self.max_norm)
        # the inner where keeps 0 / 0 out of the derivative
        factor = torch.where(size > max_norm, max_norm / torch.where(size > 0, size, 1.0), 1.0)
        return elementwise(times, updates, factor=factor), ClipByGlobalNormState(state.count + 1, size)
