"""Steps that are skipped when the gradients are not finite."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.core import GradientTransformation, as_transform, counter, update_inside
from optfx.tree import Tree, all_finite, elementwise, record, where


class ApplyIfFiniteState(NamedTuple):
    """The state of `apply_if_finite`."""

    notfinite_count: Tensor  # () int64, steps in a row with an infinite or NaN update, up to now
    last_finite: Tensor  # () bool, whether the last updates were finite
    total_notfinite: Tensor  # () int64, such steps in all
    inner: Tree  # the state of the transform inside


@record
class apply_if_finite(GradientTransformation):
    """Skip the steps whose updates are not finite: zero updates, and the inner state stays as it was.

    Nothing is synchronized with the host. After more than `max_consecutive_errors` such steps in a row the updates
    are let through, so that a run that cannot recover shows it.

    Args:
        inner: a transform.
        max_consecutive_errors: steps in a row that are skipped, int or () tensor.

    Reference: optax, `apply_if_finite`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.apply_if_finite(optfx.sgd(0.1), max_consecutive_errors=5)
        >>> updates, state = tx.update({"w": torch.tensor([float("nan")])}, tx.init({"w": torch.zeros(1)}))
        >>> updates, state.total_notfinite
        ({'w': tensor([0.])}, tensor(1))
    """

    inner: GradientTransformation
    max_consecutive_errors: int | Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", as_transform(self.inner))

    def parts(self, state: Any) -> dict[str, Any]:
        return {"": (self.inner, state.inner)}

    def init(self, params: Tree) -> ApplyIfFiniteState:
        zero = counter(params)
        return ApplyIfFiniteState(zero, torch.ones_like(zero, dtype=torch.bool), zero.clone(), self.inner.init(params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        finite = all_finite(updates).to(state.notfinite_count.device)
        in_a_row = torch.where(finite, 0, state.notfinite_count + 1)
        total = torch.where(finite, state.total_notfinite, state.total_notfinite + 1)
        proceed = finite | (in_a_row > self.max_consecutive_errors)
        updates, inner = update_inside(self.inner, updates, state.inner, params, extra)
        updates = where(proceed, updates, elementwise(torch.zeros_like, updates))
        return updates, ApplyIfFiniteState(in_a_row, finite, total, where(proceed, inner, state.inner))
