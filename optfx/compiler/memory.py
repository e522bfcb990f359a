"""Leaves as kernels see them: numbers in a row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def flat(x: Tensor) -> Tensor:
    """The real numbers of a leaf in a row: the leaf's own memory, where it is contiguous."""
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).reshape(-1)


def numbers_in(x: Any) -> int:
    """How many real numbers a leaf is made of."""
    return x.shape.numel() * (2 if x.dtype.is_complex else 1)


def in_a_row(tensors: list[Tensor]) -> bool:
    """Whether the tensors are neighbours in one storage."""
    storage, offset = tensors[0].untyped_storage().data_ptr(), tensors[0].storage_offset()
    for x in tensors:
        if x.untyped_storage().data_ptr() != storage or x.storage_offset() != offset or not x.is_contiguous():
            return False
        offset += x.numel()
    return True
