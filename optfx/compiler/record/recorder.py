"""The recorder, which the verbs ask instead of computing.

Elementwise calls are only noted. What looks across leaves is a `Reduction`, and what cannot be looked into (a leafwise
function, a transform that touches leaves by itself) is an `Event`: both end a stage, and their results are inputs of
the next one. Scalars are not leaves: they are tensors that a tracer follows, so the scalar work of a step becomes one
graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from optfx.compiler.record.inputs import Input, Unfusable
from optfx.compiler.record.lazy import Blank, Call, Event, Lazy, Named, Partial, Reduction, Slot, Write
from optfx.core import GradientTransformation
from optfx.tree import Tree, flatten, unflatten, verbs
from optfx.tree.verbs import Scalars

FOLDED = (0.0, 1.0)  # floats that are part of a program, so that the compiler can leave out what they do

# The message of torch 2.13 for `.item()` or a branch on a traced tensor starts "It appears that you're trying to get
# value out of a tracing tensor with aten._local_scalar_dense.default"; its type is a plain RuntimeError.
READS_A_VALUE = "tracing tensor"


class Filled(NamedTuple):
    """A traced scalar, and the input that scalar work writes it to."""

    scalar: Tensor
    to: Input


class Recorder:
    """What was asked of the verbs during one `update`.

    Args:
        inputs: the leaves that the step is given.
        known: the input that a traced scalar is, by the scalar's id.
        partials: a traced tensor for each partial, where it is known already how many there are.
    """

    def __init__(self, inputs: Sequence[Tensor], known: dict[int, Input], partials: Sequence[Tensor]):
        self.inputs: list[Tensor | Blank] = [*inputs]  # those given, then those that stand between stages
        self.known = known
        self.partials: list[Tensor] = []
        self.slots: list[float | Tensor] = []
        self.log: list[Reduction | Event] = []
        self.stored: list[Write] = []  # leaves that an event reads
        self.filled: list[Filled] = []  # traced scalars that are used as leaves
        self.as_leaves: set[Input] = set()  # inputs that are scalars, and were used as leaves
        self._given = partials

    # ---- what the library asks -----------------------------------------------------------------

    def run_leaf(self, f: Any, xs: Sequence[Tensor], scalars: Scalars, outs: int, whole: bool) -> list[Tensor]:
        if not any(isinstance(x, Lazy) for x in xs):
            return verbs.run_leaf(f, tuple(xs), scalars, outs)  # a count in a tree of state
        leaves, named, as_pairs = [self.leaf(x) for x in xs], self.named(scalars), scalars.as_pairs
        _check_dtypes(tuple(x.dtype for x in leaves), as_pairs)
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
        dtype, device = _dtype_of(f, rows, scalars), rows[0][0].device
        if any(x.is_complex() for xs in rows for x in xs):

            def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
                now = Scalars(f, dict(zip(scalars.values, values, strict=True)))
                places = [tuple(leaves[i : i + width]) for i in range(0, len(leaves), width)]
                return [verbs.combined(f, combine, places, now)]

            every, partial = [x for xs in leaves for x in xs], self.partial((), dtype, device)
            why = "it reduces complex numbers"
            self.event(verbs.name_of(f), why, run, every, [v for _, v in named], [], [partial])
            return self.partials[partial]
        partial = self.partial((2,), dtype, device)
        self.log.append(Reduction(f, leaves, named, partial))
        numbers = self.partials[partial]
        return combine(numbers, **scalars.kind_of([numbers]).scalars)

    def update(
        self,
        tx: GradientTransformation,
        updates: Tree,
        state: Tree,
        params: Tree,
        extra: dict[str, Any],
    ) -> tuple[Tree, Tree]:
        notes = (self.log, self.partials, self.stored, self.filled, self.slots, self.inputs)
        before = [len(x) for x in notes]
        try:
            return tx.step(updates, state, params, **extra)
        except Unfusable as error:
            why = str(error)
        except RuntimeError as error:
            if READS_A_VALUE not in str(error):
                raise
            why = "it reads the value of a tensor"
        for noted, length in zip(notes, before, strict=True):
            del noted[length:]
        return self.opaque(tx, why, (updates, state, params, extra))

    # ---- how it is written down ------------------------------------------------------------------

    def leaf(self, x: Tensor) -> Lazy:
        """`x` as a leaf. A traced scalar becomes one that scalar work fills in."""
        if isinstance(x, Lazy):
            return x
        if id(x) in self.known:
            self.as_leaves.add(self.known[id(x)])
            return Lazy(self.known[id(x)], 0, x)
        self.filled.append(Filled(x, self.between(x)))
        return Lazy(self.filled[-1].to, 0, x)

    def between(self, like: Tensor) -> Input:
        """A new input for a leaf that stands between two stages."""
        self.inputs.append(Blank(like.shape, like.dtype, like.device))
        return Input(len(self.inputs) - 1)

    def named(self, scalars: Scalars) -> Named:
        return tuple((name, self.slot(v)) for name, v in scalars.values.items())

    def slot(self, value: Any) -> Any:
        """The slot of a scalar argument, or the argument itself where it is part of the program."""
        if isinstance(value, Lazy):
            raise Unfusable("a leaf in the place of a scalar")
        if not (isinstance(value, Tensor) or (type(value) is float and value not in FOLDED)):
            return value
        for i, known in enumerate(self.slots):
            if known is value or (type(known) is type(value) is float and known == value):
                return Slot(i)
        self.slots.append(value)
        return Slot(len(self.slots) - 1)

    def partial(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Partial:
        number, new = len(self.partials), torch.ones(shape, dtype=dtype, device=device)
        given = self._given[number] if number < len(self._given) else new
        # what a transform asks before it turns out to be opaque is forgotten, so the number may belong to another
        fits = (given.shape, given.dtype, given.device) == (new.shape, new.dtype, new.device)
        self.partials.append(given if fits else new)
        return Partial(number)

    def event(
        self,
        what: str,
        why: str,
        run: Callable[..., list[Tensor]],
        leaves: Sequence[Lazy],
        scalars: list[Any],
        likes: Sequence[Tensor],
        partials: Sequence[Partial] = (),
    ) -> Iterator[Lazy]:
        found = []
        for x in leaves:
            if isinstance(x.source, Call):
                self.stored.append(Write(x, self.between(x)))
                x = Lazy(self.stored[-1].to, 0, x)
            found.append(x)
        results = [self.between(x) for x in likes]
        self.log.append(Event(what, why, run, found, scalars, results, list(partials)))
        return (Lazy(i, 0, x) for i, x in zip(results, likes, strict=True))

    def opaque(self, tx: GradientTransformation, why: str, arguments: Any) -> tuple[Tree, Tree]:
        """A whole transform as an event. By the laws its updates and its state look like those that it is given."""
        flat, structure = flatten((tx, *arguments))
        (updates, like_updates), (state, like_state) = flatten(arguments[0]), flatten(arguments[1])
        is_leaf, in_state = ([isinstance(x, Lazy) for x in xs] for xs in (flat, state))

        def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
            left, right = iter(leaves), iter(values)
            tx, updates, state, params, extra = unflatten(structure, [next(left if x else right) for x in is_leaf])
            updates, state = tx.run(updates, state, params, extra)
            new = list(zip(in_state, flatten(state)[0], strict=True))
            return [*flatten(updates)[0], *(x for leaf, x in new if leaf), *(x for leaf, x in new if not leaf)]

        leaves = [x for x in flat if isinstance(x, Lazy)]
        scalars = [self.slot(x) for x in flat if not isinstance(x, Lazy)]
        partials = {i: self.partial(tuple(x.shape), x.dtype, x.device) for i, x in enumerate(state) if not in_state[i]}
        likes = [*updates, *(x for x in state if isinstance(x, Lazy))]
        new = self.event(type(tx).__name__, why, run, leaves, scalars, likes, list(partials.values()))
        updates = unflatten(like_updates, [next(new) for _ in updates])
        state = [self.partials[partials[i]] if i in partials else next(new) for i in range(len(state))]
        return updates, unflatten(like_state, state)


@functools.cache  # torch 2.13 traces torch.promote_types, which would take most of the time of a recording
def _check_dtypes(dtypes: tuple[torch.dtype, ...], as_pairs: bool) -> None:
    """Refuse leaves that an elementwise function could not take."""
    verbs.refuse_integers(dtypes)
    verbs.sees_pairs(dtypes, verbs.computation_dtype(dtypes), as_pairs)


def _dtype_of(f: Any, rows: list[tuple[Tensor, ...]], scalars: Scalars) -> torch.dtype:
    """The dtype of the numbers of a reduction: that of its function on one element."""
    known: dict[Any, torch.dtype] = {}
    with disable_proxy_modes_tracing():
        values = {k: torch.ones_like(v) if isinstance(v, Tensor) else v for k, v in scalars.values.items()}
        for xs in rows:
            kinds = tuple(x.dtype for x in xs)
            if kinds not in known:
                ones = [torch.ones(1, dtype=d, device=xs[0].device) for d in kinds]
                known[kinds] = verbs.part_of(f, ones, Scalars(f, values)).dtype
        return functools.reduce(torch.promote_types, known.values())
