"""C++ for leaves that have two numbers in a byte. A loop sees an array with a byte for each, which is filled before it
and packed after it, by loops of their own: so vectors are made of all of them."""

from torch.fx import Node

from optfx.compiler.kernels.writer import is_packed

SOURCE = """
static inline void unpack(const uint8_t* __restrict from, uint8_t* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n / 2; ++i) { to[2 * i] = from[i] >> 4; to[2 * i + 1] = from[i] & 15; }
}
static inline void pack(const uint8_t* __restrict from, uint8_t* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n / 2; ++i) to[i] = uint8_t(from[2 * i] << 4 | from[2 * i + 1]);
}
"""


def bytes_to(x: Node, elements: str) -> str:
    """How far an element of a leaf is from its beginning, in steps of its memory."""
    return f"({elements}) / 2" if is_packed(x) else elements
