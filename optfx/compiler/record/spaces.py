"""How the elements of a leaf are seen: as rows and columns, or blocks, which are dimensions in the order of memory."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Hashable, Iterable, Sequence

Sizes = tuple[int, ...]
"""The sizes of dimensions, without those of size 1; none where nobody asks for rows or columns."""


Mask = tuple[bool, ...]
"""Of a leaf in a loop, along which of its dimensions it has elements of its own."""


def padded(shape: Sequence[int], ndim: int) -> Sizes:
    """A shape with as many dimensions as the one that it is broadcast to."""
    return (1,) * (ndim - len(shape)) + tuple(shape)


def cut(shape: Sequence[int], *others: Sequence[int]) -> tuple[Sizes, list[Mask]]:
    """The dimensions of a shape, in as few as do for leaves that are broadcast to it, and the masks of those leaves."""
    rows = [padded(other, len(shape)) for other in others]
    kinds = [(n, tuple(row[d] == n for row in rows)) for d, n in enumerate(shape) if n != 1]
    runs = [(math.prod(n for n, _ in run), kind) for kind, run in itertools.groupby(kinds, operator.itemgetter(1))]
    return tuple(n for n, _ in runs), [tuple(kind[k] for _, kind in runs) for k in range(len(rows))]


def masked(mask: Mask, sizes: Sizes, finer: Sizes) -> Mask:
    """A mask of dimensions, as one of the finer ones that they are made of."""
    found, rest = [], list(finer)
    for n, own in zip(sizes, mask, strict=True):
        length = 1
        while length < n or (not n and length):
            length *= rest.pop(0)
            found.append(own)
    return tuple(found)


def refined(a: Sizes, b: Sizes) -> Sizes | None:
    """The fewest dimensions of which those of both are made; None if there are none, as for rows of 6 and of 4."""
    if not a or not b or a == b:
        return a or b
    if 0 in a or 0 in b:
        return None
    ends = [1, *sorted({n for sizes in (a, b) for n in itertools.accumulate(sizes[::-1], operator.mul)})]
    steps = list(itertools.pairwise(ends))
    return None if any(n % m for m, n in steps) else tuple(n // m for m, n in steps)[::-1]


class Spaces:
    """Which leaves one loop goes over, and the dimensions that it has. Leaves are named by what they come from."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}  # of a forest with a tree for each loop
        self._sizes: dict[Hashable, Sizes] = {}

    def _top(self, x: Hashable) -> Hashable:
        while x in self._above:
            x = self._above[x]
        return x

    def join(self, leaves: Iterable[Hashable], sizes: Sizes = ()) -> bool:
        """Let one loop go over leaves, with dimensions that those of these sizes are made of. False, and nothing has
        changed, if they do not fit those that are needed already."""
        tops, found = {self._top(x): None for x in leaves}, sizes
        for top in tops:
            both = refined(found, self._sizes.get(top, ()))
            if both is None:
                return False
            found = both
        first, *others = tops
        self._above |= dict.fromkeys(others, first)
        self._sizes[first] = found
        return True
