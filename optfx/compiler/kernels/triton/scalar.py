"""Scalar work as one launch with an instance for each member: counts and schedules stay on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from optfx.compiler.kernels.binding import Bound, Unsupported
from optfx.compiler.kernels.cpp.reductions import REDUCTIONS
from optfx.compiler.kernels.cpp.scalar import SAME
from optfx.compiler.kernels.triton.build import Table, module
from optfx.compiler.kernels.triton.expressions import IN_MEMORY, Writer, loaded, pointer, stored, type_of
from optfx.compiler.kernels.triton.reductions import accumulator
from optfx.compiler.kernels.writer import name_of
from optfx.compiler.members import Alone

TOGETHER = 1024  # numbers of a row that are reduced at a time


def scalar_work(gm: GraphModule, args: list[Tensor], compilers: Any, members: Alone) -> Bound:
    """The function of a graph of numbers, bound to its arguments, once for each member."""
    writer = ScalarWriter(gm)
    kernels = module(writer.source())
    tensors = [*args, *map(members.every, (x.to(args[0].device) for x in writer.constants))]
    device = args[0].device
    apart = torch.tensor([members.apart(x) for x in tensors], dtype=torch.int64, device=device)
    places, now = Table(len(tensors), device), [0] * len(tensors)

    def look_up() -> None:
        now[:] = [x.data_ptr() for x in tensors]

    def run() -> None:
        kernels.numbers[(members.count,)](places.send(now), apart, TOGETHER)

    return Bound(run, look_up)


class ScalarWriter(Writer):
    """`numbers(P, dP)` for a graph: P has the addresses of its arguments, then of the constants that it holds, for the
    first member, and dP how many bytes further those of the next one are."""

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
                self.lines += self.statement(x)
        body = "\n    ".join([*self.lines, *self.stores] or ["pass"])
        return f"""

@triton.jit
def numbers(P, dP, TOGETHER: tl.constexpr):
    j = tl.program_id(0).to(tl.int64)
    {body}
"""

    def address(self, x: Node) -> str:
        return f"tl.load(P + {self.places[x]}) + j * tl.load(dP + {self.places[x]})"

    def bind(self, x: Node) -> None:
        """Give an argument or a constant its place, and read it where it is one number."""
        self.places[x] = len(self.places)
        if x.op == "get_attr":
            self.places[x] = len(self.inputs) + len(self.constants)
            self.constants.append(getattr(self.gm, x.target))  # type: ignore[arg-type]
            x.meta["val"] = self.constants[-1]
        value = x.meta["val"]
        self.memory[x] = value.dtype
        if value.dtype not in IN_MEMORY:
            raise Unsupported(str(value.dtype))
        if not value.ndim:
            self.lines.append(
                f"x{self.places[x]} = {loaded(f'tl.load({pointer(self.address(x), value.dtype)})', value.dtype)}"
            )
            self.names[x] = f"x{self.places[x]}"

    def statement(self, x: Node) -> list[str]:
        name, value = name_of(x), x.meta.get("val")
        if name == "copy_":
            to, y = x.args[:2]
            assert isinstance(to, Node)
            dtype = to.meta["val"].dtype
            place = pointer(self.address(to), dtype)
            self.stores.append(f"tl.store({place}, {stored(self.value(y, type_of(dtype)), dtype)})")
            return []
        if value is None:
            raise Unsupported(f"{x.target}")
        row = x.args[0] if x.args else None
        if isinstance(row, Node) and row in self.places and row.meta["val"].ndim:
            return self.of_row(x, row)
        if value.numel() != 1:
            raise Unsupported(f"{x.target}")
        if name in SAME and x.args[0] in self.names:
            self.names[x] = self.names[x.args[0]]  # type: ignore[index]
            return []
        return [self.define(x)]

    def of_row(self, x: Node, row: Node) -> list[str]:
        """What is made of a row of numbers: another dtype of it, one of them, or a reduction."""
        name, shape, value = name_of(x), row.meta["val"].shape, x.meta["val"]
        if len(shape) != 1:
            raise Unsupported(f"{x.target} of {tuple(shape)}")
        dtype, T = self.memory[row], type_of(row.meta["val"].dtype)
        if name == "_to_copy" and value.shape == shape:
            self.places[x], self.memory[x] = self.places[row], self.memory[row]  # it is cast where it is read
            return []
        place = pointer(self.address(row), dtype)
        number = f"e{len(self.names)}"
        if name in REDUCTIONS and not value.ndim:
            self.names[row] = "y"
            r = accumulator(x, self)
            del self.names[row]
            self.names[x] = number
            read = loaded(f"tl.load({place} + i, mask=i < {shape[0]}, other=0)", dtype)
            taken = f"tl.where(i < {shape[0]}, {r.take}, {r.begin})"
            return [
                f"r{number} = {r.begin}",
                f"for begin in range(0, {shape[0]}, TOGETHER):",
                "    i = begin + tl.arange(0, TOGETHER)",
                f"    y = {read}.to({T})",
                f"    r{number} = {r.merge.format(f'r{number}', r.of_block.format(taken))}",
                f"{number} = {r.end.format(f'r{number}')}",
            ]
        at = x.args[1][0] if name == "index" else x.args[2] if name == "index_select" else None  # type: ignore[index]
        if value.numel() == 1 and isinstance(at, Node) and at in self.names and T in ("tl.float32", "tl.float64"):
            self.names[x] = number
            i = self.value(at, "tl.int64")
            wrapped = f"tl.where({i} < 0, {i} + {shape[0]}, {i})" if name == "index" else i
            there = f"(i{number} >= 0) & (i{number} < {shape[0]})"
            read = loaded(f"tl.load({place} + i{number}, mask={there}, other=0)", dtype)
            nan = f'tl.full((), float("nan"), {T})'  # where there is no such number: nobody here can raise an error
            return [f"i{number} = {wrapped}", f"{number} = tl.where({there}, {read}.to({T}), {nan})"]
        raise Unsupported(f"{x.target}")
