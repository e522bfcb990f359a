"""A run: members train to one look after another; at each they are evaluated, and a policy says who goes on."""

from __future__ import annotations

import contextlib
import inspect
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import vmap

from optfx import random, tree
from optfx.sweep import policies, store
from optfx.sweep.history import STOPPED, Look, nothing
from optfx.sweep.page import Page
from optfx.sweep.policies import Policy
from optfx.sweep.population import Population, kept_in, renumbered
from optfx.sweep.progress import Progress
from optfx.sweep.result import Result, train_loss
from optfx.sweep.training import HOST

if TYPE_CHECKING:
    from optfx.sweep.trainer import Trainer

POLICY = -3  # folded into the key of a trainer
SECONDS = 20.0  # between two checkpoints
SHARE = 0.1  # of the time, which writing may take


class Run:
    """n members on their way, of which some may have been stopped.

    Args:
        trainer: trains them.
        population: where they begin.

    Attributes:
        whole: all n, each as it was left.
        lanes: (m,) int64, the places of those that are in training.
        losses: (steps, n), NaN where a member did not train.
        metrics: `{name: (n,)}`, as last seen.
        history: the looks.
    """

    def __init__(self, trainer: Trainer, population: Population) -> None:
        self.trainer, self.began = trainer, time.perf_counter()
        self.whole = tree.replace(population, member=renumbered([population.member]))
        self.lanes = torch.arange(len(population), device=HOST)
        self.first = int(population.age.min())
        self.losses = torch.empty(0, len(population), device=HOST)
        self.metrics: dict[str, Tensor] = {}
        self.history = nothing()
        self.compiled = trainer.compile_seconds
        self.said: dict[str, Tensor] | None = None  # the metrics of who is in training, where they are known already
        self.own = False  # whether nobody else has the memory of `whole`

    def take_up(self, found: Result) -> None:
        """Go on from what was written."""
        assert found.history is not None
        self.whole, self.losses, self.metrics = found.population, found.losses, found.metrics
        self.history = found.history
        self.own = True
        if len(self.history):
            self.lanes = (self.history.parent[-1] != STOPPED).nonzero().squeeze(1)

    @property
    def seen(self) -> int:
        """How old members were at the last look."""
        return int(self.history.steps[-1]) if len(self.history) else -1

    @property
    def age(self) -> int:
        """How old the members in training are, at least."""
        return int(self.whole.age[self.lanes].min()) if len(self.lanes) else int(self.whole.age.max())

    @property
    def alive(self) -> Population:
        return self.whole if len(self.lanes) == len(self.whole) else self.whole[self.lanes]

    def put(self, population: Population) -> None:
        """Write the members in training back to where they belong."""
        if len(population) == len(self.whole):
            self.whole = population
        else:
            rows = self.lanes
            self.whole = tree.map(lambda x, y: x.to(y.dtype).index_copy_(0, rows, y), self.whole, population)

    def train(self, age: int, bar: Progress, look: bool) -> None:
        """Train who is in training, to an age, after which there may be a look."""
        alive = self.alive
        to = alive.age.clamp(min=age)
        alive, found, error, self.said = self.trainer.training.advance(alive, to, bar, own=self.own, look=look)
        self.put(alive)
        self.own = True
        if len(found):
            rows = found.new_full((age - self.first - len(self.losses), len(self.whole)), math.nan)
            self.losses = torch.cat([self.losses.to(found.dtype), rows])
            # a member that was older than others has losses that stand already
            there = self.losses[len(self.losses) - len(found) :, self.lanes]
            self.losses[len(self.losses) - len(found) :, self.lanes] = torch.where(
                found.isnan() & ~there.isnan(), there, found
            )
        if error is not None:
            self.losses = self.losses[: int(self.whole.age.max()) - self.first]
            raise kept_in(error, self.whole)

    def look(self, policy: Policy | None, callback: Callable[[Look], Any] | None, bar: Progress) -> None:
        """Evaluate who is in training, and let a policy say who goes on."""
        alive, trainer = self.alive, self.trainer
        step, n = self.age, len(self.whole)
        with _kept(self.whole):
            metrics = trainer.evaluate(alive) if self.said is None else self.said
            values = self.values(alive, metrics)
        better = values < alive.best
        alive = tree.replace(
            alive,
            best=torch.where(better, values, alive.best),
            best_age=torch.where(better, alive.age, alive.best_age),
        )
        self.put(alive)
        if trainer.metric is not None:
            bar.judged(trainer.metric, values.min().item() * (-1 if trainer.mode == "max" else 1))
        row: dict[str, Any] = {"steps": torch.tensor(step, device=HOST)}
        unseen = torch.full((n,), math.nan, dtype=torch.float64, device=HOST)
        wide = lambda x: unseen.index_copy(0, self.lanes, x.double())
        row["metrics"], row["values"] = {k: wide(x) for k, x in metrics.items()}, wide(values)
        row["configs"] = {k: wide(x) for k, x in alive.configs.items()}
        for name, x in metrics.items():
            self.metrics[name] = self.metrics.get(name, x.new_empty(n)).index_copy(0, self.lanes, x)
        parent = torch.full((n,), STOPPED, device=HOST)
        parent[self.lanes] = alive.member
        with _kept(self.whole):
            if callback is not None:
                callback(Look(step, alive, metrics, values))
                self.own = False
            if policy is not None:
                key = random.fold_in(random.fold_in(random.key(trainer.seed).to(HOST), POLICY), step)
                parent = self.follow(alive, policy(alive, values, key))
        self.history = self.history.after(**row, parent=parent)

    def values(self, alive: Population, metrics: dict[str, Tensor]) -> Tensor:
        """What members are judged by: less is better, inf for what diverged."""
        if self.trainer.metric is None:
            values = train_loss(self.losses[:, self.lanes], alive.age - self.first).double()
        else:
            values = metrics[self.trainer.metric].double()
            values = -values if self.trainer.mode == "max" else values
        ends = (alive.age - self.first - 1).clamp(min=0)
        finite = values.isfinite() & vmap(tree.all_finite)(alive.params)
        if len(self.losses):
            finite &= self.losses[ends, self.lanes].isfinite()
        return torch.where(finite, values, math.inf)

    def follow(self, before: Population, after: Population) -> Tensor:
        """Take over what a policy made of the members in training: (n,), who each is now a continuation of."""
        if not isinstance(after, Population) or len(after) > len(before):
            got = f"{len(after)} members of {len(before)}" if isinstance(after, Population) else type(after).__name__
            raise ValueError(f"a policy returns a population of at most as many members, got {got}")
        lane = dict(zip(before.member.tolist(), self.lanes.tolist(), strict=True))
        numbers, own = after.member.tolist(), before.member.tolist()
        if unknown := set(numbers) - set(own):
            raise ValueError(f"a policy returned a member that it was not given: {min(unknown)}")
        place: dict[int, int] = {}  # in `after` -> the number of the member it is from now on
        taken = {numbers[k]: k for k in reversed(range(len(numbers)))}  # the first of each goes on as itself,
        taken |= {x: k for k, (x, y) in enumerate(zip(numbers, own, strict=False)) if x == y}  # or where it was before
        place = {k: x for x, k in taken.items()}
        free = [x for x in own if x not in taken]
        copies = [k for k in range(len(numbers)) if k not in place]
        for k in copies:  # a copy takes the place of one that is gone: that which was there, if it may
            mine = own[k] if own[k] in free else free[0]
            free.remove(mine)
            place[k] = mine
        order = sorted(range(len(numbers)), key=lambda k: lane[place[k]])
        parent = torch.full((len(self.whole),), STOPPED, device=HOST)
        integers = lambda x: torch.tensor(x, dtype=torch.int64, device=HOST)
        self.lanes = integers([lane[place[k]] for k in order])
        parent[self.lanes] = integers([numbers[k] for k in order])
        self.put(tree.replace(after[order], member=integers([place[k] for k in order])))
        return parent

    def result(self) -> Result:
        """What there is so far."""
        trainer, whole = self.trainer, self.whole
        params = trainer.eval_params(whole)
        ends = (whole.age - self.first).clamp(min=0)
        diverged = ~vmap(tree.all_finite)(params)
        if len(self.losses):
            diverged |= ~self.losses[(ends - 1).clamp(min=0), torch.arange(len(whole), device=HOST)].isfinite()
        seconds = time.perf_counter() - self.began
        compiled = trainer.compile_seconds - self.compiled
        return Result(
            dict(whole.configs), self.losses, dict(self.metrics), params, diverged,
            trainer.training.size(len(whole)), compiled, max(0.0, seconds - compiled), seconds, trainer.mode,
            trainer.metric, whole, self.history,
        )  # fmt: skip


