"""Multiply the updates by a number, or forget them: the transforms without a memory of the gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from optfx.combinators import masked
from optfx.core import Hyper, Memoryless, Schedule, at, GradientTransformation
from optfx.tree import Tree, elementwise, record


def times(u: Tensor, factor: Any) -> Tensor:
    return factor * u


@record
class identity(GradientTransformation):
    """Leave the updates as they are. Its state is empty.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.identity()
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))
        ({'w': tensor([1.])}, ())
    """

    def init(self, params: Tree) -> tuple[()]:
        return ()

    def update(self, updates: Tree, state: Tree, params: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        return updates, state


@record
class scale(Memoryless):
    """Multiply the updates by a number: u -> step_size * u.

    Args:
        step_size: the factor; unlike `scale_by_learning_rate`, no sign is flipped.

    Reference: optax, `scale`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale(0.5)
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))[0]
        {'w': tensor([0.5000])}
    """

    step_size: Hyper

    def apply(self, updates: Tree, count: Tensor, params: Tree, **extra: Any) -> Tree:
        return elementwise(times, updates, factor=at(count, self.step_size))


@record
class scale_by_schedule(Memoryless):
    """Multiply the updates by the value of a schedule: u -> step_size_fn(count) * u, count = 0, 1, 2, ...

    Args:
        step_size_fn: step count -> factor; no sign is flipped.

    Reference: optax, `scale_by_schedule`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_schedule(optfx.linear_schedule(1.0, 0.0, 10))
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))[0]
        {'w': tensor([1.])}
    """

    step_size_fn: Hyper

    def apply(self, updates: Tree, count: Tensor, params: Tree, **extra: Any) -> Tree:
        return elementwise(times, updates, factor=at(count, self.step_size_fn))


@record
class scale_by_learning_rate(Memoryless):
    """Multiply the updates by minus the learning rate: the one place where the sign flips.

    Args:
        learning_rate: the step size.
        flip_sign: False leaves the sign as it is.

    Reference: optax, `scale_by_learning_rate`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_learning_rate(0.1)
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))[0]
        {'w': tensor([-0.1000])}
    """

    learning_rate: Hyper
    flip_sign: bool = True

    def apply(self, updates: Tree, count: Tensor, params: Tree, **extra: Any) -> Tree:
        rate = at(count, self.learning_rate)
        return elementwise(times, updates, factor=-rate if self.flip_sign else rate)
