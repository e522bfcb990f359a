"""MADGRAD: dual averaging. Where the parameters go is computed from where they began and all gradients since."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, NonNegative
from optfx.tree import Tree


class ScaleByMadgradState(NamedTuple):
    """The state of `scale_by_madgrad`."""

    count: Tensor  # () int64, steps taken
    grad_sum_sq: Tree  # like params, weighted sum of the squared gradient
    s: Tree  # like params, weighted sum of the gradient
    x0: Tree  # like params, the parameters at the beginning


def cube_root(x: Tensor) -> Tensor:
    return x.clamp_min(torch.finfo(x.dtype).tiny) ** (1 / 3)  # whose derivative at zero is zero, as of `tree.safe_sqrt`


def madgrad(
    g: Tensor, v: Tensor, s: Tensor, x0: Tensor, p: Tensor, weight, momentum, eps
) -> tuple[Tensor, Tensor, Tensor]:
    v = v + weight * (g * g)
    s = s + weight * g
    z = x0 - s / (cube_root(v) + eps)
    return (1 - momentum) * (z - p), v, s


@tree.record
class scale_by_madgrad(GradientTransformation):
    r"""Go towards where the parameters began, less all gradients over the cube root of their squares. Needs params.

    $$\lambda_t = (\eta_t + \varepsilon) \sqrt t, \qquad v_t = v_{t-1} + \lambda_t\, g_t^2, \qquad
    s_t = s_{t-1} + \lambda_t\, g_t$$

    $$z_t = x_0 - \frac{s_t}{\sqrt[3]{v_t} + \varepsilon}, \qquad
    p_t = \mu\, p_{t-1} + (1 - \mu)\, z_t, \qquad u_t = p_t - p_{t-1}$$

    Args:
        learning_rate: $\eta$. At a rate of zero, $\lambda_t$ is zero too.
        momentum: $\mu$, how much of the parameters is kept at each step.
        eps: $\varepsilon$, added to the root, and to the rate.
        accumulator_dtype: the dtype of $v$ and $s$; None for that of the parameters.

    It owns the step size, so it flips the sign itself.

    Raises:
        ValueError: no params.

    Reference: Defazio and Jelassi, "Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient
        Method for Stochastic Optimization", 2021, <https://arxiv.org/abs/2101.11075>; their package, `madgrad`; optax,
        `contrib.scale_by_madgrad`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_madgrad(1.0, momentum=0.5, eps=0.0)
        >>> params = {"w": torch.tensor([0.0, 1.0])}
        >>> tx.update({"w": torch.tensor([8.0, -8.0])}, tx.init(params), params)[0]
        {'w': tensor([-1.0000,  1.0000])}
    """

    needs_params, final = True, True
    learning_rate: NonNegative
    momentum: Decay = 0.9
    eps: NonNegative = 1e-6
    accumulator_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByMadgradState:
        v, s = (tree.zeros_like(params, self.accumulator_dtype) for _ in range(2))
        return ScaleByMadgradState(core.counter(params), v, s, tree.copy(params))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        rate, eps = now["learning_rate"], now["eps"]
        weight = torch.where(rate == 0, 0.0, rate + eps) * count.to(rate.dtype).sqrt()
        sums = state.grad_sum_sq, state.s
        updates, v, s = tree.elementwise(
            madgrad, updates, *sums, state.x0, params, outs=3, weight=weight, momentum=now["momentum"], eps=eps
        )
        return updates, ScaleByMadgradState(count, v, s, state.x0)
