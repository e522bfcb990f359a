"""Adafactor's preconditioner: a mean of squares of which only row and column means are kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.core import GradientTransformation, Hyper, Memoryless, at, counter, need_params, wide
from optfx.tree import Tree, leafwise, map, record, safe_sqrt


class ScaleByAdafactorState(NamedTuple):
    """The state of `scale_by_adafactor`."""

    count: Tensor  # () int64, steps taken
    v_row: Tree  # of (..., m, n) the running means over columns, (..., m, 1); () of vectors and scalars
    v_col: Tree  # and over rows, (..., 1, n)
    v: Tree  # of vectors and scalars the running mean of squares itself; () of others


def zeros_of(p: Tensor, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=p.dtype, device=p.device)


def adafactor(g: Tensor, row: Tensor, col: Tensor, v: Tensor, weight: Any, eps: Any) -> Any:
    if not g.numel():
        return g, row, col, v
    eps = torch.finfo(g.dtype).eps if eps is None else eps
    square = (g * g.conj()).real if g.is_complex() else g * g
    if g.ndim < 2:
        v = variance = torch.lerp(v.real if g.is_complex() else v, square, weight)
    else:
        row, col = (x.real if g.is_complex() else x for x in (row, col))
        row = torch.lerp(row, square.mean(-1, keepdim=True), weight)
        col = torch.lerp(col, square.mean(-2, keepdim=True), weight)
        variance = row @ col / row.mean(-2, keepdim=True).clamp(min=eps)
    return g / safe_sqrt(variance.clamp(min=eps * eps)), row, col, v


@record
class scale_by_adafactor(GradientTransformation):
    r"""Divide the gradient by a root mean square of it, of which a matrix keeps row and column means only.

    $$\beta_t = 1 - t^{-\gamma}, \qquad
    R_t = \beta_t R_{t-1} + (1 - \beta_t)\, \operatorname{mean}_j G_t^2, \qquad
    C_t = \beta_t C_{t-1} + (1 - \beta_t)\, \operatorname{mean}_i G_t^2$$

    $$V_t = \frac{R_t C_t}{\max(\operatorname{mean}_i R_t,\, \varepsilon)}, \qquad
    U_t = \frac{G_t}{\sqrt{\max(V_t,\, \varepsilon^2)}}$$

    The last two dimensions of a leaf are those of its matrices; vectors and scalars keep their mean of squares.

    Args:
        decay_rate: $\gamma$.
        eps: $\varepsilon$; None for the smallest relative step of the dtype.

    Reference: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
        <https://arxiv.org/abs/1804.04235>; `torch.optim.Adafactor`, of which it is a part (optax's
        `scale_by_factored_rms` takes the two largest dimensions, and adds an epsilon to the squares).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_adafactor()
        >>> params = {"w": torch.zeros(2, 2)}
        >>> tx.update({"w": torch.tensor([[1.0, -2.0], [2.0, 4.0]])}, tx.init(params))[0]
        {'w': tensor([[ 1., -1.],
                [ 1.,  1.]])}
    """

    decay_rate: Hyper = 0.8
    eps: Hyper | None = None

    def init(self, params: Tree) -> ScaleByAdafactorState:
        count = counter(params)
        row = map(lambda p: zeros_of(p, *p.shape[:-1], 1) if p.ndim > 1 else zeros_of(p), params)
        col = map(lambda p: zeros_of(p, *p.shape[:-2], 1, p.shape[-1]) if p.ndim > 1 else zeros_of(p), params)
        return ScaleByAdafactorState(
            count, row, col, map(lambda p: zeros_of(p, *p.shape if p.ndim < 2 else ()), params)
        )

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        count = state.count + 1
        weight = count.to(wide(count.device)) ** -at(state.count, self.decay_rate)
        updates, *means = leafwise(
            adafactor,
            updates,
            state.v_row,
            state.v_col,
            state.v,
            outs=4,
            same_shapes=False,
            weight=weight,
            eps=at(state.count, self.eps),
        )
        return updates, ScaleByAdafactorState(count, *means)


def times_size(u: Tensor, p: Tensor, min_scale: Any) -> Tensor:
    square = ((p * p.conj()).real if p.is_complex() else p * p).sum() / max(1, p.numel())
    return u * safe_sqrt(square).clamp(min=min_scale)


@record
class scale_by_param_block_rms(Memoryless):
    r"""Multiply the updates of each leaf by the root mean square of its parameter. It needs params.

    $$u = g \cdot \max(\operatorname{rms}(p),\, s)$$

    Args:
        min_scale: $s$.

    Raises:
        ValueError: no params.

    Reference: optax, `scale_by_param_block_rms`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_param_block_rms()
        >>> params = {"w": torch.tensor([3.0, -3.0])}
        >>> tx.update({"w": torch.ones(2)}, tx.init(params), params)[0]
        {'w': tensor([3., 3.])}
    """

    min_scale: Hyper = 1e-3

    def apply(self, updates: Tree, count: Tensor, params: Tree, **extra: Any) -> Tree:
        return leafwise(times_size, updates, need_params(self, params), min_scale=at(count, self.min_scale))
