"""Training populations: which members train at once, on which engine, and the batches that they see."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from optfx import tree
from optfx.sweep.advice import advised
from optfx.sweep.blocks import Blocks
from optfx.sweep.capacity import Room, chunks, peak_bytes
from optfx.sweep.members import Recipe, eval_params, init_state, member_step, of_device, owned
from optfx.sweep.population import Population
from optfx.sweep.probes import compared, measured
from optfx.sweep.progress import Progress, wait_for
from optfx.sweep.together import Together
from optfx.tree import Tree
from optfx.tree.threads import one_thread

if TYPE_CHECKING:
    from optfx.sweep.engines import Spread

HOST = torch.device("cpu")


class Advanced(NamedTuple):
    """What became of members: their losses, (steps, n), the error that ended it, and what parts elsewhere said of them
    if they were asked."""

    population: Population
    losses: Tensor
    error: BaseException | None
    metrics: dict[str, Tensor] | None = None


class Training:
    """A recipe on an engine, which is made when the first members are there, and kept.

    Args:
        recipe: the functions of the user.
        compile, chunk_size: see `Trainer`.
        spread: trains parts elsewhere; None to train here.

    Attributes:
        metrics: the names of what `evaluate` gives; None before the functions were tried.
        probes: what the functions give for the first member, which tells two jobs apart.
        compile_seconds: the time that reading the functions and waiting for compilers took so far.
        evaluates_apart: whether a member is evaluated alike whoever is beside it; None before the first time.
    """

    def __init__(
        self, recipe: Recipe, compile: bool | str, chunk_size: int | None, spread: Spread | None = None
    ) -> None:
        self.recipe, self.compile, self.chunk_size, self.spread = recipe, compile, chunk_size, spread
        self.metrics: list[str] | None = None
        self.probes: dict[str, Any] = {}
        self.compile_seconds = 0.0
        self.evaluates_apart: bool | None = None
        self.engine: Blocks | Together | None = None
        self._structure: Any = None  # of parameters and states
        self._drawn: tuple[int, Any] | None = None  # a step and its batch, with which the functions were tried
        self._last: Any = None  # the last batch
        self._begun: list[Any] | None = None  # of several chunks, what the last began with

    # ---- trying the functions ----------------------------------------------------------------------

    @one_thread()
    def try_out(self, members: Callable[[Tensor], Population]) -> set[str] | None:
        """Run the functions on one member.

        Returns:
            Which settings are read; None where one of the functions takes nothing but a plain dict.
        """
        recipe = self.recipe
        step = vmap(member_step(recipe.loss), in_dims=(0, 0, 0, 0, (None, 0)))
        found: dict[str, Any] = {}

        def trial(m: int) -> None:
            part = self.adopted(members(torch.arange(m, device=HOST)))
            params, state, configs, keys = self.there(part)
            txs = recipe.optimizers(part.configs, self.device)
            age = int(part.age[0])
            batch = found["batch"] if "batch" in found else recipe.batch(age, configs, keys)
            if not recipe.batches_take and "batch" not in found:
                found["batch"], self._drawn = batch, (age, batch)
            with advised("loss_fn"):
                params, state, losses = step(txs, params, state, recipe.given(configs, keys), batch)
            with advised("evaluate"):
                metrics = vmap(recipe.metrics)(vmap(eval_params)(txs, params, state), configs)
            found["metrics"], found["dtype"], found["txs"] = [*metrics], losses.dtype, txs
            if m == 1:
                found["seen"] = {"first loss": losses, "first metrics": metrics, "first batch": batch, "optimizer": txs}
            found["kept"] = sum(x.nbytes for x in tree.leaves((params, state))) // m

        with torch.no_grad():
            try:
                with recipe.reading() as read:
                    one = peak_bytes(trial, 1)
            except Exception:  # with plain settings it goes well, or says what is wrong
                one, read = peak_bytes(trial, 1), None
            if self.engine is not None:
                return read
        self._room, self._dtype = Room(trial, one, found["kept"]), found["dtype"]
        self.metrics, self.probes = found["metrics"], {name: measured(x) for name, x in found["seen"].items()}
        if self.compile is True and self.device.type == "cpu":
            self.engine = Blocks(recipe.loss)
        else:
            backend = "inductor" if self.compile is True else self.compile or None
            self.engine = Together(recipe.loss, backend, found["txs"])
        return read

    def begin(self, configs: Mapping[str, Tensor], keys: Tensor, rows: Tensor) -> tuple[Tree, Tree]:
        """The parameters and states of members that are yet to be trained, where members train."""
        params = owned(self.recipe.params(configs, keys, rows))
        self.device = tree.leaves(params)[0].device
        txs = self.recipe.optimizers(configs, self.device)
        return params, owned(vmap(init_state)(txs, params))

    def adopted(self, population: Population) -> Population:
        """A population whose trees are as they are here: one that was read from a file is flat, by path."""
        if self._structure is None:
            one = {k: x[:1] for k, x in population.configs.items()}
            like = self.begin(one, population.key[:1], torch.zeros_like(population.member[:1]))
            self._structure, self._paths = tree.flatten(like)[1], tree.paths(like)
        own = {"0": population.params, "1": population.state}
        if tree.flatten((own["0"], own["1"]))[1] == self._structure:
            return population
        if sorted(flat := tree.to_dict(own)) != sorted(self._paths):
            raise ValueError(f"the population is of another trainer: it has {[*flat]}, expected {self._paths}")
        params, state = tree.unflatten(self._structure, [flat[path] for path in self._paths])
        return tree.replace(population, params=params, state=state)

    def size(self, n: int) -> int:
        """How many of n members to train at once: at most `chunk_size` or what memory allows, evened out.

        Raises:
            MemoryError: not even one fits.
        """
        if self.engine is not None and self.engine.lanes is not None:
            return self.engine.lanes
        most = n if self.chunk_size is None else min(self.chunk_size, n)
        if self.chunk_size is None and n > 1:
            most = self._room.most(n, self.device)
        return math.ceil(n / math.ceil(n / most))

    # ---- training ---------------------------------------------------------------------------------

    def advance(
        self, population: Population, age: Tensor, bar: Progress | None = None, own: bool = False, look: bool = False
    ) -> Advanced:
        """Train each member to an age; the losses are in the last rows of theirs, NaN above.

        An error ends it, which is returned too. Then members are trained as far as each of them came.

        Args:
            population: members.
            age: (n,) int64.
            bar: where progress is shown.
            own: whether memory of the population may be written to.
            look: whether parts elsewhere should say what `evaluate` does, too.
        """
        steps = age - population.age
        bar = bar or Progress(len(population), show=False)
        losses = error = metrics = None
        with torch.no_grad():
            population = self.prepared(population)
            for begin, more in sorted(set(zip(population.age.tolist(), steps.tolist(), strict=True))):
                if more < 1:
                    continue
                rows = ((population.age == begin) & (steps == more)).nonzero().squeeze(1)
                if len(rows) == len(population):
                    population, losses, error, metrics = self._train(population, begin, more, bar, own, look)
                else:
                    part, found, error, _ = self._train(population[rows], begin, more, bar, True, False)
                    if losses is None:
                        losses = found.new_full((int(steps.max()), len(population)), math.nan)
                    losses[len(losses) - more :, rows] = found
                    put = lambda x, y, rows=rows: x.to(y.dtype).index_copy(0, rows, y)
                    population = tree.map(put, population, part)
                if error is not None:
                    break
        none = torch.empty(0, len(population), device=HOST)
        return Advanced(population, none if losses is None else losses, error, metrics)

    def _train(self, population: Population, age: int, steps: int, bar: Progress, own: bool, look: bool) -> Advanced:
        """Members of one age, in chunks; or in parts elsewhere. And the error that ended it."""
        engine, n, parts, error = self.engine, len(population), [], None
        assert engine is not None
        nothing = torch.full((n, steps), math.nan, dtype=self._dtype, device=HOST)
        if self.spread is not None:
            try:
                population, losses, waited, metrics = self.spread.train(population, steps, look)
            except BaseException as error:
                return Advanced(population, nothing.T, error)
            self.compile_seconds += waited
            bar.started()
            bar.advance(steps * math.ceil(n / self.size(n)), losses[-1])
            return Advanced(self.adopted(population), losses, None, metrics)
        several = self.size(n) < n and not self.recipe.batches_take
        self._begun = [] if several else None
        try:
            begin = 0
            for index, real in chunks(n, self.size(n), filled=engine.one_size):
                part = population if own and len(index) == n else population[index]
                *found, error = self._train_at_once(engine, part, age, steps, bar)
                parts.append(tree.map(lambda x, real=real: x[:real], found))
                begin += real
                if error is not None:
                    parts += [[population[begin:], nothing[begin:]]] if begin < n else []
                    break
        finally:
            engine.close()
        population, losses = parts[0] if len(parts) == 1 else tree.map(lambda *xs: torch.cat(xs), *parts)
        return Advanced(population, losses.T.contiguous(), error)

    def _train_at_once(
        self, engine: Any, part: Population, age: int, steps: int, bar: Progress
    ) -> tuple[Population, Tensor, BaseException | None]:
        """Members that the engine takes together, their losses by member, and the error that ended it."""
        losses = torch.full((steps, len(part)), math.nan, dtype=self._dtype, device=self.device)
        try:
            params, state, configs, keys = self.there(part)
            draw = lambda t: self._batch(t, configs, keys)
            began, txs = time.perf_counter(), self.recipe.optimizers(part.configs, self.device)
            with engine.watching():
                batch = draw(age)
            if self._begun is not None:
                self._begun = compared(batch, self._begun)
            engine.load(txs, params, state, owned(self.recipe.given(configs, keys)), batch)
        except BaseException as caught:
            return part, losses.T.to(HOST), caught
        error = None
        try:
            self._steps(engine, draw, batch, age, losses, began, bar)
        except BaseException as caught:
            error = caught
        params, state = tree.map(lambda x: x.to(HOST), (engine.params, engine.state))
        part = tree.replace(part, params=params, state=state, age=part.age + engine.steps)
        taken = torch.arange(steps, device=HOST) < engine.steps[:, None]
        return part, torch.where(taken, losses.T.to(HOST), math.nan), error

    def _steps(self, engine: Any, draw: Any, batch: Any, t: int, losses: Tensor, began: float, bar: Progress) -> None:
        """Train, and write the losses, (steps, n)."""
        first, end, new = t, t + len(losses), self.compile_seconds == 0.0
        failed: list[Exception] = []

        def take(t: int, *drawn: Any) -> list[Any]:
            """The batches of the next steps. A batch is asked for once a step: `batches` may go through a file. Those
            before an error are trained first."""
            found = [*map(keep, drawn)]
            for s in range(t, min(t + engine.window - len(found), end)):
                try:
                    if failed:
                        raise failed[0]
                    with engine.watching():
                        one = draw(s)
                except Exception as error:
                    if not found:
                        raise
                    failed.append(error)
                    break
                found.append(keep(one))
            return found

        def keep(batch: Any) -> Any:
            """A batch as it is now: `batches` may fill the same tensors again."""
            return tree.map(lambda x: x.clone() if isinstance(x, Tensor) else x, batch) if engine.ahead else batch

        if not new:
            self.compile_seconds += time.perf_counter() - began
        ahead = take(t + 1, batch)
        while ahead:
            given, begin, t = ahead, t - first, t + len(ahead)
            done = engine.begin(given, losses[begin : t - first])
            try:
                ahead = take(t) if engine.ahead else []  # while these are at work
            finally:
                done()
            if new:
                wait_for(losses)
                self.compile_seconds, new = time.perf_counter() - began, False
                bar.started()
            bar.advance(len(given), losses[t - first - 1])
            ahead = ahead or take(t)
            self._last = given[-1]
        wait_for(losses)
        bar.refresh(losses[-1])

    def settle(self) -> None:
        """Warn if the loss is another one than it was at first."""
        if self.engine is not None and self._last is not None:
            with torch.no_grad():
                self.engine.settle(self._last)
            self._last = None

    def _batch(self, step: int, configs: Mapping[str, Tensor], keys: Tensor) -> Any:
        """The batch of a step for some members: once more, if the functions were tried with it."""
        drawn, self._drawn = self._drawn, None
        return drawn[1] if drawn is not None and drawn[0] == step else self.recipe.batch(step, configs, keys)

    def prepared(self, population: Population) -> Population:
        """A population that may train here; the functions are tried on it if they have not been."""
        if not len(population):
            raise ValueError("there are no members to train or to evaluate")
        population = self.adopted(population)
        if self.engine is None:
            first = population[:1]
            self.try_out(lambda index: first[torch.zeros_like(index)])
        return population

    def there(self, part: Population) -> tuple[Tree, Tree, dict[str, Tensor], Tensor]:
        """Parameters, states, settings and keys where members train."""
        params, state = tree.map(lambda x: x.to(self.device), (part.params, part.state))
        return params, state, of_device(part.configs, self.device), part.key.to(self.device)
