"""C++ for operations along short rows.

Sixteen rows are done at a time. What is read of them is laid down with the rows side by side, so each pass over the
columns is a loop over sixteen lanes, and a sum adds up in the order of the columns, whatever else is in the tile. The
lanes of the last tile that have no row do the last row once more.
"""

from __future__ import annotations

from torch.fx import Node

from optfx.compiler.captured.groups import ALONG, REDUCED
from optfx.compiler.captured.nest import KernelWriter, Operand
from optfx.compiler.captured.rows import LONGEST
from optfx.compiler.kernels.cpp.expressions import HALF, IN_MEMORY, ctype, literal, load, name_of, stored
from optfx.compiler.kernels.cpp.reductions import first

LANES = 16
OVER_COLUMNS = "for (int64_t c = 0; c < columns; ++c)"


class Tile(KernelWriter):
    """The text of a kernel of rows. Stage number k is arithmetic of rows, then the k-th pass over the columns."""

    def source(self, name: str) -> str:
        kernel = self.kernel
        assert kernel.column is not None
        self.rows = [d for d in range(len(kernel.size)) if d != kernel.column]
        self.arrays: list[str] = []
        self.fills: list[str] = []
        self.find_stages()
        self.lone: list[list[str]] = [[] for _ in range(self.stages)]  # the statements of each stage, of rows
        self.begins: list[list[str]] = [[] for _ in range(self.stages)]
        self.each: list[list[str]] = [[] for _ in range(self.stages)]  # and of elements
        for x in kernel.nodes:
            self.add_statement(x)
        ends = [line for at, x in self.stores for line in self.end(at, x)]
        passes = []
        for lone, begins, each in zip(self.lone, self.begins, self.each, strict=True):
            passes += _lanes("", [*lone, *begins]) + _lanes(OVER_COLUMNS, each)
        count = " * ".join([self.number(kernel.size[d]) for d in self.rows] or ["1"])
        last = [(f"j{d}", self.number(kernel.size[d])) for d in reversed(self.rows)]
        step = "".join(f" if (++{j} == {n}) {{ {j} = 0;" for j, n in last) + " }" * len(last)
        operands = [*self.loads, *(at for at, _ in self.stores)]
        pointers, offsets = [], []
        for k, at in enumerate(operands):
            M = IN_MEMORY[at.dtype]
            const = "const " if k < len(self.loads) else ""
            pointers.append(
                f"{const}{M}* a{k} = ({const}{M}*)P[{self.slot(at.memory)}] + {self.number(at.offset)};"
            )
            pointers.append(f"const int64_t s{k} = {self.number(at.strides[kernel.column])};")
            terms = [f"j{d} * {self.number(at.strides[d])}" for d in self.rows if at.strides[d]]
            offsets.append(f"o{k}[l] = int({' + '.join(terms) or '0'});")
        lines = [
            f"static int {name}(void* const* P, const int64_t* S) {{",
            f"  const int64_t columns = {self.number(kernel.size[kernel.column])}, rows = {count};",
            *(f"  {line}" for line in pointers),
            *(f"  int64_t j{d} = 0;" for d in self.rows),
            "  int wrong = 0;",
            f"  for (int64_t r = 0; r < rows; r += {LANES}) {{",
            f"    const int filled = rows - r < {LANES} ? int(rows - r) : {LANES};",
            *(f"    int o{k}[{LANES}];" for k in range(len(operands))),
            f"    for (int l = 0; l < {LANES}; ++l) {{",
            *(f"      {line}" for line in offsets),
            f"      if (r + l + 1 < rows) {{{step} }}",
            "    }",
            *(f"    {line}" for line in [*self.arrays, *self.fills, *passes, *ends]),
            "  }",
            "  return wrong;",
            "}",
        ]
        return "\n".join(lines)

    # ---- values ----------------------------------------------------------------------------------

    def array(self, T: str, name: str, of_rows: bool) -> str:
        """Memory of a tile: the text of one element."""
        self.arrays.append(f"alignas(64) {T} {name}{'' if of_rows else f'[{LONGEST}]'}[{LANES}];")
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

    def add_statement(self, x: Node) -> None:
        for arg in x.all_input_nodes:
            at = self.read(x, arg)
            if at is not None:
                self.names[arg] = self.filled(at)
        stage, of_elements = self.when[x]
        if name_of(x) in ALONG:
            self.add_reduction(x, stage)
            return
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
            self.begins[stage].append(f"{r} = 0; wrong |= {index} < 0 || {index} >= columns;")
            self.each[stage].append(f"{r} = c == {index} ? {value} : {r};")
        self.names[x] = r

    # ---- memory ----------------------------------------------------------------------------------

    def filled(self, at: Operand) -> str:
        """What is read from memory, laid down in a tile."""
        if at in self.loads:
            return self.loads[at]
        k, of_rows, T = len(self.loads), at.strides[self.kernel.column] == 0, ctype(at.dtype)  # type: ignore[index]
        x = self.loads[at] = self.array(T, f"x{k}", of_rows)
        if of_rows:
            self.fills += _lanes("", [f"{x} = {T}({load(f'a{k}[o{k}[l]]', at.dtype)});"])
            return x
        each = _lanes(OVER_COLUMNS, [f"{x} = {T}({load(f'a{k}[o{k}[l] + c * s{k}]', at.dtype)});"])
        if any(at.strides[d] == 0 for d in self.rows[-1:]):  # most tiles read one row for all lanes
            value = f"const {T} y = {T}({load(f'a{k}[o{k}[0] + c * s{k}]', at.dtype)});"
            once = _lanes(OVER_COLUMNS, [f"{x} = y;"])
            once.insert(1, value)
            self.fills += [f"int one{k} = 1;", *_lanes("", [f"one{k} &= o{k}[l] == o{k}[0];"], f"&: one{k}")]
            each = [f"if (one{k}) {{", *once, "} else {", *each, "}"]
        self.fills += each
        return x

    def end(self, at: Operand, x: Node) -> list[str]:
        """What is written to memory. A whole tile is scattered, where the processor can."""
        k = len(self.loads) + [y for _, y in self.stores].index(x)
        of_rows = self.kernel.column not in self.kernel.domain(x) or name_of(x) in ALONG
        value = stored(self.names[x], at.dtype)
        if of_rows:
            return [f"for (int l = 0; l < filled; ++l) a{k}[o{k}[l]] = {value};"]
        line = f"a{k}[o{k}[l] + c * s{k}] = {value};"
        one_by_one = f"for (int l = 0; l < filled; ++l) {OVER_COLUMNS} {line}"
        return [f"if (filled == {LANES}) {{", *_lanes(OVER_COLUMNS, [line]), f"}} else {one_by_one}"]


def _lanes(over: str, lines: list[str], reduction: str | None = None) -> list[str]:
    if not lines:
        return []
    reduction = reduction or ("|: wrong" if any("wrong" in line for line in lines) else None)
    return [
        *([f"{over} {{"] if over else []),
        f"#pragma omp simd{f' reduction({reduction})' if reduction else ''}",
        f"for (int l = 0; l < {LANES}; ++l) {{",
        *(f"  {line}" for line in lines),
        "}",
        *(["}"] if over else []),
    ]
