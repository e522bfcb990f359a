"""Hyperparameters that live in the state."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx.core import GradientTransformation, as_transform, counter, update_inside, wide
from optfx.tree import Tree, record
from optfx.tree.record import walk


class InjectState(NamedTuple):
    """The state of `inject_hyperparams`."""

    transform: Any  # the transform itself: its hyperparameters are the leaves, () float64
    inner: Tree  # its state


@record
class inject_hyperparams(GradientTransformation):
    """Keep a transform in its own state, so that its hyperparameters are read, set, saved and vmapped like any state.

    Every float of `inner`, those of its schedules too, becomes a () float64 tensor of the state; a tensor becomes a
    copy of itself. Read and set them with `optfx.tree.get` and `optfx.tree.set`; a new value compiles nothing new.

    Args:
        inner: a transform.

    Reference: optax, `inject_hyperparams` (which takes a factory, and rounds to the dtype of the parameters).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.inject_hyperparams(optfx.sgd(0.1))
        >>> params = {"w": torch.ones(1)}
        >>> state = optfx.tree.set(tx.init(params), learning_rate=0.5)
        >>> tx.update(params, state)[0]
        {'w': tensor([-0.5000])}
    """

    inner: GradientTransformation

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", as_transform(self.inner))

    def parts(self, state: Any) -> dict[str, Any]:
        return {"": (state.transform, state.inner)}

    def init(self, params: Tree) -> InjectState:
        device = counter(params).device

        def own(_: str, v: Any) -> Any:
            if isinstance(v, Tensor):
                return v.detach().clone()
            return torch.tensor(v, dtype=wide(device), device=device) if type(v) is float else v

        inner = walk(own, self.inner)
        return InjectState(inner, inner.init(params))

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        updates, inner = update_inside(state.transform, updates, state.inner, params, extra)
        return updates, InjectState(state.transform, inner)
