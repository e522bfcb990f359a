"""Rules for matrices: cases, each with a formula written from its paper."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import heavyball
import numpy as np
import pytest
import pytorch_optimizer
import torch
from heavyball import chainable

import optfx
from optfx import select
from optfx.transforms.matrix.newton_schulz import CANS, CUBIC, DEEPSEEK_V4, POLAR_EXPRESS, QUINTIC, SIMPLE
from tests.parity.harness import (
    FLOAT32,
    SHAPES,
    Case,
    Formula,
    Gradient,
    Params,
    Shapes,
    by_heavyball,
    by_parts_of_heavyball,
    by_torch,
    leafwise,
)
from tests.parity.rules import adamw

ALL = select.ndim(min=2)
BFLOAT16 = 2e-2  # how far those are off after fifteen steps that orthogonalize in bfloat16


def norm(x: np.ndarray, **where: Any) -> np.ndarray:
    return np.sqrt((x**2).sum(**where))


def matrices(formula: Any, others: Any = None, largest: int = 4, **options: Any) -> Formula:
    """A formula for each matrix of a batch; what is no matrix, or has more dimensions than the largest, goes by another
    formula, or stays as it is."""

    def stay(p: np.ndarray, grad: Any) -> Iterator[np.ndarray]:
        return itertools.repeat(p)

    def one(p: np.ndarray, grad: Any) -> Iterator[np.ndarray]:
        if not 2 <= p.ndim <= largest:
            return (others or stay)(p, grad)
        if p.ndim == 2:
            return formula(p, grad, **options)
        return batch(p, grad)

    def batch(p: np.ndarray, grad: Any) -> Iterator[np.ndarray]:
        now = p.reshape(-1, *p.shape[-2:])
        whole = [now]

        def part(i: int) -> Iterator[np.ndarray]:
            return formula(now[i], lambda t, _: grad(t, whole[0].reshape(p.shape)).reshape(now.shape)[i], **options)

        runs = [part(i) for i in range(len(now))]
        while True:
            whole[0] = np.stack([next(run) for run in runs])
            yield whole[0].reshape(p.shape)

    return leafwise(one)


def newton_schulz(x: np.ndarray, table: Any, eps: float) -> np.ndarray:
    if x.shape[0] > x.shape[1]:
        return newton_schulz(x.T, table, eps).T
    x = x / (norm(x) + eps)
    for a, b, c in table:
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x


def svd(x: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(x, full_matrices=False)
    return left @ right


def qr(x: np.ndarray) -> np.ndarray:
    wide = x.shape[0] <= x.shape[1]
    q, r = np.linalg.qr(x.T if wide else x)
    q = q * np.sign(np.diag(r))
    return q.T if wide else q


def orthogonal(x: np.ndarray, method: Any, eps: float = 1e-8) -> np.ndarray:
    return {"svd": svd, "qr": qr}[method](x) if isinstance(method, str) else newton_schulz(x, method, eps)


# ---- momentum, and then -----------------------------------------------------------------------------


def after_mean(p, grad, lr, beta, then) -> Iterator[np.ndarray]:
    m = np.zeros_like(p)
    for t in itertools.count(1):
        m = beta * m + (1 - beta) * grad(t - 1, p)
        p = p - lr * then(m / (1 - beta**t))
        yield p


def after_mean_case(
    name: str,
    options: str,
    then: Any,
    *parts: Any,
    lr: float = 0.1,
    paper: str,
    packages: dict[str, Any] | None = None,
    shapes: Shapes = SHAPES,
) -> Case:
    return Case(
        name,
        options,
        lambda: optfx.partition(
            {
                "matrix": optfx.chain(optfx.ema(0.9), *parts, optfx.scale_by_learning_rate(lr)),
                "rest": optfx.set_to_zero(),
            },
            select.label({"matrix": ALL}, default="rest"),
        ),
        matrices(after_mean, lr=lr, beta=0.9, then=then),
        packages or {},
        paper,
        {"heavyball": FLOAT32},
        shapes,
    )


def orthogonalize_case(options: str, method: Any, paper: str, **others: Any) -> Case:
    return after_mean_case(
        "orthogonalize", options, lambda m: orthogonal(m, method), optfx.orthogonalize(method), paper=paper, **others
    )


def square_case(options: str, method: Any, mode: str, paper: str) -> Case:
    """HeavyBall has a mode, for square matrices alone."""
    shapes = {"matrix": (4, 4)}

    def theirs() -> list[Params]:
        parts = chainable.exp_avg, functools.partial(chainable.orthogonalize_update, scale_mode="none")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(heavyball.utils, "zeroth_power_mode", mode)
            return by_parts_of_heavyball(*parts, shapes=shapes, lr=0.1, betas=(0.9, 0.9))()

    return orthogonalize_case(options, method, paper, packages={"heavyball": theirs}, shapes=shapes)


def polargrad_case(options: str, method: Any) -> Case:
    def then(m: np.ndarray) -> np.ndarray:
        u = orthogonal(m, method)
        return (u * m).sum() * u

    return after_mean_case("polargrad", options, then, optfx.polargrad(method), lr=0.01, paper="Lau et al., 2025")


def equilibrated(m: np.ndarray) -> np.ndarray:
    return m / norm(m, axis=1, keepdims=True)


# ---- with a second moment ----------------------------------------------------------------------------


def by_row(u: np.ndarray, v: np.ndarray, beta: float, eps: float) -> tuple[np.ndarray, np.ndarray]:
    v = beta * v + (1 - beta) * (u**2).mean(1, keepdims=True)
    new = u / (np.sqrt(v) + eps)
    return new * norm(u) / norm(new), v


def namo(p, grad, lr, b1, b2, eps, method) -> Iterator[np.ndarray]:
    m, v = np.zeros_like(p), 0.0
    for t in itertools.count(1):
        g = grad(t - 1, p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (g**2).sum()
        alpha = math.sqrt(1 - b2**t) / (1 - b1**t) * norm(m) / (math.sqrt(v) + eps)
        p = p - lr * alpha * orthogonal(m, method, 0.0)
        yield p


def namo_case(options: str, b1: float, b2: float, method: Any) -> Case:
    return Case(
        "scale_by_namo",
        options,
        lambda: optfx.chain(
            optfx.masked(optfx.scale_by_namo(b1, b2, 1e-30, method), ALL),
            optfx.freeze(~ALL),
            optfx.scale_by_learning_rate(0.1),
        ),
        matrices(namo, lr=0.1, b1=b1, b2=b2, eps=0.0, method=method),
        paper="Zhang et al., 2026",
    )


# ---- of low rank, of some rows -----------------------------------------------------------------------


def dion(p, grad, lr, mu, eps, q) -> Iterator[np.ndarray]:
    m = np.zeros_like(p)
    for t in itertools.count():
        b = m + grad(t, p)
        left, _ = np.linalg.qr(b @ q)
        r = b.T @ left
        m = b - (1 - mu) * left @ r.T
        q = r / (norm(r, axis=0, keepdims=True) + eps)
        p = p - lr * math.sqrt(p.shape[0] / p.shape[1]) * left @ q.T
        yield p


def dion_case(options: str, lr: float, mu: float, fraction: float) -> Case:
    def formula(params: Params, grad: Gradient) -> Iterator[Params]:
        right = optfx.scale_by_dion(rank_fraction=fraction).init({"matrix": torch.tensor(params["matrix"])}).right
        q = right["matrix"].numpy()  # which is random
        return matrices(dion, largest=2, lr=lr, mu=mu, eps=1e-8, q=q)(params, grad)

    two = select.ndim(2, 2)
    return Case(
        "scale_by_dion",
        options,
        lambda: optfx.chain(
            optfx.masked(
                optfx.chain(optfx.scale_by_dion(mu, rank_fraction=fraction), optfx.scale_by_shape(at_least_one=False)),
                two,
            ),
            optfx.freeze(~two),
            optfx.scale_by_learning_rate(lr),
        ),
        formula,
        paper="Ahn et al., 2025",
    )


def rows_of(b: np.ndarray, fraction: float) -> np.ndarray:
    return np.argsort(-np.abs(b).sum(1))[: math.ceil(fraction * len(b))]


def dion2(p, grad, lr, mu, fraction, method, decay) -> Iterator[np.ndarray]:
    m, tall = np.zeros_like(p), p.shape[0] > p.shape[1]
    scale = lr * math.sqrt(p.shape[0] / p.shape[1])
    for t in itertools.count():
        b = m + grad(t, p)
        b = b.T if tall else b
        rows, u = rows_of(b, fraction), np.zeros_like(b)
        u[rows] = orthogonal(b[rows], method)
        b[rows] *= mu
        u, m = (u.T, b.T) if tall else (u, b)
        p = p - scale * u - lr * decay * p
        yield p


def dion3(p, grad, lr, mu, beta, fraction, method) -> Iterator[np.ndarray]:
    m, v = np.zeros_like(p), np.zeros((len(p), 1))
    for t in itertools.count():
        b = m + grad(t, p)
        rows, u = rows_of(b, fraction), np.zeros_like(b)
        u[rows], v[rows] = by_row(orthogonal(b[rows], method), v[rows], beta, 1e-8)
        b[rows] *= mu
        m, p = b, p - lr * math.sqrt(p.shape[0] / p.shape[1]) * u
        yield p


def dion3_case(options: str, mu: float, beta: float, fraction: float, method: Any) -> Case:
    return Case(
        "scale_by_dion3",
        options,
        lambda: optfx.chain(
            optfx.masked(
                optfx.chain(
                    optfx.scale_by_dion3(mu, beta, fraction=fraction, method=method),
                    optfx.scale_by_shape(at_least_one=False),
                ),
                ALL,
            ),
            optfx.freeze(~ALL),
            optfx.scale_by_learning_rate(0.1),
        ),
        matrices(dion3, lr=0.1, mu=mu, beta=beta, fraction=fraction, method=method),
        paper="microsoft/dion",
    )


# ---- recipes -----------------------------------------------------------------------------------------
# What is no matrix of two dimensions goes by AdamW, of `tests.parity.rules`.

MATRIX = {"matrix": SHAPES["matrix"]}
ADAMW = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "decay": 1e-4}


def in_groups(make: Any, **options: Any) -> Any:
    """A package whose groups say which are matrices."""

    def groups(params: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
        kinds = {flag: [p for p in params if (p.ndim == 2) == flag] for flag in (True, False)}
        return [{"params": ps, "use_muon": flag} for flag, ps in kinds.items()]

    return by_torch(lambda params: make(groups(params), adamw_betas=(0.9, 0.999), adamw_wd=1e-4, **options))


def wide(p: np.ndarray) -> float:
    return math.sqrt(max(1.0, p.shape[0] / p.shape[1]))


def muon(p, grad, lr, beta, decay, nesterov, table) -> Iterator[np.ndarray]:
    m = np.zeros_like(p)
    for t in itertools.count():
        g = grad(t, p)
        m = beta * m + (1 - beta) * g
        u = newton_schulz(beta * m + (1 - beta) * g if nesterov else m, table, 0.0)
        p = p - lr * (wide(p) * u + decay * p)
        yield p


def muon_case(options: str, packages: Any, lr=0.05, beta=0.95, decay=0.1, nesterov=True, table=SIMPLE) -> Case:
    numbers = {"lr": lr, "beta": beta, "decay": decay, "nesterov": nesterov, "table": table}
    more = {"weight_decay": decay, "nesterov": nesterov}
    runs = {
        "torch": by_torch(lambda ps: torch.optim.Muon(ps, lr, momentum=beta, **more), MATRIX),
        # without `heavyball_momentum` it looks ahead otherwise: the mean and the gradient are added
        "heavyball": by_heavyball(heavyball.Muon, lr, (beta, 0.9), shapes=MATRIX, heavyball_momentum=True, **more),
    }
    return Case(
        "muon",
        options,
        lambda: optfx.muon(lr, table, beta=beta, eps=1e-7, bias_correction=False, eps_is_floor=True, **more),
        leafwise(muon, **numbers),
        {name: runs[name] for name in packages},
        "Jordan et al., 2024",
        {"torch": BFLOAT16, "heavyball": FLOAT32},
        MATRIX,
    )


def normuon(p, grad, lr, beta, b2, eps, decay, nesterov) -> Iterator[np.ndarray]:
    m, v = np.zeros_like(p), np.zeros((len(p), 1))
    for t in itertools.count():
        g = grad(t, p)
        m = beta * m + (1 - beta) * g
        u, v = by_row(newton_schulz(beta * m + (1 - beta) * g if nesterov else m, SIMPLE, eps), v, b2, eps)
        p = p - lr * (wide(p) * u + decay * p)
        yield p


def normuon_case(options: str, lr: float, beta: float, b2: float, decay: float, nesterov: bool) -> Case:
    numbers = {"lr": lr, "beta": beta, "b2": b2, "eps": 1e-10, "decay": decay, "nesterov": nesterov}
    return Case(
        "normuon",
        options,
        lambda: optfx.normuon(lr, beta, b2, 1e-10, decay, nesterov=nesterov),
        matrices(normuon, lambda p, grad: adamw(p, grad, lr, **ADAMW), 2, **numbers),
        {
            "pytorch_optimizer": in_groups(
                pytorch_optimizer.NorMuon,
                lr=lr,
                momentum=beta,
                beta2=b2,
                weight_decay=decay,
                nesterov=nesterov,
                adamw_lr=lr,
                adamw_eps=1e-8,
            )
        }
        if decay == 0  # else it decays what AdamW has as well
        else {},
        "Li et al., 2025",
        near={"pytorch_optimizer": BFLOAT16},
    )


def adamuon(p, grad, lr, b1, b2, eps, decay, of_sign) -> Iterator[np.ndarray]:
    m = v = np.zeros_like(p)
    for t in itertools.count(1):
        m = b1 * m + (1 - b1) * grad(t - 1, p)
        u = newton_schulz(np.sign(m) if of_sign else m, SIMPLE, eps)
        v = b2 * v + (1 - b2) * u**2
        u = u / (np.sqrt(v / (1 - b2**t)) + eps)
        p = p - lr * (0.2 * math.sqrt(p.size) / norm(u) * u + decay * p)
        yield p


def adamuon_case(options: str, lr: float, b1: float, b2: float, decay: float, of_sign: bool) -> Case:
    numbers = {"lr": lr, "b1": b1, "b2": b2, "eps": 1e-8, "decay": decay, "of_sign": of_sign}
    return Case(
        "adamuon",
        options,
        lambda: optfx.adamuon(lr, b1, b2, 1e-8, decay, of_sign=of_sign),
        matrices(adamuon, lambda p, grad: adamw(p, grad, lr, **ADAMW), 2, **numbers),
        {
            "pytorch_optimizer": in_groups(
                pytorch_optimizer.AdaMuon, lr=lr, betas=(b1, b2), weight_decay=decay, adamw_lr=lr, eps=1e-8
            )
        }
        if not (of_sign or decay)  # it has no sign
        else {},
        "Si et al., 2025",
        near={"pytorch_optimizer": BFLOAT16},
    )


def muown(p, grad, lr, beta, b1, b2, eps, decay) -> Iterator[np.ndarray]:
    g = norm(p, axis=1, keepdims=True)
    v, m, mg, vg = p, np.zeros_like(p), np.zeros_like(g), np.zeros_like(g)
    for t in itertools.count(1):
        unit, w = v / norm(v, axis=1, keepdims=True), grad(t - 1, p)
        dg = (w * unit).sum(1, keepdims=True)
        m = beta * m + (1 - beta) * g / norm(v, axis=1, keepdims=True) * (w - unit * dg)
        mg, vg = b1 * mg + (1 - b1) * dg, b2 * vg + (1 - b2) * dg**2
        v = v - lr * 0.2 * math.sqrt(max(p.shape)) * newton_schulz(m, SIMPLE, eps)
        g = g - lr * (mg / (1 - b1**t) / (np.sqrt(vg / (1 - b2**t)) + eps) + decay * g)
        p = g * v / norm(v, axis=1, keepdims=True)
        yield p


def muown_case(options: str, lr: float, beta: float, b1: float, b2: float, decay: float) -> Case:
    return Case(
        "muown",
        options,
        lambda: optfx.muown(lr, beta, b1, b2, 1e-8, decay),
        matrices(
            muown, lambda p, grad: adamw(p, grad, lr, **ADAMW), 2, lr=lr, beta=beta, b1=b1, b2=b2, eps=1e-8, decay=decay
        ),
        paper="Lion et al., 2026",
    )


def dion2_case(options: str, lr: float, mu: float, fraction: float, method: Any, decay: float) -> Case:
    numbers = {"lr": lr, "mu": mu, "fraction": fraction, "method": method, "decay": decay}
    return Case(
        "dion2",
        options,
        lambda: optfx.dion2(lr, mu, weight_decay=decay, fraction=fraction, method=method),
        matrices(dion2, lambda p, grad: adamw(p, grad, lr, **ADAMW), 2, **numbers),
        paper="Ahn et al., 2025",
    )


def scion(p, grad, lr, beta, radius, eps, constrained, sum_up, table) -> Iterator[np.ndarray]:
    d = np.zeros_like(p)
    for t in itertools.count():
        d = beta * d + (1 if sum_up else 1 - beta) * grad(t, p)
        if p.ndim < 2:
            u = d / (np.sqrt((d**2).mean()) + eps)
        else:
            out, into, *window = p.shape
            u = newton_schulz(d.reshape(out, -1), table, eps).reshape(p.shape)
            u = u * math.sqrt(out / into) / math.prod(window)
        p = (1 - lr) * p - lr * radius * u if constrained else p - lr * radius * u
        yield p


def scion_case(
    name: str, options: str, lr: float, beta: float, radius: float, constrained: bool, table: Any = SIMPLE
) -> Case:
    light, shapes = name == "scion_light", SHAPES if table is SIMPLE else {k: SHAPES[k] for k in ("matrix", "kernel")}
    rule = {"lr": lr, "beta": beta, "radius": radius, "eps": 1e-8, "constrained": constrained}

    def of_heavyball() -> list[Params]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(heavyball.utils, "scion_auto_init_param_", lambda *_, **__: None)  # it would begin elsewhere
            return by_heavyball(heavyball.Scion, lr, (beta, 0.9), shapes=shapes, scale=radius)()

    def theirs(params: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return pytorch_optimizer.SCION(params, lr, 1 - beta, constraint=constrained, scale=radius)

    return Case(
        name,
        options,
        lambda: getattr(optfx, name)(lr, beta, radius, constrained=constrained, method=table),
        leafwise(scion, **rule, sum_up=light, table=table),
        {"pytorch_optimizer": by_torch(theirs)} if table is SIMPLE else {"heavyball": of_heavyball},
        "Pethick et al., 2025",
        {"pytorch_optimizer": BFLOAT16, "heavyball": FLOAT32},
        shapes,
    )


PAPER = "Jordan et al., 2024"
CASES = [
    orthogonalize_case("simple", SIMPLE, PAPER),
    orthogonalize_case("quintic", QUINTIC, "Cesista et al., 2025"),
    orthogonalize_case("Polar Express", POLAR_EXPRESS, "Amsel et al., 2025"),
    orthogonalize_case("CANS", CANS, "Grishina et al., 2025"),
    orthogonalize_case("DeepSeek-V4", DEEPSEEK_V4, "DeepSeek-AI, 2026"),
    orthogonalize_case("cubic", CUBIC, "arXiv 2606.00371"),
    orthogonalize_case("exact", "svd", "Jordan et al., 2024"),
    orthogonalize_case("QR", "qr", "Jordan et al., 2024"),
    square_case("simple, square", SIMPLE, "legacy_newtonschulz", PAPER),
    square_case(
        "Polar Express, two steps more, square",
        (*POLAR_EXPRESS, *POLAR_EXPRESS[-1:] * 2),
        "thinky_polar_express",
        "Amsel et al., 2025",
    ),
    square_case("exact, square", "svd", "svd", PAPER),
    polargrad_case("as in the paper", "svd"),
    polargrad_case("by iterations", SIMPLE),
    after_mean_case(
        "equilibrate_rows",
        "before, MuonEq",
        lambda m: newton_schulz(equilibrated(m), SIMPLE, 1e-8),
        optfx.equilibrate_rows(),
        optfx.orthogonalize(),
        paper="Chang et al., 2026",
    ),
    after_mean_case(
        "equilibrate_rows",
        "after, Muon+",
        lambda m: equilibrated(newton_schulz(m, SIMPLE, 1e-8)),
        optfx.orthogonalize(),
        optfx.equilibrate_rows(),
        paper="Zhang et al., 2026",
    ),
    after_mean_case(
        "renormalize",
        "alone",
        lambda m: m * math.sqrt(min(m.shape)) / norm(m),
        optfx.renormalize(),
        paper="Si et al., 2025",
    ),
    after_mean_case(
        "renormalize",
        "after orthogonalize",
        lambda m: newton_schulz(m, CUBIC, 1e-8) * math.sqrt(min(m.shape)) / norm(newton_schulz(m, CUBIC, 1e-8)),
        optfx.orthogonalize(CUBIC),
        optfx.renormalize(),
        paper="Si et al., 2025",
    ),
    namo_case("as in the paper", 0.95, 0.99, SIMPLE),
    namo_case("other numbers, exact", 0.7, 0.9, "svd"),
    dion_case("as in the paper", 0.1, 0.95, 0.5),
    dion_case("other numbers, full rank", 0.05, 0.8, 1.0),
    dion3_case("as in its package", 0.95, 0.95, 0.25, POLAR_EXPRESS[:5]),
    dion3_case("other numbers, exact", 0.8, 0.7, 0.5, "svd"),
    muon_case("as in torch", ["torch"]),
    muon_case("quintic", ["heavyball"], 0.1, 0.9, table=QUINTIC),
    muon_case("quintic, no lookahead", ["heavyball"], 0.02, 0.8, 0.0, False, QUINTIC),
    normuon_case("as in its package", 0.05, 0.95, 0.95, 0.0, True),
    normuon_case("other numbers, no lookahead", 0.1, 0.8, 0.7, 0.2, False),
    adamuon_case("as in the paper", 0.1, 0.95, 0.95, 0.1, True),
    adamuon_case("without the sign", 0.1, 0.9, 0.8, 0.0, False),
    muown_case("as in the paper", 0.05, 0.95, 0.9, 0.95, 0.0),
    muown_case("other numbers", 0.1, 0.8, 0.7, 0.9, 0.2),
    dion2_case("as in its package", 0.05, 0.95, 0.25, POLAR_EXPRESS[:5], 0.01),
    dion2_case("other numbers, exact", 0.1, 0.8, 0.5, "svd", 0.2),
    scion_case("scion", "as in the paper", 0.01, 0.9, 5.0, False),
    scion_case("scion", "constrained", 0.05, 0.8, 2.0, True),
    scion_case("scion", "quintic", 0.02, 0.7, 1.0, False, QUINTIC),
    scion_case("scion_light", "as in the paper", 0.01, 0.9, 5.0, False),
    scion_case("scion_light", "constrained", 0.05, 0.8, 2.0, True),
]
