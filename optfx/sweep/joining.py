"""Results side by side as one: of parts of a sweep, of other settings, of other structures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from optfx import tree
from optfx.sweep.configs import Column
from optfx.sweep.history import STOPPED, History, beside
from optfx.sweep.population import Population, join_populations, renumbered, together
from optfx.sweep.result import Result
from optfx.sweep.spaces import ABSENT, Labels


def join(parts: Sequence[Any]) -> Any:
    """Several populations, or several results, as one, in their order.

    Members that have one number twice get new ones. In results, what one has and another has not, settings, metrics or
    losses of later steps, is NaN; members may be of several structures. Times are added.

    Args:
        parts: populations of one structure, or results.

    Raises:
        ValueError: nothing to join; populations of other settings or structures; results that are judged by different
            metrics.

    Example:
        >>> import torch, optfx
        >>> from optfx import sweep
        >>> trainer = sweep.Trainer(
        ...     lambda config: optfx.sgd(config["rate"]), lambda params, batch: (params["w"] - batch).square().sum(),
        ...     {"w": torch.zeros(2)}, [torch.ones(2)], compile=False)
        >>> population = trainer.start({"rate": [0.1, 0.2, 0.3]})
        >>> sweep.join([population[2:], population[:2]]).member
        tensor([2, 0, 1])
    """
    if not parts:
        raise ValueError("join: there is nothing")
    if all(isinstance(x, Population) for x in parts):
        return join_populations(parts)
    return join_results(parts)


def join_results(results: Sequence[Result]) -> Result:
    if len(judged := {(r.metric, r.mode) for r in results}) > 1:
        raise ValueError(f"join: the results are judged differently: {', '.join(map(str, sorted(judged, key=str)))}")
    numbers = renumbered([r.member for r in results])
    results = [_numbered(r, mine) for r, mine in zip(results, numbers.split([len(r) for r in results]), strict=True)]
    steps = max(len(r.losses) for r in results)
    losses = [torch.cat([r.losses, r.losses.new_full((steps - len(r.losses), len(r)), math.nan)]) for r in results]
    histories = [r.history for r in results]
    return dataclasses.replace(
        results[0],
        configs=_columns([r.configs for r in results], [len(r) for r in results]),
        losses=torch.cat(losses, 1),
        metrics=_columns([r.metrics for r in results], [len(r) for r in results], measured=True),
        params=together([r.params for r in results]),
        diverged=torch.cat([r.diverged for r in results]),
        chunk_size=max(r.chunk_size for r in results),
        compile_seconds=sum(r.compile_seconds for r in results),
        run_seconds=sum(r.run_seconds for r in results),
        seconds=sum(r.seconds for r in results),
        population=None if any(r.population is None for r in results) else together([r.population for r in results]),
        history=None
        if None in histories
        else beside([h for h in histories if h is not None], [r.member for r in results]),
    )


def _numbered(result: Result, numbers: Tensor) -> Result:
    """With other numbers for its members."""
    if torch.equal(result.member, numbers) or not isinstance(result.population, Population):
        return result
    new = dict(zip(result.member.tolist(), numbers.tolist(), strict=True)) | {STOPPED: STOPPED}
    history = result.history
    if history is not None:
        parent = torch.tensor([[new.get(x, STOPPED) for x in row] for row in history.parent.tolist()])
        history = History(
            history.steps, history.metrics, history.values, history.configs, parent.view(history.parent.shape)
        )
    return dataclasses.replace(result, population=tree.replace(result.population, member=numbers), history=history)


def _columns(parts: Sequence[dict[str, Any]], sizes: Sequence[int], measured: bool = False) -> dict[str, Any]:
    """Columns one below the other; where a part has none of a name, its values are absent, and NaN if they are measured
    ones."""
    found: dict[str, Column] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        like = next(part[name] for part in parts if name in part)
        if isinstance(like, Labels):
            found[name] = Labels(x for part, n in zip(parts, sizes, strict=True) for x in part.get(name, [""] * n))
        else:
            if measured and not all(name in part for part in parts):
                like = like.double()
            nothing = math.nan if like.is_floating_point() else ABSENT
            every = zip(parts, sizes, strict=True)
            found[name] = torch.cat([part[name] if name in part else like.new_full((n,), nothing) for part, n in every])
    return found
