"""`TorchOptimizer` is as open as torch's own: groups, parameters and state are what the dicts say at each step.

Each test does the same to an optimizer of `torch.optim` beside it.
"""

from __future__ import annotations

import collections
import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import optfx
from optfx import core, tree
from optfx.interop import TorchOptimizer, program
from optfx.interop.torch_specs import SPECS
from tests.interop.parity import cases

COMPILE = pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
SHAPES = {"a.weight": (4, 3), "a.bias": (4, 1), "b.weight": (2, 4), "late": (2, 3)}


@pytest.fixture(autouse=True)
def wide():
    torch.set_default_dtype(torch.float64)  # NAdam and ASGD keep numbers in tensors of the default dtype
    yield
    torch.set_default_dtype(torch.float32)


def parameters(shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def give(params, k, rest=()):
    for name, p in params.items():
        generator = torch.Generator().manual_seed(1000 * k + sum(map(ord, name)))
        p.grad = None if name in rest else torch.sin(p.detach()) + torch.randn(p.shape, generator=generator)


def written(cls, options):
    return SPECS[cls].make(SPECS[cls].defaults | options)


def assert_same(mine, theirs, rtol=1e-10):
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=rtol, atol=rtol * 1e-2)


class Pair:
    """Our optimizer and torch's, each with its own parameters."""

    def __init__(self, make=None, torchs=None, groups=2, named=False, **how):
        make = make or (lambda: written(torch.optim.AdamW, {"lr": 0.1}))
        torchs = torchs or (lambda groups: torch.optim.AdamW(groups, lr=0.1))
        self.params = parameters(), parameters()
        split = [self._groups(p, groups, named) for p in self.params]
        self.both = TorchOptimizer(split[0], make(), **how), torchs(split[1])
        self.k = 0

    @staticmethod
    def _groups(params, groups, named):
        pairs = list(params.items()) if named else list(params.values())
        return [{"params": pairs}] if groups == 1 else [{"params": pairs[:2]}, {"params": pairs[2:], "lr": 0.03}]

    def step(self, steps=1, rest=()):
        for _ in range(steps):
            for params, optimizer in zip(self.params, self.both, strict=True):
                give(params, self.k, rest)
                optimizer.step()
            self.k += 1

    def check(self, rtol=1e-10):
        assert_same(*(p.values() for p in self.params), rtol)

    def each(self, change):
        for optimizer, params in zip(self.both, self.params, strict=True):
            change(optimizer, params)


# ---- counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "cls"), [pytest.param(o, c, id=name) for name, o, c in cases()])
def test_counts_are_a_parameters(options, cls):
    """One comes late, one rests now and then, in each of two groups."""
    maximize = options.get("maximize", False)
    plain = {k: x for k, x in options.items() if k != "maximize"}
    rate = 0.3 * options.get("lr", 1e-2)

    def torchs(groups):
        return cls([groups[0], groups[1] | {"lr": rate}], **options)

    pair = Pair(lambda: written(cls, plain), torchs, maximize=maximize)
    pair.both[0].param_groups[1]["lr"] = rate
    if cls is torch.optim.Adafactor:  # whose relative step goes by the rate that the transform was made with
        for optimizer in pair.both:
            optimizer.param_groups[1]["lr"] = optimizer.param_groups[0]["lr"]
    for k in range(12):
        pair.step(rest=[name for name, rests in (("late", k < 5), ("a.bias", k % 3 == 1)) if rests])
    pair.check(1e-3 if cls is torch.optim.Muon else 1e-10)


@COMPILE
def test_a_parameter_thawed_late_takes_steps_of_its_first(compile):
    pair = Pair(groups=1, compile=compile)
    pair.step(200, rest=["late"])
    pair.step(3)
    pair.check()


@COMPILE
def test_each_group_has_its_counts(compile):
    """Adagrad's `lr_decay`, where the second group takes half of the steps."""
    options = {"lr": 0.1, "lr_decay": 1.0}
    pair = Pair(
        lambda: written(torch.optim.Adagrad, options), lambda groups: torch.optim.Adagrad(groups, **options),
        compile=compile,
    )  # fmt: skip
    for k in range(6):
        pair.step(rest=["b.weight", "late"] if k % 2 else ["a.weight", "a.bias"])
    pair.check()


