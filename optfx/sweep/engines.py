"""Parts of a population on other processes and machines: an executor, whatever it is, trains and evaluates them.

Only tensors travel: the settings, parameters and states of a part, by path, and back with its losses or metrics. The
functions of the user go along once, by value; a process makes its own engine of them, and keeps it. Callbacks, policies
and checkpoints stay where the run is, so they see all members, whatever the split.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optfx import tree
from optfx.sweep.evaluating import evaluate
from optfx.sweep.members import Recipe
from optfx.sweep.population import Population
from optfx.sweep.training import Training
from optfx.tree.record import register


class Spread:
    """Trains and evaluates populations in parts, on an executor.

    Args:
        executor: runs functions elsewhere.
        parts: how many.
        program: what a process makes its own `Training` of: recipe, compile, chunk_size.

    Raises:
        ValueError: an executor whose processes would hang.
    """

    def __init__(self, executor: Executor, parts: int, program: tuple[Recipe, bool | str, int | None]) -> None:
        context = getattr(executor, "_mp_context", None)  # of a ProcessPoolExecutor, and of nobody else
        if context is not None and context.get_start_method() == "fork":
            raise ValueError(
                "executor: its processes are forks of this one, without the threads of torch, for which they would "
                'wait for ever. Write ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))'
            )
        self.executor, self.parts, self.program = executor, parts, program
        self.sent = ""  # the name of the program that processes should have

    def train(
        self, population: Population, steps: int, look: bool
    ) -> tuple[Population, Tensor, float, dict[str, Tensor] | None]:
        """Train each member some steps more.

        Returns:
            The population, whose parameters and states are flat, by path; (steps, n) losses; the longest that a process
            waited for compilers; what `evaluate` says, if there is a look.

        Raises:
            BrokenExecutor: a worker died, and the executor does not replace it.
        """
        populations, losses, waited, metrics = zip(*self._in_parts(_train, population, steps, look), strict=True)
        return _joined(populations), torch.cat(losses, 1), max(waited), _joined(metrics) if look else None

    def evaluate(self, population: Population) -> dict[str, Tensor]:
        """What `evaluate` says about each member, `{metric: (n,)}`. It raises as `train` does."""
        return _joined(self._in_parts(evaluate, population))

    def _in_parts(self, work: Callable[..., Any], population: Population, *args: Any) -> list[Any]:
        """What a function says about each part of a population."""
        program = _dumps((*self.program, torch.get_default_device(), torch.get_default_dtype()))
        name = hashlib.sha256(program).hexdigest()

        def submit(program: bytes | None, part: bytes) -> Future[Any]:
            return self.executor.submit(run_part, name, program, part, work, *args)

        flat, n, sent, back = _flat(population), len(population), [], []
        try:
            for rows in torch.arange(n, device="cpu").tensor_split(min(self.parts, n)):
                part = pickle.dumps(flat[rows])
                sent.append((part, submit(None if name == self.sent else program, part)))
            for part, future in sent:
                found = future.result()
                if found is None:  # a process that is new
                    found = submit(program, part).result()
                back.append(pickle.loads(found))
        except BaseException as error:
            for _, future in sent:
                future.cancel()
            if isinstance(error, BrokenExecutor):
                error.add_note("A worker died. A run with a folder goes on if it is called again, with a new executor.")
            raise
        self.sent = name
        results, warned = zip(*back, strict=True)
        for message, category in dict.fromkeys(x for some in warned for x in some):
            warnings.warn(message, category, stacklevel=7)
        return [*results]


class RayExecutor(Executor):
    """Runs functions as tasks of Ray, which has no executor of its own.

    Ray runs a task again if its worker or node died. It starts on this machine when it is first used; for a cluster,
    call `ray.init(address)` before.

    Args:
        **options: of each task, such as `num_cpus`, `num_gpus` or `max_retries`: see `ray.remote`.

    Raises:
        ImportError: ray is missing.

    Reference: Ray, <https://docs.ray.io/en/latest/ray-core/tasks.html>.
    """

    def __init__(self, **options: Any) -> None:
        try:
            import ray
        except ImportError:
            raise ImportError('RayExecutor needs ray: pip install "optfx[ray]"') from None
        self.task: Any = ray.remote(**options) if options else ray.remote

    def submit(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self.task(f).remote(*args, **kwargs).future()


def _joined(parts: Sequence[Any]) -> Any:
    return tree.map(lambda *xs: torch.cat(xs), *parts)


def _flat(population: Population) -> Population:
    return tree.replace(population, params=tree.to_dict(population.params), state=tree.to_dict(population.state))


def _dumps(x: Any) -> bytes:
    """Functions and classes by value, where the other process cannot import them."""
    try:
        import cloudpickle
    except ImportError:
        raise ImportError('an executor needs cloudpickle: pip install "optfx[sweep]"') from None

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            how: Any = super().reducer_override(obj)
            if isinstance(obj, type) and "_is_record" in vars(obj) and how is not NotImplemented:
                *made_of, set_state = how
                return (*made_of, partial(_set_record, set_state))
            return how

    file = io.BytesIO()
    Pickler(file).dump(x)
    return file.getvalue()


def _set_record(set_state: Callable[[type, Any], None], cls: type, state: Any) -> None:
    set_state(cls, state)
    register(cls)


# ---- in the other process -----------------------------------------------------------------------------

_LOCK = threading.Lock()  # a `Training` is for one thread
_KEPT: dict[str, Training] = {}  # the last one, by its name


def run_part(name: str, program: bytes | None, part: bytes, work: Callable[..., Any], *args: Any) -> bytes | None:
    """What a process does.

    Args:
        name: of the program.
        program: the functions of the user; None if this process should have them.
        part: the members.
        work: (training, members, *args) -> what is asked of them.
        *args: of it.

    Returns:
        What is asked, and warnings; None if the program is not here.
    """
    with _LOCK, warnings.catch_warnings(record=True) as warned:
        if name not in _KEPT:
            if program is None:
                return None
            *made_of, device, dtype = pickle.loads(program)
            if device != torch.get_default_device():
                torch.set_default_device(device)
            torch.set_default_dtype(dtype)
            _KEPT.clear()
            _KEPT[name] = Training(*made_of)
        found = work(_KEPT[name], pickle.loads(part), *args)
    # views would take along all that they are views of
    found = tree.map(lambda x: x.clone() if isinstance(x, Tensor) else x, found)
    return pickle.dumps((found, [(str(w.message), w.category) for w in warned]))


def _train(
    training: Training, population: Population, steps: int, look: bool
) -> tuple[Population, Tensor, float, dict[str, Tensor] | None]:
    before = training.compile_seconds
    population, losses, error, _ = training.advance(population, population.age + steps)
    if error is not None:
        raise error
    training.settle()
    seconds = training.compile_seconds - before
    return _flat(population), losses, seconds, evaluate(training, population) if look else None
