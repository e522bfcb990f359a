"""Forms of few bits for the leaves of a state: what `stored` keeps instead of them.

A block is so many elements that follow each other in memory. It is divided by its largest magnitude, the scale, and of
each quotient the nearest number of a table is kept, by its place there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from optfx.tree import dtypes, nibbles

TINY = 1e-12  # the least scale, but that of a block of zeros


class Codec:
    """How a leaf is kept: as codes, and a scale for each block where there are blocks.

    Attributes:
        dtype: of the codes.
        block: how many elements have a scale in common; 0 where there are no scales.
        least: the fewest elements of a leaf that is worth it.
    """

    dtype: torch.dtype
    block: int
    least: int

    def fits(self, x: Tensor) -> bool:
        """Whether a leaf can be kept so, in fewer bits than it has: complex leaves never are, nor those that are small,
        or no whole number of blocks."""
        narrower = x.dtype.is_floating_point and x.dtype.itemsize > self.dtype.itemsize
        return narrower and x.numel() >= max(self.least, 1) and (not self.block or x.numel() % self.block == 0)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The codes of a leaf, in its shape, and its scales, (blocks,), in the dtype that it is computed with."""
        raise NotImplementedError

    def decode(self, codes: Tensor, scale: Tensor | None) -> Tensor:
        """The leaf, in the dtype of the scales, or in float32."""
        raise NotImplementedError


def scaled(x: Tensor, block: int, full: float) -> tuple[Tensor, Tensor]:
    """A leaf whose blocks reach from -full to full, and what each was divided by, (blocks,)."""
    rows = x.to(dtypes.computation_dtype([x.dtype])).reshape(-1, block)
    most = rows.abs().amax(-1, keepdim=True)
    scale = torch.where(most == 0, 1.0, most.clamp(min=TINY) / full)
    return (rows / scale).view(x.shape), torch.where(most == 0, 0.0, scale).view(-1)


def unscaled(y: Tensor, scale: Tensor) -> Tensor:
    return (y.reshape(len(scale), -1) * scale.view(-1, 1)).view(y.shape)


# ---- tables ---------------------------------------------------------------------------------------


def dynamic_map(bits: int, signed: bool) -> tuple[float, ...]:
    """Numbers from -1 (or 0) to 1 whose digits become fewer as they become smaller: a decade has half as many of them
    as the one above it.

    Reference: Dettmers, "8-Bit Approximations for Parallelism in Deep Learning", 2015,
        <https://arxiv.org/abs/1511.04561>.
    """
    found, decades = [_float32([0.0, 1.0])], bits - 1
    for k in range(decades):
        n = 2 ** (k if signed else k + 1)
        edges = torch.linspace(0.1, 1.0, n + 1, dtype=torch.float32, device="cpu")
        middles = 10.0 ** (k + 1 - decades) * ((edges[:-1] + edges[1:]) / 2)
        found += [middles, -middles] if signed else [middles]
    return tuple(torch.cat(found).sort().values.tolist())


def thresholds(table: Sequence[float]) -> tuple[float, ...]:
    """For each number of a table but the first the least float32 to which it is the nearest, halfway included."""
    low, high = _float32(table[:-1]), _float32(table[1:])
    half, inf = (high - low) * 0.5, _float32(torch.inf)
    x = low + half
    for _ in range(16):  # a few units in the last place, since differences are rounded
        below = x.nextafter(-inf)
        x = torch.where(x - low < half, x.nextafter(inf), torch.where(below - low >= half, below, x))
    return tuple(x.tolist())


def _float32(x: float | Sequence[float]) -> Tensor:
    return torch.tensor(x, dtype=torch.float32, device="cpu")


def floats(dtype: torch.dtype) -> tuple[list[float], list[float]]:
    """The finite numbers of a dtype of eight bits, and for each but the first the least float32 that is rounded to it:
    halfway the one with an even code. Both are filled up to the number of codes."""
    codes = torch.arange(256, dtype=torch.uint8, device="cpu")
    even = {x: k % 2 == 0 for k, x in enumerate(codes.view(dtype).float().tolist()) if math.isfinite(x)}
    table = sorted(even)
    middle = (_float32(table[:-1]) + _float32(table[1:])) / 2
    limits = torch.where(torch.tensor([even[x] for x in table[1:]]), middle, middle.nextafter(_float32(torch.inf)))
    rest = range(1, 257 - len(table))  # no quotient is as large
    return table + [table[-1] for _ in rest], limits.tolist() + [table[-1] * 2.0**k for k in rest]


DYNAMIC, UNSIGNED, SMALL = dynamic_map(8, True), dynamic_map(8, False), dynamic_map(4, True)
LINEAR = tuple(k / 16 for k in range(1, 17))  # without 0: others are divided by such numbers
TABLES = {table: (list(table), list(thresholds(table))) for table in (DYNAMIC, UNSIGNED, SMALL, LINEAR)}
FLOATS = {dtype: floats(dtype) for dtype in (torch.float8_e4m3fn, torch.float8_e5m2)}


class Table(Codec):
    """Codes that are places in a table of ascending numbers."""

    dtype = torch.uint8

    @property
    def table(self) -> tuple[list[float], list[float]]:
        """The numbers, and for each but the first the least one that it stands for."""
        raise NotImplementedError

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        numbers, limits = self.table
        y, scale = scaled(x, self.block, numbers[-1])
        among = torch.tensor(limits, dtype=y.dtype, device=y.device)
        return torch.bucketize(y, among, out_int32=True, right=True).to(torch.uint8), scale

    def decode(self, codes: Tensor, scale: Tensor) -> Tensor:
        numbers = torch.tensor(self.table[0], dtype=scale.dtype, device=codes.device)
        return unscaled(numbers[codes.int()], scale)


