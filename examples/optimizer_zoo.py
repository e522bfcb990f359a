"""Thirty optimizers on one problem, each tuned alike: how well it does, and how much its learning rate matters.

Each optimizer trains a small network on handwritten digits with 25 learning rates, over a factor of a million, and four
decays, from two starts: 200 members of one sweep, and a sweep for each optimizer. All other numbers are the defaults.
The rate is warmed up and falls along a cosine, but for Schedule-Free, which has no schedule. Decay is that of the
optimizer; those that have none, or an L2 penalty in front of an adaptive rule, are put together anew from their rule,
`add_decayed_weights` and the rate.

The picture has a point for each optimizer. Up is its lowest validation loss, the mean of both starts, over all rates
and decays: lower is better. Right is how forgiving it is: for how many decades of the rate the loss stays within a
fifth of that, each rate with its best decay. This is one small problem and a short run, in which differences of a few
percent mean nothing: it shows that most rules are as good as each other once they are tuned, and not which to take for
a large model.

    python examples/optimizer_zoo.py
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import optfx
from optfx import sweep
from optfx.core import GradientTransformation

RATES = torch.logspace(-4, 2, 25, dtype=torch.float64)
DECAYS = [0.0, 0.01, 0.1, 1.0]
STARTS = 2
CHANCE = math.log(10)  # the loss of who knows nothing of ten digits
NEAR = 1.2  # times the lowest loss: a rate that works


class Setting(NamedTuple):
    """What is tuned, and the length of the run."""

    rate: Any
    decay: Any
    steps: int

    def falling(self, peak: Any) -> Any:
        return optfx.warmup_cosine_decay_schedule(0.0, peak, warmup_steps=self.steps // 10, decay_steps=self.steps)


Maker = Callable[[Setting], GradientTransformation]


def own(optimizer: Callable[..., GradientTransformation]) -> Maker:
    """An optimizer with a decay of its own."""
    return lambda c: optimizer(c.falling(c.rate), weight_decay=c.decay)


def chained(*rule: GradientTransformation) -> Maker:
    """A rule, a decoupled decay, and the rate."""
    return lambda c: optfx.chain(
        *rule, optfx.add_decayed_weights(c.decay), optfx.scale_by_learning_rate(c.falling(c.rate))
    )


FAMILIES: dict[str, dict[str, Maker]] = {
    "plain steps": {
        "sgd": chained(),
        "sgd, momentum": chained(optfx.trace(0.9)),
    },
    "signs": {
        "signum": chained(optfx.ema(0.9, debias=False), optfx.scale_by_sign()),
        "lion": own(optfx.lion),
        "tiger": own(optfx.tiger),
    },
    "Adam and its corrections": {
        "adamw": own(optfx.adamw),
        "nadamw": own(optfx.nadamw),
        "radam": chained(optfx.scale_by_radam()),
        "adamaxw": own(optfx.adamaxw),
        "adam_atan2": own(optfx.adam_atan2),
        "stableadamw": own(optfx.stableadamw),
    },
    "other second moments": {
        "adabelief": chained(optfx.scale_by_belief()),
        "yogi": chained(optfx.scale_by_yogi()),
        "rmsprop": chained(optfx.scale_by_rms()),
        "laprop": own(optfx.laprop),
        "adopt": chained(optfx.scale_by_adopt()),
    },
    "more than one mean": {
        "adan": own(optfx.adan),
        "ademamix": own(optfx.ademamix),
        "qhadam": chained(optfx.scale_by_qhadam()),
    },
    "sums, not means": {
        "adagrad": chained(optfx.scale_by_rss()),
        "madgrad": own(optfx.madgrad),
        "sm3": chained(optfx.scale_by_sm3()),
    },
    "layer by layer": {
        "lamb": own(optfx.lamb),
        "lars": own(optfx.lars),
        "novograd": own(optfx.novograd),
        "fromage": lambda c: optfx.chain(optfx.add_decayed_weights(c.decay), optfx.fromage(c.falling(c.rate))),
    },
    "rows, columns, matrices": {
        "adafactor": lambda c: optfx.adafactor(c.falling(c.rate), weight_decay_rate=c.falling(c.rate * c.decay)),
        "came": own(optfx.came),
        "muon": lambda c: optfx.muon(c.falling(c.rate), weight_decay=c.decay, adam_weight_decay=c.decay),
    },
    "an average leads": {
        "schedule_free_adamw": lambda c: optfx.schedule_free_adamw(c.rate, c.steps // 10, weight_decay=c.decay),
    },
}
COLORS = ["#000000", "#e69f00", "#0072b2", "#56b4e9", "#cc79a7", "#b8a800", "#009e73", "#d55e00", "#8c8c8c"]


class Outcome(NamedTuple):
    """What a sweep says of an optimizer."""

    family: str
    loss: float  # the lowest
    rate: float  # there
    decay: float
    accuracy: float
    width: float  # decades of the rate that come near
    seconds: float


def width(losses: Tensor, rates: Tensor) -> float:
    """For how many decades of the rate the loss is near the lowest, by a line through the logarithms of both."""
    at = torch.linspace(0, len(rates) - 1, 100 * len(rates)).numpy()
    between = numpy.interp(at, range(len(rates)), losses.log().numpy())
    return float((between < math.log(NEAR * losses.min())).mean() * math.log10(rates[-1] / rates[0]))


def main(
    steps: int = 200,
    hidden: int = 32,
    rates: Tensor = RATES,
    names: list[str] | None = None,
    out: str | Path = "out",
    compile: bool | str = True,
) -> dict[str, Outcome]:
    torch.manual_seed(0)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = images.float() / 16
    train, validation = torch.randperm(len(images)).split([1077, 720])
    order = train[torch.randint(len(train), (steps, 128))]
    models = [nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10)) for _ in range(STARTS)]
    configs = sweep.grid({"rate": rates, "decay": DECAYS, "seed": range(STARTS)})
    start = {name: p.detach()[configs["seed"]] for name, p in torch.func.stack_module_state(models)[0].items()}

    def batches(step: int) -> tuple[Tensor, Tensor]:
        return images[order[step]], labels[order[step]]

    def loss_fn(params, batch) -> Tensor:
        x, y = batch
        return cross_entropy(functional_call(models[0], params, x), y)

    def evaluate(params) -> dict[str, Tensor]:
        x, y = images[validation], labels[validation]
        right = functional_call(models[0], params, x).argmax(-1) == y
        return {"val_loss": loss_fn(params, (x, y)), "val_accuracy": right.double().mean()}

    found: dict[str, Outcome] = {}
    print(f"{len(configs['rate'])} members of each optimizer, {steps} steps\n")
    print(f"{'':20}{'lowest loss':>12}{'accuracy':>10}{'at rate':>10}{'decay':>7}{'decades near':>14}{'seconds':>9}")
    for family, makers in FAMILIES.items():
        for name, make in makers.items():
            if names is not None and name not in names:
                continue
            began = time.perf_counter()
            result = sweep.fit(
                lambda config, make=make: make(Setting(config["rate"], config["decay"], steps)),
                configs,
                loss_fn,
                sweep.stacked(start),
                batches,
                steps=steps,
                evaluate=evaluate,
                compile=compile,
            )
            found[name] = judge(family, result, rates, time.perf_counter() - began)
            _, loss, rate, decay, accuracy, near, seconds = found[name]
            print(
                f"{name:20}{loss:12.3f}{accuracy:10.1%}{rate:10.2g}{decay:7.2g}{near:14.2f}{seconds:9.1f}", flush=True
            )
    draw(found, Path(out))
    return found


def judge(family: str, result: sweep.Result, rates: Tensor, seconds: float) -> Outcome:
    shape = len(rates), len(DECAYS), STARTS
    _, values, _ = result.judge("val_loss")
    losses = values.nan_to_num(math.inf).clamp(max=CHANCE).view(shape).mean(-1)
    accuracy = result.metrics["val_accuracy"].view(shape).mean(-1)
    i, j = divmod(int(losses.argmin()), len(DECAYS))
    near = width(losses.min(1).values, rates)
    return Outcome(family, losses[i, j].item(), rates[i].item(), DECAYS[j], accuracy[i, j].item(), near, seconds)


def draw(found: dict[str, Outcome], out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), dpi=150, layout="constrained")
    ax = figure.subplots()
    color_of = dict(zip(FAMILIES, COLORS, strict=True))
    for family, color in color_of.items():
        points = [(o.width, o.loss) for o in found.values() if o.family == family]
        if points:
            ax.plot(*zip(*points, strict=True), "o", color=color, ms=7, mec="white", label=family)
    ax.set_yscale("log")
    ax.set_yticks(ticks := [0.09, 0.1, 0.12, 0.14, 0.16], [str(x) for x in ticks])
    ax.minorticks_off()
    ax.set(xlabel="decades of the learning rate within a fifth of the lowest loss", ylabel="lowest validation loss")
    ax.set_title("Down is better, right is more forgiving", loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    ax.margins(0.08)
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    write_names(ax, {name: (o.width, o.loss, color_of[o.family]) for name, o in found.items()})
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "optimizer_zoo.png")


def write_names(ax: Any, points: dict[str, tuple[float, float, str]]) -> None:
    """Write each name as near to its point as the other names and the points let it."""
    from matplotlib.transforms import Bbox

    ax.figure.draw_without_rendering()  # from here on, it is known where everything is
    places = {name: ax.transData.transform(point) for name, (*point, _) in points.items()}
    taken = [Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in places.values()]
    taken.append(ax.get_legend().get_window_extent())
    line = {"arrowstyle": "-", "lw": 0.5, "shrinkA": 0, "shrinkB": 4}
    at = {"xytext": (0, 0), "textcoords": "offset pixels", "ha": "center", "va": "center"}
    for name, (x, y) in places.items():
        *point, color = points[name]
        text = ax.annotate(name, point, **at, fontsize=8.5, color=color, arrowprops=line | {"color": color})
        size = text.get_window_extent().padded(2)

        def outwards(k: float, x=x, y=y, size=size) -> Bbox:
            """A box on a spiral that begins on the right of the point."""
            across, up = (size.width / 2 + 14 + k / 2) * math.cos(k), (size.height / 2 + 14 + k / 2) * math.sin(k)
            return Bbox.from_bounds(x + across - size.width / 2, y + up - size.height / 2, size.width, size.height)

        box = next(box for box in map(outwards, count()) if not any(box.overlaps(other) for other in taken))
        text.set_position(((box.x0 + box.x1) / 2 - x, (box.y0 + box.y1) / 2 - y))
        taken.append(box)


if __name__ == "__main__":
    main()