# ---- numbers ---------------------------------------------------------------------------------------


@COMPILE
@pytest.mark.parametrize(
    ("name", "given", "later", "torchs"),
    [
        ("lr", 1, 0.1, lambda g: torch.optim.SGD(g, lr=1.0, momentum=0.9)),
        ("weight_decay", 0, 0.3, lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9)),
        ("momentum", 1, 0.9, lambda g: torch.optim.SGD(g, lr=0.1, momentum=1.0)),
        ("eps", 1, 0.01, lambda g: torch.optim.Adam(g, lr=0.1, eps=1.0)),
        ("betas", (0, 0), (0.5, 0.9), lambda g: torch.optim.Adam(g, lr=0.1, betas=(0.0, 0.0))),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_whole_number_may_become_a_fraction(name, given, later, torchs, compile):
    numbers = {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.9} | {name: given}
    sgd = lambda: optfx.sgd(numbers["lr"], numbers["momentum"], weight_decay=numbers["weight_decay"])
    b1, b2 = given if name == "betas" else (0.9, 0.999)
    adam = lambda: optfx.adam(0.1, b1, b2, given if name == "eps" else 1e-8)
    pair = Pair(adam if name in ("eps", "betas") else sgd, torchs, groups=1, compile=compile)
    for value in (given, later, given, later):
        pair.each(lambda optimizer, _, value=value: optimizer.param_groups[0].update({name: value}))
        pair.step(2)
    pair.check()


@COMPILE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64], ids=str)
def test_a_tensor_is_the_callers_and_read_at_each_step(compile, dtype):
    rates = [torch.tensor(1, dtype=dtype) for _ in range(2)]
    pair = Pair(lambda: optfx.sgd(0.5), lambda groups: torch.optim.SGD(groups, lr=rates[1]), groups=1, compile=compile)
    pair.both = TorchOptimizer(pair.params[0].values(), optfx.sgd(0.5), lr=rates[0], compile=compile), pair.both[1]
    for optimizer, rate in zip(pair.both, rates, strict=True):
        assert optimizer.param_groups[0]["lr"] is rate
    for value in (2, 3, 1):
        for rate in rates:
            rate.fill_(value)
        pair.step()
        pair.check(1e-6)


def test_a_number_that_is_none_is_refused_before_anything_changes():
    pair = Pair()
    pair.step()
    ours = pair.both[0]
    before = copy.deepcopy(ours.state_dict()["state"]), [p.detach().clone() for p in pair.params[0].values()]
    for name, value in (("lr", "fast"), ("lr", None), ("betas", 0.9), ("betas", (0.9,)), ("lr", torch.ones(2))):
        kept = ours.param_groups[1][name]
        ours.param_groups[1][name] = value
        give(pair.params[0], 1)
        with pytest.raises((TypeError, ValueError), match=f"{name}"):
            ours.step()
        ours.param_groups[1][name] = kept
    assert_same(pair.params[0].values(), before[1], 0)
    assert all(torch.equal(x, ours.state_dict()["state"][i][k]) for i, of in before[0].items() for k, x in of.items())


def grow(x, factor):
    return x * factor


@tree.record
class grown(core.Wrapper):
    """A wrapper with a number that has the name of one inside."""

    inner: core.GradientTransformation
    learning_rate: core.Hyper

    def begin(self, params):
        return Grown(self.inner.begin(params))

    def step(self, updates, state, params, **extra):
        updates, inner = self.inner.run(updates, state.inner, params, extra)
        factor = self.at(torch.zeros((), dtype=torch.int64))["learning_rate"]
        return tree.elementwise(grow, updates, factor=factor), Grown(inner)


Grown = collections.namedtuple("Grown", "inner")


