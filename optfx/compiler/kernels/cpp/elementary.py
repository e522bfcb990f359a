"""C++ for `exp`, `log`, `tanh`, `atan2` and their kin as straight lines of arithmetic, for float and double (`erf` and
`pow` for float).

A compiler makes vectors of these, and none of calls of the C library. The bits of a result do not depend on where in
a loop an element stands. They are within three units in the last place, for numbers of all sizes; numbers too small to
be normal, infinities and NaN come out as the C library has them. The logarithm is that of fdlibm (Sun Microsystems,
1993), the polynomial of `exp` in single precision that of Cephes (Moshier, 1989); those of `atan2` deviate least over
Chebyshev's nodes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_TEMPLATE = """
static inline U_T bits_of(T x) { U_T y; __builtin_memcpy(&y, &x, sizeof y); return y; }
static inline T T_of_bits(U_T x) { T y; __builtin_memcpy(&y, &x, sizeof y); return y; }
static inline T choose(bool c, T a, T b) {
  const U_T mask = -U_T(c);
  return T_of_bits((bits_of(a) & mask) | (bits_of(b) & ~mask));
}
static inline T power_of_two(T n) {  // for whole n of a normal result
  return T_of_bits((bits_of(n + T(MAGIC)) - bits_of(T(MAGIC)) + BIAS) << SHIFT);
}
static inline T whole_twos(T x) { return multiply_add<T>(x, T(1.4426950408889634), T(MAGIC)) - T(MAGIC); }
static inline T past_twos(T x, T n) { return multiply_add<T>(n, -T(LN2_LOW), multiply_add<T>(n, -T(LN2_HIGH), x)); }
static inline T exp_minus_one_near_0(T r) { return multiply_add<T>(EXP_TAIL, r * r, r); }
static inline T exp(T x) {
  x = x > T(TOP) ? T(TOP) : x;
  x = x < T(BOTTOM) ? T(BOTTOM) : x;
  const T n = whole_twos(x), y = exp_minus_one_near_0(past_twos(x, n)) + T(1);
  const T within = n > T(FAR) ? n - T(FAR) : n < T(-FAR) ? n + T(FAR) : n;  // in two steps, the last of which may round
  return y * power_of_two(within) * (n > T(FAR) ? T(TWO_FAR) : n < T(-FAR) ? T(1) / T(TWO_FAR) : T(1));
}
static inline T expm1(T x) {
  x = x > T(TOP) ? T(TOP) : x;
  const T from = x < T(FLAT) ? T(FLAT) : x, n = whole_twos(from), half = power_of_two(n - T(1));
  const T y = T(2) * multiply_add<T>(half, exp_minus_one_near_0(past_twos(from, n)), half - T(0.5));
  return x == T(0) ? x : y;
}
static inline T tanh(T x) {
  const T a = abs(x), y = expm1(T(2) * (a > T(ONE) ? T(ONE) : a));
  return copysign(y / (y + T(2)), x);
}
static inline T log(T x) {
  const bool small = x < T(SMALLEST);
  const U_T shifted = bits_of(small ? x * T(LIFT) : x) + (bits_of(T(1)) - ROOT_HALF);
  const T n = T_of_bits((shifted >> SHIFT) - BIAS + bits_of(T(MAGIC))) - T(MAGIC) - (small ? T(LIFTED) : T(0));
  const T f = T_of_bits((shifted & MANTISSA) + ROOT_HALF) - T(1), s = f / (T(2) + f), z = s * s, h = T(0.5) * f * f;
  const T y = multiply_add<T>(n, T(LN2_HIGH), multiply_add<T>(s, h + z * LOG_TAIL, n * T(LN2_LOW)) - h + f);
  return x > T(0) ? (x < T(__builtin_inf()) ? y : x) : x == T(0) ? -T(__builtin_inf()) : T(__builtin_nan(""));
}
static inline T atan2(T y, T x) {
  const T a = abs(y), b = abs(x), top = a > b ? a : b, low = a > b ? b : a;
  const T r = top == T(0) ? T(0) : low == top ? T(1) : low / top;
  const bool far = r > T(0.4142135623730950);  // beyond half of an eighth of a turn
  const T u = far ? (r - T(1)) / (r + T(1)) : r, z = u * u;
  T v = multiply_add<T>(ATAN_TAIL * z, u, u) + (far ? T(0.7853981633974483) : T(0));
  v = a > b ? T(1.5707963267948966) - v : v;
  v = copysign(T(1), x) < T(0) ? T(3.141592653589793) - v : v;
  return x != x || y != y ? x + y : copysign(v, y);
}
static inline T log1p(T x) {
  const T u = T(1) + x, y = log(u) + (x - (u - T(1))) / u;
  return x == T(0) || u == T(__builtin_inf()) ? x : u == T(0) ? -T(__builtin_inf()) : y;
}
"""


def _polynomial(coefficients: Sequence[float], x: str) -> str:
    """c0 + c1 x + c2 x² + ..., from the last on."""
    *rest, text = (f"T({c!r})" for c in coefficients)
    for c in reversed(rest):
        text = f"multiply_add<T>({text}, {x}, {c})"
    return text


_SINGLE = {
    "U_T": "uint32_t",
    "MAGIC": "12582912.0",  # 1.5 · 2²³: what is added to it is rounded to a whole number
    "BIAS": "127",
    "SHIFT": "23",
    "MANTISSA": "0x007fffff",
    "ROOT_HALF": "0x3f3504f3",  # the bits of √½
    "LN2_HIGH": "0.693359375",
    "LN2_LOW": "-2.12194440e-4",
    "TOP": "89.0",
    "BOTTOM": "-105.0",
    "TWO_FAR": "0x1p64",
    "FAR": "64.0",
    "FLAT": "-20.0",
    "ONE": "10.0",
    "SMALLEST": "1.1754943508222875e-38",
    "LIFTED": "25.0",
    "LIFT": "33554432.0",
    "EXP_TAIL": _polynomial(
        [5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4], "r"
    ),
    "ATAN_TAIL": _polynomial(
        [-0.3333333176116852, 0.19999540483648964, -0.1426395559798464, 0.10743731490791084, -0.06451928208121749], "z"
    ),
    "LOG_TAIL": _polynomial([0.66666662693, 0.40000972152, 0.28498786688, 0.24279078841], "z"),
}
_DOUBLE = {
    "U_T": "uint64_t",
    "MAGIC": "6755399441055744.0",
    "BIAS": "1023",
    "SHIFT": "52",
    "MANTISSA": "0x000fffffffffffff",
    "ROOT_HALF": "0x3fe6a09e00000000",
    "LN2_HIGH": "0.693147180369123816490",
    "LN2_LOW": "1.90821492927058770002e-10",
    "TOP": "710.0",
    "BOTTOM": "-746.0",
    "TWO_FAR": "0x1p512",
    "FAR": "512.0",
    "FLAT": "-40.0",
    "ONE": "20.0",
    "SMALLEST": "2.2250738585072014e-308",
    "LIFTED": "54.0",
    "LIFT": "18014398509481984.0",
    "EXP_TAIL": _polynomial([1 / math.factorial(k) for k in range(2, 14)], "r"),
    "ATAN_TAIL": _polynomial(
        [
            -0.3333333333333333,
            0.19999999999999993,
            -0.14285714285711518,
            0.11111111110754729,
            -0.0909090906700999,
            0.07692306736000173,
            -0.06666642020055166,
            0.058819252531928636,
            -0.05258041554297779,
            0.04719395030027433,
            -0.04104436265755082,
            0.030635704112969498,
            -0.01391822929102443,
        ],
        "z",
    ),
    "LOG_TAIL": _polynomial(
        [
            6.666666666666735130e-01,
            3.999999999940941908e-01,
            2.857142874366239149e-01,
            2.222219843214978396e-01,
            1.818357216161805012e-01,
            1.531383769920937332e-01,
            1.479819860511658591e-01,
        ],
        "z",
    ),
}


def _of(T: str, constants: dict[str, str]) -> str:
    text = _TEMPLATE
    for name, value in constants.items():
        text = re.sub(rf"(?<![A-Z_]){name}(?![A-Z_])", value, text)
    return re.sub(r"(?<![A-Za-z_])T(?=[ (),>])|T(?=_of_bits)", T, text)


# erf(x) = x + x P(x²) near 0, and 1 - exp(Q(x)) beyond: least squares over Chebyshev's nodes
_ERF_NEAR = [
    0.12837916679586317,
    -0.37612635252632415,
    0.11283718890834477,
    -0.026860708957492405,
    0.005204331583103009,
    -0.0008180780881440623,
    8.534120603943799e-05,
]
_ERF_FAR = [
    8.839896246648493e-05,
    -1.1291183958219557,
    -0.6341044400957649,
    -0.10750129347694093,
    0.024654586107006483,
    -0.004010109175637393,
    0.00040454289308039575,
    -1.8792428730924374e-05,
]
_ERF = f"""
static inline double erf(double x) {{ return __builtin_erf(x); }}
static inline float erf(float x) {{
  const float a = abs(x), s = x * x, t = a > 4.0f ? 4.0f : a;
  const float near = multiply_add<float>({_polynomial(_ERF_NEAR, "s")}, a, a);
  const float far = 1.0f - exp({_polynomial(_ERF_FAR, "t")});
  return copysign(a < 0.9f ? near : a == a ? far : a, x);
}}
""".replace("T(", "float(").replace("<T>", "<float>")

_POW = """
static inline double pow(double x, double y) { return __builtin_pow(x, y); }
static inline float pow(float x, float y) {  // in double, so that it is rounded once
  const float infinity = __builtin_inff();
  const bool whole = floor(y) == y, odd = whole && floor(y * 0.5f) * 2.0f != y;
  const float r = float(exp(double(y) * log(abs(double(x)))));
  const float signed_r = odd ? copysign(r, x) : r;
  const float z = x < 0.0f && x > -infinity && !whole ? __builtin_nanf("") : signed_r;
  return y == 0.0f || x == 1.0f || (x == -1.0f && abs(y) == infinity) ? 1.0f : z;
}
"""

ELEMENTARY = _of("float", _SINGLE) + _of("double", _DOUBLE) + _ERF + _POW
