"""C++ for operations along rows.

Sixteen rows are done at a time. What is read of them is laid down with the rows side by side, so each pass over the
columns is a loop over sixteen lanes, and a sum adds up in the order of the columns, whatever else is in the tile. The
lanes of the last tile that have no row do the last row once more.
"""

from __future__ import annotations

from torch.fx import Node

from optfx.compiler.captured.groups import ALONG, PLACED, REDUCED
from optfx.compiler.captured.nest import KernelWriter, Operand
from optfx.compiler.captured.rows import LONGEST
from optfx.compiler.kernels.cpp.expressions import HALF, IN_MEMORY, ctype, literal, load, stored
from optfx.compiler.kernels.cpp.reductions import first
from optfx.compiler.kernels.writer import name_of

OVER_COLUMNS = "for (int64_t c = 0; c < columns; ++c)"


class Rows(KernelWriter):
    """A function that walks over the rows of a kernel, some at a time, which no result depends on."""

    count = 16  # rows at a time

    def prepare(self) -> None:
        """Look at the operations before they are written."""
        kernel = self.kernel
        assert kernel.column is not None
        self.rows = sorted((d for d in range(len(kernel.size)) if d != kernel.column), key=lambda d: -self.lead()[d])
        self.arrays: list[str] = []
        self.fills: list[str] = []
        self.find_stages()
        self.lone: list[list[str]] = [[] for _ in range(self.stages)]  # the statements of each stage, of rows
        self.begins: list[list[str]] = [[] for _ in range(self.stages)]
        self.each: list[list[str]] = [[] for _ in range(self.stages)]  # and of elements

    def lead(self) -> tuple[int, ...]:
        """The strides of what is read most: the rows follow each other as they do there."""
        read = [self.memory(x, arg) for x in self.kernel.nodes for arg in x.all_input_nodes]
        found = [at.strides for at in [*read, *(at for at, _ in self.stores)] if at is not None]
        return max(found, key=lambda strides: sum(s != 0 for s in strides))

    def function(self, body: list[str]) -> str:
        """The text, of which the body is for some rows."""
        kernel = self.kernel
        count = " * ".join([self.number(kernel.size[d]) for d in self.rows] or ["1"])
        ends = [(f"j{d}", self.number(kernel.size[d])) for d in reversed(self.rows)]
        step = "".join(f" if (++{j} == {n}) {{ {j} = 0;" for j, n in ends) + " }" * len(ends)
        operands = [*self.loads, *(at for at, _ in self.stores)]
        pointers, offsets = [], []
        for k, at in enumerate(operands):
            M = IN_MEMORY[at.dtype]
            const = "const " if k < len(self.loads) else ""
            pointers.append(
                f"{const}{M}* a{k} = ({const}{M}*)P[{self.number(self.slot(at.memory))}] + {self.number(at.offset)};"
            )
            pointers.append(f"const int64_t s{k} = {self.number(at.strides[kernel.column])};")  # type: ignore[index]
            terms = [f"j{d} * {self.number(at.strides[d])}" for d in self.rows if at.strides[d]]
            offsets.append(f"o{k}[l] = int({' + '.join(terms) or '0'});")
        j, n = ends[0] if ends else ("", "")  # of the rows that follow each other
        inner = f"{j} + {self.count} <= {n}" if ends else "false"
        neighbours = self.lanes("", [line.replace(f"{j} *", f"({j} + l) *") for line in offsets]) if ends else []
        columns = self.number(kernel.size[kernel.column])  # type: ignore[index]
        lines = [
            "static int KERNEL(void* const* P, const int64_t* S) {",
            f"  const int64_t columns = {columns}, rows = {count};",
            *(f"  {line}" for line in pointers),
            *(f"  int64_t j{d} = 0;" for d in self.rows),
            "  int wrong = 0;",
            f"  for (int64_t r = 0; r < rows; r += {self.count}) {{",
            f"    const int filled = rows - r < {self.count} ? int(rows - r) : {self.count};",
            f"    const bool straight = {inner};",  # the lanes are neighbours
            *(f"    int o{k}[{self.count}];" for k in range(len(operands))),
            "    if (straight) {",
            *(f"      {line}" for line in neighbours),
            f"     {step.replace(f'++{j}', f'({j} += {self.count})', 1)}",
            f"    }} else for (int l = 0; l < {self.count}; ++l) {{",
            *(f"      {line}" for line in offsets),
            f"      if (r + l + 1 < rows) {{{step} }}",
            "    }",
            *(f"    {line}" for line in [*self.arrays, *body]),
            "  }",
            "  return wrong;",
            "}",
        ]
        return "\n".join(lines)

    # ---- values ----------------------------------------------------------------------------------

    def array(self, T: str, name: str, of_rows: bool) -> str:
        """Memory of a tile: the text of one element."""
        self.arrays.append(f"alignas(64) {T} {name}{'' if of_rows else f'[{LONGEST}]'}[{self.count}];")
        return f"{name}[l]" if of_rows else f"{name}[c][l]"

    def find_stages(self) -> None:
        """When each value is computed, and which are still there afterwards."""
        self.when: dict[Node, tuple[int, bool]] = {}  # the stage, and whether in the pass over columns
        ready: dict[Node, int] = {}  # from which stage on it may be used
        self.lasting = {x for _, x in self.stores}
        for x in self.kernel.nodes:
            along = name_of(x) in ALONG
            bases = [arg.meta["place"].base for arg in x.all_input_nodes]
            stage = max((ready[b] for b in bases if b in ready), default=0)
            self.when[x] = stage, along or self.kernel.column in self.kernel.domain(x)
            ready[x] = stage + along
            self.lasting |= {b for b in bases if b in ready and (along or self.when[b] != self.when[x])}
            self.lasting |= {x} if along else set()
        self.stages = 1 + max(ready.values())

    def lanes(self, over: str, lines: list[str], reduction: str | None = None) -> list[str]:
        """Statements for each lane, within a loop or not."""
        if not lines:
            return []
        reduction = reduction or ("|: wrong" if any("wrong" in line for line in lines) else None)
        return [
            *([f"{over} {{"] if over else []),
            f"#pragma omp simd{f' reduction({reduction})' if reduction else ''}",
            f"for (int l = 0; l < {self.count}; ++l) {{",
            *(f"  {line}" for line in lines),
            "}",
            *(["}"] if over else []),
        ]

    def of_rows(self, x: Node) -> bool:
        """Whether a result has one number for each row."""
        return name_of(x) in ALONG or self.kernel.column not in self.kernel.domain(x)

    def end_of_row(self, at: Operand, x: Node) -> str:
        k = len(self.loads) + [y for _, y in self.stores].index(x)
        return f"for (int l = 0; l < filled; ++l) a{k}[o{k}[l]] = {stored(self.names[x], at.dtype)};"

    def filled_row(self, at: Operand) -> str:
        """What is read from memory, a number for each row."""
        if at not in self.loads:
            k, T = len(self.loads), ctype(at.dtype)
            self.loads[at] = self.array(T, f"x{k}", True)
            self.fills += self.lanes("", [f"{self.loads[at]} = {load(f'a{k}[o{k}[l]]', at.dtype)};"])
        return self.loads[at]


