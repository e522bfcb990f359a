"""ADOPT: Adam's means in the other order, so that the mean of squares does not know the gradient that it divides."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, NonNegative
from optfx.transforms.adaptive.first import at_first
from optfx.tree import Tree


class ScaleByAdoptState(NamedTuple):
    """The state of `scale_by_adopt`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the normalized gradient
    nu: Tree  # like params, running mean of the squared gradient


def adopt(g: Tensor, m: Tensor, v: Tensor, b1, b2, eps, limit, nesterov: bool) -> tuple[Tensor, Tensor, Tensor]:
    normalized = g / tree.safe_sqrt(v).clamp(min=eps)
    if limit is not None:
        normalized = normalized.clamp(-limit, limit)
    m = tree.mean(m, normalized, b1)
    return (tree.mean(m, normalized, b1) if nesterov else m), m, tree.mean(v, g * g, b2)


@tree.record
class scale_by_adopt(GradientTransformation):
    r"""Take a running mean of the gradient over its root mean square until the step before.

    $$n_t = \operatorname{clip}\!\left(\frac{g_t}{\max(\sqrt{v_{t-1}}, \varepsilon)},\, \pm c_t\right), \qquad
    m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, n_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2$$

    $$u_t = m_t, \qquad m_0 = 0, \quad v_0 = g_0^2, \quad u_0 = 0$$

    The first update is zero: it only begins the mean of squares. The second is $t = 1$.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, the least to divide by.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nesterov: look ahead: $u_t = \beta_1 m_t + (1 - \beta_1)\, n_t$.
        use_clipping: False leaves out the clipping.
        clip_value_fn: $c_t$, a number, or a schedule of the steps taken; None for $t^{1/4}$.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    Other packages differ: pytorch_optimizer clips at $(t + 1)^{1/4}$, since it counts the first step too. HeavyBall
    does not clip, and divides both means by $1 - \beta^t$, which nothing calls for, as $v_0$ is no zero. The paper and
    its authors' code have the formulas above.

    Reference: Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any β2 with the Optimal Rate", 2024,
        <https://arxiv.org/abs/2411.02853>; optax, `contrib.scale_by_adopt`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_adopt(b1=0.75)
        >>> state = tx.init({"w": torch.zeros(2)})
        >>> for _ in range(2):
        ...     updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, state)
        ...     print(updates)
        {'w': tensor([0., 0.])}
        {'w': tensor([ 0.2500, -0.2500])}
    """

    b1: Decay = 0.9
    b2: Decay = 0.9999
    eps: NonNegative = 1e-6
    mu_dtype: torch.dtype | None = None
    nesterov: bool = dataclasses.field(default=False, kw_only=True)
    use_clipping: bool = dataclasses.field(default=True, kw_only=True)
    clip_value_fn: NonNegative | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByAdoptState:
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleByAdoptState(core.counter(params), mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count
        limit = now["clip_value_fn"]
        if limit is None:
            limit = count.to(tree.scalar_dtype(count.device)) ** 0.25
        updates, mu, nu = tree.elementwise(
            adopt,
            updates,
            state.mu,
            state.nu,
            outs=3,
            b1=at_first(1.0, count, now["b1"]),
            b2=at_first(0.0, count, now["b2"]),
            eps=now["eps"],
            limit=limit if self.use_clipping else None,
            nesterov=self.nesterov,
        )
        return updates, ScaleByAdoptState(count + 1, mu, nu)
