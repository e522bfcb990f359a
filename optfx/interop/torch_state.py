"""The state of a transform as torch keeps it: a dict for each parameter.

What the transform keeps for each parameter is in that parameter's dict, under its path without the name of the
parameter (`0.mu`). What it keeps once for an owner (`0.count`) is in the dict of each of the owner's parameters, and
what it keeps once for all is in every dict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from optfx.core.hyper import join
from optfx.interop.owners import OwnerState
from optfx.tree import Tree, flatten, leaves, unflatten
from optfx.tree.nodes import entries, leaves_in


class Names(NamedTuple):
    """The names of the parameters in the trees of a step."""

    of: Mapping[int, str]

    def tree(self, values: Mapping[int, Any]) -> dict[str, Any]:
        """A tree of these values, by number of the parameter."""
        return {self.of[i]: x for i, x in values.items()}

    def part(self, params: Sequence[int], x: Mapping[str, Any]) -> dict[str, Any]:
        """What a tree has for these parameters."""
        return self.tree({i: x[self.of[i]] for i in params})


State = dict[str, Any]
"""What is kept of a parameter. Keys that the optimizer does not know are somebody else's."""


class Place(NamedTuple):
    """Where a leaf of the state is kept."""

    key: str  # its path, without the name of a parameter
    params: tuple[int, ...]  # the parameters that it belongs to
    owner: str | None  # the owner that it belongs to; None for what is one for all
    shared: bool  # whether it is one for several parameters, such as a count
    form: tuple[torch.Size, torch.dtype]  # its shape and dtype when it was new


def places_of(
    state: Tree, names: Names, owned: Mapping[str, Sequence[int]], key: str = "", owner: str | None = None
) -> list[Place]:
    """Where each leaf of a state is kept, in order.

    Args:
        state: the state of a transform on a dict of the parameters, or a part of it.
        names: the names of the parameters.
        owned: the parameters of each owner.
        key: the path of the part in the whole state.
        owner: whose part it is; None for the whole.
    """
    number = {name: i for i, name in names.of.items()}
    everyone = set(number)
    theirs = {o: {names.of[i] for i in of} for o, of in owned.items()}
    found: list[Place] = []

    def go(node: Any, key: str, of: str | None, param: int | None) -> None:
        pairs = entries(node)
        if pairs is None:
            if not isinstance(node, Tensor):
                raise TypeError(f"the state at {key!r} is a {type(node).__name__}, expected a tensor")
            several = tuple(names.of) if of is None else tuple(owned[of])
            params = several if param is None else (param,)
            found.append(Place(key, params, of, param is None, (node.shape, node.dtype)))
        elif isinstance(node, OwnerState):
            for o, child in sorted(node.inner.items()):
                go(child, key, o, param)
        elif (
            param is None
            and isinstance(node, dict)
            and node.keys() in (everyone, everyone if of is None else theirs[of])
        ):
            for name, child in pairs:
                go(child, key, of, number[name])
        else:
            for name, child in pairs:
                go(child, join(key, str(name)), of, param)

    go(state, key, owner, None)
    return found


class Layout:
    """Where the leaves of a state, or of a part of it, are kept.

    Args:
        state: what `begin` gave.
        places: the place of each leaf.
    """

    def __init__(self, state: Tree, places: list[Place]):
        self.places, self._structure = places, flatten(state)[1]

    def check(self, kept: Mapping[int, State], names: Mapping[int, str]) -> None:
        """Refuse a state that somebody has put there and that has another form.

        Raises:
            ValueError: naming the parameter and the key.
        """
        for place in self.places:
            x, shape = kept[place.params[0]][place.key], place.form[0]
            if not isinstance(x, Tensor) or x.shape != shape:
                found = tuple(x.shape) if isinstance(x, Tensor) else f"a {type(x).__name__}"
                who = names[place.params[0]]
                raise ValueError(f"the state of {who!r} has {found} for {place.key!r}, expected {tuple(shape)}")

    def read(self, kept: Mapping[int, State]) -> Tree:
        """The state, from what is kept of each parameter."""
        return unflatten(self._structure, [kept[place.params[0]][place.key] for place in self.places])

    def write(
        self, kept: Mapping[int, State], new: Tree, once: dict[str, Any] | None = None, others: Set[int] = frozenset()
    ) -> None:
        """Keep a new state. What is one for all goes to all.

        Args:
            kept: what is kept of each parameter.
            new: the state.
            once: what the owner keeps once, by key, if another part of it has been written before.
            others: the memory of others, who will write to it; what lies there is copied.

        Raises:
            ValueError: a state of another structure.
        """
        found = leaves_in(self._structure, new)
        if found is None:
            raise ValueError(f"the state has the structure {flatten(new)[1]} now, and had {self._structure}")
        for place, value in zip(self.places, found, strict=True):
            if others and memory(value) in others:
                value = value.clone()
            if place.shared and once is not None:
                value = once.setdefault(place.key, value)
            for i in kept if place.shared and place.owner is None else place.params:
                kept[i][place.key] = value


def memory_of(*trees: Tree) -> set[int]:
    """The memory of the leaves."""
    return {memory(x) for tree in trees for x in leaves(tree)}


def memory(x: Tensor) -> int:
    """A number that is the same for two tensors that share memory."""
    return x.untyped_storage().data_ptr() if type(x) in (Tensor, nn.Parameter) else id(x)


def refuse_twice(params: Sequence[Any]) -> None:
    """Raise on a parameter that is listed twice."""
    if len(params) != len(set(map(id, params))):
        where = [str(i) for i, p in enumerate(params) if any(p is other for other in params[:i])]
        raise ValueError(f"a parameter is listed twice, again at the place {', '.join(where)}: list it once")


def refuse_meta(names: Sequence[str], params: Sequence[Tensor], which: Iterable[int]) -> None:
    """Raise on a parameter that has no values, if it is one of these."""
    for i in which:
        if params[i].is_meta:
            raise RuntimeError(
                f"the parameter {names[i]!r} is on the meta device, and has no values. to_empty() and "
                "load_state_dict(assign=True) put new parameters into a module: make the optimizer of those"
            )