@dataclasses.dataclass(frozen=True)
class eight_bits(Table):
    """Eight bits an element: 256 numbers over seven decades, and a scale for each block.

    Args:
        signed: whether there are negative numbers. Second moments have none, and twice the digits without a sign.
        block: how many elements have a scale in common.
        least: leaves of fewer elements stay as they are, and so do those that are no whole number of blocks.

    Reference: Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2021, <https://arxiv.org/abs/2110.02861>;
        torchao, `OptimState8bit` (the same codes; a block of zeros has the scale 1e-12 there, and 0 here).

    Example:
        >>> import torch
        >>> from optfx.combinators import codecs
        >>> codec = codecs.eight_bits(block=4, least=4)
        >>> codes, scale = codec.encode(torch.tensor([0.0, 0.1, -2.0, 4.0]))
        >>> codes, scale, codec.decode(codes, scale)
        (tensor([127, 164,  35, 255], dtype=torch.uint8), tensor([4.]), tensor([ 0.0000,  0.1019, -2.0031,  4.0000]))
    """

    signed: bool = True
    block: int = 256
    least: int = 4096

    @property
    def table(self) -> tuple[list[float], list[float]]:
        return TABLES[DYNAMIC if self.signed else UNSIGNED]


@dataclasses.dataclass(frozen=True)
class four_bits(Table):
    """Four bits an element, two elements in a byte: sixteen numbers over three decades, or in equal steps.

    Args:
        signed: whether there are negative numbers. Without them the steps are equal, and there is no zero.
        block: how many elements have a scale in common.
        least: leaves of fewer elements stay as they are, and so do those that are no whole number of blocks, and those
            whose last dimension is odd.

    Reference: Li, Chen, Zhu, "Memory Efficient Optimizers with 4-bit States", 2023, <https://arxiv.org/abs/2309.01507>;
        torchao, `OptimState4bit` (the same codes; a block of zeros has the scale 1e-12 there, and 0 here).

    Example:
        >>> import torch
        >>> from optfx.combinators import codecs
        >>> codec = codecs.four_bits(block=4, least=4)
        >>> codes, scale = codec.encode(torch.tensor([0.0, 0.1, -2.0, 4.0]))
        >>> codes, scale, codec.decode(codes, scale)
        (tensor([121,  47], dtype=torch.uint8), tensor([4.]), tensor([ 0.0000,  0.1300, -1.7500,  4.0000]))
    """

    signed: bool = True
    block: int = 128
    least: int = 4096

    @property
    def table(self) -> tuple[list[float], list[float]]:
        return TABLES[SMALL if self.signed else LINEAR]

    def fits(self, x: Tensor) -> bool:
        return super().fits(x) and x.ndim > 0 and x.shape[-1] % 2 == 0

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codes, scale = super().encode(x)
        return nibbles.packed(codes), scale

    def decode(self, codes: Tensor, scale: Tensor) -> Tensor:
        return super().decode(nibbles.unpacked(codes), scale)


@dataclasses.dataclass(frozen=True)
class fp8(Table):
    """The floats of eight bits, and a scale for each block. Codes are their places in ascending order.

    Args:
        form: `torch.float8_e4m3fn`, of four binary digits, or `torch.float8_e5m2`, of three and twice the exponents.
        block: how many elements have a scale in common.
        least: leaves of fewer elements stay as they are, and so do those that are no whole number of blocks.

    Reference: Fishman et al., "Scaling FP8 training to trillion-token LLMs", 2024, <https://arxiv.org/abs/2409.12517>;
        torchao, `OptimStateFp8` (the same numbers; a block of zeros has the scale 1e-12 / 448 there, and 0 here).

    Example:
        >>> import torch
        >>> from optfx.combinators import codecs
        >>> codec = codecs.fp8(block=4, least=4)
        >>> codec.decode(*codec.encode(torch.tensor([0.0, 0.1, -2.0, 4.0])))
        tensor([ 0.0000,  0.0982, -2.0000,  4.0000])
    """

    form: torch.dtype = torch.float8_e4m3fn
    block: int = 256
    least: int = 4096

    @property
    def table(self) -> tuple[list[float], list[float]]:
        return FLOATS[self.form]


@dataclasses.dataclass(frozen=True)
class half(Codec):
    """Half precision, without scales.

    A mean that moves by less than the spacing of its dtype stands still: in bfloat16 one with a decay of 0.99 or more.

    Args:
        dtype: `torch.bfloat16` or `torch.float16`.
        least: leaves of fewer elements stay as they are.

    Example:
        >>> import torch
        >>> from optfx.combinators import codecs
        >>> codecs.half().encode(torch.tensor([0.1, 3.0]))[0]
        tensor([0.1001, 3.0000], dtype=torch.bfloat16)
    """

    dtype: torch.dtype = torch.bfloat16
    least: int = 1
    block: int = dataclasses.field(default=0, init=False, repr=False)

    def encode(self, x: Tensor) -> tuple[Tensor, None]:
        return x.to(self.dtype), None

    def decode(self, codes: Tensor, scale: None) -> Tensor:
        return codes.float()
