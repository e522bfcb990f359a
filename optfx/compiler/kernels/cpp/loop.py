"""A program as one loop over the elements of all leaves, as if they stood in a row.

The row is cut into chunks that are shared out evenly among the threads, whatever the sizes of the leaves. Two things
make it faster than what Inductor writes for the same graph: scalars are read before the loop (the C++ compiler cannot
know that no store changes them), and memory is fetched ahead across the borders of pages.

Leaves of one owner stand together. Where a leaf begins, the loop reads the scalars of its owner, so another owner costs
a row of scalars and not another kernel. Sums are kept for each owner chunk by chunk, so they do not depend on the
number of threads.

Where there are many optimizers, the loop goes from one to the next: each is a row of its own, so that the sums of a
member do not depend on the others.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence, Set
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from optfx.compiler.kernels.binding import CELL, Bound, Owned, Unsupported, lengths_of
from optfx.compiler.kernels.cpp import build
from optfx.compiler.kernels.cpp.calls import FAULTLESS, Call
from optfx.compiler.kernels.cpp.expressions import HEAD, IN_MEMORY, Writer, ctype, load, stored
from optfx.compiler.kernels.cpp.nibbles import bytes_to
from optfx.compiler.kernels.cpp.reductions import LANES, REDUCTIONS, Accumulator, accumulator
from optfx.compiler.kernels.writer import HALF, is_packed, name_of
from optfx.compiler.members import Alone
from optfx.compiler.record.inputs import Input
from optfx.compiler.record.spaces import Mask

CHUNK = 4096  # elements that one thread does in one go
BLOCK = LANES  # elements between two fetches ahead
AHEAD = 1024  # bytes
LINE = 64  # bytes that memory is fetched in
THREADS = 32768  # elements from which on threads are worth their start


def launcher(gm: GraphModule, masks: Sequence[Mask], k: int, compilers: build.Compilers) -> Callable[..., Bound]:
    """The `launch` of a kernel: one call for the leaves of all owners."""
    from optfx.compiler.kernels.cpp.nest import Nest  # which is a loop, too
    from optfx.compiler.kernels.cpp.rows import Rows, uses_rows

    P, N, is_flat = ctypes.c_void_p, ctypes.c_int64, all(map(all, masks))
    loop = Loop(gm, len(masks), k) if is_flat else Rows(gm, masks, k) if uses_rows(gm) else Nest(gm, masks, k)
    library = compilers.library(loop.source(), "-O3", *(N, N, P, P, P, N, P, P, N, P, P, N), gives=ctypes.c_int)

    def launch(owners: list[Owned], values: list[Tensor], rebound: set[Input], members: Alone) -> Bound:
        rows = [row for owner in owners for row in owner.rows]
        count, numbers = len(rows), [lengths_of(row, loop.leaves, values, members) for row in rows]
        extent = loop.extent(numbers, owners)
        ends = (N * len(extent))(*extent)
        until = (N * len(owners))(*itertools.accumulate(len(owner.rows) for owner in owners))
        columns = list(zip(*rows, strict=True))
        leaves = (P * (len(columns) * count))()
        leaves.values = values  # type: ignore[attr-defined]  # which stay as long as their addresses
        apart = (N * (len(columns) * count))(*(members.apart(values[i]) for column in columns for i in column))
        own, partials = [x for o in owners for x in o.scalars[:1]], [x for o in owners for x in o.partials]
        scalars, parts = build.pointers(own), build.pointers(partials)
        cells_apart = members.apart(own[0]) if own else 0
        parts_apart = (N * len(partials))(*map(members.apart, partials))
        places = [(slice(j * count, (j + 1) * count), column) for j, column in enumerate(columns)]
        moving = [(where, column) for where, column in places if not rebound.isdisjoint(column)]
        resting = [(where, column) for where, column in places if rebound.isdisjoint(column)]

        def look_up(places: list[Any] = resting) -> None:
            for where, column in places:
                leaves[where] = [values[i].data_ptr() for i in column]

        def arguments() -> list[Any]:
            leaf = [members.count, count, ends, leaves, apart]
            return [*leaf, len(owners), until, scalars, cells_apart, parts, parts_apart, torch.get_num_threads()]

        def run() -> None:
            look_up(moving)
            library.run(*arguments())

        def call() -> Call:
            look_up(moving)
            return Call(library.run, arguments(), FAULTLESS)

        def leave_out(inputs: Set[Input]) -> None:
            """Those rows have no elements, as far as the loop knows."""
            now = [own if inputs.isdisjoint(row) else [0] for row, own in zip(rows, numbers, strict=True)]
            ends[:] = loop.extent(now, owners)

        return Bound(run, look_up, leave_out if is_flat else None, call)

    return launch


class Loop(Writer):
    """The function of a program: `run(members, leaves, ends, P, dP, owners, until, scalars, dS, parts, dR, threads)`.

    Leaf number l ends at element ends[l] of the row, and owner number o at leaf until[o]. P has the addresses of the
    leaves, argument by argument; `scalars` of each owner's scalars, and `parts` of the numbers it gives to reductions.
    All are those of the first member; dP, dS and dR tell how many bytes further those of the next one are.

    Args:
        gm: a graph of n leaves, k places of parts, then scalars, all but the leaves ().
        n: how many leaves the program takes.
        k: how many parts it has.
    """

    base = "a"  # with the number of a leaf: what its elements are counted from in a loop

    def __init__(self, gm: GraphModule, n: int, k: int):
        super().__init__()
        inputs = [x for x in gm.graph.nodes if x.op == "placeholder"]
        self.leaves, self.places, self.scalars = inputs[:n], inputs[n : n + k], inputs[n + k :]
        work = [x for x in gm.graph.nodes if x.op not in ("placeholder", "output") and name_of(x) != "sym_size"]
        if others := [x.op for x in work if x.op != "call_function"]:
            raise Unsupported(others[0])
        self.written = {x.args[0] for x in work if name_of(x) == "copy_"}
        self.read = [x for x in self.leaves if any(name_of(u) != "copy_" or u.args[0] is not x for u in x.users)]
        self.body: list[str] = []  # of an element
        self.stores: list[tuple[Node, str]] = []  # after it, for another leaf may be read from what is written
        self.sums: list[Accumulator] = []
        self.ends: list[str] = []  # what is made of an owner's sums
        self.names |= {x: f"s{j}" for j, x in enumerate(self.scalars)}
        self.names |= {x: f"x{j}" for j, x in enumerate(self.leaves) if x in self.read}
        # arithmetic keeps the NaN that it is given, or makes one whose last bits are 0, as they are in bf16
        floating = {x.meta["val"].dtype for x in self.leaves if x.meta["val"].is_floating_point()}
        self.is_bf16 = floating == {torch.bfloat16}
        if self.is_bf16:
            self.round[torch.bfloat16] = "near_bf16"
        for x in work:
            self.add_statement(x)

    def extent(self, numbers: list[list[int]], owners: list[Owned]) -> list[int]:
        """Where the leaves end, of which these are the numbers of elements, in each role the same."""
        assert all(len({*own}) == 1 for own in numbers)  # C++ does not look: it would write anywhere
        return list(itertools.accumulate(own[0] for own in numbers))

    def add_statement(self, x: Node) -> None:
        value = x.meta["val"]
        if name_of(x) == "copy_":
            self.add_store(x.args[0], x.args[1])  # type: ignore[arg-type]
        elif name_of(x) in REDUCTIONS and not value.ndim and x.args[0].meta["val"].ndim:  # type: ignore[union-attr]
            j, found = len(self.sums), accumulator(x, self)
            self.sums.append(found)
            self.names[x] = f"e{j}"
            self.body.append(found.taken(f"r{j}"))
            self.ends.append(f"const {ctype(value.dtype)} e{j} = {found.end.format(f'm{j}')};")
        else:
            (self.body if value.ndim else self.ends).append(self.define(x))

    def add_store(self, to: Node, y: Node) -> None:
        dtype = to.meta["val"].dtype
        value = self.value(y, ctype(dtype))
        if to in self.leaves:
            rounded = isinstance(y, Node) and y.meta["val"].dtype == dtype
            self.stores.append((to, stored(value, dtype, rounded)))
        else:
            k = f"o * {len(self.places)} + {self.places.index(to)}"
            self.ends.append(f"*({IN_MEMORY[dtype]}*)((char*)parts[{k}] + j * dR[{k}]) = {stored(value, dtype)};")

    # ---- the parts of the function ---------------------------------------------------------------

    def row(self) -> list[str]:
        """The scalars of owner o."""
        lines = []
        for j, x in enumerate(self.scalars):
            dtype = x.meta["val"].dtype
            place = f"*(const {IN_MEMORY[dtype]}*)((const char*)scalars[o] + j * dS + {j * CELL})"
            value = f"plain_nan({load(place, dtype)})" if self.is_bf16 else load(place, dtype)
            lines.append(f"const {ctype(dtype)} s{j} = {value};")
        return lines

    def pointers(self) -> list[str]:
        """Where leaf l is, as if it began with the first element of the row."""
        lines = []
        for j, x in enumerate(self.leaves):
            T = f"{'' if x in self.written else 'const '}{IN_MEMORY[x.meta['val'].dtype]}"
            k = f"{j} * leaves + l"
            lines.append(f"{T}* const a{j} = ({T}*)((char*)P[{k}] + j * dP[{k}]) - {bytes_to(x, 'start')};")
        return lines

    def fetches(self) -> list[str]:
        return [
            f"__builtin_prefetch((const char*)(a{j} + {bytes_to(x, 'at')}) + {AHEAD + line});"
            for j, x in enumerate(self.leaves)
            if x in self.read
            for line in range(0, BLOCK * x.meta["val"].dtype.itemsize, LINE)
        ]

    def element_of(self, j: int) -> str:
        """Where element i of a leaf is."""
        return f"h{j}[i - at]" if is_packed(self.leaves[j]) else f"{self.base}{j}[i]"

    def unpacked(self, at: str = "at", n: str = "e - at", most: int = BLOCK) -> list[str]:
        """Arrays of numbers that lie two in a byte, for a loop over n elements from `at` on."""
        lines = []
        for j, x in enumerate(self.leaves):
            if is_packed(x):
                lines.append(f"uint8_t h{j}[{most}];")
                lines += [f"unpack({self.base}{j} + {at} / 2, h{j}, {n});"] if x in self.read else []
        return lines

    def packed(self, at: str = "at", n: str = "e - at") -> list[str]:
        """What the loop has written there, in bytes again."""
        found = [j for j, x in enumerate(self.leaves) if is_packed(x) and x in self.written]
        return [f"pack(h{j}, {self.base}{j} + {at} / 2, {n});" for j in found]

    def one(self, place: Callable[[int], str], keep: Callable[[int, str], str]) -> list[str]:
        """What is done with an element: leaf j is read from `place(j)`, and `keep(j, value)` writes it."""
        loads = []
        for j, x in enumerate(self.leaves):
            if x in self.read:
                dtype = x.meta["val"].dtype
                loads.append(f"const {ctype(dtype)} x{j} = {load(place(j), dtype)};")
        return [*loads, *self.body, *(keep(self.leaves.index(to), value) for to, value in self.stores)]

    def loop(self) -> list[str]:
        """From element `at` to `e`."""
        one = _indented(self.one(self.element_of, lambda j, value: f"{self.element_of(j)} = {value};"))
        if not all(x.meta["val"].dtype in HALF for x in self.leaves):
            loop = [self.simd(), "for (int64_t i = at; i < e; ++i) {", *one, "}"]
            return [*self.unpacked(), *loop, *self.packed()]
        last = ["if ((e - at) % 2) {", "  const int64_t i = e - 1;", *one, "}"]
        simd = self.simd().replace("omp simd", "omp simd simdlen(16)")
        return [simd, "for (int64_t i = at; i < e - 1; i += 2) {", *_indented(self.pair()), "}", *last]

    def pair(self) -> list[str]:
        """Two elements in half precision, which are one word in memory: so vectors of words need not be taken apart."""
        read = [j for j, x in enumerate(self.leaves) if x in self.read]
        written = [j for j, x in enumerate(self.leaves) if x in self.written]
        low = self.one("uint16_t(w{})".format, "v{} = {};".format)
        high = self.one("uint16_t(w{} >> 16)".format, "v{} |= uint32_t({}) << 16;".format)
        loads = [f"const uint32_t w{j} = *(const pair*)(a{j} + i);" for j in read]
        words = [f"uint32_t {', '.join(f'v{j}' for j in written)};"] if written else []
        return [
            *(*loads, *words, "{", *_indented(low), "} {", *_indented(high), "}"),
            *(f"*(pair*)(a{j} + i) = v{j};" for j in written),
        ]

    def simd(self) -> str:
        sums = [f" reduction({r.clause} : r{j})" for j, r in enumerate(self.sums) if r.clause is not None]
        return "#pragma omp simd" + "".join(sums)

    def accumulators(self) -> tuple[list[str], list[str], list[str]]:
        """Those of all chunks and owners, that of some elements, and how this one is kept.

        Chunks and owners follow each other, so c + o is another number for each pair of which there are elements.
        """
        every = [f"Numbers<{r.type}> p{k}(members * kept, {r.begin});" for k, r in enumerate(self.sums)]
        fresh = [r.begun(f"r{k}", "(stop - at)") for k, r in enumerate(self.sums)]
        keep = [r.merged(f"p{k}[j * kept + c + o]", f"r{k}") for k, r in enumerate(self.sums)]
        return every, fresh, keep

    def finish(self) -> str:
        """What each owner gives to reductions."""
        if not self.places:
            return ""
        merge = []
        for k, r in enumerate(self.sums):
            each = r.merge.format(f"m{k}", f"p{k}[j * kept + c + o]")
            merge.append(f"{r.type} m{k} = {r.begin}; for (int64_t c = first; c <= last; ++c) {{ {each} }}")
        return f"""for (int64_t j = 0; j < members; ++j) for (int64_t o = 0; o < owners; ++o) {{
    const int64_t l = o ? until[o - 1] : 0;
    const int64_t first = (l ? ends[l - 1] : 0) / {CHUNK}, last = (ends[until[o] - 1] - 1) / {CHUNK};
    {_lines(4, self.row() + merge + self.ends)}
  }}"""

    def source(self) -> str:
        every, fresh, keep = self.accumulators()
        kept = ", kept = chunks + owners" if self.sums else ""
        text = f"""{HEAD}
{self.declared()}
extern "C" int run(int64_t members, int64_t leaves, const int64_t* ends, void* const* P, const int64_t* dP,
                    int64_t owners, const int64_t* until, void* const* scalars, int64_t dS,
                    void* const* parts, const int64_t* dR, int64_t threads) {{
  const int64_t total = ends[leaves - 1], chunks = (total + {CHUNK - 1}) / {CHUNK}{kept};
  {_lines(2, every)}
  #pragma omp parallel num_threads(threads) if (total * members > {THREADS})
  {{
    const int64_t t = omp_get_thread_num(), T = omp_get_num_threads(), all = members * chunks;
    int64_t l = 0, o = 0;
    for (int64_t n = all * t / T; n < all * (t + 1) / T; ++n) {{
      const int64_t j = n / chunks, c = n % chunks;
      if (c == 0) l = o = 0;
      int64_t at = c * {CHUNK};
      const int64_t to = at + {CHUNK} < total ? at + {CHUNK} : total;
      while (at < to) {{
        while (ends[l] <= at) ++l;
        while (until[o] <= l) ++o;
        const int64_t start = l ? ends[l - 1] : 0, stop = ends[l] < to ? ends[l] : to;
        {_lines(8, self.row() + self.pointers() + fresh)}
        while (at < stop) {{
          const int64_t e = at + {BLOCK} < stop ? at + {BLOCK} : stop;
          {_lines(10, self.fetches())}
          {_lines(10, self.loop())}
          at = e;
        }}
        {_lines(8, keep)}
      }}
    }}
  }}
  {self.finish()}
  return 0;
}}
"""
        return "\n".join(line for line in text.splitlines() if line.strip())


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _lines(indent: int, lines: list[str]) -> str:
    return f"\n{' ' * indent}".join(lines)
