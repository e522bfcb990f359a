"""Divide the gradient by the root of a mean of squares (RMSProp), a variance (centered RMSProp), or a sum of squares
(Adagrad).

All add epsilon either under the root, as optax does, or outside it, as `torch.optim` does.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, NonNegative
from optfx.tree import Tree


def fill(p: Tensor, value) -> Tensor:
    return torch.zeros_like(p) + value  # a complex element is filled as the two numbers that it counts as


def filled(params: Tree, value: Any, dtype: torch.dtype | None = None) -> Tree:
    """One value everywhere, in a tree like params."""
    return tree.elementwise(fill, tree.zeros_like(params, dtype) if dtype is not None else params, value=value)


def root(x: Tensor, eps, eps_in_sqrt: bool) -> Tensor:
    return tree.safe_sqrt(x + eps) if eps_in_sqrt else tree.safe_sqrt(x) + eps


def numbers_of(tx: Any, count: Tensor) -> dict[str, Any]:
    """The scalar arguments of the leaf functions `rms` and `stddev`."""
    now = tx.at(count)
    del now["initial_scale"]  # it is in the state
    now["correction"] = core.bias_correction(now["decay"], count + 1) if tx.bias_correction else 1.0
    return now | {"eps_in_sqrt": tx.eps_in_sqrt}


class ScaleByRmsState(NamedTuple):
    """The state of `scale_by_rms`."""

    count: Tensor  # () int64, steps taken
    nu: Tree  # like params, running mean of the squared gradient


def rms(g: Tensor, v: Tensor, decay, eps, correction, eps_in_sqrt: bool) -> tuple[Tensor, Tensor]:
    v = tree.mean(v, g * g, decay)
    return g / root(v / correction, eps, eps_in_sqrt), v


@tree.record
class scale_by_rms(GradientTransformation):
    r"""Divide the gradient by its running root mean square.

    $$v_t = \rho\, v_{t-1} + (1 - \rho)\, g_t^2, \qquad \hat v_t = v_t \;\text{ or, corrected, }\; v_t / (1 - \rho^t)$$

    $$u_t = \frac{g_t}{\sqrt{\hat v_t + \varepsilon}} \quad\text{or}\quad
    u_t = \frac{g_t}{\sqrt{\hat v_t} + \varepsilon}$$

    Args:
        decay: $\rho$, how much of the mean is kept at each step.
        eps: $\varepsilon$.
        initial_scale: $v_0$; a schedule is read at step 0.
        eps_in_sqrt: add $\varepsilon$ under the root (optax); False adds it to the root (torch).
        bias_correction: correct for the mean having begun at zero; with `eps_in_sqrt=False` this is
            `scale_by_adam(b1=0)` without its first mean.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.

    Reference: Hinton, "Overview of mini-batch gradient descent", 2012,
        <https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf>; optax, `scale_by_rms`;
        `torch.optim.RMSprop`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_rms(decay=0.75)
        >>> tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 2.0000, -2.0000])}
    """

    decay: Decay = 0.9
    eps: NonNegative = 1e-8
    initial_scale: NonNegative = 0.0
    eps_in_sqrt: bool = True
    bias_correction: bool = False
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByRmsState:
        count = core.counter(params)
        return ScaleByRmsState(count, filled(params, self.at(count)["initial_scale"], self.nu_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        updates, nu = tree.elementwise(rms, updates, state.nu, outs=2, **numbers_of(self, state.count))
        return updates, ScaleByRmsState(state.count + 1, nu)


class ScaleByStddevState(NamedTuple):
    """The state of `scale_by_stddev`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # like params, running mean of its square


def stddev(g: Tensor, m: Tensor, v: Tensor, decay, eps, correction, eps_in_sqrt: bool) -> tuple[Tensor, Tensor, Tensor]:
    m = tree.mean(m, g, decay)
    v = tree.mean(v, g * g, decay)
    variance = v / correction - (m / correction).square()
    return g / root(variance, eps, eps_in_sqrt), m, v


