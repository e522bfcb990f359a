"""Steps in proportion to the parameters, leaf by leaf: the trust ratio of LARS and LAMB, and the step of Fromage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import NonNegative
from optfx.tree import Tree


def trust(u: Tensor, p: Tensor, min_norm, trust_coefficient, eps) -> Tensor:
    p_norm, u_norm = (torch.linalg.vector_norm(x).clamp(min=min_norm) for x in (p, u))
    moves = (p_norm != 0) & (u_norm != 0)
    ratio = trust_coefficient * p_norm / (torch.where(moves, u_norm, 1.0) + eps)
    return u * torch.where(moves, ratio, 1.0)


@tree.record
class scale_by_trust_ratio(core.Stateless):
    r"""Give the updates of each leaf a norm in proportion to that of its parameter. Needs params.

    $$u = \rho\, g, \qquad \rho = \tau\, \frac{\max(\lVert p \rVert, \nu)}{\max(\lVert g \rVert, \nu) + \varepsilon}$$

    or $\rho = 1$ where one of the two norms is zero, so that a parameter can leave zero.

    Args:
        min_norm: $\nu$, the least of either norm.
        trust_coefficient: $\tau$.
        eps: $\varepsilon$.

    Raises:
        ValueError: no params.

    Reference: You et al., "Large Batch Training of Convolutional Networks", 2017, <https://arxiv.org/abs/1708.03888>;
        optax, `scale_by_trust_ratio`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_trust_ratio()
        >>> params = {"w": torch.tensor([3.0, 4.0])}
        >>> tx.update({"w": torch.tensor([0.0, 2.0])}, tx.init(params), params)[0]
        {'w': tensor([0., 5.])}
    """

    needs_params = True
    min_norm: NonNegative = 0.0
    trust_coefficient: NonNegative = 1.0
    eps: NonNegative = 0.0

    def apply(self, updates: Tree, params: Tree, **numbers: Any) -> Tree:
        return tree.leafwise(trust, updates, params, **numbers)


def shrunk(u: Tensor, p: Tensor, rate, kept) -> Tensor:
    return -rate * u - (1 - kept) * p


@tree.record
class step_and_shrink(core.Stateless):
    r"""Take the step, and shrink the parameters so that a step across them does not make them longer. Needs params.

    $$p_t = \frac{p_{t-1} - \eta_t\, g_t}{\sqrt{1 + \eta_t^2}}, \qquad u_t = p_t - p_{t-1}$$

    If the updates have the norm of the parameters and are orthogonal to them, the norm stays what it is.

    Args:
        learning_rate: $\eta$.

    It owns the step size, so it flips the sign itself.

    Raises:
        ValueError: no params.

    Reference: Bernstein et al., "On the distance between two neural networks and the stability of learning", 2020,
        <https://arxiv.org/abs/2002.03432>; the end of optax's `fromage`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.step_and_shrink(0.75)
        >>> params = {"w": torch.tensor([5.0, 0.0])}
        >>> updates, _ = tx.update({"w": torch.tensor([0.0, 5.0])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates)
        {'w': tensor([ 4.0000, -3.0000])}
    """

    needs_params, final = True, True
    learning_rate: NonNegative

    def apply(self, updates: Tree, params: Tree, learning_rate: Any) -> Tree:
        kept = (1 + learning_rate * learning_rate).rsqrt()
        return tree.elementwise(shrunk, updates, params, rate=kept * learning_rate, kept=tree.Share(kept))
