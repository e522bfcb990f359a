"""Write a transform of your own in fifteen lines, chain it, and measure it against Adam.

You learn what a transform is made of: a state, a leaf function that reads like the paper, and a record whose `step`
runs it on all leaves with a verb. Schedules, masks, `torch.compile` and `vmap` then work with it as with any other:
here each optimizer trains four networks with each of 17 learning rates, all at once.

    python examples/compose_your_own.py
"""

from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

import optfx
from optfx import core, select, tree
from optfx.core import Decay, GradientTransformation

# ---- the transform: Lion (Chen et al., 2023, https://arxiv.org/abs/2302.06675), as in optfx.scale_by_lion ----


class SignMomentumState(NamedTuple):
    count: Tensor  # () int64, steps taken
    mu: tree.Tree  # like params, running mean of the gradient


def sign_momentum(g: Tensor, m: Tensor, b1, b2) -> tuple[Tensor, Tensor]:
    return torch.sign(tree.mean(m, g, b1)), tree.mean(m, g, b2)


@tree.record
class scale_by_sign_momentum(GradientTransformation):
    b1: Decay = 0.9
    b2: Decay = 0.99

    def begin(self, params):
        return SignMomentumState(core.counter(params), tree.zeros_like(params))

    def step(self, updates, state, params):
        updates, mu = tree.elementwise(sign_momentum, updates, state.mu, outs=2, **self.at(state.count))
        return updates, SignMomentumState(state.count + 1, mu)


def main(steps: int = 150, out: str | Path = "out") -> dict[str, Tensor]:
    from matplotlib.figure import Figure

    pixels, digit = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels).float() / 16, torch.tensor(digit)
    torch.manual_seed(0)
    train, test = torch.randperm(len(x)).split([1297, 500])
    batches = train[torch.randint(len(train), (steps, 64))]
    models = [nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)) for _ in range(4)]
    rates = torch.logspace(-4, 0, 17)

    def loss_fn(params, rows):
        return nn.functional.cross_entropy(functional_call(models[0], params, x[rows]), y[rows])

    def step(tx, params, state, rows):
        updates, state = tx.update(grad(loss_fn)(params, rows), state, params)
        return optfx.apply_updates(params, updates), state

    # A batch of 4 x 17: every network with every rate.
    stacked, _ = stack_module_state(models)  # type: ignore[arg-type]
    start = {name: p.detach().repeat_interleave(len(rates), 0) for name, p in stacked.items()}
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    ax = figure.subplots()
    results = {"rate": rates}
    print(f"{'':8}{'best learning rate':>20}{'test loss there':>18}")
    for name, color, scale_by in (
        ("Adam", "#0072b2", optfx.scale_by_adam()),
        ("yours", "#d55e00", scale_by_sign_momentum()),
    ):
        tx = optfx.chain(
            scale_by,
            optfx.masked(optfx.add_decayed_weights(0.01), select.ndim(min=2)),
            optfx.scale_by_learning_rate(optfx.cosine_decay_schedule(rates.repeat(4), steps)),
        )
        params, state = start, vmap(lambda tx, params: tx.init(params))(tx, start)
        for rows in batches:
            params, state = vmap(step, in_dims=(0, 0, 0, None))(tx, params, state, rows)
        loss = results[name] = vmap(loss_fn, in_dims=(0, None))(params, test).view(4, -1).mean(0)

        lowest, at = loss.nan_to_num(torch.inf).min(0)
        best, lowest = rates[at].item(), lowest.item()
        print(f"{name:8}{best:20.3f}{lowest:18.3f}")
        ax.plot(rates, loss, color=color, lw=2)
        ax.plot(best, lowest, "o", color=color)
        ax.text(best, lowest, f"{name}   ", ha="right", va="top", color=color)

    ax.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="test loss, mean of four networks")
    ax.set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    ax.minorticks_off()
    ax.set_title("The sign of a momentum wants smaller rates than Adam", loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "compose_your_own.png", dpi=150)
    return results


if __name__ == "__main__":
    main()
