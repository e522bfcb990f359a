"""Tables: what torch's classes compute from their own history."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.optim import lr_scheduler as classes
from torch.optim.swa_utils import SWALR

from optfx import schedules


def multiplicative(optimizer):
    return classes.MultiplicativeLR(optimizer, lambda epoch: 0.95 if epoch % 3 else 1.1)


def chained(optimizer):
    return classes.ChainedScheduler(
        [classes.ConstantLR(optimizer, 0.1, total_iters=5), classes.CosineAnnealingLR(optimizer, 20, eta_min=0.01)]
    )


def averaging(optimizer):
    return SWALR(optimizer, swa_lr=0.05, anneal_epochs=7)


def branching(optimizer):
    return classes.LambdaLR(optimizer, lambda epoch: 1.0 if epoch < 10 else 0.1)


def one_cycle(optimizer):
    return classes.OneCycleLR(optimizer, 0.3, total_steps=30)


@pytest.mark.parametrize("make", [multiplicative, chained, averaging, branching, one_cycle])
def test_the_table_is_what_the_class_does(make):
    optimizer = torch.optim.SGD([torch.zeros(())], lr=0.5)
    scheduler = make(optimizer)
    expected = [float(optimizer.param_groups[0]["lr"])]
    for _ in range(30):
        optimizer.step()
        scheduler.step()
        expected.append(float(scheduler.get_last_lr()[0]))
    schedule = schedules.from_torch_scheduler(make, 0.5, 30)
    assert schedule.values.shape == (31,)
    assert [schedule(count).item() for count in range(31)] == expected
    assert schedule(10**9) == expected[-1]
    assert torch.func.vmap(schedule)(torch.arange(31)).tolist() == expected


def test_a_table_of_multiplicative_factors():
    """By hand: 1, then times 1/2 at each step."""
    schedule = schedules.from_torch_scheduler(lambda o: classes.MultiplicativeLR(o, lambda epoch: 0.5), 1.0, 3)
    assert schedule.values.tolist() == [1.0, 0.5, 0.25, 0.125]


def test_tables_pickle():
    schedule = schedules.from_torch_scheduler(chained, 0.5, 12)
    again = pickle.loads(pickle.dumps(schedule))
    assert torch.equal(again.values, schedule.values)


def test_a_stack_of_tables():
    values = torch.rand(3, 5)
    stacked = schedules.table_schedule(values)
    both = torch.func.vmap(torch.func.vmap(lambda one, count: one(count), (None, 0)), (0, None))(
        stacked, torch.arange(7)
    )
    assert torch.equal(both, torch.cat([values, values[:, -1:], values[:, -1:]], 1).double())
    together = torch.func.vmap(lambda one, count: one(count))(stacked, torch.tensor([0, 2, 9]))
    assert torch.equal(together, values.double()[torch.arange(3), torch.tensor([0, 2, 4])])
    with pytest.raises(ValueError, match=r"a table of shape \(3, 5\)"):
        stacked(0)


def test_a_count_off_the_whole_numbers_is_rounded_down():
    """`join_schedules` gives such counts after a boundary between two counts."""
    schedule = schedules.table_schedule(torch.tensor([1.0, 2.0, 3.0]))
    joined = schedules.join_schedules([schedules.constant_schedule(0.0), schedule], [2.5])
    assert [joined(count).item() for count in range(7)] == [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 3.0]


def test_the_derivative_with_respect_to_the_table():
    values = torch.rand(5, dtype=torch.float64)
    gradient = torch.func.grad(lambda v: schedules.table_schedule(v)(torch.tensor(2)))(values)
    assert torch.equal(gradient, torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64))


def test_what_looks_at_the_loss_is_refused():
    with pytest.raises(TypeError, match=r"optfx\.reduce_on_plateau"):
        schedules.from_torch_scheduler(classes.ReduceLROnPlateau, 0.1, 10)
    with pytest.raises(TypeError, match="make returned a SGD, expected a scheduler"):
        schedules.from_torch_scheduler(lambda optimizer: optimizer, 0.1, 10)
