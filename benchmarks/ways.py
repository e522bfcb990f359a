"""The ways to do a sweep: `optfx.sweep.fit`, by hand in jax and optax, and a loop of torch.optim.

Each is made from a job and has `run(steps)`, which trains all members from the start, for so many steps. What a way
needs is imported when it is made, so that a process of one way has nothing of the others.

    python benchmarks/ways.py optfx 256 64 600      # one run, in this process: its times
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from job import Job, Run, few, make

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read when jax is imported


class Optfx:
    """`optfx.sweep.fit`. The first losses are there when `fit` asks for the second batch."""

    def __init__(self, job: Job) -> None:
        import torch
        import torch.fx.experimental.symbolic_shapes  # which torch imports late, in the first cross entropy under vmap
        from torch import nn
        from torch.func import functional_call

        import optfx
        from optfx import sweep

        model = nn.Sequential(nn.Linear(64, job.hidden), nn.ReLU(), nn.Linear(job.hidden, 10))
        images, labels, order = map(torch.from_numpy, (job.images, job.labels, job.order))
        self.start = {name: torch.from_numpy(x) for name, x in job.start.items()}
        self.configs = {name: torch.from_numpy(x) for name, x in job.hypers.items()}
        self.asked: dict[int, float] = {}  # when each batch was asked for

        def make_optimizer(config):
            rate = optfx.warmup_cosine_decay_schedule(0.0, config["rate"], job.steps // 10, job.steps)
            return optfx.adamw(rate, b1=config["b1"], weight_decay=config["decay"])

        def loss_fn(params, batch):
            x, y = batch
            return nn.functional.cross_entropy(functional_call(model, params, x), y)

        def batches(step):
            self.asked[step] = time.perf_counter()
            return images[order[step]], labels[order[step]]

        def fit(configs, init, steps):
            return sweep.fit(make_optimizer, configs, loss_fn, init, batches, steps=steps, progress=False)

        self.fit = fit

    def run(self, steps: int) -> Run:
        began = time.perf_counter()
        found = self.fit(self.configs, self.start, steps)
        seconds = time.perf_counter() - began
        first = self.asked[1] - began
        params = {name: x.numpy() for name, x in found.params.items()}
        return Run(seconds, first, found.compile_seconds, found.losses.numpy(), params)


class Optax:
    """`jax.jit(jax.vmap(step))`, which may overwrite parameters and states, in a loop over batches; or, as one program,
    `jax.lax.scan` over the steps, which picks the rows of each batch itself."""

    def __init__(self, job: Job, scan: bool = False) -> None:
        import jax
        import optax
        from jax import numpy as jnp

        self.job, self.scan = job, scan
        self.hypers = {name: jnp.asarray(x, jnp.float32) for name, x in job.hypers.items()}
        self.data = jnp.asarray(job.images), jnp.asarray(job.labels)
        # of the rate 1: the schedule of optax compares the rate with 0, and cannot be mapped over it
        schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, job.steps // 10, job.steps)

        def optimizer(hypers):
            return optax.adamw(
                lambda count: hypers["rate"] * schedule(count), b1=hypers["b1"], weight_decay=hypers["decay"]
            )

        def loss_fn(params, x, y):
            hidden = jax.nn.relu(x @ params["0.weight"].T + params["0.bias"])
            logits = hidden @ params["2.weight"].T + params["2.bias"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        @jax.jit
        @jax.vmap
        def begin(hypers):
            return job.start, optimizer(hypers).init(job.start)

        @partial(jax.jit, donate_argnums=(1, 2))
        @partial(jax.vmap, in_axes=(0, 0, 0, None, None))
        def step(hypers, params, state, x, y):
            loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
            updates, state = optimizer(hypers).update(grads, state, params)
            return optax.apply_updates(params, updates), state, loss

        @partial(jax.jit, donate_argnums=(1, 2))
        def whole(hypers, params, state, data, order):
            def next_step(carry, rows):
                params, state, losses = step(hypers, *carry, *(x[rows] for x in data))
                return (params, state), losses

            return jax.lax.scan(next_step, (params, state), order)

        self.begin, self.step, self.whole = begin, step, whole

    def run(self, steps: int) -> Run:
        import jax

        job, first = self.job, 0.0
        began = time.perf_counter()
        params, state = self.begin(self.hypers)
        if self.scan:
            (params, _), losses = self.whole(self.hypers, params, state, self.data, job.order[:steps])
            params, losses = jax.device_get((params, losses))
            first = time.perf_counter() - began
        else:
            curve = []
            for t in range(steps):
                rows = job.order[t]
                params, state, losses = self.step(self.hypers, params, state, job.images[rows], job.labels[rows])
                if not t:
                    losses.block_until_ready()
                    first = time.perf_counter() - began
                curve.append(losses)
            params, losses = jax.device_get(params), np.stack(jax.device_get(curve))
        return Run(time.perf_counter() - began, first, 0.0, losses, params)


class Torch:
    """A loop over fused `torch.optim.AdamW`, for four of the members. The times are of those four: `for_all` says what
    all would take.

    On one thread: more are no faster for a network so small, and wait for each other where another process has a core.
    """

    def __init__(self, job: Job) -> None:
        import torch

        import optfx

        self.job = job
        self.data = tuple(map(torch.from_numpy, (job.images, job.labels, job.order)))
        schedule = optfx.warmup_cosine_decay_schedule(0.0, 1.0, job.steps // 10, job.steps)
        self.factors = torch.func.vmap(schedule)(torch.arange(job.steps + 1)).tolist()

    def run(self, steps: int) -> Run:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        began, firsts, curves, ends = time.perf_counter(), [], [], []
        for i in few(self.job.members):
            losses, params, first = self.one(i, steps)
            firsts.append(first - began)
            curves.append(losses)
            ends.append(params)
        torch.set_num_threads(threads)
        losses = torch.stack(curves, 1).numpy()
        params = {name: torch.stack([end[name] for end in ends]).numpy() for name in ends[0]}
        return Run(time.perf_counter() - began, firsts[0], 0.0, losses, params)

    def one(self, i: int, steps: int) -> tuple[Any, dict[str, Any], float]:
        """The losses and final parameters of one member, and when its first loss was known."""
        import torch
        from torch import nn

        job, first = self.job, 0.0
        images, labels, order = self.data
        model = nn.Sequential(nn.Linear(64, job.hidden), nn.ReLU(), nn.Linear(job.hidden, 10))
        model.load_state_dict({name: torch.from_numpy(x) for name, x in job.start.items()})
        rate, b1, decay = (float(x[i]) for x in job.hypers.values())
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(b1, 0.999), weight_decay=decay, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.factors.__getitem__)
        curve = []
        for t in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[order[t]]), labels[order[t]])
            loss.backward()
            optimizer.step()
            scheduler.step()
            curve.append(loss.detach())
            if not t:
                first = time.perf_counter()
        return torch.stack(curve), {name: p.detach() for name, p in model.named_parameters()}, first


WAYS: dict[str, Callable[[Job], Any]] = {
    "optfx": Optfx,
    "jax": Optax,
    "scan": partial(Optax, scan=True),
    "torch": Torch,
}
COMPILED = ("optfx", "jax", "scan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("members", type=int)
    parser.add_argument("hidden", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("--out", help="a file for the run, .npz")
    args = parser.parse_args()
    way = WAYS[args.way](make(args.members, args.hidden, args.steps))
    gc.collect()  # what imports left, which else is looked through within the clock, now and then
    run = way.run(args.steps)
    print(f"{run.seconds:.2f} s, {run.first:.2f} s until the first losses, {run.compiling:.2f} s of it compiling")
    if args.out:
        times = {name: getattr(run, name) for name in ("seconds", "first", "compiling", "losses")}
        np.savez(args.out, **times, **run.params)


def read(file: str) -> Run:
    """What a process wrote."""
    with np.load(file) as found:
        given = dict(found)
    times = [float(given.pop(name)) for name in ("seconds", "first", "compiling")]
    return Run(*times, given.pop("losses"), given)


if __name__ == "__main__":
    main()
