"""Adam's preconditioner: a running mean of the gradient over a running RMS of it.

    m_t = b1 m_{t-1} + (1 - b1) g_t
    v_t = b2 v_{t-1} + (1 - b2) g_t^2
    u_t = m_t / (1 - b1^t) / (sqrt(v_t / (1 - b2^t) + eps_root) + eps)

Reference: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, https://arxiv.org/abs/1412.6980
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.core import GradientTransformation, Hyper, at, bias_correction, counter
from optfx.tree import Tree, elementwise, record, safe_sqrt, zeros_like


class ScaleByAdamState(NamedTuple):
    """The state of `scale_by_adam`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, running mean of its square


def adam(g: Tensor, m: Tensor, v: Tensor, b1: Any, b2: Any, eps: Any, eps_root: Any, c1: Any, c2: Any) -> Any:
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    return (m / c1) / (safe_sqrt(v / c2 + eps_root) + eps), m, v


@record
class scale_by_adam(GradientTransformation):
    """Divide a running mean of the gradient by a running RMS of it."""

    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    mu_dtype: torch.dtype | None = None

    def init(self, params: Tree) -> ScaleByAdamState:
        return ScaleByAdamState(counter(params), zeros_like(params, self.mu_dtype), zeros_like(params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        b1, b2, eps, eps_root = (at(state.count, h) for h in (self.b1, self.b2, self.eps, self.eps_root))
        count = state.count + 1
        updates, mu, nu = elementwise(
            adam, updates, state.mu, state.nu, outs=3, b1=b1, b2=b2, eps=eps, eps_root=eps_root,
            c1=bias_correction(b1, count), c2=bias_correction(b2, count))
        return updates, ScaleByAdamState(count, mu, nu)
