"""NAdam's preconditioner: Adam's with Nesterov's lookahead, and a momentum that warms up."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.core import GradientTransformation, Hyper, at, bias_correction, counter, wide
from optfx.tree import Tree, elementwise, record, safe_sqrt, zeros_like


class ScaleByNadamState(NamedTuple):
    """The state of `scale_by_nadam`."""

    count: Tensor  # () int64, steps taken
    mu_product: Tensor  # () float64, the product of the momenta so far
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, running mean of its square


def nadam(
    g: Tensor, m: Tensor, v: Tensor, w1: Any, w2: Any, eps: Any, eps_root: Any, of_g: Any, of_m: Any, c2: Any
) -> Any:
    m = torch.lerp(m, g, w1)
    v = torch.lerp(v, g * g, w2)
    return (of_g * g + of_m * m) / (safe_sqrt(v / c2 + eps_root) + eps), m, v


@record
class scale_by_nadam(GradientTransformation):
    r"""Adam's preconditioner with Nesterov's lookahead and a momentum that grows from half of $\beta_1$.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2, \qquad
    \mu_t = \beta_1 \left(1 - \tfrac12\, 0.96^{t \psi}\right)$$

    $$u_t = \left(\frac{\mu_{t+1}\, m_t}{1 - \prod_{i=1}^{t+1} \mu_i} +
    \frac{(1 - \mu_t)\, g_t}{1 - \prod_{i=1}^t \mu_i} \right)
    \Big/ \left(\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon\right)$$

    As $\psi$ grows it becomes `scale_by_adam(nesterov=True)`.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step, and the momentum in the end.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        momentum_decay: $\psi$, how fast the momentum grows.

    Reference: Dozat, "Incorporating Nesterov Momentum into Adam", 2016, <https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ>;
        `torch.optim.NAdam`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_nadam()
        >>> tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 1.0565, -1.0565])}
    """

    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    momentum_decay: Hyper = 4e-3

    def init(self, params: Tree) -> ScaleByNadamState:
        count = counter(params)
        one = torch.ones((), dtype=wide(count.device), device=count.device)
        return ScaleByNadamState(count, one, zeros_like(params), zeros_like(params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        b1, b2, eps, eps_root, decay = (
            at(state.count, h) for h in (self.b1, self.b2, self.eps, self.eps_root, self.momentum_decay)
        )
        count = state.count + 1
        t = count.to(wide(count.device))
        now, ahead = (b1 * (1 - 0.5 * 0.96 ** (k * decay)) for k in (t, t + 1))
        product = state.mu_product * now
        updates, mu, nu = elementwise(
            nadam,
            updates,
            state.mu,
            state.nu,
            outs=3,
            w1=1 - b1,
            w2=1 - b2,
            eps=eps,
            eps_root=eps_root,
            of_g=(1 - now) / (1 - product),
            of_m=ahead / (1 - product * ahead),
            c2=bias_correction(b2, count),
        )
        return updates, ScaleByNadamState(count, product, mu, nu)
