"""Any use of an optimizer: a machine that does to `TorchOptimizer`, and to the optimizer of torch beside it, what
people do, in any order. After each step their parameters are equal.

    python -m tests.interop.any_use --random --runs 10000            # eager
    python -m tests.interop.any_use --random --runs 1000 --compile   # with fused steps

A failure is shrunk to a short program, which is printed. With `--trace` each action is written to standard error before
it is done, so that a crash of the process shows what led to it.
"""

from __future__ import annotations

import argparse
import collections
import copy
import io
import itertools
import pickle
import sys
import warnings
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from torch import nn
from torch.optim import lr_scheduler

import optfx
from optfx.interop import TorchOptimizer
from optfx.interop.torch_specs import SPECS

SHAPES = [(3,), (2, 3), (), (4, 2), (1, 1, 2)]
KINDS: list[tuple[type, dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1}),
    (torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.1, "amsgrad": True}),
    (torch.optim.NAdam, {"lr": 0.1, "weight_decay": 0.1}),
    (torch.optim.RAdam, {"lr": 0.1, "weight_decay": 0.1}),
    (torch.optim.Adagrad, {"lr": 0.1, "weight_decay": 0.1, "lr_decay": 0.5}),
    (torch.optim.RMSprop, {"lr": 0.1, "weight_decay": 0.1, "centered": True, "momentum": 0.9}),
    (torch.optim.Adamax, {"lr": 0.1, "weight_decay": 0.1}),
    (torch.optim.Adadelta, {"lr": 0.1, "weight_decay": 0.1}),
    (torch.optim.Rprop, {"lr": 0.01}),
    (torch.optim.ASGD, {"lr": 0.1, "weight_decay": 0.1, "t0": 2.0}),
]
SCHEDULERS = [
    lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + k)),
    lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=1000, cycle_momentum=False),
    lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
]
MAYBE = st.booleans()
INDEX = st.integers(0, 99)
TRACE = False


class Side:
    """One of the two optimizers, with all that a run has."""

    def __init__(self, ours: bool, params: dict[str, nn.Parameter], optimizer: Any):
        self.ours, self.params, self.optimizer = ours, params, optimizer
        self.schedulers: list[Any] = []
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        self.saved: Any = None

    @property
    def groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def name_of(self, p: Any) -> str:
        return next(name for name, q in self.params.items() if q is p)


def gradient(name: str, p: torch.Tensor, k: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * k + int(name[1:]))
    return torch.sin(p.detach()) + torch.randn(p.shape, generator=generator)


