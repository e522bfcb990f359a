"""Orthogonal gradients: what a gradient does to the direction of a parameter, and not to its length."""

from __future__ import annotations

import torch
from torch import Tensor

from optfx import core, tree
from optfx.transforms.spheres import where_positive
from optfx.tree import Tree


def across(u: Tensor, p: Tensor) -> Tensor:
    square = p.abs().square().sum()
    along = (p.conj() * u).sum().real / where_positive(square)
    rest = u - along * p
    size, left = (tree.safe_sqrt(x.abs().square().sum()) for x in (u, rest))
    noise = left <= 4 * torch.finfo(u.dtype).eps * size  # a gradient along p: what is left is rounding
    return torch.where(noise, 0.0, rest * (size / left))


@tree.record
class orthograd(core.Stateless):
    r"""Take the part of each gradient that is orthogonal to its parameter, with the norm of the whole. Needs params.

    $$u = \frac{\lVert g \rVert}{\lVert g_\perp \rVert}\, g_\perp, \qquad
    g_\perp = g - \frac{\langle p, g \rangle}{\langle p, p \rangle}\, p$$

    A leaf is one vector. Where nothing is orthogonal, as in a leaf with a single element, the updates are zero.
    Put it before the rule. The state is empty.

    Raises:
        ValueError: no params.

    Reference: Prieto et al., "Grokking at the Edge of Numerical Stability", 2025, <https://arxiv.org/abs/2501.04697>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.orthograd()
        >>> params = {"w": torch.tensor([2.0, 0.0])}
        >>> tx.update({"w": torch.tensor([3.0, 4.0])}, tx.init(params), params)[0]
        {'w': tensor([0., 5.])}
    """

    needs_params = True

    def apply(self, updates: Tree, params: Tree) -> Tree:
        return tree.leafwise(across, updates, params)