@contextlib.contextmanager
def _kept(population: Population) -> Iterator[None]:
    """What was trained is not lost with an error of the user's functions."""
    try:
        yield
    except BaseException as error:
        kept_in(error, population)
        raise


def run(
    trainer: Trainer,
    population: Population,
    steps: int | None,
    every: int | None,
    rungs: Sequence[int] | None,
    policy: Policy | None,
    callback: Callable[[Look], Any] | None,
    folder: str | Path | None,
    progress: bool,
) -> Result:
    """See `Trainer.run`."""
    end = steps if steps is not None else max(rungs) if rungs else None
    if end is None or end < 1 or (every is not None and every < 1) or any(not 0 < x <= end for x in rungs or ()):
        got = f"steps={steps}, rungs={rungs}, every={every}"
        raise ValueError(f"expected steps, or rungs up to them, and every at least 1; got {got}")
    if fractions := [x for x in (end, every, *(rungs or ())) if isinstance(x, float)]:
        raise TypeError(f"steps, rungs and every are whole numbers, got {fractions[0]}")
    if policy is not None and every is None and not rungs:
        raise ValueError("a policy acts at rungs, or every so many steps: give one of them")
    _check_takes("policy", policy, "(population, values, key)", 3)
    _check_takes("callback", callback, "(look)", 1)
    population = trainer.prepared(population)
    begun = int(population.age.min())  # who is older than a rung has passed it
    points = [x for x in sorted({*(rungs or ()), *(range(every, end, every) if every else ())}) if begun < x < end]
    points.append(end)
    acts = set(points if rungs is None else rungs) - {end}
    way = Run(trainer, population)
    job = store.Job(folder, trainer, population, end, points, policy) if folder is not None else None
    if job is not None and (found := job.found()) is not None:
        way.take_up(found)
    page = None if folder is None else Page(folder)
    pace = _Pace()

    def keep(goes_on: bool) -> None:
        """Write what there is, if there is a folder."""
        if job is not None and page is not None:
            with pace.writing():
                job.write(result := way.result())
            page.show(result, goes_on)

    with Progress(len(population), progress) as bar:
        for point in points:
            if not len(way.lanes) or point <= way.seen:
                continue
            while way.age < point:
                size = trainer.training.size(len(way.lanes))
                bar.expect((end - way.age) * math.ceil(len(way.lanes) / size), min(size, len(way.lanes)))
                goal = point if job is None else min(point, way.age + pace.steps)
                try:
                    with pace.training(goal - way.age):
                        way.train(goal, bar, look=goal == point)
                except BaseException:
                    keep(goes_on=True)
                    raise
                if goal < point and pace.due:
                    keep(goes_on=True)
            way.look(policy if point in acts else None, callback, bar)
            keep(goes_on=point < end and len(way.lanes) > 0)
    trainer.training.settle()
    return way.result()


