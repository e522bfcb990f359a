"""One run over many settings: a step of one member, mapped over all members, compiled, and writing in place."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from optfx import tree
from optfx.sweep.advice import advised
from optfx.sweep.blocks import Blocks
from optfx.sweep.capacity import SHARE, available_bytes, fitting, peak_bytes
from optfx.sweep.members import Members, eval_params, member_metrics, member_step
from optfx.sweep.progress import Progress
from optfx.sweep.result import TRAIN_LOSS, Result, direction
from optfx.sweep.together import Together
from optfx.tree import Tree


def fit(
    make_optimizer: Callable[[dict[str, Tensor]], Any],
    configs: Mapping[str, Tensor],
    loss_fn: Callable[[Tree, Any], Tensor],
    init: Any,
    batches: Callable[[int], Any] | Sequence[Any],
    *,
    steps: int,
    evaluate: Callable[[Tree], dict[str, Tensor]] | None = None,
    mode: str | None = None,
    compile: bool | str = True,
    chunk_size: int | None = None,
    progress: bool = True,
    seed: int = 0,
) -> Result:
    r"""Train one model under many settings of an optimizer at once.

    With settings $c_1 \dots c_n$, the losses of one step are
    $$ \ell_i = L(\theta_i, B_t), \qquad \theta_i \leftarrow \theta_i + u(c_i, \nabla \ell_i, s_i, \theta_i), $$
    for all i at once. Every member sees the same batches. A member that diverges is marked in the result, and does not
    affect the others.

    On a CPU members train in blocks, each by one thread: `loss_fn` is captured once as a list of operations, and the
    optimizer is one kernel (`fuse`). The number of members and of steps compiles nothing. The numbers of a member are
    the same, bit for bit, whatever the other members, the number of threads, and the load of the machine are. Elsewhere
    the step is compiled as a whole, `compile(donate(vmap(step)))`.

    Members that do not fit in memory together are trained in chunks of equal size. The size is found by running one and
    two members in eager code, which also reveals errors in the functions before they are compiled.

    Args:
        make_optimizer: `{name: () tensor}` -> transform. It is mapped with `torch.func.vmap`, so it must not branch on
            the values.
        configs: `{name: (n,) tensor}`, from `sample`, `grid` or made by hand; a single number is the same for all, and
            `best().config` is a setting again. `make_optimizer` gets floats as float64. Names that it does not read are
            named in a warning, unless they tell repetitions apart (with an `init` that differs).
        loss_fn: (params, batch) -> () tensor, for one member. For random numbers, put a key in the batch (see
            `optfx.random`): torch's own generators do not run under vmap. What else it reads must not change, tensors
            apart: put in the batch what does.
        init: where training starts: a tree of parameters, the same for all; `stacked(tree)` with a leading dimension
            over the members; or a function `key -> params`, which gets a different key for each (see `optfx.random`).
        batches: a sequence, repeated as needed, or a function of the step, 0, 1, 2, ... , which is called once a step
            (and chunk), some steps ahead. Batches are trees of the same structure and shapes; other shapes compile
            again.
        steps: how many steps to train each member.
        evaluate: params -> `{metric: () tensor}` for one member, called once after training with the parameters that
            `eval_params` of the optimizer returns. `Result.best` uses the first metric.
        mode: whether less of the first metric is better (`"min"`) or more (`"max"`); None to go by its name, such as
            `val_acc` or `mse`.
        compile: True for what is said above; False for eager code; or a backend of `torch.compile` for the whole step,
            such as `"inductor"`.
        chunk_size: the most members to train at once; None for as many as fit in memory.
        progress: whether to show a bar if stderr is a terminal.
        seed: the seed of the keys for `init`.

    Raises:
        ValueError: configs of unequal lengths; a loss that is not (); parameters stacked for another number of members;
            no batches; a first metric whose name does not tell which way is better, without `mode`.
        KeyError: `make_optimizer` reads what is not in `configs`.
        RuntimeError: a function that cannot run for many members at once, with what to do.
        TypeError: `make_optimizer` does not return a transform, or a leaf of `init` is not a floating tensor.
        MemoryError: not even one member fits.

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
    called = time.perf_counter()
    if steps < 1 or (chunk_size is not None and chunk_size < 1):
        raise ValueError(f"steps and chunk_size are at least 1, got {steps} and {chunk_size}")
    if mode not in (None, "min", "max"):
        raise ValueError(f"mode is 'min' or 'max', got {mode!r}")
    members = Members(make_optimizer, configs, init, seed)
    batch_at = _batches(batches)
    metrics = _no_metrics if evaluate is None else vmap(member_metrics(evaluate, {TRAIN_LOSS, "diverged", *configs}))
    # Parameters that the functions close over may require grad; nothing is differentiated from outside.
    with torch.no_grad():
        first = batch_at(0)
        found = _chunk_size(members, loss_fn, metrics, first, steps, chunk_size)
        if found.metric is not None and mode is None and (mode := direction(found.metric)) is None:
            raise ValueError(f"say whether less or more of {found.metric!r} is better: mode='min' or mode='max'")
        if compile is True and found.device.type == "cpu":
            engine: Blocks | Together = Blocks(loss_fn, found.dtype)
        else:
            engine = Together(loss_fn, "inductor" if compile is True else compile or None)
        try:
            result = _run(members, engine, metrics, batch_at, first, steps, found.size, progress)
        finally:
            engine.close()
        return dataclasses.replace(result, seconds=time.perf_counter() - called, mode=mode)


