"""C++ for reductions: to one number, or to a number for each row. Sums are taken in double."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch.fx import Node

from optfx.compiler.kernels.binding import Unsupported
from optfx.compiler.kernels.cpp.expressions import Writer, ctype, literal
from optfx.compiler.kernels.writer import name_of

REDUCTIONS = ("sum", "any", "all", "amax", "amin", "max", "min", "linalg_vector_norm")
ALONG = ("sum", "mean", "any", "all", "amax", "amin", "linalg_vector_norm")  # to a number for each row


WORDS = {"float": "uint32_t", "double": "uint64_t"}
LANES = 64  # numbers that an extreme is kept in, while a loop goes over as many elements


class Accumulator(NamedTuple):
    """A reduction to one number. `{0}` stands for the accumulator, and LENGTH for how many numbers it has taken."""

    type: str
    begin: str  # its first value
    take: str  # a statement that takes an element
    merge: str  # a statement that takes another accumulator, {1}
    end: str  # the result
    clause: str | None  # what OpenMP calls it; None for what it does not know: then each lane of a loop has its own

    def begun(self, name: str, length: str) -> str:
        """The statements that make an accumulator of this name, for a row of so many elements."""
        if self.clause is not None:
            return f"{self.type} {name} = {self.begin};"
        lanes = f"const int64_t {name}_lanes = {length} < {LANES} ? {length} : {LANES};"
        return (
            f"{self.type} {name}[{LANES}]; {lanes} for (int64_t i = 0; i < {name}_lanes; ++i) {name}[i] = {self.begin};"
        )

    def taken(self, name: str) -> str:
        """The statement that takes element i of a loop that begins at `at`."""
        return self.take.format(name if self.clause is not None else f"{name}[i - at]")

    def merged(self, into: str, name: str) -> str:
        """The statements that merge it into another one."""
        if self.clause is not None:
            return self.merge.format(into, name)
        halve = self.merge.format(f"{name}[i]", f"{name}[i + half]")
        loop = f"for (int64_t i = 0; i < w - half; ++i) {{ {halve} }} w = half;"
        halves = f"for (int64_t w = {name}_lanes; w > 1;) {{ const int64_t half = (w + 1) / 2; {loop} }}"
        return f"{halves} {self.merge.format(into, f'{name}[0]')}"


def first(dtype: torch.dtype, low: bool) -> float | int:
    """What no number is above (low), or below."""
    if dtype.is_floating_point:
        return math.inf if low else -math.inf
    if dtype == torch.bool:
        return low
    return torch.iinfo(dtype).max if low else torch.iinfo(dtype).min


def reduced(node: Node) -> tuple[str, Node, float | None]:
    """The reduction, what it takes all elements of, and the order of a norm."""
    name, x = name_of(node), node.args[0]
    assert isinstance(x, Node)
    order: Any = [*node.args, 2][1] if name == "linalg_vector_norm" else None
    dims = node.args[2 if order else 1 :]
    if not node.meta["val"].ndim and any(d not in (None, [], [0], [-1], False) for d in dims[:1]):
        raise Unsupported(f"{node.target} over {dims}")
    return name, x, order


def accumulator(node: Node, writer: Writer) -> Accumulator:
    """The accumulator of a reduction, whose elements the writer has a name for."""
    name, x, order = reduced(node)
    dtype, result = x.meta["val"].dtype, ctype(node.meta["val"].dtype)
    T = ctype(dtype)
    value = writer.value(x, T)
    if name in ("amax", "max", "amin", "min") or order in (math.inf, -math.inf):
        low = name in ("amin", "min") or order == -math.inf
        if not low and T in WORDS and (order or name_of(x) == "abs"):  # of these the words are in order, NaN at the end
            take = f"{{0}} = op::bits_of(op::abs({value})) > {{0}} ? op::bits_of(op::abs({value})) : {{0}};"
            end = f"{result}(op::{T}_of_bits({{0}}))"
            return Accumulator(WORDS[T], "0", take, "{0} = {1} > {0} ? {1} : {0};", end, "max")
        f, begin = "smaller" if low else "larger", literal(first(dtype, low), T)
        value = f"op::abs({value})" if order else value
        take, merge = f"{{0}} = {f}<{T}>({value}, {{0}});", f"{{0}} = {f}<{T}>({{1}}, {{0}});"
        return Accumulator(T, begin, take, merge, f"{result}({{0}})", None)
    if name in ("any", "all"):
        begin, clause = ("0", "|") if name == "any" else ("1", "&")
        take, merge = f"{{0}} {clause}= int({value} != 0);", f"{{0}} {clause}= {{1}};"
        return Accumulator("int", begin, take, merge, f"{result}({{0}} != 0)", clause)
    if name in ("sum", "mean") or order in (1, 2):
        wide = "double" if dtype.is_floating_point else "int64_t"
        value = f"{wide}({value})"
        value = value if order is None else f"op::abs({value})" if order == 1 else f"{value} * {value}"
        end = "op::sqrt({0})" if order == 2 else "{0} / LENGTH" if name == "mean" else "{0}"
        return Accumulator(wide, "0", f"{{0}} += {value};", "{0} += {1};", f"{result}({end})", "+")
    raise Unsupported(f"{node.target} of order {order}" if order else f"{node.target}")
