"""What need not be written: a leaf of the state that periodic work leaves as it was, and what nobody reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from optfx.compiler.record.inputs import Input
from optfx.compiler.record.lazy import Call, Event, Lazy, Reduction, Write, sources_of
from optfx.compiler.record.notes import Notes


class Kept(NamedTuple):
    """Results of periodic work that no kernel reads: they may be the leaves that the work was given."""

    results: frozenset[Input]
    writes: list[tuple[Input, Input]]  # of such results to leaves of the state, when all else is done


def needed(notes: Notes, writes: Sequence[Write]) -> list[Write]:
    """Of the leaves that stand between two stages, those that are read."""
    read: list[Lazy] = [w.leaf for w in writes]
    for e in notes.log:
        read += e.leaves if isinstance(e, Event) else [x for row in e.rows for x in row]
    seen: dict[Call, frozenset[Input]] = {}
    inputs, found = {i for x in read for i in sources_of(x, seen)}, []
    for w in reversed(notes.stored):
        if w.to in inputs:
            inputs |= sources_of(w.leaf, seen)
            found.append(w)
    return found[::-1]


def kept_of(notes: Notes, writes: Sequence[Write], state: int) -> tuple[list[Write], Kept]:
    """The writes that kernels do, and those that they need not do.

    Args:
        notes: what a step does.
        writes: what it does to params and state.
        state: the first input that is a leaf of the state.
    """
    periodic = {k for e in notes.log if isinstance(e, Event) and e.keeps for k in e.results}
    late = {w.to: w.leaf.source for w in writes if w.to >= state and not isinstance(w.leaf.source, Call)}
    late = {to: k for to, k in late.items() if k in periodic}
    read: list[Lazy] = [w.leaf for w in (*writes, *notes.stored) if w.to not in late]
    read += [x for e in notes.log if isinstance(e, Reduction) for row in e.rows for x in row]
    seen: dict[Call, frozenset[Input]] = {}
    results = frozenset(periodic).difference(*(sources_of(x, seen) for x in read))
    kept = [(k, to) for to, k in late.items() if k in results]
    done = {to for _, to in kept}
    return [w for w in writes if w.to not in done], Kept(results, kept)
