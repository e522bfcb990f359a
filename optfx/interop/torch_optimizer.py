"""A transform as a `torch.optim.Optimizer`, for everything that expects one: schedulers, scalers, trainers, wrappers.

One transform sees the parameters of all groups; what groups may have different values of are its numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optfx.compiler import fuse
from optfx.core import as_transform
from optfx.interop.groups import Knobs, across, values_of
from optfx.interop.torch_state import Place, check, copied, places_of, uncast
from optfx.tree import Hole, Tree, flatten, leaves, unflatten, unflatten_like

_OF_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr"}
_OF_TORCH = {"params", "param_names", "maximize"}


class TorchOptimizer(Optimizer):
    r"""An optimizer of `torch.optim` around one transform over all parameter groups.

    Groups set numbers of the optimizer by torch's names where it has one (`lr`, `betas`, `momentum`, `alpha`,
    `weight_decay`, `eps`), else by the names of fields; where the chain has two of one name, by path and name, as in
    `"0.weight_decay"`. Each group has its own value and its own counts; transforms that look across parameters
    (`clip_by_global_norm`) stay one for all groups. A number that is a schedule is the transform's own, and not the
    groups'. New values, by hand or from a scheduler, compile nothing.

    Args:
        params: parameters, `(name, parameter)` pairs (which masks and labels by path need), or a list of groups:
            dicts with `params` and the numbers that are other than for the rest.
        tx: a transform, usually a whole optimizer, or a foreign `init`/`update` pair.
        compile: run steps by `optfx.fuse`.
        maximize: go up the gradient; a group may have its own.
        **numbers: numbers of the optimizer other than those of `tx`, by the same names.

    Raises:
        ValueError: a number that the optimizer lacks, that is ambiguous, or that belongs to a transform which looks
            across parameters; two parameters of one name; a ZeRO shard of an optimizer that looks across parameters.
        TypeError: `inject_hyperparams`, whose numbers are in the state; what is no number.

    Reference: `torch.optim.Optimizer`.

    Example:
        >>> import torch, optfx
        >>> from optfx.interop import TorchOptimizer
        >>> model = torch.nn.Linear(3, 1)
        >>> tx = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(1e-3))
        >>> groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 1e-2, "weight_decay": 0.0}]
        >>> optimizer = TorchOptimizer(groups, tx)
        >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        >>> model(torch.ones(1, 3)).sum().backward()
        >>> optimizer.step(); scheduler.step()
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.0001, 0.001]
        >>> list(optimizer.state[model.bias])
        ['0.count', '0.norm', '1.0.count', '1.0.mu', '1.0.nu', '1.1.count', '1.2.count']
    """

    def __init__(
        self, params: Iterable[Any], tx: Any, *, compile: bool = False, maximize: bool = False, **numbers: Any
    ):
        self.tx = as_transform(tx)
        self.compile = compile
        self._knobs = Knobs(self.tx)
        self._check(numbers)
        self._building = True
        values = {name: knob.value for name, knob in self._knobs.found.items()}
        super().__init__(params, values | numbers | {"maximize": maximize})
        self._building = False
        self._build()
        if _in_zero() and across(self.tx):
            raise ValueError(
                f"{self.tx!r} looks across parameters, and ZeroRedundancyOptimizer shows each rank only some of them"
            )

    # ---- groups -----------------------------------------------------------------------------------

    def _check(self, numbers: dict[str, Any]) -> None:
        self._knobs.check(numbers)
        for name, value in numbers.items():
            self._knobs.check_value(name, value)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; state and numbers of the others stay as they are.

        Args:
            param_group: `params`, and the numbers that are other than the defaults.

        Raises:
            ValueError, TypeError: as for the optimizer itself. Nothing is changed then.
        """
        if isinstance(param_group, dict):
            ours = {"tx": self.tx, "compile": self.compile}  # ZeroRedundancyOptimizer repeats the arguments here
            known = _OF_TORCH | _OF_SCHEDULERS | {k for k, v in ours.items() if param_group.get(k) is v}
            self._check({k: v for k, v in param_group.items() if k not in known})
        super().add_param_group(param_group)
        try:
            self._named()
            self._knobs.check_shared(self.param_groups)
        except ValueError:
            self.param_groups.pop()
            raise
        for name in self._knobs.found:
            value = param_group[name]
            copies = [x.detach().clone() if isinstance(x, Tensor) else x for x in values_of(value)]
            param_group[name] = tuple(copies) if isinstance(value, (tuple, list)) else copies[0]
        if not self._building:
            self._build()

    def _named(self) -> dict[str, Tensor]:
        """The parameters of all groups by name; one without a name has its number for one."""
        found: dict[str, Tensor] = {}
        for group in self.param_groups:
            names = group.get("param_names") or map(str, range(len(found), len(found) + len(group["params"])))
            for name, p in zip(names, group["params"], strict=True):
                if name in found and found[name] is not p:
                    raise ValueError(f"two parameters are called {name!r}")
                found[name] = p
        return found

    def _build(self) -> None:
        """Make the transform for the groups as they are, and state for the parameters that have none."""
        named = self._named()
        self._names, self._params = list(named), list(named.values())
        group_of_param = {p: i for i, group in enumerate(self.param_groups) for p in group["params"]}
        self._group = [group_of_param[p] for p in self._params]
        self._held = [self._knobs.hold(group) for group in self.param_groups]
        names = [[n for n, g in zip(self._names, self._group, strict=True) if g == i] for i in range(len(self._held))]
        self._tx = self._knobs.transform(self._held, names)
        state = self._tx.init({name: p.detach() for name, p in named.items()})
        self._places = places_of(state, self._names, self._group)
        self._skeleton = unflatten_like(state, range(len(self._places)))
        for place, value in zip(self._places, leaves(state), strict=True):
            kept = [self._dict(i)[place.key] for i in place.owners if place.key in self._dict(i)]
            for i in place.owners:
                self._dict(i).setdefault(place.key, kept[0] if kept else value)
        self._subsets: dict[tuple[bool, ...], tuple[list[Place], Any, list[bool]]] = {}
        self._fused: dict[tuple[bool, ...], fuse] = {}

    def _dict(self, i: int) -> dict[str, Any]:
        return self.state[self._params[i]]

    # ---- a step -----------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """One step of all parameters that have a gradient; the others, and their state, stay as they are.

        Args:
            closure: computes the loss and its gradients, and returns the loss, which the transform gets as `value`.
            **extra: extra arguments of the transform, see `optfx.EXTRA_ARGS`.

        Returns:
            What `closure` returns, else None.

        Raises:
            RuntimeError: a sparse gradient, naming the parameter.
            TypeError: an extra argument that the transform does not know.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            if isinstance(loss, (float, Tensor)):
                extra = {"value": loss.detach() if isinstance(loss, Tensor) else loss} | extra
        active = tuple([p.grad is not None for p in self._params])
        if not any(active):
            return loss
        self._knobs.check_shared(self.param_groups)
        for group, held in zip(self.param_groups, self._held, strict=True):
            self._knobs.read(group, held)
        grads = self._only(active, [self._gradient(i) if mine else None for i, mine in enumerate(active)])
        places, structure, idle = self._subset(active)
        state = [self.state[self._params[place.owners[0]]][place.key] for place in places]
        state = unflatten(structure, [x.clone() if rests else x for x, rests in zip(state, idle, strict=True)])
        if self.compile:
            new = self._run_fused(active, grads, state, extra)
        else:
            params = self._only(active, [p.detach() for p in self._params])
            updates, new = self._tx.update(grads, state, params, **extra)
            theirs = {_memory(x) for x in (*leaves(params), *leaves(grads))}
            new = [x.clone() if _memory(x) in theirs else x for x in leaves(new)]
            for i, name in enumerate(self._names):
                if active[i]:
                    self._params[i].add_(updates[name])
        for place, value, rests in zip(places, new, idle, strict=True):
            for i in () if rests else place.owners:
                self.state[self._params[i]][place.key] = value
        return loss

    def _gradient(self, i: int) -> Tensor:
        grad = self._params[i].grad
        assert grad is not None
        if grad.layout != torch.strided:
            raise RuntimeError(
                f"the gradient of {self._names[i]!r} is sparse ({grad.layout}), which optfx does not support: "
                "make it dense, `p.grad = p.grad.to_dense()`"
            )
        return -grad.detach() if self.param_groups[self._group[i]]["maximize"] else grad.detach()

    def _only(self, active: tuple[bool, ...], values: Sequence[Any]) -> Tree:
        """A tree of the parameters with these values, and holes for those that take no part."""
        rows = zip(self._names, active, values, strict=True)
        return {name: value if mine else Hole() for name, mine, value in rows}

    def _subset(self, active: tuple[bool, ...]) -> tuple[list[Place], Any, list[bool]]:
        """The leaves of the state that a step of these parameters sees, their structure, and which of them stay as they
        are: the counts of a group that takes no part."""
        if active not in self._subsets:
            kept = [k if place.shared or active[place.owners[0]] else Hole() for k, place in enumerate(self._places)]
            which, structure = flatten(unflatten_like(self._skeleton, kept))
            places = [self._places[k] for k in which]
            self._subsets[active] = places, structure, [not any(active[i] for i in p.owners) for p in places]
        return self._subsets[active]

    def _run_fused(self, active: tuple[bool, ...], grads: Tree, state: Tree, extra: dict[str, Any]) -> list[Tensor]:
        opt = self._fused.get(active)
        own = leaves(self._only(active, self._params))
        if opt is None or any(p.data_ptr() != x.data_ptr() for p, x in zip(own, leaves(opt.params), strict=True)):
            opt = self._fused[active] = fuse(self._tx)
            _, state = opt.init(self._only(active, self._params), state, copy=False, **extra)
        return leaves(opt.step(grads, state, opt.params, **extra)[1])

    # ---- saving -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state in torch's layout; each tensor in it has memory of its own."""
        saved = super().state_dict()
        seen: set[int] = set()
        for i, state in saved["state"].items():
            if isinstance(state, dict):
                new = {k: v.clone() if isinstance(v, Tensor) and id(v) in seen else v for k, v in state.items()}
                seen.update(map(id, state.values()))
                saved["state"][i] = new
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave: copied, in its own dtypes, on the devices of the parameters.

        Raises:
            ValueError: what is missing, unexpected, misshapen or of another dtype. Nothing is changed then.
        """
        handle = self.register_load_state_dict_pre_hook(self._fitting)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()

    def _fitting(self, _: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        check(saved, self.param_groups, self.state, self._names, (*self._knobs.found, "maximize"))
        return saved | {"state": {i: uncast(state) for i, state in saved["state"].items()}}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"tx": self.tx, "compile": self.compile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for p, kept in state.get("state", {}).items():
            state["state"][p] = copied(kept, p)
        super().__setstate__(state)
        if "tx" in state:  # a copy or a pickle, not what load_state_dict hands over
            self._knobs = Knobs(self.tx)
            self._building = False
            self._build()


def _memory(x: Tensor) -> int:
    """What two tensors share that share memory."""
    return x.untyped_storage().data_ptr() if type(x) in (Tensor, torch.nn.Parameter) else id(x)


def _in_zero() -> bool:
    """Whether a ZeroRedundancyOptimizer is calling, which tells its optimizers nothing of itself."""
    frame = sys._getframe()
    while frame is not None and type(frame.f_locals.get("self")).__name__ != "ZeroRedundancyOptimizer":
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None
