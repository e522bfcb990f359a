"""A transform as a `torch.optim.Optimizer`, for everything that expects one: schedulers, scalers, trainers, wrappers.

One transform sees the parameters of all groups. What differs from group to group is its numbers. As in torch, the
groups, their parameters and the state are what `param_groups` and `state` say at each step, whoever changed them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from optfx.compiler.record.findings import Together
from optfx.core import GradientTransformation, as_transform, is_number
from optfx.core.transform import check_extra, check_updates
from optfx.interop import torch_load
from optfx.interop.evaluating import Evaluating
from optfx.interop.groups import Knobs, own_value
from optfx.interop.members import Members
from optfx.interop.owners import in_zero
from optfx.interop.program import Program, Whole
from optfx.interop.torch_state import refuse_meta, refuse_twice
from optfx.interop.unscaled import told


class TorchOptimizer(Evaluating):
    r"""An optimizer of `torch.optim` around one transform over all parameter groups.

    A group sets numbers of the optimizer by torch's name for them (`lr`, `betas`, `momentum`, `alpha`, `weight_decay`,
    `eps`), otherwise by the name of the field, and by path and name (`"0.weight_decay"`) where the chain has two of one
    name; other keys of a group are kept as they are. Each group has its own values, and each parameter its own counts,
    as in torch. A transform that looks across parameters, such as `clip_by_global_norm`, stays one for all groups. A
    number that is a schedule belongs to the transform, and groups cannot set it. New values, by hand or from a
    scheduler, compile nothing.

    Args:
        params: parameters, `(name, parameter)` pairs (masks and labels by path need the names), or a list of groups:
            dicts of `params` and the numbers that differ for this group.
        tx: a transform, usually a whole optimizer, or a foreign `init`/`update` pair.
        compile: run steps with `optfx.fuse`. If other parameters have a gradient in each step, and one kernel cannot be
            for all of them, a step of a set that has not come lately is eager. Under a `GradScaler` steps divide by its
            scale, and skip themselves on the device, as `torch.optim.AdamW(fused=True)` does.
        maximize: go up the gradient; a group may have its own.
        **numbers: numbers that differ from those of `tx`, by the same names. A tensor is the caller's own: it stands in
            the groups and is read at each step.

    Raises:
        ValueError: a number that the optimizer does not have, that is ambiguous, or that differs between groups though
            it belongs to a transform which looks across parameters; two parameters of one name, or one parameter
            twice; a transform that looks across parameters inside ZeroRedundancyOptimizer.
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
        if isinstance(params, GradientTransformation):
            raise TypeError("the parameters come first: TorchOptimizer(params, tx)")
        self.tx = as_transform(tx)
        self.compile = compile
        self._knobs = Knobs(self.tx)
        self._trained = None
        self._given = frozenset(numbers)
        self._knobs.check_known(numbers)
        self._knobs.check(numbers)
        values = {name: own_value(knob.value) for name, knob in self._knobs.found.items()}
        super().__init__(params, values | numbers | {"maximize": maximize})
        self._members = Members(self._knobs)
        self._follow()
        if self._knobs.looks_across and in_zero():
            raise ValueError(
                f"{self.tx!r} looks across parameters, and ZeroRedundancyOptimizer shows each rank only some of them"
            )

    def __repr__(self) -> str:
        return self._knobs.shown(type(self).__name__, self.param_groups)

    # ---- groups -----------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group. The state and the numbers of the others stay as they are.

        Args:
            param_group: `params`, and the numbers that differ from the defaults.

        Raises:
            ValueError, TypeError: as for the optimizer itself; nothing has changed then.
        """
        if isinstance(param_group, dict):
            numbers = {k: v for k, v in param_group.items() if k != "params"}
            self._knobs.check(numbers)
            self._knobs.warn_of_idle(numbers)
            if not isinstance(param_group["params"], (Tensor, set)):
                param_group["params"] = list(param_group["params"])
                refuse_twice([p[-1] if isinstance(p, tuple) else p for p in param_group["params"]])
            for name in self._knobs.found.keys() - self._given:
                param_group.setdefault(name, own_value(self.defaults[name]))
        super().add_param_group(param_group)
        if hasattr(self, "_members"):  # which the first groups, added by torch's __init__, come before
            try:
                self._follow()
            except (ValueError, TypeError):
                self.param_groups.pop()
                raise

    # ---- a step -----------------------------------------------------------------------------------

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """For a `GradScaler`: whether steps skip themselves on the device. Then nobody waits for it."""
        return self.compile

    @_disable_dynamo  # the numbers of the groups must not become constants of a graph
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """One step of all parameters that have a gradient. The others, and their state, stay as they are.

        Args:
            closure: computes the loss and its gradients, and returns the loss; the transform gets it as `value`.
            **extra: extra arguments of the transform, see `optfx.core.EXTRA_ARGS`.

        Returns:
            What `closure` returns; None without one.

        Raises:
            RuntimeError: a sparse gradient, or a parameter on the meta device, naming it; a step in eval mode.
            ValueError: groups or a state that the optimizer cannot follow; nothing has changed then.
            TypeError: an extra argument that the transform does not know; a number of a group that is none.
        """
        self._refuse_in_eval_mode("step")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            if is_number(loss):
                extra = {"value": loss.detach() if isinstance(loss, Tensor) else loss} | extra
        members = self._follow()
        active = [i for i, p in enumerate(members.params) if p.grad is not None]
        if not active:
            refuse_meta(members.names, members.params, range(len(members.params)))
            return loss
        check_extra(self.tx, extra)
        self._knobs.read(self.param_groups, members.held)
        given = {i: self._gradient(i) for i in active}
        members.ready(active)
        members.turns.come(active)
        if self.compile and (turns := members.in_turns()):
            try:
                self._run_fused(turns, active, given, extra)
                return loss
            except Together:
                members.turns.possible = False
        if self.compile and (members.turns.again or told(self)):
            self._run_fused(members.whole(active, members.kept()), active, given, extra)
        else:
            self._run(members.program(active, members.kept()), active, given, extra)
        return loss

    def _run(self, program: Program, active: Sequence[int], given: dict[int, Tensor], extra: dict[str, Any]) -> None:
        members, kept = self._members, self._members.kept()
        program.check(kept)
        params = program.names.tree({i: members.params[i].detach() for i in active})
        grads = program.names.tree(given)
        check_updates("TorchOptimizer", params, grads)
        for i in active:
            members.untouched.pop(members.params[i], None)
        for block, updates in program.run(grads, params, kept, extra):
            for i in block:
                members.params[i].add_(updates.pop(members.names[i]))

    def _gradient(self, i: int) -> Tensor:
        members = self._members
        grad = members.params[i].grad
        assert grad is not None
        if grad.layout != torch.strided:
            raise RuntimeError(
                f"the gradient of {members.names[i]!r} is sparse ({grad.layout}), which optfx does not support: "
                "make it dense, `p.grad = p.grad.to_dense()`"
            )
        return -grad.detach() if self.param_groups[members.group[i]]["maximize"] else grad.detach()

    def _run_fused(
        self, program: Whole, active: Sequence[int], given: dict[int, Tensor], extra: dict[str, Any]
    ) -> None:
        members, kept = self._members, self._members.kept()
        program.check(kept)
        params = {i: members.params[i] for i in program.params}
        grads = program.names.tree({i: given.get(i, p.detach()) for i, p in params.items()})  # any, for one that rests
        check_updates("TorchOptimizer", program.names.tree({i: p.detach() for i, p in params.items()}), grads)
        theirs = members.apart(program.owners, kept)
        extra |= (scaling := told(self))
        opt, state = program.compiled(params, program.layout.read(kept), theirs, bool(scaling), extra)
        new = opt.step(grads, state, opt.params, resting=program.resting(active), **extra)[1]
        for i in active:
            members.untouched.pop(members.params[i], None)
        program.layout.write(kept, new)

    # ---- saving -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state in torch's layout; each tensor in it has memory of its own. Parameters that have left the groups
        are left out."""
        members = self._follow()
        members.complete()
        here, everything = set(members.params), self.state
        if gone := {p for p in everything if isinstance(p, Tensor) and p not in here}:
            self.state = defaultdict(dict, {p: mine for p, mine in everything.items() if p not in gone})
        try:
            saved = super().state_dict()
        finally:
            self.state = everything
        seen: set[int] = set()
        for i, state in saved["state"].items():
            if isinstance(state, dict):
                new = {k: v.clone() if isinstance(v, Tensor) and id(v) in seen else v for k, v in state.items()}
                seen.update(map(id, state.values()))
                saved["state"][i] = new
        return saved

    def load_state_dict(self, state_dict: dict[str, Any], *, cast: bool = False, partial: bool = False) -> None:
        """Load a state that `state_dict` gave: copied, in its own dtypes, to the devices of the parameters.

        Where parameters have names here and there, a state goes to the parameter of its name, otherwise to that of its
        place. The names here stay. A number that the saved groups lack keeps its value.

        Args:
            state_dict: a saved state.
            cast: convert what has another dtype than the optimizer's own.
            partial: what the saved state lacks stays as it is, which is new for a new optimizer: the average that was
                put around an optimizer since, say, or a new parameter.

        Raises:
            ValueError: listing what is missing, unexpected, misshapen or of another dtype; nothing has changed then.
            RuntimeError: in eval mode.
        """
        self._refuse_in_eval_mode("load_state_dict")
        handle = self.register_load_state_dict_pre_hook(lambda _, saved: self._fitting(saved, cast, partial))
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()

    def load_torch_state_dict(self, state_dict: dict[str, Any], *, cast: bool = False) -> None:
        """Take over what an optimizer of `torch.optim` has saved: its moments, its steps and the options of its groups.

        The transform is that of torch's optimizer, as docs/from-torch.md writes it, or holds it. What it keeps besides
        stays as it is. Otherwise as `load_state_dict`.

        Args:
            state_dict: what `state_dict()` of an optimizer of `torch.optim` returned.
            cast: convert what has another dtype than the optimizer's own.

        Raises:
            ValueError: the transform does not hold that optimizer, or parameters do not fit; nothing has changed then.
            RuntimeError: in eval mode.

        Example:
            >>> import torch, optfx
            >>> from optfx.interop import TorchOptimizer
            >>> w = torch.nn.Parameter(torch.ones(2))
            >>> theirs = torch.optim.AdamW([w], lr=0.1)
            >>> w.grad = torch.ones(2)
            >>> theirs.step()
            >>> tx = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(1e-3))
            >>> optimizer = TorchOptimizer([w], tx)
            >>> optimizer.load_torch_state_dict(theirs.state_dict())
            >>> optimizer.param_groups[0]["lr"], optimizer.state[w]["1.0.count"], optimizer.state[w]["1.0.mu"]
            (0.1, tensor(1), tensor([0.1000, 0.1000]))
        """
        self._refuse_in_eval_mode("load_torch_state_dict")
        members = self._follow()
        renamed = torch_load.renamed(state_dict, self.tx, self._knobs.found, members.keys.values())
        self.load_state_dict(renamed, cast=cast, partial=True)

    def _fitting(self, saved: dict[str, Any], cast: bool, partial: bool) -> dict[str, Any]:
        members = self._follow()
        mine = members.complete()
        numbers = (*self._knobs.found, "maximize")
        new = torch_load.fitted(saved, self.param_groups, members, mine, numbers, cast, partial)
        for group in new["param_groups"]:
            self._knobs.check({k: v for k, v in group.items() if k not in ("params", "param_names")})
        self._knobs.check_shared([group for group in new["param_groups"] if group["params"]])
        return new

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("tx", "compile", "_trained", "_given")}
        return super().__getstate__() | kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        for p, kept in state.get("state", {}).items():
            if isinstance(p, Tensor):
                state["state"][p] = torch_load.copied(kept, p)
        super().__setstate__(state)
        if "tx" in state:  # a copy or a pickle, not what load_state_dict hands over
            self._knobs = Knobs(self.tx)
            self._members = Members(self._knobs)
        self._members.untouched = {}
        self._members.compared = False
