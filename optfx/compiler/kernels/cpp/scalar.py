"""Scalar work as one C++ function: numbers, tables in which they are looked up, and short rows that are reduced."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from optfx.compiler.kernels.binding import Bound, Unsupported
from optfx.compiler.kernels.cpp import build
from optfx.compiler.kernels.cpp.calls import FAULTLESS, Call
from optfx.compiler.kernels.cpp.expressions import HEAD, IN_MEMORY, Writer, ctype, literal, load, stored
from optfx.compiler.kernels.cpp.reductions import REDUCTIONS, accumulator
from optfx.compiler.kernels.writer import name_of
from optfx.compiler.members import Alone

SAME = {"view", "reshape", "_unsafe_view", "expand", "squeeze", "unsqueeze", "slice"}  # of one element


def scalar_work(gm: GraphModule, args: list[Tensor], compilers: build.Compilers, members: Alone) -> Bound:
    """The function of a graph of numbers, bound to its arguments, once for each member."""
    P, writer = ctypes.c_void_p, ScalarWriter(gm)
    # straight on, and as long as owners are many
    library = compilers.library(writer.source(), "-O1", ctypes.c_int64, P, P, gives=ctypes.c_int)
    tensors = [*args, *map(members.every, writer.constants)]
    pointers, apart = build.pointers(tensors), (ctypes.c_int64 * len(tensors))(*map(members.apart, tensors))

    def look_up() -> None:
        pointers[:] = [x.data_ptr() for x in tensors]

    given = members.count, pointers, apart
    return Bound(lambda: library.run(*given), look_up, call=lambda: Call(library.run, given, FAULTLESS))


class ScalarWriter(Writer):
    """`run(members, P, dP)` for a graph: P has the addresses of its arguments, then of the constants that it holds, for
    the first member, and dP how many bytes further those of the next one are."""

    def __init__(self, gm: GraphModule):
        super().__init__()
        self.gm, self.lines, self.stores = gm, [], []
        self.places: dict[Node, int] = {}  # which address
        self.memory: dict[Node, torch.dtype] = {}  # and the dtype of what lies there
        self.constants: list[Tensor] = []
        self.inputs = [x for x in gm.graph.nodes if x.op == "placeholder"]

    def source(self) -> str:
        for x in self.gm.graph.nodes:
            if x.op in ("placeholder", "get_attr"):
                self.bind(x)
            elif x.op == "call_function":
                self.lines.append(self.statement(x))
        body = "\n  ".join(self.lines + self.stores)
        n = max(len(self.places), 1)
        return f"""{HEAD}
static inline void one(char* const* P) {{
  {body}
}}
extern "C" int run(int64_t members, char* const* P, const int64_t* dP) {{
  for (int64_t j = 0; j < members; ++j) {{
    char* at[{n}];
    for (int k = 0; k < {n}; ++k) at[k] = P[k] + j * dP[k];
    one(at);
  }}
  return 0;
}}
"""

    def bind(self, x: Node) -> None:
        """Give an argument or a constant its place, and read it where it is one number."""
        self.places[x] = len(self.places)
        if x.op == "get_attr":
            self.places[x] = len(self.inputs) + len(self.constants)
            self.constants.append(getattr(self.gm, x.target))  # type: ignore[arg-type]
            x.meta["val"] = self.constants[-1]
        value = x.meta["val"]
        self.memory[x] = value.dtype
        if not value.ndim:
            self.lines.append(f"const {ctype(value.dtype)} x{self.places[x]} = {self.element(x, '0')};")
            self.names[x] = f"x{self.places[x]}"

    def element(self, x: Node, i: str) -> str:
        """Element i of an argument."""
        dtype, T = self.memory[x], ctype(x.meta["val"].dtype)
        if dtype not in IN_MEMORY:
            raise Unsupported(str(dtype))
        return f"{T}({load(f'((const {IN_MEMORY[dtype]}*)P[{self.places[x]}])[{i}]', dtype)})"

    def statement(self, x: Node) -> str:
        name, value = name_of(x), x.meta.get("val")
        if name == "copy_":
            to, y = x.args[:2]
            dtype = to.meta["val"].dtype  # type: ignore[union-attr]
            place = f"*({IN_MEMORY[dtype]}*)P[{self.places[to]}]"  # type: ignore[index]
            self.stores.append(f"{place} = {stored(self.value(y, ctype(dtype)), dtype)};")
            return ""
        if value is None:
            raise Unsupported(f"{x.target}")
        of_row = x.args and isinstance(x.args[0], Node) and x.args[0] in self.places and x.args[0].meta["val"].ndim
        if of_row:
            return self.of_row(x, x.args[0])  # type: ignore[arg-type]
        if value.numel() != 1:
            raise Unsupported(f"{x.target}")
        if name in SAME and x.args[0] in self.names:
            self.names[x] = self.names[x.args[0]]  # type: ignore[index]
            return ""
        return self.define(x)

    def of_row(self, x: Node, row: Node) -> str:
        """What is made of a row of numbers: another dtype of it, one of them, or a reduction."""
        name, shape, value = name_of(x), row.meta["val"].shape, x.meta["val"]
        if len(shape) != 1:
            raise Unsupported(f"{x.target} of {tuple(shape)}")
        T, result = ctype(row.meta["val"].dtype), ctype(value.dtype)
        if name == "_to_copy" and value.shape == shape:
            self.places[x], self.memory[x] = self.places[row], self.memory[row]  # it is cast where it is read
            return ""
        if name in REDUCTIONS and not value.ndim:
            self.names[row] = "y"
            r = accumulator(x, self)
            del self.names[row]
            j = self.names[x] = f"e{len(self.names)}"
            return (
                f"{r.type} r{j} = {r.begin}; for (int64_t i = 0; i < {shape[0]}; ++i) {{ "
                f"const {T} y = {self.element(row, 'i')}; {r.take.format(f'r{j}')} }} "
                f"const {result} {j} = {r.end.format(f'r{j}')};"
            )
        at = x.args[1][0] if name == "index" else x.args[2] if name == "index_select" else None  # type: ignore[index]
        if value.numel() == 1 and isinstance(at, Node) and at in self.names:
            j = self.names[x] = f"e{len(self.names)}"
            i = self.value(at, "int64_t")
            found, none = self.element(row, f"i{j}"), literal(math.nan if T in ("float", "double") else 0, T)
            wrapped = f"{i} < 0 ? {i} + {shape[0]} : {i}" if name == "index" else i
            return (  # NaN where there is no such number: nobody here can raise an error
                f"const int64_t i{j} = {wrapped}; const {result} {j} = "
                f"{result}(i{j} >= 0 && i{j} < {shape[0]} ? {found} : {none});"
            )
        raise Unsupported(f"{x.target}")