@COMPILE
def test_the_number_of_a_wrapper_is_a_knob(compile):
    params = parameters()
    optimizer = TorchOptimizer(params.values(), grown(optfx.scale(-1.0), 2.0), compile=compile)
    assert optimizer.param_groups[0]["lr"] == 2.0
    for rate in (2.0, 0.5):
        optimizer.param_groups[0]["lr"] = rate
        before = [p.detach().clone() for p in params.values()]
        give(params, 0)
        optimizer.step()
        assert_same(params.values(), [b - rate * p.grad for b, p in zip(before, params.values(), strict=True)])


@COMPILE
@pytest.mark.parametrize(
    ("make", "torchs"),
    [
        (lambda: optfx.sgd(0.1, momentum=0.0), lambda g: torch.optim.SGD(g, lr=0.1)),
        (
            lambda: optfx.rmsprop(
                0.1, 0.99, eps_in_sqrt=False, momentum=0.0, momentum_after_lr=False, eps=1e-8, initial_scale=0.0
            ),
            lambda g: torch.optim.RMSprop(g, lr=0.1),
        ),
    ],
    ids=["sgd", "rmsprop"],
)
@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=12),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=4),
    ],
    ids=["onecycle", "cyclic"],
)
def test_momentum_is_cycled_where_there_was_none(make, torchs, schedule, compile):
    pair = Pair(make, torchs, compile=compile)
    schedulers = [schedule(optimizer) for optimizer in pair.both]
    for _ in range(10):
        pair.step()
        for scheduler in schedulers:
            scheduler.step()
    pair.check()


# ---- groups ----------------------------------------------------------------------------------------


@COMPILE
def test_empty_groups_and_keys_of_others(compile):
    def torchs(groups):
        return torch.optim.AdamW([{"params": []}, *groups, {"params": [], "lr": 7.0}], lr=0.1)

    pair = Pair(torchs=torchs)
    mine = [{"params": [], "name": "none"}, *Pair._groups(pair.params[0], 2, False), {"params": [], "lr": 7.0}]
    mine[1] |= {"name": "a", "lr_scale": 0.5, "anything": object()}
    pair.both = TorchOptimizer(mine, written(torch.optim.AdamW, {"lr": 0.1}), compile=compile), pair.both[1]
    assert [group.get("name") for group in pair.both[0].param_groups] == ["none", "a", None, None]
    pair.step(3)
    pair.both[0].load_state_dict(pair.both[0].state_dict())
    assert pair.both[0].param_groups[1]["lr_scale"] == 0.5
    pair.step(3)
    pair.check()


def replaced(optimizer, params):
    """As accelerate does under FSDP2."""
    for group in optimizer.param_groups:
        names = [name for name in params if any(params[name] is p for p in group["params"])]
        params |= {name: nn.Parameter(params[name].detach() + 1) for name in names}
        group["params"] = [params[name] for name in names]


def replaced_with_state(optimizer, params):
    old = dict(params)
    replaced(optimizer, params)
    for name, p in params.items():
        optimizer.state[p] = optimizer.state.pop(old[name])


def assigned(optimizer, params):
    groups = [dict(group) for group in reversed(optimizer.param_groups)]
    optimizer.param_groups = groups
    groups[0]["lr"] = 0.2


def popped(optimizer, params):
    optimizer.param_groups[0]["params"].pop(0)


def popped_and_back(optimizer, params):
    moved = optimizer.param_groups[0]["params"].pop(0)
    optimizer.param_groups[1]["params"].insert(0, moved)


def extended(optimizer, params):
    params |= {f"new{i}": nn.Parameter(torch.full((2, i + 1), 0.5)) for i in range(2)}
    optimizer.param_groups[1]["params"].extend([params["new0"], params["new1"]])


def appended(optimizer, params):
    params["new"] = nn.Parameter(torch.ones(3))
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": [params["new"]], "lr": 0.5})


def cleared(optimizer, params):
    optimizer.state.clear()


def deleted(optimizer, params):
    del optimizer.state[params["a.bias"]]


