"""How a step is carried out: in stages, each with its scalar work, its kernels and its events.

The small leaves of a group lie in one buffer and are treated as one leaf; their gradients are brought there at each
step. Every stage computes what it needs again from the old values, and only the last one writes params and state:
nothing is kept between stages but the arguments and results of events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from optfx.compiler.groups import Group, Member, Work, groups_of
from optfx.compiler.kernels import Placed, compiled, kernel
from optfx.compiler.reading import Reading
from optfx.compiler.recorder import Blank, Event, Given, Lazy, Slot
from optfx.core.donate import fresh
from optfx.tree import verbs


class Unit(NamedTuple):
    """One call of a kernel."""

    run: Callable[..., Any]
    args: list[Any]
    brought: list[tuple[int, int]]  # (argument, input) that are other tensors at each step
    work: Work
    members: list[Member]  # whose leaves it does


class Packing(NamedTuple):
    """Leaves that are brought into a buffer."""

    views: list[Tensor]
    inputs: list[int]


class Stage:
    """What is done between two waits for numbers that look across leaves."""

    def __init__(self) -> None:
        self.scalars: Callable[[], Any] | None = None
        self.units: list[Unit] = []
        self.events: list[tuple[Event, list[Any]]] = []  # with their scalars
        self.packing = Packing([], [])  # of what its events give


class Plan:
    """A step, laid out in memory."""

    def __init__(self, reading: Reading, small: int):
        self.reading, self.recorder, self.levels = reading, reading.recorder, reading.levels
        self.results = {i for e in self.recorder.log if isinstance(e, Event) for i in e.results}
        leaves = [i for kind, i in reading.inputs.extra if kind == "leaf"]
        self.brought = {*range(reading.inputs.n), *leaves, *self.results}
        self.values: list[Any] = [
            torch.empty(x.shape, dtype=x.dtype, device=x.device) if isinstance(x, Blank) else x
            for x in self.recorder.inputs
        ]
        self.packing = Packing([], [])  # of what a step brings
        self.stages = [Stage() for _ in range(self.levels.last + 1)]
        self.scalars: dict[Any, list[Tensor]] = {}  # of the loop of each program, for each device and choice of slots
        calls = [call for group, members in groups_of(reading).items() for call in self._calls(group, members, small)]
        places = self._make_marks(calls)
        for work, placed, device, args, members in calls:
            self._add_unit(work, placed, device, args, members, [next(places[m]) for m in work.marks])
        for entry, level in zip(self.recorder.log, self.levels.log, strict=True):
            if isinstance(entry, Event):
                self.stages[level].events.append((entry, list(map(self._event_scalar, entry.scalars))))
        self.late: list[tuple[Tensor, Tensor]] = []  # written when all else is done, for kernels read what was there
        self._add_scalar_work()

    # ---- where leaves lie ------------------------------------------------------------------------

    def _calls(self, group: Group, members: list[Member], small: int) -> list[Any]:
        """The calls of kernels that a group needs, its small leaves packed."""
        lengths = {m.inputs[0]: self.values[m.inputs[0]].numel() for m in members}
        full = [m for m in members if lengths[m.inputs[0]]]
        little = [m for m in full if lengths[m.inputs[0]] <= small]
        sets: list[tuple[dict[int, Any], list[Member]]] = [({}, [m]) for m in full]
        if len(little) > 1:
            buffers: dict[int, Any] = {}
            for column in zip(*(m.inputs for m in little), strict=True):
                buffers |= dict.fromkeys(column, self._packed(list(column)))
            sets = [(buffers, little), *(s for s in sets if lengths[s[1][0].inputs[0]] > small)]
        if not full:  # nothing to do, but reductions want to hear of it
            sets = [({}, members[:1])] if any(work.marks for work in group.stages) else []
        return [
            (work, placed, group.device, [buffers.get(i, i) for i in placed.inputs], which)
            for buffers, which in sets
            for work, placed in zip(group.stages, which[0].placed, strict=True)
        ]

    def _packed(self, column: list[int]) -> Tensor:
        """One buffer for what many leaves have in the same role: their own, where they lie in a row already."""
        tensors = [self.values[i] for i in column]
        lengths = [x.numel() for x in tensors]
        if column[0] in self.brought:
            buffer = tensors[0].new_empty(sum(lengths))
            packing = self.packing
            if column[0] in self.results:
                packing = self.stages[self.levels.leaf(Lazy(column[0], 0, tensors[0])) - 1].packing
            packing.views.extend(part.view(x.shape) for x, part in zip(tensors, buffer.split(lengths), strict=True))
            packing.inputs.extend(column)
            return flat(buffer)
        if not _in_a_row(tensors):
            for i, part in zip(column, torch.cat([x.reshape(-1) for x in tensors]).split(lengths), strict=True):
                self.values[i] = part.view(self.values[i].shape)
        first = self.values[column[0]]
        return flat(first.as_strided((sum(lengths),), (1,), first.storage_offset()))

    # ---- kernels ---------------------------------------------------------------------------------

    def _make_marks(self, calls: list[Any]) -> dict[int, Any]:
        """What reductions and events write and scalar work reads: for a reduction, a number for each call."""
        counts: dict[int, int] = defaultdict(int)
        for work, *_ in calls:
            for mark in work.marks:
                counts[mark] += 1
        self.marks = [
            torch.zeros(counts.get(m, tuple(x.shape)), dtype=x.dtype, device=x.device)
            for m, x in enumerate(self.recorder.marks)
        ]
        return {m: iter(self.marks[m].unbind()) for m in counts}

    def _add_unit(
        self, work: Work, placed: Placed, device: torch.device, args: list[Any], members: list[Member], parts: list[Any]
    ) -> None:
        if not self.values[members[0].inputs[0]].numel():
            for place, (f, refs, named, _) in zip(parts, work.program.parts, strict=True):
                nothing = [torch.empty(0, dtype=work.program.dtypes[0], device=device) for _ in refs]
                ones = {k: torch.ones((), device=device) if isinstance(v, Slot) else v for k, v in named}
                place.copy_(verbs.part_of(f, nothing, verbs.Scalars(f, ones)))
            return
        made = kernel(work.program, device)
        scalars = self.scalars.setdefault(
            (work.level, work.program, placed.slots, device),
            [torch.zeros((), dtype=d, device=device) for d in made.dtypes],
        )
        brought = [(k, i) for k, i in enumerate(args) if type(i) is int and i in self.brought]
        given = [x if isinstance(x, Tensor) else None if x in self.brought else flat(self.values[x]) for x in args]
        self.stages[work.level].units.append(Unit(made.run, [*given, *parts, *scalars], brought, work, members))

    # ---- scalar work -----------------------------------------------------------------------------

    def _event_scalar(self, v: Any) -> Any:
        if not isinstance(v, Slot):
            return v
        value = self.recorder.slots[v.index]
        return torch.zeros_like(value) if isinstance(value, Tensor) else value

    def _add_scalar_work(self) -> None:
        """For each stage one compiled function of all scalars and marks, which writes what its kernels and events take."""
        reading, slots = self.reading, self.recorder.slots
        lone = torch.tensor([v for v in slots if isinstance(v, float)], dtype=torch.float64)
        args = [*reading.inputs.scalars, *self.marks, lone]
        for level, stage in enumerate(self.stages):
            classes = [(key, mine) for key, mine in self.scalars.items() if key[0] == level]
            wanted = [
                (v.index, x)
                for event, values in stage.events
                for v, x in zip(event.scalars, values, strict=True)
                if isinstance(v, Slot) and isinstance(x, Tensor)
            ]
            filled = [k for k in range(len(reading.filled)) if self._filled_at(k) == level]

            def work(*args: Tensor, classes: Any = classes, wanted: Any = wanted, filled: Any = filled) -> list[Tensor]:
                found, floats = iter(reading.graph(*args[:-1])), iter(args[-1].unbind())
                values = [next(floats if isinstance(v, float) else found) for v in slots]
                rest = list(found)
                out = [
                    y for (_, program, mine, device), _ in classes
                    for y in kernel(program, device).prelude(*(values[i] for i in mine))
                ]
                return [*out, *(values[i] for i, _ in wanted), *(rest[k] for k in filled)]

            targets = [x for _, mine in classes for x in mine] + [x for _, x in wanted]
            targets += [self._filled_place(k) for k in filled]
            if targets:
                stage.scalars = _in_place(work, args, targets)

    def _filled_at(self, k: int) -> int:
        return self.levels.filled(k) if k < len(self.recorder.filled) else self.levels.last

    def _filled_place(self, k: int) -> Tensor:
        i = self.reading.filled[k]
        if k < len(self.recorder.filled) or i not in self.recorder.as_leaves:
            return self.values[i]
        self.late.append((self.values[i], torch.empty_like(self.values[i])))
        return self.late[-1][1]

    # ---- a step ----------------------------------------------------------------------------------

    def run(self, brought: Sequence[tuple[int, Tensor]], extra: dict[str, Any]) -> None:
        """Take a step: everything is written in place."""
        values = self.values
        for i, x in brought:
            values[i] = x
        _pack(self.packing, values)
        for stage in self.stages:
            if stage.scalars:
                stage.scalars()
            for run, args, places, _, _ in stage.units:
                for k, i in places:
                    args[k] = flat(values[i])
                run(args)
            for event, scalars in stage.events:
                leaves = [values[x.source] for x in event.leaves]
                ys = event.run(leaves, [extra[v.name] if isinstance(v, Given) else v for v in scalars])
                for i, y in zip(event.results, ys, strict=False):
                    values[i] = y
                for m, y in zip(event.marks, ys[len(event.results) :], strict=True):
                    self.marks[m].copy_(y)
            _pack(stage.packing, values)
        for place, x in self.late:
            place.copy_(x)


def flat(x: Tensor) -> Tensor:
    """The real numbers of a leaf in a row: the leaf's own memory, where it is contiguous."""
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).reshape(-1)


