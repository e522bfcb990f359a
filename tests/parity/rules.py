"""Elementwise rules: cases, each with a formula written from its paper."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

import optfx
from tests.parity.harness import Case, by_optax, by_torch, leafwise


def adamw(p, grad, lr, b1, b2, eps, decay) -> Iterator[np.ndarray]:
    m = v = np.zeros_like(p)
    for t in range(1, 1000):
        g = grad(t - 1, p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        p = p - lr * (m_hat / (np.sqrt(v_hat) + eps) + decay * p)
        yield p


def adamw_case(options: str, lr: float, b1: float, b2: float, eps: float, decay: float) -> Case:
    return Case(
        "adamw",
        options,
        lambda: optfx.adamw(lr, b1, b2, eps, weight_decay=decay),
        leafwise(adamw, lr=lr, b1=b1, b2=b2, eps=eps, decay=decay),
        {
            "optax": by_optax(lambda optax: optax.adamw(lr, b1, b2, eps, weight_decay=decay)),
            "torch": by_torch(lambda ps: torch.optim.AdamW(ps, lr, (b1, b2), eps, decay)),
        },
        "Loshchilov and Hutter, 2017",
    )


CASES = [
    adamw_case("as in the paper", 0.05, 0.9, 0.999, 1e-8, 0.01),
    adamw_case("other numbers", 0.02, 0.7, 0.95, 1e-3, 0.3),
]
