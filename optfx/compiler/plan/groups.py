"""Which leaves go together: those that go through the same programs, stage by stage."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import torch

from optfx.compiler.kernels.program import Placed, Program, Wanted, program_of
from optfx.compiler.plan.others import Others, others_of
from optfx.compiler.plan.rows import Root, Rows
from optfx.compiler.record.findings import NotClosed
from optfx.compiler.record.inputs import Input
from optfx.compiler.record.lazy import Call, Partial, Reduction, Slot, sources_of
from optfx.compiler.record.levels import Level
from optfx.compiler.record.recording import Recording
from optfx.tree import nibbles
from optfx.tree.sharded import spread_of


class Work(NamedTuple):
    """What the leaves of a group go through in one stage."""

    level: Level
    program: Program


class Group(NamedTuple):
    """Leaves that go through the same work on one device."""

    stages: tuple[Work, ...]
    device: torch.device

    @property
    def is_flat(self) -> bool:
        """Whether no leaf is seen as rows and columns."""
        return all(work.program.is_flat for work in self.stages)


class Owner(NamedTuple):
    """Whose leaves they are: what they take and give beside the work of their group, stage by stage. The parameter
    groups of an optimizer, each with its learning rate, are owners."""

    slots: tuple[tuple[Slot, ...], ...]  # the scalars they take
    partials: tuple[tuple[Partial, ...], ...]  # the reductions that their parts belong to
    others: Others | None  # the processes that have other parts of them, if there are reductions


class Member(NamedTuple):
    """One leaf, more exactly: the inputs that meet in its computation, all of one size, and those broadcast to it."""

    inputs: list[Input]
    placed: list[Placed]  # its program in each stage of its group

    @property
    def length(self) -> int:
        """How many elements it has."""
        return math.prod(self.placed[0].sizes)


Groups = dict[Group, dict[Owner, list[Member]]]


def groups_of(recording: Recording) -> Groups:
    """The groups of a step, each with its owners and their leaves in order."""
    recorder = recording.recorder
    groups: Groups = defaultdict(lambda: defaultdict(list))
    tied = _tied(list(_roots(recording)), {to for _, to in recorder.stored}, recorder.tied())
    rows = Rows(recording, tied)
    for own in tied:
        stages, placed, partials = [], [], []
        last = rows.together(own)
        for level in sorted({r.level for r in own}):
            if last is not None and level >= last[0]:
                stages.append(Work(last[0], last[1].program))
                placed.append(last[1])
                partials.append(())
                break
            wanted = [r.wanted for r in own if r.level == level]
            placed.append(program_of(wanted, recorder))
            stages.append(Work(level, placed[-1].program))
            partials.append(tuple(w.to.partial for w in wanted if isinstance(w.to, Reduction)))
        inputs = sorted({i for p in placed for i in p.inputs})
        _check_bytes(placed)
        reduced = [spread_of(r.wanted.leaves[0]) for r in own if isinstance(r.wanted.to, Reduction)]
        group = Group(tuple(stages), recorder.inputs[inputs[0]].device)
        owner = Owner(tuple(p.slots for p in placed), tuple(partials), others_of(reduced[0]) if reduced else None)
        groups[group][owner].append(Member(inputs, placed))
    return groups


def _check_bytes(placed: list[Placed]) -> None:
    """Refuse to see bytes as two numbers each where a row begins within one, or where they are seen as bytes, too."""
    halved = [p for p in placed if nibbles.UINT4 in p.program.dtypes]
    views = {(i, dtype) for p in placed if halved for i, dtype in zip(p.inputs, p.program.dtypes, strict=True)}
    if any(p.sizes[-1] % 2 for p in halved) or len(views) > len({i for i, _ in views}):
        raise NotClosed([nibbles.packed, nibbles.unpacked])


def _roots(recording: Recording) -> Iterator[Root]:
    recorder, levels = recording.recorder, recording.levels
    for entry, level in zip(recorder.log, levels.log, strict=True):
        if isinstance(entry, Reduction):
            yield from (Root(level, Wanted(xs, entry)) for xs in entry.rows)
    yield from (Root(levels.leaf(x), Wanted((x,), to)) for x, to in recorder.stored)
    yield from (Root(levels.last, Wanted((x,), to)) for x, to in recording.writes)


def _tied(roots: list[Root], between: set[Input], pairs: list[tuple[Input, Input]]) -> list[list[Root]]:
    """The roots of each leaf: those whose inputs meet, directly or through others, or belong together. What is written
    to stand between stages is else read by other loops."""
    between = between.difference(*pairs)
    parent: dict[Input, Input] = {}  # of a forest with a tree for each leaf

    def top(i: Input) -> Input:
        while i in parent:
            i = parent[i]
        return i

    def tie(i: Input, j: Input) -> None:
        if top(i) != top(j):
            parent[top(i)] = top(j)

    for i, j in pairs:
        tie(i, j)
    seen: dict[Call, frozenset[Input]] = {}
    firsts = []
    for _, (leaves, to) in roots:
        meeting = set().union(*(sources_of(x, seen, slim=False) for x in leaves))
        if not isinstance(to, Reduction) and (to not in between or not meeting):
            meeting.add(to)
        first, *others = sorted(meeting)
        firsts.append(first)
        for i in others:
            tie(i, first)
    found: dict[Input, list[Root]] = defaultdict(list)
    for root, first in zip(roots, firsts, strict=True):
        found[top(first)].append(root)
    return list(found.values())
