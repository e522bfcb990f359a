"""The numbers of an optimizer under the names of `torch.optim`, and one optimizer with other numbers for each group.

An optimizer is data: a transform that treats parameters one by one is copied for each group, with the numbers of that
group as tensors. One that looks across parameters, such as `clip_by_global_norm`, stays one for all groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.combinators import inject_hyperparams
from optfx.core import EXTRA_ARGS, GradientTransformation
from optfx.core.hyper import join
from optfx.transforms import identity
from optfx.tree import Tree
from optfx.tree.recording import recording
from optfx.tree.verbs import combined, run_leaf

_TORCH = {
    "learning_rate": "lr",
    "trace.decay": "momentum",
    "scale_by_muon.beta": "momentum",
    "scale_by_rms.decay": "alpha",
    "scale_by_stddev.decay": "alpha",
}
_BETAS = ("b1", "b2")


class Knob(NamedTuple):
    """A number of the optimizer, or a tuple of numbers, that groups may have different values of."""

    paths: tuple[str, ...]  # as `core.numbers` has them; more than one for `betas`
    value: Any  # float, tensor, or a tuple of them
    shared: str  # the transform that looks across all parameters, so that groups must agree; "" for none


class GroupState(NamedTuple):
    """The state of `by_group`."""

    inner: dict[str, Tree]  # by group, the state of its transform


@tree.record
class by_group(core.Wrapper):
    """One transform with other numbers for each group of parameters, of a flat dict.

    Args:
        transforms: `{group: transform}`.
        names: `{group: names of its parameters}`.
        holes: whether a transform sees holes for the parameters of other groups, and not only its own: a mask may be
            a tree, or a function, of all parameters.
    """

    holds, partial = "transforms", True
    transforms: dict[str, GradientTransformation]
    names: dict[str, tuple[str, ...]]
    holes: bool

    def states(self, state: Any) -> dict[str, Tree]:
        return state.inner

    def own(self, group: str, x: Any) -> Any:
        """What belongs to a group of something by parameter; anything else belongs to all."""
        if not isinstance(x, dict):
            return x
        names = self.names[group]
        if self.holes:
            return {name: value if name in names else tree.Hole() for name, value in x.items()}
        return {name: x[name] for name in names if name in x}

    def begin(self, params: Tree) -> GroupState:
        return GroupState({group: tx.begin(self.own(group, params)) for group, tx in self.transforms.items()})

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        new, states = {}, {}
        for group, tx in self.transforms.items():
            mine, theirs = self.own(group, updates), {name: self.own(group, x) for name, x in extra.items()}
            new[group], states[group] = tx.run(mine, state.inner[group], self.own(group, params), theirs)
        return self.all(new, updates), GroupState(states)

    def eval_params(self, state: Any, params: Tree) -> Tree:
        inside = self.transforms.items()
        new = {group: tx.eval_params(state.inner[group], self.own(group, params)) for group, tx in inside}
        return self.all(new, params)

    def all(self, new: dict[str, dict[str, Any]], like: dict[str, Any]) -> dict[str, Any]:
        """What belongs to each group, put together in the order of `like`."""
        found = {name: x[name] for group, x in new.items() for name in self.names[group] if name in x}
        return {name: found[name] for name in like}


class _Watch:
    """Runs what the verbs are asked, and notes whether one looked across leaves."""

    across = False

    def update(self, tx: Any, updates: Tree, state: Tree, params: Tree, extra: Any) -> Any:
        return tx.step(updates, state, params, **extra)

    def run_leaf(self, f: Callable[..., Any], xs: Any, scalars: Any, outs: int, whole: bool) -> Any:
        return run_leaf(f, xs, scalars, outs)

    def reduce(self, f: Callable[..., Any], combine: Callable[..., Any], rows: Any, scalars: Any) -> Any:
        self.across = True
        return combined(f, combine, rows, scalars)


def across(tx: GradientTransformation) -> str:
    """The name of the transform here, or inside, that looks across leaves (a norm of all, a test that all are finite);
    "" for none. What is seen of a wrapper itself is what it does around transforms that do nothing."""
    inside = tx.inside()
    if not (isinstance(tx, core.Wrapper) and tx.partial):
        alone = tx.with_inside(dict.fromkeys(inside, identity())) if isinstance(tx, core.Wrapper) else tx
        watch, zero = _Watch(), torch.zeros(())
        like = next((x for x in _masks(tx) if isinstance(x, dict)), {"a": True, "b": True})
        params = tree.map(lambda _: torch.zeros(2, 2), like)
        extra = {name: params if name == "grad" else zero for name in {*EXTRA_ARGS, *alone.extra_args}}
        extra |= {name: lambda _: zero for name in ("value_fn", "grad_fn", "obj_fn")}
        with recording(watch), torch.no_grad():
            alone.update(params, alone.init(params), params, **extra)
        if watch.across:
            return type(tx).__name__
    return next((name for part in inside.values() if (name := across(part))), "")


def _each(tx: GradientTransformation, path: str = "") -> Iterator[tuple[str, GradientTransformation]]:
    """A transform and all inside it, with their paths."""
    yield path, tx
    for name, part in tx.inside().items():
        yield from _each(part, join(path, name))


def _own_numbers(tx: GradientTransformation) -> dict[str, Any]:
    """The fields of a transform that hold numbers."""
    return {name: value for name in core.hyper_fields(tx) if core.is_number(value := getattr(tx, name))}


def _is_copied(tx: GradientTransformation) -> bool:
    """Whether each group has its own: it has numbers, and looks nowhere across parameters."""
    return bool(_own_numbers(tx)) and not across(tx)


def _masks(tx: GradientTransformation) -> list[Any]:
    """The fields that hold a mask or the like: a tree, or a function, of all parameters."""
    others = (*core.hyper_fields(tx), tx.holds if isinstance(tx, core.Wrapper) else "")
    return [x for name, x in vars(tx).items() if name not in others and (callable(x) or isinstance(x, dict))]


class Knobs:
    """The knobs of an optimizer, by name.

    A number is known by torch's name for it (`lr`, `betas`, `momentum`, `alpha`), else by that of its field; where two
    transforms of the chain have one of the same name, by the path of the number (`"0.weight_decay"`).
    """

    def __init__(self, tx: GradientTransformation):
        if any(isinstance(part, inject_hyperparams) for _, part in _each(tx)):
            raise TypeError(
                "inject_hyperparams keeps numbers in the state, where param_groups cannot reach them: "
                "hand over the transform inside it, whose numbers the groups then hold"
            )
        self.tx = tx
        self._why_not: dict[str, str] = {}  # names that a group cannot set
        rows = list(self._read(tx, ""))
        names = [name for name, _, _ in rows]
        self.found: dict[str, Knob] = {
            name if names.count(name) == 1 else join(path, name): knob for name, path, knob in rows
        }
        for name in set(names) - self.found.keys():
            full = [repr(key) for key in self.found if key.endswith(f".{name}")]
            self._why_not[name] = f"is ambiguous, there are {', '.join(full)}"

    def _read(self, tx: GradientTransformation, path: str) -> Iterator[tuple[str, str, Knob]]:
        """The knobs of a transform and what is inside it: (name, path of the transform, knob)."""
        if _is_copied(tx):
            for inner, part in _each(tx, path):
                yield from self._knobs(part, inner, "")
            return
        yield from self._knobs(tx, path, across(tx) if _own_numbers(tx) else "")
        for name, part in tx.inside().items():
            yield from self._read(part, join(path, name))

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

    def check(self, numbers: dict[str, Any]) -> None:
        """Refuse numbers that the optimizer does not have, that groups cannot set, and values that are no numbers."""
        for name, value in numbers.items():
            if name not in self.found and name in self._why_not:
                raise ValueError(f"a group cannot set {name!r}: it {self._why_not[name]}")
            if name not in self.found:
                raise ValueError(f"the optimizer has no {name!r}; a group can set {', '.join(self.found) or 'nothing'}")
            knob, values = self.found[name], values_of(value)
            if len(values) != len(knob.paths) or not all(map(core.is_number, values)):
                wanted = "a number" if len(knob.paths) == 1 else f"{len(knob.paths)} numbers"
                raise TypeError(f"{name!r} is {value!r}, expected {wanted}, tensors or not")
            if shapes := [tuple(v.shape) for v in values if isinstance(v, Tensor) and v.numel() != 1]:
                raise ValueError(f"Tensor {name} must be 1-element, got the shape {shapes[0]}")

    def check_shared(self, groups: list[dict[str, Any]]) -> None:
        """Refuse groups that disagree on a number of a transform that looks across all parameters."""
        for name, knob in self.found.items():
            for group in groups[1:] if knob.shared else ():
                pairs = zip(values_of(groups[0][name]), values_of(group[name]), strict=True)
                if any(x is not y and float(x) != float(y) for x, y in pairs):
                    raise ValueError(
                        f"the groups have different {name!r}: it belongs to {knob.shared}, which looks across all "
                        "parameters, so it is one for all groups"
                    )

    def hold(self, group: dict[str, Any]) -> dict[str, list[Tensor]]:
        """Tensors that hold the numbers of a group, for `read` to renew."""
        return {name: [_holder(v) for v in values_of(group[name])] for name in self.found}

    def read(self, groups: list[dict[str, Any]], held: list[dict[str, list[Tensor]]]) -> None:
        """Bring the numbers of the groups, which a scheduler may have changed, into the tensors that hold them."""
        self.check_shared(groups)
        for group, mine in zip(groups, held, strict=True):
            for name, tensors in mine.items():
                for tensor, value in zip(tensors, values_of(group[name]), strict=True):
                    if isinstance(value, Tensor):
                        tensor.copy_(value.reshape(()))
                    else:
                        tensor.fill_(value)

    def transform(self, held: list[dict[str, list[Tensor]]], names: list[list[str]]) -> GradientTransformation:
        """The optimizer with the numbers that are held for each group.

        Args:
            held: for each group, from `hold`.
            names: for each group, those of its parameters.
        """
        numbers = [
            {path: x for name, xs in of.items() for path, x in zip(self.found[name].paths, xs, strict=True)}
            for of in held
        ]
        owned = {str(i): tuple(own) for i, own in enumerate(names)}

        def go(tx: GradientTransformation, path: str) -> Any:
            inside = tx.inside()
            if _is_copied(tx):
                each = {str(i): _with(tx, path, of) for i, of in enumerate(numbers)}
                masks = any(_masks(part) for _, part in _each(tx))
                return by_group(each, owned, masks) if len(each) > 1 else each["0"]
            if isinstance(tx, core.Wrapper):
                tx = tx.with_inside({name: go(part, join(path, name)) for name, part in inside.items()})
            own = {name: numbers[0][join(path, name)] for name in _own_numbers(tx)}
            return tree.replace(tx, **own) if own else tx

        return go(self.tx, "")


def _with(tx: GradientTransformation, path: str, numbers: dict[str, Tensor]) -> GradientTransformation:
    """The transform at this path with its numbers of these."""
    mine = {name: numbers[join(path, name)] for name in core.numbers(tx) if join(path, name) in numbers}
    return core.with_numbers(tx, mine)


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
    if isinstance(value, Tensor):
        dtype = tree.scalar_dtype(value.device) if value.dtype.is_floating_point else value.dtype
        return value.detach().reshape(()).to(dtype, copy=True)
    return torch.tensor(float(value), dtype=torch.float64)
