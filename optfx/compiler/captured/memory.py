"""Where the results of steps lie: one stretch of memory, in which a place is used again after its last use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import Node

ALIGNED = 64  # bytes


class Use(NamedTuple):
    """What happens to memory at one time."""

    reads: set[Node]
    writes: set[Node]
    in_place: dict[Node, Node]  # what is written -> what it may be written over, where that is not read again


def buffers(uses: list[Use], kept: set[Node]) -> dict[Node, Tensor]:
    """The memory of each result.

    Args:
        uses: what is read and written, in order.
        kept: results that must outlast the run, each in memory of its own.
    """
    last = {x: k for k, use in enumerate(uses) for x in use.reads | use.writes}
    alive: dict[Node, tuple[int, int]] = {}  # from where to where
    starts: dict[Node, int] = {}
    for k, use in enumerate(uses):
        for x in sorted((x for x in use.writes - kept if "place" in x.meta), key=lambda x: x.name):
            over = use.in_place.get(x)
            if over in alive and last[over] == k and _bytes(over) == _bytes(x):
                alive[x] = alive.pop(over)  # type: ignore[arg-type]
            else:
                start = _free(alive.values(), _bytes(x))
                alive[x] = start, start + _bytes(x)
            starts[x] = alive[x][0]
        alive = {x: stretch for x, stretch in alive.items() if last[x] > k}
    total = max((start + _bytes(x) for x, start in starts.items()), default=0)
    memory = torch.empty(total, dtype=torch.uint8)
    found: dict[Node, Tensor] = {}
    for x in {x for use in uses for x in use.writes if "place" in x.meta}:
        val = x.meta["val"]
        if x in kept:
            found[x] = torch.empty_strided(val.shape, val.stride(), dtype=val.dtype)
        else:
            part = memory[starts[x] : starts[x] + _bytes(x)].view(val.dtype)
            found[x] = part.as_strided(val.shape, val.stride())
    return found


def _free(taken: Iterable[tuple[int, int]], size: int) -> int:
    """Where the first gap of a size begins."""
    start = 0
    for begin, end in sorted(taken):
        if begin - start >= size:
            break
        start = max(start, -(-end // ALIGNED) * ALIGNED)
    return start


def _bytes(x: Node) -> int:
    val = x.meta["val"]
    if not val.numel():
        return 0
    return (1 + sum((n - 1) * s for n, s in zip(val.shape, val.stride(), strict=True))) * val.element_size()
