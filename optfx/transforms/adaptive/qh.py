"""Quasi-hyperbolic momentum: between a gradient and its running mean (QHM), and so for Adam's two means (QHAdam)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, Decay, GradientTransformation, NonNegative
from optfx.tree import Tree


class ScaleByQhmState(NamedTuple):
    """The state of `scale_by_qhm`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the updates


def qhm(g: Tensor, m: Tensor, decay, nu) -> tuple[Tensor, Tensor]:
    m = tree.mean(m, g, decay)
    return tree.mean(m, g, nu), m


@tree.record
class scale_by_qhm(GradientTransformation):
    r"""Quasi-hyperbolic momentum: replace the updates by a mixture of them and their running mean.

    $$m_t = \beta\, m_{t-1} + (1 - \beta)\, g_t, \qquad u_t = (1 - \nu)\, g_t + \nu\, m_t$$

    Plain gradients are $\nu = 0$, momentum is $\nu = 1$, Nesterov's is $\nu = \beta$.

    Args:
        decay: $\beta$, how much of the mean is kept at each step.
        nu: $\nu$, the share of the mean in the update.
        mu_dtype: the dtype of the mean; None for that of the parameters.

    Reference: Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", 2018,
        <https://arxiv.org/abs/1810.06801>; the package qhoptim.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_qhm(decay=0.5, nu=0.75)
        >>> tx.update({"w": torch.ones(1)}, tx.init({"w": torch.zeros(1)}))[0]
        {'w': tensor([0.6250])}
    """

    decay: Decay = 0.999
    nu: Decay = 0.7
    mu_dtype: torch.dtype | None = None

    def begin(self, params: Tree) -> ScaleByQhmState:
        return ScaleByQhmState(core.counter(params), tree.zeros_like(params, self.mu_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        updates, mu = tree.elementwise(qhm, updates, state.mu, outs=2, **self.at(state.count))
        return updates, ScaleByQhmState(state.count + 1, mu)


class ScaleByQhadamState(NamedTuple):
    """The state of `scale_by_qhadam`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, running mean of its square


def qhadam(g: Tensor, m: Tensor, v: Tensor, b1, b2, nu1, nu2, eps, c1, c2) -> tuple[Tensor, Tensor, Tensor]:
    m = tree.mean(m, g, b1)
    v = tree.mean(v, g * g, b2)
    return tree.mean(m / c1, g, nu1) / (tree.safe_sqrt(tree.mean(v / c2, g * g, nu2)) + eps), m, v


@tree.record
class scale_by_qhadam(GradientTransformation):
    r"""Adam with a mixture of each mean and what comes into it.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2$$

    $$u_t = \frac{(1 - \nu_1)\, g_t + \nu_1 \hat m_t}{\sqrt{(1 - \nu_2)\, g_t^2 + \nu_2 \hat v_t} + \varepsilon}, \qquad
    \hat m_t = \frac{m_t}{1 - \beta_1^t}, \quad \hat v_t = \frac{v_t}{1 - \beta_2^t}$$

    With $\nu_1 = \nu_2 = 1$ it is Adam.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squares is kept.
        nu1: $\nu_1$, the share of the mean in the numerator.
        nu2: $\nu_2$, the share of the mean of squares under the root.
        eps: $\varepsilon$, added to the root.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    Reference: Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", 2018,
        <https://arxiv.org/abs/1810.06801>; the package qhoptim, whose page recommends these numbers.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_qhadam()
        >>> _, state = tx.update({"w": torch.tensor([5.0])}, tx.init({"w": torch.zeros(1)}))
        >>> tx.update({"w": torch.tensor([0.0])}, state)[0]
        {'w': tensor([0.4939])}
    """

    b1: Beta = 0.995
    b2: Beta = 0.999
    nu1: Decay = 0.7
    nu2: Decay = 1.0
    eps: NonNegative = 1e-8
    mu_dtype: torch.dtype | None = None
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByQhadamState:
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleByQhadamState(core.counter(params), mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        now |= {"c1": core.bias_correction(now["b1"], count), "c2": core.bias_correction(now["b2"], count)}
        updates, mu, nu = tree.elementwise(qhadam, updates, state.mu, state.nu, outs=3, **now)
        return updates, ScaleByQhadamState(count, mu, nu)
