"""SM3: Adagrad in little memory, with one accumulator for each row, each column, each slice of a leaf."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, NonNegative
from optfx.transforms.adaptive.factored import squared
from optfx.tree import Tree
from optfx.tree.dtypes import real_dtype


class ScaleBySM3State(NamedTuple):
    """The state of `scale_by_sm3`."""

    count: Tensor  # () int64, steps taken
    mean: Tree  # like params, running mean of the preconditioned gradient
    maxima: Tree  # for each leaf a tuple with the accumulators along each dimension; the other dimensions have size 1


def rank(x: Tensor) -> int:
    """In how many slices an element is; a number is one slice."""
    return max(x.ndim, 1)


def slices(x: Tensor, dim: int) -> tuple[int, ...]:
    """The shape of the accumulators along a dimension."""
    return tuple(n if k == dim else 1 for k, n in enumerate(x.shape))


def largest_of(v: Tensor) -> tuple[Tensor, ...]:
    """The largest element of each slice, along each dimension."""
    if v.ndim < 2:
        return (v,)
    take = torch.amax if v.numel() else torch.sum  # of no elements, zero
    return tuple(take(v, [k for k in range(v.ndim) if k != dim], keepdim=True) for dim in range(v.ndim))


def sm3(g: Tensor, m: Tensor, *maxima: Tensor, b1, b2, eps) -> tuple[Tensor, ...]:
    v = b2 * functools.reduce(torch.minimum, maxima) + (1 - b2) * squared(g)
    m = tree.mean(m, g / tree.safe_sqrt(v + eps), b1)
    return m, m, *largest_of(v)


@tree.record
class scale_by_sm3(GradientTransformation):
    r"""Divide the gradient by the root of a bound on the sum of its squares, and take a running mean of that.

    Of each slice $r$ of a leaf, a row or a column of a matrix, only the largest sum is kept. An element $i$ is in one
    slice for each dimension, and has the least of theirs:

    $$v_t(i) = \min_{r \ni i} \mu_{t-1}(r) + g_t(i)^2, \qquad \mu_t(r) = \max_{i \in r} v_t(i), \qquad
    m_t = \beta_1 m_{t-1} + (1 - \beta_1) \frac{g_t}{\sqrt{v_t + \varepsilon}}, \qquad u_t = m_t$$

    With $\beta_2 < 1$, $v_t(i) = \beta_2 \min_{r \ni i} \mu_{t-1}(r) + (1 - \beta_2)\, g_t(i)^2$. Of a vector or a
    number this is Adagrad.

    Args:
        b1: $\beta_1$, how much of the mean is kept at each step.
        b2: $\beta_2$, how much of the squares is kept; 1 for their sum, as in the paper.
        eps: $\varepsilon$.
        mu_dtype: the dtype of the mean; None for that of the parameters.
        accumulator_dtype: the dtype of the sums, real; None for that of the parameters.

    For a complex leaf, $g_t^2$ is the square of the absolute value.

    Reference: Anil et al., "Memory-Efficient Adaptive Optimization", 2019, <https://arxiv.org/abs/1901.11150>, its
        second form; optax, `scale_by_sm3`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_sm3(b1=0.0)
        >>> g = {"w": torch.tensor([[3.0, 1.0], [0.0, 0.0]])}
        >>> updates, state = tx.update(g, tx.init(g))
        >>> updates["w"], [x.tolist() for x in state.maxima["w"]]
        (tensor([[1., 1.], [0., 0.]]), [[[9.0], [0.0]], [[9.0, 1.0]]])
    """

    b1: Decay = 0.9
    b2: Decay = 1.0
    eps: NonNegative = 1e-8
    mu_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    accumulator_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)

    def begin(self, params: Tree) -> ScaleBySM3State:
        count, mean = core.counter(params), tree.zeros_like(params, self.mu_dtype)

        def zeros(p: Tensor) -> tuple[Tensor, ...]:
            dtype = self.accumulator_dtype or real_dtype(p.dtype)
            return tuple(p.new_zeros(slices(p, dim), dtype=dtype) for dim in range(rank(p)))

        return ScaleBySM3State(count, mean, tree.unflatten_like(params, [*map(zeros, tree.leaves(params))]))

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now = self.at(state.count)
        b2 = now["b2"]
        now["b2"] = tree.Share(b2.kept, torch.where(b2.kept == 1, 1.0, b2.new))
        ranks, every = [*map(rank, tree.leaves(updates))], iter(tree.leaves(state.maxima))
        maxima = [[next(every) for _ in range(n)] for n in ranks]
        new, mean = (tree.split(updates, [False for _ in ranks])[0] for _ in range(2))
        for n in sorted({*ranks}):  # a function takes as many leaves as there are dimensions
            keep = [other == n for other in ranks]
            g, m = (tree.split(x, keep)[0] for x in (updates, state.mean))
            columns = zip(*(row for row in maxima if len(row) == n), strict=True)
            old = [tree.unflatten_like(g, column) for column in columns]
            g, m, *found = tree.leafwise(sm3, g, m, *old, outs=2 + n, same_shapes=False, **now)
            new, mean, rows = tree.merge(new, g), tree.merge(mean, m), zip(*map(tree.leaves, found), strict=True)
            maxima = [[*next(rows)] if kept else row for kept, row in zip(keep, maxima, strict=True)]
        return new, ScaleBySM3State(state.count + 1, mean, tree.unflatten_like(updates, [*map(tuple, maxima)]))
