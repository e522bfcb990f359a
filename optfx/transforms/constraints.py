"""Constraints on the parameters that a step leads to. These come last, behind the learning rate."""

from __future__ import annotations

import torch
from torch import Tensor

from optfx import core, tree
from optfx.tree import Tree


def stop_at_zero(u: Tensor, p: Tensor) -> Tensor:
    return torch.where(p + u < 0, -p, u)


@tree.record
class keep_params_nonnegative(core.Stateless):
    r"""Shorten updates that lead below zero, so that they lead to zero. Needs params; put it last in a chain.

    $$u = \max(g, -p)$$

    A parameter that is negative at the start moves to zero or above. Real and imaginary parts count separately. The
    state is empty.

    Raises:
        ValueError: no params.

    Reference: optax, `keep_params_nonnegative`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.sgd(1.0), optfx.keep_params_nonnegative())
        >>> params = {"w": torch.tensor([1.0, 1.0])}
        >>> tx.update({"w": torch.tensor([0.5, 3.0])}, tx.init(params), params)[0]
        {'w': tensor([-0.5000, -1.0000])}
    """

    needs_params = True

    def apply(self, updates: Tree, params: Tree) -> Tree:
        return tree.elementwise(stop_at_zero, updates, params)
