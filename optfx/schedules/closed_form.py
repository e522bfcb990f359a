"""Schedules given by a formula in the count and their own numbers."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any, get_args

import torch
from torch import Tensor

from optfx.schedules.numbers import Number, alike, as_count, as_number, as_scalar


class ClosedForm:
    """A schedule given by a formula.

    A subclass is a record. It annotates its numbers as `Number` (or `Number | None`, or a sequence or dict of numbers)
    and defines `formula`, whose arguments after `t` have the names of these fields.

    Raises:
        TypeError: a number that is not a Python or numpy number or a tensor, or that is a bool.

    Example:
        >>> import torch
        >>> from optfx.schedules.closed_form import ClosedForm, Number
        >>> from optfx.tree import record
        >>> @record
        ... class inverse_sqrt(ClosedForm):
        ...     peak: Number
        ...     warmup_steps: Number = 100
        ...     def formula(self, t, peak, warmup_steps):
        ...         return peak * torch.minimum(t / warmup_steps, torch.rsqrt(t / warmup_steps))
        >>> inverse_sqrt(0.1)(400)
        tensor(0.0500, dtype=torch.float64)
    """

    def __post_init__(self) -> None:
        for name in number_fields(self):
            object.__setattr__(self, name, _plain(f"{type(self).__name__}: {name}", getattr(self, name)))

    def need(self, name: str, relation: str, bound: Any) -> None:
        """Raise unless a field has this relation to a bound. Tensors and None are not checked.

        Raises:
            ValueError: naming the schedule, the field, and what it must be.
        """
        x = getattr(self, name)
        if not (x is None or isinstance(x, Tensor) or isinstance(bound, Tensor) or _RELATIONS[relation](x, bound)):
            raise ValueError(f"{type(self).__name__}: {name} must be {relation} {bound}, got {x!r}")

    def formula(self, t: Tensor, **numbers: Any) -> Tensor:
        """The value at count `t`. The count and all numbers are () tensors, float64 if the device has it."""
        raise NotImplementedError

    def numbers(self, count: Tensor) -> dict[str, Any]:
        """The number fields as () tensors, on the device of the count."""
        return {name: _read(getattr(self, name), count) for name in number_fields(self)}

    def __call__(self, count: Tensor | int) -> Tensor:
        count = as_count(count, self)
        return self.formula(as_scalar(count, count), **self.numbers(count))


def number_fields(schedule: Any) -> tuple[str, ...]:
    """The fields of a schedule that hold numbers, worked out once per class."""
    if (known := _known.get(type(schedule))) is not None:
        return known
    found = tuple([f.name for f in dataclasses.fields(schedule) if _holds_numbers(f.type)])
    if not torch.compiler.is_compiling():
        _known[type(schedule)] = found
    return found


_known: dict[type, tuple[str, ...]] = {}
_RELATIONS = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "one of": lambda x, words: x in words,
}


def _holds_numbers(annotation: Any) -> bool:
    if isinstance(annotation, str):  # under `from __future__ import annotations`
        return "Number" in annotation
    inside = get_args(annotation)
    return set(get_args(Number)) <= set(inside) or any(map(_holds_numbers, inside))


def _plain(what: str, x: Any) -> Any:
    """A field as it is stored: numpy scalars become Python numbers, a list becomes a tuple."""
    if isinstance(x, dict):
        return dict(zip(x, alike(what, x.values()), strict=True))
    return alike(what, x) if isinstance(x, (tuple, list)) else as_number(what, x)


def _read(x: Any, count: Tensor) -> Any:
    if isinstance(x, dict):
        return {key: as_scalar(value, count) for key, value in x.items()}
    if isinstance(x, tuple):
        return tuple(as_scalar(value, count) for value in x)
    if callable(x):
        return _read(x(count), count)
    return None if x is None else as_scalar(x, count)