def new_dict(optimizer, params):
    optimizer.state = collections.defaultdict(dict)


def swapped(optimizer, params):
    a, b = params["b.weight"], params["late"]
    a.data, b.data = a.data[:, :3].clone(), b.data.clone()
    optimizer.state[a] = optimizer.state.pop(b)


def moved_memory(optimizer, params):
    for p in params.values():
        p.data = p.data.clone()


CHANGES = [
    replaced, replaced_with_state, assigned, popped, popped_and_back, extended, appended, cleared, deleted, new_dict,
    swapped, moved_memory,
]  # fmt: skip


@COMPILE
@pytest.mark.parametrize("named", [False, True], ids=["plain", "named"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_what_others_do_to_an_optimizer(change, named, compile):
    pair = Pair(named=named, compile=compile)
    pair.step(3)
    pair.each(change)
    pair.step(3)
    pair.check()
    pair.each(change) if change not in (popped, extended, appended, swapped) else None
    pair.step(2, rest=["late"])
    pair.step(2)
    pair.check()


@COMPILE
def test_before_the_first_step_too(compile):
    for change in (replaced, popped, extended, cleared, moved_memory):
        pair = Pair(compile=compile)
        pair.each(change)
        pair.step(3)
        pair.check()


def test_a_parameter_twice_is_refused():
    params = list(parameters().values())
    with pytest.raises(ValueError, match="a parameter is listed twice, again at the place 4: list it once"):
        TorchOptimizer([*params, params[0]], optfx.sgd(0.1))
    optimizer = TorchOptimizer(params, optfx.sgd(0.1))
    optimizer.param_groups[0]["params"].append(params[1])
    before = [p.detach().clone() for p in params]
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match="a parameter is listed twice"):
        optimizer.step()
    assert_same(params, before, 0)


def test_the_state_of_those_who_left_is_kept_and_not_saved():
    pair = Pair()
    pair.step(2)
    gone = pair.params[0]["a.weight"]
    popped(pair.both[0], pair.params[0])
    kept = dict(pair.both[0].state[gone])
    saved = pair.both[0].state_dict()
    assert list(saved["state"]) == [0, 1, 2]
    give(pair.params[0], 5)
    pair.both[0].step()
    assert all(pair.both[0].state[gone][k] is x for k, x in kept.items())


def test_an_average_begins_at_the_first_step():
    """Weights that are loaded after the optimizer was made are those that count."""
    p = nn.Parameter(torch.zeros(2))
    optimizer = TorchOptimizer([p], optfx.chain(optfx.sgd(0.1), optfx.params_ema(0.5)))
    assert optimizer.state[p]["1.ema"].tolist() == [0, 0]
    p.data.copy_(torch.ones(2))
    with optimizer.evaluating():
        assert p.tolist() == [1, 1]
    p.grad = torch.zeros(2)
    optimizer.step()
    assert optimizer.state[p]["1.ema"].tolist() == [1, 1]


# ---- names -----------------------------------------------------------------------------------------


def decay_of_weights():
    return optfx.adamw(0.1, weight_decay=0.5, mask=optfx.select.path("*.weight"))


def test_names_go_with_their_parameters():
    """When one leaves, the masks of the others stay."""
    params = parameters()
    optimizer = TorchOptimizer(list(params.items()), decay_of_weights())
    optimizer.param_groups[0]["params"].pop(1)
    optimizer.param_groups[0]["params"].append(nn.Parameter(torch.ones(2)))
    before = {name: p.detach().clone() for name, p in params.items()}
    for p in params.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert optimizer.param_groups[0]["param_names"] == ["a.weight", "b.weight", "late", "3"]
    for name, p in params.items():
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if name.endswith(".weight") else 1.0))


def trained(order, compile=False):
    params = parameters()
    optimizer = TorchOptimizer([(name, params[name]) for name in order], decay_of_weights(), compile=compile)
    return optimizer, params


