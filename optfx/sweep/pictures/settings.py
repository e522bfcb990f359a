"""The picture of a sweep: its loss curves, the metric against each setting, and a map over two of them.

What was stopped is gray, members that diverged are crosses, and members much worse than most are triangles at the edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optfx.sweep.pictures.scales import (
    BEST,
    COLUMNS,
    DIVERGED,
    STOPPED,
    Ruler,
    Scales,
    finite,
    label_numbers,
    lines,
)

if TYPE_CHECKING:
    from optfx.sweep.result import Result

EMPTY = "#e6e6e6"
CELLS = 200  # along each side of the map
TOGETHER = 1 << 21  # distances that are looked at at a time


def smooth(curves: Tensor, points: int = 150) -> tuple[Tensor, Tensor]:
    """Means over equal intervals of the steps, at most `points` of them: (p,) steps and (p, n) losses."""
    steps = len(curves)
    width = math.ceil(steps / points)
    ends = torch.arange(width, steps + 1, width)
    means = torch.stack([curves[end - width : end].mean(0) for end in ends.tolist()])
    return ends - (width - 1) / 2, means


def settings(figure: Any, result: Result, scales: Scales) -> None:
    """The loss curves, and the metric against each setting; of two settings, a map over both."""
    configs = {k: Ruler(x) for k, x in result.configs.items()}
    plane = len(configs) == 2 and all(ruler.values.isfinite().all() for ruler in configs.values())
    panels = len(configs) + plane
    columns = min(panels, COLUMNS)
    rows = math.ceil(panels / columns)
    figure.set_size_inches(max(2.9 * columns, 7), 3.2 + 2.6 * rows)
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.2] + [1] * rows)
    curves = figure.add_subplot(grid[0, :])
    _curves(curves, result, scales)
    panel = None
    for i, (name, x) in enumerate(configs.items()):
        panel = figure.add_subplot(grid[1 + i // columns, i % columns], sharey=panel)
        _against(panel, name, x, scales, label=scales.metric if i % columns == 0 else None)
    if plane:
        _map(figure.add_subplot(grid[1, 2]), configs, scales)
    scales.bar(curves)


def _curves(axes: Any, result: Result, scales: Scales) -> None:
    steps, means = smooth(result.losses.to(torch.float64))
    first = result.oldest - len(result.losses)  # how old members were at the first of the losses
    shown = means[means.isfinite()]
    curves = [finite(steps + first, curve) for curve in means.T]
    some = lambda members: [curves[i] for i in members]
    gone = (~scales.ok).nonzero()[:, 0].tolist()
    lines(axes, some(scales.stopped), STOPPED, linewidths=0.6, alpha=0.7)
    lines(axes, some(gone), DIVERGED, linewidths=0.6, alpha=0.5)
    ranked = scales.worst_first
    lines(axes, some(ranked), [scales.color(i) for i in ranked], linewidths=0.7, alpha=0.8)
    if scales.best is not None:
        lines(axes, some([scales.best]), BEST, linewidths=1.8, label="best")
    for members, color, word in ((scales.stopped, STOPPED, "stopped"), (gone, DIVERGED, "diverged")):
        if members:
            axes.plot([], [], color=color, linewidth=1, label=f"{word} ({len(members)})")
    axes.set_xlim(first, first + max(len(result.losses), 1))
    if shown.numel():
        start = result.losses[0][result.losses[0].isfinite()]
        top = min(shown.max().item(), 3 * start.median().item() if start.numel() else math.inf)
        low = shown.sort().values[len(shown) // 200].item()  # a few spikes down would squeeze all the others
        if low > 0:
            axes.set_yscale("log")
            axes.set_ylim(low / 1.2, top * 1.2)
        elif low < top:
            axes.set_ylim(low - 0.05 * (top - low), top)
    axes.set(xlabel="step", ylabel="training loss")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right")


def _against(axes: Any, name: str, ruler: Ruler, scales: Scales, label: str | None) -> None:
    x = ruler.values
    inside = scales.shown == scales.values
    stopped = scales.stopped
    axes.scatter(x[stopped], scales.shown[stopped], color=STOPPED, s=9, linewidths=0)
    for marker, ok in (("o", True), ("^" if scales.mode == "min" else "v", False)):
        order = [i for i in scales.worst_first if inside[i] == ok]
        axes.scatter(
            x[order], scales.shown[order], c=[scales.color(i) for i in order], s=12, marker=marker, linewidths=0
        )
    if scales.best is not None:
        axes.scatter(x[scales.best], scales.values[scales.best], s=60, marker="*", color=BEST, zorder=3)
    ruler.fit(axes, "x")
    if scales.log:
        axes.set_yscale("log")
        label_numbers(axes.yaxis)
    gone = ~scales.ok
    if gone.any():  # without a value: along the worst edge
        edge = 0.98 if scales.mode == "min" else 0.02
        axes.scatter(
            x[gone],
            [edge] * int(gone.sum()),
            transform=axes.get_xaxis_transform(),
            s=14,
            marker="x",
            color=DIVERGED,
            linewidths=0.8,
        )
    axes.set_xlabel(name)
    if label:
        axes.set_ylabel(label)
    else:
        axes.tick_params(which="both", labelleft=False)


def _map(axes: Any, configs: Mapping[str, Ruler], scales: Scales) -> None:
    """The plane of two settings, colored by the nearest, gray if that diverged or was stopped."""
    from matplotlib.colors import to_rgba

    (one, x), (two, y) = configs.items()
    a, b = x.values, y.values
    colors = torch.tensor([scales.color(i) if ok else to_rgba(EMPTY) for i, ok in enumerate(scales.ended.tolist())])
    members = torch.stack([y.at(b), x.at(a)], 1)
    middle = torch.linspace(0, 1, 2 * CELLS + 1, dtype=torch.float64)[1::2]
    cells = torch.cartesian_prod(middle, middle)
    nearest = torch.empty(len(cells), dtype=torch.int64)
    for some, found in zip(*(x.split(max(1, TOGETHER // len(members))) for x in (cells, nearest)), strict=True):
        found.copy_(
            torch.cdist(some, members).argmin(1)
        )  # kept apart, results would lie between large pieces of memory
    shades = colors[nearest].view(CELLS, CELLS, 4)
    axes.pcolormesh(x.edges(CELLS).numpy(), y.edges(CELLS).numpy(), shades.numpy(), rasterized=True)
    axes.scatter(a[scales.stopped], b[scales.stopped], s=6, color=STOPPED, linewidths=0)
    axes.scatter(a[scales.ended], b[scales.ended], s=3, color="white", linewidths=0)
    axes.scatter(a[~scales.ok], b[~scales.ok], s=14, marker="x", color=DIVERGED, linewidths=0.8)
    if scales.best is not None:
        axes.scatter(a[scales.best], b[scales.best], s=70, marker="*", color=BEST, edgecolors="white", linewidths=0.6)
    axes.set(xlabel=one, ylabel=two)
    x.fit(axes, "x")
    y.fit(axes, "y")
    axes.grid(False)
