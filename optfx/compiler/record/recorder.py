"""The recorder, which is asked instead of computing.

Elementwise work is only noted, whether a verb asks for it or an operator of torch. What looks across leaves is a
`Reduction`, and all else that needs values (a leafwise function, an operation that sees a whole leaf, a transform that
cannot be looked into) is an `Event`: both end a stage, and their results are inputs of the next one. Scalars are not
leaves: they are tensors that a tracer follows, so the scalar work of a step becomes one graph.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from optfx.compiler.record import operations
from optfx.compiler.record.findings import Again, Known, Place, code_of
from optfx.compiler.record.inputs import FromCaller, Given, Input, Unfusable, index_of
from optfx.compiler.record.lazy import Call, Event, Form, Lazy, Named, Partial, Reduction, Slot, Write
from optfx.compiler.record.operations import Operation
from optfx.core import GradientTransformation
from optfx.tree import Tree, flatten, unflatten, verbs
from optfx.tree.verbs import Scalars
from optfx.tree.words import difference

FOLDED = (0.0, 1.0)  # floats that are part of a program, so that the compiler can leave out what they do

# The message of torch 2.13 for `.item()` or a branch on a traced tensor starts "It appears that you're trying to get
# value out of a tracing tensor with aten._local_scalar_dense.default"; its type is a plain RuntimeError.
READS_A_VALUE = "tracing tensor"
LITERALS = {"lift", "lift_fresh", "lift_fresh_copy"}  # what `torch.tensor` does with a new tensor
COMPILER = str(Path(__file__).parents[1])
OURS = (str(Path(__file__).parents[2]), str(Path(torch.__file__).parent))  # folders whose code is not the user's


class Filled(NamedTuple):
    """A traced scalar, and the input that scalar work writes it to."""

    scalar: Tensor
    to: Input


class Recorder(TorchDispatchMode):
    """What was asked of the verbs, and of torch, during one `update`.

    Args:
        inputs: the leaves that the step is given.
        scalars: the traced tensors that the step is given.
        of_state: the input that a traced scalar is, by the scalar's id.
        outside: the traced scalar for a () tensor from outside, by the id of that.
        partials: the traced tensor of each partial that is known.
        known: what earlier runs have found out; this one adds to it.
    """

    def __init__(
        self,
        inputs: Sequence[Tensor],
        scalars: Sequence[Tensor],
        of_state: dict[int, Input],
        outside: dict[int, Tensor],
        partials: Sequence[Tensor],
        known: Known,
    ):
        super().__init__()
        self.inputs: list[Tensor | Form] = [*inputs]  # those given, then those that are met
        self.partials: list[Tensor] = []
        self.slots: list[float | Tensor] = []
        self.log: list[Reduction | Event] = []
        self.stored: list[Write] = []  # leaves that an event reads
        self.filled: list[Filled] = []  # traced scalars that are used as leaves
        self.as_leaves: set[Input] = set()  # inputs that are scalars, and were used as leaves
        self.outside: list[tuple[Input, Tensor]] = []  # leaves that no step is given
        self.known = known
        self._of_state, self._given = of_state, partials
        self._brought: dict[int, Tensor] = dict(outside)  # tensors from outside, as the step has them
        self._traced: dict[int, Tensor] = {id(x): x for x in (*scalars, *partials)}  # all tensors that are followed
        self._stores: dict[tuple[int, int], Lazy] = {}
        self._own = {_storage(x) for x in inputs}
        self._place: Place = ()
        self._calls = 0  # of transforms, by the one at `_place`
        self._aside = False

    # ---- what the library asks -------------------------------------------------------------------

    def run_leaf(self, f: Any, xs: Sequence[Tensor], scalars: Scalars, outs: int, whole: bool) -> list[Tensor]:
        xs = [self.bring(x) for x in xs]
        if not any(isinstance(x, Lazy) for x in xs) or code_of(f) in self.known.opened:
            return verbs.run_leaf(f, tuple(xs), self.here(f, scalars), outs)
        leaves, named, as_pairs = [self.leaf(x) for x in xs], self.named(scalars), scalars.as_pairs
        _check_dtypes(tuple(x.dtype for x in leaves), as_pairs)
        if whole or (not as_pairs and any(x.is_complex() for x in xs)):

            def run(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
                now = Scalars(f, dict(zip(scalars.values, values, strict=True)), as_pairs)
                return verbs.run_leaf(f, tuple(leaves), now, outs)

            why = "it sees whole leaves" if whole else "it multiplies complex numbers"
            forms = [Form.of(x) for x in leaves[:outs]]
            return self.event(verbs.name_of(f), why, run, leaves, [v for _, v in named], forms, ordered=whole)
        call = Call(f, tuple(leaves), named, outs)
        return [Lazy(call, k, Form.of(x)) for k, x in enumerate(leaves[:outs])]

    def reduce(self, f: Any, combine: Any, rows: list[tuple[Tensor, ...]], scalars: Scalars) -> Tensor:
        rows = [tuple(map(self.bring, xs)) for xs in rows]
        if not any(isinstance(x, Lazy) for xs in rows for x in xs) or code_of(f) in self.known.opened:
            return verbs.combined(f, combine, rows, self.here(f, scalars))
        leaves = [tuple(map(self.leaf, xs)) for xs in rows]
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
            return tx.step(updates, state, params, **extra)
        except Exception as error:
            if isinstance(error, (TypeError, ValueError)) and _is_ours(error):
                raise  # as eager code would
            self.known.opaque[place] = _why(error)
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
            return self.follow(func(*args, **kwargs))
        if func._schema.is_mutable:
            raise Unfusable(f"it writes in place, by {name}")
        flat, spec = pytree.tree_flatten((args, kwargs))
        flat = [self.bring(x) if isinstance(x, Tensor) else x for x in flat]
        args, kwargs = pytree.tree_unflatten(flat, spec)
        seeded = torch.Tag.nondeterministic_seeded in func.tags
        if not seeded and not any(isinstance(x, Lazy) for x in flat):
            return self.follow(func(*args, **kwargs))
        if any(isinstance(x, Lazy) and not x.ndim for x in flat):  # then what is kept for it has no dimensions either
            flat = [self.leaf(x) if id(x) in self._of_state and x.is_floating_point() else x for x in flat]
            args, kwargs = pytree.tree_unflatten(flat, spec)
        found = operations.results_of(func, args, kwargs)
        results = list(found) if isinstance(found, (tuple, list)) else [found]
        given = operations.named(func, args, kwargs)
        leaves = {k: x for k, x in given.items() if isinstance(x, Lazy)}
        others = {k: x for k, x in given.items() if not isinstance(x, Lazy)}
        place = next((x.device for x in leaves.values()), torch.device("cpu"))
        forms = [Form(x.shape, x.dtype, given.get("device") or place) for x in results]
        f = Operation(func, tuple(leaves), forms[0].dtype)
        alike = operations.treats_elements_alike(func, [*leaves.values()], [*others.values()], results)
        if alike and not seeded and f not in self.known.opened:
            return Lazy(Call(f, (*leaves.values(),), self._others(func, others), 1), 0, forms[0])
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
        why = "it draws random numbers" if seeded else "it is no verb"
        whole = [x for x in flat if isinstance(x, Lazy)]
        new = self.event(name, why + _line(), run, whole, scalars, forms, ordered=seeded)
        return type(found)(new) if isinstance(found, (tuple, list)) else new[0]

    def _others(self, func: Any, others: dict[str, Any]) -> Named:
        """The arguments of an elementwise operation beside its leaves. Numbers have slots where torch takes tensors."""
        takes_tensor = {a.name for a in func._schema.arguments if str(a.type) in ("Tensor", "Optional[Tensor]")}
        return tuple((k, self.slot(x) if k in takes_tensor else x) for k, x in others.items())

    def follow(self, found: Any) -> Any:
        """Note the tensors that an operation on traced ones gave."""
        for x in pytree.tree_leaves(found):
            if isinstance(x, Tensor):
                self._traced[id(x)] = x
        return found

    def bring(self, x: Tensor) -> Tensor:
        """A tensor as the step has it. One from outside is an input, whose value is read in each step."""
        if isinstance(x, Lazy) or id(x) in self._traced:
            return x
        if id(x) in self._brought:
            return self._brought[id(x)]
        if type(x) not in (Tensor, torch.nn.Parameter) or x.layout != torch.strided:
            raise Unfusable(f"it uses a {type(x).__name__} from outside")
        if _storage(x) in self._own:
            raise Unfusable("it uses what the step is given from outside, too")
        if self.known.complete and id(x) not in self.known.outside:
            raise Unfusable("it makes a tensor of something that is none")
        self.known.outside[id(x)] = x
        brought = x
        if x.ndim:
            self.outside.append((self.between(Form.of(x)), x))
            brought = Lazy(self.outside[-1][0], 0, Form.of(x))
        else:  # in the next run it is traced
            self._traced[id(x)] = x
        self._brought[id(x)] = brought
        return brought

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Inside the `with`, torch computes as always."""
        before, self._aside = self._aside, True
        try:
            with disable_proxy_modes_tracing():
                yield
        finally:
            self._aside = before

    # ---- how it is written down ------------------------------------------------------------------

    def leaf(self, x: Tensor) -> Lazy:
        """`x` as a leaf. A traced scalar becomes one that scalar work fills in."""
        x = self.bring(x)
        if isinstance(x, Lazy):
            return x
        if id(x) in self._of_state:
            self.as_leaves.add(self._of_state[id(x)])
            return Lazy(self._of_state[id(x)], 0, Form.of(x))
        if x.ndim:
            (found,) = self.event("copy", "it is made of numbers", _given, [], [self.slot(x)], [Form.of(x)])
            return found  # type: ignore[return-value]
        self.filled.append(Filled(x, self.between(Form.of(x))))
        return Lazy(self.filled[-1].to, 0, Form.of(x))

    def between(self, form: Form) -> Input:
        """A new input for a leaf that stands between two stages."""
        self.inputs.append(form)
        return Input(len(self.inputs) - 1)

    def here(self, f: Any, scalars: Scalars) -> Scalars:
        """Scalars as the step has them."""
        values = {k: self.bring(v) if isinstance(v, Tensor) else v for k, v in scalars.values.items()}
        same = all(v is scalars.values[k] for k, v in values.items())
        return scalars if same else Scalars(f, values, scalars.as_pairs, scalars.as_tensors)

    def named(self, scalars: Scalars) -> Named:
        return tuple((name, self.slot(v)) for name, v in scalars.values.items())

    def slot(self, value: Any) -> Any:
        """The slot of a scalar argument, or the argument itself where it is part of the program."""
        if not (isinstance(value, Tensor) or (type(value) is float and value not in FOLDED)):
            return value
        if isinstance(value, Tensor):
            value = self.bring(value)
            if isinstance(value, Lazy):
                value = self.number(value)
        for i, known in enumerate(self.slots):
            if known is value or (type(known) is type(value) is float and known == value):
                return Slot(i)
        self.slots.append(value)
        return Slot(len(self.slots) - 1)

    def number(self, x: Lazy) -> Tensor:
        """A leaf as a scalar."""
        (found,) = self.event(
            "copy", "a leaf is used as a number", lambda xs, _: [xs[0].clone()], [x], [], [Form.of(x)]
        )
        return found

    def partial(self, form: Form) -> Partial:
        number = len(self.partials)
        if number < len(self._given):
            self.partials.append(self._given[number])
        else:
            self.partials.append(torch.ones(form.shape, dtype=form.dtype, device=form.device))
            self._traced[id(self.partials[-1])] = self.partials[-1]
        return Partial(number)

    def event(
        self,
        what: str,
        why: str,
        run: Callable[..., list[Tensor]],
        leaves: Sequence[Lazy],
        scalars: list[Any],
        forms: Sequence[Form],
        *,
        numbers: Sequence[bool] | None = None,
        ordered: bool = False,
        place: Place | None = None,
    ) -> list[Tensor]:
        """Note an event. Its results are leaves, or numbers for scalar work: those without dimensions, if not said."""
        found = [self._stored(x) for x in leaves]
        numbers = [not f.shape for f in forms] if numbers is None else numbers
        to = [self.partial(f) if number else self.between(f) for f, number in zip(forms, numbers, strict=True)]
        self.log.append(Event(what, why, run, found, scalars, to, list(forms), list(numbers), ordered, place))
        return [
            self.partials[k] if number else Lazy(k, 0, form)  # type: ignore[arg-type]
            for k, number, form in zip(to, numbers, forms, strict=True)
        ]

    def _stored(self, x: Lazy) -> Lazy:
        """A leaf that exists when an event reads it."""
        if not isinstance(x.source, Call):
            return x
        key = id(x.source), x.k
        if key not in self._stores:
            self.stored.append(Write(x, self.between(Form.of(x))))
            self._stores[key] = Lazy(self.stored[-1].to, 0, Form.of(x))
        return self._stores[key]

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


