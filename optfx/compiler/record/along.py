"""Numbers of rows, columns and blocks, and leaves of other shapes that these are broadcast to.

What makes a number of each row of a leaf ends a stage, as what makes one of the whole leaf does. The result is a *slim*
leaf: an input that a kernel of a later stage reads. What is made of slim leaves alone is computed once, in loops of its
own, however large the leaves are that it meets later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from optfx.compiler.record.findings import code_of
from optfx.compiler.record.inputs import Input
from optfx.compiler.record.lazy import Call, Form, Lazy, Named, Reduction
from optfx.compiler.record.notes import Notes
from optfx.compiler.record.operations import Taken, aten, name_of, taken_of_all
from optfx.compiler.record.spaces import Spaces, cut, padded
from optfx.tree import nibbles
from optfx.tree.algebra import select
from optfx.tree.sharded import Spread, local_shape, spread_of

OPERATIONS = {
    "sum": aten.sum.dim_IntList,
    "mean": aten.mean.dim,
    "any": aten.any.dims,
    "all": aten.all.dims,
    "amax": aten.amax.default,
    "amin": aten.amin.default,
    "linalg_vector_norm": aten.linalg_vector_norm.default,
}
"""Operations that kernels take along dimensions, each as the one that is given these, and whether they stay."""


@dataclasses.dataclass(frozen=True)
class Along:
    """An operation that makes one number of each row, column or block, as the function of a call. The dimensions that
    it takes together stay, with size 1."""

    f: OpOverload
    order: float | None  # of a norm
    dtype: torch.dtype  # of its result
    dims: tuple[int, ...]
    ndim: int

    @property
    def __name__(self) -> str:
        name = self.f.overloadpacket.__name__
        ends: dict[tuple[int, ...], str] = {(self.ndim - 1,): f"row {name}", (0,): f"column {name}"}
        return ends.get(self.dims, f"slice {name}")

    def kept(self, shape: Sequence[int]) -> torch.Size:
        """The shape of its result."""
        return torch.Size([1 if d in self.dims else n for d, n in enumerate(shape)])

    def __call__(self, x: Tensor) -> Tensor:
        return self.f(x, *(() if self.order is None else (self.order,)), self.dims, True)


def taken_along(f: OpOverload, given: dict[str, Any]) -> Along | None:
    """The operation along some dimensions that this one is with these arguments."""
    x, name, dims = given.get("self"), name_of(f), given.get("dim")
    if name not in OPERATIONS or not isinstance(x, Lazy) or not x.ndim:
        return None
    if (taken := taken_of_all(f, given | {"dim": None})) is None:
        return None
    dims = tuple(sorted({d % x.ndim for d in ([dims] if isinstance(dims, int) else dims or range(x.ndim))}))
    if len(dims) == x.ndim or (name in ("amax", "amin") and 0 in x.shape):
        return None
    return Along(OPERATIONS[name], taken.order, taken.dtype, dims, x.ndim)


def of_one(ask: Callable[..., Any], f: Along, x: Lazy, keepdim: bool) -> Tensor:
    """What an operation makes of rows of one element: it sees no more than that."""
    y = x
    if f.order is not None:
        y = ask(aten.abs.default, (), (x,))
    elif f.dtype == torch.bool:
        y = ask(aten.ne.Scalar, (), (x, 0))
    elif f.dtype != x.dtype:
        y = ask(aten._to_copy.default, (), (x,), {"dtype": f.dtype})
    shape = [n for d, n in enumerate(x.shape) if d not in f.dims]
    return y if keepdim else ask(aten.view.default, (), (y, shape))


def same(x: Tensor) -> Tensor:
    """A leaf in another shape is the same to a kernel."""
    return x


def first_of(x: Lazy) -> Lazy:
    """The leaf that this one is in another shape, with all its elements."""
    while isinstance(x.source, Call) and x.source.f is same and x.source.over is None:
        (x,) = x.source.args
    return x


def packed_of(x: Lazy) -> Lazy | None:
    """The numbers of four bits that a leaf has as bytes, if a kernel makes them."""
    call = first_of(x).source
    return call.args[0] if isinstance(call, Call) and call.f is nibbles.packed else None


def _in_bytes(x: Lazy) -> Lazy:
    """Numbers of four bits, two in a byte."""
    shape = torch.Size([*x.shape[:-1], x.shape[-1] // 2])
    return Lazy(Call(nibbles.packed, (x,), (), 1), 0, Form.of(x)._replace(shape=shape))


class Meeting(Notes):
    """Notes which leaves meet in one loop, and sees to it that they can."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._spaces = Spaces()
        self._thin: set[Call] = set()  # those whose results a program need not have in full, only what is broadcast
        self._given = len(self.inputs)
        self._unpacked: dict[Input, Call] = {}  # of bytes, two numbers in each
        self.pairs: list[tuple[Input, Input]] = []  # leaves that belong together, such as a parameter and its gradient

    def call(self, f: Any, leaves: Sequence[Lazy], scalars: Named, forms: Sequence[Form]) -> list[Tensor]:
        """A call of an elementwise function of leaves of one shape, and its results."""
        if f is select and len(leaves) == 2 and any(packed_of(x) is not None for x in leaves):
            numbers = [*map(self._numbers_of, leaves)]  # of which it takes the one or the other, too
            (y,) = self.call(f, numbers, scalars, [Form.of(numbers[0])])
            return [_in_bytes(self.leaf(y))]
        leaves = self.meet([*map(self.full, leaves)])
        call = Call(f, tuple(leaves), scalars, len(forms))
        self._spaces.join([call, *(x.source for x in leaves)])
        return [Lazy(call, k, form) for k, form in enumerate(forms)]

    def broadcast(self, f: Any, leaves: Sequence[Lazy], scalars: Named, form: Form) -> Lazy:
        """An elementwise operation on leaves that are broadcast to the shape of its result."""
        leaves = [self.copied(x) if packed_of(x) is not None else x for x in leaves]
        if form.spread is not None and any(x.shape != form.shape for x in leaves):
            of_part = form._replace(shape=local_shape(form.shape, form.spread), spread=None)
            y = self.broadcast(f, [*map(self.part, leaves)], scalars, of_part)
            return self.from_part(y, form.spread, form.shape)
        whole = [padded(x.shape, len(form.shape)) == tuple(form.shape) for x in leaves]
        sizes = () if all(whole) else cut(form.shape, *(x.shape for x in leaves))[0]
        large = iter(self.meet([x for x, is_whole in zip(leaves, whole, strict=True) if is_whole], sizes))
        args = [next(large) if is_whole else self._slim(x) for x, is_whole in zip(leaves, whole, strict=True)]
        call = Call(f, tuple(args), scalars, 1, None if all(whole) else form.shape)
        own = [x.source for x, is_whole in zip(args, whole, strict=True) if is_whole]
        self._spaces.join([call, *own], sizes)
        if (f is same and not own) or (own and all(x in self._thin for x in own)):
            self._thin.add(call)
        return Lazy(call, 0, form)

    def reshaped(self, x: Lazy, form: Form) -> Lazy:
        """A leaf in another shape."""
        call = Call(same, (x,), (), 1)
        self._spaces.join([call, x.source])
        if x.source in self._thin:
            self._thin.add(call)
        return Lazy(call, 0, form)

    def part(self, x: Tensor) -> Lazy:
        """What this process has of a sharded leaf, as a leaf of its own."""
        x = self.leaf(x)
        return self.reshaped(x, Form.of(x)._replace(shape=local_shape(x.shape, spread_of(x)), spread=None))

    def from_part(self, x: Tensor, spread: Spread, shape: torch.Size) -> Lazy:
        """The leaf of which this process has a part."""
        x = self.leaf(x)
        return self.reshaped(x, Form.of(x)._replace(shape=shape, spread=spread))

    def packed(self, x: Tensor) -> Lazy | None:
        """Numbers of four bits, as the bytes of a leaf that a kernel writes."""
        return _in_bytes(x) if isinstance(x, Lazy) and not self._opens_bytes else None

    def unpacked(self, x: Tensor) -> Lazy | None:
        """The numbers of four bits in the bytes of a leaf, as a kernel reads them."""
        return self._numbers_of(x) if isinstance(x, Lazy) and not self._opens_bytes else None

    @property
    def _opens_bytes(self) -> bool:
        """Whether numbers are packed operation by operation, for there is no kernel that does it."""
        return code_of(nibbles.packed) in self.known.opened

    def _numbers_of(self, x: Lazy) -> Lazy:
        """The numbers in bytes: those that they were made of, or what is in memory."""
        form = Form.of(x)._replace(shape=torch.Size([*x.shape[:-1], x.shape[-1] * 2]))
        if (numbers := packed_of(x)) is not None:
            return self.reshaped(numbers, form)
        i: Any = self._stored(first_of(x)).source
        return Lazy(self._numbers_in(i), 0, form)

    def _numbers_in(self, i: Input) -> Call:
        """The call that takes numbers of four bits out of bytes: the same each time, for it stands for these bytes in a
        loop."""
        if i not in self._unpacked:
            self._unpacked[i] = Call(nibbles.unpacked, (Lazy(i, 0, self.inputs[i]),), (), 1)
        return self._unpacked[i]

    def along(self, f: Along, x: Lazy, keepdim: bool) -> Lazy:
        """The slim leaf of numbers that are made of rows, columns or blocks."""
        form = Form.of(x)._replace(shape=f.kept(x.shape), dtype=f.dtype)
        shape = torch.Size([n for d, n in enumerate(x.shape) if d not in f.dims])
        x = x if form.spread is None else self.part(x)
        (x,) = self.meet([self.full(x)], cut(x.shape, f.kept(x.shape))[0])
        call = Call(f, (x,), (), 1)
        self._spaces.join([call, x.source])
        slim = self._stored(Lazy(call, 0, form))
        return slim if keepdim else self.reshaped(slim, form._replace(shape=shape))

    def taken(self, f: Taken, x: Lazy, mean: bool, keepdim: bool) -> Tensor:
        """The number that an operation makes of a whole leaf."""
        partial = self.partial(Form(torch.Size((2,)), f.dtype, x.device))
        self.log.append(Reduction(f, [(x,)], (), partial))
        y = self.tracer.call(f.f, (self.partials[partial], *(() if f.order is None else (f.order,))), {})
        if mean:
            y = self.tracer.call(aten.div.Tensor, (y, x.numel()), {})
        return self.tracer.call(aten.view.default, (y, [1] * x.ndim), {}) if keepdim and x.ndim else y

    def written(self, x: Lazy, to: Input) -> Lazy:
        """What is written to a parameter or to the state, in the loop that its own leaf has."""
        if (numbers := packed_of(x)) is not None:
            numbers = self.full(numbers)
            fits = self._spaces.join([numbers.source, self._numbers_in(to)])
            return _in_bytes(numbers if fits else self.copied(numbers))
        x = self.full(x)
        return x if self._spaces.join([x.source, to]) else self.copied(x)

    def meet(self, leaves: Sequence[Lazy], sizes: tuple[int, ...] = ()) -> list[Lazy]:
        """Leaves that one loop goes over, with dimensions of these sizes. If other loops do that need dimensions which
        do not fit these, it goes over copies."""
        if not leaves or self._spaces.join([x.source for x in leaves], sizes):
            return list(leaves)
        return self.meet([*map(self.copied, leaves)], sizes)

    def full(self, x: Lazy) -> Lazy:
        """A leaf that has all its elements in a program, too."""
        return self.copied(x) if x.source in self._thin or packed_of(x) is not None else x

    def tied(self) -> list[tuple[Input, Input]]:
        """The pairs that one loop can go over, though nothing may be made of both."""
        form = lambda i: self.inputs[i]._replace(dtype=torch.bool)
        return [(i, j) for i, j in self.pairs if form(i) == form(j) and self._spaces.join([i, j])]

    def _slim(self, x: Lazy) -> Lazy:
        """A leaf that is broadcast. A kernel of the same stage may write to what the step was given."""
        first = first_of(x)
        if isinstance(first.source, Call) or first.source < self._given:
            return self.copied(x)
        return Lazy(first.source, 0, Form.of(x))
