"""A run in a folder: killed at any moment and called again it goes on, and nothing of it is lost or mixed up."""

import subprocess
import sys

import pytest
import torch

import optfx
from optfx import sweep
from optfx.sweep import run as running
from tests.sweep.small import SPACE, batches, configs, evaluate, init, loss_fn, make_optimizer, same, trainer

RUN = {"every": 6, "policy": sweep.exploit(SPACE), "progress": False}
PROGRAM = """
import os, signal, sys
import torch
from optfx import files, sweep
from optfx.sweep import run
from tests.sweep.small import SPACE, configs, trainer

folder, where, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
run.SECONDS, run.SHARE = 0.0, 1e9  # a checkpoint after each step
calls = []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def counted(f):
    def g(*args, **kwargs):
        calls.append(None)
        if len(calls) == count:
            die()
        return f(*args, **kwargs)
    return g

def half(content, file):
    calls.append(None)
    if len(calls) == count:
        file.write(b"PK" * 500)
        file.flush()
        die()
    save(content, file)

save = files._save
ours = trainer(compile=False)
if where == "before the move":
    os.replace = counted(os.replace)
elif where == "in the file":
    files._save = half
elif where == "training":
    ours.training.recipe.batches = counted(ours.training.recipe.batches)
policy = sweep.exploit(SPACE)
qualname = policy.__qualname__
if where == "policy":
    policy = counted(policy)
    policy.__qualname__ = qualname
ours.run(ours.start(configs()), 20, every=6, policy=policy, folder=folder, progress=False)
"""


