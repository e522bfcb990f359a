"""What the tests of the compiler share: parameters of all sorts, gradients, and the same steps in eager code."""

from __future__ import annotations

import functools

import torch

import optfx
from optfx import tree
from optfx.tree.words import difference

SHAPES = {"w": (30, 20), "b": [(7,), ()], "k": {"conv": (2, 2, 1, 2), "empty": (0, 2), "one": (1,)}, "big": (33000,)}


@functools.cache
def params(dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda shape: torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)
    go = lambda s: (
        draw(s)
        if isinstance(s, tuple)
        else [go(i) for i in s]
        if isinstance(s, list)
        else {k: go(v) for k, v in s.items()}
    )
    return go(SHAPES)


def shorter(p, n):
    """With so many elements in the large leaf."""
    return p | {"big": p["big"][:n]}


def grads(step, dtype=torch.float32, like=None):
    g = tree.scale(0.01 if step % 2 else 1.0, params(dtype, step + 1))
    return g if like is None else shorter(g, len(like["big"]))


def eager(tx, p, steps=4, dtype=None, **extra):
    """Params and state after some steps, by `update` and `apply_updates`."""
    state = tx.init(p)
    for step in range(steps):
        updates, state = tx.update(grads(step, dtype or p["w"].dtype, p), state, p, **extra)
        p = optfx.apply_updates(p, updates)
    return p, state


def fused(tx, p, steps=4, dtype=None, **extra):
    """The same by `fuse`, and the optimizer."""
    opt = optfx.fuse(tx)
    q, state = opt.init(p, **extra)
    for step in range(steps):
        q, state = opt.step(grads(step, dtype or p["w"].dtype, p), state, q, **extra)
    return (q, state), opt


def outputs(f, names, x, y, **scalars):
    """What an elementwise function of x, y and more leaves like them gives, by name: fused, and in eager code."""

    def init(params):
        return {name: tree.zeros_like(params) for name in names}

    def update(updates, state, params):
        rest = [state[name] for name in names[2:]]  # a function has no more results than leaves
        results = tree.elementwise(f, updates, params, *rest, outs=len(names), **scalars)
        return updates, dict(zip(names, results, strict=True))

    tx = optfx.core.from_functions(init, update)
    opt = optfx.fuse(tx)
    params, state = opt.init(y)
    return opt.step(x, state, params)[1], tx.update(x, init(y), y)[1]


def distance(a, b):
    """The largest difference, relative to what is above one, and above the root mean square of its leaf."""
    assert difference(a, b) is None
    far = 0.0
    for path, x, y in zip(tree.paths(a), tree.leaves(a), tree.leaves(b), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype), path
        if not x.numel():
            continue
        wide = torch.complex128 if x.is_complex() else torch.float64
        x, y = x.to(wide), y.to(wide)
        both_nan = x.isnan() & y.isnan()
        size = y.abs()
        size = size.clamp(min=max(1.0, float(size.square().mean().sqrt().nan_to_num(1.0, 1.0))))
        far = max(far, float(torch.where(both_nan | (x == y), 0.0, (x - y).abs() / size).max()))
    return far


def units(opt):
    return [unit for stage in opt._plan.stages for unit in stage.units]


def events(opt):
    return [event for stage in opt._plan.stages for event, _ in stage.events]
