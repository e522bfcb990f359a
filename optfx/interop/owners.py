"""One optimizer for parameters of several owners: who owns a number, a count, a parameter.

An owner is the parameters with the same numbers that have taken the same steps. It has one row of numbers, those of a
group, and one of whatever the optimizer keeps once and not for each parameter, such as a count. A transform that treats
parameters one by one runs for each owner alone. One that looks across parameters stays one for all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.combinators import flatten
from optfx.core import EXTRA_ARGS, GradientTransformation, select
from optfx.core.foreign import from_functions
from optfx.core.hyper import join
from optfx.transforms import identity, monitor, stateless
from optfx.tree import Tree
from optfx.tree.matrices import run_matrices
from optfx.tree.recording import recording
from optfx.tree.verbs import combined, run_leaf

_FUNCTIONS = ("value_fn", "grad_fn", "obj_fn")
_MASKS: dict[str, type] = {"mask": bool, "select": bool, "param_labels": str}  # fields, and what each says of a leaf


class Owner(NamedTuple):
    """Parameters that share their numbers and their counts."""

    group: int  # whose numbers they have
    params: tuple[int, ...]


def owners_of(
    which: Iterable[int], group: Sequence[int], kept: Mapping[int, Mapping[str, Any]], counts: Sequence[str]
) -> tuple[Owner, ...]:
    """Parameters by who owns their numbers and counts.

    Args:
        which: the parameters.
        group: of each.
        kept: what is kept of each.
        counts: what is kept once for an owner; those of one owner are one tensor.
    """
    found: dict[tuple[int, ...], list[int]] = {}
    for i in which:
        mine = kept[i]
        found.setdefault((group[i], *[id(mine[key]) for key in counts]), []).append(i)
    return tuple([Owner(key[0], tuple(params)) for key, params in found.items()])


def merged(
    owners: Iterable[Owner], rows: Sequence[int], kept: Mapping[int, Mapping[str, Any]], counts: Sequence[str]
) -> tuple[Owner, ...]:
    """The owners for one of several transforms: those that differ in other numbers and counts only are one.

    Args:
        owners: for all of them.
        rows: for each group, the one that stands for its numbers.
        kept: what is kept of each parameter.
        counts: what this transform keeps once for an owner.
    """
    found: dict[tuple[int, ...], list[int]] = {}
    for group, params in owners:
        mine = kept[params[0]]
        found.setdefault((rows[group], *[id(mine[key]) for key in counts]), []).extend(params)
    return tuple([Owner(key[0], tuple(params)) for key, params in found.items()])


class OwnerState(NamedTuple):
    """The state of `by_owner`."""

    inner: dict[str, Tree]  # by owner, the state of its transform


@tree.record
class by_owner(core.Wrapper):
    """One transform with other numbers for each owner, of a flat dict of parameters.

    Args:
        transforms: `{owner: transform}`.
        names: `{owner: names of its parameters}`.
    """

    holds, partial = "transforms", True
    transforms: dict[str, GradientTransformation]
    names: dict[str, tuple[str, ...]]

    def states(self, state: Any) -> dict[str, Tree]:
        return state.inner

    def own(self, owner: str, x: dict[str, Any]) -> dict[str, Any]:
        """What belongs to an owner of something by parameter."""
        return {name: x[name] for name in self.names[owner] if name in x}

    def begin(self, params: Tree) -> OwnerState:
        return OwnerState({owner: tx.begin(self.own(owner, params)) for owner, tx in self.transforms.items()})

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        by_name = {name for name, x in extra.items() if isinstance(x, dict) and x.keys() == updates.keys()}
        new, states = {}, {}
        for owner, tx in self.transforms.items():
            theirs = {name: self.own(owner, x) if name in by_name else x for name, x in extra.items()}
            mine = self.own(owner, updates)
            new[owner], states[owner] = tx.run(mine, state.inner[owner], self.own(owner, params), theirs)
        return self.all(new, updates), OwnerState(states)

    def eval_params(self, state: Any, params: Tree) -> Tree:
        inside = self.transforms.items()
        new = {owner: tx.eval_params(state.inner[owner], self.own(owner, params)) for owner, tx in inside}
        return self.all(new, params)

    def all(self, new: dict[str, dict[str, Any]], like: dict[str, Any]) -> dict[str, Any]:
        """What belongs to each owner, put together in the order of `like`."""
        found = {name: x[name] for owner, x in new.items() for name in self.names[owner] if name in x}
        return {name: found[name] for name in like}


# ---- who looks across parameters --------------------------------------------------------------------


class _Watch:
    """Runs what the verbs are asked, and notes whether one looked across leaves."""

    across = False

    def update(self, tx: Any, updates: Tree, state: Tree, params: Tree, extra: Any) -> Any:
        return tx.step(updates, state, params, **extra)

    def run_leaf(self, f: Callable[..., Any], xs: Any, scalars: Any, outs: int, whole: bool) -> Any:
        return run_leaf(f, xs, scalars, outs)

    def run_matrices(self, f: Callable[..., Any], rows: Any, scalars: Any, like: Any) -> Any:
        return run_matrices(f, rows, scalars, like)

    def when_due(self, due: Any, f: Callable[..., Any], trees: Any, outs: int, numbers: Any) -> Any:
        new = f(*trees, **numbers)
        return (new,) if outs == 1 else new

    def reduce(self, f: Callable[..., Any], combine: Callable[..., Any], rows: Any, scalars: Any) -> Any:
        self.across = True
        return combined(f, combine, rows, scalars)


def looks_across(tx: GradientTransformation) -> bool:
    """Whether a transform looks across leaves (a norm of all, a test that all are finite, the loss at all of them), or
    may do so. What is seen of a wrapper itself is what it does around transforms that do nothing."""
    if isinstance(tx, core.Wrapper) and tx.partial:
        return False
    if any(name in tx.needs + tx.takes for name in _FUNCTIONS):
        return True
    alone = tx.with_inside(dict.fromkeys(tx.inside(), identity())) if isinstance(tx, core.Wrapper) else tx
    watch, zero = _Watch(), torch.zeros(())
    like = next((x for x in masks(tx).values() if isinstance(x, dict)), {"a": True, "b": True})
    params = tree.map(lambda _: torch.zeros(2, 2), like)
    extra = {name: params if name == "grad" else zero for name in {*EXTRA_ARGS, *alone.extra_args}}
    extra |= {name: lambda _: zero for name in _FUNCTIONS}
    try:
        with recording(watch), torch.no_grad():
            alone.update(params, alone.init(params), params, **extra)
    except Exception:  # it wants other parameters or arguments than these, so nothing is known of it
        return True
    return watch.across


def is_foreign(tx: GradientTransformation) -> bool:
    """Whether it is or has a function that may do anything, with no verb to tell."""
    return isinstance(tx, (from_functions, stateless, flatten, monitor)) or getattr(tx, "skip", None) is not None


def each(tx: GradientTransformation, path: str = "") -> Iterator[tuple[str, GradientTransformation]]:
    """A transform and all inside it, with their paths; what is inside comes after."""
    yield path, tx
    for name, part in tx.inside().items():
        yield from each(part, join(path, name))


# ---- masks ------------------------------------------------------------------------------------------


@tree.record
class _known(select.Selector):
    """The leaves of a tree for which a mask, or labels, said so."""

    values: dict[str, Any]  # by path

    def match(self, path: str, leaf: Tensor) -> Any:
        return self.values[path]


def masks(tx: GradientTransformation) -> dict[str, Any]:
    """The masks and labels that are a tree, or a function, of all parameters, by field; not a selector, which judges
    each parameter alone."""
    found = {name: getattr(tx, name, None) for name in _MASKS}
    return {
        name: x
        for name, x in found.items()
        if (callable(x) or isinstance(x, dict)) and not isinstance(x, select.Selector)
    }


def settled(tx: GradientTransformation, params: Tree) -> Any:
    """A transform with a selector in place of each mask that is a tree, or a function, of all parameters. It chooses as
    the mask does, and may be asked about some of them.

    Args:
        tx: the transform.
        params: all that it sees.
    """
    if not any(masks(part) for _, part in each(tx)):
        return tx
    names = tree.paths(params)
    new: dict[str, Any] = {
        name: _known(dict(zip(names, select.resolve(x, params, _MASKS[name], type(tx).__name__), strict=True)))
        for name, x in masks(tx).items()
    }
    tx = tree.replace(tx, **new) if new else tx
    if not isinstance(tx, core.Wrapper):
        return tx
    inside, seen = tx.inside(), {}
    tx.with_inside({name: _seen(partial(seen.__setitem__, name)) for name in inside}).begin(params)
    return tx.with_inside({name: settled(part, seen.get(name, params)) for name, part in inside.items()})


@tree.record
class _seen(GradientTransformation):
    """Tells which parameters a transform in its place would see."""

    note: Callable[[Tree], None]

    def begin(self, params: Tree) -> Tree:
        self.note(params)
        return ()


def in_zero() -> bool:
    """Whether a ZeroRedundancyOptimizer is making this optimizer, for the parameters of one rank.

    A transform that looks across parameters would see only those of the rank, and be wrong without a word. No argument
    tells: the groups look like any others. So its code is looked for among the callers; their variables are left alone,
    because to read them would keep them alive.
    """
    zero = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    frame = sys._getframe(1) if zero is not None else None
    while frame is not None and frame.f_globals is not vars(zero):
        frame = frame.f_back
    return frame is not None
