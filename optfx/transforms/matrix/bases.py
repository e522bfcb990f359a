"""The two sides of a matrix: a mean of its gradients' products for each, the eigenbasis of that, and turns into it.

A side that is longer than some limit has no product and no basis: these are 0 x 0, and that side is left as it is.
Bases are constants for derivatives: those of eigenvectors are infinite where eigenvalues meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from optfx import tree
from optfx.transforms.matrix.symmetric import gram
from optfx.tree import Tree
from optfx.tree.dtypes import computation_dtype
from optfx.tree.matrices import check_matrices


def check(who: str, params: Tree) -> None:
    """Raise on a leaf that is no real matrix."""
    check_matrices(who, params)
    for path, p in zip(tree.paths(params), tree.leaves(params), strict=True):
        if p.is_complex():
            raise ValueError(f"{who}: the parameter at {path!r} is complex, expected a real matrix")


def squares(params: Tree, dim: int, limit: int | None, dtype: torch.dtype | None) -> Tree:
    """For each leaf zeros, a square of the length of a dimension; in `dtype`, which is at least float32 if None."""

    def square(p: Tensor) -> Tensor:
        n = p.shape[dim] if limit is None or p.shape[dim] <= limit else 0
        return p.new_zeros((*p.shape[:-2], n, n), dtype=dtype or computation_dtype([p.dtype]))

    return tree.map(square, params)


def unit_matrix(x: Tensor) -> Tensor:
    return torch.zeros_like(x) + torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)


def identities(*trees: Tree) -> Iterator[Tree]:
    """The identity for each square."""
    return (tree.matrixwise(unit_matrix, x) for x in trees)


def has(basis: Tensor, x: Tensor, dim: int) -> bool:
    """Whether a side of x has a basis."""
    return basis.shape[-1] == x.shape[dim]


def into(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """x as its bases have it. (Dynamo would take `x.mT` out of a branch of `torch.cond`, so it is `x.adjoint()`.)"""
    x = left.adjoint() @ x if has(left, x, -2) else x
    return x @ right if has(right, x, -1) else x


def out_of(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """x as it is, from how its bases have it."""
    x = left @ x if has(left, x, -2) else x
    return x @ right.adjoint() if has(right, x, -1) else x


def products(left: Tensor, right: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    return gram(g) if has(left, g, -2) else left, gram(g.adjoint()) if has(right, g, -1) else right


def gathered(left: Tree, right: Tree, g: Tree, decay: Any) -> tuple[Tree, Tree]:
    """A step of the running means of the products of gradients with themselves; of the sums, if `decay` is None."""
    new_left, new_right = tree.matrixwise(products, left, right, g, outs=2)
    left = tree.elementwise(grown, left, new_left, decay=decay)
    return left, tree.elementwise(grown, right, new_right, decay=decay)


def grown(a: Tensor, product: Tensor, decay: Any) -> Tensor:
    return a + product if decay is None else tree.mean(a, product, decay)


def eigen(a: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalues of a symmetric matrix, and its eigenvectors: none but the identity's where it is not finite."""
    finite = torch.isfinite(a.detach()).all(-1, keepdim=True).all(-2, keepdim=True)
    return torch.linalg.eigh(torch.where(finite, a.detach(), 0.0))


def eigenbasis(a: Tensor) -> Tensor:
    """The eigenvectors of a symmetric matrix, those of large eigenvalues first."""
    return eigen(a)[1].flip(-1)


def orthonormal(x: Tensor) -> Tensor:
    """The Q of a QR decomposition. R is not made, which would take half as long again."""
    return torch.linalg.householder_product(*torch.geqrf(x))


def iterated(a: Tensor, basis: Tensor) -> Tensor:
    """A step of power iteration from nearly the eigenbasis of a symmetric matrix."""
    return orthonormal((basis.detach().adjoint() @ a.detach()).adjoint())  # LAPACK wants columns together


def improved(a: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """A step of power iteration from nearly the eigenbasis of a symmetric matrix, with those of large eigenvalues
    first; and where each was before."""
    vectors = basis.detach().adjoint().contiguous()  # in another order than what it is multiplied with, it takes longer
    power = vectors @ a.detach()
    order = (vectors * power).sum(-1).argsort(dim=-1, descending=True, stable=True)
    return orthonormal(in_order(power, order, -2).adjoint()), order


def in_order(x: Tensor, order: Tensor, dim: int) -> Tensor:
    """x with its rows or columns in another order. (`take_along_dim` looks for negative numbers first.)"""
    return x.gather(dim, order.unsqueeze(-3 - dim).expand_as(x))


def moved(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """x with its rows and columns in other orders, where a side has one."""
    x = in_order(x, rows, -2) if rows.shape[-1] == x.shape[-2] else x
    return in_order(x, cols, -1) if cols.shape[-1] == x.shape[-1] else x
