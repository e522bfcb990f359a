"""Reading and writing the nodes of a tree by name, and its leaves as `{path: tensor}`.

A name is a field of a NamedTuple or record, a dotted path, or the end of one. Fields come before dict keys, so a
parameter called `mu` does not hide the field `mu` of Adam's state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optfx.tree.nodes import Tree, entries, is_namedtuple, leaves, paths, unflatten_like
from optfx.tree.record import is_record
from optfx.tree.words import difference


def _named_nodes(node: Any, path: tuple[str, ...], fields: tuple[bool, ...], found: list[Any]) -> None:
    """Collect every node with the names on the way to it, and whether each is a field."""
    found.append((path, fields, node))
    is_field = is_namedtuple(node) or is_record(node)
    for name, child in entries(node) or ():
        _named_nodes(child, (*path, str(name)), (*fields, is_field), found)


def get_all(tree: Tree, name: str) -> dict[str, Any]:
    """Every node called `name`, by path.

    Args:
        tree: any tree, such as a state.
        name: a field (`"mu"`), a dotted path, or the end of one (`"0.mu"`, `"mu.layer1.weight"`).

    Returns:
        `{path: node}`, outermost matches only. If fields and dict keys share the name, only the fields.

    Example:
        >>> import torch, optfx
        >>> state = optfx.adam(0.1).init({"mu": torch.zeros(2)})
        >>> list(optfx.tree.get_all(state, "count"))
        ['0.count', '1.count']
        >>> list(optfx.tree.get_all(state, "mu"))
        ['0.mu']
    """
    found: list[Any] = []
    _named_nodes(tree, (), (), found)
    wanted = "." + name
    matches = []
    for path, fields, node in found:
        dotted = "." + ".".join(path)
        if path and dotted.endswith(wanted):
            # does the match begin at the root or a field, or only at the key of a container?
            begin = len(path) if dotted == wanted else dotted[: -len(wanted)].count(".")
            starts_well = dotted == wanted or (begin < len(fields) and fields[begin])
            matches.append((".".join(path), starts_well, node))
    if any(well for _, well, _ in matches):
        matches = [m for m in matches if m[1]]
    outermost: dict[str, Any] = {}
    for path, _, node in matches:  # parents come before children
        if not any(path.startswith(above + ".") for above in outermost):
            outermost[path] = node
    return outermost


def _one(tree: Tree, name: str) -> tuple[str, Any]:
    found = get_all(tree, name)
    if not found:
        raise KeyError(f"nothing is called {name!r} here; the leaves are {paths(tree)}")
    if len(found) > 1:
        raise KeyError(f"{len(found)} nodes are called {name!r}, say which: {list(found)} (or all: get_all, set_all)")
    return next(iter(found.items()))


def get(tree: Tree, name: str) -> Any:
    """The one node called `name`: a leaf or a subtree.

    Args:
        tree: any tree, such as a state.
        name: a field, a dotted path, or the end of one.

    Raises:
        KeyError: no node has the name, or several do, listing them.

    Example:
        >>> import torch, optfx
        >>> state = optfx.adam(0.1).init({"w": torch.zeros(2)})
        >>> optfx.tree.get(state, "0.count")
        tensor(0)
        >>> optfx.tree.get(state, "nu.w")
        tensor([0., 0.])
    """
    return _one(tree, name)[1]


def set(tree: Tree, values: Mapping[str, Any] | None = None, /, **named: Any) -> Tree:
    """A copy of a tree with some nodes replaced.

    Args:
        tree: any tree, such as a state.
        values: `{name: value}`, with names as for `get`. A leaf takes a tensor of its shape, or a number to fill it,
            converted to the leaf's dtype and device. A subtree takes a tree of its structure.
        **named: the same, for names without dots.

    Raises:
        KeyError: no node has a name, or several do; a leaf is set twice.
        ValueError: a value has the wrong structure or shape, naming the path.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.inject_hyperparams(optfx.sgd(0.1))
        >>> state = tx.init({"w": torch.zeros(2)})
        >>> optfx.tree.get(optfx.tree.set(state, learning_rate=0.5), "learning_rate")
        tensor(0.5000, dtype=torch.float64)
    """
    return _replaced(tree, [(_one(tree, name), value) for name, value in {**(values or {}), **named}.items()])


def set_all(tree: Tree, values: Mapping[str, Any] | None = None, /, **named: Any) -> Tree:
    """A copy of a tree with every node of a name replaced: `set` for names that several nodes have.

    Args:
        tree: any tree, such as a state.
        values: `{name: value}`, with names as for `get_all` and values as for `set`.
        **named: the same, for names without dots.

    Raises:
        KeyError: no node has a name; a leaf is set twice.
        ValueError: a value has the wrong structure or shape, naming the path.

    Example:
        >>> import torch, optfx
        >>> state = optfx.adam(0.1).init({"w": torch.zeros(2)})
        >>> optfx.tree.get_all(optfx.tree.set_all(state, count=10), "count")
        {'0.count': tensor(10), '1.count': tensor(10)}
    """
    pairs = []
    for name, value in {**(values or {}), **named}.items():
        found = get_all(tree, name) or dict([_one(tree, name)])
        pairs += [(node, value) for node in found.items()]
    return _replaced(tree, pairs)


def _replaced(tree: Tree, pairs: list[tuple[tuple[str, Any], Any]]) -> Tree:
    """A copy of a tree with new values for some ((path, node), value)."""
    new: dict[str, Any] = {}
    for (path, node), value in pairs:
        is_leaf = entries(node) is None
        if not is_leaf and (words := difference(node, value)):
            raise ValueError(f"the value for {path!r} {words}")
        for below, old, leaf in zip(paths(node), leaves(node), [value] if is_leaf else leaves(value), strict=True):
            at = f"{path}.{below}" if below else path
            if at in new:
                raise KeyError(f"{at!r} is set twice")
            new[at] = _fit(at, old, leaf)
    return unflatten_like(tree, [new.get(path, leaf) for path, leaf in zip(paths(tree), leaves(tree), strict=True)])


def _fit(path: str, old: Any, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return torch.full_like(old, value)
    if value.shape != old.shape:
        raise ValueError(f"the value for {path!r} has the shape {tuple(value.shape)}, expected {tuple(old.shape)}")
    return value.to(old)


def to_dict(tree: Tree) -> dict[str, Tensor]:
    """The leaves of a tree by path, ready for `torch.save` or safetensors.

    Args:
        tree: any tree of tensors.

    Returns:
        `{path: tensor}`, not copied.

    Raises:
        ValueError: two leaves share a path, as in `{"a.b": {"c": x}, "a": {"b.c": y}}`.

    Example:
        >>> import torch, optfx
        >>> list(optfx.tree.to_dict(optfx.adam(0.1).init({"w": torch.zeros(2)})))
        ['0.count', '0.mu.w', '0.nu.w', '1.count']
    """
    flat: dict[str, Tensor] = {}
    for path, leaf in zip(paths(tree), leaves(tree), strict=True):
        if path in flat:
            raise ValueError(f"two leaves share the path {path!r}")
        flat[path] = leaf
    return flat


def from_dict(like: Tree, flat: Mapping[str, Tensor]) -> Tree:
    """A tree like `like` with the leaves in `flat`, not copied: the inverse of `to_dict`.

    Args:
        like: a tree with the wanted structure, such as `tx.init(params)`.
        flat: `{path: tensor}`.

    Raises:
        ValueError: paths are missing or unexpected, or leaves have another shape or dtype, listing all of them.

    Example:
        >>> import torch, optfx
        >>> state = optfx.adam(0.1).init({"w": torch.zeros(2)})
        >>> again = optfx.tree.from_dict(state, optfx.tree.to_dict(state))
        >>> optfx.tree.get(again, "mu")
        {'w': tensor([0., 0.])}
    """
    expected = to_dict(like)
    faults = [f"missing: {path}" for path in expected if path not in flat]
    faults += [f"unexpected: {path}" for path in flat if path not in expected]
    for path, leaf in expected.items():
        if path in flat:
            value = flat[path]
            if not isinstance(value, Tensor):
                faults.append(f"{path}: a {type(value).__name__}, expected a tensor")
            elif (value.shape, value.dtype) != (leaf.shape, leaf.dtype):
                faults.append(f"{path}: {tuple(value.shape)} {value.dtype}, expected {tuple(leaf.shape)} {leaf.dtype}")
    if faults:
        raise ValueError("the dict does not fit the tree:\n  " + "\n  ".join(faults))
    return unflatten_like(like, [flat[path] for path in expected])
