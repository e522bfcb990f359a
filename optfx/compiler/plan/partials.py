"""Where the numbers of reductions lie: for each reduction a row, which scalar work combines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from optfx.compiler.kernels.binding import Row
from optfx.compiler.members import Alone
from optfx.compiler.plan.others import Exchange, Others
from optfx.compiler.record.lazy import Partial, Slot
from optfx.compiler.record.levels import Level
from optfx.compiler.record.spaces import Sizes


class Share(NamedTuple):
    """What an owner has of a kernel."""

    slots: tuple[Slot, ...]
    partials: tuple[Partial, ...]
    others: Others | None
    rows: list[Row]  # none where its leaves have no elements
    sizes: list[Sizes]  # of their dimensions
    numbers: int  # how many numbers it gives to each partial


class Partials:
    """The numbers that kernels and events leave for scalar work.

    Args:
        like: for each partial a tensor of its dtype on its device; of an event's, it has the shape.
        shares: those of all kernels, each with its stage.
        members: whose they are.

    Attributes:
        rows: each partial.
        exchanges: what brings the numbers of other processes at the end of a stage.
    """

    def __init__(self, like: Sequence[Tensor], shares: Iterable[tuple[Level, Share]], members: Alone):
        numbers: dict[int, dict[Others | None, list[int]]] = defaultdict(lambda: defaultdict(list))
        levels: dict[int, Level] = {}
        for level, share in shares:
            for p in share.partials:
                numbers[p][share.others].append(share.numbers)
                levels[p] = level
        self.rows: list[Tensor] = []
        self.exchanges: dict[Level, list[Exchange]] = defaultdict(list)
        self._places: dict[tuple[int, Others | None], Iterator[Tensor]] = {}
        apart: dict[tuple[Level, Others, torch.device], list[tuple[int, Tensor]]] = defaultdict(list)
        for p, x in enumerate(like):
            parts = [sum(n) * (1 if others is None else others.count) for others, n in numbers[p].items()]
            shape = torch.Size([sum(parts)]) if parts else x.shape
            self.rows.append(torch.zeros(members.shape(shape), dtype=x.dtype, device=x.device))
            for (others, n), part in zip(
                numbers[p].items(), self.rows[-1].split(parts, -1) if parts else (), strict=True
            ):
                if others is None:
                    self._places[p, None] = iter(part.split(n, -1))
                else:
                    apart[levels[p], others, x.device].append((p, part.view(others.count, -1)))
        for (level, others, _), found in apart.items():
            exchange = Exchange(others, [part for _, part in found])
            self.exchanges[level].append(exchange)
            for (p, _), mine in zip(found, exchange.mine, strict=True):
                self._places[p, others] = iter(mine.split(numbers[p][others]))

    def places(self, share: Share) -> list[Tensor]:
        """Where the numbers of a share go, for each of its partials. Shares are asked for in their order."""
        return [next(self._places[p, share.others]) for p in share.partials]
