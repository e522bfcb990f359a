"""Dion: orthogonalized momentum of low rank, which keeps what it leaves out."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from optfx import core, random, tree
from optfx.core import Decay, GradientTransformation, NonNegative
from optfx.tree import Tree
from optfx.tree.dtypes import real_dtype

Portion = float
"""A number that shapes depend on, so that it is part of the program."""


class ScaleByDionState(NamedTuple):
    """The state of `scale_by_dion`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, the momentum, less what has been taken of it
    right: Tree  # (..., columns, rank), the right singular vectors as of the last step


def dion(g: Tensor, m: Tensor, q: Tensor, decay, eps) -> tuple[Tensor, Tensor, Tensor]:
    b = m + g
    p = torch.linalg.qr((b @ q).detach())[0]
    r = b.mH @ p
    m = b - (1 - decay) * (p @ r.mH)
    q = r / (vector_norm(r, dim=-2, keepdim=True) + eps)
    return p @ q.mH, m, q


@tree.record
class scale_by_dion(GradientTransformation):
    r"""Replace each matrix by a nearly orthogonal one of low rank, made from momentum with the error fed back.

    $$B = M_{t-1} + G_t, \qquad P = \operatorname{qr}(B\, Q_{t-1}), \qquad R = B^* P$$

    $$M_t = B - (1 - \mu)\, P R^*, \qquad Q_{t,j} = \frac{R_j}{\lVert R_j \rVert + \varepsilon}, \qquad U_t = P Q_t^*$$

    That is a step of the power method, from the vectors of the step before. Only what went into the update decays in
    the momentum; the rest waits there.

    Args:
        decay: $\mu$, how much is kept of what went into the update.
        eps: $\varepsilon$.
        rank_fraction: the rank, as a share of the shorter side, rounded up.
        key: for the first $Q$, which is random: an int, or a key from `optfx.random.key`, (2,) int64.
        mu_dtype: the dtype of the momentum; None for that of the parameters.
        dtype: the dtype of $Q$; None for that of the parameters.

    $P$ is a constant for derivatives. A leaf with more than two dimensions is a batch of matrices, in the last two.

    Raises:
        ValueError: a leaf that is not a matrix, naming its path; a share that is not above 0 and at most 1.

    Reference: Ahn et al., "Dion: Distributed Orthonormalized Updates", 2025, <https://arxiv.org/abs/2504.05295>;
        microsoft/dion, `Dion`, <https://github.com/microsoft/dion>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_dion(rank_fraction=0.5)
        >>> updates, state = tx.update({"w": torch.diag(torch.tensor([5.0, 0.0]))}, tx.init({"w": torch.zeros(2, 2)}))
        >>> updates["w"].round(decimals=4)
        tensor([[1., 0.],
                [0., 0.]])
    """

    decay: Decay = 0.95
    eps: NonNegative = 1e-8
    rank_fraction: Portion = 0.25
    key: int | Tensor = 0
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_share("scale_by_dion", "rank_fraction", self.rank_fraction)
        super().__post_init__()

    def begin(self, params: Tree) -> ScaleByDionState:
        tree.check_matrices("scale_by_dion", params)

        def place(p: Tensor) -> Tensor:
            shape = (*p.shape[:-2], p.shape[-1], math.ceil(self.rank_fraction * min(p.shape[-2:])))
            return p.new_zeros(shape, dtype=real_dtype(self.dtype or p.dtype))

        key = self.key if isinstance(self.key, Tensor) else random.key(self.key)
        right = random.random_like(key, tree.map(place, params))
        right = tree.map(lambda q, p: q.to(self.dtype or p.dtype), right, params)
        return ScaleByDionState(core.counter(params), tree.zeros_like(params, self.mu_dtype), right)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        updates, mu, right = tree.matrixwise(dion, updates, state.mu, state.right, outs=3, **self.at(state.count))
        return updates, ScaleByDionState(state.count + 1, mu, right)


def check_share(who: str, name: str, share: Portion) -> None:
    """Raise unless a share is above 0 and at most 1."""
    if not 0 < share <= 1:
        raise ValueError(f"{who}: {name} is {share}, expected above 0 and at most 1")
