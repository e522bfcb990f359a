"""The nodes and leaves of a tree: flattening, rebuilding, names and paths.

A tree is any nest of dicts, lists, tuples, NamedTuples, records and other nodes registered with optree; everything
else is a leaf. `None` is a node without leaves. The path of a leaf is the names on the way to it, joined by dots:
`0.mu.layer1.weight`.

Much of this is optree's, written out in Python. Dynamo cannot trace optree's functions for paths, nor flatten a dict
without leaves, nor unflatten leaves that are all constants; and while compiling, optree's `tree_map` visits a dict in
the order of insertion. What is compiled therefore goes through `entries`, one node at a time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import optree
import torch
from optree.utils import total_order_sorted
from torch import Tensor

from optfx.tree.record import NAMESPACE, children, is_record, structure_of, with_children

Tree = Any


def map(f: Callable[..., Any], tree: Tree, *rest: Tree, is_leaf: Callable[[Any], bool] | None = None) -> Tree:
    """Apply `f` to each leaf, and to the leaves of `rest` in the same places. Arithmetic belongs to the verbs.

    Args:
        f: function of one leaf of each tree.
        tree: gives the structure of the result.
        *rest: trees that begin with that structure.
        is_leaf: nodes for which it is true are leaves too.

    Example:
        >>> from optfx import tree
        >>> tree.map(lambda x: x + 1, {"a": 1, "b": (2, None)})
        {'a': 2, 'b': (3, None)}
    """
    return optree.tree_map(f, tree, *rest, is_leaf=is_leaf, namespace=NAMESPACE)


# ---- flatten and rebuild --------------------------------------------------------------------


def flatten(tree: Tree) -> tuple[list[Any], Any]:
    """The leaves and the structure, which compares with `==`."""
    if torch.compiler.is_compiling():
        return leaves(tree), Outline(tree)
    return optree.tree_flatten(tree, namespace=NAMESPACE)  # type: ignore[return-value]


def leaves(tree: Tree) -> list[Any]:
    """The leaves, in order (the keys of a dict are sorted)."""
    if torch.compiler.is_compiling():
        found: list[Any] = []
        _collect_leaves(tree, found)
        return found
    return optree.tree_leaves(tree, namespace=NAMESPACE)


def leaves_in(structure: Any, tree: Tree) -> list[Any] | None:
    """The leaves of a tree that has a known structure; None where it has another.

    This takes an eighth of the time of `flatten`, which sorts the keys of dicts. It is less strict: one kind of dict
    may stand for another, and anything may stand for a leaf.
    """
    try:
        return structure.flatten_up_to(tree)
    except ValueError:
        return None


def unflatten(structure: Any, values: Iterable[Any]) -> Tree:
    """The tree with this structure (from `flatten`) and these leaves."""
    if isinstance(structure, Outline):
        return unflatten_like(structure.tree, values)
    return optree.tree_unflatten(structure, values)


def unflatten_like(tree: Tree, values: Iterable[Any]) -> Tree:
    """A tree like `tree` with these leaves, of any type, in order.

    Example:
        >>> from optfx import tree
        >>> tree.unflatten_like({"b": 1, "a": (2, 3)}, [True, False, "x"])
        {'b': 'x', 'a': (True, False)}
    """
    return _rebuild(tree, iter(values))


class Outline:
    """The structure of a tree while it is compiled."""

    def __init__(self, tree: Tree):
        self.tree = tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outline) and _same_structure(self.tree, other.tree)

    __hash__ = None  # type: ignore[assignment]


def _collect_leaves(node: Any, found: list[Any]) -> None:
    pairs = entries(node)
    if pairs is None:
        found.append(node)
    else:
        for _, child in pairs:
            _collect_leaves(child, found)


def _same_structure(a: Any, b: Any) -> bool:
    mine, theirs = entries(a), entries(b)
    if mine is None or theirs is None:
        return mine is theirs
    if type(a) is not type(b) or [name for name, _ in mine] != [name for name, _ in theirs]:
        return False
    if is_record(a) and structure_of(a) != structure_of(b):
        return False
    return all(_same_structure(x, y) for (_, x), (_, y) in zip(mine, theirs, strict=True))


def _rebuild(node: Any, values: Iterator[Any]) -> Any:
    pairs = entries(node)
    if pairs is None:
        return next(values)
    new = [(name, _rebuild(child, values)) for name, child in pairs]
    kind = type(node)
    if kind is dict:
        by_name = dict(new)
        return {name: by_name[name] for name in node}
    if is_record(node):
        return with_children(node, dict(new))
    if kind is OrderedDict:
        return OrderedDict(new)
    below = [child for _, child in new]
    if is_namedtuple(node):
        return kind(*below)
    if node is None or kind in (list, tuple, deque):
        return node if node is None else kind(below)
    _, metadata, _, unflatten_one = optree.tree_flatten_one_level(node, namespace=NAMESPACE)
    return unflatten_one(metadata, below)


# ---- names ------------------------------------------------------------------------------------


def is_namedtuple(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(type(x), "_fields")


def entries(node: Any) -> list[tuple[Any, Any]] | None:
    """The (name, child) pairs of one node in the order of its leaves; None when it is a leaf."""
    kind = type(node)
    if isinstance(node, Tensor):
        return None
    if node is None:
        return []
    if kind is dict:
        try:
            return [(k, node[k]) for k in sorted(node)]
        except TypeError:
            return [(k, node[k]) for k in total_order_sorted(node)]
    if kind is OrderedDict:
        return list(node.items())
    if is_record(node):
        return [(name, getattr(node, name)) for name in children(node)]
    if is_namedtuple(node):
        return list(zip(node._fields, node, strict=True))
    if kind in (list, tuple, deque):
        return list(enumerate(node))
    if optree.tree_is_leaf(node, namespace=NAMESPACE):
        return None
    values, _, names, _ = optree.tree_flatten_one_level(node, namespace=NAMESPACE)
    return list(zip(names, values, strict=True))


def nodes(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every node of a tree with the names on the way to it, the root first, leaves included."""
    yield path, tree
    for name, child in entries(tree) or ():
        yield from nodes(child, (*path, str(name)))


def paths(tree: Tree) -> list[str]:
    """The path of each leaf, in order; the path of a tree that is one leaf is `""`.

    Example:
        >>> from optfx import tree
        >>> tree.paths({"b": [1, 2], "a": {"w": 3}, "c": None})
        ['a.w', 'b.0', 'b.1']
    """
    found: list[str] = []
    _collect_paths(tree, "", found)
    return found


def _collect_paths(node: Any, prefix: str, found: list[str]) -> None:
    pairs = entries(node)
    if pairs is None:
        found.append(prefix)
    else:
        for name, child in pairs:
            _collect_paths(child, f"{prefix}.{name}" if prefix else str(name), found)
