"""A transform as a `torch.optim.Optimizer`, for everything that expects one: schedulers, scalers, trainers, wrappers.

One transform sees the parameters of all groups. What differs from group to group is its numbers.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optfx.compiler import fuse
from optfx.core import as_transform, is_number
from optfx.interop.groups import Knobs, across, own_value
from optfx.interop.torch_state import Layout, check, copied, uncast
from optfx.tree import Hole, Tree, leaves

_OF_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr"}
_OF_TORCH = {"params", "param_names", "maximize"}


class TorchOptimizer(Optimizer):
    r"""An optimizer of `torch.optim` around one transform over all parameter groups.

    A group sets numbers of the optimizer by torch's name for them (`lr`, `betas`, `momentum`, `alpha`, `weight_decay`,
    `eps`), otherwise by the name of the field, and by path and name (`"0.weight_decay"`) where the chain has two of one
    name. Each group has its own values and its own counts. A transform that looks across parameters, such as
    `clip_by_global_norm`, stays one for all groups. A number that is a schedule belongs to the transform, and groups
    cannot set it. New values, by hand or from a scheduler, compile nothing.

    Args:
        params: parameters, `(name, parameter)` pairs (masks and labels by path need the names), or a list of groups:
            dicts of `params` and the numbers that differ for this group.
        tx: a transform, usually a whole optimizer, or a foreign `init`/`update` pair.
        compile: run steps with `optfx.fuse`.
        maximize: go up the gradient; a group may have its own.
        **numbers: numbers that differ from those of `tx`, by the same names.

    Raises:
        ValueError: a number that the optimizer does not have, that is ambiguous, or that differs between groups though
            it belongs to a transform which looks across parameters; two parameters of one name; a transform that looks
            across parameters inside ZeroRedundancyOptimizer.
        TypeError: `inject_hyperparams`, which keeps its numbers in the state; a value that is no number.

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
        self._trained: dict[int, Tensor] | None = None  # what eval mode has replaced, by number of the parameter
        self._knobs.check(numbers)
        values = {name: knob.value for name, knob in self._knobs.found.items()}
        super().__init__(params, values | numbers | {"maximize": maximize})
        self._build()
        if _in_zero() and across(self.tx):
            raise ValueError(
                f"{self.tx!r} looks across parameters, and ZeroRedundancyOptimizer shows each rank only some of them"
            )

    # ---- groups -----------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group. The state and the numbers of the others stay as they are.

        Args:
            param_group: `params`, and the numbers that differ from the defaults.

        Raises:
            ValueError, TypeError: as for the optimizer itself; nothing has changed then.
        """
        if isinstance(param_group, dict):
            # ZeroRedundancyOptimizer puts all arguments of its constructor into every group, tx and compile among them
            ours = {"tx": self.tx, "compile": self.compile}
            known = _OF_TORCH | _OF_SCHEDULERS | {k for k, v in ours.items() if param_group.get(k) is v}
            self._knobs.check({k: v for k, v in param_group.items() if k not in known})
        super().add_param_group(param_group)
        try:
            self._named()
            self._knobs.check_shared(self.param_groups)
        except ValueError:
            self.param_groups.pop()
            raise
        param_group |= {name: own_value(param_group[name]) for name in self._knobs.found}
        if hasattr(self, "_layout"):  # which the first groups, added by torch's __init__, come before
            self._build()

    def _named(self) -> dict[str, Tensor]:
        """The parameters of all groups by name; one without a name goes by its number."""
        found: dict[str, Tensor] = {}
        for group in self.param_groups:
            names = group.get("param_names") or map(str, range(len(found), len(found) + len(group["params"])))
            for name, p in zip(names, group["params"], strict=True):
                if name in found and found[name] is not p:
                    raise ValueError(f"two parameters are called {name!r}")
                found[name] = p
        return found

    def _build(self) -> None:
        """Make the transform for the groups as they are now, and state for the parameters that have none."""
        named = self._named()
        self._names, self._params = list(named), list(named.values())
        group_of_param = {p: i for i, group in enumerate(self.param_groups) for p in group["params"]}
        self._group = [group_of_param[p] for p in self._params]
        self._held = [self._knobs.hold(group) for group in self.param_groups]
        names = [[n for n, g in zip(self._names, self._group, strict=True) if g == i] for i in range(len(self._held))]
        self._tx = self._knobs.transform(self._held, names)
        state = self._tx.init({name: p.detach() for name, p in named.items()})
        self._layout = Layout(state, self._names, self._group)
        self._layout.fill_in(self._dicts(), state)
        self._fused: dict[tuple[bool, ...], fuse] = {}

    def _dicts(self) -> list[dict[str, Tensor]]:
        """The state of each parameter."""
        return [self.state[p] for p in self._params]

    # ---- a step -----------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """One step of all parameters that have a gradient. The others, and their state, stay as they are.

        Args:
            closure: computes the loss and its gradients, and returns the loss; the transform gets it as `value`.
            **extra: extra arguments of the transform, see `optfx.EXTRA_ARGS`.

        Returns:
            What `closure` returns; None without one.

        Raises:
            RuntimeError: a sparse gradient, naming the parameter; a step in eval mode.
            TypeError: an extra argument that the transform does not know.
        """
        self._refuse_in_eval_mode("step")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            if is_number(loss):
                extra = {"value": loss.detach() if isinstance(loss, Tensor) else loss} | extra
        active = tuple([p.grad is not None for p in self._params])
        if not any(active):
            return loss
        self._knobs.read(self.param_groups, self._held)
        grads = self._only(active, [self._gradient(i) if mine else None for i, mine in enumerate(active)])
        dicts = self._dicts()
        state = self._layout.read(dicts, active)
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
        self._layout.write(dicts, active, new)
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
        """A tree of these values by the names of the parameters, with holes for the parameters that take no part."""
        return {name: x if mine else Hole() for name, mine, x in zip(self._names, active, values, strict=True)}

    def _run_fused(self, active: tuple[bool, ...], grads: Tree, state: Tree, extra: dict[str, Any]) -> list[Tensor]:
        opt, own = self._fused.get(active), self._only(active, self._params)
        pairs = () if opt is None else zip(leaves(own), leaves(opt.params), strict=True)
        if opt is None or any(p.data_ptr() != x.data_ptr() for p, x in pairs):
            opt = self._fused[active] = fuse(self._tx)
            _, state = opt.init(own, state, copy=False, **extra)
        return leaves(opt.step(grads, state, opt.params, **extra)[1])

    # ---- evaluating -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside the `with`, the parameters have the values to evaluate the model with; see `eval`.

        Example:
            >>> import torch, optfx
            >>> from optfx.interop import TorchOptimizer
            >>> w = torch.nn.Parameter(torch.tensor([1.0]))
            >>> optimizer = TorchOptimizer([w], optfx.chain(optfx.sgd(1.0), optfx.params_ema(0.75)))
            >>> w.grad = torch.tensor([4.0])
            >>> optimizer.step()
            >>> with optimizer.evaluating():
            ...     print(w.tolist())
            [0.0]
            >>> w.tolist()
            [-3.0]
        """
        if self._trained is not None:
            yield
            return
        self.eval()
        try:
            yield
        finally:
            self.train()

    @torch.no_grad()
    def eval(self) -> None:
        """Give the parameters the values to evaluate the model with, such as their averages: see `tx.eval_params`.

        They keep these values until `train()`, so a module that is saved before is saved with them. Parameters that the
        transform evaluates as they are stay untouched. A second `eval()` does nothing.
        """
        if self._trained is not None:
            return
        everything = (True,) * len(self._params)
        params = self._only(everything, [p.detach() for p in self._params])
        values = self._tx.eval_params(self._layout.read(self._dicts(), everything), params)
        moved = [i for i, name in enumerate(self._names) if values[name] is not params[name]]
        self._trained = {i: self._params[i].detach().clone() for i in moved}
        for i in moved:
            self._params[i].copy_(values[self._names[i]])

    @torch.no_grad()
    def train(self) -> None:
        """Give the parameters the trained values back, after `eval()`. Otherwise it does nothing."""
        for i, p in (self._trained or {}).items():
            self._params[i].copy_(p)
        self._trained = None

    def _refuse_in_eval_mode(self, what: str) -> None:
        if self._trained is not None:
            raise RuntimeError(f"{what} in eval mode: call train() first, which puts the trained parameters back")

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
        """Load a state that `state_dict` gave: copied, in its own dtypes, to the devices of the parameters.

        Raises:
            ValueError: listing what is missing, unexpected, misshapen or of another dtype; nothing has changed then.
            RuntimeError: in eval mode.
        """
        self._refuse_in_eval_mode("load_state_dict")
        handle = self.register_load_state_dict_pre_hook(self._fitting)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()

    def _fitting(self, _: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        check(saved, self.param_groups, self.state, self._names, (*self._knobs.found, "maximize"))
        return saved | {"state": {i: uncast(state) for i, state in saved["state"].items()}}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"tx": self.tx, "compile": self.compile, "_trained": self._trained}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for p, kept in state.get("state", {}).items():
            state["state"][p] = copied(kept, p)
        super().__setstate__(state)
        if "tx" in state:  # a copy or a pickle, not what load_state_dict hands over
            self._knobs = Knobs(self.tx)
            self._build()


def _memory(x: Tensor) -> int:
    """A number that is the same for two tensors that share memory."""
    return x.untyped_storage().data_ptr() if type(x) in (Tensor, torch.nn.Parameter) else id(x)


def _in_zero() -> bool:
    """Whether a ZeroRedundancyOptimizer is making this optimizer, for the parameters of one rank.

    A transform that looks across parameters would see only those of the rank, and be wrong without a word. No argument
    tells: the groups look like any others. So the caller is looked for on the stack, by the name of its class, because
    `torch.distributed.optim` is slow to import.
    """
    frame = sys._getframe()
    while frame is not None and type(frame.f_locals.get("self")).__name__ != "ZeroRedundancyOptimizer":
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None
