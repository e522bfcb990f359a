"""How a step is carried out: in stages, each with its scalar work, its kernels and its events.

Each stage computes what it needs anew from the old values, and only the last one writes params and state: nothing is
kept between stages but partials, and what events read and give.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule

from optfx.compiler.kernels.binding import Bound, Owned, cells
from optfx.compiler.kernels.cpp.calls import Call
from optfx.compiler.kernels.program import of_nothing
from optfx.compiler.kernels.workshop import Kernel, Workshop
from optfx.compiler.members import Members
from optfx.compiler.plan.apart import Apart
from optfx.compiler.plan.groups import Member, Work, groups_of
from optfx.compiler.plan.layout import Layout, Packing
from optfx.compiler.plan.numbers import Numbers
from optfx.compiler.plan.others import Exchange
from optfx.compiler.plan.partials import Partials, Share
from optfx.compiler.plan.whole import Whole
from optfx.compiler.record.findings import Changed, Known, Together
from optfx.compiler.record.inputs import FromCaller, Input
from optfx.compiler.record.lazy import Event, Form, Slot, storage_of
from optfx.compiler.record.levels import Level
from optfx.compiler.record.recording import Recording
from optfx.tree.sharded import from_local, laid, local_of

PLAIN = torch.contiguous_format


class Unit(NamedTuple):
    """A kernel bound to the leaves of a group."""

    bound: Bound
    kernel: Kernel
    work: Work
    members: list[Member]
    calls: int  # of compiled code


class Stage(NamedTuple):
    """What is done between two waits for numbers that look across leaves, in this order."""

    packing: Packing
    scalars: Bound | None
    units: list[Unit]
    exchanges: list[Exchange]
    events: list[tuple[Event, list[Any]]]  # with their scalars


class Unbound(NamedTuple):
    """A unit before the partials have their places."""

    work: Work
    device: torch.device
    kernel: Kernel | None  # none where no leaf has elements
    members: list[Member]
    shares: list[Share]


class Loaded(NamedTuple):
    """Scalars that a kernel finds in memory, and what they are computed from."""

    level: Level
    prelude: GraphModule
    slots: tuple[Slot, ...]
    targets: list[Tensor]


class Plan:
    """A step, laid out in memory.

    Args:
        recording: what is done, by one member.
        given: what all members are given.
        workshop: has the kernels, and knows whose they are.
        small: how many elements a leaf has that may be packed with others.
        forms: what the gradients look like.
        kinds: what the extra arguments look like.

    Attributes:
        values: the tensor that each input is now.
        moved: the inputs that were given other memory, with others in one buffer.
        numbers: scalars that the step reads and does not own.
        memory: their forms.
        addresses: where they were when they were looked up.
    """

    def __init__(
        self, recording: Recording, given: Whole, workshop: Workshop, small: int, forms: list[Any], kinds: list[Any]
    ):
        self.recording, self._recorder, self._levels = recording, recording.recorder, recording.levels
        self.forms, self.kinds = forms, kinds
        self._workshop, self._members = workshop, workshop.members
        self._layout = Layout(recording, small, given.leaves, self._members)
        self.scalars = given.scalars
        self.values = self._layout.values
        self._loaded: list[Loaded] = []
        self._deferred: list[tuple[Tensor, Tensor]] = []  # written when all else is done: kernels read what was there
        unbound = list(self._unbound())
        shares = [(unit.work.level, share) for unit in unbound for share in unit.shares]
        numbers = Partials(self._recorder.partials, shares, self._members)
        self.partials = numbers.rows
        units, events = self._units(unbound, numbers), self._events()
        self.stages = [
            Stage(
                *(self._layout.packings[level], self._scalar_work(level, events[level])),
                *(units[level], numbers.exchanges[level], events[level]),
            )
            for level in map(Level, range(self._levels.last + 1))
        ]
        self.moved = self._layout.moved
        self.numbers = self.scalars[len(recording.inputs.of_state) :]  # beside those of the state
        self.memory = [Form.of(x) for x in self.numbers]
        self.addresses: list[int] = []
        self._own = slice(recording.inputs.n, given.own)
        self._left_out: Set[int] = frozenset()

    # ---- kernels ---------------------------------------------------------------------------------

    def _units(self, unbound: list[Unbound], numbers: Partials) -> dict[Level, list[Unit]]:
        units: dict[Level, list[Unit]] = defaultdict(list)
        for work, device, kernel, members, shares in unbound:
            owners, loaded = [], {}  # owners that take the same scalars find them in one place
            for share in shares:
                partials = numbers.places(share)
                if len(share.rows) < share.numbers:
                    for place, number in zip(partials, of_nothing(work.program, device)[1], strict=True):
                        place.copy_(number)
                if kernel is not None and share.rows:
                    if share.slots not in loaded:
                        loaded[share.slots] = cells(kernel.dtypes, device, self._members)
                        self._loaded.append(Loaded(work.level, kernel.prelude, share.slots, loaded[share.slots]))
                    owners.append(Owned(share.rows, share.sizes, loaded[share.slots], partials))
            if kernel is not None and owners:
                bound = kernel.launch(owners, self.values, self._layout.rebound, self._members)
                calls = 1 if kernel.together else sum(len(o.rows) for o in owners)
                units[work.level].append(Unit(bound, kernel, work, members, calls))
        return units

    def _unbound(self) -> Iterator[Unbound]:
        for group, owners in groups_of(self.recording).items():
            full = {o: [m for m in members if self._layout.length(m)] for o, members in owners.items()}
            # also those of which only others have elements: every process gives as many numbers
            members = [m for ms in owners.values() for m in ms if m.length]
            self._layout.fill_empty([m for ms in owners.values() for m in ms if not m.length])
            kernels = [self._workshop.kernel(w.program, group.device) if members else None for w in group.stages]
            together = all(kernel is None or kernel.together for kernel in kernels)
            together |= not group.is_flat or isinstance(self._members, Members)  # whose leaves are not packed either
            places = {owner: self._layout.places(ms, together) for owner, ms in full.items()}
            for k, (work, kernel) in enumerate(zip(group.stages, kernels, strict=True)):
                shares = []
                for owner, leaves in places.items():
                    rows = [[at[i] for i in m.placed[k].inputs] for m, at in leaves]
                    sizes = [m.placed[k].sizes for m, _ in leaves]
                    calls = 1 if kernel is None or kernel.together else len(owners[owner] if owner.others else rows)
                    shares.append(Share(owner.slots[k], owner.partials[k], owner.others, rows, sizes, max(calls, 1)))
                yield Unbound(work, group.device, kernel, members, shares)

    # ---- events and scalar work ------------------------------------------------------------------

    def _events(self) -> dict[Level, list[tuple[Event, list[Any]]]]:
        events: dict[Level, list[tuple[Event, list[Any]]]] = defaultdict(list)
        for entry, level in zip(self._recorder.log, self._levels.log, strict=True):
            if isinstance(entry, Event):
                events[level].append((entry, [self._event_scalar(v) for v in entry.scalars]))
        return events

    def _event_scalar(self, v: Any) -> Any:
        if not isinstance(v, Slot):
            return v
        value = self._recorder.slots[v.index]
        if not isinstance(value, Tensor):
            return value
        return torch.zeros(self._members.shape(value.shape), dtype=value.dtype, device=value.device)

    def _scalar_work(self, level: Level, events: list[tuple[Event, list[Any]]]) -> Bound | None:
        """One function of all scalars and partials, which writes what kernels and events of a stage take."""
        graph, slots = self.recording.graph, self._recorder.slots
        floats = [
            self._members.every(x)
            for x in torch.tensor([v for v in slots if isinstance(v, float)], dtype=torch.float64).unbind()
        ]
        loaded = [x for x in self._loaded if x.level == level]
        taken = [
            (v.index, x)
            for event, values in events
            for v, x in zip(event.scalars, values, strict=True)
            if isinstance(v, Slot) and isinstance(x, Tensor)
        ]
        filled = [k for k, at in enumerate(self._levels.filled) if at == level]

        traced = [i for i, v in enumerate(slots) if isinstance(v, Tensor)]
        read = {slot.index for x in loaded for slot in x.slots} | {i for i, _ in taken}
        wanted = {*(k for k, i in enumerate(traced) if i in read), *(len(traced) + k for k in filled)}

        def work(*args: Tensor) -> list[Tensor]:
            n, numbers = len(args) - len(floats), Numbers()
            found, lone = numbers.run(graph, args[:n], wanted), iter(args[n:])
            values = dict(zip(traced, found, strict=False))
            values |= {i: next(lone) for i, v in enumerate(slots) if isinstance(v, float)}
            return [
                *(y for x in loaded for y in numbers.run(x.prelude, [values[slot.index] for slot in x.slots])),
                *(values[i] for i, _ in taken),
                *(found[len(traced) + k] for k in filled),
            ]

        targets = [*(y for x in loaded for y in x.targets), *(x for _, x in taken)]
        targets += [self._place_of(self.recording.filled[k]) for k in filled]
        args = [*self.scalars, *self.partials, *floats]
        return self._workshop.scalar_work(work, args, targets, self.recording.traced, level) if targets else None

    def _place_of(self, i: Input) -> Tensor:
        """Where the scalar that is input `i` is written: elsewhere first, where a kernel may read the old one: it may
        read every parameter."""
        if i not in self._recorder.as_leaves and i >= 2 * self.recording.inputs.n:
            return self.values[i]
        self._deferred.append((self.values[i], torch.empty_like(self.values[i])))
        return self._deferred[-1][1]

    # ---- a step ----------------------------------------------------------------------------------

    @property
    def known(self) -> Known:
        return self._recorder.known

    def look_up(self, addresses: list[int]) -> None:
        """Find out where params, state and numbers are in memory now: at these addresses, among others."""
        self.addresses, self._apart = addresses, Apart(self.values[self._own])
        for bound in [b for s in self.stages for b in (s.scalars, *(u.bound for u in s.units)) if b is not None]:
            bound.look_up()

    def leave_out(self, params: Set[int]) -> None:
        """Take the steps from now on without these parameters, by number.

        Raises:
            Together: something looks across parameters, or sees a whole leaf.
        """
        if params == self._left_out:
            return
        units = [unit for stage in self.stages for unit in stage.units]
        if self._recorder.log or any(unit.bound.leave_out is None for unit in units):
            raise Together("not every leaf of the optimizer is treated alone")
        inputs = {Input(self.recording.inputs.n + i) for i in params}
        for unit in units:
            unit.bound.leave_out(inputs)  # type: ignore[misc]
        self._left_out = params

    def run(self, rebound: list[tuple[Input, Tensor]], extra: list[Any]) -> None:
        """Take a step: everything is written in place.

        Args:
            rebound: tensors that inputs are in this step, contiguous.
            extra: the leaves of the extra arguments.

        Raises:
            Changed: see there.
        """
        values = self.values
        for i, x in self._apart.of(rebound):
            values[i] = x
        for i, x in self._recorder.outside:
            values[i] = self._members.every(x.contiguous())
        for packing, work, units, exchanges, events in self.stages:
            if work is not None:
                work.run()
            packing.run(values)
            for unit in units:
                unit.bound.run()
            for exchange in exchanges:
                exchange.run()
            for event, scalars in events:
                self._run_event(event, scalars, extra)
        late = [(values[to], values[k]) for k, to in self.recording.kept.writes]
        for place, x in (*self._deferred, *late):
            place.copy_(x)

    def calls(self, rebound: Iterable[tuple[Input, Tensor]]) -> list[Call] | None:
        """The calls of a step in which inputs are these tensors; None where Python takes part in it."""
        for i, x in rebound:
            self.values[i] = x
        by_python = any(s.events or s.exchanges or s.packing.views for s in self.stages)
        if self._deferred or self._recorder.outside or by_python:
            return None
        in_turn = [b for s in self.stages for b in (s.scalars, *(u.bound for u in s.units)) if b is not None]
        found = [b.call() for b in in_turn if b.call is not None]
        return found if len(found) == len(in_turn) else None

    def _run_event(self, event: Event, scalars: list[Any], extra: list[Any]) -> None:
        leaves = [self.values[x.source] for x in event.leaves]  # type: ignore[index]
        now = [extra[v.index] if isinstance(v, FromCaller) else v for v in scalars]
        likes = [self._recorder.inputs[x.source] for x in event.leaves]  # type: ignore[index]
        given = [from_local(x, like.spread, like.shape) for x, like in zip(leaves, likes, strict=True)]
        ys = self._members.run(event.run, given, now)
        ys = [laid(y, like.spread) for y, like in zip(ys, event.forms, strict=True)]
        forms = [Form.of(self._members.one(y)) for y in ys]
        # a DTensor is on the device of its mesh, and the part that it is made of may be offloaded
        found = zip(forms, event.forms, strict=True)
        forms = [x if like.spread is None else x._replace(device=like.device) for x, like in found]
        if forms != event.forms:
            raise Changed(event.what, event.place, forms)
        ys = [y if x.spread is None else local_of(y).to(x.device) for y, x in zip(ys, forms, strict=True)]
        memory = {storage_of(x) for x in (*leaves, *(v for v in scalars if isinstance(v, Tensor)))}
        for j, (k, number, y) in enumerate(zip(event.to, event.numbers, ys, strict=True)):
            if number:
                self.partials[k].copy_(y)
            elif k in self.recording.kept.results and y.data_ptr() == leaves[j].data_ptr():
                self.values[k] = leaves[j]
            else:  # kernels write to leaves while they read results
                y = y.resolve_conj().resolve_neg()
                self.values[k] = y.clone(memory_format=PLAIN) if storage_of(y) in memory else y.contiguous()
