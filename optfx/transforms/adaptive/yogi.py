"""Yogi's preconditioner: Adam's, with a mean of squares that moves by no more than the square that comes in."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.transforms.adaptive.rms import filled
from optfx.tree import Tree


class ScaleByYogiState(NamedTuple):
    """The state of `scale_by_yogi`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, what stands for the mean of its square


def yogi(g: Tensor, m: Tensor, v: Tensor, b1, b2, eps, eps_root, c1, c2) -> tuple[Tensor, Tensor, Tensor]:
    m = tree.mean(m, g, b1)
    v = v - (1 - b2) * torch.sign(v - g * g) * g * g
    return (m / c1) / (tree.safe_sqrt(v / c2 + eps_root) + eps), m, v


@tree.record
class scale_by_yogi(GradientTransformation):
    r"""Adam with a mean of squares that changes by additions, not by a factor.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad
    v_t = v_{t-1} - (1 - \beta_2) \operatorname{sign}(v_{t-1} - g_t^2)\, g_t^2$$

    $$u_t = \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t) + \bar\varepsilon} + \varepsilon}, \qquad
    m_0 = v_0 = a$$

    After large gradients, small ones hardly lower $v$, so the rate does not shoot up.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$; a share of $1 - \beta_2$ of each square goes into $v$.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        initial_accumulator_value: $a$, where both begin; a schedule is read at step 0.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of $v$; None for that of the parameters.

    Reference: Zaheer et al., "Adaptive Methods for Nonconvex Optimization", 2018,
        <https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization>; optax, `scale_by_yogi`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_yogi()
        >>> updates, state = tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))
        >>> updates, state.nu
        ({'w': tensor([ 0.9998, -0.9444])}, {'w': tensor([2.5001e-02, 1.1000e-05])})
    """

    b1: Beta = 0.9
    b2: Beta = 0.999
    eps: NonNegative = 1e-3
    eps_root: NonNegative = 0.0
    initial_accumulator_value: NonNegative = 1e-6
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByYogiState:
        count = core.counter(params)
        value = self.at(count)["initial_accumulator_value"]
        return ScaleByYogiState(count, filled(params, value, self.mu_dtype), filled(params, value, self.nu_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        del now["initial_accumulator_value"]  # it is in the state
        now |= {"c1": core.bias_correction(now["b1"], count), "c2": core.bias_correction(now["b2"], count)}
        updates, mu, nu = tree.elementwise(yogi, updates, state.mu, state.nu, outs=3, **now)
        return updates, ScaleByYogiState(count, mu, nu)
