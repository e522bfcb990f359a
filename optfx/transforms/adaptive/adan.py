"""Adan's preconditioner: Adam's, with Nesterov's momentum written in differences of gradients."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.tree import Tree


class ScaleByAdanState(NamedTuple):
    """The state of `scale_by_adan`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, m, running mean of the gradient
    change: Tree  # like params, v, running mean of its change from step to step
    nu: Tree  # like params, n, running mean of the square of the gradient that looks ahead
    previous_gradient: Tree  # like params


def adan(
    g: Tensor, m: Tensor, v: Tensor, n: Tensor, last: Tensor, b1, b2, b3, eps, eps_root, c1, c2, c3, first
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    change = torch.where(first, torch.zeros_like(g), g - last)
    m = tree.mean(m, g, b1)
    v = tree.mean(v, change, b2)
    n = tree.mean(n, (g + b2 * change) ** 2, b3)
    u = (m / c1 + b2 * (v / c2)) / (tree.safe_sqrt(n / c3 + eps_root) + eps)
    return u, m, v, n, g.clone()  # the gradient itself is the caller's


@tree.record
class scale_by_adan(GradientTransformation):
    r"""Adam with Nesterov's momentum, estimated from the change of the gradient.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, d_t, \qquad
    n_t = \beta_3 n_{t-1} + (1 - \beta_3)\, (g_t + \beta_2 d_t)^2$$

    $$u_t = \frac{\hat m_t + \beta_2 \hat v_t}{\sqrt{\hat n_t + \bar\varepsilon} + \varepsilon}, \qquad
    d_t = g_t - g_{t-1}, \quad d_1 = 0$$

    where a hat is the correction for having begun at zero, $\hat m_t = m_t / (1 - \beta_1^t)$. The $\beta$ are shares
    that are kept; the paper writes $1 - \beta$ for them.

    Args:
        b1: $\beta_1$, how much of the mean of gradients is kept at each step.
        b2: $\beta_2$, how much of the mean of changes is kept, and how far to look ahead.
        b3: $\beta_3$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        mu_dtype: the dtype of $m$, $v$ and the last gradient; None for that of the parameters.
        nu_dtype: the dtype of $n$; None for that of the parameters.

    optax looks ahead by $1 - \beta_2$, where the paper, its authors' code and other libraries have $\beta_2$.

    Reference: Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models", 2022,
        <https://arxiv.org/abs/2208.06677>; optax, `scale_by_adan`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_adan()
        >>> _, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))
        >>> tx.update({"w": torch.tensor([5.0, 0.1])}, state)[0]
        {'w': tensor([1.0000, 0.4540])}
    """

    b1: Beta = 0.98
    b2: Beta = 0.92
    b3: Beta = 0.99
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByAdanState:
        mu, change, previous = (tree.zeros_like(params, self.mu_dtype) for _ in range(3))
        return ScaleByAdanState(core.counter(params), mu, change, tree.zeros_like(params, self.nu_dtype), previous)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        now |= {f"c{k}": core.bias_correction(now[f"b{k}"], count) for k in (1, 2, 3)}
        updates, *kept = tree.elementwise(adan, updates, *state[1:], outs=5, first=state.count == 0, **now)
        return updates, ScaleByAdanState(count, *kept)
