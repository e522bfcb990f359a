"""Let Optuna choose the settings of a sweep, 32 at a time: a batch of trials is one compiled run.

A study suggests settings for a network on handwritten digits, `sweep.fit` trains all of them side by side, stops the
worst half on the way, and the study is told: those that were stopped are pruned trials, with the validation loss at
each look. The study lies in a file, a journal. So several processes may run this script at once, each is killed without
harm, and what it had asked for is trained by another.

    python examples/optuna_sweep.py

Needs `pip install "optfx[optuna]"`.
"""

from __future__ import annotations

from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import optfx
from optfx import select, sweep

SPACE = {
    "rate": sweep.log_uniform(1e-3, 0.3),
    "b1": sweep.uniform(0.8, 0.98),
    "decay": sweep.log_uniform(1e-3, 1.0),
    "warmup": sweep.choice(range(1, 61)),
}
BATCH = 128


def main(
    trials: int = 256,
    at_once: int = 32,
    steps: int = 300,
    hidden: int = 64,
    out: str | Path = "out",
    compile: bool | str = True,
) -> dict[str, float]:
    torch.manual_seed(0)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float() / 16  # (1797, 64), 8 x 8 pixels between 0 and 1
    train, validation, test = torch.randperm(len(images)).split([1077, 360, 360])
    order = train[torch.randint(len(train), (steps, BATCH))]
    model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    start = {name: p.clone() for name, p in optfx.params(model).items()}

    def make_optimizer(config: dict[str, Tensor]):
        rate = optfx.warmup_cosine_decay_schedule(0.0, config["rate"], config["warmup"], steps)
        return optfx.chain(
            optfx.scale_by_adam(b1=config["b1"]),
            optfx.masked(optfx.add_decayed_weights(config["decay"]), select.ndim(min=2)),
            optfx.scale_by_learning_rate(rate),
        )

    def loss_fn(params, batch) -> Tensor:
        return cross_entropy(functional_call(model, params, batch[0]), batch[1])

    def accuracy(params, rows: Tensor) -> Tensor:
        return (functional_call(model, params, images[rows]).argmax(-1) == labels[rows]).double().mean()

    def evaluate(params) -> dict[str, Tensor]:
        loss = loss_fn(params, (images[validation], labels[validation]))
        return {"val_loss": loss, "val_accuracy": accuracy(params, validation)}

    Path(out).mkdir(parents=True, exist_ok=True)
    journal = JournalStorage(JournalFileBackend(str(Path(out) / "optuna_sweep.log")))
    study = optuna.create_study(
        storage=journal, study_name="digits", load_if_exists=True,
        sampler=optuna.samplers.TPESampler(multivariate=True, constant_liar=True),
    )  # fmt: skip
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    best = None
    while (done := sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))) < trials:
        configs = sweep.ask(study, SPACE, min(at_once, trials - done))
        result = sweep.fit(
            make_optimizer, configs, loss_fn, start, lambda t: (images[order[t]], labels[order[t]]),
            rungs=[steps // 3, steps], policy=sweep.halve(2), evaluate=evaluate, compile=compile,
        )  # fmt: skip
        sweep.tell(study, result)
        found = result.best()
        print(f"{done + len(result):4d} trials: {found.metrics['val_loss']:.4f}, of all {study.best_value:.4f}")
        best = found if best is None or found.metrics["val_loss"] < best.metrics["val_loss"] else best

    print(f"\nthe best of {len(study.trials)}: {study.best_params}")
    importances = optuna.importance.get_param_importances(study)
    print("what mattered: " + ", ".join(f"{name} {share:.0%}" for name, share in importances.items()))
    tested = accuracy(best.params, test).item() if best is not None else float("nan")
    print(f"test accuracy of the best of this run: {tested:.1%}")
    return {"trials": len(study.trials), "val_loss": study.best_value, "test_accuracy": tested}


if __name__ == "__main__":
    main()
