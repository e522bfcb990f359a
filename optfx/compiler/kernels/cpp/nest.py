"""A program over rows, columns and blocks, as nested loops over the dimensions that the leaves have in common.

A leaf that is broadcast along a dimension does not move with it. So what the innermost loop sees of it is one number,
or a row beside the others. What makes numbers of rows adds them up in a buffer: in one number if the rows lie along the
innermost loop, else element by element.

A large leaf is cut along its first dimension into parts, which do not depend on the number of threads. What lies across
the parts is added up part by part, in their order, when all are done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch.fx import GraphModule, Node

from optfx.compiler.kernels.binding import Owned
from optfx.compiler.kernels.cpp.expressions import HEAD, IN_MEMORY, ctype, load, stored
from optfx.compiler.kernels.cpp.loop import AHEAD, BLOCK, LINE, THREADS, Loop, _lines
from optfx.compiler.kernels.cpp.nibbles import bytes_to
from optfx.compiler.kernels.cpp.reductions import ALONG, Accumulator, accumulator
from optfx.compiler.kernels.writer import name_of
from optfx.compiler.record.spaces import Mask, Sizes

PART = 32768  # elements that a part has at least
ACROSS = 64  # and so many times what it adds up for rows that lie across the parts
PARTS = 64  # of one leaf, at most


class Sums(NamedTuple):
    """Numbers that are made of rows."""

    of: Accumulator
    to: int  # which leaf they become


class Nest(Loop):
    """The function of a program: that of a `Loop`, but for a table `G` in the place of `ends`.

    The table has the number of parts, and that of all elements; the sizes of each leaf; of each part its leaf, owner,
    number in its leaf, and where it begins and ends; and for each of the sums, where those of a leaf begin in a buffer,
    and the length of it.

    Args:
        gm: a graph of leaves, k places of parts, then scalars.
        masks: of the leaves.
        k: how many parts it has.
    """

    base = "b"

    def __init__(self, gm: GraphModule, masks: Sequence[Mask], k: int):
        self.masks, self.ndim = masks, len(masks[0])
        self.along: list[Sums] = []
        self.keeps: list[str] = []  # what is done with an element at last
        super().__init__(gm, len(masks), k)

    def extent(self, numbers: list[list[int]], owners: list[Owned]) -> list[int]:
        every = [sizes for owner in owners for sizes in owner.sizes]
        for sizes, own in zip(every, numbers, strict=True):  # C++ does not look: it would write anywhere
            assert own == [_length(mask, sizes) for mask in self.masks]
        of = [o for o, owner in enumerate(owners) for _ in owner.rows]
        across = [self.masks[s.to] for s in self.along if not self.masks[s.to][0]]
        parts, counts = [], []
        for leaf, sizes in enumerate(every):
            least = max([PART, *(ACROSS * _length(mask, sizes) for mask in across)])
            n = counts_of(sizes, least)
            counts.append(n)
            step = 2 if self.ndim == 1 else 1  # two numbers in a byte are not parted
            ends = [*(sizes[0] * p // n // step * step for p in range(n)), sizes[0]]
            parts += [(leaf, of[leaf], p, ends[p], ends[p + 1]) for p in range(n)]
        table = [len(parts), sum(map(math.prod, every))]
        table += [n for sizes in every for n in sizes] + [x for part in parts for x in part]
        for sums in self.along:
            mask, at = self.masks[sums.to], [0]
            for n, sizes in zip(counts, every, strict=True):
                at.append(at[-1] + _length(mask, sizes) * (1 if mask[0] else n))
            table += at
        return table

    # ---- statements ------------------------------------------------------------------------------

    def add_statement(self, x: Node) -> None:
        if name_of(x) in ALONG and x.meta["val"].ndim:
            (store,) = x.users
            self.along.append(Sums(accumulator(x, self), self.leaves.index(store.args[0])))  # type: ignore[arg-type]
            self.body.append(self._take(len(self.along) - 1))
        elif not (name_of(x) == "copy_" and name_of(x.args[1]) in ALONG and x.args[1].meta["val"].ndim):  # type: ignore[union-attr, arg-type]
            super().add_statement(x)

    def add_store(self, to: Node, y: Node) -> None:
        if to not in self.leaves:
            return super().add_store(to, y)
        dtype = to.meta["val"].dtype
        self.keeps.append(f"{self.element_of(self.leaves.index(to))} = {stored(self.value(y, ctype(dtype)), dtype)};")

    def _take(self, k: int) -> str:
        """What sum k does with an element."""
        r, to = self.along[k]
        return r.take.format(f"c{k}[i]") if self.masks[to][-1] else r.taken(f"y{k}")

    # ---- the parts of the function ---------------------------------------------------------------

    def offset(self, mask: Mask, first: str = "i0") -> str:
        """Where the row of the innermost loop begins in a leaf with this mask; the first index may be another."""
        found = ""
        for d in range(self.ndim):
            if mask[d]:
                index = "0" if d == self.ndim - 1 else first if d == 0 else f"i{d}"
                found = f"({found}) * n{d} + {index}" if found else index
        return found or "0"

    def length(self, mask: Mask, begin: int = 0) -> str:
        return " * ".join(f"n{d}" for d in range(begin, self.ndim) if mask[d]) or "1"

    def row_length(self) -> str:
        """How many elements the innermost loop goes over."""
        return f"n{self.ndim - 1}" if self.ndim > 1 else "(to - from)"

    def sizes(self) -> str:
        return "".join(f"const int64_t n{d} = sizes[l * {self.ndim} + {d}]; " for d in range(self.ndim))

    def pointers(self) -> list[str]:
        lines = []
        for j, x in enumerate(self.leaves):
            if x in self.read or x in self.written:
                T = f"{'' if x in self.written else 'const '}{IN_MEMORY[x.meta['val'].dtype]}"
                k = f"{j} * leaves + l"
                lines.append(f"{T}* const a{j} = ({T}*)((char*)P[{k}] + j * dP[{k}]);")
        return lines

    def buffers(self) -> list[str]:
        """Where a part adds up, and that nothing is there yet."""
        lines = []
        for k, (r, to) in enumerate(self.along):
            mask, T = self.masks[to], r.type
            begin = f"from * ({self.length(mask, 1)})" if mask[0] else f"p * ({self.length(mask)})"
            length = f"(to - from) * ({self.length(mask, 1)})" if mask[0] else self.length(mask)
            lines.append(f"{T}* const q{k} = w{k} + j * at{k}[leaves] + at{k}[l] + {begin};")
            lines.append(f"for (int64_t i = 0; i < {length}; ++i) q{k}[i] = {r.begin};")
        return lines

    def row_begins(self) -> list[str]:
        """What is the same along the innermost loop."""
        lines = []
        for j, x in enumerate(self.leaves):
            if x in self.read or (x in self.written and not self._is_sum(j)):
                lines.append(f"auto* const b{j} = a{j} + {bytes_to(x, self.offset(self.masks[j]))};")
            if x in self.read and not self.masks[j][-1]:
                dtype = x.meta["val"].dtype
                lines.append(f"const {ctype(dtype)} x{j} = {load(f'b{j}[0]', dtype)};")
        for k, (r, to) in enumerate(self.along):
            lines.append(f"{r.type}* const c{k} = q{k} + {self.offset(self.masks[to], '(i0 - from)')};")
            if not self.masks[to][-1]:
                lines.append(r.begun(f"y{k}", self.row_length()))
        return lines

    def row_ends(self) -> list[str]:
        return [r.merged(f"*c{k}", f"y{k}") for k, (r, to) in enumerate(self.along) if not self.masks[to][-1]]

    def _is_sum(self, j: int) -> bool:
        return any(s.to == j for s in self.along)

    def element(self) -> list[str]:
        loads = []
        for j, x in enumerate(self.leaves):
            if x in self.read and self.masks[j][-1]:
                dtype = x.meta["val"].dtype
                loads.append(f"const {ctype(dtype)} x{j} = {load(self.element_of(j), dtype)};")
        return [*loads, *self.body, *self.keeps]

    def fetches(self) -> list[str]:
        return [
            f"__builtin_prefetch((const char*)(b{j} + {bytes_to(x, 'at')}) + {AHEAD + line});"
            for j, x in enumerate(self.leaves)
            if x in self.read and all(self.masks[j])
            for line in range(0, BLOCK * x.meta["val"].dtype.itemsize, LINE)
        ]

    def simd(self) -> str:
        rows = [(f"y{k}", r) for k, (r, to) in enumerate(self.along) if not self.masks[to][-1]]
        sums = [f" reduction({r.clause} : {name})" for name, r in rows if r.clause is not None]
        return super().simd() + "".join(sums)

    def finish_rows(self) -> str:
        """What is made of sums when all parts are done."""
        if not self.along:
            return ""
        lines = []
        for k, (r, to) in enumerate(self.along):
            mask, dtype = self.masks[to], self.leaves[to].meta["val"].dtype
            count = "1" if mask[0] else f"(at{k}[l + 1] - at{k}[l]) / N"
            slim = " * ".join(f"n{d}" for d in range(self.ndim) if not mask[d])
            value = stored(f"({ctype(dtype)})({r.end.format('m').replace('LENGTH', f'({slim})')})", dtype)
            lines += [
                "{",
                f"  const int64_t N = {self.length(mask)}, count = N ? {count} : 0;",
                f"  const {r.type}* const q = w{k} + j * at{k}[leaves] + at{k}[l];",
                "  for (int64_t i = 0; i < N; ++i) {",
                f"    {r.type} m = {r.begin};",
                f"    for (int64_t c = 0; c < count; ++c) {{ {r.merge.format('m', 'q[c * N + i]')} }}",
                f"    a{to}[i] = {value};",
                "  }",
                "}",
            ]
        return f"""
    #pragma omp for schedule(static) nowait
    for (int64_t u = 0; u < members * leaves; ++u) {{
      const int64_t j = u / leaves, l = u % leaves;
      {self.sizes()}
      {_lines(6, [line for line in self.pointers() if any(f" a{s.to} " in line for s in self.along)])}
      {_lines(6, lines)}
    }}"""

    def begin(self) -> str:
        """The beginning of the function: what it takes, and where that says which parts of leaves are to be done."""
        return f"""\
