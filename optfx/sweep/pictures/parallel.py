"""The picture of parallel coordinates: a line for each member, through its settings and to its metric."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optfx.sweep.pictures.scales import BEST, DIVERGED, STOPPED, Ruler, Scales, lines

if TYPE_CHECKING:
    from optfx.sweep.result import Result


def parallel(figure: Any, result: Result, scales: Scales) -> None:
    """A line for each member, through its settings and to its metric, on which the best is on top."""
    rulers = {name: Ruler(x) for name, x in result.configs.items()}
    figure.set_size_inches(max(7, 2.2 * len(rulers) + 2), 4)
    axes = figure.add_subplot()
    axes.set(xlim=(0, len(rulers)), ylim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)
    for i, (name, ruler) in enumerate(rulers.items()):
        ruler.fit(own := _upright(axes, i / len(rulers), name), "y")
        for label in own.get_yticklabels(which="both"):
            label.set_bbox({"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5})
    up = _metric(_upright(axes, 1.0, scales.metric), scales)
    heights = torch.stack([*(ruler.at(ruler.values) for ruler in rulers.values()), up], 1)  # (n, settings + 1)
    steps = torch.arange(heights.shape[1], dtype=torch.float64)
    curves = [torch.stack([steps, row], 1)[row.isfinite()] for row in heights]
    some = lambda members: [curves[i] for i in members]
    gone, ranked = (~scales.ok).nonzero()[:, 0].tolist(), scales.worst_first
    lines(axes, some(scales.stopped), STOPPED, linewidths=0.4, alpha=0.6)
    lines(axes, some(gone), DIVERGED, linewidths=0.7, alpha=0.7, linestyles="dashed")
    lines(axes, some(ranked), [scales.color(i) for i in ranked], linewidths=0.9, alpha=0.8)
    named = [("stopped", STOPPED, scales.stopped, "-"), ("diverged", DIVERGED, gone, "--")]
    if scales.best is not None:
        lines(axes, some([scales.best]), BEST, linewidths=2)
        named.insert(0, ("best", BEST, [scales.best], "-"))
    for word, color, members, dashes in named:
        if members:
            label = word if word == "best" else f"{word} ({len(members)})"
            axes.plot([], [], color=color, linestyle=dashes, label=label)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3)
    scales.bar(axes, pad=0.09)


def _upright(axes: Any, x: float, name: str) -> Any:
    """An axis of its own, at a place from 0 to 1."""
    own = axes.inset_axes((x, 0, 1e-6, 1))
    own.spines["left"].set_linewidth(1)
    own.set_xticks([])
    own.grid(False)
    own.patch.set_visible(False)
    own.set_title(name, fontsize=9)
    own.set_zorder(3)
    return own


def _metric(axes: Any, scales: Scales) -> Tensor:
    """Make an axis of the metric, with the best on top: (n,) where each member is, 0 for those that diverged."""
    ruler = Ruler(torch.where(scales.ok, scales.shown, math.nan), log=scales.log)
    ruler.fit(axes, "y")
    axes.yaxis.tick_right()
    up = ruler.at(scales.shown)
    if scales.mode == "min":
        axes.invert_yaxis()
        up = 1 - up
    return torch.where(scales.ok, up, 0.0)
