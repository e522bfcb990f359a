"""Adamax's preconditioner: a running mean of the gradient over its largest absolute value, which fades."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx.core import GradientTransformation, Hyper, at, bias_correction, counter
from optfx.transforms.adam import ScaleByAdamState
from optfx.tree import Tree, elementwise, record, zeros_like


def adamax(g: Tensor, m: Tensor, v: Tensor, w1: Any, b2: Any, eps: Any, c1: Any) -> Any:
    m = torch.lerp(m, g, w1)
    v = torch.maximum(b2 * v, g.abs() + eps)
    return (m / c1) / v.clamp_min(torch.finfo(v.dtype).tiny), m, v


@record
class scale_by_adamax(GradientTransformation):
    r"""Divide a running mean of the gradient by its largest absolute value so far, which fades.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \max(\beta_2 v_{t-1},\; |g_t| + \varepsilon), \qquad
    u_t = \frac{m_t / (1 - \beta_1^t)}{v_t}$$

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the largest value is kept.
        eps: $\varepsilon$.

    Reference: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, <https://arxiv.org/abs/1412.6980>,
        section 7.1; optax, `scale_by_adamax`; `torch.optim.Adamax`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_adamax()
        >>> tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 1.0000, -1.0000])}
    """

    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8

    def init(self, params: Tree) -> ScaleByAdamState:
        return ScaleByAdamState(counter(params), zeros_like(params), zeros_like(params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        b1, b2, eps = (at(state.count, h) for h in (self.b1, self.b2, self.eps))
        count = state.count + 1
        scalars = {"w1": 1 - b1, "b2": b2, "eps": eps, "c1": bias_correction(b1, count)}
        updates, mu, nu = elementwise(adamax, updates, state.mu, state.nu, outs=3, **scalars)
        return updates, ScaleByAdamState(count, mu, nu)
