"""SinkSOAP: momentum in the eigenbasis of Shampoo's preconditioner, with all rows and columns of one size."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, Hyper, NonNegative
from optfx.transforms.matrix import bases
from optfx.transforms.matrix.soap import find
from optfx.tree import Tree


class ScaleBySinksoapState(NamedTuple):
    """The state of `scale_by_sinksoap`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    left: Tree  # of each matrix the running mean of G G^T, (rows, rows)
    right: Tree  # that of G^T G, (cols, cols)
    left_basis: Tree  # like left, nearly its eigenvectors
    right_basis: Tree  # like right


def iterated(left_basis: Tensor, right_basis: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    return bases.iterated(left, left_basis), bases.iterated(right, right_basis)


def iterate(*trees: Tree) -> tuple[Tree, ...]:
    return tree.matrixwise(iterated, *trees, outs=2)


def sinkhorn(x: Tensor, eps, steps: int) -> Tensor:
    """Divide the rows by their root mean squares, then the columns, in turn."""
    for _ in range(steps):
        for dim in (-1, -2):
            x = x / tree.safe_sqrt(x.square().sum(dim, keepdim=True) / max(x.shape[dim], 1) + eps)
    return x


def follow(g: Tensor, m: Tensor, b1, nesterov: bool) -> tuple[Tensor, Tensor]:
    m = tree.mean(m, g, b1)
    return tree.mean(m, g, b1) if nesterov else m, m


def sinksoap(m: Tensor, left_basis: Tensor, right_basis: Tensor, **numbers) -> Tensor:
    m = sinkhorn(bases.into(m, left_basis, right_basis), **numbers)
    return bases.out_of(m, left_basis, right_basis)


@tree.record
class scale_by_sinksoap(GradientTransformation):
    r"""Make all rows and columns of a momentum equal in size, in the eigenbasis of Shampoo's preconditioner.

    $$M_t = \beta_1 M_{t-1} + (1 - \beta_1)\, G_t, \qquad \hat M_t = \beta_1 M_t + (1 - \beta_1)\, G_t, \qquad
    U_t = Q_L \operatorname{Sinkhorn}(Q_L^\top \hat M_t\, Q_R)\, Q_R^\top$$

    where Sinkhorn's iteration divides each row by $\sqrt{\operatorname{mean}_j x_{ij}^2 + \varepsilon}$, then each
    column likewise, and so on. $Q_L$ and $Q_R$ are nearly the eigenvectors of running means of $G_t G_t^\top$ and
    $G_t^\top G_t$, as in `scale_by_soap`, but used at once. An element of the update in the basis has the root mean
    square 1.

    Args:
        b1: $\beta_1$.
        shampoo_beta: how much of the means of products is kept.
        eps: $\varepsilon$.
        frequency: how many steps the bases are kept.
        steps: of Sinkhorn's iteration.
        nesterov: False takes $M_t$ for $\hat M_t$.
        max_dim: a side that is longer has no basis, and is left as it is.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        dtype: the dtype of the products and the bases; None for that of the parameters, but at least float32.

    What `scale_by_soap` says of batches, of equal eigenvalues and of derivatives holds here, too. A row in the basis
    that is nothing but rounding errors, as in a matrix of lower rank, is made as large as the others if $\varepsilon$
    does not prevent it.

    Raises:
        ValueError: a leaf that is no real matrix, naming its path.

    Reference: modded-nanogpt, "SinkSOAP", 2026, <https://github.com/KellerJordan/modded-nanogpt/pull/298> (whose
        iteration divides by norms; a scale by the shape comes after it); Scetbon et al., "Gradient
        Multi-Normalization for Stateless and Scalable LLM Training", 2025, <https://arxiv.org/abs/2502.06742>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_sinksoap()
        >>> g = {"w": torch.tensor([[3.0, 0.0], [0.0, -2.0]])}
        >>> tx.update(g, tx.init(g))[0]["w"].round(decimals=3)
        tensor([[ 1.4140,  0.0000],
                [ 0.0000, -1.4140]])
    """

    b1: Decay = 0.95
    shampoo_beta: Decay = 0.95
    eps: NonNegative = 1e-12
    frequency: Hyper = 10
    steps: int = dataclasses.field(default=10, kw_only=True)
    nesterov: bool = dataclasses.field(default=True, kw_only=True)
    max_dim: int = dataclasses.field(default=10_000, kw_only=True)
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleBySinksoapState:
        bases.check("scale_by_sinksoap", params)
        left, right = (bases.squares(params, dim, self.max_dim, self.dtype) for dim in (-2, -1))
        mu = tree.zeros_like(params, self.mu_dtype)
        return ScaleBySinksoapState(core.counter(params), mu, left, right, *bases.identities(left, right))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        count, mu, left, right, *turns = state
        now, first = self.at(count), count == 0
        left, right = bases.gathered(left, right, updates, now["shampoo_beta"])
        turns = core.when_due(first, find, *turns, left, right, outs=2)
        turns = core.when_due(core.every(now["frequency"], count) & ~first, iterate, *turns, left, right, outs=2)
        updates, mu = tree.elementwise(follow, updates, mu, outs=2, b1=now["b1"], nesterov=self.nesterov)
        updates = tree.matrixwise(sinksoap, updates, *turns, eps=now["eps"], steps=self.steps)
        return updates, ScaleBySinksoapState(count + 1, mu, left, right, *turns)
