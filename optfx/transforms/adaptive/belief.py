"""Belief: divide by how far the gradient is from its running mean, now (AdaBelief) or until the last step (ACProp)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.transforms.adaptive.adam import corrected, numbers_of
from optfx.tree import Tree


class ScaleByBeliefState(NamedTuple):
    """The state of `scale_by_belief` and of `scale_by_acprop`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, running mean of its squared distance from that mean


def begin(tx: Any, params: Tree) -> ScaleByBeliefState:
    mu, nu = tree.zeros_like(params, tx.mu_dtype), tree.zeros_like(params, tx.nu_dtype)
    return ScaleByBeliefState(core.counter(params), mu, nu)


def belief(g: Tensor, m: Tensor, s: Tensor, b1, b2, eps, eps_root, c1, c1_next, c2) -> tuple[Tensor, Tensor, Tensor]:
    m = tree.mean(m, g, b1)
    s = tree.mean(s, (g - m) ** 2, b2) + eps_root
    return corrected(g, m, b1, c1, c1_next) / (tree.safe_sqrt(s / c2) + eps), m, s


@tree.record
class scale_by_belief(GradientTransformation):
    r"""Divide a running mean of the gradient by the root mean square of the gradient's distance from it.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad
    s_t = \beta_2 s_{t-1} + (1 - \beta_2)\, (g_t - m_t)^2 + \bar\varepsilon$$

    $$u_t = \frac{\hat m_t}{\sqrt{\hat s_t} + \varepsilon}, \qquad
    \hat m_t = \frac{m_t}{1 - \beta_1^t}, \quad \hat s_t = \frac{s_t}{1 - \beta_2^t}$$

    The step is long where the gradient is what its mean foretold, and short where it is not.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added to the mean of squares at each step, and kept in it.
        nesterov: look ahead, see `scale_by_adam`.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    Reference: Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients", 2020,
        <https://arxiv.org/abs/2010.07468>; optax, `scale_by_belief`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_belief()
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))
        >>> updates
        {'w': tensor([ 1.1111, -1.1111])}
    """

    b1: Beta = 0.9
    b2: Beta = 0.999
    eps: NonNegative = 1e-16
    eps_root: NonNegative = 1e-16
    nesterov: bool = dataclasses.field(default=False, kw_only=True)
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByBeliefState:
        return begin(self, params)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now = numbers_of(self, state.count)
        updates, mu, nu = tree.elementwise(belief, updates, state.mu, state.nu, outs=3, **now)
        return updates, ScaleByBeliefState(state.count + 1, mu, nu)


def acprop(g: Tensor, m: Tensor, s: Tensor, b1, b2, eps, eps_root, c2, first) -> tuple[Tensor, Tensor, Tensor]:
    root = torch.where(first, torch.ones_like(s), tree.safe_sqrt(s / c2))
    m = tree.mean(m, g, b1)
    return g / (root + eps), m, tree.mean(s, (g - m) ** 2, b2) + eps_root


@tree.record
class scale_by_acprop(GradientTransformation):
    r"""Divide the gradient by AdaBelief's root, as it was before this gradient.

    $$u_t = \frac{g_t}{\sqrt{\hat s_{t-1}} + \varepsilon}, \qquad
    \hat s_{t-1} = \frac{s_{t-1}}{1 - \beta_2^{t-1}}, \quad \hat s_0 = 1$$

    with $m_t$ and $s_t$ as in `scale_by_belief`. A gradient that has no part in its own denominator leaves the step
    unbiased.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added to the mean of squares at each step, and kept in it.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    The first steps are long: the first is the gradient itself, and where the first gradient is zero, the next one is
    divided by little more than $\varepsilon$. So clip, or warm up the rate.

    Reference: Zhuang et al., "Momentum Centering and Asynchronous Update for Adaptive Gradient Methods", 2021,
        <https://arxiv.org/abs/2110.05454>; optax, `contrib.scale_by_acprop`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_acprop(b1=0.5)
        >>> _, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))
        >>> tx.update({"w": torch.tensor([5.0, 0.1])}, state)[0]
        {'w': tensor([2., 2.])}
    """

    b1: Beta = 0.9
    b2: Beta = 0.999
    eps: NonNegative = 1e-16
    eps_root: NonNegative = 1e-16
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByBeliefState:
        return begin(self, params)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, first = self.at(state.count), state.count == 0
        c2 = core.bias_correction(now["b2"], state.count + first)  # of the steps before, and never 1 - b2**0
        updates, mu, nu = tree.elementwise(acprop, updates, state.mu, state.nu, outs=3, c2=c2, first=first, **now)
        return updates, ScaleByBeliefState(state.count + 1, mu, nu)