@functools.cache  # torch 2.13 traces torch.promote_types, which would take most of the time of a recording
def _check_dtypes(dtypes: tuple[torch.dtype, ...], as_pairs: bool) -> None:
    """Refuse leaves that an elementwise function could not take."""
    verbs.refuse_integers(dtypes)
    verbs.sees_pairs(dtypes, verbs.computation_dtype(dtypes), as_pairs)


def _given(leaves: list[Tensor], values: list[Any]) -> list[Tensor]:
    return [x.clone() for x in values]


def _storage(x: Tensor) -> Any:
    """What is the same for two tensors that share memory."""
    return x.untyped_storage()._cdata if type(x) in (Tensor, torch.nn.Parameter) else id(x)


# ---- words ---------------------------------------------------------------------------------------


def _why(error: Exception) -> str:
    """Why a transform runs as it is, with the line that says so."""
    words = str(error)
    if READS_A_VALUE in words:
        words = "it reads the value of a tensor"
    elif not isinstance(error, Unfusable):
        words = f"{type(error).__name__}: {words.splitlines()[0] if words else ''}"
    place, at = "", error.__traceback__
    while at is not None:
        place = _user_line(at.tb_frame.f_code.co_filename, at.tb_lineno) or place
        at = at.tb_next
    return words + place


def _is_ours(error: Exception) -> bool:
    """Whether the library has raised an error, to say what is wrong."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    file = "" if at is None else at.tb_frame.f_code.co_filename
    return file.startswith(OURS[0]) and not file.startswith(COMPILER)


def _line() -> str:
    """The line of the user's code that is running."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not Recorder.update.__code__:
        if place := _user_line(frame.f_code.co_filename, frame.f_lineno):
            return place
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _user_line(file: str, line: int) -> str:
    return "" if file.startswith(OURS) or file.startswith("<") else f" ({Path(file).name}:{line})"
