"""The optimistic gradient: step along what the next gradient is expected to be."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation, Hyper
from optfx.tree import Tree


class ScaleByOptimisticGradientState(NamedTuple):
    """The state of `scale_by_optimistic_gradient`."""

    count: Tensor  # () int64, steps taken
    previous_gradient: Tree  # like params, the updates of the last step


def optimistic(g: Tensor, last: Tensor, alpha, beta, first) -> tuple[Tensor, Tensor]:
    last = torch.where(first, g, last)
    return (alpha + beta) * g - beta * last, g.clone()  # the gradient itself is the caller's


@tree.record
class scale_by_optimistic_gradient(GradientTransformation):
    r"""Add to the gradient its change since the last step.

    $$u_t = \alpha\, g_t + \beta\, (g_t - g_{t-1}), \qquad g_0 = g_1$$

    In games, where gradient descent circles around a saddle point, this goes into it.

    Args:
        alpha: $\alpha$, the factor of the gradient.
        beta: $\beta$, the factor of its change.
        accumulator_dtype: the dtype of the last gradient; None for that of the parameters.

    Reference: Mokhtari et al., "A Unified Analysis of Extra-gradient and Optimistic Gradient Methods for Saddle Point
        Problems", 2019, <https://arxiv.org/abs/1901.08511>; optax, `scale_by_optimistic_gradient`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_optimistic_gradient()
        >>> _, state = tx.update({"w": torch.tensor([5.0])}, tx.init({"w": torch.zeros(1)}))
        >>> tx.update({"w": torch.tensor([4.0])}, state)[0]
        {'w': tensor([3.])}
    """

    alpha: Hyper = 1.0
    beta: Hyper = 1.0
    accumulator_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByOptimisticGradientState:
        return ScaleByOptimisticGradientState(core.counter(params), tree.zeros_like(params, self.accumulator_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, last, first = self.at(state.count), state.previous_gradient, state.count == 0
        updates, last = tree.elementwise(optimistic, updates, last, outs=2, first=first, **now)
        return updates, ScaleByOptimisticGradientState(state.count + 1, last)
