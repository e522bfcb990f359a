"""Lion: the sign of a momentum."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation
from optfx.transforms.scaling import sign
from optfx.tree import Tree


class ScaleByLionState(NamedTuple):
    """The state of `scale_by_lion`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient


def lion(g: Tensor, m: Tensor, b1, b2) -> tuple[Tensor, Tensor]:
    return sign(tree.mean(m, g, b1)), tree.mean(m, g, b2)


@tree.record
class scale_by_lion(GradientTransformation):
    r"""Take the sign of an interpolation between a running mean of the gradient and the gradient.

    $$u_t = \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1)\, g_t), \qquad
    m_t = \beta_2 m_{t-1} + (1 - \beta_2)\, g_t$$

    Args:
        b1: $\beta_1$, the share of the mean in the interpolation.
        b2: $\beta_2$, how much of the mean is kept at each step.
        mu_dtype: the dtype of the mean; None for that of the parameters.

    Reference: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023,
        <https://arxiv.org/abs/2302.06675>; optax, `scale_by_lion`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_lion()
        >>> tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 1., -1.])}
    """

    b1: Decay = 0.9
    b2: Decay = 0.99
    mu_dtype: torch.dtype | None = None

    def begin(self, params: Tree) -> ScaleByLionState:
        return ScaleByLionState(core.counter(params), tree.zeros_like(params, self.mu_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        updates, mu = tree.elementwise(lion, updates, state.mu, outs=2, **self.at(state.count))
        return updates, ScaleByLionState(state.count + 1, mu)
