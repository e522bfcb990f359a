"""Samplers: `(key, shape, dtype) -> numbers`, pure functions of a key."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optfx.random.keys import split, word_pairs

Sampler = Callable[[Tensor, Sequence[int], torch.dtype], Tensor]
"""What `random_like` draws with: (key, shape, dtype) -> numbers, such as `normal`."""

# How many bits jax draws for a number, and how many of them (the upper ones) the mantissa keeps.
_DRAWN_AND_KEPT = {torch.float64: (64, 52), torch.float32: (32, 23), torch.float16: (16, 10), torch.bfloat16: (8, 7)}


def bits(key: Tensor, shape: Sequence[int] = ()) -> Tensor:
    """Random 32-bit words.

    Args:
        key: (2,) int64.
        shape: the shape of the result.

    Returns:
        Integers from 0 to 2**32 - 1, int64.

    Raises:
        TypeError: the key is not an int64 tensor.
        ValueError: the key is not (2,), or a size is negative.

    Reference:
        `jax.random.bits(key, shape, "uint32")`

    Example:
        >>> from optfx import random
        >>> random.bits(random.key(0), (3,))
        tensor([4070199207, 4202968722, 1427181096])
    """
    x0, x1 = word_pairs(key, shape)
    return x0 ^ x1


def _unit(name: str, key: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Uniform on [0, 1): a random mantissa, exact in every dtype."""
    if dtype not in _DRAWN_AND_KEPT:
        raise TypeError(f"{name} has no numbers of {dtype}")
    drawn, kept = _DRAWN_AND_KEPT[dtype]
    if drawn == 64:
        upper, lower = word_pairs(key, shape)
        mantissa = upper << 20 | lower >> 12
    else:
        mantissa = (bits(key, shape) & (1 << drawn) - 1) >> drawn - kept
    return mantissa.to(dtype) * 2.0**-kept


def uniform(
    key: Tensor,
    shape: Sequence[int] = (),
    dtype: torch.dtype = torch.float32,
    minval: float | Tensor = 0.0,
    maxval: float | Tensor = 1.0,
) -> Tensor:
    r"""Uniform numbers on [minval, maxval): $\max(l, l + (h - l)\, k / 2^m)$, $k$ an integer of $m$ random bits.

    Args:
        key: (2,) int64.
        shape: the shape of the result.
        dtype: float64 (m = 52), float32 (23), float16 (10) or bfloat16 (7).
        minval: the lower bound l, included; a number or a tensor that broadcasts to `shape`.
        maxval: the upper bound h, excluded up to rounding; likewise.

    Returns:
        A tensor of `shape` and `dtype`.

    Raises:
        TypeError: another dtype, or the key is not an int64 tensor.
        ValueError: the key is not (2,), a size is negative, or a bound does not broadcast to `shape`.

    Reference:
        `jax.random.uniform`, to the last bit (in float64 and float16 only on [0, 1): on other intervals the last bit
        depends on the compiler, which may fuse the product and the sum)

    Example:
        >>> from optfx import random
        >>> random.uniform(random.key(0), (2,), minval=-1.0)
        tensor([0.8953, 0.9572])
    """
    unit = _unit("uniform", key, shape, dtype)
    low, high = (
        v.to(unit) if isinstance(v, Tensor) else torch.full((), v, dtype=dtype, device=key.device)
        for v in (minval, maxval)
    )
    for bound in (low, high):
        sizes = zip(reversed(bound.shape), reversed(unit.shape), strict=False)
        if bound.ndim > unit.ndim or any(m not in (1, n) for m, n in sizes):
            raise ValueError(f"a bound of shape {tuple(bound.shape)} does not broadcast to {tuple(unit.shape)}")
    # XLA fuses the product and the sum in float32; float64, in which the product is exact, gives the same.
    wide = torch.float64 if dtype == torch.float32 else dtype
    scaled = unit.to(wide) * (high - low).to(wide) + low.to(wide)
    return torch.maximum(scaled.to(dtype), low)


def normal(key: Tensor, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
    r"""Standard normal numbers: $\sqrt 2\, \mathrm{erf}^{-1}(u)$, $u$ uniform on (-1, 1).

    Args:
        key: (2,) int64.
        shape: the shape of the result.
        dtype: float64, float32, complex128 or complex64 (independent parts of variance 1/2 each), or float16 or
            bfloat16, which are the float32 numbers, rounded. (jax draws seven bits for bfloat16: only 128 different
            numbers, with mean -0.012.)

    Returns:
        A tensor of `shape` and `dtype`.

    Raises:
        TypeError: another dtype, or the key is not an int64 tensor.
        ValueError: the key is not (2,), or a size is negative.

    Reference:
        `jax.random.normal`, to 6e-6 in float32 and 2e-10 in float64, relative: the error of jax's `erf_inv`

    Example:
        >>> from optfx import random
        >>> random.normal(random.key(0), (2,))
        tensor([1.6226, 2.0253])
    """
    if dtype in (torch.float16, torch.bfloat16):
        return normal(key, shape).to(dtype)
    if dtype.is_complex:
        part = torch.float64 if dtype == torch.complex128 else torch.float32
        real, imag = (normal(k, shape, part) for k in split(key))
        return torch.complex(real, imag) / math.sqrt(2)
    unit = _unit("normal", key, shape, dtype)
    return math.sqrt(2) * torch.erfinv(2 * unit - (1 - torch.finfo(dtype).eps / 2))


def rademacher(key: Tensor, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """-1 or 1, with equal probability: the uppermost of 32 random bits.

    Args:
        key: (2,) int64.
        shape: the shape of the result.
        dtype: any dtype that can hold -1.

    Returns:
        A tensor of `shape` and `dtype`.

    Raises:
        TypeError: an unsigned dtype, or the key is not an int64 tensor.
        ValueError: the key is not (2,), or a size is negative.

    Reference:
        `jax.random.rademacher`, without `jax_enable_x64` (with it, jax draws other bits)

    Example:
        >>> from optfx import random
        >>> random.rademacher(random.key(0), (4,))
        tensor([-1., -1.,  1.,  1.])
    """
    if not dtype.is_signed:
        raise TypeError(f"rademacher has no numbers of {dtype}")
    return (1 - 2 * (bits(key, shape) >> 31)).to(dtype)
