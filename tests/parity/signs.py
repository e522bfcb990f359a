"""Steps along a sign: cases, each with a formula written from its paper."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import lion_pytorch
import numpy as np
import optimi
import pytorch_optimizer

import optfx
from tests.parity.harness import Case, by_optax, by_torch, leafwise


def lion(p, grad, lr, b1, b2, decay) -> Iterator[np.ndarray]:
    m = np.zeros_like(p)
    for t in count():
        g = grad(t, p)
        p = p - lr * (np.sign(b1 * m + (1 - b1) * g) + decay * p)
        m = b2 * m + (1 - b2) * g
        yield p


def lion_case(options: str, lr: float, b1: float, b2: float, decay: float) -> Case:
    return Case(
        "lion",
        options,
        lambda: optfx.lion(lr, b1, b2, weight_decay=decay),
        leafwise(lion, lr=lr, b1=b1, b2=b2, decay=decay),
        {
            "optax": by_optax(lambda optax: optax.lion(lr, b1, b2, weight_decay=decay)),
            "lion-pytorch": by_torch(lambda ps: lion_pytorch.Lion(ps, lr, (b1, b2), decay)),
            "pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.Lion(ps, lr, (b1, b2), decay)),
            "torch-optimi": by_torch(lambda ps: optimi.Lion(ps, lr, (b1, b2), decay, triton=False)),
        },
        "Chen et al., 2023",
    )


def signum(p, grad, lr, beta, decay) -> Iterator[np.ndarray]:
    m = np.zeros_like(p)
    for t in count():
        m = beta * m + (1 - beta) * grad(t, p)
        p = p - lr * (np.sign(m) + decay * p)
        yield p


def sign_sgd_case(options: str, lr: float) -> Case:
    return Case(
        "sign_sgd",
        options,
        lambda: optfx.sign_sgd(lr),
        leafwise(signum, lr=lr, beta=0, decay=0),
        {
            "optax": by_optax(lambda optax: optax.sign_sgd(lr)),
            "pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.SignSGD(ps, lr, 0.0)),
        },
        "Bernstein et al., 2018",
    )


def signum_case(options: str, lr: float, beta: float) -> Case:
    return Case(
        "signum",
        options,
        lambda: optfx.signum(lr, beta),
        leafwise(signum, lr=lr, beta=beta, decay=0),
        {
            "optax": by_optax(lambda optax: optax.signum(lr, beta)),
            "pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.SignSGD(ps, lr, beta)),
        },
        "Bernstein et al., 2018",
    )


def tiger_case(options: str, lr: float, beta: float, decay: float) -> Case:
    return Case(
        "tiger",
        options,
        lambda: optfx.tiger(lr, beta, decay),
        leafwise(signum, lr=lr, beta=beta, decay=decay),
        {"pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.Tiger(ps, lr, beta, decay))},
        "Su, 2023",
    )


CASES = [
    lion_case("as in the paper", 0.01, 0.9, 0.99, 0.1),
    lion_case("other numbers", 0.1, 0.5, 0.8, 0.0),
    sign_sgd_case("long steps", 0.1),
    sign_sgd_case("short steps", 0.003),
    signum_case("as in the paper", 0.01, 0.9),
    signum_case("other numbers", 0.1, 0.5),
    tiger_case("as its author has it", 0.01, 0.965, 0.01),
    tiger_case("other numbers", 0.1, 0.7, 0.3),
]
