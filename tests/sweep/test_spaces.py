"""Spaces: bounds, evenness, reproducibility, and what is wrong with a bad one."""

import pytest
import torch

from optfx import sweep

SPACE = {"rate": sweep.log_uniform(1e-4, 1.0), "b1": sweep.uniform(-0.5, 0.95), "warmup": sweep.choice([10, 20, 40])}


@pytest.mark.parametrize("method", ["sobol", "random"])
def test_samples_are_within_bounds_and_reproducible(method):
    a, b = (sweep.sample(SPACE, 500, seed=7, method=method) for _ in range(2))
    other = sweep.sample(SPACE, 500, seed=8, method=method)
    assert list(a) == list(SPACE)
    for name in SPACE:
        assert a[name].shape == (500,)
        assert a[name].is_contiguous()
        assert torch.equal(a[name], b[name])
        assert not torch.equal(a[name], other[name])
    assert a["rate"].dtype == a["b1"].dtype == torch.float64
    assert 1e-4 <= a["rate"].min() < 1.3e-4
    assert 0.8 < a["rate"].max() <= 1.0
    assert -0.5 <= a["b1"].min() < -0.48
    assert 0.94 < a["b1"].max() <= 0.95
    assert a["warmup"].dtype == torch.int64
    assert a["warmup"].unique().tolist() == [10, 20, 40]


def test_sampling_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    sweep.sample(SPACE, 5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_sobol_points_are_even():
    """A scrambled Sobol sequence of 2^m points has exactly one in each of 2^m equal intervals, in every dimension."""
    a = sweep.sample({"x": sweep.uniform(0, 64), "y": sweep.log_uniform(1.0, 2.0**64)}, 64, seed=3)
    assert a["x"].floor().sort().values.tolist() == list(range(64))
    assert a["y"].log2().floor().sort().values.tolist() == list(range(64))


def test_random_points_are_spread_as_the_space_says():
    a = sweep.sample(SPACE, 20_000, method="random")
    assert abs(a["rate"].log10().mean() + 2) < 0.05
    assert abs(a["b1"].mean() - 0.225) < 0.02
    assert all(abs((a["warmup"] == v).double().mean() - 1 / 3) < 0.02 for v in (10, 20, 40))


def test_the_ends_of_the_unit_interval_give_the_bounds():
    u = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    torch.testing.assert_close(sweep.log_uniform(1e-4, 10).at(u), torch.tensor([1e-4, 10.0], dtype=u.dtype))
    torch.testing.assert_close(sweep.uniform(2, 3).at(u), torch.tensor([2.0, 3.0], dtype=u.dtype))
    assert sweep.choice([1.5, 2.5]).at(u).tolist() == [1.5, 2.5]
    assert sweep.log_uniform(1e-4, 10).at(u).max() <= 10


def test_grid_is_every_combination():
    configs = sweep.grid({"a": [1, 2], "b": torch.tensor([0.5, 1.5, 2.5]), "c": sweep.choice([7])})
    rows = list(zip(*(configs[k].tolist() for k in "abc"), strict=True))
    assert rows == [(a, b, 7) for a in (1, 2) for b in (0.5, 1.5, 2.5)]
    assert [configs[k].dtype for k in "abc"] == [torch.int64, torch.float64, torch.int64]
    assert all(x.is_contiguous() for x in configs.values())


def test_values_keep_all_their_digits():
    assert sweep.grid({"lr": [0.1, 0.2]})["lr"].tolist() == [0.1, 0.2]
    assert sweep.grid({"lr": sweep.choice([0.1])})["lr"].tolist() == [0.1]


def test_spaces_read_back():
    for space in SPACE.values():
        assert repr(eval(repr(space), vars(sweep))) == repr(space)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sweep.log_uniform(0.0, 1.0), "log_uniform: expected 0 < low < high"),
        (lambda: sweep.uniform(2.0, 1.0), "uniform: expected low < high"),
        (lambda: sweep.uniform(0.0, float("inf")), "uniform"),
        (lambda: sweep.uniform(float("nan"), 1.0), "uniform"),
        (lambda: sweep.choice([]), "choice"),
        (lambda: sweep.choice(["adam", 1]), "choice: expected numbers or words"),
        (lambda: sweep.choice({1: {}}), "choice: a dict has a word for each space"),
        (lambda: sweep.grid({"a": sweep.choice({"x": {}})}), "grid: 'a' has names of its own"),
        (lambda: sweep.choice([True, False]), "choice"),
        (lambda: sweep.grid({}), "grid"),
        (lambda: sweep.grid({"a": 3}), "grid: 'a'"),
        (lambda: sweep.grid({"a": [1], "b": [[1, 2]]}), "grid: 'b'"),
        (lambda: sweep.sample({}, 3), "at least one name"),
        (lambda: sweep.sample(SPACE, 0), "one setting"),
        (lambda: sweep.sample(SPACE, 3, method="halton"), "'sobol' or 'random', got 'halton'"),
    ],
)
def test_bad_spaces(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_an_entry_that_is_no_space_is_named():
    with pytest.raises(TypeError, match=r"'rate' is 0\.1, expected uniform"):
        sweep.sample({"rate": 0.1}, 3)
