"""Pictures of a sweep: the loss curves, the metric against each hyperparameter, and a map over two of them.

One scale of colours runs through a picture, from dark (the best) to light; the best member is orange, members that
diverged are grey crosses. An axis is logarithmic where the values are spread like powers. What is much worse than most
is drawn as a triangle at the edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BEST, DIVERGED = "#d55e00", "#8c8c8c"
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
COLUMNS = 4  # of panels at most


def is_log(x: Tensor) -> bool:
    """Whether values are spread like powers: positive, over more than a decade, the median nearer to the geometric
    middle of the range than to the arithmetic one."""
    x = x[x.isfinite()].to(torch.float64)
    if not x.numel() or x.min() <= 0 or x.max() < 10 * x.min():
        return False
    low, middle, high = x.min().item(), x.quantile(0.5).item(), x.max().item()
    return abs(math.log(middle / math.sqrt(low * high))) < abs(math.log(2 * middle / (low + high)))


def smooth(curves: Tensor, points: int = 150) -> tuple[Tensor, Tensor]:
    """Means over equal stretches of the steps, at most `points` of them: (p,) steps and (p, n) losses."""
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
    """Draw a sweep into a file (see `Result.plot`).

    Args:
        path: where to.
        configs: `{name: (n,)}`.
        losses: (steps, n).
        diverged: (n,) bool.
        metric: the name of what is judged.
        values: (n,) float64, NaN for what has none.
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
        panels = len(configs) + (len(configs) == 2)
        columns = min(panels, COLUMNS)
        rows = math.ceil(panels / columns)
        figure = Figure(figsize=(max(2.9 * columns, 7), 3.2 + 2.6 * rows), dpi=150, layout="constrained")
        grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.2] + [1] * rows)
        look = _Look(values, mode)
        curves = figure.add_subplot(grid[0, :])
        _curves(curves, losses, diverged, look)
        beside = None
        for i, (name, x) in enumerate(configs.items()):
            beside = figure.add_subplot(grid[1 + i // columns, i % columns], sharey=beside)
            _against(beside, name, x, look, label=metric if i % columns == 0 else None)
        if len(configs) == 2:
            _map(figure.add_subplot(grid[1, 2]), configs, look)
        better = "less" if mode == "min" else "more"
        bar = figure.colorbar(
            look.colours,
            ax=curves,
            label=f"{metric} ({better} is better)",
            extend="max" if mode == "min" else "min",
            pad=0.01,
            aspect=30,
        )
        if look.log:
            _label_powers(bar.ax.yaxis)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _label_powers(axis: Any) -> None:
    """Write the ticks of a logarithmic axis as numbers, 0.06, where it spans few powers."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    low, high = axis.get_view_interval()
    if high < 100 * low and low >= 1e-4 and high < 1e5:
        axis.set_major_formatter(Plain())
        axis.set_minor_formatter(Plain(labelOnlyBase=False, minor_thresholds=(2, 0.5)))


class _Look:
    """The scales of a picture, made for the better nine tenths of the values.

    Args:
        values: (n,) NaN for what has none.
        mode: `"min"` or `"max"`.
    """

    def __init__(self, values: Tensor, mode: str) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LogNorm, Normalize

        self.values, self.mode = values, mode
        self.ok = values.isfinite()
        good = values[self.ok] if self.ok.any() else torch.zeros(1, dtype=torch.float64)
        order = torch.argsort(values[self.ok] * (1 if mode == "min" else -1), stable=True).flip(0)
        self.worst_first = self.ok.nonzero()[:, 0][order].tolist()
        self.best = self.worst_first[-1] if self.worst_first else None
        self.log = bool(good.min() > 0 and good.max() > 10 * good.min())
        best, poor = (good.min(), good.quantile(0.9)) if mode == "min" else (good.max(), good.quantile(0.1))
        low, high = sorted([float(best), float(poor)])
        norm = (LogNorm if self.log else Normalize)(vmin=low, vmax=high)
        self.colours = ScalarMappable(norm, "viridis" if mode == "min" else "viridis_r")
        limit = poor * (poor / best).sqrt() if self.log else poor + (poor - best) / 2
        self.shown = values.clamp(max=limit) if mode == "min" else values.clamp(min=limit)

    def colour(self, i: int) -> Any:
        return tuple(self.colours.to_rgba(self.values[i : i + 1].numpy())[0])


def _curves(axes: Any, losses: Tensor, diverged: Tensor, look: _Look) -> None:
    from matplotlib.collections import LineCollection

    steps, means = smooth(losses.to(torch.float64))
    finite = means[means.isfinite()]

    def lines(members: list[int], colours: Any, **style: Any) -> None:
        shown = [torch.stack([steps, means[:, i]], 1)[means[:, i].isfinite()].numpy() for i in members]
        axes.add_collection(LineCollection(shown, colors=colours, **style))

    gone = diverged.nonzero()[:, 0].tolist()
    lines(gone, DIVERGED, linewidths=0.6, alpha=0.5)
    lines(look.worst_first, [look.colour(i) for i in look.worst_first], linewidths=0.7, alpha=0.8)
    if look.best is not None:
        lines([look.best], BEST, linewidths=1.8, label="best")
    if gone:
        axes.plot([], [], color=DIVERGED, linewidth=1, label=f"diverged ({len(gone)})")
    axes.set_xlim(0, len(losses))
    if finite.numel():
        first = losses[0][losses[0].isfinite()]
        top = min(finite.max().item(), 3 * first.median().item() if first.numel() else math.inf)
        low = finite.min().item()
        if low > 0:
            axes.set_yscale("log")
            axes.set_ylim(low / 1.2, top * 1.2)
        elif low < top:
            axes.set_ylim(low - 0.05 * (top - low), top)
    axes.set(xlabel="step", ylabel="training loss")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right")


def _against(axes: Any, name: str, x: Tensor, look: _Look, label: str | None) -> None:
    inside = look.shown == look.values
    for marker, ok in (("o", True), ("^" if look.mode == "min" else "v", False)):
        order = [i for i in look.worst_first if inside[i] == ok]
        axes.scatter(x[order], look.shown[order], c=[look.colour(i) for i in order], s=12, marker=marker, linewidths=0)
    if look.best is not None:
        axes.scatter(x[look.best], look.values[look.best], s=60, marker="*", color=BEST, zorder=3)
    low, high = _ruler(x)[0][[0, -1]]
    axes.set(xlim=(low, high), xscale="log" if is_log(x) else "linear")
    if look.log:
        axes.set_yscale("log")
        _label_powers(axes.yaxis)
    gone = ~look.ok
    if gone.any():  # they have no value: along the edge where it is worst
        edge = 0.98 if look.mode == "min" else 0.02
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


def _map(axes: Any, configs: Mapping[str, Tensor], look: _Look) -> None:
    """The plane of two hyperparameters, each place in the colour of the nearest setting, grey where that diverged."""
    from matplotlib.colors import to_rgba

    (one, a), (two, b) = configs.items()
    colours = torch.tensor([look.colour(i) if ok else to_rgba(EMPTY) for i, ok in enumerate(look.ok.tolist())])
    (x, across), (y, up) = (_ruler(values) for values in (a, b))
    middle = torch.linspace(0, 1, 2 * CELLS + 1)[1::2].to(torch.float64)
    nearest = [((across - u) ** 2 + (up[None] - middle[:, None]) ** 2).argmin(1) for u in middle]
    axes.pcolormesh(x, y, colours[torch.stack(nearest, 1)].numpy(), rasterized=True)
    axes.scatter(a[look.ok], b[look.ok], s=3, color="white", linewidths=0)
    axes.scatter(a[~look.ok], b[~look.ok], s=14, marker="x", color=DIVERGED, linewidths=0.8)
    if look.best is not None:
        axes.scatter(a[look.best], b[look.best], s=70, marker="*", color=BEST, edgecolors="white", linewidths=0.6)
    axes.set(xlabel=one, ylabel=two, xscale="log" if is_log(a) else "linear", yscale="log" if is_log(b) else "linear")
    axes.grid(False)


def _ruler(values: Tensor) -> tuple[Any, Tensor]:
    """The edges of the cells along an axis, and where on it, from 0 to 1, the values lie."""
    log = is_log(values)
    values = values.to(torch.float64)
    places = values.log() if log else values
    low, high = places.min().item(), places.max().item()
    if low == high:
        low, high = low - 1, high + 1
    else:  # half a step of a grid beyond its ends
        apart, least = places.unique().diff() / 2, 0.02 * (high - low)
        low, high = low - max(apart[0].item(), least), high + max(apart[-1].item(), least)
    edges = torch.linspace(low, high, CELLS + 1, dtype=torch.float64)
    return (edges.exp() if log else edges).numpy(), (places - low) / (high - low)
