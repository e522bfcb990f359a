"""Keys, and the hash that every random number comes from: Threefry-2x32 with 20 rounds.

Reference:
    Salmon, Moraes, Dror, Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def check_key(key: Tensor) -> None:
    if not isinstance(key, Tensor) or key.dtype != torch.int64:
        found = key.dtype if isinstance(key, Tensor) else type(key).__name__
        raise TypeError(f"a key is an int64 tensor, made by optfx.random.key; got {found}")
    if key.shape != (2,):
        raise ValueError(f"a key has the shape (2,), got {tuple(key.shape)}; map many keys with torch.func.vmap")


def _check_integer(name: str, value: int | Tensor) -> int | Tensor:
    if not isinstance(value, Tensor):
        # operator.index would make torch.compile treat every int as a constant
        value = value if isinstance(value, int) else operator.index(value)
        if not -(2**63) <= value < 2**64:
            raise ValueError(f"{name} has more than 64 bits: {value}")
    elif value.dtype.is_floating_point or value.dtype.is_complex or value.dtype == torch.bool:
        raise TypeError(f"{name} must be an integer, got a tensor of {value.dtype}")
    elif value.ndim:
        raise ValueError(f"{name} must be a scalar, got the shape {tuple(value.shape)}; map it with torch.func.vmap")
    else:
        value = value.to(torch.int64)
    return value


def _words(x):
    """The upper and lower 32 bits of 64-bit integers, as nonnegative numbers."""
    return x >> 32 & _WORD, x & _WORD


def threefry(key: Tensor, counter: int | Tensor) -> tuple[Tensor, Tensor]:
    """Threefry-2x32-20: hash a 64-bit counter under a key, into two 32-bit words."""
    k0, k1 = key.unbind()
    ks = (k0, k1, k0 ^ k1 ^ _PARITY)
    upper, lower = _words(counter)
    x0, x1 = ks[0] + upper, ks[1] + lower & _WORD
    # Only x1 is rotated, so only x1 must be masked to 32 bits: x0 stays below 2**37, x1 * 2**29 below 2**61.
    for i in range(5):
        for rotation in _ROTATIONS[i % 2]:
            x0 += x1
            x1 = (x1 >> 32 - rotation).add_(x1, alpha=1 << rotation)
            x1.bitwise_xor_(x0)
            x1.bitwise_and_(_WORD)  # by name: torch cannot trace `&=`
            # Changes nothing, but makes Inductor store x1. It would inline both words at each use, which doubles the
            # code from round to round, and compile for half a minute.
            x1 = x1.as_strided(x1.shape, x1.stride())
        x0 += ks[(i + 1) % 3]
        x1 = x1 + (ks[(i + 2) % 3] + (i + 1)) & _WORD
    return x0 & _WORD, x1


def word_pairs(key: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Two random words for each element. Elements are counted in 64 bits, so there is no limit on the size."""
    check_key(key)
    if isinstance(shape, int):
        raise TypeError(f"a shape is a tuple of ints, got {shape}")
    if any(n < 0 for n in shape):
        raise ValueError(f"a shape with a negative size: {tuple(shape)}")
    return threefry(key, torch.arange(math.prod(shape), device=key.device).reshape(tuple(shape)))


def key(seed: int | Tensor) -> Tensor:
    """The key of a seed: its 64 bits as two words, the upper one first.

    Args:
        seed: an int from -2**63 to 2**64 - 1, or a () integer tensor (a batch of seeds under vmap). Negative seeds
            count as their two's complement. The keys are those of `jax.random.key`; for seeds of more than 32 bits and
            negative ones, those under `jax_enable_x64` (without it, jax drops the upper word).

    Returns:
        A key, (2,) int64.

    Raises:
        TypeError: the seed is not an integer.
        ValueError: the seed is not a scalar, or has more than 64 bits.

    Example:
        >>> from optfx import random
        >>> random.key(2**32 + 7)
        tensor([1, 7])
    """
    seed = _check_integer("a seed", seed)
    return torch.stack(_words(seed)) if isinstance(seed, Tensor) else torch.tensor(_words(seed))


def split(key: Tensor, num: int = 2) -> Tensor:
    """Independent keys from one.

    Args:
        key: (2,) int64.
        num: how many.

    Returns:
        `num` keys, (num, 2) int64, which unpack: `a, b = split(key)`.

    Raises:
        ValueError: `num` is negative, or the key is not (2,).
        TypeError: the key is not an int64 tensor.

    Reference:
        `jax.random.split`

    Example:
        >>> from optfx import random
        >>> random.split(random.key(0))
        tensor([[1797259609, 2579123966],
                [ 928981903, 3453687069]])
    """
    return torch.stack(word_pairs(key, (num,)), dim=-1)


def fold_in(key: Tensor, data: int | Tensor) -> Tensor:
    """The key for a number: a step, an epoch, a member of an ensemble.

    Args:
        key: (2,) int64.
        data: an int of up to 64 bits, or a () integer tensor, such as the count in a state. The result is
            `split(key, num)[data]` for any `num`.

    Returns:
        A key, (2,) int64.

    Raises:
        TypeError: `data` is not an integer, or the key is not an int64 tensor.
        ValueError: `data` is not a scalar or has more than 64 bits, or the key is not (2,).

    Reference:
        `jax.random.fold_in`, where 0 <= data < 2**32 (jax refuses other ints, and drops the upper word of arrays)

    Example:
        >>> from optfx import random
        >>> random.fold_in(random.key(0), 1)
        tensor([ 928981903, 3453687069])
    """
    check_key(key)
    return torch.stack(threefry(key, _check_integer("the data folded into a key", data)))
