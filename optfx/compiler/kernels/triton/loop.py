"""A program as one launch for the elements of all leaves.

Each instance of the kernel does a block of one leaf. Tables say which leaf and where in it, where the leaves lie, and
where the scalars of their owner are, so that leaves of all sizes and owners, and all members, take one launch. A sum is
kept for each block, and a second launch, with an instance for each owner, adds them in their order: the result does not
depend on which block was done first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from optfx.compiler.kernels.binding import CELL, Bound, Owned, Unsupported, lengths_of
from optfx.compiler.kernels.cpp.reductions import REDUCTIONS
from optfx.compiler.kernels.triton.build import Table, module
from optfx.compiler.kernels.triton.expressions import Writer, loaded, pointer, stored, type_of
from optfx.compiler.kernels.triton.reductions import Accumulator, accumulator
from optfx.compiler.kernels.writer import is_packed, name_of
from optfx.compiler.members import Alone
from optfx.compiler.record.inputs import Input
from optfx.compiler.record.spaces import Mask, Sizes

BLOCK = 1024  # elements that an instance does
TOGETHER = 1024  # blocks whose sums are added at a time
ALIGNED = 16  # bytes


def launcher(gm: GraphModule, masks: Sequence[Mask], k: int, compilers: Any) -> Callable[..., Bound]:
    """The `launch` of a kernel: one call for the leaves of all owners."""
    from optfx.compiler.kernels.triton.nest import Nest, NestLaunch  # which stands on this file

    is_flat = all(map(all, masks))
    loop = Loop(gm, len(masks), k) if is_flat else Nest(gm, masks, k)
    kernels = module(loop.source())

    def launch(owners: list[Owned], values: list[Tensor], rebound: set[Input], members: Alone) -> Bound:
        given = kernels, owners, values, rebound, members
        return (NestLaunch(loop, *given) if isinstance(loop, Nest) else Launch(loop, *given)).bound()

    return launch


class Launch:
    """A kernel, bound to the leaves of some owners. A leaf, and an owner, of another member is another one."""

    def __init__(
        self, loop: Loop, kernels: Any, owners: list[Owned], values: list[Tensor], rebound: set[Input], members: Alone
    ):
        self.loop, self.kernels, self.values, self.members = loop, kernels, values, members
        self.rows = [row for owner in owners for row in owner.rows]
        numbers = [lengths_of(row, loop.leaves, values, members) for row in self.rows]
        self.count, self.lengths = len(self.rows), loop.lengths(numbers, [s for o in owners for s in o.sizes])
        self.device = values[self.rows[0][0]].device
        self.width = len(self.rows[0])
        self.moving = [i for row in self.rows for i in row if i in rebound]
        of = self.owner_of = [o for o, owner in enumerate(owners) for _ in owner.rows]
        grid, ends = [], []
        for j in range(members.count):
            for i, length in enumerate(self.lengths):
                begin, owner = len(grid), j * len(owners) + of[i]
                grid += [(j * self.count + i, at, owner) for at in range(0, length, BLOCK)]
                ends.append((begin, len(grid), owner))
        self.blocks, self.owners = len(grid), len(owners) * members.count
        table = self.table
        self.leaf, self.begin, self.owner = (table(column) for column in zip(*grid, strict=True))
        self.all_lengths = Table(self.count * members.count, self.device)
        firsts = [min(b for b, _, o in ends if o == owner) for owner in range(self.owners)]
        lasts = [max(e for _, e, o in ends if o == owner) for owner in range(self.owners)]
        self.first, self.last = table(firsts), table(lasts)
        scalars = [x for o in owners for x in o.scalars[:1]]
        self.memory = scalars, [x for o in owners for x in o.partials]  # which stay as long as their addresses
        each = range(members.count)
        cell = [x.data_ptr() + j * members.apart(x) for j in each for x in scalars] or [0] * self.owners
        self.scalars = table(cell)
        parts = self.memory[1]
        self.parts = table([x.data_ptr() + j * members.apart(x) for j in each for x in parts] or [0])
        self.sums = [torch.zeros(self.blocks, dtype=d, device=self.device) for d in loop.sum_dtypes()]
        self.tables = [torch.tensor(x, dtype=dtype, device=self.device) for x, dtype in loop.tables]
        self.places = Table(self.width * self.count * members.count, self.device)
        self.addresses: list[int] = []
        self.left_out: Set[Input] = frozenset()

    def table(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)

    def bound(self) -> Bound:
        alone = not self.loop.places and type(self) is Launch
        return Bound(self.run, self.look_up, self.leave_out if alone else None)

    def look_up(self) -> None:
        values, members = self.values, self.members
        columns = list(zip(*self.rows, strict=True))
        self.addresses = [
            values[i].data_ptr() + j * members.apart(values[i])
            for column in columns
            for j in range(members.count)
            for i in column
        ]

    def leave_out(self, inputs: Set[Input]) -> None:
        """Those rows have no elements, as far as the kernel knows."""
        self.left_out = inputs

    def given(self) -> list[Tensor]:
        """Where each block is, and what it takes."""
        return [self.leaf, self.begin, self.owner, self.scalars, *self.tables]

    def run(self) -> None:
        if self.moving or not self.addresses:
            self.look_up()
        now = [n if self.left_out.isdisjoint(row) else 0 for row, n in zip(self.rows, self.lengths, strict=True)]
        lengths = self.all_lengths.send(now * self.members.count)
        places, leaves = self.places.send(self.addresses), self.count * self.members.count
        aligned = all(x % ALIGNED == 0 for x in self.addresses)
        self.kernels.run[(self.blocks,)](places, lengths, *self.given(), *self.sums, leaves, BLOCK, aligned)
        if self.loop.places:
            self.kernels.finish[(self.owners,)](self.first, self.last, self.scalars, self.parts, *self.sums, TOGETHER)


class Loop(Writer):
    """The two kernels of a program: `run`, with an instance for each block, and `finish`, with one for each owner.

    Args:
        gm: a graph of n leaves, k places of parts, then scalars, all but the leaves ().
        n: how many leaves the program takes.
        k: how many parts it has.
    """

    def __init__(self, gm: GraphModule, n: int, k: int):
        super().__init__()
        inputs = [x for x in gm.graph.nodes if x.op == "placeholder"]
        self.leaves, self.places, self.scalars = inputs[:n], inputs[n : n + k], inputs[n + k :]
        work = [x for x in gm.graph.nodes if x.op not in ("placeholder", "output") and name_of(x) != "sym_size"]
        if others := [x.op for x in work if x.op != "call_function"]:
            raise Unsupported(others[0])
        self.read = [x for x in self.leaves if any(name_of(u) != "copy_" or u.args[0] is not x for u in x.users)]
        self.body: list[str] = []  # of a block
        self.takes: list[str] = []  # what is made of it
        self.stores: list[str] = []  # after it, for another leaf may be read from what is written
        self.sums: list[Accumulator] = []
        self.ends: list[str] = []  # what is made of an owner's sums
        self.tables: dict[tuple[tuple[float, ...], torch.dtype], str] = {}  # their names
        self.names |= {x: f"s{j}" for j, x in enumerate(self.scalars)}
        self.names |= {x: f"x{j}" for j, x in enumerate(self.leaves) if x in self.read}
        for x in work:
            self.add_statement(x)

    def lengths(self, numbers: list[list[int]], sizes: list[Sizes]) -> list[int]:
        """How long leaves are, of which these are the numbers of elements, in each role the same."""
        assert all(len({*own}) == 1 for own in numbers)  # Triton does not look: it would write anywhere
        return [own[0] for own in numbers]

    def add_statement(self, x: Node) -> None:
        value = x.meta["val"]
        if name_of(x) == "copy_":
            self.add_store(x.args[0], x.args[1])  # type: ignore[arg-type]
        elif name_of(x) in REDUCTIONS and not value.ndim and x.args[0].meta["val"].ndim:  # type: ignore[union-attr]
            j, found = len(self.sums), accumulator(x, self)
            self.sums.append(found)
            self.names[x] = f"e{j}"
            self.takes.append(f"r{j} = tl.where(inside, {found.take}, {found.begin})")
            self.ends.append(f"e{j} = {found.end.format(f'm{j}')}")
        else:
            (self.body if value.ndim else self.ends).append(self.define(x))

    def add_store(self, to: Node, y: Node) -> None:
        dtype = to.meta["val"].dtype
        value = stored(self.value(y, type_of(dtype)), dtype)
        if to in self.leaves:
            a = f"a{self.leaves.index(to)}"
            packs = f"pack({a}, at, inside, {value}, BLOCK // 2)"
            self.stores.append(packs if is_packed(to) else f"tl.store({a} + at, {value}, mask=inside)")
        else:
            k = f"o * {len(self.places)} + {self.places.index(to)}"
            place = pointer(f"tl.load(parts + {k})", dtype)
            self.ends.append(f"tl.store({place}, {value})")

    def look_up(self, node: Node, T: str) -> str:
        at, numbers, dtype = node.args
        return f"tl.load({self.table(node, numbers, dtype)} + {self.value(at, 'tl.int32')})"

    def place_among(self, node: Node, T: str) -> str:
        x, limits = node.args
        dtype = x.meta["val"].dtype  # type: ignore[union-attr]
        table = self.table(node, limits, dtype)
        return f"place({table}, {self.value(x, type_of(dtype))}, {len(limits).bit_length()})"  # type: ignore[arg-type]

    def table(self, node: Node, numbers: Any, dtype: Any) -> str:
        if not node.meta["val"].ndim:
            raise Unsupported(f"{node.target} of a number")
        return self.tables.setdefault((tuple(numbers), dtype), f"table{len(self.tables)}")

    written_by = Writer.written_by | {"look_up": "look_up", "place": "place_among"}

    def sum_dtypes(self) -> list[torch.dtype]:
        return [getattr(torch, r.type.removeprefix("tl.")) for r in self.sums]

    # ---- the parts of the kernels ----------------------------------------------------------------

    def row(self) -> list[str]:
        """The scalars of owner o."""
        lines = ["row = tl.load(scalars + o)"]
        for j, x in enumerate(self.scalars):
            dtype = x.meta["val"].dtype
            place = pointer(f"row + {j * CELL}", dtype)
            lines.append(f"s{j} = {loaded(f'tl.load({place})', dtype)}")
        return lines

    def read_from(self, j: int, at: str) -> str:
        """The statement that reads elements of a leaf."""
        x = self.leaves[j]
        if is_packed(x):
            return f"x{j} = unpacked(a{j}, {at}, inside)"
        return f"x{j} = {loaded(f'tl.load(a{j} + {at}, mask=inside, other=0)', x.meta['val'].dtype)}"

    def loads(self) -> list[str]:
        lines = []
        for j, x in enumerate(self.leaves):
            place = pointer(f"tl.load(P + {j} * leaves + leaf)", x.meta["val"].dtype)
            lines.append(f"a{j} = {place}")
            lines += [f"if ALIGNED:\n        a{j} = tl.multiple_of(a{j}, {ALIGNED})"]
        return [*lines, *(self.read_from(j, "at") for j, x in enumerate(self.leaves) if x in self.read)]

    def more(self) -> str:
        """What kernels are given after scalars."""
        return "".join(f", {name}" for name in self.tables.values())

    def source(self) -> str:
        sums = "".join(f", sums{k}" for k in range(len(self.sums)))
        keep = [f"tl.store(sums{k} + n, {r.of_block.format(f'r{k}')})" for k, r in enumerate(self.sums)]
        run = [*self.loads(), *self.row(), *self.body, *self.takes, *self.stores, *keep]
        text = f"""

