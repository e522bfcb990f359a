"""Adam's preconditioner: a running mean of the gradient over its running root mean square."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.tree import Tree


class ScaleByAdamState(NamedTuple):
    """The state of `scale_by_adam`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, running mean of its square


def adam(g: Tensor, m: Tensor, v: Tensor, b1, b2, eps, eps_root, c1, c1_next, c2) -> tuple[Tensor, Tensor, Tensor]:
    m = tree.mean(m, g, b1)
    v = tree.mean(v, g * g, b2)
    return corrected(g, m, b1, c1, c1_next) / (tree.safe_sqrt(v / c2 + eps_root) + eps), m, v


def corrected(g: Tensor, m: Tensor, b1, c1, c1_next) -> Tensor:
    """The mean, corrected for having begun at zero; with `c1_next`, as it will be at the next step."""
    return m / c1 if c1_next is None else b1 * m / c1_next + (1 - b1) * g / c1


def numbers_of(tx: Any, count: Tensor) -> dict[str, Any]:
    """The numbers of Adam after `count` steps, and what its means are divided by in the next one."""
    now, t = tx.at(count), count + 1
    c1, c2 = (core.bias_correction(now[b], t) for b in ("b1", "b2"))
    return now | {"c1": c1, "c2": c2, "c1_next": core.bias_correction(now["b1"], t + 1) if tx.nesterov else None}


@tree.record
class scale_by_adam(GradientTransformation):
    r"""Divide a running mean of the gradient by its running root mean square.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2$$

    $$u_t = \frac{\hat m_t}{\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon}, \qquad
    \hat m_t = \frac{m_t}{1 - \beta_1^t}, \quad \hat v_t = \frac{v_t}{1 - \beta_2^t}$$

    With Nesterov's lookahead, $\hat m_t = \beta_1 m_t / (1 - \beta_1^{t+1}) + (1 - \beta_1)\, g_t / (1 - \beta_1^t)$.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nesterov: look ahead.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    With `nesterov=True` this is optax's NAdam, whose momentum is constant; `scale_by_nadam` is torch's and the paper's,
    whose momentum grows; the optimizer `nadam` is built on either.

    A complex parameter counts as two real ones, as in `torch.optim`.

    Reference: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, <https://arxiv.org/abs/1412.6980>;
        Dozat, "Incorporating Nesterov Momentum into Adam", 2016, <https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ>;
        optax, `scale_by_adam`; `torch.optim.Adam`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_adam()
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))
        >>> updates
        {'w': tensor([ 1.0000, -1.0000])}
    """

    b1: Beta = 0.9
    b2: Beta = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: torch.dtype | None = None
    nesterov: bool = dataclasses.field(default=False, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByAdamState:
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleByAdamState(core.counter(params), mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now = numbers_of(self, state.count)
        updates, mu, nu = tree.elementwise(adam, updates, state.mu, state.nu, outs=3, **now)
        return updates, ScaleByAdamState(state.count + 1, mu, nu)
