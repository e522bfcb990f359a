"""Triton for reductions to one number, or to a number for each row. Sums are taken in float64, in a fixed order."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch.fx import Node

from optfx.compiler.kernels.binding import Unsupported
from optfx.compiler.kernels.cpp.reductions import first, reduced
from optfx.compiler.kernels.triton.expressions import FLOATS, Writer, literal, type_of


class Accumulator(NamedTuple):
    """A reduction to one number. `{0}` stands for what is reduced, `{1}` for the number so far, and LENGTH for how many
    numbers there are."""

    type: str
    begin: str  # what changes nothing
    take: str  # an element, as it is reduced
    of_block: str  # the number of a block {0}
    merge: str  # of {0} and {1}
    end: str  # the result of {0}


def accumulator(node: Node, writer: Writer, axis: int = 0) -> Accumulator:
    """The accumulator of a reduction along an axis of a block, whose elements the writer has a name for."""
    name, x, order = reduced(node)
    dtype, result = x.meta["val"].dtype, type_of(node.meta["val"].dtype)
    T = type_of(dtype)
    value = writer.value(x, T)
    if name in ("amax", "max", "amin", "min") or order in (math.inf, -math.inf):
        low = name in ("amin", "min") or order == -math.inf
        f, begin = "smaller" if low else "larger", literal(first(dtype, low), T)
        value = f"tl.abs({value})" if order else value
        return Accumulator(
            T, begin, value, f"tl.reduce({{0}}, {axis}, {f})", f"{f}({{0}}, {{1}})", f"{{0}}.to({result})"
        )
    if name in ("any", "all"):
        begin, f, sign = ("0", "over_all", "|") if name == "any" else ("1", "both", "&")
        begin = f"tl.full((), {begin}, tl.int32)"
        value = f"({value} != 0).to(tl.int32)"
        return Accumulator(
            "tl.int32", begin, value, f"tl.reduce({{0}}, {axis}, {f})", f"({{0}} {sign} {{1}})", "({0} != 0)"
        )
    if name in ("sum", "mean") or order in (1, 2):
        wide = "tl.float64" if T in FLOATS else "tl.int64"
        value = f"{value}.to({wide})"
        value = value if order is None else f"tl.abs({value})" if order == 1 else f"{value} * {value}"
        end = "root({0})" if order == 2 else "({0} / LENGTH)" if name == "mean" else "{0}"
        return Accumulator(
            wide, literal(0, wide), value, f"tl.sum({{0}}, {axis})", "({0} + {1})", f"{end}.to({result})"
        )
    raise Unsupported(f"{node.target} of order {order}" if order else f"{node.target}")