@triton.jit
def run(
    P, lengths, leaf_of, begin_of, owner_of, scalars{self.more()}{sums}, leaves,
    BLOCK: tl.constexpr, ALIGNED: tl.constexpr
):
    n = tl.program_id(0)
    leaf = tl.load(leaf_of + n)
    o = tl.load(owner_of + n)
    at = tl.load(begin_of + n) + tl.arange(0, BLOCK)
    inside = at < tl.load(lengths + leaf)
    {_lines(run)}
"""
        return text + self.finish(sums)

    def finish(self, sums: str) -> str:
        """What each owner gives to reductions."""
        if not self.places:
            return ""
        begin = [f"m{k} = {r.begin}" for k, r in enumerate(self.sums)]
        merge = []
        for k, r in enumerate(self.sums):
            every = f"tl.where(c < last, tl.load(sums{k} + c, mask=c < last, other=0), {r.begin})"
            merge.append(f"m{k} = {r.merge.format(f'm{k}', r.of_block.format(every))}")
        return f"""

@triton.jit
def finish(first_of, last_of, scalars, parts{sums}, TOGETHER: tl.constexpr):
    o = tl.program_id(0)
    first = tl.load(first_of + o)
    last = tl.load(last_of + o)
    {_lines(self.row())}
    {_lines(begin)}
    for at in range(first, last, TOGETHER):
        c = at + tl.arange(0, TOGETHER)
        {_lines(merge, 8)}
    {_lines(self.ends)}
"""


def _lines(lines: list[str], indent: int = 4) -> str:
    return f"\n{' ' * indent}".join(lines or ["pass"])
