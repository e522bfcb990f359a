"""NovoGrad: Adam with one mean square for each leaf."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, NonNegative
from optfx.transforms.adaptive.first import at_first
from optfx.tree import Tree
from optfx.tree.dtypes import real_dtype


class ScaleByNovogradState(NamedTuple):
    """The state of `scale_by_novograd`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, decaying sum of the normalized gradient
    nu: Tree  # () for each leaf, running mean of its squared norm


def novograd(
    g: Tensor, m: Tensor, v: Tensor, p: Tensor, b1, b2, eps, eps_root, weight_decay
) -> tuple[Tensor, Tensor, Tensor]:
    v = tree.mean(v, g.abs().square().sum(), b2)
    m = b1 * m + g / (tree.safe_sqrt(v + eps_root) + eps) + weight_decay * p
    return m, m, v


@tree.record
class scale_by_novograd(GradientTransformation):
    r"""Divide each leaf by its running norm, add weight decay, and take a decaying sum. Needs params.

    $$v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, \lVert g_t \rVert^2, \qquad v_1 = \lVert g_1 \rVert^2$$

    $$u_t = m_t = \beta_1 m_{t-1} + \frac{g_t}{\sqrt{v_t + \bar\varepsilon} + \varepsilon} + \lambda\, p_{t-1}$$

    Args:
        b1: $\beta_1$, how much of the sum is kept at each step.
        b2: $\beta_2$, how much of the mean of squared norms is kept. The paper has 0.98 for images, 0.25 for speech.
        eps: $\varepsilon$, added to the root.
        eps_root: $\bar\varepsilon$, added under the root.
        weight_decay: $\lambda$.
        mu_dtype: the dtype of the sum; None for that of the parameters.
        nu_dtype: the dtype of the mean of squared norms, real; None for that of the parameters.

    Raises:
        ValueError: no params.

    Reference: Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep
        Networks", 2019, <https://arxiv.org/abs/1905.11286>; optax, `scale_by_novograd`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_novograd()
        >>> params = {"w": torch.zeros(2)}
        >>> updates, state = tx.update({"w": torch.tensor([3.0, 4.0])}, tx.init(params), params)
        >>> updates, state.nu
        ({'w': tensor([0.6000, 0.8000])}, {'w': tensor(25.)})
    """

    needs_params = True
    b1: Decay = 0.9
    b2: Decay = 0.25
    eps: NonNegative = 1e-8
    eps_root: NonNegative = 0.0
    weight_decay: NonNegative = 0.0
    mu_dtype: torch.dtype | None = None
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByNovogradState:
        count, mu = core.counter(params), tree.zeros_like(params, self.mu_dtype)
        nu = tree.map(lambda p: p.new_zeros((), dtype=self.nu_dtype or real_dtype(p.dtype)), params)
        return ScaleByNovogradState(count, mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now = self.at(state.count)
        now["b2"] = at_first(0.0, state.count, now["b2"])
        updates, mu, nu = tree.leafwise(novograd, updates, state.mu, state.nu, params, outs=3, same_shapes=False, **now)
        return updates, ScaleByNovogradState(state.count + 1, mu, nu)
