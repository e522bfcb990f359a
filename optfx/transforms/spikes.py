"""Spikes: gradients far beyond those of the steps before."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, Hyper, NonNegative
from optfx.tree import Tree


class ClipSpikesState(NamedTuple):
    """The state of `clip_spikes`."""

    count: Tensor  # () int64, steps taken
    nu: Tree  # like params, running mean of the square of the clipped gradient


def level(g: Tensor, v: Tensor, started, threshold, b2) -> tuple[Tensor, Tensor]:
    limit = threshold * v
    spike = started & (g * g > limit)
    g = torch.where(spike, torch.sign(g) * tree.safe_sqrt(limit), g)
    return g, tree.mean(v, g * g, b2)


@tree.record
class clip_spikes(GradientTransformation):
    r"""Cut elements of the gradient that are far above their own running root mean square.

    $$u_t = \operatorname{sign}(g_t) \min\!\left(\lvert g_t \rvert,\, \sqrt{\theta\, v_{t-1}}\right), \qquad
    v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, u_t^2$$

    Put it before a rule. $v$ is not corrected for its start at zero, so the first steps are left as they are. With a
    rule such as `scale_by_adam` behind it, and both begun anew from time to time, this is SPAM.

    Args:
        threshold: $\theta$, the multiple of the mean square from where it is a spike.
        b2: $\beta_2$, how much of the mean of squares is kept.
        start: how many steps are left as they are.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    Reference: Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training", 2025,
        <https://arxiv.org/abs/2501.06842>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.clip_spikes(threshold=8.0, b2=0.5, start=1)
        >>> state = tx.init({"w": torch.zeros(2)})
        >>> _, state = tx.update({"w": torch.tensor([1.0, 1.0])}, state)
        >>> tx.update({"w": torch.tensor([-90.0, 1.5])}, state)[0]
        {'w': tensor([-2.0000,  1.5000])}
    """

    threshold: NonNegative = 5000.0
    b2: Decay = 0.999
    start: Hyper = 19.0
    nu_dtype: torch.dtype | None = None

    def begin(self, params: Tree) -> ClipSpikesState:
        return ClipSpikesState(core.counter(params), tree.zeros_like(params, self.nu_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now = self.at(state.count)
        started = state.count >= now.pop("start")
        updates, nu = tree.elementwise(level, updates, state.nu, outs=2, started=started, **now)
        return updates, ClipSpikesState(state.count + 1, nu)
