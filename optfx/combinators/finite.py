"""Skip a step when its updates are not finite."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation, NonNegative
from optfx.tree import Tree


class ApplyIfFiniteState(NamedTuple):
    """The state of `apply_if_finite`."""

    count: Tensor  # () int64, steps taken, skipped ones included
    notfinite_count: Tensor  # () int64, latest steps in a row with an infinite or NaN update
    last_finite: Tensor  # () bool, whether the last updates were finite
    total_notfinite: Tensor  # () int64, all such steps
    inner: Tree  # the state of the inner transform


@tree.record
class apply_if_finite(core.Wrapper):
    """Skip steps whose updates are not finite: the updates become zero, and the inner state stays as it was.

    The host never waits for the device. After more than `max_consecutive_errors` such steps in a row the updates are
    let through, so that a run that cannot recover shows it.

    Args:
        inner: a transform.
        max_consecutive_errors: how many steps in a row may be skipped.

    Reference: optax, `apply_if_finite`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.apply_if_finite(optfx.sgd(0.1), max_consecutive_errors=5)
        >>> updates, state = tx.update({"w": torch.tensor([float("nan")])}, tx.init({"w": torch.zeros(1)}))
        >>> updates, state.total_notfinite
        ({'w': tensor([0.])}, tensor(1))
    """

    inner: GradientTransformation
    max_consecutive_errors: NonNegative

    def begin(self, params: Tree) -> ApplyIfFiniteState:
        zero = core.counter(params)
        finite = torch.ones_like(zero, dtype=torch.bool)
        return ApplyIfFiniteState(zero, zero.clone(), finite, zero.clone(), self.inner.begin(params))

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        most = self.at(state.count)["max_consecutive_errors"]
        finite = tree.all_finite(updates).to(state.count.device)
        in_a_row = torch.where(finite, 0, state.notfinite_count + 1)
        total = torch.where(finite, state.total_notfinite, state.total_notfinite + 1)
        updates, inner = self.inner.run(updates, state.inner, params, extra)
        updates, inner = core.skip_unless(finite | (in_a_row > most), updates, inner, state.inner)
        return updates, ApplyIfFiniteState(state.count + 1, in_a_row, finite, total, inner)
