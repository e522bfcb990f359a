"""optax's fourteen schedules: its values in float64, and where ours differ on purpose."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from optfx import schedules

COUNTS = [*range(60), 99, 100, 101, 1000, 10**6]

CYCLES = [
    {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 5, "decay_steps": 20},
    {"init_value": 0.1, "peak_value": 0.7, "warmup_steps": 0, "decay_steps": 10, "end_value": 0.05},
    {"init_value": 0.2, "peak_value": 0.4, "warmup_steps": 3, "decay_steps": 9, "end_value": 0.5, "exponent": 2.0},
]

# name, positional arguments, keyword arguments
CASES = [
    ("constant_schedule", (0.3,), {}),
    ("constant_schedule", (5,), {}),
    ("polynomial_schedule", (1.0, 0.1, 2.0, 20), {}),
    ("polynomial_schedule", (1.0, 0.1, 1, 20), {"transition_begin": 7}),
    ("polynomial_schedule", (0.0, 3.0, 0.5, 100), {"transition_begin": 0}),
    ("polynomial_schedule", (0.2, 0.1, 3.5, 1), {"transition_begin": 99}),
    ("polynomial_schedule", (0.2, 0.1, 0.0, 20), {}),
    ("polynomial_schedule", (0.2, 0.1, 2.0, 0), {}),
    ("polynomial_schedule", (0.2, 0.1, 2.0, -3), {}),
    ("polynomial_schedule", (0.2, 0.1, 2.0, 10), {"transition_begin": -5}),
    ("linear_schedule", (0.0, 1.0, 20), {}),
    ("linear_schedule", (1.0, 1e-5, 100), {"transition_begin": 10}),
    ("linear_schedule", (1.0, 0.5, 0), {}),
    ("piecewise_constant_schedule", (1.0,), {}),
    ("piecewise_constant_schedule", (1.0, {10: 0.5, 30: 0.1}), {}),
    ("piecewise_constant_schedule", (0.3, {100: 3.0, 0: 0.5, 7: 0.0}), {}),
    ("piecewise_interpolate_schedule", ("linear", 1.0, {10: 0.5, 30: 0.1}), {}),
    ("piecewise_interpolate_schedule", ("cosine", 1.0, {30: 0.1, 10: 4.0, 100: 0.5}), {}),
    ("piecewise_interpolate_schedule", ("linear", 1.0, {0: 0.5, 1: 3.0, 40: 0.0}), {}),
    ("piecewise_interpolate_schedule", ("cosine", 0.7), {}),
    ("exponential_decay", (1.0, 10, 0.5), {}),
    ("exponential_decay", (1.0, 10, 0.5, 5, True), {}),
    ("exponential_decay", (1.0, 10, 0.9, 5, True, 0.7), {}),
    ("exponential_decay", (1.0, 7, 0.9), {"end_value": 0.3}),
    ("exponential_decay", (1.0, 3, 1.3), {"end_value": 20.0}),
    ("exponential_decay", (1.0, 1, 2.0), {"transition_begin": 2, "end_value": 1e3}),
    ("exponential_decay", (1.0, 3, 1.0), {"end_value": 0.5}),
    ("exponential_decay", (0.3, 0, 0.5), {"end_value": 0.4}),
    ("exponential_decay", (0.3, 10, 0.0), {"end_value": 0.4}),
    ("exponential_decay", (0.3, 10, 0.5), {"transition_begin": -4}),
    ("cosine_decay_schedule", (1.0, 20), {}),
    ("cosine_decay_schedule", (0.3, 100), {"alpha": 0.1}),
    ("cosine_decay_schedule", (0.3, 50), {"alpha": 0.1, "exponent": 2.0}),
    ("cosine_decay_schedule", (0.3, 50), {"exponent": 0.5}),
    ("cosine_decay_schedule", (0.3, 1), {}),
    ("linear_onecycle_schedule", (100, 1.0), {}),
    ("linear_onecycle_schedule", (50, 0.3, 0.45, 0.7, 10.0, 100.0), {}),
    ("linear_onecycle_schedule", (33, 0.3), {"pct_start": 0.29, "pct_final": 0.97}),
    ("linear_onecycle_schedule", (33, 0.3), {"pct_start": 0.0}),
    ("cosine_onecycle_schedule", (100, 1.0), {}),
    ("cosine_onecycle_schedule", (57, 0.3, 0.29, 10.0, 100.0), {}),
    ("cosine_onecycle_schedule", (33, 0.3), {"pct_start": 0.0}),
    ("warmup_constant_schedule", (0.0, 1.0, 20), {}),
    ("warmup_constant_schedule", (0.1, 0.7, 1), {}),
    ("warmup_constant_schedule", (0.1, 0.7, 0), {}),
    *(("warmup_cosine_decay_schedule", (), cycle) for cycle in CYCLES),
    ("warmup_cosine_decay_schedule", (0.3, 0.0, 5, 20), {"end_value": 0.1}),
    ("warmup_cosine_decay_schedule", (0.0, 1.0, 10, 101), {"end_value": 1e-3, "exponent": 0.5}),
    ("warmup_exponential_decay_schedule", (0.0, 1.0, 10, 5, 0.5), {}),
    ("warmup_exponential_decay_schedule", (0.0, 1.0, 10, 5, 0.5, 7, True, 0.2), {}),
    ("warmup_exponential_decay_schedule", (0.1, 1.0, 0, 5, 1.1), {"end_value": 3.0}),
    ("sgdr_schedule", (CYCLES,), {}),
    ("sgdr_schedule", (CYCLES[:1],), {}),
]


def check(ours, theirs):
    """Equal to 1e-12, relative to the value, and where it is far below the largest, to rounding of the largest."""
    expected = np.asarray(jax.vmap(theirs)(jnp.asarray(COUNTS)), dtype=np.float64)
    expected = torch.from_numpy(np.broadcast_to(expected, (len(COUNTS),)).copy())
    values = torch.stack([ours(torch.tensor(count)) for count in COUNTS])
    scale = expected.abs().max().item()
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=4e-16 * scale)
    for count in (0, 7, 10**6):  # as users call them
        torch.testing.assert_close(ours(count).item(), float(theirs(count)), rtol=1e-12, atol=4e-16 * scale)


@pytest.mark.parametrize(("name", "args", "kwargs"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_values_are_those_of_optax(name, args, kwargs):
    assert jnp.asarray(1.0).dtype == jnp.float64, "jax would compute in float32"
    check(getattr(schedules, name)(*args, **kwargs), getattr(optax, name)(*args, **kwargs))


@pytest.mark.parametrize("boundaries", [[10, 30], [0, 5], [20, 20], [30, 10]])
def test_join_schedules(boundaries):
    def parts(library):
        return [
            library.linear_schedule(0.0, 1.0, 10),
            library.cosine_decay_schedule(1.0, 20, alpha=0.1),
            library.exponential_decay(0.5, 10, 0.9),
        ]

    check(schedules.join_schedules(parts(schedules), boundaries), optax.join_schedules(parts(optax), boundaries))


def test_join_schedules_takes_plain_functions():
    ours = schedules.join_schedules([lambda t: 1.0, lambda t: 1.0 / (1.0 + t.double())], [7])
    theirs = optax.join_schedules([lambda t: 1.0, lambda t: 1.0 / (1.0 + t)], [7])
    check(ours, theirs)


def test_every_schedule_of_optax_is_here():
    named = {n for n in dir(optax.schedules) if n.endswith(("_schedule", "_schedules")) or n == "exponential_decay"}
    named.discard("_schedule")  # a module
    assert len(named) == 14
    assert named <= set(schedules.__all__)
    assert named == {case[0] for case in CASES} | {"join_schedules"}


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("cosine_decay_schedule", (1.0, 0)),
        ("cosine_decay_schedule", (1.0, -5)),
        ("linear_onecycle_schedule", (0, 1.0)),
        ("cosine_onecycle_schedule", (-1, 1.0)),
        ("warmup_cosine_decay_schedule", (0.0, 1.0, 10, 10)),
        ("piecewise_constant_schedule", (1.0, {5: 0.1, 10: -0.5})),
        ("piecewise_interpolate_schedule", ("linear", 1.0, {10: -0.5})),
        ("piecewise_interpolate_schedule", ("cubic", 1.0, {10: 0.5})),
        ("sgdr_schedule", ([CYCLES[0] | {"decay_steps": 5}],)),
    ],
)
def test_what_optax_refuses_is_refused_by_name(name, args):
    with pytest.raises(ValueError):  # noqa: PT011 - optax's own words
        getattr(optax, name)(*args)
    with pytest.raises(ValueError, match="must be") as error:
        getattr(schedules, name)(*args)
    assert (name if name != "sgdr_schedule" else "warmup_cosine_decay_schedule") in str(error.value)


def test_tensors_are_not_looked_at():
    """A tensor that a Python number could not be is neither an error nor, for a length of zero, a nan."""
    nothing = torch.tensor(0.0)
    assert schedules.cosine_decay_schedule(0.3, nothing)(4).item() == pytest.approx(0.3)
    assert schedules.warmup_cosine_decay_schedule(0.0, 0.3, 10, torch.tensor(10))(20).item() == pytest.approx(0.3)


def test_a_one_cycle_whose_boundaries_meet_keeps_its_factors():
    """optax puts the boundaries into a dict, so that of two that are equal one loses its factor."""
    assert float(optax.cosine_onecycle_schedule(10, 1.0, pct_start=1.0)(9)) < 0.04
    assert schedules.cosine_onecycle_schedule(10, 1.0, pct_start=1.0)(9) > 0.9
    ours = schedules.linear_onecycle_schedule(10, 1.0, pct_start=0.5, pct_final=0.5)
    theirs = optax.linear_onecycle_schedule(10, 1.0, pct_start=0.5, pct_final=0.5)
    assert ours(20).item() == pytest.approx(1 / 25 / 1e4)
    assert float(theirs(20)) == pytest.approx(1 / 25 / 25 / 1e4)


def test_join_schedules_counts_its_boundaries():
    """optax joins as many as fit, and forgets the others."""
    parts = [schedules.constant_schedule(1.0), schedules.constant_schedule(2.0)]
    with pytest.raises(ValueError, match=r"join_schedules: 2 schedules and 0 boundaries"):
        schedules.join_schedules(parts, [])
    with pytest.raises(ValueError, match=r"2 schedules and 2 boundaries"):
        schedules.join_schedules(parts, [1, 2])
    with pytest.raises(TypeError, match=r"schedules\[1\] is a float"):
        schedules.join_schedules([parts[0], 0.1], [1])
