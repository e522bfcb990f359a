"""torch's schedulers: each class drives an SGD in float64 step by step, and the closed forms give the same rates."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import lr_scheduler as classes

from optfx import schedules

BASE = 0.3


def drive(make, steps, name="lr", base=BASE):
    """What torch's class makes of the rate (or the momentum), at counts 0 to `steps`."""
    optimizer = torch.optim.SGD([torch.zeros(())], lr=base, momentum=0.5)
    scheduler = make(optimizer)
    values = [float(optimizer.param_groups[0][name])]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        values.append(float(optimizer.param_groups[0][name]))
    return torch.tensor(values, dtype=torch.float64)


def check(schedule, expected, drift=0.0):
    """Equal to 1e-12, relative to the value, or to rounding of the largest value.

    drift: what torch's own recursion is off by, relative to the largest value.
    """
    values = torch.stack([schedule(torch.tensor(count)) for count in range(len(expected))])
    atol = max(drift, 4e-16) * expected.abs().max().item()
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=atol)


def halving(x):
    return 0.5 ** (x / 10)


# name, torch's class, arguments of both, steps
RATES = [
    ("step_lr", "StepLR", {"step_size": 7}, 50),
    ("step_lr", "StepLR", {"step_size": 1, "gamma": 0.9}, 50),
    ("step_lr", "StepLR", {"step_size": 10, "gamma": 2.0}, 50),
    ("step_lr", "StepLR", {"step_size": 3, "gamma": 0.0}, 20),
    ("multi_step_lr", "MultiStepLR", {"milestones": [10, 30]}, 50),
    ("multi_step_lr", "MultiStepLR", {"milestones": [30, 10, 10, 0], "gamma": 0.7}, 50),
    ("multi_step_lr", "MultiStepLR", {"milestones": []}, 10),
    ("constant_lr", "ConstantLR", {}, 20),
    ("constant_lr", "ConstantLR", {"factor": 0.1, "total_iters": 12}, 30),
    ("constant_lr", "ConstantLR", {"factor": 1.0, "total_iters": 1}, 5),
    ("linear_lr", "LinearLR", {}, 20),
    ("linear_lr", "LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 13}, 30),
    ("linear_lr", "LinearLR", {"start_factor": 0.001, "end_factor": 0.9, "total_iters": 100}, 130),
    ("linear_lr", "LinearLR", {"start_factor": 0.25, "total_iters": 0}, 10),
    ("exponential_lr", "ExponentialLR", {"gamma": 0.9}, 100),
    ("exponential_lr", "ExponentialLR", {"gamma": 1.05}, 100),
    ("polynomial_lr", "PolynomialLR", {}, 20),
    ("polynomial_lr", "PolynomialLR", {"total_iters": 40, "power": 2.5}, 60),
    ("polynomial_lr", "PolynomialLR", {"total_iters": 40, "power": 0.5}, 60),
    ("polynomial_lr", "PolynomialLR", {"total_iters": 40, "power": 0.0}, 60),
    ("polynomial_lr", "PolynomialLR", {"total_iters": 0}, 10),
    ("cosine_annealing_lr", "CosineAnnealingLR", {"T_max": 10}, 70),
    ("cosine_annealing_lr", "CosineAnnealingLR", {"T_max": 37, "eta_min": 0.05}, 250),
    ("cosine_annealing_lr", "CosineAnnealingLR", {"T_max": 1, "eta_min": 0.1}, 9),
    ("cosine_annealing_lr", "CosineAnnealingLR", {"T_max": 2, "eta_min": 0.4}, 20),
    ("cosine_annealing_warm_restarts", "CosineAnnealingWarmRestarts", {"T_0": 10}, 45),
    ("cosine_annealing_warm_restarts", "CosineAnnealingWarmRestarts", {"T_0": 1}, 5),
    ("cosine_annealing_warm_restarts", "CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2, "eta_min": 0.01}, 700),
    ("cosine_annealing_warm_restarts", "CosineAnnealingWarmRestarts", {"T_0": 1, "T_mult": 3}, 1100),
    ("cosine_annealing_warm_restarts", "CosineAnnealingWarmRestarts", {"T_0": 7, "T_mult": 10}, 900),
    ("lambda_lr", "LambdaLR", {"lr_lambda": lambda epoch: 0.95**epoch}, 100),
    ("lambda_lr", "LambdaLR", {"lr_lambda": lambda epoch: 0.5 ** (epoch // 30)}, 100),
    ("lambda_lr", "LambdaLR", {"lr_lambda": lambda epoch: 2.0}, 3),
]


@pytest.mark.parametrize(
    ("name", "of_torch", "kwargs", "steps"), RATES, ids=[f"{c[0]}-{i}" for i, c in enumerate(RATES)]
)
def test_rates(name, of_torch, kwargs, steps):
    expected = drive(lambda optimizer: getattr(classes, of_torch)(optimizer, **kwargs), steps)
    check(getattr(schedules, name)(BASE, **kwargs), expected, drift=2e-14)


CLOSED = [case for case in RATES if hasattr(getattr(classes, case[1]), "_get_closed_form_lr")]
CLOSED = [case for case in CLOSED if case[2].get("total_iters") != 0]  # there it divides by zero


@pytest.mark.parametrize(
    ("name", "of_torch", "kwargs", "steps"), CLOSED, ids=[f"{c[0]}-{i}" for i, c in enumerate(CLOSED)]
)
def test_closed_forms(name, of_torch, kwargs, steps):
    """Where torch has a closed form of its own, that is it: no drift is allowed for."""
    scheduler = getattr(classes, of_torch)(torch.optim.SGD([torch.zeros(())], lr=BASE), **kwargs)
    expected = []
    for scheduler.last_epoch in range(steps + 1):
        expected += scheduler._get_closed_form_lr()
    check(getattr(schedules, name)(BASE, **kwargs), torch.tensor(expected, dtype=torch.float64))


def test_where_torch_drifts():
    """The recursion of CosineAnnealingLR loses digits over many steps; ours is the wave itself."""
    expected = drive(lambda optimizer: classes.CosineAnnealingLR(optimizer, 5000, 0.01), 20000)
    values = torch.func.vmap(schedules.cosine_annealing_lr(BASE, 5000, 0.01))(torch.arange(20001))
    exact = [0.01 + (BASE - 0.01) * (1 + math.cos(math.pi * t / 5000)) / 2 for t in range(20001)]
    torch.testing.assert_close(values, torch.tensor(exact, dtype=torch.float64), rtol=0, atol=4e-16)
    assert 1e-13 < (values - expected).abs().max() < 1e-9


ONE_CYCLE = [
    {"total_steps": 100},
    {"total_steps": 100, "anneal_strategy": "linear"},
    {"total_steps": 57, "pct_start": 0.41},
    {"total_steps": 57, "pct_start": 0.41, "three_phase": True},
    {"total_steps": 60, "pct_start": 0.25, "anneal_strategy": "linear", "three_phase": True},
    {"total_steps": 60, "pct_start": 0.7, "three_phase": True},
    {"total_steps": 40, "pct_start": 0.0},
    {"total_steps": 40, "pct_start": 0.0, "three_phase": True},
    {"total_steps": 40, "pct_start": 1.0},
    {"total_steps": 1},
]
LEVELS = [{}, {"div_factor": 10.0, "final_div_factor": 100.0}]
MOMENTA = [{}, {"base_momentum": 0.3, "max_momentum": 0.99}]


@pytest.mark.parametrize("kwargs", ONE_CYCLE, ids=str)
@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_one_cycle_lr(kwargs, levels):
    expected = drive(lambda o: classes.OneCycleLR(o, 0.7, **kwargs, **levels), kwargs["total_steps"] - 1)
    schedule = schedules.one_cycle_lr(0.7, **kwargs, **levels)
    check(schedule, expected)
    assert schedule(kwargs["total_steps"] + 50) == schedule(kwargs["total_steps"] - 1), "the last rate is held"


@pytest.mark.parametrize("three_phase", [False, True])
def test_a_one_cycle_without_a_way_up_begins_at_its_largest_rate(three_phase):
    """Where the way up ends at count 0, torch divides by zero."""
    kwargs = {"total_steps": 10, "pct_start": 0.1, "three_phase": three_phase}
    with pytest.raises(ZeroDivisionError):
        drive(lambda o: classes.OneCycleLR(o, 0.7, **kwargs), 1)
    assert schedules.one_cycle_lr(0.7, **kwargs)(9).item() == pytest.approx(0.7 / 25 / 1e4)
    if not three_phase:
        assert schedules.one_cycle_lr(0.7, **kwargs)(0).item() == 0.7


@pytest.mark.parametrize("kwargs", ONE_CYCLE, ids=str)
@pytest.mark.parametrize("momenta", MOMENTA, ids=str)
def test_one_cycle_momentum(kwargs, momenta):
    expected = drive(lambda o: classes.OneCycleLR(o, 0.7, **kwargs, **momenta), kwargs["total_steps"] - 1, "momentum")
    check(schedules.one_cycle_momentum(**kwargs, **momenta), expected)


CYCLIC = [
    {"step_size_up": 10},
    {"step_size_up": 10, "mode": "triangular2"},
    {"step_size_up": 10, "mode": "exp_range", "gamma": 0.97},
    {"step_size_up": 4, "step_size_down": 13},
    {"step_size_up": 4, "step_size_down": 13, "mode": "triangular2"},
    {"step_size_up": 13, "step_size_down": 4, "mode": "exp_range", "gamma": 0.97},
    {"step_size_up": 1, "step_size_down": 1},
    {"step_size_up": 7, "step_size_down": 0},
    {"step_size_up": 7, "scale_fn": halving},
    {"step_size_up": 7, "scale_fn": halving, "scale_mode": "iterations"},
]


def named(kwargs):
    """The same words in every process: a function by its name, not its address."""
    return ", ".join(f"{k}={getattr(v, '__name__', v)}" for k, v in kwargs.items())


@pytest.mark.parametrize("kwargs", CYCLIC, ids=named)
def test_cyclic_lr(kwargs):
    expected = drive(lambda o: classes.CyclicLR(o, 0.01, 0.7, cycle_momentum=False, **kwargs), 100)
    check(schedules.cyclic_lr(0.01, 0.7, **kwargs), expected)


@pytest.mark.parametrize("kwargs", CYCLIC, ids=named)
@pytest.mark.parametrize("momenta", MOMENTA, ids=str)
def test_cyclic_momentum(kwargs, momenta):
    expected = drive(lambda o: classes.CyclicLR(o, 0.01, 0.7, **momenta, **kwargs), 100, "momentum")
    check(schedules.cyclic_momentum(**momenta, **kwargs), expected)


def test_sequential_lr():
    def make(o):
        parts = [
            classes.ConstantLR(o, factor=0.1, total_iters=8),
            classes.LinearLR(o, start_factor=0.2, total_iters=6),
            classes.CosineAnnealingWarmRestarts(o, T_0=4, T_mult=2),
            classes.ExponentialLR(o, gamma=0.9),
            classes.CosineAnnealingLR(o, T_max=5, eta_min=0.01),
        ]
        return classes.SequentialLR(o, parts, milestones=[5, 20, 45, 60])

    parts = [
        schedules.constant_lr(BASE, factor=0.1, total_iters=8),
        schedules.linear_lr(BASE, start_factor=0.2, total_iters=6),
        schedules.cosine_annealing_warm_restarts(BASE, T_0=4, T_mult=2),
        schedules.exponential_lr(BASE, gamma=0.9),
        schedules.cosine_annealing_lr(BASE, T_max=5, eta_min=0.01),
    ]
    check(schedules.sequential_lr(parts, [5, 20, 45, 60]), drive(make, 100), drift=2e-14)


def test_sequential_lr_in_sequential_lr():
    """Nested is the same as flat. (torch warns of its own nested class, and gives other rates.)"""
    parts = [schedules.exponential_lr(BASE, 0.9), schedules.step_lr(BASE, 3, 0.5), schedules.linear_lr(BASE)]
    flat = schedules.sequential_lr(parts, [10, 25])
    nested = schedules.sequential_lr([schedules.sequential_lr(parts[:2], [10]), parts[2]], [25])
    counts = torch.arange(40)
    assert torch.equal(torch.func.vmap(nested)(counts), torch.func.vmap(flat)(counts))


@pytest.mark.parametrize(
    ("name", "of_torch", "kwargs"),
    [
        ("constant_lr", "ConstantLR", {"factor": 1.5}),
        ("constant_lr", "ConstantLR", {"factor": -0.1}),
        ("linear_lr", "LinearLR", {"start_factor": 0.0}),
        ("linear_lr", "LinearLR", {"start_factor": 2.0}),
        ("linear_lr", "LinearLR", {"end_factor": -1.0}),
        ("cosine_annealing_warm_restarts", "CosineAnnealingWarmRestarts", {"T_0": 0}),
        ("cosine_annealing_warm_restarts", "CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 0}),
        ("one_cycle_lr", "OneCycleLR", {"total_steps": 0}),
        ("one_cycle_lr", "OneCycleLR", {"total_steps": 10, "pct_start": 1.5}),
        ("one_cycle_lr", "OneCycleLR", {"total_steps": 10, "anneal_strategy": "cubic"}),
        ("cyclic_lr", "CyclicLR", {"max_lr": 1.0, "mode": "square"}),
    ],
)
def test_what_torch_refuses_is_refused_by_name(name, of_torch, kwargs):
    first = {"max_lr": BASE} if name == "one_cycle_lr" else {"base_lr": BASE}
    theirs = {} if name not in ("one_cycle_lr", "cyclic_lr") else first
    with pytest.raises(ValueError):  # noqa: PT011 - torch's own words
        getattr(classes, of_torch)(torch.optim.SGD([torch.zeros(())], lr=BASE, momentum=0.5), **theirs, **kwargs)
    field = next(reversed(kwargs))
    with pytest.raises(ValueError, match=f"{name}: {field} must be"):
        getattr(schedules, name)(**first, **kwargs)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: schedules.step_lr(1.0, 0), "step_size"),
        (lambda: schedules.cosine_annealing_lr(1.0, 0), "T_max"),
        (lambda: schedules.cyclic_lr(0.1, 1.0, step_size_up=0), "step_size_up"),
        (lambda: schedules.cyclic_momentum(step_size_down=-1), "step_size_down"),
        (lambda: schedules.cyclic_lr(0.1, 1.0, scale_fn=halving, scale_mode="steps"), "scale_mode"),
        (lambda: schedules.one_cycle_momentum(total_steps=-3), "total_steps"),
    ],
)
def test_where_torch_would_divide_by_zero_the_argument_is_named(make, field):
    with pytest.raises(ValueError, match=f"{field} must be"):
        make()


def test_sequential_lr_counts_its_milestones():
    parts = [schedules.constant_lr(1.0), schedules.constant_lr(2.0)]
    with pytest.raises(ValueError, match=r"join_schedules: 2 schedules and 3 boundaries"):
        schedules.sequential_lr(parts, [1, 2, 3])
    with pytest.raises(ValueError, match=r"0 schedules and 0 boundaries"):
        schedules.sequential_lr([], [])


def test_constant_lr_without_steps():
    """torch's recursion never lifts the factor when `total_iters` is 0; its closed form does, as here."""
    assert drive(lambda o: classes.ConstantLR(o, 0.5, total_iters=0), 3)[-1].item() == pytest.approx(0.5 * BASE)
    assert schedules.constant_lr(BASE, 0.5, total_iters=0)(3).item() == BASE


def test_what_is_stepped_once_an_epoch():
    """As in a loop of torch: updates with the rate of the epoch, then a step of the scheduler."""
    batches = 4
    expected = drive(lambda optimizer: classes.StepLR(optimizer, 3, 0.5), 8).repeat_interleave(batches)
    check(schedules.per_epoch(schedules.step_lr(BASE, 3, 0.5), batches), expected)
