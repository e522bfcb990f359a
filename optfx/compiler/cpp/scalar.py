"""Scalar work as a function without a loop."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from torch import Tensor
from torch.fx import GraphModule, Node

from optfx.compiler.cpp import build
from optfx.compiler.cpp.expressions import HEAD, IN_MEMORY, Unsupported, Writer, ctype, load, name_of, stored
from optfx.compiler.cpp.reductions import REDUCTIONS, Reduced


def scalar_work(gm: GraphModule, args: list[Tensor]) -> Callable[[], None]:
    """The function of a graph of numbers, bound to its arguments."""
    source, constants = scalar(gm)
    library, pointers = build.Library(source, ctypes.c_void_p), build.pointers([*args, *constants])
    return lambda: library.run(pointers)


def scalar(gm: GraphModule) -> tuple[str, list[Tensor]]:
    """The function of scalar work: `run(pointers)`, and the constants whose pointers come after the arguments'."""
    writer, lines, stores = Writer(), [], []
    places: dict[Node, int] = {}
    constants: list[Tensor] = []
    inputs = [x for x in gm.graph.nodes if x.op == "placeholder"]
    for x in gm.graph.nodes:
        value = x.meta.get("val")
        if x.op in ("placeholder", "get_attr"):
            places[x] = len(places) if x.op == "placeholder" else len(inputs) + len(constants)
            if x.op == "get_attr":
                value = getattr(gm, x.target)
                x.meta["val"] = value
                constants.append(value)
            if not value.ndim and value.dtype in IN_MEMORY:
                writer.names[x] = f"x{places[x]}"
                place = f"*(const {IN_MEMORY[value.dtype]}*)P[{places[x]}]"
                lines.append(f"const {ctype(value.dtype)} x{places[x]} = {load(place, value.dtype)};")
        elif x.op == "call_function" and name_of(x) == "copy_":
            dtype = x.args[0].meta["val"].dtype
            value = stored(writer.value(x.args[1], ctype(dtype)), dtype)
            stores.append(f"*({IN_MEMORY[dtype]}*)P[{places[x.args[0]]}] = {value};")
        elif x.op == "call_function" and name_of(x) in REDUCTIONS and x.args[0] in places and value.ndim == 0:
            source = x.args[0]
            shape, dtype = source.meta["val"].shape, source.meta["val"].dtype
            if len(shape) != 1:
                raise Unsupported(f"{x.target} of {tuple(shape)}")
            writer.names[source] = "y"
            r = Reduced(x, writer)
            del writer.names[source]
            j = len(writer.names)
            lines.append(
                f"{r.type} r{j} = {r.begin}; for (int64_t i = 0; i < {shape[0]}; ++i) {{ const {ctype(dtype)} y = "
                f"{load(f'((const {IN_MEMORY[dtype]}*)P[{places[source]}])[i]', dtype)}; {r.take.format(f'r{j}')} }}"
            )
            lines.append(f"const {ctype(value.dtype)} e{j} = {r.end.format(f'r{j}')};")
            writer.names[x] = f"e{j}"
        elif x.op == "call_function" and name_of(x) == "index" and not value.ndim and x.args[0] in places:
            (table, (at,)) = x.args
            shape, dtype = table.meta["val"].shape, table.meta["val"].dtype
            if len(shape) != 1 or not isinstance(at, Node) or at.meta["val"].ndim:
                raise Unsupported(f"{x.target} of {tuple(shape)}")
            i = writer.value(at, "int64_t")
            j = len(writer.names)
            place = f"((const {IN_MEMORY[dtype]}*)P[{places[table]}])[{i} < 0 ? {i} + {shape[0]} : {i}]"
            lines.append(f"const {ctype(dtype)} e{j} = {load(place, dtype)};")
            writer.names[x] = f"e{j}"
        elif x.op == "call_function":
            if value is None or value.ndim:
                raise Unsupported(f"{x.target}")
            lines.append(writer.define(x))
    body = "\n  ".join(lines + stores)
    return f'{HEAD}\nextern "C" void run(void* const* P) {{\n  {body}\n}}\n', constants
