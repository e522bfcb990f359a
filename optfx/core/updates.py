"""What to do with updates: add them to params, skip them, or average the params that result."""

from __future__ import annotations

import torch
from torch import Tensor

from optfx import tree
from optfx.core.transform import check_updates
from optfx.tree import Tree


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """params + updates, in the dtypes of params.

    Args:
        params: tree of tensors.
        updates: tree like params, from `update`. Half precision is added in float32 and rounded once.

    Raises:
        ValueError: trees that differ in structure, shape or device, naming the path.

    Example:
        >>> import torch, optfx
        >>> optfx.apply_updates({"w": torch.ones(2)}, {"w": torch.full((2,), -0.5)})
        {'w': tensor([0.5000, 0.5000])}
    """
    check_updates("apply_updates", params, updates)
    return tree.elementwise(torch.add, params, updates)


def skip_unless(proceed: Tensor, updates: Tree, new: Tree, old: Tree) -> tuple[Tree, Tree]:
    """Take a step only if a condition holds: `(updates, new)` if so, else zero updates and the old state.

    What is discarded may be infinite or NaN: nothing is multiplied by zero.

    Args:
        proceed: () bool.
        updates: the updates of the step.
        new: the state after the step.
        old: the state before it, a tree like `new`.

    Example:
        >>> import torch
        >>> from optfx import core
        >>> core.skip_unless(torch.tensor(False), {"w": torch.tensor([torch.nan])}, torch.tensor(2), torch.tensor(1))
        ({'w': tensor([0.])}, tensor(1))
    """
    nothing = tree.elementwise(torch.zeros_like, updates)
    return tree.where(proceed, updates, nothing), tree.where(proceed, new, old)


def incremental_update(new_tensors: Tree, old_tensors: Tree, step_size: float | Tensor) -> Tree:
    """step_size * new + (1 - step_size) * old: one step of an exponential moving average (Polyak averaging).

    Args:
        new_tensors: tree of tensors.
        old_tensors: tree like `new_tensors`.
        step_size: the weight of the new tensors, a number or () tensor.

    Raises:
        ValueError: trees that differ in structure, shape or device, naming the path.

    Reference: optax, `incremental_update`.

    Example:
        >>> import torch, optfx
        >>> optfx.incremental_update({"w": torch.tensor(1.0)}, {"w": torch.tensor(0.0)}, 0.25)
        {'w': tensor(0.2500)}
    """
    return tree.elementwise(torch.lerp, old_tensors, new_tensors, weight=step_size)
