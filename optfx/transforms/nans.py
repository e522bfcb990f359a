"""Replacing NaNs in the updates."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import tree
from optfx.core import GradientTransformation
from optfx.tree import Tree


class ZeroNansState(NamedTuple):
    """The state of `zero_nans`."""

    found_nan: Tree  # like params, () bool each, whether the last update had a NaN in this leaf


def without_nans(u: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    missing = u.isnan()
    return torch.where(missing, 0.0, u), missing.any()


@tree.record
class zero_nans(GradientTransformation):
    """Replace NaNs by zeros, and remember which leaves had any. Infinite updates stay.

    The state's `found_nan` has a () bool for each leaf. To skip the whole step instead, see `apply_if_finite`.

    Reference: optax, `zero_nans`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.zero_nans()
        >>> tx.update({"w": torch.tensor([float("nan"), 1.0])}, tx.init({"w": torch.zeros(2)}))
        ({'w': tensor([0., 1.])}, ZeroNansState(found_nan={'w': tensor(True)}))
    """

    def begin(self, params: Tree) -> ZeroNansState:
        return ZeroNansState(tree.map(lambda p: torch.zeros((), dtype=torch.bool, device=p.device), params))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        updates, found = tree.leafwise(without_nans, updates, state.found_nan, outs=2, same_shapes=False)
        return updates, ZeroNansState(found)
