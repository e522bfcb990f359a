"""What policies gain and lose: successive halving and population based training against plain sweeps.

One job, as in examples/sweep_digits.py: a 64-64-10 network on handwritten digits under AdamW, of which rate, b1, decay
and clip are swept. A seed draws all that there is to draw: the settings, where training starts, the batches, and which
digits are for training, for choosing and for testing. Each way chooses by the validation loss, as often as it likes,
and the test digits are seen once, by the one member that it chose. Ways are compared seed by seed, with a sign test.

    python benchmarks/policies.py                      # all tables, rewrites their sections of the page
    python benchmarks/policies.py --tables times --runs 1
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import measure
import torch
import torch.fx.experimental.symbolic_shapes  # which torch imports late, in the first cross entropy under vmap
import whole
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import optfx
from optfx import select, sweep

PAGE = measure.PAGE.parent / "sweep-comparisons.md"
BATCH = 128
SPACE = {
    "rate": sweep.log_uniform(1e-3, 0.3),
    "b1": sweep.uniform(0.8, 0.98),
    "decay": sweep.log_uniform(1e-3, 1.0),
    "clip": sweep.log_uniform(0.1, 10.0),
}


# ---- the job ----------------------------------------------------------------------------------


class Job:
    """What a seed draws.

    Args:
        seed: of everything.
        steps: the length of the run.
        compile: see `sweep.fit`.
    """

    def __init__(self, seed: int, steps: int, compile: bool = True) -> None:
        from sklearn.datasets import load_digits

        draw = torch.Generator().manual_seed(seed)
        images, labels = map(torch.tensor, load_digits(return_X_y=True))
        self.images, self.labels, self.seed, self.steps, self.compile = (
            images.float() / 16,
            labels,
            seed,
            steps,
            compile,
        )
        parts = torch.randperm(len(images), generator=draw).split([1077, 360, 360])
        self.train, self.validation, self.test = parts
        epochs = [torch.randperm(len(self.train), generator=draw) for _ in range(steps * BATCH // len(self.train) + 1)]
        self.order = self.train[torch.cat(epochs)[: steps * BATCH].view(steps, BATCH)]
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        uniform = lambda p: (2 * torch.rand(p.shape, generator=draw) - 1) / 8  # 1 / sqrt(64), as torch draws them
        self.start = {name: uniform(p) for name, p in optfx.params(self.model).items()}

    def score(self, params: Any, rows: Tensor) -> dict[str, Tensor]:
        logits, labels = functional_call(self.model, params, self.images[rows]), self.labels[rows]
        return {"loss": cross_entropy(logits, labels), "accuracy": (logits.argmax(-1) == labels).double().mean()}

    def fit(self, settings: int, falls: bool = True, **options: Any) -> sweep.Result:
        """A sweep of so many settings, whose rate falls along a cosine, or stays after the warmup."""
        warmup, n = self.steps // 10, self.steps

        def make_optimizer(config: dict[str, Tensor]) -> Any:
            if falls:
                rate = optfx.warmup_cosine_decay_schedule(0.0, config["rate"], warmup, n)
            else:
                rate = optfx.warmup_constant_schedule(0.0, config["rate"], warmup)
            return optfx.chain(
                optfx.clip_by_global_norm(config["clip"]),
                optfx.scale_by_adam(b1=config["b1"]),
                optfx.masked(optfx.add_decayed_weights(config["decay"]), select.ndim(min=2)),
                optfx.scale_by_learning_rate(rate),
            )

        return sweep.fit(
            make_optimizer,
            sweep.sample(SPACE, settings, seed=self.seed),
            lambda params, batch: cross_entropy(functional_call(self.model, params, batch[0]), batch[1]),
            self.start,
            lambda step: (self.images[self.order[step]], self.labels[self.order[step]]),
            steps=n,
            evaluate=lambda params: {"val_loss": self.score(params, self.validation)["loss"]},
            seed=self.seed,
            compile=self.compile,
            progress=False,
            **options,
        )


def rungs(steps: int) -> list[int]:
    """Three, each four times as late as the one before, so that as much work is done before each of them."""
    return [round(steps / 4**k) for k in (3, 2, 1)]


WAYS: dict[str, Callable[[Job], sweep.Result]] = {
    "256 settings": lambda job: job.fit(256),
    "256 settings, halving to 4": lambda job: job.fit(256, rungs=rungs(job.steps), policy=sweep.halve(4)),
    "13 settings": lambda job: job.fit(13),
    "32 settings, cosine": lambda job: job.fit(32),
    "32 settings, constant rate": lambda job: job.fit(32, falls=False),
    "32 members, PBT": lambda job: job.fit(32, falls=False, every=job.steps // 20, policy=sweep.exploit(SPACE)),
}
COMPARED = [
    ("256 settings, halving to 4", "256 settings"),
    ("256 settings, halving to 4", "13 settings"),
    ("32 members, PBT", "32 settings, constant rate"),
    ("32 members, PBT", "32 settings, cosine"),
]
MEASURES = {"validation loss": 1, "test loss": 1, "test accuracy": -1}  # and which way is better


# ---- what comes out ---------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What a way found with one seed: the measures of the member that it chose, and its work."""

    measures: dict[str, float]
    member_steps: int