def _no_metrics(params: Tree) -> dict[str, Tensor]:
    return {}


def _batches(batches: Any) -> Callable[[int], Any]:
    if callable(batches):
        return batches
    if not isinstance(batches, Sequence):
        raise TypeError(
            f"batches: expected a sequence or a function of the step, got a {type(batches).__name__}; "
            "turn an iterator into a list"
        )
    if not batches:
        raise ValueError("batches: there are none")
    return lambda step: batches[step % len(batches)]


class _Found(NamedTuple):
    """What one and two members showed."""

    size: int  # how many to train at once: at most `chunk_size` or what memory allows, evened out over the chunks
    device: torch.device  # of the losses
    dtype: torch.dtype
    metric: str | None  # the name of the first


def _chunk_size(members: Members, loss_fn: Any, metrics: Any, batch: Any, steps: int, chunk_size: int | None) -> _Found:
    """Try the functions on one member, and on two to see how many fit."""
    step = vmap(member_step(loss_fn), in_dims=(0, 0, 0, None))
    found: dict[str, Any] = {}

    def trial(m: int) -> None:
        txs, params, state = members.start(torch.arange(m))
        with advised("loss_fn"):
            params, state, losses = step(txs, params, state, batch)
        with advised("evaluate"):
            found["first"] = next(iter(metrics(vmap(eval_params)(txs, params, state))), None)
        found["device"], found["dtype"] = losses.device, losses.dtype
        found["kept"] = sum(x.nbytes for x in tree.leaves(params)) // m + losses.nbytes // m * steps

    one = peak_bytes(trial, 1)
    most = members.n if chunk_size is None else min(chunk_size, members.n)
    if chunk_size is None and members.n > 1:
        free = SHARE * available_bytes(found["device"])
        if found["device"].type == "cpu":
            free -= 2 * members.n * found["kept"]  # the result, and a copy while it is assembled
        most = min(most, fitting(one, peak_bytes(trial, 2), free))
        if not most:
            raise MemoryError(f"one member needs {one / 2**20:.0f} MiB, and {max(free, 0) / 2**20:.0f} are free")
    return _Found(math.ceil(members.n / math.ceil(members.n / most)), found["device"], found["dtype"], found["first"])


def _chunks(n: int, size: int) -> Iterator[tuple[Tensor, int]]:
    """The members of each chunk, the last padded with copies of the last member, and how many are not copies."""
    for begin in range(0, n, size):
        yield torch.arange(begin, begin + size).clamp(max=n - 1), min(size, n - begin)


def _run(
    members: Members,
    engine: Blocks | Together,
    metrics: Any,
    batch_at: Callable[[int], Any],
    first: Any,
    steps: int,
    size: int,
    progress: bool,
) -> Result:
    parts, compile_seconds, run_seconds = [], 0.0, 0.0

    def draw(t: int) -> list[Any]:
        """The batches of the next steps. A batch is asked for once a step: `batches` may go through a file."""
        drawn = []
        for s in range(t, min(t + engine.window, steps)):
            with engine.watching():
                batch = batch_at(s)
            drawn.append(tree.map(_kept, batch) if engine.ahead else batch)
        return drawn

    with Progress(steps * math.ceil(members.n / size), size, progress) as bar:
        for index, real in _chunks(members.n, size):
            began = time.perf_counter()
            engine.load(*members.start(index), first)
            curve, given = [engine.begin([batch_at(0) if parts else first])()], [first]
            if not parts:
                _wait(curve[-1])
                compile_seconds = time.perf_counter() - began
                began = time.perf_counter()
                bar.started()
            bar.advance(1, curve[-1][-1])
            t, ahead = 1, draw(1)
            while ahead:
                given, t = ahead, t + len(ahead)
                done = engine.begin(given)
                ahead = draw(t) if engine.ahead else []  # while these are at work
                curve.append(done())
                bar.advance(len(given), curve[-1][-1])
                ahead = ahead or draw(t)
            _wait(curve[-1])
            run_seconds += time.perf_counter() - began
            bar.refresh(curve[-1][-1])
            engine.settle(given[-1])
            params = vmap(eval_params)(engine.txs, engine.params, engine.state)
            kept = {"losses": torch.cat(curve).T, "params": params, "metrics": metrics(params)}
            parts.append(tree.map(lambda x, real=real: x[:real].cpu(), kept))
    whole = tree.map(lambda *xs: torch.cat(xs), *parts)
    losses = whole["losses"].T.contiguous()
    diverged = ~(losses[-1].isfinite() & vmap(tree.all_finite)(whole["params"]))
    configs = {name: x.detach().cpu() for name, x in members.configs.items()}
    times = compile_seconds, run_seconds, math.nan  # the whole time is known to `fit`
    return Result(configs, losses, whole["metrics"], whole["params"], diverged, size, *times)


def _kept(x: Any) -> Any:
    """A tensor as it is now: `batches` may fill the same one again."""
    return x.clone() if isinstance(x, Tensor) else x


def _wait(x: Tensor) -> None:
    """Wait for the device, before reading a clock."""
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)
