"""Find a schedule: population based training changes the learning rates of 32 members while they train.

Every few steps the worst quarter becomes copies of the best, with a rate that is a fifth higher or lower than that of
the original. The rates that the best member and its ancestors had are a schedule that nobody wrote. It is then used
again as one, from the start, and compared with constant rates and with cosines, each the best of 32 too, on digits that
nobody chose by. Each batch has noise of its own, so a rate that stays high never comes to rest, and a schedule matters.

    python examples/pbt_schedule.py
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

SPACE = {"rate": sweep.log_uniform(1e-3, 0.3)}


def main(
    steps: int = 600, members: int = 32, every: int = 30, out: str | Path = "out", compile: bool = True
) -> dict[str, float]:
    torch.manual_seed(0)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float() / 16
    train, validation, test = torch.randperm(len(images)).split([797, 500, 500])
    order = train[torch.randint(len(train), (steps, 16))]
    noise = torch.randn(steps, 16, 64) / 2
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    start = optfx.params(model)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        return images[order[step]] + noise[step], labels[order[step]]

    def loss_fn(params, batch) -> Tensor:
        x, y = batch
        return cross_entropy(functional_call(model, params, x), y)

    def loss_on(params, rows: Tensor) -> Tensor:
        return loss_fn(params, (images[rows], labels[rows]))

    def fit(schedule, configs, **looks) -> sweep.Result:
        return sweep.fit(
            lambda config: optfx.sgd(schedule(config["rate"]), momentum=0.9),
            configs,
            loss_fn,
            start,
            batches,
            steps=steps,
            evaluate=lambda params: {"val_loss": loss_on(params, validation)},
            compile=compile,
            **looks,
        )

    configs = sweep.sample(SPACE, members)
    pbt = fit(lambda rate: rate, configs, every=every, policy=sweep.exploit(SPACE))
    rates = pbt.schedules["rate"][:, pbt.best().index]  # of the best member and its ancestors, a rate for each stretch

    def found(rate: Tensor):
        """The schedule that was found, times a number."""
        return lambda count: rate * rates[(count // every).clamp(max=len(rates) - 1)]

    ways = {
        "constant": fit(lambda rate: rate, configs),
        "cosine": fit(lambda rate: optfx.cosine_decay_schedule(rate, steps), configs),
        "PBT": pbt,
        "PBT's schedule again": fit(found, {"rate": [1.0]}),
    }
    print("the rate that was found: " + " ".join(f"{rate:.2g}" for rate in rates.tolist()) + "\n")
    print(f"{'':22}{'validation loss':>16}{'test loss':>11}")
    losses = {}
    for way, result in ways.items():
        best = result.best()
        losses[way] = loss_on(best.params, test).item()
        print(f"{way:22}{best.metrics['val_loss']:16.4f}{losses[way]:11.4f}")
    pbt.plot(Path(out) / "pbt_schedule.png", kind="genealogy")
    return losses


if __name__ == "__main__":
    main()
