"""What holds for every schedule: its value, its text, its copies, and each of its numbers as a tensor."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from optfx import schedules
from optfx.tree import leaves, unflatten_like
from tests.schedules import rows

COUNTS = torch.cat([torch.arange(34), torch.tensor([100, 1000])])
every = pytest.mark.parametrize("make", [make for _, make in rows.CASES], ids=[name for name, _ in rows.CASES])


def curve(schedule):
    """The values at every count, one by one."""
    return torch.stack([schedule(count) for count in COUNTS])


def as_tensors(schedule, dtype=torch.float64):
    return rows.put(schedule, {path: torch.tensor(x, dtype=dtype) for path, x in rows.numbers(schedule)})


def test_every_public_schedule_has_a_row():
    assert set(rows.ROWS) == set(schedules.__all__)


def test_the_rows_have_numbers():
    """The helper finds them: all but the tables and plain functions have at least one."""
    without = {name for name, make in rows.CASES if not list(rows.numbers(make()))}
    assert without == {"function_schedule-0", "table_schedule-0", "from_torch_scheduler-0"}
    assert dict(
        rows.numbers(schedules.join_schedules([schedules.linear_schedule(0.0, 1.0, 5), rows.inverse], [5]))
    ) == {
        ("schedules", 0, "init_value"): 0.0,
        ("schedules", 0, "end_value"): 1.0,
        ("schedules", 0, "transition_steps"): 5,
        ("schedules", 0, "transition_begin"): 0,
        ("boundaries", 0): 5,
    }


@every
def test_it_gives_a_float64_scalar_for_a_tensor_and_for_an_int(make):
    schedule = make()
    for count in (0, 1, 7, 1000):
        value = schedule(torch.tensor(count))
        assert value.shape == ()
        assert value.dtype == torch.float64
        assert torch.isfinite(value)
        torch.testing.assert_close(schedule(count), value, rtol=0, atol=0)


@every
def test_it_reads_no_value_and_answers_on_the_device_of_the_count(make):
    """The meta device has no values to branch on or to wait for."""
    schedule, count = make(), torch.zeros((), dtype=torch.int64, device="meta")
    for one in (schedule, as_tensors(schedule)):
        value = one(count)
        assert (value.device.type, value.dtype, value.shape) == ("meta", torch.float64, ())


@every
def test_repr_is_the_code_that_makes_it(make):
    schedule = make()
    names = {name: getattr(schedules, name) for name in schedules.__all__}
    names |= {"torch": torch, "halving": rows.halving, "inverse": rows.inverse}
    for one in (schedule, as_tensors(schedule)):
        again = eval(repr(one), names)
        assert repr(again) == repr(one)
        torch.testing.assert_close(curve(again), curve(one), rtol=0, atol=0)


@every
def test_copies_are_equal(make):
    schedule = make()
    for one in (schedule, as_tensors(schedule)):
        for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
            assert repr(again) == repr(one)
            torch.testing.assert_close(curve(again), curve(one), rtol=0, atol=0)


@every
def test_numbers_may_be_tensors(make):
    schedule = make()
    expected = curve(schedule)
    torch.testing.assert_close(curve(as_tensors(schedule)), expected, rtol=1e-12, atol=1e-15)
    whole = {path: torch.tensor(x) for path, x in rows.numbers(schedule) if isinstance(x, int)}
    torch.testing.assert_close(curve(rows.put(schedule, whole)), expected, rtol=1e-12, atol=1e-15)


@every
def test_the_floats_alone_may_be_tensors(make):
    """As `inject_hyperparams` has them in its state: lengths stay Python ints."""
    schedule = make()
    floats = {path: x for path, x in rows.numbers(schedule) if isinstance(x, float)}
    injected = rows.put(schedule, {path: torch.tensor(x, dtype=torch.float64) for path, x in floats.items()})
    assert len(leaves(injected)) == len(floats) + len(leaves(schedule))
    torch.testing.assert_close(curve(injected), curve(schedule), rtol=1e-12, atol=1e-15)


@every
def test_float32_numbers_are_computed_with_in_float64(make):
    """Rounding a number to float32 once is all that is lost."""
    schedule = make()
    rounded = {path: torch.tensor(x, dtype=torch.float32) for path, x in rows.numbers(schedule)}
    wide = {path: x.double() for path, x in rounded.items()}
    once = curve(rows.put(schedule, wide))
    torch.testing.assert_close(curve(rows.put(schedule, rounded)), once, rtol=1e-12, atol=1e-15)


@every
def test_vmap_over_counts(make):
    schedule = make()
    torch.testing.assert_close(torch.func.vmap(schedule)(COUNTS), curve(schedule), rtol=1e-12, atol=1e-15)


@every
def test_vmap_over_each_number_alone(make):
    """Steps by steps, values by values: rates and lengths alike, beside Python numbers."""
    schedule = make()
    for path, x in rows.numbers(schedule):
        batch = torch.tensor([x, x + 1, x + 2]) if isinstance(x, int) else x + torch.tensor([0.0, 0.05, 0.4]).double()
        stacked = rows.put(schedule, {path: batch})
        # in_axes for a schedule that may hold a table, which is no batch
        axes = unflatten_like(stacked, [0 if x.shape == (3,) else None for x in leaves(stacked)])

        def run(one, count):
            return one(count)

        over_both = torch.func.vmap(torch.func.vmap(run, (None, 0)), (axes, None))(stacked, COUNTS)
        expected = torch.stack([curve(rows.put(schedule, {path: value})) for value in batch.unbind()])
        torch.testing.assert_close(over_both, expected, rtol=1e-12, atol=1e-15, msg=lambda m, path=path: f"{path}: {m}")


@every
def test_vmap_over_all_numbers_without_axes(make):
    """Every number stacked: no axes need be named."""
    schedule = make()
    found = dict(rows.numbers(schedule))
    stacked = rows.put(schedule, {path: torch.tensor([x, x], dtype=torch.float64) for path, x in found.items()})
    tables = leaves(schedule)
    assert len(leaves(stacked)) == len(found) + len(tables)
    if found and not tables:
        values = torch.func.vmap(lambda one: one(6))(stacked)
        torch.testing.assert_close(values, schedule(6).expand(2), rtol=1e-12, atol=1e-15)


def jacobian(schedule, values, counts):
    """The values at all counts, and their derivatives: (counts, numbers)."""
    paths = [path for path, _ in rows.numbers(schedule)]

    def f(numbers):
        one = rows.put(schedule, dict(zip(paths, numbers.unbind(), strict=True)))
        out = torch.func.vmap(one)(counts)
        return out, out

    return torch.func.jacrev(f, has_aux=True)(values)


def start(schedule):
    return torch.tensor([float(v) for _, v in rows.numbers(schedule)], dtype=torch.float64)


with_numbers = pytest.mark.parametrize(
    "make",
    [make for _, make in rows.CASES if list(rows.numbers(make()))],
    ids=[name for name, make in rows.CASES if list(rows.numbers(make()))],
)


@with_numbers
def test_derivatives_are_finite(make):
    """At every count, the boundaries and far beyond the end included."""
    schedule = make()
    derivative, value = jacobian(schedule, start(schedule), COUNTS)
    assert torch.isfinite(value).all()
    assert torch.isfinite(derivative).all()


@with_numbers
def test_derivatives_are_right(make):
    """Against differences of values, with lengths off the whole numbers, so that no count lies on a boundary."""
    schedule, counts, step = make(), torch.arange(34), 1e-6
    x = start(schedule) * 1.0137 + 0.0137
    derivative, value = jacobian(schedule, x, counts)
    for k in range(len(x)):
        one = torch.zeros_like(x).index_fill(0, torch.tensor([k]), step)
        right = (jacobian(schedule, x + one, counts)[1] - value) / step
        left = (value - jacobian(schedule, x - one, counts)[1]) / step
        torch.testing.assert_close(derivative[:, k], (right + left) / 2, rtol=1e-5, atol=1e-6)


@with_numbers
def test_second_derivatives_are_finite(make):
    schedule = make()
    paths = [path for path, _ in rows.numbers(schedule)]

    def total(numbers):
        one = rows.put(schedule, dict(zip(paths, numbers.unbind(), strict=True)))
        return torch.func.vmap(one)(torch.arange(34)).sum()

    assert torch.isfinite(torch.func.jacrev(torch.func.jacrev(total))(start(schedule))).all()


@pytest.mark.parametrize("name", rows.ROWS)
def test_one_graph_serves_every_count_and_every_tensor(name, fresh_dynamo):
    schedules = [make() for make in rows.ROWS[name]]
    compiled = torch.compile(lambda all, count: [one(count) for one in all], backend="aot_eager", fullgraph=True)
    for shift in (0.0, 0.125):
        shifted = [
            rows.put(one, {path: torch.tensor(x + shift, dtype=torch.float64) for path, x in rows.numbers(one)})
            for one in schedules
        ]
        for count in torch.tensor([0, 1, 7, 30]):
            expected = [one(count) for one in shifted]
            torch.testing.assert_close(compiled(shifted, count), expected, rtol=1e-12, atol=1e-15)
    assert fresh_dynamo["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("name", rows.ROWS)
def test_vmap_over_counts_compiles(name, fresh_dynamo):
    schedules = [make() for make in rows.ROWS[name]]
    over_counts = torch.func.vmap(lambda count: [one(count) for one in schedules])
    compiled = torch.compile(over_counts, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(COUNTS), [curve(one) for one in schedules], rtol=1e-12, atol=1e-15)
