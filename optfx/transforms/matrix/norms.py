"""Matrices of a given norm: each row, or the whole."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.linalg import vector_norm

from optfx import core, tree
from optfx.core import NonNegative
from optfx.tree import Tree


def unit_rows(x: Tensor, eps) -> Tensor:
    return x / vector_norm(x, dim=-1, keepdim=True).clamp(min=eps)


@tree.record
class equilibrate_rows(core.Stateless):
    r"""Give each row of a matrix the norm 1.

    $$u_i = \frac{g_i}{\max(\lVert g_i \rVert,\, \varepsilon)}$$

    Before `orthogonalize` it is MuonEq, which needs fewer Newton-Schulz steps, since singular values are closer
    together then. After it, it is Muon+ by rows.

    Args:
        eps: $\varepsilon$, the smallest norm to divide by.

    Raises:
        ValueError: a leaf that is not a matrix, naming its path.

    Reference: Chang et al., "MuonEq: Balancing Before Orthogonalization with Lightweight Equilibration", 2026,
        <https://arxiv.org/abs/2603.28254>; Zhang et al., "MUON+: Towards Better Muon via One Additional Normalization
        Step", 2026, <https://arxiv.org/abs/2602.21545>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.equilibrate_rows()
        >>> tx.update({"w": torch.tensor([[3.0, 4.0], [0.0, 0.1]])}, tx.init({"w": torch.zeros(2, 2)}))[0]["w"]
        tensor([[0.6000, 0.8000],
                [0.0000, 1.0000]])
    """

    eps: NonNegative = 1e-8

    def begin(self, params: Tree) -> Tree:
        tree.check_matrices("equilibrate_rows", params)
        return super().begin(params)

    def apply(self, updates: Tree, params: Tree, eps: Any) -> Tree:
        return tree.matrixwise(unit_rows, updates, eps=eps)


def as_if_orthogonal(x: Tensor, eps) -> Tensor:
    size = vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=eps)
    return x * (math.sqrt(min(x.shape[-2:])) / size)


@tree.record
class renormalize(core.Stateless):
    r"""Give each matrix the norm that an orthogonal matrix of its shape has.

    $$U = \frac{\sqrt{\min(\text{rows}, \text{columns})}}{\max(\lVert G \rVert,\, \varepsilon)}\; G$$

    After `orthogonalize`, and whatever scales its elements or rows, it keeps the size of steps from changing.

    Args:
        eps: $\varepsilon$, the smallest norm to divide by.

    Raises:
        ValueError: a leaf that is not a matrix, naming its path.

    Reference: Si et al., "AdaMuon: Adaptive Muon Optimizer", 2025, <https://arxiv.org/abs/2507.11005>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.renormalize()
        >>> tx.update({"w": torch.full((4, 4), 3.0)}, tx.init({"w": torch.zeros(4, 4)}))[0]["w"].norm()
        tensor(2.)
    """

    eps: NonNegative = 1e-8

    def begin(self, params: Tree) -> Tree:
        tree.check_matrices("renormalize", params)
        return super().begin(params)

    def apply(self, updates: Tree, params: Tree, eps: Any) -> Tree:
        return tree.matrixwise(as_if_orthogonal, updates, eps=eps)
