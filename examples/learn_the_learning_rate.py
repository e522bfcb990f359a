"""Learn the learning rate and the momentum of Adam by gradient descent through training.

An optimizer is a tree of its tensor hyperparameters. So the result of a whole training run has a derivative with
respect to the optimizer, which is an optimizer-shaped gradient; and another optimizer, with a rate of its own for each
hyperparameter, can descend along it. One `vmap` over a grid of optimizers draws the landscape that it descends.

    python examples/learn_the_learning_rate.py
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call, grad, grad_and_value, vmap

import optfx
from optfx import select


def main(steps: int = 30, grid: int = 16, out: str | Path = "out") -> dict[str, float]:
    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels).float() / 16, torch.tensor(digit)
    torch.manual_seed(0)
    train, validation = torch.randperm(len(x)).split([1297, 500])
    batches = train[torch.randint(len(train), (20, 64))]
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))

    def loss_fn(params, rows):
        return nn.functional.cross_entropy(functional_call(model, params, x[rows]), y[rows])

    def outcome(tx):
        """The validation loss after twenty steps of training with an optimizer."""
        params = optfx.params(model)
        state = tx.init(params)
        for rows in batches:
            updates, state = tx.update(grad(loss_fn)(params, rows), state, params)
            params = optfx.apply_updates(params, updates)
        return loss_fn(params, validation)

    tx = optfx.adam(torch.tensor(1e-3), b1=torch.tensor(0.9))
    print(f"the gradient of training with respect to the optimizer is\n  {grad(outcome)(tx)}\n")

    # The optimizer of the optimizer: hyperparameters differ in scale, so each has its own rate.
    meta = optfx.partition(
        {"rate": optfx.adam(4e-3), "b1": optfx.adam(2e-2)},
        select.label({"rate": select.path("*.learning_rate")}, default="b1"),
    )
    state = meta.init(tx)
    path = []
    print(f"{'step':>4}{'learning rate':>16}{'b1':>8}{'validation loss':>18}")
    for step in range(steps + 1):
        gradient, loss = grad_and_value(outcome)(tx)
        path.append((optfx.tree.get(tx, "learning_rate").item(), optfx.tree.get(tx, "b1").item(), loss.item()))
        if step % 10 == 0 or step == steps:
            print("{:4}{:16.4f}{:8.3f}{:18.3f}".format(step, *path[-1]))
        updates, state = meta.update(gradient, state, tx)
        tx = optfx.apply_updates(tx, updates)

    rates, b1s = torch.logspace(-3.3, -0.5, grid), torch.linspace(0, 0.98, grid)
    rate, b1 = torch.cartesian_prod(rates, b1s).unbind(-1)
    losses = vmap(outcome)(optfx.adam(rate, b1=b1)).view(grid, grid)
    print(f"best of a grid of {grid * grid:3}{losses.min():25.3f}")
    draw(rates, b1s, losses, path, Path(out))
    return {"first": path[0][2], "last": path[-1][2], "best_of_grid": losses.min().item()}


def draw(rates, b1s, losses, path, out):
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 4), layout="constrained")
    ax = figure.subplots()
    mesh = ax.pcolormesh(
        rates.numpy(), b1s.numpy(), losses.T.numpy(), cmap="cividis", norm=LogNorm(0.3, 3), shading="gouraud"
    )
    bar = figure.colorbar(mesh, label="validation loss after 20 steps", extend="max")
    bar.set_ticks([0.3, 0.5, 1, 2, 3], labels=["0.3", "0.5", "1", "2", "3"])
    bar.minorticks_off()
    rate, b1, loss = zip(*path, strict=True)
    ax.plot(rate, b1, "o-", color="white", ms=3, lw=1)
    for i, word, color in ((0, "start", "black"), (-1, "end", "white")):
        ax.text(rate[i], b1[i] + 0.03, f"{word}: {loss[i]:.2f}", color=color, ha="center")
    ax.set(xscale="log", xlabel="learning rate", ylabel="b1")
    ax.set_title("Gradient descent on an optimizer finds the good ones", loc="left", fontsize=11)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "learn_the_learning_rate.png", dpi=150)


if __name__ == "__main__":
    main()
