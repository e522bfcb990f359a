"""MARS: a gradient with less variance, by how it has changed since the last step."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.transforms.clipping import shrink
from optfx.tree import Tree


class MarsState(NamedTuple):
    """The state of `mars`."""

    count: Tensor  # () int64, steps taken
    grad: Tree  # like params, the last gradient


def correct(g: Tensor, last: Tensor, factor) -> tuple[Tensor, Tensor]:
    return g + factor * (g - last), g


def limit_norm(u: Tensor, max_norm) -> Tensor:
    return u * shrink(tree.safe_sqrt(u.abs().square().sum()), max_norm)


@tree.record
class mars(GradientTransformation):
    r"""Correct each gradient by its change since the last step, which takes variance out of it.

    $$c_t = g_t + \gamma\, \frac{\beta_1}{1 - \beta_1}\, (g_t - g_{t-1}), \qquad g_0 = 0, \qquad
    u_t = c_t \min\!\left(1, \frac{1}{\lVert c_t \rVert}\right)$$

    The norm is that of a leaf. Put it before a rule that keeps $\beta_1$ of its mean: `scale_by_adam(0.95, 0.99)` for
    MARS-AdamW. This is the approximate MARS, which needs no second gradient of the same batch.

    Args:
        gamma: $\gamma$, how much of the change is added.
        b1: $\beta_1$ of the rule behind it.
        max_norm: the limit of the norm, here 1; None for none.
        accumulator_dtype: the dtype of the gradient that is kept; None for that of the parameters.

    Reference: Yuan et al., "MARS: Unleashing the Power of Variance Reduction for Training Large Models", 2024,
        <https://arxiv.org/abs/2411.10438>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.mars(gamma=0.5, b1=0.5, max_norm=None)
        >>> state = tx.init({"w": torch.zeros(1)})
        >>> _, state = tx.update({"w": torch.tensor([1.0])}, state)
        >>> tx.update({"w": torch.tensor([2.0])}, state)[0]
        {'w': tensor([2.5000])}
    """

    gamma: NonNegative = 0.025
    b1: Beta = 0.95
    max_norm: NonNegative | None = 1.0
    accumulator_dtype: torch.dtype | None = None

    def begin(self, params: Tree) -> MarsState:
        return MarsState(core.counter(params), tree.zeros_like(params, self.accumulator_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now = self.at(state.count)
        factor = now["b1"] * now["gamma"] / (1 - now["b1"])
        updates, grad = tree.elementwise(correct, updates, state.grad, outs=2, factor=factor)
        if self.max_norm is not None:
            updates = tree.leafwise(limit_norm, updates, max_norm=now["max_norm"])
        return updates, MarsState(state.count + 1, grad)
