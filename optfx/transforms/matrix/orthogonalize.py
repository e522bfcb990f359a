"""Orthogonalization: a matrix with the same singular vectors, whose singular values are 1."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import NonNegative
from optfx.transforms.matrix.newton_schulz import SIMPLE, Table, newton_schulz
from optfx.tree import Tree

Method = Table | Literal["svd", "qr"]


def polar(x: Tensor) -> Tensor:
    """U V* of the singular value decomposition U S V*; where S is zero to rounding, it stays so. The rows are the
    shorter side."""
    u, s, v = torch.linalg.svd(x.detach(), full_matrices=False)
    kept = s > max(x.shape[-2:]) * torch.finfo(s.dtype).eps * s.amax(dim=-1, keepdim=True)
    root = (u * torch.where(kept, 1 / s, 0).unsqueeze(-2)) @ u.mH
    return (u * kept.unsqueeze(-2)) @ v + root @ (x - x.detach())  # the last is zero, and has the derivative


def q_of_qr(x: Tensor) -> Tensor:
    """Q of Q R whose diagonal is not negative. The columns are the shorter side."""
    q, r = torch.linalg.qr(x.detach())
    diagonal = r.diagonal(dim1=-2, dim2=-1)
    phase = torch.where(diagonal == 0, 0, torch.sgn(diagonal))
    r = r + torch.diag_embed((diagonal == 0).to(r.dtype))
    moved = torch.linalg.solve_triangular(r, x - x.detach(), upper=True, left=False)
    return (q + moved) * phase.unsqueeze(-2)


def orthogonal(x: Tensor, eps, method: Method, eps_is_floor: bool, dtype: torch.dtype | None) -> Tensor:
    """A nearly orthogonal matrix, by any of the methods."""
    if not isinstance(method, str):
        return newton_schulz(x, eps, method, eps_is_floor, dtype)
    y = x if dtype is None or x.is_complex() else x.to(dtype)
    if not y.numel():
        return y
    wide = x.shape[-2] <= x.shape[-1]
    if method == "svd":
        return polar(y) if wide else polar(y.mH).mH
    return q_of_qr(y.mH).mH if wide else q_of_qr(y)


def check_method(who: str, method: Any) -> None:
    """Raise on what is neither a table of triples nor a method by name."""
    if method in ("svd", "qr") or (isinstance(method, tuple) and method and all(len(step) == 3 for step in method)):
        return
    raise ValueError(
        f"{who}: the method is {method!r}, expected 'svd', 'qr', or a triple of coefficients for each step"
    )


@tree.record
class orthogonalize(core.Stateless):
    r"""Replace each matrix by a nearly orthogonal one with the same singular vectors.

    $$U \Sigma V^* \mapsto U V^*$$

    With a table of coefficients, by Newton-Schulz iterations, which begin with
    $X = G / (\lVert G \rVert + \varepsilon)$ and take steps $X \leftarrow a X + (b A + c A^2) X$, $A = X X^*$, so that
    all singular values come near 1. Exactly by `"svd"`. By `"qr"`, it is the Q of a QR decomposition, which spans the
    same space and has other vectors.

    Args:
        method: $(a, b, c)$ for each step, such as `SIMPLE`, `QUINTIC`, `POLAR_EXPRESS`, `CANS`, `DEEPSEEK_V4` and
            `CUBIC` of `optfx.transforms.matrix.newton_schulz`; or `"svd"` or `"qr"`.
        eps: $\varepsilon$, for the iterations.
        eps_is_floor: divide by $\max(\lVert G \rVert, \varepsilon)$ (torch).
        dtype: the dtype to compute in; None for that of the leaf, which complex leaves keep.

    It has no momentum: put `trace` or `ema` before it. A leaf with more than two dimensions is a batch of matrices, in
    the last two. The matrices of all leaves of one shape are multiplied in one batch.

    For derivatives, the singular vectors and $R$ are constants, and what is zero to rounding stays zero: so they are
    finite.

    Raises:
        ValueError: a leaf that is not a matrix, naming its path; a method that is none.

    Reference: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
        <https://kellerjordan.github.io/posts/muon/>; Amsel et al., "The Polar Express", 2025,
        <https://arxiv.org/abs/2505.16932>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.orthogonalize("svd")
        >>> tx.update({"w": torch.tensor([[4.0, 0.0], [0.0, -3.0]])}, tx.init({"w": torch.zeros(2, 2)}))[0]["w"]
        tensor([[ 1.,  0.],
                [ 0., -1.]])
    """

    method: Method = SIMPLE
    eps: NonNegative = 1e-8
    eps_is_floor: bool = dataclasses.field(default=False, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_method("orthogonalize", self.method)
        super().__post_init__()

    def begin(self, params: Tree) -> Tree:
        tree.check_matrices("orthogonalize", params)
        return super().begin(params)

    def apply(self, updates: Tree, params: Tree, eps: Any) -> Tree:
        return tree.matrixwise(
            orthogonal, updates, eps=eps, method=self.method, eps_is_floor=self.eps_is_floor, dtype=self.dtype
        )
