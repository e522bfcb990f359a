"""The recipe of the fewest steps, as a chain of parts, beside tuned AdamW and Muon.

What needs the fewest steps on the public NanoGPT track (modded-nanogpt, track 3) is ten small parts: SOAP's momentum,
orthogonalized as in Muon; a least step for each row; a brake on growing norms, which are then pinned; a decay that does
not work against the gradient; around it a gradient that is taken ahead, and a mean of the parameters over the tail of
the run. The rate is flat, then falls by a power. Here it trains a small transformer on the source code of torch, beside
AdamW and Muon with the same schedule. Each is tried with several learning rates and starts; the picture shows how many
steps each takes to the same validation loss. On a model as small as this and a run as short, Muon alone needs fewer
still: a record on one track is no proof for another, but its parts are there to be tried one by one.

    python examples/record_recipe.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import optfx
from optfx import select
from optfx.core import GradientTransformation

if __name__ == "__main__":
    from char_transformer import Transformer, draw_batch, evaluate, loss_of, read
else:
    from examples.char_transformer import Transformer, draw_batch, evaluate, loss_of, read


WIDTH, DEPTH, BATCH = 64, 2, 32
MATRICES = select.label({"matrix": select.path("blocks.*") & select.ndim(2, 2)}, default="other")


def flat_then_falling(peak: float, steps: int) -> Callable[[Tensor], Tensor]:
    """The peak for two fifths of the steps after a short warmup, then down to zero by a power."""
    begin = 2 * steps // 5
    fall = optfx.polynomial_schedule(peak, 0.0, 1.2, steps - begin, begin)
    return optfx.join_schedules(
        [optfx.linear_schedule(0.0, peak, steps // 50), lambda t: fall(t + steps // 50)], [steps // 50]
    )


def adamw(rate: float, steps: int) -> GradientTransformation:
    return optfx.adamw(flat_then_falling(rate, steps), b2=0.99, weight_decay=0.1, mask=select.ndim(min=2))


def others(steps: int) -> GradientTransformation:
    """AdamW for embeddings, the last layer, vectors and biases."""
    return adamw(0.008, steps)


def muon(rate: float, steps: int) -> GradientTransformation:
    matrices = optfx.chain(
        optfx.scale_by_muon(),
        optfx.scale_by_shape(),
        optfx.add_decayed_weights(0.1),
        optfx.scale_by_learning_rate(flat_then_falling(rate, steps)),
    )
    return optfx.partition({"matrix": matrices, "other": others(steps)}, MATRICES)


def recipe(rate: float, steps: int) -> GradientTransformation:
    matrices = optfx.chain(
        optfx.scale_by_soap(),
        optfx.orthogonalize(),
        optfx.scale_by_shape(),
        optfx.relative_update(0.35, None, per_unit=True),
        optfx.cautious_weight_decay(0.1),
        optfx.scale_by_learning_rate(flat_then_falling(rate, steps)),
        optfx.radial_brake(),
        optfx.keep_norm(),
    )
    whole = optfx.partition({"matrix": matrices, "other": others(steps)}, MATRICES)
    return optfx.chain(optfx.ema_nesterov(whole), optfx.params_ema(0.97))


OPTIMIZERS = {"AdamW": adamw, "Muon": muon, "the recipe": recipe}
RATES = {
    "AdamW": [8e-3, 1.6e-2, 3.2e-2],
    "Muon": [2e-2, 4e-2, 8e-2],
    "the recipe": [2e-2, 4e-2, 8e-2],
}
COLORS = {"AdamW": "#999999", "Muon": "#0072b2", "the recipe": "#d55e00"}


class Run(NamedTuple):
    """One optimizer at one rate from one start."""

    name: str
    rate: float
    seed: int
    losses: list[float]  # on validation, at each look


def train(name: str, rate: float, seed: int, steps: int, every: int, text: tuple[Tensor, Tensor, str]) -> Run:
    """The validation losses of a run, with the parameters that the optimizer gives to evaluate."""
    training, validation, alphabet = text
    held = draw_batch(validation, torch.Generator().manual_seed(1), size=128)
    torch.manual_seed(seed)
    model, tx = Transformer(len(alphabet), WIDTH, DEPTH), OPTIMIZERS[name](rate, steps)
    generator, opt, losses = torch.Generator().manual_seed(100 + seed), optfx.fuse(tx), []
    params, state = opt.init(model)
    for i in range(steps):
        model.zero_grad()
        loss_of(model, draw_batch(training, generator, BATCH)).backward()
        params, state = opt.step(optfx.grads(model), state, params)
        if (i + 1) % every == 0:
            losses.append(evaluate(model, tx.eval_params(state, params), held).item())
    return Run(name, rate, seed, losses)


def mean_curve(runs: list[Run], name: str, rate: float) -> Tensor:
    """The validation losses of an optimizer at a rate, over its starts; infinite where one diverged."""
    return torch.tensor([r.losses for r in runs if (r.name, r.rate) == (name, rate)]).nan_to_num(torch.inf).mean(0)


def steps_to(curve: Tensor, loss: float, every: int) -> float:
    """Where a curve first reaches a loss, between two looks as on a line; infinite where it never does."""
    reached = (curve <= loss).nonzero()
    if not len(reached):
        return float("inf")
    k = int(reached[0])
    if k == 0:
        return float(every)
    before, after = curve[k - 1].item(), curve[k].item()
    return every * (k + (before - loss) / (before - after))


def main(
    steps: int = 400, every: int = 20, seeds: int = 3, rates: dict[str, list[float]] = RATES, folder: str | Path = "out"
) -> dict[str, tuple[float, float, float]]:
    """(best rate, last loss, steps to AdamW's last loss) of each optimizer."""
    text, began, runs = read(), time.perf_counter(), []
    for name, tried in rates.items():
        for rate in tried:
            runs += [train(name, rate, seed, steps, every, text) for seed in range(seeds)]
            print(f"{name:12} rate {rate:<8g} last loss {mean_curve(runs, name, rate)[-1]:.4f}", flush=True)
    best = {name: min(tried, key=lambda r, n=name: mean_curve(runs, n, r)[-1].item()) for name, tried in rates.items()}
    curves = {name: mean_curve(runs, name, rate) for name, rate in best.items()}
    goal = curves["AdamW"][-1].item()
    found = {name: (best[name], c[-1].item(), steps_to(c, goal, every)) for name, c in curves.items()}
    print(f"\n{len(runs)} runs in {time.perf_counter() - began:.0f} s; AdamW's last loss, {goal:.4f}, is the goal")
    for name, (rate, last, taken) in found.items():
        print(f"{name:12} rate {rate:<8g} last loss {last:.4f}    steps to the goal {taken:.0f} ({taken / steps:.2f})")
    draw(curves, goal, every, Path(folder))
    return found


def draw(curves: dict[str, Tensor], goal: float, every: int, out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.subplots()
    for name, curve in curves.items():
        at = torch.arange(1, len(curve) + 1) * every
        ax.plot(at, curve, color=COLORS[name], lw=1.8, label=name)
    ax.axhline(goal, color="#cccccc", lw=0.8, zorder=0)
    ax.set(xlabel="step", ylabel="validation loss, nats per character", ylim=(None, goal + 1.2))
    ax.legend(frameon=False)
    figure.suptitle("Steps to the loss of tuned AdamW, the mean of all starts", x=0.01, ha="left")
    ax.spines[["top", "right"]].set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "record_recipe.png", dpi=150)


if __name__ == "__main__":
    main()
