"""What a step is given, apart from what it writes to."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable

from torch import Tensor

from optfx.compiler.record.inputs import Input

MANY = 100_000


class Apart:
    """Knows where a step writes.

    Args:
        own: the tensors that it writes to, contiguous.
    """

    def __init__(self, own: Iterable[Tensor]):
        places = sorted((x.data_ptr(), x.data_ptr() + x.nbytes) for x in own)
        self._begins = [begin for begin, _ in places]
        self._ends = [*itertools.accumulate((end for _, end in places), max)]
        self._sizes: list[int] = []
        self._last: list[int] = []  # where everything was in the last step, none of it where the step writes
        self._elsewhere: set[tuple[int, int]] = set()  # places that were looked at: allocators give the same again

    def of(self, given: list[tuple[Input, Tensor]]) -> list[tuple[Input, Tensor]]:
        """What a step is given, with copies of what lies where it writes: a parameter, say, that is the gradient of
        another. One kernel may write there before another one reads.

        Args:
            given: tensors of the same sizes each time.
        """
        at = [x.data_ptr() for _, x in given]
        if at == self._last:
            return given
        self._sizes = self._sizes or [x.nbytes for _, x in given]
        places = [*zip(at, self._sizes, strict=True)]
        if not self._elsewhere.issuperset(places):
            if len(self._elsewhere) > MANY:
                self._elsewhere.clear()
            self._elsewhere.update(place for place in places if not self._is_written(*place))
            if not self._elsewhere.issuperset(places):
                known = zip(given, places, strict=True)
                return [(i, x if place in self._elsewhere else x.clone()) for (i, x), place in known]
        self._last = at
        return given

    def _is_written(self, begin: int, size: int) -> bool:
        before = bisect.bisect_left(self._begins, begin + size)
        return before > 0 and self._ends[before - 1] > begin
