"""CAME's confidence: a mean of the updates, over how far the updates are from it, by rows and by columns."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, NonNegative
from optfx.transforms.adaptive.factored import factored_means, over_root, split_factored, squared, zero_means
from optfx.transforms.momentum import average
from optfx.tree import Tree

LAST = {"factored": "last", "min_size": 1}  # all matrices but empty ones; dimensions before the last two are a batch


class ScaleByConfidenceState(NamedTuple):
    """The state of `scale_by_confidence`."""

    count: Tensor  # () int64, steps taken
    mu: Tree  # like params, running mean of the updates
    res_row: Tree  # of matrices, mean of the squared residual over the columns, which are kept with size 1
    res_col: Tree  # of matrices, mean of it over the rows


def confident(u: Tensor, m: Tensor, row: Tensor, col: Tensor, b1, b3, eps) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    m = tree.mean(m, u, b1)
    row, col = factored_means(squared(u - m) + eps, row, col, b3, (-2, -1))
    return over_root(m, row, col, (-2, -1)), m, row, col


@tree.record
class scale_by_confidence(GradientTransformation):
    r"""Replace the updates by a running mean of them, over the root of how far they are from it.

    For a matrix, the squared residual is kept as the means of its rows and of its columns:

    $$M_t = \beta_1 M_{t-1} + (1 - \beta_1)\, U_t, \qquad D_t = (U_t - M_t)^2 + \varepsilon$$

    $$R_t = \beta_3 R_{t-1} + (1 - \beta_3) \operatorname{mean}_j(D_t), \qquad
    C_t = \beta_3 C_{t-1} + (1 - \beta_3) \operatorname{mean}_i(D_t)$$

    $$\hat U_t = \frac{M_t}{\sqrt{S_t}}, \qquad S_t = \frac{R_t\, C_t}{\operatorname{mean}(R_t)}$$

    For a leaf with fewer dimensions, $\hat U_t = M_t$. Of a leaf with more, the last two are a matrix.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b3: $\beta_3$, how much of the means of squared residuals is kept.
        eps: $\varepsilon$.
        mu_dtype: the dtype of $M$; None for that of the parameters.
        accumulator_dtype: the dtype of $R$ and $C$, real; None for that of the parameters.

    This is what CAME adds to Adafactor: `came` is `scale_by_factored_rms`, `clip_by_block_rms` and this. No mean is
    corrected for having begun at zero. For a complex leaf, the square is that of the absolute value.

    Reference: Luo et al., "CAME: Confidence-guided Adaptive Memory Efficient Optimization", 2023,
        <https://arxiv.org/abs/2307.02047>; their package, `came_pytorch`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_confidence(b1=0.5, b3=0.0)
        >>> params = {"w": torch.zeros(1, 2)}
        >>> tx.update({"w": torch.tensor([[2.0, -4.0]])}, tx.init(params))[0]
        {'w': tensor([[ 1., -1.]])}
    """

    b1: Decay = 0.9
    b3: Decay = 0.9999
    eps: NonNegative = 1e-16
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    accumulator_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleByConfidenceState:
        count, mu = core.counter(params), tree.zeros_like(params, self.mu_dtype)
        matrices, _ = split_factored(params, **LAST)
        return ScaleByConfidenceState(count, mu, *zero_means(matrices, **LAST, dtype=self.accumulator_dtype))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now = self.at(state.count)
        (matrices, others), (mu, other_mu) = (split_factored(x, **LAST) for x in (updates, state.mu))
        matrices, mu, row, col = tree.leafwise(
            confident, matrices, mu, state.res_row, state.res_col, outs=4, same_shapes=False, **now
        )
        others, other_mu = tree.elementwise(average, others, other_mu, outs=2, decay=now["b1"], correction=1.0)
        mu = tree.merge(mu, other_mu)
        return tree.merge(matrices, others), ScaleByConfidenceState(state.count + 1, mu, row, col)
