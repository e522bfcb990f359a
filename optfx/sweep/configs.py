"""The settings of members as columns, `{name: (n,)}`: numbers, or words, which are structure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optfx.core import is_number
from optfx.sweep.spaces import ABSENT, Labels, column

SEED, TRIAL = "seed", "trial"  # names with a meaning of their own: see `Trainer`
Column = Tensor | Labels


def columns(configs: Mapping[str, Any]) -> dict[str, Column]:
    """The settings as (n,) columns: a sequence becomes one, and a single value is the same for all.

    Raises:
        ValueError: no settings, or columns that are not all (n,) for the same n, naming them.
        TypeError: a value that is neither numbers nor words, naming it.
    """
    if not isinstance(configs, Mapping):
        raise TypeError(f"configs: expected {{name: numbers}}, one for each member, got a {type(configs).__name__}")
    if not configs:
        raise ValueError("configs: no hyperparameters")
    found: dict[str, Any] = {}
    for name, x in configs.items():
        if isinstance(x, str) or (is_number(x) and not isinstance(x, Tensor)):
            found[name] = column("configs", [x])[0]
        elif isinstance(x, Tensor) and x.dtype != torch.bool and not x.is_complex():
            found[name] = x
        elif isinstance(x, (list, tuple, range)):
            found[name] = column(f"configs: {name!r}", x)
        else:
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"configs: {name!r} is {kind}, expected numbers or words, an (n,) column or one for all")
    shapes = {name: _shape(x) for name, x in found.items() if _shape(x)}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"configs: expected one value for each member, (n,) for all, got {shapes}")
    n = next(iter(shapes.values()))[0] if shapes else 1
    if not n:
        raise ValueError("configs: no settings")
    one = lambda x: Labels([x] * n) if isinstance(x, str) else x.repeat(n)
    return {name: x if _shape(x) else one(x) for name, x in found.items()}


def _shape(x: Any) -> tuple[int, ...]:
    return () if isinstance(x, str) else (len(x),) if isinstance(x, Labels) else tuple(x.shape)


def is_absent(x: Any) -> bool:
    """Whether a value is none: that of a name in a branch that was not chosen."""
    return x in ("", ABSENT) or x != x


def by_structure(configs: Mapping[str, Column], names: Sequence[str]) -> list[tuple[dict[str, Any], Tensor]]:
    """The members of each structure: what is fixed for them, and which they are.

    Args:
        configs: the columns of all members.
        names: what is structure besides words.

    Returns:
        `(fixed, index)` for each structure, in the order of their first members: `{name: value}` with plain Python
        values, and (m,) int64.

    Raises:
        ValueError: a name that configs does not have.
    """
    if unknown := [name for name in names if name not in configs]:
        raise ValueError(f"structure: {unknown[0]!r} is no name of configs, which has {', '.join(map(repr, configs))}")
    fixed = [name for name, x in configs.items() if isinstance(x, Labels) or name in names]
    n = len(next(iter(configs.values())))
    rows: dict[tuple[Any, ...], list[int]] = {}
    values = [x if isinstance(x := configs[name], Labels) else x.tolist() for name in fixed]
    for i, row in enumerate(zip(*values, strict=True) if fixed else [()] * n):
        rows.setdefault(row, []).append(i)
    return [
        ({k: v for k, v in zip(fixed, row, strict=True) if not is_absent(v)}, torch.tensor(index))
        for row, index in rows.items()
    ]


def of_structure(configs: Mapping[str, Column], fixed: Sequence[str], index: Tensor) -> dict[str, Tensor]:
    """The columns of the members of one structure, without what is structure, and what belongs to others."""
    found = {k: x[index] for k, x in configs.items() if isinstance(x, Tensor) and k not in fixed}
    return {k: x for k, x in found.items() if not all(map(is_absent, x.tolist()))}


class Reading(dict[str, Any]):
    """The settings of one member, which note which of them are read.

    Args:
        config: `{name: () tensor}`, and whatever is fixed.
        read: where the names are noted.
    """

    def __init__(self, config: Mapping[str, Any], read: set[str]) -> None:
        super().__init__(config)
        self.read = read

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self.read.add(name)
        return super().pop(name, *default)

    def __iter__(self) -> Iterator[str]:  # without it, `f(**config)` would read past `__getitem__`
        return iter(self.keys())

    def items(self) -> Any:
        self.read.update(self.keys())
        return super().items()

    def values(self) -> Any:
        self.read.update(self.keys())
        return super().values()

    def copy(self) -> Any:
        return dict(self.items())

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()


def asks_for(f: Callable[..., Any] | None, name: str) -> bool:
    """Whether a function has a parameter of this name, which has no default."""
    if f is None or not callable(f):
        return False
    try:
        found = inspect.signature(f).parameters.get(name)
    except (ValueError, TypeError):  # a function of C
        return False
    return found is not None and found.default is found.empty and found.kind is not found.VAR_KEYWORD
