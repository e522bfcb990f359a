"""Rules with further means: cases, each with a formula written from its paper."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytorch_optimizer

import optfx
from optfx import schedules
from tests.parity.harness import Case, by_optax, by_torch, leafwise

# ---- AdEMAMix ----------------------------------------------------------------------------------------


def ademamix(p, grad, lr, b1, b2, b3, alpha, eps, decay, warmup) -> Iterator[np.ndarray]:
    m1 = m2 = v = np.zeros_like(p)
    for t in itertools.count(1):
        g, b3_t, alpha_t = grad(t - 1, p), b3, alpha
        if warmup is not None:  # of the paper, section 3
            alpha_t = min(t * alpha / warmup, alpha)
            start, end = math.log(b1), math.log(b3)
            b3_t = min(math.exp(start * end / ((1 - t / warmup) * end + t / warmup * start)), b3)
        m1, m2 = b1 * m1 + (1 - b1) * g, b3_t * m2 + (1 - b3_t) * g
        v = b2 * v + (1 - b2) * g**2
        u = (m1 / (1 - b1**t) + alpha_t * m2) / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - lr * (u + decay * p)
        yield p


def from_one(schedule):
    """A schedule for a paper whose first step is step 1."""
    return lambda count: schedule(count + 1)


def ademamix_case(options, lr, b1, b2, b3, alpha, eps, decay, warmup=None) -> Case:
    mix = {"b3": b3, "alpha": alpha}
    if warmup is not None:
        mix["b3"] = from_one(schedules.half_life_schedule(b1, b3, warmup))
        mix["alpha"] = from_one(schedules.linear_schedule(0.0, alpha, warmup))
    packages = {"pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.AdEMAMix(ps, lr, (b1, b2, b3), **told))}
    told = {"alpha": alpha, "eps": eps, "weight_decay": decay, "weight_decouple": True, "t_alpha_beta3": warmup}
    if warmup is None:
        packages["optax"] = by_optax(
            lambda optax: optax.contrib.ademamix(lr, b1, b2, **mix, eps=eps, weight_decay=decay)
        )
    return Case(
        "ademamix",
        options,
        lambda: optfx.ademamix(lr, b1, b2, **mix, eps=eps, weight_decay=decay),
        leafwise(ademamix, lr=lr, b1=b1, b2=b2, b3=b3, alpha=alpha, eps=eps, decay=decay, warmup=warmup),
        packages,
        "Pagliardini et al., 2024",
    )


def simplified(p, grad, lr, b1, b2, alpha, eps, decay) -> Iterator[np.ndarray]:
    m = v = np.zeros_like(p)
    for t in itertools.count(1):
        g = grad(t - 1, p)
        m, v = b1 * m + g, b2 * v + (1 - b2) * g**2
        p = p - lr * ((m + alpha * g) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * p)
        yield p


def simplified_case(options, lr, b1, b2, alpha, eps, decay) -> Case:
    numbers = {"b1": b1, "b2": b2, "alpha": alpha, "eps": eps}
    return Case(
        "simplified_ademamix",
        options,
        lambda: optfx.simplified_ademamix(lr, **numbers, weight_decay=decay),
        leafwise(simplified, lr=lr, decay=decay, **numbers),
        {"optax": by_optax(lambda optax: optax.contrib.simplified_ademamix(lr, **numbers, weight_decay=decay))},
        "Morwani et al., 2025",
    )


# ---- ADOPT -------------------------------------------------------------------------------------------


def adopt(p, grad, lr, b1, b2, eps, clipping, nesterov) -> Iterator[np.ndarray]:
    m, v = np.zeros_like(p), grad(0, p) ** 2
    yield p
    for t in itertools.count(1):
        g = grad(t, p)
        n = g / np.maximum(np.sqrt(v), eps)
        if clipping:
            n = np.clip(n, -(t**0.25), t**0.25)
        m = b1 * m + (1 - b1) * n
        p = p - lr * (b1 * m + (1 - b1) * n if nesterov else m)
        v = b2 * v + (1 - b2) * g**2
        yield p


def adopt_case(options, lr, b1, b2, eps, clipping=True, nesterov=False) -> Case:
    numbers = {"b1": b1, "b2": b2, "eps": eps}
    packages = {
        "optax": by_optax(lambda optax: optax.contrib.adopt(lr, **numbers, use_clipping=clipping, nesterov=nesterov))
    }
    if not nesterov:  # it clips at the fourth root of a count that is one ahead, so it is told another
        limit = (lambda step: (step - 1) ** 0.25) if clipping else None
        packages["pytorch-optimizer"] = by_torch(
            lambda ps: pytorch_optimizer.ADOPT(ps, lr, (b1, b2), clip_lambda=limit, eps=eps)
        )
    return Case(
        "adopt",
        options,
        lambda: optfx.adopt(lr, **numbers, use_clipping=clipping, nesterov=nesterov),
        leafwise(adopt, lr=lr, clipping=clipping, nesterov=nesterov, **numbers),
        packages,
        "Taniguchi et al., 2024",
    )


# ---- Grams -------------------------------------------------------------------------------------------


def grams(p, grad, lr, b1, b2, eps, decay) -> Iterator[np.ndarray]:
    m = v = np.zeros_like(p)
    for t in itertools.count(1):
        g = grad(t - 1, p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = np.sign(g) * np.abs(m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps))
        p = p - lr * (u + decay * p)
        yield p


def grams_case(options, lr, b1, b2, eps, decay) -> Case:
    return Case(
        "grams",
        options,
        lambda: optfx.grams(lr, b1, b2, eps, decay),
        leafwise(grams, lr=lr, b1=b1, b2=b2, eps=eps, decay=decay),
        {
            "pytorch-optimizer": by_torch(
                lambda ps: pytorch_optimizer.Grams(ps, lr, (b1, b2), eps=eps, weight_decay=decay)
            )
        },
        "Cao et al., 2024",
    )


# ---- MADGRAD -----------------------------------------------------------------------------------------


def madgrad(p, grad, lr, momentum, eps, decay) -> Iterator[np.ndarray]:
    x0, s, v = p, np.zeros_like(p), np.zeros_like(p)
    for k in itertools.count():
        g = grad(k, p) + decay * p
        weight = (lr + eps) * math.sqrt(k + 1)
        s, v = s + weight * g, v + weight * g**2
        z = x0 - s / (np.cbrt(v) + eps)
        p = momentum * p + (1 - momentum) * z
        yield p


def madgrad_case(options, lr, momentum, eps, decay) -> Case:
    def package(ps):
        import madgrad

        return madgrad.MADGRAD(ps, lr, momentum, decay, eps)

    return Case(
        "madgrad",
        options,
        lambda: optfx.madgrad(lr, momentum, decay, eps),
        leafwise(madgrad, lr=lr, momentum=momentum, eps=eps, decay=decay),
        {
            "optax": by_optax(lambda optax: optax.contrib.madgrad(lr, momentum, decay, eps)),
            "madgrad": by_torch(package),
            "pytorch-optimizer": by_torch(
                lambda ps: pytorch_optimizer.MADGRAD(ps, lr, weight_decay=decay, momentum=momentum, eps=eps)
            ),
        },
        "Defazio and Jelassi, 2021",
        near={"optax": 1e-7},  # the square root of its int32 count is float32
    )


CASES = [
    ademamix_case("as in the paper, without schedules", 0.02, 0.9, 0.999, 0.9999, 5.0, 1e-8, 0.1),
    ademamix_case("other numbers", 0.01, 0.7, 0.95, 0.99, 2.0, 1e-3, 0.0),
    ademamix_case("schedules of ten steps", 0.02, 0.9, 0.999, 0.9999, 8.0, 1e-8, 0.1, warmup=10),
    simplified_case("as in the paper", 0.001, 0.99, 0.95, 0.0, 1e-8, 0.1),
    simplified_case("other numbers", 0.005, 0.8, 0.9, 3.0, 1e-3, 0.0),
    adopt_case("as in the paper", 0.05, 0.9, 0.9999, 1e-6),
    adopt_case("without clipping, other numbers", 0.01, 0.6, 0.9, 1e-2, clipping=False),
    adopt_case("nesterov", 0.05, 0.8, 0.99, 1e-6, nesterov=True),
    grams_case("as in the paper", 0.05, 0.9, 0.999, 1e-6, 0.0),
    grams_case("other numbers", 0.02, 0.7, 0.95, 1e-3, 0.3),
    madgrad_case("as in the paper", 0.05, 0.9, 1e-6, 0.0),
    madgrad_case("other numbers", 0.01, 0.5, 1e-3, 0.2),
]
