"""Triton for the operations of a graph, one statement for each node.

Half precision is computed in float32 and rounded after each operation, as in eager code and in C++.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node

from optfx.compiler.kernels import writer
from optfx.compiler.kernels.binding import Unsupported
from optfx.compiler.kernels.writer import HALF, UINT4, arguments_of, name_of

IN_MEMORY = {
    torch.float32: "tl.float32",
    torch.float64: "tl.float64",
    torch.int64: "tl.int64",
    torch.int32: "tl.int32",
    torch.int16: "tl.int16",
    torch.int8: "tl.int8",
    torch.uint8: "tl.uint8",
    UINT4: "tl.uint8",  # two in a byte
    torch.bool: "tl.int8",
    torch.bfloat16: "tl.bfloat16",
    torch.float16: "tl.float16",
}
FLOATS = ("tl.float32", "tl.float64")

PLAIN = {
    "mul": "{0} * {1}",
    "div": "divide({0}, {1})",
    "neg": "-{0}",
    "reciprocal": "divide({one}, {0})",
    "relu": "larger({0}, {zero})",
    "sigmoid": "divide({one}, {one} + tl.exp(-{0}))",
    "sqrt": "root({0})",
    "rsqrt": "divide({one}, root({0}))",
    "abs": "tl.abs({0})",
    "square": "{0} * {0}",
    **dict.fromkeys(("sign", "sgn"), "sign_of({0})"),
    "exp": "tl.exp({0})",
    "exp2": "tl.exp2({0})",
    "log": "tl.log({0})",
    "log2": "tl.log2({0})",
    "sin": "tl.sin({0})",
    "cos": "tl.cos({0})",
    "erf": "tl.erf({0})",
    "expm1": "exp_minus_one({0})",
    "log1p": "log_of_one_more({0})",
    "tanh": "hyperbolic_tangent({0})",
    "atan2": "angle_of({0}, {1})",
    "floor": "tl.floor({0})",
    "ceil": "tl.ceil({0})",
    "trunc": "whole_towards_zero({0})",
    "round": "nearest_whole({0})",
    **dict.fromkeys(("maximum", "clamp_min"), "larger({0}, {1})"),
    **dict.fromkeys(("minimum", "clamp_max"), "smaller({0}, {1})"),
    "lerp": "blend({0}, {1}, {2})",
    "remainder": "modulo({0}, {1})",
    **dict.fromkeys(("clone", "detach", "alias", "lift", "lift_fresh", "lift_fresh_copy"), "{0}"),
    **dict.fromkeys(("zeros", "zeros_like"), "{zero}"),
    **dict.fromkeys(("ones", "ones_like"), "{one}"),
    "bitwise_and": "{0} & {1}",
    "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}",
}
OF_FLOATS = ("tl.exp", "tl.log", "tl.s", "root(", "divide(", "exp_minus", "log_of", "hyperbolic", "angle_of")
TESTS = {
    "isnan": "{0} != {0}",
    "isinf": "tl.abs({0}) == {infinity}",
    "logical_and": "({0} != 0) & ({1} != 0)",
    "logical_or": "({0} != 0) | ({1} != 0)",
    "logical_not": "{0} == 0",
}


def type_of(dtype: torch.dtype) -> str:
    """The type of a value while it is computed with."""
    if dtype in HALF:
        return "tl.float32"
    if dtype not in IN_MEMORY:
        raise Unsupported(str(dtype))
    return "tl.int1" if dtype == torch.bool else IN_MEMORY[dtype]


def pointer(address: str, dtype: torch.dtype) -> str:
    """An address as a pointer to numbers of this dtype."""
    return f"({address}).to(tl.pointer_type({IN_MEMORY[dtype]}))"


def loaded(text: str, dtype: torch.dtype) -> str:
    """What was loaded, as it is computed with."""
    return f"({text} != 0)" if dtype == torch.bool else f"{text}.to(tl.float32)" if dtype in HALF else text


def stored(value: str, dtype: torch.dtype) -> str:
    """A value as it lies in memory."""
    return f"to_bfloat16({value})" if dtype == torch.bfloat16 else f"({value}).to({IN_MEMORY[dtype]})"


def literal(value: Any, T: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f'tl.full((), float("{value}"), {T})'
    return f"tl.full((), {int(value) if T not in FLOATS else float(value)!r}, {T})"


class Writer(writer.Writer):
    """Statements for the nodes of a graph, in the words of Triton."""

    tests = TESTS

    def type_of(self, dtype: torch.dtype) -> str:
        return type_of(dtype)

    def value(self, x: Any, T: str) -> str:
        """An argument as a value of type T."""
        if not isinstance(x, Node):
            if not isinstance(x, (int, float)):
                raise Unsupported(f"the argument {x!r}")
            return literal(x, T)
        if x not in self.names:
            raise Unsupported(f"{x.target} in this place")
        own, name = type_of(x.meta["val"].dtype), self.names[x]
        return name if own == T else f"({name} != 0)" if T == "tl.int1" else f"{name}.to({T})"

    def define(self, node: Node) -> str:
        """The statement that computes a node."""
        dtype, name = node.meta["val"].dtype, f"t{len(self.names)}"
        value = self.expression(node)
        if dtype in HALF:
            value = f"{stored(value, dtype)}.to(tl.float32)"
        self.names[node] = name
        return f"{name} = {value}"

    def expression(self, node: Node) -> str:
        text, T = self.operation(node), type_of(node.meta["val"].dtype)
        if T not in (*FLOATS, "tl.int1") and any(f in text for f in OF_FLOATS):
            raise Unsupported(f"{node.target} of whole numbers")
        return text

    # ---- words of the language

    def multiply_add(self, a: str, b: str, c: str, T: str) -> str:
        return f"{c} + {a} * {b}"

    def divide(self, a: str, b: str) -> str:
        return f"divide({a}, {b})"

    def root(self, x: str) -> str:
        return f"root({x})"

    def raised(self, x: str, exponent: str) -> str:
        return f"power({x}, {exponent})"

    def extreme(self, f: str, a: str, b: str, T: str) -> str:
        return f"{f}({a}, {b})"

    def choose(self, condition: Any, a: Any, b: Any, T: str) -> str:
        return f"tl.where({self.value(condition, 'tl.int1')}, {self.value(a, T)}, {self.value(b, T)})"

    def plain(self, node: Node, T: str) -> str:
        name = name_of(node)
        if name not in PLAIN or any(node.kwargs.get(k) for k in ("rounding_mode", "decimals", "approximate")):
            raise Unsupported(f"{node.target}")
        wanted = [f"{{{k}}}" in PLAIN[name] for k in range(6)]
        given = [self.value(x, T) if wanted[k] else "" for k, x in enumerate(arguments_of(node))]
        return PLAIN[name].format(*given, one=literal(1, T), zero=literal(0, T))

    def test(self, node: Node, T: str) -> str:
        C = type_of(node.args[0].meta["val"].dtype)  # type: ignore[union-attr]
        infinity = literal(math.inf, C) if C in FLOATS else ""
        return TESTS[name_of(node)].format(*(self.value(x, C) for x in node.args), infinity=infinity)

    def bitwise_not(self, node: Node, T: str) -> str:
        x = self.value(node.args[0], T)
        return f"{x} == 0" if T == "tl.int1" else f"~{x}"
