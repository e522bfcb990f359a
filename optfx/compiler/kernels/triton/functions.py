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
    x, y = tl.broadcast(a.to(tl.float64), b.to(tl.float64))
    size = tl.where(tl.abs(x) == 1, 1.0, tl.exp(y * tl.log(tl.abs(x))))
    whole = tl.floor(y) == y
    odd = whole & (2 * tl.floor(y * 0.5) != y)
    found = tl.where(odd & (x.to(tl.int64, bitcast=True) < 0), -size, size)
    found = tl.where((x < 0) & (x > float("-inf")) & (y == y) & ~whole, float("nan"), found)
    return tl.where((x == 1) | (y == 0), 1.0, found).to(a.dtype)


@triton.jit
def log_of_one_more(a):
    """log(1 + x): what 1 + x lost when it was rounded is lost in u - 1, too (Kahan)."""
    x = a.to(tl.float64)
    u = 1 + x
    kept = (u == 1) | (u == float("inf"))
    return tl.where(kept, x, tl.log(u) * (x / tl.where(kept, 1.0, u - 1))).to(a.dtype)


@triton.jit
def exp_minus_one(a):
    """exp(x) - 1, in the same way."""
    x = a.to(tl.float64)
    u = tl.exp(x)
    kept = (u == 1) | (u == float("inf")) | (u - 1 == -1)
    y = (u - 1) * (x / tl.where(kept, 1.0, tl.log(u)))
    return tl.where(u == 1, x, tl.where(kept, u - 1, y)).to(a.dtype)


@triton.jit
def hyperbolic_tangent(a):
    x = a.to(tl.float64)
    e = exp_minus_one(-2 * tl.abs(x))
    return tl.where(x != x, x, tl.where(x < 0, e, -e) / (2 + e)).to(a.dtype)


@triton.jit
def angle_of(b, a):
    """The angle of the point (a, b), atan2: a polynomial finds it roughly, and what is left of it is small."""
    y = b.to(tl.float64)
    x = a.to(tl.float64)
    infinite = (tl.abs(x) == float("inf")) | (tl.abs(y) == float("inf"))
    x = tl.where(infinite & (tl.abs(x) < float("inf")), x * 0, tl.where(infinite, sign_of(x), x))
    y = tl.where(infinite & (tl.abs(y) < float("inf")), y * 0, tl.where(infinite, sign_of(y), y))
    most = tl.maximum(tl.abs(x), tl.abs(y))
    x = tl.where(most > 0, x / most, x)
    y = tl.where(most > 0, y / most, y)
    low = tl.minimum(tl.abs(x), tl.abs(y))
    s = low * low
    rough = low * (0.999866 + s * (-0.3302995 + s * (0.180141 + s * (-0.085133 + s * 0.0208351))))
    rough = tl.where(tl.abs(y) > tl.abs(x), 1.5707963267948966 - rough, rough)
    backwards = x.to(tl.int64, bitcast=True) < 0  # of zeros, too
    rough = tl.where(backwards, 3.141592653589793 - rough, rough)
    sine = tl.sin(rough)
    cosine = tl.cos(rough)
    left = (tl.abs(y) * cosine - x * sine) / tl.where(most > 0, x * cosine + tl.abs(y) * sine, 1.0)
    found = rough + (left - left * left * left / 3)
    found = tl.where(y.to(tl.int64, bitcast=True) < 0, -found, found)
    return tl.where((a != a) | (b != b), float("nan"), found).to(a.dtype)


@triton.jit
def place(limits, x, HALVES: tl.constexpr):
    """How many of 2^HALVES - 1 ascending limits are no greater than x."""
    k = tl.zeros_like(x).to(tl.int32)
    for i in tl.static_range(HALVES):  # pyright: ignore[reportGeneralTypeIssues]
        half = 1 << (HALVES - 1 - i)
        k += tl.where(tl.load(limits + k + half - 1) > x, 0, half)
    return k


@triton.jit
def unpacked(bytes, at, inside):
    """Elements of which two lie in a byte."""
    two = tl.load(bytes + at // 2, mask=inside, other=0)
    return tl.where(at % 2 == 0, two >> 4, two & 15)


@triton.jit
def pack(bytes, at, inside, x, PAIRS: tl.constexpr):
    """Write so many pairs of elements, which follow each other from an even place on."""
    high, low = tl.split(x.reshape(PAIRS, 2))
    place, _ = tl.split((at // 2).reshape(PAIRS, 2))
    written, _ = tl.split(inside.to(tl.int8).reshape(PAIRS, 2))
    tl.store(bytes + place, (high << 4) | low, mask=written != 0)


@triton.jit
def over_all(a, b):
    return a | b


@triton.jit
def both(a, b):
    return a & b
