"""A program over rows, columns and blocks, as launches.

What is done with each element is one launch, as in a `Loop`: where an element of a leaf that is broadcast lies follows
from the sizes of the dimensions that the leaves have in common. Each slim leaf that is made takes another launch: an
instance has some of its numbers, and goes over their elements in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch.fx import GraphModule, Node

from optfx.compiler.kernels.cpp.reductions import ALONG
from optfx.compiler.kernels.triton.expressions import pointer, stored
from optfx.compiler.kernels.triton.loop import ALIGNED, Launch, Loop, _lines
from optfx.compiler.kernels.triton.reductions import Accumulator, accumulator
from optfx.compiler.kernels.writer import name_of
from optfx.compiler.record.spaces import Mask, Sizes

RESULTS = 32  # that an instance has
TOGETHER = 32  # elements of each that it takes at a time


class Sums(NamedTuple):
    """Numbers that are made of rows."""

    of: Accumulator
    to: int  # which leaf they become


class Nest(Loop):
    """The kernels of a program: those of a `Loop`, and `along0`, `along1`, ... for numbers of rows.

    Args:
        gm: a graph of leaves, k places of parts, then scalars.
        masks: of the leaves.
        k: how many parts it has.
    """

    def __init__(self, gm: GraphModule, masks: Sequence[Mask], k: int):
        self.masks, self.ndim = masks, len(masks[0])
        self.along: list[Sums] = []
        super().__init__(gm, len(masks), k)

    def lengths(self, numbers: list[list[int]], sizes: list[Sizes]) -> list[int]:
        for own, found in zip(sizes, numbers, strict=True):  # Triton does not look: it would write anywhere
            assert found == [length(mask, own) for mask in self.masks]
        return [math.prod(own) for own in sizes]

    def add_statement(self, x: Node) -> None:
        if name_of(x) in ALONG and x.meta["val"].ndim:
            (store,) = x.users
            self.along.append(Sums(accumulator(x, self, axis=1), self.leaves.index(store.args[0])))  # type: ignore[arg-type]
        elif not (name_of(x) == "copy_" and name_of(x.args[1]) in ALONG and x.args[1].meta["val"].ndim):  # type: ignore[arg-type, union-attr]
            super().add_statement(x)

    # ---- the parts of the kernels ----------------------------------------------------------------

    def dimensions(self, dims: Sequence[int], at: str) -> list[str]:
        """The place along each of some dimensions, which an index goes over in the order of memory."""
        lines = [f"{at}_rest = {at}"]  # in a loop, a name may not become something of another shape
        for d in reversed(dims):
            lines += [f"i{d} = {at}_rest % n{d}", f"{at}_rest = {at}_rest // n{d}"]
        return lines

    def offset(self, mask: Mask) -> str:
        """Where an element of a leaf with this mask is, from its places along all dimensions."""
        found = ""
        for d in range(self.ndim):
            if mask[d]:
                found = f"({found}) * n{d} + i{d}" if found else f"i{d}"
        return found or "0"

    def sizes(self) -> list[str]:
        return [f"n{d} = tl.load(sizes + leaf * {self.ndim} + {d})" for d in range(self.ndim)]

    def place(self, j: int) -> str:
        return pointer(f"tl.load(P + {j} * leaves + leaf)", self.leaves[j].meta["val"].dtype)

    def loads(self) -> list[str]:
        lines = [*self.sizes(), *self.dimensions(range(self.ndim), "at")]
        for j in range(len(self.leaves)):
            lines.append(f"a{j} = {self.place(j)}")
            if all(self.masks[j]):
                lines.append(f"if ALIGNED:\n        a{j} = tl.multiple_of(a{j}, {ALIGNED})")
        return lines + self.reads("at * 0", "at")

    def reads(self, spread: str, full: str) -> list[str]:
        """What is read of each leaf, if that many places are those of a block, and these are those of a full leaf."""
        lines = []
        for j, x in enumerate(self.leaves):
            if x in self.read:
                at = full if all(self.masks[j]) else f"{spread} + {self.offset(self.masks[j])}"
                lines.append(self.read_from(j, at))
        return lines

    def more(self) -> str:
        return f"{super().more()}, sizes"

    def source(self) -> str:
        return super().source() + "".join(self.sum_source(k) for k in range(len(self.along)))

    def sum_source(self, k: int) -> str:
        """The kernel for numbers of rows."""
        r, to = self.along[k]
        mask, dtype = self.masks[to], self.leaves[to].meta["val"].dtype
        own, others = ([d for d in range(self.ndim) if mask[d] == which] for which in (True, False))
        product = lambda dims: " * ".join(f"n{d}" for d in dims) or "1"
        read = [f"a{j} = {self.place(j)}" for j, x in enumerate(self.leaves) if x in self.read or j == to]
        element = [
            "c = begin + tl.arange(0, TOGETHER)[None, :]",
            "inside = (at < results) & (c < count)",
            *self.dimensions(others, "c"),
            *self.reads("at * 0 + c * 0", self.offset((True,) * self.ndim)),
            *self.body,
            f"r = {r.of_block.format(f'tl.where(inside, {r.take}, {r.begin})')}",
            f"m = {r.merge.format('r', 'm')}",
        ]
        value = stored(r.end.format("m").replace("LENGTH", f"count.to({r.type})"), dtype)
        return f"""

@triton.jit
def along{k}(
    P, leaf_of, begin_of, owner_of, scalars{self.more()}, leaves, RESULTS: tl.constexpr, TOGETHER: tl.constexpr
):
    n = tl.program_id(0)
    leaf = tl.load(leaf_of + n)
    o = tl.load(owner_of + n)
    {_lines([*self.sizes(), *read, *self.row()])}
    results = {product(own)}
    count = {product(others)}
    first = tl.load(begin_of + n) + tl.arange(0, RESULTS)
    at = first[:, None]
    {_lines(self.dimensions(own, "at"))}
    m = tl.zeros((RESULTS,), {r.type}) + {r.begin}
    for begin in range(0, count, TOGETHER):
        {_lines(element, 8)}
    tl.store(a{to} + first, {value}, mask=first < results)
"""


class NestLaunch(Launch):
    """The kernels of a nest, bound to the leaves of some owners."""

    loop: Nest

    def __init__(self, loop: Nest, kernels: Any, owners: Any, values: Any, rebound: Any, members: Any):
        super().__init__(loop, kernels, owners, values, rebound, members)
        every = [own for owner in owners for own in owner.sizes]
        self.sizes = self.table([n for _ in range(members.count) for own in every for n in own])
        self.grids = []
        for _, to in loop.along:
            grid = [
                (j * self.count + i, at, j * len(owners) + self.owner_of[i])
                for j in range(members.count)
                for i, own in enumerate(every)
                for at in range(0, length(loop.masks[to], own), RESULTS)
            ]
            self.grids.append([self.table(column) for column in zip(*grid, strict=True)])

    def given(self) -> list[Any]:
        return [*super().given(), self.sizes]

    def run(self) -> None:
        if self.loop.stores or self.loop.places:
            super().run()
        elif self.moving or not self.addresses:
            self.look_up()
        places, leaves = self.places.send(self.addresses), self.count * self.members.count
        for k, grid in enumerate(self.grids):
            kernel = getattr(self.kernels, f"along{k}")
            kernel[(len(grid[0]),)](places, *grid, self.scalars, *self.tables, self.sizes, leaves, RESULTS, TOGETHER)


def length(mask: Mask, sizes: Sizes) -> int:
    return math.prod(n for n, own in zip(sizes, mask, strict=True) if own)
