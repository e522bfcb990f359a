"""Numbers of a whole tree: sums, norms, extremes, and tests that look across leaves."""

from __future__ import annotations

import builtins
from typing import Any

import torch
from torch import Tensor

from optfx.tree import nodes
from optfx.tree.nodes import Tree
from optfx.tree.verbs import reduce
from optfx.tree.words import refuse_complex


def _sum(x: Tensor) -> Tensor:
    return x.sum()


def sum(x: Tree) -> Tensor:
    """The sum of all elements of all leaves.

    Args:
        x: tree of tensors.

    Returns:
        () tensor in float32 or wider; 0 for an empty tree.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.sum({"w": torch.ones(2), "b": torch.ones(3)})
        tensor(5.)
    """
    return reduce(_sum, _sum, x, empty=0.0)


def _norm(x: Tensor, order: tuple[float]) -> Tensor:  # in a tuple, because it must never become a tensor
    return torch.linalg.vector_norm(x, order[0]) if x.numel() else x.abs().sum()


def norm(x: Tree, ord: float = 2, squared: bool = False) -> Tensor:
    r"""The norm of all leaves taken together, (sum over i of abs(x_i)^ord)^(1/ord).

    Args:
        x: tree of tensors.
        ord: 1, 2, `float("inf")` or any other positive order.
        squared: return the square, whose derivative is smooth at zero (for ord 2).

    Returns:
        () tensor in float32 or wider; 0 for an empty tree.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.norm({"a": torch.tensor([3.0]), "b": torch.tensor(4.0)})
        tensor(5.)
    """
    if squared and ord == 2:
        return vdot(x, x).real
    value = reduce(_norm, _norm, x, empty=0.0, order=(ord,))
    return value * value if squared else value


def _vdot(x: Tensor, y: Tensor) -> Tensor:
    return (x.conj() * y).sum()


def vdot(x: Tree, y: Tree) -> Tensor:
    """The inner product sum(conj(x) * y) over all leaves.

    Args:
        x: tree of tensors.
        y: tree like x.

    Returns:
        () tensor in float32 or wider; 0 for an empty tree.

    Raises:
        ValueError: trees that differ in structure, shape or device, naming the path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.vdot({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
        tensor(11.)
    """
    return reduce(_vdot, _sum, x, y, empty=0.0)


def _extreme(name: str, x: Tree, largest: bool) -> Tensor:
    refuse_complex(name, x)
    f = _max if largest else _min
    full = [leaf for leaf in nodes.leaves(x) if leaf.numel()]
    return reduce(f, f, full, empty=float("-inf") if largest else float("inf"))


def _limits(dtype: torch.dtype) -> tuple[Any, Any]:
    if dtype.is_floating_point:
        return float("-inf"), float("inf")
    return (False, True) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)


def _max(x: Tensor) -> Tensor:  # the local part of a sharded leaf may be empty
    return x.amax() if x.numel() else x.new_full((), _limits(x.dtype)[0])


def _min(x: Tensor) -> Tensor:
    return x.amin() if x.numel() else x.new_full((), _limits(x.dtype)[1])


def max(x: Tree) -> Tensor:
    """The largest element of all leaves.

    Args:
        x: tree of real tensors.

    Returns:
        () tensor; minus infinity for an empty tree.

    Raises:
        TypeError: a leaf is complex, naming its path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.max({"w": torch.tensor([1.0, 3.0]), "b": torch.tensor(2.0)})
        tensor(3.)
    """
    return _extreme("max", x, True)


def min(x: Tree) -> Tensor:
    """The smallest element of all leaves.

    Args:
        x: tree of real tensors.

    Returns:
        () tensor; infinity for an empty tree.

    Raises:
        TypeError: a leaf is complex, naming its path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.min({"w": torch.tensor([1.0, 3.0]), "b": torch.tensor(2.0)})
        tensor(1.)
    """
    return _extreme("min", x, False)


def _all_finite(x: Tensor) -> Tensor:
    return torch.isfinite(x).all()


def all_finite(x: Tree) -> Tensor:
    """Whether no element of any leaf is infinite or NaN.

    Args:
        x: tree of tensors.

    Returns:
        () bool tensor; True for an empty tree.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.all_finite({"w": torch.tensor([1.0, torch.nan])})
        tensor(False)
    """
    return reduce(_all_finite, torch.all, x, empty=True)


def _close(x: Tensor, y: Tensor, tolerance: tuple[float, float, bool]) -> Tensor:
    return torch.isclose(x, y, *tolerance).all()


def _every(x: Tensor, **_: Any) -> Tensor:
    return x.all()


def allclose(a: Tree, b: Tree, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether abs(a - b) <= atol + rtol * abs(b) everywhere.

    Args:
        a: tree of tensors.
        b: tree like a.
        rtol: relative tolerance.
        atol: absolute tolerance.
        equal_nan: whether a NaN equals a NaN.

    Returns:
        () bool tensor; True for empty trees.

    Raises:
        ValueError: trees that differ in structure, shape or device, naming the path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.allclose({"w": torch.ones(2)}, {"w": torch.ones(2) + 1e-6})
        tensor(True)
    """
    return reduce(_close, _every, a, b, empty=True, tolerance=(rtol, atol, equal_nan))


def size(x: Tree) -> int:
    """The number of elements of all leaves.

    Args:
        x: tree of tensors.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.size({"w": torch.zeros(2, 3), "b": torch.zeros(())})
        7
    """
    return builtins.sum(leaf.numel() for leaf in nodes.leaves(x))
