"""The recorder, which is asked instead of computing.

Elementwise work is only noted, whether a verb asks for it or an operator of torch. What makes a number of leaves is a
`Reduction`, and all else that needs values (a product of matrices, any operation that sees a whole leaf, a transform
that cannot be looked into) is an `Event`: both end a stage, and their results are inputs of the next one. A leafwise
function is looked into, and is one event if there is an event in it. Scalars are not leaves: they are tensors that a
tracer follows, so the scalar work of a step becomes one graph.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from optfx.compiler.record import operations
from optfx.compiler.record.along import Meeting, of_one, same, taken_along
from optfx.compiler.record.findings import Again, Known, Place, code_of
from optfx.compiler.record.inputs import FromCaller, Given, Input, Unfusable, index_of
from optfx.compiler.record.lazy import Form, Lazy, Named, Reduction
from optfx.compiler.record.operations import Operation, aten
from optfx.compiler.record.reading import Watching, code_in, depends_on_values
from optfx.compiler.record.reasons import is_ours, line, reason_of
from optfx.compiler.record.spreads import alike, correspond, has_rows, spread_of_result
from optfx.compiler.record.strides import check_view, note_strides
from optfx.compiler.record.tables import in_table
from optfx.compiler.record.tracer import Tracer
from optfx.core import GradientTransformation, when_due
from optfx.core.every import none_due
from optfx.tree import Tree, flatten, matrices, share, unflatten, verbs
from optfx.tree.dispatch import DispatchMode
from optfx.tree.sharded import spread_of
from optfx.tree.verbs import Scalars
from optfx.tree.words import difference

LITERALS = {"lift", "lift_fresh", "lift_fresh_copy"}  # what `torch.tensor` does with a new tensor


class Recorder(Meeting, DispatchMode):
    """Is asked by the verbs, and by torch, what to do, and notes it."""

    def __init__(
        self,
        inputs: Sequence[Tensor],
        of_state: dict[int, Input],
        known: Known,
        tracer: Tracer,
    ):
        DispatchMode.__init__(self)
        Meeting.__init__(self, inputs, of_state, known, tracer)
        self._whole: set[Any] = set()  # leafwise functions with an event in them, and the dimensions of their leaves
        self._place: Place = ()
        self._calls = 0  # of transforms, by the one at `_place`

    # ---- what the library asks -------------------------------------------------------------------

    def run_leaf(self, f: Any, xs: Sequence[Tensor], scalars: Scalars, outs: int, whole: bool) -> list[Tensor]:
        xs = [self.bring(x) for x in xs]
        if not any(isinstance(x, Lazy) for x in xs) or code_of(f) in self.known.opened:
            return verbs.run_leaf(f, tuple(xs), self.here(f, scalars), outs)
        leaves, named, as_pairs = [self.leaf(x) for x in xs], self.named(scalars), scalars.as_pairs
        _check_dtypes(tuple(x.dtype for x in leaves), as_pairs)
        if whole and alike(leaves) and (found := self._look_into(f, xs, scalars, outs)) is not None:
            return found
        if whole or (not as_pairs and any(x.is_complex() for x in xs)):

            def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
                now = Scalars(f, dict(zip(scalars.values, values, strict=True)), as_pairs)
                return verbs.run_anywhere(f, tuple(leaves), now, outs, whole)

            why = "it sees whole leaves" if whole else "it multiplies complex numbers"
            forms = [Form.of(x) for x in leaves[:outs]]
            return self.event(verbs.name_of(f), why, run, leaves, [v for _, v in named], forms, ordered=whole)
        parts = self.on_parts(leaves)
        new = self.call(f, parts, named, [Form.of(x) for x in parts[:outs]])
        return [self.laid(y, spread_of(x)) for y, x in zip(new, leaves, strict=False)]

    def _look_into(self, f: Any, xs: Sequence[Tensor], scalars: Scalars, outs: int) -> list[Tensor] | None:
        """Run a leafwise function operation by operation; None if that would take an event, or fails."""
        kind = code_of(f), tuple((x.ndim, 0 in x.shape, has_rows(x, 1)) for x in xs)
        if kind not in self._whole:
            with contextlib.suppress(Exception), self.looking():  # what is wrong with it, the event will say
                return verbs.run_leaf(f, tuple(xs), self.here(f, scalars), outs)
            self._whole.add(kind)
        return None

    def run_matrices(
        self, f: Any, rows: list[Sequence[Tensor]], scalars: Scalars, like: Sequence[int]
    ) -> list[list[Tensor]]:
        """All leaves of one shape as one event, so that their matrices stay together."""
        rows = [[*map(self.bring, row)] for row in rows]
        if not any(isinstance(x, Lazy) for row in rows for x in row) or code_of(f) in self.known.opened:
            return matrices.run_matrices(f, rows, self.here(f, scalars), like)
        leaves, named, width = [self.leaf(x) for row in rows for x in row], self.named(scalars), len(rows[0])
        _check_dtypes(tuple(x.dtype for x in rows[0]), False)

        def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
            now = Scalars(f, dict(zip(scalars.values, values, strict=True)))
            rows = [leaves[i : i + width] for i in range(0, len(leaves), width)]
            return [y for ys in matrices.run_anywhere(f, rows, now, like) for y in ys]

        forms = [Form.of(row[k]) for row in rows for k in like]
        why = "it multiplies matrices"
        new: list[Any] = self.event(verbs.name_of(f), why, run, leaves, [v for _, v in named], forms, ordered=True)
        given, size = [*map(self._stored, leaves)], len(like)
        of: list[Any] = [given[k // size * width + like[k % size]] for k in range(len(new))]
        self.pairs += [(y.source, x.source) for y, x in zip(new, of, strict=True)]
        return [new[i : i + size] for i in range(0, len(new), size)]

    def when_due(
        self, due: Tensor, f: Any, trees: Sequence[Tree], outs: int, numbers: dict[str, Any]
    ) -> tuple[Tree, ...]:
        """Periodic work as an event, which looks at the condition in each step."""
        flat, structure = flatten(tuple(trees))
        leaves, (first, like) = [self.leaf(x) for x in flat], flatten(tuple(trees[:outs]))
        named = self.named(Scalars(f, {"due": due, **numbers}))

        def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
            now = share.unflat(dict(zip([name for name, _ in named], values, strict=True)))
            due, again = now.pop("due"), lambda: when_due(due, f, *unflatten(structure, leaves), outs=outs, **now)
            return leaves[: len(first)] if none_due(due) else flatten(again())[0]

        forms, values = [Form.of(x) for x in leaves[: len(first)]], [v for _, v in named]
        how = {"numbers": [False] * len(forms), "ordered": True, "keeps": True}
        new = self.event(verbs.name_of(f), "it is done at times", run, leaves, values, forms, **how)
        return unflatten(like, new)

    def reduce(self, f: Any, combine: Any, rows: list[tuple[Tensor, ...]], scalars: Scalars) -> Tensor:
        rows = [tuple(map(self.bring, xs)) for xs in rows]
        if not any(isinstance(x, Lazy) for xs in rows for x in xs) or code_of(f) in self.known.opened:
            now = self.here(f, scalars)
            return verbs.of_all([verbs.part_of(f, xs, now) for xs in rows], combine, now)
        leaves = [tuple(self.on_parts([*map(self.leaf, xs)])) for xs in rows]
        named, width = self.named(scalars), len(rows[0])
        dtype, device = self._dtype_of(f, rows, scalars), rows[0][0].device
        if any(x.is_complex() for xs in rows for x in xs):

            def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
                now = Scalars(f, dict(zip(scalars.values, values, strict=True)))
                places = [tuple(leaves[i : i + width]) for i in range(0, len(leaves), width)]
                return [verbs.combined(f, combine, places, now)]

            every, form = [x for xs in leaves for x in xs], Form(torch.Size(()), dtype, device)
            why = "it reduces complex numbers"
            return self.event(verbs.name_of(f), why, run, every, [v for _, v in named], [form])[0]
        leaves = [tuple(self.meet([*map(self.full, xs)])) for xs in leaves]
        partial = self.partial(Form(torch.Size((2,)), dtype, device))
        self.log.append(Reduction(f, leaves, named, partial))
        numbers = self.partials[partial]
        return combine(numbers, **self.here(f, scalars).kind_of([numbers]).scalars)

    def update(
        self, tx: GradientTransformation, updates: Tree, state: Tree, params: Tree, extra: dict[str, Any]
    ) -> tuple[Tree, Tree]:
        outer, place = (self._place, self._calls + 1), (*self._place, self._calls)
        if place in self.known.opaque:
            self._calls += 1
            return self.opaque(tx, place, (updates, state, params, extra))
        self._place, self._calls = place, 0
        try:
            code = [*code_in(tx)]
            with Watching(_refuse_reading) if code else contextlib.nullcontext():
                new = tx.step(updates, state, params, **extra)
            for x in flatten(new)[0]:
                if isinstance(x, Tensor) and not isinstance(self.bring(x), Lazy) and x.ndim:
                    raise Unfusable("it makes a row of numbers")
            return new
        except Exception as error:
            if isinstance(error, (TypeError, ValueError)) and is_ours(error):
                raise  # as eager code would
            self.known.opaque[place] = reason_of(error)
            raise Again from error
        finally:
            self._place, self._calls = outer

    # ---- what torch asks -------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operations.name_of(func)
        if self._aside:
            return func(*args, **kwargs)
        if name in LITERALS and not any(isinstance(x, Lazy) for x in args):
            return self.tracer.call(func, args, kwargs)
        if func._schema.is_mutable:
            raise Unfusable(f"it writes in place, by {name}")
        if name == "is_nonzero" or depends_on_values(func, args):
            raise Unfusable("it reads the value of a tensor")
        flat, spec = pytree.tree_flatten((args, kwargs))
        flat = [self.bring(x) if isinstance(x, Tensor) else x for x in flat]
        args, kwargs = pytree.tree_unflatten(flat, spec)
        seeded = torch.Tag.nondeterministic_seeded in func.tags
        if not seeded and not any(isinstance(x, Lazy) for x in flat):
            return self.tracer.call(func, args, kwargs)
        if name in operations.POINTWISE and any(isinstance(x, Lazy) for x in flat):
            flat = [self._as_number(x, flat) for x in flat]
            args, kwargs = pytree.tree_unflatten(flat, spec)
        if any(isinstance(x, Lazy) and not x.ndim for x in flat):  # then what is kept for it has no dimensions either
            flat = [self.leaf(x) if id(x) in self._of_state and x.is_floating_point() else x for x in flat]
            args, kwargs = pytree.tree_unflatten(flat, spec)
        given = operations.named(func, args, kwargs)
        if (table := in_table(func, given, self.tracer)) is not None:
            return self.broadcast(*table)
        if (taken := operations.taken_of_all(func, given)) is not None and taken not in self.known.opened:
            return self.taken(taken, self.full(given["self"]), name == "mean", given.get("keepdim", False))
        if (rows := taken_along(func, given)) is not None and has_rows(given["self"], min(rows.dims)):
            if all(given["self"].shape[d] == 1 for d in rows.dims):
                return of_one(self.__torch_dispatch__, rows, given["self"], given.get("keepdim", False))
            return self.along(rows, given["self"], given.get("keepdim", False))
        found = operations.results_of(func, args, kwargs)
        results = list(found) if isinstance(found, (tuple, list)) else [found]
        leaves = {k: x for k, x in given.items() if isinstance(x, Lazy)}
        others = {k: x for k, x in given.items() if not isinstance(x, Lazy)}
        place = next((x.device for x in leaves.values()), torch.device("cpu"))
        forms = [Form(x.shape, x.dtype, given.get("device") or place, spread_of_result(x, flat)) for x in results]
        if any(form.dtype.is_complex and not form.shape for form in forms):
            raise Unfusable("it makes a complex number of a leaf")
        f = Operation(func, tuple(leaves), forms[0].dtype)
        whole, xs = isinstance(found, Tensor), [*leaves.values()]
        here = correspond(xs, forms[0])  # else elements may be on other processes
        check_view(name, xs, results)
        if here and whole and len(xs) == 1 and operations.reshapes(func, xs[0], results[0]):
            return self.reshaped(xs[0], forms[0])
        if here and name == "expand":
            return self.broadcast(same, xs, (), forms[0])
        pointwise = operations.treats_elements_alike(func, xs, [*others.values()], results)
        if here and pointwise and not seeded and f not in self.known.opened:
            return self.broadcast(f, xs, self._others(func, others), forms[0])
        is_leaf, is_scalar = [isinstance(x, Lazy) for x in flat], [isinstance(x, Tensor) for x in flat]

        def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
            left, right = iter(leaves), iter(values)
            new = [
                next(left) if leaf else next(right) if scalar else x
                for leaf, scalar, x in zip(is_leaf, is_scalar, fixed, strict=True)
            ]
            args, kwargs = pytree.tree_unflatten(new, spec)
            ys = func(*args, **kwargs)
            return list(ys) if isinstance(ys, (tuple, list)) else [ys]

        fixed = [None if isinstance(x, Tensor) else x for x in flat]
        scalars = [self.slot(x) for x in flat if isinstance(x, Tensor) and not isinstance(x, Lazy)]
        alone = torch.Tag.pointwise in func.tags
        reason = "no kernel does it for such leaves" if alone else "it sees whole leaves"
        reason = "it draws random numbers" if seeded else reason
        whole = [x for x in flat if isinstance(x, Lazy)]
        new = self.event(name, reason + line(Recorder.update.__code__), run, whole, scalars, forms, ordered=seeded)
        note_strides(new, results)
        return type(found)(new) if isinstance(found, (tuple, list)) else new[0]

    def _as_number(self, x: Any, beside: list[Any]) -> Any:
        """The number in a tensor of one element, such as a sum that kept its dimensions, where that changes nothing."""
        if not isinstance(x, Tensor) or isinstance(x, Lazy) or not x.ndim or x.numel() != 1:
            return x
        same = any(isinstance(y, Lazy) and y.ndim >= x.ndim and x.dtype in (y.dtype, torch.bool) for y in beside)
        return self.tracer.call(aten.view.default, (x, []), {}) if same else x

    def _others(self, func: Any, others: dict[str, Any]) -> Named:
        """The arguments of an elementwise operation beside its leaves. Numbers have slots where torch takes tensors."""
        takes_tensor = {a.name for a in func._schema.arguments if str(a.type) in ("Tensor", "Optional[Tensor]")}
        return tuple((k, self.slot(x) if k in takes_tensor else x) for k, x in others.items())

    # ---- what cannot be looked into ----------------------------------------------------------------

    def opaque(self, tx: GradientTransformation, place: Place, arguments: Any) -> tuple[Tree, Tree]:
        """A whole transform as an event. By the laws its updates and its state look like those that it is given."""
        flat, structure = flatten((tx, *arguments))
        flat = [self.bring(x) if issubclass(type(x), Tensor) else x for x in flat]  # `Given` refuses isinstance
        (updates, like_updates), (state, like_state) = flatten(arguments[0]), flatten(arguments[1])
        is_leaf = [type(x) is Lazy for x in flat]

        def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
            left, right = iter(leaves), iter(values)
            tx, updates, state, params, extra = unflatten(structure, [next(left if x else right) for x in is_leaf])
            new_updates, new_state = tx.run(updates, state, params, extra)
            for what, old, new in (("updates", updates, new_updates), ("state", state, new_state)):
                if words := difference(old, new):
                    raise ValueError(f"fuse: {type(tx).__name__}: the {what} after the update {words}")
            return [*flatten(new_updates)[0], *flatten(new_state)[0]]

        leaves: list[Any] = [x for x, leaf in zip(flat, is_leaf, strict=True) if leaf]
        others = [x for x, leaf in zip(flat, is_leaf, strict=True) if not leaf]
        scalars = [FromCaller(index_of(x)) if type(x) is Given else self.slot(x) for x in others]
        given = [*updates, *state]
        forms = self.known.results.get(place) or [Form.of(x) for x in given]
        numbers = [not isinstance(x, Lazy) for x in given]
        why = self.known.opaque[place]
        name = type(tx).__name__
        new = iter(self.event(name, why, run, leaves, scalars, forms, numbers=numbers, ordered=True, place=place))
        updates = unflatten(like_updates, [next(new) for _ in updates])
        return updates, unflatten(like_state, [next(new) for _ in state])

    def _dtype_of(self, f: Any, rows: list[tuple[Tensor, ...]], scalars: Scalars) -> torch.dtype:
        """The dtype of the numbers of a reduction: that of its function on one element."""
        known: dict[Any, torch.dtype] = {}
        with self.aside():
            values = {k: torch.ones_like(v) if isinstance(v, Tensor) else v for k, v in scalars.values.items()}
            for xs in rows:
                kinds = tuple(x.dtype for x in xs)
                if kinds not in known:
                    ones = [torch.ones(1, dtype=d, device=xs[0].device) for d in kinds]
                    known[kinds] = verbs.part_of(f, ones, Scalars(f, values)).dtype
            return functools.reduce(torch.promote_types, known.values())


def _refuse_reading(x: Tensor) -> NoReturn:
    raise Unfusable("it reads the value of a tensor")


@functools.cache  # torch 2.13 traces torch.promote_types, which would take most of the time of a recording
def _check_dtypes(dtypes: tuple[torch.dtype, ...], as_pairs: bool) -> None:
    """Refuse leaves that an elementwise function could not take."""
    verbs.refuse_integers(dtypes)
    verbs.sees_pairs(dtypes, verbs.computation_dtype(dtypes), as_pairs)
