"""What a number of a schedule may be, and how a schedule of one's own finds its numbers."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch

from optfx import schedules as s
from optfx.schedules.closed_form import ClosedForm
from optfx.schedules.numbers import Number
from optfx.tree import record
from tests.schedules import rows
from tests.schedules.test_laws import curve, every


@every
def test_numpy_scalars_are_numbers(make):
    """They become Python numbers, so that `repr` reads back without numpy."""
    schedule = make()
    kinds = {int: np.int64, float: np.float64}
    scalars = rows.put(schedule, {path: kinds[type(x)](x) for path, x in rows.numbers(schedule)})
    assert repr(scalars) == repr(schedule)
    assert [type(x) for _, x in rows.numbers(scalars)] == [type(x) for _, x in rows.numbers(schedule)]
    rounded = rows.put(schedule, {path: np.float32(x) for path, x in rows.numbers(schedule)})
    floats = rows.put(schedule, {path: float(np.float32(x)) for path, x in rows.numbers(schedule)})
    assert torch.equal(curve(rounded), curve(floats))


@every
def test_ints_are_numbers(make):
    schedule = make()
    whole = {path: round(x) for path, x in rows.numbers(schedule) if isinstance(x, float) and x == round(x)}
    assert torch.equal(curve(rows.put(schedule, whole)), curve(schedule))


@every
def test_bools_are_not_numbers(make):
    schedule = make()
    for path, _ in rows.numbers(schedule):
        with pytest.raises(TypeError, match="is a bool, expected a number"):
            rows.put(schedule, {path: True})


def test_what_is_no_number_is_named_by_its_field():
    with pytest.raises(TypeError, match="exponential_decay: transition_begin is a bool"):
        s.exponential_decay(1.0, 10, 0.5, True)  # as if it were `staircase`
    with pytest.raises(TypeError, match="step_lr: gamma is a str"):
        s.step_lr(1.0, 10, "0.1")
    with pytest.raises(TypeError, match="a boundary is a bool"):
        s.piecewise_constant_schedule(1.0, {True: 0.5})


def test_numpy_boundaries_and_milestones():
    pieces = s.piecewise_constant_schedule(1.0, {np.int64(4): np.float64(0.5)})
    assert repr(pieces) == "piecewise_constant_schedule(init_value=1.0, boundaries_and_scales={4: 0.5})"
    assert repr(s.multi_step_lr(1.0, np.array([3, 5]))) == "multi_step_lr(base_lr=1.0, milestones=(3, 5), gamma=0.1)"
    joined = s.join_schedules([s.constant_schedule(1.0), s.constant_schedule(2.0)], np.array([3]))
    assert [joined(count).item() for count in range(5)] == [1.0, 1.0, 1.0, 2.0, 2.0]


@record
class own(ClosedForm):
    words: str
    rate: Number
    several: tuple[Number, ...] = (1, 2)
    by_name: dict[str, Number] | None = None
    limit: Number | None = None

    def formula(self, t, rate, several, by_name, limit):
        value = rate * t + sum(several) + sum((by_name or {}).values())
        return value if limit is None else torch.minimum(value, limit)


# The same class without `from __future__ import annotations`: its annotations are types, not strings.
EAGER = """
class typed(ClosedForm):
    words: str
    rate: Number
    several: tuple[Number, ...] = (1, 2)
    by_name: dict[str, Number] | None = None
    limit: Number | None = None
    def formula(self, t, rate, several, by_name, limit):
        return own.formula(self, t, rate, several, by_name, limit)
"""


def typed():
    names = {"ClosedForm": ClosedForm, "Number": Number, "own": own}
    exec(compile(EAGER, "typed", "exec", dont_inherit=True), names)
    assert isinstance(names["typed"].__annotations__["limit"], types.UnionType)
    return record(names["typed"])


@pytest.mark.parametrize("cls", [own, typed()], ids=["strings", "types"])
def test_the_numbers_of_a_schedule_are_its_annotated_fields(cls):
    schedule = cls("fast", 2, [3, 4], {"a": 0.5})
    numbers = schedule.numbers(torch.tensor(0))
    assert list(numbers) == ["rate", "several", "by_name", "limit"]
    assert (numbers["rate"], numbers["several"], numbers["by_name"], numbers["limit"]) == (2, (3, 4), {"a": 0.5}, None)
    read = [numbers["rate"], *numbers["several"], *numbers["by_name"].values()]
    assert {(x.shape, x.dtype) for x in read} == {((), torch.float64)}
    assert schedule(10) == 27.5
    assert cls("fast", 2, limit=5.0)(10) == 5.0


def test_a_schedule_of_ones_own_compiles_vmaps_and_has_derivatives(fresh_dynamo):
    rates = torch.tensor([0.5, 2.0], dtype=torch.float64)
    batch = own("fast", rates, limit=torch.tensor([4.0, 100.0], dtype=torch.float64))
    step = torch.func.vmap(lambda one, t: one(t), (0, None))
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for count in torch.tensor([1, 10]):
        expected = torch.stack([own("fast", r, limit=m)(count) for r, m in ((0.5, 4.0), (2.0, 100.0))])
        torch.testing.assert_close(compiled(batch, count), expected, rtol=0, atol=0)
    assert fresh_dynamo["stats"]["unique_graphs"] == 1
    assert torch.func.grad(lambda rate: own("fast", rate)(torch.tensor(7)))(rates[0]) == 7.0


def test_a_number_may_be_a_schedule_that_sees_whole_counts():
    seen = []

    def rate(count):
        seen.append(count.item())
        return 0.5

    factor = s.relative_step(rate)
    assert factor(torch.tensor(24)) == s.relative_step(0.5)(24) == 0.4
    assert seen == [24]
    assert isinstance(seen[0], int)
    assert curve(s.relative_step(s.constant_schedule(0.5))).equal(curve(s.relative_step(0.5)))


def test_a_python_count_goes_where_the_numbers_are():
    schedule = s.join_schedules([s.linear_schedule(0.0, torch.zeros((), device="meta"), 5), rows.inverse], [5])
    assert schedule(3).device.type == "meta"
    assert s.step_lr(torch.zeros((), device="meta"), 5)(3).device.type == "meta"
