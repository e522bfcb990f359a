"""Train the layers of one network with different optimizers.

A network that knows the digits 0 to 4 gets a second head and learns 5 to 9, from those digits alone. One Adam for
everything is quick, and ruins the layers that the first head relies on. Adam for the new head and plain SGD for the
layers below learns as much and forgets less. You learn `partition`, and how `select` names the parameters it divides.

    python examples/two_optimizers.py
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call, grad

import optfx
from optfx import select


class TwoHeads(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.low, self.high = nn.Linear(width, 5), nn.Linear(width, 5)  # digits 0 to 4, digits 5 to 9

    def forward(self, x, head):
        return getattr(self, head)(self.body(x))


def main(steps: int = 200, out: str | Path = "out") -> dict[str, tuple[float, float]]:
    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels).float() / 16, torch.tensor(digit)
    torch.manual_seed(0)
    train, test = (
        {"low": rows[y[rows] < 5], "high": rows[y[rows] >= 5]} for rows in torch.randperm(len(x)).split([1297, 500])
    )
    model = TwoHeads()

    def loss_fn(params, rows, head):
        return nn.functional.cross_entropy(functional_call(model, params, (x[rows], head)), y[rows] % 5)

    def accuracy(params, head):
        digits = functional_call(model, params, (x[test[head]], head)).argmax(-1)
        return (digits == y[test[head]] % 5).double().mean().item()

    def learn(tx, params, head):
        state = tx.init(params)
        for _ in range(steps):
            rows = train[head][torch.randint(len(train[head]), (64,))]
            updates, state = tx.update(grad(loss_fn)(params, rows, head), state, params)
            params = optfx.apply_updates(params, updates)
        return params

    # Labels are worked out from the params: a rule for each label, by path, number of dimensions, size, ...
    label = select.label({"head": select.path("high.*")}, default="below")
    optimizers = {
        "one Adam, rate 0.01": optfx.adam(1e-2),
        "one Adam, rate 0.001": optfx.adam(1e-3),
        "Adam for the head, nothing below": optfx.partition(
            {"head": optfx.adam(1e-2), "below": optfx.set_to_zero()}, label
        ),
        "Adam for the head, SGD below": optfx.partition({"head": optfx.adam(1e-2), "below": optfx.sgd(0.1)}, label),
    }
    start = learn(optfx.adam(3e-3), optfx.params(model), "low")
    results = {}
    print(f"{'':36}{'new digits':>12}{'old digits':>12}")
    for name, tx in optimizers.items():
        params = learn(tx, start, "high")
        new, old = results[name] = accuracy(params, "high"), accuracy(params, "low")
        print(f"{name:36}{new:12.1%}{old:12.1%}")
    draw(results, Path(out))
    return results


def draw(results, out):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    ax = figure.subplots()
    for row, ends in enumerate(results.values()):
        ax.plot(ends, [row, row], color="#cccccc", lw=4, zorder=1, solid_capstyle="round")
        for accuracy, color, marker, label in zip(
            ends, ("#0072b2", "#d55e00"), "os", ("new digits, 5 to 9", "old digits, 0 to 4"), strict=True
        ):
            ax.plot(accuracy, row, marker, ms=9, color=color)
            if row == 0:
                ax.text(accuracy, -0.3, label, color=color, ha="center")
    ax.set(xlabel="test accuracy", ylim=(3.4, -0.7))
    ax.set_yticks(range(len(results)), list(results))
    figure.suptitle("Two optimizers learn the new digits and keep more of the old", x=0.01, ha="left")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "two_optimizers.png", dpi=150)


if __name__ == "__main__":
    main()
