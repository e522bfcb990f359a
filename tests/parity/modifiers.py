"""Modifiers: cases, each with a formula written from its paper.

A modifier changes what goes into a rule, what comes out of it, or where the step leads. So a formula is a rule and
these; each is made anew for an array, from its start.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import heavyball
import numpy as np
import optimi
import pytorch_optimizer as po
import torch
from heavyball import chainable as C

import optfx
from optfx import tree
from tests.parity.harness import FLOAT32, Case, by_heavyball, by_optax, by_parts_of_heavyball, by_torch, leafwise


def train(p: Any, grad: Any, rate: Any, rule: Any, before=None, after=None, end=None) -> Iterator[np.ndarray]:
    """p, a step at a time: `before(g, p)`, `rule(g)`, `after(u, g, p)`, `end(p, step)`."""
    start = p
    change = before(start) if before else lambda g, p: g
    direct, modify = rule(start), after(start) if after else lambda u, g, p: u
    finish = end(start) if end else lambda p, step: p + step
    for t in itertools.count():
        g = grad(t, p)
        eta: Any = rate(t) if callable(rate) else rate
        p = finish(p, -eta * modify(direct(change(g, p)), g, p))
        yield p


# ---- rules ---------------------------------------------------------------------------------------------


def sgd(start):
    return lambda g: g


def momentum(decay: float):
    def make(start):
        m = np.zeros_like(start)

        def direct(g):
            nonlocal m
            m = decay * m + g
            return m

        return direct

    return make


def adam(b1: float, b2: float, eps: float):
    def make(start):
        m = v = np.zeros_like(start)
        t = 0

        def direct(g):
            nonlocal m, v, t
            t, m, v = t + 1, b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)

        return direct

    return make


def unbiased(decay: float):
    """A running mean, corrected for its start at zero."""

    def make(start):
        m, t = np.zeros_like(start), 0

        def direct(g):
            nonlocal m, t
            m, t = decay * m + (1 - decay) * g, t + 1
            return m / (1 - decay**t)

        return direct

    return make


# ---- what comes out of a rule ---------------------------------------------------------------------------


def cautious(min_share: float):
    def modify(u, g, p):
        mask = u * g > 0
        return u * mask / max(mask.mean(), min_share)

    return lambda start: modify


def decay(weight: float, of: Callable[..., Any]):
    """u + weight * of(p, u)"""
    return lambda start: lambda u, g, p: u + weight * of(p, u)


def corrected(weight: float):
    """A decay that falls as the rate does."""
    t = -1

    def modify(u, g, p):
        nonlocal t
        t += 1
        return u + weight * falling(t) / RATE * p

    return modify


def penalty(modify: Callable[..., Any]):
    """What comes out of a rule, before one."""
    return lambda g, p: modify(g, None, p)


def towards_mean(weight: float, kept: float, of: Callable[..., Any]):
    def make(start):
        anchor = start

        def modify(u, g, p):
            nonlocal anchor
            anchor = anchor + (1 - kept) * (p - anchor)
            return u + weight * of(p - anchor)

        return modify

    return make


def in_range(least: float, most: float, rows: bool = False):
    def modify(u, g, p):
        axes = tuple(range(1, p.ndim)) if rows and p.ndim > 1 else tuple(range(p.ndim))
        size, length = (np.sqrt(np.sum(x**2, axis=axes, keepdims=True)) for x in (u, p))
        return u * np.clip(size, least * length, most * length) / size

    return lambda start: modify


# ---- what goes into one ------------------------------------------------------------------------------------


def mars(gamma: float, b1: float, limit: float):
    def make(start):
        last = np.zeros_like(start)

        def change(g, p):
            nonlocal last
            c, last = g + gamma * b1 / (1 - b1) * (g - last), g
            return c / max(1, np.linalg.norm(c) / limit)

        return change

    return make


def orthograd(start):
    def change(g, p):
        rest = g - np.sum(p * g) / np.sum(p * p) * p
        norm = np.linalg.norm(rest)
        return rest * (np.linalg.norm(g) / norm if p.ndim else 0.0)

    return change


def grokfast(alpha: float, lamb: float):
    def make(start):
        e = None

        def change(g, p):
            nonlocal e
            e = g if e is None else alpha * e + (1 - alpha) * g
            return g + lamb * e

        return change

    return make


def clip_spikes(threshold: float, b2: float, begin: int):
    def make(start):
        v, t = np.zeros_like(start), 0

        def change(g, p):
            nonlocal v, t
            if t >= begin:
                g = np.sign(g) * np.minimum(np.abs(g), np.sqrt(threshold * v))
            v, t = b2 * v + (1 - b2) * g**2, t + 1
            return g

        return change

    return make


# ---- where the step leads -----------------------------------------------------------------------------------


def nonnegative(start):
    return lambda p, step: p + np.maximum(step, -p)


def proximal(tau: float, delta: float = np.inf):
    def finish(p, step):
        x = p + step
        return np.where(np.abs(x) <= (1 + tau) * delta, x / (1 + tau), x - tau * delta * np.sign(x))

    return lambda start: finish


def brake(outward: float, inward: float):
    def finish(p, step):
        before, after = np.linalg.norm(p), np.linalg.norm(p + step)
        kept = outward if after > before else inward
        return (p + step) * (before + kept * (after - before)) / after

    return lambda start: finish


def sphere(rate: float, radius: float | None = None):
    def make(start):
        r = radius or np.linalg.norm(start)

        def finish(p, step):  # the rate of `train` is 1
            q = p + rate * r * step / np.linalg.norm(step)
            return r * q / np.linalg.norm(q)

        return finish

    return make


def pinned(radius: float | None = None):
    def make(start):
        r = radius or np.linalg.norm(start)
        return lambda p, step: r * (p + step) / np.linalg.norm(p + step)

    return make


# ---- several rules ------------------------------------------------------------------------------------------


def beside(*rules, merge):
    def make(start):
        made = [rule(start) for rule in rules]
        return lambda g: merge(*(direct(g) for direct in made))

    return make


def mean_of_two(a, b):
    return 0.5 * (a + b) if isinstance(a, np.ndarray | np.generic) else tree.scale(0.5, tree.add(a, b))


def of_norm(d, m):
    return d * np.linalg.norm(m) / np.linalg.norm(d)


# ---- the cases ------------------------------------------------------------------------------------------------

RATE, ADAM, QUICK = 0.05, (0.9, 0.99, 1e-8), (0.7, 0.95, 1e-10)
IN_TWO = ADAM[:2], ADAM[2]
ROUND = {
    "heavyball": FLOAT32,
    "pytorch-optimizer": 1e-6,  # it adds 1e-15 under the root, and divides epsilon as the root
}


def chained(*parts: Any) -> Callable[[], Any]:
    return lambda: optfx.chain(*parts, optfx.scale_by_learning_rate(RATE))


def stepped(*parts: Any) -> Callable[[], Any]:
    """The last of the parts stands behind the rate."""
    return lambda: optfx.chain(*parts[:-1], optfx.scale_by_learning_rate(RATE), parts[-1])


def formula(rule: Any, rate: Any = RATE, **parts: Any) -> Any:
    return leafwise(train, rate=rate, rule=rule, **parts)


def falling(t: Any) -> Any:
    return RATE / (1 + t)


def in_proportion(count: torch.Tensor) -> torch.Tensor:
    return 0.2 * falling(count.double()) / RATE


def soft(p: Any) -> Any:
    return np.clip(p, -0.5, 0.5)


adam_of = optfx.scale_by_adam(*ADAM)
quick_of = optfx.scale_by_adam(*QUICK)

CAUTION = [
    Case(
        "cautious",
        "after adam",
        chained(adam_of, optfx.cautious()),
        formula(adam(*ADAM), after=cautious(1e-3)),
        paper="Liang et al., 2024",
    ),
    Case(
        "cautious",
        "after a momentum, not enlarged",
        chained(optfx.trace(0.9), optfx.cautious(1.0)),
        formula(momentum(0.9), after=cautious(1.0)),
        paper="Liang et al., 2024",
    ),
    Case(
        "cautious_weight_decay",
        "after adam",
        chained(adam_of, optfx.cautious_weight_decay(0.2)),
        formula(adam(*ADAM), after=decay(0.2, lambda p, u: p * (u * p >= 0))),
        {"heavyball": by_heavyball(heavyball.AdamW, RATE, *IN_TWO, weight_decay=0.2, cautious_weight_decay=True)},
        "Chen et al., 2025",
        ROUND,
    ),
    Case(
        "cautious_weight_decay",
        "independent of the rate",
        lambda: optfx.chain(
            optfx.scale_by_learning_rate(RATE, flip_sign=False), optfx.cautious_weight_decay(0.01), optfx.scale(-1.0)
        ),
        formula(sgd, after=decay(0.01 / RATE, lambda p, u: p * (u * p >= 0))),
        paper="Chen et al., 2025",
    ),
]

DECAY = [
    Case(
        "add_decayed_weights",
        "in proportion to the rate",
        lambda: optfx.chain(adam_of, optfx.add_decayed_weights(0.1), optfx.scale_by_learning_rate(RATE)),
        formula(adam(*ADAM), after=decay(0.1, lambda p, u: p)),
        {
            "heavyball": by_heavyball(heavyball.AdamC, RATE, *IN_TWO, weight_decay=0.2, max_lr=2 * RATE),
            "pytorch-optimizer": by_torch(
                lambda ps: po.AdamC(
                    [{"params": ps, "lr": RATE, "normalized": True}], 2 * RATE, ADAM[:2], weight_decay=0.2
                )
            ),
        },
        "Defazio, 2025",
        ROUND,
    ),
    Case(
        "add_decayed_weights",
        "in proportion to a schedule of the rate",
        lambda: optfx.chain(
            adam_of,
            optfx.add_decayed_weights(in_proportion),
            optfx.scale_by_learning_rate(lambda count: falling(count.double())),
        ),
        formula(adam(*ADAM), falling, after=lambda start: corrected(0.2)),
        paper="Defazio, 2025",
    ),
    Case(
        "add_decayed_weights",
        "independent of the rate",
        lambda: optfx.chain(
            adam_of,
            optfx.scale_by_learning_rate(RATE, flip_sign=False),
            optfx.add_decayed_weights(0.01),
            optfx.scale(-1.0),
        ),
        formula(adam(*ADAM), after=decay(0.01 / RATE, lambda p, u: p)),
        {
            "torch-optimi": by_torch(
                lambda ps: optimi.AdamW(ps, RATE, ADAM[:2], 0.01, ADAM[2], decouple_lr=True, triton=False)
            ),
            "pytorch-optimizer": by_torch(
                lambda ps: po.AdamC(ps, RATE, ADAM[:2], weight_decay=0.01, fixed_decay=True, eps=ADAM[2])
            ),
        },
        "Loshchilov and Hutter, 2017",
        ROUND,
    ),
    Case(
        "l1_weight_decay",
        "after adam",
        chained(adam_of, optfx.l1_weight_decay(0.2)),
        formula(adam(*ADAM), after=decay(0.2, lambda p, u: np.sign(p))),
        paper="Tibshirani, 1996",
    ),
    Case(
        "l1_weight_decay",
        "as a penalty",
        chained(optfx.l1_weight_decay(0.2), quick_of),
        formula(adam(*QUICK), before=lambda start: lambda g, p: g + 0.2 * np.sign(p)),
        paper="Tibshirani, 1996",
    ),
    Case(
        "huber_weight_decay",
        "after adam",
        chained(adam_of, optfx.huber_weight_decay(0.2, 0.5)),
        formula(adam(*ADAM), after=decay(0.2, lambda p, u: soft(p))),
        paper="Guo and Fan, 2025",
    ),
    Case(
        "huber_weight_decay",
        "after a momentum",
        chained(optfx.trace(0.9), optfx.huber_weight_decay(0.4, 0.1)),
        formula(momentum(0.9), after=decay(0.4, lambda p, u: np.clip(p, -0.1, 0.1))),
        paper="Guo and Fan, 2025",
    ),
    Case(
        "proximal_weight_decay",
        "after adam",
        lambda: optfx.chain(adam_of, optfx.proximal_weight_decay(RATE, 0.02 / RATE)),
        formula(adam(*ADAM), end=proximal(0.02)),
        paper="Xie et al., 2022",
    ),
    Case(
        "proximal_weight_decay",
        "of Huber (AdamHD)",
        lambda: optfx.chain(adam_of, optfx.proximal_weight_decay(RATE, 0.05 / RATE, 0.4)),
        formula(adam(*ADAM), end=proximal(0.05, 0.4)),
        paper="Guo and Fan, 2025",
    ),
    Case(
        "anchored",
        "decay to the start",
        chained(adam_of, optfx.anchored(optfx.add_decayed_weights(0.2))),
        formula(adam(*ADAM), after=towards_mean(0.2, 1.0, lambda d: d)),
        {
            "heavyball": by_parts_of_heavyball(
                C.weight_decay_to_init, C.scale_by_adam, lr=RATE, betas=ADAM[:2], eps=ADAM[2], weight_decay_to_ema=0.2
            )
        },
        "Kumar et al., 2023",
        ROUND,
    ),
    Case(
        "anchored",
        "l1 to a running mean",
        chained(optfx.anchored(optfx.l1_weight_decay(0.2), 0.8), optfx.trace(0.5)),
        formula(momentum(0.5), before=lambda start: penalty(towards_mean(0.2, 0.8, np.sign)(start))),
        paper="HeavyBall",
    ),
]

GRADIENTS = [
    Case(
        "mars",
        "before adam",
        chained(optfx.mars(), optfx.scale_by_adam(0.95, 0.99, 1e-14)),
        formula(adam(0.95, 0.99, 1e-14), before=mars(0.025, 0.95, 1.0)),
        {"pytorch-optimizer": by_torch(lambda ps: po.MARS(ps, RATE, (0.95, 0.99), 0.025, optimize_1d=True, eps=1e-14))},
        "Yuan et al., 2024",
        ROUND,
    ),
    Case(
        "mars",
        "before a momentum, limit 2",
        chained(optfx.mars(0.1, 0.8, 2.0), optfx.trace(0.8)),
        formula(momentum(0.8), before=mars(0.1, 0.8, 2.0)),
        paper="Yuan et al., 2024",
    ),
    Case(
        "mars",
        "before adam, no limit",
        chained(optfx.mars(0.05, 0.9, None), adam_of),
        formula(adam(*ADAM), before=mars(0.05, 0.9, np.inf)),
        paper="Yuan et al., 2024",
    ),
    Case(
        "orthograd",
        "before sgd",
        chained(optfx.orthograd()),
        formula(sgd, before=orthograd),
        {"pytorch-optimizer": by_torch(lambda ps: po.OrthoGrad(torch.optim.SGD(ps, RATE)))},
        "Prieto et al., 2025",
    ),
    Case(
        "orthograd",
        "before adam",
        chained(optfx.orthograd(), adam_of),
        formula(adam(*ADAM), before=orthograd),
        {"pytorch-optimizer": by_torch(lambda ps: po.OrthoGrad(torch.optim.Adam(ps, RATE, ADAM[:2])))},
        "Prieto et al., 2025",
    ),
    Case(
        "grokfast",
        "before adam",
        chained(optfx.grokfast(), optfx.scale_by_adam(0.9, 0.99, 1e-14)),
        formula(adam(0.9, 0.99, 1e-14), before=grokfast(0.98, 2.0)),
        {"pytorch-optimizer": by_torch(lambda ps: po.GrokFastAdamW(ps, RATE, eps=1e-14, normalize_lr=False))},
        "Lee et al., 2024",
    ),
    Case(
        "grokfast",
        "before a momentum",
        chained(optfx.grokfast(0.7, 0.5), optfx.trace(0.5)),
        formula(momentum(0.5), before=grokfast(0.7, 0.5)),
        paper="Lee et al., 2024",
    ),
    Case(
        "clip_spikes",
        "before adam",
        chained(optfx.clip_spikes(3.0, 0.95, 3), optfx.scale_by_adam(0.7, 0.95, 1e-14)),
        formula(adam(0.7, 0.95, 1e-14), before=clip_spikes(3.0, 0.95, 3)),
        {
            "pytorch-optimizer": by_torch(
                lambda ps: po.SPAM(ps, RATE, (0.7, 0.95), threshold=3, grad_accu_steps=4, eps=1e-14)
            )
        },
        "Huang et al., 2025",
    ),
    Case(
        "clip_spikes",
        "before sgd",
        chained(optfx.clip_spikes(0.5, 0.9, 1)),
        formula(sgd, before=clip_spikes(0.5, 0.9, 1)),
        paper="Huang et al., 2025",
    ),
]

LENGTHS = [
    Case(
        "keep_params_nonnegative",
        "after sgd",
        stepped(optfx.keep_params_nonnegative()),
        formula(sgd, end=nonnegative),
        {
            "optax": by_optax(
                lambda optax: optax.chain(optax.scale_by_learning_rate(RATE), optax.keep_params_nonnegative())
            )
        },
    ),
    Case(
        "keep_params_nonnegative",
        "after adam",
        stepped(adam_of, optfx.keep_params_nonnegative()),
        formula(adam(*ADAM), end=nonnegative),
        {"optax": by_optax(lambda optax: optax.chain(optax.adam(RATE, *ADAM), optax.keep_params_nonnegative()))},
    ),
    Case(
        "relative_update",
        "after adam",
        chained(adam_of, optfx.relative_update()),
        formula(adam(*ADAM), after=in_range(1.0, 1.0)),
        paper="NVIDIA",
    ),
    Case(
        "relative_update",
        "floor of units",
        chained(optfx.ema(0.9), optfx.relative_update(0.35, None, per_unit=True)),
        formula(unbiased(0.9), after=in_range(0.35, np.inf, rows=True)),
        paper="modded-nanogpt",
    ),
    Case(
        "radial_brake",
        "after adam",
        stepped(adam_of, optfx.radial_brake()),
        formula(adam(*ADAM), end=brake(0.5, 1.0)),
        paper="NVIDIA",
    ),
    Case(
        "radial_brake",
        "both ways, after sgd",
        stepped(optfx.radial_brake(0.1, 0.3)),
        formula(sgd, end=brake(0.1, 0.3)),
        paper="NVIDIA",
    ),
    Case(
        "keep_norm",
        "after sgd",
        stepped(optfx.keep_norm()),
        formula(sgd, end=pinned()),
        paper="modded-nanogpt",
    ),
    Case(
        "keep_norm",
        "after adam, radius 2",
        lambda: optfx.chain(adam_of, optfx.scale_by_learning_rate(RATE), optfx.keep_norm(2.0)),
        formula(adam(*ADAM), end=pinned(2.0)),
        paper="modded-nanogpt",
    ),
    Case(
        "hyperball",
        "after a mean square",
        lambda: optfx.chain(
            optfx.scale_by_rms(0.99, 1e-14, eps_in_sqrt=False, bias_correction=True), optfx.hyperball(RATE)
        ),
        formula(adam(0.0, 0.99, 1e-14), 1.0, end=sphere(RATE)),
        paper="Wen et al., 2026",
    ),
    Case(
        "hyperball",
        "after adam, radius 2",
        lambda: optfx.chain(adam_of, optfx.hyperball(RATE, 2.0)),
        formula(adam(*ADAM), 1.0, end=sphere(RATE, 2.0)),
        paper="Wen et al., 2026",
    ),
]

SEVERAL = [
    Case(
        "parallel",
        "aggregated momentum",
        chained(optfx.parallel((optfx.trace(0.0), optfx.trace(0.9)), mean_of_two)),
        formula(beside(momentum(0.0), momentum(0.9), merge=mean_of_two)),
        {"pytorch-optimizer": by_torch(lambda ps: po.AggMo(ps, RATE, (0.0, 0.9)))},
        "Lucas et al., 2018",
    ),
    Case(
        "parallel",
        "sum by name",
        chained(optfx.parallel({"adam": adam_of, "slow": optfx.chain(optfx.trace(0.9), optfx.scale(0.1))})),
        formula(beside(adam(*ADAM), momentum(0.9), merge=lambda a, b: a + 0.1 * b)),
    ),
    Case(
        "graft",
        "adam with the norm of a momentum",
        chained(optfx.graft(adam_of, optfx.trace(0.5))),
        formula(beside(adam(*ADAM), momentum(0.5), merge=of_norm)),
        paper="Agarwal et al., 2020",
    ),
    Case(
        "graft",
        "a momentum with the norm of sgd",
        chained(optfx.graft(direction=optfx.trace(0.9), magnitude=optfx.identity())),
        formula(beside(momentum(0.9), sgd, merge=of_norm)),
        paper="Agarwal et al., 2020",
    ),
]

CASES = [*CAUTION, *DECAY, *GRADIENTS, *LENGTHS, *SEVERAL]
