"""One run over many settings, from where they start to their result."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optfx.sweep.configs import TRIAL, by_structure, columns, of_structure
from optfx.sweep.history import Look
from optfx.sweep.joining import join_results
from optfx.sweep.members import check_read
from optfx.sweep.policies import Policy
from optfx.sweep.result import Result
from optfx.sweep.spaces import Labels
from optfx.sweep.trainer import Trainer


def fit(
    make_optimizer: Callable[[dict[str, Any]], Any],
    configs: Mapping[str, Any],
    loss_fn: Callable[..., Tensor],
    init: Any,
    batches: Callable[..., Any] | Sequence[Any],
    *,
    steps: int | None = None,
    evaluate: Callable[..., dict[str, Tensor]] | None = None,
    metric: str | None = None,
    mode: str | None = None,
    every: int | None = None,
    rungs: Sequence[int] | None = None,
    policy: Policy | None = None,
    callback: Callable[[Look], Any] | None = None,
    folder: str | Path | None = None,
    structure: Sequence[str] = (),
    compile: bool | str = True,
    chunk_size: int | None = None,
    executor: Executor | None = None,
    parts: int | None = None,
    progress: bool = True,
    seed: int = 0,
) -> Result:
    r"""Train one model under many settings of an optimizer at once.

    With settings $c_1 \dots c_n$, the losses of one step are
    $$ \ell_i = L(\theta_i, B_t), \qquad \theta_i \leftarrow \theta_i + u(c_i, \nabla \ell_i, s_i, \theta_i), $$
    for all i at once. Every member sees the same batches, unless `batches` asks for more. A member that diverges is
    marked in the result, and does not affect the others. `fit` is `Trainer.start` and `Trainer.run`.

    On a CPU members train in blocks, each by one thread: `loss_fn` is captured once as a list of operations, and the
    optimizer is one kernel (`fuse`). The number of members and of steps compiles nothing. The numbers of a member are
    the same, bit for bit, whatever the other members, the number of threads, and the load of the machine are. Elsewhere
    the step is compiled as a whole, `compile(donate(vmap(step)))`.

    Members that do not fit in memory together are trained in chunks of equal size. The size is found by running one and
    two members in eager code, which also reveals errors in the functions before they are compiled.

    Functions may ask for what a member has of its own, by parameters called `config` and `key` (see `Trainer`).

    What is a number is mapped over members. What is not, is *structure*: words, and the settings named in `structure`,
    which functions get as plain Python values, to choose an optimizer, a width or a depth. The members of one structure
    train together, and judge each other; one structure trains after another, and one result holds all.

    Args:
        make_optimizer: config -> transform. It is mapped with `torch.func.vmap`, so it must not branch on numbers.
        configs: `{name: (n,) values}`, from `sample`, `grid` or made by hand; a single value is the same for all, and
            `best().config` is a setting again. Functions get floats as float64. Each name must be read by one of them;
            `seed`, integers, tells repetitions apart (see `Trainer`), and `trial` is for whoever chose the setting.
        loss_fn: (params, batch) -> () tensor, for one member. Random numbers come from a key (see `optfx.random`):
            torch's own generators do not run under vmap. What else it reads must not change, tensors apart: put in the
            batch what does.
        init: where training starts: a tree of parameters, the same for all; `stacked(tree)` with a leading dimension
            over the members; or a function `key -> params`, which gets a different key for each (see `optfx.random`).
        batches: a sequence, repeated as needed, or a function of the step, 0, 1, 2, ... , which is called once a step
            (and chunk), some steps ahead. Batches are trees of the same structure and shapes; other shapes compile
            again.
        steps: how many steps to train each member; None for the last rung.
        evaluate: params -> `{metric: () tensor}` for one member, called at each look, with the parameters that
            `eval_params` of the optimizer returns.
        metric: the metric that decides; None for the first, or the training loss where there is none.
        mode: whether less of it is better (`"min"`) or more (`"max"`); None to go by its name, such as `val_acc` or
            `mse`.
        every, rungs, policy, callback: looks on the way, and who goes on from there (see `Trainer.run`). Without them,
            there is one at the end.
        folder: where to write what there is, so that a run that was killed goes on (see `Trainer.run`).
        structure: the names of settings that are structure, besides words.
        compile: True for what is said above; False for eager code; or a backend of `torch.compile` for the whole step,
            such as `"inductor"`.
        chunk_size: the most members to train at once; None for as many as fit in memory.
        executor: where members train: a `concurrent.futures.Executor`, that of loky or dask, or `RayExecutor`; None for
            this process. A `ProcessPoolExecutor` must not fork: give it `multiprocessing.get_context("spawn")`. The
            numbers of a member are the same, bit for bit. What functions refer to travels with them, and must not
            change. Callbacks and policies run here.
        parts: in how many parts members train there; None for as many as this machine has cores.
        progress: whether to show a bar if stderr is a terminal.
        seed: the seed of all keys.

    Raises:
        ValueError: configs of unequal lengths; a setting that no function reads; a loss that is not (); parameters
            stacked for another number of members; no batches; a metric whose name does not tell which way is better,
            without `mode`; a folder of another job; an executor that forks.
        KeyError: `make_optimizer` reads what is not in `configs`.
        RuntimeError: a function that cannot run for many members at once, with what to do.
        TypeError: `make_optimizer` does not return a transform, or a leaf of `init` is not a floating tensor.
        MemoryError: not even one member fits.
        BrokenExecutor: a worker died that the executor does not replace.

    Warns:
        UserWarning: `loss_fn` cannot be captured, or the optimizer cannot be fused, and runs under `vmap`; `loss_fn` is
            another function at the end than it was before the first step.

    Example:
        >>> import torch, optfx
        >>> from optfx import sweep
        >>> def loss_fn(params, batch):
        ...     x, y = batch
        ...     return (x @ params["w"] - y).square().mean()
        >>> x = torch.eye(3)
        >>> result = sweep.fit(
        ...     lambda config: optfx.adam(config["rate"]), {"rate": torch.tensor([1e-4, 1e-2, 1e-1])},
        ...     loss_fn, {"w": torch.zeros(3)}, [(x, x @ torch.ones(3))], steps=50, compile=False)
        >>> result.best().config
        {'rate': 0.1000}
    """
    called, found = time.perf_counter(), columns(configs)
    structures = by_structure(found, structure)
    alone = len(structures) == 1 and not structures[0][0]
    ready = []
    for k, (fixed, index) in enumerate(structures):  # what is wrong with one is said before another trains
        trainer = Trainer(
            make_optimizer, loss_fn, init, batches, evaluate=evaluate, metric=metric, mode=mode, compile=compile,
            chunk_size=chunk_size, seed=seed, fixed=fixed, executor=executor, parts=parts,
        )  # fmt: skip
        own = found if alone else of_structure(found, [*fixed, *structure], index) or {TRIAL: index}
        place = folder if alone or folder is None else Path(folder) / str(k)
        ready.append((trainer, *trainer.begin(own, None if alone else index), own, place))
    check_read([unread | ({*found} - {*own, *trainer.training.recipe.fixed}) for trainer, _, unread, own, _ in ready])
    done: list[Result] = []
    try:
        for trainer, population, _, _, place in ready:
            run = trainer.run(
                population, steps, every=every, rungs=rungs, policy=policy, callback=callback, folder=place,
                progress=progress,
            )  # fmt: skip
            done.append(run)
    except BaseException as error:
        if done:
            error.results = done  # type: ignore[attr-defined]
            error.add_note("The results of the structures before are in the attribute `results` of this error.")
        raise
    whole = done[0] if alone else join_results(done)[torch.cat([index for _, index in structures]).argsort()]
    if not alone:
        whole = dataclasses.replace(
            whole, configs={k: x if isinstance(x, Labels) else x.cpu() for k, x in found.items()}
        )
    return dataclasses.replace(whole, seconds=time.perf_counter() - called)
