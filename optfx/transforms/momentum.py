"""Momentum: a decaying sum of the gradients, or a running mean of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, Hyper
from optfx.tree import Tree


class TraceState(NamedTuple):
    """The state of `trace`."""

    count: Tensor  # () int64, steps taken
    trace: Tree  # like params, the decaying sum of the updates


def accumulate(g: Tensor, m: Tensor, decay, undamped, nesterov: bool) -> tuple[Tensor, Tensor]:
    m = decay * m + (g if undamped is None else undamped * g)
    return (g + decay * m if nesterov else m), m


@tree.record
class trace(GradientTransformation):
    r"""Momentum: replace the updates by a decaying sum of them.

    $$m_t = \mu\, m_{t-1} + w_t\, g_t, \qquad m_0 = 0, \qquad w_1 = 1, \quad w_t = 1 - \tau$$

    $$u_t = m_t \quad\text{or, with Nesterov's lookahead,}\quad u_t = g_t + \mu\, m_t$$

    Args:
        decay: $\mu$, how much of the sum is kept at each step.
        nesterov: look ahead.
        accumulator_dtype: the dtype of the sum; None for that of the parameters.
        dampening: $\tau$, as in `torch.optim.SGD`, where the first gradient is not damped; None for no dampening.

    Reference: Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013,
        <http://proceedings.mlr.press/v28/sutskever13.pdf>; optax, `trace`; `torch.optim.SGD`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.trace(0.9)
        >>> state = tx.init({"w": torch.zeros(1)})
        >>> updates, state = tx.update({"w": torch.ones(1)}, state)
        >>> updates, state = tx.update({"w": torch.ones(1)}, state)
        >>> updates
        {'w': tensor([1.9000])}
    """

    decay: Hyper
    nesterov: bool = False
    accumulator_dtype: torch.dtype | None = None
    dampening: Hyper | None = None

    def begin(self, params: Tree) -> TraceState:
        return TraceState(core.counter(params), tree.zeros_like(params, self.accumulator_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, undamped = self.at(state.count), None
        if now["dampening"] is not None:
            undamped = 1 - (state.count > 0) * now["dampening"]
        updates, m = tree.elementwise(
            accumulate, updates, state.trace, outs=2, decay=now["decay"], undamped=undamped, nesterov=self.nesterov
        )
        return updates, TraceState(state.count + 1, m)


class EmaState(NamedTuple):
    """The state of `ema`."""

    count: Tensor  # () int64, steps taken
    ema: Tree  # like params, the running mean of the updates, uncorrected


def average(g: Tensor, m: Tensor, decay, correction) -> tuple[Tensor, Tensor]:
    m = tree.mean(m, g, decay)
    return m / correction, m


@tree.record
class ema(GradientTransformation):
    r"""Replace the updates by a running mean of them.

    $$m_t = \mu\, m_{t-1} + (1 - \mu)\, g_t, \qquad m_0 = 0$$

    $$u_t = \frac{m_t}{1 - \mu^t} \quad\text{or, without debias,}\quad u_t = m_t$$

    Args:
        decay: $\mu$, how much of the mean is kept at each step.
        debias: correct for the mean having begun at zero.
        accumulator_dtype: the dtype of the mean; None for that of the parameters.

    Reference: optax, `ema`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.ema(0.9)
        >>> updates, state = tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))
        >>> updates, state.ema
        ({'w': tensor([1.])}, {'w': tensor([0.1000])})
    """

    decay: Beta
    debias: bool = True
    accumulator_dtype: torch.dtype | None = None

    def begin(self, params: Tree) -> EmaState:
        return EmaState(core.counter(params), tree.zeros_like(params, self.accumulator_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        decay, count = self.at(state.count)["decay"], state.count + 1
        correction = core.bias_correction(decay, count) if self.debias else 1.0
        updates, m = tree.elementwise(average, updates, state.ema, outs=2, decay=decay, correction=correction)
        return updates, EmaState(count, m)
