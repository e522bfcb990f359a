"""The numbers of an optimizer: what they may be, and how a step reads them.

Every number of a transform is a float, a () tensor or a schedule. A transform reads all of them at once, as () tensors
in float64 (where the device has it). They are cast only where they meet a leaf, because float32 would cost 1e-5 in
`1 - b2`. Nothing here branches on the value of a tensor or leaves the device.

A field says by its annotation what it may hold: `KINDS` has the limits. A Python number beyond them is refused when the
transform is made; tensors and schedules are never looked at.
"""

from __future__ import annotations

import dataclasses
import math
import numbers as _numbers
from collections.abc import Callable, Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import torch
from torch import Tensor

from optfx import tree
from optfx.tree import Tree
from optfx.tree.share import scalar_dtype

Schedule = Callable[[Tensor], Any]
"""A function of the step count, () int64, that gives a float or () tensor."""

Number = float | Tensor
"""A Python number (or numpy scalar, but not a bool) or a () tensor."""

Hyper = float | Tensor | Schedule
"""What a number of a transform may be."""

NonNegative = Annotated[Hyper, "NonNegative"]
"""A `Hyper` that makes no sense below zero, such as a learning rate or an epsilon."""

Decay = Annotated[Hyper, "Decay"]
"""A `Hyper` that says how much is kept at each step, from 0 to 1. It is read as a `tree.Share`."""

Beta = Annotated[Hyper, "Beta"]
"""A `Decay` below 1, such as Adam's b1: what is kept of a mean that is divided by `1 - b**t`."""


class Kind(NamedTuple):
    """What an annotation says of a number."""

    least: float = -math.inf
    most: float = math.inf
    below: bool = False  # whether `most` itself is too much
    share: bool = False  # whether it is read as a `tree.Share`

    def allows(self, x: Any) -> bool:
        return bool(self.least <= x <= self.most) and not (self.below and x == self.most)  # a NaN is not allowed

    def __str__(self) -> str:
        if self.most < math.inf:
            return f"at least {self.least:g} and {'less than' if self.below else 'at most'} {self.most:g}"
        return "a number that is not NaN" if self.least == -math.inf else f"at least {self.least:g}"


KINDS = {
    "Hyper": Kind(),
    "Number": Kind(),
    "float": Kind(),
    "NonNegative": Kind(0),
    "Decay": Kind(0, 1, share=True),
    "Beta": Kind(0, 1, below=True, share=True),
}
"""The annotations of number fields, and what each says."""

_BESIDE = {"Tensor", "Schedule", "None", "int"}  # what else may stand in the union of a number


def is_number(x: Any) -> bool:
    """Whether `x` is a number: a tensor, an int, a float or a numpy scalar, but not a bool.

    Args:
        x: any value.

    Example:
        >>> from optfx import core
        >>> core.is_number(0.1), core.is_number(True)
        (True, False)
    """
    return isinstance(x, (Tensor, _numbers.Real)) and not isinstance(x, bool)


def counter(params: Tree) -> Tensor:
    """A fresh step count: () int64 zero, on the device of the first leaf.

    Args:
        params: tree of tensors.

    Example:
        >>> import torch
        >>> from optfx import core
        >>> core.counter({"w": torch.ones(2)})
        tensor(0)
    """
    found = tree.leaves(params)
    if found and type(found[0]) in (Tensor, torch.nn.Parameter):
        return found[0].new_zeros((), dtype=torch.int64)  # under vmap over params a batch, as it is after a step
    return torch.zeros((), dtype=torch.int64, device=found[0].device if found else None)


def bias_correction(decay: Any, count: Tensor) -> Tensor:
    r"""$1 - \beta^t$: divide a running mean that began at zero by this.

    Args:
        decay: $\beta$, a `tree.Share`, a number or a () tensor.
        count: $t$, () int64, the steps taken, this one included.

    Returns:
        () float64 tensor.

    Example:
        >>> import torch
        >>> from optfx import core
        >>> core.bias_correction(0.9, torch.tensor(2))
        tensor(0.1900, dtype=torch.float64)
    """
    return 1 - decay ** count.to(scalar_dtype(count.device))


def hyper_fields(record: Any) -> tuple[str, ...]:
    """The number fields of a record: those annotated as one of `KINDS`, alone or in a union.

    Args:
        record: a transform or a schedule.

    Example:
        >>> import optfx
        >>> from optfx import core
        >>> core.hyper_fields(optfx.scale_by_adam())
        ('b1', 'b2', 'eps', 'eps_root')
    """
    return tuple(_fields(record))


