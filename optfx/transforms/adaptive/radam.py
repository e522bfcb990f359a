"""RAdam's preconditioner: Adam's, rectified for the variance of the mean of squares."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, Hyper, NonNegative
from optfx.transforms.adaptive.adam import ScaleByAdamState, corrected, numbers_of
from optfx.tree import Tree


def radam(
    g: Tensor, m: Tensor, v: Tensor, b1, b2, eps, eps_root, c1, c1_next, c2, rectified, tractable
) -> tuple[Tensor, Tensor, Tensor]:
    m = tree.mean(m, g, b1)
    v = tree.mean(v, g * g, b2)
    m_hat = corrected(g, m, b1, c1, c1_next)
    return torch.where(tractable, rectified * m_hat / (tree.safe_sqrt(v / c2 + eps_root) + eps), m_hat), m, v


def rectification(b2: Any, t: Tensor, threshold: Any) -> tuple[Tensor, Tensor]:
    """How much of Adam's step the variance of its mean of squares allows after `t` steps, in float64, and whether that
    variance is tractable; 1 where it is not."""
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * t * b2**t / (1 - b2**t)
    tractable = (length >= threshold) & (length > 4)
    # the inner wheres keep the derivative finite where the root is unused
    above = torch.where(tractable, (length - 4) * (length - 2) * longest, 1.0)
    below = torch.where(tractable, (longest - 4) * (longest - 2) * length, 1.0)
    return (above / below).sqrt(), tractable


@tree.record
class scale_by_radam(GradientTransformation):
    r"""Adam, rectified for the variance of its mean of squares; momentum alone while that variance is intractable.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2$$

    $$\rho_\infty = \frac{2}{1 - \beta_2} - 1, \qquad \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}, \qquad
    r_t = \sqrt{\frac{(\rho_t - 4)(\rho_t - 2)\, \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2)\, \rho_t}}$$

    $$u_t = \frac{r_t\, \hat m_t}{\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon} \;\text{ where } \rho_t \ge \theta,
    \qquad u_t = \hat m_t \;\text{ before}$$

    with $\hat m_t$ and $\hat v_t$ as in `scale_by_adam`.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        threshold: $\theta$; values below 4, where $r_t$ is undefined, count as 4.
        nesterov: look ahead, see `scale_by_adam`.
        eps_before_correction: add $\varepsilon$ to $\sqrt{v_t}$ before the correction (torch), so that the formula has
            $\varepsilon / \sqrt{1 - \beta_2^t}$ instead.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    Reference: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2019,
        <https://arxiv.org/abs/1908.03265>; optax, `scale_by_radam`; `torch.optim.RAdam`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_radam()
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))
        >>> updates
        {'w': tensor([ 5.0000, -0.1000])}
    """

    b1: Beta = 0.9
    b2: Beta = 0.999
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    threshold: Hyper = 5.0
    nesterov: bool = dataclasses.field(default=False, kw_only=True)
    eps_before_correction: bool = dataclasses.field(default=False, kw_only=True)
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByAdamState:
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleByAdamState(core.counter(params), mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = numbers_of(self, state.count), state.count + 1
        t = count.to(tree.scalar_dtype(count.device))
        rectified, tractable = rectification(now["b2"], t, now.pop("threshold"))
        now |= {"rectified": rectified, "tractable": tractable}
        if self.eps_before_correction:
            now["eps"] = now["eps"] / now["c2"].sqrt()
        updates, mu, nu = tree.elementwise(radam, updates, state.mu, state.nu, outs=3, **now)
        return updates, ScaleByAdamState(count, mu, nu)
