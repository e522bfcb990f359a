"""The algebra of trees, under optax's names: arithmetic leaf by leaf, and numbers that look across leaves."""

from __future__ import annotations

import builtins
from typing import Any

import torch
from torch import Tensor

from optfx.tree import nodes, verbs
from optfx.tree.nodes import Tree
from optfx.tree.verbs import elementwise, reduce


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose derivative at zero is zero, not infinite. At zero it is the root of the smallest normal number.

    Example:
        >>> import torch
        >>> from optfx import tree
        >>> torch.func.grad(tree.safe_sqrt)(torch.tensor(0.0))
        tensor(0.)
    """
    return x.clamp_min(torch.finfo(x.dtype).tiny).sqrt()


# ---- arithmetic ---------------------------------------------------------------------------


def _pointwise(f: Any, *trees: Tree, **scalars: Any) -> Tree:
    """`elementwise` for arithmetic in which a complex element is one number, not a pair."""
    return verbs.run(f, trees, 1, scalars, whole=False, same_shapes=True, as_pairs=False)


def add(x: Tree, y: Tree, *others: Tree) -> Tree:
    """x + y (+ others), in the dtypes of x.

    Example:
        >>> from optfx import tree
        >>> tree.add({"w": torch.ones(2)}, {"w": torch.ones(2)})
        {'w': tensor([2., 2.])}
    """
    for other in (y, *others):
        x = _pointwise(torch.add, x, other)
    return x


def sub(x: Tree, y: Tree) -> Tree:
    """x - y, in the dtypes of x."""
    return _pointwise(torch.sub, x, y)


def mul(x: Tree, y: Tree) -> Tree:
    """x * y, element by element, in the dtypes of x."""
    return _pointwise(torch.mul, x, y)


def div(x: Tree, y: Tree) -> Tree:
    """x / y, element by element, in the dtypes of x."""
    return _pointwise(torch.div, x, y)


def scale(scalar: float | Tensor, x: Tree) -> Tree:
    """scalar * x, in the dtypes of x; the scalar is a number or a () tensor."""
    return _pointwise(torch.mul, x, other=scalar)


def _add_scale(x: Tensor, y: Tensor, scalar: float | Tensor) -> Tensor:
    return x + scalar * y


def add_scale(x: Tree, scalar: float | Tensor, y: Tree) -> Tree:
    """x + scalar * y, in the dtypes of x; the scalar is a number or a () tensor."""
    return _pointwise(_add_scale, x, y, scalar=scalar)


def _select(x: Tensor, y: Tensor, condition: Tensor) -> Tensor:
    return torch.where(condition, x, y)


def where(condition: Tree | Tensor, x: Tree, y: Tree) -> Tree:
    """x where the condition holds, y elsewhere; the condition is a () bool tensor or a tree of bool tensors like x."""
    if isinstance(condition, Tensor) and not condition.ndim:
        return _pointwise(_select, x, y, condition=condition)
    return _pointwise(_select, x, y, condition)


def _clip(x: Tensor, low: float | Tensor | None, high: float | Tensor | None) -> Tensor:
    x = x if low is None else x.clamp(min=low)  # type: ignore[arg-type]
    return x if high is None else x.clamp(max=high)  # type: ignore[arg-type]


def clip(x: Tree, min_value: float | Tensor | None = None, max_value: float | Tensor | None = None) -> Tree:
    """Limit every element to [min_value, max_value]; None leaves that side open.

    Raises:
        TypeError: a leaf is complex, and complex numbers have no order.
    """
    _real_only("clip", x)
    return elementwise(_clip, x, low=min_value, high=max_value)


def _real_only(name: str, x: Tree) -> None:
    for path, leaf in zip(nodes.paths(x), nodes.leaves(x), strict=True):
        if leaf.is_complex():
            raise TypeError(f"{name}: complex numbers have no order, and the leaf at {path!r} is {leaf.dtype}")


# ---- making trees ---------------------------------------------------------------------------


def zeros_like(x: Tree, dtype: torch.dtype | None = None) -> Tree:
    """Zeros with the shapes and devices of x, and with its dtypes or one that you choose."""
    return full_like(x, 0, dtype)


def ones_like(x: Tree, dtype: torch.dtype | None = None) -> Tree:
    """Ones with the shapes and devices of x, and with its dtypes or one that you choose."""
    return full_like(x, 1, dtype)


def _fill(x: Tensor, value: Tensor) -> Tensor:
    return torch.zeros_like(x) + value.to(x.dtype)  # a value that vmap has batched makes a batch of leaves


def full_like(x: Tree, fill_value: float | Tensor, dtype: torch.dtype | None = None) -> Tree:
    """One value everywhere, with the shapes and devices of x, and with its dtypes or one that you choose.

    Args:
        x: tree of tensors. No derivative flows to it.
        fill_value: a number, or a () real tensor, to which the derivative flows.
        dtype: of the leaves; None for those of x.

    Example:
        >>> from optfx import tree
        >>> tree.full_like({"w": torch.zeros(2)}, 3)
        {'w': tensor([3., 3.])}
    """
    if isinstance(fill_value, Tensor):
        return _pointwise(_fill, x if dtype is None else zeros_like(x, dtype), value=fill_value)
    return nodes.map(lambda t: torch.full_like(t, fill_value, dtype=dtype, requires_grad=False), x)


def _copy(x: Tensor) -> Tensor:
    return x.clone()


def copy(x: Tree) -> Tree:
    """x in memory of its own. Derivatives flow through.

    Example:
        >>> from optfx import tree
        >>> tree.copy({"w": torch.ones(2)})
        {'w': tensor([1., 1.])}
    """
    return elementwise(_copy, x)


def cast(x: Tree, dtype: torch.dtype | None) -> Tree:
    """x with inexact leaves in `dtype`. Integer and bool leaves are passed through, and so is everything for None."""
    return nodes.map(lambda t: t.to(dtype) if dtype is not None and verbs.is_inexact(t.dtype) else t, x)


def cast_like(x: Tree, like: Tree) -> Tree:
    """x with each leaf in the dtype of the same leaf of `like`."""
    return nodes.map(lambda t, other: t.to(other.dtype), x, like)


def real(x: Tree) -> Tree:
    """The real parts."""
    return nodes.map(lambda t: t.real.clone() if t.is_complex() else t, x)


def conj(x: Tree) -> Tree:
    """The complex conjugates."""
    return nodes.map(lambda t: t.conj().resolve_conj() if t.is_complex() else t, x)


# ---- across leaves ---------------------------------------------------------------------------


def _sum(x: Tensor) -> Tensor:
    return x.sum()


def sum(x: Tree) -> Tensor:
    """The sum of all elements of all leaves, () in float32 or wider; 0 for an empty tree."""
    return reduce(_sum, _sum, x, empty=0.0)


def _norm(x: Tensor, order: tuple[float]) -> Tensor:  # in a tuple, because it must never become a tensor
    return torch.linalg.vector_norm(x, order[0]) if x.numel() else x.abs().sum()


def norm(x: Tree, ord: float = 2, squared: bool = False) -> Tensor:
    r"""The norm of all leaves taken together, (sum over i of abs(x_i)^ord)^(1/ord).

    Args:
        x: a tree.
        ord: 1, 2, `float("inf")` or any other positive order.
        squared: return the square, whose derivative is smooth at zero (for ord 2).

    Returns:
        () tensor in float32 or wider; 0 for an empty tree.

    Example:
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
    """The inner product sum(conj(x) * y) over all leaves, () in float32 or wider."""
    return reduce(_vdot, _sum, x, y, empty=0.0)


