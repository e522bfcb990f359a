"""PolarGrad: an orthogonal matrix times the nuclear norm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx import tree
from optfx.transforms.matrix.orthogonalize import Method, orthogonal, orthogonalize
from optfx.tree import Tree


def times_nuclear_norm(x: Tensor, eps, method: Method, eps_is_floor: bool, dtype: torch.dtype | None) -> Tensor:
    u = orthogonal(x, eps, method, eps_is_floor, dtype).to(x.dtype)
    nuclear = (u.conj() * x).real.sum((-2, -1), keepdim=True) if x.is_complex() else (u * x).sum((-2, -1), keepdim=True)
    return nuclear * u


@tree.record
class polargrad(orthogonalize):
    r"""Replace each matrix by a nearly orthogonal one, as long as its singular values together.

    $$U \Sigma V^* \mapsto \operatorname{tr}(\Sigma)\, U V^*$$

    It is the steepest descent in the spectral norm. Unlike those of `orthogonalize`, steps become small where gradients
    do. The trace is taken as $\langle O, G \rangle$, with the $O$ that the method gives.

    Args:
        method: as in `orthogonalize`.
        eps: likewise.
        eps_is_floor: likewise.
        dtype: likewise.

    Raises:
        ValueError: a leaf that is not a matrix, naming its path; a method that is none.

    Reference: Lau et al., "PolarGrad: A Class of Matrix-Gradient Optimizers from a Unifying Preconditioning
        Perspective", 2025, <https://arxiv.org/abs/2505.21799>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.polargrad("svd")
        >>> tx.update({"w": torch.tensor([[4.0, 0.0], [0.0, -3.0]])}, tx.init({"w": torch.zeros(2, 2)}))[0]["w"]
        tensor([[ 7.,  0.],
                [ 0., -7.]])
    """

    def apply(self, updates: Tree, params: Tree, eps: Any) -> Tree:
        return tree.matrixwise(
            times_nuclear_norm, updates, eps=eps, method=self.method, eps_is_floor=self.eps_is_floor, dtype=self.dtype
        )
