"""The same training with optfx, with a formula of the paper in numpy, and with packages that others wrote, in float64.

A case names what is compared. A formula is a function of the parameters and of their gradient, and yields the
parameters after each step: `leafwise` makes one from a formula for a single array.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import heavyball
import numpy as np
import torch
from heavyball import chainable

import optfx
from optfx import tree

STEPS = 15
SHAPES = {"matrix": (6, 4), "vector": (5,), "kernel": (3, 2, 2, 2), "number": ()}
FLOAT32 = 1e-6  # how far those are off whose scalars are in float32, as HeavyBall's

heavyball.utils.compile_mode = None

Shapes = dict[str, tuple[int, ...]]
Params = dict[str, np.ndarray]
Gradient = Callable[[int, Params], Params]  # the number of the step, from 0, and the parameters
Formula = Callable[[Params, Gradient], Iterator[Params]]


@dataclass(frozen=True)
class Case:
    """One public name in one option set, beside its formula and beside the packages that have it."""

    name: str
    options: str  # as the table shows them
    tx: Callable[[], Any]  # makes ours: an optimizer, rate and sign included
    formula: Formula
    packages: dict[str, Callable[[], list[Params]]] = field(default_factory=dict)  # the run of `by_torch`, `by_optax`
    paper: str = ""  # where the formula is from
    near: dict[str, float] = field(default_factory=dict)  # packages that round, and how far they may be off
    shapes: Shapes = field(default_factory=lambda: SHAPES)

    @property
    def id(self) -> str:
        return f"{self.name}[{self.options}]"


def start(shapes: Shapes = SHAPES) -> Params:
    rng = np.random.default_rng(0)
    return {name: np.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def gradient(t: int, params: Params) -> Params:
    """Of a bowl whose place and width change from step to step; one element of the matrix never has any."""
    rng = np.random.default_rng(100 + t)
    out = {}
    for name in (name for name in SHAPES if name in params):  # whatever the order of theirs
        p = params[name]
        width, place = 10.0 ** rng.uniform(-1, 1, p.shape), rng.normal(size=p.shape)
        out[name] = np.asarray(width * (p - 0.3 * place))
    out["matrix"][1, 2] = 0.0
    return out


def by_formula(formula: Formula, shapes: Shapes = SHAPES) -> list[Params]:
    """The parameters after each step, by a formula."""
    return [out for out, _ in zip(formula(start(shapes), gradient), range(STEPS), strict=False)]


def leafwise(formula: Callable[..., Iterator[np.ndarray]], **options: Any) -> Formula:
    """A formula for all parameters from one for a single array, `formula(p, grad, **options)` with `grad(t, p)`."""

    def run(params: Params, grad: Gradient) -> Iterator[Params]:
        def alone(name: str) -> Iterator[np.ndarray]:
            return formula(params[name], lambda t, p: grad(t, {**params, name: p})[name], **options)

        runs = {name: alone(name) for name in params}
        while True:
            yield {name: np.array(next(it)) for name, it in runs.items()}

    return run


def by_optfx(tx: Any, shapes: Shapes = SHAPES, **extra: Any) -> list[Params]:
    params = tree.map(torch.tensor, start(shapes))
    state, out = tx.init(params), []
    for t in range(STEPS):
        grads = tree.map(torch.tensor, gradient(t, tree.map(torch.Tensor.numpy, params)))
        updates, state = tx.update(grads, state, params, **extra)
        params = optfx.apply_updates(params, updates)
        out.append(tree.map(torch.Tensor.numpy, params))
    return out


def by_torch(
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], shapes: Shapes = SHAPES
) -> Callable[[], list[Params]]:
    """With an optimizer of the kind of `torch.optim`, from a function that makes it of the parameters."""

    def run() -> list[Params]:
        params = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in start(shapes).items()}
        out = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what others warn of is theirs
            optimizer = make(list(params.values()))
            for t in range(STEPS):
                grads = gradient(t, {name: p.detach().numpy() for name, p in params.items()})
                for name, p in params.items():
                    p.grad = torch.tensor(grads[name])
                optimizer.step()
                out.append({name: p.detach().numpy().copy() for name, p in params.items()})
        return out

    return run


def by_heavyball(make: Callable[..., Any], *numbers: Any, shapes: Shapes = SHAPES, **options: Any):
    """With an optimizer of HeavyBall, from its class, its numbers in order and its options."""
    return by_torch(lambda ps: make(ps, *numbers, storage_dtype="float64", **options), shapes)


def by_parts_of_heavyball(*parts: Any, shapes: Shapes = SHAPES, **options: Any):
    """With a chain of parts of HeavyBall."""
    return by_torch(lambda ps: chainable.ChainOpt(ps, {"storage_dtype": "float64", **options}, *parts), shapes)


def by_optax(make: Callable[[Any], Any], shapes: Shapes = SHAPES) -> Callable[[], list[Params]]:
    """With a transform of optax, from a function of the module `optax` that makes it: rate and sign included."""

    def run() -> list[Params]:
        import jax
        import jax.numpy as jnp
        import optax

        jax.config.update("jax_enable_x64", True)
        tx = make(optax)
        params = jax.tree.map(jnp.asarray, start(shapes))
        state, out = tx.init(params), []
        for t in range(STEPS):
            grads = jax.tree.map(jnp.asarray, gradient(t, jax.tree.map(np.asarray, params)))
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            out.append(jax.tree.map(np.asarray, params))
        return out

    return run


def difference(ours: list[Params], theirs: list[Params]) -> float:
    """The largest difference of a parameter at any step, in units of the largest parameter there."""
    return max(
        float(np.abs(a[name] - b[name]).max() / max(1.0, np.abs(b[name]).max()))
        for a, b in zip(ours, theirs, strict=True)
        for name in b
    )
