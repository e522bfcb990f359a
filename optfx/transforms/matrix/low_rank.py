"""An optimizer that sees less of each matrix, so that its memory is small: the idea of GaLore and of APOLLO.

A matrix of m rows and n columns is multiplied by a projection of its shorter side, which leaves r by n or m by r.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from optfx import core, random, tree
from optfx.core import Hyper, NonNegative
from optfx.transforms.adaptive.adam import scale_by_adam
from optfx.transforms.matrix import bases
from optfx.tree import Tree
from optfx.tree.dtypes import computation_dtype


class ScaleByGaloreState(NamedTuple):
    """The state of `scale_by_galore`."""

    count: Tensor  # () int64, steps taken
    projection: Tree  # of each matrix the r directions of its shorter side, (m, r) or (n, r)
    inner: Tree  # the state of the optimizer inside, of leaves (r, n) or (m, r)


class ScaleByApolloState(NamedTuple):
    """The state of `scale_by_apollo`."""

    count: Tensor  # () int64, steps taken
    keys: Tree  # like params, the random key of each leaf, (2,) int64
    projection: Tree  # of each matrix r random directions of its shorter side, (m, r) or (n, r)
    size: Tree  # of each matrix the norm of its last update, (1, 1)
    inner: Tree  # the state of the optimizer inside, of leaves (r, n) or (m, r)


def is_wide(x: Tensor) -> bool:
    return x.shape[-2] <= x.shape[-1]


def adam_unless_given(tx: Any) -> None:
    if tx.base_optimizer is None:
        object.__setattr__(tx, "base_optimizer", scale_by_adam())


def projections(params: Tree, rank: int, dtype: torch.dtype | None) -> Tree:
    """Zeros for the projection of each matrix."""

    def one(p: Tensor) -> Tensor:
        n = min(p.shape[-2:])
        return p.new_zeros((*p.shape[:-2], n, min(rank, n)), dtype=dtype or computation_dtype([p.dtype]))

    return tree.map(one, params)


def room(params: Tree, rank: int, dtype: torch.dtype | None) -> Tree:
    """Zeros for each matrix as it is seen."""

    def one(p: Tensor) -> Tensor:
        rows, cols = p.shape[-2:]
        r = min(rank, rows, cols)
        shape = (*p.shape[:-2], *((r, cols) if is_wide(p) else (rows, r)))
        return p.new_zeros(shape, dtype=dtype or computation_dtype([p.dtype]))

    return tree.map(one, params)


def smaller(_: Tensor, x: Tensor, projection: Tensor) -> Tensor:
    """x as it is seen."""
    return projection.adjoint() @ x if is_wide(x) else x @ projection


def larger(_: Tensor, x: Tensor, projection: Tensor, scale) -> Tensor:
    """x from how it is seen."""
    return scale * (projection @ x if is_wide(_) else x @ projection.adjoint())


def leading(projection: Tensor, g: Tensor) -> Tensor:
    """The first singular vectors of the shorter side, in each of which the largest element is positive."""
    g = g.detach()
    finite = torch.isfinite(g).all(-1, keepdim=True).all(-2, keepdim=True)
    u, _, v = torch.linalg.svd(torch.where(finite, g, 0.0), full_matrices=False)
    u = (u if is_wide(g) else v.adjoint())[..., : projection.shape[-1]]
    if not u.numel():
        return torch.zeros_like(projection)
    return u * u.take_along_dim(u.abs().argmax(-2, keepdim=True), -2).sign()


def lead(projection: Tree, g: Tree) -> Tree:
    return tree.matrixwise(leading, projection, g)


@tree.record
class scale_by_galore(core.Wrapper):
    r"""Give an optimizer the gradients of matrices in a space of low rank.

    $$P = U_{:,\, :r} \text{ of } G = U S V^\top, \qquad N = \operatorname{inner}(P^\top G), \qquad U_t = \alpha\, P N$$

    for a matrix with at most as many rows as columns; else $P$ is the first columns of $V$, and the optimizer sees
    $G P$. The projection is found again every so many steps. The memory of the optimizer is that of matrices of r rows
    or r columns.

    Args:
        rank: $r$; a matrix with a shorter side keeps all of it.
        update_proj_gap: how many steps a projection is kept.
        scale: $\alpha$. The authors take 0.25.
        base_optimizer: the optimizer inside, without a learning rate; None for `scale_by_adam()`.
        dtype: the dtype of the projections and of what the optimizer inside sees; None for that of the parameters, but
            at least float32.

    A leaf with more than two dimensions is a batch of matrices, in the last two. Where singular values are equal the
    projection is not unique. It is a constant for derivatives.

    Raises:
        ValueError: a leaf that is no real matrix, naming its path.

    Reference: Zhao et al., "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", 2024,
        <https://arxiv.org/abs/2403.03507>; optax, `contrib.scale_by_galore`; pytorch_optimizer, `GaLore`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_galore(rank=1)
        >>> g = {"w": torch.tensor([[3.0, 0.0], [0.0, 1.0]])}
        >>> updates, state = tx.update(g, tx.init(g))
        >>> updates["w"].round(decimals=4), state.inner.mu["w"].shape
        (tensor([[1., 0.],
                [0., 0.]]), torch.Size([1, 2]))
    """

    holds = "base_optimizer"
    rank: int = 128
    update_proj_gap: Hyper = 200
    scale: Hyper = 1.0
    base_optimizer: Any = None
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        adam_unless_given(self)
        super().__post_init__()

    def begin(self, params: Tree) -> ScaleByGaloreState:
        bases.check("scale_by_galore", params)
        projection = projections(params, self.rank, self.dtype)
        return ScaleByGaloreState(
            core.counter(params), projection, self.base_optimizer.begin(room(params, self.rank, self.dtype))
        )

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        now, like = self.at(state.count), room(updates, self.rank, self.dtype)
        due = core.every(now["update_proj_gap"], state.count)
        projection = core.when_due(due, lead, state.projection, updates)
        small = tree.matrixwise(smaller, like, updates, projection)
        small_params = None if params is None else tree.matrixwise(smaller, like, params, projection)
        small, inner = self.base_optimizer.run(small, state.inner, small_params, extra | {"grad": small})
        updates = tree.matrixwise(larger, updates, small, projection, scale=now["scale"])
        return updates, ScaleByGaloreState(state.count + 1, projection, inner)


def drawn(projection: Tensor, key: Tensor) -> Tensor:
    return random.normal(key, projection.shape, projection.dtype) / max(projection.shape[-1], 1) ** 0.5


def draw(projection: Tree, keys: Tree, count: Tensor) -> Tree:
    return tree.leafwise(drawn, projection, tree.leafwise(random.fold_in, keys, data=count), same_shapes=False)


def norm(x: Tensor, dim: int | tuple[int, int]) -> Tensor:
    return vector_norm(x, dim=dim, keepdim=True)


def rescaled(g: Tensor, size: Tensor, small: Tensor, new: Tensor, scale, growth, per: str) -> tuple[Tensor, Tensor]:
    dim = (-2, -1) if per == "tensor" else -2 if is_wide(g) else -1
    u = g * (norm(new, dim) / (norm(small, dim) + 1e-8))
    limit = torch.where(size > 0, (norm(u, (-2, -1)) / (size + 1e-8)).clamp(min=growth) / growth, 1.0)
    u = u / limit
    return tree.safe_sqrt(scale) * u, norm(u, (-2, -1))


@tree.record
class scale_by_apollo(core.Wrapper):
    r"""Scale each channel of a gradient as an optimizer does that sees a random projection of it.

    $$R = P^\top G, \qquad N = \operatorname{inner}(R), \qquad
    U_{:j} = \sqrt\alpha\, \frac{\lVert N_{:j} \rVert}{\lVert R_{:j} \rVert}\, G_{:j}$$

    for a matrix with at most as many rows as columns, and likewise for the rows of others, whose columns are projected.
    The elements of $P$ are normal with the variance $1/r$, and drawn again every so many steps. The norm of an update
    is at most `growth` times that of the last one.

    Args:
        rank: $r$; APOLLO-Mini has 1.
        update_proj_gap: how many steps a projection is kept.
        scale: $\alpha$; APOLLO-Mini has 128.
        base_optimizer: the optimizer inside, without a learning rate; None for `scale_by_adam()`.
        per: `"channel"`, or `"tensor"` for one factor for the whole matrix, as in APOLLO-Mini.
        growth: how much an update may grow.
        key: of $P$: an int, or a key from `optfx.random.key`, (2,) int64. Give each member of a vmapped batch its own.
        dtype: the dtype of the projections and of what the optimizer inside sees; None for that of the parameters, but
            at least float32.

    A leaf with more than two dimensions is a batch of matrices, in the last two.

    Raises:
        ValueError: a leaf that is no real matrix, naming its path; another value of `per`; two leaves share a path.

    Reference: Zhu et al., "APOLLO: SGD-like Memory, AdamW-level Performance", 2024,
        <https://arxiv.org/abs/2412.05270>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_apollo(rank=1)
        >>> g = {"w": torch.tensor([[4.0, 0.0], [3.0, 2.0]])}
        >>> updates, state = tx.update(g, tx.init(g))
        >>> updates["w"][0, 0] / updates["w"][1, 0], state.inner.mu["w"].shape
        (tensor(1.3333), torch.Size([1, 2]))
    """

    holds = "base_optimizer"
    rank: int = 256
    update_proj_gap: Hyper = 200
    scale: NonNegative = 1.0
    base_optimizer: Any = None
    per: Literal["channel", "tensor"] = dataclasses.field(default="channel", kw_only=True)
    growth: NonNegative = dataclasses.field(default=1.01, kw_only=True)
    key: int | Tensor = dataclasses.field(default=0, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        adam_unless_given(self)
        super().__post_init__()
        if self.per not in ("channel", "tensor"):
            raise ValueError(f"scale_by_apollo: per is {self.per!r}, expected 'channel' or 'tensor'")

    def begin(self, params: Tree) -> ScaleByApolloState:
        bases.check("scale_by_apollo", params)
        key = self.key if isinstance(self.key, Tensor) else random.key(self.key)
        keys = tree.map(lambda k, p: k.to(p.device, copy=True), random.split_like(key, params), params)
        projection = projections(params, self.rank, self.dtype)
        size = tree.map(lambda x: x.new_zeros((*x.shape[:-2], 1, 1)), projection)
        inner = self.base_optimizer.begin(room(params, self.rank, self.dtype))
        return ScaleByApolloState(core.counter(params), keys, projection, size, inner)

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        now, like = self.at(state.count), room(updates, self.rank, self.dtype)
        due = core.every(now["update_proj_gap"], state.count)
        projection = core.when_due(due, draw, state.projection, state.keys, count=state.count)
        small = tree.matrixwise(smaller, like, updates, projection)
        small_params = None if params is None else tree.matrixwise(smaller, like, params, projection)
        new, inner = self.base_optimizer.run(small, state.inner, small_params, extra | {"grad": small})
        numbers = {"scale": now["scale"], "growth": now["growth"], "per": self.per}
        updates, size = tree.matrixwise(rescaled, updates, state.size, small, new, outs=2, **numbers)
        return updates, ScaleByApolloState(state.count + 1, state.keys, projection, size, inner)
