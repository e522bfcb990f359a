"""Which leaves go together: those that go through the same programs, stage by stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from optfx.compiler.kernels import Placed, Program, program_of
from optfx.compiler.reading import Reading
from optfx.compiler.recorder import Call, Lazy, Reduction


class Work(NamedTuple):
    """What the leaves of a group go through in one stage."""

    level: int
    program: Program
    slots: tuple[int, ...]  # the scalars it takes
    marks: tuple[int, ...]  # the reductions that its parts belong to


class Group(NamedTuple):
    """Leaves that go through the same work on one device."""

    stages: tuple[Work, ...]
    device: torch.device


class Member(NamedTuple):
    """One leaf, more exactly: the inputs that meet in its computation, all of one shape."""

    inputs: list[int]
    placed: list[Placed]  # its program in each stage of its group


class _Root(NamedTuple):
    """Something that a kernel has to give: a leaf to write, or the part of a reduction."""

    level: int
    reads: tuple[Lazy, ...]
    write: int | None = None  # the input that the leaf is written to
    part: tuple[Any, Any, torch.dtype, int] | None = None  # f, scalars, dtype, mark


def _roots(reading: Reading) -> Iterator[_Root]:
    reader, levels = reading.recorder, reading.levels
    for entry, level in zip(reader.log, levels.log, strict=True):
        if isinstance(entry, Reduction):
            dtype = reader.marks[entry.mark].dtype
            yield from (_Root(level, xs, part=(entry.f, entry.scalars, dtype, entry.mark)) for xs in entry.rows)
    yield from (_Root(levels.leaf(x), (x,), write=i) for x, i in reader.stored)
    yield from (_Root(levels.last, (x,), write=i) for x, i in reading.writes)


def groups_of(reading: Reading) -> dict[Group, list[Member]]:
    """The groups of a step, each with its leaves in order."""
    roots = list(_roots(reading))
    seen: dict[Call, frozenset[int]] = {}
    groups: dict[Group, list[Member]] = defaultdict(list)
    for own in _tied(roots, seen):
        stages, placed = [], []
        for level in sorted({r.level for r in own}):
            here = [r for r in own if r.level == level]
            writes = [(r.reads[0], r.write) for r in here if r.write is not None]
            parts = [(r.part[0], r.reads, r.part[1], r.part[2]) for r in here if r.part]
            placed.append(program_of(writes, parts, reading.recorder))
            marks = tuple(r.part[3] for r in here if r.part)
            stages.append(Work(level, placed[-1].program, placed[-1].slots, marks))
        inputs = sorted({i for p in placed for i in p.inputs})
        group = Group(tuple(stages), reading.recorder.inputs[inputs[0]].device)
        groups[group].append(Member(inputs, placed))
    return groups


def _sources(x: Lazy, seen: dict[Call, frozenset[int]]) -> frozenset[int]:
    """The inputs that a leaf is computed from."""
    if not isinstance(x.source, Call):
        return frozenset([x.source])
    if x.source not in seen:
        seen[x.source] = frozenset().union(*(_sources(a, seen) for a in x.source.args))
    return seen[x.source]


def _tied(roots: list[_Root], seen: dict[Call, frozenset[int]]) -> list[list[_Root]]:
    """The roots of each leaf: those whose inputs meet, directly or through others."""
    boss: dict[int, int] = {}

    def find(i: int) -> int:
        while boss.get(i, i) != i:
            i = boss[i]
        return i

    ties = []
    for root in roots:
        tie = set().union(*(_sources(x, seen) for x in root.reads))
        if root.write is not None:
            tie.add(root.write)
        first, *others = sorted(tie)
        ties.append(first)
        for j in others:
            boss[find(j)] = find(first)
    found: dict[int, list[_Root]] = defaultdict(list)
    for root, tie in zip(roots, ties, strict=True):
        found[find(tie)].append(root)
    return list(found.values())
