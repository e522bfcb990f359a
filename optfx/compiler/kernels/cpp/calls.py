"""C functions that are called one after another, many times, without Python: so no thread waits for its lock."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from optfx.compiler.kernels.cpp import build

SOURCE = """typedef __INT64_TYPE__ N;
struct Item { void* f; N count, a[12]; };
extern "C" int run(N times, N items, const Item* I, N width, void* const* moving) {
  for (N t = 0; t < times; ++t, moving += width)
    for (const Item* i = I; i < I + items; ++i) {
      const N* a = i->a;
      int wrong = 0;
      if (i->count == 0) {
        void *to = a[0] < 0 ? (void*)a[1] : moving[a[0]], *from = a[2] < 0 ? (void*)a[3] : moving[a[2]];
        __builtin_memcpy(to, from, a[4]);
      } else if (i->count == 3) {
        wrong = ((int (*)(N, N, N))i->f)(a[0], a[1], a[2]);
      } else {
        wrong = ((int (*)(N, N, N, N, N, N, N, N, N, N, N, N))i->f)(
            a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11]);
      }
      if (wrong) return int(i - I) + 1;
    }
  return 0;
}
"""


_ONE_AT_A_TIME = threading.Lock()
FAULTLESS = AssertionError("a function that cannot fail has failed")


class Call(NamedTuple):
    """A C function of 3 or 12 integers and addresses, which returns 0 where all is well."""

    function: Any  # a ctypes function
    arguments: Sequence[Any]  # ints, addresses and ctypes arrays
    wrong: Exception  # what another result means


class Moving(NamedTuple):
    """An address that is another one each time, by its number."""

    index: int


class Copy(NamedTuple):
    """A copy from one place to another."""

    to: int | Moving
    source: int | Moving
    nbytes: int


class _Item(ctypes.Structure):
    _fields_ = (("f", ctypes.c_void_p), ("count", ctypes.c_int64), ("a", ctypes.c_int64 * 12))


class Calls:
    """Calls and copies in a row.

    Args:
        items: what is done each time, in this order. What they point to must stay where it is.
        width: how many addresses move.
    """

    def __init__(self, items: Sequence[Call | Copy], width: int):
        self._items, self._width = list(items), width
        self._table = (_Item * len(items))()
        for row, item in zip(self._table, items, strict=True):
            if isinstance(item, Copy):
                row.a[0], row.a[1] = _place(item.to)
                row.a[2], row.a[3] = _place(item.source)
                row.a[4] = item.nbytes
            else:
                row.f, row.count = ctypes.cast(item.function, ctypes.c_void_p).value, len(item.arguments)
                row.a[: row.count] = [_integer(x) for x in item.arguments]

    def run(self, moving: Tensor) -> None:
        """Do it all once for each row of addresses, (times, width) int64.

        Raises:
            Exception: that of a call which says that something is wrong.
        """
        assert moving.shape[1] == self._width
        assert moving.is_contiguous()
        if wrong := _loop()(len(moving), len(self._items), self._table, self._width, moving.data_ptr()):
            item = self._items[wrong - 1]
            assert isinstance(item, Call)
            raise item.wrong


@functools.cache
def start() -> tuple[build.Compilers, build.Library]:
    """The function that calls others, whose compiler starts, if it has not been compiled on this machine."""
    compilers, P, N = build.Compilers(), ctypes.c_void_p, ctypes.c_int64
    return compilers, compilers.library(SOURCE, "-O1", N, N, P, N, P, gives=ctypes.c_int)


def _loop() -> Any:
    compilers, library = start()
    with _ONE_AT_A_TIME:
        compilers.finish()
    return library.run


def _place(x: int | Moving) -> tuple[int, int]:
    return (x.index, 0) if isinstance(x, Moving) else (-1, x)


def _integer(x: Any) -> int:
    if isinstance(x, ctypes.c_void_p):
        return x.value or 0
    return x if isinstance(x, int) else ctypes.addressof(x)
