"""The losses and gradients of some members: captured once, and run from there."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from optfx.sweep.advice import advised
from optfx.sweep.members import loss_of
from optfx.tree import Tree, flatten, unflatten

if TYPE_CHECKING:  # it brings the tracer, which takes longer to import than all of optfx
    from optfx.compiler.captured import Bound, Program

KINDS = 8  # of batches for which programs are made; with more, each step would wait for one

Gradient = Callable[[Tree, Any], tuple[Tree, Tensor]]
"""`(params, batch) -> (gradients, losses)`, each with a leading dimension over members."""


class Gradients:
    """Programs for the gradient of a loss, one for each kind of batch.

    A captured function is a list of operations, so a loss must do the same in each step. Where it does not, or cannot
    be captured for another reason, it runs under `vmap`, with a warning.

    Args:
        loss_fn: (params, batch) -> () tensor, for one member.
    """

    def __init__(self, loss_fn: Callable[[Tree, Any], Tensor]) -> None:
        self.mapped: Gradient = vmap(grad_and_value(loss_of(loss_fn)), in_dims=(0, None))
        self._programs: dict[Any, Program] = {}
        self._trusted, self._lock = True, threading.Lock()

    def any_size(self, params: Tree, batch: Any) -> bool:
        """Whether the numbers of a member are the same in blocks of any size, as far as we know."""
        from optfx.compiler.captured import NotCaptured, trace

        with contextlib.suppress(NotCaptured), torch.no_grad(), advised("loss_fn"):
            of_tensors, tensors = _of_tensors(self.mapped, batch)
            return trace(of_tensors, (params, tensors)).keeps_apart()
        return True  # it runs under vmap

    def prepare(self, params: Tree, batch: Any) -> bool:
        """Make the program for such a batch, whose compiler starts; whether there is one."""
        from optfx.compiler.captured import NotCaptured, capture
        from optfx.compiler.kernels.cpp import Unsupported

        with self._lock:
            key = _kind(batch)
            if self._trusted and key not in self._programs:
                of_tensors, tensors = _of_tensors(self.mapped, batch)
                try:
                    if key is None:
                        raise NotCaptured("a batch holds something else than tensors and numbers")
                    if len(self._programs) == KINDS:
                        raise NotCaptured(f"there are more than {KINDS} kinds of batches")
                    with torch.no_grad(), advised("loss_fn"):
                        self._programs[key] = capture(of_tensors, params, tensors)
                except (NotCaptured, Unsupported) as why:
                    self._trusted = False
                    warnings.warn(f"loss_fn is not captured, and runs under vmap, which is slower: {why}", stacklevel=4)
            return key in self._programs

    def finish(self) -> None:
        """Wait for the compilers."""
        for program in self._programs.values():
            program.finish()

    def still(self, params: Tree, batch: Any) -> bool:
        """Whether the loss does with a batch what it did when it was captured."""
        of_tensors, tensors = _of_tensors(self.mapped, batch)
        program = self._programs.get(_kind(batch))
        with torch.no_grad():
            return program is None or program.stands_for(of_tensors, params, tensors)

    def forget(self) -> None:
        """Let the loss run under `vmap` from now on."""
        self._trusted, self._programs = False, {}

    def bind(self) -> Gradient:
        """The gradient with memory of its own, for one thread at a time: results last until the next call."""
        bound: dict[Program, Bound] = {}

        def gradient(params: Tree, batch: Any) -> tuple[Tree, Tensor]:
            key = _kind(batch)
            if key not in self._programs and not self.prepare(params, batch):
                return self.mapped(params, batch)
            program = self._programs[key]
            if program not in bound:
                program.finish()
                bound[program] = program.bind()
            return bound[program](params, [x for x in flatten(batch)[0] if isinstance(x, Tensor)])

        return gradient


def _of_tensors(f: Gradient, batch: Any) -> tuple[Callable[[Tree, list[Tensor]], Any], list[Tensor]]:
    """A gradient as a function of the tensors of a batch; whatever else is in the batch stays as it is."""
    leaves, structure = flatten(batch)

    def of_tensors(params: Tree, tensors: list[Tensor]) -> Any:
        left = iter(tensors)
        return f(params, unflatten(structure, [next(left) if isinstance(x, Tensor) else x for x in leaves]))

    return of_tensors, [x for x in leaves if isinstance(x, Tensor)]


def _kind(batch: Any) -> Any:
    """What a program is made for, of a batch: the forms of tensors, and values of what else is in it; None where
    something else may change."""
    leaves, structure = flatten(batch)
    if not all(isinstance(x, (Tensor, bool, int, float, str, type(None))) for x in leaves):
        return None
    return structure, *((x.shape, x.dtype) if isinstance(x, Tensor) else (type(x), x) for x in leaves)
