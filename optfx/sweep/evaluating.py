"""Evaluating populations: functions of all members, whose numbers do not depend on who is beside whom."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from optfx import tree
from optfx.sweep.capacity import chunks
from optfx.sweep.members import eval_params
from optfx.sweep.population import Population
from optfx.sweep.sizes import FEWEST, FIXED
from optfx.sweep.training import HOST, Training
from optfx.tree import Tree

MOST = 512  # members at once: more are no faster, and need more memory

Mapped = Callable[[Any, Tree, Tree, dict[str, Tensor]], Any]  # of optimizers, parameters, states and settings


def evaluate(training: Training, population: Population) -> dict[str, Tensor]:
    """What `evaluate` says about each member, `{metric: (n,)}`: said where members train."""
    metrics = vmap(training.recipe.metrics)
    of_all = lambda txs, params, state, config: metrics(vmap(eval_params)(txs, params, state), config)
    with torch.no_grad():
        population = training.prepared(population)
        if not training.metrics:
            return {}
        if training.spread is not None:
            return training.spread.evaluate(population)
        if training.evaluates_apart is None:
            training.evaluates_apart = _keeps_apart(training, population, of_all)
        return _mapped(training, population, of_all, None if training.evaluates_apart else FIXED)


def read_out(training: Training, population: Population) -> Tree:
    """The parameters to evaluate members with: those they train, or, say, an average of them."""
    with torch.no_grad():
        population = training.prepared(population)
        return _mapped(training, population, lambda txs, params, state, _: vmap(eval_params)(txs, params, state), None)


def _mapped(training: Training, population: Population, f: Mapped, fixed: int | None) -> Any:
    """A function of all members, in chunks of as many as fit, or of one size."""
    n, parts = len(population), []
    for index, real in chunks(n, fixed or min(training.size(n), MOST), filled=fixed is not None):
        # one alone would be two: a product of one matrix is rounded as no other
        part = population if 1 < len(index) == n else population[index if len(index) > 1 else index.repeat(FEWEST)]
        found = f(*_given(training, part))
        parts.append(tree.map(lambda x, real=real: x[:real], found))
    return tree.map(lambda *xs: (xs[0] if len(xs) == 1 else torch.cat(xs)).to(HOST), *parts)


def _given(training: Training, part: Population) -> tuple[Any, Tree, Tree, dict[str, Tensor]]:
    params, state, configs, _ = training.there(part)
    return training.recipe.optimizers(part.configs, training.device), params, state, configs


def _keeps_apart(training: Training, population: Population, f: Mapped) -> bool:
    """Whether we know that the numbers of a member are the same in chunks of any size."""
    from optfx.compiler.captured import NotCaptured, trace

    with contextlib.suppress(NotCaptured, RuntimeError):  # it has run before, and torch may not trace it
        txs, *trees = _given(training, population[torch.zeros(FEWEST, dtype=torch.int64, device=HOST)])
        return trace(lambda *trees: f(txs, *trees), tuple(trees)).keeps_apart()
    return False
