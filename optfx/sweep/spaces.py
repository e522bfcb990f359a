r"""Spaces of hyperparameters, and settings drawn from them.

A space is a dict of one-dimensional spaces by name. Each maps the unit interval to values,

$$ a + u\,(b - a), \qquad \exp\bigl(\ln a + u\,(\ln b - \ln a)\bigr), \qquad v_{\lfloor u k \rfloor}, $$

so any set of points in the unit cube, random or from a Sobol sequence, becomes a set of settings: a dict of (n,)
tensors, one value per setting, which `optfx.sweep.fit` trains side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from optfx import random
from optfx.tree import record


class Space(Protocol):
    """One dimension of a space."""

    def at(self, u: Tensor) -> Any:
        """The values at points of the unit interval: (n,) float64 in [0, 1) -> (n,)."""
        ...


def _bounds(space: Any, above: float) -> None:
    if not (above < space.low < space.high < math.inf):
        lowest = "" if above == -math.inf else f"{above:g} < "
        raise ValueError(f"{type(space).__name__}: expected {lowest}low < high, got {space.low} and {space.high}")


@record
class uniform:
    """Numbers between two bounds, all equally likely.

    Args:
        low: the least value.
        high: the greatest value.

    Raises:
        ValueError: bounds that are not finite and in order.

    Example:
        >>> from optfx import sweep
        >>> sweep.uniform(0.8, 1.0).at(torch.tensor([0.0, 0.5]))
        tensor([0.8000, 0.9000])
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _bounds(self, -math.inf)

    def at(self, u: Tensor) -> Tensor:
        return (self.low + u * (self.high - self.low)).clamp(self.low, self.high)


