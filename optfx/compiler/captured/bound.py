"""A program with memory of its own."""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_aggregate

from optfx.compiler.captured.memory import buffers
from optfx.compiler.captured.trace import Place
from optfx.compiler.kernels.cpp.aten import product
from optfx.compiler.kernels.cpp.calls import Call
from optfx.tree import flatten, unflatten

if TYPE_CHECKING:
    from optfx.compiler.captured.program import Program, Step


class Bound:
    """A program that can be called, by one thread at a time. What it gives is good until its next call."""

    def __init__(self, program: Program):
        traced = program.traced
        self.traced = traced
        kept = {x for x in program.outputs if x is not None}
        self.memory: dict[Node, Tensor] = buffers([use for step in program.steps for use in step.uses], kept)
        for x in traced.graph.nodes:
            if "constant" in x.meta:
                self.memory[x] = x.meta["constant"]
        self.table = (ctypes.c_void_p * max(1, len(program.slots)))()
        self.table.memory = self.memory  # type: ignore[attr-defined]  # which stays as long as the table
        self.slots = program.slots
        for x, k in program.slots.items():
            if x in self.memory:
                self.table[k] = self.memory[x].data_ptr()
        self.numbers = (ctypes.c_int64 * max(1, len(program.numbers)))(*program.numbers)
        self.library = program.library
        self.moving = [*traced.inputs, *traced.closed]
        self.like = [(x.meta["val"].shape, x.meta["val"].stride(), x.meta["val"].dtype) for x in self.moving]
        self.at = [-1] * len(self.moving)
        self.dependent: dict[Node, list[int]] = {x: [] for x in self.moving}  # inputs -> the calls that are given them
        for k, step in enumerate(program.steps):
            for x in step.uses[0].reads if step.node is not None else ():
                if x in self.dependent:
                    self.dependent[x].append(k)
        self.steps = program.steps
        later = {k for calls in self.dependent.values() for k in calls}
        self.todo = [None if k in later else self.call(step) for k, step in enumerate(self.steps)]
        self._calls: list[Call] | None = None  # for the memory that was last looked at
        self.results: dict[Node, Any] = {}
        self.outputs = [self.output(x) if isinstance(x, Node) else x for x in traced.outputs]

    # ---- at each run -----------------------------------------------------------------------------

    def __call__(self, *args: Any) -> Any:
        """The outputs of the function."""
        leaves, taken = flatten(args)
        if taken != self.traced.taken:
            raise ValueError(f"the program takes {self.traced.taken}, not {taken}")
        with torch.no_grad():
            self.take([*leaves, *self.traced.closed.values()])
            for call in self.todo:
                call()  # type: ignore[misc]
            return self.given([x() if callable(x) else x for x in self.outputs])

    def given(self, outputs: list[Any]) -> Any:
        """Outputs as the function gives them."""
        return unflatten(self.traced.given, outputs)

    def calls(self, *args: Any) -> list[Call] | None:
        """The calls of C functions that a run on these very tensors is, the same list as long as no memory moves; None
        where Python takes part in a run."""
        leaves = [*flatten(args)[0], *self.traced.closed.values()]
        if any(x.stride() != stride for x, (_, stride, _) in zip(leaves, self.like, strict=True)):
            return None
        self.take(leaves)
        if self._calls is None:
            calls = [self.call_of(step) for step in self.steps]
            found = [x for x in calls if x is not None]
            whole = len(found) == len(calls) and not any(map(callable, self.outputs))
            self._calls = found if whole else None
        return self._calls

    def call_of(self, step: Step) -> Call | None:
        node = step.node
        if node is None:
            run = self.library.run  # type: ignore[union-attr]
            return Call(run, (step.case, self.table, self.numbers), IndexError("an index is out of bounds"))
        if node.target is not torch.ops.aten.bmm.default:
            return None
        return product(self.memory[node], *map(self.value, node.args))

    def take(self, tensors: list[Tensor]) -> None:
        """Look where the inputs are, and make the views of those that have moved."""
        stale: set[int] = set()
        for k, (x, (shape, stride, dtype)) in enumerate(zip(tensors, self.like, strict=True)):
            if x.shape != shape or x.dtype != dtype:
                want, got = f"{dtype} of shape {tuple(shape)}", f"{x.dtype} of {tuple(x.shape)}"
                raise ValueError(f"the program takes {want}, not {got}")
            x = x.resolve_conj().resolve_neg()
            if x.stride() != stride:
                x = torch.empty_strided(shape, stride, dtype=dtype).copy_(x)
            if self.at[k] != (address := x.data_ptr()) or not address:
                node = self.moving[k]
                self.at[k], self.memory[node] = address, x.detach()  # which keeps its memory, so no other comes there
                self._calls = None
                if node in self.slots:
                    self.table[self.slots[node]] = address
                stale.update(self.dependent[node])
        for k in stale:
            self.todo[k] = self.call(self.steps[k])

    # ---- calls -----------------------------------------------------------------------------------

    def call(self, step: Any) -> Callable[[], Any]:
        """What a step does."""
        node = step.node
        if node is None:
            run, case, table, numbers = self.library.run, step.case, self.table, self.numbers  # type: ignore[union-attr]

            def kernels() -> None:
                if run(case, table, numbers):
                    raise IndexError("an index is out of bounds")

            return kernels
        args, kwargs = (map_aggregate(x, self.value) for x in (node.args, node.kwargs))
        return self.operation(node, args, kwargs)

    def operation(self, node: Node, args: Any, kwargs: Any) -> Callable[[], Any]:
        target = node.target
        if node in self.memory:
            target, to = _into(target), self.memory[node]  # type: ignore[arg-type]
            if target is not None:
                name = next(a.name for a in target._schema.arguments if a.is_out)
                kwargs = {**kwargs, name: to}
                return lambda: target(*args, **kwargs)
            f: Any = node.target
            if f is operator.getitem:
                return lambda: to.copy_(self.results[args[0]][args[1]])
            return lambda: to.copy_(f(*args, **kwargs))

        def several() -> None:
            self.results[node] = node.target(*args, **kwargs)  # type: ignore[operator]

        return several

    def value(self, x: Any) -> Any:
        """An argument: a view of memory."""
        if not isinstance(x, Node):
            return x
        if "place" not in x.meta:
            return x  # several results
        return self.view(Place(x, (), ()) if "constant" in x.meta else x.meta["place"], x)

    def view(self, place: Place, x: Node) -> Tensor:
        memory = self.memory[place.base]
        if "constant" in x.meta or place.base is x:
            return memory
        return memory.as_strided(place.size, place.stride, memory.storage_offset() + place.offset)

    def output(self, x: Node) -> Any:
        """An output of our own: one that is an input, or a constant, is copied."""
        base = x.meta["place"].base
        if "constant" not in x.meta and base not in self.dependent:
            return self.view(x.meta["place"], x)
        val = x.meta["val"]
        to = torch.empty_strided(val.shape, val.stride(), dtype=val.dtype)
        if 0 in val.stride():  # expanded: each element needs a place
            to = torch.empty(val.shape, dtype=val.dtype)
        return lambda: to.copy_(self.value(x))


def _into(target: Any) -> Any:
    """The form of an operation that writes its one result into a tensor it is given."""
    if not isinstance(target, torch._ops.OpOverload):
        return None
    wanted = [(a.name, str(a.type)) for a in target._schema.arguments]
    packet = target.overloadpacket
    for name in packet.overloads():
        found = getattr(packet, name)
        out = [a for a in found._schema.arguments if a.is_out]
        if len(out) == 1 and [(a.name, str(a.type)) for a in found._schema.arguments if not a.is_out] == wanted:
            return found
    return None
