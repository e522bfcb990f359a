"""KL-Shampoo and KL-SOAP: the product of a side takes what the other side's preconditioner leaves of the gradient."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, Decay, GradientTransformation, Hyper, NonNegative
from optfx.transforms.matrix import bases
from optfx.transforms.matrix.soap import bases_at, numbers_of, soap
from optfx.transforms.matrix.symmetric import gram
from optfx.tree import Tree


class Sides(NamedTuple):
    """What is kept of the sides of each matrix."""

    left: Tree  # the running mean L, (rows, rows)
    right: Tree  # the running mean R, (cols, cols)
    left_values: Tree  # nearly the eigenvalues of L, (rows, 1)
    right_values: Tree  # those of R, (1, cols)
    left_basis: Tree  # nearly the eigenvectors of L
    right_basis: Tree  # those of R


class ScaleByKlSoapState(NamedTuple):
    """The state of `scale_by_kl_soap`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient, as the bases have it
    nu: Tree  # like params, running mean of its square there
    sides: Sides


class ScaleByKlShampooState(NamedTuple):
    """The state of `scale_by_kl_shampoo`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient, as the bases have it
    sides: Sides


def least(n: int) -> float:
    """The least eigenvalue, so that one over its root stays small."""
    return max(10, min(n, 4000)) ** -2.0


def seen(
    left: Tensor,
    right: Tensor,
    left_values: Tensor,
    right_values: Tensor,
    g: Tensor,
    left_basis: Tensor,
    right_basis: Tensor,
    decay,
    first,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, cols = g.shape[-2:]
    from_right, from_left = g @ right_basis, left_basis.adjoint() @ g
    inside = left_basis.adjoint() @ from_right if rows <= cols else from_left @ right_basis
    from_right = from_right / torch.where(first, 1.0, right_values).sqrt()
    from_left = from_left / torch.where(first, 1.0, left_values).sqrt()
    left = gram(from_right) / max(cols, 1)
    right = gram(from_left.adjoint()) / max(rows, 1)
    by_rows = tree.mean(left_values, (inside.square() / right_values).sum(-1, keepdim=True) / max(cols, 1), decay)
    by_cols = tree.mean(right_values, (inside.square() / left_values).sum(-2, keepdim=True) / max(rows, 1), decay)
    left_values = torch.where(first, left_values, by_rows.clamp(min=least(rows)))
    return left, right, left_values, torch.where(first, right_values, by_cols.clamp(min=least(cols))), inside


def turned(
    left_basis: Tensor, right_basis: Tensor, m: Tensor, left: Tensor, right: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    m = bases.out_of(m, left_basis, right_basis)
    left_basis, right_basis = bases.iterated(left, left_basis), bases.iterated(right, right_basis)
    return left_basis, right_basis, bases.into(m, left_basis, right_basis)


def turn(*trees: Tree) -> tuple[Tree, ...]:
    return tree.matrixwise(turned, *trees, outs=3)


def begin_sides(who: str, params: Tree, factor: Tensor, dtype: torch.dtype | None) -> Sides:
    bases.check(who, params)
    left, right = (bases.squares(params, dim, None, dtype) for dim in (-2, -1))
    rows = tree.map(lambda x: x.new_zeros((*x.shape[:-1], 1)), left)
    cols = tree.map(lambda x: x.new_zeros((*x.shape[:-2], 1, x.shape[-1])), right)
    values = tree.full_like(rows, factor), tree.full_like(cols, factor)
    return Sides(left, right, *values, *bases.identities(left, right))


def look(count: Tensor, g: Tree, sides: Any, decay: Any) -> tuple[Tree, Sides]:
    """The gradients as the bases have them, and the sides after this step."""
    new = tree.matrixwise(seen, *sides[:4], g, *sides[4:], outs=5, decay=decay, first=count == 0)
    means = [tree.elementwise(bases.grown, x, y, decay=decay) for x, y in zip(sides[:2], new[:2], strict=True)]
    return new[4], Sides(*means, *new[2:4], *sides[4:])


@tree.record
class scale_by_kl_soap(GradientTransformation):
    r"""SOAP whose bases are those of KL-Shampoo.

    As `scale_by_soap`, but for a matrix of m rows and n columns

    $$L_t = \beta L_{t-1} + \tfrac{1 - \beta}{n}\, G_t R_{t-1}^{-1} G_t^\top, \qquad
    R_t = \beta R_{t-1} + \tfrac{1 - \beta}{m}\, G_t^\top L_{t-1}^{-1} G_t$$

    where the inverses are taken with bases and eigenvalues that are nearly theirs,
    $L^{-1} = Q_L \Lambda_L^{-1} Q_L^\top$. At every step the eigenvalues follow the diagonal of $Q_L^\top L_t\, Q_L$.

    Args:
        b1: how much of Adam's mean is kept at each step.
        b2: how much of Adam's mean of squares is kept.
        eps: added to its root, before the bias is corrected.
        shampoo_beta: $\beta$; None for `b2`.
        frequency: how many steps the bases are kept.
        init_factor: the eigenvalues at first.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of the mean of squares; None for that of the parameters.
        dtype: the dtype of all else; None for that of the parameters, but at least float32.

    What `scale_by_soap` says of first steps, batches and derivatives holds here, too. An eigenvalue is at least
    $\max(10, \min(n, 4000))^{-2}$ for a side of length n, as in the authors' code.

    Raises:
        ValueError: a leaf that is no real matrix, naming its path.

    Reference: Lin et al., "Understanding and Improving Shampoo and SOAP via Kullback-Leibler Minimization", 2025,
        <https://arxiv.org/abs/2509.03378> (whose code does not correct the bias); HeavyBall, `KLSOAP`
        (whose means begin with the whole first products, and which takes $\operatorname{diag}(Q_L^\top L\, Q_L)$ itself
        for the eigenvalues).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_kl_soap()
        >>> g = {"w": torch.tensor([[3.0, 0.0], [0.0, -2.0]])}
        >>> state = tx.init(g)
        >>> for _ in range(2):
        ...     updates, state = tx.update(g, state)
        >>> updates["w"].round(decimals=4)
        tensor([[ 1.,  0.],
                [ 0., -1.]])
    """

    b1: Beta = 0.95
    b2: Beta = 0.95
    eps: NonNegative = 1e-8
    shampoo_beta: Decay | None = None
    frequency: Hyper = 10
    init_factor: NonNegative = 0.1
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByKlSoapState:
        count = core.counter(params)
        sides = begin_sides("scale_by_kl_soap", params, self.at(count)["init_factor"], self.dtype)
        mu, nu = tree.zeros_like(params, self.mu_dtype), tree.zeros_like(params, self.nu_dtype)
        return ScaleByKlSoapState(count, mu, nu, sides)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        count, mu, nu, sides = state
        now = self.at(count)
        decay = now["b2"] if self.shampoo_beta is None else now["shampoo_beta"]
        *turns, mu = bases_at(count, now["frequency"], turn, sides[4:], (mu,), *sides[:2])
        inside, sides = look(count, updates, (*sides[:4], *turns), decay)
        inside, mu, nu = tree.elementwise(soap, inside, mu, nu, outs=3, **numbers_of(now, count))
        updates = tree.matrixwise(bases.out_of, inside, *turns)
        return updates, ScaleByKlSoapState(count + 1, mu, nu, sides)


def follow(g: Tensor, m: Tensor, b1, first) -> tuple[Tensor, Tensor]:
    m = torch.where(first, m, tree.mean(m, g, b1))
    return m, m


def whitened(
    m: Tensor, left_values: Tensor, right_values: Tensor, left_basis: Tensor, right_basis: Tensor, eps
) -> Tensor:
    return bases.out_of(m / ((left_values * right_values).sqrt() + eps), left_basis, right_basis)


@tree.record
class scale_by_kl_shampoo(GradientTransformation):
    r"""Shampoo whose two preconditioners are fitted together.

    $$M_t = \beta_1 M_{t-1} + (1 - \beta_1)\, G_t, \qquad U_t = L_{t-1}^{-1/2} M_t\, R_{t-1}^{-1/2}$$

    with the $L$ and $R$ of `scale_by_kl_soap`, whose roots are taken with the same bases and eigenvalues. The first
    step finds the bases and moves nothing.

    Args:
        b1: $\beta_1$.
        shampoo_beta: $\beta$, how much of $L$ and $R$ is kept.
        eps: added to the roots of the products of eigenvalues.
        frequency: how many steps the bases are kept.
        init_factor: the eigenvalues at first.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        dtype: the dtype of all else; None for that of the parameters, but at least float32.

    Raises:
        ValueError: a leaf that is no real matrix, naming its path.

    Reference: Lin et al., "Understanding and Improving Shampoo and SOAP via Kullback-Leibler Minimization", 2025,
        <https://arxiv.org/abs/2509.03378>; HeavyBall, `KLShampoo` (likewise, and whose means begin with a
        multiple of the identity).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_kl_shampoo(b1=0.0)
        >>> g = {"w": torch.tensor([[0.2, 0.0], [0.0, -0.1]])}
        >>> state = tx.init(g)
        >>> for _ in range(2):
        ...     updates, state = tx.update(g, state)
        >>> updates["w"].round(decimals=4)
        tensor([[ 2.,  0.],
                [ 0., -1.]])
    """

    b1: Decay = 0.95
    shampoo_beta: Decay = 0.95
    eps: NonNegative = 1e-8
    frequency: Hyper = 10
    init_factor: NonNegative = 0.1
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByKlShampooState:
        count = core.counter(params)
        sides = begin_sides("scale_by_kl_shampoo", params, self.at(count)["init_factor"], self.dtype)
        return ScaleByKlShampooState(count, tree.zeros_like(params, self.mu_dtype), sides)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        count, mu, sides = state
        now = self.at(count)
        *turns, mu = bases_at(count, now["frequency"], turn, sides[4:], (mu,), *sides[:2])
        inside, new = look(count, updates, (*sides[:4], *turns), now["shampoo_beta"])
        inside, mu = tree.elementwise(follow, inside, mu, outs=2, b1=now["b1"], first=count == 0)
        updates = tree.matrixwise(whitened, inside, *sides[2:4], *turns, eps=now["eps"])
        return updates, ScaleByKlShampooState(count + 1, mu, new)
