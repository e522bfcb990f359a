"""What is done with updates and averages of parameters: functions of trees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx.core.transform import check_beside
from optfx.tree import Tree, elementwise, where


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """params + updates, in the dtypes of params.

    Args:
        params: tree of tensors.
        updates: tree like it, from `update`; half precision is added in float32 and rounded once.

    Raises:
        ValueError: trees that differ in structure, shape or device, naming the path.

    Example:
        >>> import torch, optfx
        >>> optfx.apply_updates({"w": torch.ones(2)}, {"w": torch.full((2,), -0.5)})
        {'w': tensor([0.5000, 0.5000])}
    """
    check_beside("apply_updates", params, updates)
    return elementwise(torch.add, params, updates)


def _toward(old: Tensor, new: Tensor, step_size: Any) -> Tensor:
    return step_size * new + (1 - step_size) * old


def incremental_update(new_tensors: Tree, old_tensors: Tree, step_size: float | Tensor) -> Tree:
    """step_size * new + (1 - step_size) * old: one step of an exponential moving average (Polyak averaging).

    Example:
        >>> import torch, optfx
        >>> optfx.incremental_update({"w": torch.tensor(1.0)}, {"w": torch.tensor(0.0)}, 0.25)
        {'w': tensor(0.2500)}
    """
    return elementwise(_toward, old_tensors, new_tensors, step_size=step_size)


def periodic_update(new_tensors: Tree, old_tensors: Tree, steps: Tensor, update_period: int | Tensor) -> Tree:
    """The new tensors when `steps` is a multiple of `update_period`, else the old ones.

    Args:
        new_tensors: tree of tensors.
        old_tensors: tree like it.
        steps: () int64, the number of steps taken.
        update_period: steps between two updates.

    Example:
        >>> import torch, optfx
        >>> optfx.periodic_update({"w": torch.tensor(1.0)}, {"w": torch.tensor(0.0)}, torch.tensor(3), 2)
        {'w': tensor(0.)}
    """
    return where(steps % update_period == 0, new_tensors, old_tensors)
