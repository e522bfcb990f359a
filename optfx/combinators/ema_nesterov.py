"""EMA-Nesterov: look ahead along a running mean of the way of the parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, Hyper
from optfx.tree import Tree


class EmaNesterovState(NamedTuple):
    """The state of `ema_nesterov`."""

    count: Tensor  # () int64, steps taken
    ahead: Tensor  # () float64, how many times the mean the params are ahead
    ema: Tree  # like params, running mean of their displacements
    inner: Tree  # the state of the optimizer inside


def look_ahead(u: Tensor, m: Tensor, ahead, beta, gamma) -> tuple[Tensor, Tensor]:
    m = tree.mean(m, ahead * m + u, gamma)
    return u + beta * m, m


def back(p: Tensor, m: Tensor, ahead) -> Tensor:
    return p - ahead * m


@tree.record
class ema_nesterov(core.Wrapper):
    r"""Nesterov's lookahead along a running mean of the displacements, around any optimizer.

    $$\theta_t = q_t + u_t, \qquad m_t = \gamma\, m_{t-1} + (1 - \gamma)\, (\theta_t - \theta_{t-1}), \qquad
    q_{t+1} = \theta_t + \beta_t\, m_t$$

    The params are $q$, the point where the gradient is taken and from where the step $u$ of `inner` leads to $\theta$.
    Evaluate the model at $\theta$, which is what `eval_params` gives.

    Args:
        inner: an optimizer, with its learning rate.
        beta: $\beta$, how far to look ahead. The authors make it proportional to the learning rate (a schedule), and 0
            during warmup and near the end.
        gamma: $\gamma$, how much of the mean is kept at each step.

    Reference: Yau et al., "EMA-Nesterov: Stabilizing Nesterov's Lookahead for Accelerated Deep Learning Optimization",
        2026, <https://arxiv.org/abs/2605.25395>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.ema_nesterov(optfx.sgd(1.0), beta=1.0, gamma=0.5)
        >>> params = {"w": torch.tensor([1.0])}
        >>> updates, state = tx.update({"w": torch.tensor([2.0])}, tx.init(params), params)
        >>> params = optfx.apply_updates(params, updates)
        >>> params, tx.eval_params(state, params)
        ({'w': tensor([-2.])}, {'w': tensor([-1.])})
    """

    final = True
    inner: GradientTransformation
    beta: Hyper = 0.5
    gamma: Decay = 0.99

    def begin(self, params: Tree) -> EmaNesterovState:
        count = core.counter(params)
        ahead = torch.zeros_like(count, dtype=tree.scalar_dtype(count.device))
        return EmaNesterovState(count, ahead, tree.zeros_like(params), self.inner.begin(params))

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        now = self.at(state.count)
        updates, inner = self.inner.run(updates, state.inner, params, extra)
        updates, ema = tree.elementwise(look_ahead, updates, state.ema, outs=2, ahead=state.ahead, **now)
        return updates, EmaNesterovState(state.count + 1, now["beta"].clone(), ema, inner)

    def eval_params(self, state: Any, params: Tree) -> Tree:
        return tree.elementwise(back, params, state.ema, ahead=state.ahead)
