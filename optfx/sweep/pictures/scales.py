"""What all pictures of a sweep share: their style, colors by rank, and axes that suit the values.

Members have one color scale, by rank: from dark (the best) to pale (the worst), as many members in each shade. The best
member is orange, what diverged is gray, and what was stopped is of a paler gray: it has a value, but of a shorter
training, and so no rank. An axis is logarithmic if its values are spread like powers; that of a score, of which more is
better, never is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optfx.sweep.configs import Column
from optfx.sweep.history import STOPPED as GONE
from optfx.sweep.spaces import ABSENT, Labels

if TYPE_CHECKING:
    from optfx.sweep.result import Result

BEST, DIVERGED, STOPPED = "#d55e00", "#8c8c8c", "#c9c9c9"
SHADES = "YlGnBu_r", 0.88  # a map of matplotlib, and how much of it: its end is too pale to see
QUARTERS = [0.0, 0.25, 0.5, 0.75, 1.0]  # of the ranks, labelled with the metric there
COLUMNS = 4  # of panels, at most
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


class NothingToShow(ValueError):
    """A sweep has nothing of what a picture shows."""


def is_log(x: Tensor) -> bool:
    """Whether values are spread like powers: positive, over at least a decade, and with a median closer to the
    geometric middle of the range than to the arithmetic one."""
    x = x[x.isfinite()].to(torch.float64)
    if not x.numel() or x.min() <= 0 or x.max() < 10 * x.min():
        return False
    low, middle, high = x.min().item(), x.quantile(0.5).item(), x.max().item()
    return abs(math.log(middle / math.sqrt(low * high))) < abs(math.log(2 * middle / (low + high)))


def was_stopped(result: Result) -> Tensor:
    """(n,) bool, whether a policy stopped each member."""
    if result.history is None or not len(result.history):
        return torch.zeros(len(result), dtype=torch.bool)
    return result.history.parent[-1] == GONE


class Scales:
    """The scales of a picture: colors by rank, and an axis fitted to the better nine tenths of the values.

    Args:
        metric: the name of the metric.
        values: (n,) float64, NaN if a member diverged.
        mode: `"min"` or `"max"`, which values are better.
        stopped: (n,) bool; None for nobody.

    Attributes:
        ok: (n,) bool, who has a value.
        ended: (n,) bool, who has a rank: a value, and was not stopped. If all were, they have ranks all the same.
        best: the best member, or None.
        worst_first: the members that have a rank, in an order to draw them in.
        shown: (n,) the values, none beyond the edge of the axis.
        log: whether the axis is logarithmic.
    """

    def __init__(self, metric: str, values: Tensor, mode: str, stopped: Tensor | None = None) -> None:
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, Normalize

        self.metric, self.values, self.mode, self.ok = metric, values, mode, values.isfinite()
        self.ended = self.ok if stopped is None or (stopped | ~self.ok).all() else self.ok & ~stopped
        good = values[self.ok] if self.ok.any() else torch.zeros(1, dtype=torch.float64)
        self.order = values[self.ended].sort(descending=mode == "max").values if self.ok.any() else good
        ranking = torch.argsort(values[self.ended] * (1 if mode == "min" else -1), stable=True).flip(0)
        self.worst_first = self.ended.nonzero()[:, 0][ranking].tolist()
        self.best = self.worst_first[-1] if self.worst_first else None
        self.log = bool(mode == "min" and good.min() > 0 and good.max() > 10 * good.min())
        best, poor = (good.min(), good.quantile(0.9)) if mode == "min" else (good.max(), good.quantile(0.1))
        limit = poor * (poor / best).sqrt() if self.log else poor + (poor - best) / 2
        self.shown = values.clamp(max=limit) if mode == "min" else values.clamp(min=limit)
        name, end = SHADES
        self.shades = ListedColormap(colormaps[name](torch.linspace(0, end, 256).numpy()))
        self.colors = ScalarMappable(Normalize(0, 1), self.shades)
        ranks = torch.searchsorted(self.order if mode == "min" else -self.order, values if mode == "min" else -values)
        self.own = [*map(tuple, self.shades((ranks / max(len(self.order) - 1, 1)).numpy()))]

    @property
    def title(self) -> str:
        return f"{self.metric} ({'less' if self.mode == 'min' else 'more'} is better)"

    @property
    def stopped(self) -> list[int]:
        """Who has a value and no rank."""
        return (self.ok & ~self.ended).nonzero()[:, 0].tolist()

    def color(self, i: int) -> Any:
        return self.own[i]

    def at_quarters(self) -> dict[float, str]:
        """The metric at the ranks of `QUARTERS`, by their places on the scale: fewer for few members."""
        last = len(self.order) - 1
        return {rank / max(last, 1): f"{self.order[rank]:.3g}" for rank in sorted({round(q * last) for q in QUARTERS})}

    def bar(self, axes: Any, **style: Any) -> None:
        """The scale of colors, beside axes."""
        bar = axes.figure.colorbar(self.colors, ax=axes, label=self.title, **{"pad": 0.01, "aspect": 30, **style})
        marks = self.at_quarters()
        bar.set_ticks([*marks], labels=[*marks.values()])
        bar.ax.invert_yaxis()  # the best on top


def lines(axes: Any, curves: list[Tensor], colors: Any, **style: Any) -> None:
    """Many lines at once, each (points, 2)."""
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection([curve.numpy() for curve in curves], colors=colors, **style))


def finite(x: Tensor, y: Tensor) -> Tensor:
    """A line through the points that have a value, (points, 2)."""
    y = y.to(torch.float64)
    return torch.stack([x.to(torch.float64), y], 1)[y.isfinite()]


class Ruler:
    """A setting along an axis.

    Args:
        column: (n,) numbers or words.
        log: whether the axis is logarithmic; None to go by the values.

    Attributes:
        values: (n,) float64, words by their place among those there are, NaN where there is none.
        words: the words, in that order.
        whole: whether all values are whole numbers or words.
        log: whether the axis is logarithmic.
        limits: the ends of the axis, half a step of the values beyond their own.
    """

    def __init__(self, column: Column, log: bool | None = None) -> None:
        if isinstance(column, Labels):
            self.words = [*dict.fromkeys(filter(None, column))]
            values = torch.tensor([self.words.index(word) if word else math.nan for word in column])
        else:
            self.words = []
            values = torch.where(column == ABSENT, math.nan, column) if not column.is_floating_point() else column
        self.values, self.whole = values.to(torch.float64), isinstance(column, Labels) or not column.is_floating_point()
        self.log = is_log(self.values) if log is None else log
        positions = self._positions(self.values)
        positions = positions[positions.isfinite()].unique()
        if len(positions) < 2:
            middle = positions.sum().item()
            self._low, self._high = middle - (abs(middle) / 2 or 1), middle + (abs(middle) / 2 or 1)
        else:
            gaps, least = positions.diff() / 2, 0.02 * (positions[-1] - positions[0]).item()
            self._low = positions[0].item() - max(gaps[0].item(), least)
            self._high = positions[-1].item() + max(gaps[-1].item(), least)
        low, high = self.edges(1).tolist()
        self.limits = low, high

    def _positions(self, x: Tensor) -> Tensor:
        return x.log() if self.log else x

    def at(self, x: Tensor) -> Tensor:
        """Where values are along the axis, from 0 to 1."""
        return (self._positions(x.to(torch.float64)) - self._low) / (self._high - self._low)

    def edges(self, cells: int) -> Tensor:
        """The edges of equal cells along the axis."""
        edges = torch.linspace(self._low, self._high, cells + 1, dtype=torch.float64)
        return edges.exp() if self.log else edges

    def fit(self, axes: Any, which: str) -> None:
        """Make this the x axis, or the y axis, of axes."""
        axes.set(**{f"{which}scale": "log" if self.log else "linear", f"{which}lim": self.limits})
        axis = getattr(axes, f"{which}axis")
        if self.words:
            axis.set_ticks(range(len(self.words)), labels=self.words)
        else:
            label_numbers(axis, self.whole)


def label_numbers(axis: Any, whole: bool = False) -> None:
    """Write the ticks of an axis as numbers, 0.001 and not a power, and whole ones if all values are."""
    from matplotlib.ticker import LogFormatter, MaxNLocator

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    if axis.get_scale() == "linear":
        if whole:
            axis.set_major_locator(MaxNLocator(5, integer=True))
        return
    low, high = axis.get_view_interval()
    axis.set_major_formatter(Plain())
    axis.set_minor_formatter(Plain(labelOnlyBase=high >= 100 * low, minor_thresholds=(2, 0.5)))