@record
class log_uniform:
    """Numbers between two bounds, with every order of magnitude equally likely: for rates, decays and penalties.

    Args:
        low: the least value, positive.
        high: the greatest value.

    Raises:
        ValueError: bounds that are not positive, finite and in order.

    Example:
        >>> from optfx import sweep
        >>> sweep.log_uniform(1e-4, 1.0).at(torch.tensor([0.0, 0.5]))
        tensor([0.0001, 0.0100])
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _bounds(self, 0)

    def at(self, u: Tensor) -> Tensor:
        low, high = math.log(self.low), math.log(self.high)
        return (low + u * (high - low)).exp().clamp(self.low, self.high)


class Labels(tuple[str, ...]):
    """A column of words: like a tensor of numbers, it is indexed by a tensor too.

    Example:
        >>> from optfx import sweep
        >>> sweep.choice(("adam", "sgd")).at(torch.tensor([0.0, 0.9, 0.2]))[torch.tensor([1, 2])]
        ('sgd', 'adam')
    """

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, Tensor):
            return super().__getitem__(index)
        if not index.ndim:
            return super().__getitem__(int(index))
        rows = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        return Labels(super(Labels, self).__getitem__(i) for i in rows.tolist())

    def tolist(self) -> list[str]:
        return list(self)


ABSENT = torch.iinfo(torch.int64).min  # an integer where there is none, as NaN is for floats


@record
class choice:
    """One of a few values, all equally likely.

    Numbers are columns like any others. Words are structure (see `fit`), and a word may bring names of its own:
    `choice({"adam": {"b2": uniform(0.9, 0.999)}, "sgd": {}})`. Such a name is absent from other members: NaN, and empty
    in a table.

    Args:
        values: numbers, or words; or a dict of spaces for each word. If all numbers are integers (lengths, say), the
            result is int64, else float64.

    Raises:
        ValueError: no values, or values that are neither all numbers nor all words.

    Example:
        >>> from optfx import sweep
        >>> sweep.choice((10, 100, 1000)).at(torch.tensor([0.0, 0.5, 0.9]))
        tensor([  10,  100, 1000])
    """

    values: Any

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            object.__setattr__(self, "values", tuple(column("choice", self.values).tolist()))
        elif not self.values or not all(isinstance(x, str) for x in self.values):
            raise ValueError(f"choice: a dict has a word for each space, got {self.values!r}")

    def at(self, u: Tensor) -> Any:
        values = column("choice", tuple(self.values))
        return values[(u * len(values)).long().clamp(max=len(values) - 1).cpu()]


def column(who: str, values: Any) -> Any:
    """Numbers as one (n,) tensor, int64 or float64; words as `Labels`."""
    try:
        if not isinstance(values, Tensor) and (words := list(values)) and all(isinstance(x, str) for x in words):
            return Labels(words)
        column = values if isinstance(values, Tensor) else torch.tensor(list(values))
        if column.is_floating_point() and column is not values:
            column = torch.tensor(list(values), dtype=torch.float64)  # the default dtype would round them
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{who}: expected numbers or words, got {values!r}") from None
    if column.ndim != 1 or not column.numel() or column.dtype == torch.bool or column.is_complex():
        raise ValueError(f"{who}: expected one dimension of numbers, or words, got {values!r}")
    return column.to(torch.float64 if column.is_floating_point() else torch.int64)


def grid(values: Mapping[str, Sequence[Any] | Tensor | choice]) -> dict[str, Any]:
    """Every combination of the values; the last name varies fastest.

    Args:
        values: `{name: numbers or words}`.

    Returns:
        `{name: (n,) tensor}`, where n is the product of the numbers of values; int64 for integers, else float64.

    Raises:
        ValueError: no names, or values that are not numbers.

    Example:
        >>> from optfx import sweep
        >>> sweep.grid({"decay": [0.0, 0.1], "warmup": [10, 20]})
        {'decay': tensor([0.0000, 0.0000, 0.1000, 0.1000], dtype=torch.float64), 'warmup': tensor([10, 20, 10, 20])}
    """
    if not values:
        raise ValueError("grid: no values to combine")
    columns = [column(f"grid: {name!r}", v.values if isinstance(v, choice) else v) for name, v in values.items()]
    if branched := [name for name, v in values.items() if isinstance(v, choice) and isinstance(v.values, Mapping)]:
        raise ValueError(f"grid: {branched[0]!r} has names of its own for each word; make a grid for each, and join")
    lengths = tuple(map(len, columns))
    indices = torch.unravel_index(torch.arange(math.prod(lengths)), lengths)
    return {name: column[index] for name, column, index in zip(values, columns, indices, strict=True)}


def sample(space: Mapping[str, Space], n: int, seed: int = 0, method: str = "sobol") -> dict[str, Any]:
    """Settings drawn from a space.

    Args:
        space: `{name: uniform, log_uniform or choice}`.
        n: the number of settings.
        seed: the same seed gives the same settings on every machine.
        method: `"sobol"`, a scrambled Sobol sequence, which fills the space evenly; or `"random"`, independent points.

    Returns:
        `{name: (n,) column}`: float64, int64 for choices of integers, `Labels` for choices of words. Names in a branch
        of a choice are absent from the members that took another: NaN, or `ABSENT` where the values are integers.

    Raises:
        ValueError: an empty space, no settings, an unknown method.
        TypeError: an entry that is not a space, naming it.

    Reference: Owen, "Scrambling Sobol' and Niederreiter-Xing points", 1998; `torch.quasirandom.SobolEngine`.

    Example:
        >>> from optfx import sweep
        >>> space = {"rate": sweep.log_uniform(1e-4, 1e-1), "b1": sweep.uniform(0.8, 0.95)}
        >>> configs = sweep.sample(space, 4)
        >>> configs["rate"].shape, ((1e-4 <= configs["rate"]) & (configs["rate"] <= 1e-1)).all()
        (torch.Size([4]), tensor(True))
    """
    if not space or n < 1:
        raise ValueError(f"sample: at least one name and one setting are needed, got {len(space)} and {n}")
    named = [*dimensions(space)]
    if method == "sobol":
        engine = torch.quasirandom.SobolEngine(len(named), scramble=True, seed=seed)
        points = engine.draw(n, dtype=torch.float64)
    elif method == "random":
        points = random.uniform(random.key(seed), (n, len(named)), dtype=torch.float64)
    else:
        raise ValueError(f"sample: the method is 'sobol' or 'random', got {method!r}")
    found: dict[str, Any] = {}
    for (name, dimension, branch), u in zip(named, points.T, strict=True):
        values = dimension.at(u)
        there = torch.tensor([all(found[k][i] == word for k, word in branch) for i in range(n)])
        found[name] = _where(there, values, found[name] if name in found else nothing_like(values))
    return found


def dimensions(space: Mapping[str, Space], branch: tuple[tuple[str, str], ...] = ()) -> Iterator[Any]:
    """`(name, space, branch)`, where a branch is the words that must have been chosen: `((name, word), ...)`."""
    for name, dimension in space.items():
        if not callable(getattr(dimension, "at", None)):
            raise TypeError(f"space: {name!r} is {dimension!r}, expected uniform, log_uniform or choice")
        yield name, dimension, branch
        if isinstance(dimension, choice) and isinstance(dimension.values, Mapping):
            for word, below in dimension.values.items():
                yield from dimensions(below, (*branch, (name, word)))


def nothing_like(like: Any) -> Any:
    """A column of values that are absent."""
    if isinstance(like, Labels):
        return Labels([""] * len(like))
    return torch.full_like(like, math.nan if like.is_floating_point() else ABSENT)


def _where(there: Tensor, values: Any, others: Any) -> Any:
    if isinstance(values, Labels):
        return Labels(x if yes else y for yes, x, y in zip(there.tolist(), values, others, strict=True))
    return torch.where(there, values, others)
