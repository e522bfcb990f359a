"""Adamax's preconditioner: a running mean of the gradient over a decaying maximum of its absolute value."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.tree import Tree


class ScaleByAdamaxState(NamedTuple):
    """The state of `scale_by_adamax`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, decaying maximum of its absolute value


def adamax(g: Tensor, m: Tensor, v: Tensor, b1, b2, eps, c1) -> tuple[Tensor, Tensor, Tensor]:
    m = tree.mean(m, g, b1)
    v = torch.maximum(b2 * v, g.abs() + eps)
    return m / c1 / v, m, v


@tree.record
class scale_by_adamax(GradientTransformation):
    r"""Divide a running mean of the gradient by a decaying maximum of its absolute value.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \max(\beta_2 v_{t-1},\; |g_t| + \varepsilon), \qquad
    u_t = \frac{m_t}{(1 - \beta_1^t)\, v_t}$$

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the maximum is kept.
        eps: $\varepsilon$, which keeps the maximum from being zero.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of the maximum; None for that of the parameters.

    Reference: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, <https://arxiv.org/abs/1412.6980>;
        optax, `scale_by_adamax`; `torch.optim.Adamax`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_adamax()
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))
        >>> updates, state.nu
        ({'w': tensor([ 1.0000, -1.0000])}, {'w': tensor([5.0000, 0.1000])})
    """

    b1: Beta = 0.9
    b2: NonNegative = 0.999
    eps: NonNegative = 1e-8
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByAdamaxState:
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleByAdamaxState(core.counter(params), mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        now["c1"] = core.bias_correction(now["b1"], count)
        updates, mu, nu = tree.elementwise(adamax, updates, state.mu, state.nu, outs=3, **now)
        return updates, ScaleByAdamaxState(count, mu, nu)
