"""Scion's steps: the step of norm 1 that goes furthest along the gradient, in a norm that suits the role of a layer."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import NonNegative
from optfx.transforms.adaptive.factored import squared
from optfx.transforms.matrix.newton_schulz import SIMPLE
from optfx.transforms.matrix.orthogonalize import Method, check_method, orthogonal
from optfx.transforms.scaling import sign
from optfx.tree import Tree

Norm = Literal["spectral", "sign", "rms"]


def spectral(x: Tensor, eps, method: Method, dtype: torch.dtype | None) -> Tensor:
    out, into = x.shape[-2:]
    return math.sqrt(out / max(into, 1)) * orthogonal(x, eps, method, False, dtype)


def spectral_kernel(x: Tensor, eps, method: Method, dtype: torch.dtype | None) -> Tensor:
    """Of a convolution, (out, in, ...)."""
    out, into, *window = x.shape
    u = orthogonal(x.flatten(1), eps, method, False, dtype).reshape(x.shape)
    return math.sqrt(out / max(into, 1)) / max(math.prod(window), 1) * u


def over_inputs(x: Tensor) -> Tensor:
    return x / max(x.shape[1] if x.ndim > 1 else 1, 1)


def over_rms(x: Tensor, eps) -> Tensor:
    return x / (tree.safe_sqrt(squared(x).sum() / max(x.numel(), 1)) + eps)


@tree.record
class lmo(core.Stateless):
    r"""Replace each leaf by the step of norm 1 that goes furthest along it: a linear minimization oracle.

    | norm | step | for |
    |---|---|---|
    | `"spectral"` | $\sqrt{\text{out} / \text{in}}\; U V^*$ | matrices; kernels as (out, in k), over k |
    | `"sign"` | $\operatorname{sign}(g) / \text{in}$ | the last layer, embeddings that are (out, in) |
    | `"rms"` | $g / \operatorname{rms}(g)$ | biases |

    Args:
        norm: `"spectral"`, `"sign"` or `"rms"`.
        eps: added to the norm that is divided by.
        method: as in `orthogonalize`.
        dtype: the dtype to orthogonalize in; None for that of the leaf, which complex leaves keep.

    Raises:
        ValueError: another norm; a method that is none; a leaf with fewer than two dimensions, naming its path, for the
            spectral norm.

    Reference: Pethick et al., "Training Deep Learning Models with Norm-Constrained LMOs", 2025,
        <https://arxiv.org/abs/2502.07529>; pytorch_optimizer, `SCION`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.lmo("sign")
        >>> tx.update({"w": torch.tensor([[3.0, -0.1]])}, tx.init({"w": torch.zeros(1, 2)}))[0]
        {'w': tensor([[ 0.5000, -0.5000]])}
    """

    norm: Norm = "spectral"
    eps: NonNegative = 1e-8
    method: Method = dataclasses.field(default=SIMPLE, kw_only=True)
    dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.norm not in ("spectral", "sign", "rms"):
            raise ValueError(f"lmo: the norm is {self.norm!r}, expected 'spectral', 'sign' or 'rms'")
        check_method("lmo", self.method)
        super().__post_init__()

    def begin(self, params: Tree) -> Tree:
        if self.norm == "spectral":
            tree.check_matrices("lmo", params)
        return super().begin(params)

    def apply(self, updates: Tree, params: Tree, eps: Any) -> Tree:
        if self.norm == "sign":
            return tree.leafwise(over_inputs, tree.elementwise(sign, updates))
        if self.norm == "rms":
            return tree.leafwise(over_rms, updates, eps=eps)
        options = {"eps": eps, "method": self.method, "dtype": self.dtype}
        matrices, kernels = tree.split(updates, [x.ndim == 2 for x in tree.leaves(updates)])
        matrices = tree.matrixwise(spectral, matrices, **options)
        return tree.merge(matrices, tree.leafwise(spectral_kernel, kernels, **options))
