"""Adam without an epsilon: the arc tangent of the ratio of its two means."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, Hyper, NonNegative
from optfx.tree import Tree


class ScaleByAdamAtan2State(NamedTuple):
    """The state of `scale_by_adam_atan2`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, running mean of its square


def adam_atan2(
    g: Tensor, m: Tensor, v: Tensor, b1, b2, angle_scale, root_scale, c1, c2
) -> tuple[Tensor, Tensor, Tensor]:
    m = tree.mean(m, g, b1)
    v = tree.mean(v, g * g, b2)
    angle = torch.atan2(m / c1, root_scale * tree.safe_sqrt(v / c2))
    return angle_scale * torch.where(v > 0, angle, torch.zeros_like(m)), m, v  # at 0, 0 an angle has no derivative


@tree.record
class scale_by_adam_atan2(GradientTransformation):
    r"""Adam with an arc tangent in place of the division, so that it needs no epsilon.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2$$

    $$u_t = a\, \operatorname{atan2}\left(\frac{m_t}{1 - \beta_1^t},\; b\, \sqrt{\frac{v_t}{1 - \beta_2^t}}\right)$$

    The update is the same for gradients of any size, and each element lies within $\pm a\, \pi / 2$.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        angle_scale: $a$, the factor of the angle; with $4 / \pi$, about 1.27, a gradient that never changes gives 1, as
            in Adam.
        root_scale: $b$, the factor of the root: large values make the update more like Adam's, $a / b$ times as long.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    Reference: Everett et al., "Scaling Exponents Across Parameterizations and Optimizers", 2024,
        <https://arxiv.org/abs/2407.05872>; the package adam-atan2-pytorch.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_adam_atan2()
        >>> tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 0.9975, -0.9975])}
    """

    b1: Beta = 0.9
    b2: Beta = 0.99
    angle_scale: Hyper = 1.27
    root_scale: NonNegative = 1.0
    mu_dtype: torch.dtype | None = None
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByAdamAtan2State:
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleByAdamAtan2State(core.counter(params), mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        now |= {"c1": core.bias_correction(now["b1"], count), "c2": core.bias_correction(now["b2"], count)}
        updates, mu, nu = tree.elementwise(adam_atan2, updates, state.mu, state.nu, outs=3, **now)
        return updates, ScaleByAdamAtan2State(count, mu, nu)