@tree.record
class scale_by_stddev(GradientTransformation):
    r"""Divide the gradient by its running standard deviation.

    $$m_t = \rho\, m_{t-1} + (1 - \rho)\, g_t, \qquad v_t = \rho\, v_{t-1} + (1 - \rho)\, g_t^2$$

    $$u_t = \frac{g_t}{\sqrt{\hat v_t - \hat m_t^2 + \varepsilon}} \quad\text{or}\quad
    u_t = \frac{g_t}{\sqrt{\hat v_t - \hat m_t^2} + \varepsilon}$$

    where $\hat m_t$ and $\hat v_t$ are the means themselves or, corrected, the means over $1 - \rho^t$. A variance made
    negative by rounding counts as zero.

    Args:
        decay: $\rho$, how much of the means is kept at each step.
        eps: $\varepsilon$.
        initial_scale: $v_0$; a schedule is read at step 0.
        eps_in_sqrt: add $\varepsilon$ under the root (optax); False adds it to the root (torch).
        bias_correction: correct for the means having begun at zero.
        nu_dtype: the dtype of both means; None for that of the parameters.

    Reference: Graves, "Generating Sequences With Recurrent Neural Networks", 2013, <https://arxiv.org/abs/1308.0850>;
        optax, `scale_by_stddev`; `torch.optim.RMSprop(centered=True)`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_stddev(decay=0.5)
        >>> tx.update({"w": torch.tensor([5.0, -0.1])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 2.0000, -2.0000])}
    """

    decay: Decay = 0.9
    eps: NonNegative = 1e-8
    initial_scale: NonNegative = 0.0
    eps_in_sqrt: bool = True
    bias_correction: bool = False
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByStddevState:
        count = core.counter(params)
        nu = filled(params, self.at(count)["initial_scale"], self.nu_dtype)
        return ScaleByStddevState(count, tree.zeros_like(params, self.nu_dtype), nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now = numbers_of(self, state.count)
        updates, mu, nu = tree.elementwise(stddev, updates, state.mu, state.nu, outs=3, **now)
        return updates, ScaleByStddevState(state.count + 1, mu, nu)


class ScaleByRssState(NamedTuple):
    """The state of `scale_by_rss`."""

    count: Tensor  # () int64, steps taken
    sum_of_squares: Tree  # like params, sum of all squared gradients so far


def rss(g: Tensor, s: Tensor, eps, eps_in_sqrt: bool) -> tuple[Tensor, Tensor]:
    s = s + g * g
    return g / root(s, eps, eps_in_sqrt), s


@tree.record
class scale_by_rss(GradientTransformation):
    r"""Divide the gradient by the root of the sum of its squares so far.

    $$s_t = s_{t-1} + g_t^2, \qquad u_t = \frac{g_t}{\sqrt{s_t + \varepsilon}} \quad\text{or}\quad
    u_t = \frac{g_t}{\sqrt{s_t} + \varepsilon}$$

    Args:
        initial_accumulator_value: $s_0$; a schedule is read at step 0.
        eps: $\varepsilon$.
        eps_in_sqrt: add $\varepsilon$ under the root (optax); False adds it to the root (torch).
        accumulator_dtype: the dtype of the sum; None for that of the parameters.

    Reference: Duchi et al., "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011,
        <https://jmlr.org/papers/v12/duchi11a.html>; optax, `scale_by_rss`; `torch.optim.Adagrad`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_rss(initial_accumulator_value=0.0)
        >>> state = tx.init({"w": torch.zeros(1)})
        >>> updates, state = tx.update({"w": torch.tensor([3.0])}, state)
        >>> updates, state = tx.update({"w": torch.tensor([4.0])}, state)
        >>> updates
        {'w': tensor([0.8000])}
    """

    initial_accumulator_value: NonNegative = 0.1
    eps: NonNegative = 1e-7
    eps_in_sqrt: bool = True
    accumulator_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByRssState:
        count = core.counter(params)
        value = self.at(count)["initial_accumulator_value"]
        return ScaleByRssState(count, filled(params, value, self.accumulator_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        eps = self.at(state.count)["eps"]
        updates, total = tree.elementwise(
            rss, updates, state.sum_of_squares, outs=2, eps=eps, eps_in_sqrt=self.eps_in_sqrt
        )
        return updates, ScaleByRssState(state.count + 1, total)