class Tile(Rows):
    """The text of a kernel of short rows. Stage number k is arithmetic of rows, then the k-th pass over the columns."""

    def source(self) -> str:
        self.prepare()
        for x in self.kernel.nodes:
            self.add_statement(x)
        ends = [line for at, x in self.stores for line in self.end(at, x)]
        passes = []
        for lone, begins, each in zip(self.lone, self.begins, self.each, strict=True):
            passes += self.lanes("", [*lone, *begins]) + self.lanes(OVER_COLUMNS, each)
        return self.function([*self.fills, *passes, *ends])

    def add_statement(self, x: Node) -> None:
        for arg in x.all_input_nodes:
            at = self.read(x, arg)
            if at is not None:
                self.names[arg] = self.filled(at)
        stage, of_elements = self.when[x]
        if name_of(x) in ALONG:
            self.add_reduction(x, stage)
            return
        if name_of(x) in PLACED:
            self.begins[stage].append(f"wrong |= {self.out_of_bounds(x)};")
        lines = (self.each if of_elements else self.lone)[stage]
        if x not in self.lasting:
            lines.append(self.define(x))
            return
        value = self.rounded(x)
        self.names[x] = self.array(ctype(x.meta["val"].dtype), f"t{len(self.names)}", not of_elements)
        lines.append(f"{self.names[x]} = {value};")

    def add_reduction(self, x: Node, stage: int) -> None:
        name, row, dtype = name_of(x), x.args[0], x.meta["val"].dtype
        T = ctype(dtype)
        r = self.array(T, f"r{len(self.names)}", True)
        value = self.value(row, T)
        if name == "sum":
            self.begins[stage].append(f"{r} = 0;")
            self.each[stage].append(f"{r} = {r} + {value};")
            if dtype in HALF:
                self.lone[stage + 1].append(f"{r} = round_{HALF[dtype]}({r});")
        elif name in REDUCED:
            self.begins[stage].append(f"{r} = {literal(first(dtype, name == 'amin'), T)};")
            self.each[stage].append(f"{r} = {'smaller' if name == 'amin' else 'larger'}<{T}>({value}, {r});")
        else:
            index = self.value(x.args[2], "int64_t")
            self.begins[stage].append(f"{r} = 0; wrong |= {self.out_of_bounds(x)};")
            self.each[stage].append(f"{r} = c == {index} ? {value} : {r};")
        self.names[x] = r

    def out_of_bounds(self, x: Node) -> str:
        index = self.value(x.args[2], "int64_t")
        return f"{index} < 0 || {index} >= columns"

    # ---- memory ----------------------------------------------------------------------------------

    def filled(self, at: Operand) -> str:
        """What is read from memory, laid down in a tile."""
        if at in self.loads or at.strides[self.kernel.column] == 0:  # type: ignore[index]
            return self.filled_row(at)
        k, T = len(self.loads), ctype(at.dtype)
        x = self.loads[at] = self.array(T, f"x{k}", False)
        each = self.lanes(OVER_COLUMNS, [f"{x} = {load(f'a{k}[o{k}[l] + c * s{k}]', at.dtype)};"])
        if any(at.strides[d] == 0 for d in self.rows[-1:]):  # most tiles read one row for all lanes
            value = f"const {T} y = {load(f'a{k}[o{k}[0] + c * s{k}]', at.dtype)};"
            once = self.lanes(OVER_COLUMNS, [f"{x} = y;"])
            once.insert(1, value)
            self.fills += [f"int one{k} = 1;", *self.lanes("", [f"one{k} &= o{k}[l] == o{k}[0];"], f"&: one{k}")]
            each = [f"if (one{k}) {{", *once, "} else {", *each, "}"]
        self.fills += each
        return x

    def end(self, at: Operand, x: Node) -> list[str]:
        """What is written to memory. A whole tile is scattered, where the processor can."""
        if self.of_rows(x):
            return [self.end_of_row(at, x)]
        k = len(self.loads) + [y for _, y in self.stores].index(x)
        value = stored(self.names[x], at.dtype)
        line = f"a{k}[o{k}[l] + c * s{k}] = {value};"
        one_by_one = f"for (int l = 0; l < filled; ++l) {OVER_COLUMNS} {line}"
        return [f"if (filled == {self.count}) {{", *self.lanes(OVER_COLUMNS, [line]), f"}} else {one_by_one}"]
