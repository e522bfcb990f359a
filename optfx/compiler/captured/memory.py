"""Where the results of steps lie: one stretch of memory, in which a place is used again after its last use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

ALIGNED = 64  # bytes


def buffers(steps: list[Any], kept: set[Node]) -> dict[Node, Tensor]:
    """The memory of each result.

    Args:
        steps: what reads and writes, in order.
        kept: results that must outlast the run, each in memory of its own.
    """
    last = {x: k for k, step in enumerate(steps) for x in step.reads | step.writes}
    found: dict[Node, Tensor] = {}
    starts: dict[Node, int] = {}
    alive: list[tuple[int, int, Node]] = []  # (start, end)
    total = 0
    for k, step in enumerate(steps):
        alive = [one for one in alive if last[one[2]] >= k]
        for x in sorted((x for x in step.writes if "place" in x.meta), key=lambda x: x.name):
            if x in kept:
                val = x.meta["val"]
                found[x] = torch.empty_strided(val.shape, val.stride(), dtype=val.dtype)
                continue
            size = -(-_bytes(x) // ALIGNED) * ALIGNED
            start = 0
            for begin, end, _ in sorted(alive, key=lambda one: one[:2]):
                if begin - start >= size:
                    break
                start = max(start, end)
            alive.append((start, start + size, x))
            starts[x], total = start, max(total, start + size)
    stretch = torch.empty(total, dtype=torch.uint8)
    for x, start in starts.items():
        val = x.meta["val"]
        part = stretch[start : start + _bytes(x)].view(val.dtype)
        found[x] = part.as_strided(val.shape, val.stride())
    return found


def _bytes(x: Node) -> int:
    val = x.meta["val"]
    if not val.numel():
        return 0
    return (1 + sum((n - 1) * s for n, s in zip(val.shape, val.stride(), strict=True))) * val.element_size()
