"""Gradient accumulation: one step for several gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation, Hyper
from optfx.tree import Tree


class AccumulateState(NamedTuple):
    """The state of `accumulate`."""

    count: Tensor  # () int64, gradients seen, those left out included
    gathered: Tensor  # () int64, gradients in the mean
    mean: Tree  # like params, the mean of the gradients since the last step
    inner: Tree  # the state of the transform inside


def gather(g: Tensor, m: Tensor, n, keep, due) -> tuple[Tensor, Tensor]:
    m = torch.where(keep, torch.lerp(m, g, 1 / n), m)
    return m, torch.where(due, 0.0, m)


@tree.record
class accumulate(core.Wrapper):
    """Take a step with the mean of several gradients, and none in between.

    Args:
        inner: a transform. Its schedules count its own steps.
        every: the number of gradients for a step; a schedule counts gradients.
        skip: which gradients to leave out, as if they had never come: `skip_not_finite`, `skip_large_updates(25.0)`,
            or any function `(updates, count, params) -> () bool`; None for none.
        accumulator_dtype: the dtype of the mean; None for that of the parameters.

    The extra argument `grad` is the mean for `inner`; others are those of the last gradient.

    Reference: optax, `MultiSteps` (whose schedule counts steps, and which takes the mean in float32).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.accumulate(optfx.sgd(0.1), every=2, skip=optfx.skip_not_finite)
        >>> state = tx.init({"w": torch.zeros(1)})
        >>> for g in (1.0, float("nan"), 3.0):
        ...     updates, state = tx.update({"w": torch.tensor([g])}, state)
        ...     print(updates)
        {'w': tensor([0.])}
        {'w': tensor([0.])}
        {'w': tensor([-0.2000])}
    """

    inner: GradientTransformation
    every: Hyper
    skip: Callable[[Tree, Tensor, Tree], Tensor] | None = None
    accumulator_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> AccumulateState:
        zero, mean = core.counter(params), tree.zeros_like(params, self.accumulator_dtype)
        return AccumulateState(zero, zero.clone(), mean, self.inner.begin(params))

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        n = state.gathered + 1
        keep = n > 0 if self.skip is None else ~self.skip(updates, state.count, params).to(n.device)
        due = keep & (n >= self.at(state.count)["every"])
        mean, kept = tree.elementwise(gather, updates, state.mean, outs=2, n=n, keep=keep, due=due)
        updates, inner = self.inner.run(mean, state.inner, params, extra | {"grad": mean})
        updates, inner = core.skip_unless(due, updates, inner, state.inner)
        gathered = torch.where(due, 0, torch.where(keep, n, state.gathered))
        return updates, AccumulateState(state.count + 1, gathered, kept, inner)
