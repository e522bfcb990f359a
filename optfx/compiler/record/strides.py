"""Whether eager code could see a leaf in another shape without a copy. To a kernel all leaves are contiguous."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from optfx.compiler.record.along import same
from optfx.compiler.record.inputs import Unfusable
from optfx.compiler.record.lazy import Call, Lazy
from optfx.compiler.record.operations import Operation


def check_view(name: str, xs: Sequence[Lazy], results: Sequence[Tensor]) -> None:
    """Raises Unfusable where an operation is a `view` that is an error."""
    if name == "view" and results[0].dtype == xs[0].dtype:
        try:
            _strided(xs[0]).view(results[0].shape)
        except RuntimeError as error:
            raise Unfusable(f"it is an error: {error}") from error


def note_strides(leaves: Sequence[Tensor], results: Sequence[Tensor]) -> None:
    """Remember the strides of what an event gives."""
    for x, result in zip(leaves, results, strict=True):
        if isinstance(x, Lazy) and not result.is_contiguous():
            x.strides = result.stride()


def _strided(x: Lazy) -> Tensor:
    """A leaf without memory that has the strides which it would have in eager code."""
    if x.strides is not None:
        return torch.empty_strided(x.shape, x.strides, dtype=x.dtype, device="meta")
    call, plain = x.source, torch.empty(x.shape, dtype=x.dtype, device="meta")
    if x.stands_for is not None:
        return _strided(x.stands_for)
    if not isinstance(call, Call):
        return plain
    args = [*map(_strided, call.args)]
    if call.f is same and call.over is not None:
        return args[0].expand(x.shape)
    if call.f is same:
        try:
            return args[0].view(x.shape)
        except RuntimeError:  # it was copied
            return plain
    if isinstance(call.f, Operation) and not all(y.is_contiguous() for y in args):
        return functools.reduce(torch.add, args[1:], args[0] + 0)
    return plain
