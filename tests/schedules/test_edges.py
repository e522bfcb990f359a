"""Ends and turning points, exact by arithmetic alone, and the ways in which schedules are used."""

from __future__ import annotations

import pytest
import torch

import optfx
from optfx import schedules as s
from optfx.tree import replace


def values(schedule, steps):
    return torch.func.vmap(schedule)(torch.arange(steps))


@pytest.mark.parametrize(
    "schedule",
    [
        s.polynomial_schedule(1.0, 0.1, 2.0, 30, 5),
        s.linear_schedule(1.0, 0.1, 30),
        s.exponential_decay(1.0, 10, 0.5, end_value=0.1),
        s.cosine_decay_schedule(1.0, 30, 0.1),
        s.piecewise_constant_schedule(1.0, {5: 0.5, 20: 0.3}),
        s.piecewise_interpolate_schedule("cosine", 1.0, {5: 0.5, 20: 0.3}),
        s.step_lr(1.0, 10),
        s.multi_step_lr(1.0, [10, 20]),
        s.exponential_lr(1.0, 0.9),
        s.polynomial_lr(1.0, 30, 2.0),
        s.linear_lr(1.0, 1.0, 0.1, 30),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_decay_never_rises(schedule):
    curve = values(schedule, 50)
    assert curve[0] == 1.0
    assert (curve.diff() <= 0).all()
    assert curve[-1] < 0.2


def test_a_warmup_reaches_its_peak_exactly_and_then_falls():
    for schedule in (
        s.warmup_cosine_decay_schedule(0.0, 0.3, 7, 40, 0.01),
        s.warmup_exponential_decay_schedule(0.0, 0.3, 7, 5, 0.5),
        s.sgdr_schedule([{"init_value": 0.0, "peak_value": 0.3, "warmup_steps": 7, "decay_steps": 40}]),
    ):
        curve = values(schedule, 40)
        assert curve[7] == 0.3
        assert curve.argmax() == 7
        assert (curve[:8].diff() > 0).all()
        assert (curve[7:].diff() < 0).all()
    assert values(s.warmup_constant_schedule(0.0, 0.3, 7), 10).tolist()[7:] == [0.3, 0.3, 0.3]


@pytest.mark.parametrize("first", [1, 3, 10, 49, 1000])
@pytest.mark.parametrize("mult", [2, 3, 7, 10])
def test_every_restart_comes_at_its_own_step(first, mult):
    """In whole numbers: cycle n begins at first * (mult**n - 1) / (mult - 1)."""
    schedule = s.cosine_annealing_warm_restarts(1.0, first, mult)
    for tensor_fields in (False, True):
        if tensor_fields:
            schedule = replace(schedule, T_0=torch.tensor(first), T_mult=torch.tensor(float(mult)))
        begin = 0
        for n in range(9):
            assert schedule(begin) == 1.0
            begin += first * mult**n
            assert schedule(begin - 1) < (1e-3 if first * mult**n > 100 else 1.0 if first * mult**n > 1 else 1.1)


def test_a_ratio_of_restarts_between_whole_numbers():
    schedule = s.cosine_annealing_warm_restarts(1.0, 8.0, 1.5)
    curve = values(schedule, 39)
    assert [i for i in range(1, 39) if curve[i] > curve[i - 1]] == [8, 20, 38]


def test_the_derivative_at_a_ratio_of_one():
    """Where the geometric sum is 0/0, against a difference of values."""

    def rate(mult):
        return s.cosine_annealing_warm_restarts(1.0, 8, mult)(21)

    one = torch.tensor(1.0, dtype=torch.float64)
    difference = (rate(one + 1e-5) - rate(one - 1e-5)) / 2e-5
    torch.testing.assert_close(torch.func.grad(rate)(one), difference, rtol=1e-6, atol=0)


def test_every_schedule_of_a_row_sees_only_its_own_stretch():
    seen = []

    def note(count):
        seen.append(count.item())
        return 1.0

    schedule = s.join_schedules([note, note, note], [4, 10])
    for count in range(20):
        schedule(torch.tensor(count))
    first, second, third = seen[::3], seen[1::3], seen[2::3]
    assert first == [0, 1, 2, 3] + [4] * 16
    assert second == [0] * 4 + [0, 1, 2, 3, 4, 5] + [6] * 10
    assert third == [0] * 10 + list(range(10))
    assert all(isinstance(count, int) for count in seen), "whole counts stay whole"


def test_a_container_may_hold_tensors_beside_numbers():
    half = torch.tensor(0.5, dtype=torch.float64)
    mixed = s.piecewise_constant_schedule(1.0, {20: 0.1, 10: half})
    torch.testing.assert_close(values(mixed, 30), values(s.piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.1}), 30))
    assert repr(mixed) == (
        "piecewise_constant_schedule(init_value=1.0, boundaries_and_scales={10: torch.tensor(0.5, "
        "dtype=torch.float64), 20: torch.tensor(0.1, dtype=torch.float64)})"
    )
    milestones = s.multi_step_lr(1.0, [10, torch.tensor(20.5)])
    assert [x.dtype for x in milestones.milestones] == [torch.int64, torch.float32]
    assert values(milestones, 22).tolist()[20:] == pytest.approx([0.1, 0.01])


