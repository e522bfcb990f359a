"""From an optimizer of `torch.optim` to a chain, in the middle of a run, and back."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optfx.combinators import partition
from optfx.core import as_transform, select
from optfx.interop.patterns import read
from optfx.interop.torch_specs import SPECS, Options, TorchSpec
from optfx.tree import Tree, from_dict, get_all, leaves, paths, to_dict
from optfx.tree.nodes import entries

_WHY_NOT = {
    torch.optim.SparseAdam: "its gradients are sparse, and optfx has only dense ones: use Adam and `sparse=False`",
    torch.optim.LBFGS: "one step evaluates the loss up to `max_iter` times, and an update here sees one gradient",
}
_OF_EVERY_CLASS = {"__init__", "__setstate__", "__repr__"}  # which a subclass may have, and steps as before


def from_torch(optimizer: Optimizer) -> tuple[Any, dict[str, Tensor], Tree]:
    """An optimizer of `torch.optim` as a transform, with its groups, its options and its state as it is now.

    The transform goes on with the steps that the optimizer would take next. A learning rate under a scheduler is taken
    as it is now.

    Args:
        optimizer: one of `torch.optim`, or of a subclass that steps as it does; new or in the middle of a run.

    Returns:
        `(tx, params, state)`: the transform, which is a `partition` where there are several groups; copies of the
        parameters by name, or by number where they have no names; and its state. A group whose parameters have not all
        taken the same number of steps is split further, because a transform has one count.

    Raises:
        TypeError: an optimizer that has no counterpart here, saying why.
        ValueError: two parameters of one name.

    Example:
        >>> import torch
        >>> from optfx import interop
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([("w", w)], lr=0.1, momentum=0.9)
        >>> w.square().sum().backward()
        >>> optimizer.step()
        >>> tx, params, state = interop.from_torch(optimizer)
        >>> tx.steps[0], state[0].trace
        (trace(decay=0.9, nesterov=False, accumulator_dtype=None, dampening=None), {'w': tensor([2., 2.])})
    """
    spec = _spec_of(optimizer)
    if spec is None:
        why = next((words for kind, words in _WHY_NOT.items() if isinstance(optimizer, kind)), "optfx has none like it")
        raise TypeError(f"{type(optimizer).__name__} cannot be converted: {why}")
    parts: dict[tuple[int, int], dict[str, Tensor]] = {}
    params: dict[str, Tensor] = {}
    for i, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or map(str, range(len(params), len(params) + len(group["params"])))
        for name, p in zip(names, group["params"], strict=True):
            if name in params:
                raise ValueError(f"two parameters are called {name!r}")
            params[name] = p.detach().clone()
            parts.setdefault((i, _steps(spec, optimizer.state.get(p, {}))), {})[name] = p
    several = [i for i, _ in parts]
    labels = {key: f"group {key[0]}" + (f"/{key[1]}" if several.count(key[0]) > 1 else "") for key in parts}
    chains = {key: spec.make(_options(optimizer.param_groups[key[0]])) for key in parts}
    if len(parts) == 1:
        tx = next(iter(chains.values()))
    else:
        tx = partition(
            {labels[key]: chain for key, chain in chains.items()},
            {name: labels[key] for key, part in parts.items() for name in part},
        )
    state = tx.init(params)
    flat = to_dict(state)
    for (i, steps), part in parts.items():
        of_part = (f"{labels[i, steps]}.", state[labels[i, steps]]) if len(parts) > 1 else ("", state)
        for name, p in part.items():
            flat |= _kept(spec, name, optimizer.state.get(p, {}), *of_part)
        flat |= {of_part[0] + path: torch.full_like(x, steps) for path, x in get_all(of_part[1], "count").items()}
    return tx, params, from_dict(state, flat)


def _spec_of(optimizer: Optimizer) -> TorchSpec | None:
    """The spec of an optimizer of torch, or of a subclass that steps as it does."""
    kind = next((kind for kind in type(optimizer).__mro__ if kind in SPECS), None)
    if kind is None:
        return None
    steps = [name for name, x in vars(kind).items() if inspect.isfunction(x) and name not in _OF_EVERY_CLASS]
    same = all(inspect.unwrap(getattr(type(optimizer), name)) is inspect.unwrap(getattr(kind, name)) for name in steps)
    return SPECS[kind] if same else None


def _options(group: dict[str, Any]) -> Options:
    """The options of a group, with () copies of tensors."""

    def own(x: Any) -> Any:
        if isinstance(x, (tuple, list)):
            return tuple(map(own, x))
        return x.detach().reshape(()).clone() if isinstance(x, Tensor) else x

    return {k: own(v) for k, v in group.items() if k not in ("params", "param_names")}


def _steps(spec: TorchSpec, state: dict[str, Any]) -> int:
    """How many steps a parameter has taken; for an optimizer that does not count them, 1 for any."""
    if spec.counts:
        return int(state["step"]) if "step" in state else 0
    return int(any(state.get(key) is not None for key in spec.state))


def _kept(spec: TorchSpec, name: str, kept: dict[str, Any], prefix: str, state: Tree) -> dict[str, Tensor]:
    """What torch keeps of a parameter, by its path in our state. What is a number here has the dtype that it has here:
    torch keeps it in the default dtype."""
    found = {}
    for key, field in spec.state.items():
        for path, node in get_all(state, field).items():
            if kept.get(key) is not None:
                x = kept[key].detach().clone()
                found |= {prefix + path: x.to(node)} if entries(node) is None else {prefix + f"{path}.{name}": x}
    return found


def to_torch(tx: Any, params: Tree, state: Tree) -> Optimizer:
    """A transform as the optimizer of `torch.optim` that it equals, with its state as it is now.

    Args:
        tx: a chain like those that `from_torch` and the optimizers of optfx make, or a `partition` of such chains,
            whose parts become groups.
        params: tree of tensors, such as `dict(module.named_parameters())`: the parameters of the new optimizer.
        state: the state of `tx`.

    Returns:
        The optimizer. It goes on with the steps that `tx` would take next.

    Raises:
        ValueError: a transform that is not one of torch's optimizers, or parts that are different ones.

    Example:
        >>> import torch, optfx
        >>> from optfx import interop
        >>> params = dict(torch.nn.Linear(3, 1).named_parameters())
        >>> tx = optfx.adamw(1e-3, weight_decay=0.1)
        >>> optimizer = interop.to_torch(tx, params, tx.init(params))
        >>> type(optimizer).__name__, optimizer.param_groups[0]["weight_decay"]
        ('AdamW', 0.1)
    """
    tx = as_transform(tx)
    names, values = paths(params), leaves(params)
    labels, parts, states = [""] * len(names), {"": tx}, {"": state}
    if isinstance(tx, partition):
        labels, parts, states = select.resolve(tx.param_labels, params, str, "partition"), tx.transforms, state
    specs = {}
    for label in dict.fromkeys(labels):
        found = read(parts[label])
        if found is None:
            raise ValueError(f"torch.optim has no optimizer for {parts[label]!r}")
        specs[label] = found
    kinds = {spec.optimizer for spec, _ in specs.values()}
    if len(kinds) > 1:
        raise ValueError(f"the parts are several optimizers of torch: {', '.join(sorted(k.__name__ for k in kinds))}")
    rows = dict(zip(names, zip(names, values, labels, strict=True), strict=True))
    if isinstance(params, dict) and params.keys() == rows.keys():  # in its own order, which that of leaves is not
        rows = {name: rows[name] for name in params}
    groups: dict[str, dict[str, Any]] = {}
    for name, p, label in rows.values():
        group = groups.setdefault(label.partition("/")[0], {"params": [], **specs[label][1]})
        group["params"].append((name, p))
    optimizer = next(iter(kinds))(list(groups.values()))  # type: ignore[call-arg]
    for name, p, label in rows.values():
        kept = _state_of_torch(specs[label][0], name, states[label])
        if kept:
            optimizer.state[p] = kept
    return optimizer


def _state_of_torch(spec: TorchSpec, name: str, state: Tree) -> dict[str, Tensor]:
    """What torch keeps of a parameter: nothing before the first step, in which torch makes it."""
    steps = int(next(iter(get_all(state, "count").values())))
    if not steps:
        return {}
    kept = {}
    for key, field in spec.state.items():
        for node in get_all(state, field).values():
            found = node if entries(node) is None else to_dict(node).get(name)
            if found is not None:  # as it is of Adafactor's rows and columns, where the parameter is a vector
                kept[key] = found.detach().clone()
    if spec.counts:
        kept["step"] = torch.tensor(float(steps))
    return kept
