"""C++ for the activations of networks and their derivatives, as expressions of arguments of the type T."""

from __future__ import annotations

GELU, CUBIC = "T(0.7978845608028654)", "T(0.044715)"  # √(2/π), and the coefficient of x³


def _inner(x: str) -> str:
    return f"{GELU} * ({x} + {CUBIC} * ({x} * {x} * {x}))"


ACTIVATIONS = {
    "threshold_backward": "{1} <= {2} ? T(0) : {0}",
    "tanh_backward": "{0} * (T(1) - {1} * {1})",
    "sigmoid_backward": "{0} * (T(1) - {1}) * {1}",
    "silu": "{0} / (T(1) + op::exp(-{0}))",
    "leaky_relu": "{0} > T(0) ? {0} : {0} * {1}",
    "leaky_relu_backward": "{1} > T(0) ? {0} : {0} * {2}",
    "elu": "{0} < T(0) ? op::expm1({0} * {3}) * ({1} * {2}) : {0} * {2}",
    "elu_backward": "{5} > T(0) ? {0} * {2}"
    " : {0} * {3} * ({4} != T(0) ? {5} + {1} * {2} : {1} * {2} * op::exp({5} * {3}))",
    "hardtanh": "smaller<T>(larger<T>({0}, {1}), {2})",
    "hardtanh_backward": "{1} > {2} && {1} < {3} ? {0} : T(0)",
    "hardsigmoid": "smaller<T>(larger<T>({0} + T(3), T(0)), T(6)) / T(6)",
    "hardsigmoid_backward": "{1} > T(-3) && {1} < T(3) ? {0} * T(1.0f / 6.0f) : T(0)",
    "hardswish": "{0} * smaller<T>(larger<T>({0} + T(3), T(0)), T(6)) / T(6)",
    "hardswish_backward": "{1} <= T(-3) ? T(0) : {1} < T(3) ? {0} * ({1} / T(3) + T(0.5)) : {0}",
    "softplus": "{0} * {1} > {2} ? {0} : op::log1p(op::exp({0} * {1})) / {1}",
    "softplus_backward": "{1} * {2} > {3} ? {0} : {0} * op::exp({1} * {2}) / (op::exp({1} * {2}) + T(1))",
    "log_sigmoid_backward": "{0} * ({1} < T(0) ? T(1) - {2} / (T(1) + {2}) : {2} / (T(1) + {2}))",
    "hardshrink": "{0} >= -{1} && {0} <= {1} ? T(0) : {0}",
    "hardshrink_backward": "{1} > {2} || {1} < -{2} ? {0} : T(0)",
    "softshrink_backward": "{1} > {2} || {1} < -{2} ? {0} : T(0)",
    "gelu": "T(0.5) * {0} * (T(1) + op::erf({0} * T(0.7071067811865476)))",
    "gelu_backward": "{0} * (T(0.5) * (T(1) + op::erf({1} * T(0.7071067811865476)))"
    " + {1} * (op::exp({1} * {1} * T(-0.5)) * T(0.3989422804014327)))",
    "gelu of tanh": "T(0.5) * {0} * (T(1) + op::tanh(" + _inner("{0}") + "))",
    "gelu_backward of tanh": "{0} * gelu_slope<T>({1}, op::tanh(" + _inner("{1}") + "))",
}

SLOPE = f"""template <class T> static inline T gelu_slope(T x, T y) {{  // y is the tanh
  return T(0.5) * (T(1) + y) + T(0.5) * x * (T(1) - y * y) * {GELU} * (T(1) + T(3) * {CUBIC} * x * x);
}}
"""
