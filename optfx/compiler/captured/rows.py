"""Operations over short rows in smaller words: sums and maxima of a row, and arithmetic of each element.

A row kernel (`tiles.py`) has its numbers at hand for several passes, so a softmax is four words here and one kernel
there. Long rows stay with ATen, which is good at those.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch.fx import Graph, Node

from optfx.compiler.captured.trace import Place, Traced
from optfx.compiler.kernels.writer import HALF, name_of

LONGEST = 64  # columns of a row

aten = torch.ops.aten


def in_small_words(traced: Traced) -> Traced:
    """Rewrite the operations over short rows."""
    instead: dict[Node, Node] = {}
    for x in list(traced.graph.nodes):
        write = Words.written_by.get(name_of(x))
        if write is None or "constant" in x.meta or not isinstance(x.args[0], Node):
            continue
        with traced.graph.inserting_before(x):
            made = write(Words(traced.graph), *x.args, **x.kwargs)
        if made is None:
            continue
        replaced = [x]
        if isinstance(made, tuple):
            replaced = sorted(x.users, key=lambda u: u.args[1])  # type: ignore[arg-type, return-value]
            made = tuple(made[u.args[1]] for u in replaced)  # type: ignore[index]
        else:
            made = (made,)
        for old, new in zip(replaced, made, strict=True):
            if old.meta["val"].stride() != new.meta["val"].stride():
                with traced.graph.inserting_after(new):
                    new = Words(traced.graph).clone(new, old.meta["val"])
            old.replace_all_uses_with(new)
            instead[old] = new
        for old in (*replaced, x) if x not in replaced else replaced:
            traced.graph.erase_node(old)
    for u in traced.graph.nodes:
        place = u.meta.get("place")
        if place is not None and place.base in instead:
            u.meta["place"] = place._replace(base=instead[place.base])
    return traced._replace(outputs=[instead.get(x, x) if isinstance(x, Node) else x for x in traced.outputs])


def row_of(x: Any, dim: Any) -> int | None:
    """The dimension that rows lie along, if they are short."""
    value = x.meta["val"]
    dims = [dim] if isinstance(dim, int) else list(dim or [])
    if len(dims) != 1 or not value.ndim or not value.dtype.is_floating_point:
        return None
    d = dims[0] % value.ndim
    return d if 0 < value.shape[d] <= LONGEST else None


def _dims(x: Node, dim: Any) -> list[int]:
    """Dimensions that are summed over, the last one first; none where it is not said which."""
    dims = [dim] if isinstance(dim, int) else list(dim or [])
    return sorted((d % x.meta["val"].ndim for d in dims), reverse=True)


def _zeros(like: torch.Tensor) -> torch.Tensor:
    """Torch runs Python on the meta device for some operations, and imports Dynamo for it."""
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype).zero_()


class Words:
    """Writes nodes into a graph, each with what it would be."""

    def __init__(self, graph: Graph):
        self.graph = graph

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        vals = [_zeros(x.meta["val"]) if isinstance(x, Node) else x for x in args]
        return self._noted(self.graph.call_function(target, args, kwargs), target(*vals, **kwargs))

    def _noted(self, node: Node, like: torch.Tensor) -> Node:
        node.meta["val"] = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="meta")
        node.meta["place"] = Place(node, tuple(like.shape), tuple(like.stride()))
        return node

    def clone(self, x: Node, like: torch.Tensor) -> Node:
        """A copy in memory of another order."""
        return self._noted(self.graph.call_function(aten.clone.default, (x,)), like)

    def wide(self, x: Any) -> Any:
        """Half precision as float: these operations round once, at their end."""
        if isinstance(x, Node) and x.meta["val"].dtype in HALF:
            return self(aten._to_copy.default, x, dtype=torch.float32)
        return x

    def narrow(self, x: Node, dtype: torch.dtype) -> Node:
        return x if x.meta["val"].dtype == dtype else self(aten._to_copy.default, x, dtype=dtype)

    def sum(self, x: Node, d: int) -> Node:
        return self(aten.sum.dim_IntList, x, [d], True)

    def mean(self, x: Node, d: int) -> Node:
        return self(aten.div.Tensor, self.sum(x, d), float(x.meta["val"].shape[d]))

    # ---- operations ------------------------------------------------------------------------------

    def softmax(self, x: Node, dim: int, to_float: bool) -> Node | None:
        d, dtype = row_of(x, dim), torch.float32 if to_float else x.meta["val"].dtype
        if d is None:
            return None
        x = self.wide(x)
        e = self(aten.exp.default, self(aten.sub.Tensor, x, self(aten.amax.default, x, [d], True)))
        return self.narrow(self(aten.div.Tensor, e, self.sum(e, d)), dtype)

    def safe_softmax(self, x: Node, dim: int, dtype: torch.dtype | None = None) -> Node | None:
        d = row_of(x, dim)
        if d is None:
            return None
        empty = self(aten.eq.Scalar, self(aten.amax.default, x, [d], True), -math.inf)
        y = self.softmax(x, dim, False)
        assert y is not None
        return self.narrow(self(aten.masked_fill.Scalar, y, empty, 0.0), dtype or x.meta["val"].dtype)

    def log_sum_exp(self, x: Node, dim: Any, keep: bool = False) -> Node | None:
        d = row_of(x, dim)
        if d is None:
            return None
        dtype, x = x.meta["val"].dtype, self.wide(x)
        top = self(aten.amax.default, x, [d], True)
        top = self(aten.masked_fill.Scalar, top, self(aten.eq.Scalar, self(aten.abs.default, top), math.inf), 0.0)
        y = self(aten.log.default, self.sum(self(aten.exp.default, self(aten.sub.Tensor, x, top)), d))
        y = self(aten.add.Tensor, y, top)
        return self.narrow(y if keep else self(aten.sum.dim_IntList, y, [d]), dtype)

    def norm(self, x: Node, order: Any = 2, dim: Any = None, keep: bool = False, *, dtype: Any = None) -> Node | None:
        d = row_of(x, dim)
        if d is None or order != 2 or dtype is not None:
            return None
        dtype, x = x.meta["val"].dtype, self.wide(x)
        total = self(aten.sum.dim_IntList, self(aten.mul.Tensor, x, x), [d], keep)
        return self.narrow(self(aten.sqrt.default, total), dtype)

    def log_sigmoid(self, x: Node) -> tuple[Node, ...] | None:
        if x.meta["val"].dtype in HALF:
            return None
        z = self(aten.exp.default, self(aten.neg.default, self(aten.abs.default, x)))
        return self(aten.sub.Tensor, self(aten.clamp_max.default, x, 0), self(aten.log1p.default, z)), z

    def log_softmax(self, x: Node, dim: int, to_float: bool) -> Node | None:
        d, dtype = row_of(x, dim), torch.float32 if to_float else x.meta["val"].dtype
        if d is None:
            return None
        x = self.wide(x)
        below = self(aten.sub.Tensor, x, self(aten.amax.default, x, [d], True))
        total = self.sum(self(aten.exp.default, below), d)
        return self.narrow(self(aten.sub.Tensor, below, self(aten.log.default, total)), dtype)

    def softmax_backward(self, g: Node, y: Node, dim: int, dtype: torch.dtype) -> Node | None:
        d = row_of(g, dim)
        if d is None:
            return None
        g, y = self.wide(g), self.wide(y)
        less = self.sum(self(aten.mul.Tensor, g, y), d)
        return self.narrow(self(aten.mul.Tensor, self(aten.sub.Tensor, g, less), y), dtype)

    def log_softmax_backward(self, g: Node, y: Node, dim: int, dtype: torch.dtype) -> Node | None:
        d = row_of(g, dim)
        if d is None:
            return None
        g, y = self.wide(g), self.wide(y)
        less = self(aten.mul.Tensor, self(aten.exp.default, y), self.sum(g, d))
        return self.narrow(self(aten.sub.Tensor, g, less), dtype)

    def sum_of_rows(self, x: Node, dim: Any = None, keep: bool = False, *, dtype: Any = None) -> Node | None:
        """Over several dimensions, the last one first."""
        dims, val = _dims(x, dim), x.meta["val"]
        if len(dims) < 2 or (dtype or val.dtype) != val.dtype or not val.dtype.is_floating_point:
            return None
        total = self.wide(x)
        for d in dims:
            total = self(aten.sum.dim_IntList, total, [d], keep)
        return self.narrow(total, val.dtype)

    def squared_error(self, x: Node, y: Node, reduction: int = 1) -> Node | None:
        if reduction:
            return None
        d = self(aten.sub.Tensor, x, y)
        return self(aten.mul.Tensor, d, d)

    def mean_of_rows(self, x: Node, dim: Any = None, keep: bool = False, *, dtype: Any = None) -> Node | None:
        dims, val = _dims(x, dim), x.meta["val"]
        if not dims or (dtype or val.dtype) != val.dtype:
            return None
        total = self.wide(x)
        for d in dims:
            total = self(aten.sum.dim_IntList, total, [d], keep)
        return self.narrow(self(aten.div.Tensor, total, float(math.prod(val.shape[d] for d in dims))), val.dtype)

    def layer_norm(self, x: Node, shape: list[int], w: Any, b: Any, eps: float) -> tuple[Node, ...] | None:
        d = row_of(x, -1) if len(shape) == 1 else None
        if d is None:
            return None
        dtype, x = x.meta["val"].dtype, self.wide(x)
        mean = self.mean(x, d)
        c = self(aten.sub.Tensor, x, mean)
        variance = self.mean(self(aten.mul.Tensor, c, c), d)
        scale = self(aten.rsqrt.default, self(aten.add.Tensor, variance, eps))
        y = self(aten.mul.Tensor, c, scale)
        y = y if w is None else self(aten.mul.Tensor, y, self.wide(w))
        y = y if b is None else self(aten.add.Tensor, y, self.wide(b))
        return self.narrow(y, dtype), mean, scale

    def layer_norm_backward(
        self, g: Node, x: Node, shape: list[int], mean: Node, scale: Node, w: Any, b: Any, mask: list[bool]
    ) -> tuple[Node, ...] | None:
        d = row_of(x, -1) if len(shape) == 1 and mask == [True, False, False] else None
        if d is None:
            return None
        dtype, g = x.meta["val"].dtype, self.wide(g)
        g = g if w is None else self(aten.mul.Tensor, g, self.wide(w))
        y = self(aten.mul.Tensor, self(aten.sub.Tensor, self.wide(x), mean), scale)
        along = self(aten.mul.Tensor, y, self.mean(self(aten.mul.Tensor, g, y), d))
        less = self(aten.sub.Tensor, self(aten.sub.Tensor, g, self.mean(g, d)), along)
        return (self.narrow(self(aten.mul.Tensor, less, scale), dtype),)

    written_by: ClassVar[dict[str, Callable[..., Any]]] = {
        "_log_softmax": log_softmax,
        "_log_softmax_backward_data": log_softmax_backward,
        "_safe_softmax": safe_softmax,
        "_softmax": softmax,
        "_softmax_backward_data": softmax_backward,
        "linalg_vector_norm": norm,
        "log_sigmoid_forward": log_sigmoid,
        "logsumexp": log_sum_exp,
        "mean": mean_of_rows,
        "mse_loss": squared_error,
        "native_layer_norm": layer_norm,
        "native_layer_norm_backward": layer_norm_backward,
        "sum": sum_of_rows,
    }
