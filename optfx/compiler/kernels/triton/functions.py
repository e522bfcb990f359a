"""What kernels are made of beside Triton's own operations. Every operation is rounded as in eager code."""

import triton
import triton.language as tl


@triton.jit
def divide(a, b):
    if a.dtype == tl.float32:
        q = tl.div_rn(a, b)
    else:
        q = a / b
    return q


@triton.jit
def root(a):
    if a.dtype == tl.float32:
        r = tl.sqrt_rn(a)
    else:
        r = tl.sqrt(a)
    return r


@triton.jit
def to_bfloat16(a):
    """The nearest one, by its bits: Triton's interpreter cuts them off."""
    bits = a.to(tl.uint32, bitcast=True)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where(a != a, 0x7FC0, nearest).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def larger(a, b):
    return tl.where((a != a) | (a > b), a, b)


@triton.jit
def smaller(a, b):
    return tl.where((a != a) | (a < b), a, b)


@triton.jit
def sign_of(a):
    return (a > 0).to(a.dtype) - (a < 0).to(a.dtype)


@triton.jit
def blend(a, b, w):
    near = tl.abs(w) < 0.5
    return tl.where(near, a, b) + tl.where(near, w, w - 1) * (b - a)


@triton.jit
def modulo(a, b):
    r = a % b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)


@triton.jit
def whole_towards_zero(a):
    return tl.where(a < 0, tl.ceil(a), tl.floor(a))


@triton.jit
def nearest_whole(a):
    below = tl.floor(a)
    over = a - below
    up = (over > 0.5) | ((over == 0.5) & (2 * tl.floor(below * 0.5) != below))
    return tl.where(up, below + 1, below)


@triton.jit
def power(a, b):
    """The power of a number that is not negative, or NaN."""
    y = tl.exp(b.to(tl.float64) * tl.log(a.to(tl.float64))).to(a.dtype)
    return tl.where(a == 1, 1.0, tl.where(b == 0, 1.0, y)).to(a.dtype)


@triton.jit
def log_of_one_more(a):
    x = a.to(tl.float64)
    return tl.where(tl.abs(x) < 1e-5, x * (1 - x * (0.5 - x / 3)), tl.log(1 + x)).to(a.dtype)


@triton.jit
def exp_minus_one(a):
    x = a.to(tl.float64)
    return tl.where(tl.abs(x) < 1e-5, x * (1 + x * (0.5 + x / 6)), tl.exp(x) - 1).to(a.dtype)


@triton.jit
def hyperbolic_tangent(a):
    x = a.to(tl.float64)
    e = tl.exp(-2 * tl.abs(x))
    y = tl.where(tl.abs(x) < 1e-4, x - x * x * x / 3, (1 - e) / (1 + e) * tl.where(x < 0, -1.0, 1.0))
    return tl.where(x != x, x, y).to(a.dtype)


@triton.jit
def over_all(a, b):
    return a | b


@triton.jit
def both(a, b):
    return a & b
