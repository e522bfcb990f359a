"""Grokfast: amplify what is slow in the gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, Hyper
from optfx.tree import Tree


class GrokfastState(NamedTuple):
    """The state of `grokfast`."""

    count: Tensor  # () int64, steps taken
    ema: Tree  # like params, running mean of the gradient


def amplify(g: Tensor, e: Tensor, first, alpha, lamb) -> tuple[Tensor, Tensor]:
    e = torch.where(first, g, tree.mean(e, g, alpha))
    return g + lamb * e, e


@tree.record
class grokfast(GradientTransformation):
    r"""Add a multiple of a running mean of the gradients to each gradient. Put it before the rule.

    $$u_t = g_t + \lambda\, e_t, \qquad e_t = \alpha\, e_{t-1} + (1 - \alpha)\, g_t, \qquad e_1 = g_1$$

    Args:
        alpha: $\alpha$, how much of the mean is kept at each step.
        lamb: $\lambda$.
        accumulator_dtype: the dtype of the mean; None for that of the parameters.

    Reference: Lee et al., "Grokfast: Accelerated Grokking by Amplifying Slow Gradients", 2024,
        <https://arxiv.org/abs/2405.20233>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.grokfast(alpha=0.5, lamb=2.0)
        >>> state = tx.init({"w": torch.zeros(1)})
        >>> _, state = tx.update({"w": torch.tensor([1.0])}, state)
        >>> tx.update({"w": torch.tensor([-1.0])}, state)[0]
        {'w': tensor([-1.])}
    """

    alpha: Decay = 0.98
    lamb: Hyper = 2.0
    accumulator_dtype: torch.dtype | None = None

    def begin(self, params: Tree) -> GrokfastState:
        return GrokfastState(core.counter(params), tree.zeros_like(params, self.accumulator_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        first = state.count == 0
        updates, ema = tree.elementwise(amplify, updates, state.ema, outs=2, first=first, **self.at(state.count))
        return updates, GrokfastState(state.count + 1, ema)
