"""Weight decay."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from optfx.core import Hyper, Memoryless, at, need_params
from optfx.tree import Tree, elementwise, record


def decay(u: Tensor, p: Tensor, weight_decay: Any) -> Tensor:
    return u + weight_decay * p


@record
class add_decayed_weights(Memoryless):
    """Add `weight_decay` times the parameter to its update."""

    weight_decay: Hyper = 0.0

    def apply(self, updates: Tree, count: Tensor, params: Tree, **extra: Any) -> Tree:
        return elementwise(decay, updates, need_params(self, params), weight_decay=at(count, self.weight_decay))
