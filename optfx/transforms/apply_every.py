"""Updates of several steps at once."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation, Hyper
from optfx.tree import Tree


class ApplyEveryState(NamedTuple):
    """The state of `apply_every`."""

    count: Tensor  # () int64, steps taken
    gathered: Tensor  # () int64, updates in the sum
    grad_acc: Tree  # like params, the sum of the updates since the last that was let out


def gather(u: Tensor, s: Tensor, due) -> tuple[Tensor, Tensor]:
    s = s + u
    return torch.where(due, s, 0.0), torch.where(due, 0.0, s)


@tree.record
class apply_every(GradientTransformation):
    """Hold updates back, and let out the sum of several of them.

    All that comes before it sees each gradient: Adam's means move at each, the parameters only every `k` of them. To
    take a step with the mean of several gradients, use `accumulate`.

    Args:
        k: how many updates are let out together.
        accumulator_dtype: the dtype of the sum; None for that of the parameters.

    Reference: optax, `apply_every`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.sgd(0.1), optfx.apply_every(k=2))
        >>> state = tx.init({"w": torch.zeros(1)})
        >>> for g in (1.0, 3.0):
        ...     updates, state = tx.update({"w": torch.tensor([g])}, state)
        ...     print(updates)
        {'w': tensor([0.])}
        {'w': tensor([-0.4000])}
    """

    k: Hyper = 1
    accumulator_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ApplyEveryState:
        zero = core.counter(params)
        return ApplyEveryState(zero, zero.clone(), tree.zeros_like(params, self.accumulator_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        n = state.gathered + 1
        due = n >= self.at(state.count)["k"]
        updates, grad_acc = tree.elementwise(gather, updates, state.grad_acc, outs=2, due=due)
        return updates, ApplyEveryState(state.count + 1, torch.where(due, 0, n), grad_acc)