@COMPILE
def test_a_state_is_found_by_name(compile):
    names = list(SHAPES)
    first, params = trained(names, compile)
    for k in range(3):
        give(params, k)
        first.step()
    second, others = trained(names[::-1], compile)
    for name, p in others.items():
        p.data.copy_(params[name].detach())
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["param_names"] == names[::-1]
    for k in range(3, 6):
        for optimizer, of in ((first, params), (second, others)):
            give(of, k)
            optimizer.step()
    assert_same(params.values(), [others[name] for name in params], 1e-12)


def test_groups_are_found_by_name_too():
    def make(split):
        params = parameters()
        groups = [{"params": [(n, params[n]) for n in names], "lr": rate} for names, rate in split]
        return TorchOptimizer(groups, decay_of_weights())

    saved = make([(["a.weight", "late"], 0.1), (["a.bias", "b.weight"], 0.2)]).state_dict()
    other = make([(["b.weight", "a.bias"], 1.0), (["late", "a.weight"], 1.0)])
    other.load_state_dict(saved)
    assert [group["lr"] for group in other.param_groups] == [0.2, 0.1]
    assert [group["param_names"] for group in other.param_groups] == [["b.weight", "a.bias"], ["late", "a.weight"]]
    with pytest.raises(ValueError, match="it has no parameter 'late'"):
        other.load_state_dict(make([(["a.weight"], 0.1), (["a.bias", "b.weight"], 0.2)]).state_dict())
    with pytest.raises(ValueError, match="its parameter 'late' is not here"):
        make([(["a.weight"], 0.1), (["a.bias", "b.weight"], 0.2)]).load_state_dict(saved)


def test_names_of_a_checkpoint_do_not_become_those_of_the_optimizer():
    """A state that was saved without names, or under other names, goes by place."""
    params = parameters()
    named = TorchOptimizer(list(params.items()), decay_of_weights())
    plain = TorchOptimizer(parameters().values(), decay_of_weights())
    named.load_state_dict(plain.state_dict())
    assert named.param_groups[0]["param_names"] == list(params)
    plain.load_state_dict(named.state_dict())
    assert "param_names" not in plain.param_groups[0]
    named.add_param_group({"params": [("more", nn.Parameter(torch.ones(1)))]})
    before = {name: p.detach().clone() for name, p in params.items()}
    for p in params.values():
        p.grad = torch.zeros_like(p)
    named.step()
    for name, p in params.items():
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if name.endswith(".weight") else 1.0))


# ---- loading ---------------------------------------------------------------------------------------


def test_an_older_state_without_a_number_takes_the_optimizers_own():
    pair = Pair()
    saved = pair.both[0].state_dict()
    for group in saved["param_groups"]:
        del group["maximize"], group["eps"]
    pair.both[0].param_groups[1]["eps"] = 0.5
    pair.both[0].load_state_dict(saved)
    assert [(group["maximize"], group["eps"]) for group in pair.both[0].param_groups] == [(False, 1e-8), (False, 0.5)]
    pair.both[0].param_groups[1]["eps"] = 1e-8
    pair.step(2)
    pair.check()


def test_a_state_of_another_precision_on_request():
    pair = Pair()
    pair.step(2)
    saved = copy.deepcopy(pair.both[0].state_dict())
    for kept in saved["state"].values():
        kept |= {k: x.float() for k, x in kept.items() if x.dtype == torch.float64}
    with pytest.raises(ValueError, match=r"expected .* torch\.float64; cast=True converts it"):
        pair.both[0].load_state_dict(saved)
    pair.both[0].load_state_dict(saved, cast=True)
    assert {x.dtype for kept in pair.both[0].state.values() for x in kept.values()} == {torch.float64, torch.int64}
    pair.step(2)
    pair.check(1e-4)


