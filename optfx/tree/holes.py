"""Holes: taking leaves out of a tree and putting them back, and choosing leaves by a prefix of the tree."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from optfx.tree import nodes
from optfx.tree.nodes import Tree, entries, leaves, unflatten_like
from optfx.tree.record import is_record, record


@record
class Hole:
    """A placeholder for a leaf that was taken out. It has no leaves, so maps skip it; other paths stay the same.

    It is a record, not an empty NamedTuple: Dynamo takes a dict of nothing but empty tuples for a constant, and cannot
    flatten it.

    Example:
        >>> from optfx import tree
        >>> tree.paths({"a": tree.Hole(), "b": 1})
        ['b']
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hole)

    def __hash__(self) -> int:
        return hash(Hole)


HOLE = Hole()


def split(tree: Tree, keep: Iterable[bool]) -> tuple[Tree, Tree]:
    """Split a tree in two: the leaves where `keep` is true, and the others. Holes fill the gaps.

    Args:
        tree: any tree.
        keep: one bool for each leaf, in order.

    Raises:
        ValueError: more or fewer bools than leaves.

    Example:
        >>> from optfx import tree
        >>> tree.split({"a": 1, "b": 2}, [True, False])
        ({'a': 1, 'b': Hole()}, {'a': Hole(), 'b': 2})
    """
    pairs = list(zip(leaves(tree), keep, strict=True))
    return (
        unflatten_like(tree, [x if kept else HOLE for x, kept in pairs]),
        unflatten_like(tree, [HOLE if kept else x for x, kept in pairs]),
    )


def merge(a: Tree, b: Tree) -> Tree:
    """Put the two halves from `split` together: each `Hole` of `a` is filled from `b`.

    Args:
        a: a tree with holes.
        b: the other half.

    Example:
        >>> from optfx import tree
        >>> tree.merge(*tree.split({"a": 1, "b": 2}, [True, False]))
        {'a': 1, 'b': 2}
    """
    return nodes.map(lambda x, y: y if _is_hole(x) else x, a, b, is_leaf=_is_hole)


def _is_hole(x: Any) -> bool:
    return isinstance(x, Hole)


def broadcast(prefix: Tree, tree: Tree) -> list[Any]:
    """One value for each leaf of `tree`, from a prefix: a leaf of the prefix is the value of everything below it.

    Args:
        prefix: a tree of values, as deep as `tree` or less.
        tree: any tree.

    Raises:
        ValueError: `prefix` is not a prefix of `tree`, naming the path.

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
    if outer and is_record(prefix) and type(prefix) is type(tree):  # bools are no children of a record, tensors are
        inner = [(name, getattr(prefix, name)) for name, _ in outer]
    if outer == []:  # None, a Hole, an empty container: no leaves
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
