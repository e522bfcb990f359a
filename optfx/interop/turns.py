"""Parameters that take turns: other ones have a gradient in each step, as experts do."""

from __future__ import annotations

from collections.abc import Sequence

FEW = 4  # sets of parameters that may have steps of their own, before one program is for all


class Turns:
    """Which parameters have taken a step together.

    Attributes:
        possible: whether parameters may rest in a step that is compiled for all.
    """

    def __init__(self) -> None:
        self.possible = True
        self._seen: set[tuple[int, ...]] = set()
        self._everyone: set[int] = set()

    def everyone(self, which: Sequence[int]) -> list[int]:
        """All that have taken a step, these included, if parameters take turns; none if they do not."""
        self._everyone.update(which)
        if len(self._seen) <= FEW:
            self._seen.add(tuple(which))
        return sorted(self._everyone) if self.possible and len(self._seen) > FEW else []

    def forget(self) -> None:
        """Begin anew: the numbers of the parameters mean others now."""
        self._seen.clear()
        self._everyone.clear()
