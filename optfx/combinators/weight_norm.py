"""Weight normalization inside an optimizer: rows of matrices as a length and a direction, each with its own steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from optfx import core, tree
from optfx.core import GradientTransformation
from optfx.tree import Tree
from optfx.tree.dtypes import real_dtype


class WeightNormState(NamedTuple):
    """The state of `weight_norm`."""

    lengths: Tree  # like params, one column: g, the length of each row, of either sign
    norms: Tree  # like params, one column: the norm of each row of v
    direction: Tree  # the state of the optimizer of v
    magnitude: Tree  # the state of the optimizer of g


def nonzero(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1.0, x)


def length_of_rows(length: Tensor, p: Tensor) -> Tensor:
    return vector_norm(p, dim=-1, keepdim=True)


def apart(g: Tensor, p: Tensor, length: Tensor, norm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    unit = p / nonzero(length)
    along = (g * unit.conj()).real.sum(-1, keepdim=True) if g.is_complex() else (g * unit).sum(-1, keepdim=True)
    return length / nonzero(norm) * (g - along * unit), norm * unit, along


def together(
    u: Tensor, p: Tensor, v: Tensor, length: Tensor, norm: Tensor, move: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    v, length = v + u, length + move
    norm = vector_norm(v, dim=-1, keepdim=True)
    return length * v / nonzero(norm) - p, length, norm


@tree.record
class weight_norm(core.Wrapper):
    r"""Train each row of a matrix as a length and a direction, with an optimizer for each. It needs params.

    $$w_i = g_i \frac{v_i}{\lVert v_i \rVert}, \qquad
    \nabla g_i = \Big\langle \nabla w_i,\, \frac{v_i}{\lVert v_i \rVert} \Big\rangle, \qquad
    \nabla v_i = \frac{g_i}{\lVert v_i \rVert} \Big(\nabla w_i - \nabla g_i \frac{v_i}{\lVert v_i \rVert}\Big)$$

    The parameters stay $w$, so the model knows nothing of it. At first $v = w$. With Muon for $v$ and Adam for $g$ it
    is Muown, see `muown`.

    Args:
        direction: the optimizer of $v$, with its learning rate.
        magnitude: the optimizer of $g$, (..., rows, 1), with its learning rate. A weight decay belongs here: $v$ has no
            length that matters.
        accumulator_dtype: the dtype of $g$ and of the norms of $v$; None for that of the parameters.

    A row of zeros stays so.

    Raises:
        ValueError: no params; a leaf that is not a matrix, naming its path.

    Reference: Salimans and Kingma, "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep
        Neural Networks", 2016, <https://arxiv.org/abs/1602.07868>; Lion et al., "Muown: Row-Norm Control for Muon
        Optimization", 2026, <https://arxiv.org/abs/2605.10797>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.weight_norm(optfx.sgd(0.0), optfx.sgd(1.0))
        >>> params = {"w": torch.tensor([[3.0, 4.0]])}
        >>> updates, state = tx.update({"w": torch.tensor([[3.0, 4.0]])}, tx.init(params), params)
        >>> optfx.apply_updates(params, updates), state.lengths
        ({'w': tensor([[0., 0.]])}, {'w': tensor([[0.]])})
    """

    needs_params, final = True, True
    holds = ("direction", "magnitude")
    direction: GradientTransformation
    magnitude: GradientTransformation
    accumulator_dtype: torch.dtype | None = None

    def begin(self, params: Tree) -> WeightNormState:
        tree.check_matrices("weight_norm", params)
        dtype = self.accumulator_dtype
        column = tree.map(lambda p: p.new_zeros((*p.shape[:-1], 1), dtype=dtype or real_dtype(p.dtype)), params)
        lengths = tree.matrixwise(length_of_rows, column, tree.map(torch.detach, params))
        return WeightNormState(lengths, tree.copy(lengths), self.direction.begin(params), self.magnitude.begin(lengths))

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        lengths, norms = state.lengths, state.norms
        grad_v, v, grad_g = tree.matrixwise(apart, updates, params, lengths, norms, outs=3, like=(0, 1, 2))
        move_v, direction = self.direction.run(grad_v, state.direction, v, extra | {"grad": grad_v})
        move_g, magnitude = self.magnitude.run(grad_g, state.magnitude, lengths, extra | {"grad": grad_g})
        updates, lengths, norms = tree.matrixwise(
            together, move_v, params, v, lengths, norms, move_g, outs=3, like=(0, 3, 4)
        )
        return updates, WeightNormState(lengths, norms, direction, magnitude)
