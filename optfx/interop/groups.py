"""The numbers of an optimizer under the names of `torch.optim`, and one optimizer with other numbers for each group.

An optimizer is data: a chain is taken apart, each transform in it is given the numbers of a group as tensors, and is
put back. A transform that looks across leaves, such as `clip_by_global_norm`, stays one for all groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.combinators import PartitionState, inject_hyperparams, partition
from optfx.core import EXTRA_ARGS, GradientTransformation, hyper_fields, wide
from optfx.core.transform import transforms_in
from optfx.tree import Tree, replace
from optfx.tree.record import with_children
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

    path: str  # of the transform, as `optfx.hyperparams` has it
    fields: tuple[str, ...]  # of the transform; more than one for `betas`
    value: Any  # float, tensor, or a tuple of them


def rewrite(f: Callable[[str, GradientTransformation], Any], x: Any, path: str = "") -> Any:
    """`x` with `f(path, transform)` in place of each transform that holds no other."""
    if isinstance(x, GradientTransformation):
        below = {d.name: v for d in dataclasses.fields(x) if transforms_in(v := getattr(x, d.name))}  # type: ignore[arg-type]
        if not below:
            return f(path, x)
        return with_children(x, {name: rewrite(f, v, path) for name, v in below.items()})
    pairs = x.items() if isinstance(x, dict) else enumerate(x)
    new = {k: rewrite(f, v, f"{path}.{k}" if path else str(k)) if transforms_in(v) else v for k, v in pairs}
    return new if isinstance(x, dict) else type(x)(new.values())


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, Tensor)) and not isinstance(x, bool)


class _Watch:
    """Runs what the verbs are asked, and notes whether one looked across leaves."""

    across = False

    def update(self, update: Callable[..., Any], tx: Any, updates: Tree, state: Tree, params: Tree, extra: Any) -> Any:
        return update(tx, updates, state, params, **extra)

    def run_leaf(self, f: Callable[..., Any], xs: Any, scalars: Any, outs: int, whole: bool) -> Any:
        return run_leaf(f, xs, scalars, outs)

    def reduce(self, f: Callable[..., Any], combine: Callable[..., Any], rows: Any, scalars: Any) -> Any:
        self.across = True
        return combined(f, combine, rows, scalars)


def looks_across(tx: GradientTransformation, params: Tree) -> bool:
    """Whether an update of these parameters looks across leaves: a norm of all, a test that all are finite."""
    watch = _Watch()
    zero = torch.zeros(())
    extra = dict.fromkeys(EXTRA_ARGS, lambda _: zero) | {"value": zero, "grad": params}
    with recording(watch), torch.no_grad():
        tx.update(params, tx.init(params), params, **extra)
    return watch.across


class Knobs:
    """The knobs of an optimizer, by name.

    A number is known by torch's name for it (`lr`, `betas`, `momentum`, `alpha`), else by that of its field; where two
    transforms of the chain have one of the same name, by the path of the transform and the name (`"0.weight_decay"`).
    """

    def __init__(self, tx: GradientTransformation):
        if _injected(tx):
            raise TypeError(
                "inject_hyperparams keeps numbers in the state, where param_groups cannot reach them: "
                "hand over the transform inside it, whose numbers the groups then hold"
            )
        self.tx = tx
        self._why_not: dict[str, str] = {}  # names that a group cannot set
        rows: list[dict[str, Knob]] = []  # of each transform, in the order of `rewrite`
        rewrite(lambda path, atom: rows.append(self._read(path, atom)) or atom, tx)
        names = [name for row in rows for name in row]
        self.found: dict[str, Knob] = {}
        self._of: list[list[str]] = []  # the names of the knobs of each transform
        for row in rows:
            unique = {name if names.count(name) == 1 else f"{k.path}.{name}": k for name, k in row.items()}
            self.found |= unique
            self._of.append(list(unique))
        for name in set(names) - self.found.keys():
            full = [repr(key) for key in self.found if key.endswith(f".{name}")]
            self._why_not[name] = f"is ambiguous, there are {', '.join(full)}"

    def _read(self, path: str, atom: GradientTransformation) -> dict[str, Knob]:
        """The knobs of one transform, by name."""
        fields, who = hyper_fields(atom), type(atom).__name__
        for field in fields:
            if callable(getattr(atom, field)):
                self._why_not[_name(atom, field)] = f"is a schedule in {who}, which counts its own steps"
        numbers = {field: value for field in fields if _is_number(value := getattr(atom, field))}
        knobs = {}
        if numbers.keys() >= set(_BETAS):
            knobs["betas"] = Knob(path, _BETAS, tuple(numbers.pop(field) for field in _BETAS))
        knobs |= {_name(atom, field): Knob(path, (field,), value) for field, value in numbers.items()}
        if knobs and looks_across(atom, {"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}):
            self._why_not |= dict.fromkeys(knobs, f"belongs to {who}, which looks across all parameters")
            return {}
        return knobs

    def check(self, names: Iterable[str]) -> None:
        """Refuse names of numbers that the optimizer does not have, or that groups cannot set."""
        for name in names:
            if name not in self.found and name in self._why_not:
                raise ValueError(f"a group cannot set {name!r}: it {self._why_not[name]}")
            if name not in self.found:
                raise ValueError(f"the optimizer has no {name!r}; a group can set {', '.join(self.found) or 'nothing'}")

    def check_value(self, name: str, value: Any) -> None:
        """Refuse what cannot take the place of a number, or of a pair of them."""
        knob = self.found[name]
        values = values_of(value)
        if len(values) != len(knob.fields) or not all(map(_is_number, values)):
            wanted = "a number" if len(knob.fields) == 1 else f"{len(knob.fields)} numbers"
            raise TypeError(f"{name!r} is {value!r}, expected {wanted}, tensors or not")
        if shapes := [tuple(v.shape) for v in values if isinstance(v, Tensor) and v.numel() != 1]:
            raise ValueError(f"Tensor {name} must be 1-element, got the shape {shapes[0]}")

    def hold(self, group: dict[str, Any]) -> dict[str, list[Tensor]]:
        """Tensors that hold the numbers of a group, for `read` to renew."""
        return {name: [_holder(v) for v in values_of(group[name])] for name in self.found}

    def read(self, group: dict[str, Any], held: dict[str, list[Tensor]]) -> None:
        """Bring the numbers of a group, which a scheduler may have changed, into the tensors that hold them."""
        for name, tensors in held.items():
            for tensor, value in zip(tensors, values_of(group[name]), strict=True):
                if isinstance(value, Tensor):
                    tensor.copy_(value.reshape(()))
                else:
                    tensor.fill_(value)

    def transform(self, held: list[dict[str, list[Tensor]]], labels: dict[str, str]) -> GradientTransformation:
        """The optimizer with the numbers that are held for each group.

        Args:
            held: for each group, from `hold`.
            labels: the group of each parameter, one of `label(i)`.
        """
        of = iter(self._of)

        def write(_: str, atom: GradientTransformation) -> Any:
            names = next(of)
            if not names:
                return atom
            each = {}
            for i, tensors in enumerate(held):
                pairs = [(field, x) for n in names for field, x in zip(self.found[n].fields, tensors[n], strict=True)]
                each[label(i)] = replace(atom, **dict(pairs))
            return each[label(0)] if len(each) == 1 else partition(each, labels)

        return rewrite(write, self.tx)


def label(group: int) -> str:
    """The label under which `partition` has the part of a group."""
    return f"param_group {group:06d}"


def group_of(state: Any) -> dict[int, Any] | None:
    """The states of the groups, where `state` is that of a transform with other numbers for each."""
    if isinstance(state, PartitionState) and all(name.startswith("param_group ") for name in state.inner):
        return {int(name.removeprefix("param_group ")): inner for name, inner in state.inner.items()}
    return None


def _injected(tx: GradientTransformation) -> bool:
    inside = [x for d in dataclasses.fields(tx) for x in transforms_in(getattr(tx, d.name))]  # type: ignore[arg-type]
    return isinstance(tx, inject_hyperparams) or any(map(_injected, inside))


def _name(atom: GradientTransformation, field: str) -> str:
    return _TORCH.get(f"{type(atom).__name__}.{field}", _TORCH.get(field, field))


def values_of(value: Any) -> tuple[Any, ...]:
    """The numbers of a knob."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _holder(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        dtype = wide(value.device) if value.dtype.is_floating_point else value.dtype
        return value.detach().reshape(()).to(dtype, copy=True)
    return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