@pytest.mark.parametrize("around", ["ema after", "clip before and ema"])
def test_a_part_of_a_state_on_request(around):
    """An average is put around a running optimizer."""
    pair = Pair()
    pair.step(3)
    saved, params = pair.both[0].state_dict(), pair.params[0]
    adamw = written(torch.optim.AdamW, {"lr": 0.1})
    steps = [adamw, optfx.params_ema(0.5)]
    tx = optfx.chain(*([optfx.clip_by_global_norm(1e9), *steps] if around != "ema after" else steps))
    larger = TorchOptimizer(Pair._groups(params, 2, False), tx)
    with pytest.raises(ValueError, match=r"lacks '.*ema'"):
        larger.load_state_dict(saved)
    larger.load_state_dict(saved, partial=True)
    at = "0" if around == "ema after" else "1"
    p = params["a.bias"]
    assert torch.equal(larger.state[p][f"{at}.0.mu"], pair.both[0].state[p]["0.mu"])
    assert int(larger.state[p][f"{at}.0.count"]) == 3
    pair.both = larger, pair.both[1]
    pair.step(2)
    pair.check()
    with pytest.raises(ValueError, match=r"has the unexpected '0\.mu'"):
        TorchOptimizer(Pair._groups(params, 2, False), optfx.sgd(0.1, 0.9)).load_state_dict(saved, partial=True)


def test_new_parameters_in_a_part_of_a_state():
    names = list(SHAPES)
    first, params = trained(names[:2])
    give(params, 0)
    first.step()
    second, others = trained(names)
    with pytest.raises(ValueError, match=r"it has no parameter 'b\.weight'"):
        second.load_state_dict(first.state_dict())
    second.load_state_dict(first.state_dict(), partial=True)
    counts = [int(second.state[others[name]]["0.count"]) for name in names]
    assert counts == [1, 1, 0, 0]


@COMPILE
def test_after_loading_the_parameters_of_a_group_share_their_counts(compile):
    """Or each of them would be an owner of its own."""
    pair = Pair(compile=compile)
    pair.step(2, rest=["late"])
    pair.step()
    file = io.BytesIO()
    torch.save(pair.both[0].state_dict(), file)
    file.seek(0)
    pair.both[0].load_state_dict(torch.load(file))
    pair.step()
    mine, state = pair.params[0], pair.both[0].state
    assert state[mine["a.weight"]]["0.count"] is state[mine["a.bias"]]["0.count"]
    assert [int(state[mine[name]]["0.count"]) for name in mine] == [4, 4, 4, 2]
    pair.check()


# ---- what holds an optimizer, and what it holds ----------------------------------------------------


@COMPILE
@pytest.mark.parametrize(
    "how",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: saved_and_loaded(x)],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_copies_go_on(how, compile):
    pair = Pair(named=True, compile=compile)
    pair.step(2, rest=["late"])
    optimizer, params = how((pair.both[0], pair.params[0]))
    pair.both, pair.params = (optimizer, pair.both[1]), (params, pair.params[1])
    extended(optimizer, params)
    extended(pair.both[1], pair.params[1])
    pair.step(3)
    pair.check()


def saved_and_loaded(x):
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@COMPILE
def test_nothing_keeps_its_callers_alive(compile):
    """Without the collector of cycles, an optimizer dies with the function that made it."""

    def run():
        large = torch.ones(1000)
        params = parameters()
        tx = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(0.1))
        optimizer = TorchOptimizer(params.values(), tx, compile=compile)
        give(params, 0)
        optimizer.step()
        return [
            weakref.ref(x) for x in (large, params["late"], optimizer, next(iter(optimizer.state.values()))["0.norm"])
        ]

    run()
    gc.collect()
    gc.disable()
    try:
        assert [found() is None for found in run()] == [True] * 4
    finally:
        gc.enable()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_torch_compile_of_the_step(backend):
    pair = Pair(lambda: optfx.sgd(0.1, 0.5), lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.5), groups=1)
    step = torch.compile(pair.both[0].step, backend=backend)
    for k, rate in enumerate((0.1, 0.2, 0.05, 0.4)):
        for optimizer, params, take in zip(pair.both, pair.params, (step, pair.both[1].step), strict=True):
            give(params, k)
            optimizer.param_groups[0]["lr"] = rate
            take()
    pair.check()


