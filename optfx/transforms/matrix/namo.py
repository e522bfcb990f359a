"""NAMO: orthogonalized momentum with Adam's step size, one number for a matrix."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Beta, GradientTransformation, NonNegative
from optfx.transforms.adaptive.factored import squared
from optfx.transforms.matrix.newton_schulz import SIMPLE
from optfx.transforms.matrix.orthogonalize import Method, check_method, orthogonal
from optfx.transforms.momentum import average
from optfx.tree import Tree
from optfx.tree.dtypes import real_dtype


class ScaleByNamoState(NamedTuple):
    """The state of `scale_by_namo`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the gradient
    nu: Tree  # of one element, running mean of the squared norm of the gradient


def namo(m: Tensor, v: Tensor, g: Tensor, b2, eps, c2, **options) -> tuple[Tensor, Tensor]:
    v = tree.mean(v, squared(g).sum((-2, -1), keepdim=True), b2)
    size = torch.linalg.vector_norm(m, dim=(-2, -1), keepdim=True)
    return size / (tree.safe_sqrt(v / c2) + eps) * orthogonal(m, eps, **options).to(m.dtype), v


@tree.record
class scale_by_namo(GradientTransformation):
    r"""Replace each matrix by a nearly orthogonal one of a running mean, times how much that mean agrees with itself.

    $$M_t = \beta_1 M_{t-1} + (1 - \beta_1)\, G_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2) \lVert G_t \rVert^2$$

    $$U_t = \frac{\lVert \hat M_t \rVert}{\sqrt{\hat v_t} + \varepsilon}\; \operatorname{orthogonalize}(\hat M_t),
    \qquad \hat M_t = \frac{M_t}{1 - \beta_1^t}, \quad \hat v_t = \frac{v_t}{1 - \beta_2^t}$$

    The factor is about 1 where gradients agree, and small where they are noise.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the mean of squared norms is kept.
        eps: $\varepsilon$, also that of `orthogonalize`.
        method: as in `orthogonalize`.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        nu_dtype: the dtype of the mean of squared norms, real; None for that of the parameters.
        dtype: the dtype to orthogonalize in; None for that of the leaf, which complex leaves keep.

    Raises:
        ValueError: a leaf that is not a matrix, naming its path; a method that is none.

    Reference: Zhang et al., "Adam Improves Muon: Adaptive Moment Estimation with Orthogonalized Momentum", 2026,
        <https://arxiv.org/abs/2602.17080>; NVIDIA, Emerging-Optimizers, `AdaptiveMuon` (without bias corrections),
        <https://github.com/NVIDIA-NeMo/Emerging-Optimizers>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_namo(b1=0.5, b2=0.5, method="svd")
        >>> state = tx.init({"w": torch.zeros(1, 2)})
        >>> for g in ([[3.0, 0.0]], [[-3.0, 0.0]]):
        ...     updates, state = tx.update({"w": torch.tensor(g)}, state)
        ...     print(updates["w"])
        tensor([[1., 0.]])
        tensor([[-0.3333,  0.0000]])
    """

    b1: Beta = 0.95
    b2: Beta = 0.99
    eps: NonNegative = 1e-8
    method: Method = SIMPLE
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    nu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_method("scale_by_namo", self.method)
        super().__post_init__()

    def begin(self, params: Tree) -> ScaleByNamoState:
        tree.check_matrices("scale_by_namo", params)
        nu = tree.map(lambda p: p.new_zeros((*p.shape[:-2], 1, 1), dtype=self.nu_dtype or real_dtype(p.dtype)), params)
        return ScaleByNamoState(core.counter(params), tree.zeros_like(params, self.mu_dtype), nu)

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        c1, c2 = (core.bias_correction(now[b], count) for b in ("b1", "b2"))
        mean, mu = tree.elementwise(average, updates, state.mu, outs=2, decay=now["b1"], correction=c1)
        updates, nu = tree.matrixwise(
            namo,
            mean,
            state.nu,
            updates,
            outs=2,
            b2=now["b2"],
            eps=now["eps"],
            c2=c2,
            method=self.method,
            eps_is_floor=False,
            dtype=self.dtype,
        )
        return updates, ScaleByNamoState(count, mu, nu)