extern "C" int run(int64_t members, int64_t leaves, const int64_t* G, void* const* P, const int64_t* dP,
                    int64_t owners, const int64_t* until, void* const* scalars, int64_t dS,
                    void* const* parts, const int64_t* dR, int64_t threads) {{
  const int64_t parts_of = G[0], total = G[1];
  const int64_t *const sizes = G + 2, *const todo = sizes + leaves * {self.ndim};"""

    def source(self) -> str:
        ndim = self.ndim
        every = [f"Numbers<{r.type}> p{k}(members * parts_of, {r.begin});" for k, r in enumerate(self.sums)]
        keep = [r.merged(f"p{k}[j * parts_of + n]", f"r{k}") for k, r in enumerate(self.sums)]
        tables = [
            f"const int64_t* const at{k} = todo + 5 * parts_of + {k} * (leaves + 1);" for k in range(len(self.along))
        ]
        buffers = [
            f"{r.type}* const w{k} = ({r.type}*)__builtin_malloc(members * at{k}[leaves] * sizeof({r.type}));"
            for k, (r, _) in enumerate(self.along)
        ]
        free = [f"__builtin_free(w{k});" for k in range(len(self.along))]
        fresh = [r.begun(f"r{k}", self.row_length()) for k, r in enumerate(self.sums)]
        outer = ["for (int64_t i0 = from; i0 < to; ++i0)"] if ndim > 1 else []
        outer += [f"for (int64_t i{d} = 0; i{d} < n{d}; ++i{d})" for d in range(1, ndim - 1)]
        ends = ("0", f"n{ndim - 1}") if ndim > 1 else ("from", "to")
        text = f"""{HEAD}
{self.declared()}
{self.begin()}
  {_lines(2, tables + buffers + every)}
  #pragma omp parallel num_threads(threads) if (total * members > {THREADS})
  {{
    #pragma omp for schedule(dynamic){"" if self.along else " nowait"}
    for (int64_t u = 0; u < members * parts_of; ++u) {{
      const int64_t j = u / parts_of, n = u % parts_of;
      const int64_t *const part = todo + 5 * n, l = part[0], o = part[1], p = part[2], from = part[3], to = part[4];
      {self.sizes()}
      {_lines(6, self.row() + self.pointers() + self.buffers() + fresh)}
      {_lines(6, outer)} {{
        {_lines(8, self.row_begins())}
        for (int64_t at = {ends[0]}; at < {ends[1]};) {{
          const int64_t e = at + {BLOCK} < {ends[1]} ? at + {BLOCK} : {ends[1]};
          {_lines(10, self.fetches())}
          {_lines(10, self.unpacked())}
          {self.simd()}
          for (int64_t i = at; i < e; ++i) {{
            {_lines(12, self.element())}
          }}
          {_lines(10, self.packed())}
          at = e;
        }}
        {_lines(8, self.row_ends())}
      }}
      {_lines(6, keep)}
    }}
    {self.finish_rows()}
  }}
  {self.finish()}
  {_lines(2, free)}
  return 0;
}}
"""
        return "\n".join(line for line in text.splitlines() if line.strip())

    def finish(self) -> str:
        """What each owner gives to reductions."""
        if not self.places:
            return ""
        begin = [f"{r.type} m{k} = {r.begin};" for k, r in enumerate(self.sums)]
        merge = " ".join(r.merge.format(f"m{k}", f"p{k}[j * parts_of + n]") for k, r in enumerate(self.sums))
        return f"""for (int64_t j = 0; j < members; ++j) for (int64_t o = 0, n = 0; o < owners; ++o) {{
    {_lines(4, [*self.row(), *begin])}
    for (; n < parts_of && todo[5 * n + 1] == o; ++n) {{ {merge} }}
    {_lines(4, self.ends)}
  }}"""


def counts_of(sizes: Sizes, least: int) -> int:
    """The number of parts of a leaf whose parts have at least so many elements."""
    return max(1, min(sizes[0], PARTS, math.prod(sizes) // least))


def _length(mask: Mask, sizes: Sizes) -> int:
    return math.prod(n for n, own in zip(sizes, mask, strict=True) if own)
