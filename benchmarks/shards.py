"""A step on sharded parameters: clip by the global norm, AdamW with decay for matrices only, warmup and cosine.

Two processes of one thread each hold half of every parameter (`distribute_tensor`, as `fully_shard` does it). In turn
they take steps in eager code, steps of `fuse`, and steps of `fuse` for an optimizer of their own on as many plain
tensors as they hold, with nothing to exchange. Both processes do the same at the same time, the slower one counts, and
the steps in eager code and of `fuse` must agree. What a step of `fuse` spends in the collective of torch, where it also
waits for the other process, is measured apart.

    python benchmarks/shards.py                     # rewrites its section of the page
    python benchmarks/shards.py --sizes blocks148 --rounds 15
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from typing import Any

import measure
import torch
from sizes import SIZES, Tensors, gradients, parameters, titled

import optfx
from optfx import select
from optfx.compiler.plan import others

RANKS = 2
CHECKED, STEPS = 5, 20  # at the beginning, and in a row for a time: they do not begin at the very same moment
EAGER, FUSED, PLAIN = "optfx, eager", "**optfx, `fuse`**", "`fuse` on half the parameters, not sharded"
APART = "**optfx, `fuse`**, without its collective"


def chain() -> Any:
    return optfx.chain(
        optfx.clip_by_global_norm(1.0),
        optfx.scale_by_adam(),
        optfx.masked(optfx.add_decayed_weights(0.1), select.ndim(min=2)),
        optfx.scale_by_learning_rate(optfx.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 10_000)),
    )


class Eager:
    def __init__(self, params: Tensors):
        self.tx, self.params = chain(), params
        self.state = self.tx.init(params)

    def step(self, grads: Tensors) -> None:
        updates, self.state = self.tx.update(grads, self.state, self.params)
        self.params = optfx.apply_updates(self.params, updates)


class Fused:
    def __init__(self, params: Tensors):
        self.opt = optfx.fuse(chain())
        self.params, self.state = self.opt.init(params)

    def step(self, grads: Tensors) -> None:
        self.params, self.state = self.opt.step(grads, self.state, self.params)


def spread(values: Tensors, mesh: Any, rows: Any) -> Tensors:
    """The same, half on each process."""
    from torch.distributed.tensor import distribute_tensor

    return {name: distribute_tensor(x, mesh, [rows], src_data_rank=None) for name, x in values.items()}


def here(values: Tensors) -> Tensors:
    """What this process has of them."""
    return {name: x.to_local().clone() for name, x in values.items()}  # type: ignore[attr-defined]


def together(f: Callable[[], Any]) -> float:
    """The time of some calls in all processes, which begin at once."""
    torch.distributed.barrier()
    start = time.perf_counter()
    for _ in range(STEPS):
        f()
    return (time.perf_counter() - start) / STEPS


class Collective:
    """What torch's collective of a step of `fuse` takes."""

    def __init__(self):
        self._gather, self.seconds = others.gather, 0.0
        others.gather = self

    def __call__(self, *args: Any) -> None:
        start = time.perf_counter()
        self._gather(*args)
        self.seconds += time.perf_counter() - start


def rank_main(rank: int, store: str, size: str, rounds: int, results: Any) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    shapes = SIZES[size][1]
    mesh, rows = init_device_mesh("cpu", (RANKS,)), Shard(0)
    params, grads = spread(parameters(shapes), mesh, rows), spread(gradients(shapes, 1), mesh, rows)
    eager, fused, plain = Eager(params), Fused(params), Fused(here(params))
    mine = here(grads)
    steps = {
        EAGER: lambda: eager.step(grads),
        FUSED: lambda: fused.step(grads),
        PLAIN: lambda: plain.step(mine),
    }
    for f in steps.values():
        for _ in range(CHECKED):
            f()
    for name, x in here(eager.params).items():
        torch.testing.assert_close(fused.params[name].to_local(), x, rtol=1e-6, atol=1e-8)
    times: list[dict[str, float]] = []
    collective, orders = Collective(), list(itertools.permutations(steps))
    for k in range(rounds):
        order = orders[k % len(orders)]
        collective.seconds = 0.0
        found = {name: together(steps[name]) for name in order}
        times.append(found | {APART: found[FUSED] - collective.seconds / STEPS})
    results.put(times)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def compare(size: str, rounds: int) -> str:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        ranks = [context.Process(target=rank_main, args=(r, store, size, rounds, results)) for r in range(RANKS)]
        for process in ranks:
            process.start()
        found = [results.get() for _ in ranks]
        for process in ranks:
            process.join()
    slower = {name: [max(mine[name] for mine in of_all) for of_all in zip(*found, strict=True)] for name in found[0][0]}
    rows = []
    for name in (EAGER, FUSED, APART, PLAIN):
        to_eager, to_plain = measure.Paired(slower[EAGER], slower[name]), measure.Paired(slower[PLAIN], slower[name])
        shown = ["1" if name == base else x.ratio() for base, x in ((EAGER, to_eager), (PLAIN, to_plain))]
        rows.append((name, measure.milliseconds(slower[name]), *shown))
    header = ("two processes", "ms a step", "of eager (quartiles)", "of half, not sharded (quartiles)")
    return f"{titled(size)}\n\n{measure.table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = ["blocks148", "blocks76", "big4"]
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=chosen)
    parser.add_argument("--rounds", type=int, default=31)
    args = parser.parse_args()
    parts = [measure.machine("optfx")]
    for size in args.sizes:
        parts.append(compare(size, args.rounds))
        print(parts[-1], end="\n\n", flush=True)
    if set(chosen) <= set(args.sizes):
        measure.write("shards", "\n\n".join(parts))


if __name__ == "__main__":
    main()
