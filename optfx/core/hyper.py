"""The numbers of an optimizer: what they may be, how a step reads them, and the path of each.

Every number of a transform is a float, a () tensor or a schedule. A transform reads all of them at once, as () tensors
in float64 (where the device has it). They are cast only where they meet a leaf, because float32 would cost 1e-5 in
`1 - b2`. Nothing here branches on a value or leaves the device.

The path of a number is the path of its transform in the optimizer, then the name of its field: `1.0.learning_rate`. The
number of a schedule comes after the field that holds the schedule: `1.0.learning_rate.init_value`.
"""

from __future__ import annotations

import dataclasses
import numbers as _numbers
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import torch
from torch import Tensor

from optfx import tree
from optfx.tree import Tree
from optfx.tree.record import is_record
from optfx.tree.share import scalar_dtype

Schedule = Callable[[Tensor], Any]
"""A function of the step count, () int64, that gives a float or () tensor."""

Number = float | Tensor
"""A Python number (or numpy scalar, but not a bool) or a () tensor."""

Hyper = float | Tensor | Schedule
"""What a number of a transform may be."""

Decay = Annotated[Hyper, "Decay"]
"""A `Hyper` that says how much is kept at each step, such as Adam's b1. It is read as a `tree.Share`."""

_NAMES = frozenset(("Hyper", "Decay", "Number", "float"))


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
    """The number fields of a record: those annotated `Hyper`, `Decay`, `Number` or `float`, alone or in a union.

    Args:
        record: a transform or a schedule.

    Example:
        >>> import optfx
        >>> from optfx import core
        >>> core.hyper_fields(optfx.scale_by_adam())
        ('b1', 'b2', 'eps', 'eps_root')
    """
    return tuple(_fields(record))


def _fields(record: Any) -> dict[str, bool]:
    """The number fields of a record, and whether each is a `Decay`; worked out once per class."""
    compiling = torch.compiler.is_compiling()
    if not compiling and type(record) in _known:
        return _known[type(record)]
    kinds = {f.name: _alternatives(f.type) for f in dataclasses.fields(record)}
    found = {name: "Decay" in of for name, of in kinds.items() if not _NAMES.isdisjoint(of)}
    if not compiling:
        _known[type(record)] = found
    return found


_known: dict[type, dict[str, bool]] = {}


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
    for name, decays in _fields(record).items():
        value: Any = getattr(record, name)
        if callable(value):
            value = value(count)
        if isinstance(value, Tensor):
            value = _scalar(value, f"{type(record).__name__}.{name}")
            now[name] = tree.Share(value) if decays else value
        elif value is None:
            now[name] = None
        elif not is_number(value):
            raise TypeError(f"{type(record).__name__}.{name} is {value!r}, expected a number")
        elif decays:
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


# ---- all numbers of an optimizer, by path -----------------------------------------------------------


def numbers(tx: Any) -> dict[str, Any]:
    """Every number of an optimizer by path, those of its schedules included.

    Args:
        tx: a transform or a schedule.

    Returns:
        `{path: number}`, as the fields hold them.

    Example:
        >>> import optfx
        >>> from optfx import core
        >>> core.numbers(optfx.chain(optfx.clip(1.0), optfx.sgd(optfx.linear_schedule(0.1, 0.0, 10))))
        {'0.max_delta': 1.0, '1.0.learning_rate.init_value': 0.1, '1.0.learning_rate.end_value': 0.0,
         '1.0.learning_rate.transition_steps': 10, '1.0.learning_rate.transition_begin': 0}
    """
    found: dict[str, Any] = {}
    for name, value in _below(tx).items():
        if is_number(value):
            found[name] = value
        else:
            found |= {join(name, path): x for path, x in numbers(value).items()}
    return found


def with_numbers(tx: Any, values: Mapping[str, Any]) -> Any:
    """A copy of the optimizer with some numbers replaced.

    Args:
        tx: a transform or a schedule.
        values: `{path: number}`, by the paths of `numbers`.

    Raises:
        KeyError: there is no number at a path.

    Example:
        >>> import optfx
        >>> from optfx import core
        >>> core.with_numbers(optfx.scale_by_learning_rate(0.1), {"learning_rate": 0.2})
        scale_by_learning_rate(learning_rate=0.2, flip_sign=True)
    """
    if unknown := set(values) - set(numbers(tx)):
        raise KeyError(f"no number at {sorted(unknown)}; there are {list(numbers(tx))}")
    return _with_numbers(tx, "", values)


def _with_numbers(x: Any, path: str, values: Mapping[str, Any]) -> Any:
    if is_number(x):
        return values.get(path, x)
    below = _below(x)
    return _put(x, {k: _with_numbers(v, join(path, k), values) for k, v in below.items()}) if below else x


def join(path: str, name: str) -> str:
    """A path followed by a name; either may be empty."""
    return f"{path}.{name}" if path and name else path or name


def _below(x: Any) -> dict[str, Any]:
    """Where numbers may be: the fields of a transform or schedule, the transforms inside, the items of a container."""
    if hasattr(x, "inside"):
        return {name: getattr(x, name) for name in hyper_fields(x)} | x.inside()
    if is_record(x):
        named = hyper_fields(x)
        values = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
        return {k: v for k, v in values.items() if k in named or not is_number(v) or isinstance(v, (float, Tensor))}
    if isinstance(x, (tuple, list)):
        return {str(i): v for i, v in enumerate(x)}
    return dict(x) if isinstance(x, dict) else {}


def _put(x: Any, new: dict[str, Any]) -> Any:
    if hasattr(x, "inside"):
        inside = x.inside()
        fields = {k: v for k, v in new.items() if k not in inside}
        x = tree.replace(x, **fields)
        return x.with_inside({k: new[k] for k in inside}) if inside else x
    if is_record(x):
        return tree.replace(x, **new)
    if isinstance(x, dict):
        return new
    return type(x)(*new.values()) if hasattr(x, "_fields") else type(x)(new.values())


def hyperparams(tx: Any, state: Tree) -> dict[str, Tensor]:
    """The hyperparameters that the next update will use, by path.

    Schedules are evaluated on the device; nothing is synchronized.

    Args:
        tx: an optimizer or any other transform.
        state: its state.

    Returns:
        `{path: () float64 tensor}`: the path of the transform in the optimizer, then the name of the field.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.sgd(optfx.linear_schedule(0.1, 0.0, 10)))
        >>> optfx.hyperparams(tx, tx.init({"w": torch.zeros(2)}))
        {'0.max_norm': tensor(1., dtype=torch.float64), '1.0.learning_rate': tensor(0.1000, dtype=torch.float64)}
    """
    now = at(tx, getattr(state, "count", torch.zeros((), dtype=torch.int64))) if is_record(tx) else {}
    found: dict[str, Any] = {k: x.kept if isinstance(x, tree.Share) else x for k, x in now.items() if x is not None}
    for name, (part, inner) in tx.parts(state).items():
        found |= {join(name, path): x for path, x in hyperparams(part, inner).items()}
    return found
