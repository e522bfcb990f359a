"""Compose an optimizer, train a module with it at full speed, then write the same step as a pure function.

You learn what every training loop here is made of: an optimizer that is a chain of small pure transforms, `optfx.fuse`,
which compiles it and trains the module in place, and the same step as a function of tensors, for those who map or
differentiate it, or compile it as a whole. `torch.compile` makes you wait before the first step; `fuse` does not.

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
    start = optfx.tree.map(torch.clone, optfx.params(model))
    batches = train[torch.randint(len(train), (steps, 128))]

    # An optimizer is a chain of transforms of the gradient. Every number in it may be a schedule.
    rate = optfx.warmup_cosine_decay_schedule(0.0, 1e-2, warmup_steps=steps // 10, decay_steps=steps)
    tx = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.adamw(rate, weight_decay=1e-2))

    # For a module and `loss.backward()`: the whole chain is one kernel, which writes into the module's parameters.
    opt = optfx.fuse(tx)

    def fused(params, state, x, y):
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return *opt.step(optfx.grads(model), state, params), loss.detach()

    # The same as a pure function, which may be mapped, differentiated and compiled.
    def pure(params, state, x, y):
        def loss_fn(params):
            return nn.functional.cross_entropy(functional_call(model, params, x), y)

        grads, loss = grad_and_value(loss_fn)(params)
        updates, state = tx.update(grads, state, params)
        return optfx.apply_updates(params, updates), state, loss

    # `donate` writes the new params and state into the buffers of the old ones, which are not used again.
    compiled = torch.compile(optfx.donate(pure, argnums=(0, 1)), fullgraph=True, backend=backend)

    def begin_pure():
        params = optfx.params(model)
        return params, tx.init(params)

    results = {}
    print(f"{'':26}{'loss':>8}{'test accuracy':>16}{'first step':>13}{'later steps':>15}")
    for name, init, step in (
        ("fused", lambda: opt.init(model), fused),
        ("pure", begin_pure, pure),
        ("pure, torch.compile", begin_pure, compiled),
    ):
        optfx.load_params(model, start)
        loss, seconds, began = torch.zeros(()), [], time.perf_counter()
        params, state = init()
        for batch in batches:
            params, state, loss = step(params, state, x[batch], y[batch])
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()

        optfx.load_params(model, params)  # where they are, unless the step was pure
        accuracy = (model(x[test]).argmax(-1) == y[test]).double().mean().item()
        later = 1e3 * sorted(seconds)[steps // 2]
        print(f"{name:26}{loss.item():8.4f}{accuracy:16.1%}{seconds[0]:11.2f} s{later:12.2f} ms")
        results[f"loss, {name}"], results[f"accuracy, {name}"] = loss.item(), accuracy
    return results


if __name__ == "__main__":
    main()
