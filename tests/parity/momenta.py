"""Gradients of now and before, not divided by anything: cases, each with a formula written from its paper."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np
import pytorch_optimizer

import optfx
from tests.parity.harness import Case, by_optax, by_torch, leafwise


def qhm(p, grad, lr, beta, nu) -> Iterator[np.ndarray]:
    m = np.zeros_like(p)
    for t in count():
        g = grad(t, p)
        m = beta * m + (1 - beta) * g
        p = p - lr * ((1 - nu) * g + nu * m)
        yield p


def qhm_case(options: str, lr: float, beta: float, nu: float) -> Case:
    return Case(
        "qhm",
        options,
        lambda: optfx.qhm(lr, beta, nu),
        leafwise(qhm, lr=lr, beta=beta, nu=nu),
        {"pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.QHM(ps, lr, beta, nu))},
        "Ma and Yarats, 2018",
    )


def optimistic(p, grad, lr, alpha, beta) -> Iterator[np.ndarray]:
    before = grad(0, p)
    for t in count():
        g = grad(t, p)
        p = p - lr * (alpha * g + beta * (g - before))
        before = g
        yield p


def optimistic_case(options: str, lr: float, alpha: float, beta: float) -> Case:
    return Case(
        "optimistic_gradient_descent",
        options,
        lambda: optfx.optimistic_gradient_descent(lr, alpha, beta),
        leafwise(optimistic, lr=lr, alpha=alpha, beta=beta),
        {"optax": by_optax(lambda optax: optax.optimistic_gradient_descent(lr, alpha, beta))},
        "Mokhtari et al., 2019",
    )


def optimistic_adam(p, grad, lr, alpha, beta, b1, b2, eps) -> Iterator[np.ndarray]:
    m = v = before = np.zeros_like(p)
    for t in count(1):
        g = grad(t - 1, p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        u = m_hat / (np.sqrt(v_hat) + eps)
        p = p - lr * (alpha * u + beta * (u - (before if t > 1 else u)))
        before = u
        yield p


def optimistic_adam_case(options: str, lr: float, **numbers: float) -> Case:
    return Case(
        "optimistic_adam_v2",
        options,
        lambda: optfx.optimistic_adam_v2(lr, **numbers, nesterov=False),
        leafwise(optimistic_adam, lr=lr, **numbers),
        {"optax": by_optax(lambda optax: optax.optimistic_adam_v2(lr, **numbers, nesterov=False))},
        "Daskalakis et al., 2017",
    )


CASES = [
    qhm_case("as in the paper", 0.05, 0.999, 0.7),
    qhm_case("other numbers", 0.02, 0.6, 0.3),
    optimistic_case("as in the paper", 0.02, 1.0, 1.0),
    optimistic_case("other numbers", 0.02, 0.7, 0.2),
    optimistic_adam_case("as in the paper", 0.05, alpha=1.0, beta=1.0, b1=0.9, b2=0.999, eps=1e-8),
    optimistic_adam_case("other numbers", 0.02, alpha=0.5, beta=0.3, b1=0.5, b2=0.9, eps=1e-3),
]
