"""The benchmark of sweeps, made small: all ways find the same, and its tables say what was measured."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Imports a file of the benchmarks, which are scripts, and import each other by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if BENCHMARKS in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
            del sys.modules[name]


def test_all_ways_find_the_same(load, fresh_dynamo):
    job, ways = load("job"), load("ways")
    task = job.make(6, 8, 30)
    with torch.compiler.set_stance(force_backend="aot_eager"):
        runs = {name: make(task).run(30) for name, make in ways.WAYS.items()}
    job.agree(task, runs)
    for name, run in runs.items():
        assert run.losses.shape == (30, 4 if name == "torch" else 6)
        assert 0 < run.first <= run.seconds
    other = runs["optfx"]._replace(params={k: x + 1e-3 for k, x in runs["optfx"].params.items()})
    with pytest.raises(AssertionError, match=r"optfx: parameters are .* apart from those of jax"):
        job.agree(task, runs | {"optfx": other})


def test_the_loop_is_extrapolated_without_its_start(load):
    job = load("job")
    assert job.for_all(job.Run(3.0, 1.0, 0.0, None, {}), 256) == 1 + 64 * 2


def test_a_process_of_its_own(load, tmp_path):
    job, ways, whole = load("job"), load("ways"), load("whole")
    out = tmp_path / "run.npz"
    shown = whole.process(str(tmp_path), "ways.py", "jax", 4, 8, 3, "--out", out)
    found = ways.read(str(out))
    assert shown.startswith(f"{found.seconds:.2f} s, {found.first:.2f} s until the first losses")
    assert any((tmp_path / "jax").iterdir())  # what a second process finds
    again = ways.Optax(job.make(4, 8, 3)).run(3)
    job.agree(job.make(4, 8, 3), {"jax": again, "scan": found})
    with pytest.raises(RuntimeError, match=r"ways.py jax 4 8 3 --out .* failed"):
        whole.process(str(tmp_path), "ways.py", "jax", 4, 8, 3, "--out", tmp_path / "missing" / "run.npz")


def test_whole_times(load):
    """Medians over runs; jax is the faster of its two ways."""
    job, whole = load("job"), load("whole")

    def run(seconds, first=0.5, compiling=0.0):
        return job.Run(seconds, first, compiling, None, {})

    runs = []
    for ours in (1.0, 2.0, 3.0):
        cold = {("optfx", "cold"): run(4 * ours, 1.0, 2.0), ("jax", "cold"): run(8.0), ("scan", "cold"): run(6.0)}
        warm = {("optfx", "warm"): run(ours), ("jax", "warm"): run(4.0), ("scan", "warm"): run(5.0)}
        runs.append({**cold, **warm, ("torch", "warm"): run(1.5)})
    assert whole.answer((64, 32), 60, runs) == [
        ["64 x 64-32-10", "60", "cold", "8.0", "2.0", "8.0", "6.0", "0.75", "16.5", "2.06"],
        ["64 x 64-32-10", "60", "warm", "2.0", "0.0", "4.0", "5.0", "2.00", "16.5", "8.25"],
    ]
    assert whole.first((64, 32), runs) == [
        ["64 x 64-32-10", "cold", "1.0", "0.5", "0.50"],
        ["64 x 64-32-10", "warm", "0.5", "0.5", "1.00"],
    ]


def test_steps_beside_neighbours(load, monkeypatch, fresh_dynamo):
    sweep = load("sweep")
    monkeypatch.setattr(sweep, "lengths", lambda *size: (2, 4, 6))
    monkeypatch.setattr(sweep, "NEIGHBOURS", (1,))
    with torch.compiler.set_stance(force_backend="aot_eager"):
        rows = sweep.step((3, 4), rounds=2)
    assert [row[:2] for row in rows] == [["3 x 64-4-10", "1"]]
    assert len(rows[0]) == len(sweep.STEP)


def test_the_step_is_what_a_longer_run_takes_more(load):
    job, sweep = load("job"), load("sweep")

    class Way:
        def run(self, steps):
            return job.Run(7.0 + steps / 8 + 1 / steps, 0.0, 1 / steps, None, {})  # compiling takes as long as it takes

    assert sweep.slope(Way(), 10, 50) == pytest.approx(1 / 8)


def test_successive_halving(load, fresh_dynamo):
    whole = load("whole")
    with torch.compiler.set_stance(force_backend="aot_eager"):
        times = whole.halve((6, 3, 2), hidden=4, steps=3)
    assert len(times) == 3
    assert all(0 <= compiling < seconds for seconds, compiling in times)


def test_policies_against_plain_sweeps(load):
    """Ways that are compared begin alike and take as many steps; what is chosen is seen by the test rows once."""
    policies = load("policies")
    found = policies.compare([0], steps=64, compile=False)
    steps = {way: outcomes[0].member_steps for way, outcomes in found.items()}
    assert steps["256 settings"] == 256 * 64
    assert steps["256 settings, halving to 4"] == 256 * 1 + 64 * 3 + 16 * 12 + 4 * 48
    assert abs(steps["13 settings"] / steps["256 settings, halving to 4"] - 1) < 0.05
    assert steps["32 members, PBT"] == steps["32 settings, cosine"] == steps["32 settings, constant rate"] == 32 * 64
    job = policies.Job(0, 64)
    assert len(torch.cat([job.train, job.validation, job.test]).unique()) == 1797
    lines = policies.of_pairs(found).splitlines()
    assert len(lines) == 2 + len(policies.COMPARED) * len(policies.MEASURES)
    assert "p, 12 times" in lines[0]


def test_the_sign_test(load):
    sign_test = load("policies").sign_test
    assert sign_test(8, 0) == sign_test(0, 8) == 2 / 2**8
    assert sign_test(7, 1) == pytest.approx(2 * 9 / 2**8)
    assert sign_test(4, 4) == sign_test(0, 0) == 1.0


def test_a_first_look_at_a_gpu(load, tmp_path, monkeypatch):
    """Without one: its sections stand alone, what they find is right, and the page is made of it."""
    gpu = load("gpu")

    def fails():
        raise RuntimeError("no such card")

    chosen = {"what is right": lambda: gpu.laws(1.0), "dtypes": gpu.dtypes, "TorchOptimizer": gpu.of_torch}
    monkeypatch.setattr(gpu, "sections", lambda small: chosen | {"broken": fails, "captured": gpu.captured})
    with monkeypatch.context() as patch:
        patch.setattr(gpu.traceback, "print_exc", lambda **_: None)
        found = gpu.run(small=True)
    right = found["what is right"]
    assert right["checked"] > 3
    assert not right["apart"]
    assert not right["failed"]
    assert max(found["dtypes"].values()) < 4  # units of rounding
    assert found["TorchOptimizer"]["apart"] < 1e-6
    assert found["TorchOptimizer"]["scales"] == [2.0**11] * 2  # an infinite gradient halves it
    assert found["broken"] == "failed: RuntimeError: no such card"
    text = gpu.page(found)
    assert f"Measured on {found['device']}" in text
    assert "**broken**: failed" in text
    names = [*gpu.step({"w": (8, 8), "b": (8,)}, compiled=False)]
    assert {"copy, GB/s", "AdamW(fused=True)", "optfx", "optfx, recipe"} <= {*names}
