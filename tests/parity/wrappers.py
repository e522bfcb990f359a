"""Wrappers in time: cases, each with a formula written from its paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import optfx
from tests.parity.harness import STEPS, Case, Formula, Gradient, Params, by_optax, by_torch, gradient, leafwise, start

Rule = Callable[[int, np.ndarray, np.ndarray], np.ndarray]  # (step from 1, gradient, parameter) -> step, sign included


# ---- rules inside ------------------------------------------------------------------------------------


def sgd(lr: float, mu: float = 0.0, nesterov: bool = False) -> Rule:
    m = 0.0

    def rule(t, g, p):
        nonlocal m
        m = mu * m + g
        return -lr * (g + mu * m if nesterov else m)

    return rule


def adam(lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Rule:
    m = v = 0.0

    def rule(t, g, p):
        nonlocal m, v
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        return -lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)

    return rule


# ---- several gradients a step ------------------------------------------------------------------------


def accumulate(p, grad, make: Callable[[], Rule], every: int) -> Iterator[np.ndarray]:
    rule, seen = make(), []
    for t in range(1000):
        seen.append(grad(t, p))
        if len(seen) == every:
            p, seen = p + rule((t + 1) // every, np.mean(seen, 0), p), []
        yield p


def apply_every(p, grad, make: Callable[[], Rule], k: int) -> Iterator[np.ndarray]:
    rule, held = make(), 0.0
    for t in range(1000):
        held = held + rule(t + 1, grad(t, p), p)
        if (t + 1) % k == 0:
            p, held = p + held, 0.0
        yield p


# ---- slow weights, averages, another point -----------------------------------------------------------


def lookahead(p, grad, make: Callable[[], Rule], every: int, outer: Callable[[], Rule]) -> Iterator[np.ndarray]:
    rule, slow_rule, slow = make(), outer(), p
    for t in range(1, 1000):
        p = p + rule(t, grad(t - 1, p), p)
        if t % every == 0:
            p = slow = slow + slow_rule(t // every, slow - p, slow)
        yield p


def rectified(t: int, b2: float) -> float:
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * t * b2**t / (1 - b2**t)
    if length <= 4:
        return 0.0
    return np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))


def schedule_free(p, grad, rate: Callable[[int], float], b1, r=0.0, power=2.0, b2=None, eps=0.0, decay=0.0):
    x = z = p
    v, total, largest = 0.0, 0.0, 0.0
    for t in range(1, 1000):
        y = (1 - b1) * z + b1 * x
        u = grad(t - 1, y)
        if b2 is not None:
            v = b2 * v + (1 - b2) * u**2
            u = u / (np.sqrt(v / (1 - b2**t)) + eps)
        largest = max(largest, rate(t))
        weight = t**r * largest**power
        total += weight
        z = z - rate(t) * (u + decay * y)
        x = x + (weight / total if total else 0.0) * (z - x)
        yield (1 - b1) * z + b1 * x


def gpa(p, grad, make: Callable[[], Rule], mu_x: float, mu_y: float) -> Iterator[np.ndarray]:
    rule, x, z = make(), p, p
    for t in range(1, 1000):
        y = mu_y * x + (1 - mu_y) * z
        z = z + rule(t, grad(t - 1, y), y)
        x = mu_x * x + (1 - mu_x) * z
        yield mu_y * x + (1 - mu_y) * z


def ema_nesterov(p, grad, make: Callable[[], Rule], beta: Callable[[int], float], gamma: float):
    rule, m, q = make(), 0.0, p
    for t in range(1, 1000):
        old, p = p, q + rule(t, grad(t - 1, q), q)
        m = gamma * m + (1 - gamma) * (p - old)
        q = p + beta(t) * m
        yield q


def sam(make: Callable[[], Rule], rho: float, adaptive: bool) -> Formula:
    """Up and down again: a gradient for each."""

    def run(params: Params, grad: Gradient) -> Iterator[Params]:
        rules = {name: make() for name in params}
        for t in range(0, 1000, 2):
            g = grad(t, params)
            size = {name: np.abs(p) if adaptive else np.ones_like(p) for name, p in params.items()}
            norm = np.sqrt(sum(np.sum((size[name] * g[name]) ** 2) for name in g))
            up = {name: p + rho * size[name] ** 2 * g[name] / norm for name, p in params.items()}
            yield up
            g = grad(t + 1, up)
            params = {name: np.asarray(p + rules[name](t // 2 + 1, g[name], p)) for name, p in params.items()}
            yield params

    return run


def reset_every(p, grad, make: Callable[[], Rule], every: int) -> Iterator[np.ndarray]:
    for t in range(1000):
        if t % every == 0:
            rule = make()
        p = p + rule(t % every + 1, grad(t, p), p)
        yield p


def when(p, grad, make: Callable[[], Rule], holds: Callable[[int], bool], lr: float) -> Iterator[np.ndarray]:
    rule, k = make(), 0
    for t in range(1000):
        u = -lr * grad(t, p)
        if holds(t):
            k += 1
            u = rule(k, u, p)
        p = p + u
        yield p


# ---- packages ----------------------------------------------------------------------------------------


def training(optimizer: Any) -> Any:
    optimizer.train()
    return optimizer


def schedulefree(name: str, **options: Any) -> Callable[[], list[Params]]:
    def make(ps):
        import schedulefree

        return training(getattr(schedulefree, name)(ps, **options))

    return by_torch(make)


def pytorch_optimizer(name: str, **options: Any) -> Callable[[], list[Params]]:
    def make(ps):
        import pytorch_optimizer

        return training(getattr(pytorch_optimizer, name)(ps, **options))

    return by_torch(make)


def lookahead_by_pytorch_optimizer(
    base: Callable[[Any], torch.optim.Optimizer], k: int, alpha: float
) -> Callable[[], list[Params]]:
    def make(ps):
        import pytorch_optimizer

        return pytorch_optimizer.Lookahead(base(ps), k=k, alpha=alpha)

    return by_torch(make)


def lookahead_by_optax(make: Callable[[Any], Any], k: int, alpha: float) -> Callable[[], list[Params]]:
    """Its params are a pair, of which the fast ones are compared."""

    def run() -> list[Params]:
        import jax
        import jax.numpy as jnp
        import optax

        jax.config.update("jax_enable_x64", True)
        tx = optax.lookahead(make(optax), k, alpha)
        params = optax.LookaheadParams.init_synced(jax.tree.map(jnp.asarray, start()))
        state, out = tx.init(params), []
        for t in range(STEPS):
            grads = jax.tree.map(jnp.asarray, gradient(t, jax.tree.map(np.asarray, params.fast)))
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            out.append(jax.tree.map(np.asarray, params.fast))
        return out

    return run


# ---- cases -------------------------------------------------------------------------------------------


def falling(first: float) -> Callable[[int], float]:
    """At the steps from 1, as a linear schedule to 0 in twenty steps has it."""
    return lambda t: first * (1 - (t - 1) / 20)


def accumulate_case(options: str, every: int, tx: Callable[[Any], Any], rule: Callable[[], Rule]) -> Case:
    def theirs(optax):
        import jax.numpy as jnp

        return optax.MultiSteps(tx(optax), every, accumulator_dtype=jnp.float64)

    mine = lambda: optfx.accumulate(tx(optfx), every)
    return Case("accumulate", options, mine, leafwise(accumulate, make=rule, every=every), {"optax": by_optax(theirs)})


def apply_every_case(k: int, lr: float) -> Case:
    tx = lambda m: m.chain(m.adam(lr), m.apply_every(k))
    formula = leafwise(apply_every, make=lambda: adam(lr), k=k)
    return Case("apply_every", f"k={k}", lambda: tx(optfx), formula, {"optax": by_optax(tx)})


def lookahead_case(k: int, alpha: float, lr: float, mu: float) -> Case:
    return Case(
        "lookahead",
        f"every={k}, outer=sgd({alpha})",
        lambda: optfx.lookahead(optfx.sgd(lr, mu), k, optfx.sgd(alpha)),
        leafwise(lookahead, make=lambda: sgd(lr, mu), every=k, outer=lambda: sgd(alpha)),
        {
            "optax": lookahead_by_optax(lambda optax: optax.sgd(lr, mu), k, alpha),
            "pytorch-optimizer": lookahead_by_pytorch_optimizer(
                lambda ps: torch.optim.SGD(ps, lr, momentum=mu), k, alpha
            ),
        },
        "Zhang et al., 2019",
    )


def warmed(lr: float, steps: int) -> Callable[[int], float]:
    return lambda t: lr * min(1.0, t / steps)


def schedule_free_sgd_case(options: str, lr, b1, decay, warmup=0, r=0.0, optax=False) -> Case:
    ours = {"b1": b1, "weight_decay": decay, "warmup_steps": warmup, "r": r}
    theirs = {"lr": lr, "momentum": b1, "weight_decay": decay, "warmup_steps": warmup, "r": r}
    packages = {
        "schedulefree": schedulefree("SGDScheduleFree", **theirs, foreach=False),
        "pytorch-optimizer": pytorch_optimizer("ScheduleFreeSGD", **theirs),
    }
    if optax:  # its count is one off, so that only a constant rate agrees
        packages["optax"] = by_optax(lambda o: o.contrib.schedule_free_sgd(lr, b1=b1, weight_decay=decay))
    return Case(
        "schedule_free_sgd",
        options,
        lambda: optfx.schedule_free_sgd(lr, **ours),
        leafwise(schedule_free, rate=warmed(lr, warmup or 1), b1=b1, r=r, decay=decay),
        packages,
        "Defazio et al., 2024",
    )


def schedule_free_adamw_case(options: str, lr, b1, b2, eps, decay, warmup=0, r=0.0, optax=False) -> Case:
    ours = {"b1": b1, "b2": b2, "eps": eps, "weight_decay": decay, "warmup_steps": warmup, "r": r}
    theirs = {"lr": lr, "betas": (b1, b2), "eps": eps, "weight_decay": decay, "warmup_steps": warmup, "r": r}
    packages = {
        "schedulefree": schedulefree("AdamWScheduleFree", **theirs, foreach=False),
        "pytorch-optimizer": pytorch_optimizer("ScheduleFreeAdamW", **theirs, use_palm=False),
    }
    if optax:
        packages["optax"] = by_optax(lambda o: o.contrib.schedule_free_adamw(lr, None, b1, b2, eps, decay))
    return Case(
        "schedule_free_adamw",
        options,
        lambda: optfx.schedule_free_adamw(lr, **ours),
        leafwise(schedule_free, rate=warmed(lr, warmup or 1), b1=b1, b2=b2, eps=eps, r=r, decay=decay),
        packages,
        "Defazio et al., 2024",
    )


def schedule_free_radam_case(options: str, lr, b1, b2, eps, decay, r=0.0) -> Case:
    theirs = {"lr": lr, "betas": (b1, b2), "eps": eps, "weight_decay": decay, "r": r}
    return Case(
        "schedule_free_radam",
        options,
        lambda: optfx.schedule_free_radam(lr, b1, b2, eps, decay, r=r),
        leafwise(schedule_free, rate=lambda t: lr * rectified(t, b2), b1=b1, b2=b2, eps=eps, r=r, decay=decay),
        {
            "schedulefree": schedulefree("RAdamScheduleFree", **theirs, foreach=False),
            "pytorch-optimizer": pytorch_optimizer("ScheduleFreeRAdam", **theirs),
        },
        "Defazio et al., 2024",
    )


def sam_case(options: str, lr: float, mu: float, rho: float, adaptive: bool = False) -> Case:
    def theirs(optax):
        climb = optax.chain(optax.contrib.normalize(), optax.sgd(rho))
        return optax.contrib.sam(optax.sgd(lr, mu), climb, sync_period=2)

    return Case(
        "sam",
        options,
        lambda: optfx.sam(optfx.sgd(lr, mu), rho, adaptive, sync_period=2),
        sam(lambda: sgd(lr, mu), rho, adaptive),
        {} if adaptive else {"optax": by_optax(theirs)},
        "Kwon et al., 2021" if adaptive else "Foret et al., 2020",
    )


def when_case(options: str, otherwise: str, theirs: str) -> Case:
    def rule(t, u, p):
        return 3.0 * u

    tx = lambda m, around: m.chain(m.sgd(0.02), around(m.scale(3.0)))
    return Case(
        "when",
        options,
        lambda: tx(optfx, lambda scale: optfx.when(lambda count: count % 3 == 1, scale, otherwise)),
        leafwise(when, make=lambda: rule, holds=lambda t: t % 3 == 1, lr=0.02)
        if otherwise == "pass"
        else leafwise(only, lr=0.06, holds=lambda t: t % 3 == 1),
        {"optax": by_optax(lambda o: tx(o, lambda scale: getattr(o, theirs)(scale, lambda step: step % 3 == 1)))},
    )


def only(p, grad, lr: float, holds: Callable[[int], bool]) -> Iterator[np.ndarray]:
    for t in range(1000):
        p = p - lr * grad(t, p) if holds(t) else p
        yield p


def flatten_case(options: str, tx: Callable[[Any], Any], rule: Callable[[], Rule]) -> Case:
    formula = leafwise(lookahead, make=rule, every=10**6, outer=lambda: sgd(1.0))
    return Case(
        "flatten",
        options,
        lambda: optfx.flatten(tx(optfx)),
        formula,
        {"optax": by_optax(lambda optax: optax.flatten(tx(optax)))},
    )


CASES = [
    accumulate_case("every=3, around sgd", 3, lambda m: m.sgd(0.05, 0.9), lambda: sgd(0.05, 0.9)),
    accumulate_case("every=2, around adam", 2, lambda m: m.adam(0.1, 0.8), lambda: adam(0.1, 0.8)),
    apply_every_case(1, 0.05),
    apply_every_case(4, 0.02),
    lookahead_case(5, 0.5, 0.05, 0.0),
    lookahead_case(3, 0.8, 0.02, 0.9),
    Case(
        "lookahead",
        "every=2, outer=sgd(0.7, 0.5, nesterov=True)",
        lambda: optfx.lookahead(optfx.adam(0.1), 2, optfx.sgd(0.7, 0.5, nesterov=True)),
        leafwise(lookahead, make=lambda: adam(0.1), every=2, outer=lambda: sgd(0.7, 0.5, True)),
        paper="Kallusky et al., 2025",
    ),
    schedule_free_sgd_case("constant rate", 0.05, 0.9, 0.1, optax=True),
    schedule_free_sgd_case("warmup, r=1", 0.1, 0.7, 0.05, warmup=5, r=1.0),
    schedule_free_adamw_case("constant rate", 0.05, 0.9, 0.999, 1e-8, 0.1, optax=True),
    schedule_free_adamw_case("warmup, r=2", 0.1, 0.95, 0.99, 1e-6, 0.01, warmup=4, r=2.0),
    schedule_free_radam_case("defaults but the rate", 0.05, 0.9, 0.999, 1e-8, 0.0),
    schedule_free_radam_case("decay, r=1", 0.1, 0.8, 0.99, 1e-6, 0.1, r=1.0),
    Case(
        "schedule_free",
        "r=0.5, weight_lr_power=0",
        lambda: optfx.schedule_free(optfx.identity(), 0.05, 0.6, 0.0, r=0.5),
        leafwise(schedule_free, rate=lambda t: 0.05, b1=0.6, r=0.5, power=0.0),
        paper="Defazio et al., 2024",
    ),
    Case(
        "schedule_free",
        "a rate that falls",
        lambda: optfx.schedule_free(optfx.identity(), optfx.linear_schedule(0.1, 0.0, 20), 0.9, 1.0),
        leafwise(schedule_free, rate=falling(0.1), b1=0.9, power=1.0),
        paper="Defazio et al., 2024",
    ),
    Case(
        "gpa",
        "the authors' numbers, around adam",
        lambda: optfx.gpa(optfx.adam(0.1), 0.9967, 0.7),
        leafwise(gpa, make=lambda: adam(0.1), mu_x=0.9967, mu_y=0.7),
        paper="Defazio et al., 2025",
    ),
    Case(
        "gpa",
        "mu_x=mu, mu_y=1 is momentum",
        lambda: optfx.gpa(optfx.sgd(0.02 / (1 - 0.9)), 0.9, 1.0),
        leafwise(lookahead, make=lambda: sgd(0.02, 0.9), every=10**6, outer=lambda: sgd(1.0)),
        {"torch": by_torch(lambda ps: torch.optim.SGD(ps, 0.02, momentum=0.9))},
        "Defazio et al., 2025",
    ),
    Case(
        "gpa",
        "mu_x=mu_y=mu is Nesterov's",
        lambda: optfx.gpa(optfx.sgd(0.02 / (1 - 0.9)), 0.9, 0.9),
        leafwise(gpa, make=lambda: sgd(0.02 / (1 - 0.9)), mu_x=0.9, mu_y=0.9),
        {"torch": by_torch(lambda ps: torch.optim.SGD(ps, 0.02, momentum=0.9, nesterov=True))},
        "Defazio et al., 2025",
    ),
    Case(
        "ema_nesterov",
        "beta=0.5, gamma=0.99, around adam",
        lambda: optfx.ema_nesterov(optfx.adam(0.1)),
        leafwise(ema_nesterov, make=lambda: adam(0.1), beta=lambda t: 0.5, gamma=0.99),
        paper="Yau et al., 2026",
    ),
    Case(
        "ema_nesterov",
        "a beta that falls, gamma=0.5",
        lambda: optfx.ema_nesterov(optfx.sgd(0.02, 0.5), optfx.linear_schedule(0.6, 0.0, 20), 0.5),
        leafwise(ema_nesterov, make=lambda: sgd(0.02, 0.5), beta=falling(0.6), gamma=0.5),
        paper="Yau et al., 2026",
    ),
    sam_case("rho=0.05, sync_period=2", 0.05, 0.0, 0.05),
    sam_case("rho=0.2, sync_period=2, around momentum", 0.02, 0.9, 0.2),
    sam_case("adaptive, rho=0.5, sync_period=2", 0.02, 0.9, 0.5, adaptive=True),
    Case(
        "reset_every",
        "every=4, around adam",
        lambda: optfx.reset_every(optfx.adam(0.1), 4),
        leafwise(reset_every, make=lambda: adam(0.1), every=4),
        paper="Huang et al., 2025",
    ),
    Case(
        "reset_every",
        "every=7, around momentum",
        lambda: optfx.reset_every(optfx.sgd(0.02, 0.9), 7),
        leafwise(reset_every, make=lambda: sgd(0.02, 0.9), every=7),
        paper="Huang et al., 2025",
    ),
    when_case("at each third step", "pass", "conditionally_transform"),
    when_case("at each third step, else zero", "zero", "conditionally_mask"),
    flatten_case("around adam", lambda m: m.adam(0.1), lambda: adam(0.1)),
    flatten_case("around momentum", lambda m: m.sgd(0.02, 0.9), lambda: sgd(0.02, 0.9)),
]
