"""Transforms side by side: each is given the same updates, and what they make of these is merged."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from optfx import core, tree
from optfx.core import GradientTransformation
from optfx.tree import Tree


def run_apart(
    tx: core.Wrapper, state: Tree, updates: Tree, params: Tree, extra: dict[str, Any]
) -> tuple[dict[str, Tree], dict[str, Tree]]:
    """What each transform inside makes of the same updates, and the new states, by name."""
    made, new = {}, {}
    for name, (part, inner) in tx.parts(state).items():
        made[name], new[name] = part.run(updates, inner, params, extra)
    return made, new


@tree.record
class parallel(core.Wrapper):
    """Give the same updates to several transforms, and merge what they make of them.

    Args:
        branches: transforms, in a tuple or a dict by name.
        merge: a function of as many trees of updates as there are branches; None for their sum.

    The state is a tuple or a dict like `branches`.

    Reference: HeavyBall, `Parallel`.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.parallel((optfx.scale_by_sign(), optfx.scale(0.5)))
        >>> tx.update({"w": torch.tensor([4.0, -2.0])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 3., -2.])}
    """

    holds, apart = "branches", True
    branches: tuple[GradientTransformation, ...] | dict[str, GradientTransformation]
    merge: Callable[..., Tree] | None = None

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        made, new = run_apart(self, state, updates, params, extra)
        merged = self.merge(*made.values()) if self.merge else functools.reduce(tree.add, made.values())
        return merged, new if isinstance(self.branches, dict) else tuple(new.values())


def with_norm_of(d: Tensor, m: Tensor) -> Tensor:
    size = vector_norm(d)
    return d * (vector_norm(m) / torch.where(size == 0, 1.0, size))


class GraftState(NamedTuple):
    """The state of `graft`."""

    direction: Tree  # of the transform that gives the direction
    magnitude: Tree  # of the one that gives the norm


@tree.record
class graft(core.Wrapper):
    r"""Take the direction of one transform's updates, and the norm of another's, leaf by leaf.

    $$u = \\frac{\\lVert m \\rVert}{\\lVert d \\rVert}\\, d$$

    Args:
        direction: makes $d$.
        magnitude: makes $m$.

    Both are given the same updates.

    Reference: Agarwal et al., "Disentangling Adaptive Gradient Methods from Learning Rates", 2020,
        <https://arxiv.org/abs/2002.11803>.

    Example:
        >>> import torch, optfx
        >>> tx = optfx.graft(optfx.scale_by_sign(), optfx.identity())
        >>> tx.update({"w": torch.tensor([4.0, -3.0])}, tx.init({"w": torch.zeros(2)}))[0]
        {'w': tensor([ 3.5355, -3.5355])}
    """

    holds, apart = ("direction", "magnitude"), True
    direction: GradientTransformation
    magnitude: GradientTransformation

    def begin(self, params: Tree) -> GraftState:
        return GraftState(self.direction.begin(params), self.magnitude.begin(params))

    def step(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        made, new = run_apart(self, state, updates, params, extra)
        return tree.leafwise(with_norm_of, made["direction"], made["magnitude"]), GraftState(**new)
