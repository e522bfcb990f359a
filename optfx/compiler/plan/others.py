"""Numbers of the parts that other processes have of sharded leaves: with them, a reduction is that of whole leaves.

The kernels of a stage leave the numbers of the parts here in one buffer, whatever they are: sums, norms, extremes. One
collective brings those of all processes, and scalar work combines them, as it combines those of several leaves. So
every process computes the same from the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.compiler.kernels.binding import CELL
from optfx.tree.sharded import Spread


class Others(NamedTuple):
    """The processes that have parts of a leaf: those along some dimensions of a mesh. Along the others all have the
    same."""

    mesh: Any
    dims: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many they are, this one included."""
        return torch.Size([self.mesh.size(d) for d in self.dims]).numel()


def others_of(spread: Spread | None) -> Others | None:
    """Who has other parts of a leaf; None if all of it is here."""
    if spread is None or not spread.shards:
        return None
    return Others(spread.mesh, spread.shards)


class Exchange:
    """The numbers of a stage that go to the same processes.

    Args:
        others: who has others.
        places: for each partial where its numbers belong, (processes, numbers).
    """

    def __init__(self, others: Others, places: Iterable[Tensor]):
        self.others, self._places = others, list(places)
        cells = [-(-x.shape[1] * x.element_size() // CELL) for x in self._places]
        self._mine = torch.zeros(CELL * sum(cells), dtype=torch.uint8, device=self._places[0].device)
        self._sent = found = self._mine.to(others.mesh.device_type)  # else where it is: gradients may be offloaded
        self._steps: list[tuple[Tensor, Tensor, Any]] = []
        for d in reversed(others.dims):
            mine, found = found, found.new_empty(others.mesh.size(d) * found.numel())
            self._steps.append((found, mine, others.mesh.get_group(d)))
        self.mine = [_numbers(x, like)[0] for x, like in self._parts(self._mine[None], cells)]
        """Where the kernels here leave them: for each partial (numbers,)."""
        self._sources = [_numbers(x, like) for x, like in self._parts(found.view(others.count, -1), cells)]
        self.numbers, self.collectives = sum(x.shape[1] for x in self._places), len(self._steps)

    def _parts(self, x: Tensor, cells: list[int]) -> Iterable[tuple[Tensor, Tensor]]:
        return zip(x.split([CELL * n for n in cells], 1), self._places, strict=True)

    def run(self) -> None:
        """One collective for each dimension of the mesh along which leaves are sharded."""
        if self._sent is not self._mine:
            self._sent.copy_(self._mine)
        for every, mine, group in self._steps:
            gather(every, mine, group)
        torch._foreach_copy_(self._places, self._sources)  # pyright: ignore[reportPrivateImportUsage]


def gather(every: Tensor, mine: Tensor, group: Any) -> None:
    """Bring what each process of a group has into one tensor, in the order of their ranks."""
    from torch import distributed

    name = "all_gather_single" if hasattr(distributed, "all_gather_single") else "all_gather_into_tensor"  # until 2.12
    getattr(distributed, name)(every, mine, group=group)


def _numbers(memory: Tensor, like: Tensor) -> Tensor:
    """The numbers (processes, n) that lie in some bytes."""
    return memory[:, : like.shape[1] * like.element_size()].view(like.dtype)
