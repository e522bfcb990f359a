"""Products that are known to be symmetric: of a large one on a CPU, one half is computed and the other is its mirror
image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from optfx.tree.threads import in_transform

LARGE, ROWS = 1024, 256  # the side of a product that is worth halving, and how many rows of it are computed at once


def gram(x: Tensor) -> Tensor:
    r"""$X X^\top$, for each matrix of a batch.

    Args:
        x: (..., rows, cols).

    Returns:
        (..., rows, rows).

    Example:
        >>> gram(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        tensor([[5., 2.],
                [2., 1.]])
    """
    n = x.shape[-2]
    if n < LARGE or not can_write(x):
        return x @ x.adjoint()
    found = x.new_empty(n, n)
    for i in range(0, n, ROWS):
        k = i + ROWS
        torch.mm(x[i:k], x[i:].adjoint(), out=found[i:k, i:])
        found[k:, i:k] = found[i:k, k:].adjoint()
    return found


def can_write(x: Tensor) -> bool:
    """Whether a product of this one matrix may be written to memory part by part: on a CPU, and without derivatives."""
    if in_transform():
        return False
    one = type(x) is Tensor and x.ndim == 2 and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return one and not (x.requires_grad and torch.is_grad_enabled()) and unpack_dual(x).tangent is None
