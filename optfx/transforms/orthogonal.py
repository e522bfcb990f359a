"""Muon's update: the nearest orthogonal matrix, by Newton and Schulz's iteration."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from optfx.core import GradientTransformation
from optfx.tree import Tree, leafwise, record


def newton_schulz(x: Tensor, coefficients: tuple[float, ...], steps: int, eps: float) -> Tensor:
    """Bring the singular values of each matrix of (..., m, n) near 1."""
    a, b, c = coefficients
    tall = x.shape[-2] > x.shape[-1]
    y = (x.mT if tall else x).reshape(math.prod(x.shape[:-2]), min(x.shape[-2:]), max(x.shape[-2:]))
    y = y / torch.linalg.vector_norm(y, dim=(-2, -1), keepdim=True).clamp_min(eps)
    for _ in range(steps):
        gram = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    y = y.mT if tall else y
    return y.reshape(x.shape)


def orthogonal(g: Tensor, coefficients: Any, steps: int, eps: float, dtype: Any, size: str | None) -> Tensor:
    if g.ndim < 2:
        return g
    u = newton_schulz(g if dtype is None else g.to(dtype), coefficients, steps, eps).to(g.dtype)
    rows, columns = max(1, g.shape[-2]), max(1, g.shape[-1])
    if size == "spectral":
        return u * math.sqrt(max(1, rows / columns))
    return u * (0.2 * math.sqrt(max(rows, columns))) if size == "rms" else u


@record
class orthogonalize(GradientTransformation):
    r"""Replace each matrix by an orthogonal one: its singular vectors stay, its singular values come near 1.

    $$X_0 = \frac{G}{\max(\lVert G \rVert_F,\, \varepsilon)}, \qquad A = X X^\top, \qquad
    X_{k+1} = a\, X_k + (b\, A + c\, A^2)\, X_k$$

    times $\sqrt{\max(1, m / n)}$ for a matrix of (m, n), or $0.2 \sqrt{\max(m, n)}$. The last two dimensions of a leaf
    are those of its matrices. Scalars and vectors are left as they are: give those to another optimizer by
    `partition`. The state is empty.

    Args:
        coefficients: $(a, b, c)$.
        steps: how many iterations.
        eps: $\varepsilon$.
        dtype: in which the iteration is computed, such as `torch.bfloat16` (torch); None for that of the updates.
        size: `"spectral"` for the first factor, `"rms"` for the second, which gives the size of Adam's updates, None
            for no factor.

    Raises:
        ValueError: another `size`, or not three coefficients.

    Reference: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
        <https://kellerjordan.github.io/posts/muon/>; Liu et al., "Muon is Scalable for LLM Training", 2025,
        <https://arxiv.org/abs/2502.16982>, for the second factor; `torch.optim.Muon`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.orthogonalize(coefficients=(1.5, -0.5, 0.0), steps=30)
        >>> tx.update({"w": torch.tensor([[3.0, 0.0], [0.0, -2.0]])}, ())[0]
        {'w': tensor([[ 1.0000,  0.0000],
                [ 0.0000, -1.0000]])}
    """

    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315)
    steps: int = 5
    eps: float = 1e-7
    dtype: torch.dtype | None = None
    size: Literal["spectral", "rms"] | None = "spectral"

    def __post_init__(self) -> None:
        if len(self.coefficients) != 3:
            raise ValueError(f"orthogonalize: {len(self.coefficients)} coefficients, expected 3")
        if self.size not in ("spectral", "rms", None):
            raise ValueError(f"orthogonalize: size is {self.size!r}, expected 'spectral', 'rms' or None")

    def init(self, params: Tree) -> tuple[()]:
        return ()

    def update(self, updates: Tree, state: Tree, params: Tree = None, **extra: Any) -> tuple[Tree, Tree]:
        how = {"coefficients": self.coefficients, "steps": self.steps, "eps": self.eps}
        return leafwise(orthogonal, updates, **how, dtype=self.dtype, size=self.size), state
