"""SPlus: the sign of a momentum in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, Hyper
from optfx.transforms.matrix import bases
from optfx.transforms.matrix.soap import find
from optfx.transforms.scaling import sign
from optfx.tree import Tree


class ScaleBySplusState(NamedTuple):
    """The state of `scale_by_splus`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    left: Tree  # of each matrix the running mean of G G^T, (rows, rows)
    right: Tree  # that of G^T G, (cols, cols)
    left_basis: Tree  # like left, its eigenvectors
    right_basis: Tree  # like right


def splus(g: Tensor, m: Tensor, left_basis: Tensor, right_basis: Tensor, b1) -> tuple[Tensor, Tensor]:
    m = tree.mean(m, g, b1)
    u = bases.out_of(sign(bases.into(m, left_basis, right_basis)), left_basis, right_basis)
    return 2 / max(sum(g.shape[-2:]), 1) * u, m


@tree.record
class scale_by_splus(GradientTransformation):
    r"""Take the sign of a momentum in the eigenbasis of Shampoo's preconditioner.

    $$M_t = \beta_1 M_{t-1} + (1 - \beta_1)\, G_t, \qquad
    U_t = \frac{2}{m + n}\, Q_L \operatorname{sign}(Q_L^\top M_t\, Q_R)\, Q_R^\top$$

    for a matrix of m rows and n columns. $Q_L$ and $Q_R$ are the eigenvectors of running means of $G_t G_t^\top$ and
    $G_t^\top G_t$, found at the first step and every $k$ steps, and used from the next step on.

    Args:
        b1: $\beta_1$.
        b2: how much of the means of products is kept.
        frequency: $k$.
        max_dim: a side that is longer has no basis, and is left as it is.
        mu_dtype: the dtype of $M$; None for that of the parameters.
        dtype: the dtype of the products and the bases; None for that of the parameters, but at least float32.

    The authors evaluate the model at an average of the parameters: chain `params_ema(0.999)` after the learning rate.
    Where eigenvalues are equal, as in a matrix of lower rank, the bases are not unique, and so the update is not. They
    are constants for derivatives.

    Raises:
        ValueError: a leaf that is no real matrix, naming its path.

    Reference: Frans et al., "A Stable Whitening Optimizer for Efficient Neural Network Training", 2025,
        <https://arxiv.org/abs/2506.07254>; pytorch_optimizer, `SPlus`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_splus()
        >>> g = {"w": torch.tensor([[3.0, -0.5], [0.1, -2.0]])}
        >>> tx.update(g, tx.init(g))[0]["w"]
        tensor([[ 0.5000, -0.5000],
                [ 0.5000, -0.5000]])
    """

    b1: Decay = 0.9
    b2: Decay = 0.999
    frequency: Hyper = 100
    max_dim: int = dataclasses.field(default=10_000, kw_only=True)
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleBySplusState:
        bases.check("scale_by_splus", params)
        left, right = (bases.squares(params, dim, self.max_dim, self.dtype) for dim in (-2, -1))
        mu = tree.zeros_like(params, self.mu_dtype)
        return ScaleBySplusState(core.counter(params), mu, left, right, *bases.identities(left, right))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        count, mu, left, right, *turns = state
        now = self.at(count)
        left, right = bases.gathered(left, right, updates, now["b2"])
        updates, mu = tree.matrixwise(splus, updates, mu, *turns, outs=2, b1=now["b1"])
        due = core.every(now["frequency"], count + 1) | (count == 0)
        turns = core.when_due(due, find, *turns, left, right, outs=2)
        return updates, ScaleBySplusState(count + 1, mu, left, right, *turns)
