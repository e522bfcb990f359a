"""What a kernel is bound to: leaves as rows of numbers, and for each owner of leaves its scalars."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node

from optfx.compiler.kernels.writer import is_packed
from optfx.compiler.members import Alone
from optfx.compiler.record.inputs import Input
from optfx.compiler.record.spaces import Sizes

if TYPE_CHECKING:  # it stands on this file
    from optfx.compiler.kernels.cpp.calls import Call

CELL = 8  # bytes: the largest scalar


class Unsupported(Exception):
    """Something that a writer of kernels does not write."""


Row = list[Input]
"""The inputs that a program's leaves are, for one leaf of the optimizer."""


class Owned(NamedTuple):
    """Leaves that take the same scalars, and what they take."""

    rows: list[Row]
    sizes: list[Sizes]  # of the dimensions of each row
    scalars: list[Tensor]  # from `cells`
    partials: list[Tensor]  # where the parts of reductions go: a number for each call of compiled code


class Bound(NamedTuple):
    """Compiled code and the memory that it works on."""

    run: Callable[[], None]
    look_up: Callable[[], None]  # find out where that memory is now
    leave_out: Callable[[Set[Input]], None] | None = None  # rows with such inputs, from now on; None where it cannot
    call: Callable[[], Call] | None = None  # that of `run`, on the tensors that inputs are now; None where it is none


def cells(dtypes: Sequence[torch.dtype], device: torch.device, members: Alone) -> list[Tensor]:
    """Scalars of these dtypes, one after the other in memory: what a kernel finds by one address."""
    memory = torch.zeros(*members.shape(torch.Size((len(dtypes), CELL))), dtype=torch.uint8, device=device)
    rows = memory.unbind(-2)
    return [cell[..., : dtype.itemsize].view(dtype)[..., 0] for cell, dtype in zip(rows, dtypes, strict=True)]


def seen(x: Tensor, shape: Sizes, members: Alone) -> Tensor:
    """The real numbers of a leaf in a shape: the leaf's own memory, where it is contiguous."""
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return x.reshape(members.shape(torch.Size(shape)))


def lengths_of(row: Row, leaves: Sequence[Node], values: Sequence[Tensor], members: Alone) -> list[int]:
    """How many numbers the inputs of a row have, for one member, as a graph sees them: two in a byte, perhaps."""
    found = []
    for i, x in zip(row, leaves, strict=True):
        pairs = values[i].dtype.is_complex or is_packed(x)
        found.append(values[i].numel() // members.count * (2 if pairs else 1))
    return found