def _pack(packing: Packing, values: list[Any]) -> None:
    if packing.views:  # 3 times as fast as torch.cat
        torch._foreach_copy_(packing.views, [values[i] for i in packing.inputs])


def _in_a_row(tensors: list[Tensor]) -> bool:
    """Whether the tensors are neighbours in one storage."""
    storage, offset = tensors[0].untyped_storage().data_ptr(), tensors[0].storage_offset()
    for x in tensors:
        if x.untyped_storage().data_ptr() != storage or x.storage_offset() != offset or not x.is_contiguous():
            return False
        offset += x.numel()
    return True


def _in_place(f: Callable[..., list[Tensor]], args: list[Tensor], targets: list[Tensor]) -> Callable[[], Any]:
    """`f(*args)` written to `targets`, compiled."""
    every = list({id(x): x for x in (*args, *targets)}.values())
    at = {id(x): k for k, x in enumerate(every)}

    def g(*given: Tensor) -> tuple[()]:
        ys = f(*(given[at[id(x)]] for x in args))
        ys = [fresh(y) if any(y is x for x in given) else y for y in ys]
        for x, y in zip(targets, ys, strict=True):
            given[at[id(x)]].copy_(y)
        return ()

    graph = make_fx(g)(*(x.clone() for x in every))  # make_fx runs what it traces: not on the real counts
    graph.graph.eliminate_dead_code()
    graph.recompile()
    run = compiled(graph, every)
    return lambda: run(every)
