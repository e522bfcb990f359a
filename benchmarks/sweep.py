"""Many optimizers at once: a sweep with optfx, side by side with optax under jax, and with a loop of torch.optim.

The same task for everybody: N members, each a 64-h-10 network with an AdamW of its own (rate, b1 and decay are swept),
all on one batch of 128 rows, float32, from the same initial values. All take five steps and must agree before any is
timed; then each is timed in turn with optfx compiled.

    python benchmarks/sweep.py                      # the four sizes of the page, rewrites its section
    python benchmarks/sweep.py --sizes 64x32
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read when jax is imported

import jax
import measure
import optax
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

import optfx
from optfx import tree

SIZES = {"64x32": (64, 32), "64x128": (64, 128), "256x32": (256, 32), "256x128": (256, 128)}  # members x hidden units
ROWS = 128


class Task:
    """What all contenders start from."""

    def __init__(self, members: int, hidden: int) -> None:
        torch.manual_seed(0)
        self.members = members
        self.model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
        self.x, self.y = torch.rand(ROWS, 64), torch.randint(10, (ROWS,))
        self.rate = torch.logspace(-4, -2, members, dtype=torch.float64)
        self.b1 = torch.linspace(0.8, 0.95, members, dtype=torch.float64)
        self.decay = torch.linspace(0.0, 0.1, members, dtype=torch.float64)
        self.params = tree.map(lambda p: p.expand(members, *p.shape).contiguous(), optfx.params(self.model))


# ---- the contenders ---------------------------------------------------------------------------
# Each is made from the task, which it does not change. `run` takes some steps and returns when they are done; `params`
# is what they led to, {name: (members, ...)}.


class Optfx:
    def __init__(self, task: Task, wrap: Callable[[Any], Any]):
        def loss_fn(params, x, y):
            return nn.functional.cross_entropy(functional_call(task.model, params, x), y)

        def step(tx, params, state, x, y):
            grads, loss = grad_and_value(loss_fn)(params, x, y)
            updates, state = tx.update(grads, state, params)
            return optfx.apply_updates(params, updates), state, loss

        self.txs = optfx.adamw(task.rate, b1=task.b1, weight_decay=task.decay)
        self.params = tree.map(torch.clone, task.params)
        state = vmap(lambda tx, params: tx.init(params))(self.txs, self.params)
        self.state = tree.map(lambda x: x.clone(memory_format=torch.contiguous_format), state)
        self.step = wrap(optfx.donate(vmap(step, in_dims=(0, 0, 0, None, None)), argnums=(1, 2)))
        self.batch = task.x, task.y

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.params, self.state, _ = self.step(self.txs, self.params, self.state, *self.batch)


def eager(step):
    return step


def compiled(step):
    return torch.compile(step, fullgraph=True, dynamic=False)


class Optax:
    def __init__(self, task: Task):
        def loss_fn(params, x, y):
            hidden = jax.nn.relu(x @ params["0.weight"].T + params["0.bias"])
            logits = hidden @ params["2.weight"].T + params["2.bias"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        def step(hypers, params, state, x, y):
            loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
            updates, state = optimizer(hypers).update(grads, state, params)
            return optax.apply_updates(params, updates), state, loss

        def optimizer(hypers):
            return optax.adamw(hypers["rate"], b1=hypers["b1"], weight_decay=hypers["decay"])

        self.hypers = {name: to_jax(getattr(task, name).float()) for name in ("rate", "b1", "decay")}
        self.now = {name: to_jax(p) for name, p in task.params.items()}
        self.state = jax.vmap(lambda hypers, params: optimizer(hypers).init(params))(self.hypers, self.now)
        self.step = jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None, None)), donate_argnums=(1, 2))
        self.batch = to_jax(task.x), to_jax(task.y)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.now, self.state, _ = self.step(self.hypers, self.now, self.state, *self.batch)
        jax.block_until_ready((self.now, self.state))

    @property
    def params(self) -> dict[str, Tensor]:
        return {name: torch.tensor(jax.device_get(p)) for name, p in self.now.items()}


def to_jax(x: Tensor) -> jax.Array:
    return jax.numpy.array(x.numpy())  # a copy, which jax may overwrite


class Loop:
    def __init__(self, task: Task):
        self.models = [copy.deepcopy(task.model) for _ in range(task.members)]
        hypers = zip(task.rate.tolist(), task.b1.tolist(), task.decay.tolist(), strict=True)
        self.optimizers = [
            torch.optim.AdamW(model.parameters(), lr=rate, betas=(b1, 0.999), weight_decay=decay, fused=True)
            for model, (rate, b1, decay) in zip(self.models, hypers, strict=True)
        ]
        self.batch = task.x, task.y

    def run(self, steps: int) -> None:
        x, y = self.batch
        for _ in range(steps):
            for model, optimizer in zip(self.models, self.optimizers, strict=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()

    @property
    def params(self) -> dict[str, Tensor]:
        each = [optfx.params(model) for model in self.models]
        return {name: torch.stack([params[name] for params in each]) for name in each[0]}


# ---- the comparison ---------------------------------------------------------------------------

COMPILED = "optfx, compiled"
OTHERS: dict[str, tuple[Callable[[Task], Any], int]] = {  # and how many steps make a round
    "optfx, eager": (lambda task: Optfx(task, eager), 3),
    "optax, jax.jit": (Optax, 10),
    "loop of torch.optim.AdamW(fused=True)": (Loop, 2),
}


def agree(task: Task, contenders: dict[str, Any], steps: int = 5) -> None:
    """Let all take some steps, and check that nine of ten members went the same way, to 1% of its length.

    Not every one: where a hidden unit is next to the kink of the ReLU, rounding decides on which side, and Adam divides
    what follows by its own size.
    """
    for contender in contenders.values():
        contender.run(steps)
    ends = {name: flat(contender.params) for name, contender in contenders.items()}
    way = (ends[COMPILED] - flat(task.params)).norm(dim=1)
    for name, end in ends.items():
        apart = ((end - ends[COMPILED]).norm(dim=1) / way).quantile(0.9).item()
        if not apart < 0.01:
            raise AssertionError(f"{name} went another way than {COMPILED}: {apart:.1%} apart after {steps} steps")


def flat(params: dict[str, Tensor]) -> Tensor:
    return torch.cat([x.flatten(1) for x in tree.leaves(params)], dim=1)


def rows(members: int, hidden: int, rounds: int) -> list[list[str]]:
    """The rows of the table for one size, the cells as text; times are those of one step of all members."""
    torch._dynamo.reset()
    task = Task(members, hidden)
    ours = Optfx(task, compiled)
    others = {name: make(task) for name, (make, _) in OTHERS.items()}
    agree(task, {COMPILED: ours, **others})
    size, found = f"{members} x 64-{hidden}-10", []
    for name, other in others.items():
        steps = OTHERS[name][1]
        times = measure.paired(lambda n=steps: ours.run(n), lambda o=other, n=steps: o.run(n), rounds)
        a, b = ([t / steps for t in each] for each in times)
        found.append([size, name, measure.milliseconds(a), measure.milliseconds(b), times.ratio()])
    return found


HEADER = ["members", "A: optfx, compiled; B:", "A, ms", "B, ms", "B / A"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    machine = measure.machine("optfx", "jax", "optax")
    lines = []
    for size in args.sizes:
        found = rows(*SIZES[size], args.rounds)
        lines += found
        print(measure.table(HEADER, found), end="\n\n", flush=True)
    if set(args.sizes) == set(SIZES):  # the page shows all of them
        measure.write("sweep", f"{machine}\n\n{measure.table(HEADER, lines)}")


if __name__ == "__main__":
    main()