def killed(folder, where, count):
    return subprocess.run([sys.executable, "-c", PROGRAM, folder, where, str(count)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def alone():
    ours = trainer()
    return ours.run(ours.start(configs()), 20, **RUN)


def equal(a, b):
    names = ("configs", "losses", "metrics", "params", "diverged", "population", "history")
    return all(same(getattr(a, name), getattr(b, name)) for name in names)


def test_killed_again_and_again(tmp_path):
    """Inside the write, around it, in training, and where a policy decides: every bit is as if nothing had been."""
    for where, count in (
        ("in the file", 3),
        ("training", 5),
        ("before the move", 2),
        ("policy", 1),
    ):
        done = killed(tmp_path, where, count)
        assert done.returncode == -9, done.stderr
    assert 0 < sweep.load(tmp_path).age.max() < 20  # readable meanwhile
    ours = trainer(compile=False)
    found = ours.run(ours.start(configs()), 20, **RUN, folder=tmp_path)
    ours = trainer(compile=False)
    assert equal(found, ours.run(ours.start(configs()), 20, **RUN))
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.pt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("how", [{"compile": False}, {"compile": True}, {"compile": False, "chunk_size": 4}], ids=str)
def test_an_error_in_training_loses_nothing(tmp_path, how, error):
    """In the middle of a run: what was trained is in the error and in the folder, and goes on from there."""
    broken = []

    def draw(step):
        if step in broken:
            raise error("no such batch")
        return batches(step)

    ours = trainer(batches=draw, **how)
    start = ours.start(configs())
    alone = ours.run(start, 20, **RUN)
    broken.append(13)
    with pytest.raises(error, match="no such batch") as caught:
        ours.run(start, 20, **RUN, folder=tmp_path)
    assert caught.value.population.age.max() in ((13,) if error is OSError else (12, 13))  # 12 was not trained yet
    assert torch.equal(sweep.load(tmp_path).population.age, caught.value.population.age)
    broken.clear()
    assert equal(ours.run(start, 20, **RUN, folder=tmp_path), alone)

    whole, losses = ours.train(start, 18)
    broken.append(13)
    with pytest.raises(error) as caught:
        ours.train(start, 18)
    broken.clear()
    left = caught.value.population
    assert len(left) == len(start)
    for age in left.age.unique().tolist():  # a chunk that had not begun is where it was
        rows = (left.age == age).nonzero().squeeze(1)
        on, more = ours.train(left[rows], 18 - age)
        assert same(on, whole[rows])
        assert torch.equal(more, losses[age:, rows])


def test_a_run_that_is_done_is_read(alone, tmp_path):
    ours = trainer()
    first = ours.run(ours.start(configs()), 20, **RUN, folder=tmp_path)
    other = trainer()
    start = other.start(configs())
    other.training.advance = None  # which nobody calls
    assert equal(other.run(start, 20, **RUN, folder=tmp_path), first)
    assert equal(first, alone)


def test_what_is_read_goes_on(alone, tmp_path):
    ours = trainer()
    ours.run(ours.start(configs()), 20, **RUN, folder=tmp_path)
    read = sweep.load(tmp_path)
    more, _ = trainer().train(read.population, 5)  # its trees are flat there
    assert same(more, ours.train(alone.population, 5)[0])
    read[[1, 2]].save(tmp_path / "some.pt")
    assert same(sweep.load(tmp_path / "some.pt").population, read.population[[1, 2]])
    assert repr(read) == repr(sweep.load(tmp_path / "sweep.pt"))


def test_more_steps_go_on_from_fewer(tmp_path):
    ours = trainer()
    start = ours.start(configs())
    ours.run(start, 8, folder=tmp_path, progress=False)
    longer = ours.run(start, 12, folder=tmp_path, progress=False)
    assert same(longer.params, ours.train(start, 12)[0].params)
    assert longer.losses.shape == (12, 11)
    ours.run(start, 12, **RUN, folder=tmp_path / "with")
    with pytest.raises(ValueError, match="another job, which differs in: looks, steps"):
        ours.run(start, 20, **RUN, folder=tmp_path / "with")


def test_the_folder_of_another_job(tmp_path):
    ours = trainer()
    ours.run(ours.start(configs()), 4, folder=tmp_path, progress=False)
    before = (tmp_path / "sweep.pt").read_bytes()
    slow = {"rate": torch.full((11,), 1e-3), "b1": configs()["b1"]}
    other_loss = sweep.Trainer(make_optimizer, lambda p, b: 2 * loss_fn(p, b), init, batches, evaluate=evaluate)
    for words, other, options in (
        ("settings, first metrics, optimizer", trainer(), {"configs": slow}),
        ("parameters, keys of members, first loss, first metrics, seed", trainer(seed=1), {}),
        ("first loss", other_loss, {}),
        ("policy, looks", trainer(), {"every": 2, "policy": sweep.halve(2)}),
        ("steps", trainer(), {"steps": 3}),
        ("first metrics, metric", trainer(evaluate=None), {}),
    ):
        start = other.start(options.pop("configs", configs()))
        with pytest.raises(ValueError, match=f"is the folder of another job, which differs in: {words}$"):
            other.run(start, **{"steps": 4, "folder": tmp_path, "progress": False} | options)
    assert (tmp_path / "sweep.pt").read_bytes() == before


def test_what_a_job_is_but_its_settings(tmp_path):
    """Any number of the optimizer, what is measured, and the batches, though all start at zero, where losses agree."""
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()

    def run(momentum=0.9, share=1.0, rows=8, data=x):
        loss = lambda p, b: torch.nn.functional.cross_entropy(b[0] @ p["w"], b[1])
        return sweep.fit(
            lambda config: optfx.sgd(config["rate"], momentum=momentum),
            {"rate": torch.tensor([0.1, 1.0])},
            loss,
            {"w": torch.zeros(4, 2)},
            lambda step: (data[step * rows % 64 :][:rows], y[step * rows % 64 :][:rows]),
            steps=4,
            evaluate=lambda p: {"val_loss": share * loss(p, (data, y))},
            folder=tmp_path,
            progress=False,
        )

    before = run()
    assert torch.equal(run(data=x * (1 + 1e-6)).losses, before.losses)  # another machine may round otherwise
    for words, options in (
        ("optimizer", {"momentum": 0.5}),
        ("first metrics", {"share": 2.0}),
        ("first metrics, first batch", {"rows": 16}),
        ("first metrics, first batch", {"data": x + 1}),
    ):
        with pytest.raises(ValueError, match=f"is the folder of another job, which differs in: {words}$"):
            run(**options)


def test_a_folder_that_is_empty(tmp_path):
    with pytest.raises(FileNotFoundError):
        sweep.load(tmp_path)


def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    """And take a share of the time."""
    clock = iter([0, 0, 1, 19, 20, 20, 25, 30, 32, 74, 75])
    monkeypatch.setattr(running.time, "perf_counter", lambda: next(clock))
    pace = running._Pace()
    with pace.training(1):  # from 0 to 1
        pass
    assert pace.steps == 4  # one took a second; not twenty at once
    assert not pace.due  # at 19
    assert pace.due  # at 20
    with pace.writing():  # from 20 to 25
        pass
    pace.steps = 100
    with pace.training(1):  # from 30 to 32
        pass
    assert pace.steps == 25  # at two seconds a step, within fifty seconds
    assert not pace.due  # at 74
    assert pace.due  # at 75


def test_fit_in_a_folder(tmp_path):
    arguments = make_optimizer, configs(), loss_fn, init, batches
    first = sweep.fit(*arguments, steps=6, evaluate=evaluate, folder=tmp_path, progress=False)
    again = sweep.fit(*arguments, steps=6, evaluate=evaluate, folder=tmp_path, progress=False)
    assert equal(again, first)
    assert equal(sweep.load(tmp_path), first)
    assert again.compile_seconds == 0
