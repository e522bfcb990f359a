"""Reading a transform: its update runs once on leaves that hold nothing, and what the verbs are asked is written down.

A `Lazy` leaf is an input of the step or the result of a `Call`. Elementwise calls are only noted. What looks across
leaves is a `Reduction`, and what cannot be looked into (a leafwise function, a transform that touches leaves by itself)
is an `Event`: both end a stage, and what they give comes back as an input of the next. Scalars are no leaves: they are
tensors that a tracer watches, so the scalar work of a step becomes one graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from optfx.core import GradientTransformation
from optfx.tree import Tree, flatten, unflatten, verbs
from optfx.tree.verbs import Scalars

NOTHING_TO_LEARN = (0.0, 1.0)  # numbers that are part of a program, for the compiler to leave out


class Unfusable(TypeError):
    """An operation on a leaf that is no verb: nothing is known of what it does."""


class Slot(NamedTuple):
    """A scalar argument, by its number."""

    index: int


class Blank(NamedTuple):
    """A leaf that stands between two stages, before it exists."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


@dataclasses.dataclass(frozen=True)
class Given:
    """An extra argument that is no tensor, by its name: each step brings its own."""

    name: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise Unfusable(f"it calls {self.name}")


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """An elementwise function of leaves."""

    f: Callable[..., Any]
    args: tuple[Lazy, ...]
    scalars: tuple[tuple[str, Any], ...]  # by name: a Slot, or a value that is part of the program
    outs: int


class Lazy(Tensor):
    """A leaf that is not computed: input number `source` of the step, or output `k` of a Call."""

    source: Any
    k: int

    @staticmethod
    def __new__(cls, source: Any, k: int, like: Tensor) -> Lazy:
        x = Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device=like.device)  # type: ignore[attr-defined]
        x.source, x.k = source, k
        return x

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise Unfusable(f"{func} on a leaf outside the verbs")


class Reduction(NamedTuple):
    """A number for each leaf, to be combined: its parts come back as a traced scalar."""

    f: Callable[..., Tensor]
    rows: list[tuple[Lazy, ...]]
    scalars: tuple[tuple[str, Any], ...]
    mark: int  # which of the marks its parts are


class Event(NamedTuple):
    """Work that runs as it is, on leaves that exist by then."""

    what: str  # for people
    why: str
    run: Callable[..., list[Tensor]]  # (leaves, scalars) -> results
    leaves: list[Lazy]  # all of them inputs
    scalars: list[Any]  # slots and values
    results: list[int]  # inputs that the first results become
    marks: list[int]  # the marks that the other ones become


