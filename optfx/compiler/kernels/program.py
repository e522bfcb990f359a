"""What happens to one leaf, without saying which.

A `Program` is a pure function of flat tensors and () scalars. It is hashable, and leaves with equal programs share one
kernel, whatever their number and length. Its parts are named tuples because those are hashed and compared in C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NewType

import torch
from torch import Tensor

from optfx.compiler.record.inputs import Input
from optfx.compiler.record.lazy import Call, Lazy, Named, Reduction, Slot, called
from optfx.compiler.record.operations import Operation
from optfx.compiler.record.recorder import Recorder
from optfx.tree import verbs
from optfx.tree.verbs import Scalars

Leaf = NewType("Leaf", int)
"""The number of a leaf that a program takes."""


class Result(NamedTuple):
    """What a call of a program gives."""

    call: int
    k: int  # which of its results

    def __repr__(self) -> str:
        return f"r{self.call}[{self.k}]"


Value = Leaf | Result


class Apply(NamedTuple):
    """A call of a program. Its slots are numbers of the program's own scalars."""

    f: Callable[..., Any]
    args: tuple[Value, ...]
    scalars: Named
    outs: int


class Store(NamedTuple):
    """A value, and the leaf that it is written to."""

    value: Value
    to: Leaf


class Part(NamedTuple):
    """The number that a leaf gives to a reduction."""

    f: Callable[..., Tensor]
    args: tuple[Value, ...]
    scalars: Named
    dtype: torch.dtype


class Program(NamedTuple):
    """A function of flat leaves."""

    dtypes: tuple[torch.dtype, ...]  # of the leaves it takes
    scalars: tuple[torch.dtype, ...]  # of the scalars
    calls: tuple[Apply, ...]
    stores: tuple[Store, ...]
    parts: tuple[Part, ...]

    def __call__(self, xs: Sequence[Tensor], ss: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The values of its stores and of its parts."""
        done: list[list[Tensor]] = []

        def get(value: Value) -> Tensor:
            return done[value.call][value.k] if isinstance(value, Result) else xs[value]

        def given(f: Any, named: Named) -> Scalars:
            return Scalars(f, {name: ss[v.index] if isinstance(v, Slot) else v for name, v in named})

        for f, args, named, outs in self.calls:
            leaves = tuple(map(get, args))
            if isinstance(f, Operation):
                done.append([f(*leaves, **{k: ss[v.index] if isinstance(v, Slot) else v for k, v in named})])
            else:
                done.append(verbs.run_leaf(f, leaves, given(f, named), outs))
        parts = [verbs.part_of(p.f, list(map(get, p.args)), given(p.f, p.scalars)).to(p.dtype) for p in self.parts]
        return [get(value) for value, _ in self.stores], parts

    def __str__(self) -> str:
        named = lambda values: tuple(v if isinstance(v, Result) else f"x{v}" for v in values)
        short = lambda dtypes: ", ".join(str(d).removeprefix("torch.") for d in dtypes) or "none"
        lines = [f"leaves x: {short(self.dtypes)}", f"scalars s: {short(self.scalars)}"]
        lines += [f"r{i} = {called(c.f, named(c.args), c.scalars)}" for i, c in enumerate(self.calls)]
        lines += [f"x{to} <- {named([value])[0]}" for value, to in self.stores]
        lines += [f"part {i} = {called(p.f, named(p.args), p.scalars)}" for i, p in enumerate(self.parts)]
        return "\n".join(lines)

    @property
    def functions(self) -> list[Callable[..., Any]]:
        return [step.f for step in (*self.calls, *self.parts)]


class Wanted(NamedTuple):
    """What a kernel has to do with one leaf: write it, or give its part to a reduction."""

    leaves: tuple[Lazy, ...]
    to: Input | Reduction


class Placed(NamedTuple):
    """A program, and the inputs and slots of a recorder that it takes, in its order."""

    program: Program
    inputs: tuple[Input, ...]
    slots: tuple[Slot, ...]


def program_of(wanted: Sequence[Wanted], recorder: Recorder) -> Placed:
    """The program that does what is wanted."""
    writes = [(w.leaves[0], w.to) for w in wanted if not isinstance(w.to, Reduction)]
    shares = [(w.leaves, w.to) for w in wanted if isinstance(w.to, Reduction)]
    calls: dict[Call, int] = {}
    slots: dict[Slot, Slot] = {}
    inputs = {to for _, to in writes}

    def local(named: Named) -> Named:
        for _, v in named:
            if isinstance(v, Slot):
                slots.setdefault(v, Slot(len(slots)))
        return tuple((name, slots[v] if isinstance(v, Slot) else v) for name, v in named)

    def visit(x: Lazy) -> None:
        if not isinstance(x.source, Call):
            inputs.add(x.source)
        elif x.source not in calls:
            for a in x.source.args:
                visit(a)
            calls[x.source] = len(calls)

    for w in [*(x for x, _ in writes), *(x for xs, _ in shares for x in xs)]:
        visit(w)
    at = {i: Leaf(n) for n, i in enumerate(sorted(inputs))}

    def value(x: Lazy) -> Value:
        return Result(calls[x.source], x.k) if isinstance(x.source, Call) else at[x.source]

    applied = tuple(Apply(c.f, tuple(map(value, c.args)), local(c.scalars), c.outs) for c in calls)
    parts = tuple(
        Part(to.f, tuple(map(value, xs)), local(to.scalars), recorder.partials[to.partial].dtype) for xs, to in shares
    )
    program = Program(
        tuple(verbs.real_dtype(recorder.inputs[i].dtype) for i in at),
        tuple(getattr(recorder.slots[u.index], "dtype", torch.float64) for u in slots),
        applied,
        tuple(Store(value(x), at[to]) for x, to in writes),
        parts,
    )
    return Placed(program, tuple(at), tuple(slots))


def of_nothing(program: Program, device: torch.device) -> list[Tensor]:
    """The parts of a leaf without elements."""
    xs = [torch.empty(0, dtype=d, device=device) for d in program.dtypes]
    return program(xs, [torch.ones((), dtype=d, device=device) for d in program.scalars])[1]
