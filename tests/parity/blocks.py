"""Rules by blocks of parameters: cases, each with a formula written from its paper."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_optimizer

import optfx
from optfx import select
from tests.parity.harness import Case, by_optax, by_torch, leafwise


def norm(x: np.ndarray) -> float:
    return float(np.sqrt((x**2).sum()))


def rms(x: np.ndarray) -> float:
    return norm(x) / math.sqrt(x.size)


# ---- in proportion to the parameters -----------------------------------------------------------------


def lamb(p, grad, lr, b1, b2, eps, decay) -> Iterator[np.ndarray]:
    m = v = np.zeros_like(p)
    for t in itertools.count(1):
        g = grad(t - 1, p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        r = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * p
        p = p - lr * norm(p) / norm(r) * r
        yield p


def lamb_case(options, lr, b1, b2, eps, decay) -> Case:
    return Case(
        "lamb",
        options,
        lambda: optfx.lamb(lr, b1, b2, eps, weight_decay=decay),
        leafwise(lamb, lr=lr, b1=b1, b2=b2, eps=eps, decay=decay),
        {"optax": by_optax(lambda optax: optax.lamb(lr, b1, b2, eps, weight_decay=decay))},
        "You et al., 2019",
    )


def lars(p, grad, lr, decay, trust, momentum, nesterov, all_leaves) -> Iterator[np.ndarray]:
    m = np.zeros_like(p)
    for t in itertools.count():
        r = grad(t, p)
        if all_leaves or p.ndim > 1:
            r = r + decay * p
            r = trust * norm(p) / norm(r) * r
        m = momentum * m + lr * r
        p = p - (lr * r + momentum * m if nesterov else m)
        yield p


def lars_case(options, lr, decay, trust, momentum, nesterov, all_leaves) -> Case:
    mask = True if all_leaves else select.ndim(min=2)
    packages = {
        "optax": by_optax(
            lambda optax: optax.lars(
                lr, decay, all_leaves or matrices, trust, 0.0, all_leaves or matrices, momentum, nesterov
            )
        )
    }
    if not (all_leaves or decay):  # its norm of the sum is the sum of the norms
        told = {"momentum": momentum, "trust_coefficient": trust, "nesterov": nesterov}
        packages["pytorch-optimizer"] = by_torch(lambda ps: pytorch_optimizer.LARS(ps, lr, **told))
    return Case(
        "lars",
        options,
        lambda: optfx.lars(lr, decay, mask, trust, 0.0, mask, momentum, nesterov),
        leafwise(lars, lr=lr, decay=decay, trust=trust, momentum=momentum, nesterov=nesterov, all_leaves=all_leaves),
        packages,
        "You et al., 2017; the norm of the sum, as in optax",
    )


def matrices(params: Any) -> Any:
    return {name: x.ndim > 1 for name, x in params.items()}


def fromage(p, grad, lr) -> Iterator[np.ndarray]:
    for t in itertools.count():
        g = grad(t, p)
        p = (p - lr * norm(p) / norm(g) * g) / math.sqrt(1 + lr**2)
        yield p


def fromage_case(options, lr) -> Case:
    return Case(
        "fromage",
        options,
        lambda: optfx.fromage(lr),
        leafwise(fromage, lr=lr),
        {
            "optax": by_optax(lambda optax: optax.fromage(lr)),
            "pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.Fromage(ps, lr)),
        },
        "Bernstein et al., 2020",
    )


# ---- one mean for each leaf --------------------------------------------------------------------------


def novograd(p, grad, lr, b1, b2, eps, decay) -> Iterator[np.ndarray]:
    m = v = None
    for t in itertools.count():
        g = grad(t, p)
        v = norm(g) ** 2 if v is None else b2 * v + (1 - b2) * norm(g) ** 2
        d = g / (math.sqrt(v) + eps) + decay * p
        m = d if m is None else b1 * m + d
        p = p - lr * m
        yield p


def novograd_case(options, lr, b1, b2, eps, decay) -> Case:
    return Case(
        "novograd",
        options,
        lambda: optfx.novograd(lr, b1, b2, eps, weight_decay=decay),
        leafwise(novograd, lr=lr, b1=b1, b2=b2, eps=eps, decay=decay),
        {
            "optax": by_optax(lambda optax: optax.novograd(lr, b1, b2, eps, weight_decay=decay)),
            "pytorch-optimizer": by_torch(
                lambda ps: pytorch_optimizer.NovoGrad(ps, lr, (b1, b2), weight_decay=decay, eps=eps)
            ),
        },
        "Ginsburg et al., 2019",
    )


def stableadamw(p, grad, lr, b1, b2, eps, decay) -> Iterator[np.ndarray]:
    m = v = np.zeros_like(p)
    for t in itertools.count(1):
        g = grad(t - 1, p)
        b1_t, b2_t = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (b1, b2))
        m, v = b1_t * m + (1 - b1_t) * g, b2_t * v + (1 - b2_t) * g**2
        rate = lr / max(1.0, math.sqrt((g**2 / np.maximum(v, eps**2)).mean()))
        p = p - rate * decay * p - rate * m / (np.sqrt(v) + eps)
        yield p


def stableadamw_case(options, lr, b1, b2, eps, decay) -> Case:
    def package(ps):
        import optimi

        return optimi.StableAdamW(ps, lr, (b1, b2), decay, eps, triton=False)

    return Case(
        "stableadamw",
        options,
        lambda: optfx.stableadamw(lr, b1, b2, eps, decay),
        leafwise(stableadamw, lr=lr, b1=b1, b2=b2, eps=eps, decay=decay),
        {
            "torch-optimi": by_torch(package),
            "pytorch-optimizer": by_torch(
                lambda ps: pytorch_optimizer.StableAdamW(ps, lr, (b1, b2), weight_decay=decay, eps=eps)
            ),
        },
        "Wortsman et al., 2023",
    )


# ---- means of rows and of columns --------------------------------------------------------------------


def sm3(p, grad, lr, momentum) -> Iterator[np.ndarray]:
    others = [tuple(k for k in range(p.ndim) if k != dim) for dim in range(p.ndim)]
    mus, m = [np.zeros(())], np.zeros_like(p)
    for t in itertools.count():
        g = grad(t, p)
        v = functools.reduce(np.minimum, mus) + g**2
        mus = [v.max(dims, keepdims=True) for dims in others] or [v]
        m = momentum * m + (1 - momentum) * g / np.sqrt(v + 1e-8)
        p = p - lr * m
        yield p


def sm3_case(options, lr, momentum) -> Case:
    def of_optax(optax):
        from tests.transforms.harness import as_vectors

        return as_vectors(optax.sm3(lr, momentum))

    return Case(
        "sm3",
        options,
        lambda: optfx.sm3(lr, momentum),
        leafwise(sm3, lr=lr, momentum=momentum),
        {
            "optax": by_optax(of_optax),
            "pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.SM3(ps, lr, momentum, eps=1e-8)),
        },
        "Anil et al., 2019, SM3-II",
    )


def inverse_root(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Of the matrix of which only the means of rows and of columns are known; further dimensions are a batch."""
    rows = rows / rows.mean(-1, keepdims=True)
    return 1 / np.sqrt(rows[..., :, None] * cols[..., None, :])


