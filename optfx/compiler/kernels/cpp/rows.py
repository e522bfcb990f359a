"""A program that makes numbers of short rows and uses them on the same rows, as several loops over each row.

A loop ends where a number of the row is wanted. What it has computed, and a later loop takes, lies in an array as long
as a row: to read it costs less than to compute it anew. Leaves are read again, and written by the last loop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from torch.fx import GraphModule, Node

from optfx.compiler.kernels.binding import Owned, Unsupported
from optfx.compiler.kernels.cpp.expressions import HEAD, ctype, load, stored
from optfx.compiler.kernels.cpp.loop import BLOCK, THREADS, _lines
from optfx.compiler.kernels.cpp.nest import Nest
from optfx.compiler.kernels.cpp.reductions import ALONG, Accumulator, accumulator
from optfx.compiler.kernels.program import SHORT
from optfx.compiler.kernels.writer import is_packed, name_of
from optfx.compiler.record.spaces import Mask


def uses_rows(gm: GraphModule) -> bool:
    """Whether a program uses what it makes of rows, beyond storing it."""
    made = [x for x in gm.graph.nodes if name_of(x) in ALONG and x.meta["val"].ndim]
    return any(name_of(u) != "copy_" for x in made for u in x.users)


class Rows(Nest):
    """The function of a program: that of a `Nest`.

    Args:
        gm: a graph of leaves, then scalars.
        masks: of the leaves.
        k: how many parts it has, which is none.
    """

    def __init__(self, gm: GraphModule, masks: Sequence[Mask], k: int):
        self.turn: dict[Node, int] = defaultdict(int)  # of each node, how many numbers of a row come before it
        self.bodies: dict[int, list[str]] = defaultdict(list)  # of an element, turn by turn
        self.before: dict[int, list[str]] = defaultdict(list)  # of a row, before the loop
        self.sums_of: dict[int, list[tuple[str, Accumulator]]] = defaultdict(list)
        self.keeps_of: dict[int, list[str]] = defaultdict(list)
        self.arrays: dict[Node, str] = {}
        self.taken: dict[int, dict[Node, None]] = defaultdict(dict)  # what a loop reads
        self.last: list[str] = []  # of a row, at its end
        self.writes: list[tuple[Node, Node, str]] = []
        super().__init__(gm, masks, k)
        for to, y, text in self.writes:  # when nobody reads what was there
            turn = max(self.turn[y], *(t for t, taken in self.taken.items() if to in taken), 0)
            self._take(turn, y)
            self.keeps_of[turn].append(text)
        if self.along or self.places:
            raise Unsupported("a number of other leaves beside numbers of rows")

    def extent(self, numbers: list[list[int]], owners: list[Owned]) -> list[int]:
        assert all(sizes[-1] <= SHORT for owner in owners for sizes in owner.sizes)  # C++ does not look
        return super().extent(numbers, owners)

    # ---- statements ------------------------------------------------------------------------------

    def add_statement(self, x: Node) -> None:
        if name_of(x) == "copy_":
            self.add_store(x.args[0], x.args[1])  # type: ignore[arg-type]
            return
        turn = self.turn[x] = max((self.turn[a] for a in x.all_input_nodes), default=0)
        if _is_of_row(x) and name_of(x) in ALONG:
            self._take(turn, x.args[0])  # type: ignore[arg-type]
            y, found = f"y{len(self.names)}", accumulator(x, self)
            self.sums_of[turn].append((y, found))
            self.turn[x], self.names[x] = turn + 1, f"t{len(self.names)}"
            end = found.end.format(f"{y}_all").replace("LENGTH", self.row_length())
            T = ctype(x.meta["val"].dtype)
            self.before[turn + 1] += [f"{found.type} {y}_all = {found.begin};", found.merged(f"{y}_all", y)]
            self.before[turn + 1] += [f"const {T} {self.names[x]} = {T}({end});"]
        elif _is_of_row(x):
            self.before[turn].append(self.define(x))
        else:
            for a in x.all_input_nodes:
                self._take(turn, a)
            self.bodies[turn].append(self.define(x))

    def _take(self, turn: int, a: Node) -> None:
        """Let a loop read what is of an element."""
        if _is_of_element(a) and (self.turn[a] < turn or a in self.leaves):
            self.taken[turn][a] = None
            if a not in self.leaves and a not in self.arrays:
                self.arrays[a] = f"k{len(self.arrays)}"
                self.bodies[self.turn[a]].append(f"{self.arrays[a]}[i] = {self.names[a]};")

    def add_store(self, to: Node, y: Node) -> None:
        dtype, j = to.meta["val"].dtype, self.leaves.index(to)
        rounded = isinstance(y, Node) and y.meta["val"].dtype == dtype
        value = stored(self.value(y, ctype(dtype)), dtype, rounded)
        if self.masks[j][-1]:
            self.writes.append((to, y, f"{self.element_of(j)} = {value};"))
        else:
            self.last.append(f"b{j}[0] = {value};")

    # ---- the parts of the function ---------------------------------------------------------------

    def element_of(self, j: int) -> str:
        return f"h{j}[i]" if is_packed(self.leaves[j]) else super().element_of(j)

    def loads(self, turn: int) -> list[str]:
        lines = []
        for a in self.taken[turn]:
            dtype, name = a.meta["val"].dtype, self.names[a]
            value = self.arrays[a] + "[i]" if a in self.arrays else load(self.element_of(self.leaves.index(a)), dtype)
            lines.append(f"const {ctype(dtype)} {name} = {value};")
        return lines

    @property
    def turns(self) -> int:
        return max(self.turn.values())

    def over_row(self, turn: int) -> list[str]:
        """A loop over the row."""
        n, sums = self.row_length(), self.sums_of[turn]
        block = f"at + {BLOCK} < {n} ? at + {BLOCK} : {n}" if sums or not turn else n  # there is more to do between two
        clauses = [f" reduction({r.clause} : {y})" for y, r in sums if r.clause is not None]
        element = [*self.loads(turn), *self.bodies[turn], *(r.taken(y) for y, r in sums), *self.keeps_of[turn]]
        return [
            *self.before[turn],
            *(r.begun(y, n) for y, r in sums),
            f"for (int64_t at = 0; at < {n};) {{",
            f"  const int64_t e = {block};",
            *(f"  {line}" for line in (self.fetches() if not turn else [])),
            f"  #pragma omp simd{''.join(clauses)}",
            "  for (int64_t i = at; i < e; ++i) {",
            *(f"    {line}" for line in element),
            "  }",
            "  at = e;",
            "}",
        ]

    def source(self) -> str:
        arrays = [f"{ctype(a.meta['val'].dtype)} {name}[{SHORT}];" for a, name in self.arrays.items()]
        n = self.row_length()
        loops = [line for turn in range(self.turns + 1) for line in self.over_row(turn)]
        outer = [f"for (int64_t i{d} = 0; i{d} < n{d}; ++i{d})" for d in range(1, self.ndim - 1)]
        text = f"""{HEAD}
{self.declared()}
{self.begin()}
  #pragma omp parallel for schedule(dynamic) num_threads(threads) if (total * members > {THREADS})
  for (int64_t u = 0; u < members * parts_of; ++u) {{
    const int64_t j = u / parts_of, n = u % parts_of;
    const int64_t *const part = todo + 5 * n, l = part[0], o = part[1], from = part[3], to = part[4];
    {self.sizes()}
    {_lines(4, self.row() + self.pointers() + arrays)}
    {_lines(4, ["for (int64_t i0 = from; i0 < to; ++i0)", *outer])} {{
      {_lines(6, [*self.row_begins(), *self.unpacked("0", n, SHORT), *loops, *self.packed("0", n), *self.last])}
    }}
  }}
  return 0;
}}
"""
        return "\n".join(line for line in text.splitlines() if line.strip())


def _is_of_row(x: Node) -> bool:
    shape = x.meta["val"].shape
    return len(shape) > 0 and shape[-1] == 1


def _is_of_element(x: Node) -> bool:
    shape = x.meta["val"].shape
    return len(shape) > 0 and shape[-1] != 1
