"""A state for a changed optimizer: what the old one remembers goes where the same transform is in the new one."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

from torch import Tensor

from optfx import tree
from optfx.core.hyper import join
from optfx.core.transform import GradientTransformation
from optfx.tree import Tree


class Memory(NamedTuple):
    """What one transform of an optimizer remembers itself, without those inside it."""

    path: str  # of the transform
    kind: str  # its class
    leaves: dict[str, Tensor]  # by path in its state


class Report(NamedTuple):
    """What did not fit when a state was carried over.

    Attributes:
        lost: what the old optimizer remembers and the new one has no place for, by path in the old state, with the
            reason: "no place", or the shape that is expected there.
        fresh: the paths in the new state that begin anew.
    """

    lost: dict[str, str]
    fresh: tuple[str, ...]


def carry(
    state: Tree, old_tx: GradientTransformation, new_tx: GradientTransformation, params: Tree
) -> tuple[Tree, Report]:
    """A state of a new optimizer that goes on from the state of an old one, for a change in the middle of a run.

    A transform of the new optimizer takes over what the same transform of the old one remembers: the one at the same
    path, or else the next one in order. All else is as `new_tx.init(params)` makes it. So a step can be put into a
    chain or taken out of it, an optimizer wrapped, a dtype changed, or a parameter added.

    Args:
        state: a state of `old_tx`.
        old_tx: the optimizer that made it.
        new_tx: the optimizer to go on with.
        params: the parameters of `new_tx`.

    Returns:
        A state of `new_tx`, in memory of its own, with its dtypes and devices, and a `Report` of what did not fit:
        `lost`, which has been left behind, and `fresh`, which begins anew.

    Example:
        >>> import torch, optfx
        >>> params = {"w": torch.ones(2)}
        >>> old = optfx.adam(0.1)
        >>> _, state = old.update(params, old.init(params), params)
        >>> new = optfx.chain(optfx.clip_by_global_norm(1.0), old, optfx.params_ema(0.9))
        >>> state, report = optfx.carry(state, old, new, params)
        >>> optfx.tree.get(state, "mu"), report.lost, report.fresh
        ({'w': tensor([0.1000, 0.1000])}, {}, ('0.count', '0.norm', '2.count', '2.ema.w'))
    """
    new = new_tx.init(params)
    values: dict[int, Tensor] = {}
    lost = dict.fromkeys(tree.paths(state), "no place")
    for mine, theirs in _pairs(_memories(new_tx, new), _memories(old_tx, state)):
        for path, leaf in mine.leaves.items():
            if path in theirs.leaves:
                value, at = theirs.leaves[path], join(theirs.path, path)
                if value.shape == leaf.shape:
                    values[id(leaf)] = value.detach().to(leaf, copy=True)
                    del lost[at]
                else:
                    lost[at] = f"{tuple(value.shape)}, expected {tuple(leaf.shape)}"
    fresh = tuple(p for p, x in zip(tree.paths(new), tree.leaves(new), strict=True) if id(x) not in values)
    return tree.unflatten_like(new, [values.get(id(x), x) for x in tree.leaves(new)]), Report(lost, fresh)


def _memories(tx: GradientTransformation, state: Tree, at: str = "") -> list[Memory]:
    """What an optimizer remembers, transform by transform, in order."""
    parts = tx.parts(state)
    inner = {id(leaf) for _, x in parts.values() for leaf in tree.leaves(x)}
    own = {p: x for p, x in zip(tree.paths(state), tree.leaves(state), strict=True) if id(x) not in inner}
    found = [Memory(at, type(tx).__name__, own)] if own else []
    for name, (part, x) in parts.items():
        found += _memories(part, x, join(at, name))
    return found


def _pairs(ours: list[Memory], theirs: list[Memory]) -> list[tuple[Memory, Memory]]:
    """Which memory goes where."""
    places = {(m.path, m.kind): m for m in theirs}
    pairs: list[Any] = [(m, places.pop((m.path, m.kind))) for m in ours if (m.path, m.kind) in places]
    left = [m for m in ours if all(m is not one for one, _ in pairs)], list(places.values())
    kinds = ([m.kind for m in side] for side in left)
    for i, j, n in difflib.SequenceMatcher(None, *kinds, autojunk=False).get_matching_blocks():
        pairs += zip(left[0][i : i + n], left[1][j : j + n], strict=True)
    return pairs
