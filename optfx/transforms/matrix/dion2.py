"""Dion2 and Dion3: orthogonalized momentum of some of the rows, which keeps the others."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, NonNegative
from optfx.transforms.matrix.dion import Portion, check_share
from optfx.transforms.matrix.newton_schulz import POLAR_EXPRESS
from optfx.transforms.matrix.orthogonalize import Method, check_method, orthogonal
from optfx.transforms.matrix.row_rms import by_row, one_a_row
from optfx.tree import Tree


class ScaleByDion2State(NamedTuple):
    """The state of `scale_by_dion2`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, the momentum, less what has been taken of it


class ScaleByDion3State(NamedTuple):
    """The state of `scale_by_dion3`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, the momentum, less what has been taken of it
    nu: Tree  # like params, one column: running mean of the mean square of each row when it was taken


def largest_rows(b: Tensor, fraction: Portion) -> Tensor:
    """Which rows are the largest in the sum of absolute values, (..., k, 1)."""
    k = math.ceil(fraction * b.shape[-2])
    return b.detach().abs().sum(-1).topk(k, dim=-1).indices.unsqueeze(-1)


def dion2(g: Tensor, m: Tensor, decay, eps, fraction: Portion, **options) -> tuple[Tensor, Tensor]:
    b = m + g
    tall = b.shape[-2] > b.shape[-1]
    b = b.mH if tall else b
    which = largest_rows(b, fraction)
    index = which.expand(*which.shape[:-1], b.shape[-1])
    rows = b.gather(-2, index)
    u = torch.zeros_like(b).scatter(-2, index, orthogonal(rows, eps, eps_is_floor=False, **options).to(b.dtype))
    m = b.scatter(-2, index, decay * rows)
    return (u.mH, m.mH) if tall else (u, m)


def dion3(
    g: Tensor, m: Tensor, v: Tensor, decay, b2, eps, fraction: Portion, **options
) -> tuple[Tensor, Tensor, Tensor]:
    b = m + g
    which = largest_rows(b, fraction)
    index = which.expand(*which.shape[:-1], b.shape[-1])
    rows = b.gather(-2, index)
    u, taken = by_row(orthogonal(rows, eps, eps_is_floor=False, **options).to(b.dtype), v.gather(-2, which), b2, eps)
    return torch.zeros_like(b).scatter(-2, index, u), b.scatter(-2, index, decay * rows), v.scatter(-2, which, taken)


@tree.record
class scale_by_dion2(GradientTransformation):
    r"""Replace each matrix by one in which some rows are nearly orthogonal, and the others are zero.

    $$B = M_{t-1} + G_t, \qquad S = \text{the rows of largest } \lVert B_i \rVert_1, \qquad
    U_S = \operatorname{orthogonalize}(B_S), \qquad M_S = \mu B_S$$

    and elsewhere $U = 0$ and $M = B$, so that what is not taken waits in the momentum. Of a matrix with more rows than
    columns, columns are chosen.

    Args:
        decay: $\mu$, how much is kept of the rows that are taken.
        eps: $\varepsilon$, as in `orthogonalize`.
        fraction: the share of the rows that are taken, rounded up.
        method: as in `orthogonalize`.
        mu_dtype: the dtype of the momentum; None for that of the parameters.
        dtype: the dtype to orthogonalize in; None for that of the leaf, which complex leaves keep.

    Which rows are taken is a constant for derivatives. A leaf with more than two dimensions is a batch of matrices, in
    the last two.

    Raises:
        ValueError: a leaf that is not a matrix, naming its path; a method that is none; a share that is not above 0 and
            at most 1.

    Reference: Ahn et al., "Dion2: A Simple Method to Shrink Matrix in Muon", 2025, <https://arxiv.org/abs/2512.16928>;
        microsoft/dion, `Dion2`, <https://github.com/microsoft/dion>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_dion2(fraction=0.5, method="svd")
        >>> updates, state = tx.update({"w": torch.tensor([[3.0, 4.0], [1.0, 0.0]])}, tx.init({"w": torch.zeros(2, 2)}))
        >>> updates["w"], state.mu["w"]
        (tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]]), tensor([[2.8500, 3.8000],
                [1.0000, 0.0000]]))
    """

    decay: Decay = 0.95
    eps: NonNegative = 1e-8
    fraction: Portion = 0.25
    method: Method = POLAR_EXPRESS[:5]
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_method("scale_by_dion2", self.method)
        check_share("scale_by_dion2", "fraction", self.fraction)
        super().__post_init__()

    def begin(self, params: Tree) -> ScaleByDion2State:
        tree.check_matrices("scale_by_dion2", params)
        return ScaleByDion2State(core.counter(params), tree.zeros_like(params, self.mu_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        options = {"fraction": self.fraction, "method": self.method, "dtype": self.dtype}
        updates, mu = tree.matrixwise(dion2, updates, state.mu, outs=2, **self.at(state.count), **options)
        return updates, ScaleByDion2State(state.count + 1, mu)


@tree.record
class scale_by_dion3(GradientTransformation):
    r"""Dion2 of rows, each divided by its running root mean square as in NorMuon.

    The rows $S$ of largest $\lVert B_i \rVert_1$ are taken as in `scale_by_dion2`, though of every matrix the rows and
    never the columns. What `orthogonalize` makes of them goes through `scale_by_row_rms`, whose mean squares change for
    these rows alone.

    Args:
        decay: $\mu$, how much is kept of the rows that are taken.
        b2: how much of their mean squares is kept.
        eps: $\varepsilon$, as in `orthogonalize` and `scale_by_row_rms`.
        fraction: the share of the rows that are taken, rounded up.
        method: as in `orthogonalize`.
        mu_dtype: the dtype of the momentum; None for that of the parameters.
        nu_dtype: the dtype of the mean squares, real; None for that of the parameters.
        dtype: the dtype to orthogonalize in; None for that of the leaf, which complex leaves keep.

    Raises:
        ValueError: a leaf that is not a matrix, naming its path; a method that is none; a share that is not above 0 and
            at most 1.

    Reference: microsoft/dion, `Dion3` (once `NorDion2`), <https://github.com/microsoft/dion>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_dion3(fraction=0.5, method="svd")
        >>> updates, state = tx.update({"w": torch.tensor([[3.0, 4.0], [1.0, 0.0]])}, tx.init({"w": torch.zeros(2, 2)}))
        >>> updates["w"], state.nu["w"]
        (tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]]), tensor([[0.0250],
                [0.0000]]))
    """

    decay: Decay = 0.95
    b2: Decay = 0.95
    eps: NonNegative = 1e-8
    fraction: Portion = 0.25
    method: Method = POLAR_EXPRESS[:5]
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_method("scale_by_dion3", self.method)
        check_share("scale_by_dion3", "fraction", self.fraction)
        super().__post_init__()

    def begin(self, params: Tree) -> ScaleByDion3State:
        tree.check_matrices("scale_by_dion3", params)
        mu, nu = tree.zeros_like(params, self.mu_dtype), one_a_row(params, self.nu_dtype)
        return ScaleByDion3State(core.counter(params), mu, nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        options = {"fraction": self.fraction, "method": self.method, "dtype": self.dtype}
        updates, mu, nu = tree.matrixwise(dion3, updates, state.mu, state.nu, outs=3, **self.at(state.count), **options)
        return updates, ScaleByDion3State(state.count + 1, mu, nu)