def _extreme(name: str, x: Tree, largest: bool) -> Tensor:
    _real_only(name, x)
    f = _max if largest else _min
    return reduce(f, f, x, empty=float("-inf") if largest else float("inf"))


def _max(x: Tensor) -> Tensor:
    return x.amax() if x.numel() else x.new_full((), float("-inf"))


def _min(x: Tensor) -> Tensor:
    return x.amin() if x.numel() else x.new_full((), float("inf"))


def max(x: Tree) -> Tensor:
    """The largest element of all leaves; minus infinity for an empty tree."""
    return _extreme("max", x, True)


def min(x: Tree) -> Tensor:
    """The smallest element of all leaves; infinity for an empty tree."""
    return _extreme("min", x, False)


def _all_finite(x: Tensor) -> Tensor:
    return torch.isfinite(x).all()


def all_finite(x: Tree) -> Tensor:
    """Whether no element of any leaf is infinite or NaN, () bool."""
    return reduce(_all_finite, torch.all, x, empty=True)


def _close(x: Tensor, y: Tensor, tolerance: tuple[float, float, bool]) -> Tensor:
    return torch.isclose(x, y, *tolerance).all()


def _every(x: Tensor, **_: Any) -> Tensor:
    return x.all()


def allclose(a: Tree, b: Tree, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether abs(a - b) <= atol + rtol * abs(b) everywhere, () bool.

    Raises:
        ValueError: trees that differ in structure or shape, naming the path.
    """
    return reduce(_close, _every, a, b, empty=True, tolerance=(rtol, atol, equal_nan))


def size(x: Tree) -> int:
    """The number of elements of all leaves.

    Example:
        >>> from optfx import tree
        >>> tree.size({"w": torch.zeros(2, 3), "b": torch.zeros(())})
        7
    """
    return builtins.sum(leaf.numel() for leaf in nodes.leaves(x))
