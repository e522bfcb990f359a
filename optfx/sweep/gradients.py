"""The losses and gradients of some members: captured once, and run from there."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from optfx.sweep.advice import advised
from optfx.sweep.members import grad_and_value
from optfx.sweep.window import Window, kind_of, plain_tensors_in, strangers, tensors_in
from optfx.tree import Tree, flatten, unflatten
from optfx.tree.threads import one_thread

if TYPE_CHECKING:  # it brings the tracer, which takes longer to import than all of optfx
    from optfx.compiler.captured import Bound, Program
    from optfx.compiler.captured.trace import Traced
    from optfx.compiler.kernels.cpp.calls import Call

KINDS = 8  # of batches for which programs are made; with more, each step would wait for one


class Gradients:
    """Programs for the gradient of a loss, one for each kind of batch.

    A captured function is a list of operations, so a loss must do the same in each step. Where it does not, or cannot
    be captured for another reason, it runs under `vmap`, with a warning.

    Members are `(params, given)` here, and a batch is `(shared, own)` (see `Recipe`).

    Args:
        loss: (params, given, batch) -> () tensor, for one member.

    Attributes:
        lock: held by the thread that runs code of the user: `functional_call` changes its module for a while, so a loss
            must not run in two threads at once.
        trusted: whether programs are made.
    """

    def __init__(self, loss: Callable[[Tree, Any, Any], Tensor]) -> None:
        of_one = grad_and_value(loss)
        self.mapped = vmap(lambda members, batch: of_one(*members, batch), in_dims=(0, (None, 0)))
        self._programs: dict[Any, Program] = {}
        self._first: tuple[Any, Traced] | None = None  # what has been traced, and for what kind of batch
        self._writes = False  # whether the loss is known to write to tensors of its own
        self.trusted, self.lock = True, threading.Lock()

    @one_thread()
    def any_size(self, params: Tree, batch: Any) -> bool:
        """Whether the numbers of a member are the same in blocks of any size, as far as we know."""
        from optfx.compiler.captured import NotCaptured, trace

        with contextlib.suppress(NotCaptured), torch.no_grad(), advised("loss_fn"):
            of_tensors, tensors = _of_tensors(self.mapped, batch)
            self._first = _key(batch, params), trace(of_tensors, (params, tensors))
            self._writes = self._first[1].writes
            return self._first[1].keeps_apart()
        return True  # it runs under vmap

    @one_thread()
    def prepare(self, params: Tree, batch: Any) -> bool:
        """Make the program for such a batch, whose compiler starts; whether there is one."""
        from optfx.compiler.captured import NotCaptured, Program, capture, trace
        from optfx.compiler.kernels.binding import Unsupported

        with self.lock:
            key = _key(batch, params)
            if self.trusted and key not in self._programs:
                of_tensors, tensors = _of_tensors(self.mapped, batch)
                try:
                    if key is None:
                        what = type(strangers(batch)[0]).__name__
                        raise NotCaptured(
                            f"a batch holds a {what}; dicts, tuples, lists and records (optfx.tree.record) of tensors, "
                            "numbers and strings are captured"
                        )
                    if len({kind for kind, _ in self._programs} | {key[0]}) > KINDS:
                        why = "each shape is one, and each value of a number, unless it is in a tensor"
                        raise NotCaptured(f"there are more than {KINDS} kinds of batches: {why}")
                    with torch.no_grad(), advised("loss_fn"):
                        of, first = self._first or (None, None)
                        self._first = None
                        if first is None or of != key:
                            first = trace(of_tensors, (params, tensors), self._writes)
                        if any(kind == key[0] for kind, _ in self._programs):  # that it does the same twice was seen
                            self._programs[key] = Program(first)
                        else:
                            self._programs[key] = capture(of_tensors, params, tensors, first=first)
                except NotCaptured as why:
                    self._distrust(str(why))
                except Unsupported as why:
                    self._distrust(f"{why} is not written in C++")
            return key in self._programs

    def finish(self) -> None:
        """Wait for the compilers."""
        for program in self._programs.values():
            program.finish()

    @one_thread()
    def still(self, params: Tree, batch: Any) -> bool:
        """Whether the loss does with a batch what it did when it was captured."""
        of_tensors, tensors = _of_tensors(self.mapped, batch)
        program = self._programs.get(_key(batch, params))
        with torch.no_grad():
            return program is None or program.stands_for(of_tensors, params, tensors)

    def program(self, params: Tree, batch: Any) -> Program | None:
        """The compiled program for such a batch; None where the loss runs under `vmap`."""
        key = _key(batch, params)
        if key not in self._programs and not self.prepare(params, batch):
            return None
        with self.lock:
            self._programs[key].finish()
        return self._programs[key]

    def outside(self) -> list[Tensor]:
        """The tensors that the loss reads from outside."""
        return [x for program in [*self._programs.values()] for x in program.traced.closed.values()]

    def forget(self, why: str) -> None:
        """Let the loss run under `vmap` from now on."""
        self._programs = {}
        self._distrust(why)

    def _distrust(self, why: str) -> None:
        self.trusted = False
        warnings.warn(f"loss_fn is not captured, and runs under vmap, which is slower: {why}", stacklevel=5)


class Gradient:
    """`(params, batch) -> (gradients, losses)`, each with a leading dimension over members.

    It has memory of its own, for one thread at a time: results last until the next call.
    """

    def __init__(self, of: Gradients) -> None:
        self._of = of
        self._bound: dict[Program, Bound] = {}
        self._calls: dict[Bound, GradientCalls] = {}

    def _program(self, params: Tree, batch: Any) -> Bound | None:
        program = self._of.program(params, batch)
        if program is not None and program not in self._bound:
            self._bound[program] = program.bind()
        return None if program is None else self._bound[program]

    def __call__(self, params: Tree, batch: Any) -> tuple[Tree, Tensor]:
        bound = self._program(params, batch)
        if bound is not None:
            return bound(params, tensors_in(batch))
        with self._of.lock:
            return self._of.mapped(params, batch)

    def calls(self, params: Tree, window: Window) -> GradientCalls | None:
        """The calls of C functions that this is for such batches, the same ones as long as no memory moves; None where
        Python takes part in it."""
        bound = self._program(params, window.batches[0]) if window.kind is not None else None
        if bound is None:
            return None
        known = self._calls.get(bound)
        own = known.batch if known is not None else [*map(_plain_like, tensors_in(window.batches[0]))]
        calls = bound.calls(params, own)
        if calls is None:
            return None
        if known is None or known.calls is not calls:
            self._calls[bound] = known = GradientCalls(own, calls, *bound.given(bound.outputs))
        return known


class GradientCalls(NamedTuple):
    """The calls of a gradient, the tensors that they take as a batch, and those that they give."""

    batch: list[Tensor]
    calls: list[Call]
    gradients: Tree
    losses: Tensor


def _plain_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _of_tensors(f: Callable[..., Any], batch: Any) -> tuple[Callable[[Tree, list[Tensor]], Any], list[Tensor]]:
    """A gradient as a function of the tensors of a batch; whatever else is in the batch stays as it is."""
    leaves, structure = flatten(batch)

    def of_tensors(params: Tree, tensors: list[Tensor]) -> Any:
        left = iter(tensors)
        return f(params, unflatten(structure, [next(left) if isinstance(x, Tensor) else x for x in leaves]))

    return of_tensors, plain_tensors_in(batch)


def _key(batch: Any, members: Tree) -> Any:
    """What a program is made for: the kind of a batch, and how many members; None where something else may change."""
    kind = kind_of(batch)
    return None if kind is None else (kind, len(flatten(members)[0][0]))
