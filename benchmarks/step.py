"""One AdamW step: optfx side by side with torch.optim, TorchOpt and optax.

Every contender begins with the same parameters, is given the same gradients and has the same hyperparameters. All take
three steps and must agree before any is timed; then each is timed in turn with `torch.optim.AdamW(foreach=True)`.

    python benchmarks/step.py                       # the three sizes of the page, rewrites its section
    python benchmarks/step.py --sizes all --compile
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read when jax is imported

import jax
import measure
import numpy as np
import optax
import torch
import torchopt
from torch import Tensor
from torch._inductor.utils import fresh_cache

import optfx

LR, B1, B2, EPS, DECAY = 1e-3, 0.9, 0.999, 1e-8, 1e-2


# ---- the sizes --------------------------------------------------------------------------------


def squares(count: int, side: int) -> dict[str, tuple[int, ...]]:
    return {f"w{i}": (side, side) for i in range(count)}


def transformer(blocks: int, width: int, vocabulary: int = 1024, context: int = 256) -> dict[str, tuple[int, ...]]:
    """The shapes of a GPT-2: matrices and vectors, 12 leaves a block and 4 around them."""
    shapes: dict[str, tuple[int, ...]] = {"token": (vocabulary, width), "position": (context, width)}
    layers = {"attention.in": 3 * width, "attention.out": width, "mlp.in": 4 * width, "mlp.out": width}
    for i in range(blocks):
        for layer, out in layers.items():
            shapes[f"{i}.{layer}.weight"] = (out, 4 * width if layer == "mlp.out" else width)
            shapes[f"{i}.{layer}.bias"] = (out,)
        shapes |= {f"{i}.norm{k}.{name}": (width,) for k in (1, 2) for name in ("weight", "bias")}
    return shapes | {"norm.weight": (width,), "norm.bias": (width,)}


SIZES = {
    "big4": ("4 leaves of 2048 x 2048", squares(4, 2048)),
    "blocks148": ("148 leaves, 12 transformer blocks of width 128", transformer(12, 128)),
    "blocks76": ("76 leaves, 6 transformer blocks of width 512", transformer(6, 512)),
    "blocks388": ("388 leaves, 32 transformer blocks of width 256", transformer(32, 256)),
    "small1000": ("1000 leaves of 32 x 32", squares(1000, 32)),
}
DEFAULT = ("big4", "blocks148", "blocks388")


# ---- the contenders ---------------------------------------------------------------------------
# Each is made from the initial parameters, which it does not change. `give` hands it gradients; `step`, which is what
# is timed, updates `params` with them and returns when that is done.

Tensors = dict[str, Tensor]


class TorchOptim:
    def __init__(self, params: Tensors, **implementation: bool):
        self.params = {name: p.clone().requires_grad_() for name, p in params.items()}
        self.step = torch.optim.AdamW(
            self.params.values(), lr=LR, betas=(B1, B2), eps=EPS, weight_decay=DECAY, **implementation
        ).step

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


BASELINE = "`torch.optim.AdamW(foreach=True)`"
COMPILED = "optfx, `torch.compile(donate(step))`"
CONTENDERS = {
    BASELINE: partial(TorchOptim, foreach=True),
    "`torch.optim.AdamW(fused=True)`": partial(TorchOptim, fused=True),
    "`torch.optim.AdamW(foreach=False)`, a loop": partial(TorchOptim, foreach=False),
    "optfx, eager": partial(Optfx, wrap=pure),
    "optfx, eager, `donate`": partial(Optfx, wrap=donated),
    COMPILED: partial(Optfx, wrap=compiled),
    "TorchOpt, `adamw`": TorchOpt,
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


def check(name: str, got: dict[str, Any], expected: Tensors) -> None:
    """Raise unless all parameters are equal to 1e-5 of each, or to 1e-4 of what one step changes."""
    for leaf, value in expected.items():
        x = got[leaf].detach() if isinstance(got[leaf], Tensor) else got[leaf]
        message = f"{name} disagrees with {BASELINE} at {leaf}"
        np.testing.assert_allclose(x, value.detach(), rtol=1e-5, atol=1e-4 * LR, err_msg=message)


def compare(title: str, shapes: dict[str, tuple[int, ...]], names: list[str], rounds: int) -> str:
    """The table of one size, for the contenders of these names."""
    torch.manual_seed(0)
    params = {name: 0.02 * torch.randn(shape) for name, shape in shapes.items()}
    grads = [{name: 0.01 * torch.randn(shape) for name, shape in shapes.items()} for _ in range(3)]

    begun = {name: begin(CONTENDERS[name], params, grads) for name in names}
    baseline, first = begun.pop(BASELINE)
    for name, (contender, _) in begun.items():
        check(name, contender.params, baseline.params)

    rows, of_baseline = [], []
    for name, (contender, seconds) in begun.items():
        pair = measure.paired(baseline.step, contender.step, rounds)
        rows.append((name, measure.milliseconds(pair.b), pair.ratio(), f"{seconds:.1f}"))
        of_baseline += pair.a
    rows.insert(0, (BASELINE, measure.milliseconds(of_baseline), "1", f"{first:.1f}"))
    elements = sum(p.numel() for p in params.values())
    header = ("optimizer", "ms a step", "ratio (quartiles)", "first step, s")
    return f"**{title}**, {elements / 1e6:.1f} million parameters\n\n{measure.table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=[*SIZES, "all"], default=DEFAULT)
    parser.add_argument("--compile", action="store_true", help="torch.compile at every size: minutes for each")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    sizes = list(SIZES) if "all" in args.sizes else args.sizes
    parts = [measure.machine("optfx", "torchopt", "jax", "optax")]
    for size in sizes:
        title, shapes = SIZES[size]
        few = len(shapes) <= 10  # a loop for each leaf takes minutes to compile for 148 of them
        names = [name for name in CONTENDERS if name != COMPILED or few or args.compile]
        parts.append(compare(title, shapes, names, args.rounds))
        print(parts[-1], end="\n\n", flush=True)
    if set(DEFAULT) <= set(sizes):  # the page shows these, or more
        measure.write("step", "\n\n".join(parts))


if __name__ == "__main__":
    main()
