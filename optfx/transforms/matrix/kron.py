"""PSGD's preconditioner of Kronecker factors: fitted, at times, so that it whitens the gradient."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.linalg import solve_triangular, vector_norm

from optfx import core, random, tree
from optfx.core import GradientTransformation, Hyper, NonNegative
from optfx.schedules import exponential_decay
from optfx.transforms.matrix import bases
from optfx.transforms.matrix.symmetric import gram
from optfx.tree import Tree
from optfx.tree.dtypes import computation_dtype

OFTEN = exponential_decay(1.0, 1, math.exp(-0.001), 500, end_value=0.03)
TINY = torch.finfo(torch.bfloat16).tiny


class ScaleByKronState(NamedTuple):
    """The state of `scale_by_kron`."""

    count: Tensor  # () int64, steps taken
    since: Tensor  # () int64, steps since the factors were fitted
    keys: Tree  # like params, the random key of each leaf, (2,) int64
    left: Tree  # of each matrix an upper triangle, (rows, rows), or a diagonal, (1, rows)
    right: Tree  # (cols, cols) or (1, cols)


def is_diagonal(q: Tensor) -> bool:
    return q.shape[-2] == 1


def unit_matrix(q: Tensor, scale) -> Tensor:
    n = q.shape[-1]
    one = q.new_ones(1, n) if is_diagonal(q) else torch.eye(n, dtype=q.dtype, device=q.device)
    return torch.zeros_like(q) + scale * one


def from_left(q: Tensor, x: Tensor) -> Tensor:
    """q x"""
    return q.adjoint() * x if is_diagonal(q) else q @ x


def from_right(x: Tensor, q: Tensor) -> Tensor:
    """x q"""
    return x * q if is_diagonal(q) else x @ q


def turned(q: Tensor) -> Tensor:
    """The transpose of a factor."""
    return q if is_diagonal(q) else q.adjoint()


def whitened(g: Tensor, left: Tensor, right: Tensor) -> Tensor:
    inside = from_right(from_left(left, g), turned(right))
    return from_right(from_left(turned(left), inside), right)


def undone(v: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left^-T v right^-1"""
    v = v / left.adjoint() if is_diagonal(left) else solve_triangular(left.adjoint(), v, upper=False)
    return v / right if is_diagonal(right) else solve_triangular(right, v, upper=True, left=False)


def spectral(a: Tensor) -> Tensor:
    """A lower bound of the spectral norm of a symmetric matrix, by power iteration from its largest column."""
    if not a.numel():
        return a.new_zeros((*a.shape[:-2], 1, 1))
    size = a.abs().amax(dim=(-2, -1), keepdim=True)
    a = a / torch.where(size > 0, size, 1.0)
    largest = a.square().sum(-2, keepdim=True).argmax(-1, keepdim=True)
    x = a @ a.take_along_dim(largest, -1)
    x = x / vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=TINY)
    return size * vector_norm(a @ x, dim=(-2, -1), keepdim=True)


