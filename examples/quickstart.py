"""Compose an optimizer, train a module with it, then compile the same step.

You learn what every training loop here is made of: the parameters of a module as a tree of tensors, an optimizer that
is a chain of small pure transforms, a step that is a pure function, the same step compiled, and the way back into the
module. The first compiled step takes long (it compiles), every later one is several times as fast.

    python examples/quickstart.py
"""

import time

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call, grad_and_value

import optfx


def main(steps: int = 400, backend: str = "inductor") -> dict[str, float]:
    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels).float() / 16, torch.tensor(digit)  # (1797, 64) between 0 and 1, (1797,)
    torch.manual_seed(0)
    train, test = torch.randperm(len(x)).split([1297, 500])
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    # An optimizer is a chain of transforms of the gradient. Every number in it may be a schedule.
    rate = optfx.warmup_cosine_decay_schedule(0.0, 1e-2, warmup_steps=steps // 10, decay_steps=steps)
    tx = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(rate, weight_decay=1e-2))

    def loss_fn(params, x, y):
        return nn.functional.cross_entropy(functional_call(model, params, x), y)

    def step(params, state, x, y):
        grads, loss = grad_and_value(loss_fn)(params, x, y)
        updates, state = tx.update(grads, state, params)
        return optfx.apply_updates(params, updates), state, loss

    # `donate` writes the new params and state into the buffers of the old ones, which are not used again.
    compiled = torch.compile(optfx.donate(step, argnums=(0, 1)), fullgraph=True, backend=backend)

    batches = train[torch.randint(len(train), (steps, 128))]
    start = optfx.tree.map(torch.clone, optfx.params(model))
    results = {}
    print(f"{'':10}{'loss':>8}{'test accuracy':>16}{'first step':>13}{'later steps':>15}")
    for name, run in (("eager", step), ("compiled", compiled)):
        params = optfx.tree.map(torch.clone, start)
        state = tx.init(params)
        loss, seconds = torch.zeros(()), []
        for batch in batches:
            begin = time.perf_counter()
            params, state, loss = run(params, state, x[batch], y[batch])
            seconds.append(time.perf_counter() - begin)

        model.load_state_dict(params)  # the way back into the module
        accuracy = (model(x[test]).argmax(-1) == y[test]).double().mean().item()
        later = 1e3 * sorted(seconds)[steps // 2]
        print(f"{name:10}{loss.item():8.4f}{accuracy:16.1%}{seconds[0]:11.2f} s{later:12.2f} ms")
        results[f"loss_{name}"], results[f"accuracy_{name}"] = loss.item(), accuracy
    return results


if __name__ == "__main__":
    main()
