"""The picture of population based training: who descends from whom, and the schedules that the survivors followed.

Looks cut training into stretches. In each, members are in the order of those that they go on from, so that no two lines
cross; a line that nobody goes on from ends. Its colors are the ranks at the look that ends the stretch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optfx.sweep.lineage import ancestors, schedules, sources
from optfx.sweep.pictures.scales import BEST, COLUMNS, DIVERGED, NothingToShow, Ruler, Scales, lines

if TYPE_CHECKING:
    from optfx.sweep.result import Result

BEND = 0.4  # of a stretch, in which a line comes to its place


def genealogy(figure: Any, result: Result, scales: Scales) -> None:
    """Who descends from whom, and the schedules that the survivors followed."""
    history, member = result.history, result.member
    if history is None or not len(history):
        raise NothingToShow("genealogy: nobody looked while members trained")
    went = sources(history, member)
    if (went == torch.arange(len(result))).all():
        raise NothingToShow("genealogy: no member became a copy of another")
    found = schedules(history, member)
    changed = {name: found[name] for name in result.configs if name in found and _changes(found[name])}
    columns = min(max(len(changed), 1), COLUMNS)
    rows = math.ceil(len(changed) / columns)
    figure.set_size_inches(max(3.6 * columns, 7), 3.6 + 2.6 * rows)
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.4] + [1] * rows)
    steps = torch.cat([torch.tensor([result.oldest - len(result.losses)]), history.steps]).double()
    places = heights(history.values, went)
    _tree(tree := figure.add_subplot(grid[0, :]), steps, history.values, went, places, scales)
    if scales.best is not None:
        way = ancestors(history, member)[:, scales.best]
        lines(tree, _path(steps, way, places), BEST, linewidths=2, zorder=3)
        tree.plot([], [], color=BEST, linewidth=2, label="ancestors of the best")
        tree.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    for i, (name, x) in enumerate(changed.items()):
        axes = figure.add_subplot(grid[1 + i // columns, i % columns])
        _schedules(axes, steps, x, scales)
        axes.set(xlabel="step", ylabel=name, xlim=steps[[0, -1]].tolist())
    scales.bar(tree)


def _changes(x: Tensor) -> bool:
    """Whether a setting is another one from one look to the next: (looks, n), NaN after the last of a member."""
    return bool(((x[1:] != x[:-1]) & ~x[1:].isnan()).any())


def heights(values: Tensor, went: Tensor) -> Tensor:
    """(looks, n), where each member is drawn, from 0 to 1, NaN where it was not there."""
    found = torch.full_like(values, math.nan)
    before = -values[0]  # at first, the best on top
    for k, there in enumerate(~values.isnan()):
        order = torch.argsort(before, stable=True)
        order = order[there[order]]
        found[k, order] = (torch.arange(len(order), dtype=torch.float64) + 0.5) / max(len(order), 1)
        after = found[k][went[k]]
        own = went[k] == torch.arange(len(before))
        before = torch.where(own, after, after - 1e-6)  # a copy comes right below the original
    return found


def _path(steps: Tensor, way: Tensor, places: Tensor) -> list[Tensor]:
    """The line of the ancestors at some places, (looks,), from the beginning."""
    points = []
    for k, place in enumerate(way.tolist()):
        y = places[k, place].item()
        if y == y:
            points += [(steps[k] + (BEND * (steps[k + 1] - steps[k]) if k else 0), y), (steps[k + 1], y)]
    return [torch.tensor(points)] if points else []


def _tree(axes: Any, steps: Tensor, values: Tensor, went: Tensor, places: Tensor, scales: Scales) -> None:
    pieces, colors = [], []
    for k, row in enumerate(values):
        finite = row[row.isfinite()]
        for i in (~row.isnan()).nonzero()[:, 0].tolist():
            begin, end, y = steps[k].item(), steps[k + 1].item(), places[k, i].item()
            source = places[k - 1, went[k - 1, i]].item() if k else y
            pieces.append(torch.tensor([[begin, source], [begin + BEND * (end - begin), y], [end, y]]))
            rank = (finite < row[i]).sum().item() / max(len(finite) - 1, 1)
            colors.append(scales.shades(rank) if row[i].isfinite() else DIVERGED)
    lines(axes, pieces, colors, linewidths=1.0)
    axes.set(
        xlabel="step",
        ylabel="members, colored by rank at each look",
        yticks=[],
        xlim=steps[[0, -1]].tolist(),
        ylim=(0, 1),
    )


def _schedules(axes: Any, steps: Tensor, found: Tensor, scales: Scales) -> None:
    """The settings of each survivor over the steps, its ancestors' before it was a copy."""
    ruler = Ruler(found.flatten())
    ruler.fit(axes, "y")
    edges = steps.repeat_interleave(2)[1:-1]
    stairs = lambda i: torch.stack([edges, found[:, i].repeat_interleave(2)], 1)
    curves = {i: stairs(i) for i in scales.worst_first}
    lines(axes, [x[x[:, 1].isfinite()] for x in curves.values()], [scales.color(i) for i in curves], linewidths=0.8)
    if scales.best is not None:
        lines(axes, [curves[scales.best]], BEST, linewidths=1.8)
