"""Numbers of short rows, as a matter of the kernel that uses them on the very rows that they are made of.

A number of a row ends a stage. On a processor that has a row at hand it need not: where nothing else stands between two
stages of some leaves, one kernel makes the numbers of a row, and what becomes of them, and goes over the row once more.
So nothing is computed twice, and the row is fetched once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from optfx.compiler.kernels import workshop
from optfx.compiler.kernels.program import SHORT, Placed, Wanted, program_of
from optfx.compiler.record.along import Along
from optfx.compiler.record.inputs import Input
from optfx.compiler.record.lazy import Call, Event, Lazy, Reduction, sources_of
from optfx.compiler.record.levels import Level
from optfx.compiler.record.recording import Recording


class Root(NamedTuple):
    """Something that a kernel has to do, and when."""

    level: Level
    wanted: Wanted


class Rows:
    """What is known of a recording to bring stages together.

    Args:
        recording: a step.
        tied: the roots of each leaf.
    """

    def __init__(self, recording: Recording, tied: Iterable[list[Root]]):
        self._recorder, self._levels = recording.recorder, recording.levels
        self._stored = {to: x for x, to in self._recorder.stored}
        by_python = any(isinstance(entry, Event) for entry in self._recorder.log) or bool(recording.kept.writes)
        self._alone = not by_python  # whether nothing but kernels reads what they write
        self._readers = Counter(i for own in tied for i in _read(own))

    def together(self, own: list[Root]) -> tuple[Level, Placed] | None:
        """The last two stages of a leaf as one: its level and its program. None where they have to stay apart."""
        levels = sorted({r.level for r in own})
        if not self._alone or len(levels) < 2:
            return None
        (first, numbers), (_, last) = ((at, [r.wanted for r in own if r.level == at]) for at in levels[-2:])
        if any(isinstance(w.to, Reduction) for w in (*numbers, *last)) or not all(map(_is_of_rows, numbers)):
            return None
        made = {_to(w): w.leaves[0] for w in numbers}
        within: dict[Input, Lazy] = {}
        for i in {a.source for w in last for c in _calls(w.leaves) for a in c.args if c.is_slim(a)}:
            within |= self._made(i, made) or {}  # type: ignore[arg-type]
        read = _read(own)
        if not within or any(self._readers[i] > (i in read) for i in map(_to, last)):  # others need what was there
            return None
        if max(self._levels.without(w.leaves[0], within) for w in last) > first:
            return None
        placed = program_of([*numbers, *last], self._recorder, within)
        return (first, placed) if _is_short(placed) and self._is_written(placed) else None

    def _made(self, i: Input, numbers: Mapping[Input, Lazy]) -> dict[Input, Lazy] | None:
        """A slim input that is made of numbers of rows alone, and what it is made of, by way of others."""
        if i in numbers:
            return {i: numbers[i]}
        if i not in self._stored:
            return None
        found = {i: self._stored[i]}
        if any(isinstance(c.f, Along) or c.over is not None for c in _calls([self._stored[i]])):
            return None
        for j in sources_of(self._stored[i], {}):
            own = self._made(j, numbers)
            if own is None:
                return None
            found |= own
        return found

    def _is_written(self, placed: Placed) -> bool:
        """Whether there are words for such a kernel."""
        writers = (workshop.writer_for(self._recorder.inputs[i].device) for i in placed.inputs)
        return all(writer is not None and writer.ROWS_TWICE for writer in writers)


def _to(w: Wanted) -> Input:
    assert not isinstance(w.to, Reduction)
    return w.to


def _is_of_rows(w: Wanted) -> bool:
    source = w.leaves[0].source
    return isinstance(source, Call) and isinstance(source.f, Along)


def _is_short(placed: Placed) -> bool:
    """Whether all numbers are made along the innermost dimension, and that is short."""
    program, (*outer, length) = placed.program, placed.sizes
    along = [call.f for call in program.calls if isinstance(call.f, Along)]
    return bool(outer) and 0 < length <= SHORT and all(f.dims == (len(outer),) for f in along)


def _read(roots: Iterable[Root]) -> set[Input]:
    return {i for r in roots for x in r.wanted.leaves for i in sources_of(x, {})}


def _calls(leaves: Iterable[Lazy]) -> Iterator[Call]:
    """All calls that leaves are computed by."""
    todo, seen = [x.source for x in leaves], set()
    while todo:
        call = todo.pop()
        if isinstance(call, Call) and call not in seen:
            seen.add(call)
            yield call
            todo += [x.source for x in call.args]
