"""The state of a transform as torch keeps it: a dict for each parameter.

What the transform keeps for each parameter is in that parameter's dict, under its path without the name of the
parameter (`0.mu`). What it keeps once (`0.count`) is in the dict of every parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from optfx.interop.groups import GroupState
from optfx.tree import Hole, Tree, flatten, leaves, unflatten, unflatten_like
from optfx.tree.nodes import entries


class Place(NamedTuple):
    """Where a leaf of the state is kept."""

    key: str  # its path, without the name of a parameter
    owners: tuple[int, ...]  # the parameters that it belongs to
    shared: bool  # whether it is one for all of them, such as a count


def places_of(state: Tree, names: Sequence[str], group: Sequence[int]) -> list[Place]:
    """Where each leaf of a state is kept, in order.

    Args:
        state: the state of a transform on a dict of all parameters.
        names: the names of the parameters.
        group: the group of each.
    """
    number = {name: i for i, name in enumerate(names)}
    names_of = {None: set(names)} | {g: {n for n, h in zip(names, group, strict=True) if h == g} for g in set(group)}
    found: list[Place] = []

    def go(node: Any, key: tuple[str, ...], of: int | None, owner: int | None) -> None:
        pairs = entries(node)
        if pairs is None:
            owners = [owner] if owner is not None else [i for i, g in enumerate(group) if of in (None, g)]
            found.append(Place(".".join(key), tuple(owners), owner is None))
        elif isinstance(node, GroupState):
            for g, child in node.inner.items():
                go(child, key, int(g), owner)
        elif owner is None and isinstance(node, dict) and node.keys() in (names_of[of], names_of[None]):
            for name, child in pairs:
                go(child, key, of, number[name])
        else:
            for name, child in pairs:
                go(child, (*key, str(name)), of, owner)

    go(state, (), None, None)
    return found


class Layout:
    """Where the leaves of a state are kept, for a transform of a dict of all parameters.

    Args:
        state: what `tx.init` gave.
        names: the names of the parameters.
        group: the group of each.
    """

    def __init__(self, state: Tree, names: Sequence[str], group: Sequence[int]):
        self._places = places_of(state, names, group)
        self._skeleton = unflatten_like(state, range(len(self._places)))
        self._known: dict[tuple[bool, ...], tuple[list[Place], Any, list[bool]]] = {}

    def fill_in(self, dicts: list[dict[str, Tensor]], state: Tree) -> None:
        """Put the leaves of a new state where there are none yet."""
        for place, value in zip(self._places, leaves(state), strict=True):
            kept = [dicts[i][place.key] for i in place.owners if place.key in dicts[i]]
            for i in place.owners:
                dicts[i].setdefault(place.key, kept[0] if kept else value)

    def read(self, dicts: list[dict[str, Tensor]], active: tuple[bool, ...]) -> Tree:
        """The state for a step of the active parameters, with holes for the others. What no active parameter owns, such
        as the count of a group that rests, is a copy, because the step may write into it."""
        places, structure, idle = self._seen(active)
        found = [dicts[place.owners[0]][place.key] for place in places]
        return unflatten(structure, [x.clone() if rests else x for x, rests in zip(found, idle, strict=True)])

    def write(self, dicts: list[dict[str, Tensor]], active: tuple[bool, ...], new: Iterable[Tensor]) -> None:
        """Keep the leaves of the state after such a step."""
        places, _, idle = self._seen(active)
        for place, value, rests in zip(places, new, idle, strict=True):
            for i in () if rests else place.owners:
                dicts[i][place.key] = value

    def _seen(self, active: tuple[bool, ...]) -> tuple[list[Place], Any, list[bool]]:
        """The leaves that a step of these parameters sees, their structure, and which of them no active one owns."""
        if active not in self._known:
            kept = [k if place.shared or active[place.owners[0]] else Hole() for k, place in enumerate(self._places)]
            which, structure = flatten(unflatten_like(self._skeleton, kept))
            places = [self._places[k] for k in which]
            self._known[active] = places, structure, [not any(active[i] for i in p.owners) for p in places]
        return self._known[active]


def check(
    saved: dict[str, Any],
    groups: list[dict[str, Any]],
    state: Mapping[Tensor, dict[str, Tensor]],
    names: Sequence[str],
    numbers: Iterable[str],
) -> None:
    """Refuse a saved state that does not fit.

    Args:
        saved: what `state_dict` returned.
        groups: the groups of the optimizer.
        state: the state of the optimizer.
        names: the names of its parameters.
        numbers: the numbers that each group must have.

    Raises:
        ValueError: listing what is missing, unexpected, misshapen or of another dtype.
    """
    if [len(g["params"]) for g in saved["param_groups"]] != [len(g["params"]) for g in groups]:
        return  # torch says so
    numbers, faults = list(numbers), []
    for k, group in enumerate(saved["param_groups"]):
        faults += [f"group {k} lacks {name!r}" for name in numbers if name not in group]
    params = [p for group in groups for p in group["params"]]
    keys = [i for group in saved["param_groups"] for i in group["params"]]
    for i, (key, p, name) in enumerate(zip(keys, params, names, strict=True)):
        faults += [f"parameter {i} ({name!r}) {words}" for words in _misfits(state[p], saved["state"].get(key, {}))]
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise ValueError("the state does not fit this optimizer:\n  " + "\n  ".join(faults[:20]) + more)


def _misfits(mine: Mapping[str, Tensor], theirs: Mapping[str, Any]) -> Iterable[str]:
    yield from (f"lacks {key!r}" for key in mine if key not in theirs)
    yield from (f"has the unexpected {key!r}" for key in theirs if key not in mine)
    for key in mine.keys() & theirs.keys():
        old, new = mine[key], theirs[key]
        if not isinstance(new, Tensor):
            yield f"has a {type(new).__name__} for {key!r}, expected a tensor"
        elif (new.shape, new.dtype) != (old.shape, old.dtype):
            found, wanted = (f"{tuple(x.shape)} {x.dtype}" for x in (new, old))
            yield f"has {found} for {key!r}, expected {wanted}"


class _AsSaved:
    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def uncast(state: Mapping[str, Any]) -> dict[str, Any]:
    """The saved state of a parameter, wrapped so that torch does not cast it to the dtype of the parameter."""
    return {key: _AsSaved(x) if isinstance(x, Tensor) else x for key, x in state.items()}


def copied(state: Mapping[str, Any], p: Tensor) -> dict[str, Any]:
    """What `uncast` wrapped, copied to the device of the parameter."""
    return {
        key: x.tensor.detach().to(p.device, copy=True) if isinstance(x, _AsSaved) else x for key, x in state.items()
    }
