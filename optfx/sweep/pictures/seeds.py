"""The picture of repetitions: members that differ in nothing but the setting `seed` as one line with a band.

The line is their mean, and the band reaches from the worst to the best of them. Beside it, each setting with the metric
of each of its seeds: where the points of two overlap, one is not known to be better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from optfx.sweep.configs import SEED, is_absent
from optfx.sweep.pictures.scales import BEST, DIVERGED, NothingToShow, Scales, label_numbers
from optfx.sweep.pictures.settings import smooth
from optfx.sweep.pictures.stopped import seen

if TYPE_CHECKING:
    from optfx.sweep.result import Result

BANDS, ROWS = 5, 16  # how many of the settings are shown, the best ones


class Group(NamedTuple):
    """Members that differ in their seeds alone."""

    name: str
    members: Tensor  # (seeds,)
    mean: float  # of the metric


def seeds(figure: Any, result: Result, scales: Scales) -> None:
    """Settings as bands over their seeds, and the metric of each seed."""
    groups = grouped(result, scales)
    figure.set_size_inches(11, max(3.6, 0.26 * min(len(groups), ROWS) + 1.2))
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    _bands(left, result, groups[:BANDS], scales)
    _points(right, groups[:ROWS], scales)
    if len(groups) > ROWS:
        right.set_title(f"the best {ROWS} of {len(groups)}", loc="left", fontsize=9)


def grouped(result: Result, scales: Scales) -> list[Group]:
    """The settings but for the seed, from the best mean of those that have a metric; then the others."""
    others = {k: x.tolist() for k, x in result.configs.items() if k != SEED}
    found: dict[tuple[Any, ...], list[int]] = {}
    for i, key in enumerate(zip(*others.values(), strict=True) if others else [()] * len(result)):
        found.setdefault(tuple(None if is_absent(x) else x for x in key), []).append(i)
    if SEED not in result.configs or max(map(len, found.values())) < 2:
        raise NothingToShow(f"seeds: no two members differ in the setting {SEED!r} alone")
    groups = []
    for key, members in found.items():
        there = [(name, x) for name, x in zip(others, key, strict=True) if x is not None]
        named = [f"{name} {x:.3g}" if isinstance(x, float) else f"{name} {x}" for name, x in there]
        values = scales.values[members]
        groups.append(Group(", ".join(named) or "all", torch.tensor(members), values.mean().item()))
    sign = 1 if scales.mode == "min" else -1
    return sorted(groups, key=lambda g: (g.mean != g.mean, sign * g.mean))


def _bands(axes: Any, result: Result, groups: list[Group], scales: Scales) -> None:
    history = result.history
    if history is not None and len(history) > 2:
        steps, curves, label = history.steps, seen(history, scales), scales.metric
    else:
        (steps, curves), label = smooth(result.losses.to(torch.float64)), "training loss"
    for k, group in reversed([*enumerate(groups)]):
        color = BEST if not k else scales.shades(k / BANDS)
        own = curves[:, group.members]
        there = own.isfinite().all(1)
        x, own = steps[there].numpy(), own[there].numpy()
        axes.fill_between(x, own.min(1), own.max(1), color=color, alpha=0.18, linewidth=0)
        axes.plot(x, own.mean(1), color=color, linewidth=1.6, label=group.name)
    low, high = axes.dataLim.intervaly
    if scales.mode == "min" and 0 < 10 * low < high:
        axes.set_yscale("log")
        label_numbers(axes.yaxis)
    axes.set(xlabel="step", ylabel=label, xlim=(0, None))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="upper right" if scales.mode == "min" else "lower right")


def _points(axes: Any, groups: list[Group], scales: Scales) -> None:
    for y, group in enumerate(groups):
        color = BEST if not y else scales.shades(y / BANDS) if y < BANDS else DIVERGED
        values = scales.values[group.members]
        axes.scatter(values.numpy(), [y] * len(values), s=16, color=color, alpha=0.7, linewidths=0)
        axes.plot([group.mean] * 2, [y - 0.35, y + 0.35], color=color, linewidth=2)
    if scales.log:
        axes.set_xscale("log")
        label_numbers(axes.xaxis)
    axes.set_yticks(range(len(groups)), labels=[group.name for group in groups])
    axes.set(xlabel=scales.title, ylim=(len(groups) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
