"""One sweep, as people do it, and what must come out of it.

N members, each a 64-h-10 network on handwritten digits with an AdamW of its own (rate, b1 and decay are swept, the rate
warms up and falls along a cosine), all from the same initial values, a new batch of 128 rows at each step, in float32.
The losses of all steps and the final parameters are kept. All is arrays of numpy, so that a process that runs the job
one way (`ways.py`) need not import what another way needs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]

ROWS = 128


class Job(NamedTuple):
    """What all start from."""

    members: int
    hidden: int
    steps: int  # of the schedule
    images: np.ndarray  # (digits, 64) float32
    labels: np.ndarray  # (digits,) int64
    order: np.ndarray  # (steps, ROWS) int64, the digits of each batch
    start: Arrays  # the initial parameters of every member, float32
    hypers: Arrays  # {name: (members,) float64}


def make(members: int, hidden: int, steps: int) -> Job:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    draw = np.random.default_rng(0)
    epochs = [draw.permutation(len(images)) for _ in range(steps * ROWS // len(images) + 1)]
    start = {}
    for name, fan_in, fan_out in (("0", 64, hidden), ("2", hidden, 10)):
        for leaf, shape in (("weight", (fan_out, fan_in)), ("bias", (fan_out,))):
            start[f"{name}.{leaf}"] = draw.uniform(-1, 1, shape).astype(np.float32) / np.float32(fan_in) ** 0.5
    return Job(
        members,
        hidden,
        steps,
        (images / 16).astype(np.float32),
        labels.astype(np.int64),
        np.concatenate(epochs)[: steps * ROWS].reshape(steps, ROWS),
        start,
        {
            "rate": np.logspace(-4, -2, members),
            "b1": np.linspace(0.8, 0.95, members),
            "decay": np.linspace(0.0, 0.1, members),
        },
    )


class Run(NamedTuple):
    """One run of the job: its times, in seconds from the call, and what came out."""

    seconds: float  # until the answer
    first: float  # until the first losses are known
    compiling: float  # waited for compilers, as far as it says; else 0
    losses: np.ndarray  # (steps, members)
    params: Arrays  # {name: (members, ...)}


def few(members: int) -> list[int]:
    """The four members that the loop trains."""
    return np.linspace(0, members - 1, 4).astype(int).tolist()


def for_all(run: Run, members: int) -> float:
    """What the loop would take for all members: what comes before the first loss comes once."""
    return run.first + (run.seconds - run.first) * members / len(few(members))


def agree(job: Job, runs: dict[str, Run]) -> None:
    """Raise unless all runs found the same: nine of ten members went the same way as with jax, to 1% of its length, or
    5% where thousands of steps have let roundings grow.

    Not every one: where a hidden unit is next to the kink of the ReLU, rounding decides on which side, and Adam divides
    what follows by its own size.
    """
    limit = 0.01 if job.steps <= 600 else 0.05
    start = flat({name: x[None] for name, x in job.start.items()})
    expected = runs["jax"]
    for name, run in runs.items():
        rows = few(job.members) if name == "torch" else slice(None)
        end, losses = flat(expected.params)[rows], expected.losses[:, rows]
        apart = norm(flat(run.params) - end) / norm(end - start)
        off = norm((run.losses - losses).T) / norm(losses.T)
        for what, each in (("parameters", apart), ("losses", off)):
            if not np.quantile(each, 0.9) < limit:
                raise AssertionError(f"{name}: {what} are {np.quantile(each, 0.9):.1%} apart from those of jax")


def flat(params: Arrays) -> np.ndarray:
    return np.concatenate([params[name].reshape(len(params[name]), -1) for name in sorted(params)], 1)


def norm(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x, axis=1)
