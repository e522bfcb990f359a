"""Trees made from another: constants of the same shapes, copies, and casts."""

from __future__ import annotations

import torch
from torch import Tensor

from optfx.tree import nodes, verbs
from optfx.tree.algebra import pointwise
from optfx.tree.nodes import Tree
from optfx.tree.verbs import elementwise


def zeros_like(x: Tree, dtype: torch.dtype | None = None) -> Tree:
    """Zeros with the shapes, dtypes and devices of x.

    Args:
        x: tree of tensors.
        dtype: of the leaves; None for the dtypes of x.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.zeros_like({"w": torch.ones(2)})
        {'w': tensor([0., 0.])}
    """
    return full_like(x, 0, dtype)


def ones_like(x: Tree, dtype: torch.dtype | None = None) -> Tree:
    """Ones with the shapes, dtypes and devices of x.

    Args:
        x: tree of tensors.
        dtype: of the leaves; None for the dtypes of x.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.ones_like({"w": torch.zeros(2)}, dtype=torch.float64)
        {'w': tensor([1., 1.], dtype=torch.float64)}
    """
    return full_like(x, 1, dtype)


def _fill(x: Tensor, value: Tensor) -> Tensor:
    return torch.zeros_like(x) + value.to(x.dtype)  # under vmap, a batched value makes batched leaves


def full_like(x: Tree, fill_value: float | Tensor, dtype: torch.dtype | None = None) -> Tree:
    """One value everywhere, with the shapes, dtypes and devices of x.

    Args:
        x: tree of tensors. No derivative flows to it.
        fill_value: a number, or a () real tensor, to which derivatives flow.
        dtype: of the leaves; None for the dtypes of x.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.full_like({"w": torch.zeros(2)}, 3)
        {'w': tensor([3., 3.])}
    """
    if isinstance(fill_value, Tensor):
        return pointwise(_fill, x if dtype is None else zeros_like(x, dtype), value=fill_value)
    return nodes.map(lambda t: torch.full_like(t, fill_value, dtype=dtype, requires_grad=False), x)


def _copy(x: Tensor) -> Tensor:
    return x.clone()


def copy(x: Tree) -> Tree:
    """A copy of x in memory of its own. Derivatives flow through.

    Args:
        x: tree of tensors.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.copy({"w": torch.ones(2)})
        {'w': tensor([1., 1.])}
    """
    return elementwise(_copy, x)


def _in_dtype(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not verbs.is_inexact(x.dtype):
        return x
    if x.is_complex() and not dtype.is_complex:  # complex half precision has few operations
        dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    return x.to(dtype)


def cast(x: Tree, dtype: torch.dtype | None) -> Tree:
    """x with its floating and complex leaves in another dtype. Integer and bool leaves are passed through.

    Args:
        x: tree of tensors.
        dtype: the dtype; None changes nothing. Complex leaves stay complex, in the precision of `dtype`.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.cast({"w": torch.ones(1), "n": torch.tensor(2)}, torch.float64)
        {'w': tensor([1.], dtype=torch.float64), 'n': tensor(2)}
    """
    return nodes.map(lambda t: _in_dtype(t, dtype), x)


def cast_like(x: Tree, like: Tree) -> Tree:
    """x with each leaf in the dtype of the same leaf of `like`.

    Args:
        x: tree of tensors.
        like: tree like x.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.cast_like({"w": torch.ones(1)}, {"w": torch.ones(1).double()})
        {'w': tensor([1.], dtype=torch.float64)}
    """
    return nodes.map(lambda t, other: t.to(other.dtype), x, like)
