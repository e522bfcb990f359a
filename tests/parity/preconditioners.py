"""Preconditioners of matrices. The parameters are square: the bases of other matrices are not unique."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import heavyball
import kron_torch
import numpy as np
import pytest
import pytorch_optimizer as po
import torch

import optfx
from optfx import random, select
from optfx.transforms.matrix.kron import spectral
from tests.parity.harness import FLOAT32, Case, by_heavyball, by_optax, by_torch, leafwise
from tests.parity.rules import adamw

SQUARE = {"matrix": (4, 4), "vector": (5,)}
BATCH = {"matrix": (5, 5), "kernel": (3, 2, 2, 2)}


def T(x):
    return np.swapaxes(x, -1, -2)


def eigenbasis(a):
    return np.linalg.eigh(a)[1][..., ::-1]


def soap(p, grad, lr, b1, b2, shampoo_beta, eps, decay, frequency) -> Iterator[np.ndarray]:
    m = v = np.zeros_like(p)
    left, right, ql, qr = np.zeros_like(p), np.zeros_like(p), np.eye(p.shape[-2]), np.eye(p.shape[-1])
    for t in range(1000):
        g = grad(t, p)
        if t:
            turned = T(ql) @ g @ qr
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * turned**2
            u = ql @ (T(ql) @ m @ qr / (np.sqrt(v) + eps)) @ T(qr)
            p = p - lr * (np.sqrt(1 - b2**t) / (1 - b1**t) * u + decay * p)
        else:
            p = p - lr * decay * p
        left = shampoo_beta * left + (1 - shampoo_beta) * g @ T(g)
        right = shampoo_beta * right + (1 - shampoo_beta) * T(g) @ g
        if t == 0:
            ql, qr = eigenbasis(left), eigenbasis(right)
        elif t % frequency == 0:
            rows, cols = (np.argsort(-((q * (a @ q)).sum(-2)), axis=-1) for a, q in ((left, ql), (right, qr)))
            v = np.take_along_axis(np.take_along_axis(v, rows[..., :, None], -2), cols[..., None, :], -1)
            ql, qr = (
                np.linalg.qr(np.take_along_axis(a @ q, order[..., None, :], -1))[0]
                for a, q, order in ((left, ql, rows), (right, qr, cols))
            )
        yield p


def soap_case(options, shapes, packages=True, lr=0.05, b1=0.95, b2=0.95, beta=0.95, eps=1e-8, decay=0.0, frequency=2):
    batches = select.label({"soap": select.ndim(min=2)}, default="adam")

    def formula(p, grad):
        if p.ndim < 2:
            yield from adamw(p, grad, lr, b1, b2, eps, decay)
        else:
            yield from soap(p, grad, lr, b1, b2, beta, eps, decay, frequency)

    def theirs(ps):
        return po.SOAP(ps, lr, (b1, b2), beta, decay, frequency, eps=eps)

    def of_heavyball(ps, **options):
        found = heavyball.SOAP(ps, lr, (b1, b2), beta, eps, decay, **options)
        found.precond_schedule = lambda t: float(t > 1 and t % frequency == 1)  # else it turns a step earlier
        return found

    return Case(
        "soap",
        options,
        lambda: optfx.soap(lr, b1, b2, eps, decay, shampoo_beta=beta, frequency=frequency, labels=batches),
        leafwise(formula),
        {"pytorch_optimizer": by_torch(theirs, shapes), "heavyball": by_heavyball(of_heavyball, shapes=shapes)}
        if packages
        else {},
        "Vyas et al., 2024",
        {"pytorch_optimizer": 1e-5, "heavyball": FLOAT32},  # the QR of the first is in float32
        shapes,
    )


def root(a, p, eps):
    values, vectors = np.linalg.eigh(a)
    return (vectors * (values.clip(0) + eps)[..., None, :] ** -p) @ T(vectors)


def scale_by_shampoo(p, grad, lr, beta, eps, exponent, sides, frequency) -> Iterator[np.ndarray]:
    rows, cols = p.shape[-2:]
    left, right = np.zeros((*p.shape[:-1], rows)), np.zeros((*p.shape[:-2], cols, cols))
    kept, new = (1, 1) if beta is None else (beta, 1 - beta)
    for t in range(1000):
        g = grad(t, p)
        left, right = kept * left + new * g @ T(g), kept * right + new * T(g) @ g
        if t % frequency == 0:
            left_root = root(left, exponent, eps) if sides != "right" else np.eye(rows)
            right_root = root(right, exponent, eps) if sides != "left" else np.eye(cols)
        p = p - lr * left_root @ g @ right_root
        yield p


def shampoo_case(options, shapes, packages=(), lr=0.05, beta=None, eps=1e-3, exponent=0.25, sides="both", frequency=1):
    return Case(
        "scale_by_shampoo",
        options,
        lambda: optfx.chain(
            optfx.scale_by_shampoo(beta, eps, exponent, frequency, sides=sides), optfx.scale_by_learning_rate(lr)
        ),
        leafwise(scale_by_shampoo, lr=lr, beta=beta, eps=eps, exponent=exponent, sides=sides, frequency=frequency),
        {
            name: by_torch(lambda ps: po.Shampoo(ps, lr, 0.0, preconditioning_compute_steps=1, matrix_eps=eps), shapes)
            for name in packages
        },
        "Gupta et al., 2018",
        shapes=shapes,
    )


def shampoo(p, grad, lr, b1, b2, eps, decay, matrix_eps, frequency) -> Iterator[np.ndarray]:
    if p.ndim < 2:
        yield from adamw(p, grad, lr, b1, b2, eps, decay)
    m = v = np.zeros_like(p)
    left, right = np.zeros_like(p), np.zeros_like(p)
    for t in range(1, 1000):
        g = grad(t - 1, p)
        left, right = b2 * left + (1 - b2) * g @ T(g), b2 * right + (1 - b2) * T(g) @ g
        v = b2 * v + (1 - b2) * g**2
        if t % frequency == 1 or frequency == 1:
            roots = root(left, 0.25, matrix_eps), root(right, 0.25, matrix_eps)
        d, a = roots[0] @ g @ roots[1], g / (np.sqrt(v / (1 - b2**t)) + eps)
        m = b1 * m + (1 - b1) * d * np.linalg.norm(a) / np.linalg.norm(d)
        p = p - lr * (m / (1 - b1**t) + decay * p)
        yield p


def recipe_case(options, lr=0.05, b1=0.9, b2=0.95, eps=1e-8, decay=0.0, matrix_eps=1e-6, frequency=2):
    numbers = {"matrix_eps": matrix_eps, "frequency": frequency}
    return Case(
        "shampoo",
        options,
        lambda: optfx.shampoo(lr, b1, b2, eps, decay, **numbers),
        leafwise(shampoo, lr=lr, b1=b1, b2=b2, eps=eps, decay=decay, **numbers),
        paper="Gupta et al., 2018; Anil et al., 2020",
        shapes=SQUARE,
    )


def kl(p, grad, lr, b1, b2, beta, eps, frequency, factor, soap) -> Iterator[np.ndarray]:
    rows, cols = p.shape[-2:]
    m = v = np.zeros_like(p)
    ql, qr = np.eye(rows), np.eye(cols)
    left, right, dl, dr = np.zeros_like(p), np.zeros_like(p), np.full(rows, factor), np.full(cols, factor)
    for t in range(1000):
        g = grad(t, p)
        if t:
            m, h = b1 * m + (1 - b1) * g, T(ql) @ g @ qr
            turned = T(ql) @ m @ qr
            if soap:
                v = b2 * v + (1 - b2) * h**2
                u = turned / (1 - b1**t) / ((np.sqrt(v) + eps) / np.sqrt(1 - b2**t))
            else:
                u = turned / (np.sqrt(np.outer(dl, dr)) + eps)
            p = p - lr * ql @ u @ T(qr)
            inverse_left, inverse_right = ql / dl @ T(ql), qr / dr @ T(qr)
            seen_left, seen_right = g @ inverse_right @ T(g) / cols, T(g) @ inverse_left @ g / rows
            dl = (beta * dl + (1 - beta) * np.diag(T(ql) @ seen_left @ ql)).clip(0.01)
            dr = (beta * dr + (1 - beta) * np.diag(T(qr) @ seen_right @ qr)).clip(0.01)
        else:
            seen_left, seen_right = g @ T(g) / cols, T(g) @ g / rows
        left, right = beta * left + (1 - beta) * seen_left, beta * right + (1 - beta) * seen_right
        if t == 0:
            ql, qr = eigenbasis(left), eigenbasis(right)
        elif t % frequency == 0:
            ql, qr = np.linalg.qr(left @ ql)[0], np.linalg.qr(right @ qr)[0]
        yield p


def kl_case(options, soap, lr=0.05, b1=0.95, b2=0.95, beta=0.95, eps=1e-8, frequency=2, factor=0.1):
    name = "scale_by_kl_soap" if soap else "scale_by_kl_shampoo"

    def make():
        if soap:
            rule = optfx.scale_by_kl_soap(b1, b2, eps, beta, frequency, factor)
        else:
            rule = optfx.scale_by_kl_shampoo(b1, beta, eps, frequency, factor)
        return optfx.chain(rule, optfx.scale_by_learning_rate(lr))

    numbers = {"b1": b1, "b2": b2, "beta": beta, "eps": eps, "frequency": frequency, "factor": factor}
    return Case(
        name,
        options,
        make,
        leafwise(kl, lr=lr, **numbers, soap=soap),
        paper="Lin et al., 2025",
        shapes={"matrix": (4, 4)},
    )


def splus(p, grad, lr, b1, b2, frequency) -> Iterator[np.ndarray]:
    rows, cols = p.shape[-2:]
    m = np.zeros_like(p)
    left = right = np.zeros_like(p)
    ql, qr = np.eye(rows), np.eye(cols)
    for t in range(1, 1000):
        g = grad(t - 1, p)
        m = b1 * m + (1 - b1) * g
        p = p - lr * 2 / (rows + cols) * ql @ np.sign(T(ql) @ m @ qr) @ T(qr)
        left, right = b2 * left + (1 - b2) * g @ T(g), b2 * right + (1 - b2) * T(g) @ g
        if t == 1 or t % frequency == 0:
            ql, qr = eigenbasis(left), eigenbasis(right)
        yield p


def splus_case(options, lr=0.3, b1=0.9, b2=0.999, frequency=3):
    shapes = {"matrix": (4, 4)}
    return Case(
        "scale_by_splus",
        options,
        lambda: optfx.chain(optfx.scale_by_splus(b1, b2, frequency), optfx.scale_by_learning_rate(lr)),
        leafwise(splus, lr=lr, b1=b1, b2=b2, frequency=frequency),
        {"pytorch_optimizer": by_torch(lambda ps: po.SPlus(ps, lr, (b1, b2), 0.0, inverse_steps=frequency), shapes)},
        "Frans et al., 2025",
        {"pytorch_optimizer": 1e-5},  # its eigenvectors are in float32
        shapes,
    )


def sinksoap(p, grad, lr, b1, beta, eps, frequency, steps, nesterov) -> Iterator[np.ndarray]:
    m, left, right = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    ql, qr = np.eye(len(p)), np.eye(len(p))
    for t in range(1000):
        g = grad(t, p)
        left, right = beta * left + (1 - beta) * g @ T(g), beta * right + (1 - beta) * T(g) @ g
        if t == 0:
            ql, qr = eigenbasis(left), eigenbasis(right)
        elif t % frequency == 0:
            ql, qr = np.linalg.qr(left @ ql)[0], np.linalg.qr(right @ qr)[0]
        m = b1 * m + (1 - b1) * g
        x = T(ql) @ (b1 * m + (1 - b1) * g if nesterov else m) @ qr
        for _ in range(steps):
            x = x / np.sqrt((x**2).mean(1, keepdims=True) + eps)
            x = x / np.sqrt((x**2).mean(0, keepdims=True) + eps)
        p = p - lr * ql @ x @ T(qr)
        yield p


def sinksoap_case(options, lr=0.05, b1=0.95, beta=0.95, eps=1e-12, frequency=2, steps=10, nesterov=True):
    rule = {"frequency": frequency, "steps": steps, "nesterov": nesterov}
    return Case(
        "scale_by_sinksoap",
        options,
        lambda: optfx.chain(optfx.scale_by_sinksoap(b1, beta, eps, **rule), optfx.scale_by_learning_rate(lr)),
        leafwise(sinksoap, lr=lr, b1=b1, beta=beta, eps=eps, **rule),
        paper="modded-nanogpt, 2026",
        shapes={"matrix": (4, 4)},
    )


def leading(g, rank):
    u, _, v = np.linalg.svd(g, full_matrices=False)
    u = (u if g.shape[0] <= g.shape[1] else v.T)[:, :rank]
    return u * np.sign(u[np.abs(u).argmax(0), np.arange(u.shape[1])])


def adam(r, m, v, t, b1=0.9, b2=0.999, eps=1e-8):
    m, v = b1 * m + (1 - b1) * r, b2 * v + (1 - b2) * r**2
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def galore(p, grad, lr, rank, gap, scale) -> Iterator[np.ndarray]:
    m = v = 0.0
    for t in range(1000):
        g = grad(t, p)
        if t % gap == 0:
            projection = leading(g, rank)
        wide = g.shape[0] <= g.shape[1]
        n, m, v = adam(projection.T @ g if wide else g @ projection, m, v, t + 1)
        p = p - lr * scale * (projection @ n if wide else n @ projection.T)
        yield p


def galore_case(options, shape, packages=(), lr=0.05, rank=2, gap=200, scale=1.0):
    shapes = {"matrix": shape}

    def theirs(ps):
        group = {"params": ps, "rank": rank, "update_proj_gap": gap, "scale": scale, "projection_type": "std"}
        return po.GaLore([group], lr, eps=0.0, weight_decay=0.0)

    runs = {
        "optax": by_optax(lambda optax: optax.contrib.galore(lr, rank, gap, scale), shapes),
        "pytorch_optimizer": by_torch(theirs, shapes),
    }
    return Case(
        "scale_by_galore",
        options,
        lambda: optfx.chain(optfx.scale_by_galore(rank, gap, scale), optfx.scale_by_learning_rate(lr)),
        leafwise(galore, lr=lr, rank=rank, gap=gap, scale=scale),
        {name: run for name, run in runs.items() if name in packages},
        "Zhao et al., 2024",
        dict.fromkeys(runs, 1e-5),  # their singular vectors are in float32
        shapes,
    )


def apollo(p, grad, lr, rank, gap, scale, per) -> Iterator[np.ndarray]:
    m, v, size, wide = 0.0, 0.0, 0.0, p.shape[0] <= p.shape[1]
    short, axis = min(p.shape), None if per == "tensor" else 0 if wide else 1
    norm = lambda x: np.sqrt((x**2).sum(axis, keepdims=True))
    for t in range(1000):
        g = grad(t, p)
        if t % gap == 0:
            projection = probe("matrix", (short, rank), t).numpy() / np.sqrt(rank)
        r = projection.T @ g if wide else g @ projection
        n, m, v = adam(r, m, v, t + 1)
        u = g * norm(n) / (norm(r) + 1e-8)
        if t:
            u = u / max(np.linalg.norm(u) / (size + 1e-8) / 1.01, 1)
        size = np.linalg.norm(u)
        p = p - lr * np.sqrt(scale) * u
        yield p


def apollo_case(options, shape, lr=0.05, rank=2, gap=200, scale=1.0, per="channel"):
    rule = {"rank": rank, "update_proj_gap": gap, "scale": scale, "per": per}
    return Case(
        "scale_by_apollo",
        options,
        lambda: optfx.chain(optfx.scale_by_apollo(**rule), optfx.scale_by_learning_rate(lr)),
        leafwise(apollo, lr=lr, rank=rank, gap=gap, scale=scale, per=per),
        paper="Zhu et al., 2024",
        shapes={"matrix": shape},
    )


def probe(name, shape, count):
    """The random numbers of a leaf at a step."""
    key = random.split_like(random.key(0), {name: 0})[name]
    return random.normal(random.fold_in(key, count), shape, torch.float64)


def lower_bound(a):
    u = a @ a[:, np.argmax((a**2).sum(0))]
    return np.linalg.norm(a @ (u / np.linalg.norm(u)))


def kron(p, grad, lr, b1, decay, rate, every, max_rms) -> Iterator[np.ndarray]:
    m, ql, qr = np.zeros_like(p), np.eye(len(p)), np.eye(p.shape[1])
    for t in range(1, 1000):
        m = b1 * m + (1 - b1) * grad(t - 1, p)
        g = m / (1 - b1**t)
        if t % every == 0:
            v = probe("matrix", p.shape, t - 1).numpy()
            a, b = ql @ g @ qr.T, np.linalg.inv(ql).T @ v @ np.linalg.inv(qr)
            for q, x, y in ((ql, a @ a.T, b @ b.T), (qr, a.T @ a, b.T @ b)):
                q -= rate * np.triu(x - y) / lower_bound(x + y) @ q
        u = ql.T @ ql @ g @ qr.T @ qr
        u = u / max(1, np.sqrt((u**2).mean()) / max_rms)
        p = p - lr * (u + decay * p)
        yield p


def kron_case(options, packages=(), lr=0.05, b1=0.9, decay=0.0, rate=0.1, every=1, max_rms=1.1):
    shapes = {"matrix": (6, 4)}

    def injected(run):
        def with_our_probes():
            counts = itertools.count(every - 1, every)
            with (
                pytest.MonkeyPatch.context() as patch,
                torch.compiler.set_stance("force_eager"),
                contextlib.redirect_stdout(None),
            ):
                patch.setattr(
                    torch, "randn_like", lambda x, **_: probe("matrix", x.shape[-2:], next(counts)).view_as(x)
                )
                patch.setattr(heavyball.utils, "max_eigenvalue_spd", lambda a, **_: spectral(a)[..., 0, 0])
                return run()

        return with_our_probes

    wide = {"storage_dtype": "float64", "q_dtype": "float64"}
    as_here = {"lower_bound_beta": 0.0, "update_clipping": None, "precond_init_scale": 1.0, "precond_lr": rate}
    runs = {
        "pytorch_optimizer": lambda ps: po.Kron(ps, lr, b1, decay, precondition_dtype=torch.float64, balance_prob=0.0),
        "kron-torch": lambda ps: kron_torch.Kron(
            ps, lr, b1, decay, 1 / every, precond_lr=rate, precond_dtype=torch.float64
        ),
        "heavyball": lambda ps: heavyball.PSGDKron(
            ps, lr, b1, weight_decay=decay, preconditioner_update_probability=1 / every, **as_here, **wide
        ),
    }
    return Case(
        "kron",
        options,
        lambda: optfx.kron(lr, b1, decay, preconditioner_lr=rate, update_probability=1 / every, max_rms=max_rms),
        leafwise(kron, lr=lr, b1=b1, decay=decay, rate=rate, every=every, max_rms=max_rms),
        {name: injected(by_torch(runs[name], shapes)) for name in packages},
        "Li, 2015, 2024",
        {
            "pytorch_optimizer": 1e-5,  # it solves in float32, and adds 1e-6 to the root mean square
            "kron-torch": 1e-3,  # it adds noise to the momentum: 1e-8 apart when we add it, too
            "heavyball": FLOAT32,
        },
        shapes,
    )


CASES = [
    soap_case("as in the paper", {"matrix": (4, 4)}),
    soap_case("other numbers, decay", SQUARE, False, 0.02, 0.9, 0.8, 0.7, 1e-3, 0.1, 3),
    soap_case("batches", BATCH, False, beta=0.8, frequency=1),
    shampoo_case("as in the paper", {"matrix": (6, 4)}, ["pytorch_optimizer"]),
    shampoo_case("one side, means", {"matrix": (6, 4), "kernel": (3, 2, 2, 2)}, (), 0.02, 0.9, 1e-2, 0.5, "left", 3),
    recipe_case("default"),
    recipe_case("other numbers", 0.02, 0.8, 0.9, 1e-3, 0.1, 1e-2, 3),
    kl_case("as in the paper", True),
    kl_case("other numbers", True, 0.02, 0.9, 0.8, 0.7, 1e-3, 3, 1.0),
    kl_case("as in the paper", False),
    kl_case("other numbers", False, 0.02, 0.9, 0.8, 0.7, 1e-2, 3, 1.0),
    splus_case("as in the paper"),
    splus_case("other numbers", 0.1, 0.7, 0.9, 5),
    kron_case("as in the paper", ["pytorch_optimizer", "kron-torch"]),
    kron_case("not clipped", ["heavyball"], 0.02, 0.8, 0.1, 0.3, 2, 1e9),
    sinksoap_case("as in the record"),
    sinksoap_case("other numbers", 0.02, 0.8, 0.7, 1e-3, 3, 2, False),
    galore_case("wide", (4, 6), ["pytorch_optimizer"]),
    galore_case("square", (4, 4), ["optax"]),
    galore_case("tall, other numbers", (6, 4), (), 0.02, 3, 4, 0.25),
    apollo_case("wide", (4, 6)),
    apollo_case("tall, mini", (6, 4), 0.02, 1, 4, 16.0, "tensor"),
    kron_case("other numbers", (), 0.02, 0.8, 0.1, 0.3, 4, 0.7),
]
