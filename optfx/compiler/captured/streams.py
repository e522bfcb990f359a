"""C++ for sums along rows of any length, and the arithmetic before and after, in one pass.

Some rows are walked along together. Where they are neighbours in memory, as in the gradient of a bias, each step reads
neighbours. A sum takes thirty-two elements at a time: so its error grows slowly, and its order depends on
the length of the row alone.
"""

from __future__ import annotations

import re

from torch.fx import Node

from optfx.compiler.captured.nest import Operand
from optfx.compiler.captured.tiles import ALONG, OVER_COLUMNS, Rows
from optfx.compiler.kernels.cpp.expressions import HALF, ctype, load, stored
from optfx.compiler.kernels.writer import name_of

AT_ONCE = 32  # elements of a sum, before they are added to the rest


class Stream(Rows):
    """The text of a kernel of rows that are too long to lay down."""

    def source(self) -> str:
        self.prepare()
        if len(self.rows) > 1 and self.kernel.size[self.rows[-1]] >= 64:  # not that of members: one text for all sizes
            self.count = 64  # sums wait for their last addition; many at once keep the processor busy
        self.sums: list[tuple[str, str]] = []
        for x in self.kernel.nodes:
            self.add_statement(x)
        writes, ends = [], []
        for at, x in self.stores:
            if self.of_rows(x):
                ends.append(self.end_of_row(at, x))
            else:
                k = len(self.loads) + [y for _, y in self.stores].index(x)
                writes.append(f"a{k}[o{k}[l] + c * s{k}] = {stored(self.names[x], at.dtype)};")
        each = self.each[0]
        partial = [*each, *(f"if (l < filled) {line}" for line in writes)]
        body = self.along(partial)
        if all(self.lane_stride(at) in (0, 1) for at in self.elements()):
            near = [self.neighbour(line) for line in [*each, *writes]]
            body = ["if (straight) {", *self.along(near), "} else {", *body, "}"]
        begins = self.lanes("", [*self.lone[0], *self.begins[0]])
        totals = [f"{r} = {total} + {r};" for r, total in self.sums]
        after = self.lanes("", [*totals, *(line for lone in self.lone[1:] for line in lone)])
        return self.function([*self.fills, *begins, *body, *after, *ends])

    def along(self, each: list[str]) -> list[str]:
        """The pass over the columns."""
        over = self.lanes(OVER_COLUMNS, each)
        flush = self.lanes(
            f"if (c % {AT_ONCE} == {AT_ONCE - 1})",
            [line for r, total in self.sums for line in (f"{total} = {total} + {r};", f"{r} = 0;")],
        )
        return [*over[:-1], *flush, over[-1]]

    # ---- neighbours ------------------------------------------------------------------------------

    def elements(self) -> list[Operand]:
        """What is read or written at each element."""
        operands = [*self.loads, *(at for at, _ in self.stores)]
        return [at for at in operands if at.strides[self.kernel.column]]  # type: ignore[index]

    def lane_stride(self, at: Operand) -> int:
        return at.strides[self.rows[-1]] if self.rows else 2

    def neighbour(self, line: str) -> str:
        """A statement where the lanes are neighbours."""
        operands = [*self.loads, *(at for at, _ in self.stores)]

        def where(found: re.Match[str]) -> str:
            k = found[1]
            return f"[o{k}[0] + l + " if self.lane_stride(operands[int(k)]) else f"[o{k}[0] + "

        return re.sub(r"\[o(\d+)\[l\] \+ ", where, line)

    # ---- statements ------------------------------------------------------------------------------

    def add_statement(self, x: Node) -> None:
        stage, of_elements = self.when[x]
        for arg in x.all_input_nodes:
            at = self.read(x, arg)
            if at is None:
                continue
            if at not in self.loads and at.strides[self.kernel.column]:  # type: ignore[index]
                k, T = len(self.loads), ctype(at.dtype)
                self.loads[at] = f"x{k}"
                self.each[0].append(f"const {T} x{k} = {load(f'a{k}[o{k}[l] + c * s{k}]', at.dtype)};")
            self.names[arg] = self.loads[at] if at in self.loads else self.filled_row(at)
        if name_of(x) in ALONG:
            self.add_sum(x)
        elif of_elements:
            self.each[0].append(self.define(x))
        else:
            value = self.rounded(x)
            self.names[x] = self.array(ctype(x.meta["val"].dtype), f"t{len(self.names)}", True)
            self.lone[stage].append(f"{self.names[x]} = {value};")

    def add_sum(self, x: Node) -> None:
        dtype = x.meta["val"].dtype
        T, n = ctype(dtype), len(self.names)
        r, total = self.array(T, f"r{n}", True), self.array(T, f"total{n}", True)
        self.begins[0] += [f"{r} = 0;", f"{total} = 0;"]
        self.each[0].append(f"{r} = {r} + {self.value(x.args[0], T)};")
        self.sums.append((r, total))
        if dtype in HALF:
            self.lone[1].append(f"{r} = round_{HALF[dtype]}({r});")
        self.names[x] = r
