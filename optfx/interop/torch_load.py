"""Whether a saved state fits an optimizer, and what of it belongs to which parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from optfx.interop.torch_state import State


def fitted(
    saved: dict[str, Any],
    groups: Sequence[dict[str, Any]],
    mine: Sequence[State],
    keys: Sequence[set[str]],
    names: Sequence[str],
    numbers: Iterable[str],
    cast: bool,
    partial: bool,
) -> dict[str, Any]:
    """A saved state as that of an optimizer.

    Args:
        saved: what `state_dict` returned.
        groups: the groups of the optimizer.
        mine: the state of each parameter.
        keys: what the optimizer keeps of each.
        names: the names of the parameters.
        numbers: the numbers that each group has.
        cast: convert what has another dtype.
        partial: take what is missing from `mine`.

    Raises:
        ValueError: listing what is missing, unexpected, misshapen or of another dtype.
    """
    theirs, numbering = saved["param_groups"], _numbering(groups)
    by_name = all("param_names" in group for group in (*groups, *theirs))
    if by_name:
        places, of_groups = _by_name(theirs, groups, names, partial)
    elif [len(g["params"]) for g in theirs] != [len(g["params"]) for g in groups]:
        return saved  # torch says so
    else:
        places, of_groups = [key for group in theirs for key in group["params"]], theirs
    given = [saved["state"].get(key, {}) for key in places]
    if partial:
        prefix = _prefix(keys, given)
        given = [{prefix + key: x for key, x in of.items()} for of in given]
    faults: list[str] = []
    state: dict[Any, Any] = {k: x for k, x in saved["state"].items() if not isinstance(k, int)}
    for i, (name, kept, known, of) in enumerate(zip(names, mine, keys, given, strict=True)):
        missing = {key: x for key, x in kept.items() if partial and key not in of}
        faults += [f"parameter {i} ({name!r}) {words}" for words in _misfits(kept, known, missing | of, cast)]
        state[i] = {
            key: _AsSaved(x.to(kept[key].dtype) if cast and key in known else x) if isinstance(x, Tensor) else x
            for key, x in (missing | of).items()
            if not faults
        }
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise ValueError("the state does not fit this optimizer:\n  " + "\n  ".join(faults[:20]) + more)
    new = []
    for group, other, places_of_group in zip(groups, of_groups, numbering, strict=True):
        own = {name: group[name] for name in numbers} | {k: x for k, x in other.items() if k != "param_names"}
        own |= {"param_names": group["param_names"]} if "param_names" in group else {}
        new.append(own | {"params": places_of_group})
    return saved | {"state": state, "param_groups": new}


def _numbering(groups: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The numbers of the parameters of each group."""
    found: list[list[int]] = []
    for group in groups:
        begin = sum(map(len, found))
        found.append(list(range(begin, begin + len(group["params"]))))
    return found


def _by_name(
    theirs: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]], names: Sequence[str], partial: bool
) -> tuple[list[Any], list[Mapping[str, Any]]]:
    """Which saved parameter each of the optimizer's is, by name, and which saved group each of its groups."""
    key_of = {name: key for g in theirs for name, key in zip(g["param_names"], g["params"], strict=True)}
    faults = [f"it has no parameter {name!r}" for name in names if name not in key_of and not partial]
    faults += [f"its parameter {name!r} is not here" for name in key_of if name not in set(names)]
    if faults:
        hint = "without `param_names` in its groups it would be matched by place"
        raise ValueError("the state does not fit this optimizer:\n  " + "\n  ".join([*faults[:20], hint]))
    of_names = {frozenset(g["param_names"]): g for g in theirs}
    found = [of_names.get(frozenset(g["param_names"])) for g in groups]
    if None in found or len({id(g) for g in found}) < len(found):
        if len(theirs) != len(groups):
            raise ValueError("the state does not fit this optimizer: it has a different number of parameter groups")
        found = list(theirs)
    return [key_of.get(name) for name in names], found  # type: ignore[return-value]


def _prefix(keys: Sequence[set[str]], given: Sequence[Mapping[str, Any]]) -> str:
    """Where in a larger optimizer the saved one stands: what comes before its keys."""
    wanted = {key for of in given for key in of}
    have = set().union(*keys)
    steps = [key.split(".") for key in have]
    prefixes = {"".join(f"{step}." for step in path[:n]) for path in steps for n in range(len(path))}
    return next((p for p in sorted(prefixes, key=len) if all(p + key in have for key in wanted)), "")


def _misfits(mine: State, known: set[str], theirs: Mapping[str, Any], cast: bool) -> Iterable[str]:
    yield from (f"lacks {key!r}" for key in mine if key in known and key not in theirs)
    yield from (f"has the unexpected {key!r}" for key in theirs if key not in mine)
    for key in known & theirs.keys():
        old, new = mine[key], theirs[key]
        if not isinstance(new, Tensor):
            yield f"has a {type(new).__name__} for {key!r}, expected a tensor"
        elif new.shape != old.shape or (new.dtype != old.dtype and not cast):
            found, wanted = (f"{tuple(x.shape)} {x.dtype}" for x in (new, old))
            hint = "; cast=True converts it" if new.shape == old.shape else ""
            yield f"has {found} for {key!r}, expected {wanted}{hint}"


class _AsSaved:
    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def copied(state: Mapping[str, Any], p: Tensor) -> dict[str, Any]:
    """What `fitted` wrapped, so that torch does not cast it to the dtype of the parameter, on its device."""
    return {
        key: x.tensor.detach().to(p.device, copy=True) if isinstance(x, _AsSaved) else x for key, x in state.items()
    }
