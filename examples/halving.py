"""Stop the bad ones early: 256 optimizers begin, and only the best quarter goes on at each of three rungs.

You learn that who goes on is a policy, a function between two stretches of training, and that `sweep.halve(4)` is one;
and what it costs and saves: the same 256 settings are also trained to their end, so that it can be seen whether a good
one was lost. The test digits are looked at by neither.

    python examples/halving.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import optfx
from optfx import sweep

SPACE = {
    "rate": sweep.log_uniform(1e-4, 1.0),
    "b1": sweep.uniform(0.8, 0.98),
    "decay": sweep.log_uniform(1e-3, 1.0),
}


def main(
    settings: int = 256, rungs: tuple[int, ...] = (40, 80, 160, 320), out: str | Path = "out", compile: bool = True
) -> dict[str, sweep.Result]:
    torch.manual_seed(0)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float() / 16
    train, validation, test = torch.randperm(len(images)).split([1077, 360, 360])
    order = train[torch.randint(len(train), (rungs[-1], 64))]
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def make_optimizer(config: dict[str, Tensor]):
        return optfx.adamw(config["rate"], b1=config["b1"], weight_decay=config["decay"])

    def loss_fn(params, batch) -> Tensor:
        x, y = batch
        return cross_entropy(functional_call(model, params, x), y)

    def score(params, rows: Tensor) -> dict[str, Tensor]:
        logits = functional_call(model, params, images[rows])
        accuracy = (logits.argmax(-1) == labels[rows]).double().mean()
        return {"val_loss": cross_entropy(logits, labels[rows]), "val_accuracy": accuracy}

    trainer = sweep.Trainer(
        make_optimizer,
        loss_fn,
        optfx.params(model),
        lambda step: (images[order[step]], labels[order[step]]),
        evaluate=lambda params: score(params, validation),
        compile=compile,
    )
    start = trainer.start(sweep.sample(SPACE, settings))  # one population, from which both ways begin
    found = {
        "all to the end": trainer.run(start, rungs[-1]),
        "halving": trainer.run(start, rungs=rungs, policy=sweep.halve(4)),
    }
    print(f"{'':18}{'member-steps':>14}{'validation loss':>17}{'test accuracy':>15}   best setting")
    for way, result in found.items():
        best = result.best()
        work, accuracy = int(result.age.sum()), score(best.params, test)["val_accuracy"].item()
        chosen = ", ".join(f"{name} {x:.3g}" for name, x in best.config.items())
        print(f"{way:18}{work:14,}{best.metrics['val_loss']:17.4f}{accuracy:15.1%}   {chosen}")
    place = found["all to the end"].ranking().index(found["halving"].best().index) + 1
    print(f"\nhalving chose what is number {place} of {settings} when all train to the end")
    found["halving"].plot(Path(out) / "halving.png", kind="stopped")
    return found


if __name__ == "__main__":
    main()
