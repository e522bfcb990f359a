"""Begin anew every few steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation, Hyper
from optfx.tree import Tree


class ResetEveryState(NamedTuple):
    """The state of `reset_every`."""

    count: Tensor  # () int64, steps taken
    since: Tensor  # () int64, steps since the last reset
    inner: Tree  # the state of the transform inside


@tree.record
class reset_every(core.Wrapper):
    """Give a transform a fresh state every few steps: momentum without the spikes of long ago. It needs params.

    After every `every` steps the state of `inner` is what its `init` makes of the params that the step leads to; its
    counts and schedules begin anew too. Wrap what should forget, and no more: in `chain(reset_every(scale_by_adam(),
    500), scale_by_learning_rate(schedule))` the schedule goes on.

    Args:
        inner: a transform.
        every: the number of steps between two resets.

    Raises:
        ValueError: no params.

    Reference: Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training", 2025,
        <https://arxiv.org/abs/2501.06842>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.reset_every(optfx.trace(0.5), every=2)
        >>> params = {"w": torch.ones(1)}
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     updates, state = tx.update({"w": torch.ones(1)}, state, params)
        ...     print(updates)
        {'w': tensor([1.])}
        {'w': tensor([1.5000])}
        {'w': tensor([1.])}
    """

    needs_params = True
    inner: GradientTransformation
    every: Hyper

    def begin(self, params: Tree) -> ResetEveryState:
        zero = core.counter(params)
        return ResetEveryState(zero, zero.clone(), self.inner.begin(params))

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        since = state.since + 1
        due = since >= self.at(state.count)["every"]
        updates, inner = self.inner.run(updates, state.inner, params, extra)
        fresh = self.inner.begin(core.apply_updates(params, updates))
        inner = tree.where(due, fresh, inner)
        return updates, ResetEveryState(state.count + 1, torch.where(due, 0, since), inner)
