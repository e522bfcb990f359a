"""Adadelta: the gradient is rescaled to the units of the parameters by the root mean square of past updates."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, NonNegative
from optfx.tree import Tree


class ScaleByAdadeltaState(NamedTuple):
    """The state of `scale_by_adadelta`."""

    count: Tensor  # () int64, steps taken
    e_g: Tree  # like params, running mean of the squared gradient
    e_x: Tree  # like params, running mean of the squared update


def adadelta(g: Tensor, e_g: Tensor, e_x: Tensor, rho, eps) -> tuple[Tensor, Tensor, Tensor]:
    e_g = tree.mean(e_g, g * g, rho)
    u = tree.safe_sqrt(e_x + eps) / tree.safe_sqrt(e_g + eps) * g
    return u, e_g, tree.mean(e_x, u * u, rho)


@tree.record
class scale_by_adadelta(GradientTransformation):
    r"""Scale the gradient by the root mean square of past updates over that of past gradients.

    $$v_t = \rho\, v_{t-1} + (1 - \rho)\, g_t^2, \qquad
    u_t = \frac{\sqrt{x_{t-1} + \varepsilon}}{\sqrt{v_t + \varepsilon}}\, g_t, \qquad
    x_t = \rho\, x_{t-1} + (1 - \rho)\, u_t^2$$

    Args:
        rho: $\rho$, how much of the means is kept at each step.
        eps: $\varepsilon$.
        accumulator_dtype: the dtype of the means; None for that of the parameters.

    Reference: Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, <https://arxiv.org/abs/1212.5701>; optax,
        `scale_by_adadelta`; `torch.optim.Adadelta`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_adadelta(rho=0.75, eps=1e-6)
        >>> tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 0.0020, -0.0020])}
    """

    rho: Decay = 0.9
    eps: NonNegative = 1e-6
    accumulator_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByAdadeltaState:
        e_g, e_x = (tree.zeros_like(params, self.accumulator_dtype) for _ in range(2))
        return ScaleByAdadeltaState(core.counter(params), e_g, e_x)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now = self.at(state.count)
        updates, e_g, e_x = tree.elementwise(adadelta, updates, state.e_g, state.e_x, outs=3, **now)
        return updates, ScaleByAdadeltaState(state.count + 1, e_g, e_x)
