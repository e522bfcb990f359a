"""C++ for the CPU: a traced program as one loop over all leaves, scalar work as a function without any.

The loop runs over the elements of all leaves as if they stood in a row, in chunks that are shared out evenly to the
threads, whatever the sizes of the leaves. Two things make it faster than what Inductor writes for the same graph:
scalars are read before the loop (the compiler cannot know that no store changes them), and memory is fetched ahead
across the borders of pages. Every operation is rounded as in eager code. Sums are taken in double, chunk by chunk, so
they do not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from optfx.compiler import build
from optfx.compiler.memory import numbers_in

CHUNK = 4096  # elements that one thread does in one go
BLOCK = 64  # elements between two fetches ahead
AHEAD = 1024  # bytes
THREADS = 32768  # elements from which on threads are worth their start

HALF = {torch.bfloat16: "bf16", torch.float16: "fp16"}
IN_MEMORY = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.int16: "int16_t",
    torch.int8: "int8_t",
    torch.uint8: "uint8_t",
    torch.bool: "bool",
    torch.bfloat16: "uint16_t",
    torch.float16: "_Float16",
}

HEAD = """#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>
#include <omp.h>
static inline float load_bf16(uint16_t b) { uint32_t x = uint32_t(b) << 16; float y; std::memcpy(&y, &x, 4); return y; }
static inline uint16_t to_bf16(float y) {
  uint32_t x; std::memcpy(&x, &y, 4);
  return y != y ? uint16_t(0x7fc0) : uint16_t((x + 0x7fff + ((x >> 16) & 1)) >> 16);
}
static inline float round_bf16(float y) { return load_bf16(to_bf16(y)); }
static inline float round_fp16(float y) { return float(_Float16(y)); }
template <class T> static inline T larger(T a, T b) { return a > b || a != a ? a : b; }
template <class T> static inline T smaller(T a, T b) { return a < b || a != a ? a : b; }
template <class T> static inline T sign_of(T a) { return T(T(0) < a) - T(a < T(0)); }
template <class T> static inline T blend(T a, T b, T w) {
  return std::abs(w) < T(0.5) ? a + w * (b - a) : b - (b - a) * (T(1) - w);
}
template <class T> static inline T modulo(T a, T b) { T r = std::fmod(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
static inline int64_t modulo(int64_t a, int64_t b) { int64_t r = a % b; return r != 0 && (r < 0) != (b < 0) ? r + b : r; }
"""

# what each operation is of its arguments, which are of the type T of the result
PLAIN = {
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "reciprocal": "T(1) / {0}",
    "sqrt": "std::sqrt({0})",
    "rsqrt": "T(1) / std::sqrt({0})",
    "abs": "std::abs({0})",
    "square": "{0} * {0}",
    "sign": "sign_of<T>({0})",
    "exp": "std::exp({0})",
    "expm1": "std::expm1({0})",
    "log": "std::log({0})",
    "log1p": "std::log1p({0})",
    "log2": "std::log2({0})",
    "sin": "std::sin({0})",
    "cos": "std::cos({0})",
    "tanh": "std::tanh({0})",
    "floor": "std::floor({0})",
    "ceil": "std::ceil({0})",
    "trunc": "std::trunc({0})",
    "round": "std::nearbyint({0})",
    "maximum": "larger<T>({0}, {1})",
    "minimum": "smaller<T>({0}, {1})",
    "clamp_min": "larger<T>({0}, {1})",
    "clamp_max": "smaller<T>({0}, {1})",
    "lerp": "blend<T>({0}, {1}, {2})",
    "remainder": "modulo({0}, {1})",
    "clone": "{0}",
    "detach": "{0}",
    "alias": "{0}",
    "lift_fresh_copy": "{0}",
    "zeros_like": "T(0)",
    "ones_like": "T(1)",
    "bitwise_and": "T({0} & {1})",
    "bitwise_or": "T({0} | {1})",
    "bitwise_xor": "T({0} ^ {1})",
    "logical_and": "{0} && {1}",
    "logical_or": "{0} || {1}",
    "logical_not": "!{0}",
}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
TESTS = {"isnan": "{0} != {0}", "isinf": "std::abs({0}) == std::numeric_limits<T>::infinity()"}
TESTS |= {"logical_and": "{0} != 0 && {1} != 0", "logical_or": "{0} != 0 || {1} != 0", "logical_not": "{0} == 0"}
SUMS = {"sum": "{0}", "any": "{0} != 0", "all": "{0} != 0", "amax": "{0}", "max": "{0}", "amin": "{0}", "min": "{0}"}


def launcher(gm: GraphModule, n: int, k: int) -> Callable[..., Callable[[], None]]:
    """The `launch` of a kernel: one call for all leaves."""
    P = ctypes.c_void_p
    library = build.Library(loop(gm, n, k), ctypes.c_int64, P, P, P, ctypes.c_int)

    def launch(rows: list[list[int]], values: list[Any], parts: list[Tensor], scalars: list[Tensor]) -> Any:
        count, lengths = len(rows), [numbers_in(values[row[0]]) for row in rows]
        for row, length in zip(rows, lengths, strict=True):  # a kernel does not look: it would write anywhere
            assert all(numbers_in(values[i]) == length for i in row)
        ends = (ctypes.c_int64 * count)(*itertools.accumulate(lengths))
        columns = [list(column) for column in zip(*rows, strict=True)]
        pointers = (ctypes.c_void_p * (count * len(columns)))()
        others = _pointers([*parts, *scalars])
        run = None

        def call() -> None:
            nonlocal run
            run = run or library.run
            pointers[:] = [values[i].data_ptr() for column in columns for i in column]
            run(count, ends, pointers, others, torch.get_num_threads())

        return call

    return launch


def scalar_work(gm: GraphModule, args: list[Tensor]) -> Callable[[], None]:
    """The function of a graph of numbers, bound to its arguments."""
    source, constants = scalar(gm)
    library, pointers = build.Library(source, ctypes.c_void_p), _pointers([*args, *constants])
    return lambda: library.run(pointers)


def _pointers(tensors: list[Tensor]) -> Any:
    pointers = (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))
    pointers.keep = tensors  # type: ignore[attr-defined]
    return pointers


class Unsupported(Exception):
    """An operation that this file does not write."""


def ctype(dtype: torch.dtype) -> str:
    """The type of a value while it is computed with: half precision in float, rounded after each operation."""
    if dtype in HALF:
        return "float"
    if dtype not in IN_MEMORY:
        raise Unsupported(str(dtype))
    return IN_MEMORY[dtype]


def load(place: str, dtype: torch.dtype) -> str:
    return f"load_bf16({place})" if dtype == torch.bfloat16 else f"{ctype(dtype)}({place})"


def stored(value: str, dtype: torch.dtype) -> str:
    return f"to_bf16({value})" if dtype == torch.bfloat16 else f"{IN_MEMORY[dtype]}({value})"


def literal(value: Any, T: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        name = "quiet_NaN" if value != value else "infinity"
        return f"{'-' if value < 0 else ''}std::numeric_limits<{T}>::{name}()"
    return f"{T}({value!r})" if not isinstance(value, bool) else f"{T}({int(value)})"


class Writer:
    """Statements for the nodes of a graph."""

    def __init__(self) -> None:
        self.names: dict[Node, str] = {}
        self.casts: dict[Node, torch.dtype] = {}

    def value(self, x: Any, T: str) -> str:
        """An argument as a value of type T."""
        if not isinstance(x, Node):
            if not isinstance(x, (int, float)):
                raise Unsupported(f"the argument {x!r}")
            return literal(x, T)
        if x not in self.names:
            raise Unsupported(f"{x.target} in this place")
        mine = ctype(x.meta["val"].dtype)
        return self.names[x] if mine == T else f"({self.names[x]} != 0)" if T == "bool" else f"{T}({self.names[x]})"

    def define(self, node: Node) -> str:
        """The statement that computes a node."""
        dtype = node.meta["val"].dtype
        self.names[node] = name = f"t{len(self.names)}"
        try:
            value = self.expression(node)
        except Unsupported:
            del self.names[node]
            raise
        if dtype in HALF:
            value = f"round_{HALF[dtype]}({value})"
        return f"const {ctype(dtype)} {name} = {value};"

    def expression(self, node: Node) -> str:
        name, args = _name(node), list(node.args)
        T = ctype(node.meta["val"].dtype)
        if name in ("add", "sub", "rsub"):
            a, b = (self.value(x, T) for x in (args if name != "rsub" else args[::-1]))
            alpha = node.kwargs.get("alpha", 1)
            b = b if alpha == 1 else f"{self.value(alpha, T)} * {b}"
            return f"{a} {'+' if name == 'add' else '-'} {b}"
        if name in COMPARISONS:
            C = ctype(torch.result_type(*(x.meta["val"] if isinstance(x, Node) else x for x in args)))
            return f"{self.value(args[0], C)} {COMPARISONS[name]} {self.value(args[1], C)}"
        if name in TESTS and T == "bool":
            C = ctype(args[0].meta["val"].dtype)
            return TESTS[name].replace("T>", f"{C}>").format(*(self.value(x, C) for x in args))
        if name in ("_to_copy", "convert_element_type"):
            return self.value(args[0], T)
        if name == "where":
            return f"{self.value(args[0], 'bool')} ? {self.value(args[1], T)} : {self.value(args[2], T)}"
        if name == "clamp":
            x, low, high = self.value(args[0], T), *(args[1:] + [None, None])[:2]
            low, high = node.kwargs.get("min", low), node.kwargs.get("max", high)
            x = x if low is None else f"larger<{T}>({x}, {self.value(low, T)})"
            return x if high is None else f"smaller<{T}>({x}, {self.value(high, T)})"
        if name == "pow":
            if args[1] == 2:
                return "{0} * {0}".format(self.value(args[0], T))
            if args[1] == 0.5:
                return f"std::sqrt({self.value(args[0], T)})"
            return f"std::pow({self.value(args[0], T)}, {self.value(args[1], T)})"
        if name in ("addcmul", "addcdiv"):
            a, b, c = (self.value(x, T) for x in args[:3])
            v = node.kwargs.get("value", 1)
            return f"{a} + {'' if v == 1 else literal(v, T) + ' * '}{b} {'*' if name == 'addcmul' else '/'} {c}"
        if name in ("scalar_tensor", "full_like", "full"):
            return self.value(args[0 if name == "scalar_tensor" else 1], T)
        if name == "bitwise_not":
            return f"!{self.value(args[0], T)}" if T == "bool" else f"~{self.value(args[0], T)}"
        if name in PLAIN and not node.kwargs.get("rounding_mode") and not node.kwargs.get("decimals"):
            wanted = {int(c) for c in "012" if f"{{{c}}}" in PLAIN[name]}
            text = PLAIN[name].replace("T(", f"{T}(").replace("<T>", f"<{T}>")
            return text.format(*(self.value(x, T) if k in wanted else "" for k, x in enumerate(args)))
        raise Unsupported(f"{node.target}")


def _name(node: Node) -> str:
    return getattr(getattr(node.target, "overloadpacket", None), "__name__", str(node.target))


class Reduced:
    """A reduction to one number, as an accumulator: what it begins with, how it takes an element and another one, and
    what it is in the end."""

    def __init__(self, node: Node, writer: Writer):
        name, x = _name(node), node.args[0]
        assert isinstance(x, Node)
        dtype, result = x.meta["val"].dtype, ctype(node.meta["val"].dtype)
        T = ctype(dtype)
        self.source = x
        value, self.simd, self.end = writer.value(x, T), True, "{0}"
        wide = "double" if dtype.is_floating_point else "int64_t"
        order = (list(node.args) + [2])[1] if name == "linalg_vector_norm" else None
        if name in ("amax", "max", "amin", "min") or order in (math.inf, -math.inf):
            low = name in ("amin", "min") or order == -math.inf
            self.type, self.simd = T, False  # NaN-propagating: no reduction that OpenMP knows
            limit = "infinity" if dtype.is_floating_point else "lowest" if not low else "max"
            self.begin = f"{'' if low or not dtype.is_floating_point else '-'}std::numeric_limits<{T}>::{limit}()"
            f = "smaller" if low else "larger"
            value = f"std::abs({value})" if order else value
            self.take = f"{{0}} = {f}<{T}>({value}, {{0}});"
            self.merge = f"{{0}} = {f}<{T}>({{1}}, {{0}});"
        elif name in ("any", "all"):
            self.type, self.begin, self.clause = "int", "0" if name == "any" else "1", "|" if name == "any" else "&"
            self.take = f"{{0}} {self.clause}= int({value} != 0);"
            self.merge = f"{{0}} {self.clause}= {{1}};"
            self.end = "{0} != 0"
        elif name == "sum" or order in (1, 2):
            self.type, self.begin, self.clause = wide, "0", "+"
            wider = f"{wide}({value})"
            value = wider if name == "sum" else f"std::abs({wider})" if order == 1 else f"{wider} * {wider}"
            self.take, self.merge = f"{{0}} += {value};", "{0} += {1};"
            self.end = "std::sqrt({0})" if order == 2 else "{0}"
        else:
            raise Unsupported(f"{node.target} of order {order}" if order else f"{node.target}")
        dims = node.args[2 if order else 1 :]
        if any(d not in (None, [], [0], [-1], False) for d in dims[:1]):
            raise Unsupported(f"{node.target} over {dims}")
        self.end = f"{result}({self.end})"


REDUCTIONS = ("sum", "any", "all", "amax", "amin", "max", "min", "linalg_vector_norm")


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
    read = [x for x in leaves if any(_name(u) != "copy_" or u.args[0] is not x for u in x.users)]
    for x in read:
        body.append(f"const {ctype(x.meta['val'].dtype)} x{leaves.index(x)} = "
                    f"{load(f'a{leaves.index(x)}[i]', x.meta['val'].dtype)};")
        writer.names[x] = f"x{leaves.index(x)}"
    for x in gm.graph.nodes:
        if x.op in ("placeholder", "output"):
            continue
        if x.op != "call_function":
            raise Unsupported(x.op)
        if _name(x) == "sym_size":
            continue
        if _name(x) == "copy_":
            to, y = x.args[:2]
            dtype = to.meta["val"].dtype
            if to in leaves:
                stores.append(f"a{leaves.index(to)}[i] = {stored(writer.value(y, ctype(dtype)), dtype)};")
            else:
                value = stored(writer.value(y, ctype(dtype)), dtype)
                end.append(f"*({IN_MEMORY[dtype]}*)S[{parts.index(to)}] = {value};")
        elif _name(x) in REDUCTIONS and not x.meta["val"].ndim and x.args[0].meta["val"].ndim:
            r = Reduced(x, writer)
            body.append(r.take.format(f"r{len(sums)}"))
            writer.names[x] = f"e{len(sums)}"
            after.append(f"const {ctype(x.meta['val'].dtype)} e{len(sums)} = {r.end.format(f'm{len(sums)}')};")
            sums.append(r)
        else:
            (body if x.meta["val"].ndim else after).append(writer.define(x))
    written = {x.args[0] for x in gm.graph.nodes if x.op == "call_function" and _name(x) == "copy_"}
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
    gather = "\n  ".join(
        f"std::vector<{r.type}> p{j}(chunks, {r.begin});" for j, r in enumerate(sums)
    )
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


def scalar(gm: GraphModule) -> tuple[str, list[Tensor]]:
    """The function of scalar work: `run(pointers)`, and the constants whose pointers come after the arguments'."""
    writer, lines, stores = Writer(), [], []
    places: dict[Node, int] = {}
    constants: list[Tensor] = []
    inputs = [x for x in gm.graph.nodes if x.op == "placeholder"]
    for x in gm.graph.nodes:
        value = x.meta.get("val")
        if x.op in ("placeholder", "get_attr"):
            places[x] = len(places) if x.op == "placeholder" else len(inputs) + len(constants)
            if x.op == "get_attr":
                value = getattr(gm, x.target)
                x.meta["val"] = value
                constants.append(value)
            if not value.ndim and value.dtype in IN_MEMORY:
                writer.names[x] = f"x{places[x]}"
                place = f"*(const {IN_MEMORY[value.dtype]}*)P[{places[x]}]"
                lines.append(f"const {ctype(value.dtype)} x{places[x]} = {load(place, value.dtype)};")
        elif x.op == "call_function" and _name(x) == "copy_":
            dtype = x.args[0].meta["val"].dtype
            value = stored(writer.value(x.args[1], ctype(dtype)), dtype)
            stores.append(f"*({IN_MEMORY[dtype]}*)P[{places[x.args[0]]}] = {value};")
        elif x.op == "call_function" and _name(x) in REDUCTIONS and x.args[0] in places and value.ndim == 0:
            source = x.args[0]
            shape, dtype = source.meta["val"].shape, source.meta["val"].dtype
            if len(shape) != 1:
                raise Unsupported(f"{x.target} of {tuple(shape)}")
            writer.names[source] = "y"
            r = Reduced(x, writer)
            del writer.names[source]
            j = len(writer.names)
            lines.append(
                f"{r.type} r{j} = {r.begin}; for (int64_t i = 0; i < {shape[0]}; ++i) {{ const {ctype(dtype)} y = "
                f"{load(f'((const {IN_MEMORY[dtype]}*)P[{places[source]}])[i]', dtype)}; {r.take.format(f'r{j}')} }}"
            )
            lines.append(f"const {ctype(value.dtype)} e{j} = {r.end.format(f'r{j}')};")
            writer.names[x] = f"e{j}"
        elif x.op == "call_function" and _name(x) == "index" and not value.ndim and x.args[0] in places:
            (table, (at,)) = x.args
            shape, dtype = table.meta["val"].shape, table.meta["val"].dtype
            if len(shape) != 1 or not isinstance(at, Node) or at.meta["val"].ndim:
                raise Unsupported(f"{x.target} of {tuple(shape)}")
            i = writer.value(at, "int64_t")
            j = len(writer.names)
            place = f"((const {IN_MEMORY[dtype]}*)P[{places[table]}])[{i} < 0 ? {i} + {shape[0]} : {i}]"
            lines.append(f"const {ctype(dtype)} e{j} = {load(place, dtype)};")
            writer.names[x] = f"e{j}"
        elif x.op == "call_function":
            if value is None or value.ndim:
                raise Unsupported(f"{x.target}")
            lines.append(writer.define(x))
    body = "\n  ".join(lines + stores)
    return f'{HEAD}\nextern "C" void run(void* const* P) {{\n  {body}\n}}\n', constants
