"""Adadelta: the gradient in the units of the parameters, by a running root mean square of past updates."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.core import GradientTransformation, Hyper, at, counter
from optfx.tree import Tree, elementwise, record, safe_sqrt, zeros_like


class ScaleByAdadeltaState(NamedTuple):
    """The state of `scale_by_adadelta`."""

    count: Tensor  # () int64, steps taken
    e_g: Tree  # like params, running mean of the squared gradient
    e_x: Tree  # like params, running mean of the squared update


def adadelta(g: Tensor, e_g: Tensor, e_x: Tensor, weight: Any, eps: Any) -> tuple[Tensor, Tensor, Tensor]:
    e_g = torch.lerp(e_g, g * g, weight)
    u = safe_sqrt(e_x + eps) / safe_sqrt(e_g + eps) * g
    return u, e_g, torch.lerp(e_x, u * u, weight)


@record
class scale_by_adadelta(GradientTransformation):
    r"""Scale the gradient by the root mean square of past updates over that of the gradient.

    $$v_t = \rho\, v_{t-1} + (1 - \rho)\, g_t^2, \qquad
    u_t = \frac{\sqrt{x_{t-1} + \varepsilon}}{\sqrt{v_t + \varepsilon}}\, g_t, \qquad
    x_t = \rho\, x_{t-1} + (1 - \rho)\, u_t^2$$

    Args:
        rho: $\rho$, how much of the means is kept at each step.
        eps: $\varepsilon$.

    Reference: Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, <https://arxiv.org/abs/1212.5701>; optax,
        `scale_by_adadelta`; `torch.optim.Adadelta`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_adadelta(rho=0.75, eps=1e-6)
        >>> tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 0.0020, -0.0020])}
    """

    rho: Hyper = 0.9
    eps: Hyper = 1e-6

    def init(self, params: Tree) -> ScaleByAdadeltaState:
        return ScaleByAdadeltaState(counter(params), zeros_like(params), zeros_like(params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        rho, eps = at(state.count, self.rho), at(state.count, self.eps)
        updates, e_g, e_x = elementwise(adadelta, updates, state.e_g, state.e_x, outs=3, weight=1 - rho, eps=eps)
        return updates, ScaleByAdadeltaState(state.count + 1, e_g, e_x)