def _fields(record: Any) -> dict[str, Kind]:
    """The number fields of a record, and what their annotations say; worked out once per class."""
    compiling = torch.compiler.is_compiling()
    if not compiling and type(record) in _known:
        return _known[type(record)]
    found = {}
    for f in dataclasses.fields(record):
        kinds = [KINDS[name] for name in _alternatives(f.type) if name in KINDS]
        if kinds:
            found[f.name] = kinds[0]
    if not compiling:
        _known[type(record)] = found
    return found


_known: dict[type, dict[str, Kind]] = {}


def check_numbers(record: Any) -> None:
    """Refuse what no number of a record can be.

    Raises:
        TypeError: what is neither a number, a tensor nor a schedule, or no dtype where one belongs, naming the field.
        ValueError: a Python number beyond the limits of its annotation, naming the field.
    """
    if torch.compiler.is_compiling():
        return
    fields = _fields(record)
    for f in dataclasses.fields(record):
        value, kind = getattr(record, f.name), fields.get(f.name)
        if kind is None and not isinstance(value, (torch.dtype, NoneType)) and "dtype" in _alternatives(f.type):
            raise TypeError(f"{type(record).__name__}.{f.name} is {_shown(value)}, expected a torch.dtype")
        is_module = isinstance(value, torch.nn.Module)
        if kind is None or value is f.default or isinstance(value, Tensor) or (callable(value) and not is_module):
            continue
        others = set(_alternatives(f.type)) - set(KINDS)
        if value is None and "None" in others:
            continue
        if is_number(value):
            if not kind.allows(value):
                raise ValueError(f"{type(record).__name__}.{f.name} is {value!r}, expected {kind}")
        elif others <= _BESIDE:
            raise TypeError(
                f"{type(record).__name__}.{f.name} is {_shown(value)}, expected a number, a () tensor or a schedule"
            )


def _shown(value: Any) -> str:
    if isinstance(value, (Iterable, torch.nn.Module)) and not isinstance(value, (str, bytes)):
        return f"a {type(value).__name__} (parameters go to `init`, not here; several rates go in a tensor, under vmap)"
    return repr(value)


def _alternatives(annotation: Any) -> list[str]:
    """The names of the types in an annotation, which may be a union."""
    if isinstance(annotation, str):  # under `from __future__ import annotations`
        return [part.strip().rpartition(".")[2] for part in annotation.split("|")]
    if get_origin(annotation) is Annotated:
        return list(annotation.__metadata__)
    if get_origin(annotation) in (Union, UnionType):
        return [name for part in get_args(annotation) for name in _alternatives(part)]
    return ["float"] if annotation is float else []


def at(record: Any, count: Tensor) -> dict[str, Any]:
    """All numbers of a transform at a step.

    Args:
        record: the transform.
        count: () int64, the steps taken before this one: the first update reads `schedule(0)`.

    Returns:
        `{field: () tensor in the scalar dtype}`; a `tree.Share` for a field annotated `Decay`, and None for None.

    Raises:
        ValueError: a tensor that is not (): batches of optimizers run under `torch.func.vmap`.
        TypeError: what is no number, such as a bool.
    """
    now: dict[str, Any] = {}
    for name, kind in _fields(record).items():
        value: Any = getattr(record, name)
        if callable(value):
            value = value(count)
        if isinstance(value, Tensor):
            value = _scalar(value, f"{type(record).__name__}.{name}")
            now[name] = tree.Share(value) if kind.share else value
        elif value is None:
            now[name] = None
        elif not is_number(value):
            raise TypeError(f"{type(record).__name__}.{name} is {value!r}, expected a number")
        elif kind.share:
            now[name] = tree.Share(_constant(value, count), _constant(1 - float(value), count))
        else:
            now[name] = _constant(value, count)
    return now


def _constant(value: Any, count: Tensor) -> Tensor:
    return torch.full((), value, dtype=scalar_dtype(count.device), device=count.device)


def _scalar(value: Tensor, who: str) -> Tensor:
    if value.ndim:
        raise ValueError(
            f"{who} has the shape {tuple(value.shape)} where a () tensor was expected: "
            "batches of optimizers run under torch.func.vmap"
        )
    return value.to(scalar_dtype(value.device))


def join(path: str, name: str) -> str:
    """A path followed by a name; either may be empty."""
    return f"{path}.{name}" if path and name else path or name
