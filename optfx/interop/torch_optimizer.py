"""A transform as a `torch.optim.Optimizer`, for everything that expects one: schedulers, scalers, trainers, wrappers.

One transform sees the parameters of all groups. What differs from group to group is its numbers. As in torch, the
groups, their parameters and the state are what `param_groups` and `state` say at each step, whoever changed them.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim import Optimizer

from optfx.compiler import fuse
from optfx.core import GradientTransformation, as_transform, is_number
from optfx.core.transform import check_extra, check_updates
from optfx.interop import torch_load
from optfx.interop.groups import Held, Knobs, own_value
from optfx.interop.owners import Owner
from optfx.interop.program import Program, blocks, memory_of, own_memory
from optfx.interop.torch_state import State, places_of
from optfx.tree import Hole, Tree, leaves

PROGRAMS = 16  # steps of how many sets of parameters are remembered


class TorchOptimizer(Optimizer):
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
        compile: run steps with `optfx.fuse`.
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
        self.tx = as_transform(tx)
        self.compile = compile
        self._knobs = Knobs(self.tx)
        self._trained: dict[Tensor, Tensor] | None = None  # what eval mode has replaced
        self._untouched: dict[Tensor, State] = {}  # of the parameters that have taken no step, the state as it was made
        self._given = frozenset(numbers)
        self._forget()
        self._knobs.check_known(numbers)
        self._knobs.check(numbers)
        values = {name: own_value(knob.value) for name, knob in self._knobs.found.items()}
        super().__init__(params, values | numbers | {"maximize": maximize})
        self._follow()
        if self._knobs.looks_across and _in_zero():
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
            self._knobs.check({k: v for k, v in param_group.items() if k != "params"})
            if not isinstance(param_group["params"], (Tensor, set)):
                param_group["params"] = list(param_group["params"])
                _refuse_twice([p[-1] if isinstance(p, tuple) else p for p in param_group["params"]])
            for name in self._knobs.found.keys() - self._given:
                param_group.setdefault(name, own_value(self.defaults[name]))
        super().add_param_group(param_group)
        try:
            if self._seen is not None:  # otherwise torch's __init__ adds the first groups
                self._follow()
            else:
                self._named()
                self._knobs.check_shared(self.param_groups)
        except (ValueError, TypeError):
            self.param_groups.pop()
            raise

    def _forget(self) -> None:
        """Nothing has been seen of the groups."""
        self._seen: Any = None
        self._names: list[str] = []
        self._params: list[Tensor] = []
        self._group: list[int] = []
        self._held: list[Held] = []
        self._known: dict[Tensor, Any] = {}  # the name and the form of each parameter
        self._keys: dict[Tensor, set[str]] = {}  # what is kept of each parameter
        self._counts: tuple[str, ...] = ()  # what is kept once for an owner
        self._of_all: set[str] = set()  # what is kept once for all
        self._loaded = True  # the state may come from elsewhere
        self._programs: OrderedDict[tuple[bool, tuple[Owner, ...]], Program] = OrderedDict()

    def _follow(self) -> None:
        """See what the groups are now.

        Raises:
            ValueError, TypeError: groups that cannot be followed; nothing has changed then.
        """
        seen = [
            (tuple(group), tuple(group.get("param_names", ())), [(id(p), p.shape, p.dtype) for p in group["params"]])
            for group in self.param_groups
        ]
        if seen != self._seen:
            self._see()
            # the groups have their names and numbers now
            self._seen = [
                (tuple(group), tuple(group.get("param_names", ())), of)
                for group, (_, _, of) in zip(self.param_groups, seen, strict=True)
            ]
        if self._loaded:
            self._share_counts()
            self._loaded = False

    def _see(self) -> None:
        params = [p for group in self.param_groups for p in group["params"]]
        _refuse_twice(params)
        for group in self.param_groups:
            self._knobs.check({k: v for k, v in group.items() if k != "params"})
        names = self._named()
        defaults = {name: self.defaults[name] for name in (*self._knobs.found, "maximize")}
        self._knobs.check_shared([defaults | group for group in self.param_groups if group["params"]])
        for group, of_group in zip(self.param_groups, names, strict=True):
            for name in defaults.keys() - group.keys():
                group[name] = own_value(defaults[name])
            if "param_names" in group:
                group["param_names"] = of_group
        for p in self._untouched.keys() - set(params):
            made = self._untouched.pop(p)
            if p in self.state and _holds(self.state[p], made):  # or a state that nobody has used would be saved
                del self.state[p]
            self._untouched |= {q: made for q in params if made and _holds(self.state.get(q, {}), made)}  # it moved
        self._names = [name for of_group in names for name in of_group]
        self._params = params
        self._group = [k for k, group in enumerate(self.param_groups) for _ in group["params"]]
        self._held = [self._knobs.hold(group) for group in self.param_groups]
        self._programs.clear()
        forms = [(name, p.shape, p.dtype, p.device) for name, p in zip(self._names, params, strict=True)]
        known = dict(zip(params, forms, strict=True))
        unknown = [i for i, p in enumerate(params) if self._known.get(p) != known[p] or p not in self.state]
        self._keys = {p: self._keys[p] for p in params if p in self._keys}
        self._known = known
        self._begin(unknown)

    def _named(self) -> list[list[str]]:
        """The names of the parameters of each group. One without a name goes by its number. If parameters have come,
        gone or moved, and nobody has written their names anew, each keeps its own."""
        before = dict(zip(self._params, self._names, strict=True))
        found: list[list[str]] = []
        for k, group in enumerate(self.param_groups):
            params, names = group["params"], list(group.get("param_names", ()))
            number = sum(map(len, found))
            numbers = [str(number + j) for j in range(len(params))]
            if "param_names" not in group:
                names = numbers
            elif len(names) != len(params) or (self._seen and k < len(self._seen) and self._seen[k][1] == tuple(names)):
                moved = any(p in before and before[p] not in names[j : j + 1] for j, p in enumerate(params))
                if moved or len(names) != len(params):
                    names = [before.get(p, of_place) for p, of_place in zip(params, numbers, strict=True)]
            found.append(names)
        everything = [name for names in found for name in names]
        for name, times in Counter(everything).items():
            if times > 1:
                raise ValueError(f"two parameters are called {name!r}")
        return found

    # ---- state ------------------------------------------------------------------------------------

    def _kept(self) -> dict[int, State]:
        """What is kept of each parameter."""
        return {i: self.state[p] for i, p in enumerate(self._params) if p in self.state}

    def _begin(self, which: Sequence[int]) -> None:
        """Make what is missing of the state of some parameters."""
        of_group: dict[int, list[int]] = {}
        for i in which:
            of_group.setdefault(self._group[i], []).append(i)
        if not of_group:
            return
        parts = {str(g): Owner(g, tuple(of)) for g, of in of_group.items()}
        params = self._tree(which)
        state = self._transform(parts).begin(params)
        places = places_of(state, self._names_in_trees(which), {part: owner.params for part, owner in parts.items()})
        kept = self._kept()
        new = [i for i in which if not kept.get(i)]
        for i in which:
            if i not in kept:
                kept[i] = self.state[self._params[i]] = {}
            self._keys[self._params[i]] = set()
        for place, value in zip(places, own_memory(state, memory_of(params)), strict=True):
            of_all = place.shared and place.owner is None
            if of_all:
                value = next((mine[place.key] for mine in kept.values() if place.key in mine), value)
            for i in which if of_all else place.params:
                kept[i].setdefault(place.key, value)
                self._keys[self._params[i]].add(place.key)
        self._of_all = {place.key for place in places if place.shared and place.owner is None}
        self._counts = tuple({place.key: 0 for place in places if place.shared and place.owner is not None})
        for i in new:
            self._untouched[self._params[i]] = {k: x for k, x in kept[i].items() if k not in self._of_all}

    def _ready(self, which: Sequence[int]) -> dict[int, State]:
        """What is kept of each parameter; for these nothing is missing."""
        for i in which:
            p = self._params[i]
            made = self._untouched.get(p)
            if made is not None and _holds(self.state.get(p, {}), made):  # p may have another value by now
                for key in self._keys[p]:
                    self.state[p].pop(key, None)
        kept = self._kept()
        self._begin([i for i in which if i not in kept or not self._keys[self._params[i]] <= kept[i].keys()])
        return self._kept()

    def _owners(self, which: Iterable[int], kept: Mapping[int, State]) -> tuple[Owner, ...]:
        """These parameters by who owns their numbers and counts."""
        found: dict[tuple[int, ...], list[int]] = {}
        for i in which:
            mine = kept[i]
            found.setdefault((self._group[i], *[id(mine[key]) for key in self._counts]), []).append(i)
        return tuple([Owner(key[0], tuple(params)) for key, params in found.items()])

    def _share_counts(self) -> None:
        """Parameters of a group that have taken the same steps share their counts, which a copy from elsewhere has once
        for each of them."""
        first: dict[Any, State] = {}
        for i, mine in self._kept().items():
            if all(isinstance(mine.get(key), Tensor) and mine[key].numel() < 100 for key in self._counts):
                values = [(x := mine[key]).device and (x.dtype, x.shape, x.device, x.tolist()) for key in self._counts]
                shared = first.setdefault(repr((self._group[i], values)), mine)
                mine.update({key: shared[key] for key in self._counts})

    # ---- what runs --------------------------------------------------------------------------------

    def _names_in_trees(self, which: Iterable[int]) -> dict[int, str]:
        """The names in a tree of these parameters; those of the others stand for holes, if a mask wants to see all."""
        return {i: self._names[i] for i in (range(len(self._names)) if self._knobs.holes else which)}

    def _tree(self, which: Iterable[int]) -> dict[str, Any]:
        mine = set(which)
        names = self._names_in_trees(which)
        return {name: self._params[i].detach() if i in mine else Hole() for i, name in names.items()}

    def _transform(self, parts: Mapping[str, Owner]) -> GradientTransformation:
        rows = {part: (self._held[g], tuple([self._names[i] for i in of])) for part, (g, of) in parts.items()}
        return self._knobs.transform(rows)

    def _program(self, owners: tuple[Owner, ...], whole: bool) -> Program:
        """The step of these parameters; `whole`: of each owner at once."""
        if (whole, owners) not in self._programs:
            which = sorted(i for owner in owners for i in owner.params)
            sizes = [p.numel() for p in self._params]
            parts = {str(k): owner for k, owner in enumerate(owners)} if whole else blocks(owners, sizes)
            tx = self._transform(parts)
            state = tx.begin(self._tree(which))
            self._programs[whole, owners] = Program(tx, owners, parts, self._names_in_trees(which), state)
            if len(self._programs) > PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end((whole, owners))
        return self._programs[whole, owners]

    # ---- a step -----------------------------------------------------------------------------------

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
            RuntimeError: a sparse gradient, naming the parameter; a step in eval mode.
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
        self._follow()
        active = [i for i, p in enumerate(self._params) if p.grad is not None]
        if not active:
            return loss
        check_extra(self.tx, extra)
        self._knobs.read(self.param_groups, self._held)
        given = {i: self._gradient(i) for i in active}
        kept = self._ready(active)
        owners = self._owners(active, kept)
        program = self._program(owners, whole=self.compile)
        program.whole.check(kept, self._names)
        params, grads = program.tree({i: self._params[i].detach() for i in active}), program.tree(given)
        check_updates("TorchOptimizer", params, grads)
        for i in active:
            self._untouched.pop(self._params[i], None)
        if self.compile:
            self._run_fused(program, owners, grads, kept, extra)
        else:
            for of_part, updates in program.run(grads, params, kept, extra):
                for i in of_part:
                    self._params[i].add_(updates.pop(self._names[i]))
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

    def _run_fused(
        self,
        program: Program,
        owners: Sequence[Owner],
        grads: Tree,
        kept: Mapping[int, State],
        extra: dict[str, Any],
    ) -> None:
        stepping = {self._params[i] for owner in owners for i in owner.params}
        # the step writes in place: a count that a resting parameter holds too is copied
        others = [mine for p, mine in self.state.items() if isinstance(mine, dict) and p not in stepping]
        resting = {id(x) for mine in others for x in mine.values()}
        for owner in owners:
            for key in self._counts:
                if id(count := kept[owner.params[0]][key]) in resting:
                    new = count.clone()
                    for i in owner.params:
                        kept[i][key] = new
        own, state = program.tree(dict(enumerate(self._params))), program.whole.read(kept)
        opt = program.fused
        if opt is None or any(
            p.data_ptr() != x.data_ptr() for p, x in zip(leaves(own), leaves(opt.params), strict=True)
        ):
            opt = program.fused = fuse(program.tx)
            _, state = opt.init(own, state, copy=False, **extra)
        program.whole.write(kept, leaves(opt.step(grads, state, opt.params, **extra)[1]))

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
        self._follow()
        self._trained = {}
        if not self._params:
            return
        everything = range(len(self._params))
        kept = self._ready(everything)
        program = self._program(self._owners(everything, kept), whole=True)
        program.whole.check(kept, self._names)
        params = self._tree(everything)
        values = program.tx.eval_params(program.whole.read(kept), params)
        for name, p in zip(self._names, self._params, strict=True):
            if values[name] is not params[name]:
                self._trained[p] = p.detach().clone()
                p.copy_(values[name])

    @torch.no_grad()
    def train(self) -> None:
        """Give the parameters the trained values back, after `eval()`. Otherwise it does nothing."""
        for p, trained in (self._trained or {}).items():
            p.copy_(trained)
        self._trained = None

    def _refuse_in_eval_mode(self, what: str) -> None:
        if self._trained is not None:
            raise RuntimeError(f"{what} in eval mode: call train() first, which puts the trained parameters back")

    # ---- saving -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state in torch's layout; each tensor in it has memory of its own. Parameters that have left the groups
        are left out."""
        self._follow()
        kept = self._kept()
        self._begin([i for i, p in enumerate(self._params) if i not in kept or not self._keys[p] <= kept[i].keys()])
        here, everything = set(self._params), self.state
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
        self._follow()
        keys = [self._keys[p] for p in self._params]
        renamed = torch_load.renamed(state_dict, self.tx, self._knobs.found, keys)
        self.load_state_dict(renamed, cast=cast, partial=True)

    def _fitting(self, saved: dict[str, Any], cast: bool, partial: bool) -> dict[str, Any]:
        self._follow()
        kept = self._kept()
        self._begin([i for i, p in enumerate(self._params) if i not in kept or not self._keys[p] <= kept[i].keys()])
        kept = self._kept()
        return torch_load.fitted(
            saved,
            self.param_groups,
            [kept[i] for i in range(len(self._params))],
            [self._keys[p] for p in self._params],
            self._names,
            (*self._knobs.found, "maximize"),
            cast,
            partial,
        )

    def __getstate__(self) -> dict[str, Any]:
        kept = ("tx", "compile", "_trained", "_untouched", "_given")
        return super().__getstate__() | {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for p, kept in state.get("state", {}).items():
            if isinstance(p, Tensor):
                state["state"][p] = torch_load.copied(kept, p)
        super().__setstate__(state)
        if "tx" in state:  # a copy or a pickle, not what load_state_dict hands over
            self._knobs = Knobs(self.tx)
            self._forget()
            self._follow()
        self._loaded = True


def _holds(kept: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Whether a state is still the one that was made."""
    return all(kept.get(key) is x for key, x in made.items())


def _refuse_twice(params: Sequence[Any]) -> None:
    if len(params) != len(set(map(id, params))):
        where = [str(i) for i, p in enumerate(params) if any(p is other for other in params[:i])]
        raise ValueError(f"a parameter is listed twice, again at the place {', '.join(where)}: list it once")


def _in_zero() -> bool:
    """Whether a ZeroRedundancyOptimizer is making this optimizer, for the parameters of one rank.

    A transform that looks across parameters would see only those of the rank, and be wrong without a word. No argument
    tells: the groups look like any others. So its code is looked for among the callers; their variables are left alone,
    because to read them would keep them alive.
    """
    zero = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    frame = sys._getframe(1) if zero is not None else None
    while frame is not None and frame.f_globals is not vars(zero):
        frame = frame.f_back
    return frame is not None
