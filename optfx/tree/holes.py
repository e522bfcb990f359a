"""Holes: taking some leaves out of a tree and putting them back, and saying which with a prefix of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from optfx.tree.nodes import Tree, entries, leaves, map, unflatten_like
from optfx.tree.record import record


@record
class Hole:
    """The place of a leaf that was taken out. It has no leaves, so maps pass it by, and paths stay as they are.

    It is a record and not an empty NamedTuple: Dynamo takes a dict of nothing but empty tuples for a constant, and
    cannot flatten it.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hole)

    def __hash__(self) -> int:
        return hash(Hole)


HOLE = Hole()


def split(tree: Tree, keep: Iterable[bool]) -> tuple[Tree, Tree]:
    """Two trees of one structure: the leaves where `keep` is true, and the others.

    Args:
        tree: the tree to take apart.
        keep: one bool for each leaf, in order.

    Example:
        >>> from optfx import tree
        >>> tree.split({"a": 1, "b": 2}, [True, False])
        ({'a': 1, 'b': Hole()}, {'a': Hole(), 'b': 2})
    """
    pairs = list(zip(leaves(tree), keep, strict=True))
    return (
        unflatten_like(tree, [x if mine else HOLE for x, mine in pairs]),
        unflatten_like(tree, [HOLE if mine else x for x, mine in pairs]),
    )


def merge(a: Tree, b: Tree) -> Tree:
    """The tree whose halves `split` made: each `Hole` of `a` is filled from `b`.

    Example:
        >>> from optfx import tree
        >>> tree.merge(*tree.split({"a": 1, "b": 2}, [True, False]))
        {'a': 1, 'b': 2}
    """
    return map(lambda x, y: y if _is_hole(x) else x, a, b, is_leaf=_is_hole)


def _is_hole(x: Any) -> bool:
    return isinstance(x, Hole)


def broadcast(prefix: Tree, tree: Tree) -> list[Any]:
    """One value for each leaf of `tree`, from a prefix of it: a leaf of `prefix` speaks for everything below it.

    Raises:
        ValueError: naming the path, when `prefix` is no prefix of `tree`.

    Example:
        >>> from optfx.tree.holes import broadcast
        >>> broadcast({"a": True, "b": False}, {"a": [1, 2], "b": 3})
        [True, True, False]
    """
    found: list[Any] = []
    _broadcast(prefix, tree, "", found)
    return found


def _broadcast(prefix: Any, tree: Any, path: str, found: list[Any]) -> None:
    inner = None if isinstance(prefix, (bool, str)) else entries(prefix)
    outer = entries(tree)
    if outer == []:  # None, a Hole, an empty container: nothing to speak for
        return
    if inner is None:
        found.extend([prefix] * (1 if outer is None else len(leaves(tree))))
        return
    here = f"at '{path}'" if path else "at the root"
    if outer is None:
        raise ValueError(f"the prefix goes deeper than the tree {here}: the tree has a leaf there")
    if type(prefix) is not type(tree):
        raise ValueError(f"the prefix has a {type(prefix).__name__} {here}, the tree a {type(tree).__name__}")
    below = dict(inner)
    for name, child in outer:
        if name not in below:
            raise ValueError(f"the prefix says nothing of '{path}.{name}'" if path else f"the prefix lacks '{name}'")
        _broadcast(below.pop(name), child, f"{path}.{name}" if path else str(name), found)
    if below:
        raise ValueError(f"the prefix names {sorted(below, key=str)} {here}, which the tree lacks")
