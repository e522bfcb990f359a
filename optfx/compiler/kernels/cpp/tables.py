"""C++ for tables: what stands at a place, and the place of a number, without branches, so that vectors are made of it.

The first bits of a float tell in which of many narrow cells it lies. A cell is so narrow that at most one limit lies in
it. What a table has for a cell are so many times the size of a cell as there are limits below it, and what the limit in
it lacks to a whole cell: with the rest of the float that is one more, if the float is not below the limit. So one
number is fetched, and nothing compared. Where two limits lie in a cell, limits are halved.
"""

from __future__ import annotations

import bisect
import functools
import math
import struct
from typing import NamedTuple

SOURCE = """
template <int half, class T> static inline int32_t place(const T* limits, T x, int32_t k = 0) {
  k += half * int32_t(!(limits[k + half - 1] > x));
  if constexpr (half > 1) return place<half / 2>(limits, x, k); else return k;
}
template <int n, int open, int first, int last, bool both>
static inline int32_t place_by_cells(const int32_t* cells, float x) {
  const int32_t word = int32_t(word_of(x)), negative = both ? word >> 31 : 0;  // all bits of it are set, or none
  const int32_t size = both ? word & 0x7fffffff : word, low = first << open, high = last << open;
  const int32_t raised = size < low ? low : size, within = raised > high ? high : raised;
  const int32_t cell = (within >> open) - first + (negative & (last - first + 1));
  const int32_t rest = (within ^ negative) & ((1 << open) - 1);
  return x != x ? n : (cells[cell] + rest) >> open;
}
"""


class Cells(NamedTuple):
    """Cells of floats: those of positive numbers by size, then those of negative ones."""

    open: int  # how many bits the floats of a cell do not have in common
    first: int  # cell, below all limits
    last: int  # cell, above all limits
    both: bool  # whether there are limits below zero
    numbers: list[int]


@functools.lru_cache
def cells_of(limits: tuple[float, ...]) -> Cells | None:
    """The fewest cells that do; None if there are none."""
    if 0 in limits or math.isinf(max(map(abs, limits))):
        return None
    most = min(31 - len(limits).bit_length(), 20)  # bits that are left beside the number of limits
    return next((found for bits in range(most, 14, -1) if (found := _cells(limits, bits)) is not None), None)


def _cells(limits: tuple[float, ...], bits: int) -> Cells | None:
    words, size, numbers = [_word(abs(x)) for x in limits], 1 << bits, []
    first, last, both = (min(words) >> bits) - 1, (max(words) >> bits) + 1, limits[0] < 0
    if first < 0:
        return None
    for sign in (1, -1) if both else (1,):
        for cell in range(first, last + 1):
            ends = (
                0.0 if cell == first else _float(cell * size),
                math.inf if cell == last else _float((cell + 1) * size - 1),
            )
            low, high = sorted(sign * x for x in ends)
            k, end = bisect.bisect_right(limits, low), bisect.bisect_right(limits, high)
            if end > k + 1:
                return None
            rest = _word(abs(limits[k])) % size if end > k else 0
            numbers.append(k * size + (0 if end == k else size - rest if sign > 0 else rest + 1))
    return Cells(bits, first, last, both, numbers)


def _word(x: float) -> int:
    return struct.unpack("<I", struct.pack("<f", x))[0]


def _float(word: int) -> float:
    return struct.unpack("<f", struct.pack("<I", word))[0]