def _check_takes(name: str, f: Callable[..., Any] | None, wanted: str, n: int) -> None:
    """Raise if a function cannot be called so, before anything is trained for it."""
    with contextlib.suppress(ValueError):  # one that is not written in Python
        try:
            if f is not None:
                inspect.signature(f).bind(*range(n))
        except TypeError as why:
            called = getattr(f, "__name__", type(f).__name__)
            hint = f"; give {called}(...), which makes one" if hasattr(policies, called) else ""
            raise TypeError(f"{name} is a function of {wanted}, got {called}: {why}{hint}") from None


class _Pace:
    """When to write a checkpoint, and how many steps to train until one looks at the clock."""

    def __init__(self) -> None:
        self.steps, self.write, self.written = 1, 0.0, time.perf_counter()

    @property
    def wanted(self) -> float:
        """The seconds from one checkpoint to the next."""
        return max(SECONDS, self.write / SHARE)

    @property
    def due(self) -> bool:
        return time.perf_counter() - self.written >= self.wanted

    @contextlib.contextmanager
    def training(self, steps: int) -> Iterator[None]:
        began = time.perf_counter()
        yield
        each = max((time.perf_counter() - began) / steps, 1e-9)
        self.steps = max(1, min(4 * self.steps, int(self.wanted / each)))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.written = time.perf_counter()
        self.write = self.written - began
