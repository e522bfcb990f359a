"""Who descends from whom: where policies made members copies of others, and the settings each was trained with."""

from __future__ import annotations

import torch
from torch import Tensor

from optfx.sweep.history import History


def sources(history: History, member: Tensor) -> Tensor:
    """(looks, n) int64, the place of the member that each went on from at each look: its own, or that of which it
    became a copy. What is not among the members has no place, and each is its own source there.

    Args:
        history: of n members.
        member: (n,) int64, their numbers.
    """
    numbers, found = member.sort()
    at = torch.searchsorted(numbers, history.parent.clamp(min=0)).clamp(max=len(numbers) - 1)
    return torch.where(numbers[at] == history.parent, found[at], torch.arange(len(member)))


def ancestors(history: History, member: Tensor) -> Tensor:
    """(looks, n) int64, the place at each look of the member from which each descends."""
    went, way = sources(history, member), [torch.arange(len(member))]
    for source in went[:-1].flip(0):
        way.append(source[way[-1]])
    return torch.stack(way[: len(history)][::-1]) if len(history) else history.parent


def schedules(history: History, member: Tensor) -> dict[str, Tensor]:
    """`{name: (looks, n)}`, the settings that each was trained with until each look, by itself or by its ancestors."""
    way = ancestors(history, member)
    return {name: x.gather(1, way) for name, x in history.configs.items()}