class Recorder:
    """What was asked of the verbs during one `update`."""

    def __init__(self, inputs: Sequence[Tensor], known: dict[int, int], marks: Iterator[Tensor]):
        self.inputs: list[Any] = list(
            inputs
        )  # the leaves that a step reads: given ones, then those that stand between stages
        self.known = known  # id of a traced scalar -> the input that it is
        self.given_marks = marks
        self.marks: list[Tensor] = []  # traced scalars that reductions and events give
        self.slots: list[Any] = []  # float or traced scalar
        self.log: list[Reduction | Event] = []
        self.stored: list[tuple[Lazy, int]] = []  # values that an event needs, and where it finds them
        self.filled: list[tuple[Tensor, int]] = []  # traced scalars that are used as leaves, and where
        self.as_leaves: set[int] = set()  # inputs that are scalars and were used as leaves

    # ---- what the library asks -----------------------------------------------------------------

    def run_leaf(self, f: Any, xs: Sequence[Tensor], scalars: Scalars, outs: int, whole: bool) -> list[Tensor]:
        if not any(isinstance(x, Lazy) for x in xs):
            return verbs.run_leaf(f, tuple(xs), scalars, outs)  # a count in a tree of state
        leaves, named = [self.leaf(x) for x in xs], self.named(scalars)
        dtypes, as_pairs = [x.dtype for x in leaves], scalars.as_pairs
        verbs.refuse_integers(dtypes)
        verbs.sees_pairs(dtypes, verbs.computation_dtype(dtypes), as_pairs)
        if whole or (not as_pairs and any(x.is_complex() for x in xs)):

            def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
                now = Scalars(f, dict(zip(scalars.values, values, strict=True)), as_pairs)
                return verbs.run_leaf(f, tuple(leaves), now, outs)

            why = "it sees whole leaves" if whole else "it multiplies complex numbers"
            return list(self.event(verbs.name_of(f), why, run, leaves, [v for _, v in named], leaves[:outs]))
        call = Call(f, tuple(leaves), named, outs)
        return [Lazy(call, k, x) for k, x in enumerate(leaves[:outs])]

    def reduce(self, f: Any, combine: Any, rows: list[tuple[Tensor, ...]], scalars: Scalars) -> Tensor:
        if not any(isinstance(x, Lazy) for xs in rows for x in xs):
            return verbs.combined(f, combine, rows, scalars)
        leaves = [tuple(map(self.leaf, xs)) for xs in rows]
        named, width = self.named(scalars), len(rows[0])
        dtype = _dtype_of(f, rows, scalars)
        if any(x.is_complex() for xs in rows for x in xs):

            def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
                now = Scalars(f, dict(zip(scalars.values, values, strict=True)))
                places = [tuple(leaves[i : i + width]) for i in range(0, len(leaves), width)]
                return [verbs.combined(f, combine, places, now)]

            every, mark = [x for xs in leaves for x in xs], self.mark((), dtype, rows[0][0].device)
            why = "it reduces complex numbers"
            self.event(verbs.name_of(f), why, run, every, [v for _, v in named], [], [mark])
            return self.marks[mark]
        mark = self.mark((2,), dtype, rows[0][0].device)
        self.log.append(Reduction(f, leaves, named, mark))
        parts = self.marks[mark]
        return combine(parts, **scalars.kind_of([parts]).scalars)

    def update(
        self,
        tx: GradientTransformation,
        updates: Tree,
        state: Tree,
        params: Tree,
        extra: dict[str, Any],
    ) -> tuple[Tree, Tree]:
        begin = len(self.log), len(self.marks), len(self.stored), len(self.filled), len(self.slots), len(self.inputs)
        try:
            return tx.step(updates, state, params, **extra)
        except Exception as error:
            if not isinstance(error, Unfusable) and "tracing tensor" not in str(error):
                raise
            why = str(error) if isinstance(error, Unfusable) else "it reads the value of a tensor"
        for done, keep in zip(
            (self.log, self.marks, self.stored, self.filled, self.slots, self.inputs), begin, strict=True
        ):
            del done[keep:]
        return self.as_it_is(tx, why, (updates, state, params, extra))

    # ---- how it is written down ------------------------------------------------------------------

    def leaf(self, x: Tensor) -> Lazy:
        """`x` as a leaf; a traced scalar is one that scalar work fills in."""
        if isinstance(x, Lazy):
            return x
        if id(x) in self.known:
            self.as_leaves.add(self.known[id(x)])
            return Lazy(self.known[id(x)], 0, x)
        self.filled.append((x, self.temporary(x)))
        return Lazy(self.filled[-1][1], 0, x)

    def temporary(self, like: Tensor) -> int:
        self.inputs.append(Blank(like.shape, like.dtype, like.device))
        return len(self.inputs) - 1

    def named(self, scalars: Scalars) -> tuple[tuple[str, Any], ...]:
        return tuple((name, self.slot(v)) for name, v in scalars.values.items())

    def slot(self, value: Any) -> Any:
        if isinstance(value, Lazy):
            raise Unfusable("a leaf in the place of a scalar")
        if not (isinstance(value, Tensor) or (type(value) is float and value not in NOTHING_TO_LEARN)):
            return value
        for i, known in enumerate(self.slots):
            if known is value or (type(known) is type(value) is float and known == value):
                return Slot(i)
        self.slots.append(value)
        return Slot(len(self.slots) - 1)

    def mark(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> int:
        given = next(self.given_marks, None)
        self.marks.append(torch.ones(shape, dtype=dtype, device=device) if given is None else given)
        return len(self.marks) - 1

    def event(
        self,
        what: str,
        why: str,
        run: Callable[..., list[Tensor]],
        leaves: Sequence[Lazy],
        scalars: list[Any],
        likes: Sequence[Tensor],
        marks: Sequence[int] = (),
    ) -> Iterator[Lazy]:
        found = []
        for x in leaves:
            if isinstance(x.source, Call):
                self.stored.append((x, self.temporary(x)))
                x = Lazy(self.stored[-1][1], 0, x)
            found.append(x)
        results = [self.temporary(x) for x in likes]
        self.log.append(Event(what, why, run, found, scalars, results, list(marks)))
        return (Lazy(i, 0, x) for i, x in zip(results, likes, strict=True))

    def as_it_is(self, tx: GradientTransformation, why: str, arguments: Any) -> tuple[Tree, Tree]:
        """A whole transform as an event: by the laws, its updates look like those given, and its state too."""
        flat, structure = flatten((tx, *arguments))
        (updates, like_updates), (state, like_state) = flatten(arguments[0]), flatten(arguments[1])
        is_leaf = [isinstance(x, Lazy) for x in flat]
        lazy = [isinstance(x, Lazy) for x in state]

        def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
            left, right = iter(leaves), iter(values)
            tx, updates, state, params, extra = unflatten(structure, [next(left if x else right) for x in is_leaf])
            updates, state = tx.run(updates, state, params, extra)
            new = flatten(state)[0]
            return [
                *flatten(updates)[0],
                *(x for x, leaf in zip(new, lazy, strict=True) if leaf),
                *(x for x, leaf in zip(new, lazy, strict=True) if not leaf),
            ]

        leaves = [x for x in flat if isinstance(x, Lazy)]
        scalars = [self.slot(x) for x in flat if not isinstance(x, Lazy)]
        marks = {i: self.mark(tuple(x.shape), x.dtype, x.device) for i, x in enumerate(state) if not lazy[i]}
        likes = [*updates, *(x for x, leaf in zip(state, lazy, strict=True) if leaf)]
        new = self.event(type(tx).__name__, why, run, leaves, scalars, likes, list(marks.values()))
        updates = unflatten(like_updates, [next(new) for _ in updates])
        state = [self.marks[marks[i]] if i in marks else next(new) for i in range(len(state))]
        return updates, unflatten(like_state, state)


def _dtype_of(f: Any, rows: list[tuple[Tensor, ...]], scalars: Scalars) -> torch.dtype:
    """The dtype of the parts of a reduction: that of its function on one element."""
    known: dict[Any, torch.dtype] = {}
    with disable_proxy_modes_tracing():
        values = {k: torch.ones_like(v) if isinstance(v, Tensor) else v for k, v in scalars.values.items()}
        for xs in rows:
            kinds = tuple(x.dtype for x in xs)
            if kinds not in known:
                ones = [torch.ones(1, dtype=d, device=xs[0].device) for d in kinds]
                known[kinds] = verbs.part_of(f, ones, Scalars(f, values)).dtype
    wide = None
    for dtype in known.values():
        wide = dtype if wide is None else torch.promote_types(wide, dtype)
    assert wide is not None
    return wide
