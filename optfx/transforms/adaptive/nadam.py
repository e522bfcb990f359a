"""NAdam's preconditioner as in its paper: Adam's, with Nesterov's lookahead and a growing momentum."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.tree import Tree


class ScaleByNadamState(NamedTuple):
    """The state of `scale_by_nadam`."""

    count: Tensor  # () int64, steps taken
    mu_product: Tensor  # () float64, the product of the momenta so far
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, running mean of its square


def nadam(g: Tensor, m: Tensor, v: Tensor, b1, b2, eps, eps_root, now, ahead, c2) -> tuple[Tensor, Tensor, Tensor]:
    m = tree.mean(m, g, b1)
    v = tree.mean(v, g * g, b2)
    return (now * g + ahead * m) / (tree.safe_sqrt(v / c2 + eps_root) + eps), m, v


@tree.record
class scale_by_nadam(GradientTransformation):
    r"""Adam with Nesterov's lookahead and a momentum that grows from half of $\beta_1$ to all of it.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2$$

    $$\mu_t = \beta_1 \left(1 - \tfrac12\, 0.96^{\,t \psi}\right), \qquad \Pi_t = \prod_{s \le t} \mu_s$$

    $$u_t = \left(\frac{\mu_{t+1}\, m_t}{1 - \Pi_{t+1}} + \frac{(1 - \mu_t)\, g_t}{1 - \Pi_t}\right) \Big/
    \left(\sqrt{\frac{v_t}{1 - \beta_2^t} + \bar\varepsilon} + \varepsilon\right)$$

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        momentum_decay: $\psi$, how fast the momentum grows.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    This is torch's NAdam and the paper's. optax's is `scale_by_adam(nesterov=True)`, whose momentum is constant: the
    limit of a large `momentum_decay`. The optimizer `nadam` is built on either.

    Reference: Dozat, "Incorporating Nesterov Momentum into Adam", 2016,
        <https://openreview.net/pdf?id=OM0jvwB8jIp57ZJjtNEZ>; `torch.optim.NAdam`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_nadam()
        >>> updates, state = tx.update({"w": torch.tensor([5.0])}, tx.init({"w": torch.zeros(1)}))
        >>> updates, state.mu_product
        ({'w': tensor([1.0565])}, tensor(0.4501, dtype=torch.float64))
    """

    b1: Beta = 0.9
    b2: Beta = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: torch.dtype | None = None
    momentum_decay: NonNegative = 4e-3
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByNadamState:
        count = core.counter(params)
        product = torch.ones_like(count, dtype=tree.scalar_dtype(count.device))
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleByNadamState(count, product, mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        t, psi = count.to(tree.scalar_dtype(count.device)), now.pop("momentum_decay")
        momentum, following = (now["b1"] * (1 - 0.5 * 0.96 ** (s * psi)) for s in (t, t + 1))
        product = state.mu_product * momentum
        updates, mu, nu = tree.elementwise(
            nadam,
            updates,
            state.mu,
            state.nu,
            outs=3,
            now=(1 - momentum) / (1 - product),
            ahead=following / (1 - product * following),
            c2=core.bias_correction(now["b2"], count),
            **now,
        )
        return updates, ScaleByNadamState(count, product, mu, nu)
