"""One AdamW step: optfx side by side with torch.optim, TorchOpt, HeavyBall and optax.

Every contender begins with the same parameters, is given the same gradients and has the same hyperparameters. All take
three steps and must agree before any is timed; then each is timed in turn with `torch.optim.AdamW(fused=True)`.

    python benchmarks/step.py                       # rewrites its section of the page
    python benchmarks/step.py --sizes small1000 --rounds 15
    python benchmarks/step.py --compile             # torch.compile at every size: minutes for each
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read when jax is imported

import heavyball
import jax
import measure
import numpy as np
import optax
import torch
import torchopt
from sizes import SIZES, Tensors, gradients, parameters, titled
from torch import Tensor
from torch._inductor.utils import fresh_cache

import optfx

LR, B1, B2, EPS, DECAY = 1e-3, 0.9, 0.999, 1e-8, 1e-2


# ---- the contenders ---------------------------------------------------------------------------
# Each is made from the initial parameters, which it does not change. `give` hands it gradients; `step`, which is what
# is timed, updates `params` with them and returns when that is done.


class TorchOptim:
    def __init__(self, params: Tensors, compile: bool = False, **implementation: bool):
        self.params = {name: p.clone().requires_grad_() for name, p in params.items()}
        step = torch.optim.AdamW(
            self.params.values(), lr=LR, betas=(B1, B2), eps=EPS, weight_decay=DECAY, **implementation
        ).step
        self.step = torch.compile(step) if compile else step

    def give(self, grads: Tensors):
        for name, p in self.params.items():
            p.grad = grads[name]


class Optfx:
    def __init__(self, params: Tensors, wrap: Callable[[Any], Any]):
        tx = optfx.adamw(LR, B1, B2, EPS, weight_decay=DECAY)

        def update(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return optfx.apply_updates(params, updates), state

        self.update = wrap(update)
        self.params = optfx.tree.map(torch.clone, params)
        self.state = tx.init(params)

    def give(self, grads: Tensors):
        self.grads = grads

    def step(self):
        self.params, self.state = self.update(self.params, self.state, self.grads)


def pure(update):
    return update


def donated(update):
    return optfx.donate(update, argnums=(0, 1))


def compiled(update):
    return torch.compile(donated(update), fullgraph=True)


class Fused:
    def __init__(self, params: Tensors):
        self.opt = optfx.fuse(optfx.adamw(LR, B1, B2, EPS, weight_decay=DECAY))
        self.params, self.state = self.opt.init(params)

    def give(self, grads: Tensors):
        self.grads = grads

    def step(self):
        self.params, self.state = self.opt.step(self.grads, self.state, self.params)


class HeavyBall:
    def __init__(self, params: Tensors):
        self.params = {name: torch.nn.Parameter(p.clone()) for name, p in params.items()}
        self.optimizer = heavyball.AdamW(self.params.values(), lr=LR, betas=(B1, B2), eps=EPS, weight_decay=DECAY)

    def give(self, grads: Tensors):
        self.grads = grads

    def step(self):
        for name, p in self.params.items():  # it takes the gradients away
            p.grad = self.grads[name]
        self.optimizer.step()


class Copy:
    """The memory that a step has to move, and nothing else: the parameters seven times (gradient, parameter and two
    moments are read, three are written), as one copy of three and a half times as much."""

    def __init__(self, params: Tensors):
        self.params = None
        self.source = torch.ones(7 * sum(p.numel() for p in params.values()) // 2)
        self.target = torch.zeros_like(self.source)

    def give(self, grads: Tensors):
        pass

    def step(self):
        self.target.copy_(self.source)


class TorchOpt:
    def __init__(self, params: Tensors):
        self.tx = torchopt.adamw(LR, (B1, B2), EPS, DECAY)
        self.params = {name: p.clone() for name, p in params.items()}
        self.state = self.tx.init(self.params)

    def give(self, grads: Tensors):
        self.grads = grads

    def step(self):
        updates, self.state = self.tx.update(self.grads, self.state, params=self.params)
        self.params = torchopt.apply_updates(self.params, updates)


class Optax:
    def __init__(self, params: Tensors):
        tx = optax.adamw(LR, B1, B2, EPS, weight_decay=DECAY)

        @partial(jax.jit, donate_argnums=(0, 1))
        def update(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self.update = update
        self.params = to_jax(params)
        self.state = tx.init(self.params)

    def give(self, grads: Tensors):
        self.grads = to_jax(grads)

    def step(self):
        self.params, self.state = jax.block_until_ready(self.update(self.params, self.state, self.grads))


def to_jax(tensors: Tensors) -> dict[str, jax.Array]:
    return {name: jax.numpy.array(x.numpy()) for name, x in tensors.items()}


BASELINE = "`torch.optim.AdamW(fused=True)`"
FOREACH = "`torch.optim.AdamW(foreach=True)`"
COMPILED = (
    "optfx, `torch.compile(donate(step))`",
    "`torch.compile(torch.optim.AdamW.step)`",
    "HeavyBall, `AdamW`",  # which compiles itself
)
CONTENDERS = {
    BASELINE: partial(TorchOptim, fused=True),
    "**optfx, `fuse`**": Fused,
    "a copy of as much memory": Copy,
    FOREACH: partial(TorchOptim, foreach=True),
    "optfx, eager": partial(Optfx, wrap=pure),
    "optfx, eager, `donate`": partial(Optfx, wrap=donated),
    COMPILED[0]: partial(Optfx, wrap=compiled),
    COMPILED[1]: partial(TorchOptim, foreach=True, compile=True),
    "TorchOpt, `adamw`": TorchOpt,
    COMPILED[2]: HeavyBall,
    "optax, `jax.jit`, donated": Optax,
}


# ---- the comparison ---------------------------------------------------------------------------


def begin(make: Callable[[Tensors], Any], params: Tensors, grads: list[Tensors]) -> tuple[Any, float]:
    """A contender after a step with each of the gradients; the seconds of set-up and the first, nothing cached."""
    with fresh_cache():
        start = time.perf_counter()
        contender = make(params)
        contender.give(grads[0])
        contender.step()
        seconds = time.perf_counter() - start
    for more in grads[1:]:
        contender.give(more)
        contender.step()
    return contender, seconds


def check(name: str, got: dict[str, Any] | None, expected: Tensors) -> None:
    """Raise unless all parameters are equal to 1e-5 of each, or to 1e-4 of what one step changes."""
    if got is None:
        return
    step = 1.0 if "HeavyBall" in name else 1e-4  # its epsilon stands elsewhere
    for leaf, value in expected.items():
        x = got[leaf].detach() if isinstance(got[leaf], Tensor) else got[leaf]
        message = f"{name} disagrees with {BASELINE} at {leaf}"
        np.testing.assert_allclose(x, value.detach(), rtol=1e-5, atol=step * LR, err_msg=message)


def compare(size: str, names: list[str], rounds: int) -> tuple[str, dict[str, float]]:
    """The table of one size, for the contenders of these names, and their ratios."""
    shapes = SIZES[size][1]
    params, grads = parameters(shapes), [gradients(shapes, seed) for seed in (1, 2, 3)]
    begun = {name: begin(CONTENDERS[name], params, grads) for name in names}
    baseline, first = begun.pop(BASELINE)
    for name, (contender, _) in begun.items():
        check(name, contender.params, baseline.params)

    rows, of_baseline, ratios = [], [], {}
    for name, (contender, seconds) in begun.items():
        pair = measure.paired(baseline.step, contender.step, rounds, steps=3, warm=25)
        ratios[name] = median(pair.ratios)
        rows.append((name, measure.milliseconds(pair.b), pair.ratio(), f"{seconds:.1f}"))
        of_baseline += pair.a
    rows.insert(0, (BASELINE, measure.milliseconds(of_baseline), "1", f"{first:.1f}"))
    header = ("optimizer", "ms a step", "ratio (quartiles)", "first step, s")
    note = f"Against `foreach=True`, eager optfx takes {ratios['optfx, eager'] / ratios[FOREACH]:.2f} times as long."
    return f"{titled(size)}\n\n{measure.table(header, rows)}\n\n{note}", ratios


def draw(ratios: dict[str, dict[str, float]]) -> None:
    """Ratios to `fused=True`, a group of bars for each size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = ["**optfx, `fuse`**", "optax, `jax.jit`, donated", FOREACH, "optfx, eager", "TorchOpt, `adamw`"]
    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    for k, name in enumerate(shown):
        x = [i + (k - 2) * 0.16 for i in range(len(ratios))]
        label = name.replace("*", "").replace("`", "")
        axes.bar(x, [r[name] for r in ratios.values()], 0.16, label=label, color=f"C{k}")
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.set_yticks([0.25, 0.5, 1, 2, 4, 8], ["0.25", "0.5", "1", "2", "4", "8"])
    axes.set_xticks(range(len(ratios)), [SIZES[size][0].split(",")[0] for size in ratios])
    axes.set_ylabel("time of a step,\ntorch.optim.AdamW(fused=True) = 1")
    axes.legend(frameon=False, ncols=3, loc="upper left", fontsize=9)
    axes.set_ylim(0.15, 24)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(measure.PAGE.parent / "assets" / "benchmarks.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--compile", action="store_true", help="torch.compile at every size: minutes for each")
    parser.add_argument("--rounds", type=int, default=31)
    args = parser.parse_args()
    parts, ratios = [measure.machine("optfx", "torchopt", "heavyball", "jax", "optax")], {}
    for size in args.sizes:
        few = size == "big4"  # a loop for each leaf takes minutes to compile for 148 of them
        names = [name for name in CONTENDERS if few or args.compile or name not in COMPILED]
        text, ratios[size] = compare(size, names, args.rounds)
        parts.append(text)
        print(text, end="\n\n", flush=True)
    if set(SIZES) <= set(args.sizes):
        measure.write("step", "\n\n".join(parts))
        draw(ratios)


if __name__ == "__main__":
    main()
