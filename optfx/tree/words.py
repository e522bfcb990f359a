"""Errors in words: how two trees differ, and at which path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn import Module

from optfx.tree.nodes import Tree, entries, flatten, leaves, nodes, paths


class LeafError(TypeError):
    """What is wrong with one leaf; the verb adds its path."""


def refuse_complex(who: str, x: Tree) -> None:
    """Raise if a leaf is complex, for what needs an order."""
    for path, leaf in zip(paths(x), leaves(x), strict=True):
        if leaf.is_complex():
            raise TypeError(f"{who}: complex numbers have no order, and the leaf at {path!r} is {leaf.dtype}")


def difference(a: Tree, b: Tree) -> str | None:
    """How the structure of `b` differs from that of `a`, in words with paths; None if it does not."""
    if flatten(a)[1] == flatten(b)[1]:
        return None
    if isinstance(b, (Module, Iterator)):
        return f"is a {type(b).__name__}, not a tree; those of a module are optfx.params(module), optfx.grads(module)"
    expected, found = paths(a), paths(b)
    missing = [p for p in expected if p not in set(found)]
    extra = [p for p in found if p not in set(expected)]
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
    """How a tree differs from the one that it should match: in structure, type, shape, device or layout.

    Args:
        like: the tree to match.
        xs: its leaves.
        tree: the tree in question.
        ys: its leaves; None if the structures are known to differ.
        same_shapes: whether the shapes must agree.

    Returns:
        Words with a path, such as `lacks the leaf 'b'`; None if the tree fits.
    """
    if ys is None:
        return difference(like, tree)
    try:
        even = [(x.device, x.layout) for x in xs] == [(y.device, y.layout) for y in ys]
        if even and (not same_shapes or [x.shape for x in xs] == [y.shape for y in ys]):
            return None
    except AttributeError:  # some leaf is not a tensor
        pass
    for path, x, y in zip(paths(like), xs, ys, strict=True):
        if not isinstance(y, Tensor):
            return difference(like, tree) or f"has a {type(y).__name__} at {path!r}, expected a tensor"
        if same_shapes and x.shape != y.shape:
            return f"has the shape {tuple(y.shape)} at {path!r}, expected {tuple(x.shape)}"
        if x.device != y.device:
            return f"is on {y.device} at {path!r}, expected {x.device}"
        if x.layout != y.layout:
            return f"is sparse at {path!r} ({y.layout}), expected {x.layout}: make it dense, by `to_dense()`"
    return None
