"""The picture of who was stopped when: the metric at each look, and along each setting how long members trained."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optfx.sweep.pictures.scales import (
    BEST,
    COLUMNS,
    DIVERGED,
    STOPPED,
    NothingToShow,
    Ruler,
    Scales,
    finite,
    label_numbers,
    lines,
    was_stopped,
)

if TYPE_CHECKING:
    from optfx.sweep.history import History
    from optfx.sweep.result import Result


def stopped(figure: Any, result: Result, scales: Scales) -> None:
    """Who was stopped when."""
    if result.history is None or not was_stopped(result).any():
        raise NothingToShow("stopped: every member went on to the end")
    columns = min(len(result.configs), COLUMNS)
    rows = math.ceil(len(result.configs) / columns)
    figure.set_size_inches(max(2.9 * columns, 7), 3.2 + 2.6 * rows)
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.2] + [1] * rows)
    _looks(looks := figure.add_subplot(grid[0, :]), result.history, scales)
    for i, (name, x) in enumerate(result.configs.items()):
        axes = figure.add_subplot(grid[1 + i // columns, i % columns])
        _lives(axes, Ruler(x), result.age, scales)
        axes.set(xlabel="step", ylabel=name, xlim=(0, 1.02 * result.oldest))
    scales.bar(looks)


def seen(history: History, scales: Scales) -> Tensor:
    """(looks, n), the metric at each look, NaN where there was none."""
    values = history.values if scales.mode == "min" else -history.values
    found = history.metrics.get(scales.metric, values)
    return torch.where(found.isfinite() & history.values.isfinite(), found, math.nan)


def _looks(axes: Any, history: History, scales: Scales) -> None:
    values = seen(history, scales)
    curves = [finite(history.steps, curve) for curve in values.T]
    last = {i: curves[i][-1] for i in range(len(curves)) if len(curves[i])}
    gone, ranked = [*scales.stopped, *(~scales.ok).nonzero()[:, 0].tolist()], scales.worst_first
    lines(axes, [curves[i] for i in gone], STOPPED, linewidths=0.6)
    lines(axes, [curves[i] for i in ranked], [scales.color(i) for i in ranked], linewidths=0.9)
    if scales.best is not None and len(curves[scales.best]):
        axes.plot(*curves[scales.best].T.numpy(), color=BEST, linewidth=1.8, marker="o", ms=4, label="best", zorder=3)
    for members, word, style in (
        ([i for i in gone if scales.ok[i]], "stopped", {"color": STOPPED, "s": 8, "linewidths": 0}),
        ([i for i in gone if not scales.ok[i]], "diverged", {"color": DIVERGED, "s": 14, "marker": "x"}),
    ):
        ends = [last[i] for i in members if i in last]
        if ends:
            axes.scatter(*torch.stack(ends).T.numpy(), zorder=2, label=f"{word} ({len(members)})", **style)
    shown = values[values.isfinite()]
    if shown.numel():
        worst = shown.quantile(0.95 if scales.mode == "min" else 0.05).item()
        best = (shown.min() if scales.mode == "min" else shown.max()).item()
        if scales.mode == "min" and best > 0 and worst > 3 * best:
            axes.set_yscale("log")
            axes.set_ylim(best / 1.15, worst * 1.15)
            label_numbers(axes.yaxis)
        elif worst != best:
            axes.set_ylim(*sorted((best - 0.05 * (worst - best), worst)))
    axes.set(xlabel="step", ylabel=scales.metric, xlim=(0, 1.02 * int(history.steps.max())))
    axes.legend(loc="upper right" if scales.mode == "min" else "lower right")


def _lives(axes: Any, ruler: Ruler, age: Tensor, scales: Scales) -> None:
    """A line for each member, at its setting, as long as it trained."""
    ruler.fit(axes, "y")
    life = [
        torch.tensor([[0.0, y], [age_of, y]]) for age_of, y in zip(age.tolist(), ruler.values.tolist(), strict=True)
    ]
    gone, ranked = [*scales.stopped, *(~scales.ok).nonzero()[:, 0].tolist()], scales.worst_first
    shades = [STOPPED if scales.ok[i] else DIVERGED for i in gone]
    lines(axes, [life[i] for i in gone], shades, linewidths=0.6)
    axes.scatter(age[gone].numpy(), ruler.values[gone].numpy(), color=shades, s=6, linewidths=0)
    lines(axes, [life[i] for i in ranked], [scales.color(i) for i in ranked], linewidths=1.2)
    if scales.best is not None:
        lines(axes, [life[scales.best]], BEST, linewidths=1.8)
