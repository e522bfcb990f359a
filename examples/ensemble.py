"""Train an ensemble at once, each member with a learning rate of its own.

The parameters of the members are stacked, and one `vmap` over the training step trains all of them: tensors of rates
make a batch of optimizers just as stacked parameters make a batch of networks. Many of the rates are far too low or
too high, but the averaged vote does about as well as the best member, and nobody had to find the right rate first.

    python examples/ensemble.py
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

import optfx


def main(steps: int = 200, members: int = 24, out: str | Path = "out") -> dict[str, Tensor]:
    from matplotlib.figure import Figure

    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels).float() / 16, torch.tensor(digit)
    torch.manual_seed(0)
    train, test = torch.randperm(len(x)).split([397, 1400])  # few to learn from, so that the members disagree
    models = [nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)) for _ in range(members)]

    def loss_fn(params, rows):
        return nn.functional.cross_entropy(functional_call(models[0], params, x[rows]), y[rows])

    def step(tx, params, state, rows):
        grads, loss = grad_and_value(loss_fn)(params, rows)
        updates, state = tx.update(grads, state, params)
        return optfx.apply_updates(params, updates), state, loss

    rates = torch.logspace(-4, 0, members)
    tx = optfx.adam(optfx.cosine_decay_schedule(rates, steps))  # 24 optimizers: their tensors are the batch
    params = optfx.tree.map(torch.Tensor.detach, stack_module_state(models)[0])
    state = vmap(lambda tx, params: tx.init(params))(tx, params)
    for rows in train[torch.randint(len(train), (steps, members, 64))]:  # each sees batches of its own
        params, state, _ = vmap(step)(tx, params, state, rows)

    probability = vmap(lambda params: functional_call(models[0], params, x[test]).softmax(-1))(params)
    alone = (probability.argmax(-1) == y[test]).double().mean(-1)
    together = (probability.mean(0).argmax(-1) == y[test]).double().mean()
    print(f"one member, on average    {alone.mean():7.1%}")
    print(f"the best of {members}            {alone.max():7.1%}")
    print(f"all of them together      {together:7.1%}")

    figure = Figure(figsize=(6, 3.8), layout="constrained")
    ax = figure.subplots()
    ax.plot(rates, alone, "o", color="#0072b2")
    ax.axhline(together.item(), color="#d55e00", lw=2)
    ax.text(rates[0].item(), together.item(), f"all {members} together: {together:.1%}\n", color="#d55e00", va="center")
    ax.set(xscale="log", xlabel="learning rate of the member", ylabel="test accuracy", ylim=(0, 1.05))
    failed = int((alone < 0.8).sum())
    ax.set_title(f"{failed} of {members} learning rates fail, the vote does not", loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "ensemble.png", dpi=150)
    return {"alone": alone, "together": together}


if __name__ == "__main__":
    main()
