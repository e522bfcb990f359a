"""Train a network on handwritten digits with 256 optimizers at once, and choose the best.

The optimizer is put together from primitives: clip the gradients, Adam, decay the matrices but not the biases, warm the
rate up and let it fall along a cosine. Four of its numbers are swept. All 256 settings train in one compiled program.
For comparison a few of them are trained one by one, with fused `torch.optim.AdamW`.

    python examples/sweep_digits.py
"""

import math
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import optfx
from optfx import select, sweep

SPACE = {
    "rate": sweep.log_uniform(3e-4, 1e-1),
    "b1": sweep.uniform(0.8, 0.98),
    "decay": sweep.log_uniform(1e-3, 1.0),
    "clip": sweep.log_uniform(0.1, 10.0),
}
BATCH = 128


def make_optimizer(config, steps):
    rate = optfx.warmup_cosine_decay_schedule(0.0, config["rate"], warmup_steps=steps // 10, decay_steps=steps)
    return optfx.chain(
        optfx.clip_by_global_norm(config["clip"]),
        optfx.scale_by_adam(b1=config["b1"]),
        optfx.masked(optfx.add_decayed_weights(config["decay"]), select.ndim(min=2)),
        optfx.scale_by_learning_rate(rate),
    )


def main(steps=600, settings=256, hidden=64, one_by_one=6, out="out", compile=True):
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    train, validation, test = torch.randperm(len(x)).split([len(x) - 600, 300, 300])
    rows = torch.cat([torch.randperm(len(train)) for _ in range(steps * BATCH // len(train) + 1)])
    rows = train[rows[: steps * BATCH].view(steps, BATCH)]

    model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    start = optfx.params(model)

    def batches(step):
        return x[rows[step]], y[rows[step]]

    def loss_fn(params, batch):
        inputs, labels = batch
        return cross_entropy(functional_call(model, params, inputs), labels)

    def score(params, which):
        logits = functional_call(model, params, x[which])
        return cross_entropy(logits, y[which]), (logits.argmax(-1) == y[which]).float().mean()

    def evaluate(params):
        loss, accuracy = score(params, validation)
        return {"val_loss": loss, "val_accuracy": accuracy}

    size = optfx.tree.size(start)
    print(f"{len(train)} digits to train on, {len(validation)} to choose by, {len(test)} to test on; "
          f"64-{hidden}-10 network, {size} parameters")
    print(f"{settings} settings of {', '.join(SPACE)}, {steps} steps each\n")

    configs = sweep.sample(SPACE, settings)
    result = sweep.fit(lambda config: make_optimizer(config, steps), configs, loss_fn, start, batches,
                       steps=steps, evaluate=evaluate, compile=compile)
    print(f"trained in {result.run_seconds:.1f} s, after {result.compile_seconds:.1f} s of compiling\n")
    print(result.table(10))

    best = result.best()
    _, accuracy = score(best.params, test)
    print(f"\ntest accuracy of the best: {accuracy:.3f}")
    return result


if __name__ == "__main__":
    main()
