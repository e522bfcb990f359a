"""Rules that divide each element by a mean of its own: cases, each with a formula written from its paper."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import adam_atan2_pytorch
import numpy as np
import optimi
import pytorch_optimizer

import optfx
from tests.parity.harness import Case, by_optax, by_torch, leafwise

TWO = {  # option sets of Adam and its kin
    "as in the paper": {"lr": 0.05, "b1": 0.9, "b2": 0.999, "eps": 1e-8},
    "other numbers": {"lr": 0.02, "b1": 0.7, "b2": 0.95, "eps": 1e-3},
}


def nadamw(p, grad, lr, b1, b2, eps, decay) -> Iterator[np.ndarray]:
    m = v = np.zeros_like(p)
    for t in count(1):
        g = grad(t - 1, p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        p = p - lr * (m_hat / (np.sqrt(v / (1 - b2**t)) + eps) + decay * p)
        yield p


def nadamw_case(options: str, lr: float, decay: float, **numbers: float) -> Case:
    return Case(
        "nadamw",
        options,
        lambda: optfx.nadamw(lr, **numbers, weight_decay=decay),
        leafwise(nadamw, lr=lr, decay=decay, **numbers),
        {"optax": by_optax(lambda optax: optax.nadamw(lr, **numbers, weight_decay=decay))},
        "Dozat, 2016",
    )


def adamaxw(p, grad, lr, b1, b2, eps, decay) -> Iterator[np.ndarray]:
    m = v = np.zeros_like(p)
    for t in count(1):
        g = grad(t - 1, p)
        m, v = b1 * m + (1 - b1) * g, np.maximum(b2 * v, np.abs(g) + eps)
        p = p - lr * (m / (1 - b1**t) / v + decay * p)
        yield p


def adamaxw_case(options: str, lr: float, decay: float, **numbers: float) -> Case:
    return Case(
        "adamaxw",
        options,
        lambda: optfx.adamaxw(lr, **numbers, weight_decay=decay),
        leafwise(adamaxw, lr=lr, decay=decay, **numbers),
        {"optax": by_optax(lambda optax: optax.adamaxw(lr, **numbers, weight_decay=decay))},
        "Kingma and Ba, 2014",
    )


def adabelief(p, grad, lr, b1, b2, eps) -> Iterator[np.ndarray]:
    m = s = np.zeros_like(p)
    for t in count(1):
        g = grad(t - 1, p)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(s / (1 - b2**t)) + eps)
        yield p


def adabelief_case(options: str, lr: float, b1: float, b2: float, eps: float) -> Case:
    return Case(
        "adabelief",
        options,
        lambda: optfx.adabelief(lr, b1, b2, eps, eps),
        leafwise(adabelief, lr=lr, b1=b1, b2=b2, eps=eps),
        {
            "optax": by_optax(lambda optax: optax.adabelief(lr, b1, b2, eps, eps)),
            "pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.AdaBelief(ps, lr, (b1, b2), eps=eps)),
        },
        "Zhuang et al., 2020",
    )


def acprop(p, grad, lr, b1, b2, eps, decay) -> Iterator[np.ndarray]:
    m = s = np.zeros_like(p)
    for t in count(1):
        g = grad(t - 1, p)
        root = np.sqrt(s / (1 - b2 ** (t - 1))) if t > 1 else 1.0
        p = p - lr * (g / (root + eps) + decay * p)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
        yield p


def acprop_case(options: str, lr: float, b1: float, b2: float, eps: float, decay: float) -> Case:
    return Case(
        "acprop",
        options,
        lambda: optfx.acprop(lr, b1, b2, eps, eps, decay),
        leafwise(acprop, lr=lr, b1=b1, b2=b2, eps=eps, decay=decay),
        paper="Zhuang et al., 2021",  # optax's mean is the one of the step before, see docs/differences.md
    )


def yogi(p, grad, lr, b1, b2, eps) -> Iterator[np.ndarray]:
    m = v = np.full_like(p, 1e-6)
    for t in count(1):
        g = grad(t - 1, p)
        m, v = b1 * m + (1 - b1) * g, v - (1 - b2) * np.sign(v - g**2) * g**2
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield p


def yogi_case(options: str, lr: float, b1: float, b2: float, eps: float) -> Case:
    return Case(
        "yogi",
        options,
        lambda: optfx.yogi(lr, b1, b2, eps),
        leafwise(yogi, lr=lr, b1=b1, b2=b2, eps=eps),
        {
            "optax": by_optax(lambda optax: optax.yogi(lr, b1, b2, eps)),
            "pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.Yogi(ps, lr, (b1, b2), eps=eps)),
        },
        "Zaheer et al., 2018",
    )


def adan(p, grad, lr, betas, eps, decay) -> Iterator[np.ndarray]:
    b1, b2, b3 = betas
    m = v = n = np.zeros_like(p)
    before = grad(0, p)
    for t in count(1):
        g = grad(t - 1, p)
        change, before = g - before, g
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * change
        n = b3 * n + (1 - b3) * (g + b2 * change) ** 2
        m_hat, v_hat, n_hat = m / (1 - b1**t), v / (1 - b2**t), n / (1 - b3**t)
        p = (p - lr * (m_hat + b2 * v_hat) / (np.sqrt(n_hat) + eps)) / (1 + lr * decay)
        yield p


def adan_case(options: str, lr: float, betas: tuple[float, float, float], eps: float, decay: float) -> Case:
    return Case(
        "adan",
        options,
        lambda: optfx.adan(lr, *betas, eps, 0.0, decay),
        leafwise(adan, lr=lr, betas=betas, eps=eps, decay=decay),
        {
            "pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.Adan(ps, lr, betas, decay, eps=eps)),
            "torch-optimi": by_torch(lambda ps: optimi.Adan(ps, lr, betas, decay, eps, triton=False)),
        },
        "Xie et al., 2022",
    )


def laprop(p, grad, lr, b1, b2, eps, decay) -> Iterator[np.ndarray]:
    m = v = np.zeros_like(p)
    for t in count(1):
        g = grad(t - 1, p)
        v = b2 * v + (1 - b2) * g**2
        m = b1 * m + (1 - b1) * g / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - lr * (m / (1 - b1**t) + decay * p)
        yield p


def laprop_case(options: str, lr: float, b1: float, b2: float, eps: float, decay: float, packages: bool) -> Case:
    theirs = by_torch(lambda ps: pytorch_optimizer.LaProp(ps, lr, (b1, b2), eps=eps, foreach=False))
    return Case(
        "laprop",
        options,
        lambda: optfx.laprop(lr, b1, b2, eps, weight_decay=decay),
        leafwise(laprop, lr=lr, b1=b1, b2=b2, eps=eps, decay=decay),
        {"pytorch-optimizer": theirs} if packages else {},
        "Ziyin et al., 2020",
    )


def adam_atan2(p, grad, lr, b1, b2, a, b, decay) -> Iterator[np.ndarray]:
    m = v = np.zeros_like(p)
    for t in count(1):
        g = grad(t - 1, p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        angle = np.arctan2(m / (1 - b1**t), b * np.sqrt(v / (1 - b2**t)))
        p = p - lr * (a * angle + decay * p)
        yield p


def adam_atan2_case(options: str, lr: float, b1: float, b2: float, a: float, b: float, decay: float) -> Case:
    return Case(
        "adam_atan2",
        options,
        lambda: optfx.adam_atan2(lr, b1, b2, a, b, weight_decay=decay),
        leafwise(adam_atan2, lr=lr, b1=b1, b2=b2, a=a, b=b, decay=decay),
        {
            "adam-atan2-pytorch": by_torch(
                lambda ps: adam_atan2_pytorch.AdamAtan2(ps, lr, (b1, b2), weight_decay=decay, a=a, b=b)
            )
        },
        "Everett et al., 2024",
    )


def qhadam(p, grad, lr, betas, nus, eps) -> Iterator[np.ndarray]:
    (b1, b2), (nu1, nu2) = betas, nus
    m = v = np.zeros_like(p)
    for t in count(1):
        g = grad(t - 1, p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        p = p - lr * ((1 - nu1) * g + nu1 * m_hat) / (np.sqrt((1 - nu2) * g**2 + nu2 * v_hat) + eps)
        yield p


def qhadam_case(options: str, lr: float, betas: tuple[float, float], nus: tuple[float, float], eps: float) -> Case:
    return Case(
        "qhadam",
        options,
        lambda: optfx.qhadam(lr, *betas, *nus, eps),
        leafwise(qhadam, lr=lr, betas=betas, nus=nus, eps=eps),
        {"pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.QHAdam(ps, lr, betas, nus, eps=eps))},
        "Ma and Yarats, 2018",
        {"pytorch-optimizer": 1e-7},  # its weights of the means are float32
    )


CASES = [
    *(nadamw_case(options, decay=0.1, **numbers) for options, numbers in TWO.items()),
    *(adamaxw_case(options, decay=0.1, **numbers) for options, numbers in TWO.items()),
    adabelief_case("as in the paper", 0.02, 0.9, 0.999, 1e-16),
    adabelief_case("other numbers", 0.02, 0.7, 0.95, 1e-4),
    acprop_case("as in the paper", 0.001, 0.9, 0.999, 1e-16, 0.0),
    acprop_case("other numbers", 0.01, 0.7, 0.95, 1e-4, 0.1),
    yogi_case("as in the paper", 0.02, 0.9, 0.999, 1e-3),
    yogi_case("other numbers", 0.05, 0.7, 0.9, 1e-2),
    adan_case("as in the paper", 0.02, (0.98, 0.92, 0.99), 1e-8, 0.1),
    adan_case("other numbers", 0.05, (0.8, 0.6, 0.9), 1e-3, 2.0),
    laprop_case("as in the paper", 0.02, 0.9, 0.999, 1e-15, 0.0, packages=True),
    # with a larger epsilon and a decay the package differs: it adds the one before the correction, the other after all
    laprop_case("other numbers", 0.05, 0.7, 0.9, 1e-3, 0.1, packages=False),
    adam_atan2_case("as in the package", 0.02, 0.9, 0.99, 1.27, 1.0, 0.0),
    adam_atan2_case("other numbers", 0.05, 0.7, 0.9, 1.0, 3.0, 0.1),
    qhadam_case("as in the paper", 0.02, (0.995, 0.999), (0.7, 1.0), 1e-8),
    qhadam_case("other numbers", 0.05, (0.7, 0.9), (0.4, 0.6), 1e-3),
]