def outcome(job: Job, result: sweep.Result) -> Outcome:
    best = result.best()
    test = job.score(best.params, job.test)
    found = (best.metrics["val_loss"], test["loss"].item(), test["accuracy"].item())
    trained = int(result.losses.isfinite().sum())
    return Outcome(dict(zip(MEASURES, found, strict=True)), trained)


def sign_test(wins: int, losses: int) -> float:
    """How likely so uneven a count is, either way, if each seed were a fair coin. Ties are left out."""
    n = wins + losses
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n)


def of_ways(found: dict[str, list[Outcome]]) -> str:
    rows = []
    for way, outcomes in found.items():
        medians = [median(o.measures[name] for o in outcomes) for name in MEASURES]
        rows.append([way, f"{median(o.member_steps for o in outcomes):,.0f}", *(f"{x:.4f}" for x in medians)])
    return measure.table(["way", "member-steps", *MEASURES], rows)


def of_pairs(found: dict[str, list[Outcome]]) -> str:
    rows, comparisons = [], len(COMPARED) * len(MEASURES)
    for one, other in COMPARED:
        for name, sign in MEASURES.items():
            apart = [a.measures[name] - b.measures[name] for a, b in zip(found[one], found[other], strict=True)]
            wins, losses = (sum(sign * s * x < 0 for x in apart) for s in (1, -1))
            p = sign_test(wins, losses)
            rows.append([
                f"{one} / {other}", name, f"{median(apart):+.4f}", f"{wins} : {losses}", f"{p:.3f}",
                f"{min(1.0, comparisons * p):.2f}",
            ])  # fmt: skip
    header = ["way / other way", "measure", "difference (median)", "better : worse", "p", f"p, {comparisons} times"]
    return measure.table(header, rows)


def of_times(runs: int, steps: int) -> str:
    """The time of a sweep and of halving, each in a process of its own, without compiled code on disk and with it."""
    plain, halved = list(WAYS)[:2]
    times: dict[tuple[str, str], list[list[float]]] = {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            for cache in whole.CACHES:
                for k, way in enumerate((plain, halved)):
                    line = whole.process(f"{folder}/{k}", "policies.py", "--time", way, "--steps", steps)
                    times.setdefault((way, cache), []).append([float(x) for x in line.split()])
    rows = []
    for cache in whole.CACHES:
        for way in (plain, halved):
            seconds = [f"{median(run[k] for run in times[way, cache]):.1f}" for k in range(3)]
            pairs = [*zip(times[way, cache], times[plain, cache], strict=True)]
            shares = [f"{median(own[k] / other[k] for own, other in pairs):.2f}" for k in (0, 2)]
            rows.append([way, cache, *seconds, *shares])
    header = ["seconds", "of them compiling", "of processors", "seconds, of the plain", "of processors, of the plain"]
    return measure.table(["way", "compiled code", *header], rows)


def compare(seeds: Sequence[int], steps: int, compile: bool = True) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {way: [] for way in WAYS}
    for seed in seeds:
        job = Job(seed, steps, compile)
        for way, run in WAYS.items():
            found[way].append(outcome(job, run(job)))
            print(f"seed {seed}, {way}: {found[way][-1]}", file=sys.stderr, flush=True)
    return found


def quality(args: argparse.Namespace) -> str:
    machine, found = measure.machine(), compare(range(args.seeds), args.steps)
    comparisons = len(COMPARED) * len(MEASURES)
    return "\n\n".join([
        f"{args.seeds} seeds, {args.steps} steps. Medians over the seeds:",
        of_ways(found),
        f"Seed by seed, {comparisons} comparisons: the median of the differences, in how many seeds the first was "
        f"better and worse, the p of the sign test, and that times {comparisons} (Bonferroni):",
        of_pairs(found),
        machine,
    ])  # fmt: skip


def times(args: argparse.Namespace) -> str:
    machine = measure.machine()
    return f"{args.steps} steps, medians of {args.runs} runs:\n\n{of_times(args.runs, args.steps)}\n\n{machine}"


TABLES = {"quality": quality, "times": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--runs", type=int, default=3, help="processes of each kind, for times")
    parser.add_argument("--time", choices=WAYS, help="one way alone: its seconds, and those of compiling")
    args = parser.parse_args()
    if args.time:
        job = Job(0, args.steps)
        gc.collect()  # what imports left, which else is looked through within the clock, now and then
        before = sum(os.times()[:4])  # of this process, and of compilers that it started
        result = WAYS[args.time](job)
        print(result.seconds, result.compile_seconds, sum(os.times()[:4]) - before)
        return
    for name in args.tables:
        text = TABLES[name](args)
        print(text)
        measure.write(f"policies-{name}", text, PAGE)


if __name__ == "__main__":
    main()
