"""Policies: functions between two stretches of training, (population, values, key) -> population.

The values are those of the metric that decides, (n,) float64: less is better, whatever the metric, and a member that
diverged has inf. A policy says who goes on, by indexing the population, and as what, by other settings. Its key is
there for random choices: with it, a run that goes on after a break makes the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from optfx import random, tree
from optfx.sweep.population import Population
from optfx.sweep.spaces import choice

Policy = Callable[[Population, Tensor, Tensor], Population]


def halve(eta: float = 4) -> Policy:
    r"""Successive halving: of n members, the best $\lfloor n / \eta \rfloor$ go on, and at least one.

    Args:
        eta: by how much there are fewer.

    Raises:
        ValueError: eta is not above 1.

    Reference: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016,
        <https://arxiv.org/abs/1502.07943>.

    Example:
        >>> from optfx import sweep
        >>> sweep.halve(2)(torch.arange(4) * 10, torch.tensor([0.3, 0.1, float("inf"), 0.2]), None)
        tensor([10, 30])
    """
    if not eta > 1:
        raise ValueError(f"halve: eta is above 1, got {eta}")
    return lambda population, values, key: population[values.argsort(stable=True)[: max(1, int(len(values) / eta))]]


def exploit(
    space: Mapping[str, Any],
    fraction: float = 0.25,
    factors: tuple[float, float] = (0.8, 1.2),
    resample: float = 0.0,
) -> Policy:
    """Population based training: the worst become copies of the best, and each copy has other settings.

    A number is multiplied by one of two factors, and stays within its space; of a choice, the value before or after is
    taken; with the probability `resample`, it is drawn anew. Names that are not in the space stay as they are.

    Args:
        space: `{name: uniform, log_uniform or choice of numbers}`, the settings that may change.
        fraction: how many are replaced, and by as many.
        factors: less and more.
        resample: how often a setting is drawn anew.

    Raises:
        ValueError: a fraction above one half; a name that is no setting.

    Reference: Jaderberg et al., "Population Based Training of Neural Networks", 2017,
        <https://arxiv.org/abs/1711.09846>: truncation selection, perturb and resample.
    """
    if not 0 < fraction <= 0.5:
        raise ValueError(f"exploit: the fraction is above 0 and at most 0.5, got {fraction}")

    def policy(population: Population, values: Tensor, key: Tensor) -> Population:
        if unknown := [name for name in space if name not in population.configs]:
            raise ValueError(f"exploit: {unknown[0]!r} is no setting of {', '.join(map(repr, population.configs))}")
        n, rank = len(population), values.argsort(stable=True)
        k = min(max(1, int(n * fraction)), n // 2)
        source = torch.arange(n)
        source[rank[n - k :]] = rank[:k]
        copied = torch.zeros(n, dtype=torch.bool)
        copied[rank[n - k :]] = True
        population = population[source]
        configs = dict(population.configs)
        for (name, dimension), own in zip(space.items(), random.split(key, len(space)), strict=True):
            moved = _moved(dimension, configs[name], own, factors, resample)
            configs[name] = torch.where(copied, moved.to(configs[name].dtype), configs[name])
        return tree.replace(population, configs=configs)

    return policy


def _moved(dimension: Any, x: Tensor, key: Tensor, factors: tuple[float, float], resample: float) -> Tensor:
    ways, again, points = (random.uniform(k, x.shape, dtype=torch.float64) for k in random.split(key, 3))
    up = ways < 0.5
    if isinstance(dimension, choice):
        values = dimension.at(torch.arange(len(dimension.values)) / len(dimension.values))
        at = (x[:, None] - values).abs().argmin(1)
        moved = values[torch.where(up, at + 1, at - 1).clamp(0, len(values) - 1)]
    else:
        moved = (x * torch.where(up, max(factors), min(factors))).clamp(dimension.low, dimension.high)
    return torch.where(again < resample, dimension.at(points).to(moved.dtype), moved)


def stop_worse_than_median() -> Policy:
    """Stop the members whose best value so far is worse than the median of what there is now.

    Reference: Golovin et al., "Google Vizier: A Service for Black-Box Optimization", 2017,
        <https://doi.org/10.1145/3097983.3098043>; Optuna, `MedianPruner`.
    """

    def policy(population: Population, values: Tensor, key: Tensor) -> Population:
        return population[values.isfinite() & (population.best <= values.median())]

    return policy


def stop_stalled(steps: int) -> Policy:
    """Stop the members that diverged, or whose best value is as many steps old.

    Args:
        steps: after how many steps without a better value a member is stopped.
    """
    return lambda population, values, key: population[
        values.isfinite() & (population.age - population.best_age < steps)
    ]


def stop_diverged() -> Policy:
    """Stop the members that diverged."""
    return lambda population, values, key: population[values.isfinite()]
