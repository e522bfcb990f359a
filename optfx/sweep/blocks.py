"""Members in blocks, which workers train side by side: one block is the work of one thread, and nobody waits.

Threads that share out each operation wait for each other hundreds of times a step; where another process takes one of
their cores for a moment, all of them stand still. So a worker takes a block for many steps, and each of its operations
runs in one thread. A member has the same bits in every block and with any number of workers: nothing that it is made
from depends on the members beside it.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import vmap

from optfx import tree
from optfx.compiler import fuse
from optfx.core import donate
from optfx.sweep.gradients import Gradient, GradientCalls, Gradients
from optfx.sweep.members import member_update, owned
from optfx.sweep.sizes import FIXED, Sizes
from optfx.sweep.window import Window, kind_of, rows_of
from optfx.tree import Tree
from optfx.tree.threads import one_thread, pool_of

if TYPE_CHECKING:
    from optfx.compiler.kernels.cpp.calls import Calls

SECONDS, BYTES = 0.5, 1 << 26  # what a window takes at most, and what its batches do
PATIENCE, SHORT = 2.0, 0.2  # seconds of training before sizes of blocks are tried, and of the windows in which they are
SPARE, FEW = 1.25, 4  # by how much larger a block may be that is there already, and how large it may be anyhow


class Worker:
    """The memory of one thread: a block, its optimizers, and the compiled step.

    Args:
        gradients: of the loss.
        like: a worker for these optimizers, which were read by it; None for the first.
        txs, params, state, given: a block to begin with.
    """

    @one_thread()
    def __init__(
        self, gradients: Gradients, like: Worker | None, txs: Any, params: Tree, state: Tree, given: Any
    ) -> None:
        self.gradient, self.lock, self.txs = Gradient(gradients), gradients.lock, owned(txs)
        self.given = owned(given)
        make = fuse if like is None or like.opt is None else like.opt.of_others
        self.opt: fuse | None = make(self.txs, len(tree.leaves(params)[0]))
        try:
            self.params, self.state = self.opt.init(params, state)
        except Exception as why:  # vmap has run it before
            warnings.warn(f"the optimizer is not fused, and runs under vmap, which is slower: {why}", stacklevel=4)
            self.opt, self.params, self.state = None, owned(params), owned(state)
        self.mapped = donate(vmap(member_update), (2, 3))
        self.own = tree.leaves((self.txs, self.params, self.state, self.given))
        self._calls: tuple[GradientCalls, int, Calls] | None = None  # a step of members whose losses have so many bytes

    @property
    def members(self) -> tuple[Tree, Any]:
        """What the loss is a function of, besides a batch."""
        return self.params, self.given

    def step(self, grads: Tree, losses: Tensor) -> None:
        """An update in place."""
        self._calls = None  # of the optimizer, which looks elsewhere for gradients now
        if self.opt is not None:
            self.opt.step(grads, self.state, self.params, value=losses, grad=grads)
        else:
            self.mapped(self.txs, grads, self.params, self.state, losses)

    def train(self, block: list[Tensor], window: Window, losses: Tensor, stop: threading.Event) -> bool:
        """Some steps of a block; whether they were taken.

        Threads that run Python wait for each other, for its lock, so there is little of it around a step made of C
        functions.

        Args:
            block: the numbers, parameters, states and what is given of its members, which are written to.
            window: the batches of the steps.
            losses: (steps, members), where they are written.
            stop: whether to stop early.
        """
        n = losses.shape[1]
        mine = [x[:n] for x in self.own]
        torch._foreach_copy_(mine, block)  # pyright: ignore[reportPrivateImportUsage]
        if n < len(self.own[0]):  # a last block that is not full
            for x in self.own:
                x[n:].copy_(x[n - 1 : n].expand_as(x[n:]))
        if not self._train_without_python(window, losses):
            for k, batch in enumerate(window.batches):
                if stop.is_set():
                    return False
                grads, found = self.gradient(self.members, batch)
                losses[k].copy_(found[:n])
                with self.lock:  # code of the user may take part
                    self.step(grads, found)
        torch._foreach_copy_(block, mine)  # pyright: ignore[reportPrivateImportUsage]
        return True

    def _train_without_python(self, window: Window, losses: Tensor) -> bool:
        """All steps as one call of C functions, where each step is made of these; whether it was so."""
        found, nbytes = self.gradient.calls(self.members, window), losses.shape[1] * losses.itemsize
        if found is None or self.opt is None:
            return False
        if not found.losses.is_contiguous() or found.losses.dtype != losses.dtype:
            return False
        if self._calls is None or self._calls[0] is not found or self._calls[1] != nbytes:
            calls = self._calls_for(found, nbytes)
            if calls is None:
                return False
            self._calls = found, nbytes, calls
        each = losses.stride(0) * losses.itemsize
        noted = torch.arange(len(losses)).mul_(each).add_(losses.data_ptr())
        self._calls[2].run(torch.cat([window.addresses, noted[:, None]], 1))
        return True

    def _calls_for(self, found: GradientCalls, nbytes: int) -> Calls | None:
        """A step: the batch is copied to its place, then come the gradients, the losses, and the update."""
        from optfx.compiler.kernels.cpp.calls import Calls, Copy, Moving

        assert self.opt is not None
        update = self.opt.calls(found.gradients, value=found.losses, grad=found.gradients)
        if update is None:
            return None
        last = len(found.batch)
        take = [Copy(x.data_ptr(), Moving(i), x.nbytes) for i, x in enumerate(found.batch)]
        note = Copy(Moving(last), found.losses.data_ptr(), nbytes)
        return Calls([*take, *found.calls, note, *update], last + 1)


class Blocks:
    """Trains members in blocks, on as many workers as torch has threads.

    Args:
        loss: (params, given, batch) -> () tensor, for one member (see `Recipe`).

    Attributes:
        steps: (n,) how many each member has taken.
        window: how many batches to give at once, so that workers look up seldom, and a progress bar moves.
    """

    one_size, lanes = False, None  # any number of members will do
    sizes: Sizes  # which are fastest, from the first members on

    def __init__(self, loss: Callable[[Tree, Any, Any], Tensor]) -> None:
        self.gradients, self.window = Gradients(loss), 1
        self.taken, self.changed = 0, False
        self.any_size: bool | None = None  # whether the numbers of a member are the same in blocks of any size
        self.seconds = 0.0  # of training
        self.made: dict[int, list[Worker]] = {}  # by the size of their blocks
        self.pool: ThreadPoolExecutor | None = None

    @property
    def ahead(self) -> bool:
        """Whether batches may be drawn before the steps before them are done: not before a step is done, nor where
        drawing them changes what the loss does."""
        return self.seconds > 0 and self.gradients.trusted and not self.changed

    def load(self, txs: Any, params: Tree, state: Tree, given: Any, batch: Any) -> None:
        """Take members to train, which are written to. Blocks of a size that is new are read, and compiled the first
        time.

        Args:
            txs, params, state, given: theirs, with a leading dimension over them.
            batch: what batches look like.
        """
        self.txs, self.params, self.state, self.given = txs, params, state, given
        self.n = len(tree.leaves(params)[0])
        self.steps = torch.zeros(self.n, dtype=torch.int64)
        if not self.made:
            leaves = tree.leaves((params, state))
            kind = [(x.shape[1:], x.dtype) for x in leaves], kind_of(batch)
            self.sizes = Sizes(kind, _bytes((params, state)) // self.n)
        wanted = self.sizes.begin(self.n, torch.get_num_threads())
        self.size = next((k for k in sorted(self.made) if wanted <= k <= max(wanted * SPARE, FEW)), wanted)
        if self.any_size is None:
            self.any_size = self.gradients.any_size(self._members(), self._first(batch))
        if not self.any_size:
            self.size = FIXED
        if self._make(batch):  # one worker has a thread too: sums by several threads have other bits
            self.pool = pool_of(len(self.workers))
        self.state = tree.map(lambda x, like: x.to(like.dtype), state, self.workers[0].state)
        self.own = tree.leaves((self.txs, self.params, self.state, self.given))

    def _make(self, batch: Any) -> bool:
        """The workers for blocks of this size, or for all members where the loss is not captured; whether it is."""
        captured, threads = self.gradients.prepare(self._members(), self._first(batch)), torch.get_num_threads()
        if not captured:
            self.size, self.window = self.n, 1
        else:
            from optfx.compiler.kernels.cpp import calls

            calls.start()  # which Worker.train will want
        workers = min(threads if captured else 1, math.ceil(self.n / self.size))
        self.workers = self.made.setdefault(self.size, [])
        while len(self.workers) < workers:
            like = next((worker for workers in self.made.values() for worker in workers), None)
            block = tree.map(self._block, (self.txs, self.params, self.state, self.given))
            self.workers.append(Worker(self.gradients, like, *block))
        self.workers = self.workers[:workers]
        self.gradients.finish()
        return captured

    def _block(self, x: Tensor) -> Tensor:
        """The first block."""
        return rows_of(x, 0, self.size)

    def _members(self) -> tuple[Tree, Any]:
        """What the loss of the first block is a function of."""
        return tree.map(self._block, (self.params, self.given))

    def _first(self, batch: Any) -> Any:
        """The batch of the first block."""
        return batch[0], tree.map(self._block, batch[1])

    def begin(self, batches: list[Any], losses: Tensor) -> Callable[[], None]:
        """Train all members on these batches, and write their losses, (steps, n); what waits for it.

        After an error, a block has taken all of these steps, or none.
        """
        if self.taken == 1 and not self.gradients.still(self._members(), self._first(batches[0])):
            self.gradients.forget("it does something else with another batch")  # than the value it saw in the first
        self.taken += len(batches)
        timed = self.any_size and self.ahead and self.seconds > PATIENCE
        if timed and self.size != (size := self.sizes.turn()):
            self.size = size
            self._make(batches[0])
        begins, stop, began = iter(range(0, self.n, self.size)), threading.Event(), time.perf_counter()
        window = Window(batches) if not tree.leaves(batches[0][1]) else None

        def work(worker: Worker) -> None:
            with torch.no_grad():
                for begin in begins:
                    part, rows = slice(begin, begin + self.size), lambda x, begin=begin: rows_of(x, begin, self.size)
                    seen = window or Window([(shared, tree.map(rows, own)) for shared, own in batches])
                    if worker.train([x[part] for x in self.own], seen, losses[:, part], stop):
                        self.steps[part] += len(batches)

        jobs = [self.pool.submit(work, worker) for worker in self.workers] if self.pool is not None else []
        if not jobs:
            work(self.workers[0])

        def done() -> None:
            try:
                for job in jobs:
                    job.result()
            except BaseException:  # also where the user stops: no thread is left behind
                stop.set()
                wait(jobs)
                raise
            seconds = time.perf_counter() - began  # which decides how members are blocked, and no number
            self.seconds += seconds
            if timed:
                self.sizes.note(seconds / len(batches))
            limit = SHORT if timed and self.sizes.trying else SECONDS
            most = min(4 * self.window, int(limit * len(batches) / seconds), BYTES // (1 + _bytes(batches[0])))
            self.window = max(1, most) if self.ahead and self.taken > 1 else 1

        return done

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """See whether `batches` changes a tensor that the loss reads from outside. Then no batch is drawn ahead.

        Raises:
            RuntimeError: it does so for the first time where batches have been drawn ahead.
        """
        before = [(x, x._version) for x in self.gradients.outside()]
        with self.gradients.lock:
            yield
        if not self.changed and any(x._version != version for x, version in before):
            if self.taken > 1:
                raise RuntimeError(
                    "batches changes a tensor that loss_fn reads, and did not do so in the second step, so earlier "
                    "batches would see it: put the tensor in the batch, or give compile=False"
                )
            self.changed = True

    def settle(self, batch: Any) -> None:
        """Warn if the loss is another one than before the first step."""
        if not self.gradients.still(self._members(), self._first(batch)):
            warnings.warn(
                "loss_fn asks something else of torch now than before the first step, when it was captured, so what it "
                "reads besides params and the batch has changed. The sweep has trained with the first one: put in the "
                "batch what changes, or give compile=False",
                stacklevel=4,
            )

    def close(self) -> None:
        """Let go of the threads."""
        if self.pool is not None:
            self.pool.shutdown()
            self.pool = None


def _bytes(batch: Any) -> int:
    return sum(x.nbytes for x in tree.leaves(batch) if isinstance(x, Tensor))
