"""Kill a run again and again, at random moments, and see whether it goes on bit for bit.

    python -m tests.interop.crash --kills 1000

Each life of the run is a forked process that is killed by SIGKILL. It trains with noise, momentum, a schedule and a
mean of the parameters, saves after every step, and begins from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import torch

import optfx
from optfx import interop

STEPS = 40


def begin():
    params = {"layer.weight": torch.linspace(-1, 1, 48 * 64).reshape(48, 64), "bias": torch.zeros(48)}
    tx = optfx.chain(
        optfx.add_noise(0.1, 0.55, optfx.random.key(7)),
        optfx.adamw(optfx.cosine_decay_schedule(1e-2, STEPS)),
        optfx.params_ema(0.9),
    )
    generator = torch.Generator().manual_seed(3)
    run = {"params": params, "state": tx.init(params), "step": torch.tensor(0), "batches": generator.get_state()}
    return tx, generator, run


def step(tx, generator, run):
    generator.set_state(run["batches"])
    x = torch.randn(16, 64, generator=generator)

    def loss(params):
        return (x @ params["layer.weight"].T + params["bias"]).sin().square().mean()

    updates, state = tx.update(torch.func.grad(loss)(run["params"]), run["state"], run["params"])
    params = optfx.apply_updates(run["params"], updates)
    return {"params": params, "state": state, "step": run["step"] + 1, "batches": generator.get_state()}


def live(path: Path) -> None:
    tx, generator, run = begin()
    if path.exists():
        run = interop.load(path, run)
    while run["step"] < STEPS:
        run = step(tx, generator, run)
        interop.save(run, path)


def uninterrupted() -> dict[str, torch.Tensor]:
    tx, generator, run = begin()
    for _ in range(STEPS):
        run = step(tx, generator, run)
    return interop.state_dict(run)


def crash(kills: int, seed: int = 0) -> dict[str, int]:
    """Runs that are killed until there were so many kills: how many of what happened."""
    torch.set_num_threads(1)
    chance = random.Random(seed)
    expected = uninterrupted()
    seen = {"kills": 0, "while writing": 0, "before the first checkpoint": 0, "runs": 0, "bit-equal": 0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        while seen["kills"] < kills:
            path.unlink(missing_ok=True)
            done = False
            while not done:
                life = os.fork()
                if life == 0:
                    live(path)
                    os._exit(0)
                time.sleep(chance.uniform(0, 0.05))
                os.kill(life, signal.SIGKILL)
                _, status = os.waitpid(life, 0)
                if os.WIFEXITED(status):
                    assert os.WEXITSTATUS(status) == 0, "the run failed"
                    done = True
                else:
                    seen["kills"] += 1
                    seen["while writing"] += path.with_name("run.pt.part").exists()
                    seen["before the first checkpoint"] += not path.exists()
            run = interop.state_dict(interop.load(path, begin()[2]))
            seen["runs"] += 1
            seen["bit-equal"] += all(torch.equal(run[key], expected[key]) for key in expected)
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    print(json.dumps(crash(parser.parse_args().kills)))
