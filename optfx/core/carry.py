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


def carry_over(state: Tree, old: GradientTransformation, new: GradientTransformation, params: Tree) -> Tree:
    """A state of a new optimizer that goes on from the state of an old one.

    A transform of the new optimizer takes over what the same transform of the old one remembers: the one at the same
    path, or else the next one in order. All else is as `new.init(params)` makes it. So in the middle of a run a step
    can be put into a chain or taken out of it, an optimizer wrapped, a dtype changed, or a parameter added.

    Args:
        state: a state of `old`.
        old: the optimizer that made it.
        new: the optimizer to go on with.
        params: the parameters of `new`.

    Returns:
        A state of `new`, in memory of its own, with its dtypes and devices.

    Raises:
        ValueError: a leaf has another shape in `new`, naming its path; nothing that `old` remembers has a place.

    Example:
        >>> import torch, optfx
        >>> from optfx import core
        >>> params = {"w": torch.ones(2)}
        >>> old = optfx.adam(0.1)
        >>> _, state = old.update(params, old.init(params), params)
        >>> new = optfx.chain(optfx.clip_by_global_norm(1.0), old, optfx.params_ema(0.9))
        >>> optfx.tree.get(core.carry_over(state, old, new, params), "mu")
        {'w': tensor([0.1000, 0.1000])}
    """
    fresh = new.init(params)
    values: dict[int, Tensor] = {}
    for mine, theirs in _pairs(_memories(new, fresh), _memories(old, state)):
        for path, leaf in mine.leaves.items():
            if path in theirs.leaves:
                value = theirs.leaves[path]
                if value.shape != leaf.shape:
                    where = join(mine.path, path)
                    raise ValueError(f"{where!r} has the shape {tuple(value.shape)}, expected {tuple(leaf.shape)}")
                values[id(leaf)] = value.detach().to(leaf, copy=True)
    if tree.leaves(state) and not values:
        raise ValueError("nothing that the old optimizer remembers has a place in the new one")
    return tree.unflatten_like(fresh, [values.get(id(leaf), leaf) for leaf in tree.leaves(fresh)])


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
