"""Tables of numbers: what stands at some place, and the place of a number. They are operations on one element, which a
kernel knows by name, with the table as part of the program."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from optfx.compiler.record.lazy import Form, Lazy, Named
from optfx.compiler.record.operations import Operation
from optfx.compiler.record.tracer import Tracer

LIBRARY = torch.library.Library("optfx", "FRAGMENT")
for schema in (
    "look_up(Tensor at, float[] table, ScalarType dtype) -> Tensor",
    "place(Tensor self, float[] limits) -> Tensor",
):
    LIBRARY.define(schema, tags=(torch.Tag.pointwise,))


def look_up(at: Tensor, table: list[float], dtype: torch.dtype) -> Tensor:
    """The numbers at some places of a table."""
    return torch.tensor(table, dtype=dtype, device=at.device)[at]


def place(x: Tensor, limits: list[float]) -> Tensor:
    """How many of some ascending numbers are no greater, int32."""
    among = torch.tensor(limits, dtype=x.dtype, device=x.device)
    return torch.bucketize(x, among, out_int32=True, right=True)


LIBRARY.impl("look_up", look_up, "CompositeExplicitAutograd")
LIBRARY.impl("place", place, "CompositeExplicitAutograd")


def in_table(f: OpOverload, given: dict[str, Any], tracer: Tracer) -> tuple[Operation, list[Lazy], Named, Form] | None:
    """What is noted of an operation of torch that is one of these: its call, leaves and scalars, and the form of its
    result. None if it is none, or if its table may change."""
    name = f.overloadpacket.__name__
    if name == "index" and isinstance(given["indices"], (list, tuple)) and len(given["indices"]) == 1:
        table, (x,) = given["self"], given["indices"]
        if isinstance(x, Lazy) and x.dtype == torch.int32 and _is_table(table, tracer):
            named = ("table", tuple(table.tolist())), ("dtype", table.dtype)
            return _noted(torch.ops.optfx.look_up.default, "at", x, named, table.dtype)
    if name == "bucketize" and given.get("right") and given.get("out_int32"):
        x, limits = given["self"], given["boundaries"]
        whole = isinstance(limits, Tensor) and (limits.numel() + 1).bit_count() == 1  # a search by halves ends alike
        if isinstance(x, Lazy) and whole and x.dtype == limits.dtype and _is_table(limits, tracer):
            named = (("limits", tuple(limits.tolist())),)
            return _noted(torch.ops.optfx.place.default, "self", x, named, torch.int32)
    return None


def _noted(
    f: OpOverload, leaf: str, x: Lazy, named: Named, dtype: torch.dtype
) -> tuple[Operation, list[Lazy], Named, Form]:
    return Operation(f, (leaf,), dtype), [x], named, Form.of(x)._replace(dtype=dtype)


def _is_table(x: Any, tracer: Tracer) -> bool:
    floating = isinstance(x, Tensor) and x.ndim == 1 and x.dtype in (torch.float32, torch.float64)
    return floating and not isinstance(x, Lazy) and tracer.is_constant(x)
