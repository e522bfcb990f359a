"""The recipes of `optfx.interop.torch_specs` against `torch.optim`, in float64, step by step: all option combinations,
real and complex parameters, at a constant rate and under a schedule."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch

import optfx
from optfx.interop.torch_specs import SPECS

STEPS = 15
SHAPES = {"scalar": (), "vector": (4,), "matrix": (3, 2), "kernel": (2, 2, 1, 3), "dead": (2,)}


@functools.cache
def problem():
    """Parameters and gradients, real and complex; "dead" never gets a gradient other than zero."""
    generator = torch.Generator().manual_seed(0)

    def draw(scale=1.0):
        return {
            f"{name}_{dtype}": scale * torch.randn(shape, generator=generator, dtype=dtype)
            for name, shape in SHAPES.items()
            for dtype in (torch.float64, torch.complex128)
        }

    start, grads = draw(), [draw(10.0 ** (k % 4 - 2)) for k in range(STEPS)]
    for g in grads:
        for name in g:
            if name.startswith("dead"):
                g[name].zero_()
    grads[5] = {name: torch.zeros_like(g) for name, g in grads[5].items()}
    return start, grads


def fading(step):
    return 0.7 ** (step % 4) / (1 + 0.1 * step)


def everything(name):
    return True


def real(name):
    return name.endswith("float64")


def real_matrix(name):
    return name == "matrix_torch.float64"


ONLY = {torch.optim.Adafactor: real, torch.optim.Muon: real_matrix}  # what torch has them for


def kept(tree, cls):
    keep = ONLY.get(cls, everything)
    return {leaf: x for leaf, x in tree.items() if keep(leaf)}


def run_ours(make, rate, schedule=False, cls=None):
    table = torch.tensor([rate * fading(step) for step in range(STEPS)], dtype=torch.float64)
    tx = make((lambda count: table[count]) if schedule else rate)
    params, grads = problem()
    params = kept(params, cls)
    state = tx.init(params)
    for g in grads:
        updates, state = tx.update(kept(g, cls), state, params)
        params = optfx.apply_updates(params, updates)
        yield params


def run_torch(cls, options, schedule=False):
    start, grads = problem()
    params = {leaf: p.clone().requires_grad_() for leaf, p in kept(start, cls).items()}
    optimizer = cls(params.values(), **options, **({} if cls is torch.optim.Muon else {"foreach": False}))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, fading if schedule else lambda step: 1.0)
    for g in grads:
        for leaf, p in params.items():
            p.grad = g[leaf].clone()
        optimizer.step()
        scheduler.step()
        yield params


def written(cls, options):
    """The optimizer as a function of the rate."""
    spec = SPECS[cls]
    return lambda rate: spec.make(spec.defaults | options | {"lr": rate})


BETAS = {"betas": (0.8, 0.97), "eps": 1e-5}
DECOUPLED = {"decoupled_weight_decay": True}
OPTIONS = {
    torch.optim.SGD: [
        {},
        {"momentum": 0.9},
        {"momentum": 0.8, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True},
        {"dampening": 0.3},  # of no momentum
    ],
    torch.optim.Adam: [BETAS, BETAS | {"amsgrad": True}, BETAS | DECOUPLED, BETAS | {"amsgrad": True} | DECOUPLED],
    torch.optim.AdamW: [{}, {"amsgrad": True}],
    torch.optim.NAdam: [BETAS | {"momentum_decay": psi} for psi in (4e-3, 0.5)] + [BETAS | DECOUPLED],
    torch.optim.RAdam: [BETAS | {"eps": 1e-3}, BETAS | {"eps": 1e-3} | DECOUPLED],
    torch.optim.Adamax: [BETAS],
    torch.optim.Adadelta: [{"rho": 0.7, "eps": 1e-4}],
    torch.optim.ASGD: [{"lambd": 0.1, "alpha": 0.5, "t0": t0} for t0 in (1e6, 4.0)],
    torch.optim.Rprop: [{"etas": (0.6, 1.4), "step_sizes": (1e-2, 0.1)}],
    torch.optim.Adafactor: [{}, {"eps": (1e-3, 0.5), "d": 1.5}],
    torch.optim.Muon: [{}, {"nesterov": False, "adjust_lr_fn": "match_rms_adamw"}],
    torch.optim.RMSprop: [
        {"alpha": 0.95, "eps": 1e-6, "centered": centered, "momentum": momentum}
        for centered, momentum in itertools.product((False, True), (0, 0.6))
    ],
    torch.optim.Adagrad: [
        {"eps": 1e-9, "lr_decay": lr_decay, "initial_accumulator_value": start}
        for lr_decay, start in itertools.product((0, 0.2), (0.0, 0.3))
    ],
}


def cases():
    for cls, grid in OPTIONS.items():
        more = {"weight_decay": (0.0, 0.1), "maximize": (False, True)}
        more = {name: values for name, values in more.items() if name in SPECS[cls].defaults}
        for options, values in itertools.product(grid, itertools.product(*more.values())):
            given = options | dict(zip(more, values, strict=True))
            words = [f"{name}={x}" for name, x in given.items() if x]
            yield pytest.param(cls, given, id=" ".join([cls.__name__, *words]))


def test_every_optimizer_is_here():
    assert OPTIONS.keys() == SPECS.keys()


@pytest.fixture
def wide_scalars():
    """torch keeps some numbers of NAdam and ASGD in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("schedule", [False, True], ids=["constant", "schedule"])
