"""Many optimizers as one: from a list of similar records to a record with a leading dimension over them, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from optfx.core import as_transform, hyper_fields, is_number
from optfx.tree import Tree, leaves, paths, replace, unflatten_like
from optfx.tree.nodes import entries
from optfx.tree.record import is_record


def stack(txs: Sequence[Any]) -> Any:
    """One batched optimizer from a list of similar ones.

    Tensors are stacked, and numbers that differ become a tensor: float64, or int64 where all are integers. Numbers that
    are equal stay as they are. Everything else (flags, functions, labels, masks) must be equal.

    Args:
        txs: optimizers, schedules or other records of the same structure.

    Returns:
        A record like each of them, whose tensors have a leading dimension over them, for `torch.func.vmap`.

    Raises:
        ValueError: an empty list; optimizers that differ in more than numbers, naming the path.

    Example:
        >>> import optfx
        >>> from optfx import sweep
        >>> sweep.stack([optfx.scale_by_adam(b1=0.8), optfx.scale_by_adam(b1=0.9)]).b1
        tensor([0.8000, 0.9000], dtype=torch.float64)
    """
    if not txs:
        raise ValueError("stack: no optimizers")
    return _stack("", [x if is_record(x) else as_transform(x) for x in txs])


def _stack(path: str, values: list[Any]) -> Any:
    first = values[0]

    def below(name: Any, parts: list[Any]) -> Any:
        return _stack(f"{path}.{name}" if path else str(name), parts)

    if all(map(is_number, values)):
        return _stack_numbers(path, values)
    if any(type(v) is not type(first) for v in values):
        raise ValueError(_differ(path, values, type))
    if is_record(first):
        names = [f.name for f in dataclasses.fields(first)]
        return replace(first, **{name: below(name, [getattr(v, name) for v in values]) for name in names})
    if isinstance(first, (tuple, list, dict)):
        if any(len(v) != len(first) for v in values):
            raise ValueError(_differ(path, values, len))
        if isinstance(first, dict):
            if any(v.keys() != first.keys() for v in values):
                raise ValueError(_differ(path, values, list))
            return dict(zip(first, _alike([below(k, [v[k] for v in values]) for k in first], len(values)), strict=True))
        parts = _alike([below(i, list(column)) for i, column in enumerate(zip(*values, strict=True))], len(values))
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    if any(v != first for v in values):
        raise ValueError(_differ(path, values, lambda v: v))
    return first


def _stack_numbers(path: str, values: list[Any]) -> Any:
    tensors = [v for v in values if isinstance(v, Tensor)]
    if not tensors:
        if all(v == values[0] for v in values):
            return values[0]
        return torch.tensor(values, dtype=torch.int64 if all(isinstance(v, int) for v in values) else torch.float64)
    if any(t.shape != tensors[0].shape for t in tensors) or (len(tensors) < len(values) and tensors[0].ndim):
        raise ValueError(_differ(path, values, lambda v: tuple(v.shape) if isinstance(v, Tensor) else v))
    like = tensors[0]
    return torch.stack([v if isinstance(v, Tensor) else torch.full_like(like, v, dtype=torch.float64) for v in values])


def _alike(parts: list[Any], n: int) -> list[Any]:
    """The entries of one container: all tensors if one is, as a record requires."""
    if not any(isinstance(p, Tensor) for p in parts):
        return parts
    return [
        _stack_numbers("", [torch.as_tensor(p)] * n) if is_number(p) and not isinstance(p, Tensor) else p for p in parts
    ]


def _differ(path: str, values: list[Any], what: Any) -> str:
    i = next(i for i, v in enumerate(values) if what(v) != what(values[0]))
    where = f"at {path!r} " if path else ""
    return f"stack: the optimizers differ {where}in more than numbers: {values[0]!r} in 0, {values[i]!r} in {i}"


def batch_size(who: str, tree: Tree) -> int:
    """The leading dimension that all leaves share.

    Raises:
        ValueError: no leaves, or a leaf without this dimension, naming its path.
    """
    found = leaves(tree)
    if not found:
        raise ValueError(f"{who}: there are no tensors, so nothing is batched")
    for path, x in zip(paths(tree), found, strict=True):
        if not isinstance(x, Tensor) or not x.ndim or x.shape[0] != (found[0].shape or (None,))[0]:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{who}: {path!r} is {shape}, expected one leading dimension, the same for every tensor")
    return found[0].shape[0]


def unstack(tx: Any) -> list[Any]:
    """The optimizers in a batched one, the inverse of `stack`. Floats that differed are now () tensors.

    Args:
        tx: a record all of whose tensors have the same leading dimension.

    Raises:
        ValueError: no tensors, or a tensor without this leading dimension, naming its path.

    Example:
        >>> import torch, optfx
        >>> from optfx import sweep
        >>> [tx.learning_rate for tx in sweep.unstack(optfx.scale_by_learning_rate(torch.tensor([0.1, 0.2])))]
        [tensor(0.1000), tensor(0.2000)]
    """
    return [unflatten_like(tx, [x[i] for x in leaves(tx)]) for i in range(batch_size("unstack", tx))]


def in_axes(tx: Any) -> Any:
    """The axes for `torch.func.vmap` of a partly batched record: 0 for a batch, None for what all share.

    A number is a batch if it has a dimension. What else may be a tensor (a key, a table, a mask) has dimensions of its
    own: it is a batch if its leading dimension is that of the numbers, or if no number is a batch. Where a shared
    tensor happens to have that length, write the axes yourself.

    Args:
        tx: an optimizer, a schedule or any tree.

    Returns:
        A tree like `tx` with 0 or None for each tensor, to pass as `in_dims`.

    Example:
        >>> import torch, optfx
        >>> from optfx import sweep
        >>> tx = optfx.sgd(torch.tensor([0.1, 0.2]), momentum=torch.tensor(0.9))
        >>> torch.func.vmap(lambda tx: tx.steps[-1].learning_rate * tx.steps[0].decay, (sweep.in_axes(tx),))(tx)
        tensor([0.0900, 0.1800])
    """
    sizes = {x.shape[0] for x in _numbers(tx) if isinstance(x, Tensor) and x.ndim}
    return unflatten_like(tx, [0 if x.ndim and (not sizes or x.shape[0] in sizes) else None for x in leaves(tx)])


def _numbers(x: Any) -> list[Any]:
    """The number fields of the records in a tree."""
    own = [getattr(x, name) for name in hyper_fields(x)] if is_record(x) else []
    return own + [value for _, below in entries(x) or () for value in _numbers(below)]


@dataclasses.dataclass(frozen=True)
class stacked:
    """Marks initial parameters as one set for each member of a sweep: `fit(..., init=stacked(params))`.

    Args:
        params: a tree whose leaves have a leading dimension over the members.

    Raises:
        ValueError: a leaf without this dimension, naming its path.
    """

    params: Tree

    def __post_init__(self) -> None:
        batch_size("stacked", self.params)
