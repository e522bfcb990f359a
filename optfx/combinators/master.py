"""Master weights: parameters in half precision that are trained in a wider dtype."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation
from optfx.tree import Tree


class MasterWeightsState(NamedTuple):
    """The state of `master_weights`."""

    master: Tree  # the narrow leaves of params, in the wider dtype
    inner: Tree  # the state of the inner transform


def second(x: Tensor, y: Tensor) -> Tensor:
    return y


def gap(u: Tensor, p: Tensor, target: Tensor) -> Tensor:
    return target - p


def in_dtypes_of(x: Tree, y: Tree) -> Tree:
    """`y` in the dtypes of `x`, rounded."""
    return tree.elementwise(second, x, y)


@tree.record
class master_weights(core.Wrapper):
    """Train parameters in half precision by a copy of them in a wider dtype. It needs params.

    Steps smaller than the spacing of half precision are lost where they are added to the parameters: in bfloat16,
    1 - 1e-4 is 1. Here they are added to the copy, the `master` of the state, and the updates lead to the copy,
    rounded. `inner` sees the copy and gradients in its dtype, so that all it keeps is in that dtype too.

    Args:
        inner: an optimizer, with its learning rate.
        dtype: of the copy. Leaves that are as wide already have none.

    The copy leads: parameters that are changed by other hands go back to it. Make a new state after such a change.

    Raises:
        ValueError: no params.

    Reference: Micikevicius et al., "Mixed Precision Training", 2017, <https://arxiv.org/abs/1710.03740>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.master_weights(optfx.sgd(1e-3))
        >>> params = {"w": torch.ones(1, dtype=torch.bfloat16)}
        >>> state = tx.init(params)
        >>> for _ in range(10):
        ...     updates, state = tx.update({"w": torch.ones(1, dtype=torch.bfloat16)}, state, params)
        ...     params = optfx.apply_updates(params, updates)
        >>> params, state.master
        ({'w': tensor([0.9883], dtype=torch.bfloat16)}, {'w': tensor([0.9900])})
    """

    needs_params, final = True, True
    inner: GradientTransformation
    dtype: torch.dtype = torch.float32

    def _narrow(self, params: Tree) -> list[bool]:
        """Which leaves have a copy."""
        return [torch.promote_types(p.dtype, self.dtype) != p.dtype for p in tree.leaves(params)]

    def begin(self, params: Tree) -> MasterWeightsState:
        narrow, wide = tree.split(params, self._narrow(params))
        master = tree.cast(narrow, self.dtype)  # in memory of its own, as another dtype is
        return MasterWeightsState(master, self.inner.begin(tree.merge(master, wide)))

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        keep = self._narrow(params)
        (narrow, wide), (grads, others) = tree.split(params, keep), tree.split(updates, keep)
        seen = tree.merge(in_dtypes_of(state.master, grads), others)
        updates, inner = self.inner.run(seen, state.inner, tree.merge(state.master, wide), extra)
        steps, others = tree.split(updates, keep)
        master = tree.add(state.master, steps)
        steps = tree.elementwise(gap, grads, narrow, in_dtypes_of(narrow, master))
        return tree.merge(steps, others), MasterWeightsState(master, inner)

    def eval_params(self, state: Any, params: Tree) -> Tree:
        return tree.cast_like(self.inner.eval_params(state.inner, params), params)