def most_memory(step):
    """The most bytes that a step holds at a time beyond what there was before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()  # only what was allocated under the profiler is seen to be freed
        with torch.profiler.record_function("measured"):
            step()
    events = sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns())
    begin = next(k for k, e in enumerate(events) if e.name() == "measured")
    now = most = 0
    for event in events[begin:]:
        now += event.nbytes() if event.name() == "[memory]" else 0
        most = max(most, now)
    return most


@pytest.mark.parametrize(
    ("make", "most"),
    [(optfx.adamw, 0.5), (lambda lr: optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(lr)), 1.5)],
    ids=["adamw", "clip and adamw"],
)
def test_the_memory_of_a_step(make, most, monkeypatch):
    """In copies of the parameters. A norm of all needs one, for the clipped gradients."""
    monkeypatch.setattr(program, "BLOCK", 1 << 14)
    params = [nn.Parameter(torch.ones(1 << 12)) for _ in range(40)]
    optimizer = TorchOptimizer(params, make(1e-3))
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert most_memory(optimizer.step) < most * sum(p.nbytes for p in params)


# ---- from torch's own ------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "cls"), [pytest.param(o, c, id=name) for name, o, c in cases()])
def test_the_state_of_an_optimizer_of_torch_is_taken_over(options, cls):
    """In the middle of a run, of which one parameter saw less than the others; the numbers come along."""
    pair = Pair(lambda: written(cls, options), lambda groups: cls(groups, **options), groups=1)
    for k in range(7):
        give(pair.params[1], k, ["late"] if k < 3 else [])
        pair.both[1].step()
    for p, q in zip(*(of.values() for of in pair.params), strict=True):
        p.data.copy_(q.detach())
    tx = written(cls, {k: x for k, x in options.items() if k != "maximize"})
    if cls is not torch.optim.Adafactor:  # whose schedule has its own
        tx = core.with_numbers(tx, {k: 0.77 for k in core.numbers(tx) if k.endswith("learning_rate")})
    around = optfx.chain(optfx.clip_by_global_norm(1e9), tx, optfx.params_ema(0.5))
    ours = TorchOptimizer(pair.params[0].values(), around)
    ours.load_torch_state_dict(pair.both[1].state_dict())
    pair.both, pair.k = (ours, pair.both[1]), 7
    pair.step(10, rest=["a.bias"])
    pair.step(3)
    pair.check(1e-3 if cls is torch.optim.Muon else 1e-10)


def test_what_cannot_be_taken_over():
    params = list(parameters().values())
    for p in params:
        p.grad = torch.ones_like(p)

    def saved(cls, **options):
        optimizer = cls(params, **options)
        optimizer.step()
        return optimizer.state_dict()

    for tx, theirs, words in (
        (
            optfx.adamw(0.1),
            saved(torch.optim.SGD, lr=0.1, momentum=0.9),
            "which keeps momentum_buffer; .* has none like it",
        ),
        (
            optfx.adam(0.1),
            saved(torch.optim.AdamW, lr=0.1),
            "weight_decay is 0.01, and there is no add_decayed_weights",
        ),
        (
            optfx.sgd(0.1, 0.9),
            saved(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
            "trace.nesterov is False here",
        ),
        (optfx.adamw(0.1), saved(torch.optim.Adam, lr=0.1, amsgrad=True), "has none like it"),
        (
            written(torch.optim.Adagrad, {"lr_decay": 0.5}),
            saved(torch.optim.Adagrad, lr_decay=0.1),
            "scale_by_schedule.step_size_fn is .*0.5.* here, and .*0.1.* for the saved state",
        ),
    ):
        optimizer = TorchOptimizer(params, tx)
        before = copy.deepcopy(optimizer.state_dict())
        with pytest.raises(ValueError, match=words):
            optimizer.load_torch_state_dict(theirs)
        after = optimizer.state_dict()
        assert before["param_groups"] == after["param_groups"]
        assert all(torch.equal(x, after["state"][i][k]) for i, of in before["state"].items() for k, x in of.items())


def test_what_is_made_before_the_first_step_is_made_anew_wherever_it_went():
    """Rprop's first step sizes are the rate of the group that a parameter is in when it takes its first step."""

    def torchs(groups):
        return torch.optim.Rprop(groups, lr=0.1)

    tx = lambda: optfx.chain(optfx.clip_by_global_norm(1e9), written(torch.optim.Rprop, {"lr": 0.1}))
    for change in (popped_and_back, replaced_with_state_if_any):
        pair = Pair(tx, torchs)
        pair.both[0].eval()
        pair.both[0].train()
        pair.each(change)
        pair.each(lambda optimizer, _: optimizer.param_groups[1].update(lr=0.02))
        pair.step(3)
        pair.check()