def nearer(q: Tensor, a: Tensor, b: Tensor, rate) -> Tensor:
    """A step of a factor towards a a^T = b b^T."""
    if is_diagonal(q):
        a, b = a.square().sum(-1).unsqueeze(-2), b.square().sum(-1).unsqueeze(-2)
        return q - rate * (a - b) * q / ((a + b).amax(-1, keepdim=True) + TINY)
    a, b = gram(a), gram(b)
    return q - rate * (a - b).triu() / (spectral(a + b) + TINY) @ q


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors with the same largest element: another of the pairs with the same product."""
    if not (left.numel() and right.numel()):
        return left, right
    ratio = (right.abs().amax((-2, -1), keepdim=True) / left.abs().amax((-2, -1), keepdim=True)).sqrt()
    return left * ratio, right / ratio


def fitted(left: Tensor, right: Tensor, g: Tensor, v: Tensor, rate) -> tuple[Tensor, Tensor]:
    left, right = balanced(left.detach(), right.detach())
    a = from_right(from_left(left, g.detach()), turned(right))
    b = undone(v, left, right)
    return nearer(left, a, b, rate), nearer(right, a.adjoint(), b.adjoint(), rate)


def probe(g: Tensor, key: Tensor) -> Tensor:
    return random.normal(key, g.shape, g.dtype)


def fit(left: Tree, right: Tree, g: Tree, keys: Tree, count: Tensor, rate: Any) -> tuple[Tree, Tree]:
    keys = tree.leafwise(random.fold_in, keys, data=count)
    probes = tree.leafwise(probe, g, keys, same_shapes=False)
    return tree.matrixwise(fitted, left, right, g, probes, outs=2, rate=rate)


@tree.record
class scale_by_kron(GradientTransformation):
    r"""Whiten each matrix with a preconditioner that is a Kronecker product, and is fitted to the gradients.

    $$U_t = Q_L^\top Q_L\, G_t\, Q_R^\top Q_R$$

    At some steps the factors, which are upper triangles, are fitted first. With a matrix $V$ of normal random numbers,
    let $A = Q_L G_t Q_R^\top$ and $B = Q_L^{-\top} V Q_R^{-1}$. Then

    $$Q_L \leftarrow Q_L - \mu\, \frac{\operatorname{triu}(A A^\top - B B^\top)}
    {\lVert A A^\top + B B^\top \rVert}\, Q_L, \qquad
    Q_R \leftarrow Q_R - \mu\, \frac{\operatorname{triu}(A^\top A - B^\top B)}
    {\lVert A^\top A + B^\top B \rVert}\, Q_R$$

    Args:
        preconditioner_lr: $\mu$.
        update_probability: one over the number of steps from one fit to the next; by default 1 for 500 steps, then
            falling exponentially to 0.03.
        init_scale: the first preconditioner is the identity times the square of this.
        key: of $V$: an int, or a key from `optfx.random.key`, (2,) int64. Give each member of a vmapped batch its own.
        max_dim: the factor of a side that is longer is a diagonal.
        dtype: the dtype of the factors; None for that of the parameters, but at least float32.

    Momentum stands before it, so that it is fitted to that: see `kron`. A leaf with more than two dimensions is a
    batch of matrices, in the last two. The factors are constants for derivatives of the gradients.

    Raises:
        ValueError: a leaf that is no real matrix, naming its path; two leaves share a path.

    Reference: Li, "Preconditioned Stochastic Gradient Descent", 2015, <https://arxiv.org/abs/1512.04202>; Li,
        "Stochastic Hessian Fittings with Lie Groups", 2024, <https://arxiv.org/abs/2402.11858>; kron_torch, `Kron`
        (which adds noise to the gradient, 3e-4 of its size); pytorch_optimizer, `Kron`; HeavyBall, `PSGDKron` (whose
        norms are nearer, and which keeps a running bound of them).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_kron(update_probability=1.0)
        >>> g = {"w": torch.tensor([[100.0, 0.0], [0.0, -0.01]])}
        >>> state = tx.init(g)
        >>> for _ in range(100):
        ...     updates, state = tx.update(g, state)
        >>> (updates["w"][0, 0] / updates["w"][1, 1]).abs() < 20  # where the gradient has 10000
        tensor(True)
    """

    preconditioner_lr: NonNegative = 0.1
    update_probability: Hyper = OFTEN
    init_scale: NonNegative = 1.0
    key: int | Tensor = 0
    max_dim: int = dataclasses.field(default=8192, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByKronState:
        bases.check("scale_by_kron", params)
        zero = core.counter(params)
        key = self.key if isinstance(self.key, Tensor) else random.key(self.key)
        keys = tree.map(lambda k, p: k.to(p.device, copy=True), random.split_like(key, params), params)
        scale = tree.safe_sqrt(self.at(zero)["init_scale"])
        left, right = (self._factors(params, dim, scale) for dim in (-2, -1))
        return ScaleByKronState(zero, zero.clone(), keys, left, right)

    def _factors(self, params: Tree, dim: int, scale: Tensor) -> Tree:
        def room(p: Tensor) -> Tensor:
            n = p.shape[dim]
            shape = (*p.shape[:-2], 1 if n > self.max_dim else n, n)
            return p.new_zeros(shape, dtype=self.dtype or computation_dtype([p.dtype]))

        return tree.matrixwise(unit_matrix, tree.map(room, params), scale=scale)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, since = self.at(state.count), state.since + 1
        due = since * now["update_probability"] >= 1
        fresh = core.when_due(
            due,
            fit,
            state.left,
            state.right,
            updates,
            state.keys,
            outs=2,
            count=state.count,
            rate=now["preconditioner_lr"],
        )
        updates = tree.matrixwise(whitened, updates, *fresh)
        return updates, ScaleByKronState(state.count + 1, torch.where(due, 0, since), state.keys, *fresh)
