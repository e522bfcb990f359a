"""Functions that close over numbers of one member of a `vmap`, as records that show them.

A function is structure of a record. Made inside `torch.func.vmap`, as by `make_optimizer` of a sweep, it may hold
numbers that differ from member to member: `lambda count: config["rate"] * 0.5**count`. When the record leaves the
`vmap` these would stay behind, and stand for all members at once. So they leave it as children.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from types import CellType, FunctionType, MethodType, SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as torch_pytree
from torch import Tensor

from optfx.tree.record import is_record, is_wrapped, record, replace


class Held(NamedTuple):
    """What stands in a function in the place of a tensor, by its number."""

    index: int


@record
class closure:
    """A callable, and the tensors that it holds.

    Args:
        held: the tensors.
        function: the callable, with a `Held` in the place of each.
    """

    held: tuple[Tensor, ...]
    function: Any

    @property
    def is_function(self) -> bool:
        """Whether its tensors stand in cells, which `torch.compile` cannot make."""
        return isinstance(self.function, (FunctionType, MethodType))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return swapped(self.function, lambda x: self.held[x.index] if isinstance(x, Held) else x)(*args, **kwargs)

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


def closure_of(f: Any) -> closure | None:
    """A callable with the tensors that it holds and that function transforms have made; None if there are none."""
    found: list[Tensor] = []

    def note(x: Any) -> Any:
        if not isinstance(x, Tensor) or not is_wrapped(x):
            return x
        found.append(x)
        return Held(len(found) - 1)

    function = swapped(f, note)
    return closure(tuple(found), function) if found else None


def seen(x: Any) -> Any:
    """A record as it is outside of the function transform that it was made in."""
    if torch._C._functorch.peek_interpreter_stack() is None or "_children" in x.__dict__:  # pyright: ignore[reportAttributeAccessIssue]
        return x
    values = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
    functions = {k: v for k, v in values.items() if callable(v) and not isinstance(v, type) and not is_record(v)}
    found = {k: y for k, v in functions.items() if (y := closure_of(v)) is not None}
    return replace(x, **found) if found else x


def records_in(x: Any) -> list[Any]:
    """All records in a tree."""
    found: list[Any] = []
    torch_pytree.tree_flatten(x, is_leaf=lambda y: is_record(y) and found.append(y) is not None)
    return found


def swapped(x: Any, swap: Callable[[Any], Any]) -> Any:
    """A callable with other values in the place of those that it holds: in its cells, defaults, arguments and
    attributes, and in containers and functions there."""
    known: dict[int, Any] = {}

    def within(x: Any) -> Any:
        return torch_pytree.tree_map(leaf, x, is_leaf=lambda y: type(y) is Held)

    def leaf(x: Any) -> Any:
        if isinstance(x, FunctionType):
            return function(x) if x.__closure__ or x.__defaults__ or x.__kwdefaults__ else x
        if isinstance(x, functools.partial):
            return functools.partial(within(x.func), *map(within, x.args), **within(x.keywords))
        if isinstance(x, MethodType):
            return MethodType(within(x.__func__), instance(x.__self__))
        if isinstance(x, dict):  # of a class that no tree knows
            new = x.__class__.__new__(x.__class__)
            new.__dict__.update(x.__dict__)
            dict.update(new, {k: within(v) for k, v in dict.items(x)})
            return new
        if isinstance(x, SimpleNamespace) or (dataclasses.is_dataclass(x) and not isinstance(x, type)):
            return instance(x)
        return swap(x)

    def function(x: FunctionType) -> FunctionType:
        if id(x) not in known:  # it may be in a cell of its own
            cells = tuple(CellType() for _ in x.__closure__ or ())
            new = known[id(x)] = FunctionType(x.__code__, x.__globals__, x.__name__, None, cells)
            functools.update_wrapper(new, x, updated=("__dict__",)).__dict__.pop("__wrapped__", None)
            new.__defaults__, new.__kwdefaults__ = within(x.__defaults__), within(x.__kwdefaults__)
            for cell, old in zip(cells, x.__closure__ or (), strict=True):
                try:
                    cell.cell_contents = within(old.cell_contents)
                except ValueError:  # it is empty
                    continue
        return known[id(x)]

    def instance(x: Any) -> Any:
        if not hasattr(x, "__dict__") or isinstance(x, (type, torch.nn.Module)) or is_record(x):
            return within(x) if is_record(x) else x
        if id(x) not in known:
            new = known[id(x)] = copy.copy(x)
            new.__dict__.update({k: within(v) for k, v in vars(x).items()})
        return known[id(x)]

    return leaf(x) if isinstance(x, (FunctionType, functools.partial, MethodType)) else instance(x)
