"""Adam's preconditioner: a running mean of the gradient over a running root mean square of it."""

from __future__ import annotations

import dataclasses
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


def adam(g: Tensor, m: Tensor, v: Tensor, w1: Any, w2: Any, eps: Any, eps_root: Any, c1: Any, c2: Any) -> Any:
    m = torch.lerp(m, g, w1)
    v = torch.lerp(v, g * g, w2)
    return (m / c1) / (safe_sqrt(v / c2 + eps_root) + eps), m, v


def nadam(
    g: Tensor, m: Tensor, v: Tensor, w1: Any, w2: Any, eps: Any, eps_root: Any, c1: Any, c1_next: Any, c2: Any
) -> Any:
    m = torch.lerp(m, g, w1)
    v = torch.lerp(v, g * g, w2)
    ahead = (1 - w1) * m / c1_next + w1 * g / c1
    return ahead / (safe_sqrt(v / c2 + eps_root) + eps), m, v


@record
class scale_by_adam(GradientTransformation):
    r"""Divide a running mean of the gradient by a running root mean square of it.

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
        nesterov: look ahead (NAdam).

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

    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    mu_dtype: torch.dtype | None = None
    nesterov: bool = dataclasses.field(default=False, kw_only=True)

    def init(self, params: Tree) -> ScaleByAdamState:
        return ScaleByAdamState(counter(params), zeros_like(params, self.mu_dtype), zeros_like(params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        b1, b2, eps, eps_root = (at(state.count, h) for h in (self.b1, self.b2, self.eps, self.eps_root))
        count = state.count + 1
        scalars = {"w1": 1 - b1, "w2": 1 - b2, "eps": eps, "eps_root": eps_root}
        scalars |= {"c1": bias_correction(b1, count), "c2": bias_correction(b2, count)}
        if self.nesterov:
            scalars["c1_next"] = bias_correction(b1, count + 1)
        rule = nadam if self.nesterov else adam
        updates, mu, nu = elementwise(rule, updates, state.mu, state.nu, outs=3, **scalars)
        return updates, ScaleByAdamState(count, mu, nu)
