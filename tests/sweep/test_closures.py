"""Functions in an optimizer that close over settings: each member has its own numbers."""

import dataclasses
import functools
from types import SimpleNamespace

import pytest
import torch
from torch.func import grad, vmap

import optfx
from optfx import core, sweep, tree
from optfx.tree.closures import closure

HALF = torch.tensor(0.5, dtype=torch.float64)
RATES = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
START = {"w": torch.ones(3, dtype=torch.float64)}  # as long as there are members: no broadcasting gives it away


def loss_fn(params, batch):
    return (params["w"] - batch).square().sum()


def fit(make_optimizer, configs=None, **options):
    batches = [torch.zeros(3, dtype=torch.float64)]
    configs = configs or {"rate": RATES}
    return sweep.fit(make_optimizer, configs, loss_fn, START, batches, steps=4, progress=False, **options)


def falling(count, rate):
    return rate * HALF**count


class Falling:
    def __init__(self, config):
        self.rate = config["rate"]

    def __call__(self, count):
        return falling(count, self.rate)

    def at(self, count):
        return falling(count, self.rate)


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: torch.Tensor


def of_itself(config):
    def f(count, depth=0):
        return falling(count, config["rate"]) if depth else f(count, 1)

    return f


def by_name(config):
    rate = config["rate"]
    return lambda count: falling(count, rate)


def by_attribute(config, kind):
    settings = kind(rate=config["rate"])
    return lambda count: falling(count, settings.rate)


def of_another(config):
    other = by_name(config)
    return lambda count: other(count)


SCHEDULES = {
    "a cell": lambda c: lambda count: falling(count, c["rate"]),
    "a name": by_name,
    "a default": lambda c: lambda count, rate=c["rate"]: falling(count, rate),
    "a keyword": lambda c: lambda count, *, rate=c["rate"]: falling(count, rate),
    "partial": lambda c: functools.partial(falling, rate=c["rate"]),
    "an instance": Falling,
    "a method": lambda c: Falling(c).at,
    "a namespace": functools.partial(by_attribute, kind=SimpleNamespace),
    "a dataclass": functools.partial(by_attribute, kind=Settings),
    "another function": of_another,
    "itself": of_itself,
    "in a schedule": lambda c: optfx.schedules.lambda_lr(1.0, lambda count: falling(count, c["rate"])),
    "joined": lambda c: optfx.join_schedules([by_name(c), lambda count: falling(count + 2, c["rate"])], [2]),
}
WAYS = {"blocks": {}, "together": {"compile": False}, "in chunks": {"compile": False, "chunk_size": 2}}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    want = fit(lambda c: optfx.sgd(optfx.exponential_decay(c["rate"], 1, 0.5))).params["w"]
    for way in WAYS.values():
        got = fit(lambda c: optfx.sgd(SCHEDULES[name](c)), **way).params["w"]
        torch.testing.assert_close(got, want, rtol=1e-13, atol=0)


def test_functions_of_leaves():
    """Nothing but the numbers would tell that a factor stands for all members."""
    want = fit(lambda c: optfx.sgd(c["rate"])).params["w"]
    for way in WAYS.values():
        got = fit(lambda c: optfx.stateless(lambda u, p: tree.map(lambda x: -c["rate"] * x, u)), **way).params["w"]
        torch.testing.assert_close(got, want, rtol=1e-13, atol=0)


def test_a_setting_that_only_a_function_reads_is_read():
    configs = {"rate": RATES, "every": torch.tensor([1, 2, 3])}
    made = lambda c: optfx.sgd(lambda count: c["rate"] * HALF ** (count // c["every"]))
    got = fit(made, configs).params["w"]
    for k, every in enumerate((1, 2, 3)):
        alone = fit(lambda c, every=every: optfx.sgd(lambda count: c["rate"] * HALF ** (count // every)))
        torch.testing.assert_close(got[k], alone.params["w"][k], rtol=1e-13, atol=0)
    with pytest.raises(ValueError, match="no function reads 'every'"):
        fit(lambda c: optfx.sgd(lambda count: c["rate"] * HALF**count), configs)


def test_a_population_goes_on():
    result = fit(lambda c: optfx.adam(by_name(c)), rungs=[2], policy=sweep.halve(2))
    whole = fit(lambda c: optfx.adam(by_name(c)))
    best = result.best().index
    torch.testing.assert_close(result.params["w"][best], whole.params["w"][best], rtol=0, atol=0)


def test_a_method_that_closes_over_a_setting_is_an_error():
    def make_optimizer(config):
        @tree.record
        class Mine(core.GradientTransformation):
            def begin(self, params):
                return ()

            def step(self, updates, state, params, **extra):
                return tree.map(lambda u: -config["rate"] * u, updates), state

        return Mine()

    for way in WAYS.values():
        with pytest.raises(TypeError, match=r"Mine\.step uses a number of config that is none of its fields"):
            fit(make_optimizer, **way)


def test_what_torch_compile_cannot_follow_runs_without():
    want = fit(lambda c: optfx.sgd(by_name(c)))
    with pytest.warns(UserWarning, match="closes over a number of config"):
        got = fit(lambda c: optfx.sgd(by_name(c)), compile="aot_eager")
    assert torch.equal(got.params["w"], want.params["w"])
    assert torch.equal(
        fit(lambda c: optfx.sgd(SCHEDULES["partial"](c)), compile="aot_eager").params["w"], want.params["w"]
    )


def test_transforms_of_functions():
    """By hand, too: a record that leaves `vmap` shows what its functions hold, and nothing else changes."""
    table = torch.ones(2)
    txs = vmap(lambda rate: optfx.scale_by_schedule(lambda count: rate * table[count]))(RATES)
    (shown,) = tree.leaves(txs)
    assert torch.equal(shown, RATES)
    assert isinstance(txs.step_size_fn, closure)
    assert repr(txs.step_size_fn).endswith("<lambda>")
    count = torch.tensor(1)
    assert torch.equal(vmap(lambda tx: tx.step_size_fn(count))(txs), RATES)
    assert tree.leaves(optfx.scale_by_schedule(lambda count: table[count])) == []

    def after(rate):
        tx = optfx.sgd(lambda count: rate * HALF**count)
        state = tx.init(START)
        updates, _ = tx.update(START, state, START)
        return tree.map(torch.add, START, updates)["w"].sum()

    assert grad(after)(RATES[0]) == -3
    assert torch.equal(vmap(grad(after))(RATES), torch.full((3,), -3.0, dtype=torch.float64))
