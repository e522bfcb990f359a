"""Adafactor's preconditioner: the mean of squares of a matrix, stored as the means of its rows and of its columns."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import Decay, GradientTransformation, Hyper, NonNegative
from optfx.tree import Tree
from optfx.tree.algebra import pointwise
from optfx.tree.dtypes import real_dtype


class ScaleByFactoredRmsState(NamedTuple):
    """The state of `scale_by_factored_rms`. A leaf is in the first two trees, or in the last."""

    count: Tensor  # () int64, steps taken
    v_row: Tree  # of factored leaves, mean of squares over one dimension, kept with size 1
    v_col: Tree  # of factored leaves, mean of squares over the other
    v: Tree  # of the other leaves, the mean of squares


def factored_dims(shape: torch.Size, factored: bool | Literal["last"], min_size: int) -> tuple[int, int] | None:
    """The dimensions over which `v_col` and `v_row` are means; None if the leaf is not factored."""
    if not factored or len(shape) < 2:
        return None
    order = range(len(shape)) if factored == "last" else sorted(range(len(shape)), key=shape.__getitem__)
    d1, d0 = order[-2], order[-1]
    return None if min(shape[d1], shape[d0]) < min_size else (d1, d0)


def split_factored(x: Tree, factored: bool | Literal["last"], min_size: int) -> tuple[Tree, Tree]:
    """The leaves that are factored, and the others."""
    return tree.split(x, [factored_dims(leaf.shape, factored, min_size) is not None for leaf in tree.leaves(x)])


def real_zeros(p: Tensor, dtype: torch.dtype | None) -> Tensor:
    return torch.zeros_like(p, dtype=dtype or real_dtype(p.dtype), requires_grad=False)


def zero_means(
    matrices: Tree, factored: bool | Literal["last"], min_size: int, dtype: torch.dtype | None
) -> tuple[Tree, Tree]:
    """The means of rows and of columns at the beginning."""

    def means_over(p: Tensor, which: int) -> Tensor:
        dims = factored_dims(p.shape, factored, min_size) or (-2, -1)
        return real_zeros(p.narrow(dims[which], 0, 1), dtype)

    rows, cols = (tree.map(lambda p, k=k: means_over(p, k), matrices) for k in (1, 0))
    return rows, cols


def floor_of(x: Tensor, epsilon: Any) -> Any:
    return torch.finfo(x.dtype).eps if epsilon is None else epsilon


def squared(g: Tensor) -> Tensor:
    return g.abs().square() if g.is_complex() else g * g


def factored_means(square: Tensor, row: Tensor, col: Tensor, rho, dims: tuple[int, int]) -> tuple[Tensor, Tensor]:
    d1, d0 = dims
    return (
        tree.mean(row, square.mean(d0, keepdim=True), rho),
        tree.mean(col, square.mean(d1, keepdim=True), rho),
    )


def over_root(x: Tensor, row: Tensor, col: Tensor, dims: tuple[int, int]) -> Tensor:
    return x * (row / row.mean(dims[0], keepdim=True)).rsqrt() * col.rsqrt()


def factored_rms(
    g: Tensor, row: Tensor, col: Tensor, rho, epsilon, floor: bool, factored, min_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    dims = factored_dims(g.shape, factored, min_size) or (-2, -1)
    row, col = factored_means(squared(g) if floor else squared(g) + epsilon, row, col, rho, dims)
    if floor:
        least, mean = floor_of(g, epsilon), row.mean(dims[0], keepdim=True)
        return g * (row * col / mean.clamp(min=least)).clamp(min=least * least).rsqrt(), row, col
    return over_root(g, row, col, dims), row, col


def full_rms(g: Tensor, v: Tensor, rho, epsilon, floor: bool) -> tuple[Tensor, Tensor]:
    if floor:
        least = floor_of(g, epsilon)
        v = tree.mean(v, squared(g), rho)
        return g * v.clamp(min=least * least).rsqrt(), v
    v = tree.mean(v, squared(g) + epsilon, rho)
    return g * v.rsqrt(), v


@tree.record
class scale_by_factored_rms(GradientTransformation):
    r"""Divide the gradient by its running root mean square, which takes little memory for a matrix.

    For a matrix, only the means over its rows and over its columns are kept:

    $$R_t = \rho_t R_{t-1} + (1 - \rho_t) \operatorname{mean}_j(G_t^2 + \varepsilon), \qquad
    C_t = \rho_t C_{t-1} + (1 - \rho_t) \operatorname{mean}_i(G_t^2 + \varepsilon), \qquad
    \rho_t = 1 - \max(t - t_0,\, 1)^{-\kappa}$$

    $$U_t = \frac{G_t}{\sqrt{V_t}}, \qquad V_t = \frac{R_t\, C_t}{\operatorname{mean}(R_t)}$$

    For any other leaf, $V_t$ is the running mean of $G_t^2 + \varepsilon$ itself.

    Args:
        factored: True factors the two largest dimensions of a leaf (optax), `"last"` its last two (torch), False none.
        decay_rate: $\kappa$.
        step_offset: $t_0$, the steps taken before this training.
        min_dim_size_to_factor: a leaf is factored if both dimensions are at least this long.
        epsilon: $\varepsilon$; with `epsilon_is_floor`, None is the machine epsilon of the computation.
        epsilon_is_floor: leave out $\varepsilon$ above; $V_t$ is at least $\varepsilon^2$, and the mean of $R_t$ at
            least $\varepsilon$ (torch).
        accumulator_dtype: the dtype of the means; None for that of the parameters.
        decay: $\rho$, constant as in CAME; None for the power above.

    For a complex leaf, $G_t^2$ is the square of the absolute value.

    Raises:
        ValueError: `epsilon=None` without `epsilon_is_floor`.

    Reference: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
        <https://arxiv.org/abs/1804.04235>; optax, `scale_by_factored_rms`; `torch.optim.Adafactor`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.scale_by_factored_rms(min_dim_size_to_factor=1)
        >>> params = {"w": torch.ones(2, 3)}
        >>> updates, state = tx.update({"w": torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])}, tx.init(params))
        >>> updates["w"], state.v_row["w"].shape, state.v_col["w"].shape
        (tensor([[1.0000, 1.0000, 1.0000], [1.0000, 1.0000, 1.0000]]), torch.Size([2, 1]), torch.Size([1, 3]))
    """

    factored: bool | Literal["last"] = True
    decay_rate: NonNegative = 0.8
    step_offset: Hyper = 0
    min_dim_size_to_factor: int = 128
    epsilon: NonNegative | None = 1e-30
    epsilon_is_floor: bool = dataclasses.field(default=False, kw_only=True)
    accumulator_dtype: torch.dtype | None = dataclasses.field(default=None, kw_only=True)
    decay: Decay | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon is None and not self.epsilon_is_floor:
            raise ValueError("scale_by_factored_rms: epsilon=None needs epsilon_is_floor=True")

    def _split(self, x: Tree) -> tuple[Tree, Tree]:
        return split_factored(x, self.factored, self.min_dim_size_to_factor)

    def begin(self, params: Tree) -> ScaleByFactoredRmsState:
        count, (matrices, others) = core.counter(params), self._split(params)
        rows, cols = zero_means(matrices, self.factored, self.min_dim_size_to_factor, self.accumulator_dtype)
        return ScaleByFactoredRmsState(
            count, rows, cols, tree.map(lambda p: real_zeros(p, self.accumulator_dtype), others)
        )

    def step(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        now, count = self.at(state.count), state.count + 1
        rho = now["decay"]
        if rho is None:
            new = (count - now["step_offset"]).clamp(min=1.0) ** -now["decay_rate"]
            rho = tree.Share(1 - new, new)
        here = {"rho": rho, "epsilon": now["epsilon"], "floor": self.epsilon_is_floor}
        matrices, others = self._split(updates)
        matrices, v_row, v_col = tree.leafwise(
            factored_rms,
            matrices,
            state.v_row,
            state.v_col,
            outs=3,
            same_shapes=False,
            factored=self.factored,
            min_size=self.min_dim_size_to_factor,
            **here,
        )
        others, v = pointwise(full_rms, others, state.v, outs=2, **here)  # of a complex element, the absolute value
        return tree.merge(matrices, others), ScaleByFactoredRmsState(count, v_row, v_col, v)
