"""Which gradients to leave out: predicates `(updates, count, params) -> () bool`, for `accumulate`."""

from __future__ import annotations

from torch import Tensor

from optfx import core, tree
from optfx.tree import Tree


def skip_not_finite(updates: Tree, count: Tensor, params: Tree) -> Tensor:
    """Leave out what is infinite or NaN somewhere.

    Args:
        updates: the gradients.
        count: how many came before.
        params: the parameters, or None.

    Reference: optax, `skip_not_finite` (which also gives numbers for the state).

    Example:
        >>> import torch, optfx
        >>> optfx.skip_not_finite({"w": torch.tensor([1.0, float("inf")])}, torch.tensor(0), None)
        tensor(True)
    """
    return ~tree.all_finite(updates)


@tree.record
class skip_large_updates:
    """Leave out what has a large norm over all leaves, or one that is NaN.

    Args:
        max_squared_norm: the square of the norm at which it is too large, a number or () tensor.

    Reference: optax, `skip_large_updates` (a function of four arguments).

    Example:
        >>> import torch, optfx
        >>> large = optfx.skip_large_updates(25.0)
        >>> large({"w": torch.tensor([3.0, 4.0])}, torch.tensor(0)), large({"w": torch.tensor([1.0])}, torch.tensor(0))
        (tensor(True), tensor(False))
    """

    max_squared_norm: core.Number

    def __call__(self, updates: Tree, count: Tensor, params: Tree = None) -> Tensor:
        return ~(tree.norm(updates, squared=True) < self.max_squared_norm)
