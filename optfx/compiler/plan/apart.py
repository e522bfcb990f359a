"""What a step is given, apart from what it writes to."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable

from torch import Tensor

from optfx.compiler.record.inputs import Input

MANY = 100


class Apart:
    """Knows where a step writes.

    Args:
        own: the tensors that it writes to, contiguous.
    """

    def __init__(self, own: Iterable[Tensor]):
        places = [(-1, -1), *sorted((x.data_ptr(), x.data_ptr() + x.nbytes) for x in own)]
        self._begins = [begin for begin, _ in places]
        self._ends = [*itertools.accumulate((end for _, end in places), max)]
        self._sizes: list[int] = []
        self._elsewhere: set[tuple[int, ...]] = set()  # where everything was in steps before: often there again

    def of(self, given: list[tuple[Input, Tensor]]) -> list[tuple[Input, Tensor]]:
        """What a step is given, with copies of what lies where it writes: a parameter, say, that is the gradient of
        another. One kernel may write there before another one reads.

        Args:
            given: tensors of the same sizes each time.
        """
        at = tuple([x.data_ptr() for _, x in given])
        if at in self._elsewhere:
            return given
        begins, ends, self._sizes = self._begins, self._ends, self._sizes or [x.nbytes for _, x in given]
        written = [ends[bisect_left(begins, p + n) - 1] > p for p, n in zip(at, self._sizes, strict=True)]
        if any(written):
            return [(i, x.clone() if copy else x) for (i, x), copy in zip(given, written, strict=True)]
        if len(self._elsewhere) == MANY:
            self._elsewhere.clear()
        self._elsewhere.add(at)
        return given
