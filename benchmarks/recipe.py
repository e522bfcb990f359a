"""A realistic recipe: clip, AdamW with decay for matrices only, warmup and cosine, a running mean of the parameters.

In optfx it is one chain. In torch it is `clip_grad_norm_`, `AdamW(fused=True)` with two groups, `LambdaLR` and
`swa_utils.AveragedModel`. Both take the same steps, must agree, and are timed in turn.

    python benchmarks/recipe.py                     # rewrites its section of the page
    python benchmarks/recipe.py --sizes small1000 --rounds 15
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import measure
import torch
from sizes import SIZES, Tensors, gradients, parameters, titled
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import optfx
from optfx import select

RATE, WARMUP, STEPS, DECAY, KEEP, LIMIT = 1e-3, 100, 10_000, 0.1, 0.999, 1.0


def chain() -> Any:
    return optfx.chain(
        optfx.clip_by_global_norm(LIMIT),
        optfx.scale_by_adam(),
        optfx.masked(optfx.add_decayed_weights(DECAY), select.ndim(min=2)),
        optfx.scale_by_learning_rate(optfx.warmup_cosine_decay_schedule(0.0, RATE, WARMUP, STEPS)),
        optfx.params_ema(KEEP),
    )


class Fused:
    def __init__(self, params: Tensors):
        self.opt = optfx.fuse(chain())
        self.params, self.state = self.opt.init(params)

    def step(self, grads: Tensors) -> None:
        self.params, self.state = self.opt.step(grads, self.state, self.params)

    @property
    def ema(self) -> Tensors:
        return optfx.tree.get(self.state, "ema")


class Eager:
    def __init__(self, params: Tensors):
        self.tx, self.params = chain(), params
        self.state = self.tx.init(params)

    def step(self, grads: Tensors) -> None:
        updates, self.state = self.tx.update(grads, self.state, self.params)
        self.params = optfx.apply_updates(self.params, updates)

    @property
    def ema(self) -> Tensors:
        return optfx.tree.get(self.state, "ema")


def warmup_cosine(t: int) -> float:
    if t < WARMUP:
        return t / WARMUP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (t - WARMUP) / (STEPS - WARMUP))))


class Torch:
    def __init__(self, params: Tensors):
        self.params = {name: nn.Parameter(p.clone()) for name, p in params.items()}
        self.model = nn.ParameterList(self.params.values())
        matrices = [p for p in self.model if p.ndim >= 2]
        vectors = [p for p in self.model if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=RATE, fused=True)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, warmup_cosine)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(KEEP))
        self.average.update_parameters(self.model)  # the first one copies

    def step(self, grads: Tensors) -> None:
        for name, p in self.params.items():
            p.grad = grads[name]
        nn.utils.clip_grad_norm_(self.model, LIMIT)
        self.optimizer.step()
        self.scheduler.step()
        self.average.update_parameters(self.model)

    @property
    def ema(self) -> Tensors:
        return dict(zip(self.params, (p.detach() for p in self.average.module), strict=True))


THEIRS = "torch: `clip_grad_norm_`, `AdamW(fused=True)`, `LambdaLR`, `swa_utils`"
CONTENDERS: dict[str, Callable[[Tensors], Any]] = {
    THEIRS: Torch,
    "**optfx, `fuse`**": Fused,
    "optfx, eager": Eager,
}


def check(ours: Any, theirs: Any, name: str) -> None:
    """Raise unless params and their means are equal; torch divides by the norm plus 1e-6."""
    for a, b, what in ((ours.params, theirs.params, "params"), (ours.ema, theirs.ema, "means")):
        for leaf in a:
            message = f"the {what} of {name} disagree at {leaf}"
            torch.testing.assert_close(
                a[leaf], b[leaf].detach(), rtol=1e-5, atol=1e-4 * RATE, msg=lambda m, s=message: f"{s}: {m}"
            )


def compare(size: str, rounds: int) -> str:
    shapes = SIZES[size][1]
    grads = [gradients(shapes, seed) for seed in (1, 2, 3)]
    begun = {name: make(parameters(shapes)) for name, make in CONTENDERS.items()}
    for contender in begun.values():
        for g in grads:
            contender.step(optfx.tree.map(torch.clone, g))  # torch clips in place
    theirs = begun.pop(THEIRS)
    rows, of_theirs = [], []
    for name, contender in begun.items():
        check(contender, theirs, name)
    mine, for_torch = grads[0], optfx.tree.map(torch.clone, grads[0])
    for name, contender in begun.items():
        a, b = lambda: theirs.step(for_torch), lambda c=contender: c.step(mine)
        pair = measure.paired(a, b, rounds, steps=3, warm=20)
        rows.append((name, measure.milliseconds(pair.b), pair.ratio()))
        of_theirs += pair.a
    rows.insert(0, (THEIRS, measure.milliseconds(of_theirs), "1"))
    return f"{titled(size)}\n\n{measure.table(('recipe', 'ms a step', 'ratio (quartiles)'), rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=31)
    args = parser.parse_args()
    parts = [measure.machine("optfx")]
    for size in args.sizes:
        parts.append(compare(size, args.rounds))
        print(parts[-1], end="\n\n", flush=True)
    if set(SIZES) <= set(args.sizes):
        measure.write("recipe", "\n\n".join(parts))


if __name__ == "__main__":
    main()
