"""Rprop: a step size for each element, which grows while the gradient keeps its sign."""

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
    step_sizes: Tree  # like params, the step size of each element
    previous: Tree  # like params, the last gradient; zero where it turned


def rprop(
    g: Tensor, step: Tensor, previous: Tensor, eta_minus: Any, eta_plus: Any, smallest: Any, largest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    agreement = g * previous
    factor = torch.where(agreement > 0, eta_plus, torch.where(agreement < 0, eta_minus, torch.ones_like(g)))
    step = (step * factor).clamp(min=smallest).clamp(max=largest)
    g = torch.where(agreement < 0, torch.zeros_like(g), g)  # a turn is skipped, and counts once
    return step * g.sign(), step, g


@record
class scale_by_rprop(GradientTransformation):
    r"""Steps in the direction of the gradient's sign, of a size that each element has for itself.

    $$s_t = \begin{cases} \eta^+ s_{t-1} & g_t\, g_{t-1} > 0 \\ \eta^- s_{t-1} & g_t\, g_{t-1} < 0 \\
    s_{t-1} & \text{else} \end{cases} \qquad u_t = s_t \operatorname{sign}(g_t)$$

    $s_t$ is kept within $[s_{\min}, s_{\max}]$. Where the sign turned, $g_t$ counts as zero, now and at the next step.

    Args:
        learning_rate: the first step size $s_0$; a schedule is read at step 0.
        eta_minus: $\eta^-$, the factor where the gradient turned.
        eta_plus: $\eta^+$, the factor where it did not.
        min_step_size: $s_{\min}$.
        max_step_size: $s_{\max}$.

    It has the sign of the gradient: `scale(-1.0)` follows it in a chain. It is for whole batches: the noise of small
    ones turns every sign. optax's emits the update of the step before.

    Reference: Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
        algorithm", 1993, <https://doi.org/10.1109/ICNN.1993.298623>; Igel and Hüsken, "Empirical
        evaluation of the improved Rprop learning algorithms", 2003; optax, `scale_by_rprop`; `torch.optim.Rprop`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_rprop(0.1)
        >>> state = tx.init({"w": torch.zeros(2)})
        >>> _, state = tx.update({"w": torch.tensor([5.0, -0.1])}, state)
        >>> tx.update({"w": torch.tensor([3.0, 0.1])}, state)[0]
        {'w': tensor([0.1200, 0.0000])}
    """

    learning_rate: Hyper
    eta_minus: Hyper = 0.5
    eta_plus: Hyper = 1.2
    min_step_size: Hyper = 1e-6
    max_step_size: Hyper = 50.0

    def init(self, params: Tree) -> ScaleByRpropState:
        count = counter(params)
        steps = elementwise(filled, params, value=at(count, self.learning_rate))
        return ScaleByRpropState(count, steps, zeros_like(params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        updates, steps, previous = elementwise(
            rprop,
            updates,
            state.step_sizes,
            state.previous,
            outs=3,
            eta_minus=at(state.count, self.eta_minus),
            eta_plus=at(state.count, self.eta_plus),
            smallest=at(state.count, self.min_step_size),
            largest=at(state.count, self.max_step_size),
        )
        return updates, ScaleByRpropState(state.count + 1, steps, previous)
