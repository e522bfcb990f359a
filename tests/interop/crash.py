"""Kill a run again and again, and see whether it goes on bit for bit from its last complete checkpoint.

    python -m tests.interop.crash --kills 1000

A life of the run is a forked process that ends by SIGKILL. It begins from the checkpoint that is there and saves after
every step; what it trains needs everything that a run may keep: noise from a key, batches from a generator, a
schedule, momentum, a mean of the parameters. The kills come at random moments (`killed_at_random`), and before every
line of Python that saving goes through (`killed_at_each_line`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import torch

import optfx
from optfx import files, interop, tree

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


def digest(run) -> str:
    found = hashlib.sha256()
    for name, x in tree.to_dict(run).items():
        found.update(name.encode() + x.contiguous().numpy().tobytes())
    return found.hexdigest()


def uninterrupted() -> list[str]:
    """The digest of the run after each number of steps."""
    tx, generator, run = begin()
    digests = [digest(run)]
    for _ in range(STEPS):
        run = step(tx, generator, run)
        digests.append(digest(run))
    return digests


def live(path: Path, diary: Path) -> None:
    """One life of the run, which notes in its diary what it begins from, and each step before and after it is saved."""
    with open(diary, "w", buffering=1) as log:  # every line reaches the system, which outlives the process
        tx, generator, run = begin()
        if path.exists():
            run = interop.load(run, path)
        print("began", int(run["step"]), digest(run), file=log)
        while run["step"] < STEPS:
            run = step(tx, generator, run)
            print("saving", int(run["step"]), digest(run), file=log)
            interop.save(run, path)
            print("saved", int(run["step"]), digest(run), file=log)


def forked(life, *args) -> int:
    """The process in which `life(*args)` runs."""
    process = os.fork()
    if process == 0:
        try:
            life(*args)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return process


def was_killed(process: int) -> bool:
    _, status = os.waitpid(process, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the run failed"
    return os.WIFSIGNALED(status)


def drafts(path: Path) -> set[Path]:
    return set(files._drafts(path))


def killed_at_random(kills: int, seed: int = 0) -> dict[str, int]:
    """Whole runs, each killed until it is through, until there were so many kills: how many of what happened."""
    chance = random.Random(seed)
    digests = uninterrupted()
    seen = Counter(dict.fromkeys(("kills", "while saving", "with a draft left", "resumes", "bit-equal", "runs"), 0))
    with tempfile.TemporaryDirectory() as folder:
        path, diary = Path(folder) / "run.pt", Path(folder) / "diary"
        while seen["kills"] < kills:
            path.unlink(missing_ok=True)
            complete, possible, alive = 0, 0, True  # the last step surely saved, and perhaps
            while alive:
                diary.unlink(missing_ok=True)
                before = drafts(path)
                process = forked(live, path, diary)
                time.sleep(chance.uniform(0, 0.12))
                os.kill(process, signal.SIGKILL)
                alive = was_killed(process)
                seen["kills"] += alive
                lines = diary.read_text().splitlines() if diary.exists() else []
                notes = [line.split() for line in lines]
                seen["while saving"] += alive and bool(notes) and notes[-1][0] == "saving"
                seen["with a draft left"] += alive and not drafts(path) <= before
                if notes:
                    first = int(notes[0][1])
                    seen["resumes"] += first > 0
                    on_the_last = complete <= first <= possible
                    equal = all(digests[int(at)] == found for _, at, found in notes)
                    seen["bit-equal"] += first > 0 and on_the_last and equal
                    assert first > 0 or (on_the_last and equal), "a run that begins anew differs"
                complete = max([complete, *(int(at) for word, at, _ in notes if word != "saving")])
                possible = max([possible, *(int(at) for _, at, _ in notes)])
            seen["runs"] += 1
            assert not drafts(path)
            assert digest(interop.load(begin()[2], path)) == digests[-1]
    return dict(seen)


def killed_at_each_line() -> dict[str, int]:
    """A second checkpoint is saved, and its process killed before each line of the writer, and of `torch.save`."""
    old, new = ({"w": torch.full((20_000,), x), "step": torch.tensor(x)} for x in (1, 2))
    names = {digest(old): "old", digest(new): "new"}
    traced = {files.__file__, interop.save.__code__.co_filename, torch.serialization.__file__}

    def save(path: Path, deadline: int | None) -> int:
        """Save; how many lines that took. Die before line `deadline`."""
        line = 0

        def trace(frame, event, _):
            nonlocal line
            if frame.f_code.co_filename not in traced:
                return None
            if event == "line":
                if line == deadline:
                    os.kill(os.getpid(), signal.SIGKILL)
                line += 1
            return trace

        sys.settrace(trace)
        interop.save(new, path)
        sys.settrace(None)
        return line

    seen = Counter(dict.fromkeys(("lines", "old", "new", "with a draft left"), 0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        save(path, None)  # what is done once in a process is done
        for deadline in range(save(path, None)):
            interop.save(old, path)
            assert was_killed(forked(save, path, deadline))
            seen["lines"] += 1
            seen["with a draft left"] += bool(drafts(path))
            there = names[digest(interop.load(old, path))]
            assert there == "new" or not seen["new"], "an earlier kill found the new checkpoint there"
            seen[there] += 1
    return dict(seen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    kills = parser.parse_args().kills
    torch.set_num_threads(1)  # a fork has none but its own
    print(json.dumps({"random": killed_at_random(kills), "lines": killed_at_each_line()}, indent=4))
