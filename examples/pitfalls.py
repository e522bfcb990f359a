"""Three ways in which training fails, and what helps, as pictures.

- Gradients explode in a recurrent network: `clip_by_global_norm`.
- The first steps overshoot when the learning rate is large: a schedule with a warmup.
- One bad batch gives gradients that are not numbers: `apply_if_finite`, whose state counts the steps it skipped.

You also learn that a model may be any function of a tree of tensors, and that a whole training run is such a function
too: `vmap` maps it over four networks, and over learning rates.

    python examples/pitfalls.py
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import grad_and_value, vmap

import optfx

BAD, GOOD = "#d55e00", "#0072b2"


def recurrent(params, x):
    """Reads a picture pixel by pixel, so that its gradient holds the 64th power of a matrix."""
    h = torch.zeros(len(x), len(params["recur"]))
    for pixel in x.split(1, dim=-1):
        h = nn.functional.leaky_relu(pixel * params["read"] + h @ params["recur"], 0.1)
    return h @ params["out"]


def feedforward(params, x):
    return torch.relu(torch.relu(x @ params["first"]) @ params["second"]) @ params["out"]


def train(tx, model, params, x, y, batches):
    """The loss at every step, (steps,), and the last state of the optimizer."""

    def loss_fn(params, rows):
        return nn.functional.cross_entropy(model(params, x[rows]), y[rows])

    state, losses = tx.init(params), []
    for rows in batches:
        grads, loss = grad_and_value(loss_fn)(params, rows)
        updates, state = tx.update(grads, state, params)
        params = optfx.apply_updates(params, updates)
        losses.append(loss)
    return torch.stack(losses), state


def exploding(ax, x, y, batches):
    networks = {
        "read": torch.randn(4, 16) / 2,
        "recur": 0.92 * torch.eye(16).repeat(4, 1, 1),
        "out": torch.randn(4, 16, 10) / 4,
    }
    sgd, steps, results = optfx.sgd(0.02, momentum=0.9), len(batches), {}
    for name, tx, color in (
        ("clipped", optfx.chain(optfx.clip_by_global_norm(1.0), sgd), GOOD),
        ("not clipped", sgd, BAD),
    ):
        results[name], _ = vmap(lambda params, tx=tx: train(tx, recurrent, params, x, y, batches))(networks)
        for losses in results[name]:
            ax.plot(losses, color=color, lw=1)
            if not losses.isfinite().all():
                last = losses.isfinite().long().argmin() - 1
                ax.plot(last, losses[last].clamp(max=30), "x", color=color, ms=9, mew=2, clip_on=False)
    ax.text(steps, 1.3, "clipped", color=GOOD, ha="right")
    ax.text(steps, 20, "not clipped: not a\nnumber after the cross", color=BAD, ha="right", va="center")
    ax.set(xlabel="step", ylabel="loss", yscale="log", ylim=(1, 30), yticks=[1, 3, 10, 30])
    ax.set_yticklabels(["1", "3", "10", "30"])
    ax.minorticks_off()
    return results


def overshooting(ax, x, y, batches):
    sizes = {"first": (64, 32), "second": (32, 32), "out": (32, 10)}
    networks = {name: torch.randn(4, a, b) * (2 / a) ** 0.5 for name, (a, b) in sizes.items()}
    rates, steps, results = torch.logspace(-2.5, -0.5, 9), len(batches), {}
    for name, warmup, color in (("warmup", steps // 4, GOOD), ("no warmup", 0, BAD)):

        def last_loss(rate, params, warmup=warmup):
            schedule = optfx.warmup_cosine_decay_schedule(0.0, rate, warmup, steps)
            return train(optfx.adam(schedule), feedforward, params, x, y, batches)[0][-20:].mean()

        results[name] = vmap(vmap(last_loss, (None, 0)), (0, None))(rates, networks)  # (rates, networks)
        middle = results[name].median(-1).values
        ax.plot(rates, results[name], "o", color=color, ms=3, alpha=0.5)
        ax.plot(rates, middle, color=color, lw=2)
        ax.text(1.1 * rates[-1].item(), middle[-1].item(), name, color=color, va="center")
    ax.set(xlabel="highest learning rate", ylabel="loss at the end", xscale="log", yscale="log")
    return results


def poisoned(ax, x, y, batches):
    network = {"first": torch.randn(64, 32) / 6, "second": torch.randn(32, 32) / 4, "out": torch.randn(32, 10) / 4}
    culprit = batches[len(batches) // 4, 0]  # a picture of that batch
    bad = (batches == culprit).any(-1).nonzero()[:, 0]
    x = x.index_fill(0, culprit, torch.nan)
    adam = optfx.adam(3e-3)
    skipped, state = train(optfx.apply_if_finite(adam, max_consecutive_errors=5), feedforward, network, x, y, batches)
    not_skipped, _ = train(adam, feedforward, network, x, y, batches)
    ax.plot(skipped, color=GOOD, lw=1.5)
    ax.plot(not_skipped, color=BAD, lw=2.5)
    ax.plot(bad[0] - 1, not_skipped[bad[0] - 1], "x", color=BAD, ms=9, mew=2)
    ax.plot(bad, torch.zeros(len(bad)), "^", color="black", clip_on=False)
    ax.text(bad[0] + 2, not_skipped[bad[0] - 1], "Adam: not a number\nafter the cross", color=BAD)
    ax.text(len(batches), skipped.nanmedian(), "apply_if_finite(Adam)", color=GOOD, ha="right")
    ax.text(bad[0] + 2, 0.06, "bad batches", va="bottom")
    ax.set(xlabel="step", ylabel="loss", ylim=(0, None))
    return {"skipped": skipped, "not skipped": not_skipped, "skips": state.total_notfinite}


def main(steps: int = 150, out: str | Path = "out") -> dict[str, Tensor]:
    from matplotlib.figure import Figure

    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels).float() / 16, torch.tensor(digit)
    torch.manual_seed(0)
    batches = torch.randint(len(x), (steps, 64))
    results = {}
    Path(out).mkdir(parents=True, exist_ok=True)
    for pitfall, title in (
        (exploding, "Clipping keeps exploding gradients from ending the training"),
        (overshooting, "With a warmup, learning rates can be several times as large"),
        (poisoned, "One bad batch ruins every weight, unless its step is skipped"),
    ):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        ax = figure.subplots()
        results.update(pitfall(ax, x, y, batches))
        ax.set_title(title, loc="left", fontsize=11, pad=12)
        ax.spines[["top", "right"]].set_visible(False)
        figure.savefig(Path(out) / f"pitfall_{pitfall.__name__}.png", dpi=150)

    print("Exploding gradients: networks of 4 whose loss is still a number at the end")
    for name in ("not clipped", "clipped"):
        print(f"    {name:12}{results[name][:, -1].isfinite().sum():8}")
    print("Overshooting: loss at the end for a learning rate of 0.1")
    for name in ("no warmup", "warmup"):
        print(f"    {name:12}{results[name][6].median():8.3f}")
    print("A picture that is not a number: loss at the end, where it is one")
    for name in ("not skipped", "skipped"):
        print(f"    {name:12}{results[name][-20:].nanmean():8.3f}")
    return results


if __name__ == "__main__":
    main()
