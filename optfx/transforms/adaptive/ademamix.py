"""AdEMAMix: Adam with a slow mean of the gradient beside the fast one, and its simplification with a single one."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, Decay, GradientTransformation, Hyper, NonNegative
from optfx.tree import Tree


class ScaleByAdemamixState(NamedTuple):
    """The state of `scale_by_ademamix`."""

    count: Tensor  # () int64, steps taken
    m1: Tree  # like params, fast mean of the gradient
    m2: Tree  # like params, slow mean of the gradient
    nu: Tree  # like params, running mean of its square


def ademamix(
    g: Tensor, m1: Tensor, m2: Tensor, v: Tensor, b1, b2, b3, alpha, eps, eps_root, c1, c2
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    m1 = tree.mean(m1, g, b1)
    m2 = tree.mean(m2, g, b3)
    v = tree.mean(v, g * g, b2)
    return (m1 / c1 + alpha * m2) / (tree.safe_sqrt(v / c2 + eps_root) + eps), m1, m2, v


@tree.record
class scale_by_ademamix(GradientTransformation):
    r"""Adam with a second mean of the gradient, which remembers it for thousands of steps.

    $$m^{(1)}_t = \beta_1 m^{(1)}_{t-1} + (1 - \beta_1)\, g_t, \qquad
    m^{(2)}_t = \beta_3 m^{(2)}_{t-1} + (1 - \beta_3)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2$$

    $$u_t = \frac{m^{(1)}_t / (1 - \beta_1^t) + \alpha\, m^{(2)}_t}
    {\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon}$$

    The slow mean is not corrected for having begun at zero: it is to fill slowly.

    Args:
        b1: $\beta_1$, how much of the fast mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        b3: $\beta_3$, how much of the slow mean is kept. In the paper it grows from $\beta_1$ by
            `schedules.half_life_schedule`.
        alpha: $\alpha$, the weight of the slow mean. In the paper it grows from zero by `schedules.linear_schedule`.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        mu_dtype: the dtype of both means; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    A schedule counts from 0 here, as everywhere, and from 1 in the paper and in pytorch_optimizer. HeavyBall has
    $\alpha = 2$ and no schedules.

    Reference: Pagliardini et al., "The AdEMAMix Optimizer: Better, Faster, Older", 2024,
        <https://arxiv.org/abs/2409.03137>; optax, `contrib.scale_by_ademamix`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_ademamix(b3=0.5, alpha=2.0)
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))
        >>> updates
        {'w': tensor([ 2.0000, -2.0000])}
    """

    b1: Beta = 0.9
    b2: Beta = 0.999
    b3: Decay = 0.9999
    alpha: Hyper = 6.0
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: torch.dtype | None = None
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByAdemamixState:
        m1, m2 = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.mu_dtype)
        return ScaleByAdemamixState(core.counter(params), m1, m2, tree.zeros_like(params, self.nu_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        now |= {"c1": core.bias_correction(now["b1"], count), "c2": core.bias_correction(now["b2"], count)}
        updates, m1, m2, nu = tree.elementwise(ademamix, updates, state.m1, state.m2, state.nu, outs=4, **now)
        return updates, ScaleByAdemamixState(count, m1, m2, nu)


class ScaleBySimplifiedAdemamixState(NamedTuple):
    """The state of `scale_by_simplified_ademamix`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, decaying sum of the gradient
    nu: Tree  # like params, running mean of its square


def simplified(g: Tensor, m: Tensor, v: Tensor, b1, b2, alpha, eps, eps_root, c2) -> tuple[Tensor, Tensor, Tensor]:
    m = b1 * m + g
    v = tree.mean(v, g * g, b2)
    return (m + alpha * g) / (tree.safe_sqrt(v / c2 + eps_root) + eps), m, v


@tree.record
class scale_by_simplified_ademamix(GradientTransformation):
    r"""AdEMAMix with one sum of the gradient, which the gradient itself is mixed with.

    $$m_t = \beta_1 m_{t-1} + g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2, \qquad
    u_t = \frac{m_t + \alpha\, g_t}{\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon}$$

    Args:
        b1: $\beta_1$, how much of the sum is kept at each step. It is a sum, not a mean: it grows to
            $1 / (1 - \beta_1)$ times the gradient, so the learning rate is that much smaller than Adam's.
        b2: $\beta_2$, how much of the mean of squares is kept.
        alpha: $\alpha$, the weight of the gradient beside the sum; 0 leaves Adam without the correction of its mean.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        mu_dtype: the dtype of the sum; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    pytorch_optimizer has a mean in place of the sum, and another correction.

    Reference: Morwani et al., "Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants",
        2025, <https://arxiv.org/abs/2502.02431>; optax, `contrib.scale_by_simplified_ademamix`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_simplified_ademamix(alpha=2.0)
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))
        >>> updates
        {'w': tensor([ 3.0000, -3.0000])}
    """

    b1: Decay = 0.99
    b2: Beta = 0.95
    alpha: Hyper = 0.0
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleBySimplifiedAdemamixState:
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleBySimplifiedAdemamixState(core.counter(params), mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        now["c2"] = core.bias_correction(now["b2"], count)
        updates, mu, nu = tree.elementwise(simplified, updates, state.mu, state.nu, outs=3, **now)
        return updates, ScaleBySimplifiedAdemamixState(count, mu, nu)
