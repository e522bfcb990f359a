"""C++ for tables: what stands at a place, and the place of a number, without branches, so that vectors are made of it.

The first bits of a float tell in which of many narrow cells it lies, and a table tells the place of each cell. A cell
is so narrow that at most one limit lies in it, so one comparison is left. Where that cannot be, limits are halved.
"""

from __future__ import annotations

import bisect
import functools
import math
import struct

CELL = 16  # bits that a cell leaves open: it has the first seven digits of a float

SOURCE = """
template <int half, class T> static inline int32_t place(const T* limits, T x, int32_t k = 0) {
  k += half * int32_t(!(limits[k + half - 1] > x));
  if constexpr (half > 1) return place<half / 2>(limits, x, k); else return k;
}
template <int n, int first, int end>
static inline int32_t place_by_cells(const float* limits, const int32_t* cells, float x) {
  const uint32_t word = word_of(x);
  const int32_t size = int32_t(word >> 16 & 0x7fff) - first, last = end - first;
  const int32_t within = size < 0 ? 0 : size > last ? last : size;
  const int32_t k = cells[within + (word >> 31 ? last + 1 : 0)];
  return x != x ? n : k + int32_t(limits[k] <= x);
}
"""


@functools.lru_cache
def cells_of(limits: tuple[float, ...]) -> tuple[int, int, tuple[int, ...]] | None:
    """The first cell and the last one, and how many limits are below each, those of positive numbers first; None if two
    limits lie in one."""
    sizes = [abs(x) for x in limits if x] or [1.0]
    if math.isinf(max(sizes)):
        return None
    first, last = _cell(min(sizes)), _cell(max(sizes)) + 1
    lows = [0.0, *(struct.unpack("<f", struct.pack("<I", k << CELL))[0] for k in range(first + 1, last + 1))]
    spans = list(zip(lows, [*lows[1:], math.inf], strict=True))
    found = [(bisect.bisect_right(limits, low), bisect.bisect_left(limits, high)) for low, high in spans]
    found += [(bisect.bisect_right(limits, -high), bisect.bisect_right(limits, -low)) for low, high in spans]
    return (first, last, tuple(k for k, _ in found)) if all(end - k <= 1 for k, end in found) else None


def _cell(x: float) -> int:
    return struct.unpack("<I", struct.pack("<f", x))[0] >> CELL
