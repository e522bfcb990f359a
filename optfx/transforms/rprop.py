"""Rprop's step sizes: one for each element, which grows while the sign of the gradient stays."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.core import GradientTransformation, Hyper, at, counter
from optfx.transforms.rms import filled
from optfx.tree import Tree, elementwise, record, zeros_like


class ScaleByRpropState(NamedTuple):
    """The state of `scale_by_rprop`."""

    count: Tensor  # () int64, steps taken
    step_sizes: Tree  # like params, of each element
    prev_updates: Tree  # like params, the last gradient, 0 where its sign had changed


def rprop(g: Tensor, size: Tensor, prev: Tensor, shrink: Any, grow: Any, low: Any, high: Any) -> Any:
    turn = torch.sign(g * prev)
    factor = torch.where(turn > 0, grow, torch.where(turn < 0, shrink, torch.ones_like(turn)))
    size = (size * factor).clamp(min=low).clamp(max=high)
    g = torch.where(turn < 0, torch.zeros_like(g), g)
    return torch.sign(g) * size, size, g


@record
class scale_by_rprop(GradientTransformation):
    r"""Replace the gradient by its sign times a step size of each element, which grows while the sign stays.

    $$\delta_t = \operatorname{clip}(\delta_{t-1} \cdot f_t,\; \delta_{\min}, \delta_{\max}), \qquad
    f_t = \eta^+, 1, \eta^- \;\text{ where } g_t\, g_{t-1} > 0, = 0, < 0$$

    $$u_t = \delta_t \operatorname{sign} g_t$$

    Where the sign has changed, $g_t$ counts as 0, in this step and the next.

    Args:
        learning_rate: $\delta_0$; a schedule is read at step 0.
        eta_minus: $\eta^-$.
        eta_plus: $\eta^+$.
        min_step_size: $\delta_{\min}$.
        max_step_size: $\delta_{\max}$.

    Reference: Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
        algorithm", 1993; `torch.optim.Rprop`, whose numbers these are (optax's `scale_by_rprop` is a step late).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_rprop(0.1)
        >>> state = tx.init({"w": torch.zeros(1)})
        >>> updates, state = tx.update({"w": torch.tensor([3.0])}, state)
        >>> updates, state = tx.update({"w": torch.tensor([4.0])}, state)
        >>> updates
        {'w': tensor([0.1200])}
    """

    learning_rate: Hyper
    eta_minus: Hyper = 0.5
    eta_plus: Hyper = 1.2
    min_step_size: Hyper = 1e-6
    max_step_size: Hyper = 50.0

    def init(self, params: Tree) -> ScaleByRpropState:
        count = counter(params)
        sizes = elementwise(filled, params, value=at(count, self.learning_rate))
        return ScaleByRpropState(count, sizes, zeros_like(params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        shrink, grow, low, high = (
            at(state.count, h) for h in (self.eta_minus, self.eta_plus, self.min_step_size, self.max_step_size)
        )
        updates, sizes, prev = elementwise(
            rprop, updates, state.step_sizes, state.prev_updates, outs=3, shrink=shrink, grow=grow, low=low, high=high
        )
        return updates, ScaleByRpropState(state.count + 1, sizes, prev)
