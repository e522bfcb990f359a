"""Whether a saved state fits an optimizer, and what of it belongs to which parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optfx import core
from optfx.combinators import chain
from optfx.core import GradientTransformation
from optfx.core.hyper import join
from optfx.interop.groups import Knob, values_of
from optfx.interop.members import Members
from optfx.interop.owners import each
from optfx.interop.torch_specs import SPECS, Recipe, TorchSpec, is_value
from optfx.interop.torch_state import State, refuse_meta
from optfx.transforms import add_decayed_weights, scale, scale_by_learning_rate
from optfx.tree.record import is_record, show


def fitted(
    saved: dict[str, Any],
    groups: Sequence[dict[str, Any]],
    members: Members,
    mine: Mapping[int, State],
    numbers: Iterable[str],
    cast: bool,
    partial: bool,
) -> dict[str, Any]:
    """A saved state as that of an optimizer.

    Args:
        saved: what `state_dict` returned.
        groups: the groups of the optimizer.
        members: its parameters.
        mine: what is kept of each.
        numbers: the numbers that each group has.
        cast: convert what has another dtype.
        partial: take what is missing from `mine`.

    Raises:
        ValueError: listing what is missing, unexpected, misshapen or of another dtype.
    """
    names, keys = members.names, [members.keys.get(p, set()) for p in members.params]
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
    refuse_meta(names, members.params, [i for i, of in enumerate(given) if of])
    faults: list[str] = []
    state: dict[Any, Any] = {k: x for k, x in saved["state"].items() if not isinstance(k, int)}
    for i, (name, kept, known, of) in enumerate(
        zip(names, [mine.get(i, {}) for i in range(len(names))], keys, given, strict=True)
    ):
        missing = {key: x for key, x in kept.items() if partial and key not in of}
        faults += [f"parameter {i} ({name!r}) {words}" for words in _misfits(kept, known, missing | of, cast, partial)]
        state[i] = {
            key: _AsSaved(x.to(kept[key].dtype) if cast and key in known else x) if isinstance(x, Tensor) else x
            for key, x in (missing | of).items()
            if not faults
        }
    if faults:
        more = f"\n  and {len(faults) - 20} more" if len(faults) > 20 else ""
        if not partial and any({"step", "momentum_buffer"} & of.keys() for of in given):
            more += "\n  it is that of an optimizer of torch, which load_torch_state_dict takes"
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


def _misfits(mine: State, known: set[str], theirs: Mapping[str, Any], cast: bool, partial: bool) -> Iterable[str]:
    missing = [key for key in mine if key in known and key not in theirs]
    yield from (f"lacks {key!r}" for key in missing)
    if missing or partial:  # where all is there, what is unknown is somebody else's
        yield from (f"has the unexpected {key!r}" for key in theirs if key not in mine)
    for key in known & theirs.keys():
        old, new = mine[key], theirs[key]
        if not isinstance(new, Tensor):
            yield f"has a {type(new).__name__} for {key!r}, expected a tensor"
        elif new.shape != old.shape or (new.dtype != old.dtype and not cast):
            found, wanted = (f"{tuple(x.shape)} {x.dtype}" for x in (new, old))
            hint = "; cast=True converts it" if new.shape == old.shape else ""
            yield f"has {found} for {key!r}, expected {wanted}{hint}"


# ---- from torch's own optimizers --------------------------------------------------------------------

_ANYWHERE = {chain, scale, add_decayed_weights, scale_by_learning_rate}  # steps that tell no optimizer from another


def renamed(
    saved: Mapping[str, Any], tx: GradientTransformation, knobs: Mapping[str, Knob], keys: Iterable[set[str]]
) -> dict[str, Any]:
    """What an optimizer of `torch.optim` saved, under the names of ours.

    Args:
        saved: what its `state_dict` returned.
        tx: our optimizer, which is torch's, or holds it.
        knobs: its numbers.
        keys: what it keeps of each parameter.

    Raises:
        ValueError: our optimizer does not hold that of torch, saying what does not fit.
    """
    of_torch = {key for spec in SPECS.values() for key in (*spec.state, "step")}  # what is unknown is somebody else's
    kept = {i: {k: x for k, x in of.items() if x is not None and k in of_torch} for i, of in saved["state"].items()}
    theirs = {key for of in kept.values() for key in of} - {"step"}
    spec = _spec_of(tx, saved["param_groups"], theirs)
    key_of = _keys_of(spec, {key for of in keys for key in of}, theirs)
    return {
        "state": {i: _as_ours(of, key_of) for i, of in kept.items() if of},
        "param_groups": [_numbers_of(spec, group, tx, knobs) for group in saved["param_groups"]],
    }


def _spec_of(tx: GradientTransformation, groups: Sequence[Mapping[str, Any]], theirs: set[str]) -> TorchSpec:
    """The optimizer of torch that has such groups, keeps this, and is in ours."""
    kinds = {type(part) for _, part in each(tx)} | _ANYWHERE
    found: list[tuple[int, TorchSpec]] = []
    for spec in SPECS.values():
        recipes = [_recipe_of(spec, group) for group in groups]
        if theirs <= spec.state.keys() and None not in recipes:
            parts = [part for recipe, group in zip(recipes, groups, strict=True) for part in _made(recipe, group, None)]
            if {type(part) for part in parts} <= kinds:
                alike = spec.defaults.keys() & groups[0].keys()
                found.append((len({type(part) for part in parts} - _ANYWHERE) + len(alike), spec))
    if not found:
        options = ", ".join(k for k in groups[0] if k not in ("params", "param_names"))
        raise ValueError(
            f"the state is of an optimizer with the options {options}, which keeps {', '.join(sorted(theirs))}; "
            f"{tx!r} has none like it"
        )
    return max(found, key=lambda pair: pair[0])[1]


def _recipe_of(spec: TorchSpec, group: Mapping[str, Any]) -> Recipe | None:
    """The recipe for a group of this optimizer, if it is one."""
    recipe = next((recipe for recipe in spec.recipes if recipe.fits(dict(group))), None)
    return recipe if recipe is not None and recipe.options.keys() <= group.keys() else None


def _made(recipe: Recipe | None, group: Mapping[str, Any], zero: Any) -> list[GradientTransformation]:
    """The transforms of a group; `zero` stands for an option that may be absent, and is 0."""
    assert recipe is not None
    options = {k: zero if absent and is_value(group[k], 0) else group[k] for k, absent in recipe.options.items()}
    return [part for _, part in each(recipe.make(**options))]


def _keys_of(spec: TorchSpec, have: set[str], theirs: set[str]) -> dict[str, list[str]]:
    """Where we keep what torch keeps. Counts are set in the steps that have nothing else."""
    found = {key: [k for k in have if k.rpartition(".")[2] == field] for key, field in spec.state.items()}
    for key, places in found.items():
        if len(places) > 1:
            raise ValueError(f"the optimizer keeps several things like {key!r}: {', '.join(sorted(places))}")
        if key in theirs and not places:
            raise ValueError(f"the optimizer keeps nothing like {key!r}")
    known = {k for places in found.values() for k in places}
    counts = {k for k in have if k.rpartition(".")[2] == "count"}
    others = {k.rpartition(".")[0] for k in have - known - counts}
    return found | {"step": sorted(k for k in counts if k.rpartition(".")[0] not in others)}


def _as_ours(kept: Mapping[str, Any], key_of: Mapping[str, list[str]]) -> State:
    # an optimizer that does not count has taken one step or more where it keeps anything, and that is all that matters
    new = {name: x for key, x in kept.items() if key != "step" for name in key_of[key]}
    steps = torch.tensor(int(kept.get("step", 1)))
    return {name: x.clone() for name, x in new.items()} | {name: steps.clone() for name in key_of["step"]}


def _numbers_of(
    spec: TorchSpec, group: Mapping[str, Any], tx: GradientTransformation, knobs: Mapping[str, Knob]
) -> dict[str, Any]:
    """A group of torch under our names. What is no option of the optimizer stays."""
    ours = {type(part): part for _, part in each(tx)}
    given: dict[tuple[type, str], Any] = {}
    for part in _made(_recipe_of(spec, group), group, 0):
        kind = type(part)
        numbers = {f: x for f in core.hyper_fields(part) if core.is_number(x := getattr(part, f))}
        given |= {(kind, field): x for field, x in numbers.items()}
        if kind not in ours and (words := [f"{f} is {x}" for f, x in numbers.items() if not is_value(x, 0)]):
            raise ValueError(f"in the saved state {', '.join(words)}, and there is no {kind.__name__} here")
        for field, x in vars(part).items() if kind in ours else ():
            mine = getattr(ours[kind], field)  # a flag, or a schedule, which no group can set
            if (isinstance(x, (bool, str)) or (is_record(x) and callable(mine))) and show(mine) != show(x):
                raise ValueError(f"{kind.__name__}.{field} is {mine!r} here, and {x!r} for the saved state")
    fields = {join(path, f): (type(part), f) for path, part in each(tx) for f in core.hyper_fields(part)}
    new = {k: x for k, x in group.items() if k not in spec.defaults} | {"maximize": group.get("maximize", False)}
    for name, knob in knobs.items():
        values = [given.get(fields[path], own) for path, own in zip(knob.paths, values_of(knob.value), strict=True)]
        new[name] = tuple(values) if len(values) > 1 else values[0]
    return new


class _AsSaved:
    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def copied(state: Mapping[str, Any], p: Tensor) -> dict[str, Any]:
    """What `fitted` wrapped, so that torch does not cast it to the dtype of the parameter, on its device."""
    return {
        key: x.tensor.detach().to(p.device, copy=True) if isinstance(x, _AsSaved) else x for key, x in state.items()
    }
