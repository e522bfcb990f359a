"""When something can be computed: the stage of each leaf, scalar, reduction and event of a recording.

A stage does its scalar work, then its kernels, then its events. What a reduction or an event leaves can be used from
the next stage on, and so can a leaf that is stored for kernels; an event reads what is stored in its own stage.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, NewType

from torch import Tensor
from torch.fx import GraphModule, Node

from optfx.compiler.record.inputs import Input
from optfx.compiler.record.lazy import Call, Event, Lazy, Partial, Reduction, Slot
from optfx.compiler.record.recorder import Recorder

Level = NewType("Level", int)
"""The number of a stage."""


class Levels:
    """The levels of a recording, from the partials that its scalars wait for."""

    def __init__(self, graph: GraphModule, recorder: Recorder, n_scalars: int):
        partials = [x for x in graph.graph.nodes if x.op == "placeholder"][n_scalars:]
        waits: dict[Node, frozenset[Partial]] = {x: frozenset([Partial(i)]) for i, x in enumerate(partials)}
        for x in graph.graph.nodes:
            if x not in waits:
                waits[x] = frozenset().union(*(waits[a] for a in x.all_input_nodes))
        (output,) = [x for x in graph.graph.nodes if x.op == "output"]
        found = iter([waits[x] for x in output.args[0]])
        self._of_slot = [next(found) if isinstance(v, Tensor) else frozenset() for v in recorder.slots]
        of_filled = list(found)
        self._of_between = {to: wait for (_, to), wait in zip(recorder.filled, of_filled, strict=False)}
        self._stored = {to: x for x, to in recorder.stored}
        self._of_partial: dict[Partial, Level] = {}
        self._of_result: dict[Input, Level] = {}
        self._of_call: dict[Call, Level] = {}
        self.log: list[Level] = []  # of each entry of the recorder's log
        latest = Level(0)  # of the events that keep their order
        for entry in recorder.log:
            level = self._of_entry(entry)
            if isinstance(entry, Event) and entry.ordered:
                level = latest = max(level, latest)
            self.log.append(level)
            if isinstance(entry, Event):
                self._of_result |= dict.fromkeys(entry.results, Level(level + 1))
            partials = entry.partials if isinstance(entry, Event) else [entry.partial]
            self._of_partial |= dict.fromkeys(partials, Level(level + 1))
        stored = [self.leaf(x) for x in self._stored.values()]
        self.last = Level(max([*self.log, *stored], default=-1) + 1)  # in which params and state are written
        n = len(recorder.filled)
        self.filled = [*map(self._after, of_filled[:n]), *[self.last] * len(of_filled[n:])]  # as in the recording

    def leaf(self, x: Lazy) -> Level:
        if not isinstance(x.source, Call):
            return self.input(x.source)
        if x.source not in self._of_call:
            self._of_call[x.source] = self._of_work(x.source.args, [v for _, v in x.source.scalars])
        return self._of_call[x.source]

    def without(self, x: Lazy, inputs: Container[Input]) -> Level:
        """The level of a leaf if nobody waits for these inputs."""
        seen: dict[Call, Level] = {}

        def of(x: Lazy) -> Level:
            call = x.source
            if not isinstance(call, Call):
                return Level(0) if call in inputs else self.input(call)
            if call not in seen:
                seen[call] = max([*map(of, call.args), self._of_work((), [v for _, v in call.scalars])])
            return seen[call]

        return of(x)

    def input(self, i: Input) -> Level:
        if i in self._of_between:
            return self._after(self._of_between[i])
        return Level(self.leaf(self._stored[i]) + 1) if i in self._stored else self._of_result.get(i, Level(0))

    def _after(self, partials: Iterable[Partial]) -> Level:
        return max((self._of_partial[p] for p in partials), default=Level(0))

    def _of_work(self, leaves: Iterable[Lazy], scalars: Iterable[Any]) -> Level:
        slots = [self._after(self._of_slot[v.index]) for v in scalars if isinstance(v, Slot)]
        return max([*map(self.leaf, leaves), *slots], default=Level(0))

    def _of_entry(self, entry: Reduction | Event) -> Level:
        if isinstance(entry, Event):
            return self._of_work([self._stored.get(x.source, x) for x in entry.leaves], entry.scalars)  # type: ignore[arg-type]
        return self._of_work([x for xs in entry.rows for x in xs], [v for _, v in entry.scalars])