def came(p, grad, lr, betas, eps, clipping, decay) -> Iterator[np.ndarray]:
    (b1, b2, b3), (eps1, eps2) = betas, eps
    m = v = row = col = res_row = res_col = np.zeros(())
    for t in itertools.count():
        g = grad(t, p)
        square = g**2 + eps1
        if p.ndim > 1:
            row, col = (b2 * x + (1 - b2) * square.mean(dim) for x, dim in ((row, -1), (col, -2)))
            u = inverse_root(row, col) * g
        else:
            v = b2 * v + (1 - b2) * square
            u = g / np.sqrt(v)
        u = u / max(1.0, rms(u) / clipping)
        m = b1 * m + (1 - b1) * u
        step = m
        if p.ndim > 1:
            res = (u - m) ** 2 + eps2
            res_row, res_col = (b3 * x + (1 - b3) * res.mean(dim) for x, dim in ((res_row, -1), (res_col, -2)))
            step = inverse_root(res_row, res_col) * m
        p = p - lr * (step + decay * p)
        yield p


def came_case(options, lr, betas, eps, clipping, decay) -> Case:
    def package(ps):
        import came_pytorch

        return came_pytorch.CAME(ps, lr, eps, clipping, betas, decay)

    told = {"betas": betas, "eps1": eps[0], "eps2": eps[1], "clip_threshold": clipping}
    return Case(
        "came",
        options,
        lambda: optfx.came(lr, *betas, *eps, clipping, decay),
        leafwise(came, lr=lr, betas=betas, eps=eps, clipping=clipping, decay=decay),
        {
            "came-pytorch": by_torch(package),
            "pytorch-optimizer": by_torch(lambda ps: pytorch_optimizer.CAME(ps, lr, weight_decay=decay, **told)),
        },
        "Luo et al., 2023",
    )


CASES = [
    lamb_case("as in the paper", 0.01, 0.9, 0.999, 1e-6, 0.01),
    lamb_case("other numbers", 0.05, 0.7, 0.95, 1e-3, 0.0),
    lars_case("as in the paper", 0.5, 1e-4, 0.01, 0.9, nesterov=False, all_leaves=True),
    lars_case("matrices alone", 0.01, 0.0, 0.1, 0.6, nesterov=False, all_leaves=False),
    lars_case("matrices alone, decay, nesterov", 0.01, 0.3, 0.1, 0.8, nesterov=True, all_leaves=False),
    fromage_case("as in the paper", 0.01),
    fromage_case("a large rate", 0.4),
    novograd_case("as in the paper", 0.01, 0.95, 0.98, 1e-8, 0.001),
    novograd_case("other numbers", 0.02, 0.8, 0.25, 1e-3, 0.2),
    sm3_case("as in the paper", 0.1, 0.9),
    sm3_case("without momentum", 0.2, 0.0),
    stableadamw_case("as in optimi", 0.05, 0.9, 0.99, 1e-6, 0.01),
    stableadamw_case("other numbers", 0.02, 0.7, 0.9, 1e-2, 0.3),
    came_case("as in the paper", 2e-4, (0.9, 0.999, 0.9999), (1e-30, 1e-16), 1.0, 0.01),
    came_case("other numbers", 0.01, (0.7, 0.95, 0.9), (1e-12, 1e-3), 0.5, 0.2),
]
