"""Many optimizers at once: a sweep with optfx, side by side with optax under jax, and with a loop of torch.optim.

What a sweep takes from the call to the answer (`whole.py`), and what a step takes when all has begun: in quiet, and
beside processes that keep a core busy.

    python benchmarks/sweep.py                      # all tables, rewrites its section of the page
    python benchmarks/sweep.py --tables step --sizes 64x32
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import job
import measure
import ways
import whole

DEMO = (256, 64)  # members and hidden units of examples/sweep_digits.py
SIZES = [(64, 32), (64, 128), (256, 32), (256, 128), DEMO]
LONG = [(64, 32), DEMO]  # which also take 6000 steps
NEIGHBOURS = (0, 1, 2)


# ---- the step ---------------------------------------------------------------------------------

BUSY = """
import os
import numpy
parent = os.getppid()
x = numpy.random.default_rng(0).random((256, 256)) / 128
print("busy", flush=True)
while os.getppid() == parent:  # it does not outlive the benchmark
    x = x @ x + 0.1 * x
    x /= abs(x).max()
"""


@contextlib.contextmanager
def neighbours(n: int) -> Iterator[None]:
    """So many other processes, each of which keeps one core busy with floating point."""
    alone = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, "-c", BUSY]
    with contextlib.ExitStack() as stack:
        for _ in range(n):
            process = stack.enter_context(subprocess.Popen(command, env=os.environ | alone, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
        yield


def lengths(members: int, hidden: int) -> tuple[int, int, int]:
    """Two lengths of a run that differ by about half a second, and one of some seconds."""
    half_a_second = max(20, 2**20 // (members * hidden))
    return 20, 20 + half_a_second, 40 * half_a_second


def slope(way: Any, short: int, long: int) -> float:
    """The seconds of a step: by how much the longer run takes longer, without what either waits for compilers. So what
    precedes the first step falls out."""
    times = []
    for steps in (short, long):
        time.sleep(measure.PAUSE)
        run = way.run(steps)
        times.append(run.seconds - run.compiling)
    return (times[1] - times[0]) / (long - short)


STEP = ["members", "busy neighbours", "optfx, ms", "jax, a loop, ms", "jax, `scan`, ms", "jax / optfx (quartiles)"]


def step(size: tuple[int, int], rounds: int) -> list[list[str]]:
    """Rows of the table of steps: all ways in turn, forwards and backwards. `jax` is the faster of its two ways."""
    short, long, some_seconds = lengths(*size)
    task = job.make(*size, some_seconds)
    made = {way: ways.WAYS[way](task) for way in ways.COMPILED}
    made["optfx"].run(some_seconds)  # in which it finds out which blocks are fastest on this machine
    for n in (short, long):
        job.agree(task, {way: made[way].run(n) for way in made})  # and all is compiled
    rows = []
    for n in NEIGHBOURS:
        times: dict[str, list[float]] = {way: [] for way in made}
        with neighbours(n):
            for k in range(rounds):
                for way in list(made)[:: 1 if k % 2 else -1]:
                    times[way].append(slope(made[way], short, long))
        ours, loop, scan = times.values()
        ratio = measure.Paired(ours, min(loop, scan, key=median)).ratio()
        rows.append([whole.titled(size), str(n), *map(measure.milliseconds, (ours, loop, scan)), ratio])
    return rows


# ---- all tables -------------------------------------------------------------------------------


def size(text: str) -> tuple[int, int]:
    members, hidden = map(int, text.split("x"))
    return members, hidden


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--sizes", nargs="+", type=size, default=SIZES, help="members x hidden units")
    parser.add_argument("--steps", nargs="+", type=int, default=[60, 600], help="lengths of a whole run")
    parser.add_argument("--long", nargs="*", type=size, default=LONG, help="sizes that also take 6000 steps")
    parser.add_argument("--runs", type=int, default=3, help="processes of each kind, for whole times")
    parser.add_argument("--rounds", type=int, default=15, help="for times of a step")
    args = parser.parse_args()
    parts = [measure.machine("optfx", "jax", "optax")]
    for name in args.tables:
        for part in TABLES[name](args):
            parts.append(part)
            print(part, end="\n\n", flush=True)
    if args.tables == list(TABLES) and args.sizes == SIZES:  # the page shows all of them
        measure.write("sweep", "\n\n".join(parts))


def whole_times(args: argparse.Namespace) -> Iterator[str]:
    answers, firsts = [], []
    for size in args.sizes:
        for steps in args.steps + [6000] * (size in args.long):
            runs = [whole.once(*size, steps) for _ in range(args.runs)]
            answers += whole.answer(size, steps, runs)
            if steps == args.steps[0]:
                firsts += whole.first(size, runs)
            print(*answers[-2:], sep="\n", flush=True)
    yield f"**The whole time, from the call to the answer**\n\n{measure.table(whole.ANSWER, answers)}"
    yield f"**The time until the first losses**\n\n{measure.table(whole.FIRST, firsts)}"


def step_times(args: argparse.Namespace) -> Iterator[str]:
    rows = []
    for size in args.sizes:
        rows += step(size, args.rounds)
        print(*rows[-len(NEIGHBOURS) :], sep="\n", flush=True)
    yield f"**One step of all members**\n\n{measure.table(STEP, rows)}"


def halving_times(args: argparse.Namespace) -> Iterator[str]:
    rows = whole.halving(whole.KEPT, DEMO[1], steps=200, runs=args.runs)
    yield f"**Successive halving**\n\n{measure.table(whole.HALVING, rows)}"


TABLES = {"whole": whole_times, "step": step_times, "halving": halving_times}


if __name__ == "__main__":
    main()
