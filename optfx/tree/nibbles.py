"""Numbers of four bits, two in a byte: the first of them is its upper half. Their last dimension is even."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx.tree.recording import recorder

UINT4: torch.dtype = torch.uint4  # pyright: ignore[reportAttributeAccessIssue]
"""What they are to a kernel. Torch has the name, and no operations."""


def packed(x: Tensor) -> Tensor:
    """Numbers below 16, uint8, in half as many bytes."""
    found = None if (noted := _recorder_of(x)) is None else noted.packed(x)
    return x[..., ::2] << 4 | x[..., 1::2] if found is None else found


def unpacked(x: Tensor) -> Tensor:
    """The numbers in some bytes, uint8."""
    found = None if (noted := _recorder_of(x)) is None else noted.unpacked(x)
    return torch.stack([x >> 4, x & 15], -1).flatten(-2) if found is None else found


def _recorder_of(x: Tensor) -> Any:
    """Who notes what is done with a leaf that has no values."""
    return None if type(x) is Tensor else recorder()
