"""The same steps taken with optfx and with optax, in float64: one problem for all comparisons."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

import optfx
from optfx import tree

STEPS = 30


def decay_rate(count: Any, exponent: Any) -> Any:
    """How fast Adafactor's mean of squares decays; optax's own function computes it in float32."""
    return 1 - (jnp.asarray(count, jnp.float64) + 1) ** -exponent


factored_rms = functools.partial(optax.scale_by_factored_rms, decay_rate_fn=decay_rate)

# "dead" never gets a gradient other than zero; "column" has one that never does.
SHAPES = {"scalar": (), "vector": (5,), "column": (3, 2), "deep": {"kernel": (3, 2, 2, 2), "dead": (2,)}}


def is_shape(x: Any) -> bool:
    return isinstance(x, tuple)


@functools.cache
def problem(seed: int = 0) -> tuple[Any, list[Any], list[float]]:
    """Parameters, gradients and losses as numpy arrays: sizes from 1e-4 to 1e2, signs, exact zeros."""
    rng = np.random.default_rng(seed)

    def draw(shape):
        return np.asarray(rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 2))

    def gradient():
        g = jax.tree.map(draw, SHAPES, is_leaf=is_shape)
        g["column"][:, 1] = 0.0
        g["deep"]["dead"][:] = 0.0
        return g

    params = jax.tree.map(lambda s: rng.normal(size=s), SHAPES, is_leaf=is_shape)
    grads = [gradient() for _ in range(STEPS)]
    grads[7] = jax.tree.map(np.zeros_like, grads[7])
    return params, grads, list(2.0 + rng.normal(size=STEPS))


def to_torch(t: Any) -> Any:
    return tree.map(torch.tensor, t)


def to_numpy(t: Any) -> Any:
    return jax.tree.map(np.asarray, t)


def run_ours(tx: Any, seed: int = 0, step_size: float = 1.0) -> tuple[list[Any], Any]:
    """The updates of every step, and the last state; with `value`, which a transform takes that wants it."""
    start, grads, losses = problem(seed)
    params = to_torch(start)
    state, out = tx.init(params), []
    for g, loss in zip(grads, losses, strict=True):
        updates, state = tx.update(to_torch(g), state, params, value=torch.tensor(loss, dtype=torch.float64))
        params = optfx.apply_updates(params, optfx.tree.scale(step_size, updates))
        out.append(tree.map(torch.Tensor.numpy, updates))
    return out, state


def run_optax(tx: Any, seed: int = 0, step_size: float = 1.0) -> tuple[list[Any], Any]:
    params, grads, losses = problem(seed)
    tx = optax.with_extra_args_support(tx)
    params = jax.tree.map(jnp.asarray, params)
    state, out = tx.init(params), []

    @jax.jit
    def step(g, state, params, loss):
        updates, state = tx.update(g, state, params, value=loss)
        return updates, state, jax.tree.map(lambda p, u: p + step_size * u, params, updates)

    for g, loss in zip(grads, losses, strict=True):
        updates, state, params = step(g, state, params, loss)
        out.append(to_numpy(updates))
    return out, to_numpy(state)


def assert_equal(ours: Any, theirs: Any, rtol: float = 1e-10, atol: float = 1e-13) -> None:
    for path, x, y in zip(tree.paths(ours), tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=path)


def layout(tx: Any) -> Any:
    """An optax transform that works in JAX's layout (in, out), made to work in torch's (out, in)."""

    def jaxs(t):
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1) if x.ndim > 1 else x, t)

    def torchs(t):
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0) if x.ndim > 1 else x, t)

    def update(updates, state, params=None):
        updates, state = tx.update(jaxs(updates), state, jaxs(params))
        return torchs(updates), state

    return optax.GradientTransformation(lambda params: tx.init(jaxs(params)), update)


def as_vectors(tx: Any) -> Any:
    """An optax transform that fails on () leaves, made to see them as vectors of one element."""

    def vectors(t):
        return jax.tree.map(jnp.atleast_1d, t)

    def update(updates, state, params=None):
        new, state = tx.update(vectors(updates), state, None if params is None else vectors(params))
        return jax.tree.map(lambda u, g: jnp.reshape(u, jnp.shape(g)), new, updates), state

    return optax.GradientTransformation(lambda params: tx.init(vectors(params)), update)
