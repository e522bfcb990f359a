"""A captured function as a list of calls: kernels of our own, and ATen for the rest."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

from torch.fx import Node

from optfx.compiler.captured.bound import Bound
from optfx.compiler.captured.cleaning import clean, needed
from optfx.compiler.captured.groups import Kernel, Partition
from optfx.compiler.captured.memory import Use
from optfx.compiler.captured.nest import Nest
from optfx.compiler.captured.rows import LONGEST, in_small_words
from optfx.compiler.captured.streams import Stream
from optfx.compiler.captured.tiles import Tile
from optfx.compiler.captured.trace import NotCaptured, Traced, asked, trace
from optfx.compiler.kernels.cpp import build
from optfx.compiler.kernels.cpp.expressions import HEAD
from optfx.compiler.kernels.writer import name_of


class Step(NamedTuple):
    """One call: an operation of ATen, or kernels that follow each other."""

    node: Node | None  # for ATen
    case: int  # which kernels
    uses: list[Use]
    words: str


def capture(f: Callable[..., Any], *args: Any, first: Traced | None = None) -> Program:
    """Make a program of a function, which runs twice, and start the C++ compiler.

    Args:
        f: a function of trees of tensors. Tensors that it finds outside are read anew at each run.
        *args: trees of tensors on the CPU. Those of a run have their shapes and dtypes.
        first: what it asked of torch the first time, if it has been traced already.

    Raises:
        NotCaptured: the function looks at the values of tensors, writes to tensors that are not its own, or is another
            one the second time.
        Unsupported: there is no C++ compiler.
    """
    first = first or trace(f, args)
    if not asked(f, args, first.writes).is_like(first.asked):
        raise NotCaptured("it does something else the second time")
    return Program(first)


class Program:
    """What a function asks of torch, in as few calls as we know how."""

    def __init__(self, traced: Traced):
        self.traced = traced = clean(in_small_words(traced))
        work = needed(traced)
        self.outputs = [x.meta["place"].base if isinstance(x, Node) else None for x in traced.outputs]
        kept = {x for x in self.outputs if x is not None}
        partition = Partition(work, kept)
        self.slots: dict[Node, int] = {}  # memory -> its number in the table of addresses
        self.numbers: list[int] = []  # the sizes and strides of all kernels
        self.steps: list[Step] = []
        self.texts: dict[str, str] = {}  # the text of a kernel -> its name
        self.cases: list[str] = []
        for kernels, node in _schedule(work, partition):
            if kernels:
                self._add_kernels(kernels, partition)
            if node is not None:
                self.steps.append(Step(node, 0, [Use(memory_of(node), {node}, {})], f"ATen: {name_of(node)}"))
        self._compilers = build.Compilers()
        P, N = ctypes.c_void_p, ctypes.c_int64
        self.library = None
        if self.cases:
            self.library = self._compilers.library(self.source(), "-O1", N, P, P, gives=ctypes.c_int)

    def _add_kernels(self, kernels: list[Kernel], partition: Partition) -> None:
        calls, uses = [], []
        for kernel in kernels:
            stored = partition.stored(kernel)
            writer = _writer(kernel)(kernel, stored, self._slot)
            name = self.texts.setdefault(writer.source(), f"kernel{len(self.texts)}")
            call = f"{name}(P, S + {len(self.numbers)});"
            calls.append(call if kernel.column is None else f"wrong |= {call}")
            self.numbers += writer.numbers
            uses.append(Use({at.memory for at in writer.loads}, set(stored), writer.in_place()))
        words = "; ".join(" > ".join(map(name_of, kernel.nodes)) for kernel in kernels)
        self.steps.append(Step(None, len(self.cases), uses, f"C++: {words}"))
        self.cases.append(f"case {len(self.cases)}: {' '.join(calls)} break;")

    def _slot(self, memory: Node) -> int:
        return self.slots.setdefault(memory, len(self.slots))

    def source(self) -> str:
        """The C++ of all kernels: `run(case, P, S)` runs those of a step, on the addresses P, with the numbers S."""
        cases = "\n    ".join(self.cases)
        return (
            f"{HEAD}\n" + "\n".join(text.replace("KERNEL", name) for text, name in self.texts.items()) + "\n"
            'extern "C" int run(int64_t which, void* const* P, const int64_t* S) {\n'
            f"  int wrong = 0;\n  switch (which) {{\n    {cases}\n  }}\n  return wrong;\n}}\n"
        )

    def stands_for(self, f: Callable[..., Any], *args: Any) -> bool:
        """Whether a function asks of torch what the one that was captured did."""
        with contextlib.suppress(NotCaptured):
            return asked(f, args, self.traced.writes).is_like(self.traced.asked)
        return False

    def __str__(self) -> str:
        """The calls of a run, one a line; within a call, kernels with the names of their operations."""
        return "\n".join(step.words for step in self.steps)

    def finish(self) -> None:
        """Wait for the C++ compiler.

        Raises:
            RuntimeError: with what it said.
        """
        self._compilers.finish()

    def bind(self) -> Bound:
        """The program with memory of its own, for one thread at a time."""
        return Bound(self)


def _writer(kernel: Kernel) -> type[Nest] | type[Tile] | type[Stream]:
    if kernel.column is None:
        return Nest
    return Tile if kernel.size[kernel.column] <= LONGEST else Stream


def memory_of(node: Node) -> set[Node]:
    """What an operation of ATen reads."""
    found: set[Node] = set()
    for a in node.all_input_nodes:
        found.add(a.meta["place"].base if "place" in a.meta and "constant" not in a.meta else a)
    return found


def _schedule(work: list[Node], partition: Partition) -> list[tuple[list[Kernel], Node | None]]:
    """Kernels that follow each other, then an operation of ATen, and so on: all kernels that can run run first."""
    units = {id(unit): unit for unit in map(partition.units.__getitem__, work)}
    waiting = {k: {id(u) for u in partition.needs(unit)} for k, unit in units.items()}
    found: list[tuple[list[Kernel], Node | None]] = []
    done: set[int] = set()

    def ready() -> list[Kernel | Node]:
        now = [k for k, needs in waiting.items() if needs <= done]
        return [units[k] for k in now]

    def run(unit: Kernel | Node) -> None:
        del waiting[id(unit)]
        done.add(id(unit))

    while waiting:
        kernels: list[Kernel] = []
        while now := [unit for unit in ready() if isinstance(unit, Kernel)]:
            kernels += now
            for unit in now:
                run(unit)
        found += [(kernels, None)] if kernels else []
        for unit in ready():
            if isinstance(unit, Node):
                found.append(([], unit))
                run(unit)
    return found
