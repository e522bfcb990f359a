"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, Decay, GradientTransformation, Hyper, NonNegative
from optfx.transforms.adaptive.adam import adam
from optfx.transforms.matrix import bases
from optfx.tree import Tree


class ScaleBySoapState(NamedTuple):
    """The state of `scale_by_soap`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient, as the bases have it
    nu: Tree  # like params, running mean of its square there
    left: Tree  # of each matrix the running mean of G G^T, (rows, rows)
    right: Tree  # that of G^T G, (cols, cols)
    left_basis: Tree  # like left, nearly its eigenvectors
    right_basis: Tree  # like right


def soap(g: Tensor, m: Tensor, v: Tensor, first, eps, **numbers) -> tuple[Tensor, Tensor, Tensor]:
    return adam(torch.where(first, 0.0, g), m, v, eps=eps, eps_root=0.0, c1_next=None, **numbers)


def numbers_of(now: dict[str, Any], count: Tensor) -> dict[str, Any]:
    """The numbers of `soap` after `count` steps, of which the first took no part."""
    b1, b2, t = now["b1"], now["b2"], count.clamp(min=1)
    c1, c2 = core.bias_correction(b1, t), core.bias_correction(b2, t)
    return {"first": count == 0, "b1": b1, "b2": b2, "eps": now["eps"] / tree.safe_sqrt(c2), "c1": c1, "c2": c2}


def turned(
    left_basis: Tensor, right_basis: Tensor, m: Tensor, v: Tensor, left: Tensor, right: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    m = bases.out_of(m, left_basis, right_basis)
    left_basis, rows = bases.improved(left, left_basis)
    right_basis, cols = bases.improved(right, right_basis)
    v = bases.moved(v, rows, cols)
    return left_basis, right_basis, bases.into(m, left_basis, right_basis), v


def turn(*trees: Tree) -> tuple[Tree, ...]:
    return tree.matrixwise(turned, *trees, outs=4)


def found(left_basis: Tensor, right_basis: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    return bases.eigenbasis(left), bases.eigenbasis(right)


def find(*trees: Tree) -> tuple[Tree, ...]:
    return tree.matrixwise(found, *trees, outs=2)


def bases_at(count: Tensor, frequency: Any, turn: Any, turns: Any, means: Any, left: Tree, right: Tree) -> Any:
    """The bases for the step after `count` others, and the means of gradients as they have these: the second step finds
    bases, and later ones turn them and the means, at times. (At the end of the step before, kernels could not write
    means in place.)"""
    turns = core.when_due(count == 1, find, *turns, left, right, outs=2)
    due = core.every(frequency, count - 1) & (count > 1)
    return core.when_due(due, turn, *turns, *means, left, right, outs=2 + len(means))


@tree.record
class scale_by_soap(GradientTransformation):
    r"""Adam in the eigenbasis of Shampoo's preconditioner.

    $$L_t = \beta L_{t-1} + (1 - \beta)\, G_t G_t^\top, \qquad R_t = \beta R_{t-1} + (1 - \beta)\, G_t^\top G_t$$

    With $Q_L$ and $Q_R$ nearly the eigenvectors of $L$ and $R$, take $G' = Q_L^\top G\, Q_R$, make Adam's update $U'$
    of it, and turn it back: $U = Q_L\, U' Q_R^\top$. At every $k$-th step the bases take a step of power iteration,
    $Q_L \leftarrow \operatorname{qr}(L\, Q_L)$, and the mean of the gradients turns with them.

    The first step finds the bases and moves nothing, as in the authors' code.

    Args:
        b1: how much of Adam's mean is kept at each step.
        b2: how much of Adam's mean of squares is kept.
        eps: added to its root, before the bias is corrected.
        shampoo_beta: $\beta$; None for `b2`.
        frequency: $k$, how many steps the bases are kept.
        max_dim: a side that is longer has no basis, and is left as it is.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.
        dtype: the dtype of $L$, $R$ and the bases; None for that of the parameters, but at least float32.

    A leaf with more than two dimensions is a batch of matrices, in the last two. Where $L$ or $R$ has two equal
    eigenvalues, as a matrix of lower rank has zeros, its eigenvectors are not unique, and so the update is not: another
    machine may take another. The bases are constants for derivatives.

    Raises:
        ValueError: a leaf that is no real matrix, naming its path.

    Reference: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024,
        <https://arxiv.org/abs/2409.11321>; pytorch_optimizer, `SOAP`; HeavyBall, `SOAP` (where the bases turn one step
        earlier).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_soap()
        >>> g = {"w": torch.tensor([[3.0, 0.0], [0.0, -2.0]])}
        >>> state = tx.init(g)
        >>> for _ in range(2):
        ...     updates, state = tx.update(g, state)
        >>> updates["w"]
        tensor([[ 1.,  0.],
                [ 0., -1.]])
    """

    b1: Beta = 0.95
    b2: Beta = 0.95
    eps: NonNegative = 1e-8
    shampoo_beta: Decay | None = None
    frequency: Hyper = 10
    max_dim: int = dataclasses.field(default=10_000, kw_only=True)
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleBySoapState:
        bases.check("scale_by_soap", params)
        left, right = (bases.squares(params, dim, self.max_dim, self.dtype) for dim in (-2, -1))
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleBySoapState(core.counter(params), mu, nu, left, right, *bases.identities(left, right))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        count, mu, nu, left, right, *turns = state
        now = self.at(count)
        decay = now["b2"] if self.shampoo_beta is None else now["shampoo_beta"]
        *turns, mu, nu = bases_at(count, now["frequency"], turn, turns, (mu, nu), left, right)
        inside = tree.matrixwise(bases.into, updates, *turns)
        inside, mu, nu = tree.elementwise(soap, inside, mu, nu, outs=3, **numbers_of(now, count))
        left, right = bases.gathered(left, right, updates, decay)
        updates = tree.matrixwise(bases.out_of, inside, *turns)
        return updates, ScaleBySoapState(count + 1, mu, nu, left, right, *turns)
