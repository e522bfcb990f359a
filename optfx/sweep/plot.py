"""Plots of a sweep: the loss curves, the metric against each hyperparameter, and a map over two of them.

All panels share one color scale, by rank: from dark (the best) to pale (the worst), as many members in each shade. The
best member is orange, members that diverged are gray crosses, and members much worse than most are triangles at the
edge. An axis is logarithmic if its values are spread like powers; that of a score, of which more is better, never is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BEST, DIVERGED = "#d55e00", "#8c8c8c"
SHADES = "YlGnBu_r", 0.88  # a map of matplotlib, and how much of it: its end is too pale to see
QUARTERS = [0.0, 0.25, 0.5, 0.75, 1.0]  # of the ranks, labelled with the metric there
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#ececec",
    "axes.axisbelow": True,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.9,
    "svg.fonttype": "none",
}
EMPTY = "#e6e6e6"
CELLS = 200  # along each side of the map
COLUMNS = 4  # of panels, at most


def is_log(x: Tensor) -> bool:
    """Whether values are spread like powers: positive, over at least a decade, and with a median closer to the
    geometric middle of the range than to the arithmetic one."""
    x = x[x.isfinite()].to(torch.float64)
    if not x.numel() or x.min() <= 0 or x.max() < 10 * x.min():
        return False
    low, middle, high = x.min().item(), x.quantile(0.5).item(), x.max().item()
    return abs(math.log(middle / math.sqrt(low * high))) < abs(math.log(2 * middle / (low + high)))


def smooth(curves: Tensor, points: int = 150) -> tuple[Tensor, Tensor]:
    """Means over equal intervals of the steps, at most `points` of them: (p,) steps and (p, n) losses."""
    steps = len(curves)
    width = math.ceil(steps / points)
    ends = torch.arange(width, steps + 1, width)
    means = torch.stack([curves[end - width : end].mean(0) for end in ends.tolist()])
    return ends - (width - 1) / 2, means


def draw(
    path: str | Path,
    configs: Mapping[str, Tensor],
    losses: Tensor,
    diverged: Tensor,
    metric: str,
    values: Tensor,
    mode: str,
) -> None:
    """Plot a sweep into a file (see `Result.plot`).

    Args:
        path: the file.
        configs: `{name: (n,)}`.
        losses: (steps, n).
        diverged: (n,) bool.
        metric: the name of the metric.
        values: (n,) float64, the metric of each member, NaN if it diverged.
        mode: `"min"` or `"max"`, which values are better.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('plots need matplotlib: pip install "optfx[sweep]"') from None
    style: dict[Any, Any] = {**matplotlib.rcParamsDefault, **STYLE, "backend": "agg"}
    with matplotlib.rc_context(style):
        plane = len(configs) == 2 and all(x.isfinite().all() for x in configs.values())
        panels = len(configs) + plane
        columns = min(panels, COLUMNS)
        rows = math.ceil(panels / columns)
        figure = Figure(figsize=(max(2.9 * columns, 7), 3.2 + 2.6 * rows), dpi=150, layout="constrained")
        grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.2] + [1] * rows)
        scales = _Scales(values, mode)
        curves = figure.add_subplot(grid[0, :])
        _curves(curves, losses, diverged, scales)
        panel = None
        for i, (name, x) in enumerate(configs.items()):
            panel = figure.add_subplot(grid[1 + i // columns, i % columns], sharey=panel)
            _against(panel, name, x, scales, label=metric if i % columns == 0 else None)
        if plane:
            _map(figure.add_subplot(grid[1, 2]), configs, scales)
        better = "less" if mode == "min" else "more"
        bar = figure.colorbar(scales.colors, ax=curves, label=f"{metric} ({better} is better)", pad=0.01, aspect=30)
        bar.set_ticks(QUARTERS, labels=scales.at_quarters())
        bar.ax.invert_yaxis()  # the best on top
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _label_numbers(axis: Any, x: Tensor) -> None:
    """Write the ticks of an axis as numbers, 0.001 and not a power, and whole ones if all values are."""
    from matplotlib.ticker import LogFormatter, MaxNLocator

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    if axis.get_scale() == "linear":
        if not x.is_floating_point():
            axis.set_major_locator(MaxNLocator(5, integer=True))
        return
    low, high = axis.get_view_interval()
    axis.set_major_formatter(Plain())
    axis.set_minor_formatter(Plain(labelOnlyBase=high >= 100 * low, minor_thresholds=(2, 0.5)))


class _Scales:
    """The scales of a plot: colors by rank, and an axis fitted to the better nine tenths of the values.

    Args:
        values: (n,), NaN if a member diverged.
        mode: `"min"` or `"max"`.
    """

    def __init__(self, values: Tensor, mode: str) -> None:
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, Normalize

        self.values, self.mode = values, mode
        self.ok = values.isfinite()
        good = values[self.ok] if self.ok.any() else torch.zeros(1, dtype=torch.float64)
        order = torch.argsort(values[self.ok] * (1 if mode == "min" else -1), stable=True).flip(0)
        self.worst_first = self.ok.nonzero()[:, 0][order].tolist()
        self.best = self.worst_first[-1] if self.worst_first else None
        self.log = bool(mode == "min" and good.min() > 0 and good.max() > 10 * good.min())
        best, poor = (good.min(), good.quantile(0.9)) if mode == "min" else (good.max(), good.quantile(0.1))
        limit = poor * (poor / best).sqrt() if self.log else poor + (poor - best) / 2
        self.shown = values.clamp(max=limit) if mode == "min" else values.clamp(min=limit)
        name, end = SHADES
        self.shades = ListedColormap(colormaps[name](torch.linspace(0, end, 256).numpy()))
        self.colors = ScalarMappable(Normalize(0, 1), self.shades)
        self.order = good.sort(descending=mode == "max").values

    def color(self, i: int) -> Any:
        better = self.order < self.values[i] if self.mode == "min" else self.order > self.values[i]
        return self.shades(better.sum().item() / max(len(self.order) - 1, 1))

    def at_quarters(self) -> list[str]:
        """The metric at the ranks of `QUARTERS`."""
        return [f"{self.order[round(q * (len(self.order) - 1))]:.3g}" for q in QUARTERS]


def _curves(axes: Any, losses: Tensor, diverged: Tensor, scales: _Scales) -> None:
    from matplotlib.collections import LineCollection

    steps, means = smooth(losses.to(torch.float64))
    finite = means[means.isfinite()]

    def lines(members: list[int], colors: Any, **style: Any) -> None:
        shown = [torch.stack([steps, means[:, i]], 1)[means[:, i].isfinite()].numpy() for i in members]
        axes.add_collection(LineCollection(shown, colors=colors, **style))

    gone = diverged.nonzero()[:, 0].tolist()
    lines(gone, DIVERGED, linewidths=0.6, alpha=0.5)
    lines(scales.worst_first, [scales.color(i) for i in scales.worst_first], linewidths=0.7, alpha=0.8)
    if scales.best is not None:
        lines([scales.best], BEST, linewidths=1.8, label="best")
    if gone:
        axes.plot([], [], color=DIVERGED, linewidth=1, label=f"diverged ({len(gone)})")
    axes.set_xlim(0, len(losses))
    if finite.numel():
        first = losses[0][losses[0].isfinite()]
        top = min(finite.max().item(), 3 * first.median().item() if first.numel() else math.inf)
        low = finite.sort().values[len(finite) // 200].item()  # a few spikes down would squeeze all the others
        if low > 0:
            axes.set_yscale("log")
            axes.set_ylim(low / 1.2, top * 1.2)
        elif low < top:
            axes.set_ylim(low - 0.05 * (top - low), top)
    axes.set(xlabel="step", ylabel="training loss")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right")


def _against(axes: Any, name: str, x: Tensor, scales: _Scales, label: str | None) -> None:
    inside = scales.shown == scales.values
    for marker, ok in (("o", True), ("^" if scales.mode == "min" else "v", False)):
        order = [i for i in scales.worst_first if inside[i] == ok]
        axes.scatter(
            x[order], scales.shown[order], c=[scales.color(i) for i in order], s=12, marker=marker, linewidths=0
        )
    if scales.best is not None:
        axes.scatter(x[scales.best], scales.values[scales.best], s=60, marker="*", color=BEST, zorder=3)
    there = x[x.isfinite()]  # not in the branch of another choice
    low, high = _ruler(there)[0][[0, -1]]
    axes.set(xlim=(low, high), xscale="log" if is_log(there) else "linear")
    _label_numbers(axes.xaxis, there)
    if scales.log:
        axes.set_yscale("log")
        _label_numbers(axes.yaxis, scales.values)
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


def _map(axes: Any, configs: Mapping[str, Tensor], scales: _Scales) -> None:
    """The plane of two hyperparameters, colored by the nearest setting, gray if that diverged."""
    from matplotlib.colors import to_rgba

    (one, a), (two, b) = configs.items()
    colors = torch.tensor([scales.color(i) if ok else to_rgba(EMPTY) for i, ok in enumerate(scales.ok.tolist())])
    (x, across), (y, up) = (_ruler(values) for values in (a, b))
    middle = torch.linspace(0, 1, 2 * CELLS + 1)[1::2].to(torch.float64)
    nearest = [((across - u) ** 2 + (up[None] - middle[:, None]) ** 2).argmin(1) for u in middle]
    axes.pcolormesh(x, y, colors[torch.stack(nearest, 1)].numpy(), rasterized=True)
    axes.scatter(a[scales.ok], b[scales.ok], s=3, color="white", linewidths=0)
    axes.scatter(a[~scales.ok], b[~scales.ok], s=14, marker="x", color=DIVERGED, linewidths=0.8)
    if scales.best is not None:
        axes.scatter(a[scales.best], b[scales.best], s=70, marker="*", color=BEST, edgecolors="white", linewidths=0.6)
    axes.set(xlabel=one, ylabel=two, xscale="log" if is_log(a) else "linear", yscale="log" if is_log(b) else "linear")
    _label_numbers(axes.xaxis, a)
    _label_numbers(axes.yaxis, b)
    axes.grid(False)


def _ruler(values: Tensor) -> tuple[Any, Tensor]:
    """The edges of the cells along an axis, and the positions of the values on it, from 0 to 1."""
    log = is_log(values)
    values = values.to(torch.float64)
    positions = values.log() if log else values
    low, high = positions.min().item(), positions.max().item()
    if low == high:
        low, high = low - 1, high + 1
    else:  # half a grid step beyond the ends
        gaps, least = positions.unique().diff() / 2, 0.02 * (high - low)
        low, high = low - max(gaps[0].item(), least), high + max(gaps[-1].item(), least)
    edges = torch.linspace(low, high, CELLS + 1, dtype=torch.float64)
    return (edges.exp() if log else edges).numpy(), (positions - low) / (high - low)