def replaced_with_state_if_any(optimizer, params):
    old = dict(params)
    replaced(optimizer, params)
    for name, p in params.items():
        if old[name] in optimizer.state:
            optimizer.state[p] = optimizer.state.pop(old[name])


def test_what_was_saved_before_the_first_step_is_made_anew_in_it():
    pair = Pair(lambda: written(torch.optim.Rprop, {"lr": 0.1}), lambda groups: torch.optim.Rprop(groups, lr=0.1))
    pair.step(rest=["late"])
    pair.each(lambda optimizer, _: optimizer.load_state_dict(optimizer.state_dict()))
    pair.each(lambda optimizer, _: optimizer.param_groups[1].update(lr=0.02))
    pair.step(3)
    pair.check()


def test_counts_that_become_one_take_no_first_step():
    """A parameter that moves to a group that was added, before its first step."""
    ours, theirs = [nn.Parameter(torch.ones(3))], [nn.Parameter(torch.ones(3))]
    both = TorchOptimizer(ours, written(torch.optim.Rprop, {"lr": 0.01})), torch.optim.Rprop(theirs, lr=0.01)
    for optimizer, params in zip(both, (ours, theirs), strict=True):
        params.append(nn.Parameter(torch.zeros(3)))
        optimizer.add_param_group({"params": params[1:], "lr": 0.07})
        optimizer.param_groups[1]["params"].append(optimizer.param_groups[0]["params"].pop())
        for p in params:
            p.grad = torch.ones(3)
        optimizer.step()
    assert_same(ours, theirs)


# ---- parameters that have no values yet --------------------------------------------------------------


@COMPILE
def test_parameters_that_get_values_later(compile, monkeypatch):
    """As those of `fully_shard` do, which stay the same objects."""
    monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)
    tx = optfx.chain(optfx.clip_by_global_norm(1e9), optfx.adamw(0.1, weight_decay=0.01))
    made = []
    for make in (lambda p: TorchOptimizer(p, tx, compile=compile), lambda p: torch.optim.AdamW(p, lr=0.1)):
        model = nn.Linear(3, 2, device="meta")
        optimizer = make(model.parameters())
        optimizer.load_state_dict(optimizer.state_dict())  # as accelerate does
        model.to_empty(device="cpu")
        for p in model.parameters():
            nn.init.ones_(p)
        for _ in range(3):
            optimizer.zero_grad()
            (model(torch.ones(1, 3)) ** 2).sum().backward()
            optimizer.step()
        made.append([*model.parameters()])
    assert_same(*made)


@COMPILE
def test_parameters_that_never_get_values(compile):
    model = nn.Linear(3, 2, device="meta")
    optimizer = TorchOptimizer(model.named_parameters(), optfx.adamw(0.1), compile=compile)
    model.to_empty(device="cpu")  # these are other parameters
    model(torch.ones(1, 3)).sum().backward()
    with pytest.raises(RuntimeError, match="the parameter 'weight' is on the meta device, and has no values"):
        optimizer.step()
    trained = TorchOptimizer(model.named_parameters(), optfx.adamw(0.1))
    trained.step()
    with pytest.raises(RuntimeError, match="the parameter 'weight' is on the meta device"):
        optimizer.load_state_dict(trained.state_dict())
    with pytest.raises(RuntimeError, match="the parameter 'weight' is on the meta device"):
        optimizer.eval()
