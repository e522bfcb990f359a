"""Parameters that take turns: other ones have a gradient in each step, as experts do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

FEW = 4  # sets of parameters that have steps of their own from the first time
MANY = 16  # sets that are remembered


class Turns:
    """Which parameters have taken a step together.

    Attributes:
        possible: whether parameters may rest in a step that is compiled for all.
        again: whether a step of the present set is worth compiling: it has come before, or is one of few.
    """

    def __init__(self) -> None:
        self.possible, self.again = True, True
        self._seen: OrderedDict[tuple[int, ...], None] = OrderedDict()
        self._everyone: set[int] = set()

    def come(self, which: Sequence[int]) -> None:
        """These take a step now."""
        self._everyone.update(which)
        self.again = tuple(which) in self._seen or len(self._seen) < FEW
        self._seen[tuple(which)] = None
        self._seen.move_to_end(tuple(which))
        if len(self._seen) > MANY:
            self._seen.popitem(last=False)

    def everyone(self) -> list[int]:
        """All that have taken a step, if parameters take turns; none if they do not."""
        return sorted(self._everyone) if self.possible and len(self._seen) > FEW else []

    def forget(self) -> None:
        """Begin anew: the numbers of the parameters mean others now."""
        self._seen.clear()
        self._everyone.clear()
