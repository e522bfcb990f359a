"""C++ for operations that walk over one box of elements, as nested loops.

Sizes and strides are arguments: the text depends on the operations, on how many dimensions are left when those that
follow each other in memory are one, and on what the innermost stride is (0, 1 or another). The arithmetic of an
element is the same wherever it stands. What is written may lie over what is read, element upon element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.fx import Node

from optfx.compiler.captured.groups import PLACED, Axes, Kernel
from optfx.compiler.captured.trace import Place
from optfx.compiler.kernels.cpp.expressions import IN_MEMORY, Writer, ctype, literal, load, stored
from optfx.compiler.kernels.writer import name_of


class Operand(NamedTuple):
    """A place that a kernel reads or writes, with its stride along each dimension of the space."""

    memory: Node  # what lies there: an input, a constant or a result
    dtype: torch.dtype
    offset: int
    strides: tuple[int, ...]


def operand(kernel: Kernel, place: Place, axes: Axes, dtype: torch.dtype) -> Operand:
    strides = [0] * len(kernel.size)
    for axis, n, s in zip(axes, place.size, place.stride, strict=True):
        if axis is not None and n != 1:
            strides[axis] += s
    return Operand(place.base, dtype, place.offset, tuple(strides))


def uniform(node: Node) -> float | int | None:
    """The number that all elements of a constant are."""
    value = node.meta["constant"]
    if not value.numel():
        return 0
    first = value.reshape(-1)[0]
    same = (value == first).all() if first == first else value.isnan().all()
    return first.item() if same else None


class KernelWriter(Writer):
    """What nests and rows have in common.

    Args:
        kernel: the operations.
        kept: those of them whose results are written to memory.
        slot: the number of a memory in the table of addresses `P`.
    """

    def __init__(self, kernel: Kernel, kept: list[Node], slot: Callable[[Node], int]):
        super().__init__()
        self.kernel, self.slot = kernel, slot
        self.numbers: list[int] = []  # places, sizes and strides: what the kernel finds at `S`
        self.loads: dict[Operand, str] = {}
        self.stores: list[tuple[Operand, Node]] = []
        for x in kept:
            self.stores.append((operand(kernel, x.meta["place"], kernel.result(x), x.meta["val"].dtype), x))

    def in_place(self) -> dict[Node, Node]:
        """The memory that each result may be written over: it is read at the very elements that are written."""
        found: dict[Node, Node] = {}
        for at, x in self.stores:
            for given in self.loads:
                same = given.strides == at.strides and given.offset == at.offset
                alone = sum(other.memory is given.memory for other in self.loads) == 1
                if same and alone and given.dtype.itemsize == at.dtype.itemsize and given.memory not in found.values():
                    found.setdefault(x, given.memory)
        return found

    def number(self, n: int) -> str:
        self.numbers.append(n)
        return f"S[{len(self.numbers) - 1}]"

    def memory(self, node: Node, arg: Node) -> Operand | None:
        """What an argument of an operation is read from, unless it is a number or a result of this kernel."""
        if "constant" in arg.meta:
            if uniform(arg) is not None:
                return None
            value = arg.meta["constant"]
            place = Place(arg, tuple(value.shape), tuple(value.stride()))
        else:
            place = arg.meta["place"]
            if place.base in self.kernel.frames:
                return None
        return operand(self.kernel, place, self.kernel.axes(node, arg), arg.meta["val"].dtype)

    def read(self, node: Node, arg: Node) -> Operand | None:
        """The same, where other arguments get their names."""
        at = self.memory(node, arg)
        if at is None and "constant" in arg.meta:
            number = uniform(arg)
            assert number is not None
            self.names[arg] = literal(number, ctype(arg.meta["val"].dtype))
        elif at is None:
            self.names[arg] = self.names[arg.meta["place"].base]
        return at

    def expression(self, node: Node) -> str:
        name = name_of(node)
        if name in PLACED:
            base, _, index, value = node.args[:4]
            T = ctype(node.meta["val"].dtype)
            old, new = self.value(base, T), self.value(value, T)
            new = f"{old} + {new}" if name == "scatter_add" else new
            return f"c == {self.value(index, 'int64_t')} ? {new} : {old}"
        return super().expression(node)


class Nest(KernelWriter):
    """The text of a kernel without rows."""

    def source(self) -> str:
        body: list[str] = []
        for x in self.kernel.nodes:
            for arg in x.all_input_nodes:
                at = self.read(x, arg)
                if at is not None:
                    if at not in self.loads:
                        self.loads[at] = f"x{len(self.loads)}"
                    self.names[arg] = self.loads[at]
            body.append(self.define(x))
        operands = [*self.loads, *(at for at, _ in self.stores)]
        sizes, strides = _collapsed(self.kernel.size, [at.strides for at in operands], len(self.loads))
        inner, before, reads, writes = len(sizes) - 1, [], [], []
        texts = [self.number(n) for n in sizes]
        for k, (at, steps) in enumerate(zip(operands, strides, strict=True)):
            M = IN_MEMORY[at.dtype]
            const = "const " if k < len(self.loads) else ""
            terms = [self.number(at.offset), *(f"i{d} * {self.number(s)}" for d, s in enumerate(steps[:-1]) if s)]
            before.append(
                f"{const}{M}* a{k} = ({const}{M}*)P[{self.number(self.slot(at.memory))}] + {' + '.join(terms)};"
            )
            step = steps[-1]
            i = "0" if step == 0 else "i" if step == 1 else f"i * s{k}"
            if step not in (0, 1):
                before.append(f"const int64_t s{k} = {self.number(step)};")
            place = f"a{k}[{i}]"
            if not const:
                value = self.names[self.stores[k - len(self.loads)][1]]
                writes.append(f"{place} = {stored(value, at.dtype)};")
            else:
                T = ctype(at.dtype)
                (reads if step else before).append(f"const {T} {self.loads[at]} = {load(place, at.dtype)};")
        loops = [f"for (int64_t i{d} = 0; i{d} < {texts[d]}; ++i{d})" for d in range(inner)]
        lines = [
            "static void KERNEL(void* const* P, const int64_t* S) {",
            f"  const int64_t n = {texts[inner]};",
            *(f"  {loop}" for loop in loops),
            "  {",
            *(f"    {line}" for line in before),
            "    #pragma omp simd",
            "    for (int64_t i = 0; i < n; ++i) {",
            *(f"      {line}" for line in [*reads, *body, *writes]),
            "    }",
            "  }",
            "}",
        ]
        return "\n".join(lines)


def _collapsed(size: list[int], strides: list[tuple[int, ...]], loads: int) -> tuple[list[int], list[tuple[int, ...]]]:
    """The loops from the outermost to the innermost, as few as they can be, in the order of what is written."""
    lead = max(strides[loads:], key=lambda steps: sum(s != 0 for s in steps))
    order = sorted(range(len(size)), key=lambda d: (-lead[d], -size[d]))
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for d in order:
        if sizes and all(mine[-1] == s[d] * size[d] for mine, s in zip(steps, strides, strict=True)):
            sizes[-1] *= size[d]
            for mine, s in zip(steps, strides, strict=True):
                mine[-1] = s[d]
        else:
            sizes.append(size[d])
            for mine, s in zip(steps, strides, strict=True):
                mine.append(s[d])
    if not sizes:
        return [1], [(1,) for _ in strides]
    return sizes, [tuple(mine) for mine in steps]
