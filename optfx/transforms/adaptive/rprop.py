"""Rprop: each element has its own step size, which grows while the gradient keeps its sign."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation, NonNegative
from optfx.transforms.adaptive.rms import filled
from optfx.tree import Tree


class ScaleByRpropState(NamedTuple):
    """The state of `scale_by_rprop`."""

    count: Tensor  # () int64, steps taken
    step_sizes: Tree  # like params, the step size of each element
    previous: Tree  # like params, the last gradient, zero where its sign changed


def rprop(
    g: Tensor, step: Tensor, previous: Tensor, eta_minus, eta_plus, min_step_size, max_step_size
) -> tuple[Tensor, Tensor, Tensor]:
    agreement = g * previous
    factor = torch.where(agreement > 0, eta_plus, torch.where(agreement < 0, eta_minus, torch.ones_like(g)))
    step = (step * factor).clamp(min=min_step_size).clamp(max=max_step_size)
    g = torch.where(agreement < 0, torch.zeros_like(g), g)  # no step where the sign changed; the change counts once
    return step * g.sign(), step, g


@tree.record
class scale_by_rprop(GradientTransformation):
    r"""Steps in the direction of the gradient's sign, with a step size for each element.

    $$s_t = \begin{cases} \eta^+ s_{t-1} & g_t\, g_{t-1} > 0 \\ \eta^- s_{t-1} & g_t\, g_{t-1} < 0 \\
    s_{t-1} & \text{else} \end{cases} \qquad u_t = s_t \operatorname{sign}(g_t)$$

    $s_t$ is kept within $[s_{\min}, s_{\max}]$. Where the sign changed, $g_t$ counts as zero, now and at the next step.

    Args:
        learning_rate: the first step size $s_0$; a schedule is read at step 0.
        eta_minus: $\eta^-$, the factor where the sign changed.
        eta_plus: $\eta^+$, the factor where it did not.
        min_step_size: $s_{\min}$.
        max_step_size: $s_{\max}$.

    The updates have the sign of the gradient: put `scale(-1.0)` after this in a chain. Use it with full batches: the
    noise of small ones flips signs. optax's returns the update of the step before.

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

    learning_rate: NonNegative
    eta_minus: NonNegative = 0.5
    eta_plus: NonNegative = 1.2
    min_step_size: NonNegative = 1e-6
    max_step_size: NonNegative = 50.0

    def begin(self, params: Tree) -> ScaleByRpropState:
        count = core.counter(params)
        sizes = filled(params, self.at(count)["learning_rate"])
        return ScaleByRpropState(count, sizes, tree.zeros_like(params))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now = self.at(state.count)
        del now["learning_rate"]  # the first step size, which is in the state
        updates, sizes, previous = tree.elementwise(rprop, updates, state.step_sizes, state.previous, outs=3, **now)
        return updates, ScaleByRpropState(state.count + 1, sizes, previous)
