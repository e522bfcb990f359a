"""C++ for reductions to one number. Sums are taken in double."""

from __future__ import annotations

import math

from torch.fx import Node

from optfx.compiler.cpp.expressions import Unsupported, Writer, ctype, name_of

REDUCTIONS = ("sum", "any", "all", "amax", "amin", "max", "min", "linalg_vector_norm")


class Reduced:
    """A reduction to one number, as an accumulator: what it begins with, how it takes an element and another one, and
    what it is in the end."""

    def __init__(self, node: Node, writer: Writer):
        name, x = name_of(node), node.args[0]
        assert isinstance(x, Node)
        dtype, result = x.meta["val"].dtype, ctype(node.meta["val"].dtype)
        T = ctype(dtype)
        self.source = x
        value, self.simd, self.end = writer.value(x, T), True, "{0}"
        wide = "double" if dtype.is_floating_point else "int64_t"
        order = [*node.args, 2][1] if name == "linalg_vector_norm" else None
        if name in ("amax", "max", "amin", "min") or order in (math.inf, -math.inf):
            low = name in ("amin", "min") or order == -math.inf
            self.type, self.simd = T, False  # NaN-propagating: no reduction that OpenMP knows
            limit = "infinity" if dtype.is_floating_point else "lowest" if not low else "max"
            self.begin = f"{'' if low or not dtype.is_floating_point else '-'}std::numeric_limits<{T}>::{limit}()"
            f = "smaller" if low else "larger"
            value = f"std::abs({value})" if order else value
            self.take = f"{{0}} = {f}<{T}>({value}, {{0}});"
            self.merge = f"{{0}} = {f}<{T}>({{1}}, {{0}});"
        elif name in ("any", "all"):
            self.type, self.begin, self.clause = "int", "0" if name == "any" else "1", "|" if name == "any" else "&"
            self.take = f"{{0}} {self.clause}= int({value} != 0);"
            self.merge = f"{{0}} {self.clause}= {{1}};"
            self.end = "{0} != 0"
        elif name == "sum" or order in (1, 2):
            self.type, self.begin, self.clause = wide, "0", "+"
            wider = f"{wide}({value})"
            value = wider if name == "sum" else f"std::abs({wider})" if order == 1 else f"{wider} * {wider}"
            self.take, self.merge = f"{{0}} += {value};", "{0} += {1};"
            self.end = "std::sqrt({0})" if order == 2 else "{0}"
        else:
            raise Unsupported(f"{node.target} of order {order}" if order else f"{node.target}")
        dims = node.args[2 if order else 1 :]
        if any(d not in (None, [], [0], [-1], False) for d in dims[:1]):
            raise Unsupported(f"{node.target} over {dims}")
        self.end = f"{result}({self.end})"
