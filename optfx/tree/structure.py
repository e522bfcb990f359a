"""The shape of trees: maps, leaves, paths, holes, prefixes. The verbs and this file are all that knows optree.

A tree is any nest of dicts, lists, tuples, NamedTuples, records and other nodes registered with optree; everything
else is a leaf. `None` is a node without leaves, and so is a `Hole`, which masks put in the place of a leaf.
Paths are the names on the way to a leaf joined by dots, in the order of the leaves: `0.mu.layer1.weight`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import optree
import torch
from optree.utils import total_order_sorted
from torch import Tensor

from optfx.tree.record import NAMESPACE, children, is_record, record, structure_of, with_children

Tree = Any


@record
class Hole:
    """A place in a tree where a leaf was taken out. It has no leaves, so maps pass it by.

    A record, not an empty NamedTuple: the compiler takes a dict of nothing but empty tuples for a constant, and cannot
    flatten it.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hole)

    def __hash__(self) -> int:
        return hash(Hole)


HOLE = Hole()


def map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `f` to each leaf (and the leaves of `rest` in the same places). For anything but tensors of equal
    standing; arithmetic belongs to the verbs.

    Example:
        >>> from optfx import tree
        >>> tree.map(lambda x: x + 1, {"a": 1, "b": (2, None)})
        {'a': 2, 'b': (3, None)}
    """
    return optree.tree_map(f, tree, *rest, namespace=NAMESPACE)


def leaves(tree: Tree) -> list[Any]:
    """The leaves, in order (the keys of a dict are sorted)."""
    return flatten(tree)[0]


def flatten(tree: Tree) -> tuple[list[Any], Any]:
    """The leaves and the structure, which compares with `==`."""
    if torch.compiler.is_compiling():
        found: list[Any] = []
        _collect_leaves(tree, found)
        return found, Outline(tree)
    return optree.tree_flatten(tree, namespace=NAMESPACE)  # type: ignore[return-value]


def leaves_in(structure: Any, tree: Tree) -> list[Any] | None:
    """The leaves of a tree in the places of another one's, given its structure; None where `tree` has others.

    It takes an eighth of the time of `flatten`, which sorts the keys of dicts, and is less strict: one kind of dict may
    stand for another, and anything in the place of a leaf.
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


class Outline:
    """The structure of a tree while the compiler traces it, which cannot flatten a dict without leaves by optree."""

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


def unflatten_like(tree: Tree, values: Iterable[Any]) -> Tree:
    """A tree like `tree` with these leaves, of any type, in order.

    Written out: compiled, optree's `tree_map` goes through a dict in the order of insertion, and its
    `tree_unflatten` refuses leaves that are all constants.

    Example:
        >>> from optfx import tree
        >>> tree.unflatten_like({"b": 1, "a": (2, 3)}, [True, False, "x"])
        {'b': 'x', 'a': (True, False)}
    """
    return _rebuild(tree, iter(values))


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


def is_namedtuple(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(type(x), "_fields")


def entries(node: Any) -> list[tuple[Any, Any]] | None:
    """The (name, child) pairs of one node in the order of its leaves; None when it is a leaf.

    Written out, because optree's own functions for paths cannot be compiled.
    """
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


def _collect_paths(node: Any, prefix: str, found: list[str]) -> None:
    pairs = entries(node)
    if pairs is None:
        found.append(prefix)
    else:
        for name, child in pairs:
            _collect_paths(child, f"{prefix}.{name}" if prefix else str(name), found)


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


def broadcast(prefix: Tree, tree: Tree) -> list[Any]:
    """One value a leaf of `tree`, from a prefix of it: a leaf of `prefix` speaks for everything below its place.

    Raises:
        ValueError: naming the path, when `prefix` is no prefix of `tree`.

    Example:
        >>> from optfx import tree
        >>> tree.broadcast({"a": True, "b": False}, {"a": [1, 2], "b": 3})
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


def split(tree: Tree, keep: Iterable[bool]) -> tuple[Tree, Tree]:
    """Two trees of one structure: the leaves where `keep` (one bool a leaf, in order) is true, and the others."""
    pairs = list(zip(leaves(tree), keep, strict=True))
    return (
        unflatten_like(tree, [x if mine else HOLE for x, mine in pairs]),
        unflatten_like(tree, [HOLE if mine else x for x, mine in pairs]),
    )


def merge(a: Tree, b: Tree) -> Tree:
    """The tree whose halves `split` made: each `Hole` of `a` is filled from `b`."""

    def is_hole(x: Any) -> bool:
        return isinstance(x, Hole)

    return optree.tree_map(lambda x, y: y if is_hole(x) else x, a, b, is_leaf=is_hole, namespace=NAMESPACE)


def difference(a: Tree, b: Tree) -> str | None:
    """How the structure of `b` differs from that of `a`, in words with paths; None where it does not."""
    if flatten(a)[1] == flatten(b)[1]:
        return None
    mine, theirs = paths(a), paths(b)
    missing = [p for p in mine if p not in set(theirs)]
    extra = [p for p in theirs if p not in set(mine)]
    words = [
        f"{what} {', '.join(repr(p) for p in which[:5])}{' ...' if len(which) > 5 else ''}"
        for what, which in (("lacks the leaf", missing), ("has the unexpected leaf", extra))
        if which
    ]
    if words:
        return " and ".join(words)
    for (path, x), (_, y) in zip(nodes(a), nodes(b), strict=False):
        if type(x) is not type(y) and not (entries(x) is None and entries(y) is None):
            return f"has a {type(y).__name__} where a {type(x).__name__} was expected, at {'.'.join(path)!r}"
    return f"has the structure {flatten(b)[1]} where {flatten(a)[1]} was expected"


def misfit(like: Tree, xs: list[Any], tree: Tree, ys: list[Any] | None, same_shapes: bool = True) -> str | None:
    """How `tree`, with the leaves `ys`, differs from `like`, with the leaves `xs`, in structure (then `ys` is None),
    kind, shape or device, in words with a path; None where it does not."""
    if ys is None:
        return difference(like, tree)
    try:
        even = [x.device for x in xs] == [y.device for y in ys]
        if even and (not same_shapes or [x.shape for x in xs] == [y.shape for y in ys]):
            return None
    except AttributeError:  # what stands there is no tensor
        pass
    for path, x, y in zip(paths(like), xs, ys, strict=True):
        if not isinstance(y, Tensor):
            return difference(like, tree) or f"has a {type(y).__name__} at {path!r}, expected a tensor"
        if same_shapes and x.shape != y.shape:
            return f"has the shape {tuple(y.shape)} at {path!r}, expected {tuple(x.shape)}"
        if x.device != y.device:
            return f"is on {y.device} at {path!r}, expected {x.device}"
    return None