def test_a_schedule_is_a_hyperparameter():
    def rate_at_5(schedule):
        return optfx.scale_by_learning_rate(schedule).at(torch.tensor(5))["learning_rate"]

    schedule = s.warmup_cosine_decay_schedule(0.0, torch.tensor([0.1, 0.2], dtype=torch.float64), 10, 20)
    with pytest.raises(ValueError, match=r"scale_by_learning_rate.learning_rate has the shape \(2,\)"):
        rate_at_5(schedule)
    rates = torch.func.vmap(rate_at_5)(schedule)
    torch.testing.assert_close(rates, torch.tensor([0.05, 0.1], dtype=torch.float64))


def test_a_batch_of_schedules_compiles(fresh_dynamo):
    """Peak, warmup and length swept at once, and nothing compiled anew at the next step or sweep."""
    compiled = torch.compile(torch.func.vmap(lambda one, t: one(t), (0, None)), backend="aot_eager", fullgraph=True)
    for scale in (1.0, 0.5):
        peaks = scale * torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
        warmups, lengths = torch.tensor([0, 5, 10]), torch.tensor([20, 30, 40])
        batch = s.warmup_cosine_decay_schedule(0.0, peaks, warmups, lengths, exponent=1.5)
        for count in torch.tensor([0, 7, 100]):
            expected = torch.stack([
                s.warmup_cosine_decay_schedule(0.0, *one, exponent=1.5)(count)
                for one in zip(peaks.tolist(), warmups.tolist(), lengths.tolist(), strict=True)
            ])  # fmt: skip
            torch.testing.assert_close(compiled(batch, count), expected, rtol=1e-12, atol=1e-15)
    assert fresh_dynamo["stats"]["unique_graphs"] == 1


def test_a_growth_that_is_capped_far_below_infinity_has_finite_derivatives():
    """2**5000 is no float64."""
    rate = torch.tensor(2.0, dtype=torch.float64)

    def capped(rate):
        return s.exponential_decay(1.0, 1, rate, end_value=10.0)(5000)

    assert capped(rate) == 10.0
    assert torch.func.grad(capped)(rate) == 0.0


def test_per_epoch_refuses_what_is_no_schedule_and_no_number_of_batches():
    with pytest.raises(TypeError, match="per_epoch: schedule is a float, expected a schedule"):
        s.per_epoch(0.1, 3)
    with pytest.raises(TypeError, match=r"per_epoch: batches is .*, expected a number or a"):
        s.per_epoch(s.constant_schedule(0.1), None)
    with pytest.raises(TypeError, match="per_epoch: batches is a bool"):
        s.per_epoch(s.constant_schedule(0.1), True)
    with pytest.raises(ValueError, match="per_epoch: batches must be >= 1, got 0"):
        s.per_epoch(s.constant_schedule(0.1), 0)
