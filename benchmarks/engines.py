"""What an engine costs: a sweep in two parts on other processes, against the same sweep in this one.

The job of `job.py` with many members, so that a part takes about ten seconds. Both ways have the same cores: two
threads here, or two processes of one thread. The processes have been started, and have trained a short sweep, before
the clock starts. Both must find the same bits.

    python benchmarks/engines.py                    # rewrites its section of the page
    python benchmarks/engines.py --engines processes --rounds 3
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import job
import measure
import torch
from torch import nn
from torch.func import functional_call

import optfx
from optfx import sweep

PARTS, HIDDEN = 2, 64


@contextlib.contextmanager
def processes() -> Iterator[Any]:
    with ProcessPoolExecutor(PARTS, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        yield pool


@contextlib.contextmanager
def by_loky() -> Iterator[Any]:
    import loky

    pool = loky.get_reusable_executor(PARTS, initializer=torch.set_num_threads, initargs=(1,))
    yield pool
    pool.shutdown()


@contextlib.contextmanager
def by_dask() -> Iterator[Any]:
    from dask.distributed import Client, LocalCluster

    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=PARTS, threads_per_worker=1, dashboard_address=None, local_directory=folder) as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor()


@contextlib.contextmanager
def by_ray() -> Iterator[Any]:
    import ray

    ray.init(num_cpus=PARTS, include_dashboard=False, log_to_driver=False)
    yield sweep.RayExecutor(num_cpus=1)
    ray.shutdown()


ENGINES = {"processes": processes, "loky": by_loky, "dask": by_dask, "Ray": by_ray}


class Sweep:
    """The job as a sweep."""

    def __init__(self, members: int, steps: int) -> None:
        made = job.make(members, HIDDEN, steps)
        images, labels, order = map(torch.from_numpy, (made.images, made.labels, made.order))
        model = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
        self.start = {name: torch.from_numpy(x) for name, x in made.start.items()}
        self.configs = {name: torch.from_numpy(x) for name, x in made.hypers.items()}
        self.loss = lambda p, b: nn.functional.cross_entropy(functional_call(model, p, b[0]), b[1])
        self.batches = lambda step: (images[order[step]], labels[order[step]])

    def fit(self, steps: int, **options: Any) -> sweep.Result:
        def make_optimizer(config: dict[str, torch.Tensor]) -> Any:
            return optfx.adamw(config["rate"], b1=config["b1"], weight_decay=config["decay"])

        args = make_optimizer, self.configs, self.loss, self.start, self.batches
        return sweep.fit(*args, steps=steps, progress=False, **options)


def compare(name: str, task: Sweep, steps: int, rounds: int) -> list[str]:
    with ENGINES[name]() as executor:
        ways = {"alone": {}, name: {"executor": executor, "parts": PARTS}}
        times: dict[str, list[float]] = {way: [] for way in ways}
        for options in ways.values():
            task.fit(20, **options)
        for k in range(rounds):
            found = {}
            for way in list(ways)[:: 1 if k % 2 else -1]:
                start = time.perf_counter()
                found[way] = task.fit(steps, **ways[way])
                times[way].append(time.perf_counter() - start)
            if not torch.equal(found["alone"].losses, found[name].losses):
                raise AssertionError(f"{name}: other bits than in one process")
    alone, spread = times.values()
    return [name, *(f"{sorted(x)[len(x) // 2]:.1f}" for x in (alone, spread)), measure.Paired(alone, spread).ratio()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--members", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    machine, task = measure.machine("optfx"), Sweep(args.members, args.steps)
    rows = []
    for name in args.engines:
        rows.append(compare(name, task, args.steps, args.rounds))
        print(*rows[-1], flush=True)
    header = ["engine", "one process, s", "the engine, s", "the engine / one process (quartiles)"]
    table = f"{args.members} members, {args.steps} steps, {PARTS} parts:\n\n{measure.table(header, rows)}"
    print(table)
    if args.engines == list(ENGINES):
        measure.write("engines", f"{table}\n\n{machine}", measure.PAGE.with_name("sweep-at-scale.md"))


if __name__ == "__main__":
    main()
