"""A trainer: the functions of the user with their compiled step, which lasts for any number of populations."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optfx import tree
from optfx.sweep import evaluating
from optfx.sweep.capacity import chunks
from optfx.sweep.configs import Labels, columns
from optfx.sweep.engines import Spread
from optfx.sweep.history import Look
from optfx.sweep.judging import direction
from optfx.sweep.members import Recipe, check_read
from optfx.sweep.policies import Policy
from optfx.sweep.population import Population, join_populations, kept_in
from optfx.sweep.result import Result
from optfx.sweep.run import run
from optfx.sweep.training import HOST, Training
from optfx.tree import Tree


class Trainer:
    r"""Starts populations, trains and evaluates them.

    It reads the functions and compiles their step once, whatever number of members comes, in whatever order:
    `start`, `train` and `evaluate` are functions from populations to populations and numbers. `run` puts them together,
    and `fit` is `start` and `run`.

    A member has the same bits whoever trains beside it, and however its training is cut into parts. So a population
    may be stopped, saved, split over machines, joined, and go on. Members of any ages may train together: each sees the
    batches of its own age.

    A function that has a parameter called `config` is given the settings of its member, and one with a `key` a key of
    its own (see `optfx.random`): `loss_fn(params, batch, config, key)`, `batches(step, key)`, `init(key, config)`,
    `evaluate(params, config)`. The key of a loss is another one at each step. A member has its key from its number, or
    from the setting `seed`, integers: members of one seed start alike, and are given the same keys.

    Args:
        make_optimizer: config -> transform. It is mapped with `torch.func.vmap`, so it must not branch on the values.
        loss_fn: (params, batch) -> () tensor, for one member.
        init: a tree of parameters, `stacked(tree)`, or a function key -> params.
        batches: a sequence, repeated as needed, or a function of the step. One that asks for `config` or `key` is
            mapped over the members, each of which has its own.
        evaluate: params -> `{metric: () tensor}` for one member, called with the parameters that `eval_params` of the
            optimizer returns.
        metric: the metric that decides; None for the first, or the training loss where there is none.
        mode: whether less of it is better (`"min"`) or more (`"max"`); None to go by its name.
        compile: see `fit`.
        chunk_size: the most members to train at once; None for as many as fit in memory. Code that `torch.compile`
            made is for one number: a population is cut in chunks of it, the last of which is filled up.
        seed: the seed of all keys.
        fixed: settings that all members share, and that may be anything: widths, words.
        executor: where members train; None for here (see `fit`).
        parts: in how many parts they do; None for as many as this machine has cores.

    Raises:
        ValueError, TypeError: see `fit`; here, or in `start`.

    Example:
        >>> import torch, optfx
        >>> from optfx import sweep
        >>> trainer = sweep.Trainer(
        ...     lambda config: optfx.sgd(config["rate"]), lambda params, batch: (params["w"] - batch).square().sum(),
        ...     {"w": torch.zeros(2)}, [torch.ones(2)], compile=False)
        >>> population = trainer.start({"rate": [0.1, 0.2, 0.3]})
        >>> population, losses = trainer.train(population, 10)
        >>> population, losses = trainer.train(population[1:], 5)  # the second and the third go on
        >>> population.age, losses.shape
        (tensor([15, 15]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        make_optimizer: Callable[[dict[str, Any]], Any],
        loss_fn: Callable[..., Tensor],
        init: Any,
        batches: Callable[..., Any] | Sequence[Any],
        *,
        evaluate: Callable[..., dict[str, Tensor]] | None = None,
        metric: str | None = None,
        mode: str | None = None,
        compile: bool | str = True,
        chunk_size: int | None = None,
        seed: int = 0,
        fixed: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        parts: int | None = None,
    ) -> None:
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size is at least 1, got {chunk_size}")
        if mode not in (None, "min", "max"):
            raise ValueError(f"mode is 'min' or 'max', got {mode!r}")
        if parts is not None and (executor is None or parts < 1):
            raise ValueError(f"parts: an executor trains in at least 1 part, got {parts} and {executor}")
        recipe = Recipe(make_optimizer, loss_fn, init, batches, evaluate, seed, fixed or {})
        parts = parts or os.cpu_count() or 1
        spread = None if executor is None else Spread(executor, parts, (recipe, compile, chunk_size))
        self.training = Training(recipe, compile, chunk_size, spread)
        self.metric, self.mode, self.seed = metric, mode, seed

    # ---- populations -------------------------------------------------------------------------------

    def start(self, configs: Mapping[str, Any], member: Tensor | None = None) -> Population:
        """Members that are yet to be trained. The functions are tried on the first.

        Args:
            configs: `{name: (n,)}`, from `sample`, `grid` or made by hand; a single number is the same for all. Floats
                are float64.
            member: (n,) int64, the numbers of the members; None for 0, 1, 2, ... . Parts of a population that is split
                keep theirs: from them come their keys, and their places in a stack.

        Raises:
            ValueError: configs of unequal lengths; parameters stacked for another number of members; a setting that no
                function reads; a metric whose name does not tell which way is better, without `mode`.
            KeyError: a function reads what is not in `configs`.
            MemoryError: not even one member fits.
        """
        population, unread = self.begin(configs, member)
        check_read([unread])
        return population

    def begin(self, configs: Mapping[str, Any], member: Tensor | None) -> tuple[Population, set[str]]:
        """As `start`, which checks what is given here too: the names of settings that no function reads."""
        recipe, found = self.training.recipe, {}
        for name, x in columns(configs).items():
            if isinstance(x, Labels):
                raise ValueError(f"configs: {name!r} is structure: a Trainer has one, which is given as fixed; see fit")
            found[name] = x.detach().to(HOST, torch.float64 if x.is_floating_point() else x.dtype)
        n = len(next(iter(found.values())))
        recipe.check_stack(n, member)
        member = torch.arange(n, device=HOST) if member is None else member.to(HOST)
        rows = lambda index: self._start({k: x[index] for k, x in found.items()}, member[index])
        with torch.no_grad():
            unread = recipe.unread([*found], self.training.try_out(lambda index: rows(index.clamp(max=n - 1))))
            self._check_metric()
            parts = [rows(index) for index, _ in chunks(n, self.training.size(n))]
        return parts[0] if len(parts) == 1 else join_populations(parts), unread

    def _start(self, configs: dict[str, Tensor], member: Tensor) -> Population:
        n, keys = len(member), self.training.recipe.keys(configs, member)
        params, state = tree.map(lambda x: x.to(HOST), self.training.begin(configs, keys, member))
        zeros = torch.zeros(n, dtype=torch.int64, device=HOST)
        best = torch.full((n,), math.inf, dtype=torch.float64, device=HOST)
        return Population(configs, params, state, zeros, keys, member, best, zeros.clone())

    def prepared(self, population: Population) -> Population:
        """A population from elsewhere, from a file or another trainer of the same functions, as those from here."""
        population = self.training.prepared(population)
        self._check_metric()
        return population

    def _check_metric(self) -> None:
        """Which metric decides, and which way is better: known before anything trains."""
        names = self.training.metrics or []
        if self.metric is None:
            self.metric = next(iter(names), None)
        elif self.metric not in names:
            raise ValueError(f"metric: evaluate gives no {self.metric!r}; it gives {', '.join(names) or 'nothing'}")
        if self.metric is not None and self.mode is None:
            self.mode = direction(self.metric)
            if self.mode is None:
                raise ValueError(f"say whether less or more of {self.metric!r} is better: mode='min' or mode='max'")

    def train(self, population: Population, steps: int) -> tuple[Population, Tensor]:
        """Train each member some steps more.

        Returns:
            The population; (steps, n), the loss of each step before its update.
        """
        if steps < 1:
            raise ValueError(f"steps is at least 1, got {steps}")
        population, losses, error, _ = self.training.advance(population, population.age + steps)
        if error is not None:
            raise kept_in(error, population)
        self.training.settle()
        return population, losses

    def evaluate(self, population: Population) -> dict[str, Tensor]:
        """What `evaluate` says about each member, `{metric: (n,)}`."""
        return evaluating.evaluate(self.training, population)

    def eval_params(self, population: Population) -> Tree:
        """The parameters to evaluate members with: those they train, or, say, an average of them."""
        return evaluating.read_out(self.training, population)

    @property
    def compile_seconds(self) -> float:
        """The time that reading the functions and waiting for compilers took so far."""
        return self.training.compile_seconds

    def run(
        self,
        population: Population,
        steps: int | None = None,
        *,
        every: int | None = None,
        rungs: Sequence[int] | None = None,
        policy: Policy | None = None,
        callback: Callable[[Look], Any] | None = None,
        folder: str | Path | None = None,
        progress: bool = True,
    ) -> Result:
        """Train members to an age, look at them on the way, and stop or change some.

        At each look members are evaluated, the callback is called, and a policy says who goes on. Nothing is changed at
        the last one. Members that were stopped are in the result too, as they were left.

        Args:
            population: from `start`, from a result, or from another run. Who is older than a rung is left alone.
            steps: the age at the end; None for the last rung.
            every: look each time members are so many steps older.
            rungs: ages at which the policy acts, which are looks too; None for every look.
            policy: (population, values, key) -> population, such as `halve(4)`.
            callback: is given a `Look` each time. It must not write to it.
            folder: where to write what there is, at each look and every 20 seconds. A run that was killed at any moment
                and is called again goes on from there, bit for bit; one that was done is read. `load` reads the
                folder meanwhile. A run of more than 20 seconds also writes `sweep.html` there, a page of pictures (see
                `Result.page`), in at most a tenth of its time. None to write nothing.
            progress: whether to show a bar if stderr is a terminal.

        Raises:
            ValueError: neither steps nor rungs; a policy that is never asked, or that returns something else; a folder
                of another job.

        An error in one of the functions, or who stops it by hand, loses nothing: the error has the attribute
        `population`, what was trained until then, and with a folder that is written first.
        """
        return run(self, population, steps, every, rungs, policy, callback, folder, progress)
