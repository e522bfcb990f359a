"""The algebra of trees, under optax's names: arithmetic, leaf by leaf."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optfx.tree import nodes, verbs
from optfx.tree.nodes import Tree
from optfx.tree.verbs import elementwise
from optfx.tree.words import refuse_complex


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose derivative at zero is zero, not infinite. At zero it is the root of the smallest normal number.

    Args:
        x: real tensor; negative elements count as zero.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> torch.func.grad(tree.safe_sqrt)(torch.tensor(0.0))
        tensor(0.)
    """
    return x.clamp_min(torch.finfo(x.dtype).tiny).sqrt()


def pointwise(f: Any, *trees: Tree, outs: int = 1, **scalars: Any) -> Any:
    """`elementwise` for arithmetic in which a complex element is one number, not a pair."""
    return verbs.run(f, trees, outs, scalars, whole=False, same_shapes=True, as_pairs=False)


def add(x: Tree, y: Tree, *others: Tree) -> Tree:
    """x + y (+ others), in the dtypes of x.

    Args:
        x: tree of tensors.
        y: tree like x.
        *others: more of them.

    Raises:
        ValueError: trees that differ in structure, shape or device, naming the path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.add({"w": torch.ones(2)}, {"w": torch.ones(2)})
        {'w': tensor([2., 2.])}
    """
    for other in (y, *others):
        x = pointwise(torch.add, x, other)
    return x


def sub(x: Tree, y: Tree) -> Tree:
    """x - y, in the dtypes of x.

    Args:
        x: tree of tensors.
        y: tree like x.

    Raises:
        ValueError: trees that differ in structure, shape or device, naming the path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.sub({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([2.0, 2.0])})
        {'w': tensor([1., 2.])}
    """
    return pointwise(torch.sub, x, y)


def mul(x: Tree, y: Tree) -> Tree:
    """x * y, element by element, in the dtypes of x.

    Args:
        x: tree of tensors.
        y: tree like x.

    Raises:
        ValueError: trees that differ in structure, shape or device, naming the path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.mul({"w": torch.tensor([2.0, 3.0])}, {"w": torch.tensor([1.0, 2.0])})
        {'w': tensor([2., 6.])}
    """
    return pointwise(torch.mul, x, y)


def div(x: Tree, y: Tree) -> Tree:
    """x / y, element by element, in the dtypes of x.

    Args:
        x: tree of tensors.
        y: tree like x.

    Raises:
        ValueError: trees that differ in structure, shape or device, naming the path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.div({"w": torch.tensor([2.0, 3.0])}, {"w": torch.tensor([1.0, 2.0])})
        {'w': tensor([2.0000, 1.5000])}
    """
    return pointwise(torch.div, x, y)


def scale(scalar: float | Tensor, x: Tree) -> Tree:
    """scalar * x, in the dtypes of x.

    Args:
        scalar: a number or a () tensor.
        x: tree of tensors.

    Raises:
        ValueError: the scalar is not ().

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.scale(3.0, {"w": torch.ones(2)})
        {'w': tensor([3., 3.])}
    """
    return pointwise(torch.mul, x, other=scalar)


def _add_scale(x: Tensor, y: Tensor, scalar: float | Tensor) -> Tensor:
    return x + scalar * y


def add_scale(x: Tree, scalar: float | Tensor, y: Tree) -> Tree:
    """x + scalar * y, in the dtypes of x.

    Args:
        x: tree of tensors.
        scalar: a number or a () tensor.
        y: tree like x.

    Raises:
        ValueError: trees that differ in structure, shape or device, naming the path; the scalar is not ().

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.add_scale({"w": torch.ones(2)}, 2.0, {"w": torch.ones(2)})
        {'w': tensor([3., 3.])}
    """
    return pointwise(_add_scale, x, y, scalar=scalar)


def select(x: Tensor, y: Tensor, condition: Tensor) -> Tensor:
    return torch.where(condition, x, y)


def where(condition: Tree | Tensor, x: Tree, y: Tree) -> Tree:
    """x where the condition holds, y elsewhere.

    Args:
        condition: a () bool tensor, or a tree of bool tensors like x.
        x: tree of tensors.
        y: tree like x.

    Raises:
        ValueError: trees that differ in structure, shape or device, naming the path.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.where(torch.tensor(False), {"w": torch.ones(2)}, {"w": torch.zeros(2)})
        {'w': tensor([0., 0.])}
    """
    if isinstance(condition, Tensor) and not condition.ndim:
        return pointwise(select, x, y, condition=condition)
    return pointwise(select, x, y, condition)


def _clip(x: Tensor, low: float | Tensor | None, high: float | Tensor | None) -> Tensor:
    x = x if low is None else x.clamp(min=low)  # type: ignore[arg-type]
    return x if high is None else x.clamp(max=high)  # type: ignore[arg-type]


def clip(x: Tree, min_value: float | Tensor | None = None, max_value: float | Tensor | None = None) -> Tree:
    """Limit every element to [min_value, max_value].

    Args:
        x: tree of real tensors.
        min_value: a number or () tensor; None for no limit.
        max_value: likewise.

    Raises:
        TypeError: a leaf is complex, naming its path: complex numbers have no order.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.clip({"w": torch.tensor([-2.0, 0.5])}, min_value=-1.0)
        {'w': tensor([-1.0000,  0.5000])}
    """
    refuse_complex("clip", x)
    return elementwise(_clip, x, low=min_value, high=max_value)


def real(x: Tree) -> Tree:
    """The real parts.

    Args:
        x: tree of tensors. Leaves that are not complex are passed through.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.real({"w": torch.tensor([1.0 + 2.0j])})
        {'w': tensor([1.])}
    """
    return nodes.map(lambda t: t.real.clone() if t.is_complex() else t, x)


def conj(x: Tree) -> Tree:
    """The complex conjugates.

    Args:
        x: tree of tensors. Leaves that are not complex are passed through.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> tree.conj({"w": torch.tensor([1.0 + 2.0j])})
        {'w': tensor([1.-2.j])}
    """
    return nodes.map(lambda t: t.conj().resolve_conj() if t.is_complex() else t, x)
