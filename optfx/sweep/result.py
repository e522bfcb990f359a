"""The result of a sweep: the settings, their loss curves and metrics, and their final parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import tree
from optfx.sweep import pictures
from optfx.sweep.configs import Column, is_absent
from optfx.sweep.history import History
from optfx.sweep.judging import direction
from optfx.sweep.lineage import schedules
from optfx.sweep.members import TRAIN_LOSS
from optfx.sweep.population import Mixed, some
from optfx.sweep.spaces import Labels, Space
from optfx.tree import Tree


def train_loss(losses: Tensor, steps: Tensor) -> Tensor:
    """The mean of the last tenth of each curve.

    Args:
        losses: (steps, n).
        steps: (n,) int64, how many of them each member took.
    """
    found = torch.full((losses.shape[1],), torch.nan, dtype=losses.dtype)
    for end in steps.unique().tolist():
        if end:
            mine = steps == end
            found[mine] = losses[end - max(1, end // 10) : end, mine].mean(0)
    return found


class Best(NamedTuple):
    """One member of a sweep."""

    index: int  # its position in the sweep
    config: dict[str, Any]  # its hyperparameters
    metrics: dict[str, float]  # its final metrics
    params: Tree  # its final parameters

    def __repr__(self) -> str:
        config, metrics = (", ".join(f"{k} {_number(v)}" for k, v in x.items()) for x in (self.config, self.metrics))
        return f"<member {self.index} of a sweep: {config}; {metrics}; {tree.size(self.params)} parameters>"


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """What `fit` returns: everything about the n members of a sweep, on the CPU.

    Attributes:
        configs: `{name: (n,)}`, the settings; words are `Labels`.
        losses: (steps, n), the loss of each step before its update; NaN where a member did not train.
        metrics: `{name: (n,)}`, what `evaluate` returned for each member after its training.
        params: tree of (n, ...) tensors, the parameters after training, as `eval_params` returns them. For members of
            several structures, `params[i]` is the tree of member i.
        diverged: (n,) bool, whether the last loss or a parameter is not finite.
        chunk_size: how many members trained at once.
        compile_seconds: the time until the first step was taken: reading the functions, and waiting for compilers.
        run_seconds: the time of all that comes after.
        seconds: the whole time, from the call of `fit` to its answer; nan from a file that did not say it.
        mode: whether less of the metric that decides is better (`"min"`) or more (`"max"`); None to go by its name.
        metric: the metric that decides; None for the first.
        population: the members as they were left, which may go on; with several structures, a sequence of trees.
        history: what was seen while they trained.

    `result[index]` are some of the members.
    """

    configs: dict[str, Column]
    losses: Tensor
    metrics: dict[str, Tensor]
    params: Tree
    diverged: Tensor
    chunk_size: int
    compile_seconds: float
    run_seconds: float
    seconds: float
    mode: str | None = None
    metric: str | None = None
    population: Any = None
    history: History | None = None

    def __len__(self) -> int:
        return len(self.diverged)

    def __repr__(self) -> str:
        steps, n = self.losses.shape
        stopped = n - int((self.age == self.oldest).sum())
        return (
            f"<sweep of {n} settings of {', '.join(self.configs)}: {steps} steps in {self.seconds:.1f} s, "
            f"{self.compile_seconds:.1f} s of it compiling, {int(self.diverged.sum())} diverged"
            f"{f', {stopped} stopped before' if stopped else ''}>"
        )

    def __getitem__(self, index: Any) -> Result:
        """Some of the members: by a tensor of numbers or of bools, a list, or a slice."""
        rows = torch.arange(len(self))[index].reshape(-1)
        return dataclasses.replace(
            self,
            configs={k: x[rows] for k, x in self.configs.items()},
            losses=self.losses[:, rows],
            metrics={k: x[rows] for k, x in self.metrics.items()},
            params=some(self.params, rows),
            diverged=self.diverged[rows],
            population=None if self.population is None else self.population[rows],
            history=None if self.history is None else self.history[rows],
        )

    @property
    def member(self) -> Tensor:
        """(n,) int64, the number that each member had in its sweep."""
        return self._of_members("member", torch.arange(len(self)))

    @property
    def age(self) -> Tensor:
        """(n,) int64, how many steps each was trained in all."""
        return self._of_members("age", torch.full((len(self),), len(self.losses)))

    @property
    def oldest(self) -> int:
        """The age of the oldest member; 0 where there is none."""
        return max(self.age.tolist(), default=0)

    def _of_members(self, name: str, otherwise: Tensor) -> Tensor:
        if self.population is None:
            return otherwise
        if not isinstance(self.population, Mixed):
            return getattr(self.population, name)
        return torch.tensor([int(getattr(x, name)) for x in self.population], dtype=torch.int64)

    @property
    def outcomes(self) -> dict[str, Tensor]:
        """`{name: (n,)}`: the metrics, and `train_loss`, the mean of the last tenth of the loss curve."""
        before = self.oldest - len(self.losses)  # as old they were when the first of these losses was taken
        return {**self.metrics, TRAIN_LOSS: train_loss(self.losses, (self.age - before).clamp(min=0))}

    @property
    def schedules(self) -> dict[str, Tensor]:
        """`{name: (looks, n)}`: the settings that each was trained with until each look, by itself or, before it became
        a copy, by the member that it was copied from. They are schedules, which population based training finds.

        Raises:
            ValueError: there was no look.
        """
        if self.history is None:
            raise ValueError("schedules: nobody looked at these members while they trained")
        return schedules(self.history, self.member)

    def judge(self, metric: str | None = None, mode: str | None = None) -> tuple[str, Tensor, str]:
        """Which metric decides, its values, and which way is better.

        Args:
            metric: the name of a metric, or `"train_loss"`; None for the one that decided: the first that `evaluate`
                returned, or the training loss when there is none.
            mode: `"min"` or `"max"`; None for what `fit` was told, or to go by the name: less loss or error, more
                accuracy.

        Returns:
            The name; (n,) values, NaN for the members that diverged; the mode.

        Raises:
            ValueError: an unknown metric, or a name that does not tell which way is better.
        """
        outcomes = self.outcomes
        decides = self.metric or next(iter(outcomes))
        metric = decides if metric is None else metric
        if metric not in outcomes:
            raise ValueError(f"no metric is called {metric!r}; there are {', '.join(outcomes)}")
        if mode is None and metric == decides != TRAIN_LOSS:
            mode = self.mode
        if mode is None and (mode := direction(metric)) is None:
            raise ValueError(f"say whether less or more of {metric!r} is better: mode='min' or mode='max'")
        if mode not in ("min", "max"):
            raise ValueError(f"mode is 'min' or 'max', got {mode!r}")
        values = outcomes[metric].to(torch.float64)
        return metric, torch.where(self.diverged, torch.nan, values), mode

    def ranking(self, metric: str | None = None, mode: str | None = None) -> list[int]:
        """The members in order from the best, without those that diverged (see `judge`). Those that were stopped come
        after those that went on."""
        _, values, mode = self.judge(metric, mode)
        order = torch.argsort(values if mode == "min" else -values, stable=True)
        order = order[torch.argsort(-self.age[order], stable=True)]
        return [i for i in order.tolist() if not values[i].isnan()]

    def best(self, metric: str | None = None, mode: str | None = None) -> Best:
        """The best member.

        Args:
            metric: what to judge by (see `judge`).
            mode: `"min"` or `"max"`.

        Raises:
            ValueError: every member diverged, or there is none; also what `judge` raises.
        """
        ranking = self.ranking(metric, mode)
        if not ranking:
            raise ValueError(f"there is no best member: {'every one diverged' if len(self) else 'there are none'}")
        i = ranking[0]
        config = {k: x for k, v in self.configs.items() if not is_absent(x := v.tolist()[i])}
        metrics = {k: v[i].item() for k, v in self.outcomes.items()}
        return Best(i, config, metrics, some(self.params, i))

    def table(self, k: int = 10, metric: str | None = None, mode: str | None = None) -> str:
        """The k best settings as text, one per line: the rank, the number of the member, its settings
        and outcomes, and how old it was where some were stopped.

        Args:
            k: how many.
            metric: what to judge by (see `judge`).
            mode: `"min"` or `"max"`.
        """
        columns = {k: x.tolist() for k, x in {"member": self.member, **self.configs, **self.outcomes}.items()}
        if len(self.age.unique()) > 1:
            columns["age"] = self.age.tolist()
        best = self.ranking(metric, mode)[:k]
        cells = [["", *columns]]
        for rank, i in enumerate(best, 1):
            cells.append([str(rank), *(_number(v[i]) for v in columns.values())])
        widths = [max(len(row[j]) for row in cells) for j in range(len(cells[0]))]
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each member, whose number is the index: its settings, metrics, training
        loss, `diverged`, and `age` where some were stopped.

        Raises:
            ImportError: pandas is missing.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError('to_pandas needs pandas: pip install "optfx[sweep]"') from None
        columns = {**self.configs, **self.outcomes, "diverged": self.diverged}
        if len(self.age.unique()) > 1:
            columns["age"] = self.age
        table = {k: list(x) if isinstance(x, Labels) else x.numpy() for k, x in columns.items()}
        return pandas.DataFrame(table, index=pandas.Index(self.member.numpy(), name="member"))

    def to_optuna(self, space: Mapping[str, Space] | None = None) -> Any:
        """A finished study of Optuna with a trial for each member, for its importances and plots.

        The metric at each look is an intermediate value. A member that was stopped is pruned; one that diverged is a
        failure.

        Args:
            space: where the settings came from; None for as wide as they are, and logarithmic where floats span two
                orders of magnitude.

        Raises:
            ImportError: optuna is missing.
            ValueError: a setting that is not in the space.
        """
        from optfx.sweep import search

        return search.to_optuna(self, space)

    def plot(
        self, path: str | Path, metric: str | None = None, mode: str | None = None, kind: str = "settings"
    ) -> None:
        """Draw a picture of the sweep into a file.

        - `"settings"`: the loss curves, and the metric against each setting; of two settings, a map over both.
        - `"stopped"`: who was stopped when: the metric at each look, and along each setting how long members trained.
        - `"parallel"`: a line for each member, through its settings and to its metric.
        - `"genealogy"`: who is a copy of whom, and the schedules of settings that members followed so.
        - `"seeds"`: members that differ in the setting `seed` alone, as one line with a band.

        Args:
            path: the file; its suffix gives the format (`.png`, `.svg`, `.pdf`). Missing folders are made.
            metric: what colors the members (see `judge`).
            mode: `"min"` or `"max"`.
            kind: which picture.

        Raises:
            ValueError: an unknown kind, or there is nothing that it could show.
            ImportError: matplotlib is missing.
        """
        pictures.draw(path, self, kind, metric, mode)

    def page(self, path: str | Path, metric: str | None = None, mode: str | None = None) -> None:
        """Write one HTML file with all pictures that have something to show, and a table of all members that can be
        sorted. It needs nothing from elsewhere.

        Args:
            path: the file. Missing folders are made.
            metric: what to judge by (see `judge`).
            mode: `"min"` or `"max"`.
        """
        from optfx.sweep import page

        page.write(path, self, metric, mode)

    def save(self, path: str | Path) -> None:
        """Write everything into one file, completely or not at all. `optfx.sweep.load` reads it back.

        The file holds tensors and JSON, and no code.

        Args:
            path: the file. Missing folders are made.
        """
        from optfx.sweep import store

        store.write(path, self)


def _number(x: Any) -> str:
    return "" if is_absent(x) else f"{x:.4g}" if isinstance(x, float) else str(x)
