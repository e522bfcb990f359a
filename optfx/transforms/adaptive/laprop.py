"""LaProp's preconditioner: first divide by the root mean square, then take the mean."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.transforms.adaptive.rms import rms
from optfx.transforms.momentum import average
from optfx.tree import Tree


class ScaleByLapropState(NamedTuple):
    """The state of `scale_by_laprop`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the divided gradient
    nu: Tree  # like params, running mean of the squared gradient


def laprop(g: Tensor, m: Tensor, v: Tensor, b1, b2, eps, c1, c2) -> tuple[Tensor, Tensor, Tensor]:
    u, v = rms(g, v, b2, eps, c2, eps_in_sqrt=False)
    u, m = average(u, m, b1, c1)
    return u, m, v


@tree.record
class scale_by_laprop(GradientTransformation):
    r"""Take a running mean of the gradient divided by its root mean square.

    $$v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2, \qquad
    m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, \frac{g_t}{\sqrt{v_t / (1 - \beta_2^t)} + \varepsilon}, \qquad
    u_t = \frac{m_t}{1 - \beta_1^t}$$

    Adam takes the mean first and divides then. This way round, no update is longer than the longest divided gradient,
    whatever $\beta_1$ and $\beta_2$. It is `scale_by_rms` with the correction, and then `ema`.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        eps: $\varepsilon$, added to the root.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    Reference: Ziyin et al., "LaProp: Separating Momentum and Adaptivity in Adam", 2020,
        <https://arxiv.org/abs/2002.04839>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_laprop()
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))
        >>> updates, state.mu
        ({'w': tensor([ 1.0000, -1.0000])}, {'w': tensor([ 0.1000, -0.1000])})
    """

    b1: Beta = 0.9
    b2: Beta = 0.999
    eps: NonNegative = 1e-15
    mu_dtype: torch.dtype | None = None
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByLapropState:
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleByLapropState(core.counter(params), mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        now |= {"c1": core.bias_correction(now["b1"], count), "c2": core.bias_correction(now["b2"], count)}
        updates, mu, nu = tree.elementwise(laprop, updates, state.mu, state.nu, outs=3, **now)
        return updates, ScaleByLapropState(count, mu, nu)
