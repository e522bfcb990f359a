"""Train a network on handwritten digits with 256 optimizers at once, and choose the best.

The optimizer is put together from primitives: clip the gradients, Adam, decay the matrices but not the biases, warm the
rate up and let it fall along a cosine. Four of its numbers are swept, and all 256 settings train in one compiled
program. A few of them are then trained one by one with fused `torch.optim.AdamW`, to compare outcome and time: of the
sweep, the whole time counts, compilation included.

    python examples/sweep_digits.py
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
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
    "clip": sweep.log_uniform(0.1, 10.0),
}
BATCH = 128


def schedule(rate, steps: int):
    return optfx.warmup_cosine_decay_schedule(0.0, rate, warmup_steps=steps // 10, decay_steps=steps)


def main(
    steps: int = 600,
    settings: int = 256,
    hidden: int = 64,
    one_by_one: int = 5,
    out: str | Path = "out",
    compile: bool | str = True,
) -> dict[str, float]:
    torch.manual_seed(0)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float() / 16  # (1797, 64), 8 x 8 pixels between 0 and 1
    train, validation, test = torch.randperm(len(images)).split([1077, 360, 360])
    epochs = [torch.randperm(len(train)) for _ in range(steps * BATCH // len(train) + 1)]
    order = train[torch.cat(epochs)[: steps * BATCH].view(steps, BATCH)]

    model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    start = {name: p.clone() for name, p in optfx.params(model).items()}
    print(f"{len(train)} digits to train on, {len(validation)} to choose by, {len(test)} to test on")
    print(
        f"{settings} settings of {', '.join(SPACE)} for a network of {optfx.tree.size(start)} parameters, {steps} steps"
    )

    def make_optimizer(config: dict[str, Tensor]):
        return optfx.chain(
            optfx.clip_by_global_norm(config["clip"]),
            optfx.scale_by_adam(b1=config["b1"]),
            optfx.masked(optfx.add_decayed_weights(config["decay"]), select.ndim(min=2)),
            optfx.scale_by_learning_rate(schedule(config["rate"], steps)),
        )

    def batches(step: int):
        return images[order[step]], labels[order[step]]

    def loss_fn(params, batch) -> Tensor:
        x, y = batch
        return cross_entropy(functional_call(model, params, x), y)

    def score(params, rows: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(model, params, images[rows])
        return cross_entropy(logits, labels[rows]), (logits.argmax(-1) == labels[rows]).double().mean()

    def evaluate(params) -> dict[str, Tensor]:
        loss, accuracy = score(params, validation)
        return {"val_loss": loss, "val_accuracy": accuracy}

    configs = sweep.sample(SPACE, settings)
    result = sweep.fit(
        make_optimizer, configs, loss_fn, start, batches, steps=steps, evaluate=evaluate, compile=compile
    )
    print(f"\nall at once: {result.seconds:.1f} s, {result.compile_seconds:.1f} s of it waiting for compilers\n")
    print(result.table(10))
    best = result.best()
    accuracy = score(best.params, test)[1].item()
    print(f"\ntest accuracy of the best: {accuracy:.1%}")

    ranking = result.ranking()
    sample = [ranking[i] for i in torch.linspace(0, len(ranking) - 1, one_by_one).long().tolist()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more are no faster for one network so small, and slower beside other programs
    start_up = train_alone(model, start, setting(configs, sample[0]), batches, steps=1)  # torch's own, which comes once
    each, apart = 0.0, 0.0
    for i in sample:
        each += train_alone(model, start, setting(configs, i), batches, steps) / len(sample)
        alone = score(optfx.params(model), validation)[1].item()
        apart = max(apart, abs(alone - result.metrics["val_accuracy"][i].item()))
    torch.set_num_threads(threads)
    whole = start_up + settings * each
    print(f"one by one with fused torch.optim.AdamW: {each:.2f} s each, measured on {len(sample)} of the settings, so")
    print(f"  about {whole:.0f} s for all {settings}: {whole / result.seconds:.1f} times as long as all at once")
    print(f"  their validation accuracies differ by {apart:.1%} at most")

    picture, file = Path(out) / "sweep_digits.png", Path(out) / "sweep_digits.pt"
    result.plot(picture)
    result.save(file)
    print(f"\nwritten: {picture}, {file}")
    return {"test_accuracy": accuracy, "apart": apart, "speedup": whole / result.seconds}


def setting(configs: dict[str, Tensor], i: int) -> dict[str, float]:
    return {name: x[i].item() for name, x in configs.items()}


def train_alone(model: nn.Module, start: dict[str, Tensor], config: dict[str, float], batches, steps: int) -> float:
    """The same optimizer with `torch.optim`: one setting, in place. The seconds that it takes."""
    began = time.perf_counter()
    model.load_state_dict(start)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": config["decay"]},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config["rate"], betas=(config["b1"], 0.999), fused=True)
    rates = torch.func.vmap(schedule(1.0, steps))(torch.arange(steps + 1)).tolist()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[step])
    for step in range(steps):
        x, y = batches(step)
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config["clip"])
        optimizer.step()
        scheduler.step()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
