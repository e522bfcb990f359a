"""The hyperparameters of an optimizer as they are now, and the axes of a batch of optimizers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from optfx.core.hyper import at, hyper_fields
from optfx.core.transform import GradientTransformation
from optfx.tree import Tree, leaves, unflatten_like
from optfx.tree.record import is_record


def hyperparams(tx: GradientTransformation, state: Tree) -> dict[str, float | Tensor]:
    """The hyperparameters that the next update will use, by path; schedules are evaluated, nothing is synchronized.

    Args:
        tx: an optimizer or any other transform.
        state: its state.

    Returns:
        `{path: float or () float64 tensor}`; the path is that of the transform in the chain and the field's name.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.chain(optfx.clip_by_global_norm(1.0), optfx.sgd(optfx.linear_schedule(0.1, 0.0, 10)))
        >>> optfx.hyperparams(tx, tx.init({"w": torch.zeros(2)}))
        {'0.max_norm': 1.0, '1.0.learning_rate': tensor(0.1000, dtype=torch.float64)}
    """
    found: dict[str, float | Tensor] = {}
    _collect(tx, state, "", found)
    return found


def _collect(tx: GradientTransformation, state: Any, path: str, found: dict[str, float | Tensor]) -> None:
    if is_record(tx):
        for name in hyper_fields(tx):
            value = at(getattr(state, "count", None), getattr(tx, name))  # type: ignore[arg-type]
            if isinstance(value, (int, float, Tensor)):
                found[f"{path}.{name}" if path else name] = value
    for name, (part, inner) in tx.parts(state).items():
        _collect(part, inner, ".".join(p for p in (path, name) if p), found)


def in_axes(tx: Any) -> Any:
    """`torch.func.vmap`'s axes for a record whose tensors are partly batched: 0 for (n, ...), None for ().

    Args:
        tx: an optimizer, schedule or any tree; tensors of at least one dimension are batches.

    Returns:
        A tree like `tx` with 0 or None in place of each tensor, for `in_dims`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.sgd(torch.tensor([0.1, 0.2]), momentum=torch.tensor(0.9))
        >>> torch.func.vmap(lambda tx: tx.steps[-1].learning_rate * tx.steps[0].decay, (optfx.in_axes(tx),))(tx)
        tensor([0.0900, 0.1800])
    """
    return unflatten_like(tx, [0 if x.ndim else None for x in leaves(tx)])
