"""Shampoo: inverse roots of the products of gradients, one for each side of a matrix."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, Hyper, NonNegative
from optfx.transforms.matrix import bases
from optfx.tree import Tree

SIDES = {"both": (True, True), "left": (True, False), "right": (False, True)}


class ScaleByShampooState(NamedTuple):
    """The state of `scale_by_shampoo`."""

    count: Tensor  # () int64, steps taken
    left: Tree  # of each matrix the sum or mean of G G^T, (rows, rows)
    right: Tree  # that of G^T G, (cols, cols)
    left_root: Tree  # like left, its inverse root
    right_root: Tree  # like right


def root(a: Tensor, exponent, eps) -> Tensor:
    """(a + eps I)^-exponent; zero where a + eps I has no inverse."""
    values, vectors = bases.eigen(a)
    values = values.clamp(min=0) + eps
    positive = values > 0
    powers = torch.where(positive, torch.where(positive, values, 1.0) ** -exponent, 0.0)
    return (vectors * powers.unsqueeze(-2)) @ vectors.adjoint()


def roots(left_root: Tensor, right_root: Tensor, left: Tensor, right: Tensor, **numbers) -> tuple[Tensor, Tensor]:
    return root(left, **numbers), root(right, **numbers)


def take_roots(*trees: Tree, **numbers: Any) -> tuple[Tree, ...]:
    return tree.matrixwise(roots, *trees, outs=2, **numbers)


@tree.record
class scale_by_shampoo(GradientTransformation):
    r"""Multiply each matrix by inverse roots of the products of its gradients, from both sides.

    $$L_t = L_{t-1} + G_t G_t^\top, \qquad R_t = R_{t-1} + G_t^\top G_t, \qquad
    U_t = (L_t + \varepsilon I)^{-p}\, G_t\, (R_t + \varepsilon I)^{-p}$$

    or with running means in the place of the sums, $L_t = \beta L_{t-1} + (1 - \beta)\, G_t G_t^\top$.

    Args:
        beta: $\beta$; None for the sums.
        eps: $\varepsilon$.
        exponent: $p$; None for 1/4, and 1/2 with one side.
        frequency: how many steps the roots are kept.
        sides: `"both"`, or only `"left"` or `"right"`.
        max_dim: a side that is longer is left as it is.
        dtype: the dtype of $L$, $R$ and their roots; None for that of the parameters, but at least float32.

    A leaf with more than two dimensions is a batch of matrices, in the last two. The roots are constants for
    derivatives. The size of an update says little: see `graft`, which takes that of another optimizer.

    Raises:
        ValueError: a leaf that is no real matrix, naming its path; another value of `sides`.

    Reference: Gupta et al., "Shampoo: Preconditioned Stochastic Tensor Optimization", 2018,
        <https://arxiv.org/abs/1802.09568>; pytorch_optimizer, `Shampoo`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_shampoo()
        >>> g = {"w": torch.tensor([[4.0, 0.0], [0.0, -2.0]])}
        >>> tx.update(g, tx.init(g))[0]["w"].round(decimals=4)
        tensor([[ 1.0000,  0.0000],
                [ 0.0000, -1.0000]])
    """

    beta: Decay | None = None
    eps: NonNegative = 1e-6
    exponent: Hyper | None = None
    frequency: Hyper = 1
    sides: Literal["both", "left", "right"] = dataclasses.field(default="both", kw_only=True)
    max_dim: int = dataclasses.field(default=10_000, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sides not in SIDES:
            raise ValueError(f"scale_by_shampoo: sides is {self.sides!r}, expected one of {', '.join(SIDES)}")

    def begin(self, params: Tree) -> ScaleByShampooState:
        bases.check("scale_by_shampoo", params)
        limits = [self.max_dim if side else -1 for side in SIDES[self.sides]]
        left, right = (bases.squares(params, dim, n, self.dtype) for dim, n in zip((-2, -1), limits, strict=True))
        return ScaleByShampooState(core.counter(params), left, right, *bases.identities(left, right))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        count, left, right, *kept = state
        now = self.at(count)
        exponent = (0.25 if self.sides == "both" else 0.5) if self.exponent is None else now["exponent"]
        left, right = bases.gathered(left, right, updates, now["beta"])
        due = core.every(now["frequency"], count)
        kept = core.when_due(due, take_roots, *kept, left, right, outs=2, exponent=exponent, eps=now["eps"])
        updates = tree.matrixwise(bases.out_of, updates, *kept)  # a root is symmetric
        return updates, ScaleByShampooState(count + 1, left, right, *kept)