class AnyUse(RuleBasedStateMachine):
    """Two optimizers and what is done to both."""

    compile = False

    def __init__(self) -> None:
        super().__init__()
        torch.set_default_dtype(torch.float64)  # torch keeps some numbers of NAdam and ASGD in the default dtype
        self.k = 0
        self.count = itertools.count()
        if TRACE:
            print("---- begin", file=sys.stderr, flush=True)

    def teardown(self) -> None:
        torch.set_default_dtype(torch.float32)

    # ---- how -------------------------------------------------------------------------------------

    def note(self, *what: Any) -> None:
        if TRACE:
            print(*what, file=sys.stderr, flush=True)

    def fresh(self, shape: tuple[int, ...]) -> tuple[str, torch.Tensor]:
        i = next(self.count)
        return f"p{i}", torch.randn(shape, generator=torch.Generator().manual_seed(i))

    def make(self, ours: bool, groups: list[dict[str, Any]]) -> Any:
        cls, options = self.kind
        if not ours:
            return cls(groups, **options)
        tx = SPECS[cls].make(SPECS[cls].defaults | options)
        if self.around:
            tx = optfx.chain(optfx.clip_by_global_norm(1e9), tx, optfx.params_ema(0.5))
        return TorchOptimizer(groups, tx, compile=self.compile)

    def both(self, change: Any) -> None:
        for side in self.sides:
            change(side)

    def entry(self, side: Side, name: str) -> Any:
        """A parameter as an optimizer is given it."""
        return (name, side.params[name]) if self.named else side.params[name]

    def regrouped(self) -> None:
        """torch's schedulers hold on to the groups that there were."""
        self.both(lambda side: side.schedulers.clear())

    def group(self, i: int) -> int:
        return i % len(self.sides[0].groups)

    def check(self) -> None:
        ours, theirs = self.sides
        assert ours.params.keys() == theirs.params.keys()
        for name, p in ours.params.items():
            torch.testing.assert_close(
                p.detach(), theirs.params[name].detach(), rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )
            p.data.copy_(theirs.params[name].detach())  # gradients depend on the last bit

    # ---- what people do --------------------------------------------------------------------------

    @initialize(
        kind=st.sampled_from(KINDS),
        named=MAYBE,
        around=MAYBE,
        sizes=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    )
    def begin(self, kind: Any, named: bool, around: bool, sizes: list[int]) -> None:
        self.note("begin", kind, named, around, sizes)
        self.kind, self.named, self.around = kind, named, around
        fresh = [[self.fresh(SHAPES[(i + j) % len(SHAPES)]) for j in range(n)] for i, n in enumerate(sizes)]
        if not any(sizes):
            fresh[0].append(self.fresh((3,)))
        self.sides = []
        for ours in (True, False):
            params = {name: nn.Parameter(x.clone()) for group in fresh for name, x in group}
            side = Side(ours, params, None)
            groups = [{"params": [self.entry(side, name) for name, _ in group]} for group in fresh]
            if named:  # torch wants names in all groups, and an empty one has none
                groups = [group for group in groups if group["params"]]
            groups[-1]["lr"] = 0.03
            side.optimizer = self.make(ours, groups)
            self.sides.append(side)

    def give(self, rest: set[int], zero: bool) -> None:
        for side in self.sides:
            for i, (name, p) in enumerate(side.params.items()):
                if i in rest:
                    p.grad = torch.zeros_like(p) if zero else None
                else:
                    p.grad = gradient(name, p, self.k)
        self.k += 1

    @rule(rest=st.sets(st.integers(0, 6), max_size=4), zero=MAYBE)
    def step(self, rest: set[int], zero: bool) -> None:
        self.note("step", rest, zero)
        self.give(rest, zero)
        self.both(lambda side: side.optimizer.step())
        self.check()

    @rule()
    def steps(self) -> None:
        self.note("steps")
        for _ in range(3):
            self.give(set(), False)
            self.both(lambda side: side.optimizer.step())
            self.check()

    @rule(set_to_none=MAYBE)
    def zero_grad_and_step(self, set_to_none: bool) -> None:
        self.note("zero_grad", set_to_none)
        self.both(lambda side: side.optimizer.zero_grad(set_to_none=set_to_none))
        self.both(lambda side: side.optimizer.step())
        self.check()

    @rule(rest=st.sets(st.integers(0, 6), max_size=3))
    def step_with_a_closure(self, rest: set[int]) -> None:
        self.note("closure", rest)

        def closure() -> torch.Tensor:
            self.k -= 1
            self.give(rest, False)
            return torch.tensor(1.0, requires_grad=True)

        self.k += 1
        self.both(lambda side: side.optimizer.step(closure))
        self.check()

    @rule()
    def evaluate(self) -> None:
        """With other parameters for a while."""
        self.note("evaluate")
        ours = self.sides[0]
        before = [p.detach().clone() for p in ours.params.values()]
        with ours.optimizer.evaluating():
            pass
        assert all(torch.equal(p, q) for p, q in zip(ours.params.values(), before, strict=True))

    @rule(
        group=INDEX,
        what=st.sampled_from(
            ["number", "none", "twice", "names", "sparse", "extra", "shape", "kind", "lacks", "misfit"]
        ),
    )
    def mistake(self, group: int, what: str) -> None:
        """What is wrong raises, and changes nothing."""
        ours = self.sides[0]
        of = ours.groups[self.group(group)]
        if (
            not of["params"]
            or (what == "sparse" and not of["params"][0].ndim)
            or (what == "names" and len(of.get("param_names", ())) < 2)
        ):
            return
        self.note("mistake", group, what)
        self.give(set(), False)
        p, extra, act = of["params"][0], {}, ours.optimizer.step
        saved, grad = ours.optimizer.state_dict(), p.grad  # in which all is made that there is to keep
        kept = ours.optimizer.state[p]
        key = next(k for k in kept if k != "somebody's" and not (self.around and k.startswith("0.")))  # one for all
        before = {k: dict(x) for k, x in ours.optimizer.state.items()}
        values = [q.detach().clone() for q in ours.params.values()]
        groups = [(dict(g), list(g["params"])) for g in ours.groups]
        if what in ("number", "none"):
            of["lr"] = "fast" if what == "number" else None
        elif what == "twice":
            of["params"].append(p)
            if self.named:
                of["param_names"] = [*of["param_names"], "again"]
        elif what == "names":
            of["param_names"] = [of["param_names"][1]] * len(of["params"])
        elif what == "sparse":
            p.grad = p.grad.to_sparse()
        elif what == "extra":
            extra = {"vlaue": 1.0}
        elif what in ("shape", "kind"):
            kept[key] = torch.ones(7, 7) if what == "shape" else "?"
        else:
            bad = copy.deepcopy(saved)
            mine = next(iter(bad["state"].values()))
            key = next(k for k in mine if k != "somebody's")
            mine.pop(key) if what == "lacks" else mine.update({key: torch.ones(7, 7)})
            act = lambda: ours.optimizer.load_state_dict(bad)
        try:
            act(**extra)
        except (TypeError, ValueError, RuntimeError):
            pass
        else:
            raise AssertionError("no error")
        p.grad = grad
        for of, (was, params) in zip(ours.groups, groups, strict=True):
            of["params"][:] = params
            of.update({k: x for k, x in was.items() if k != "params"})
        if what in ("shape", "kind"):
            kept[key] = before[p][key]
        assert all(torch.equal(q, x) for q, x in zip(ours.params.values(), values, strict=True))
        for q, mine in before.items():
            if q in ours.optimizer._members.untouched:  # made anew, perhaps, for a parameter with another value
                continue
            assert all(torch.equal(ours.optimizer.state[q][k], x) for k, x in mine.items())

    @rule(infinite=MAYBE, unscale=MAYBE)
    def scaled_step(self, infinite: bool, unscale: bool) -> None:
        self.note("scaler", infinite, unscale)
        self.give(set(), False)
        for side in self.sides:
            mine = [p for group in side.groups for p in group["params"]]
            if not mine:
                return
            side.scaler.scale(torch.tensor(1.0))
            for p in mine:
                p.grad *= side.scaler.get_scale()
            if infinite and mine[0].numel():
                mine[0].grad.view(-1)[0] = torch.inf
            if unscale:
                side.scaler.unscale_(side.optimizer)
            side.scaler.step(side.optimizer)
            side.scaler.update()
        self.check()

    @rule(make=st.sampled_from(SCHEDULERS))
    def schedule(self, make: Any) -> None:
        self.note("schedule", SCHEDULERS.index(make))
        for side in self.sides:
            for group in side.groups:
                group.pop("initial_lr", None)
            side.schedulers = [make(side.optimizer)]

    @rule()
    def scheduler_step(self) -> None:
        self.note("scheduler step")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no step came before
            for scheduler in (scheduler for side in self.sides for scheduler in side.schedulers):
                scheduler.step(*([1.0] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
        assert [float(g["lr"]) for g in self.sides[0].groups] == [float(g["lr"]) for g in self.sides[1].groups]

    @rule(
        group=INDEX,
        what=st.sampled_from(["lr", "weight_decay", "betas", "eps", "momentum", "maximize", "others"]),
        value=st.sampled_from([1, 0, 0.5, 0.01]),
        tensor=MAYBE,
    )
    def set_number(self, group: int, what: str, value: float, tensor: bool) -> None:
        new: Any = {"betas": (value / 2, 0.9), "maximize": value == 1, "others": "x"}.get(what, value)
        takes_tensors = self.kind[0] in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
        if what not in self.sides[1].groups[0] and what != "others":
            return
        if (what == "momentum" and not value) or (what == "eps" and not value):
            return  # torch forgets its buffer then, or divides by zero
        self.note("set", group, what, new, tensor)
        for side in self.sides:
            exact = torch.tensor(float(new)) if tensor and takes_tensors and what == "lr" else new
            side.groups[self.group(group)][what] = exact

    @rule(shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=2), directly=MAYBE)
    def add_group(self, shapes: list[tuple[int, ...]], directly: bool) -> None:
        self.note("add group", shapes, directly)
        if len(self.sides[0].groups) > 4:
            return
        new = [self.fresh(shape) for shape in shapes]
        for side in self.sides:
            side.params |= {name: nn.Parameter(x.clone()) for name, x in new}
            mine = [side.params[name] for name, _ in new]
            if directly:
                group = {k: x for k, x in side.groups[0].items() if k != "initial_lr"} | {"params": mine, "lr": 0.07}
                side.groups.append(group | ({"param_names": [name for name, _ in new]} if self.named else {}))
            else:
                entries = [self.entry(side, name) for name, _ in new]
                side.optimizer.add_param_group({"params": entries, "lr": 0.07, "name": "new"})
        self.regrouped()

    @rule(group=INDEX, shape=st.sampled_from(SHAPES), assign=MAYBE)
    def extend(self, group: int, shape: tuple[int, ...], assign: bool) -> None:
        self.note("extend", group, shape, assign)
        if len(self.sides[0].params) > 10:
            return
        name, x = self.fresh(shape)
        for side in self.sides:
            side.params[name] = nn.Parameter(x.clone())
            of = side.groups[self.group(group)]
            if assign:
                of["params"] = [*of["params"], side.params[name]]
            else:
                of["params"].append(side.params[name])
            if self.named:
                of["param_names"] = [*of["param_names"], name]

    @rule(group=INDEX, index=INDEX, to=INDEX, back=MAYBE)
    def pop(self, group: int, index: int, to: int, back: bool) -> None:
        """A parameter leaves its group, for good or for another group."""
        self.note("pop", group, index, to, back)
        for side in self.sides:
            of, other = side.groups[self.group(group)], side.groups[self.group(to)]
            if not of["params"]:
                return
            i = index % len(of["params"])
            p = of["params"].pop(i)
            name = of["param_names"].pop(i) if "param_names" in of else None
            if back:
                other["params"].append(p)
                if name is not None:
                    other["param_names"].append(name)

    @rule(group=INDEX, keep_state=MAYBE)
    def replace(self, group: int, keep_state: bool) -> None:
        """New parameters in place of old ones, with or without their state."""
        self.note("replace", group, keep_state)
        for side in self.sides:
            of = side.groups[self.group(group)]
            old = of["params"]
            of["params"] = [nn.Parameter(p.detach().clone()) for p in old]
            for p, q in zip(old, of["params"], strict=True):
                side.params[side.name_of(p)] = q
                if p in side.optimizer.state:
                    state = side.optimizer.state.pop(p)
                    if keep_state:
                        side.optimizer.state[q] = state

    @rule(turned=MAYBE)
    def assign_groups(self, turned: bool) -> None:
        self.note("assign groups", turned)
        for side in self.sides:
            groups = [dict(group) for group in side.groups]
            side.optimizer.param_groups = groups[::-1] if turned else groups
        self.regrouped()

    @rule(index=INDEX, how=st.sampled_from(["clear", "delete", "new", "others"]))
    def change_state(self, index: int, how: str) -> None:
        self.note("state", index, how)
        for side in self.sides:
            mine = [p for group in side.groups for p in group["params"]]
            if how == "clear":
                side.optimizer.state.clear()
            elif how == "new":
                side.optimizer.state = collections.defaultdict(dict)
            elif mine and how == "delete":
                side.optimizer.state.pop(mine[index % len(mine)], None)
            elif mine and side.optimizer.state.get(mine[index % len(mine)]):
                side.optimizer.state[mine[index % len(mine)]]["somebody's"] = torch.ones(2)

    @rule(index=INDEX, how=st.sampled_from(["clone", "resize", "float", "strided"]))
    def move_memory(self, index: int, how: str) -> None:
        self.note("memory", index, how)
        for side in self.sides:
            p = list(side.params.values())[index % len(side.params)]
            if how == "clone":
                p.data = p.data.clone()
            elif how == "strided":
                p.data = torch.stack([p.data, p.data], -1)[..., 0]
            elif how == "float":
                p.data = p.data.float().double()
            elif (storage := p.untyped_storage()).resizable():  # as offloading does
                values = p.data.clone()
                size = storage.nbytes()
                storage.resize_(0)
                storage.resize_(size)
                p.data.copy_(values)

    @rule(how=st.sampled_from(["deepcopy", "pickle", "save"]))
    def copy(self, how: str) -> None:
        """Goes on with a copy of parameters and optimizer."""
        self.note("copy", how)
        for side in self.sides:
            pair = (side.optimizer, side.params)
            if how == "deepcopy":
                side.optimizer, side.params = copy.deepcopy(pair)
            elif how == "pickle":
                side.optimizer, side.params = pickle.loads(pickle.dumps(pair))
            else:
                file = io.BytesIO()
                torch.save(pair, file)
                file.seek(0)
                side.optimizer, side.params = torch.load(file, weights_only=False)
        self.regrouped()

    @rule()
    def save(self) -> None:
        self.note("save")
        for side in self.sides:
            here = {p for group in side.groups for p in group["params"]}
            for p in [p for p in side.optimizer.state if p not in here]:
                del side.optimizer.state[p]  # torch cannot save it
            file = io.BytesIO()
            values = {name: p.detach() for name, p in side.params.items()}
            shape = [[side.name_of(p) for p in group["params"]] for group in side.groups]
            torch.save((side.optimizer.state_dict(), values), file)
            side.saved = file.getvalue(), shape

    @precondition(lambda self: self.sides[0].saved is not None)
    @rule(anew=MAYBE, turned=MAYBE)
    def load(self, anew: bool, turned: bool) -> None:
        """Back to what was saved, in the same optimizer or a new one, and by name in another order."""
        self.note("load", anew, turned)
        for side in self.sides:
            content, shape = side.saved
            saved, values = torch.load(io.BytesIO(content))
            now = [[side.name_of(p) for p in group["params"]] for group in side.groups]
            if anew and all(shape):
                side.params = {name: nn.Parameter(torch.randn(x.shape)) for name, x in values.items()}
                order = [names[::-1] for names in shape] if turned and side.ours and self.named else shape
                groups = [{"params": [self.entry(side, name) for name in names], "lr": 9.0} for names in order]
                if turned and side.ours and self.named:
                    groups.reverse()
                side.optimizer = self.make(side.ours, groups)
                now = shape
            if now == shape:
                for name, x in values.items():
                    side.params[name].data = x.clone()
                side.optimizer.load_state_dict(saved)
        if anew:
            self.sort_groups()
        self.regrouped()

    @rule()
    def take_over(self) -> None:
        """Goes on with what the optimizer of torch has saved."""
        self.note("take over")
        ours, theirs = self.sides
        here = {p for group in theirs.groups for p in group["params"]}
        if self.named and not all(group["params"] for group in theirs.groups):
            return
        for p in [p for p in theirs.optimizer.state if p not in here]:
            del theirs.optimizer.state[p]
        groups = [
            {"params": [self.entry(ours, theirs.name_of(p)) for p in group["params"]], "lr": 9.0}
            for group in theirs.groups
        ]
        ours.optimizer = self.make(True, groups)
        ours.optimizer.load_torch_state_dict(theirs.optimizer.state_dict())
        self.regrouped()

    @rule(factor=st.sampled_from([0.5, 2.0]))
    def scale_rates(self, factor: float) -> None:
        """In place, where they are tensors."""
        self.note("scale rates", factor)
        for side in self.sides:
            for group in side.groups:
                group["lr"] *= factor if isinstance(group["lr"], float) or torch.is_tensor(group["lr"]) else 1

    def sort_groups(self) -> None:
        """The other rules count groups and parameters: ours in the order of torch's again."""
        ours, theirs = self.sides
        place = {theirs.name_of(p): (i, j) for i, g in enumerate(theirs.groups) for j, p in enumerate(g["params"])}
        for group in ours.groups:
            pairs = sorted(zip(group["params"], group.get("param_names", group["params"]), strict=True),
                           key=lambda pair: place[ours.name_of(pair[0])])  # fmt: skip
            group["params"] = [p for p, _ in pairs]
            if "param_names" in group:
                group["param_names"] = [name for _, name in pairs]
        if all(group["params"] for group in ours.groups):
            ours.groups.sort(key=lambda group: place[ours.name_of(group["params"][0])])


class AnyCompiledUse(AnyUse):
    compile = True


def run(runs: int, compile: bool, random: bool = False, steps: int = 20) -> None:
    """Try so many programs. Raises what the shortest failing one does, after printing it."""
    how = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=not random,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    run_state_machine_as_test(AnyCompiledUse if compile else AnyUse, settings=how)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--random", action="store_true", help="other programs than the last time")
    parser.add_argument("--trace", action="store_true")
    given = parser.parse_args()
    TRACE = given.trace
    torch.set_num_threads(1)
    run(given.runs, given.compile, given.random, given.steps)
    print(f"{given.runs} programs, no fault")
