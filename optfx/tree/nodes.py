"""The nodes and leaves of a tree: flattening, rebuilding, names and paths.

A tree is any nesting of dicts, lists, tuples, NamedTuples, records and other nodes registered with optree; everything
else is a leaf. `None` is a node without leaves. The path of a leaf is the names on the way to it, joined by dots:
`0.mu.layer1.weight`.

Much of this is optree's, written out in Python. Dynamo cannot trace optree's functions for paths, nor flatten a dict
without leaves, nor unflatten leaves that are all constants; and while compiling, optree's `tree_map` visits a dict in
insertion order. So compiled code goes through `entries`, one node at a time.
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
"""A leaf, or a record, tuple, list or dict of trees. Leaves are tensors, unless a function says otherwise."""


def map(f: Callable[..., Any], tree: Tree, *rest: Tree, is_leaf: Callable[[Any], bool] | None = None) -> Tree:
    """Apply `f` to each leaf together with the corresponding leaves of `rest`. Arithmetic belongs in the verbs.

    Args:
        f: function of one leaf of each tree.
        tree: gives the structure of the result.
        *rest: trees that have this structure, or extend it below its leaves.
        is_leaf: a test for nodes that count as leaves.

    Raises:
        ValueError: a tree in `rest` has another structure.

    Example:
        >>> from optfx import tree
        >>> tree.map(lambda x: x + 1, {"a": 1, "b": (2, None)})
        {'a': 2, 'b': (3, None)}
    """
    return optree.tree_map(f, tree, *rest, is_leaf=is_leaf, namespace=NAMESPACE)


# ---- flatten and rebuild --------------------------------------------------------------------


def flatten(tree: Tree) -> tuple[list[Any], Any]:
    """The leaves of a tree and its structure.

    Args:
        tree: any tree.

    Returns:
        The leaves, in order, and an object for the structure that compares with `==`.

    Example:
        >>> from optfx import tree
        >>> leaves, structure = tree.flatten({"b": 1, "a": (2, 3)})
        >>> leaves, tree.unflatten(structure, "xyz")
        ([2, 3, 1], {'b': 'z', 'a': ('x', 'y')})
    """
    if torch.compiler.is_compiling():
        return leaves(tree), Outline(tree)
    return optree.tree_flatten(tree, namespace=NAMESPACE)  # type: ignore[return-value]


def leaves(tree: Tree) -> list[Any]:
    """The leaves of a tree, in order; the keys of a dict are sorted.

    Args:
        tree: any tree.

    Example:
        >>> from optfx import tree
        >>> tree.leaves({"b": 1, "a": (2, None)})
        [2, 1]
    """
    if torch.compiler.is_compiling():
        found: list[Any] = []
        _collect_leaves(tree, found)
        return found
    return optree.tree_leaves(tree, namespace=NAMESPACE)


def leaves_in(structure: Any, tree: Tree) -> list[Any] | None:
    """The leaves of a tree that should have a known structure; None if it has another.

    It takes an eighth of the time of `flatten`, which sorts the keys of dicts. It is less strict: one kind of dict may
    stand for another, and anything may be a leaf.
    """
    try:
        return structure.flatten_up_to(tree)
    except ValueError:
        return None


def unflatten(structure: Any, values: Iterable[Any]) -> Tree:
    """Rebuild a tree: the inverse of `flatten`.

    Args:
        structure: from `flatten`.
        values: the leaves, in order.

    Raises:
        ValueError: more or fewer values than leaves.

    Example:
        >>> from optfx import tree
        >>> tree.unflatten(tree.flatten({"b": 1, "a": 2})[1], [3, 4])
        {'b': 4, 'a': 3}
    """
    if isinstance(structure, Outline):
        return unflatten_like(structure.tree, values)
    return optree.tree_unflatten(structure, values)


def unflatten_like(tree: Tree, values: Iterable[Any]) -> Tree:
    """A tree like `tree` with other leaves, of any type.

    Args:
        tree: gives the structure.
        values: the leaves, in order.

    Example:
        >>> from optfx import tree
        >>> tree.unflatten_like({"b": 1, "a": (2, 3)}, [True, False, "x"])
        {'b': 'x', 'a': (True, False)}
    """
    return _rebuild(tree, iter(values))


class Outline:
    """The structure of a tree in code that is being compiled."""

    def __init__(self, tree: Tree):
        self.tree = tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outline) and _same_structure(self.tree, other.tree)

    __hash__ = None  # type: ignore[assignment]


def _below(node: Any) -> Any:
    """The children of a node, in the order of its leaves; None for a leaf. `entries` without names, which Dynamo takes
    longer for."""
    if isinstance(node, Tensor):
        return None
    kind = type(node)
    if kind is list or kind is tuple:
        return node
    if kind is dict:
        return [node[k] for k in _keys(node)]
    pairs = entries(node)
    return None if pairs is None else [child for _, child in pairs]


def _collect_leaves(node: Any, found: list[Any]) -> None:
    below = _below(node)
    if below is None:
        found.append(node)
        return
    for child in below:
        if isinstance(child, Tensor):
            found.append(child)
        else:
            _collect_leaves(child, found)


def _same_names(a: Any, b: Any) -> bool:
    """Whether two nodes of one type, with as many children, have the same names for them."""
    if type(a) is list or type(a) is tuple:
        return True
    if type(a) is dict:
        return _keys(a) == _keys(b)
    if [name for name, _ in entries(a) or ()] != [name for name, _ in entries(b) or ()]:
        return False
    return not is_record(a) or structure_of(a) == structure_of(b)


def _same_structure(a: Any, b: Any) -> bool:
    xs, ys = _below(a), _below(b)
    if xs is None or ys is None:
        return xs is ys
    if type(a) is not type(b) or len(xs) != len(ys) or not _same_names(a, b):
        return False
    for x, y in zip(xs, ys, strict=True):
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)) and not _same_structure(x, y):
            return False
    return True


def _rebuild(node: Any, values: Iterator[Any]) -> Any:
    below = _below(node)
    if below is None:
        return next(values)
    new = [next(values) if isinstance(x, Tensor) else _rebuild(x, values) for x in below]
    kind = type(node)
    if kind is list:
        return new
    if kind is dict:
        by_name = dict(zip(_keys(node), new, strict=True))
        return {name: by_name[name] for name in node}
    if is_record(node):
        return with_children(node, dict(zip(children(node), new, strict=True)))
    if kind is OrderedDict:
        return OrderedDict(zip(node, new, strict=True))
    if is_namedtuple(node):
        return kind(*new)
    if node is None or kind in (tuple, deque):
        return node if node is None else kind(new)
    _, metadata, _, unflatten_one = optree.tree_flatten_one_level(node, namespace=NAMESPACE)
    return unflatten_one(metadata, new)


# ---- names ------------------------------------------------------------------------------------


def is_namedtuple(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(x, "_fields")


def entries(node: Any) -> list[tuple[Any, Any]] | None:
    """The (name, child) pairs of a node, in the order of its leaves; None for a leaf."""
    kind = type(node)
    if isinstance(node, Tensor):
        return None
    if node is None:
        return []
    if kind is dict:
        return [(k, node[k]) for k in _keys(node)]
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


def _keys(node: dict[Any, Any]) -> list[Any]:
    """The keys of a dict, in the order of its leaves."""
    try:
        return sorted(node)
    except TypeError:
        return total_order_sorted(node)


def nodes(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every node of a tree, leaves included, with the names on the way to it; the root comes first."""
    yield path, tree
    for name, child in entries(tree) or ():
        yield from nodes(child, (*path, str(name)))


def paths(tree: Tree) -> list[str]:
    """The path of each leaf, in order; the path of a tree that is a single leaf is `""`.

    Args:
        tree: any tree.

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
