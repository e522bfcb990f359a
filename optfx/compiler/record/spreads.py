"""How leaves without values are spread over processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from optfx.compiler.record.lazy import Form, Lazy
from optfx.tree.sharded import Spread, everywhere, spread_of


def alike(xs: Iterable[Tensor]) -> bool:
    """Whether leaves are spread in one way, so that their parts correspond."""
    return len({spread_of(x) for x in xs if x.ndim}) < 2


def has_rows(x: Tensor, before: int) -> bool:
    """Whether a leaf is cut along dimensions before this one alone, so that every process has as many rows, and all of
    each. Then what is done with rows is the same everywhere."""
    spread = spread_of(x)
    if spread is None:
        return True
    parts: dict[int, int] = {}
    for k in spread.shards:
        d = spread.placements[k].dim
        parts[d] = parts.get(d, 1) * spread.mesh.size(k)
    return all(d < before and x.shape[d] and x.shape[d] % n == 0 for d, n in parts.items())


def correspond(xs: Sequence[Tensor], form: Form) -> bool:
    """Whether the part of a result that a process has is made of the parts that it has of leaves."""
    if all(spread_of(x) is None for x in xs):
        return True
    if not alike(xs) or all(x.shape == form.shape for x in xs):
        return alike(xs)
    same = spread_of(xs[0]) == form.spread
    return same and all(x.ndim == len(form.shape) and has_rows(x, x.ndim) for x in xs)


def spread_of_result(y: Tensor, given: Iterable[Any]) -> Spread | None:
    """How the result of an operation is spread: as the first sharded leaf of its shape, or it is everywhere."""
    spreads = [(x.shape, spread) for x in given if isinstance(x, Lazy) and (spread := spread_of(x)) is not None]
    if not y.ndim or not spreads:
        return None
    return next((spread for shape, spread in spreads if shape == y.shape), everywhere(spreads[0][1].mesh))
