"""Operations of torch on leaves, outside the verbs: what they give, which of them treat every element alike, and which
make one number of a leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from optfx.compiler.record.inputs import Unfusable
from optfx.tree.dtypes import HALF

IN_HALF = {"_to_copy", "abs", "add", "clone", "detach", "div", "mul", "neg", "rsub", "sub"}
"""Elementwise operations that eager code computes in float32 and rounds once, where leaves are of half precision."""

POINTWISE = IN_HALF | {
    "addcdiv", "addcmul", "bitwise_and", "bitwise_not", "bitwise_or", "ceil", "clamp", "clamp_max",
    "clamp_min", "cos", "eq", "exp", "expm1", "floor", "full_like", "ge", "gt", "isinf", "isnan", "le", "lerp", "log",
    "log1p", "logical_and", "logical_not", "logical_or", "lt", "maximum", "minimum", "ne", "ones_like", "pow",
    "reciprocal", "relu", "remainder", "round", "rsqrt", "sigmoid", "sign", "sin", "sqrt", "square", "tanh", "trunc",
    "where", "zeros_like",
}  # fmt: skip
"""Elementwise operations that kernels are written for."""

FLOATING = (torch.float32, torch.float64)
WHOLE = (torch.uint8, torch.int32)

aten = torch.ops.aten
REDUCTIONS = {
    "sum": aten.sum.default,
    "mean": aten.sum.default,
    "any": aten.any.default,
    "all": aten.all.default,
    **dict.fromkeys(("amax", "max"), aten.amax.default),
    **dict.fromkeys(("amin", "min"), aten.amin.default),
    "linalg_vector_norm": aten.linalg_vector_norm.default,
}
"""Operations that kernels take over all elements of a leaf, each as the one that needs no dimensions."""

INF = float("inf")
ORDERS = (1, 2, INF, -INF)  # of norms that kernels are written for


@dataclasses.dataclass(frozen=True)
class Operation:
    """An elementwise operation as the function of a call: it takes leaves first, then scalars by name."""

    f: OpOverload
    leaves: tuple[str, ...]  # the names of the arguments that are leaves
    dtype: torch.dtype  # of its result

    @property
    def __name__(self) -> str:
        return self.f.overloadpacket.__name__

    def __call__(self, /, *xs: Tensor, **scalars: Any) -> Tensor:
        xs = tuple(x.float() if x.dtype in HALF else x for x in xs)
        given = dict(zip(self.leaves, xs, strict=True)) | scalars
        names = [a.name for a in self.f._schema.arguments if a.name in given]
        n = sum(not a.kwarg_only for a in self.f._schema.arguments if a.name in given)
        y = self.f(*(given[k] for k in names[:n]), **{k: given[k] for k in names[n:]})
        return y if y.dtype == self.dtype else y.to(self.dtype)


def named(f: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an operation by name."""
    return dict(zip((a.name for a in f._schema.arguments), args, strict=False)) | kwargs


def results_of(f: OpOverload, args: Any, kwargs: Any) -> Any:
    """The result of an operation, or all of them, without values.

    Raises:
        Unfusable: they are no tensors, or nobody knows their shapes beforehand.
    """

    def blank(x: Any) -> Any:
        if isinstance(x, Tensor):
            return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        return torch.device("meta") if isinstance(x, torch.device) else x

    try:
        args, kwargs = pytree.tree_map(blank, (args, kwargs))
        found = f(*args, **kwargs)
    except Exception as error:
        raise Unfusable(f"it reads a value, by {name_of(f)} ({_first_line(error)})") from error
    results = list(found) if isinstance(found, (tuple, list)) else [found]
    if not all(isinstance(y, Tensor) for y in results):
        raise Unfusable(f"it reads a value, by {name_of(f)}")
    return found


def treats_elements_alike(f: OpOverload, leaves: Sequence[Tensor], others: list[Any], results: list[Tensor]) -> bool:
    """Whether a kernel may do the operation: on leaves of one floating dtype, and on bools."""
    name, result = name_of(f), results[0]
    if name == "_to_copy" and leaves[0].dtype in WHOLE:
        return result.dtype in WHOLE or result.dtype in FLOATING
    floating = {x.dtype for x in leaves if x.dtype != torch.bool}
    dtypes = floating | {result.dtype} - {torch.bool}
    if name not in POINTWISE or not leaves or len(floating) > 1:
        return False
    if not (dtypes <= {*FLOATING, *HALF}) or (dtypes & {*HALF} and name not in IN_HALF):
        return False
    if len(dtypes) > 1 and name != "_to_copy":
        return False
    constants = (bool, int, float, type(None), torch.dtype, torch.layout, torch.memory_format)
    return all(
        (isinstance(x, Tensor) and not x.ndim and not x.is_complex())
        or isinstance(x, constants)
        or (isinstance(x, torch.device) and x.type == leaves[0].device.type)
        for x in others
    )


def reshapes(f: OpOverload, x: Tensor, result: Tensor) -> bool:
    """Whether an operation gives a contiguous leaf in another shape, with its elements in their order."""
    view = name_of(f) == "_unsafe_view" or f._schema.returns[0].alias_info is not None
    in_order = result.is_contiguous() and not result.storage_offset() and result.numel() == x.numel()
    return view and in_order and result.dtype == x.dtype and not result.is_conj() and not result.is_neg()


@dataclasses.dataclass(frozen=True)
class Taken:
    """An operation that makes one number of all elements of a leaf, as the function of a reduction."""

    f: OpOverload
    order: float | None  # of a norm
    dtype: torch.dtype  # of its result

    @property
    def __name__(self) -> str:
        return self.f.overloadpacket.__name__

    def __call__(self, x: Tensor) -> Tensor:
        if not x.numel() and (extreme := self.of_nothing()) is not None:  # the part of a process may be empty
            return x.new_full((), extreme)
        return self.f(x) if self.order is None else self.f(x, self.order)

    def of_nothing(self) -> float | None:
        """What torch does not say: the largest or smallest of no numbers."""
        if self.order is not None:
            return {INF: 0.0, -INF: INF}.get(self.order)
        return {aten.amax.default: -INF, aten.amin.default: INF}.get(self.f)


def taken_of_all(f: OpOverload, given: dict[str, Any]) -> Taken | None:
    """The reduction that an operation with these arguments is; None if it is none of a whole leaf."""
    name, x = name_of(f), given.get("self")
    if name not in REDUCTIONS or not isinstance(x, Tensor) or "other" in given:
        return None
    dims, order = given.get("dim"), given.get("ord", 2) if name == "linalg_vector_norm" else None
    dims = [dims] if isinstance(dims, int) else dims or range(x.ndim)
    if {d % max(x.ndim, 1) for d in dims} != {*range(x.ndim)} or len(f._schema.returns) != 1:
        return None
    logical = name in ("any", "all")
    if not (x.dtype in FLOATING or (x.dtype == torch.bool and (logical or name == "sum"))):
        return None
    if order not in (None, *ORDERS) or given.get("dtype") not in (None, x.dtype):
        return None
    dtype = torch.bool if logical else torch.int64 if x.dtype == torch.bool else x.dtype
    taken = Taken(REDUCTIONS[name], order, dtype)
    refused = not x.numel() and taken.of_nothing() is not None
    return None if refused else taken


def name_of(f: OpOverload) -> str:
    return f.overloadpacket.__name__


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