@pytest.mark.parametrize(("cls", "options"), list(cases()))
def test_it_is_torchs(cls, options, schedule, wide_scalars):
    mine, theirs = (
        run_ours(written(cls, options), 0.02, schedule, cls),
        run_torch(cls, {"lr": 0.02} | options, schedule),
    )
    for a, b in zip(mine, theirs, strict=True):
        for leaf in a:
            torch.testing.assert_close(
                a[leaf], b[leaf].detach(), rtol=1e-12, atol=1e-13, msg=lambda m, n=leaf: f"{n}: {m}"
            )


@pytest.mark.parametrize("cls", list(SPECS), ids=lambda cls: cls.__name__)
def test_the_defaults_of_a_recipe_are_torchs(cls, wide_scalars):
    for recipe in SPECS[cls].recipes:
        mine = run_ours(written(cls, recipe.when), SPECS[cls].defaults["lr"], cls=cls)
        for a, b in zip(mine, run_torch(cls, recipe.when), strict=True):
            for leaf in a:
                torch.testing.assert_close(a[leaf], b[leaf].detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("adamw", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
        ("adagrad", torch.optim.Adagrad),
        ("nadam", torch.optim.NAdam),
        ("adafactor", torch.optim.Adafactor),
        ("muon", torch.optim.Muon),
    ],
)
def test_our_defaults_do_differ(name, cls):
    """The recipes have no argument too many: with our defaults, torch's numbers do not come out."""
    *_, a = run_ours(getattr(optfx, name), SPECS[cls].defaults["lr"], cls=cls)
    *_, b = run_torch(cls, {})
    assert not torch.allclose(a["matrix_torch.float64"], b["matrix_torch.float64"], rtol=1e-6)


def test_the_rate_before_or_after_the_momentum_matters_only_under_a_schedule():
    for schedule in (False, True):
        *_, before = run_ours(lambda rate: optfx.rmsprop(rate, momentum=0.9), 0.02, schedule)
        *_, after = run_ours(lambda rate: optfx.rmsprop(rate, momentum=0.9, momentum_after_lr=False), 0.02, schedule)
        equal = torch.allclose(before["matrix_torch.float64"], after["matrix_torch.float64"], rtol=1e-10)
        assert equal is not schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optfx.sgd(0.1, nesterov=True), "nesterov without a momentum"),
        (lambda: optfx.sgd(0.1, dampening=0.1), "dampening without a momentum"),
        (lambda: optfx.rmsprop(0.1, nesterov=True), "nesterov without a momentum"),
        (lambda: optfx.adam(0.1, mask=True), "no weight_decay"),
        (lambda: optfx.sgd(0.1, mask=True), "no weight_decay"),
        (lambda: optfx.adafactor(relative_step=True), "relative_step without a learning_rate"),
        (lambda: optfx.adafactor(0.1, weight_decay_mask=True), "no weight_decay_rate"),
        (lambda: optfx.scale_by_factored_rms(epsilon=None), "needs epsilon_is_floor=True"),
        (lambda: optfx.amsgrad(0.1, bias_correction_nu="before"), "'before', expected True, False or 'after_max'"),
    ],
)
def test_arguments_that_would_do_nothing_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_coupled_decay_may_be_masked():
    tx = optfx.sgd(1.0, weight_decay=0.5, mask=optfx.select.ndim(min=2))
    params = {"w": torch.ones(1, 1), "b": torch.ones(1)}
    updates, _ = tx.update(optfx.tree.zeros_like(params), tx.init(params), params)
    assert updates == {"w": torch.tensor([[-0.5]]), "b": torch.tensor([0.0])}


def test_nothing_absent_is_in_the_chain():
    assert len(optfx.sgd(0.1).steps) == 1
    assert len(optfx.sgd(0.1, 0.0, weight_decay=0.0).steps) == 3  # a zero is a number like any other
    assert len(optfx.adagrad(0.1).steps) == 2
    assert len(optfx.adagrad(0.1, lr_decay=0.0, weight_decay=0.0).steps) == 4


def test_a_count_may_be_an_int_or_a_tensor():
    schedule = optfx.schedules.inverse_time_decay(torch.tensor(0.25))
    assert schedule(4).dtype == torch.float64
    assert schedule(4) == schedule(torch.tensor(4)) == 0.5
