"""The numbers of an optimizer under the names of `torch.optim`, for each parameter group.

An optimizer is data: a transform that treats parameters one by one is copied for each owner, with the numbers of its
group as tensors (`owners`). One that looks across parameters, such as `clip_by_global_norm`, stays one for all groups.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.combinators import chain, flatten, inject_hyperparams, named_chain
from optfx.core import GradientTransformation
from optfx.core.hyper import join
from optfx.interop.owners import by_owner, each, is_foreign, looks_across, settled
from optfx.tree import Tree
from optfx.tree.record import lay_out, show

_TORCH = {
    "learning_rate": "lr",
    "trace.decay": "momentum",
    "scale_by_muon.beta": "momentum",
    "scale_by_rms.decay": "alpha",
    "scale_by_stddev.decay": "alpha",
}
_BETAS = ("b1", "b2")
_PLAIN = {float, int}  # types whose values do not change


class Held(NamedTuple):
    """The numbers of a group, by the names of the knobs."""

    tensors: dict[str, list[Tensor]]  # which the transforms of the group read
    values: dict[str, tuple[Any, ...]]  # what they hold, where these are plain numbers


class Knob(NamedTuple):
    """A number of the optimizer, or a tuple of numbers, that groups may have different values of."""

    paths: tuple[str, ...]  # as `core.numbers` has them; more than one for `betas`
    value: Any  # float, tensor, or a tuple of them
    shared: str  # the transform that looks across all parameters, so that groups must agree; "" for none


class Knobs:
    """The knobs of an optimizer, by name.

    A number is known by torch's name for it (`lr`, `betas`, `momentum`, `alpha`), else by that of its field; where two
    transforms of the chain have one of the same name, by the path of the number (`"0.weight_decay"`).

    Attributes:
        found: the knobs.
        looks_across: whether any of its transforms looks across parameters.
        settled: the optimizer, where masks that are computed from all parameters are settled: see `settle`.
    """

    def __init__(self, tx: GradientTransformation):
        if any(isinstance(part, inject_hyperparams) for _, part in each(tx)):
            raise TypeError(
                "inject_hyperparams keeps numbers in the state, where param_groups cannot reach them: "
                "hand over the transform inside it, whose numbers the groups then hold"
            )
        self.tx = self.settled = tx
        parts = [part for _, part in each(tx)]
        self._across = {id(part): looks_across(part) for part in parts}
        for part in parts:
            if isinstance(part, flatten):  # in one vector there are no parameters to tell apart
                self._across |= {id(inner): True for _, inner in each(part)}
        self.looks_across = any(self._across.values())
        self._why_not: dict[str, str] = {}  # names that a group cannot set
        rows = list(self._read(tx, ""))
        names = [name for name, _, _ in rows]
        self.found: dict[str, Knob] = {
            name if names.count(name) == 1 else join(path, name): knob for name, path, knob in rows
        }
        for name in self.found.keys() & {*_TORCH.values(), "betas"}:
            self._why_not |= {path.rpartition(".")[2]: f"goes by {name!r}" for path in self.found[name].paths}
        for name in set(names) - self.found.keys():
            full = [repr(key) for key in self.found if key.endswith(f".{name}")]
            self._why_not[name] = f"is ambiguous, there are {', '.join(full)}"

    def settle(self, params: Tree) -> None:
        """Compute masks and labels from all parameters: a step sees only those that have a gradient."""
        new = settled(self.tx, params)
        pairs = zip(each(self.settled), each(new), strict=True)
        self._across = {id(after): self._across[id(before)] for (_, before), (_, after) in pairs}
        self.settled = new

    def one_for_all(self, tx: GradientTransformation) -> str:
        """The name of the transform here, or inside, that has to see all parameters; "" for none."""
        if self._across[id(tx)] or is_foreign(tx):
            return type(tx).__name__
        return next((name for part in tx.inside().values() if (name := self.one_for_all(part))), "")

    def _read(self, tx: GradientTransformation, path: str, beside: bool = False) -> Iterator[tuple[str, str, Knob]]:
        """The knobs of a transform and what is inside it: (name, path of the transform, knob).

        Of a wrapper with several fields the first keeps the plain names, such as the `lr` that schedulers look for.
        """
        shared = self.one_for_all(tx)
        yield from (
            (join(path, name) if beside else name, at, knob) for name, at, knob in self._knobs(tx, path, shared)
        )
        for k, (name, part) in enumerate(tx.inside().items()):
            second = k > 0 and isinstance(tx, core.Wrapper) and isinstance(tx.holds, tuple)
            yield from self._read(part, join(path, name), beside or second)

    def _knobs(self, tx: GradientTransformation, path: str, shared: str) -> Iterator[tuple[str, str, Knob]]:
        """The knobs of one transform."""
        who, numbers = type(tx).__name__, _own_numbers(tx)
        for field in core.hyper_fields(tx):
            if callable(getattr(tx, field)):
                self._why_not[_name(tx, field)] = f"is a schedule in {who}, which counts its own steps"
        if numbers.keys() >= set(_BETAS):
            betas = tuple(numbers.pop(field) for field in _BETAS)
            yield "betas", path, Knob(tuple(join(path, field) for field in _BETAS), betas, shared)
        for field, value in numbers.items():
            yield _name(tx, field), path, Knob((join(path, field),), value, shared)

    # ---- the values in groups ---------------------------------------------------------------------

    def check(self, numbers: Mapping[str, Any]) -> None:
        """Refuse numbers that groups cannot set, and values that are no numbers. A name that the optimizer does not
        know is somebody else's."""
        for name, value in numbers.items():
            if name in self._why_not and name not in self.found:
                raise ValueError(f"a group cannot set {name!r}: it {self._why_not[name]}")
            if name in self.found:
                self._check_value(name, value)

    def warn_of_idle(self, numbers: Mapping[str, Any]) -> None:
        """Warn of a decay or a momentum that the optimizer does not have. (A zero asks for none.)"""
        for name in ("weight_decay", "momentum"):
            if numbers.get(name) and name not in self.found and name not in self._why_not:
                warnings.warn(
                    f"a group has {name}={numbers[name]!r}, which changes nothing: the optimizer has no {name!r}; "
                    f"a group can set {', '.join(self.found) or 'nothing'}",
                    stacklevel=5,
                )

    def check_known(self, names: Iterable[str]) -> None:
        """Refuse names that the optimizer does not have."""
        for name in names:
            if name not in self.found and name not in self._why_not:
                raise ValueError(f"the optimizer has no {name!r}; a group can set {', '.join(self.found) or 'nothing'}")

    def _check_value(self, name: str, value: Any) -> None:
        knob, values = self.found[name], values_of(value)
        if len(values) != len(knob.paths) or not all(map(core.is_number, values)):
            wanted = "a number" if len(knob.paths) == 1 else f"{len(knob.paths)} numbers"
            raise TypeError(f"{name!r} is {value!r}, expected {wanted}, tensors or not")
        if shapes := [tuple(v.shape) for v in values if isinstance(v, Tensor) and v.numel() != 1]:
            raise ValueError(f"Tensor {name} must be 1-element, got the shape {shapes[0]}")

    def check_shared(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Refuse groups that disagree on a number of a transform that looks across all parameters."""
        for name, knob in self.found.items():
            for group in groups[1:] if knob.shared else ():
                pairs = zip(values_of(groups[0][name]), values_of(group[name]), strict=True)
                if any(x is not y and float(x) != float(y) for x, y in pairs):
                    raise ValueError(
                        f"the groups have different {name!r}: it belongs to {knob.shared}, which looks across all "
                        "parameters, so it is one for all groups"
                    )

    def hold(self, group: Mapping[str, Any]) -> Held:
        """Tensors that hold the numbers of a group, for `read` to renew."""
        return Held({name: [_holder(v) for v in values_of(group[name])] for name in self.found}, {})

    def read(self, groups: Sequence[Mapping[str, Any]], held: Sequence[Held]) -> None:
        """Bring the numbers of the groups, which a scheduler may have changed, into the tensors that hold them."""
        changed = []
        for group, mine in zip(groups, held, strict=True):
            for name in self.found:
                values = values_of(group[name])
                if not set(map(type, values)) <= _PLAIN:
                    self._check_value(name, group[name])
                elif mine.values.get(name) == values:
                    continue
                elif len(values) != len(mine.tensors[name]):
                    self._check_value(name, group[name])
                changed.append((mine, name, values))
        if not changed:
            return
        self.check_shared([group for group in groups if group["params"]])
        for mine, name, values in changed:
            mine.values.pop(name, None)
            for tensor, value in zip(mine.tensors[name], values, strict=True):
                if isinstance(value, Tensor):
                    tensor.copy_(value.detach().reshape(()))
                else:
                    tensor.fill_(float(value))
            if set(map(type, values)) <= _PLAIN:
                mine.values[name] = values

    def rows(self, held: Sequence[Held], path: str) -> list[int]:
        """For each group, the first one that has the same numbers for the transform at a path."""
        first: dict[Any, int] = {}
        names = [name for name, knob in self.found.items() if is_below(knob.paths[0], path)]
        values = [tuple([mine.values.get(name) for name in names]) for mine in held]
        return [k if None in row else first.setdefault(row, k) for k, row in enumerate(values)]

    def shown(self, who: str, groups: Sequence[Mapping[str, Any]]) -> str:
        """The transform, and the parameters and numbers of each group, for people."""
        lines = [f"{who}(", f"    {lay_out(self.tx, '    ')}"]
        for k, group in enumerate(groups):
            n = len(group["params"])
            values = [f"{name}={show(group[name])}" for name in self.found if name in group]
            values += ["maximize=True"] * bool(group.get("maximize"))
            lines.append(f"    group {k}, {n} parameter{'s' * (n != 1)}: {', '.join(values) or 'no numbers'}")
        return "\n".join([*lines, ")"])

    # ---- the optimizer with these values ----------------------------------------------------------

    def steps(self) -> list[tuple[str, GradientTransformation]]:
        """The transforms that updates go through one after another, with their paths: chains are taken apart."""

        def go(tx: GradientTransformation, path: str) -> list[tuple[str, GradientTransformation]]:
            if not isinstance(tx, (chain, named_chain)):
                return [(path, tx)]
            return [step for name, part in tx.inside().items() for step in go(part, join(path, name))]

        return go(self.settled, "")

    def part(self, tx: GradientTransformation, path: str, held: Held) -> GradientTransformation:
        """The transform at a path with the numbers that are held for a group."""
        numbers = {path: x for name, xs in held.tensors.items() for path, x in self._pairs(name, xs)}
        mine = {name: numbers[join(path, name)] for name in core.numbers(tx) if join(path, name) in numbers}
        return core.with_numbers(tx, mine)

    def transform(
        self, tx: GradientTransformation, path: str, owners: Mapping[str, tuple[Held, tuple[str, ...]]]
    ) -> GradientTransformation:
        """The transform at a path with the numbers of each owner.

        Args:
            tx: the transform.
            path: of it.
            owners: for each, the numbers of its group, and the names of its parameters.
        """
        names = {owner: own for owner, (_, own) in owners.items()}
        if not self.one_for_all(tx):
            return by_owner({owner: self.part(tx, path, held) for owner, (held, _) in owners.items()}, names)
        held, _ = next(iter(owners.values()))
        first = {path: x for name, xs in held.tensors.items() for path, x in self._pairs(name, xs)}
        own: dict[str, Any] = {name: first[join(path, name)] for name in _own_numbers(tx)}
        if isinstance(tx, core.Wrapper):
            inside = tx.inside().items()
            tx = tx.with_inside({name: self.transform(part, join(path, name), owners) for name, part in inside})
        return tree.replace(tx, **own) if own else tx

    def _pairs(self, name: str, xs: Sequence[Tensor]) -> Iterable[tuple[str, Tensor]]:
        return zip(self.found[name].paths, xs, strict=True)


def is_below(path: str, other: str) -> bool:
    """Whether a path begins with another one."""
    return not other or path.startswith(f"{other}.")


def _own_numbers(tx: GradientTransformation) -> dict[str, Any]:
    """The fields of a transform that hold numbers."""
    return {name: value for name in core.hyper_fields(tx) if core.is_number(value := getattr(tx, name))}


def _name(tx: GradientTransformation, field: str) -> str:
    return _TORCH.get(f"{type(tx).__name__}.{field}", _TORCH.get(field, field))


def values_of(value: Any) -> tuple[Any, ...]:
    """The numbers of a knob."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def own_value(value: Any) -> Any:
    """The value of a knob with tensors of its own."""
    values = [x.detach().clone() if isinstance(x, Tensor) else x for x in values_of(value)]
    return tuple(values) if isinstance(value, (tuple, list)) else values[0]


def _holder(value: Any) -> Tensor:
    """A tensor for a number: whatever it is given as now, it may be any other number later."""
    device = value.device if isinstance(value, Tensor) else None
    dtype = tree.scalar_dtype(value.device) if isinstance(value, Tensor) else torch.float64
    return torch.full((), float(value), dtype=dtype, device=device)
