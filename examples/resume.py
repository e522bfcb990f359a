"""Train, be killed at any moment, start again, and end with the same bits as if nothing had happened.

Everything that the run goes on from is one tree of tensors: the parameters, the state of the optimizer, the number of
the step, the state of the generator that draws the batches, and the key of the noise. It goes into one file, which is
replaced in one moment, so that there is always a whole one. Stop the script with Ctrl-C or `kill -9`, and run it again.

    python examples/resume.py
"""

from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call, grad_and_value

import optfx
from optfx import interop


def main(steps: int = 1000, every: int = 20, folder: str | Path = "out") -> dict[str, Any]:
    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels).float() / 16, torch.tensor(digit)
    torch.manual_seed(0)
    train, test = torch.randperm(len(x)).split([1297, 500])
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    tx = optfx.adamw(optfx.cosine_decay_schedule(3e-3, steps))
    generator = torch.Generator().manual_seed(1)

    def loss_fn(params, rows, key):
        noisy = x[rows] + 0.2 * optfx.random.normal(key, x[rows].shape)
        return nn.functional.cross_entropy(functional_call(model, params, noisy), y[rows])

    def step(run):
        generator.set_state(run["generator"])
        rows = train[torch.randint(len(train), (64,), generator=generator)]
        key = optfx.random.fold_in(run["key"], run["step"])
        grads, loss = grad_and_value(loss_fn)(run["params"], rows, key)
        updates, state = tx.update(grads, run["state"], run["params"])
        params = optfx.apply_updates(run["params"], updates)
        after = {"params": params, "state": state, "step": run["step"] + 1, "generator": generator.get_state()}
        return {**run, **after}, loss

    # A run as it begins, which is also the template that a checkpoint is loaded into.
    params = optfx.tree.map(torch.clone, optfx.params(model))
    run = {
        "params": params,
        "state": tx.init(params),
        "step": torch.tensor(0),
        "generator": generator.get_state(),
        "key": optfx.random.key(2),
    }
    path = Path(folder) / "resume.pt"
    if path.exists():
        run = interop.load(run, path)
        print(f"goes on from step {run['step']} of {steps}, as {path} says")
    else:
        print("begins")
    began = int(run["step"])

    while run["step"] < steps:
        run, loss = step(run)
        if run["step"] % every == 0 or run["step"] == steps:
            interop.save(run, path)
        if run["step"] % max(1, steps // 10) == 0:
            print(f"step {run['step']:5d}    loss {loss:.4f}")

    accuracy = (functional_call(model, run["params"], x[test]).argmax(-1) == y[test]).double().mean().item()
    print(f"test accuracy {accuracy:.1%}. To begin anew, remove {path}")
    return {"began": began, "accuracy": accuracy, "run": run}


if __name__ == "__main__":
    main()
