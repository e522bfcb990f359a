"""What is written down of a step: its leaves, its scalars, and the work in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.compiler.record.findings import Known, Place
from optfx.compiler.record.inputs import Input, Unfusable
from optfx.compiler.record.lazy import Call, Event, Form, Lazy, Named, Partial, Reduction, Slot, Write, storage_of
from optfx.compiler.record.tracer import Tracer
from optfx.tree import sharded
from optfx.tree.sharded import Spread, spread_of
from optfx.tree.verbs import Scalars

FOLDED = (0.0, 1.0)  # floats that are part of a program, so that the compiler can leave out what they do


class Filled(NamedTuple):
    """A traced scalar, and the input that scalar work writes it to."""

    scalar: Tensor
    to: Input


class Notes:
    """What was asked of the verbs, and of torch, during one `update`.

    Args:
        inputs: the leaves that the step is given.
        of_state: the input that a scalar is, by the scalar's id.
        known: what earlier runs have found out; this one adds to it.
        tracer: follows the scalars.
    """

    def __init__(
        self,
        inputs: Sequence[Tensor],
        of_state: dict[int, Input],
        known: Known,
        tracer: Tracer,
    ):
        self.inputs = [*map(Form.of, inputs)]  # those given, then those that are met
        self.partials: list[Tensor] = []
        self.slots: list[float | Tensor] = []
        self.log: list[Reduction | Event] = []
        self.stored: list[Write] = []  # leaves that an event reads, or a kernel of a later stage
        self.filled: list[Filled] = []  # traced scalars that are used as leaves
        self.as_leaves: set[Input] = set()  # inputs that are scalars, and were used as leaves
        self.outside: list[tuple[Input, Tensor]] = []  # leaves that no step is given
        self.numbers: list[tuple[Tensor, Tensor]] = []  # scalars that no step is given: as they are followed, and they
        self.known, self.tracer = known, tracer
        self._of_state = of_state
        self._brought: dict[int, Tensor] = {}  # tensors from outside, as the step has them
        self._aside = self._looking = False
        self._stores: dict[tuple[Any, int], Lazy] = {}
        self._own = {storage_of(x) for x in inputs}

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Inside the `with`, torch computes as always."""
        before, self._aside = self._aside, True
        try:
            yield
        finally:
            self._aside = before

    def bring(self, x: Tensor) -> Tensor:
        """A tensor as the step has it. One from outside is an input, whose value is read in each step."""
        if isinstance(x, Lazy) or self.tracer.knows(x):
            return x
        if id(x) in self._brought:
            return self._brought[id(x)]
        if type(x) not in (Tensor, torch.nn.Parameter) or x.layout != torch.strided:
            raise Unfusable(f"it uses a {type(x).__name__} from outside")
        if storage_of(x) in self._own:
            raise Unfusable("it uses what the step is given from outside, too")
        if self.known.complete and id(x) not in self.known.outside:
            raise Unfusable("it makes a tensor of something that is none")
        self.known.outside[id(x)] = x
        if x.ndim:
            self.outside.append((self.between(Form.of(x)), x))
            brought: Tensor = Lazy(self.outside[-1][0], 0, Form.of(x))
        else:
            with self.aside():
                brought = self.tracer.follow(x.detach().clone())
            self.numbers.append((brought, x))
        self._brought[id(x)] = brought
        return brought

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Inside the `with`, an event is an error, and after any error what was written down is struck out. What was
        brought from outside stays an input."""
        written: list[list[Any]] = [self.log, self.partials, self.slots, self.filled, self.stored]
        before, lengths = self._looking, [*map(len, written)]
        self._looking = True
        try:
            yield
        except BaseException:
            for entries, n in zip(written, lengths, strict=True):
                del entries[n:]
            self._stores = dict(list(self._stores.items())[: len(self.stored)])
            raise
        finally:
            self._looking = before

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
            raise Unfusable("it makes a row of numbers")
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
            if isinstance(value, Lazy) and not value.ndim:
                value = self.number(value)
            if value.ndim:
                raise Unfusable("it makes a row of numbers")
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
        with self.aside():
            ones = torch.ones(form.shape, dtype=form.dtype, device=form.device)
        self.partials.append(self.tracer.follow(ones))
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
        keeps: bool = False,
    ) -> list[Tensor]:
        """Note an event. Its results are leaves, or numbers for scalar work: those without dimensions, if not said."""
        if self._looking:
            raise Unfusable(why)
        found = [self._stored(x) for x in leaves]
        numbers = [not f.shape for f in forms] if numbers is None else numbers
        to = [self.partial(f) if number else self.between(f) for f, number in zip(forms, numbers, strict=True)]
        self.log.append(Event(what, why, run, found, scalars, to, list(forms), list(numbers), ordered, place, keeps))
        return [
            self.partials[k] if number else Lazy(k, 0, form)  # type: ignore[arg-type]
            for k, number, form in zip(to, numbers, forms, strict=True)
        ]

    def laid(self, x: Tensor, spread: Spread | None) -> Tensor:
        """A leaf, spread over processes in a certain way."""
        if spread_of(x) == spread:
            return x
        leaf, why = self.leaf(x), "a leaf is spread in another way"
        form = Form(leaf.shape, leaf.dtype, leaf.device, spread)
        return self.event("redistribute", why, lambda xs, _: [sharded.laid(xs[0], spread)], [leaf], [], [form])[0]

    def on_parts(self, xs: list[Lazy]) -> list[Lazy]:
        """Corresponding leaves, spread like the first of them, so that their parts correspond."""
        sharded.check_meshes(xs)
        return [self.leaf(self.laid(x, spread_of(xs[0]))) for x in xs]

    def _stored(self, x: Lazy) -> Lazy:
        """A leaf that exists when an event reads it."""
        return self.copied(x) if isinstance(x.source, Call) else x

    def copied(self, x: Lazy) -> Lazy:
        """What a leaf is, in memory of its own."""
        key = x.source, x.k
        if key not in self._stores:
            self.stored.append(Write(x, self.between(Form.of(x))))
            self._stores[key] = Lazy(self.stored[-1].to, 0, Form.of(x))
            self._stores[key].stands_for = x
        return self._stores[key]
