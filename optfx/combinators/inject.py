"""Hyperparameters that live in the state."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from optfx import core, tree
from optfx.core import GradientTransformation
from optfx.tree import Tree


class InjectState(NamedTuple):
    """The state of `inject_hyperparams`."""

    hyperparams: dict[str, Tensor]  # every number of the inner transform by path, () float64
    inner: Tree  # the state of the inner transform


@tree.record
class inject_hyperparams(core.Wrapper):
    """Keep the numbers of a transform in the state, to be read, set, saved and vmapped like any state.

    Every number of `inner`, those of its schedules included, becomes a () float64 tensor in the state; a tensor is
    copied as it is. Read and set them with `optfx.tree.get` and `optfx.tree.set`, by the paths of `optfx.hyperparams`.
    A new value compiles nothing new.

    Args:
        inner: a transform.

    Reference: optax, `inject_hyperparams` (which takes a factory, and rounds to the dtype of the parameters).

    Example:
        >>> import torch, optfx
        >>> tx = optfx.inject_hyperparams(optfx.sgd(0.1))
        >>> params = {"w": torch.ones(1)}
        >>> state = optfx.tree.set(tx.init(params), learning_rate=0.5)
        >>> tx.update(params, state)[0], state.hyperparams
        ({'w': tensor([-0.5000])}, {'0.learning_rate': tensor(0.5000, dtype=torch.float64)})
    """

    inner: GradientTransformation

    def begin(self, params: Tree) -> InjectState:
        device = core.counter(params).device

        def own(x: Any) -> Tensor:
            if isinstance(x, Tensor):
                return x.detach().clone()
            return torch.tensor(x, dtype=tree.scalar_dtype(device), device=device)

        numbers = {path: own(x) for path, x in core.numbers(self.inner).items()}
        return InjectState(numbers, core.with_numbers(self.inner, numbers).begin(params))

    def parts(self, state: Any) -> dict[str, Any]:
        if not isinstance(state, InjectState):
            raise ValueError(f"inject_hyperparams: expected its state, got a {type(state).__name__}")
        return {"": (core.with_numbers(self.inner, state.hyperparams), state.inner)}

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        updates, inner = core.with_numbers(self.inner, state.hyperparams).run(updates, state.inner, params, extra)
        return updates, InjectState(state.hyperparams, inner)
