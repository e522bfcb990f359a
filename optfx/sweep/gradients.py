"""The losses and gradients of some members: captured once, and run from there."""

from __future__ import annotations

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
    from optfx.compiler.captured import Program

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
        self.reason: str | None = None  # why it runs under vmap

    def prepare(self, params: Tree, batch: Any) -> bool:
        """Make the program for such a batch, whose compiler starts; whether there is one."""
        if self.reason is None and (key := _kind(batch)) not in self._programs:
            from optfx.compiler.captured import NotCaptured, capture

            of_tensors, tensors = _of_tensors(self.mapped, batch)
            try:
                if len(self._programs) == KINDS:
                    raise NotCaptured(f"there are more than {KINDS} kinds of batches")
                with torch.no_grad(), advised("loss_fn"):
                    self._programs[key] = capture(of_tensors, params, tensors)
            except NotCaptured as why:
                self.reason = str(why)
                warnings.warn(f"loss_fn is not captured, and runs under vmap, which is slower: {why}", stacklevel=4)
        return self.reason is None

    def finish(self) -> None:
        """Wait for the compilers."""
        for program in self._programs.values():
            program.finish()

    def still(self, params: Tree, batch: Any) -> bool:
        """Whether the loss does what it did when it was captured."""
        of_tensors, tensors = _of_tensors(self.mapped, batch)
        program = self._programs.get(_kind(batch))
        with torch.no_grad():
            return self.reason is not None or program is None or program.stands_for(of_tensors, params, tensors)

    def bind(self) -> Gradient:
        """The gradient with memory of its own, for one thread at a time: results last until the next call."""
        bound: dict[Any, Any] = {}

        def gradient(params: Tree, batch: Any) -> tuple[Tree, Tensor]:
            key = _kind(batch)
            if key not in bound:
                if not self.prepare(params, batch):
                    return self.mapped(params, batch)
                self._programs[key].finish()
                bound[key] = self._programs[key].bind()
            return bound[key](params, [x for x in flatten(batch)[0] if isinstance(x, Tensor)])

        return gradient


def _of_tensors(f: Gradient, batch: Any) -> tuple[Callable[[Tree, list[Tensor]], Any], list[Tensor]]:
    """A gradient as a function of the tensors of a batch; whatever else is in the batch stays as it is."""
    leaves, structure = flatten(batch)

    def of_tensors(params: Tree, tensors: list[Tensor]) -> Any:
        left = iter(tensors)
        return f(params, unflatten(structure, [next(left) if isinstance(x, Tensor) else x for x in leaves]))

    return of_tensors, [x for x in leaves if isinstance(x, Tensor)]


def _kind(batch: Any) -> Any:
    """What a program is made for, of a batch: the forms of tensors, and the values of all else."""
    leaves, structure = flatten(batch)
    return structure, *((x.shape, x.dtype) if isinstance(x, Tensor) else x for x in leaves)
