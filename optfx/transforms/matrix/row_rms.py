"""NorMuon's second moments: one for each row of a matrix."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, NonNegative
from optfx.transforms.adaptive.factored import squared
from optfx.tree import Tree
from optfx.tree.dtypes import real_dtype


class ScaleByRowRmsState(NamedTuple):
    """The state of `scale_by_row_rms`."""

    count: Tensor  # () int64, steps taken
    nu: Tree  # like params, one column: running mean of the mean square of each row


def one_a_row(params: Tree, dtype: torch.dtype | None) -> Tree:
    """Zeros for the rows of each matrix, (..., rows, 1)."""
    return tree.map(lambda p: p.new_zeros((*p.shape[:-1], 1), dtype=dtype or real_dtype(p.dtype)), params)


def by_row(x: Tensor, v: Tensor, decay, eps) -> tuple[Tensor, Tensor]:
    v = tree.mean(v, squared(x).sum(-1, keepdim=True) / max(x.shape[-1], 1), decay)
    u = x / (tree.safe_sqrt(v) + eps)
    size, new = (vector_norm(y, dim=(-2, -1), keepdim=True) for y in (x, u))
    return u * (size / new.clamp(min=eps)), v


@tree.record
class scale_by_row_rms(GradientTransformation):
    r"""Divide each row of a matrix by its running root mean square, and keep the norm of the matrix.

    $$v_t = \beta v_{t-1} + (1 - \beta) \operatorname{mean}_j(G_{ij}^2), \qquad
    \hat G_{ij} = \frac{G_{ij}}{\sqrt{v_{t,i}} + \varepsilon}, \qquad
    U_t = \frac{\lVert G \rVert}{\lVert \hat G \rVert}\; \hat G$$

    After `scale_by_muon` it is NorMuon: orthogonal matrices have rows of unequal norm, if they have more rows than
    columns. A row is what belongs to one output.

    Args:
        decay: $\beta$, how much of the mean square is kept at each step.
        eps: $\varepsilon$, also the smallest norm to divide by.
        nu_dtype: the dtype of the mean squares, real; None for that of the parameters.

    For a complex leaf, the square is that of the absolute value.

    Raises:
        ValueError: a leaf that is not a matrix, naming its path.

    Reference: Li et al., "NorMuon: Making Muon more efficient and scalable", 2025, <https://arxiv.org/abs/2510.05491>;
        microsoft/dion, `NorMuon`, <https://github.com/microsoft/dion>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_row_rms()
        >>> updates, state = tx.update({"w": torch.tensor([[3.0, 3.0], [0.0, 4.0]])}, tx.init({"w": torch.zeros(2, 2)}))
        >>> updates["w"].norm(dim=1)
        tensor([4.1231, 4.1231])
    """

    decay: Decay = 0.95
    eps: NonNegative = 1e-8
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByRowRmsState:
        tree.check_matrices("scale_by_row_rms", params)
        return ScaleByRowRmsState(core.counter(params), one_a_row(params, self.nu_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        updates, nu = tree.matrixwise(by_row, updates, state.nu, outs=2, **self.at(state.count))
        return updates, ScaleByRowRmsState(state.count + 1, nu)
