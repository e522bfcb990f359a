"""All members in one step: in eager code, or compiled by torch, as accelerators have it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from optfx import tree
from optfx.core import donate
from optfx.sweep.members import member_step
from optfx.tree import Tree
from optfx.tree.closures import closure, records_in


class Together:
    """Trains members by `donate(vmap(step))`.

    Args:
        loss: (params, given, batch) -> () tensor, for one member (see `Recipe`).
        backend: of `torch.compile`, or None for eager code.
        txs: optimizers of some members.

    Attributes:
        lanes: how many members it takes at once; None for any number.
        steps: (n,) how many each member has taken.
    """

    window = 1  # how many batches it takes at once
    ahead = False  # whether batches may be drawn before the steps before them are done

    def __init__(self, loss: Callable[[Tree, Any, Any], Tensor], backend: str | None, txs: Any) -> None:
        if backend is not None and any(isinstance(x, closure) and x.is_function for x in records_in(txs)):
            warnings.warn(
                "make_optimizer gives a function that closes over a number of config, which torch.compile cannot "
                "follow: the sweep runs without, which is slower. functools.partial(f, rate=config['rate']) will do",
                stacklevel=5,
            )
            backend = None
        self.step: Any = donate(vmap(member_step(loss), in_dims=(0, 0, 0, 0, (None, 0))), argnums=(1, 2))
        self.one_size = backend is not None  # compiled code is for one number of members
        self.lanes: int | None = None
        self.waits = backend == "inductor"  # for a compiler, in the first step
        if backend is not None:
            self.step = torch.compile(_alone(self.step), fullgraph=True, dynamic=False, backend=backend)

    def load(self, txs: Any, params: Tree, state: Tree, given: Any, batch: Any) -> None:
        """Take members to train, which are written to. Compiled code is for as many members as came first."""
        self.txs, self.params, self.state, self.given = txs, params, state, given
        n = len(tree.leaves(params)[0])
        self.steps = torch.zeros(n, dtype=torch.int64, device="cpu")
        if self.one_size:
            self.lanes = n

    def begin(self, batches: list[Any], losses: Tensor) -> Callable[[], None]:
        """Train all members on these batches, and write their losses, (steps, n)."""
        for k, batch in enumerate(batches):
            self.params, self.state, found = self._step(batch)
            self.steps += 1
            losses[k].copy_(found)
        return lambda: None

    def _step(self, batch: Any) -> tuple[Tree, Tree, Tensor]:
        take = lambda: self.step(self.txs, self.params, self.state, self.given, batch)
        if not self.waits:
            return take()
        from optfx.compiler.kernels.inductor import as_guest

        self.waits = False
        return as_guest(take)

    def watching(self) -> Any:
        """Whatever `batches` changes, the next step sees it."""
        return contextlib.nullcontext()

    def settle(self, batch: Any) -> None:
        """The loss was called in each step."""

    def close(self) -> None:
        """There is nothing to let go of."""


def _alone(f: Any) -> Any:
    """The same function with code of its own: Dynamo counts compilations by code, and would give up after eight sweeps
    of a process."""
    return FunctionType(f.__code__.replace(), f.__globals__, f.__name__, f.__defaults__, f.__closure__)
