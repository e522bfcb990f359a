"""C++ for the operations of a graph, one statement for each node.

Every operation is rounded as in eager code, half precision after each operation. Torch's own kernels are compiled for
the processor they run on: where that multiplies and adds in one rounding, they do so in `lerp`, `addcmul` and sums with
an `alpha`, and so does `multiply_add` here. The exceptions are `sqrt`, which is the nearest number here and is not
always in eager code (MKL), and `exp`, `log`, `pow`, `sin`, `tanh` and the like, which differ by a few units in the last
place.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch.fx import Node

from optfx.compiler.kernels import writer
from optfx.compiler.kernels.binding import Unsupported
from optfx.compiler.kernels.cpp import activations, elementary, nibbles, tables
from optfx.compiler.kernels.writer import UINT4, arguments_of, name_of

HALF = {torch.bfloat16: "bf16", torch.float16: "fp16"}
IN_MEMORY = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.int16: "int16_t",
    torch.int8: "int8_t",
    torch.uint8: "uint8_t",
    UINT4: "uint8_t",  # two in a byte
    torch.bool: "bool",
    torch.bfloat16: "uint16_t",
    torch.float16: "uint16_t",
}

# a header of the library takes longer to read than a kernel does to compile: there is none
_TYPES = """extern "C" int omp_get_thread_num();
extern "C" int omp_get_num_threads();
typedef __INT64_TYPE__ int64_t;
typedef __INT32_TYPE__ int32_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT8_TYPE__ int8_t;
typedef __UINT64_TYPE__ uint64_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT8_TYPE__ uint8_t;
typedef uint32_t pair __attribute__((aligned(2), may_alias));
static inline uint32_t word_of(float y) { uint32_t x; __builtin_memcpy(&x, &y, 4); return x; }
static inline float of_word(uint32_t x) { float y; __builtin_memcpy(&y, &x, 4); return y; }
static inline uint32_t nearest(uint32_t x, uint32_t bits) {  // without its last bits; halfway, the even one
  // what lies halfway is carried if the bit before it is set; in other numbers the very last bit carries nothing
  return ((x | ((x >> bits) & 1)) + ((1u << (bits - 1)) - 1)) & ~((1u << bits) - 1);
}
static inline float load_bf16(uint16_t b) { return of_word(uint32_t(b) << 16); }
static inline float round_bf16(float y) { return of_word(y != y ? 0x7fc00000u : nearest(word_of(y), 16)); }
static inline float near_bf16(float y) { return of_word(nearest(word_of(y), 16)); }  // of a NaN whose last bits are 0
template <class T> static inline T plain_nan(T x) { return x != x ? T(__builtin_nan("")) : x; }
static inline uint16_t cut_bf16(float y) { return uint16_t(word_of(y) >> 16); }
static inline float load_fp16(uint16_t h) {
  const uint32_t x = uint32_t(h & 0x7fff) << 13, y = x + 0x38000000u;
  const float small = of_word(x + 0x38800000u) - of_word(0x38800000u);  // has no leading one
  const uint32_t large = x < 0x0f800000u ? y : y + 0x38000000u;
  return of_word((x < 0x00800000u ? word_of(small) : large) | uint32_t(h & 0x8000) << 16);
}
static inline float round_fp16(float y) {
  const uint32_t x = word_of(y) & 0x7fffffffu, near = nearest(x, 13);
  const float small = of_word(x) + 0.5f - 0.5f;
  const uint32_t large = x > 0x7f800000u ? 0x7fc00000u : near > 0x477fe000u ? 0x7f800000u : near;
  return of_word((x < 0x38800000u ? word_of(small) : large) | (word_of(y) & 0x80000000u));
}
static inline uint16_t cut_fp16(float y) {
  const uint32_t x = word_of(y) & 0x7fffffffu, small = word_of(of_word(x) + 0.5f) - 0x3f000000u;
  const uint32_t large = x < 0x7f800000u ? (x - 0x38000000u) >> 13 : 0x7c00u | (x >> 13 & 0x3ff);
  return uint16_t((x < 0x38800000u ? small : large) | (word_of(y) >> 16 & 0x8000));
}
static inline uint16_t to_bf16(float y) { return cut_bf16(round_bf16(y)); }
static inline uint16_t to_fp16(float y) { return cut_fp16(round_fp16(y)); }
// beside a constant a processor has one instruction, which gives its second number where neither is larger
template <class T> static inline T larger(T a, T b) {
  if (__builtin_constant_p(b == b) && b == b) return b > a ? b : a;
  const T m = a > b ? a : b;
  return a != a ? a : m;
}
template <class T> static inline T smaller(T a, T b) {
  if (__builtin_constant_p(b == b) && b == b) return b < a ? b : a;
  const T m = a < b ? a : b;
  return a != a ? a : m;
}
template <class T> struct Numbers {  // n of them
  T* const at;
  Numbers(int64_t n, T x) : at((T*)__builtin_malloc(n * sizeof x)) { for (int64_t i = 0; i < n; ++i) at[i] = x; }
  ~Numbers() { __builtin_free(at); }
  T& operator[](int64_t i) const { return at[i]; }
};
template <class T> static inline T sign_of(T a) { return T(T(0) < a) - T(a < T(0)); }
template <class T> static inline T multiply_add(T a, T b, T c) { return a * b + c; }
#if defined(__FMA__) || defined(__aarch64__)
template <> inline float multiply_add(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
template <> inline double multiply_add(double a, double b, double c) { return __builtin_fma(a, b, c); }
#endif
#define OF_FLOATS(name, of) \\
  static inline float name(float x) { return __builtin_##of##f(x); } \\
  static inline double name(double x) { return __builtin_##of(x); }
#define OF_TWO_FLOATS(name) \\
  static inline float name(float x, float y) { return __builtin_##name##f(x, y); } \\
  static inline double name(double x, double y) { return __builtin_##name(x, y); }
namespace op {
template <class T> static inline T abs(T a) { return a < T(0) ? T(-a) : a; }
OF_FLOATS(abs, fabs) OF_FLOATS(sqrt, sqrt) OF_FLOATS(exp2, exp2) OF_FLOATS(log2, log2) OF_FLOATS(log10, log10)
OF_FLOATS(sin, sin) OF_FLOATS(cos, cos) OF_FLOATS(floor, floor) OF_FLOATS(ceil, ceil)
OF_FLOATS(trunc, trunc) OF_FLOATS(round, nearbyint)
OF_TWO_FLOATS(fmod) OF_TWO_FLOATS(copysign)
"""
_AND = """}
template <class T> static inline T blend(T a, T b, T w) {
  const bool near = op::abs(w) < T(0.5);
  return multiply_add<T>(near ? w : w - T(1), b - a, near ? a : b);
}
template <class T> static inline T modulo(T a, T b) {
  T r;
  if constexpr (T(0.5) == T(0)) r = a % b; else r = op::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
"""
HEAD = (_TYPES + elementary.ELEMENTARY + _AND + activations.SLOPE + tables.SOURCE + nibbles.SOURCE).replace(
    "static inline", "__attribute__((always_inline)) static inline"
)

# what each operation is of its arguments, which are of the type T of the result
PLAIN = {
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "reciprocal": "T(1) / {0}",
    "relu": "larger<T>({0}, T(0))",
    "sigmoid": "T(1) / (T(1) + op::exp(-{0}))",
    "sqrt": "op::sqrt({0})",
    "rsqrt": "T(1) / op::sqrt({0})",
    "abs": "op::abs({0})",
    "square": "{0} * {0}",
    **dict.fromkeys(("sign", "sgn"), "sign_of<T>({0})"),
    "exp": "op::exp({0})",
    "exp2": "op::exp2({0})",
    "expm1": "op::expm1({0})",
    "log": "op::log({0})",
    "log1p": "op::log1p({0})",
    "log2": "op::log2({0})",
    "sin": "op::sin({0})",
    "cos": "op::cos({0})",
    "tanh": "op::tanh({0})",
    "atan2": "op::atan2({0}, {1})",
    "floor": "op::floor({0})",
    "ceil": "op::ceil({0})",
    "trunc": "op::trunc({0})",
    "round": "op::round({0})",
    **dict.fromkeys(("maximum", "clamp_min"), "larger<T>({0}, {1})"),
    **dict.fromkeys(("minimum", "clamp_max"), "smaller<T>({0}, {1})"),
    "lerp": "blend<T>({0}, {1}, {2})",
    "remainder": "modulo<T>({0}, {1})",
    "erf": "op::erf({0})",
    **dict.fromkeys(("clone", "detach", "alias", "lift", "lift_fresh", "lift_fresh_copy"), "{0}"),
    **dict.fromkeys(("zeros", "zeros_like"), "T(0)"),
    **dict.fromkeys(("ones", "ones_like"), "T(1)"),
    "bitwise_and": "T({0} & {1})",
    "bitwise_or": "T({0} | {1})",
    "bitwise_xor": "T({0} ^ {1})",
    "logical_and": "{0} && {1}",
    "logical_or": "{0} || {1}",
    "logical_not": "!{0}",
    **activations.ACTIVATIONS,
}
TESTS = {
    "isnan": "{0} != {0}",
    "isinf": "op::abs({0}) == T(__builtin_inf())",
    "logical_and": "{0} != 0 && {1} != 0",
    "logical_or": "{0} != 0 || {1} != 0",
    "logical_not": "{0} == 0",
}


def ctype(dtype: torch.dtype) -> str:
    """The type of a value while it is computed with: float for half precision."""
    if dtype in HALF:
        return "float"
    if dtype not in IN_MEMORY:
        raise Unsupported(str(dtype))
    return IN_MEMORY[dtype]


def load(place: str, dtype: torch.dtype) -> str:
    return f"load_{HALF[dtype]}({place})" if dtype in HALF else f"{ctype(dtype)}({place})"


def stored(value: str, dtype: torch.dtype, rounded: bool = False) -> str:
    """A value as it lies in memory. One that is rounded already needs only be cut."""
    return f"{'cut' if rounded else 'to'}_{HALF[dtype]}({value})" if dtype in HALF else f"{IN_MEMORY[dtype]}({value})"


def literal(value: Any, T: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        number = '__builtin_nan("")' if value != value else "__builtin_inf()"
        return f"{'-' if value < 0 else ''}{T}({number})"
    return f"{T}({value!r})" if not isinstance(value, bool) else f"{T}({int(value)})"


class Writer(writer.Writer):
    """Statements for the nodes of a graph, in C++."""

    tests = TESTS

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[Any, str] = {}  # their names
        self.round = {dtype: f"round_{name}" for dtype, name in HALF.items()}

    def declared(self) -> str:
        """The tables."""
        return "\n".join(
            f"static const {T} {name}[{len(numbers)}] = {{{', '.join(literal(x, T) for x in numbers)}}};"
            for (numbers, T), name in self.tables.items()
        )

    def value(self, x: Any, T: str) -> str:
        """An argument as a value of type T."""
        if not isinstance(x, Node):
            if not isinstance(x, (int, float)):
                raise Unsupported(f"the argument {x!r}")
            return literal(x, T)
        if x not in self.names:
            raise Unsupported(f"{x.target} in this place")
        own, name = ctype(x.meta["val"].dtype), self.names[x]
        if own == "bool" and T in ("float", "double"):
            return f"({name} ? {T}(1) : {T}(0))"  # of a cast, no vectors are made
        return name if own == T else f"({name} != 0)" if T == "bool" else f"{T}({name})"

    def define(self, node: Node) -> str:
        """The statement that computes a node."""
        value = self.rounded(node)
        self.names[node] = f"t{len(self.names)}"
        return f"const {ctype(node.meta['val'].dtype)} {self.names[node]} = {value};"

    def rounded(self, node: Node) -> str:
        """What a node is, rounded to its dtype."""
        value, dtype = self.expression(node), node.meta["val"].dtype
        return f"{self.round[dtype]}({value})" if dtype in HALF else value

    def expression(self, node: Node) -> str:
        text, T = self.operation(node), ctype(node.meta["val"].dtype)
        if T not in ("float", "double", "bool") and re.search(r"op::(?!abs\b)", text):
            raise Unsupported(f"{node.target} of whole numbers")
        return text

    # ---- words of the language

    def type_of(self, dtype: torch.dtype) -> str:
        return ctype(dtype)

    def multiply_add(self, a: str, b: str, c: str, T: str) -> str:
        return f"multiply_add<{T}>({a}, {b}, {c})"

    def divide(self, a: str, b: str) -> str:
        return f"{a} / {b}"

    def root(self, x: str) -> str:
        return f"op::sqrt({x})"

    def raised(self, x: str, exponent: str) -> str:
        return f"op::pow({x}, {exponent})"

    def extreme(self, f: str, a: str, b: str, T: str) -> str:
        return f"{f}<{T}>({a}, {b})"

    # ---- operations ------------------------------------------------------------------------------

    def plain(self, node: Node, T: str) -> str:
        name = name_of(node)
        if node.kwargs.get("approximate") == "tanh":
            name += " of tanh"
        if name not in PLAIN or node.kwargs.get("rounding_mode") or node.kwargs.get("decimals"):
            raise Unsupported(f"{node.target}")
        wanted = {int(c) for c in "012345" if f"{{{c}}}" in PLAIN[name]}
        text = re.sub(r"\bT\(", f"{T}(", PLAIN[name]).replace("<T>", f"<{T}>")
        return text.format(*(self.value(x, T) if k in wanted else "" for k, x in enumerate(arguments_of(node))))

    def test(self, node: Node, T: str) -> str:
        C = ctype(node.args[0].meta["val"].dtype)  # type: ignore[union-attr]
        return TESTS[name_of(node)].replace("T(", f"{C}(").format(*(self.value(x, C) for x in node.args))

    def choose(self, condition: Any, a: Any, b: Any, T: str) -> str:
        c, a, b = self.value(condition, "bool"), self.value(a, T), self.value(b, T)
        if self.names[condition].startswith("s") and T in ("float", "double"):
            return f"op::choose({c}, {a}, {b})"  # of a branch that all elements take alike, no vectors are made
        return f"{c} ? {a} : {b}"

    def bitwise_not(self, node: Node, T: str) -> str:
        return f"{'!' if T == 'bool' else '~'}{self.value(node.args[0], T)}"

    def look_up(self, node: Node, T: str) -> str:
        at, numbers = node.args[:2]
        return f"{self._table(numbers, T)}[{self.value(at, 'int32_t')}]"

    def place(self, node: Node, T: str) -> str:
        x, limits = node.args[0], tuple(node.args[1])  # type: ignore[arg-type]
        C, n = ctype(x.meta["val"].dtype), len(limits)  # type: ignore[union-attr]
        value, found = self.value(x, C), tables.cells_of(limits) if C == "float" else None
        if found is None:
            return f"place<{(n + 1) // 2}>({self._table(limits, C)}, {value})"
        *form, numbers = found
        cells = self._table(numbers, "int32_t")
        return f"place_by_cells<{n}, {', '.join(str(int(k)) for k in form)}>({cells}, {value})"

    def _table(self, numbers: Any, T: str) -> str:
        return self.tables.setdefault((tuple(numbers), T), f"table{len(self.tables)}")

    written_by = writer.Writer.written_by | {"look_up": "look_up", "place": "place"}
