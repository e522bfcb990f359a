"""A program as one loop over the elements of all leaves, as if they stood in a row.

It goes in chunks that are shared out evenly to the threads, whatever the sizes of the leaves. Two things make it faster
than what Inductor writes for the same graph: scalars are read before the loop (the compiler cannot know that no store
changes them), and memory is fetched ahead across the borders of pages. Sums are kept chunk by chunk, so they do not
depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule

from optfx.compiler.cpp import build
from optfx.compiler.cpp.expressions import HEAD, IN_MEMORY, Unsupported, Writer, ctype, load, name_of, stored
from optfx.compiler.cpp.reductions import REDUCTIONS, Reduced
from optfx.compiler.memory import numbers_in

CHUNK = 4096  # elements that one thread does in one go
BLOCK = 64  # elements between two fetches ahead
AHEAD = 1024  # bytes
THREADS = 32768  # elements from which on threads are worth their start


def launcher(gm: GraphModule, n: int, k: int) -> Callable[..., Callable[[], None]]:
    """The `launch` of a kernel: one call for all leaves."""
    P = ctypes.c_void_p
    library = build.Library(loop(gm, n, k), ctypes.c_int64, P, P, P, ctypes.c_int)

    def launch(rows: list[list[int]], values: list[Any], parts: Any, scalars: Any, brought: set[int]) -> Any:
        count, lengths = len(rows), [numbers_in(values[row[0]]) for row in rows]
        for row, length in zip(rows, lengths, strict=True):  # a kernel does not look: it would write anywhere
            assert all(numbers_in(values[i]) == length for i in row)
        ends = (ctypes.c_int64 * count)(*itertools.accumulate(lengths))
        inputs = [i for column in zip(*rows, strict=True) for i in column]
        pointers = (ctypes.c_void_p * len(inputs))(*(0 if i in brought else values[i].data_ptr() for i in inputs))
        others = build.pointers([*parts, *scalars])
        moving = [
            (slice(k * count, (k + 1) * count), column)
            for k, column in enumerate(zip(*rows, strict=True))
            if not brought.isdisjoint(column)
        ]

        def call() -> None:
            for where, column in moving:
                pointers[where] = [values[i].data_ptr() for i in column]
            library.run(count, ends, pointers, others, torch.get_num_threads())

        return call

    return launch


def loop(gm: GraphModule, n: int, k: int) -> str:
    """The function of a program: `run(leaves, ends, pointers, scalars, threads)`.

    Args:
        gm: a graph of n leaves, k numbers to write, then scalars, all but the leaves ().
        n: the pointers come leaf argument by leaf argument, one for each leaf.
        k: those come first among the scalars' pointers.
    """
    writer = Writer()
    inputs = [x for x in gm.graph.nodes if x.op == "placeholder"]
    leaves, parts, scalars = inputs[:n], inputs[n : n + k], inputs[n + k :]
    before, body, stores, after, end = [], [], [], [], []
    sums: list[Reduced] = []
    for j, x in enumerate(scalars):
        dtype, name = x.meta["val"].dtype, f"s{j}"
        writer.names[x] = name
        before.append(f"const {ctype(dtype)} {name} = {load(f'*(const {IN_MEMORY[dtype]}*)S[{k + j}]', dtype)};")
    read = [x for x in leaves if any(name_of(u) != "copy_" or u.args[0] is not x for u in x.users)]
    for x in read:
        body.append(
            f"const {ctype(x.meta['val'].dtype)} x{leaves.index(x)} = "
            f"{load(f'a{leaves.index(x)}[i]', x.meta['val'].dtype)};"
        )
        writer.names[x] = f"x{leaves.index(x)}"
    for x in gm.graph.nodes:
        if x.op in ("placeholder", "output"):
            continue
        if x.op != "call_function":
            raise Unsupported(x.op)
        if name_of(x) == "sym_size":
            continue
        if name_of(x) == "copy_":
            to, y = x.args[:2]
            dtype = to.meta["val"].dtype
            if to in leaves:
                stores.append(f"a{leaves.index(to)}[i] = {stored(writer.value(y, ctype(dtype)), dtype)};")
            else:
                value = stored(writer.value(y, ctype(dtype)), dtype)
                end.append(f"*({IN_MEMORY[dtype]}*)S[{parts.index(to)}] = {value};")
        elif name_of(x) in REDUCTIONS and not x.meta["val"].ndim and x.args[0].meta["val"].ndim:
            r = Reduced(x, writer)
            body.append(r.take.format(f"r{len(sums)}"))
            writer.names[x] = f"e{len(sums)}"
            after.append(f"const {ctype(x.meta['val'].dtype)} e{len(sums)} = {r.end.format(f'm{len(sums)}')};")
            sums.append(r)
        else:
            (body if x.meta["val"].ndim else after).append(writer.define(x))
    written = {x.args[0] for x in gm.graph.nodes if x.op == "call_function" and name_of(x) == "copy_"}
    pointers, fetch = [], []
    for j, x in enumerate(leaves):
        T = IN_MEMORY[x.meta["val"].dtype]
        T = T if x in written else f"const {T}"
        pointers.append(f"{T}* const a{j} = ({T}*)P[{j} * leaves + l] - start;")
        if x in read:
            for q in range(0, BLOCK * x.meta["val"].dtype.itemsize, 64):
                fetch.append(f"__builtin_prefetch((const char*)(a{j} + at) + {AHEAD + q});")
    clauses = "".join(f" reduction({r.clause} : r{j})" for j, r in enumerate(sums) if r.simd)
    simd = f"#pragma omp simd{clauses}" if all(r.simd for r in sums) else ""
    gather = "\n  ".join(f"std::vector<{r.type}> p{j}(chunks, {r.begin});" for j, r in enumerate(sums))
    start = " ".join(f"{r.type} r{j} = {r.begin};" for j, r in enumerate(sums))
    keep = " ".join(f"p{j}[c] = r{j};" for j in range(len(sums)))
    merge = "\n  ".join(
        f"{r.type} m{j} = {r.begin}; for (int64_t c = 0; c < chunks; ++c) {{ {r.merge.format(f'm{j}', f'p{j}[c]')} }}"
        for j, r in enumerate(sums)
    )
    return f"""{HEAD}
extern "C" void run(int64_t leaves, const int64_t* ends, void* const* P, void* const* S, int threads) {{
  {" ".join(before)}
  const int64_t total = ends[leaves - 1], chunks = (total + {CHUNK - 1}) / {CHUNK};
  {gather}
  #pragma omp parallel num_threads(threads) if (total > {THREADS})
  {{
    const int64_t t = omp_get_thread_num(), T = omp_get_num_threads();
    int64_t l = 0;
    for (int64_t c = chunks * t / T; c < chunks * (t + 1) / T; ++c) {{
      int64_t at = c * {CHUNK};
      const int64_t to = at + {CHUNK} < total ? at + {CHUNK} : total;
      {start}
      while (at < to) {{
        while (ends[l] <= at) ++l;
        const int64_t start = l ? ends[l - 1] : 0, stop = ends[l] < to ? ends[l] : to;
        {" ".join(pointers)}
        while (at < stop) {{
          const int64_t e = at + {BLOCK} < stop ? at + {BLOCK} : stop;
          {" ".join(fetch)}
          {simd}
          for (int64_t i = at; i < e; ++i) {{
            {chr(10).join(body + stores)}
          }}
          at = e;
        }}
      }}
      {keep}
    }}
  }}
  {merge}
  {" ".join(after)}
  {" ".join(end)}
}}
"""
