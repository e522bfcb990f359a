"""Does Optuna find better settings than an even spread of them, for as many steps of training? On digits.

Each seed has rows to train on, to choose by and to test on, a start, batches, and a sampler of its own. Both ways train
256 settings for 100 steps: at once, from a Sobol sequence; or 32 at a time, from TPE. The setting with the best
validation loss is then looked at on the test rows, which no method saw.

    python benchmarks/search.py                      # rewrites its section of docs/sweep-at-scale.md
    python benchmarks/search.py --seeds 2 --steps 50
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import measure
import optuna
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import optfx
from optfx import select, sweep

SETTINGS, BATCHES, HIDDEN = 256, 8, 64
PAGE = Path(__file__).parent.parent / "docs" / "sweep-at-scale.md"
SPACE = {
    "rate": sweep.log_uniform(1e-3, 0.3),
    "b1": sweep.uniform(0.8, 0.98),
    "decay": sweep.log_uniform(1e-3, 1.0),
    "clip": sweep.log_uniform(0.1, 10.0),
}
METRICS = {"validation loss": False, "test loss": False, "test accuracy": True}  # whether more is better
COLUMNS = ["", *METRICS, "seconds"]


class Task:
    """One seed: a trainer, and what the best member is on the test rows."""

    def __init__(self, seed: int, steps: int) -> None:
        torch.manual_seed(seed)
        images, labels = map(torch.tensor, load_digits(return_X_y=True))
        images = images.float() / 16
        train, validation, test = torch.randperm(len(images)).split([1077, 360, 360])
        order = train[torch.randint(len(train), (steps, 128))]
        model = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))

        def make_optimizer(config: dict[str, Any]) -> Any:
            rate = optfx.warmup_cosine_decay_schedule(0.0, config["rate"], steps // 10, steps)
            return optfx.chain(
                optfx.clip_by_global_norm(config["clip"]),
                optfx.scale_by_adam(b1=config["b1"]),
                optfx.masked(optfx.add_decayed_weights(config["decay"]), select.ndim(min=2)),
                optfx.scale_by_learning_rate(rate),
            )

        def loss_fn(params: Any, batch: Any) -> torch.Tensor:
            return cross_entropy(functional_call(model, params, batch[0]), batch[1])

        self.steps, self.seed, self.images, self.labels, self.test = steps, seed, images, labels, test
        self.model = model
        self.trainer = sweep.Trainer(
            make_optimizer, loss_fn, optfx.params(model), lambda t: (images[order[t]], labels[order[t]]),
            evaluate=lambda params: {"val_loss": loss_fn(params, (images[validation], labels[validation]))},
        )  # fmt: skip

    def run(self, configs: dict[str, Any]) -> sweep.Result:
        return self.trainer.run(self.trainer.start(configs), self.steps, progress=False)

    def outcome(self, result: sweep.Result) -> dict[str, float]:
        """The best by validation, on all three metrics."""
        best = result.best()
        logits, labels = functional_call(self.model, best.params, self.images[self.test]), self.labels[self.test]
        return {
            "validation loss": best.metrics["val_loss"],
            "test loss": cross_entropy(logits, labels).item(),
            "test accuracy": (logits.argmax(-1) == labels).double().mean().item(),
        }


def sobol(task: Task) -> sweep.Result:
    return task.run(sweep.sample(SPACE, SETTINGS, seed=task.seed))


def tpe(task: Task) -> sweep.Result:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=task.seed, constant_liar=True))
    results = []
    for _ in range(BATCHES):
        results.append(task.run(sweep.ask(study, SPACE, SETTINGS // BATCHES)))
        sweep.tell(study, results[-1])
    return sweep.join(results)


WAYS = {"Sobol, 256 at once": sobol, "TPE, 8 times 32": tpe}


def sign_test(better: int, n: int) -> float:
    """How often chance alone is as far from one half."""
    far = max(better, n - better)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(far, n + 1)) / 2**n)


def compared(first: list[dict[str, float]], second: list[dict[str, float]]) -> list[str]:
    """Seed by seed: by how much the second is better, and in how many."""
    cells = []
    for name, more in METRICS.items():
        apart = [(b[name] - a[name]) * (1 if more else -1) for a, b in zip(first, second, strict=True)]
        apart = [x for x in apart if x]
        better = sum(x > 0 for x in apart)
        p = f", p = {sign_test(better, len(apart)):.2g}" if apart else ""
        cells.append(f"better in {better} of {len(apart)}{p}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    machine = measure.machine("optuna")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for seed in range(args.seeds):
        task = Task(seed, args.steps)
        for name, way in WAYS.items():
            results: list[sweep.Result] = []
            seconds = measure.seconds(lambda way=way, task=task, results=results: results.append(way(task)))
            found[name].append(task.outcome(results[0]) | {"seconds": seconds})
            print(seed, name, {k: round(x, 4) for k, x in found[name][-1].items()}, flush=True)
    rows = []
    for name, outcomes in found.items():
        cells = [f"{median(x[k] for x in outcomes):.4f}" for k in METRICS]
        rows.append([name, *cells, f"{median(x['seconds'] for x in outcomes):.0f}"])
    first, second = found.values()
    rows.append(["TPE against Sobol, seed by seed", *compared(first, second), ""])
    text = (
        f"{measure.table(COLUMNS, rows)}\n\nMedians over {args.seeds} seeds, {SETTINGS * args.steps} member-steps for "
        f"each way and seed. Three comparisons by sign test, not corrected for their number; seeds of equal outcome "
        f"are left out. {machine}"
    )
    print(text)
    if (args.seeds, args.steps) == (parser.get_default("seeds"), parser.get_default("steps")):
        measure.write("search", text, PAGE)


if __name__ == "__main__":
    main()
