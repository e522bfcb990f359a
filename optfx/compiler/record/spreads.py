"""How leaves without values are spread over processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from optfx.compiler.record.lazy import Lazy
from optfx.tree.sharded import Spread, everywhere, spread_of


def alike(xs: Iterable[Tensor]) -> bool:
    """Whether leaves are spread in one way, so that their parts correspond."""
    return len({spread_of(x) for x in xs if x.ndim}) < 2


def spread_of_result(y: Tensor, given: Iterable[Any]) -> Spread | None:
    """How the result of an operation is spread: as the first sharded leaf of its shape, or it is everywhere."""
    spreads = [(x.shape, spread) for x in given if isinstance(x, Lazy) and (spread := spread_of(x)) is not None]
    if not y.ndim or not spreads:
        return None
    return next((spread for shape, spread in spreads if shape == y.shape), everywhere(spreads[0][1].mesh))
