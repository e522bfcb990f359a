"""What the tests of every row share: one problem, its steps, and a record of what a transform asks of the verbs."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch

import optfx
from optfx import tree
from optfx.core.hyper import join
from optfx.tree import matrices, share, verbs
from tests.registry import ROWS

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
hyper_rows = pytest.mark.parametrize("row", [row for row in ROWS if row.hypers], ids=lambda row: row.id)


def is_recipe(row: Any) -> bool:
    """Whether it is an optimizer that is nothing but a chain of other rows."""
    return row.name in optfx.optimizers.__all__ and type(row.make(**row.hypers)) is optfx.chain


# For what takes a second, and follows for a chain from its parts.
PARTS = [row for row in ROWS if not is_recipe(row)]
parts = pytest.mark.parametrize("row", PARTS, ids=lambda row: row.id)


# ---- a problem -------------------------------------------------------------------------------------


@functools.cache
def params(dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)

    return {"w": draw(3, 2), "b": [draw(3), draw()], "k": {"conv": draw(2, 2, 1, 2), "empty": draw(0, 2)}}


for _dtype in DTYPES:
    for _seed in (0, 1, 2, 3, 10, 50, 60):
        params(_dtype, _seed)  # drawn here, where no vmap is at work


def grads(step, dtype=torch.float64):
    return params(dtype, step + 1)


def run(row, tx, p, steps=3, state=None, dtype=None):
    """The updates of each step, and the last state."""
    state, out = tx.init(p) if state is None else state, []
    for step in range(steps):
        updates, state = tx.update(grads(step, dtype or p["w"].dtype), state, p, **row.extra)
        p = optfx.apply_updates(p, updates)
        out.append(updates)
    return out, state


# ---- the numbers of a row --------------------------------------------------------------------------


def constants(row):
    return dict(row.hypers)


def tensors(row, dtype=torch.float64):
    return {name: torch.tensor(value, dtype=dtype) for name, value in row.hypers.items()}


def schedules(row):
    return {name: optfx.constant_schedule(value) for name, value in row.hypers.items()}


# ---- comparing -------------------------------------------------------------------------------------


def assert_close(a, b, rtol, atol=0.0):
    (xs, structure), (ys, other) = tree.flatten(a), tree.flatten(b)
    assert structure == other
    for k, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if not is_close(x, y, rtol, atol):  # says the same in words, which takes ten times as long
            where = f"{tree.paths(a)[k]}: {{}}"
            torch.testing.assert_close(x, y, rtol=rtol, atol=atol, equal_nan=True, msg=where.format)


def is_close(x, y, rtol, atol):
    """Whether it is sure that `torch.testing.assert_close` passes."""
    if not isinstance(x, torch.Tensor) or not isinstance(y, torch.Tensor):
        return False
    if (x.shape, x.dtype, x.device, x.layout) != (y.shape, y.dtype, y.device, y.layout):
        return False
    return torch.equal(x, y) or (x.is_floating_point() and torch.allclose(x, y, rtol, atol, equal_nan=True))


def describe(state):
    return [
        (p, x.shape, x.dtype, x.device, x.requires_grad)
        for p, x in zip(tree.paths(state), tree.leaves(state), strict=True)
    ]


# ---- what a transform is made of, and what it asks of the verbs --------------------------------------


def each(tx, path="") -> Iterator[tuple[str, Any]]:
    """A transform and all inside it, with their paths."""
    yield path, tx
    for name, part in tx.inside().items():
        yield from each(part, join(path, name))


class Call(NamedTuple):
    """A leaf function that is run on the leaves of one place."""

    f: Any
    leaves: tuple[torch.Tensor, ...]
    scalars: dict[str, Any]
    outs: int
    whole: bool  # whether it sees a whole leaf
    like: tuple[int, ...]  # for each result the leaf whose shape and dtype it has


class Asked:
    """Runs what the verbs are asked while it records, and takes note of it.

    Attributes:
        calls: of `elementwise` and `leafwise`, one for each leaf.
        across: the transforms that looked across leaves.
    """

    def __init__(self):
        self.calls: list[Call] = []
        self.across: list[Any] = []
        self._running: list[Any] = []

    @property
    def sees_whole_leaves(self):
        return any(call.whole and any(x.ndim for x in call.leaves) for call in self.calls)

    def update(self, tx, updates, state, params, extra):
        self._running.append(tx)
        try:
            return tx.step(updates, state, params, **extra)
        finally:
            self._running.pop()

    def run_leaf(self, f, xs, scalars, outs, whole):
        self.calls.append(Call(f, xs, share.unflat(scalars.values), outs, whole, tuple(range(outs))))
        return verbs.run_leaf(f, xs, scalars, outs)

    def run_matrices(self, f, rows, scalars, like):
        together = tuple(map(matrices.batch, zip(*rows, strict=True)))
        self.calls.append(Call(f, together, share.unflat(scalars.values), len(like), True, like))
        return matrices.run_matrices(f, rows, scalars, like)

    def when_due(self, due, f, trees, outs, numbers):
        new = f(*trees, **numbers)
        return tree.where(due, (new,) if outs == 1 else new, trees[:outs])

    def reduce(self, f, combine, rows, scalars):
        self.across += self._running[-1:]
        return verbs.combined(f, combine, rows, scalars)
