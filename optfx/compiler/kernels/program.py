"""What happens to one leaf, without saying which.

A `Program` is a pure function of leaves and () scalars. Leaves are flat, or have dimensions in common where some are
broadcast, or become a number for each row. It is hashable, and leaves with equal programs share one kernel, whatever
their number and sizes. Its parts are named tuples because those are hashed and compared in C.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NewType

import torch
from torch import Tensor

from optfx.compiler.record.along import Along, packed_of
from optfx.compiler.record.inputs import Input
from optfx.compiler.record.lazy import Call, Lazy, Named, Reduction, Slot, called
from optfx.compiler.record.operations import Operation
from optfx.compiler.record.recorder import Recorder
from optfx.compiler.record.spaces import Mask, Sizes, cut, masked, refined
from optfx.tree import nibbles, verbs
from optfx.tree.nibbles import UINT4
from optfx.tree.verbs import Scalars

SHORT = 1024  # elements of a row that a kernel may go over more than once

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
    """A function of leaves."""

    dtypes: tuple[torch.dtype, ...]  # of the leaves it takes
    masks: tuple[Mask, ...]  # of these, along which dimensions each has elements of its own: all have the same number
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
            if isinstance(f, Along):
                done.append([f(*leaves)])
            elif isinstance(f, Operation):
                done.append([f(*leaves, **{k: ss[v.index] if isinstance(v, Slot) else v for k, v in named})])
            else:
                done.append(verbs.run_leaf(f, leaves, given(f, named), outs))
        parts = [verbs.part_of(p.f, list(map(get, p.args)), given(p.f, p.scalars)).to(p.dtype) for p in self.parts]
        return [get(value) for value, _ in self.stores], parts

    def __str__(self) -> str:
        named = lambda values: tuple(v if isinstance(v, Result) else f"x{v}" for v in values)
        short = lambda dtypes: ", ".join(str(d).removeprefix("torch.") for d in dtypes) or "none"
        lines = [f"leaves x: {short(self.dtypes)}", f"scalars s: {short(self.scalars)}"]
        if not self.is_flat:
            shapes = [f"({', '.join('n' if own else '1' for own in mask)})" for mask in self.masks]
            lines.insert(1, f"shapes: {', '.join(shapes)}")
        lines += [f"r{i} = {called(c.f, named(c.args), c.scalars)}" for i, c in enumerate(self.calls)]
        lines += [f"x{to} <- {named([value])[0]}" for value, to in self.stores]
        lines += [f"part {i} = {called(p.f, named(p.args), p.scalars)}" for i, p in enumerate(self.parts)]
        return "\n".join(lines)

    @property
    def computed(self) -> list[torch.dtype]:
        """The dtypes in which torch takes its leaves."""
        return [torch.uint8 if d == UINT4 else d for d in self.dtypes]

    @property
    def is_flat(self) -> bool:
        """Whether it treats all elements alike, but for reductions of whole leaves."""
        return all(map(all, self.masks))

    @property
    def rows(self) -> list[Store]:
        """The stores of numbers that are made of rows."""
        return [s for s in self.stores if isinstance(s.value, Result) and isinstance(self.calls[s.value.call].f, Along)]

    def shapes(self, sizes: Sizes) -> list[Sizes]:
        """Those of its leaves, where dimensions have these sizes."""
        return [tuple(n if own else 1 for n, own in zip(sizes, mask, strict=True)) for mask in self.masks]

    def views(self, sizes: Sizes) -> list[Sizes]:
        """The shapes in which its leaves are seen: flat, where nothing else is asked for."""
        return [(-1,)] * len(self.masks) if self.is_flat else self.shapes(sizes)

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
    sizes: Sizes  # of the dimensions that its leaves have in common


class _View(NamedTuple):
    """How an input is seen: with a mask over dimensions of these sizes, or in full."""

    input: Input
    sizes: Sizes = ()
    mask: Mask = ()
    in_half: bool = False  # whether a byte of it has two numbers


def _seen(call: Call | None, x: Lazy) -> _View:
    """How a leaf that is an input is seen by a call, or where it is the result."""
    if isinstance(x.source, Call):
        return _View(x.source.args[0].source, in_half=True)  # type: ignore[arg-type]
    if call is None or not call.is_slim(x):
        return _View(x.source)
    sizes, (mask, *_) = cut(call.over or (), x.shape, *(a.shape for a in call.args if call.is_slim(a)))
    return _View(x.source, sizes, mask)  # type: ignore[arg-type]


def _made_by(x: Lazy) -> Call | None:
    """The call by which a program makes a leaf; None where it is given the leaf."""
    call = x.source
    return call if isinstance(call, Call) and call.f is not nibbles.unpacked else None


def _written(x: Lazy, to: Input) -> tuple[Lazy, _View]:
    """What is written, and how the input is seen that it is written to."""
    numbers = packed_of(x)
    if numbers is not None:
        return numbers, _View(to, in_half=True)
    if not (isinstance(x.source, Call) and isinstance(x.source.f, Along)):
        return x, _View(to)
    of = x.source.args[0].shape
    sizes, (mask,) = cut(of, x.source.f.kept(of))
    return x, _View(to, sizes, mask)


def program_of(wanted: Sequence[Wanted], recorder: Recorder, within: Mapping[Input, Lazy] | None = None) -> Placed:
    """The program that does what is wanted.

    Args:
        wanted: what is written, and what is given to reductions.
        recorder: what has been noted.
        within: the inputs that the program computes itself, and from what.
    """
    within = within or {}
    writes = [_written(w.leaves[0], w.to) for w in wanted if not isinstance(w.to, Reduction)]
    shares = [(w.leaves, w.to) for w in wanted if isinstance(w.to, Reduction)]
    calls: dict[Call, int] = {}
    slots: dict[Slot, Slot] = {}
    views = {view: x.numel() for x, view in writes}

    def local(named: Named) -> Named:
        for _, v in named:
            if isinstance(v, Slot):
                slots.setdefault(v, Slot(len(slots)))
        return tuple((name, slots[v] if isinstance(v, Slot) else v) for name, v in named)

    def visit(x: Lazy, by: Call | None = None) -> None:
        if x.source in within:
            visit(within[x.source])  # type: ignore[index]
        elif (call := _made_by(x)) is None:
            views[_seen(by, x)] = x.numel()
        elif call not in calls:
            for a in call.args:
                visit(a, call)
            calls[call] = len(calls)

    for w in [*(x for x, _ in writes), *(x for xs, _ in shares for x in xs)]:
        visit(w)
    order = sorted(views)
    sizes, masks = _common(order, max(views.values()))
    at = {view: Leaf(n) for n, view in enumerate(order)}

    def value(x: Lazy, by: Call | None = None) -> Value:
        if x.source in within:
            return value(within[x.source])  # type: ignore[index]
        call = _made_by(x)
        return at[_seen(by, x)] if call is None else Result(calls[call], x.k)

    def applied(c: Call) -> Apply:
        f, args = c.f, tuple(value(a, c) for a in c.args)
        if isinstance(f, Along):
            kept, (mask,) = cut(c.args[0].shape, f.kept(c.args[0].shape))
            dims = tuple(d for d, own in enumerate(masked(mask, kept, sizes)) if not own)
            f = dataclasses.replace(f, dims=dims, ndim=len(sizes))
        return Apply(f, args, local(c.scalars), c.outs)

    every = tuple(map(applied, calls))
    parts = tuple(
        Part(to.f, tuple(map(value, xs)), local(to.scalars), recorder.partials[to.partial].dtype) for xs, to in shares
    )
    program = Program(
        tuple(UINT4 if view.in_half else verbs.real_dtype(recorder.inputs[view.input].dtype) for view in order),
        tuple(masks),
        tuple(getattr(recorder.slots[u.index], "dtype", torch.float64) for u in slots),
        every,
        tuple(Store(value(x), at[view]) for x, view in writes),
        parts,
    )
    return Placed(program, tuple(view.input for view in order), tuple(slots), sizes)


def _common(views: Sequence[_View], length: int) -> tuple[Sizes, list[Mask]]:
    """The fewest dimensions in which all of these can be seen, and their masks."""
    finest: Sizes | None = ()
    for view in views:
        finest = refined(finest, view.sizes)
        assert finest is not None, "leaves of one loop fit each other"
    if not finest:
        return (length,), [(True,)] * len(views)
    masks = [masked(v.mask, v.sizes, finest) if v.sizes else (True,) * len(finest) for v in views]
    shapes = [tuple(n if own else 1 for n, own in zip(finest, mask, strict=True)) for mask in masks]
    return cut(finest, *shapes)


def of_nothing(program: Program, device: torch.device, sizes: Sizes = (0,)) -> tuple[list[Tensor], list[Tensor]]:
    """The stores and the parts of a leaf without elements."""
    shapes = program.shapes(sizes if len(sizes) == len(program.masks[0]) else (0,) * len(program.masks[0]))
    xs = [torch.empty(s, dtype=d, device=device) for s, d in zip(shapes, program.computed, strict=True)]
    return program(xs, [torch.ones((), dtype=d, device=device) for d in program.scalars])
