"""Leaves without values, and the work that would give them values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, NewType

import torch
from torch import Tensor

from optfx.compiler.record.inputs import Input, Unfusable
from optfx.compiler.record.spaces import padded
from optfx.tree.sharded import Spread, spread_of
from optfx.tree.verbs import name_of

Partial = NewType("Partial", int)
"""The number of a tensor that a reduction or an event leaves for the scalar work of later stages."""


class Slot(NamedTuple):
    """A scalar argument of some verb, by its number in the recorder. A program numbers those that it takes anew."""

    index: int

    def __repr__(self) -> str:
        return f"s{self.index}"


Named = tuple[tuple[str, Any], ...]
"""Scalar arguments by name: a Slot, or a value that is part of the program."""


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """An elementwise function of leaves, or an `Along`, which makes a number of each row.

    Attributes:
        over: the shape that it is computed over, where leaves of other shapes are broadcast to it.
    """

    f: Callable[..., Any]
    args: tuple[Lazy, ...]
    scalars: Named
    outs: int
    over: torch.Size | None = None

    def is_slim(self, x: Lazy) -> bool:
        """Whether an argument is broadcast: such a leaf is an input, and has a loop of its own."""
        return self.over is not None and padded(x.shape, len(self.over)) != tuple(self.over)

    def __repr__(self) -> str:
        return called(self.f, self.args, self.scalars)


class Lazy(Tensor):
    """A leaf that is not computed: an input of the step, or output `k` of a call."""

    source: Input | Call
    k: int
    device_mesh: Any
    placements: tuple[Any, ...]
    strides: tuple[int, ...] | None = None  # in eager code, of what an event gives, where it is not contiguous
    stands_for: Lazy | None = None  # the leaf that it is a copy of

    @staticmethod
    def __new__(cls, source: Input | Call, k: int, like: Form) -> Lazy:
        x = Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device=like.device)  # type: ignore[attr-defined]
        x.source, x.k = source, k
        if like.spread is not None:  # as a `DTensor` says it
            x.device_mesh, x.placements = like.spread
        return x

    @property
    def _local_tensor(self) -> Tensor:
        raise Unfusable("it looks at the part that a process has of a leaf")

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise Unfusable(f"{func} on a leaf of a step that was recorded before")

    def __repr__(self) -> str:  # type: ignore[override]
        if not isinstance(self.source, Call):
            return f"input {self.source}"
        return repr(self.source) if self.source.outs == 1 else f"{self.source!r}[{self.k}]"


class Form(NamedTuple):
    """What is known of a leaf before it exists."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    spread: Spread | None = None  # over processes

    @staticmethod
    def of(x: Any) -> Form:
        return Form(x.shape, x.dtype, x.device, spread_of(x))

    def __str__(self) -> str:
        spread = "" if self.spread is None else f", {self.spread.placements} of {self.spread.mesh}"
        return f"{tuple(self.shape)} {self.dtype} on {self.device}{spread}"


class Write(NamedTuple):
    """A leaf, and the input that it is written to."""

    leaf: Lazy
    to: Input


class Reduction(NamedTuple):
    """A number for each row of leaves. All of them together are a partial, which scalar work combines."""

    f: Callable[..., Tensor]
    rows: list[tuple[Lazy, ...]]
    scalars: Named
    partial: Partial

    def __repr__(self) -> str:
        return f"partial {self.partial}: " + ", ".join(called(self.f, xs, self.scalars) for xs in self.rows)


class Event(NamedTuple):
    """Work that runs as it is, on leaves that exist by then."""

    what: str  # for people
    why: str
    run: Callable[..., list[Tensor]]  # (leaves, scalars) -> results
    leaves: list[Lazy]  # all of them inputs
    scalars: list[Any]  # slots and values
    to: list[Any]  # for each result the input that it becomes, or the partial
    forms: list[Form]  # of the results
    numbers: list[bool]  # which of them are partials
    ordered: bool  # whether it may draw random numbers, or do anything else that must not overtake another
    place: Any  # of the transform that it is; None where it is none
    keeps: bool  # whether results may be the very leaves that it was given

    @property
    def results(self) -> list[Input]:
        return [k for k, number in zip(self.to, self.numbers, strict=True) if not number]

    @property
    def partials(self) -> list[Partial]:
        return [k for k, number in zip(self.to, self.numbers, strict=True) if number]


def sources_of(x: Lazy, seen: dict[Call, frozenset[Input]], slim: bool = True) -> frozenset[Input]:
    """The inputs that a leaf is computed from, perhaps without those that are broadcast."""
    call = x.source
    if not isinstance(call, Call):
        return frozenset([call])
    if call not in seen:
        seen[call] = frozenset().union(*(sources_of(a, seen, slim) for a in call.args if slim or not call.is_slim(a)))
    return seen[call]


def called(f: Callable[..., Any], args: tuple[Any, ...], scalars: Named) -> str:
    """A call as it would be written."""
    given = [f"{name}={value}" for name, value in scalars]
    return f"{name_of(f)}({', '.join([*map(str, args), *given])})"


def storage_of(x: Tensor) -> Any:
    """What is the same for two tensors that share memory."""
    return x.untyped_storage()._cdata if type(x) in (Tensor, torch.nn.Parameter) else id(x)
