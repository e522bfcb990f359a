"""Scale updates by the size of what they change: the norm of a parameter, or the shape of a matrix."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import NonNegative
from optfx.tree import Tree


def times_rms(u: Tensor, p: Tensor, min_scale) -> Tensor:
    mean_square = p.abs().square().sum() / max(p.numel(), 1)
    return u * tree.safe_sqrt(mean_square).clamp(min=min_scale)


@tree.record
class scale_by_param_block_rms(core.Stateless):
    r"""Multiply each leaf by the root mean square of its parameter. Needs params.

    $$u_t = \max(\operatorname{rms}(p_{t-1}),\, \sigma)\; g_t$$

    Args:
        min_scale: $\sigma$, the smallest factor, so that a parameter can leave zero.

    Raises:
        ValueError: no params.

    Reference: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
        <https://arxiv.org/abs/1804.04235>; optax, `scale_by_param_block_rms`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_param_block_rms()
        >>> params = {"w": torch.tensor([2.0, -2.0])}
        >>> tx.update({"w": torch.tensor([1.0, 0.5])}, tx.init(params), params)[0]
        {'w': tensor([2., 1.])}
    """

    needs_params = True
    min_scale: NonNegative = 1e-3

    def apply(self, updates: Tree, params: Tree, min_scale: Any) -> Tree:
        return tree.leafwise(times_rms, updates, params, min_scale=min_scale)


def times_norm(u: Tensor, p: Tensor, min_scale) -> Tensor:
    return u * torch.linalg.vector_norm(p).clamp(min=min_scale)


@tree.record
class scale_by_param_block_norm(core.Stateless):
    r"""Multiply each leaf by the norm of its parameter. Needs params.

    $$u_t = \max(\lVert p_{t-1} \rVert,\, \sigma)\; g_t$$

    Args:
        min_scale: $\sigma$, the smallest factor, so that a parameter can leave zero.

    Raises:
        ValueError: no params.

    Reference: optax, `scale_by_param_block_norm`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_param_block_norm()
        >>> params = {"w": torch.tensor([3.0, -4.0])}
        >>> tx.update({"w": torch.tensor([1.0, 0.5])}, tx.init(params), params)[0]
        {'w': tensor([5.0000, 2.5000])}
    """

    needs_params = True
    min_scale: NonNegative = 1e-3

    def apply(self, updates: Tree, params: Tree, min_scale: Any) -> Tree:
        return tree.leafwise(times_norm, updates, params, min_scale=min_scale)


def factor_of(rows: int, cols: int, consistent_rms: Any, at_least_one: bool) -> Any:
    """What `scale_by_shape` multiplies a matrix by."""
    if consistent_rms is not None:
        return consistent_rms * math.sqrt(max(rows, cols))
    ratio = rows / max(cols, 1)
    return math.sqrt(max(1.0, ratio) if at_least_one else ratio)


@tree.record
class scale_by_shape(core.Stateless):
    r"""Multiply each matrix by a factor of its shape, so that a learning rate tuned at one width suits another.

    $$u = \sqrt{\max(1,\; \text{rows} / \text{columns})}\; g \qquad\text{or}\qquad
    u = \sigma \sqrt{\max(\text{rows},\, \text{columns})}\; g$$

    Args:
        consistent_rms: $\sigma$, for updates with the same root mean square at every shape; AdamW has about 0.2. None
            for the first form.
        at_least_one: False for $\sqrt{\text{rows} / \text{columns}}$ at every shape, as in Dion and Scion.

    The last two dimensions are rows and columns: outputs and inputs of a linear layer.

    Raises:
        ValueError: a leaf that is not a matrix, naming its path.

    Reference: Liu et al., "Muon is Scalable for LLM Training", 2025, <https://arxiv.org/abs/2502.16982>; optax,
        `contrib.muon`; `torch.optim.Muon(adjust_lr_fn=...)`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_shape()
        >>> tx.update({"w": torch.ones(4, 1)}, tx.init({"w": torch.zeros(4, 1)}))[0]["w"].T
        tensor([[2., 2., 2., 2.]])
    """

    consistent_rms: NonNegative | None = None
    at_least_one: bool = dataclasses.field(default=True, kw_only=True)

    def begin(self, params: Tree) -> Tree:
        tree.check_matrices("scale_by_shape", params)
        return super().begin(params)

    def apply(self, updates: Tree, params: Tree, consistent_rms: Any) -> Tree:
        shapes = [(x.shape[-2], x.shape[-1]) for x in tree.leaves(updates)]
        for rows, cols in dict.fromkeys(shapes):  # elementwise, so that it is fused with what is around it
            kept, rest = tree.split(updates, [x == (rows, cols) for x in shapes])
            factor = factor_of(rows, cols, consistent_rms, self.at_least_one)
            updates = tree.merge(tree.elementwise(torch.mul, kept, other=factor), rest)
        return updates
